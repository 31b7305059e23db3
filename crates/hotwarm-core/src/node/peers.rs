//! The other nodes: heartbeats, who hears whom, relays, and bringing a message to where it belongs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::lead::{AGAIN, PHI};
use super::lease::Renewal;
use super::message::Beat;
use super::{Action, Message, Node, Options};
use crate::cluster::{Body, Cluster, TELLS_SELF_DOUBT, TELLS_STOP};
use crate::detect::PhiAccrual;
use crate::group::reason::SelfDoubt;
use crate::ids::{Mono, NodeId, RaftId, Session};

/// Silence is not acted on before this many heartbeats are missing, however regular they were.
const SILENT_BEATS: u32 = 4;

/// A founder that waits for longer says for what.
const UNFOUNDED_FOR: Duration = Duration::from_secs(5);

/// A node of another cluster is told of for so long after it was heard last.
const STRANGER_FOR: Duration = Duration::from_secs(10);

/// What this node knows of the others.
#[derive(Debug)]
pub(crate) struct Peers {
    me: NodeId,
    from_file: BTreeSet<NodeId>,
    heartbeat: Duration,
    known: BTreeMap<NodeId, Peer>,
    /// Which node a replica's number was seen to belong to.
    ids: BTreeMap<RaftId, NodeId>,
    /// Who said, while this node may found a cluster, which one it belongs to.
    births: BTreeMap<NodeId, Option<u128>>,
    /// When it began to listen.
    begun: Mono,
    /// Configured here, and of another cluster by what they sent; when that was last.
    strangers: BTreeMap<NodeId, Mono>,
    /// What [`PHI`] means in standard deviations.
    deviations: f64,
    next_beat: Mono,
    next_hello: Mono,
    beats: u64,
}

#[derive(Debug)]
struct Peer {
    /// Heartbeats that came without a relay.
    direct: PhiAccrual,
    /// Heartbeats that came at all.
    any: PhiAccrual,
    hears: Vec<NodeId>,
    /// It says that it belongs to no cluster: it has no log, and votes for nothing, whoever it was before.
    unborn: bool,
}

impl Peers {
    /// Nodes that were heard a moment ago to be of another cluster.
    pub(crate) fn strangers(&self, now: Mono) -> Vec<NodeId> {
        self.strangers.iter().filter(|(_, at)| now.since(**at) < STRANGER_FOR).map(|(node, _)| node.clone()).collect()
    }

    pub(crate) fn new(options: &Options, now: Mono) -> Self {
        Self {
            me: options.me.clone(),
            from_file: options.peers.clone(),
            heartbeat: options.heartbeat,
            known: BTreeMap::new(),
            ids: BTreeMap::new(),
            births: BTreeMap::new(),
            begun: now,
            strangers: BTreeMap::new(),
            deviations: crate::detect::deviations(PHI),
            next_beat: now,
            next_hello: now,
            // Numbers of an earlier life's heartbeats must not be taken for ours: their moments would be wrong.
            beats: now.0,
        }
    }

    pub(crate) const fn next_beat(&self) -> Mono {
        self.next_beat
    }

    /// It said that it belongs to no cluster.
    pub(crate) fn is_unborn(&self, node: &NodeId) -> bool {
        self.births.get(node).is_some_and(Option::is_none)
    }

    /// Somebody who said that it belongs to a cluster, and to which.
    pub(crate) fn born(&self) -> Option<(&NodeId, u128)> {
        self.births.iter().find_map(|(name, cluster)| cluster.map(|id| (name, id)))
    }

    /// Our own lateness is not theirs.
    pub(crate) fn stalled(&mut self, by: Duration) {
        for peer in self.known.values_mut() {
            peer.direct.stalled(by);
            peer.any.stalled(by);
        }
    }

    /// Whether phi has reached [`PHI`].
    fn late(&self, heartbeats: &PhiAccrual, now: Mono) -> bool {
        now >= heartbeats.overdue_at(self.deviations)
    }

