//! The write-ahead-log thread: takes what is queued, writes it with one write, syncs once, says what is persisted.
//!
//! Must never say persisted before the sync has returned, nor go on after a write or a sync that failed (S12): what the disk then holds
//! is not known. The main path enters at [`Writer::run`].

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::fdatasync;

use super::codec;
use super::queue::{Queue, Submission};
use super::segment::{self, Housekeeper};
use super::stats::Shared;
use super::{Callbacks, WalError};

/// The segment that is written to.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) number: u64,
    pub(super) file: File,
    /// Where the next record goes.
    pub(super) offset: usize,
}

pub(super) struct Writer {
    pub(super) dir: PathBuf,
    pub(super) current: Current,
    pub(super) housekeeper: Housekeeper,
    pub(super) queue: Arc<Queue>,
    pub(super) stats: Arc<Shared>,
    pub(super) callbacks: Callbacks,
    /// Length of a new segment.
    pub(super) segment_bytes: usize,
    /// Encoded and not yet written.
    pub(super) buffer: Vec<u8>,
    /// Something in the buffer, or written since the last sync, must be durable before it is reported.
    pub(super) must_sync: bool,
}

/// A write buffer that grew over this is given back.
const KEEP_BUFFER: usize = 8 * 1024 * 1024;

impl Writer {
    /// Runs until the queue is closed and empty, or the disk fails.
    pub(super) fn run(mut self) {
        let _or_nobody_persists = AbortOnPanic;
        loop {
            let group = self.queue.take();
            // The end of the queue: what was submitted without sync becomes durable too.
            self.must_sync |= group.is_empty();
            self.stats.began();
            match self.commit(&group) {
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

    /// Makes a group durable; returns the bytes written.
    fn commit(&mut self, group: &[Submission]) -> Result<usize, WalError> {
        let mut bytes = 0;
        for submission in group {
            let before = self.buffer.len();
            codec::append(&submission.records, &mut self.buffer);
            let empty = before == 0 && self.current.offset <= codec::HEADER;
            if self.current.offset + self.buffer.len() > self.segment_bytes && !empty {
                self.buffer.truncate(before);
                bytes += self.rotate()?;
                codec::append(&submission.records, &mut self.buffer);
            }
            self.must_sync |= submission.sync;
        }
        Ok(bytes + self.flush()?)
    }

    fn flush(&mut self) -> Result<usize, WalError> {
        let bytes = self.buffer.len();
        let failed = |doing, source| WalError::Disk { doing, path: segment::path(&self.dir, self.current.number), source };
        self.current.file.write_all_at(&self.buffer, self.current.offset as u64).map_err(|e| failed("writing", e))?;
        if self.must_sync {
            fdatasync(&self.current.file).map_err(|e| failed("syncing", e.into()))?;
            self.must_sync = false;
        }
        self.current.offset += bytes;
        self.buffer.clear();
        self.buffer.shrink_to(KEEP_BUFFER);
        Ok(bytes)
    }

    /// Goes on in the next segment. The old one is synced first, so that a crash never leaves a gap in the middle.
    fn rotate(&mut self) -> Result<usize, WalError> {
        self.must_sync = true;
        let bytes = self.flush()?;
        let (number, file) = self.housekeeper.next().ok_or_else(|| WalError::Disk {
            doing: "preparing",
            path: self.dir.clone(),
            source: io::Error::other("its thread has ended"),
        })?;
        self.current = Current { number, file, offset: 0 };
        self.housekeeper.prepare(number + 1, self.segment_bytes);
        codec::header(number, &mut self.buffer);
        Ok(bytes)
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
