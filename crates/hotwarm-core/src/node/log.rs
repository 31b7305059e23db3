//! Driving the control log: records to persist, entries to apply, messages to send, reads that confirm leases.

use super::{Action, Identity, Message, Node, StartError};
use crate::cluster::{Body, Cluster, Entry, Item};
use crate::consensus::{self, ProposeError, Recovered, Replica};
use crate::ids::{Index, Mono, NodeId, RaftId};
use crate::plant::{self, Bug};
use crate::wal::{EntryKind, LogId, Snapshot};

/// The control log.
pub(crate) const CONTROL: LogId = LogId(0);
/// Entries kept behind a snapshot, so that a follower slightly behind needs none.
const KEEP: u64 = 500;
/// Items of one entry, at most.
const ITEMS_MAX: usize = 512;
/// A checksum of the state is taken at each multiple of this index.
const DIGEST_EVERY: u64 = 256;

/// What waits for records to become durable.
#[derive(Clone, Debug)]
pub(crate) enum Persisting {
    Log(u64),
    /// A first identity, and what the log begins with.
    Identity(Identity, Box<Recovered>),
}

impl Node {
    /// Goes on where the disk says, or founds the cluster if that is this node's right.
    pub(super) fn start(&mut self, log: Recovered) -> Result<(), StartError> {
        if let Some(identity) = self.identity {
            return self.start_replica(identity, log);
        }
        self.found_if_nobody_has();
        Ok(())
    }

    /// S11: founds the cluster once most of its voters say that they belong to none, and nobody that it belongs to one. Of a cluster that
    /// lives, most voters know it, so no two majorities can disagree.
    pub(super) fn found_if_nobody_has(&mut self) {
        let Some((cluster, spec)) = &self.options.found else { return };
        if self.identity.is_some() || self.founding() {
            return;
        }
        let voters: Vec<&NodeId> = spec.nodes.iter().filter(|(_, node)| node.votes).map(|(name, _)| name).collect();
        let unborn = voters.iter().filter(|name| ***name == self.options.me || self.peers.is_unborn(name)).count();
        if unborn <= voters.len() / 2 || self.peers.born().is_some() {
            return;
        }
        let identity = Identity { cluster: *cluster, raft_id: RaftId(1), incarnation: self.options.incarnation };
        let mut records = identity.records();
        let log_records = consensus::bootstrap(CONTROL, identity.raft_id, Cluster::empty().encode());
        let mut log = Recovered::default();
        for record in &log_records {
            match record {
                crate::wal::Record::Snapshot(_, snapshot) => log.snapshot = Some(snapshot.clone()),
                crate::wal::Record::HardState(_, hard_state) => log.hard_state = *hard_state,
                crate::wal::Record::Entry(..) | crate::wal::Record::Birth(..) => {}
            }
        }
        records.extend(log_records);
        self.persist(records, Some(Persisting::Identity(identity, Box::new(log))));
    }

    /// An identity is on its way to the disk.
    pub(super) fn founding(&self) -> bool {
        self.persisting.values().any(|p| matches!(p, Persisting::Identity(..)))
    }

    pub(super) fn start_replica(&mut self, identity: Identity, log: Recovered) -> Result<(), StartError> {
        if let Some(snapshot) = &log.snapshot {
            self.cluster = Cluster::decode(&snapshot.data)?;
            self.state_changed();
            self.applied = Index(snapshot.index);
            self.snapshot_at = self.applied;
        }
        let options = consensus::Options::new(identity.raft_id, CONTROL, self.options.seed);
        self.replica = Some(Replica::new(options, log, self.now)?);
        self.identity = Some(identity);
        self.dirty = true;
        Ok(())
    }

    pub(super) fn persist(&mut self, records: Vec<crate::wal::Record>, then: Option<Persisting>) {
        let token = then.map(|then| {
            let token = self.next_token;
            self.next_token += 1;
            self.persisting.insert(token, then);
            token
        });
        self.actions.push_back(Action::Persist { records, token });
    }