    pub(crate) fn silent(&self, node: &NodeId, now: Mono) -> bool {
        let patience = self.heartbeat * SILENT_BEATS;
        // Whoever has just begun to listen has not heard everybody yet.
        let Some(peer) = self.known.get(node) else { return now.since(self.begun) >= patience };
        self.late(&peer.any, now) && now.since(peer.any.last()) >= patience
    }

    /// Whom this node hears without a relay.
    pub(crate) fn heard(&self, now: Mono) -> Vec<NodeId> {
        self.known.iter().filter(|(_, p)| !self.late(&p.direct, now)).map(|(name, _)| name.clone()).collect()
    }

    /// True for a node of the configuration: the one in force, or the file's where none is in force yet.
    pub(crate) fn is_member(&self, cluster: &Cluster, node: &NodeId) -> bool {
        if cluster.founded() { cluster.nodes.contains_key(node) } else { self.from_file.contains(node) }
    }

    fn names(&self, cluster: &Cluster) -> Vec<NodeId> {
        let names: BTreeSet<&NodeId> = if cluster.founded() { cluster.nodes.keys().collect() } else { self.from_file.iter().collect() };
        names.into_iter().filter(|name| **name != self.me).cloned().collect()
    }

    fn arrived(&mut self, node: &NodeId, relayed: bool, hears: Vec<NodeId>, now: Mono) {
        let beats = PhiAccrual::new(now, self.heartbeat, self.heartbeat / 2);
        let new = || Peer { direct: beats.clone(), any: beats, hears: Vec::new(), unborn: false };
        let peer = self.known.entry(node.clone()).or_insert_with(new);
        peer.any.arrived(now);
        if !relayed {
            peer.direct.arrived(now);
        }
        peer.hears = hears;
    }

    /// A node through which `to` can be reached, if it cannot be directly: one that we hear and that hears it. The address of a node that
    /// our configuration does not name is not known here: it may have been added while we were away, and lead.
    fn relay_to(&self, cluster: &Cluster, to: &NodeId, now: Mono) -> Option<NodeId> {
        if self.is_member(cluster, to) {
            let peer = self.known.get(to)?;
            if !self.late(&peer.direct, now) && peer.hears.contains(&self.me) {
                return None;
            }
        }
        let between = |(name, p): (&NodeId, &Peer)| {
            (name != to && !self.late(&p.direct, now) && p.hears.contains(to) && p.hears.contains(&self.me)).then(|| name.clone())
        };
        self.known.iter().find_map(between)
    }

    /// True if `node` said lately that it hears `other` without a relay.
    fn hears(&self, node: &NodeId, other: &NodeId) -> bool {
        self.known.get(node).is_some_and(|peer| peer.hears.contains(other))
    }

    /// Heard, and of this cluster: not one that was born anew and has yet to join.
    pub(crate) fn is_heard_as_one_of_us(&self, node: &NodeId, now: Mono) -> bool {
        self.known.get(node).is_some_and(|peer| !peer.unborn && !self.late(&peer.direct, now))
    }

    /// The node with a replica's number.
    pub(crate) fn name_of(&self, cluster: &Cluster, id: RaftId) -> Option<NodeId> {
        cluster.node_of(id).or_else(|| self.ids.get(&id)).cloned()
    }

    /// Learns whose number `id` is from a message. False if the state says otherwise.
    fn learn(&mut self, cluster: &Cluster, id: RaftId, node: &NodeId) -> bool {
        match cluster.node_of(id) {
            Some(known) => known == node,
            None => {
                if self.ids.len() < 1024 || self.ids.contains_key(&id) {
                    self.ids.insert(id, node.clone());
                }
                true
            }
        }
    }
}

