//! `hotwarm drain`: members and nodes out of service, and back.
//!
//! Declared; not built yet.

use clap::Args;

use super::{Failure, Global, not_built_yet};

/// Take a member or a node out of service, gently; the way back is `undrain`
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// A member such as web/a, or a node
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
}

/// Let a drained member or node serve again
#[derive(Debug, Args)]
pub struct UndrainArgs {
    /// A member such as web/a, or a node
    #[arg(value_name = "TARGET")]
    pub target: String,
}

pub(super) fn drain(_args: &DrainArgs, _global: &Global) -> Result<(), Failure> {
    not_built_yet("drain")
}

pub(super) fn undrain(_args: &UndrainArgs, _global: &Global) -> Result<(), Failure> {
    not_built_yet("undrain")
}
