//! Nodes in the control log: configured, admitted, silent, lapsed, back.

use std::collections::BTreeMap;

use super::{Cluster, ClusterSpec, Event, Lease, Node, What};
use crate::group::input::NodeInput;
use crate::group::reason::SelfDoubt;
use crate::group::state::NodeView;
use crate::group::{self, Group};
use crate::ids::{Epoch, Millis, NodeId, RaftId, Session};
use crate::plant::{self, Bug};

/// Epochs that a survivor of a lost quorum may not have heard of, with much to spare.
const EPOCHS_UNSEEN: u64 = 1000;
/// Names of removed groups that are remembered, at most.
const NAMES_KEPT: usize = 4096;

impl Cluster {
    /// Why this configuration cannot be applied now; sentences for the operator.
    #[must_use]
    pub fn refuses(&self, spec: &ClusterSpec, revision: u64) -> Vec<String> {
        let mut why = Vec::new();
        if revision != self.revision {
            why.push(format!("it was made from revision {revision}, and {} is in force: look at the difference again", self.revision));
        }
        if self.founded() && !self.name.is_empty() && spec.name != self.name {
            why.push(format!("it is for the cluster {:?}, this is {:?}", spec.name, self.name));
        }
        why.extend(spec.groups.iter().filter_map(|(name, new)| match self.groups.get(name) {
            Some(group) => group.refuses(new),
            // The first configuration has nothing to fall back on.
            None => new.impossible().filter(|_| self.revision > 0),
        }));
        let served = |g: &Group| g.spec.exclusive && g.may_serve().next().is_some();
        let gone = self.groups.iter().filter(|(name, g)| !spec.groups.contains_key(*name) && served(g));
        why.extend(gone.map(|(name, _)| format!("group {name} is removed while a member is hot: apply it with `mode = {{ hot = 0, ... }}` first, which stops it, then without it")));
        let reborn =
            spec.groups.iter().filter(|(name, new)| new.exclusive && !self.groups.contains_key(*name) && self.once_many.contains(*name));
        why.extend(reborn.map(|(name, _)| {
            format!(
                "several members served in group {name} before it was removed, and some may not have heard: give the new group another name"
            )
        }));
        // Nobody would wait its lease out: its routers and members might go on serving, and nobody would know (S2, S8).
        let leased = self.nodes.iter().filter(|(name, node)| node.leased && !spec.nodes.contains_key(*name));
        why.extend(leased.map(|(name, _)| format!("node {name} is removed while it holds a lease: stop hotwarm there first")));
        // It goes on listening where it does, and the others would look for it elsewhere: of several at once the quorum is lost for good.
        let moved = self.nodes.iter().filter_map(|(name, node)| Some((name, node, spec.nodes.get(name)?.address)));
        let moved = moved.filter(|(_, node, address)| node.leased && node.spec.address != *address);
        why.extend(moved.map(|(name, node, address)| {
            format!(
                "the address of node {name} changes from {} to {address} while hotwarm runs there: stop it, apply, correct the file on {name}, \
                 start it; one node at a time",
                node.spec.address
            )
        }));
        why
    }

    pub(super) fn on_configure(&mut self, spec: &ClusterSpec, revision: u64) -> Vec<Event> {
        let why = self.refuses(spec, revision);
        if !why.is_empty() {
            return vec![self.event(What::ConfigureRefused { why: why.join("; ") })];
        }
        self.name.clone_from(&spec.name);
        self.text.clone_from(&spec.text);
        self.revision += 1;
        self.set_lease(spec.lease_ms);
        for (name, node) in &spec.nodes {
            self.nodes.entry(name.clone()).and_modify(|n| n.spec = node.clone()).or_insert_with(|| Node::new(node.clone()));
        }
        self.nodes.retain(|name, _| spec.nodes.contains_key(name));
        self.self_doubts.retain(|name, _| spec.nodes.contains_key(name));
        // One that is new holds no lease and is not drained, whatever was known of that name before: nobody waits for its router (S8).
        let views = self.views();
        self.groups.values_mut().for_each(|group| group.nodes.extend(views.clone()));
        let mut events = vec![self.event(What::Configured { revision: self.revision })];
        let gone = || self.groups.iter().filter(|(name, _)| !spec.groups.contains_key(*name));
        self.epoch_floor = gone().map(|(_, group)| group.epoch).max().unwrap_or_default().max(self.epoch_floor);
        self.once_many.extend(gone().filter(|(_, group)| !group.spec.exclusive).map(|(name, _)| name.clone()));
        while self.once_many.len() > NAMES_KEPT {
            self.once_many.pop_first();
        }
        self.groups.retain(|name, _| spec.groups.contains_key(name));
        for (name, group) in &spec.groups {
            if self.groups.contains_key(name) {
                events.extend(self.tell_group(name, group::Body::Configure(Box::new(group.clone()))));
            } else {
                self.groups.insert(name.clone(), Group::new(group.clone(), self.views(), self.epoch_floor));
            }
        }
        events
    }

    fn views(&self) -> BTreeMap<NodeId, NodeView> {
        let doubt = |name: &NodeId| self.self_doubts.get(name).copied();
        let view = |name, n: &Node| NodeView { silent: n.silent, lapsed: !n.leased, drained: n.drained, doubts_itself: doubt(name) };
        self.nodes.iter().map(|(name, n)| (name.clone(), view(name, n))).collect()
    }

    /// S2: a decrease counts for holders at once, for those who wait only after the old length.
    fn set_lease(&mut self, length_ms: u64) {
        self.settle_lease();
        let longest_ms = self.lease.longest_ms.max(length_ms);
        self.lease = Lease { length_ms, longest_ms, since: self.at };
    }

