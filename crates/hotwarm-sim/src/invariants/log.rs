//! The log itself: committed entries are the same everywhere, a commit never goes back, a replica's number is of one directory only.

use std::collections::BTreeMap;

use hotwarm_core::ids::RaftId;
use hotwarm_core::node::{Identity, NODE_LOG};
use hotwarm_core::wal::{LogId, Record};

use crate::event::N;

#[derive(Debug)]
pub(super) struct Log {
    /// Of each node: entries written and not yet known to be committed, as (term, checksum), and the commit.
    nodes: Vec<Written>,
    committed: BTreeMap<u64, (u64, u32)>,
    /// Which directory each replica's number belongs to.
    numbers: BTreeMap<RaftId, (N, u64)>,
}

#[derive(Clone, Debug, Default)]
struct Written {
    entries: BTreeMap<u64, (u64, u32)>,
    commit: u64,
    /// Counts its directories.
    directory: u64,
}

impl Log {
    pub(super) fn new(nodes: usize) -> Self {
        Self { nodes: vec![Written::default(); nodes], committed: BTreeMap::new(), numbers: BTreeMap::new() }
    }

    /// A commit that was not synced may be told again.
    pub(super) fn started(&mut self, n: N) {
        self.nodes[n].commit = 0;
    }

    pub(super) fn forgot(&mut self, n: N) {
        let node = &mut self.nodes[n];
        *node = Written { directory: node.directory + 1, ..Written::default() };
    }

    pub(super) fn persisted(&mut self, n: N, records: &[Record]) -> Option<String> {
        // A batch is kept whole: what it says of the commit is about the entries in it too.
        let (states, rest): (Vec<&Record>, Vec<&Record>) = records.iter().partition(|r| matches!(r, Record::HardState(..)));
        for record in rest.into_iter().chain(states) {
            let broken = match record {
                Record::Entry(LogId(0), entry) => {
                    let node = &mut self.nodes[n];
                    node.entries.split_off(&entry.index);
                    node.entries.insert(entry.index, (entry.term, crc32c::crc32c(&entry.data)));
                    let contradicts = entry.index <= node.commit;
                    contradicts.then(|| format!("node {n} writes over entry {} that it knew to be committed", entry.index))
                }
                Record::HardState(LogId(0), hard_state) => self.committed(n, hard_state.commit),
                Record::Snapshot(LogId(0), snapshot) => {
                    let node = &mut self.nodes[n];
                    node.entries = node.entries.split_off(&(snapshot.index + 1));
                    None
                }
                Record::Snapshot(NODE_LOG, snapshot) => Identity::from_snapshot(snapshot).and_then(|identity| self.named(n, identity)),
                _ => None,
            };
            if broken.is_some() {
                return broken;
            }
        }
        None
    }

    fn named(&mut self, n: N, identity: Identity) -> Option<String> {
        let mine = (n, self.nodes[n].directory);
        let owner = *self.numbers.entry(identity.raft_id).or_insert(mine);
        (owner != mine).then(|| format!("S11: number {} of node {n} was that of node {}, directory {}", identity.raft_id, owner.0, owner.1))
    }

    fn committed(&mut self, n: N, commit: u64) -> Option<String> {
        let node = &mut self.nodes[n];
        if commit < node.commit {
            return Some(format!("the commit of node {n} went back from {} to {commit}", node.commit));
        }
        node.commit = commit;
        let rest = node.entries.split_off(&(commit + 1));
        for (index, entry) in std::mem::replace(&mut node.entries, rest) {
            let known = *self.committed.entry(index).or_insert(entry);
            if known != entry {
                return Some(format!("entry {index} was committed as {known:?} and as {entry:?} at node {n}"));
            }
        }
        None
    }
}
