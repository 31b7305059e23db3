//! One member of one replicated log, without I/O: proposals, messages and ticks go in; messages, records to persist, committed
//! entries and read indexes come out.
//!
//! The main path enters at [`Replica`]: `propose`, `handle_message`, `tick` and `read_index` put work in; `poll_ready` takes it out;
//! `persisted` and `applied` tell it what became of that. The algorithm is raft-rs; this module gives it our message format, a log
//! in memory and the care it needs (S16):
//!
//! - **Jitter.** raft-rs redraws its election timeout from the thread's generator at every reset. After every call the timeout is
//!   overwritten with ours, which is redrawn from the seed when the term, the role or the leader changed or an election began; whether
//!   raft-rs reset its own is never asked, because a draw that happens to repeat would hide it.
//! - **Panics.** It panics on what a correct peer never sends. [`Message`] cannot express local messages, and `check` refuses the rest
//!   before it goes in. Elections wait while the log's end is not durable or a received snapshot is not applied: raft-rs asserts both.
//! - **A leader that was removed** steps down at once; raft-rs would go on and panic at its next commit.
//! - **Early messages.** raft-rs lets a leader send before it persisted. Ours does so too, except while its term is not yet durable: a
//!   single voter that crashed there would lead the same term again with other entries than its learners have.
//! - **Overwritten entries.** raft-rs knows a persisted entry by (index, term) only, and a term can come back to an index. Entries that
//!   replace ones still on their way to disk are held until those have arrived.
//! - **Order.** Its hash maps have a fixed hasher, so one program always gives one order; messages are sorted by receiver besides.
//!
//! What a node that cut records must do (S12). A replica cannot make good what its disk lost: it may have acknowledged entries or given
//! votes that are gone, its leader counts those acknowledgements for the rest of the term (`matched` never goes down), and a vote may be
//! given twice. Catching up first does not help against either. So there is no "cut" state here: a log that [`crate::wal`] reports as
//! possibly cut is dropped, and the node joins again as a learner under a new raft id (S11), where nothing it ever said is counted.
//! The sole voter of a log has nobody to learn from: it stops, and an operator decides.

mod check;
mod conf;
mod election;
mod log;
mod message;
mod ready;
mod replica;

#[cfg(test)]
mod tests;

pub use check::MessageError;
pub use conf::{Change, ConfChange};
pub use message::{Body, DecodeError, MESSAGE_MAX_BYTES, Message};
pub use ready::{Leadership, PeerProgress, ReadState, Ready, ReplicaRole, Status};
pub use replica::Replica;

use crate::ids::RaftId;
use crate::wal::{Entry, HardState, LogId, LogState, Record, Snapshot, Voters};

/// How one replica behaves.
#[derive(Clone, Debug)]
pub struct Options {
    pub id: RaftId,
    pub log: LogId,
    /// The election timeout is drawn from the first (included) to the second (excluded), in ticks.
    pub election_ticks: (usize, usize),
    pub heartbeat_ticks: usize,
    /// Data and context of one entry together, at most.
    pub max_entry_bytes: usize,
    /// Data proposed and not yet committed, at most; then a proposal is refused as [`ProposeError::Full`].
    pub max_uncommitted_bytes: usize,
    /// Append messages on their way to one peer, at most.
    pub max_inflight: usize,
    pub seed: u64,
}

/// Ticks between the heartbeats of a log, by default.
pub const HEARTBEAT_TICKS: usize = 8;

/// Entries that a leader has proposed and that are not yet both committed and durable here, at most; then a proposal is refused as
/// [`ProposeError::Full`] or [`ProposeError::DiskBehind`]. Far more than are under way while the disk syncs, far fewer than the shell's
/// write-ahead log lets wait before it ends the process.
pub const IN_FLIGHT_MAX: u64 = 128;

impl Options {
    /// Sensible bounds for a tick of 10 ms: elections after 240 to 380 ms of silence, a heartbeat every 80 ms (why: docs/decisions/elections.md).
    #[must_use]
    pub const fn new(id: RaftId, log: LogId, seed: u64) -> Self {
        Self {
            id,
            log,
            election_ticks: (24, 38),
            heartbeat_ticks: HEARTBEAT_TICKS,
            max_entry_bytes: 4 << 20,
            max_uncommitted_bytes: 16 << 20,
            max_inflight: 256,
            seed,
        }
    }
}

/// What the write-ahead log held of one log when the node started. Empty for a replica that has yet to join, whose only record is its
/// [`Record::Birth`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    pub hard_state: HardState,
    pub snapshot: Option<Snapshot>,
    /// Entries after the snapshot, contiguous; older ones are ignored.
    pub entries: Vec<Entry>,
}

impl From<LogState> for Recovered {
    fn from(state: LogState) -> Self {
        Self { hard_state: state.hard_state, snapshot: state.snapshot, entries: state.entries }
    }
}

/// The records that begin a new log whose only voter is `id`: persist them once, then start a replica from them.
///
/// `state` is the state machine's first state. Peers remember the cluster's identity and refuse a second birth (S11); that is not
/// this module's to check.
#[must_use]
pub fn bootstrap(log: LogId, id: RaftId, state: Vec<u8>) -> Vec<Record> {
    let voters = Voters { voters: vec![id.0], ..Voters::default() };
    let snapshot = Snapshot { index: 1, term: 1, voters, data: state };
    let hard_state = HardState { term: 1, vote: 0, commit: 1 };
    vec![Record::Birth(log, id), Record::Snapshot(log, snapshot), Record::HardState(log, hard_state)]
}

/// A replica could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("replica options not usable: {0}")]
    Options(String),
    #[error("recovered log not consistent: {0}; let the node join anew, and restore nothing")]
    Recovered(String),
}

/// Where a proposal stands in the log if it commits: only an entry with this index and this term is it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposed {
    pub index: u64,
    pub term: u64,
}

/// A proposal was not taken into the log; nothing of it remains.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    #[error("not the leader of the log; ask {leader:?}")]
    NotLeader { leader: Option<RaftId> },
    #[error("too much proposed and not yet committed; try again later")]
    Full,
    #[error("{entries} entries proposed and not yet durable here; look at the disk, and try again once it has synced")]
    DiskBehind { entries: u64 },
    #[error("entry of {bytes} bytes larger than the limit of {max}")]
    TooLarge { bytes: usize, max: usize },
    #[error("entry without data; an empty entry is a new leader's own")]
    Empty,
    #[error("leadership on its way to {to}; ask again after the change")]
    Transferring { to: RaftId },
    #[error("an earlier change of voters not yet applied; try again after it")]
    ConfChangePending,
    #[error("change of voters not possible: {0}")]
    ConfChangeInvalid(String),
}

/// A read was not begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("not the leader of the log; ask {leader:?}")]
    NotLeader { leader: Option<RaftId> },
    #[error("too many reads waiting; try again later")]
    Full,
}

/// Leadership cannot be handed over as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    #[error("not the leader of the log; ask {leader:?}")]
    NotLeader { leader: Option<RaftId> },
    #[error("replica {to} not a voter of the log; name one")]
    NotVoter { to: RaftId },
}

/// A snapshot of the state machine was not taken into the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    #[error("snapshot at {index} beyond what is applied ({applied}); take it of applied state")]
    NotApplied { index: u64, applied: u64 },
    #[error("snapshot at {index} not newer than the one at {have}; drop it")]
    Old { index: u64, have: u64 },
    #[error("snapshot of {bytes} bytes larger than the limit of {max}")]
    TooLarge { bytes: usize, max: usize },
}