impl Node {
    /// Sends, over a third node where the way is cut.
    pub(super) fn send(&mut self, to: &NodeId, message: Message) {
        let cluster = self.my_cluster();
        let bytes = message.encode(cluster);
        match self.peers.relay_to(&self.cluster, to, self.now) {
            None => self.actions.push_back(Action::Send { to: to.clone(), bytes }),
            Some(between) => {
                // Both ways: which of the two directions is cut is not known.
                if matches!(message, Message::Beat(_)) {
                    self.actions.push_back(Action::Send { to: to.clone(), bytes: bytes.clone() });
                }
                let relay = Message::Relay { from: self.options.me.clone(), to: to.clone(), bytes };
                self.actions.push_back(Action::Send { to: between, bytes: relay.encode(cluster) });
            }
        }
    }

    /// What a node of another cluster counts, grants or reports means nothing here. One that belongs to none yet may be heard.
    fn concerns_us(&self, cluster: u128, message: &Message) -> bool {
        let unborn = cluster == 0 && matches!(message, Message::Beat(_));
        self.identity.is_none_or(|mine| mine.cluster == cluster) || unborn || message.is_for_strangers()
    }

    pub(super) fn alarm_other_cluster(&mut self, from: &NodeId) {
        // Of others there may be any number.
        if self.peers.is_member(&self.cluster, from) {
            self.peers.strangers.insert(from.clone(), self.now);
        }
        self.alarm("HW0306", format!("node {from} belongs to another cluster; give it this cluster's join file"));
    }

    /// 0 while it belongs to none.
    fn my_cluster(&self) -> u128 {
        self.identity.map_or(0, |identity| identity.cluster)
    }

    /// A heartbeat that is due soon goes with one of the log, or with the answer to it: two in one write wake everybody once.
    pub(super) fn beat_along(&mut self) {
        // Less than half, or one of the log's heartbeats that is a little late would double ours.
        let soon = (self.options.heartbeat / 2).saturating_sub(self.options.tick / 2);
        if self.now.plus(soon) >= self.peers.next_beat {
            self.peers.next_beat = self.now;
            self.beat();
        }
    }

    /// Heartbeats to all, when due. For the leader they are renewals too; this thread's health is what they vouch for (S1).
    pub(super) fn beat(&mut self) {
        if self.now < self.peers.next_beat {
            return;
        }
        self.peers.next_beat = self.now.plus(self.options.heartbeat);
        self.say_hello();
        self.peers.beats += 1;
        let me = self.options.me.clone();
        let number = self.peers.beats;
        let renew = !self.health.abstains(self.now) && self.cluster.founded();
        let session = self.cluster.nodes.get(&me).map_or(Session(0), |n| n.session);
        if renew {
            self.holder.asked(number, self.now, self.cluster.lease);
        }
        let heard = self.peers.heard(self.now);
        let beat = Beat { number, session, renew, heard, behaviour: self.options.behaviour, digest: self.digest };
        for name in self.peers.names(&self.cluster) {
            self.send(&name, Message::Beat(beat.clone()));
        }
        self.on_renewal(Renewal { node: me, number, session, arrived: self.now }, renew);
        self.tell_self_doubt();
    }

    /// Told again until the log has it: who is chosen should not be where the disk is about to be full, if it can be elsewhere.
    pub(super) fn tell_self_doubt(&mut self) {
        let me = &self.options.me;
        // S17: a program that does not know of it could not read the entry.
        if self.cluster.behaviour < TELLS_SELF_DOUBT || !self.cluster.nodes.contains_key(me) {
            return;
        }
        let room = self.little_room.then_some(SelfDoubt::LittleRoom);
        let stops = (self.stopping && self.cluster.behaviour >= TELLS_STOP).then_some(SelfDoubt::Stopping);
        let why = if self.health.abstains(self.now) { Some(SelfDoubt::Stalled) } else { stops.or(room) };
        if self.cluster.self_doubts.get(me).copied() != why {
            self.propose_once(Body::SelfDoubt { node: me.clone(), why }, AGAIN);
        }
    }

