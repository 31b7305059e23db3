//! The cluster that the tests drive: one step moves every message that may move, one tick is ten milliseconds.

use std::collections::{BTreeMap, BTreeSet};

use crate::consensus::{Body, Message, Options, Ready, Recovered, Replica, bootstrap};
use crate::ids::{Mono, RaftId};
use crate::wal::{Entry, LogId, Record};

pub(super) const TICK_US: u64 = 10_000;

/// What a node's disk and state machine hold.
#[derive(Default)]
pub(super) struct Node {
    pub(super) replica: Option<Replica>,
    /// Durable records.
    pub(super) disk: Vec<Record>,
    /// Handed out, not yet durable.
    pub(super) pending: Vec<(u64, Vec<Record>)>,
    /// Applied data, with its index.
    pub(super) applied: Vec<(u64, Vec<u8>)>,
    pub(super) reads: Vec<(u64, u64)>,
    pub(super) reads_failed: Vec<u64>,
    /// Its disk does not finish writing.
    pub(super) stalled: bool,
}

pub(super) struct Cluster {
    pub(super) nodes: BTreeMap<u64, Node>,
    pub(super) network: Vec<Message>,
    pub(super) cut: BTreeSet<(u64, u64)>,
    /// So many snapshots are lost on their way.
    pub(super) snapshots_to_lose: usize,
    pub(super) now: Mono,
    pub(super) seed: u64,
    /// A hash of everything that was said and written.
    pub(super) trace: u64,
    /// Every message that was said, when a test wants to look.
    pub(super) said: Vec<Message>,
}

/// What replay makes of records; the write-ahead log's own tests cover the bytes.
pub(super) fn recover(records: &[Record]) -> Recovered {
    let mut recovered = Recovered::default();
    for record in records {
        match record.clone() {
            Record::HardState(_, hard_state) => recovered.hard_state = hard_state,
            Record::Entry(_, entry) => {
                recovered.entries.retain(|old| old.index < entry.index);
                recovered.entries.push(entry);
            }
            Record::Snapshot(_, snapshot) => {
                let known = |entry: &Entry| entry.index == snapshot.index && entry.term == snapshot.term;
                if !recovered.entries.iter().any(known) {
                    recovered.entries.clear();
                }
                recovered.entries.retain(|entry| entry.index > snapshot.index);
                recovered.snapshot = Some(snapshot);
            }
            Record::Birth(..) => {}
        }
    }
    recovered
}

