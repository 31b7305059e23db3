//! `hotwarm pause`: automation off and on.
//!
//! It asks and tells; the group keeps the rules (S10).

use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::failure::{Failure, print};
use super::remote::{client, part, print_json, wait};
use super::{Global, table};
use crate::api::client::Client;
use crate::api::types::{Done, GroupStatus, Resume, Status};
use crate::codes::Code;

/// Stop deciding by itself: no promotion, no lease expiry; the way back is `resume`
#[derive(Debug, Args)]
pub struct PauseArgs {
    /// [default: all groups]
    #[arg(value_name = "GROUP", value_parser = NonEmptyStringValueParser::new())]
    pub group: Option<String>,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
}

/// Decide by itself again
#[derive(Debug, Args)]
pub struct ResumeArgs {
    /// [default: all groups]
    #[arg(value_name = "GROUP", value_parser = NonEmptyStringValueParser::new())]
    pub group: Option<String>,
    /// Do not wait for nodes that do not answer: you vouch that nothing serves there any more
    #[arg(long)]
    pub force: bool,
    /// With --force: do it without asking
    #[arg(long)]
    pub yes: bool,
}

/// Several leases and heartbeats: nodes that answer have counted again by then.
const RESUMED_WITHIN: Duration = Duration::from_secs(10);

fn groups(client: &Client, one: Option<&str>) -> Result<Vec<GroupStatus>, Failure> {
    match one {
        // Known, before anything is asked.
        Some(name) => Ok(vec![client.get(&format!("/api/v1/groups/{}", part(name)))?]),
        None => {
            let all: Vec<GroupStatus> = client.get("/api/v1/groups")?;
            if all.is_empty() { Err(nothing_here(&client.get("/api/v1/status")?)) } else { Ok(all) }
        }
    }
}

fn names(groups: &[GroupStatus]) -> Vec<&str> {
    groups.iter().map(|group| group.name.as_str()).collect()
}

/// Why there is no group to act on.
fn nothing_here(status: &Status) -> Failure {
    let node = &status.node.name;
    if status.cluster.id.bytes().all(|digit| digit == b'0') {
        let text = format!("node {node} has not heard of its cluster yet and knows no group: nothing was done");
        return Failure::refused(Code::NOT_FOUNDED, text)
            .hint("`hotwarm status` tells what it waits for; another node may know more: --api URL");
    }
    Failure::refused(Code::NOT_THERE, "the cluster has no group: nothing was done").hint("groups are brought in by `hotwarm apply FILE`")
}

pub(super) fn pause(args: &PauseArgs, global: &Global) -> Result<(), Failure> {
    let client = client(global)?;
    let groups = groups(&client, args.group.as_deref())?;
    let back = args.group.as_ref().map_or_else(|| "hotwarm resume".to_owned(), |group| format!("hotwarm resume {group}"));
    let what = format!(
        "automation of {} is suspended until `{back}`: nothing is promoted, no failure is answered, and what serves goes on\n\
         serving without counting its lease. A node that fails meanwhile takes its hot members' service with it.",
        names(&groups).join(", ")
    );
    table::ask(&what, args.yes)?;
    let groups = names(&groups);
    for group in &groups {
        let _: Done = client.post(&format!("/api/v1/groups/{}/pause", part(group)), &serde_json::json!({}))?;
    }
    match global.json {
        true => print_json(&serde_json::json!({ "paused": groups })),
        false => print(&format!("paused: {}; the way back is `{back}`\n", groups.join(", "))),
    }
}

pub(super) fn resume(args: &ResumeArgs, global: &Global) -> Result<(), Failure> {
    let client = client(global)?;
    let groups = groups(&client, args.group.as_deref())?;
    // Asked by this node's view, which may be behind: the group is told either way.
    let paused = groups.iter().any(|group| group.pause != "no");
    if args.force {
        table::ask(&vouched(&groups), args.yes)?;
    }
    let groups = names(&groups);
    for group in &groups {
        let _: Done = client.post(&format!("/api/v1/groups/{}/resume", part(group)), &Resume { force: args.force })?;
    }
    groups.iter().try_for_each(|group| wait_resumed(&client, group))?;
    match global.json {
        true => print_json(&serde_json::json!({ "resumed": groups })),
        false if !paused => print(&format!("nothing was paused: {} decide{} by {}\n", groups.join(", "), s(&groups), itself(&groups))),
        false => print(&format!("resumed: {}\n", groups.join(", "))),
    }
}

const fn s(names: &[&str]) -> &'static str {
    if names.len() == 1 { "s" } else { "" }
}

const fn itself(names: &[&str]) -> &'static str {
    if names.len() == 1 { "itself" } else { "themselves" }
}

/// What is vouched for, of whom, and what it costs if it is not so.
fn vouched(groups: &[GroupStatus]) -> String {
    let mut lines = vec![format!(
        "{} go on without the nodes that do not answer: you vouch that nothing serves there any more",
        names(groups).join(", ")
    )];
    for group in groups.iter().filter(|group| group.exclusive) {
        let hot = group.members.iter().find(|member| member.serving || member.role == "hot");
        lines.extend(hot.map(|hot| format!("  {}: hot was {} on node {}", group.name, hot.name, hot.node)));
    }
    lines.push("if a member still serves on such a node, two are hot at once, and what clients write to one of them is lost".to_owned());
    lines.join("\n")
}

fn wait_resumed(client: &Client, group: &str) -> Result<(), Failure> {
    let mut last = None;
    let resumed = wait(RESUMED_WITHIN, || {
        let status: GroupStatus = client.get(&format!("/api/v1/groups/{}", part(group)))?;
        last = status.refusal.map(|reason| reason.text);
        Ok((status.pause == "no").then_some(()))
    })?;
    if resumed.is_some() {
        return Ok(());
    }
    let why = last.unwrap_or_else(|| "nodes have not counted their lease again".to_owned());
    Err(Failure::refused(Code::NOT_OVER, format!("{group} is not resumed yet: {why}"))
        .hint(format!("bring these nodes back; or see to it that nothing serves there any more: hotwarm resume {group} --force")))
}
