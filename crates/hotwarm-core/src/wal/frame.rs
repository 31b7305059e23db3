//! The smallest parts of the write-ahead log: a record in its frame, the stream that leaves no sector zero, brackets and headers.
//!
//! Nothing here knows what a batch or a log is. The main path enters at [`push`] and [`Segment::read`].

use serde::{Deserialize, Serialize};

use super::{LogId, Record, SegmentId};
use crate::ids::RaftId;
use crate::plant::{self, Bug};

/// A disk writes this much at once or not at all.
pub const SECTOR_BYTES: u64 = 512;
/// The header of a segment; batches begin after it.
pub const HEADER_BYTES: u64 = 4096;
/// The body of one record, at most.
pub const RECORD_MAX_BYTES: usize = 16 << 20;

/// The header's second copy.
pub(super) const HEADER_COPY_AT: u64 = 2048;

pub(super) const FRAME_BYTES: usize = 10;

/// The version of every kind that is written now.
pub(super) const VERSION: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Header = 1,
    BatchStart = 2,
    BatchEnd = 3,
    Entry = 4,
    HardState = 5,
    Snapshot = 6,
    Birth = 7,
}

/// What a segment's header says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) segment: u64,
    /// Where the log ends in the segment before this one, if there ever was one: what stands after that does not count.
    pub(super) previous_end: Option<u64>,
    pub(super) seq: u64,
    pub(super) possibly_cut: Vec<(LogId, RaftId)>,
}

/// What stands at both ends of a batch. Of fixed size, so that extents are known before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bracket {
    #[serde(with = "postcard::fixint::le")]
    pub(super) seq: u64,
    /// All batches up to this one were synced when this one was encoded.
    #[serde(with = "postcard::fixint::le")]
    pub(super) synced: u64,
    /// Offsets in the segment: of the batch, of its records, after those, of its end bracket, and after it.
    #[serde(with = "postcard::fixint::le")]
    pub(super) start: u64,
    #[serde(with = "postcard::fixint::le")]
    pub(super) records: u64,
    #[serde(with = "postcard::fixint::le")]
    pub(super) records_end: u64,
    #[serde(with = "postcard::fixint::le")]
    pub(super) end_bracket: u64,
    #[serde(with = "postcard::fixint::le")]
    pub(super) end: u64,
}

const BRACKET_BODY_BYTES: usize = 56;
pub(super) const BRACKET_BYTES: u64 = padded(FRAME_BYTES + BRACKET_BODY_BYTES) as u64;

pub(super) const fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(8)
}

fn checksum(segment: SegmentId, offset: u64, kind: u8, version: u8, body: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&segment.0.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &offset.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &[kind, version]);
    crc32c::crc32c_append(crc, body)
}

/// Appends one record, in plain, to `out`, which begins at `base` of its segment. The body is not empty.
pub(super) fn push(out: &mut Vec<u8>, segment: SegmentId, base: u64, kind: Kind, body: &[u8]) {
    push_as(out, segment, base, (kind as u8, VERSION), body);
}

pub(super) fn push_as(out: &mut Vec<u8>, segment: SegmentId, base: u64, (kind, version): (u8, u8), body: &[u8]) {
    let offset = base + out.len() as u64;
    let length = u32::try_from(body.len()).expect("bodies are bounded where they are made");
    out.extend(length.to_le_bytes());
    out.extend(checksum(segment, offset, kind, version, body).to_le_bytes());
    out.extend([kind, version]);
    out.extend_from_slice(body);
    out.resize(padded(out.len()), 0);
}

pub(super) fn body_of<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("plain data always encodes into memory")
}

/// A record's kind and body.
pub(super) fn encode_record(record: &Record) -> (Kind, Vec<u8>) {
    match record {
        Record::Entry(log, entry) => (Kind::Entry, body_of(&(log, entry))),
        Record::HardState(log, hard_state) => (Kind::HardState, body_of(&(log, hard_state))),
        Record::Snapshot(log, snapshot) => (Kind::Snapshot, body_of(&(log, snapshot))),
        Record::Birth(log, id) => (Kind::Birth, body_of(&(log, id))),
    }
}

/// `None` for a kind that is no log's record, and for a body that is not of its kind.
pub(super) fn decode_record(frame: &Frame) -> Option<Record> {
    fn pair<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Option<(LogId, T)> {
        let (pair, rest) = postcard::take_from_bytes(body).ok()?;
        rest.is_empty().then_some(pair)
    }
    let body = &frame.body;
    match frame.kind {
        kind if kind == Kind::Entry as u8 => pair(body).map(|(log, entry)| Record::Entry(log, entry)),
        kind if kind == Kind::HardState as u8 => pair(body).map(|(log, hard_state)| Record::HardState(log, hard_state)),
        kind if kind == Kind::Snapshot as u8 => pair(body).map(|(log, snapshot)| Record::Snapshot(log, snapshot)),
        kind if kind == Kind::Birth as u8 => pair(body).map(|(log, id)| Record::Birth(log, id)),
        _ => None,
    }
}

