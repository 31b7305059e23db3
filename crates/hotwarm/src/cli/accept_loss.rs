//! `hotwarm accept-loss`: going on at the price of data.
//!
//! The engines of today keep no data of the group's, so there is nothing to lose and nothing to accept: it says so.

use clap::Args;

use super::Global;
use super::failure::Failure;
use super::remote::{client, part};
use crate::api::types::GroupStatus;
use crate::codes::Code;

/// Go on although acknowledged writes may be lost; says first what is at risk
#[derive(Debug, Args)]
pub struct AcceptLossArgs {
    #[arg(value_name = "GROUP")]
    pub group: String,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
}

pub(super) fn accept_loss(args: &AcceptLossArgs, global: &Global) -> Result<(), Failure> {
    let group: GroupStatus = client(global)?.get(&format!("/api/v1/groups/{}", part(&args.group)))?;
    let text = format!("hotwarm keeps no data for group {}: no promotion waits for data, and there is no loss to accept", group.name);
    Err(Failure::refused(Code::NOTHING_TO_ACCEPT, text).hint(format!("`hotwarm why {}` tells what holds the group", group.name)))
}
