//! One node's disk: the very bytes of the write-ahead log (S13), which of them are synced, and what a crash leaves of them.
//!
//! It gives bytes no meaning; [`hotwarm_core::wal`] does. A sector is written whole or not at all, and in any order until it is synced.

use hotwarm_core::node::{NODE_LOG, Stored};
use hotwarm_core::rng::Rng;
use hotwarm_core::wal::{
    EncodeError, Encoder, End, Entry, EntryKind, HEADER_BYTES, Liveness, LogId, Record, Replay, ReplayError, SECTOR_BYTES, SegmentId,
};

/// The cluster's identity, which a data directory remembers beside its log.
pub const CLUSTER: u128 = 77;
const SEGMENT_BYTES: u64 = 24 << 10;
/// Segments that may lie there before idle logs are written forward.
pub const SEGMENTS: usize = 2;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    /// By their numbers, from 1; those that nobody needs are gone and stand here empty.
    segments: Vec<Vec<u8>>,
    /// How many are gone.
    gone: usize,
    liveness: Liveness,
    encoder: Option<Encoder>,
    /// Batches not known to be synced: their numbers, segments and places.
    unsynced: Vec<(u64, usize, usize, usize)>,
    /// The sync under way ends then, and the one after it, which takes all that has been written until it begins.
    pub ends: (u64, u64),
    pub latency_us: u64,
    pub full: bool,
    /// Nothing ends while it is stalled.
    pub stalled: bool,
    /// Syncs asked for while stalled: their tokens and how far they reach.
    pub waiting: Vec<(u64, u64)>,
    /// The last batch that is synced: its segment and place.
    last_synced: Option<(usize, usize, usize)>,
    /// The last synced batch that begins with entries of a log.
    entries_at: Option<(usize, usize, usize)>,
    /// The last batch with an entry or a vote, which its replica will answer for.
    answers_for: u64,
    vote: (u64, u64),
    /// Who the node is was synced.
    named: bool,
    names_in: Option<u64>,
}

/// What the end of a machine leaves of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    Nothing,
    /// The first batches, whole.
    Beginning,
    /// Any sectors.
    Sectors,
}

/// What a starting node finds.
#[derive(Debug)]
pub enum Found {
    Stored(Box<Stored>),
    /// It cannot be started from.
    Unusable(String),
}

impl Disk {
    #[must_use]
    pub fn new(latency_us: u64) -> Self {
        Self { latency_us, ..Self::default() }
    }

    /// Appends one batch; its number, and if it is to be synced now, when that will have ended. `None` while stalled.
    pub fn write(&mut self, now: u64, records: &[Record], rng: &mut Rng) -> (u64, Option<u64>) {
        let seq = self.append(records);
        if records.iter().any(|record| matches!(record, Record::Snapshot(NODE_LOG, _))) {
            self.names_in = Some(seq);
        }
        for record in records {
            match record {
                Record::Entry(..) => self.answers_for = seq,
                Record::HardState(_, state) if (state.term, state.vote) != self.vote => {
                    (self.vote, self.answers_for) = ((state.term, state.vote), seq);
                }
                _ => {}
            }
        }
        if self.stalled {
            return (seq, None);
        }
        let takes = self.latency_us / 2 + rng.below(self.latency_us + 1);
        let (current, next) = self.ends;
        self.ends = match (now < current, now < next) {
            (true, _) if next > current => (current, next),
            (true, _) => (current, current + takes),
            (false, true) => (next, next + takes),
            (false, false) => (now + takes, 0),
        };
        (seq, Some(self.ends.0.max(self.ends.1)))
    }

