//! `GET /metrics`: what Prometheus scrapes, in its own text format, made anew from a snapshot for each scrape.
//!
//! It counts nothing itself. Names follow Prometheus's conventions: base units, `_total` for what only grows. Written here and not by a
//! library, because the ones there are speak OpenMetrics, whose counters `promtool check metrics` takes for nameless ones.

use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};
use std::sync::atomic::Ordering;

use hotwarm_core::group::state::Pause;

use super::gate::Gate;
use super::{picture, problem};
use crate::agent::seen::{CLASSES, GroupStats, MemberStats};
use crate::agent::{Handle, UNPLANNED};

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Name, kind, labels, meaning.
type Family = (&'static str, &'static str, &'static [&'static str], &'static str);

macro_rules! families {
    ($($constant:ident = $name:literal $kind:ident [$($label:literal)*] $help:literal;)+) => {
        $(const $constant: Family = ($name, stringify!($kind), &[$($label),*], $help);)+
        /// Every metric there is, for the manual.
        #[cfg(test)]
        const FAMILIES: &[Family] = &[$($constant),+];
    };
}

families! {
    BUILD = "hotwarm_build_info" gauge ["version"] "1, with the program's version.";
    LEADER = "hotwarm_cluster_leader_known" gauge [] "1 while this node knows a leader of the control log.";
    LEADS = "hotwarm_node_leads" gauge [] "1 while this node leads the control log.";
    TERM = "hotwarm_cluster_term" gauge [] "Term of the control log.";
    REVISION = "hotwarm_cluster_configuration_revision" gauge [] "Revision of the configuration in force.";
    VOTERS = "hotwarm_cluster_voters" gauge [] "Voters of the control log.";
    REACHED = "hotwarm_cluster_voters_reached" gauge [] "Voters that this node hears, itself included.";
    NEEDED = "hotwarm_cluster_voters_needed" gauge [] "Voters that must agree.";
    APPLIED = "hotwarm_log_applied_index" gauge [] "Last entry of the control log in this node's state.";
    COMMIT = "hotwarm_log_commit_index" gauge [] "Last entry of the control log known to be agreed on.";
    LEASE = "hotwarm_node_lease_remaining_seconds" gauge [] "What is left of this node's lease; 0 if it holds none.";
    GRADE = "hotwarm_node_grade" gauge ["grade"] "1 for how this node finds itself: well, slow or stalled.";
    HEARD = "hotwarm_node_heard" gauge ["node"] "1 while this node hears that node without a relay, or is it.";
    LEASED = "hotwarm_node_leased" gauge ["node"] "1 while that node holds leases, by the control log.";
    NODE_DRAINED = "hotwarm_node_drained" gauge ["node"] "1 while that node is drained.";
    CERTIFICATE = "hotwarm_certificate_expiry_timestamp_seconds" gauge [] "When this node's certificate expires, in seconds since 1970.";
    DISK_FREE = "hotwarm_disk_free_bytes" gauge [] "What is left on the disk of the data directory.";
    DISK_LOW = "hotwarm_disk_low" gauge [] "1 from when little is left there until there is enough again.";
    CLUSTER_PROBLEM = "hotwarm_cluster_problem" gauge ["code" "severity"] "1 for each problem that this node sees of itself and of the cluster, beyond its groups.";
    EPOCH = "hotwarm_group_epoch" gauge ["group"] "Newest epoch of the group.";
    MEMBERS = "hotwarm_group_members" gauge ["group" "role"] "Members hot and serving, warm and able to take over, spare. No hot one of an exclusive group where this node holds no lease: its router serves none.";
    WANTED = "hotwarm_group_members_wanted" gauge ["group" "role"] "Members of each role as configured.";
    CHANGING = "hotwarm_group_changing" gauge ["group"] "1 while the hot member is being replaced.";
    PAUSED = "hotwarm_group_paused" gauge ["group"] "1 while automation is paused.";
    PROBLEM = "hotwarm_group_problem" gauge ["group" "code" "severity"] "1 for each problem the group has now.";
    TRANSITIONS = "hotwarm_group_transitions_total" counter ["group"] "Members that became hot and opened a new epoch, planned or not.";
    FAILOVERS = "hotwarm_group_failovers_total" counter ["group" "reason"] "Changes of the hot member that nobody asked for and that came about, by what began them.";
    REASONS = "hotwarm_group_reasons_total" counter ["group" "reason"] "Decisions and refusals by the code of their reason.";
    LAST_CHANGE = "hotwarm_group_last_change_seconds" gauge ["group" "phase"] "The last change of the hot member: the whole pause and its phases.";
    ROUTED = "hotwarm_router_requests_total" counter ["group" "member" "outcome"] "Requests given to a member: replied, or failed there.";
    REPLIES = "hotwarm_router_replies_total" counter ["group" "member" "class"] "Replies of a member by class of status, 1xx to 5xx.";
    CLIENTS = "hotwarm_router_client_requests_total" counter ["group"] "Requests of clients.";
    FAILED = "hotwarm_router_failed_requests_total" counter ["group" "cause"] "Requests of clients without a whole reply of a member, by cause.";
    RETRIED = "hotwarm_router_retried_requests_total" counter ["group"] "Attempts repeated at another member, or at the same.";
    PARKED = "hotwarm_router_parked_requests_total" counter ["group"] "Requests that waited for a hot member.";
    PARKED_NOW = "hotwarm_router_parked_requests" gauge ["group"] "Requests that wait for a hot member now.";
    PARKED_BYTES = "hotwarm_router_parked_bytes" gauge ["group"] "Bytes of requests that wait now.";
    CONNECTIONS = "hotwarm_router_connections_total" counter ["group"] "Connections of clients.";
    CONNECTIONS_NOW = "hotwarm_router_connections" gauge ["group"] "Connections of clients now.";
    CONNECTS = "hotwarm_router_member_connections_total" counter ["group" "member"] "Connections made to a member.";
    SENT = "hotwarm_router_sent_bytes_total" counter ["group" "member"] "Bytes of requests, to a member.";
    RECEIVED = "hotwarm_router_received_bytes_total" counter ["group" "member"] "Bytes of replies, from a member.";
    IN_FLIGHT = "hotwarm_router_in_flight_requests" gauge ["group" "member"] "Requests at a member now.";
    EJECTED = "hotwarm_router_ejected" gauge ["group" "member"] "1 while this router leaves the member out: it is down, or answers 5xx.";
    FIRST_BYTE = "hotwarm_router_first_byte_seconds" histogram ["group" "member"] "From a request given to a member to the first byte of its reply.";
    WAL_COMMITS = "hotwarm_wal_commits_total" counter [] "Writes with a sync of the write-ahead log.";
    WAL_BYTES = "hotwarm_wal_written_bytes_total" counter [] "Bytes written to the write-ahead log.";
    WAL_SEGMENTS = "hotwarm_wal_segments" gauge [] "Segments of the write-ahead log on disk.";
    WAL_QUEUED = "hotwarm_wal_queued_bytes" gauge [] "Bytes that wait to be written.";
    WAL_MEDIAN = "hotwarm_wal_commit_median_seconds" gauge [] "Median time of the last commits (up to 128), write and sync.";
    WAL_WORST = "hotwarm_wal_commit_worst_seconds" gauge [] "Longest time of the last commits (up to 128), write and sync.";
    PEER_CONNECTED = "hotwarm_transport_connected" gauge ["peer" "lane"] "1 while the connection to that node stands.";
    PEER_SENT = "hotwarm_transport_sent_bytes_total" counter ["peer" "lane"] "Bytes sent to that node.";
    PEER_DROPPED = "hotwarm_transport_dropped_messages_total" counter ["peer" "lane"] "Messages to that node dropped: the queue was full, or they were too old.";
    PEER_RECEIVED = "hotwarm_transport_received_bytes_total" counter [] "Bytes received from all nodes.";
    API_REFUSED = "hotwarm_api_refused_requests_total" counter ["cause"] "Requests to this API without its token, or with a wrong one.";
    PEER_REFUSED = "hotwarm_transport_refused_connections_total" counter [] "Connections refused or closed for what their sender was or sent.";
}

