//! `hotwarm leave`: a node goes for good.
//!
//! It takes the node out of the configuration in force, as `apply` would, in two steps: its work while it runs, so that it ends its members
//! itself; the node once it is stopped, so that nobody has to guess what goes on there. The same command does whichever step is next.

use clap::Args;
use hotwarm_core::ids::NodeId;

use super::failure::{Failure, print};
use super::remote::client;
use super::{Global, apply};
use crate::api::types::{Configuration, Status};
use crate::codes::Code;
use crate::config;

/// Take a node out of the cluster for good: first its members and listeners, then, once it is stopped, the node
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
    let Some(known) = status.nodes.iter().find(|known| known.name == *node) else {
        return Err(Failure::failed(Code::NOT_THERE, format!("node {node} not known")).hint("`hotwarm status` lists the nodes"));
    };
    let serving = status.groups.iter().flat_map(|group| &group.members).filter(|member| member.node == *node && member.serving);
    let serving: Vec<&str> = serving.map(|member| member.name.as_str()).collect();
    if known.leased && !serving.is_empty() {
        let text = format!("node {node} is still needed: {} serve{} there", serving.join(", "), if serving.len() == 1 { "s" } else { "" });
        return Err(Failure::refused(Code::STILL_NEEDED, text).hint(format!("`hotwarm drain {node}` first")));
    }
    let now: Configuration = client.get("/api/v1/config")?;
    let (text, next) = if known.leased {
        let text = config::without_work_of(&now.text, &NodeId::new(node))?;
        if text == now.text {
            let text = format!("node {node} has no work left, and still runs");
            return Err(Failure::refused(Code::STILL_NEEDED, text)
                .hint(format!("on {node}: `sudo systemctl disable --now hotwarm`; then the same command again")));
        }
        (
            text,
            format!("  on {node}, once its members have ended: sudo systemctl disable --now hotwarm\n  then again: hotwarm leave {node}\n"),
        )
    } else {
        let text = config::without_node(&now.text, &NodeId::new(node))?;
        let next = format!("  on {node}, if it is ever found again: delete its data directory, which holds its keys\n");
        (text, next + "  on the others: put the changed configuration into the file too, so that it says what is in force\n")
    };
    apply::change(&client, &text, args.dry_run, args.yes, global.json)?;
    if args.dry_run || global.json {
        return Ok(());
    }
    print(&format!("next:\n{next}"))
}
