//! `hotwarm restart`: members begin a new life, one after the other, with the engine as it is configured now.
//!
//! It names the lives that are to end, asks, and tells how far it is; the group decides, and goes on without this program too.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use hotwarm_core::group::restart::PATIENCE_MS;

use super::failure::{Failure, print, tell};
use super::remote::{client, member, part, print_json, wait};
use super::{Global, table};
use crate::api::client::Client;
use crate::api::types::{Done, Event, Events, GroupStatus, MemberStatus, Restart};
use crate::codes::Code;

/// Restart members one after the other, so that they run their engine as it is configured now
#[derive(Debug, Args)]
pub struct RestartArgs {
    /// A group, or a member such as web/a
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
    /// Call off what is left of a restart of the group
    #[arg(long, conflicts_with = "yes")]
    pub cancel: bool,
}

/// How long a node may take to show what it has agreed to.
const SEEN_WITHIN: Duration = Duration::from_secs(10);

pub(super) fn restart(args: &RestartArgs, global: &Global) -> Result<(), Failure> {
    let (group, one) = match args.target.split_once('/') {
        Some((group, _)) => (group, Some(member(&args.target).map(|_| args.target.as_str())?)),
        None => (args.target.as_str(), None),
    };
    let client = client(global)?;
    let status: GroupStatus = client.get(&format!("/api/v1/groups/{}", part(group)))?;
    if args.cancel {
        return cancel(&client, &status, global.json);
    }
    if let Some(one) = one.filter(|one| status.members.iter().all(|member| member.name != **one)) {
        let all = status.members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(Failure::failed(Code::NOT_THERE, format!("member {one} not known")).hint(format!("group {group} has {all}")));
    }
    let members = order(&status, one);
    table::ask(&what_follows(&status, &members), args.yes)?;
    let lives: BTreeMap<String, u64> = members.iter().map(|member| (member.name.clone(), member.incarnation)).collect();
    let newest: Events = client.get("/api/v1/events?limit=1")?;
    let asked = Restart { incarnations: Some(lives.clone()), cancel: false };
    let done: Done = client.post(&format!("/api/v1/groups/{}/restart", part(group)), &asked)?;
    if !global.json {
        done.events.iter().filter_map(|event| event.reason.as_ref()).for_each(|reason| tell(&reason.text));
    }
    let events = follow(&client, group, &lives, newest.newest, !global.json)?;
    match global.json {
        true => print_json(&serde_json::json!({ "group": group, "restarted": lives.keys().collect::<Vec<_>>(), "events": events })),
        false => print(&format!("{} restarted: {}\n", group, lives.keys().cloned().collect::<Vec<_>>().join(", "))),
    }
}

fn cancel(client: &Client, status: &GroupStatus, json: bool) -> Result<(), Failure> {
    let mut left = status.restart.as_ref().map(|restart| restart.left.clone()).unwrap_or_default();
    let asked = Restart { incarnations: None, cancel: true };
    let done: Done = client.post(&format!("/api/v1/groups/{}/restart", part(&status.name)), &asked)?;
    // Who had been told to end by then is not called back: the group's own word, for what was asked before is older.
    let stopped = done.events.iter().filter_map(|event| event.reason.as_ref()).find(|reason| reason.code == "restart-stopped");
    let under_way = stopped.and_then(|reason| reason.member.clone());
    left.retain(|name| under_way.as_ref() != Some(name));
    if json {
        return print_json(&serde_json::json!({ "group": status.name, "left": left, "under_way": under_way, "events": done.events }));
    }
    if left.is_empty() && under_way.is_none() {
        return print(&format!("group {} is not being restarted: nothing to call off\n", status.name));
    }
    let begun = under_way.map(|name| format!("; {name} had been told to end, and comes back in a new life if it does")).unwrap_or_default();
    let rest = if left.is_empty() { String::new() } else { format!("; left as they are: {}", left.join(", ")) };
    print(&format!("nothing more of group {} is restarted{begun}{rest}\n", status.name))
}

