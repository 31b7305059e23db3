//! Bytes back to logs, or the place where they are corrupt (S12, S13).
//!
//! It must never give back an entry that was not written, nor pass over damage to what was synced. The main path: [`Replay::feed`] for
//! each segment in order, then [`Replay::finish`]. A segment is read when the next one is known, because that says where it ends.

use std::collections::BTreeMap;

use super::frame::{
    BRACKET_BYTES, Bracket, Frame, HEADER_BYTES, HEADER_COPY_AT, Header, Kind, SECTOR_BYTES, Segment, VERSION, decode_record,
};
use super::{End, Entry, HardState, Liveness, LogId, Record, SegmentId, Snapshot, forgive};
use crate::ids::RaftId;

/// One log as its records left it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// The replica that the log is of.
    pub id: Option<RaftId>,
    pub hard_state: HardState,
    pub snapshot: Option<Snapshot>,
    /// After the snapshot, contiguous.
    pub entries: Vec<Entry>,
    /// Records that the replica may have acknowledged are gone (S12): the log must be born anew under another id.
    pub possibly_cut: bool,
}

/// Whether the end of the write-ahead log had to be cut, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cut {
    #[default]
    None,
    /// A batch that was never synced.
    Torn { file: String, offset: u64 },
    /// A batch that may have been synced (S12).
    MaybeSynced { file: String, offset: u64 },
}

/// What the segments of a node say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    pub logs: BTreeMap<LogId, LogState>,
    pub end: End,
    pub cut: Cut,
    pub liveness: Liveness,
    /// Batches of which one of the two brackets was damaged, and the other served.
    pub mended: usize,
}

/// The segments cannot be trusted; the node must not start from them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    #[error("{file} corrupt at offset {offset}: {what}; replace the disk and let the node join anew with an empty data directory")]
    Corrupt { file: String, offset: u64, what: &'static str },
    #[error(
        "{file} holds at offset {offset} a record of kind {kind} and version {version}, which is not known here; run the newer hotwarm"
    )]
    UnknownVersion { file: String, offset: u64, kind: u8, version: u8 },
    #[error("log {log:?} not contiguous at entry {index}; a segment is missing; let the node join anew, and restore nothing")]
    Gap { log: LogId, index: u64 },
}

/// Reads the segments of a stopped node.
#[derive(Debug, Default)]
pub struct Replay {
    replayed: Replayed,
    /// The last segment fed, not yet read.
    last: Option<(String, Segment)>,
}

/// What stands where the next batch is expected.
enum Found {
    Batch(Vec<Record>, Bracket, bool),
    Damaged(Option<Bracket>),
    Blank,
}