/// Every so many of the router's buckets become one of ours: 24 an exposition instead of 96.
const BUCKETS_TOGETHER: usize = 4;

/// A family and how its value is read from what was counted.
type Column<T> = (Family, fn(&T) -> u64);

/// The page under construction. A family's samples must be written one after the other.
#[derive(Default)]
struct Page {
    text: String,
    family: &'static str,
}

impl Page {
    fn one(&mut self, family: Family, labels: &[&str], value: impl Display) {
        self.head(family);
        self.sample(family.0, family.2, labels, value);
    }

    fn head(&mut self, (name, kind, _, help): Family) {
        if self.family != name {
            self.family = name;
            let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        }
    }

    fn sample(&mut self, name: &str, names: &[&str], values: &[&str], value: impl Display) {
        self.text.push_str(name);
        let mut open = '{';
        for (name, value) in names.iter().zip(values) {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{open}{name}=\"{value}\"");
            open = ',';
        }
        let _ = writeln!(self.text, "{} {value}", if open == ',' { "}" } else { "" });
    }
}

pub(super) fn page(agent: &Handle, gate: &Gate) -> String {
    let mut page = Page::default();
    cluster(&mut page, agent);
    let problems: BTreeSet<_> = problem::all(agent, gate).into_iter().map(|problem| (problem.code, problem.severity)).collect();
    problems.iter().for_each(|(code, severity)| page.one(CLUSTER_PROBLEM, &[code, severity], 1));
    groups(&mut page, agent);
    reasons(&mut page, agent);
    router(&mut page, &agent.traffic());
    wal(&mut page, agent);
    transport(&mut page, agent);
    for (cause, count) in [("without", &gate.without), ("wrong", &gate.wrong)] {
        page.one(API_REFUSED, &[cause], count.load(Ordering::Relaxed));
    }
    page.text
}

