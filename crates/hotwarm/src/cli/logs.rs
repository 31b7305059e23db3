//! `hotwarm logs`: a member's output.
//!
//! Declared; not built yet.

use clap::Args;

use super::{Failure, Global, not_built_yet};

/// Show what a member wrote on its standard output and error
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Group and member, such as web/a
    #[arg(value_name = "MEMBER")]
    pub member: String,
    /// Wait for more
    #[arg(long, short)]
    pub follow: bool,
    /// How many of the last lines
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 100)]
    pub lines: usize,
}

pub(super) fn logs(_args: &LogsArgs, _global: &Global) -> Result<(), Failure> {
    not_built_yet("logs")
}