    pub(super) fn on_persisted(&mut self, token: u64) {
        // The write-ahead log is one sequence: what came before is durable too.
        let later = self.persisting.split_off(&(token + 1));
        for (_, done) in std::mem::replace(&mut self.persisting, later) {
            match done {
                Persisting::Log(number) => {
                    if let Some(replica) = &mut self.replica {
                        replica.persisted(number);
                    }
                }
                Persisting::Identity(identity, log) => {
                    if let Err(error) = self.start_replica(identity, *log) {
                        self.alarm("HW0302", format!("replica not started: {error}"));
                    }
                }
            }
        }
    }

    /// Takes all work out of the replica. True if there was any.
    pub(super) fn drain_log(&mut self) -> bool {
        let mut worked = false;
        while let Some(ready) = self.replica.as_mut().and_then(|replica| replica.poll_ready(self.now)) {
            worked = true;
            // Heartbeats of the log come often and change nothing that is compared.
            self.dirty |= ready.leadership.is_some() || ready.snapshot.is_some() || !ready.committed.is_empty();
            if !ready.persist.is_empty() || ready.must_sync {
                let then = ready.must_sync.then_some(Persisting::Log(ready.number));
                self.persist(ready.persist, then);
            }
            for message in ready.messages {
                self.send_log(message);
            }
            if ready.leadership.is_some() {
                self.on_leadership();
            }
            if let Some(snapshot) = ready.snapshot {
                self.restore(&snapshot);
            }
            let last = ready.committed.last().map(|entry| entry.index);
            for entry in ready.committed {
                self.apply(&entry);
            }
            if let (Some(last), Some(replica)) = (last, &mut self.replica) {
                self.applied = Index(last);
                replica.applied(last);
            }
            for read in ready.reads {
                self.on_read_confirmed(read.context, Index(read.index));
            }
            for context in ready.reads_failed {
                self.on_read_failed(context);
            }
            self.take_snapshot(ready.snapshot_wanted);
        }
        worked
    }

    fn send_log(&mut self, message: consensus::Message) {
        if let Some(to) = self.peers.name_of(&self.cluster, message.to) {
            self.send(&to, Message::Log(Box::new(message)));
        }
    }

    fn restore(&mut self, snapshot: &Snapshot) {
        match Cluster::decode(&snapshot.data) {
            Ok(cluster) => {
                self.cluster = cluster;
                self.state_changed();
                self.applied = Index(snapshot.index);
                self.snapshot_at = self.applied;
                self.applied_at = self.now;
                self.on_commands_skipped();
            }
            Err(error) => self.halt("HW0303", format!("state of the leader not readable: {error}")),
        }
        if let Some(replica) = &mut self.replica {
            replica.applied(snapshot.index);
        }
    }

    fn apply(&mut self, entry: &crate::wal::Entry) {
        if entry.kind != EntryKind::Normal || entry.data.is_empty() {
            return;
        }
        match Entry::decode(&entry.data) {
            Ok(decoded) => self.apply_entry(entry.index, &decoded),
            Err(error) => self.halt("HW0304", format!("entry {} of the log not readable: {error}", entry.index)),
        }
    }

    fn apply_entry(&mut self, index: u64, entry: &Entry) {
        self.probe_who_is_doubted(entry);
        let (events, applied) = self.cluster.apply(entry);
        self.state_changed();
        if plant::is(Bug::S17Differs) {
            self.cluster.at = self.cluster.at.plus(self.options.seed % 2);
        }
        self.applied_at = self.now;
        for done in applied {
            self.on_applied(done);
        }
        // Safety assertions stay on: a state that breaks a rule must not be acted on.
        let broken = |group| crate::group::invariants::check(group).map(|broken| (&group.spec.name, broken));
        if let Some((name, broken)) = self.cluster.groups.values().find_map(broken) {
            let text = format!("group {name}: rule broken at index {index}: {broken}");
            return self.halt("HW0305", text);
        }
        if index.is_multiple_of(DIGEST_EVERY) {
            self.digest = Some((Index(index), crc32c::crc32c(&self.cluster.encode())));
        }
        if !events.is_empty() {
            self.actions.push_back(Action::Events { events, wall_ms: entry.wall_ms, fresh: index > self.replayed.0 });
        }
    }

