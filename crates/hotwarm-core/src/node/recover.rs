//! The way out when a quorum is lost for good: the state of one surviving node becomes a new cluster of one voter.
//!
//! What the lost nodes had and this one had not is lost; the new cluster has a new identity, so that an old node that comes back is
//! refused instead of believed (S11).

use super::{Identity, Stored};
use crate::cluster::{Cluster, DecodeError, Entry};
use crate::consensus;
use crate::ids::{Index, NodeId, RaftId};
use crate::wal::{EntryKind, Record, Snapshot};

/// What a recovery would do, and the records that do it.
#[derive(Clone, Debug)]
pub struct Recovery {
    pub identity: Identity,
    pub records: Vec<Record>,
    pub cluster: Cluster,
    /// The last entry this node has.
    pub last: Index,
    /// The last entry this node knows to have been agreed on; what follows it may have been refused by the others.
    pub commit: Index,
    /// Of the last entry.
    pub term: u64,
    /// The last dated entry that the log still holds, by the wall clock of the node that led then, in milliseconds since 1970: of survivors
    /// it tells, as a file's time does not, who heard of the cluster last. For people.
    pub dated_ms: Option<u64>,
}

/// A state that cannot be recovered from.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error("this data directory holds no state of a cluster; choose another surviving node")]
    NoState,
    #[error("node {0} is not in the configuration that this data directory holds; choose another surviving node")]
    NotConfigured(NodeId),
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Makes the state on `me`'s disk the first state of a new cluster `id` with `me` as its only voter.
///
/// # Errors
/// There is no state, it cannot be read, or this node has no part in it.
pub fn recover(stored: &Stored, me: &NodeId, incarnation: u128, id: u128) -> Result<Recovery, RecoverError> {
    let snapshot = stored.log.snapshot.as_ref().ok_or(RecoverError::NoState)?;
    let mut cluster = Cluster::decode(&snapshot.data)?;
    let (mut last, mut term, mut dated_ms) = (snapshot.index, snapshot.term, None);
    for entry in stored.log.entries.iter().filter(|e| e.index > snapshot.index) {
        (last, term) = (entry.index, entry.term);
        if entry.kind == EntryKind::Normal && !entry.data.is_empty() {
            let entry = Entry::decode(&entry.data)?;
            dated_ms = Some(entry.wall_ms).filter(|ms| *ms > 0).or(dated_ms);
            cluster.apply(&entry);
        }
    }
    if !cluster.founded() {
        return Err(RecoverError::NoState);
    }
    if !cluster.nodes.contains_key(me) {
        // Its own configuration would take the only voter out.
        return Err(RecoverError::NotConfigured(me.clone()));
    }
    let raft_id = RaftId(cluster.next_raft_id);
    cluster.begin_anew(id, me, incarnation);
    let identity = Identity { cluster: id, raft_id, incarnation };
    let next_term = term.max(stored.log.hard_state.term) + 1;
    let mut records = identity.records();
    for record in consensus::bootstrap(super::log::CONTROL, raft_id, cluster.encode()) {
        records.push(match record {
            Record::Snapshot(log, s) => Record::Snapshot(log, Snapshot { index: last + 1, term: next_term, ..s }),
            Record::HardState(log, _) => Record::HardState(log, crate::wal::HardState { term: next_term, vote: 0, commit: last + 1 }),
            other @ (Record::Entry(..) | Record::Birth(..)) => other,
        });
    }
    let commit = Index(stored.log.hard_state.commit);
    Ok(Recovery { identity, records, cluster, last: Index(last), commit, term, dated_ms })
}
