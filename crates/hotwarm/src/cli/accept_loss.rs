//! `hotwarm accept-loss`: going on at the price of data.
//!
//! The engines of today keep no data of the group's, so there is nothing for hotwarm to accept: it says so, and where a promotion waits for what
//! the user's own hooks say of data, what to do instead.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::Global;
use super::failure::Failure;
use super::remote::{client, part};
use crate::api::types::GroupStatus;
use crate::codes::Code;

/// Go on although acknowledged writes may be lost; says first what is at risk
#[derive(Debug, Args)]
pub struct AcceptLossArgs {
    #[arg(value_name = "GROUP", value_parser = NonEmptyStringValueParser::new())]
    pub group: String,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
}

pub(super) fn accept_loss(args: &AcceptLossArgs, global: &Global) -> Result<(), Failure> {
    let group: GroupStatus = client(global)?.get(&format!("/api/v1/groups/{}", part(&args.group)))?;
    if let Some(waits) = group.refusal.as_ref().filter(|refusal| refusal.code == "too-few-reports") {
        let text = format!("group {} waits for its `position` hooks: {}", group.name, waits.text);
        let hint = "mend the hook on the members that do not answer; to go on without knowing, at the price of acknowledged writes, `hotwarm apply` a file in \
                    which the group has no `position` hook";
        return Err(Failure::refused(Code::NOTHING_TO_ACCEPT, text).hint(hint));
    }
    let text = format!("hotwarm keeps no data for group {}: no promotion waits for data, and there is no loss to accept", group.name);
    Err(Failure::refused(Code::NOTHING_TO_ACCEPT, text).hint(format!("`hotwarm why {}` tells what holds the group", group.name)))
}