    /// Somebody doubts a member of this node: its own probe is to look now.
    fn probe_who_is_doubted(&mut self, entry: &Entry) {
        for Item { body, .. } in &entry.items {
            if let Body::Group { body: crate::group::Body::Testimony(told), .. } = body
                && let crate::group::input::Testimony::Suspect { member, .. } = told
                && self.observed.members.contains_key(member)
            {
                self.actions.push_back(Action::Probe { member: member.clone() });
            }
        }
    }

    /// After so many entries; and when a peer joined after the last one, because a replica takes no snapshot that does not name it.
    fn take_snapshot(&mut self, wanted: bool) {
        if !wanted && self.applied.0 < self.snapshot_at.0 + self.options.snapshot_every {
            return;
        }
        let Some(replica) = &mut self.replica else { return };
        if replica.take_snapshot(self.applied.0, self.cluster.encode()).is_ok() {
            self.snapshot_at = self.applied;
            replica.compact(self.applied.0.saturating_sub(KEEP));
        }
    }

    /// Puts what waits into the log, or sends it to who can.
    pub(super) fn flush_items(&mut self) {
        if self.items.is_empty() {
            return;
        }
        let rest = self.items.split_off(self.items.len().min(ITEMS_MAX));
        let items = std::mem::replace(&mut self.items, rest);
        let (at, wall_ms) = (self.stamp(), self.wall_ms());
        match (&mut self.replica, at) {
            (Some(replica), Some(at)) => {
                // A refused proposal is not lost: reports and commands are sent again while they are not seen in the state.
                let entry = Entry { at, wall_ms, items };
                if !matches!(replica.propose(entry.encode(), Vec::new()), Err(ProposeError::DiskBehind { .. })) {
                    self.commands_taken(&entry.items);
                }
            }
            _ => {
                self.commands_taken(&items);
                if let Some(leader) = self.leader().filter(|leader| *leader != self.options.me) {
                    self.send(&leader, Message::Propose { items });
                }
            }
        }
    }

    pub(super) fn propose(&mut self, body: Body) {
        self.items.push(Item { origin: None, body });
    }

    /// Sends a report unless it was sent a moment ago.
    pub(super) fn propose_once(&mut self, body: Body, again_after: std::time::Duration) {
        let key = postcard::to_allocvec(&body).expect("a body holds only what postcard can write");
        let now = self.now;
        let due = self.reported.get(&key).is_none_or(|sent| now.since(*sent) >= again_after);
        if due {
            self.reported.insert(key, now);
            self.propose(body);
        }
        if self.reported.len() > 4096 {
            self.reported.retain(|_, sent: &mut Mono| now.since(*sent) < again_after);
        }
    }

    /// Only of nodes that are configured: what one that was removed, or that nobody configured, reports or asks for is not for the log.
    pub(super) fn on_propose(&mut self, from: &NodeId, items: Vec<Item>) {
        if self.lead.is_some() && self.peers.is_member(&self.cluster, from) && self.items.len() + items.len() <= 8 * ITEMS_MAX {
            let cluster = &self.cluster;
            let counts = |item: &Item| match &item.body {
                // What only a leader can know was true in its term alone: one that was deposed since may not pass it on.
                Body::Lapsed { .. } | Body::Back { .. } | Body::Silent { .. } | Body::Heard { .. } => false,
                // S4: of a member that has moved, its old node tells nothing any more: its lives there may have the higher numbers.
                Body::Group { group, body: crate::group::Body::Life(told) } => {
                    cluster.groups.get(group).is_some_and(|g| g.node_of(told.member()) == Some(from))
                }
                Body::SelfDoubt { node, .. } => node == from,
                _ => true,
            };
            self.items.extend(items.into_iter().filter(counts));
        }
    }
}