/// Those that run, in the order in which the group will take them: hot ones last, the most preferred last of all.
fn order<'a>(status: &'a GroupStatus, one: Option<&str>) -> Vec<&'a MemberStatus> {
    let wanted = |member: &&MemberStatus| one.is_none_or(|one| member.name == one) && member.life == "running" && member.role != "spare";
    let mut members: Vec<&MemberStatus> = status.members.iter().filter(wanted).collect();
    members.sort_by(|a, b| (a.role == "hot", a.priority).cmp(&(b.role == "hot", b.priority)).then_with(|| b.name.cmp(&a.name)));
    members
}

fn what_follows(status: &GroupStatus, members: &[&MemberStatus]) -> String {
    let mut lines = vec![format!("restart of {}, one after the other, each only when all others are well:", status.name)];
    for member in members {
        let how = match (member.role == "hot", status.exclusive) {
            (true, true) => "hot: hands over first, as in a switchover",
            (true, false) => "hot: takes no new requests and finishes what it has first",
            (false, _) => "warm",
        };
        let former = if member.former_engine { "; runs the former engine" } else { "" };
        lines.push(format!("  {} on node {} ({how}{former})", member.name, member.node));
    }
    let resting = status.members.iter().filter(|member| member.role == "spare").map(|member| member.name.as_str()).collect::<Vec<_>>();
    if !resting.is_empty() {
        lines.push(format!("  not: {} (a spare starts with the engine as it is configured by then)", resting.join(", ")));
    }
    lines.join("\n")
}

/// What happens until all of `lives` are over and their members are back; tells each step as it comes if `aloud`.
fn follow(client: &Client, group: &str, lives: &BTreeMap<String, u64>, mut after: u64, aloud: bool) -> Result<Vec<Event>, Failure> {
    let patience = Duration::from_millis(PATIENCE_MS);
    let members = u32::try_from(lives.len()).unwrap_or(u32::MAX);
    let (mut all, mut seen, begun) = (Vec::new(), false, Instant::now());
    let over = wait(patience.saturating_mul(members.saturating_add(1)), || {
        // In this order: what made the status what it is, is among the events.
        let status: GroupStatus = client.get(&format!("/api/v1/groups/{}", part(group)))?;
        let new: Events = client.get(&format!("/api/v1/events?after={after}&limit=1000&group={}", part(group)))?;
        // A node that was started anew counts from one again.
        after = if new.newest < after { 0 } else { after };
        for event in new.events {
            after = event.number;
            let Some(reason) = event.reason.clone() else { continue };
            all.push(event);
            if reason.code == "restart-stopped" {
                return Err(stopped(group, reason.text));
            }
            if aloud && reason.code != "restart-asked" {
                tell(&format!("  {}", reason.text));
            }
        }
        let left = |restart: &crate::api::types::Restarting| restart.left.iter().any(|name| lives.contains_key(name));
        let goes_on = status.restart.as_ref().is_some_and(|restart| !restart.stopped && left(restart));
        if let Some(restart) = status.restart.as_ref().filter(|restart| restart.stopped && seen) {
            return Err(stopped(group, restart.text.clone()));
        }
        seen |= goes_on;
        if goes_on || (!seen && begun.elapsed() < SEEN_WITHIN && !all_anew(&status, lives)) {
            return Ok(None);
        }
        Ok(Some(all_anew(&status, lives)))
    })?;
    let text = match over {
        Some(true) => return Ok(all),
        Some(false) => "the restart ended before all were restarted".to_owned(),
        None => "the restart is not over".to_owned(),
    };
    Err(Failure::failed(Code::RESTART_STOPPED, text).hint(format!("`hotwarm events {group}` tells what became of it")))
}

fn stopped(group: &str, text: String) -> Failure {
    Failure::failed(Code::RESTART_STOPPED, text).hint(format!("the others run on as they are; `hotwarm why {group}` tells what holds now"))
}

/// True if none of these lives goes on.
fn all_anew(status: &GroupStatus, lives: &BTreeMap<String, u64>) -> bool {
    let anew = |member: &MemberStatus| lives.get(&member.name).is_none_or(|life| member.incarnation != *life || member.role == "spare");
    status.members.iter().all(anew)
}
