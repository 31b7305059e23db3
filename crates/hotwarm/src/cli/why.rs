//! `hotwarm why`: why a group is as it is.
//!
//! Declared; not built yet.

use clap::Args;

use super::{Failure, Global, not_built_yet};

/// Explain a group: what holds its state, which rule refuses what, what if a member died now
#[derive(Debug, Args)]
pub struct WhyArgs {
    #[arg(value_name = "GROUP")]
    pub group: String,
}

pub(super) fn why(_args: &WhyArgs, _global: &Global) -> Result<(), Failure> {
    not_built_yet("why")
}
