//! `hotwarm pause`: automation off and on.
//!
//! Declared; not built yet.

use clap::Args;

use super::{Failure, Global, not_built_yet};

/// Stop deciding by itself: no promotion, no lease expiry; the way back is `resume`
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// [default: all groups]
    #[arg(value_name = "GROUP")]
    pub group: Option<String>,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
}

/// Decide by itself again
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// [default: all groups]
    #[arg(value_name = "GROUP")]
    pub group: Option<String>,
}

pub(super) fn pause(_args: &PauseArgs, _global: &Global) -> Result<(), Failure> {
    not_built_yet("pause")
}

pub(super) fn resume(_args: &ResumeArgs, _global: &Global) -> Result<(), Failure> {
    not_built_yet("resume")
}
