//! `hotwarm switchover`: a planned change of the hot member.
//!
//! Declared; not built yet.

use clap::Args;

use super::{Failure, Global, not_built_yet};

/// Make another member hot, without losing a request; the way back is the same command
#[derive(Debug, Args)]
pub struct SwitchoverArgs {
    #[arg(value_name = "GROUP")]
    pub group: String,
    /// Which member becomes hot [default: the best candidate]
    #[arg(long, value_name = "MEMBER")]
    pub to: Option<String>,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
}

pub(super) fn switchover(_args: &SwitchoverArgs, _global: &Global) -> Result<(), Failure> {
    not_built_yet("switchover")
}
