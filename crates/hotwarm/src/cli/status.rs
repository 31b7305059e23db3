//! `hotwarm status`: the state of the cluster at a glance.
//!
//! It shows what one node sees; it decides nothing.

use std::time::Duration;

use clap::Args;

use super::failure::{Failure, print};
use super::remote::client;
use super::table::{Table, Tone, colour, or_dash, paint, plain};
use super::{Global, remote};
use crate::api::types::{GroupStatus, MemberStatus, NodeStatus, Problem, Status};

/// Days left of a certificate from which on it is a warning.
const CERTIFICATE_DAYS: i64 = 30;

/// Show nodes, groups, members and what is wrong
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Show it again every so often, until interrupted
    #[arg(long, short, value_name = "EVERY", num_args = 0..=1, default_missing_value = "1s", value_parser = super::duration)]
    watch: Option<Duration>,
}

pub(super) fn status(args: &StatusArgs, global: &Global) -> Result<(), Failure> {
    let client = client(global)?;
    loop {
        let status: Result<Status, Failure> = client.get("/api/v1/status").map_err(Failure::from);
        let (Some(every), false) = (args.watch, global.json) else {
            let status = status?;
            return if global.json { remote::print_json(&status) } else { print(&text(&status, colour())) };
        };
        let shown = match &status {
            Ok(status) => text(status, colour()),
            // The node may come back; who watches wants to see that.
            Err(failure) => format!("{failure}\n"),
        };
        print(&format!("{}{shown}", if colour() { "\u{1b}[H\u{1b}[2J" } else { "" }))?;
        std::thread::sleep(every);
    }
}

fn text(status: &Status, colour: bool) -> String {
    let mut out = head(status, colour);
    out.push('\n');
    out.push_str(&nodes(&status.nodes).text(colour));
    if !status.groups.is_empty() {
        out.push('\n');
        out.push_str(&groups(&status.groups).text(colour));
        out.push('\n');
        out.push_str(&members(&status.groups).text(colour));
    }
    let problems = problems(status, colour);
    if !problems.is_empty() {
        out.push('\n');
        out.push_str(&problems);
    }
    out
}

fn head(status: &Status, colour: bool) -> String {
    let (cluster, quorum) = (&status.cluster, &status.cluster.quorum);
    if status.nodes.is_empty() {
        return format!("node {} has not joined its cluster yet\n", status.node.name);
    }
    let leader = cluster.leader.as_deref();
    let reached = if quorum.reached < quorum.needed { Tone::Bad } else { Tone::Plain };
    format!(
        "cluster {}  leader {}  term {}  quorum {}  configuration {}  (as node {} sees it)\n",
        paint(&cluster.name, Tone::Strong, colour),
        paint(leader.unwrap_or("none"), if leader.is_some() { Tone::Plain } else { Tone::Bad }, colour),
        cluster.term,
        paint(&format!("{}/{}", quorum.reached, quorum.voters.len()), reached, colour),
        cluster.revision,
        status.node.name,
    )
}

fn nodes(nodes: &[NodeStatus]) -> Table {
    let mut table = Table::new(&["NODE", "ROLE", "STATE", "HEARD", "ADDRESS", "ZONE"]);
    for node in nodes {
        let (mut state, tone) = match (node.joined, node.leased, node.silent) {
            (false, ..) => ("not joined".to_owned(), Tone::Doubtful),
            (_, false, _) => ("no lease".to_owned(), Tone::Bad),
            (_, _, true) => ("silent".to_owned(), Tone::Bad),
            _ => ("leased".to_owned(), Tone::Good),
        };
        if node.drained {
            state.push_str(", drained");
        }
        let leads = if node.leads { " (leads)" } else { "" };
        let heard = if node.heard { plain("yes") } else { ("no".to_owned(), Tone::Bad) };
        let zone = or_dash(Some(&node.zone));
        table.row([plain(&node.name), plain(format!("{}{leads}", node.role)), (state, tone), heard, plain(node.address), plain(zone)]);
    }
    table
}

fn groups(groups: &[GroupStatus]) -> Table {
    let mut table = Table::new(&["GROUP", "MODE", "STATE", "EPOCH", "HOT", "WARM", "SPARE", "CLIENTS"]);
    for group in groups {
        let (have, want) = (&group.have, &group.want);
        let mut state = group.state.clone();
        if group.pause != "no" {
            state = format!("{state}, {}", group.pause);
        }
        let tone = match (group.state.as_str(), group.pause.as_str()) {
            ("serving", "no") => Tone::Good,
            ("serving" | "draining", _) => Tone::Doubtful,
            _ => Tone::Bad,
        };
        let count = |have: usize, want: usize| {
            let tone = if have < want { Tone::Doubtful } else { Tone::Plain };
            (format!("{have}/{want}"), tone)
        };
        let listen: Vec<String> = group.listen.values().map(ToString::to_string).collect();
        table.row([
            plain(&group.name),
            plain(&group.mode),
            (state, tone),
            plain(group.epoch),
            count(have.hot, want.hot),
            count(have.warm, want.warm),
            count(have.spare, want.spare),
            plain(or_dash(Some(&dedup(listen).join(" ")))),
        ]);
    }
    table
}

