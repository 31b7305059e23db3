//! `hotwarm run`: what it takes; the running itself is the agent's, wired by `main`.

use clap::Args;

use super::NodeArg;

/// Run this node until it is told to stop
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub node: NodeArg,
}