/// Combines `bytes`, which begin at `offset` (a multiple of 8), with the segment's stream; doing it twice undoes it.
pub(super) fn whiten(segment: SegmentId, offset: u64, bytes: &mut [u8]) {
    let key = segment.0.wrapping_mul(0xd6e8_feb8_6659_fd93).wrapping_add(0x9e37_79b9_7f4a_7c15);
    for (word, chunk) in (offset / 8..).zip(bytes.chunks_mut(8)) {
        let mut z = key ^ word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        for (byte, mask) in chunk.iter_mut().zip(z.to_le_bytes()) {
            *byte ^= mask;
        }
    }
}

/// One record as read, its checksum right.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) version: u8,
    pub(super) body: Vec<u8>,
    /// The offset after it.
    pub(super) next: u64,
}

/// A segment's file as it lies on disk.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) id: SegmentId,
    pub(super) raw: Vec<u8>,
}

impl Segment {
    /// The whole sectors of the file.
    pub(super) fn end(&self) -> u64 {
        let len = self.raw.len() as u64;
        len - len % SECTOR_BYTES
    }

    /// The raw bytes from one offset to another, as far as there are any.
    fn slice(&self, from: u64, to: u64) -> &[u8] {
        let bound = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(self.raw.len());
        let (from, to) = (bound(from), bound(to));
        &self.raw[from..to.max(from)]
    }

    pub(super) fn is_blank(&self, from: u64, to: u64) -> bool {
        self.slice(from, to).iter().all(|byte| *byte == 0)
    }

    pub(super) fn has_blank_sector(&self, from: u64, to: u64) -> bool {
        self.slice(from, to).chunks(512).any(|sector| sector.iter().all(|byte| *byte == 0))
    }

    fn plain(&self, from: u64, to: u64) -> Vec<u8> {
        let mut bytes = self.slice(from, to).to_vec();
        if from >= HEADER_BYTES {
            whiten(self.id, from, &mut bytes);
        }
        bytes
    }

    /// The record at `at`, which must end by `limit`; `None` if there is none with a right checksum.
    pub(super) fn read(&self, at: u64, limit: u64) -> Option<Frame> {
        if !at.is_multiple_of(8) || at.checked_add(FRAME_BYTES as u64)? > limit {
            return None;
        }
        let frame = self.plain(at, at + FRAME_BYTES as u64);
        let length = u32::from_le_bytes(frame.get(..4)?.try_into().ok()?) as usize;
        let crc = u32::from_le_bytes(frame.get(4..8)?.try_into().ok()?);
        let (kind, version) = (*frame.get(8)?, *frame.get(9)?);
        let next = at + padded(FRAME_BYTES + length) as u64;
        if length == 0 || length > RECORD_MAX_BYTES || next > limit {
            return None;
        }
        let mut body = self.plain(at, at + (FRAME_BYTES + length) as u64);
        let body = body.split_off(FRAME_BYTES);
        let right = checksum(self.id, at, kind, version, &body) == crc || plant::is(Bug::S13NoChecksum);
        (body.len() == length && right).then_some(Frame { kind, version, body, next })
    }

    /// The bracket of `kind` at `at`, if it is one of a version known here and its numbers make sense there.
    pub(super) fn bracket(&self, at: u64, kind: Kind) -> Option<Bracket> {
        // Looked at first, because replay asks at every sector of a damaged segment.
        let length = self.plain(at, at + 4);
        if length != (BRACKET_BODY_BYTES as u32).to_le_bytes() {
            return None;
        }
        let frame = self.read(at, self.end())?;
        if frame.kind != kind as u8 || frame.version != VERSION {
            return None;
        }
        let bracket: Bracket = postcard::from_bytes(&frame.body).ok()?;
        let Bracket { start, records, records_end, end_bracket, end, .. } = bracket;
        let place = if kind == Kind::BatchStart { start } else { end_bracket };
        let sectors = [start, end_bracket, end].iter().all(|offset| offset % SECTOR_BYTES == 0);
        let ordered = start + BRACKET_BYTES <= records
            && records <= records_end
            && records_end <= end_bracket
            && end_bracket + (records - start) <= end
            && end <= self.end();
        (place == at && sectors && ordered).then_some(bracket)
    }
}
