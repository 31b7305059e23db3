//! The write-ahead log as bytes: records to bytes, bytes back to entries, or the place where they are corrupt (S13).
//!
//! Pure: `store/wal` in the shell and the simulator's disk move the bytes, this module alone gives them meaning. All logs of a node
//! share one write-ahead log; a record names its log. The main path: [`Encoder::encode`] makes one batch of records to be written and
//! synced at once; [`Replay`] takes the files of a stopped node and gives back each log's state; [`Liveness`] knows which files are
//! still needed (S14).
//!
//! **Format.** A segment is a file written full of zeros before it is used. It begins with a header of 4 KiB, kept twice: the segment's
//! number, where the log before it ends, and which logs are possibly cut. Then come batches, each from one sector of 512 bytes to
//! another, so that no sector ever holds bytes of two batches:
//!
//! ```text
//! | start bracket, hard states | entries, snapshots, births | end bracket, the same hard states |
//! ^ sector                                                  ^ sector                            ^ sector
//! ```
//!
//! The hard states are kept twice, in different sectors (S12), and so is what a bracket says: the batch's number, its extent, and the
//! last batch that was synced when it was written. A record is `length u32, crc32c u32, kind u8, version u8, body`, little-endian,
//! padded to 8 bytes; the checksum covers the segment's number and the record's offset too, so bytes of another place or an older life of
//! the file never pass. Everything after the header is combined with a stream of the segment's own (no secret), so that no sector that
//! was ever written is all zero.
//!
//! **What damage means.** A batch is whole if its records and one of its brackets are. If it is not:
//! - what was synced is rotten, and replay ends with [`ReplayError::Corrupt`], if a later batch says that it was synced;
//! - else a sector that is still zero shows that it never came to be synced: [`Cut::Torn`], nobody was promised anything;
//! - else it may have been synced: [`Cut::MaybeSynced`], and every log of the node is marked possibly cut until it is born anew (S12; why
//!   nothing less will do stands in [`crate::consensus`]).
//!
//! **What the mover of bytes owes.** It syncs the files after replay and before anything is made of their contents; syncs a segment before
//! it begins the next; syncs the header before the first batch; and never writes to a segment that was not blank from there on.

pub(crate) mod bytes;
mod encode;
mod frame;
mod liveness;
mod replay;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use encode::{Batch, EncodeError, Encoder};
pub use frame::{HEADER_BYTES, RECORD_MAX_BYTES, SECTOR_BYTES};
pub use liveness::Liveness;
pub use replay::{Cut, LogState, Replay, ReplayError, Replayed};

use serde::{Deserialize, Serialize};

use crate::ids::RaftId;

/// Which replicated log of this node a record belongs to; 0 is the control log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogId(pub u32);

/// One entry of a replicated log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub index: u64,
    pub term: u64,
    pub kind: EntryKind,
    #[serde(with = "bytes")]
    pub data: Vec<u8>,
    #[serde(with = "bytes")]
    pub context: Vec<u8>,
}

/// What an entry's data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EntryKind {
    /// Data for the state machine; empty data is a new leader's first entry.
    Normal,
    /// A change of the voters ([`crate::consensus::ConfChange`]); empty data ends a joint configuration.
    ConfChange,
}

/// What a replica must not forget: its term, its vote and how far it knows the log to be committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HardState {
    pub term: u64,
    pub vote: u64,
    pub commit: u64,
}

/// The members of a replicated log (joint consensus while `outgoing` is not empty).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Voters {
    pub voters: Vec<u64>,
    pub learners: Vec<u64>,
    pub outgoing: Vec<u64>,
    pub learners_next: Vec<u64>,
    pub auto_leave: bool,
}

/// The state machine's state at an index, in place of the entries up to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub index: u64,
    pub term: u64,
    pub voters: Voters,
    #[serde(with = "bytes")]
    pub data: Vec<u8>,
}

/// One record of the write-ahead log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// It replaces the entry with its index and all after it, unless that is the same entry (same term), which stays as it is.
    Entry(LogId, Entry),
    HardState(LogId, HardState),
    /// Entries after it stay if the log has the entry it stands for; else the log ends with it.
    Snapshot(LogId, Snapshot),
    /// From here on the log is that of this replica, and empty; nothing happens if it is already (S11).
    Birth(LogId, RaftId),
}

impl Record {
    #[must_use]
    pub const fn log(&self) -> LogId {
        match self {
            Self::Entry(log, _) | Self::HardState(log, _) | Self::Snapshot(log, _) | Self::Birth(log, _) => *log,
        }
    }
}

/// A segment's number: one more than the one before it, never used twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SegmentId(pub u64);

/// Where the write-ahead log goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End {
    /// The last segment, and the offset after its last batch; `None` if there is no segment yet.
    pub at: Option<(SegmentId, u64)>,
    /// Nothing was ever written after `at`, so its segment may be written on; else a new one must begin.
    pub blank: bool,
    /// The number of the next batch.
    pub seq: u64,
    /// Logs that lost records they may have acknowledged (S12), and the replica that did: until they are born as another.
    pub possibly_cut: BTreeMap<LogId, RaftId>,
}

/// A log that is born as another replica than the one that was cut has nothing to answer for.
fn forgive(possibly_cut: &mut BTreeMap<LogId, RaftId>, record: &Record) {
    if let Record::Birth(log, id) = record
        && possibly_cut.get(log).is_some_and(|cut| cut != id)
    {
        possibly_cut.remove(log);
    }
}
