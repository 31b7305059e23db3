//! `hotwarm drain`: members and nodes out of service, and back.
//!
//! It asks for it and waits until nothing serves there any more; what a rule keeps serving it names.

use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::failure::{Failure, print, tell};
use super::remote::{client, member, part, print_json, wait};
use super::{Global, table};
use crate::api::client::Client;
use crate::api::types::{Done, GroupStatus, MemberStatus, Status};
use crate::codes::Code;

/// Take a member or a node out of service, gently; the way back is `undrain`
#[derive(Debug, Args)]
pub struct DrainArgs {
    /// A member such as web/a, or a node
    #[arg(value_name = "TARGET", value_parser = NonEmptyStringValueParser::new())]
    pub target: String,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
}

/// Let a drained member or node serve again
#[derive(Debug, Args)]
pub struct UndrainArgs {
    /// A member such as web/a, or a node
    #[arg(value_name = "TARGET", value_parser = NonEmptyStringValueParser::new())]
    pub target: String,
}

/// Longer than requests in flight are given with the defaults.
const OVER_WITHIN: Duration = Duration::from_secs(60);

/// The API's path of a member or node, without what is asked of it.
fn path(target: &str) -> Result<String, Failure> {
    Ok(if target.contains('/') { format!("/api/v1/members/{}", member(target)?) } else { format!("/api/v1/nodes/{}", part(target)) })
}

/// The members that `target` names, with their groups.
fn members<'a>(status: &'a Status, target: &'a str) -> impl Iterator<Item = (&'a GroupStatus, &'a MemberStatus)> {
    let all = status.groups.iter().flat_map(|group| group.members.iter().map(move |member| (group, member)));
    all.filter(move |(_, member)| member.name == target || member.node == target)
}

pub(super) fn drain(args: &DrainArgs, global: &Global) -> Result<(), Failure> {
    let path = path(&args.target)?;
    let client = client(global)?;
    let status: Status = client.get("/api/v1/status")?;
    if members(&status, &args.target).next().is_none() && !status.nodes.iter().any(|node| node.name == args.target) {
        let text = format!("{} is neither a member nor a node of this cluster", args.target);
        return Err(Failure::failed(Code::NOT_THERE, text).hint("`hotwarm status` lists them"));
    }
    table::ask(&what_follows(&status, &args.target), args.yes)?;
    let done: Done = client.post(&format!("{path}/drain"), &serde_json::json!({}))?;
    if !global.json {
        done.events.iter().for_each(|event| tell(&event.text));
    }
    let kept = settle(&client, &args.target)?;
    if let Some((member, why)) = kept {
        let text = format!("{} is drained, but {member} goes on serving: {why}", args.target);
        return Err(Failure::refused(Code::STILL_NEEDED, text)
            .hint(format!("it stops as soon as another can take over; `hotwarm undrain {}` takes it back", args.target)));
    }
    match global.json {
        true => print_json(&serde_json::json!({ "drained": args.target, "events": done.events })),
        false => print(&format!("{} is drained; nothing serves there; the way back is `hotwarm undrain {0}`\n", args.target)),
    }
}

fn what_follows(status: &Status, target: &str) -> String {
    let mut lines = vec![format!("{target} goes out of service until `hotwarm undrain {target}`:")];
    for (group, member) in members(status, target) {
        lines.push(match (member.serving, group.exclusive) {
            (true, true) if group.have.warm > 0 => format!("  {}: serves; another member takes over, as in a switchover", member.name),
            (true, true) => format!("  {}: serves, and no other can take over: it goes on until one can", member.name),
            (true, false) if group.have.hot > 1 => format!("  {}: gets no new requests; the others serve", member.name),
            (true, false) => format!("  {}: serves alone: it goes on until another can", member.name),
            (false, _) => format!("  {}: does not serve; it will not take over", member.name),
        });
    }
    lines.join("\n")
}

/// Waits until nothing of `target` serves; else who is kept serving, and why.
fn settle(client: &Client, target: &str) -> Result<Option<(String, String)>, Failure> {
    let mut kept = None;
    let over = wait(OVER_WITHIN, || {
        let status: Status = client.get("/api/v1/status")?;
        let serving = members(&status, target).find(|(_, member)| member.serving);
        let Some((group, member)) = serving else { return Ok(Some(None)) };
        let refusal = group.refusal.as_ref().filter(|_| group.transition.is_none()).map(|reason| reason.text.clone());
        let why = refusal.clone().unwrap_or_else(|| "requests in flight have not finished".to_owned());
        kept = Some((member.name.clone(), why));
        // A rule keeps it: waiting longer changes nothing by itself.
        Ok(refusal.map(|_| kept.clone()))
    })?;
    Ok(over.unwrap_or(kept))
}

pub(super) fn undrain(args: &UndrainArgs, global: &Global) -> Result<(), Failure> {
    let path = path(&args.target)?;
    let client = client(global)?;
    // By this node's view, which may be behind: it is asked for either way.
    let status: Status = client.get("/api/v1/status")?;
    let drained = status.nodes.iter().any(|node| node.name == args.target && node.drained)
        || members(&status, &args.target).any(|(_, member)| member.name == args.target && member.drained);
    let done: Done = client.post(&format!("{path}/undrain"), &serde_json::json!({}))?;
    match global.json {
        true => print_json(&serde_json::json!({ "undrained": args.target, "events": done.events })),
        false if !drained => print(&format!("{} was not drained: nothing was to be done\n", args.target)),
        false => print(&format!("{} may serve again\n", args.target)),
    }
}
