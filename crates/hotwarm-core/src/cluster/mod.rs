//! What all groups share: nodes and their leases, the configuration, the version of behaviour; hands each input to its group.
//!
//! This is the state machine of the control log. [`Cluster::apply`] is given the entries in their order and is a pure function of
//! them; what became of each is told as [`Event`]s.

pub mod entry;
mod nodes;
pub mod spec;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

pub use entry::{Body, Entry, Item, Origin};
pub use spec::{ClusterSpec, NodeSpec};

use crate::group::reason::SelfDoubt;
use crate::group::{self, Effect, Group, Input};
use crate::ids::{Epoch, GroupName, Millis, NodeId, RaftId, Session};
use crate::plant::{self, Bug};

/// The newest behaviour this program has (S17): the state carries the one in force.
pub const BEHAVIOUR: u32 = 3;
/// The behaviour that a cluster is founded with, whichever program founds it: every program must make the same of that entry.
const FIRST: u32 = 1;
/// From this one on there are restarts ([`group::input::Operator::Restart`]).
pub const WITH_RESTART: u32 = 2;
/// From this one on a node tells the log that it doubts itself.
pub const TELLS_SELF_DOUBT: u32 = 2;
/// From this one on a node tells the log that its agent is being stopped ([`SelfDoubt::Stopping`]).
pub const TELLS_STOP: u32 = 3;

/// The state that every node derives from the control log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Random, born at the first start; peers remember it and refuse a second birth (S11).
    pub id: u128,
    pub name: String,
    pub behaviour: u32,
    /// Log time of the last entry.
    pub at: Millis,
    /// Counts configurations; the first is 1.
    pub revision: u64,
    /// The configuration as the operator wrote it.
    pub text: String,
    pub lease: Lease,
    pub nodes: BTreeMap<NodeId, Node>,
    pub groups: BTreeMap<GroupName, Group>,
    /// The next number for a replica; none is used twice (S11).
    pub next_raft_id: u64,
    /// A group that is new begins after it: what remembers an epoch of a removed group of that name obeys the new one too.
    pub epoch_floor: Epoch,
    /// Names of removed groups in which several served: their members and routers need no lease, so nobody can wait until the last of them
    /// has heard that it is over (docs/decisions/burnt-names.md).
    pub once_many: BTreeSet<GroupName>,
    /// Nodes that doubt themselves, as they say.
    pub self_doubts: BTreeMap<NodeId, SelfDoubt>,
}

/// The lease's length in force. A decrease counts for those who wait it out only after the old length has passed (S2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub length_ms: u64,
    /// The longest that a holder may still count on.
    pub longest_ms: u64,
    /// When `length_ms` was decreased.
    pub since: Millis,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub spec: NodeSpec,
    /// Born with its data directory (S11); 0 before it first came.
    pub incarnation: u128,
    pub raft_id: Option<RaftId>,
    /// Which behaviours its program has (S17).
    pub behaviour: u32,
    pub session: Session,
    /// Renewals of `session` are answered.
    pub leased: bool,
    pub silent: bool,
    pub drained: bool,
    /// The newest command of this node that was applied, so that a repeated one is not.
    pub last_command: u64,
}

/// What an entry did, for the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub at: Millis,
    pub group: Option<GroupName>,
    pub what: What,
}

/// See [`Event`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    Founded { cluster: u128 },
    Configured { revision: u64 },
    ConfigureRefused { why: String },
    Admitted { node: NodeId, raft_id: RaftId },
    Silent { node: NodeId },
    Heard { node: NodeId },
    Lapsed { node: NodeId, session: Session },
    Back { node: NodeId, session: Session },
    Drained { node: NodeId },
    Undrained { node: NodeId },
    Behaviour { version: u32 },
    Group(Effect),
    SelfDoubt { node: NodeId, why: Option<SelfDoubt> },
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Founded { cluster } => write!(f, "cluster founded (id {cluster:032x})"),
            Self::Configured { revision } => write!(f, "configuration {revision} is in force"),
            Self::ConfigureRefused { why } => write!(f, "configuration refused: {why}"),
            Self::Admitted { node, raft_id } => write!(f, "node {node} joined (replica {raft_id})"),
            Self::Silent { node } => write!(f, "node {node} is silent"),
            Self::Heard { node } => write!(f, "node {node} is heard again"),
            Self::Lapsed { node, session } => {
                write!(f, "lease of node {node} was waited out (session {session}): nothing serves there under it")
            }
            Self::Back { node, session } => {
                let again = if session.0 > 1 { " again" } else { "" };
                write!(f, "node {node} holds leases{again} (session {session})")
            }
            Self::Drained { node } => write!(f, "node {node} is drained"),
            Self::Undrained { node } => write!(f, "node {node} is no longer drained"),
            Self::Behaviour { version } => write!(f, "behaviour version {version} is in force"),
            Self::Group(effect) => write!(f, "{effect}"),
            Self::SelfDoubt { node, why: Some(SelfDoubt::Stopping) } => {
                write!(f, "node {node} stops in an orderly way: members there that need no lease go on, and it may be back")
            }
            Self::SelfDoubt { node, why: Some(why) } => {
                write!(f, "node {node} doubts itself: {why}; its members become hot only where no others can")
            }
            Self::SelfDoubt { node, why: None } => write!(f, "node {node} no longer doubts itself"),
        }
    }
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    pub origin: Origin,
    pub events: Vec<Event>,
}