    pub(super) const fn lease_settles_at(&self) -> Millis {
        // Twice: once for the lease itself, once for a holder that has yet to apply the decrease before it renews.
        self.lease.since.plus(self.lease.longest_ms * 2)
    }

    pub(super) fn settle_lease(&mut self) {
        if self.lease.longest_ms > self.lease.length_ms && self.at >= self.lease_settles_at() {
            self.lease.longest_ms = self.lease.length_ms;
        }
    }

    /// S11: a data directory that was not seen before gets a number of its own; the one it replaces belongs to nobody
    /// from then on, and the leader takes it out of the voters.
    pub(super) fn on_admit(&mut self, name: &NodeId, incarnation: u128, behaviour: u32) -> Vec<Event> {
        let raft_id = RaftId(self.next_raft_id);
        let Some(node) = self.nodes.get_mut(name) else { return Vec::new() };
        if behaviour < self.behaviour {
            // S17: a program that does not know what is in force would go another way.
            return Vec::new();
        }
        node.behaviour = behaviour;
        if node.incarnation == incarnation {
            return Vec::new();
        }
        node.incarnation = incarnation;
        if plant::is(Bug::S11SameNumber) && node.raft_id.is_some() {
            return Vec::new();
        }
        node.raft_id = Some(raft_id);
        self.next_raft_id += 1;
        vec![self.event(What::Admitted { node: name.clone(), raft_id })]
    }

    fn current(&mut self, name: &NodeId, session: Session) -> Option<&mut Node> {
        self.nodes.get_mut(name).filter(|n| n.session == session)
    }

    pub(super) fn on_silent(&mut self, name: &NodeId, session: Session) -> Vec<Event> {
        match self.current(name, session) {
            Some(node) if !node.silent => node.silent = true,
            _ => return Vec::new(),
        }
        self.tell(What::Silent { node: name.clone() }, NodeInput::Silent { node: name.clone() })
    }

    pub(super) fn on_heard(&mut self, name: &NodeId, session: Session) -> Vec<Event> {
        match self.current(name, session) {
            Some(node) if node.silent && node.leased => node.silent = false,
            _ => return Vec::new(),
        }
        self.tell(What::Heard { node: name.clone() }, NodeInput::Heard { node: name.clone() })
    }

    pub(super) fn on_lapsed(&mut self, name: &NodeId, session: Session) -> Vec<Event> {
        match self.current(name, session) {
            Some(node) if node.leased => node.leased = false,
            _ => return Vec::new(),
        }
        self.tell(What::Lapsed { node: name.clone(), session }, NodeInput::Lapsed { node: name.clone() })
    }

    pub(super) fn on_back(&mut self, name: &NodeId, session: Session) -> Vec<Event> {
        match self.current(name, session) {
            Some(node) if !node.leased => {
                node.leased = true;
                node.silent = false;
                node.session = session.next();
            }
            _ => return Vec::new(),
        }
        let session = session.next();
        self.tell(What::Back { node: name.clone(), session }, NodeInput::Back { node: name.clone() })
    }

    pub(super) fn on_drain(&mut self, name: &NodeId, drained: bool) -> Vec<Event> {
        match self.nodes.get_mut(name) {
            Some(node) if node.drained != drained => node.drained = drained,
            _ => return Vec::new(),
        }
        let node = name.clone();
        if drained {
            self.tell(What::Drained { node: node.clone() }, NodeInput::Drain { node })
        } else {
            self.tell(What::Undrained { node: node.clone() }, NodeInput::Undrain { node })
        }
    }

    /// It says so of itself: a person may read of it, and a choice prefers others (promise 1 and 2 do not rest on it).
    pub(super) fn on_self_doubt(&mut self, name: &NodeId, why: Option<SelfDoubt>) -> Vec<Event> {
        if !self.nodes.contains_key(name) || self.self_doubts.get(name).copied() == why {
            return Vec::new();
        }
        match why {
            Some(why) => self.self_doubts.insert(name.clone(), why),
            None => self.self_doubts.remove(name),
        };
        self.tell(What::SelfDoubt { node: name.clone(), why }, NodeInput::SelfDoubt { node: name.clone(), why })
    }

    fn tell(&mut self, what: What, input: NodeInput) -> Vec<Event> {
        let mut events = vec![self.event(what)];
        events.extend(self.tell_all(&group::Body::Node(input)));
        events
    }
}

impl Node {
    const fn new(spec: super::NodeSpec) -> Self {
        Self {
            spec,
            incarnation: 0,
            raft_id: None,
            behaviour: 0,
            session: Session(0),
            leased: false,
            silent: false,
            drained: false,
            last_command: 0,
        }
    }
}

impl Cluster {
    /// A new identity in which only `me` is a replica; everybody else comes as if for the first time. No lease is in force.
    pub(crate) fn begin_anew(&mut self, id: u128, me: &NodeId, incarnation: u128) {
        self.id = id;
        // The one that survived may not have seen the last epochs, and whoever was told of them refuses what is older.
        self.groups.values_mut().for_each(|group| group.skip_epochs(EPOCHS_UNSEEN));
        self.epoch_floor = Epoch(self.epoch_floor.0 + EPOCHS_UNSEEN);
        let raft_id = RaftId(self.next_raft_id);
        self.next_raft_id += 1;
        let names: Vec<NodeId> = self.nodes.keys().cloned().collect();
        for name in names {
            let session = self.nodes.get(&name).map_or(Session(0), |n| n.session);
            self.on_lapsed(&name, session);
            let Some(node) = self.nodes.get_mut(&name) else { continue };
            node.incarnation = if name == *me { incarnation } else { 0 };
            node.raft_id = (name == *me).then_some(raft_id);
        }
    }
}
