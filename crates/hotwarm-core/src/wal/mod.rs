//! The write-ahead log as bytes: records to bytes, bytes back to entries, or the place where they are corrupt (S13).
//!
//! Pure: `store/wal` in the shell and the simulator's disk move the bytes, this module alone gives them meaning. All logs of a node
//! share one write-ahead log; a record names its log.

pub(crate) mod bytes;

use serde::{Deserialize, Serialize};

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

/// One record of the write-ahead log. A later entry with an index that is already there replaces it and all after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    Entry(LogId, Entry),
    HardState(LogId, HardState),
    Snapshot(LogId, Snapshot),
}
