//! `hotwarm apply`: a changed configuration into the running cluster.
//!
//! Declared; not built yet.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, Global, not_built_yet};

/// Show how a configuration file differs from what the cluster runs with, and change the cluster
#[derive(Debug, Args)]
pub struct ApplyArgs {
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Show the difference and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
}

pub(super) fn apply(_args: &ApplyArgs, _global: &Global) -> Result<(), Failure> {
    not_built_yet("apply")
}
