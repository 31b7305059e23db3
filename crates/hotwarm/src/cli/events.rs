//! `hotwarm events`: what happened, with reasons.
//!
//! Declared; not built yet.

use clap::Args;

use super::{Failure, Global, not_built_yet};

/// Show what happened, and why
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only this group's
    #[arg(value_name = "GROUP")]
    pub group: Option<String>,
    /// Wait for more
    #[arg(long, short)]
    pub follow: bool,
    /// How many of the past
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 50)]
    pub lines: usize,
}

pub(super) fn events(_args: &EventsArgs, _global: &Global) -> Result<(), Failure> {
    not_built_yet("events")
}