impl Cluster {
    /// Node 1 founds the log; the others join empty.
    pub(super) fn new(seed: u64, nodes: u64) -> Self {
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            network: Vec::new(),
            cut: BTreeSet::new(),
            snapshots_to_lose: 0,
            now: Mono(1_000_000),
            seed,
            trace: 0xcbf2_9ce4_8422_2325,
            said: Vec::new(),
        };
        for id in 1..=nodes {
            let node =
                Node { disk: if id == 1 { bootstrap(LogId(0), RaftId(1), b"born".to_vec()) } else { Vec::new() }, ..Node::default() };
            cluster.nodes.insert(id, node);
            cluster.start(id);
        }
        cluster
    }

    /// Three voters, with a leader.
    pub(super) fn three(seed: u64) -> Self {
        use crate::consensus::{Change, ConfChange};
        let mut cluster = Self::new(seed, 3);
        cluster.tick_until(|cluster| cluster.leader() == Some(1));
        for id in [2, 3] {
            let change = ConfChange::Simple(Change::AddVoter(RaftId(id)));
            cluster.at(1).propose_conf_change(&change, b"").unwrap();
            cluster.tick_until(|cluster| cluster.at(id).voters().voters.contains(&id));
        }
        cluster.tick(10);
        cluster
    }

    pub(super) fn options(&self, id: u64) -> Options {
        Options::new(RaftId(id), LogId(0), self.seed)
    }

    /// From its disk, as after a crash: what was not durable is gone.
    pub(super) fn start(&mut self, id: u64) {
        let (options, now) = (self.options(id), self.now);
        let node = self.nodes.get_mut(&id).unwrap();
        node.pending.clear();
        node.applied.clear();
        node.replica = Some(Replica::new(options, recover(&node.disk), now).unwrap());
        self.drain(id);
    }

    pub(super) fn stop(&mut self, id: u64) {
        self.nodes.get_mut(&id).unwrap().replica = None;
    }

    pub(super) fn at(&mut self, id: u64) -> &mut Replica {
        self.nodes.get_mut(&id).unwrap().replica.as_mut().unwrap()
    }

    /// The leader of the highest term.
    pub(super) fn leader(&self) -> Option<u64> {
        let leaders = self.nodes.iter().filter_map(|(id, node)| node.replica.as_ref().map(|replica| (id, replica)));
        let leaders = leaders.filter(|(_, replica)| replica.leads());
        leaders.max_by_key(|(_, replica)| replica.leadership().term).map(|(id, _)| *id)
    }

    pub(super) fn isolate(&mut self, id: u64) {
        let others: Vec<u64> = self.nodes.keys().copied().filter(|other| *other != id).collect();
        self.cut.extend(others.iter().flat_map(|other| [(id, *other), (*other, id)]));
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
    }

    /// Everything that node `id` has to do, until it is quiet.
    pub(super) fn drain(&mut self, id: u64) {
        let now = self.now;
        let node = self.nodes.get_mut(&id).unwrap();
        let Some(replica) = node.replica.as_mut() else { return };
        let mut messages = Vec::new();
        loop {
            while let Some(ready) = replica.poll_ready(now) {
                messages.extend(ready.messages.clone());
                let applied = take(&mut node.applied, &mut node.reads, &mut node.reads_failed, &ready);
                node.pending.push((ready.number, ready.persist));
                if let Some(index) = applied {
                    replica.applied(index);
                }
                if ready.snapshot_wanted {
                    let applied = replica.status().applied;
                    let _ = replica.take_snapshot(applied, encode_state(&node.applied));
                }
            }
            if node.stalled || node.pending.is_empty() {
                break;
            }
            let number = node.pending.iter().map(|(number, _)| *number).max().unwrap_or(0);
            node.disk.extend(node.pending.drain(..).flat_map(|(_, records)| records));
            replica.persisted(number);
        }
        for message in messages {
            self.hash(&message.encode());
            self.said.push(message.clone());
            self.network.push(message);
        }
        if let Some(record) = self.nodes[&id].disk.last() {
            self.hash(format!("{record:?}").as_bytes());
        }
    }

    fn hash(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    /// Delivers what is on its way, and what that brings about, until nothing moves.
    pub(super) fn settle(&mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.drain(id);
        }
        while !self.network.is_empty() {
            for message in std::mem::take(&mut self.network) {
                let (from, to) = (message.from.0, message.to.0);
                if self.snapshots_to_lose > 0 && matches!(message.body, Body::Snapshot(_)) {
                    self.snapshots_to_lose -= 1;
                    continue;
                }
                // The bytes are what a peer gets.
                let message = Message::decode(&message.encode()).unwrap();
                let now = self.now;
                let Some(replica) = self.nodes.get_mut(&to).and_then(|node| node.replica.as_mut()) else { continue };
                if self.cut.contains(&(from, to)) {
                    continue;
                }
                // A peer that was removed since may still be answering.
                let _ = replica.handle_message(now, message);
                self.drain(to);
            }
        }
    }

    pub(super) fn tick(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.now = Mono(self.now.0 + TICK_US);
            let now = self.now;
            for node in self.nodes.values_mut() {
                if let Some(replica) = node.replica.as_mut() {
                    replica.tick(now);
                }
            }
            self.settle();
        }
    }

    pub(super) fn tick_until(&mut self, done: impl Fn(&mut Self) -> bool) {
        for _ in 0..2_000 {
            if done(self) {
                return;
            }
            self.tick(1);
        }
        panic!("not reached in 2000 ticks");
    }

    pub(super) fn propose(&mut self, data: &str) {
        let leader = self.leader().unwrap();
        self.at(leader).propose(data.as_bytes().to_vec(), Vec::new()).unwrap();
        self.settle();
    }

    pub(super) fn data(&self, id: u64) -> Vec<String> {
        self.nodes[&id].applied.iter().map(|(_, data)| String::from_utf8(data.clone()).unwrap()).collect()
    }
}

/// What the state machine does with it: a list of data, whose snapshot is the list.
fn take(applied: &mut Vec<(u64, Vec<u8>)>, reads: &mut Vec<(u64, u64)>, failed: &mut Vec<u64>, ready: &Ready) -> Option<u64> {
    let mut index = None;
    if let Some(snapshot) = &ready.snapshot {
        *applied = decode_state(snapshot.index, &snapshot.data);
        index = Some(snapshot.index);
    }
    for entry in &ready.committed {
        if !entry.data.is_empty() && entry.kind == crate::wal::EntryKind::Normal {
            applied.push((entry.index, entry.data.clone()));
        }
        index = Some(entry.index);
    }
    reads.extend(ready.reads.iter().map(|read| (read.context, read.index)));
    failed.extend(&ready.reads_failed);
    index
}

fn decode_state(index: u64, data: &[u8]) -> Vec<(u64, Vec<u8>)> {
    data.split(|byte| *byte == b',').map(|item| (index, item.to_vec())).collect()
}

pub(super) fn encode_state(applied: &[(u64, Vec<u8>)]) -> Vec<u8> {
    applied.iter().map(|(_, data)| data.as_slice()).collect::<Vec<_>>().join(&b","[..])
}
