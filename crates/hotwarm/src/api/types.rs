//! What goes over the API's wire, in both directions: types of its own, so that the core may change without the API doing so.
//!
//! Names are stable: a field is added, never renamed or given another meaning. Choices are kebab-case words. `openapi` describes each type
//! and a test holds the two together. Nothing here computes.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Events of one answer, at most: it is held in memory whole.
pub const EVENTS_MAX: u16 = 1_000;
/// Lines of a member's output in one answer, at most.
pub const LINES_MAX: u16 = 10_000;

/// `GET /health`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// `UP` or `DOWN`.
    pub status: String,
    pub node: String,
    /// Why it is down; empty when it is up.
    pub reasons: Vec<String>,
    /// What a person should know although it is up.
    pub warnings: Vec<String>,
}

/// `GET /api/v1/status`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    pub cluster: ClusterStatus,
    /// The node that answers.
    pub node: SelfStatus,
    pub nodes: Vec<NodeStatus>,
    /// Of the cluster and of the node that answers; a group's are with it.
    #[serde(default)]
    pub problems: Vec<Problem>,
    pub groups: Vec<GroupStatus>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClusterStatus {
    pub name: String,
    /// 32 hexadecimal digits; zeros before the cluster is founded.
    pub id: String,
    pub leader: Option<String>,
    pub term: u64,
    /// Of the configuration in force; counts from 1.
    pub revision: u64,
    pub behaviour: u32,
    pub lease_ms: u64,
    pub quorum: Quorum,
}

/// Voters of the control log, as the answering node sees them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quorum {
    pub voters: Vec<String>,
    /// How many must agree.
    pub needed: usize,
    /// How many of them the answering node hears, itself included.
    pub reached: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SelfStatus {
    pub name: String,
    /// Of its agent.
    pub pid: u32,
    pub version: String,
    pub leads: bool,
    /// What is left of its lease; 0 if it holds none.
    pub lease_left_ms: u64,
    /// Since when it holds no lease and reaches no quorum, in milliseconds; `null` otherwise. What it tells of others is that old.
    pub cut_off_ms: Option<u64>,
    /// Since when it holds no lease, whatever it hears, in milliseconds; `null` while it holds one. Nothing of exclusive groups is served here.
    #[serde(default)]
    pub no_lease_ms: Option<u64>,
    /// Nobody has founded the cluster as far as it knows, and it may not: `init` and `join` give one node the right to.
    pub cannot_found: bool,
    /// `well`, `slow` or `stalled`.
    pub grade: String,
    /// What the grade rests on, if it is not well.
    pub ailment: Option<String>,
    pub applied: u64,
    pub commit: u64,
    pub certificate: Option<CertificateStatus>,
    pub disk: Option<DiskStatus>,
}

/// The disk of a node's data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    pub free_bytes: u64,
    pub floor_bytes: u64,
    /// True from below the floor until well above it.
    pub low: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// Seconds since 1970.
    pub not_after_unix_seconds: i64,
    pub days_left: i64,
    /// Hexadecimal.
    pub serial: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub name: String,
    pub address: SocketAddr,
    pub zone: String,
    /// `voter`, `witness` (votes, hosts nothing) or `edge` (routes, does not vote).
    pub role: String,
    /// It has come to the cluster at least once.
    pub joined: bool,
    /// It is among the voters now.
    pub votes: bool,
    pub leads: bool,
    /// The leader answers its renewals; of the answering node: it holds a lease.
    pub leased: bool,
    pub silent: bool,
    pub drained: bool,
    /// The answering node hears it (or is it).
    pub heard: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupStatus {
    pub name: String,
    /// `hot-hot`, `hot-warm`, `hot-spare` or `mixed`.
    pub mode: String,
    pub exclusive: bool,
    /// Counts asked for.
    pub want: Counts,
    /// Counts there are: hot and serving, warm and able to take over, spare.
    pub have: Counts,
    pub epoch: u64,
    /// `serving`, `draining`, `changing` or `parked`; `no-lease` for an exclusive group where the answering node holds none: not served here.
    pub state: String,
    /// What `state` was when the answering node last knew; only where it holds no lease.
    #[serde(default)]
    pub last_state: Option<String>,
    /// `no`, `paused` or `resuming`.
    pub pause: String,
    pub transition: Option<Transition>,
    /// The refusal that holds now.
    pub refusal: Option<Reason>,
    /// A restart of members that was asked for, and is not over.
    #[serde(default)]
    pub restart: Option<Restarting>,
    pub problems: Vec<Problem>,
    pub failovers_last_hour: usize,
    pub failovers_per_hour: u32,
    /// Where clients come, by node.
    pub listen: BTreeMap<String, SocketAddr>,
    pub members: Vec<MemberStatus>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub hot: usize,
    pub warm: usize,
    pub spare: usize,
}

