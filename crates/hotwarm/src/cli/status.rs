//! `hotwarm status`: the state of the cluster at a glance.
//!
//! It shows what one node sees; it decides nothing.

use std::time::Duration;

use clap::Args;

use super::failure::{Exit, Failure, print};
use super::remote::client;
use super::table::{Table, Tone, colour, or_dash, paint, plain};
use super::{Global, read_config, remote, table};
use crate::api::client::Client;
use crate::api::types::{Configuration, GroupStatus, MemberStatus, Problem, Status};
use crate::config;

/// Show nodes, groups, members and what is wrong
///
/// It also says if this machine's configuration file is not what the cluster runs with. Nodes do not tell each other of their files: ask on
/// each machine. With --json or --watch the file is not looked at.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Show it again every so often, until interrupted
    #[arg(long, short, value_name = "EVERY", num_args = 0..=1, default_missing_value = "1s", value_parser = super::duration)]
    watch: Option<Duration>,
    /// Exit with 1 if a group's requests are not served, or if this node holds no lease or is in no cluster
    #[arg(long, conflicts_with = "watch")]
    check: bool,
}

pub(super) fn status(args: &StatusArgs, global: &Global) -> Result<(), Failure> {
    let client = client(global)?;
    loop {
        let status: Result<Status, Failure> = client.get("/api/v1/status").map_err(Failure::from);
        let (Some(every), false) = (args.watch, global.json) else {
            let status = status?;
            if global.json {
                remote::print_json(&status)?;
            } else {
                print(&(text(&status, colour()) + &other_file(&client, &status, global)))?;
            }
            return if args.check && !is_up(&status) { Err(Failure::told(Exit::Failed)) } else { Ok(()) };
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

fn is_up(status: &Status) -> bool {
    let down = status.groups.iter().flat_map(|group| &group.problems).any(|problem| problem.severity == "down");
    !status.nodes.is_empty() && status.cluster.leader.is_some() && status.node.no_lease_ms.is_none() && !down
}

/// The file of this machine, if it is of this cluster and not what the cluster runs with.
fn other_file(client: &Client, status: &Status, global: &Global) -> String {
    let Ok(text) = read_config(&global.config) else { return String::new() };
    let Ok(now) = client.get::<Configuration>("/api/v1/config") else { return String::new() };
    let of_this = config::parse(&text, "", None).is_ok_and(|config| config.cluster.name == status.cluster.name);
    if !of_this || status.nodes.is_empty() || text == now.text {
        return String::new();
    }
    let file = global.config.display();
    format!(
        "\nnotice  {file} on this machine is not configuration {}, which the cluster runs with\n        `hotwarm apply {file} --dry-run` shows \
         the difference\n",
        now.revision
    )
}

fn text(status: &Status, colour: bool) -> String {
    let mut out = head(status, colour);
    let removed = status.problems.iter().find(|problem| problem.code == "node-removed").map(|problem| problem.title.clone());
    if let Some(first) = removed.or_else(|| unleased(&status.node.name, status.node.cut_off_ms, status.node.no_lease_ms)) {
        out.insert_str(0, &format!("{}\n", paint(&first, Tone::Bad, colour)));
    }
    out.push('\n');
    out.push_str(&nodes(status).text(colour));
    if !status.groups.is_empty() {
        out.push('\n');
        out.push_str(&groups(&status.groups).text(colour));
        out.push('\n');
        out.push_str(&members(status).text(colour));
        out.push_str(&ailing(status));
    }
    let problems = problems(status, colour);
    if !problems.is_empty() {
        out.push('\n');
        out.push_str(&problems);
    }
    out
}

/// What a node that holds no lease is to say before everything else, whatever it hears.
pub(super) fn unleased(node: &str, cut_off_ms: Option<u64>, no_lease_ms: Option<u64>) -> Option<String> {
    let ago = |ms| table::span(Duration::from_millis(ms));
    let serves = "it serves nothing of exclusive groups";
    if let Some(ms) = cut_off_ms {
        let ago = ago(ms);
        return Some(format!(
            "node {node} is cut off: it reaches no quorum and holds no lease; {serves}, and of others it tells what it last knew, {ago} ago"
        ));
    }
    let since = ago(no_lease_ms?);
    Some(format!(
        "node {node} holds no lease since {since}, though it hears a quorum: {serves}; either the others do not hear it, or no grant reaches \
         it; what it tells of others may be that old"
    ))
}

fn head(status: &Status, colour: bool) -> String {
    let (cluster, quorum) = (&status.cluster, &status.cluster.quorum);
    if status.nodes.is_empty() {
        let mut text = format!("node {} has not joined its cluster yet\n", status.node.name);
        if status.node.cannot_found {
            text.push_str(
                "it waits for the others, and may not found the cluster itself; if none of them may, nobody does:\n\
                 `hotwarm init` makes join files, of which the first gives the right to found, and `hotwarm join` installs it\n",
            );
        }
        return text;
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

fn nodes(status: &Status) -> Table {
    let mut table = Table::new(&["NODE", "ROLE", "STATE", "HEARD", "ADDRESS", "ZONE"]);
    for node in &status.nodes {
        let (mut state, tone) = match (node.joined, node.leased, node.silent) {
            (false, ..) => ("not joined".to_owned(), Tone::Doubtful),
            (_, false, _) => ("no lease".to_owned(), Tone::Bad),
            (_, _, true) => ("silent".to_owned(), Tone::Bad),
            _ => ("leased".to_owned(), Tone::Good),
        };
        if node.drained {
            state.push_str(", drained");
        }
        if status.node.no_lease_ms.is_some() && node.name != status.node.name {
            state = format!("was {state}");
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
        let mut state = match &group.last_state {
            Some(last) if group.exclusive => format!("not served here, was {last}"),
            Some(last) => format!("was {last}, goes on here"),
            None => group.state.clone(),
        };
        if group.pause != "no" {
            state = format!("{state}, {}", group.pause);
        }
        let tone = match (group.state.as_str(), group.pause.as_str()) {
            ("serving", "no") if group.last_state.is_none() => Tone::Good,
            ("serving" | "draining", _) => Tone::Doubtful,
            _ => Tone::Bad,
        };
        let count = |have: usize, want: usize| {
            let tone = if have < want { Tone::Doubtful } else { Tone::Plain };
            let was = if group.last_state.is_some() { "was " } else { "" };
            (format!("{was}{have}/{want}"), tone)
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

fn members(status: &Status) -> Table {
    let mut table = Table::new(&["MEMBER", "NODE", "ROLE", "STATE", "PID", "ADDRESS"]);
    for member in status.groups.iter().flat_map(|group| &group.members) {
        let role = if member.role == "hot" { Tone::Strong } else { Tone::Plain };
        let here = member.node == status.node.name;
        // What hotwarm does not run, or nobody does, has none there either; which it is, only its own node knows.
        let runs = member.life == "running";
        let pid = if here { member.pid.map(|pid| pid.to_string()) } else { runs.then(|| format!("on {}", member.node)) };
        let (mut state, tone) = member_state(member);
        if !here && status.node.no_lease_ms.is_some() {
            state = format!("was {state}");
        }
        table.row([
            plain(&member.name),
            plain(&member.node),
            (member.role.clone(), role),
            (state, tone),
            plain(or_dash(pid.as_deref())),
            plain(member.address),
        ]);
    }
    table
}

/// One or two words; the rest is said below the table.
fn member_state(member: &MemberStatus) -> (String, Tone) {
    let (state, tone) = match (member.life.as_str(), member.ready, &member.unfit) {
        ("running", true, None) if member.serving => ("serving", Tone::Good),
        ("running", true, None) if member.held_down_ms.is_some() => ("ready, held down", Tone::Doubtful),
        ("running", true, None) => ("ready", Tone::Good),
        ("running", false, _) => ("not ready", Tone::Doubtful),
        (_, _, Some(unfit)) if unfit.code == "node-lost" => ("node lost", Tone::Bad),
        ("running", true, Some(unfit)) if unfit.code == "drained" && member.serving => ("serving", Tone::Doubtful),
        ("running", true, Some(unfit)) if unfit.code == "drained" => ("ready", Tone::Doubtful),
        ("running", true, Some(_)) => ("doubtful", Tone::Bad),
        ("stopped", ..) if member.role == "spare" => ("off", Tone::Dim),
        ("stopped", ..) => ("stopped", Tone::Bad),
        _ => ("not known", Tone::Doubtful),
    };
    let drained = member.drained || member.unfit.as_ref().is_some_and(|unfit| unfit.code == "drained");
    (if drained { format!("{state}, drained") } else { state.to_owned() }, tone)
}

/// A line for each member that is not as it should be: why.
fn ailing(status: &Status) -> String {
    let mut out = String::new();
    for member in status.groups.iter().flat_map(|group| &group.members) {
        let why = match (member.life.as_str(), &member.stopped, &member.unfit) {
            ("stopped", _, _) if member.role == "spare" => continue,
            ("stopped", Some(stopped), _) => stopped.clone(),
            ("running", _, _) if !member.ready && !member.why_unready.is_empty() => member.why_unready.clone(),
            ("running", _, None) if !member.serving && member.held_down_ms.is_some() => {
                let left = table::span(Duration::from_millis(member.held_down_ms.unwrap_or(0)));
                format!("it failed lately and is held down for {left} more")
            }
            (_, _, Some(unfit)) if !matches!(unfit.code.as_str(), "drained" | "spare") => unfit.text.clone(),
            _ => continue,
        };
        let why: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        out.push_str(&format!("  {}: {why}\n", member.name));
    }
    out
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
    for problem in &status.problems {
        tell(&problem.severity, problem.title.clone(), &problem.advice);
    }
    for group in &status.groups {
        let own: Vec<&MemberStatus> = group.members.iter().filter(|m| m.node == status.node.name && m.pid.is_some()).collect();
        let former: Vec<&str> = own.iter().filter(|m| m.former_engine).map(|m| m.name.as_str()).collect();
        if !former.is_empty() {
            let text =
                format!("{}: of {} running here, {} run the former engine: {}", group.name, own.len(), former.len(), former.join(", "));
            let advice = match (group.members.as_slice(), own.first().and_then(|member| member.pid)) {
                ([_], Some(pid)) => format!(
                    "it is the only member, and is not restarted by hotwarm: when nobody need be served for a moment, `kill {pid}` on this node, and \
                     it starts with the new one"
                ),
                _ => {
                    format!("`hotwarm restart {}` brings the new one to each, one after the other; other nodes tell of theirs", group.name)
                }
            };
            tell("notice", text, &advice);
        }
    }
    for group in &status.groups {
        if let Some(restart) = group.restart.as_ref().filter(|restart| restart.member.is_some()) {
            let advice = format!("nothing is to be done; `hotwarm restart {} --cancel` calls off what is left", group.name);
            tell("notice", format!("{}: {}", group.name, restart.text), &advice);
        }
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
