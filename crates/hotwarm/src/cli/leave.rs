//! `hotwarm leave`: a node goes for good.
//!
//! It takes the node out of the configuration in force, as `apply` would; a node that still serves as the one hot member is refused.

use clap::Args;
use hotwarm_core::ids::NodeId;

use super::failure::{Failure, print};
use super::remote::client;
use super::{Global, apply};
use crate::api::types::{Configuration, Status};
use crate::codes::Code;
use crate::config;

/// Take a node out of the cluster for good: it is removed from the configuration in force, with its members
#[derive(Debug, Args)]
pub struct LeaveArgs {
    #[arg(value_name = "NODE")]
    pub node: String,
    /// Show the difference and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
}

pub(super) fn leave(args: &LeaveArgs, global: &Global) -> Result<(), Failure> {
    let client = client(global)?;
    let status: Status = client.get("/api/v1/status")?;
    let node = &args.node;
    if !status.nodes.iter().any(|known| known.name == *node) {
        return Err(Failure::failed(Code::NOT_THERE, format!("node {node} not known")).hint("`hotwarm status` lists the nodes"));
    }
    let serving = status.groups.iter().flat_map(|group| &group.members).filter(|member| member.node == *node && member.serving);
    let serving: Vec<&str> = serving.map(|member| member.name.as_str()).collect();
    if !serving.is_empty() {
        let text = format!("node {node} is still needed: {} serve{} there", serving.join(", "), if serving.len() == 1 { "s" } else { "" });
        return Err(Failure::refused(Code::STILL_NEEDED, text).hint(format!("`hotwarm drain {node}` first")));
    }
    let now: Configuration = client.get("/api/v1/config")?;
    let text = config::without_node(&now.text, &NodeId::new(node))?;
    apply::change(&client, &text, args.dry_run, args.yes, global.json)?;
    if args.dry_run || global.json {
        return Ok(());
    }
    print(&format!(
        "next:\n  on {node}: sudo systemctl disable --now hotwarm, then delete its data directory, which holds its keys\n  \
         on the others: put the changed configuration into the file too, so that it says what is in force\n"
    ))
}
