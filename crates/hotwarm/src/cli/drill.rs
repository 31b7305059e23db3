//! `hotwarm drill`: a fault on purpose, measured.
//!
//! Declared; not built yet.

use clap::{Args, ValueEnum};

use super::{Failure, Global, not_built_yet};

/// What is done to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// Kill a member's program
    Kill,
    /// Stop a member's program without ending it
    Freeze,
    /// Kill everything of a node
    NodeKill,
    /// Cut a node off from the others
    Cut,
}

/// Cause a fault on purpose and measure what clients see
#[derive(Debug, Args)]
pub struct DrillArgs {
    #[arg(value_name = "FAULT", value_enum)]
    pub fault: Fault,
    /// A member such as web/a, or a node
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// Requests per second that the drill itself makes
    #[arg(long, value_name = "RATE", default_value_t = 100)]
    pub load: u32,
    /// How long a freeze or cut lasts
    #[arg(long = "for", value_name = "DURATION", default_value = "10s", value_parser = super::duration)]
    pub lasting: std::time::Duration,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
}

pub(super) fn drill(_args: &DrillArgs, _global: &Global) -> Result<(), Failure> {
    not_built_yet("drill")
}
