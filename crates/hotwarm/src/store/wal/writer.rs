//! The write-ahead-log thread: takes what is queued, writes it with one write, syncs once, says what is persisted.
//!
//! Must never say persisted before the sync has returned, nor go on after a write or a sync that failed (S12): what the disk then holds
//! is not known. It owes `hotwarm_core::wal` an order: a segment is synced before the next is begun, its header before its first
//! batch, and what is obsolete is removed only after what replaces it is synced. The main path enters at [`Writer::run`].

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use hotwarm_core::wal::{EncodeError, Encoder, HEADER_BYTES, Liveness, LogId, Record, SegmentId};
use rustix::fs::fdatasync;

use super::queue::{Queue, Submission};
use super::segment::{self, Housekeeper};
use super::stats::Shared;
use super::{Callbacks, WalError};

/// A write buffer that grew over this is given back.
const KEEP_BUFFER: usize = 8 * 1024 * 1024;
/// Room for the brackets around a batch that needs a segment of its own.
const AROUND_BATCH: u64 = 64 * 1024;

pub(super) struct Writer {
    pub(super) dir: PathBuf,
    pub(super) file: File,
    pub(super) encoder: Encoder,
    pub(super) liveness: Liveness,
    pub(super) housekeeper: Housekeeper,
    pub(super) queue: Arc<Queue>,
    pub(super) stats: Arc<Shared>,
    pub(super) callbacks: Callbacks,
    /// The oldest segment that is there.
    pub(super) oldest: u64,
    /// Length of an ordinary segment.
    pub(super) segment_bytes: u64,
    pub(super) rewriting: Rewriting,
    pub(super) pending: Pending,
}

/// Encoded and not yet written, and where it belongs.
#[derive(Default)]
pub(super) struct Pending {
    buffer: Vec<u8>,
    offset: u64,
    /// The last batch in it, or written since the last sync.
    last_seq: Option<u64>,
}

/// When pinned segments are worth a rewrite (S14).
#[derive(Debug)]
pub(super) struct Rewriting {
    /// With fewer segments than this nothing is rewritten.
    pub(super) segments: u64,
    /// Bytes written anew less bytes rewritten: rewriting at most doubles what is written, however much is alive.
    pub(super) credit: i64,
}

impl Writer {
    /// Runs until the queue is closed and empty, or the disk fails.
    pub(super) fn run(mut self) {
        let _or_nobody_persists = AbortOnPanic;
        loop {
            let mut group = self.queue.take();
            self.stats.began();
            match self.commit(&mut group) {
                Ok(_) if group.is_empty() => return,
                Ok(bytes) => self.stats.ended(group.len(), bytes),
                Err(error) => {
                    self.queue.close(true);
                    (self.callbacks.fatal)(&error);
                    return;
                }
            }
            for submission in &group {
                (self.callbacks.persisted)(submission.token);
            }
        }
    }

    /// Makes a group durable; returns the bytes written. An empty group is the end: what was submitted without sync is synced too.
    fn commit(&mut self, group: &mut [Submission]) -> Result<usize, WalError> {
        let (mut bytes, mut batch, mut room) = (0, Vec::new(), 0);
        let sync = group.is_empty() || group.iter().any(|submission| submission.sync);
        for submission in group {
            let records = std::mem::take(&mut submission.records);
            // Within a batch hard states come last: one from before a birth must not end up behind it.
            let born = records.iter().any(|record| matches!(record, Record::Birth(..)));
            if born || submission.rewrites.is_some() || submission.bytes > room {
                bytes += self.encode(&std::mem::take(&mut batch))?;
                room = self.batch_bytes();
            }
            room = room.saturating_sub(submission.bytes);
            match submission.rewrites {
                Some(log) => bytes += self.rewrite(log, records)?,
                None => batch.extend(records),
            }
        }
        bytes += self.encode(&batch)?;
        bytes += self.flush(sync)?;
        let most = (self.rewriting.segments * self.segment_bytes) as i64;
        self.rewriting.credit = (self.rewriting.credit + bytes as i64).min(most);
        assert!(!sync || self.pending.last_seq.is_none(), "what is to be synced is synced before anyone hears of it (S12)");
        self.tidy();
        Ok(bytes)
    }

    /// Submissions are put together up to this: small ones share their sectors, and no segment's end is left empty for long.
    const fn batch_bytes(&self) -> usize {
        self.segment_bytes as usize / 4
    }

