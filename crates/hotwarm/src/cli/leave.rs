//! `hotwarm leave`: a node goes for good.
//!
//! Declared; not built yet.

use clap::Args;

use super::{Failure, Global, not_built_yet};

/// Take this node out of the cluster for good and remove its keys
#[derive(Debug, Args)]
pub struct LeaveArgs {
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
}

pub(super) fn leave(_args: &LeaveArgs, _global: &Global) -> Result<(), Failure> {
    not_built_yet("leave")
}
