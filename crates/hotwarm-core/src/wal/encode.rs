//! Records to bytes: batches for the segment that is being written, and the header of the next one.
//!
//! It must never be asked to write over what is there; it only counts forward. The main path enters at [`Encoder::encode`].

use std::collections::BTreeMap;

use super::frame::{
    BRACKET_BYTES, Bracket, HEADER_BYTES, HEADER_COPY_AT, Header, Kind, RECORD_MAX_BYTES, SECTOR_BYTES, body_of, encode_record, padded,
    push, whiten,
};
use super::{End, LogId, Record, SegmentId, forgive};
use crate::ids::RaftId;

/// Where and as what a batch was encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    pub seq: u64,
    pub segment: SegmentId,
    pub offset: u64,
    pub bytes: usize,
}

/// A batch was not encoded; the encoder is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error("segment full; sync it and begin the next")]
    SegmentFull,
    #[error("batch of {bytes} bytes larger than a segment holds ({max}); write fewer records at once")]
    BatchTooLarge { bytes: u64, max: u64 },
    #[error("record of {bytes} bytes larger than {RECORD_MAX_BYTES}; bound it where it is made")]
    RecordTooLarge { bytes: usize },
}

/// Turns records into batches for one segment after another.
#[derive(Clone, Debug)]
pub struct Encoder {
    segment: SegmentId,
    segment_bytes: u64,
    offset: u64,
    seq: u64,
    synced: u64,
    possibly_cut: BTreeMap<LogId, RaftId>,
}

impl Encoder {
    /// Goes on in the segment where the log ended; `None` if a new one must begin there (see [`Self::begin`]).
    #[must_use]
    pub fn resume(end: &End, segment_bytes: u64) -> Option<Self> {
        let (segment, offset) = end.at.filter(|_| end.blank)?;
        Some(Self {
            segment,
            segment_bytes,
            offset,
            seq: end.seq,
            synced: end.seq.saturating_sub(1),
            possibly_cut: end.possibly_cut.clone(),
        })
    }

    /// Begins a new segment after the log's end. The header that comes with it is to be written to the start of a file of
    /// `segment_bytes` zeros, and synced, before the first batch.
    #[must_use]
    pub fn begin(end: &End, segment_bytes: u64) -> (Self, Vec<u8>) {
        let encoder = Self {
            segment: SegmentId(end.at.map_or(1, |(segment, _)| segment.0 + 1)),
            segment_bytes,
            offset: HEADER_BYTES,
            seq: end.seq.max(1),
            synced: end.seq.saturating_sub(1),
            possibly_cut: end.possibly_cut.clone(),
        };
        let header = encoder.header(end.at.map(|(_, offset)| offset));
        (encoder, header)
    }

    /// Begins the next segment; its header is for a new file, as for [`Self::begin`]. The segment before it must be synced already.
    #[must_use]
    pub fn roll(&mut self) -> Vec<u8> {
        self.roll_to(self.segment_bytes)
    }

    /// [`Self::roll`], to a file of another length: for a batch that no ordinary segment holds.
    #[must_use]
    pub fn roll_to(&mut self, segment_bytes: u64) -> Vec<u8> {
        self.segment_bytes = segment_bytes;
        let previous_end = self.offset;
        self.segment.0 += 1;
        self.offset = HEADER_BYTES;
        self.header(Some(previous_end))
    }

    fn header(&self, previous_end: Option<u64>) -> Vec<u8> {
        let body = body_of(&Header {
            segment: self.segment.0,
            previous_end,
            seq: self.seq,
            possibly_cut: self.possibly_cut.iter().map(|(log, id)| (*log, *id)).collect(),
        });
        let mut header = Vec::new();
        for at in [0, HEADER_COPY_AT] {
            let mut copy = Vec::new();
            push(&mut copy, self.segment, at, Kind::Header, &body);
            header.resize(usize::try_from(at).expect("small"), 0);
            header.extend(copy);
        }
        header.resize(usize::try_from(HEADER_BYTES).expect("small"), 0);
        header
    }

    /// Appends the bytes of one batch to `out`; they belong at the batch's offset of its segment.
    ///
    /// # Errors
    /// [`EncodeError`]; after [`EncodeError::SegmentFull`] call [`Self::roll`] and encode again.
    pub fn encode(&mut self, records: &[Record], out: &mut Vec<u8>) -> Result<Batch, EncodeError> {
        let (hard_states, others): (Vec<_>, Vec<_>) = records.iter().partition(|record| matches!(record, Record::HardState(..)));
        let bodies = |records: &[&Record]| records.iter().map(|record| encode_record(record)).collect::<Vec<_>>();
        let (hard_states, others) = (bodies(&hard_states), bodies(&others));
        let largest = hard_states.iter().chain(&others).map(|(_, body)| body.len()).max().unwrap_or(0);
        if largest > RECORD_MAX_BYTES {
            return Err(EncodeError::RecordTooLarge { bytes: largest });
        }
        let size =
            |bodies: &[(Kind, Vec<u8>)]| bodies.iter().map(|(_, body)| padded(super::frame::FRAME_BYTES + body.len()) as u64).sum::<u64>();
        let head = BRACKET_BYTES + size(&hard_states);
        let start = self.offset;
        let records_end = start + head + size(&others);
        let end_bracket = records_end.next_multiple_of(SECTOR_BYTES);
        let end = (end_bracket + head).next_multiple_of(SECTOR_BYTES);
        let (bytes, max) = (end - start, self.segment_bytes.saturating_sub(HEADER_BYTES));
        if bytes > max {
            return Err(EncodeError::BatchTooLarge { bytes, max });
        }
        if end > self.segment_bytes {
            return Err(EncodeError::SegmentFull);
        }
        let bracket = body_of(&Bracket { seq: self.seq, synced: self.synced, start, records: start + head, records_end, end_bracket, end });
        let mut batch = Vec::with_capacity(usize::try_from(bytes).expect("bounded by a segment"));
        let fill = |batch: &mut Vec<u8>, to: u64| batch.resize(usize::try_from(to - start).expect("bounded by a segment"), 0);
        push(&mut batch, self.segment, start, Kind::BatchStart, &bracket);
        for (kind, body) in hard_states.iter().chain(&others) {
            push(&mut batch, self.segment, start, *kind, body);
        }
        fill(&mut batch, end_bracket);
        push(&mut batch, self.segment, start, Kind::BatchEnd, &bracket);
        for (kind, body) in &hard_states {
            push(&mut batch, self.segment, start, *kind, body);
        }
        fill(&mut batch, end);
        whiten(self.segment, start, &mut batch);
        out.extend(batch);
        Ok(self.encoded(records, end))
    }

    fn encoded(&mut self, records: &[Record], end: u64) -> Batch {
        for record in records {
            forgive(&mut self.possibly_cut, record);
        }
        let batch = Batch {
            seq: self.seq,
            segment: self.segment,
            offset: self.offset,
            bytes: usize::try_from(end - self.offset).expect("bounded by a segment"),
        };
        self.seq += 1;
        self.offset = end;
        batch
    }

    /// Every batch up to `seq` is synced. Later batches say so, which is how replay tells rot from a crash.
    pub fn synced(&mut self, seq: u64) {
        self.synced = self.synced.max(seq.min(self.seq.saturating_sub(1)));
    }

    #[must_use]
    pub const fn segment(&self) -> SegmentId {
        self.segment
    }

    /// Where the next batch will stand, if it fits.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }
}
