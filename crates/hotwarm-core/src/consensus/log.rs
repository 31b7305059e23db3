//! The replica's log in memory, as raft-rs reads it: a snapshot, the entries after some index, and nothing of the disk.
//!
//! It holds what was handed out to be persisted, durable or not; raft-rs keeps track of which is which. It must never be compacted
//! beyond its snapshot, or a follower that is behind could not be helped.

use std::cell::Cell;
use std::collections::VecDeque;

use raft::eraftpb::{self, ConfState};
use raft::storage::{GetEntriesContext, RaftState, Storage};
use raft::{Error, StorageError};

use super::Recovered;
use super::conf::{voters_from_raft, voters_to_raft};
use super::message::{entry_to_raft, snapshot_to_raft};
use crate::wal::{HardState, Voters};

#[derive(Debug)]
pub(super) struct Log {
    hard_state: eraftpb::HardState,
    /// Index 0: there is none yet.
    snapshot: eraftpb::Snapshot,
    /// The entry before the first one kept: index and term.
    base: (u64, u64),
    entries: VecDeque<eraftpb::Entry>,
    /// Voters by the index from which they hold, from the snapshot on.
    voters: VecDeque<(u64, Voters)>,
    /// A peer needs a snapshot that names it, and ours is from before it joined: raft-rs would not install that.
    snapshot_wanted: Cell<bool>,
}

impl Log {
    /// # Errors
    /// What is wrong with `recovered`, if it is not a log that a replica can have left.
    pub(super) fn new(recovered: Recovered) -> Result<Self, String> {
        let snapshot = recovered.snapshot.unwrap_or_default();
        let base = (snapshot.index, snapshot.term);
        let mut last = base;
        let mut entries = VecDeque::new();
        for entry in recovered.entries.into_iter().filter(|entry| entry.index > base.0) {
            if entry.index != last.0 + 1 || entry.term < last.1 {
                return Err(format!("entry {} of term {} after entry {} of term {}", entry.index, entry.term, last.0, last.1));
            }
            last = (entry.index, entry.term);
            entries.push_back(entry_to_raft(entry));
        }
        let HardState { term, vote, commit } = recovered.hard_state;
        if term < last.1 {
            return Err(format!("term {term} of the hard state below that of entry {} ({})", last.0, last.1));
        }
        if commit > last.0 {
            return Err(format!("committed up to {commit}, but the log ends at {}", last.0));
        }
        let mut hard_state = eraftpb::HardState::default();
        (hard_state.term, hard_state.vote) = (term, vote);
        // A snapshot is of committed state, whatever was last written about the commit index.
        hard_state.commit = commit.max(base.0);
        Ok(Self {
            hard_state,
            voters: [(base.0, snapshot.voters.clone())].into(),
            snapshot: snapshot_to_raft(snapshot),
            base,
            entries,
            snapshot_wanted: Cell::new(false),
        })
    }

    pub(super) fn set_hard_state(&mut self, hard_state: &eraftpb::HardState) {
        self.hard_state.clone_from(hard_state);
    }

    pub(super) const fn hard_state(&self) -> &eraftpb::HardState {
        &self.hard_state
    }

    pub(super) fn entries_after_snapshot(&self) -> impl Iterator<Item = &eraftpb::Entry> {
        let snapshot = self.snapshot_index();
        self.entries.iter().filter(move |entry| entry.index > snapshot)
    }

    /// Entries replace those with their indexes and all after them.
    pub(super) fn append(&mut self, entries: &[eraftpb::Entry]) {
        let Some(first) = entries.first() else { return };
        let keep = first.index.checked_sub(self.base.0 + 1).expect("raft-rs appends after what is compacted");
        assert!(keep <= self.entries.len() as u64, "raft-rs appends without a gap");
        self.entries.truncate(usize::try_from(keep).expect("bounded by the length"));
        self.entries.extend(entries.iter().cloned());
    }

    /// A snapshot from the leader replaces the whole log.
    pub(super) fn restore(&mut self, snapshot: &eraftpb::Snapshot) {
        let metadata = snapshot.get_metadata();
        self.base = (metadata.index, metadata.term);
        self.entries.clear();
        self.voters = [(metadata.index, voters_from_raft(metadata.get_conf_state().clone()))].into();
        self.snapshot = snapshot.clone();
    }

