//! What a node is given at its start.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::log::CONTROL;
use crate::cluster::{BEHAVIOUR, ClusterSpec};
use crate::consensus::Recovered;
use crate::detect::HealthLimits;
use crate::ids::{NodeId, RaftId};
use crate::plant::{self, Bug};
use crate::wal::{EntryKind, LogId, LogState, Record, Snapshot};

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
    /// Length of one tick of the log's timers: elections after 24 to 38, heartbeats of the log every 8.
    pub tick: Duration,
    pub seed: u64,
    /// The one-use right to found the cluster under this id (S11).
    pub found: Option<(u128, ClusterSpec)>,
    /// Commands are numbered from here; larger than in any life before.
    pub command_base: u64,
    pub health: HealthLimits,
    /// The newest behaviour that this program has (S17).
    pub behaviour: u32,
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
            behaviour: BEHAVIOUR,
            snapshot_every: 2_000,
        }
    }
}

/// What a node's disk held.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    pub identity: Option<Identity>,
    pub log: Recovered,
    /// It was a node of this cluster, and must join anew because its log may have lost its end (S12). The incarnation in the options
    /// must then be a new one.
    pub rejoins: Option<u128>,
}

impl Stored {
    /// From what the write-ahead log held of each log.
    ///
    /// A log that may have lost what it acknowledged or voted is not gone on with: the node joins again as somebody else (S12). `cluster`
    /// is the one that the directory remembers to be of.
    ///
    /// # Errors
    /// [`LogCut`] if nobody else has the log, or it cannot be told whose it was.
    pub fn from_logs(mut logs: BTreeMap<LogId, LogState>, cluster: Option<u128>) -> Result<Self, LogCut> {
        let identity = logs.get(&NODE_LOG).and_then(|log| Identity::from_snapshot(log.snapshot.as_ref()?));
        let control = logs.remove(&CONTROL).unwrap_or_default();
        let Some(identity) = identity else {
            // What was cut took with it who this node was. Under its own name it would be welcomed as the one that it has forgotten to be.
            let rejoins = if control.possibly_cut { Some(cluster.ok_or(LogCut::Nameless)?) } else { None };
            return Ok(Self { rejoins, ..Self::default() });
        };
        if !control.possibly_cut || plant::is(Bug::S12GoesOn) {
            return Ok(Self { identity: Some(identity), log: control.into(), rejoins: None });
        }
        let began_alone =
            control.snapshot.as_ref().is_some_and(|s| s.voters.voters == [identity.raft_id.0] && s.voters.outgoing.is_empty());
        // Voters that came after the snapshot have the log too.
        let alone = began_alone && control.entries.iter().all(|entry| entry.kind != EntryKind::ConfChange);
        if alone {
            return Err(LogCut::SoleVoter);
        }
        Ok(Self { identity: None, log: Recovered::default(), rejoins: Some(identity.cluster) })
    }

    /// From what is left, cut or not: for the guided way out of a lost quorum only, where a person judges.
    #[must_use]
    pub fn to_recover_from(mut logs: BTreeMap<LogId, LogState>) -> Self {
        let identity = logs.get(&NODE_LOG).and_then(|log| Identity::from_snapshot(log.snapshot.as_ref()?));
        Self { identity, log: logs.remove(&CONTROL).unwrap_or_default().into(), rejoins: None }
    }
}

/// A log that lost its end, and that no node can be started from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogCut {
    #[error("end of the log damaged, and no other node has it: give up its last entries by `hotwarm recover-quorum`")]
    SoleVoter,
    #[error("end of the log damaged, and with it who this node was: move all but tls out of the data directory, and the node joins anew")]
    Nameless,
}

/// Who a node is in its cluster; durable before it says a word as that (S11).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub cluster: u128,
    pub raft_id: RaftId,
    /// Under which it was admitted.
    pub incarnation: u128,
}

impl Identity {
    /// As records that begin the node's logs under this identity, empty where they were another's.
    ///
    /// # Panics
    /// Never: numbers can be written.
    #[must_use]
    pub fn records(self) -> Vec<Record> {
        let data = postcard::to_allocvec(&self).expect("numbers can be written");
        let snapshot = Snapshot { index: 1, term: 1, data, ..Snapshot::default() };
        vec![Record::Birth(CONTROL, self.raft_id), Record::Birth(NODE_LOG, self.raft_id), Record::Snapshot(NODE_LOG, snapshot)]
    }

    /// From the snapshot of [`NODE_LOG`].
    #[must_use]
    pub fn from_snapshot(snapshot: &Snapshot) -> Option<Self> {
        postcard::from_bytes(&snapshot.data).ok()
    }
}