    fn append(&mut self, records: &[Record]) -> u64 {
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            none => {
                let (encoder, header) = Encoder::begin(&End::default(), SEGMENT_BYTES);
                self.segments.push(segment(&header));
                none.insert(encoder)
            }
        };
        let mut bytes = Vec::new();
        let batch = match encoder.encode(records, &mut bytes) {
            Ok(batch) => batch,
            Err(EncodeError::SegmentFull) => {
                // A segment is synced before the next begins.
                encoder.synced(u64::MAX);
                self.unsynced.clear();
                self.last_synced = None;
                let header = encoder.roll();
                self.segments.push(segment(&header));
                encoder.encode(records, &mut bytes).expect("records of a run fit into a segment")
            }
            Err(error) => panic!("batch not encoded: {error}"),
        };
        let (last, at) = (self.segments.len() - 1, batch.offset as usize);
        self.segments[last][at..at + bytes.len()].copy_from_slice(&bytes);
        self.unsynced.push((batch.seq, last, at, bytes.len()));
        for record in records {
            self.liveness.note(batch.segment, record);
        }
        batch.seq
    }

    /// The logs that keep old segments from going (S14).
    #[must_use]
    pub fn pinning(&self) -> Vec<LogId> {
        if self.kept() > SEGMENTS { self.liveness.pinning(SegmentId(self.gone as u64 + 2)) } else { Vec::new() }
    }

    /// Writes all of one log again, in pieces that leave ordinary segments.
    pub fn rewrite(&mut self, log: LogId, records: &[Record]) {
        let mut first = None;
        for piece in records.chunks(16) {
            self.append(piece);
            first.get_or_insert(self.segments.len() as u64);
        }
        if let Some(first) = first {
            self.liveness.rewritten(log, SegmentId(first));
        }
    }

    /// Segments that take room.
    #[must_use]
    pub const fn kept(&self) -> usize {
        self.segments.len() - self.gone
    }

    /// The number of the oldest of them.
    #[must_use]
    pub const fn oldest(&self) -> usize {
        self.gone + 1
    }

    /// The number of the segment that is being written.
    #[must_use]
    pub const fn current(&self) -> usize {
        self.segments.len()
    }

    /// All that was written is synced, so that nothing lies here but what is needed.
    #[must_use]
    pub const fn is_synced(&self) -> bool {
        self.unsynced.is_empty()
    }

    /// Gives back what nobody needs.
    fn tidy(&mut self) {
        let current = self.segments.len() as u64;
        let needed = self.liveness.first_needed().map_or(current, |first| first.0.min(current)).saturating_sub(1) as usize;
        for segment in self.gone..needed {
            self.segments[segment] = Vec::new();
        }
        self.gone = self.gone.max(needed);
    }

    /// A sync that reaches through this batch has ended.
    pub fn synced(&mut self, through: u64) {
        let last = self.unsynced.iter().rfind(|(seq, ..)| *seq <= through);
        self.last_synced = last.map(|(_, segment, at, length)| (*segment, *at, *length)).or(self.last_synced);
        self.unsynced.retain(|(seq, ..)| *seq > through);
        self.named |= self.names_in.is_some_and(|seq| seq <= through);
        if let Some(encoder) = &mut self.encoder {
            encoder.synced(through);
        }
        if self.answers_for <= through && self.last_synced.is_some() {
            self.entries_at = self.last_synced;
        }
        if self.unsynced.is_empty() {
            self.tidy();
        }
    }

    /// What the machine's end leaves: all that was synced, and what chance wants of the rest.
    pub fn lose_power(&mut self, left: Left, rng: &mut Rng) {
        let kept = if left == Left::Nothing { 0 } else { rng.below(self.unsynced.len() as u64 + 1) as usize };
        for (i, (_, segment, at, length)) in std::mem::take(&mut self.unsynced).into_iter().enumerate() {
            let bytes = &mut self.segments[segment][at..at + length];
            for sector in bytes.chunks_mut(SECTOR_BYTES as usize) {
                let stays = if left == Left::Sectors { rng.one_in(2) } else { i < kept };
                if !stays {
                    sector.fill(0);
                }
            }
        }
        self.waiting.clear();
        self.ends = (0, 0);
    }

    /// What the process's end leaves: what the kernel has got, which stays.
    pub fn lose_process(&mut self, rng: &mut Rng) {
        self.lose_power(Left::Beginning, rng);
    }

    /// The last synced batch is one that its replica answers for.
    #[must_use]
    pub const fn promises(&self, through: u64) -> bool {
        self.last_synced.is_some() && self.answers_for == through
    }

    /// The last of what was synced is lost: the disk promised too much.
    pub fn lose_synced(&mut self) {
        if let Some((segment, at, length)) = self.last_synced.take() {
            self.segments[segment][at..at + length].iter_mut().for_each(|byte| *byte ^= 0x5a);
            self.named = false;
        }
    }

    /// A bit of what was synced turns, half the time where the last entries stand.
    pub fn rot(&mut self, rng: &mut Rng) {
        let Some(encoder) = &self.encoder else { return };
        if let Some((segment, at, length)) = self.entries_at.filter(|(segment, ..)| *segment >= self.gone && rng.one_in(2)) {
            let at = at + rng.below(length.min(400) as u64) as usize;
            self.segments[segment][at] ^= 1 << rng.below(8);
            self.named = false;
            return;
        }
        let segment = self.gone + rng.below(self.kept() as u64) as usize;
        let end = if segment + 1 == self.segments.len() { encoder.offset() } else { SEGMENT_BYTES };
        if end > HEADER_BYTES {
            let at = rng.between(HEADER_BYTES, end - 1) as usize;
            self.segments[segment][at] ^= 1 << rng.below(8);
            self.named = false;
        }
    }

    pub fn wipe(&mut self) {
        *self = Self { latency_us: self.latency_us, full: self.full, stalled: self.stalled, ..Self::default() };
    }

    /// It holds who the node is, synced.
    #[must_use]
    pub const fn is_named(&self) -> bool {
        self.named
    }

    /// What a start finds; from here on it is written where that ended.
    pub fn replay(&mut self) -> Found {
        let replayed = match self.read() {
            Ok(replayed) => replayed,
            Err(error) => return Found::Unusable(error.to_string()),
        };
        self.unsynced.clear();
        (self.last_synced, self.entries_at) = (None, None);
        self.liveness = replayed.liveness;
        self.encoder = Encoder::resume(&replayed.end, SEGMENT_BYTES);
        if self.encoder.is_none() && replayed.end.at.is_some() {
            let (encoder, header) = Encoder::begin(&replayed.end, SEGMENT_BYTES);
            self.segments.push(segment(&header));
            self.encoder = Some(encoder);
        }
        match Stored::from_logs(replayed.logs, Some(CLUSTER)) {
            Ok(stored) => {
                self.named = stored.identity.is_some();
                Found::Stored(Box::new(stored))
            }
            Err(cut) => Found::Unusable(cut.to_string()),
        }
    }

    fn read(&self) -> Result<hotwarm_core::wal::Replayed, ReplayError> {
        let mut replay = Replay::new();
        for (i, segment) in self.segments.iter().enumerate().skip(self.gone) {
            replay.feed(&format!("{i}.wal"), segment.clone())?;
        }
        replay.finish()
    }
}

