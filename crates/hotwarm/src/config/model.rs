//! The validated configuration. Whoever holds a [`Config`] need not check it again: addresses are parsed, defaults are filled in,
//! names refer to things that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hotwarm_core::ids::{GroupName, MemberId, NodeId};

use super::mark::Mark;

/// The whole file, for one node or for none (`check`, `apply`).
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub cluster: Cluster,
    pub node: Node,
    pub groups: BTreeMap<GroupName, Group>,
    /// The text it was read from: what enters the control log.
    pub text: String,
}

/// `[cluster]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    pub name: String,
    /// Where each node listens for the others.
    pub nodes: BTreeMap<NodeId, SocketAddr>,
    /// Nodes that vote, host no member and open no group's listener.
    pub witness: BTreeSet<NodeId>,
    /// Nodes that route and do not vote.
    pub edge: BTreeSet<NodeId>,
    pub zones: BTreeMap<NodeId, String>,
    /// Length of a node's lease; default 1 s.
    pub lease: Duration,
    /// Interval between heartbeats of nodes; default 100 ms.
    pub heartbeat: Duration,
}

/// `[node]`, with `[node.NAME]` laid over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Which node this is; `None` where the file is read for the cluster as a whole.
    pub name: Option<NodeId>,
    pub data: PathBuf,
    pub api: SocketAddr,
    /// The file with the secret that the API asks for.
    pub api_token: Option<PathBuf>,
}

/// `[group.NAME]`
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    pub name: GroupName,
    pub mode: Mode,
    /// The router's listener on each node that opens one.
    pub listen: BTreeMap<NodeId, SocketAddr>,
    pub protocol: Protocol,
    pub engine: Engine,
    pub members: BTreeMap<MemberId, Member>,
    pub check: Check,
    pub balance: Balance,
    pub park: Park,
    pub http: HttpLimits,
    /// What the user marks as safe to repeat (S20).
    pub repeat: Vec<Mark>,
    pub timeouts: Timeouts,
    pub fence: Fence,
    pub objective: Objective,
    /// How long a switchover or drain waits for requests in flight; default 5 s.
    pub drain: Duration,
    /// The member dies when its node's lease ends, even if the agent hangs: default for every group that allows one hot member.
    pub stateful: bool,
    pub failovers_per_hour: u32,
}

/// How many members have which role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    pub hot: u16,
    pub warm: u16,
    pub spare: u16,
    /// Of several members, one serves at a time: leases and fencing apply.
    pub exclusive: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http,
    Tcp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub node: NodeId,
    pub address: SocketAddr,
    /// Higher is preferred as hot; default 0.
    pub priority: i32,
    /// Share of the traffic relative to others; default 100.
    pub weight: u32,
}

/// What keeps a member running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    Process(Process),
    /// An address that is probed, not started.
    External,
    Command(Hooks),
}

/// A supervised program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Program and arguments; no shell.
    pub argv: Vec<String>,
    pub user: Option<String>,
    pub directory: Option<PathBuf>,
    pub env: BTreeMap<String, String>,
    pub on_role_change: RoleChange,
    /// From SIGTERM to SIGKILL; default 5 s.
    pub grace: Duration,
    /// How long it may take to become ready; default 30 s.
    pub start_timeout: Duration,
    pub limits: Limits,
    pub restart: Restart,
}

/// How a process learns of its new role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoleChange {
    /// Not at all: the router gates it.
    Gate,
    /// Signal number.
    Signal(i32),
    /// POST to this path at the member's address, body `{"role":"hot","epoch":7}`; 2xx confirms.
    Http(String),
    /// Run this program with the member's environment; exit 0 confirms.
    Command(Vec<String>),
    /// Stop it and start it with the new role in its environment.
    Restart,
}

/// `None` = the system's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub open_files: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub processes: Option<u64>,
}

/// When a member that exited by itself is started again: after `delay`, doubled each time up to `delay_max`, reset after it was
/// ready for `delay_max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    pub delay: Duration,
    pub delay_max: Duration,
}

/// The user's own programs. Each gets the member's environment and must exit within `timeout`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    pub start: Option<Vec<String>>,
    pub stop: Option<Vec<String>>,
    pub promote: Option<Vec<String>>,
    pub demote: Option<Vec<String>>,
    pub fence: Option<Vec<String>>,
    /// Prints one number on standard output.
    pub position: Option<Vec<String>>,
    pub user: Option<String>,
    pub timeout: Duration,
}

/// How a member's health is probed. The times are upper bounds; derived timing wins where it is faster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub kind: CheckKind,
    pub every: Duration,
    pub timeout: Duration,
    /// Failures in a row until unhealthy.
    pub fall: u32,
    /// Successes in a row until healthy.
    pub rise: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// A connection is accepted.
    Tcp,
    /// GET `path`: one of `status` (default 200 to 399), body containing `body`.
    Http { path: String, status: Vec<u16>, body: Option<String> },
    /// Exit code 0.
    Command(Vec<String>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Balance {
    LeastLoaded,
    RoundRobin,
    HashHeader(String),
    HashClientIp,
}

/// Bounds on requests that wait for a hot member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Park {
    pub time: Duration,
    pub requests: usize,
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    pub head_bytes: usize,
    pub headers: usize,
    pub connections: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    pub first_byte: Duration,
    pub idle: Duration,
}

/// How an old hot member is kept from serving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Its supervisor stops it, or its node's lease is waited out.
    Supervisor,
    /// This program confirms by exit 0.
    Command(Vec<String>),
    /// Only routers stop sending to it.
    RouterOnly,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objective {
    pub rto: Option<Duration>,
    pub rpo: Option<Duration>,
    /// Failovers without cause that are accepted, per 30 days.
    pub false_failovers: Option<f64>,
}
