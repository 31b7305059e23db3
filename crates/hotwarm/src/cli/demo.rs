//! `hotwarm demo`: three nodes on one machine, with faults.
//!
//! Declared; not built yet.

use clap::Args;

use super::{Failure, Global, not_built_yet};

/// Show it all on this machine: three nodes, load, faults, a verdict
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Leave it running afterwards
    #[arg(long)]
    pub keep: bool,
    /// First of the ports: node i uses it + 10 i for peers and the next for the API
    #[arg(long, value_name = "PORT", default_value_t = 7400)]
    pub base_port: u16,
}

pub(super) fn demo(_args: &DemoArgs, _global: &Global) -> Result<(), Failure> {
    not_built_yet("demo")
}
