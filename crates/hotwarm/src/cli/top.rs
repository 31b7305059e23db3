//! `hotwarm top`: a live picture.
//!
//! Declared; not built yet.

use clap::Args;

use super::{Failure, Global, not_built_yet};

/// Watch groups and members live
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Interval between pictures
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = super::duration)]
    pub every: std::time::Duration,
}

pub(super) fn top(_args: &TopArgs, _global: &Global) -> Result<(), Failure> {
    not_built_yet("top")
}
