//! `hotwarm recover-quorum`: the way out when most voters are lost for good.
//!
//! Declared; not built yet.

use clap::Args;

use super::{Failure, Global, not_built_yet};

/// Make a new cluster from what is left when most voters are lost for good
#[derive(Debug, Args)]
pub struct RecoverQuorumArgs {
    /// Nodes that are lost and will never come back
    #[arg(long, required = true, value_delimiter = ',', value_name = "NODE")]
    pub lost: Vec<String>,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
}

pub(super) fn recover_quorum(_args: &RecoverQuorumArgs, _global: &Global) -> Result<(), Failure> {
    not_built_yet("recover-quorum")
}
