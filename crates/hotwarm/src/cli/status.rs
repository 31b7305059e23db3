//! `hotwarm status`: the state of the cluster at a glance.
//!
//! Declared; not built yet.

use clap::Args;

use super::{Failure, Global, not_built_yet};

/// Show nodes, groups, members and what is wrong
#[derive(Debug, Args)]
pub struct StatusArgs {}

pub(super) fn status(_args: &StatusArgs, _global: &Global) -> Result<(), Failure> {
    not_built_yet("status")
}