/// A restart of members that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarting {
    /// Whose turn it is.
    pub member: Option<String>,
    /// Who is still to be restarted, the one whose turn it is among them, in this order.
    pub left: Vec<String>,
    /// It ended before all were restarted: nothing more is done.
    pub stopped: bool,
    /// What it is doing, or why it does nothing.
    pub text: String,
}

/// A change of the hot member that is under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Transition {
    pub attempt: u64,
    pub why: Reason,
    pub from: Option<String>,
    pub to: Option<String>,
    pub planned: bool,
    /// `draining`, `fencing`, `choosing` or `promoting`.
    pub phase: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    pub code: String,
    /// `down` (requests are not served), `bare` (the next loss is not survived) or `notice`.
    pub severity: String,
    pub title: String,
    pub advice: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberStatus {
    /// `GROUP/MEMBER`.
    pub name: String,
    pub node: String,
    pub address: SocketAddr,
    /// `hot`, `warm` or `spare`.
    pub role: String,
    /// It takes requests.
    pub serving: bool,
    /// `running`, `stopped` or `unknown`.
    pub life: String,
    /// Why it stopped, if it did.
    pub stopped: Option<String>,
    /// Its own node's probe is answered.
    pub ready: bool,
    pub why_unready: String,
    pub drained: bool,
    /// Why it could not serve now; `null` if it could.
    pub unfit: Option<Unfit>,
    /// It failed lately: for so long another is preferred.
    pub held_down_ms: Option<u64>,
    /// It runs on as it was started, before its engine's configuration changed; only the answering node's members are known to.
    pub former_engine: bool,
    /// Of its program; only where it runs on the answering node.
    pub pid: Option<u32>,
    pub incarnation: u64,
    pub priority: i32,
    pub weight: u32,
}

/// Why a member cannot become hot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfit {
    pub code: String,
    pub text: String,
}

/// Why something was decided or refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Its page is `docs/reference/reasons/CODE.md`.
    pub code: String,
    pub text: String,
    pub refusal: bool,
    /// The safety rules of docs/internals/safety.md by which it is as it is.
    #[serde(default)]
    pub rules: Vec<String>,
    pub member: Option<String>,
    pub node: Option<String>,
    pub epoch: Option<u64>,
    /// How long requests waited, for the code `opened`.
    pub pause: Option<Phases>,
}

/// The parts of a change of the hot member, in milliseconds of log time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phases {
    pub pause_ms: u64,
    pub detect_ms: u64,
    pub fence_ms: u64,
    pub choose_ms: u64,
    pub promote_ms: u64,
}

/// What happened, as the answering node recorded it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts the answering node's records since its start; 0 in answers to writes.
    pub number: u64,
    /// When it was decided, by the wall clock of the node that led then; of `here-...`, and in answers to writes, by the answering
    /// node's: RFC 3339, UTC.
    pub time: String,
    /// Log time.
    pub at_ms: u64,
    pub group: Option<String>,
    /// `because` for reasons; else what was done: `open`, `close`, `promote`, `node-silent` and so on. `here-...`: what the answering node saw of itself.
    pub kind: String,
    pub text: String,
    pub reason: Option<Reason>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Events {
    pub events: Vec<Event>,
    /// For `after`: the number of the newest event.
    pub newest: u64,
}