fn dedup(mut addresses: Vec<String>) -> Vec<String> {
    addresses.dedup();
    addresses
}

fn members(groups: &[GroupStatus]) -> Table {
    let mut table = Table::new(&["MEMBER", "NODE", "ROLE", "STATE", "PID", "ADDRESS"]);
    for member in groups.iter().flat_map(|group| &group.members) {
        let role = if member.role == "hot" { Tone::Strong } else { Tone::Plain };
        let pid = member.pid.map(|pid| pid.to_string());
        table.row([
            plain(&member.name),
            plain(&member.node),
            (member.role.clone(), role),
            member_state(member),
            plain(or_dash(pid.as_deref())),
            plain(member.address),
        ]);
    }
    table
}

fn member_state(member: &MemberStatus) -> (String, Tone) {
    let (state, tone) = match (member.life.as_str(), member.ready, &member.unfit) {
        ("running", true, None) if member.serving => ("serving".to_owned(), Tone::Good),
        ("running", true, None) => ("ready".to_owned(), Tone::Good),
        ("running", false, _) if member.why_unready.is_empty() => ("not ready".to_owned(), Tone::Doubtful),
        ("running", false, _) => (format!("not ready: {}", member.why_unready), Tone::Doubtful),
        (_, _, Some(unfit)) if unfit.code == "node-lost" => (format!("{}: its node is lost", member.life), Tone::Bad),
        ("running", true, Some(unfit)) if unfit.code == "drained" => ("ready".to_owned(), Tone::Doubtful),
        ("running", true, Some(unfit)) => (format!("doubtful: {}", unfit.text), Tone::Bad),
        ("stopped", ..) if member.role == "spare" => ("off".to_owned(), Tone::Dim),
        ("stopped", ..) => (format!("stopped: {}", member.stopped.as_deref().unwrap_or("not known why")), Tone::Bad),
        _ => ("not known".to_owned(), Tone::Doubtful),
    };
    let drained = member.drained || member.unfit.as_ref().is_some_and(|unfit| unfit.code == "drained");
    (if drained { format!("{state}, drained") } else { state }, tone)
}

fn problems(status: &Status, colour: bool) -> String {
    let mut out = String::new();
    let mut tell = |severity: &str, text: String, advice: &str| {
        let tone = match severity {
            "down" => Tone::Bad,
            "bare" => Tone::Doubtful,
            _ => Tone::Plain,
        };
        out.push_str(&format!("{}  {text}\n        {advice}\n", paint(&format!("{severity:6}"), tone, colour)));
    };
    let quorum = &status.cluster.quorum;
    if status.cluster.leader.is_none() {
        let text = format!("no leader: {} of {} voters reached, {} needed", quorum.reached, quorum.voters.len(), quorum.needed);
        tell("down", text, "nothing is promoted; what serves safely goes on; bring nodes back");
    } else if !quorum.voters.is_empty()
        && quorum.reached <= quorum.needed
        && quorum.voters.len() > 1
        && quorum.reached < quorum.voters.len()
    {
        tell("bare", "the loss of one more voter is the loss of the quorum".to_owned(), "bring the missing nodes back");
    }
    if let Some(ailment) = &status.node.ailment
        && status.node.grade != "well"
    {
        tell("notice", format!("node {} is {}: {ailment}", status.node.name, status.node.grade), "look at its load and its disk");
    }
    if let Some(disk) = status.node.disk.as_ref().filter(|disk| disk.low) {
        let text = format!("node {} has {} MiB left on the disk of its data directory", status.node.name, disk.free_bytes >> 20);
        tell("bare", text, "make room before it is full: docs/reference/errors/HW0508.md");
    }
    if let Some(certificate) = &status.node.certificate
        && certificate.days_left < CERTIFICATE_DAYS
    {
        let text = format!("the certificate of node {} has {} days left", status.node.name, certificate.days_left);
        tell("notice", text, "`hotwarm certs renew` makes new ones");
    }
    let all = status.groups.iter().flat_map(|group| group.problems.iter().map(move |problem| (group, problem)));
    let rank = |problem: &Problem| ["down", "bare", "notice"].iter().position(|severity| *severity == problem.severity);
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|(_, problem)| rank(problem));
    for (group, problem) in all {
        tell(&problem.severity, format!("{}: {}", group.name, problem.title), &problem.advice);
    }
    out
}
