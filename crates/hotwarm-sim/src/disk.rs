//! One node's disk: records that were written, how many of them are synced, and what a crash leaves.
//!
//! Records come back in the order in which they went; the process ends when the disk is full, as a failed fsync demands (S12).

use hotwarm_core::consensus::Recovered;
use hotwarm_core::node::{Identity, NODE_LOG, Stored};
use hotwarm_core::rng::Rng;
use hotwarm_core::wal::{LogId, Record};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// Batches: each is kept whole or not at all, which is the write-ahead log's to see to (S13).
    pub batches: Vec<Vec<Record>>,
    pub synced: usize,
    /// The sync under way ends then, and the one after it, which takes all that has been written until it begins.
    pub ends: (u64, u64),
    pub latency_us: u64,
    pub full: bool,
    /// Nothing ends while it is stalled.
    pub stalled: bool,
    /// Syncs asked for while stalled: their tokens and how far they reach.
    pub waiting: Vec<(u64, usize)>,
}

impl Disk {
    /// Appends; with a sync asked for, when it will have ended. `None` while stalled.
    pub fn write(&mut self, now: u64, records: Vec<Record>, rng: &mut Rng) -> Option<u64> {
        self.batches.push(records);
        if self.stalled {
            return None;
        }
        let takes = self.latency_us / 2 + rng.below(self.latency_us + 1);
        let (current, next) = self.ends;
        self.ends = match (now < current, now < next) {
            (true, _) if next > current => (current, next),
            (true, _) => (current, current + takes),
            (false, true) => (next, next + takes),
            (false, false) => (now + takes, 0),
        };
        Some(self.ends.0.max(self.ends.1))
    }

    /// What the machine's end leaves: all that was synced, and any beginning of the rest.
    pub fn lose_power(&mut self, rng: &mut Rng) {
        let unsynced = self.batches.len() - self.synced;
        let kept = if rng.one_in(2) { 0 } else { rng.below(unsynced as u64 + 1) as usize };
        self.batches.truncate(self.synced + kept);
        self.settle();
    }

    /// What the process's end leaves: what the kernel has got, which stays.
    pub fn lose_process(&mut self, rng: &mut Rng) {
        let unsynced = self.batches.len() - self.synced;
        let kept = rng.below(unsynced as u64 + 1) as usize;
        self.batches.truncate(self.synced + kept);
        self.settle();
    }

    /// Replay syncs what it found before anything is made of it.
    fn settle(&mut self) {
        self.synced = self.batches.len();
        self.waiting.clear();
    }

    pub fn wipe(&mut self) {
        self.batches.clear();
        self.settle();
    }

    /// It holds who the node is, synced.
    #[must_use]
    pub fn is_named(&self) -> bool {
        let synced = self.batches.iter().take(self.synced).flatten();
        synced.into_iter().any(|record| matches!(record, Record::Snapshot(NODE_LOG, _)))
    }

    #[must_use]
    pub fn stored(&self) -> Stored {
        let mut identity = None;
        let mut log = Recovered::default();
        for record in self.batches.iter().flatten() {
            match record {
                Record::Snapshot(NODE_LOG, snapshot) => identity = Identity::from_snapshot(snapshot),
                Record::Snapshot(LogId(0), snapshot) => {
                    let agrees = log.entries.iter().any(|e| e.index == snapshot.index && e.term == snapshot.term);
                    let kept = if agrees { snapshot.index } else { u64::MAX };
                    log.entries.retain(|e| e.index > kept);
                    log.snapshot = Some(snapshot.clone());
                }
                Record::Entry(LogId(0), entry) => {
                    let first = log.entries.first().map_or(entry.index, |e| e.index);
                    let at = entry.index.saturating_sub(first) as usize;
                    if log.entries.get(at).is_none_or(|e| e.term != entry.term) {
                        log.entries.truncate(at);
                        log.entries.push(entry.clone());
                    }
                }
                Record::HardState(LogId(0), hard_state) => log.hard_state = *hard_state,
                _ => {}
            }
        }
        let floor = log.snapshot.as_ref().map_or(0, |s| s.index);
        log.entries.retain(|e| e.index > floor);
        Stored { identity, log, rejoins: None }
    }
}
