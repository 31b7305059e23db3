//! Which segments are still needed, and by which log (S14).
//!
//! It only keeps account; it deletes nothing and holds no data. When a log that is idle pins old segments, its records are written
//! again at the end ([`crate::consensus::Replica::rewrite`] gives them), and the segments become free.

use std::collections::BTreeMap;

use super::{LogId, Record, SegmentId};
use crate::ids::RaftId;
use crate::plant::{self, Bug};

/// What of one log lies where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Places {
    birth: Option<SegmentId>,
    id: RaftId,
    hard_state: Option<SegmentId>,
    snapshot: Option<SegmentId>,
    snapshot_index: u64,
    /// The highest index of the log's entries in each segment, where later ones did not replace them.
    entries: BTreeMap<SegmentId, u64>,
}

impl Places {
    fn first_needed(&self) -> Option<SegmentId> {
        let entries = self.entries.iter().find(|(_, last)| **last > self.snapshot_index).map(|(segment, _)| *segment);
        [self.birth, self.hard_state, self.snapshot, entries].into_iter().flatten().min()
    }
}

/// The account of all logs of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Liveness {
    logs: BTreeMap<LogId, Places>,
}

impl Liveness {
    /// `record` was written to `segment`, in the order of writing.
    ///
    /// What is written again counts from [`Self::rewritten`] on: a crash may have lost the rest of it, and read from there on a birth or a
    /// snapshot would end what was before it.
    pub fn note(&mut self, segment: SegmentId, record: &Record) {
        let places = self.logs.entry(record.log()).or_default();
        match record {
            Record::Birth(_, id) if places.birth.is_some() && places.id == *id => {}
            Record::Birth(_, id) => *places = Places { birth: Some(segment), id: *id, ..Places::default() },
            Record::HardState(..) => places.hard_state = Some(segment),
            Record::Snapshot(_, snapshot) if places.snapshot.is_some() && places.snapshot_index == snapshot.index => {}
            Record::Snapshot(_, snapshot) => {
                places.snapshot = Some(segment);
                places.snapshot_index = places.snapshot_index.max(snapshot.index);
                places.entries.retain(|_, last| *last > snapshot.index);
            }
            Record::Entry(_, entry) => {
                // Entries written again must not hide those after them, which may still lie only in the older segment.
                let last = places.entries.entry(segment).or_default();
                *last = (*last).max(entry.index);
            }
        }
    }

    /// All of `log` was written to `segment` or a later one from here on: nothing older is needed for it.
    pub fn rewritten(&mut self, log: LogId, segment: SegmentId) {
        if let Some(places) = self.logs.get_mut(&log) {
            places.entries.retain(|at, _| *at >= segment);
            for place in [&mut places.birth, &mut places.hard_state, &mut places.snapshot] {
                *place = place.map(|at| at.max(segment));
            }
        }
    }

    /// The first segment that some log needs; all before it may be deleted once everything noted is synced. `None` if nothing is
    /// needed: then only the segment being written is to be kept.
    #[must_use]
    pub fn first_needed(&self) -> Option<SegmentId> {
        self.logs.values().filter_map(Places::first_needed).min()
    }

    /// The logs that need a segment before `segment`, to be written again (S14).
    #[must_use]
    pub fn pinning(&self, segment: SegmentId) -> Vec<LogId> {
        let pins = |places: &Places| !plant::is(Bug::S14NeverRewritten) && places.first_needed().is_some_and(|first| first < segment);
        self.logs.iter().filter(|(_, places)| pins(places)).map(|(log, _)| *log).collect()
    }
}
