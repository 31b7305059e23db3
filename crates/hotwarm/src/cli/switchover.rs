//! `hotwarm switchover`: a planned change of the hot member.
//!
//! It asks a node to begin one and tells what becomes of it; the group decides.

use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use super::failure::{Exit, Failure, print, tell};
use super::remote::{client, part, print_json, wait};
use super::{Global, table};
use crate::api::client::Client;
use crate::api::types::{Done, Event, Events, GroupStatus, Reason, Switchover};
use crate::codes::Code;

/// Make another member hot, without losing a request; the way back is the same command
#[derive(Debug, Args)]
pub struct SwitchoverArgs {
    #[arg(value_name = "GROUP", value_parser = NonEmptyStringValueParser::new())]
    pub group: String,
    /// Which member becomes hot [default: the best candidate]
    #[arg(long, value_name = "MEMBER")]
    pub to: Option<String>,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
}

/// Longer than draining, fencing and promoting may take with the defaults.
const OVER_WITHIN: Duration = Duration::from_secs(60);

pub(super) fn switchover(args: &SwitchoverArgs, global: &Global) -> Result<(), Failure> {
    let client = client(global)?;
    let group: GroupStatus = client.get(&format!("/api/v1/groups/{}", part(&args.group)))?;
    check(&group, args.to.as_deref())?;
    let from = group.members.iter().find(|member| member.role == "hot").map(|member| member.name.clone());
    let what = format!(
        "switchover of {}: {} hands over to {}; requests in flight finish, new ones wait until it is done",
        group.name,
        from.as_deref().unwrap_or("nobody"),
        args.to.as_deref().unwrap_or("the best candidate"),
    );
    table::ask(&what, args.yes)?;
    let newest = newest(&client)?;
    let asked = Switchover { to: args.to.clone() };
    let begun: Done = client.post(&format!("/api/v1/groups/{}/switchover", part(&args.group)), &asked)?;
    if !global.json {
        begun.events.iter().filter_map(|event| event.reason.as_ref()).for_each(|reason| tell(&reason.text));
    }
    let (events, end) = follow(&client, &group.name, newest, !global.json)?;
    if end.code != "opened" {
        return Err(Failure::failed(Code::NOT_OVER, end.text).hint(format!("`hotwarm why {}` tells what holds now", group.name)));
    }
    let wanted = args.to.as_deref().map(|to| full(&group.name, to));
    if end.member == from || wanted.is_some_and(|wanted| end.member.as_deref() != Some(&wanted)) {
        let text = format!("the switchover went another way: {}", end.text);
        return Err(Failure::failed(Code::NOT_OVER, text).hint(format!("`hotwarm events {}` tells why", group.name)));
    }
    if global.json {
        let to = end.member.clone();
        return print_json(&serde_json::json!({
            "group": group.name, "from": from, "to": to, "epoch": end.epoch, "pause": end.pause, "events": events,
        }));
    }
    print(&format!("{}\n", end.text))
}

/// What is refused whatever the state, before a person is asked.
fn check(group: &GroupStatus, to: Option<&str>) -> Result<(), Failure> {
    if !group.exclusive {
        let text = format!("switchover refused: group {} has several hot members", group.name);
        return Err(Failure::refused(Code::SWITCHOVER_REFUSED, text).hint("`hotwarm drain MEMBER` takes one of them out"));
    }
    let Some(to) = to else { return Ok(()) };
    let full = full(&group.name, to);
    let Some(member) = group.members.iter().find(|member| member.name == full) else {
        let all = group.members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(Failure::failed(Code::NOT_THERE, format!("member {full} not known")).hint(format!("group {} has {all}", group.name)));
    };
    match member.role == "hot" && member.serving {
        true => Err(Failure::refused(Code::SWITCHOVER_REFUSED, format!("switchover refused: {full} is hot already"))),
        false => Ok(()),
    }
}

/// A member's name with its group's.
fn full(group: &str, member: &str) -> String {
    if member.contains('/') { member.to_owned() } else { format!("{group}/{member}") }
}

fn newest(client: &Client) -> Result<u64, Failure> {
    let events: Events = client.get("/api/v1/events?limit=1")?;
    Ok(events.newest)
}

/// What happens in `group` after event `after`, until a change of the hot member is over; tells each step as it comes if `aloud`.
fn follow(client: &Client, group: &str, mut after: u64, aloud: bool) -> Result<(Vec<Event>, Reason), Failure> {
    let mut all = Vec::new();
    let end = wait(OVER_WITHIN, || {
        let path = format!("/api/v1/events?after={after}&limit=1000&group={}", part(group));
        let new: Events = client.get(&path)?;
        let mut end = None;
        for event in new.events {
            after = event.number;
            if let Some(reason) = &event.reason {
                let over = reason.code == "opened" || reason.code == "switchover-aborted";
                if over {
                    end = end.or_else(|| Some(reason.clone()));
                } else if aloud && reason.code != "switchover-asked" {
                    tell(&format!("  {}", reason.text));
                }
            }
            all.push(event);
        }
        Ok(end)
    })?;
    match end {
        Some(end) => Ok((all, end)),
        None => {
            let text = format!("the switchover is not over after {} s", OVER_WITHIN.as_secs());
            let failure = Failure::with_code(Exit::Failed, Some(Code::NOT_OVER), text);
            Err(failure.hint(format!("`hotwarm why {group}` tells what it waits for")))
        }
    }
}
