//! What a node is given at its start.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::log::CONTROL;
use crate::cluster::ClusterSpec;
use crate::consensus::Recovered;
use crate::detect::HealthLimits;
use crate::ids::{NodeId, RaftId};
use crate::wal::{LogId, Record, Snapshot};

/// Where a node keeps what it knows of itself: not a replicated log, but kept like one, in the same write-ahead log.
pub const NODE_LOG: LogId = LogId(u32::MAX);

/// See [`super::Node::new`].
#[derive(Clone, Debug)]
pub struct Options {
    pub me: NodeId,
    pub cluster_name: String,
    /// Born with the data directory (S11).
    pub incarnation: u128,
    /// Nodes of the configuration file, for as long as the log has not told.
    pub peers: BTreeSet<NodeId>,
    pub heartbeat: Duration,
    /// Length of one tick of the log's timers: elections after 15 to 30, heartbeats of the log every 3.
    pub tick: Duration,
    pub seed: u64,
    /// The one-use right to found the cluster under this id (S11).
    pub found: Option<(u128, ClusterSpec)>,
    /// Commands are numbered from here; larger than in any life before.
    pub command_base: u64,
    pub health: HealthLimits,
    /// Entries after which a snapshot is taken.
    pub snapshot_every: u64,
}

impl Options {
    /// The defaults: heartbeat 100 ms, tick 10 ms.
    #[must_use]
    pub fn new(me: NodeId, cluster_name: impl Into<String>, incarnation: u128, seed: u64) -> Self {
        Self {
            me,
            cluster_name: cluster_name.into(),
            incarnation,
            peers: BTreeSet::new(),
            heartbeat: Duration::from_millis(100),
            tick: Duration::from_millis(10),
            seed,
            found: None,
            command_base: 0,
            health: HealthLimits::default(),
            snapshot_every: 2_000,
        }
    }
}

/// What a node's disk held.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    pub identity: Option<Identity>,
    pub log: Recovered,
}

impl Stored {
    /// From all records of the write-ahead log, in their order.
    #[must_use]
    pub fn from_records(records: Vec<Record>) -> Self {
        let mut stored = Self::default();
        for record in records {
            match record {
                Record::Snapshot(NODE_LOG, snapshot) => stored.identity = Identity::from_snapshot(&snapshot).or(stored.identity),
                Record::Snapshot(CONTROL, snapshot) => {
                    stored.log.entries.retain(|entry| entry.index > snapshot.index);
                    stored.log.snapshot = Some(snapshot);
                }
                Record::HardState(CONTROL, hard_state) => stored.log.hard_state = hard_state,
                Record::Entry(CONTROL, entry) => {
                    // A later entry replaces the one at its index and all after it.
                    stored.log.entries.retain(|old| old.index < entry.index);
                    stored.log.entries.push(entry);
                }
                Record::Snapshot(..) | Record::HardState(..) | Record::Entry(..) | Record::Birth(..) => {}
            }
        }
        stored
    }
}

/// Who a node is in its cluster; durable before it says a word as that (S11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub cluster: u128,
    pub raft_id: RaftId,
}

impl Identity {
    /// As a record of [`NODE_LOG`].
    ///
    /// # Panics
    /// Never: two numbers can be written.
    #[must_use]
    pub fn record(self) -> Record {
        let data = postcard::to_allocvec(&self).expect("two numbers can be written");
        Record::Snapshot(NODE_LOG, Snapshot { index: self.raft_id.0, term: 1, data, ..Snapshot::default() })
    }

    /// From the snapshot of [`NODE_LOG`].
    #[must_use]
    pub fn from_snapshot(snapshot: &Snapshot) -> Option<Self> {
        postcard::from_bytes(&snapshot.data).ok()
    }
}