impl Replay {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next segment, by rising number in its header: all bytes of `file`, whose name is for messages only.
    ///
    /// # Errors
    /// [`ReplayError`] if it or the one before it cannot be trusted.
    pub fn feed(&mut self, file: &str, bytes: Vec<u8>) -> Result<(), ReplayError> {
        let Some(header) = read_header(file, &bytes)? else {
            // Begun, and the header not yet synced: nothing was written to it.
            let corrupt = |what| ReplayError::Corrupt { file: file.to_owned(), offset: 0, what };
            let bytes_after = usize::try_from(HEADER_BYTES).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
            return if bytes_after.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(corrupt("both copies of the header damaged")) };
        };
        let segment = SegmentId(header.segment);
        if let Some((previous_file, previous)) = self.last.take() {
            let corrupt = |offset, what| ReplayError::Corrupt { file: file.to_owned(), offset, what };
            if segment.0 != previous.id.0 + 1 {
                return Err(corrupt(0, "the segment before it is missing"));
            }
            let end = header.previous_end.ok_or_else(|| corrupt(0, "a first segment after another"))?;
            self.read_whole(&previous_file, &previous, end)?;
            if header.seq != self.replayed.end.seq {
                return Err(corrupt(0, "its first batch does not follow the last one before it"));
            }
        } else {
            self.replayed.end.seq = header.seq;
        }
        // What the header says holds: a cut was acknowledged in it, or a log was born anew before it.
        self.replayed.end.possibly_cut = header.possibly_cut.into_iter().collect();
        self.replayed.end.at = Some((segment, HEADER_BYTES));
        self.last = Some((file.to_owned(), Segment { id: segment, raw: bytes }));
        Ok(())
    }

    /// The state of all logs.
    ///
    /// # Errors
    /// [`ReplayError`] if the last segment cannot be trusted, or what there is does not make whole logs.
    pub fn finish(mut self) -> Result<Replayed, ReplayError> {
        if let Some((file, segment)) = self.last.take() {
            self.read_last(&file, &segment)?;
        }
        let mut replayed = self.replayed;
        replayed.end.seq = replayed.end.seq.max(1);
        if matches!(replayed.cut, Cut::MaybeSynced { .. }) {
            let cut = |(log, state): (&LogId, &LogState)| (*log, state.id.unwrap_or_default());
            replayed.end.possibly_cut = replayed.logs.iter().map(cut).collect();
            // All that said whose the first log is may be among what was lost.
            replayed.end.possibly_cut.entry(LogId::default()).or_default();
        }
        for log in replayed.end.possibly_cut.keys() {
            replayed.logs.entry(*log).or_default();
        }
        for (log, state) in &mut replayed.logs {
            state.possibly_cut = replayed.end.possibly_cut.contains_key(log);
            let first = state.snapshot.as_ref().map_or(1, |snapshot| snapshot.index + 1);
            if let Some((index, _)) = (first..).zip(&state.entries).find(|(index, entry)| entry.index != *index) {
                return Err(ReplayError::Gap { log: *log, index });
            }
        }
        Ok(replayed)
    }

    /// A segment with another after it: synced up to `end` before that was begun, so all of it must be there.
    fn read_whole(&mut self, file: &str, segment: &Segment, end: u64) -> Result<(), ReplayError> {
        let mut at = HEADER_BYTES;
        while at < end {
            match self.find(file, segment, at)? {
                Found::Batch(records, bracket, mended) if bracket.end <= end => {
                    at = self.take(segment.id, records, &bracket, mended);
                }
                _ => {
                    let (file, what) = (file.to_owned(), "a synced batch is damaged");
                    return Err(ReplayError::Corrupt { file, offset: at, what });
                }
            }
        }
        Ok(())
    }

    /// The segment that was being written when the node stopped.
    fn read_last(&mut self, file: &str, segment: &Segment) -> Result<(), ReplayError> {
        let mut at = HEADER_BYTES;
        let damaged = loop {
            if at >= segment.end() {
                break None;
            }
            match self.find(file, segment, at)? {
                Found::Batch(records, bracket, mended) => at = self.take(segment.id, records, &bracket, mended),
                Found::Damaged(bracket) => break Some(bracket),
                Found::Blank if segment.is_blank(at, segment.end()) => break None,
                // Its first sector was never written, so it was never synced; unless later ones know better.
                Found::Blank => break Some(None),
            }
        };
        self.replayed.end.at = Some((segment.id, at));
        self.replayed.end.blank = damaged.is_none();
        if let Some(bracket) = damaged {
            self.cut(file, segment, at, bracket)?;
        }
        Ok(())
    }

    /// Decides what a damaged batch at `at` means; `bracket` is what is left of its ends.
    fn cut(&mut self, file: &str, segment: &Segment, at: u64, bracket: Option<Bracket>) -> Result<(), ReplayError> {
        let seq = self.replayed.end.seq;
        let sectors = (at + SECTOR_BYTES..segment.end()).step_by(512);
        let brackets = sectors.flat_map(|at| [segment.bracket(at, Kind::BatchStart), segment.bracket(at, Kind::BatchEnd)]);
        let file = file.to_owned();
        if brackets.flatten().any(|later| later.seq > seq && later.synced >= seq) {
            let what = "a batch that later ones know to be synced is damaged";
            return Err(ReplayError::Corrupt { file, offset: at, what });
        }
        // No batch is shorter than its two brackets' sectors.
        let extent = bracket.map_or(at + 2 * SECTOR_BYTES, |bracket| bracket.end);
        self.replayed.cut =
            if segment.has_blank_sector(at, extent) { Cut::Torn { file, offset: at } } else { Cut::MaybeSynced { file, offset: at } };
        Ok(())
    }

    fn find(&self, file: &str, segment: &Segment, at: u64) -> Result<Found, ReplayError> {
        let mine = |bracket: &Bracket| bracket.seq == self.replayed.end.seq && bracket.start == at;
        let start = segment.bracket(at, Kind::BatchStart).filter(mine);
        if let Some(frame) = segment.read(at, segment.end()).filter(|_| start.is_none()) {
            check_version(file, at, &frame)?;
        }
        let end = match start {
            Some(start) => segment.bracket(start.end_bracket, Kind::BatchEnd).filter(mine),
            // The end bracket alone serves, if it can be found.
            None if segment.is_blank(at, at + SECTOR_BYTES) => return Ok(Found::Blank),
            None => (at + SECTOR_BYTES..segment.end()).step_by(512).find_map(|at| segment.bracket(at, Kind::BatchEnd).filter(mine)),
        };
        let Some(bracket) = start.or(end) else { return Ok(Found::Damaged(None)) };
        let read = |from, to| read_records(file, segment, from, to);
        let hard_states = [
            start.map(|start| read(start.start + BRACKET_BYTES, start.records)).transpose()?.flatten(),
            end.map(|end| read(end.end_bracket + BRACKET_BYTES, end.end_bracket + (end.records - end.start))).transpose()?.flatten(),
        ];
        let records = read(bracket.records, bracket.records_end)?;
        let mended = hard_states.iter().any(Option::is_none);
        Ok(match (records, hard_states.into_iter().flatten().next()) {
            (Some(mut records), Some(hard_states)) => {
                records.extend(hard_states);
                Found::Batch(records, bracket, mended)
            }
            _ => Found::Damaged(Some(bracket)),
        })
    }

    fn take(&mut self, segment: SegmentId, records: Vec<Record>, bracket: &Bracket, mended: bool) -> u64 {
        let replayed = &mut self.replayed;
        for record in records {
            replayed.liveness.note(segment, &record);
            forgive(&mut replayed.end.possibly_cut, &record);
            apply(&mut replayed.logs, record);
        }
        replayed.mended += usize::from(mended);
        replayed.end.seq = bracket.seq + 1;
        bracket.end
    }
}