impl Cluster {
    /// Before the first entry.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            id: 0,
            name: String::new(),
            behaviour: 0,
            at: Millis(0),
            revision: 0,
            text: String::new(),
            lease: Lease { length_ms: 0, longest_ms: 0, since: Millis(0) },
            nodes: BTreeMap::new(),
            groups: BTreeMap::new(),
            next_raft_id: 1,
            epoch_floor: Epoch(0),
            once_many: BTreeSet::new(),
            self_doubts: BTreeMap::new(),
        }
    }

    /// True once the first entry was applied.
    #[must_use]
    pub const fn founded(&self) -> bool {
        self.id != 0
    }

    /// Applies one entry; tells what it did, and what became of commands in it.
    pub fn apply(&mut self, entry: &Entry) -> (Vec<Event>, Vec<Applied>) {
        self.at = self.at.max(entry.at);
        self.settle_lease();
        let mut events = Vec::new();
        let mut applied = Vec::new();
        for item in &entry.items {
            if let Some(origin) = &item.origin
                && !self.first_time(origin)
            {
                continue;
            }
            let done = self.apply_body(&item.body);
            if let Some(origin) = &item.origin {
                applied.push(Applied { origin: origin.clone(), events: done.clone() });
            }
            events.extend(done);
        }
        (events, applied)
    }

    /// A command that was sent twice is applied once.
    fn first_time(&mut self, origin: &Origin) -> bool {
        let Some(node) = self.nodes.get_mut(&origin.node) else { return true };
        if origin.number <= node.last_command {
            return false;
        }
        node.last_command = origin.number;
        true
    }

    fn apply_body(&mut self, body: &Body) -> Vec<Event> {
        match body {
            Body::Found { cluster, spec, node, incarnation } => self.on_found(*cluster, spec, node, *incarnation),
            Body::Configure { spec, revision } => self.on_configure(spec, *revision),
            Body::Admit { node, incarnation, behaviour } => self.on_admit(node, *incarnation, *behaviour),
            Body::Silent { node, session } => self.on_silent(node, *session),
            Body::Heard { node, session } => self.on_heard(node, *session),
            Body::Lapsed { node, session } => self.on_lapsed(node, *session),
            Body::Back { node, session } => self.on_back(node, *session),
            Body::Drain { node } => self.on_drain(node, true),
            Body::Undrain { node } => self.on_drain(node, false),
            Body::Behaviour { version } => self.on_behaviour(*version),
            Body::Timer => self.tell_all(&group::Body::Timer),
            Body::Group { group, body } => self.tell_group(group, body.clone()),
            Body::SelfDoubt { node, why } => self.on_self_doubt(node, *why),
        }
    }

    fn event(&self, what: What) -> Event {
        Event { at: self.at, group: None, what }
    }

    fn tell_group(&mut self, name: &GroupName, body: group::Body) -> Vec<Event> {
        let Some(group) = self.groups.remove(name) else { return Vec::new() };
        let (group, effects) = group::step(group, &Input { at: self.at, body });
        self.groups.insert(name.clone(), group);
        effects.into_iter().map(|effect| Event { at: self.at, group: Some(name.clone()), what: What::Group(effect) }).collect()
    }

    fn tell_all(&mut self, body: &group::Body) -> Vec<Event> {
        let names: Vec<GroupName> = self.groups.keys().cloned().collect();
        names.iter().flat_map(|name| self.tell_group(name, body.clone())).collect()
    }

    fn on_found(&mut self, id: u128, spec: &ClusterSpec, node: &NodeId, incarnation: u128) -> Vec<Event> {
        if self.founded() {
            return Vec::new();
        }
        self.id = id;
        self.behaviour = FIRST;
        let mut events = vec![self.event(What::Founded { cluster: id })];
        events.extend(self.on_configure(spec, 0));
        events.extend(self.on_admit(node, incarnation, FIRST));
        events
    }

    fn on_behaviour(&mut self, version: u32) -> Vec<Event> {
        // Raised once every node supports it, never lowered (S17).
        // Whether this program has it is no question here: every program must make the same of an entry.
        let supported = self.nodes.values().filter(|n| n.raft_id.is_some()).all(|n| n.behaviour >= version);
        let supported = supported || plant::is(Bug::S17TooEarly);
        if version <= self.behaviour || !supported {
            return Vec::new();
        }
        self.behaviour = version;
        vec![self.event(What::Behaviour { version })]
    }

    /// The next moment of log time at which the leader is to log a [`Body::Timer`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        let lease = (self.lease.longest_ms > self.lease.length_ms).then(|| self.lease_settles_at());
        self.groups.values().filter_map(Group::next_deadline).chain(lease).min()
    }

    /// Which node a replica's number belongs to.
    #[must_use]
    pub fn node_of(&self, id: RaftId) -> Option<&NodeId> {
        self.nodes.iter().find(|(_, n)| n.raft_id == Some(id)).map(|(name, _)| name)
    }

    /// The state as bytes, versioned: what a snapshot holds.
    ///
    /// # Panics
    /// Never: every part of the state can be written.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![SNAPSHOT_VERSION];
        bytes.extend(postcard::to_allocvec(self).expect("the state holds only what postcard can write"));
        bytes
    }

    /// # Errors
    /// The bytes are no state, or one of a version this program does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match bytes.split_first() {
            Some((&SNAPSHOT_VERSION, rest)) => postcard::from_bytes(rest).map_err(|_| DecodeError::Malformed { what: "cluster snapshot" }),
            Some((&version, _)) => Err(DecodeError::UnknownVersion { what: "cluster snapshot", version }),
            None => Err(DecodeError::Malformed { what: "cluster snapshot" }),
        }
    }
}

const SNAPSHOT_VERSION: u8 = 2;

/// Bytes that are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("malformed {what}")]
    Malformed { what: &'static str },
    #[error("{what} of version {version}, which this program does not know; upgrade it")]
    UnknownVersion { what: &'static str, version: u8 },
}