fn cluster(page: &mut Page, agent: &Handle) {
    let view = agent.view();
    let quorum = picture::quorum(&view);
    page.one(BUILD, &[env!("CARGO_PKG_VERSION")], 1);
    page.one(LEADER, &[], u8::from(view.leader.is_some()));
    page.one(LEADS, &[], u8::from(view.leads));
    page.one(TERM, &[], view.term);
    page.one(REVISION, &[], view.cluster.revision);
    page.one(VOTERS, &[], quorum.voters.len());
    page.one(REACHED, &[], quorum.reached);
    page.one(NEEDED, &[], quorum.needed);
    page.one(APPLIED, &[], view.applied);
    page.one(COMMIT, &[], view.commit);
    page.one(LEASE, &[], view.lease_left.as_secs_f64());
    for grade in ["well", "slow", "stalled"] {
        page.one(GRADE, &[grade], u8::from(picture::grade(view.grade) == grade));
    }
    let nodes = picture::nodes(&view);
    nodes.iter().for_each(|node| page.one(HEARD, &[&node.name], u8::from(node.heard)));
    nodes.iter().for_each(|node| page.one(LEASED, &[&node.name], u8::from(node.leased)));
    nodes.iter().for_each(|node| page.one(NODE_DRAINED, &[&node.name], u8::from(node.drained)));
    if let Some(certificate) = agent.certificate() {
        page.one(CERTIFICATE, &[], certificate.not_after);
    }
    if let Some(room) = agent.room() {
        page.one(DISK_FREE, &[], room.free_bytes);
        page.one(DISK_LOW, &[], u8::from(room.low));
    }
}