fn apply(logs: &mut BTreeMap<LogId, LogState>, record: Record) {
    let state = logs.entry(record.log()).or_default();
    match record {
        Record::Birth(_, id) if state.id != Some(id) => {
            *state = LogState { id: Some(id), ..LogState::default() };
        }
        Record::Birth(..) => {}
        Record::HardState(_, hard_state) => state.hard_state = hard_state,
        Record::Entry(_, entry) => {
            let first = state.entries.first().map_or(entry.index, |first| first.index);
            let place = entry.index.checked_sub(first).and_then(|place| usize::try_from(place).ok());
            let same =
                place.and_then(|place| state.entries.get(place)).is_some_and(|old| (old.index, old.term) == (entry.index, entry.term));
            let in_snapshot = state.snapshot.as_ref().is_some_and(|snapshot| entry.index <= snapshot.index);
            if !same && !in_snapshot {
                state.entries.truncate(place.unwrap_or(0));
                state.entries.push(entry);
            }
        }
        Record::Snapshot(_, snapshot) => {
            let old = state.snapshot.as_ref().map(|old| (old.index, old.term));
            let mut known = state.entries.iter().map(|entry| (entry.index, entry.term)).chain(old);
            if !known.any(|known| known == (snapshot.index, snapshot.term)) {
                state.entries.clear();
            }
            state.entries.retain(|entry| entry.index > snapshot.index);
            state.snapshot = Some(snapshot);
        }
    }
}

/// All records from one offset to another; `None` if one is damaged.
fn read_records(file: &str, segment: &Segment, mut at: u64, to: u64) -> Result<Option<Vec<Record>>, ReplayError> {
    let mut records = Vec::new();
    while at < to {
        let Some(frame) = segment.read(at, to) else { return Ok(None) };
        check_version(file, at, &frame)?;
        let Some(record) = decode_record(&frame) else { return Ok(None) };
        records.push(record);
        at = frame.next;
    }
    Ok(Some(records))
}

fn check_version(file: &str, offset: u64, frame: &Frame) -> Result<(), ReplayError> {
    if frame.version == VERSION && (Kind::Header as u8..=Kind::Birth as u8).contains(&frame.kind) {
        return Ok(());
    }
    let (kind, version, file) = (frame.kind, frame.version, file.to_owned());
    Err(ReplayError::UnknownVersion { file, offset, kind, version })
}

/// `None` if neither copy is whole.
fn read_header(file: &str, bytes: &[u8]) -> Result<Option<Header>, ReplayError> {
    for at in [0, HEADER_COPY_AT] {
        // The checksum covers the segment's number, which stands first in the body; so it is read before it is checked.
        let offset = usize::try_from(at).expect("small");
        let Some(body) = bytes.get(offset + super::frame::FRAME_BYTES..) else { continue };
        let Ok((number, _)) = postcard::take_from_bytes::<u64>(body) else { continue };
        let probe = Segment { id: SegmentId(number), raw: bytes[..bytes.len().min(4096)].to_vec() };
        let Some(frame) = probe.read(at, at + HEADER_COPY_AT) else { continue };
        check_version(file, at, &frame)?;
        if let Ok(header) = postcard::from_bytes::<Header>(&frame.body) {
            return Ok(Some(header));
        }
    }
    Ok(None)
}