    /// A snapshot of our own state machine; the entries stay until [`Self::compact`].
    pub(super) fn set_snapshot(&mut self, index: u64, data: Vec<u8>) {
        let mut snapshot = eraftpb::Snapshot::default();
        let voters = self.voters_at(index).clone();
        let metadata = snapshot.mut_metadata();
        metadata.index = index;
        metadata.term = self.term_at(index).expect("a snapshot is of applied entries, which are kept");
        metadata.set_conf_state(voters_to_raft(&voters));
        snapshot.data = data.into();
        self.snapshot = snapshot;
        self.snapshot_wanted.set(false);
        while self.voters.get(1).is_some_and(|(from, _)| *from <= index) {
            self.voters.pop_front();
        }
    }

    /// Drops entries up to `index`, or up to the snapshot if that is earlier.
    pub(super) fn compact(&mut self, index: u64) {
        let index = index.min(self.snapshot_index());
        while self.base.0 < index {
            let Some(entry) = self.entries.pop_front() else { return };
            self.base = (entry.index, entry.term);
        }
    }

    pub(super) fn voters_changed(&mut self, index: u64, voters: Voters) {
        self.voters.push_back((index, voters));
    }

    pub(super) fn voters(&self) -> &Voters {
        &self.voters.back().expect("the snapshot's voters are always there").1
    }

    fn voters_at(&self, index: u64) -> &Voters {
        let at = self.voters.iter().rev().find(|(from, _)| *from <= index);
        &at.unwrap_or(&self.voters[0]).1
    }

    pub(super) fn snapshot_index(&self) -> u64 {
        self.snapshot.get_metadata().index
    }

    /// True once for each time that a snapshot was missed.
    pub(super) fn take_snapshot_wanted(&self) -> bool {
        self.snapshot_wanted.take()
    }

    pub(super) const fn latest_snapshot(&self) -> &eraftpb::Snapshot {
        &self.snapshot
    }

    pub(super) const fn first(&self) -> u64 {
        self.base.0 + 1
    }

    pub(super) fn last(&self) -> u64 {
        self.base.0 + self.entries.len() as u64
    }

    fn term_at(&self, index: u64) -> Result<u64, Error> {
        if index == self.base.0 {
            return Ok(self.base.1);
        }
        let offset = index.checked_sub(self.base.0 + 1).ok_or(Error::Store(StorageError::Compacted))?;
        let entry = usize::try_from(offset).ok().and_then(|offset| self.entries.get(offset));
        entry.map(|entry| entry.term).ok_or(Error::Store(StorageError::Unavailable))
    }
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let conf_state: ConfState = voters_to_raft(&self.voters[0].1);
        Ok(RaftState::new(self.hard_state.clone(), conf_state))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<eraftpb::Entry>> {
        if low < self.first() {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let max_size = max_size.into().unwrap_or(u64::MAX);
        let from = usize::try_from(low - self.first()).unwrap_or(usize::MAX);
        let count = usize::try_from(high.saturating_sub(low)).unwrap_or(usize::MAX);
        let mut size = 0u64;
        let within = |entry: &&eraftpb::Entry| {
            let first = size == 0;
            size = size.saturating_add(entry_bytes(entry));
            first || size <= max_size
        };
        Ok(self.entries.iter().skip(from).take(count).take_while(within).cloned().collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.term_at(index)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<eraftpb::Snapshot> {
        let conf_state = self.snapshot.get_metadata().get_conf_state();
        let members = [conf_state.get_voters(), conf_state.get_learners(), conf_state.get_voters_outgoing()];
        let names_it = members.iter().any(|ids| ids.contains(&to));
        if self.snapshot_index() < request_index || !names_it {
            self.snapshot_wanted.set(true);
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(self.snapshot.clone())
    }
}

/// What an entry takes in a message, roughly: the numbers are at most 30 bytes.
fn entry_bytes(entry: &eraftpb::Entry) -> u64 {
    (entry.data.len() + entry.context.len() + 32) as u64
}