fn groups(page: &mut Page, agent: &Handle) {
    let view = agent.view();
    let unleased = agent.unleased().is_some();
    let groups = || view.cluster.groups.iter().map(|(name, group)| (name.as_str(), group));
    groups().for_each(|(name, group)| page.one(EPOCH, &[name], group.epoch));
    for (family, of) in [(MEMBERS, picture::present as fn(&_) -> _), (WANTED, picture::wanted)] {
        for (name, group) in groups() {
            let mut counts = of(group);
            // Its router sends nothing to the hot member then, and its word is what the alert on a group that is not served looks at.
            if family == MEMBERS && unleased && group.spec.exclusive {
                counts.hot = 0;
            }
            for (role, count) in [("hot", counts.hot), ("warm", counts.warm), ("spare", counts.spare)] {
                page.one(family, &[name, role], count);
            }
        }
    }
    groups().for_each(|(name, group)| page.one(CHANGING, &[name], u8::from(group.transition.is_some())));
    groups().for_each(|(name, group)| page.one(PAUSED, &[name], u8::from(group.pause != Pause::No)));
    for (name, group) in groups() {
        // Several hooks that fail are one problem here.
        let problems: BTreeSet<_> = picture::problems(agent, group).into_iter().map(|problem| (problem.code, problem.severity)).collect();
        problems.iter().for_each(|(code, severity)| page.one(PROBLEM, &[name, code, severity], 1));
    }
}

fn reasons(page: &mut Page, agent: &Handle) {
    let tally = agent.records().tally();
    let of = |group: &str, code: &str| tally.reasons.get(&(group.into(), code)).copied().unwrap_or(0);
    let view = agent.view();
    let names: Vec<&str> = view.cluster.groups.keys().map(|name| name.as_str()).collect();
    names.iter().for_each(|name| page.one(TRANSITIONS, &[name], of(name, "opened")));
    for name in &names {
        let failovers = |code| tally.failovers.get(&((*name).into(), code)).copied().unwrap_or(0);
        UNPLANNED.iter().for_each(|&code| page.one(FAILOVERS, &[name, code], failovers(code)));
    }
    tally.reasons.iter().for_each(|((group, code), count)| page.one(REASONS, &[group.as_str(), code], count));
    for (group, opened) in &tally.opened {
        let Some(phases) = picture::reason(opened).pause else { continue };
        let all = [
            ("pause", phases.pause_ms),
            ("detect", phases.detect_ms),
            ("fence", phases.fence_ms),
            ("choose", phases.choose_ms),
            ("promote", phases.promote_ms),
        ];
        all.iter().for_each(|(phase, ms)| page.one(LAST_CHANGE, &[group.as_str(), phase], *ms as f64 / 1_000.0));
    }
}

fn router(page: &mut Page, groups: &[GroupStats]) {
    let by_group: [Column<GroupStats>; 7] = [
        (CLIENTS, |g| g.requests),
        (RETRIED, |g| g.retried),
        (PARKED, |g| g.parked),
        (PARKED_NOW, |g| g.parked_now as u64),
        (PARKED_BYTES, |g| g.parked_bytes_now),
        (CONNECTIONS, |g| g.connections),
        (CONNECTIONS_NOW, |g| g.connections_now as u64),
    ];
    for (family, value) in by_group {
        groups.iter().for_each(|g| page.one(family, &[g.group.as_str()], value(g)));
    }
    for group in groups {
        group.failed.iter().for_each(|(why, count)| page.one(FAILED, &[group.group.as_str(), why.name()], count));
    }
    let members = || groups.iter().flat_map(|g| g.members.iter().map(|m| (g.group.as_str(), m)));
    for (group, m) in members() {
        page.one(ROUTED, &[group, m.member.as_str(), "replied"], m.requests.saturating_sub(m.failed));
        page.one(ROUTED, &[group, m.member.as_str(), "failed"], m.failed);
    }
    for (group, m) in members() {
        CLASSES.iter().zip(m.replies).for_each(|(class, count)| page.one(REPLIES, &[group, m.member.as_str(), class], count));
    }
    let by_member: [Column<MemberStats>; 5] = [
        (CONNECTS, |m| m.connects),
        (SENT, |m| m.bytes_sent),
        (RECEIVED, |m| m.bytes_received),
        (IN_FLIGHT, |m| m.in_flight as u64),
        (EJECTED, |m| u64::from(m.ejected)),
    ];
    for (family, value) in by_member {
        members().for_each(|(group, m)| page.one(family, &[group, m.member.as_str()], value(m)));
    }
    members().for_each(|(group, m)| histogram(page, group, m));
}

