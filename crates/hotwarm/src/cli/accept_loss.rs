//! `hotwarm accept-loss`: going on at the price of data.
//!
//! Declared; not built yet.

use clap::Args;

use super::{Failure, Global, not_built_yet};

/// Go on although acknowledged writes may be lost; says first what is at risk
#[derive(Debug, Args)]
pub struct AcceptLossArgs {
    #[arg(value_name = "GROUP")]
    pub group: String,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
}

pub(super) fn accept_loss(_args: &AcceptLossArgs, _global: &Global) -> Result<(), Failure> {
    not_built_yet("accept-loss")
}