    fn say_hello(&mut self) {
        let mine = self.cluster.nodes.get(&self.options.me);
        let upgraded = mine.is_some_and(|n| n.behaviour != self.options.behaviour);
        if (self.identity.is_some() && !upgraded) || self.now < self.peers.next_hello {
            return;
        }
        self.peers.next_hello = self.now.plus(self.options.heartbeat);
        self.tell_unfounded();
        let hello = Message::Hello {
            cluster: self.identity.map(|identity| identity.cluster).or(self.rejoins),
            name: self.options.cluster_name.clone(),
            incarnation: self.identity.map_or(self.options.incarnation, |identity| identity.incarnation),
            behaviour: self.options.behaviour,
        };
        for name in self.peers.names(&self.cluster) {
            self.send(&name, hello.clone());
        }
    }

    pub(super) fn on_message(&mut self, from: &NodeId, cluster: u128, message: Message) {
        match message {
            Message::Relay { from: origin, to, bytes } => self.on_relay(from, origin, &to, bytes),
            message => self.on_direct(from, false, cluster, message),
        }
    }

    fn on_direct(&mut self, from: &NodeId, relayed: bool, cluster: u128, message: Message) {
        if !self.concerns_us(cluster, &message) {
            return self.alarm_other_cluster(from);
        }
        match message {
            Message::Log(message) => self.on_log(from, *message),
            // Of a node that was removed, or that nobody configured. One that was added is heard once the log has told of it.
            Message::Beat(_) | Message::Grant { .. } if !self.peers.is_member(&self.cluster, from) => {}
            Message::Beat(beat) => self.on_beat(from, relayed, cluster == 0, beat),
            Message::Grant { number, session, index } => self.holder.granted(self.now, number, session, index),
            Message::Propose { items } => self.on_propose(from, items),
            Message::Hello { cluster, name, incarnation, behaviour } => {
                self.tell_birth(from, incarnation);
                if self.lead.is_some() {
                    self.on_hello(from, cluster, &name, incarnation, behaviour);
                } else if !relayed {
                    self.pass_on_hello(from, Message::Hello { cluster, name, incarnation, behaviour });
                }
            }
            Message::Birth { incarnation, cluster } => self.on_birth(from, incarnation, cluster),
            Message::Welcome { cluster, incarnation, raft_id } => self.on_welcome(cluster, incarnation, raft_id),
            // A relay is one hop.
            Message::Relay { .. } => {}
        }
    }

    /// S11: whom its own file names may not lead, and who leads it may not know. One hop, for nodes of the configuration, and only where the
    /// leader does not hear it itself.
    fn pass_on_hello(&mut self, from: &NodeId, hello: Message) {
        let Some(leader) = self.leader().filter(|leader| *leader != self.options.me) else { return };
        if self.peers.is_member(&self.cluster, from) && !self.peers.hears(&leader, from) {
            let relay = Message::Relay { from: from.clone(), to: leader.clone(), bytes: hello.encode(self.my_cluster()) };
            self.send(&leader, relay);
        }
    }

    /// The transport proves who passes a message on, not whose it is: only nodes of the configuration may do so, and only for each other. To
    /// a node that was away the leader may be one that its configuration does not name yet: what a leader says to it is read, as it would be
    /// had it come without a relay.
    fn on_relay(&mut self, from: &NodeId, origin: NodeId, to: &NodeId, bytes: Vec<u8>) {
        if !self.peers.is_member(&self.cluster, from) {
            return;
        }
        let known = self.peers.is_member(&self.cluster, &origin);
        if *to == self.options.me {
            if let Ok((cluster, message)) = Message::decode(&bytes)
                && (known || message.is_of_a_leader())
            {
                self.on_direct(&origin, true, cluster, message);
            }
        } else if known && origin == *from {
            let relay = Message::Relay { from: origin, to: to.clone(), bytes };
            self.actions.push_back(Action::Send { to: to.clone(), bytes: relay.encode(self.my_cluster()) });
        }
    }

    /// S11: a second birth is refused by everybody who knows of the first.
    fn tell_birth(&mut self, from: &NodeId, incarnation: u128) {
        if !self.founding() {
            let cluster = self.identity.map(|identity| identity.cluster).or(self.rejoins);
            self.send(from, Message::Birth { incarnation, cluster });
        }
    }