fn histogram(page: &mut Page, group: &str, m: &MemberStats) {
    page.head(FIRST_BYTE);
    let labels = ["group", "member", "le"];
    let member = m.member.as_str();
    let mut below = 0;
    for (index, bucket) in m.first_byte.iter().enumerate() {
        below += bucket.count;
        if let (Some(us), true) = (bucket.below_us, (index + 1).is_multiple_of(BUCKETS_TOGETHER)) {
            page.sample("hotwarm_router_first_byte_seconds_bucket", &labels, &[group, member, &(us as f64 / 1e6).to_string()], below);
        }
    }
    page.sample("hotwarm_router_first_byte_seconds_bucket", &labels, &[group, member, "+Inf"], below);
    page.sample("hotwarm_router_first_byte_seconds_sum", &labels, &[group, member], m.first_byte_sum_us as f64 / 1e6);
    page.sample("hotwarm_router_first_byte_seconds_count", &labels, &[group, member], below);
}

fn wal(page: &mut Page, agent: &Handle) {
    let stats = agent.wal();
    page.one(WAL_COMMITS, &[], stats.commits);
    page.one(WAL_BYTES, &[], stats.bytes);
    page.one(WAL_SEGMENTS, &[], stats.segments);
    page.one(WAL_QUEUED, &[], stats.queued.1);
    let mut last = stats.last;
    last.sort();
    if let (Some(median), Some(worst)) = (last.get(last.len() / 2), last.last()) {
        page.one(WAL_MEDIAN, &[], median.as_secs_f64());
        page.one(WAL_WORST, &[], worst.as_secs_f64());
    }
}

fn transport(page: &mut Page, agent: &Handle) {
    let stats = agent.transport();
    let lanes: Vec<_> = stats.lanes.iter().map(|((peer, lane), stats)| (peer.as_str(), lane.to_string(), stats)).collect();
    lanes.iter().for_each(|(peer, lane, s)| page.one(PEER_CONNECTED, &[peer, lane], u8::from(s.connected)));
    lanes.iter().for_each(|(peer, lane, s)| page.one(PEER_SENT, &[peer, lane], s.sent_bytes));
    lanes.iter().for_each(|(peer, lane, s)| page.one(PEER_DROPPED, &[peer, lane], s.dropped_full + s.dropped_old));
    page.one(PEER_RECEIVED, &[], stats.received_bytes);
    page.one(PEER_REFUSED, &[], stats.refused + stats.bad_connections);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manual() -> String {
        let mut out = String::from(include_str!("metrics_page.md"));
        out.push_str("\n| metric | kind | labels | meaning |\n|---|---|---|---|\n");
        for (name, kind, labels, help) in FAMILIES {
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            out.push_str(&format!("| `{name}` | {kind} | {} | {help} |\n", labels.join(", ")));
        }
        out
    }

    #[test]
    fn the_manual_lists_every_metric() {
        let path = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/metrics.md");
        if std::env::var_os("HOTWARM_REGENERATE").is_some_and(|value| value == "1") {
            std::fs::write(&path, manual()).unwrap();
        }
        assert!(std::fs::read_to_string(&path).unwrap_or_default() == manual(), "docs/reference/metrics.md differs; run scripts/fix");
    }

    #[test]
    fn a_sample_is_one_line_whatever_it_is_about() {
        let mut page = Page::default();
        page.one(EPOCH, &["a\"b\\c\nd"], 7);
        page.one(EPOCH, &["e"], 8);
        page.one(TERM, &[], 9);
        let samples: Vec<&str> = page.text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            ["hotwarm_group_epoch{group=\"a\\\"b\\\\c\\nd\"} 7", "hotwarm_group_epoch{group=\"e\"} 8", "hotwarm_cluster_term 9"]
        );
        assert_eq!(page.text.matches("# TYPE hotwarm_group_epoch gauge").count(), 1);
    }
}