/// A log that was synced, then a bit of it turned: what a start makes of that must be the log, or a refusal (S13). What is wrong if not.
#[must_use]
pub fn believes_rot(seed: u64) -> Option<String> {
    let mut rng = Rng::new(seed);
    let mut disk = Disk::new(100);
    disk.write(0, &[Record::Birth(LogId(0), hotwarm_core::ids::RaftId(1))], &mut rng);
    let entry = |index| Entry { index, term: 1, kind: EntryKind::Normal, data: vec![7; 100], context: Vec::new() };
    for index in 1..=9 {
        let (seq, _) = disk.write(index, &[Record::Entry(LogId(0), entry(index))], &mut rng);
        disk.synced(seq);
    }
    disk.rot(&mut rng);
    let replayed = disk.read().ok()?;
    let log = replayed.logs.get(&LogId(0))?;
    let differs = (1..).zip(&log.entries).find(|(index, found)| **found != entry(*index)).map(|(index, _)| index);
    let lost = log.entries.len() < 9 && !log.possibly_cut;
    match differs {
        Some(index) => Some(format!("entry {index} was read as something else")),
        None => lost.then(|| format!("{} of 9 entries were read and nothing was missed", log.entries.len())),
    }
}

fn segment(header: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; SEGMENT_BYTES as usize];
    bytes[..header.len()].copy_from_slice(header);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64) -> Record {
        Record::Entry(LogId(0), Entry { index, term: 1, kind: EntryKind::Normal, data: vec![7; 100], context: Vec::new() })
    }

    #[test]
    fn what_was_synced_survives_whatever_becomes_of_the_rest() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let mut disk = Disk { latency_us: 100, ..Disk::default() };
            let birth = Record::Birth(LogId(0), hotwarm_core::ids::RaftId(1));
            disk.write(0, &[birth], &mut rng);
            let seqs: Vec<u64> = (1..=9).map(|i| disk.write(i, &[entry(i)], &mut rng).0).collect();
            disk.synced(seqs[5]);
            disk.lose_power([Left::Nothing, Left::Beginning, Left::Sectors][seed as usize % 3], &mut rng);
            let replayed = disk.read().expect("nothing that was synced is damaged");
            let entries = replayed.logs[&LogId(0)].entries.len();
            assert!((6..=9).contains(&entries), "seed {seed}: {entries}");
        }
    }

    #[test]
    fn rot_is_found_or_mended() {
        for seed in 0..400 {
            assert_eq!(believes_rot(seed), None, "seed {seed}");
        }
    }
}