    /// Encodes one batch; returns the bytes that had to be written for it already.
    fn encode(&mut self, records: &[Record]) -> Result<usize, WalError> {
        let mut written = 0;
        if records.is_empty() {
            return Ok(written);
        }
        let batch = loop {
            match self.encoder.encode(records, &mut self.pending.buffer) {
                Ok(batch) => break batch,
                Err(EncodeError::SegmentFull) => written += self.rotate(self.segment_bytes)?,
                Err(EncodeError::BatchTooLarge { bytes, .. }) => written += self.rotate(bytes + HEADER_BYTES + AROUND_BATCH)?,
                Err(e) => return Err(e.into()),
            }
        };
        debug_assert_eq!(self.pending.offset + self.pending.buffer.len() as u64, batch.offset + batch.bytes as u64, "no gap");
        self.pending.last_seq = Some(batch.seq);
        for record in records {
            self.liveness.note(batch.segment, record);
        }
        Ok(written)
    }

    /// Writes all of one log again, in pieces that leave ordinary segments.
    fn rewrite(&mut self, log: LogId, records: Vec<Record>) -> Result<usize, WalError> {
        let (mut written, mut size, mut first, mut piece) = (0, 0, None, Vec::new());
        for record in records {
            let bytes = super::queue::size(&record);
            if size + bytes > self.batch_bytes() && !piece.is_empty() {
                written += self.encode(&std::mem::take(&mut piece))?;
                first.get_or_insert(self.encoder.segment());
                size = 0;
            }
            size += bytes;
            self.rewriting.credit -= 2 * bytes as i64;
            piece.push(record);
        }
        written += self.encode(&piece)?;
        self.liveness.rewritten(log, first.unwrap_or_else(|| self.encoder.segment()));
        Ok(written)
    }

    fn flush(&mut self, sync: bool) -> Result<usize, WalError> {
        let Pending { buffer, offset, last_seq } = &mut self.pending;
        let path = || segment::path(&self.dir, self.encoder.segment().0);
        let failed = |doing, source| WalError::Disk { doing, path: path(), source };
        let bytes = buffer.len();
        self.file.write_all_at(buffer, *offset).map_err(|e| failed("writing", e))?;
        *offset += bytes as u64;
        buffer.clear();
        buffer.shrink_to(KEEP_BUFFER);
        if sync {
            fdatasync(&self.file).map_err(|e| failed("syncing", e.into()))?;
            if let Some(seq) = last_seq.take() {
                self.encoder.synced(seq);
            }
        }
        Ok(bytes)
    }

    /// Goes on in the next segment, of at least `length` bytes.
    fn rotate(&mut self, length: u64) -> Result<usize, WalError> {
        let bytes = self.flush(true)?;
        let gone = || WalError::Disk { doing: "preparing", path: self.dir.clone(), source: io::Error::other("its thread has ended") };
        let (number, file) = self.housekeeper.next().ok_or_else(gone)?;
        let header = self.encoder.roll_to(length);
        assert_eq!(number, self.encoder.segment().0, "segments are prepared in order");
        let begin = || -> io::Result<()> {
            if length > self.segment_bytes {
                segment::zero(&file, self.segment_bytes as usize, length as usize)?;
            }
            file.write_all_at(&header, 0)?;
            file.sync_all()
        };
        begin().map_err(|source| WalError::Disk { doing: "beginning", path: segment::path(&self.dir, number), source })?;
        self.file = file;
        self.pending.offset = HEADER_BYTES;
        self.housekeeper.prepare(number + 1, self.segment_bytes as usize);
        Ok(bytes + header.len())
    }

    /// Gives back what nobody needs, and says which logs hold the rest (S14). Only when all that was noted is synced.
    fn tidy(&mut self) {
        if self.pending.last_seq.is_some() {
            return;
        }
        let current = self.encoder.segment().0;
        let needed = self.liveness.first_needed().map_or(current, |first| first.0.min(current));
        self.housekeeper.remove((self.oldest..needed).collect());
        self.oldest = self.oldest.max(needed);
        let there_are = current - self.oldest + 1;
        let worth_it = there_are > self.rewriting.segments && self.rewriting.credit >= 0;
        let pinning = if worth_it { self.liveness.pinning(SegmentId(self.oldest + 1)) } else { Vec::new() };
        self.stats.segments(there_are, pinning);
    }
}

/// A log that no longer persists and says nothing is worse than a dead process.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

impl Pending {
    /// Nothing pending, and the next byte goes to `offset`.
    pub(super) fn at(offset: u64) -> Self {
        Self { offset, ..Self::default() }
    }
}