/// `GET /api/v1/groups/{group}/why`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Why {
    pub group: String,
    /// The answering node.
    pub node: String,
    /// As in the answering node's status: what it tells is that old.
    pub cut_off_ms: Option<u64>,
    /// As in the answering node's status.
    #[serde(default)]
    pub no_lease_ms: Option<u64>,
    pub epoch: u64,
    pub now: String,
    /// The change under way and what it waits for.
    pub transition: Option<String>,
    pub refusal: Option<Reason>,
    /// What a restart of members is doing, or why it does nothing.
    #[serde(default)]
    pub restart: Option<String>,
    pub problems: Vec<Problem>,
    pub members: Vec<Standing>,
    /// Empty on a node that holds no lease.
    pub if_died: Vec<WhatIf>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub member: String,
    pub role: String,
    /// Why it could not become hot; `null` if it could, or is.
    pub unfit: Option<Unfit>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhatIf {
    pub event: String,
    pub outcome: String,
    pub reasons: Vec<Reason>,
}

/// `GET /api/v1/traffic`: what the answering node's router has counted since its start.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Traffic {
    pub node: String,
    /// Milliseconds of the node's monotonic clock, for rates.
    pub at_ms: u64,
    pub groups: Vec<GroupTraffic>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupTraffic {
    pub group: String,
    pub epoch: u64,
    pub connections: u64,
    pub connections_now: usize,
    pub requests: u64,
    pub retried: u64,
    pub parked: u64,
    pub parked_now: usize,
    pub parked_bytes_now: u64,
    /// Requests without a whole reply, by cause.
    pub failed: BTreeMap<String, u64>,
    pub members: Vec<MemberTraffic>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemberTraffic {
    pub member: String,
    pub requests: u64,
    pub failed: u64,
    pub retried: u64,
    pub connects: u64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    pub in_flight: usize,
    /// Replies by class of status: `1xx` to `5xx`.
    #[serde(default)]
    pub replies: BTreeMap<String, u64>,
    /// Left out by this router for now.
    pub ejected: bool,
    /// Times to the first byte of a reply: `[upper bound in microseconds, count]`; empty buckets are left out, the open one has no bound.
    pub first_byte_us: Vec<(Option<u64>, u64)>,
    pub first_byte_sum_us: u64,
}

/// `GET /api/v1/config`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    pub revision: u64,
    pub text: String,
}

/// `POST /api/v1/config`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Apply {
    pub text: String,
    /// The revision that `text` was made from: another one in force refuses it.
    pub revision: u64,
    /// Judge it and change nothing.
    #[serde(default)]
    pub dry_run: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Applied {
    /// In force now.
    pub revision: u64,
    pub dry_run: bool,
    /// What it does, sentence by sentence.
    pub changes: Vec<String>,
    /// Warnings about the text.
    pub warnings: Vec<String>,
}

/// `POST /api/v1/groups/{group}/switchover`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Switchover {
    /// `MEMBER` or `GROUP/MEMBER`; without it the best candidate.
    #[serde(default)]
    pub to: Option<String>,
}

/// `POST /api/v1/groups/{group}/restart`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// Which lives are to end, by member: a life that has ended is not ended again. Without it those that the answering node knows of.
    #[serde(default)]
    pub incarnations: Option<BTreeMap<String, u64>>,
    /// Call off what is left of one instead.
    #[serde(default)]
    pub cancel: bool,
}

/// `POST /api/v1/groups/{group}/resume`
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resume {
    /// The caller vouches that nodes which do not answer are stopped.
    #[serde(default)]
    pub force: bool,
}

/// What a write did: the events of its entry in the log. What follows from it comes later, as events.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {
    pub events: Vec<Event>,
}

/// `POST /api/v1/certificates/reload`
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reloaded {
    pub certificate: CertificateStatus,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Logs {
    pub member: String,
    /// Oldest first.
    pub lines: Vec<String>,
}

/// One line of `logs?follow=true`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogLine {
    pub line: String,
}

/// Every answer that is not 2xx (but `/health`).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Error {
    /// Leads to `page`.
    pub code: String,
    pub error: String,
    pub hint: Option<String>,
    pub page: String,
    /// The rule that refused.
    pub reason: Option<Reason>,
    /// What is wrong with a configuration: code, severity, message, place, hint of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Value>,
}