    fn on_birth(&mut self, from: &NodeId, incarnation: u128, cluster: Option<u128>) {
        let asked = self.options.found.is_some() && self.identity.is_none() && incarnation == self.options.incarnation;
        if !asked || !self.peers.is_member(&self.cluster, from) {
            return;
        }
        self.peers.births.insert(from.clone(), cluster);
        self.found_if_nobody_has();
    }

    /// What a person should know of a birth that takes long.
    fn tell_unfounded(&mut self) {
        if self.options.found.is_none() || self.identity.is_some() || self.now.since(self.peers.begun) < UNFOUNDED_FOR {
            return;
        }
        if let Some((other, id)) = self.peers.born() {
            let text = format!(
                "nothing founded: node {other} belongs to the cluster {id:032x} already; this node joins it when most of its voters run"
            );
            return self.alarm("HW0312", text);
        }
        let mut missing = self.peers.names(&self.cluster);
        missing.retain(|name| !self.peers.is_unborn(name));
        let names: Vec<&str> = missing.iter().map(NodeId::as_str).collect();
        let text = format!("cluster not founded yet: most of its nodes must run, and none answers of {}; start them", names.join(", "));
        self.alarm("HW0313", text);
    }

    fn on_log(&mut self, from: &NodeId, message: crate::consensus::Message) {
        let known = self.peers.learn(&self.cluster, message.from, from);
        if !known || self.my_raft_id() != Some(message.to) {
            return;
        }
        use crate::consensus::Body::{AppendRefused, Appended, Heartbeat, HeartbeatAnswer};
        match message.body {
            Heartbeat { .. } => self.beat_along(),
            Appended { .. } | AppendRefused { .. } | HeartbeatAnswer { .. } => self.on_acknowledged(from),
            _ => {}
        }
        if let Some(replica) = &mut self.replica
            && let Err(error) = replica.handle_message(self.now, message)
        {
            let text = format!("log message from node {from} refused: {error}");
            match error {
                // S12: what was acknowledged is gone; a vote of this node could lose it for all.
                crate::consensus::MessageError::LostEntries { .. } => self.halt("HW0311", text),
                _ => self.alarm("HW0308", text),
            }
        }
    }

    fn on_beat(&mut self, from: &NodeId, relayed: bool, unborn: bool, beat: Beat) {
        self.peers.arrived(from, relayed, beat.heard, self.now);
        if let Some(peer) = self.peers.known.get_mut(from) {
            peer.unborn = unborn;
        }
        if let (Some((mine, ours)), Some((theirs, hash))) = (self.digest, beat.digest)
            && mine == theirs
            && ours != hash
        {
            self.alarm("HW0309", format!("state at index {mine} differs from that of node {from}: stop one of them and let it join anew"));
        }
        let renewal = Renewal { node: from.clone(), number: beat.number, session: beat.session, arrived: self.now };
        self.on_renewal(renewal, beat.renew);
    }

    fn on_welcome(&mut self, cluster: u128, incarnation: u128, raft_id: RaftId) {
        if self.identity.is_some() || self.founding() || incarnation != self.options.incarnation {
            return;
        }
        let identity = super::Identity { cluster, raft_id, incarnation };
        self.persist(identity.records(), Some(super::log::Persisting::Identity(identity, Box::default())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_silent_to_a_node_that_has_just_begun_to_listen() {
        let (begun, b) = (Mono(7_000_000), NodeId::from("b"));
        let options = Options::new("a".into(), "desk", 1, 1);
        let mut peers = Peers::new(&options, begun);
        let after = |ms| begun.plus(Duration::from_millis(ms));
        assert!(!peers.silent(&b, after(399)));
        assert!(peers.silent(&b, after(400)), "never heard in four heartbeats");
        peers.arrived(&b, false, Vec::new(), after(400));
        assert!(!peers.silent(&b, after(799)));
        assert!(peers.silent(&b, after(2000)));
    }
}
