//! `hotwarm leave`: a node goes for good.
//!
//! It takes the node out of the configuration in force, as `apply` would, in two steps: its work while it runs, so that it ends its members
//! itself; the node once it is stopped, so that nobody has to guess what goes on there. The same command does whichever step is next.

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use hotwarm_core::ids::NodeId;

use super::failure::{Failure, print};
use super::remote::client;
use super::{Global, apply};
use crate::api::types::{Configuration, NodeStatus, Status};
use crate::codes::Code;
use crate::config::{self, Errors};

/// Take a node out of the cluster for good: first its members and listeners, then, once it is stopped, the node
#[derive(Debug, Args)]
pub struct LeaveArgs {
    #[arg(value_name = "NODE", value_parser = NonEmptyStringValueParser::new())]
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
    let now: Configuration = client.get("/api/v1/config")?;
    let id = NodeId::new(node);
    let without = if known.leased { config::without_work_of(&now.text, &id) } else { config::without_node(&now.text, &id) };
    let text = unneeded(&status, known, without)?;
    let next = if known.leased {
        if text == now.text {
            let text = format!("node {node} has no work left, and still runs");
            return Err(Failure::refused(Code::STILL_NEEDED, text)
                .hint(format!("on {node}: `sudo systemctl disable --now hotwarm`; then the same command again")));
        }
        format!("  on {node}, once its members have ended: sudo systemctl disable --now hotwarm\n  then again: hotwarm leave {node}\n")
    } else {
        let next = format!("  on {node}, if it is ever found again: delete its data directory, which holds its keys\n");
        next + "  on the others: put the changed configuration into the file too, so that it says what is in force\n"
    };
    apply::change(&client, &text, args.dry_run, args.yes, global.json)?;
    if args.dry_run || global.json {
        return Ok(());
    }
    print(&format!("next:\n{next}"))
}

/// The configuration without the node's part, or all that is in the way of it and the way out.
fn unneeded(status: &Status, node: &NodeStatus, without: Result<String, Errors>) -> Result<String, Failure> {
    let name = &node.name;
    let here: Vec<_> = status.groups.iter().flat_map(|group| &group.members).filter(|member| member.node == *name).collect();
    let names = |serving: bool| here.iter().filter(|m| m.serving || !serving).map(|m| m.name.as_str()).collect::<Vec<_>>();
    let (serving, members) = (if node.leased { names(true) } else { Vec::new() }, names(false).join(", "));
    let (mut needed, mut first) = (Vec::new(), Vec::new());
    if !serving.is_empty() {
        needed.push(format!("{} serve{} there", serving.join(", "), if serving.len() == 1 { "s" } else { "" }));
        first.push(format!("`hotwarm drain {name}`"));
    }
    let text = match without {
        Ok(text) => text,
        // Without members of its own, it is the node itself that the file needs.
        Err(errors) if here.is_empty() => return Err(errors.into()),
        Err(errors) => {
            let wrong: Vec<_> = errors.errors.iter().map(|error| format!("{} ({})", error.message, error.code)).collect();
            needed.push(format!("the configuration without {members} is wrong: {}", wrong.join("; ")));
            first.push(format!("`hotwarm apply` a file without {members} and with a `mode` that fits the members left"));
            String::new()
        }
    };
    if needed.is_empty() {
        return Ok(text);
    }
    Err(Failure::refused(Code::STILL_NEEDED, format!("node {name} is still needed: {}", needed.join("; ")))
        .hint(format!("first {}; then `hotwarm leave {name}` again", first.join(", then "))))
}
