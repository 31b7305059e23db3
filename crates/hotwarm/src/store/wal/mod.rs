//! The write-ahead log of a node: one for all its replicated logs, with one group commit. It moves bytes; `hotwarm_core::wal` knows
//! what they mean (S13).
//!
//! Must never report a record persisted that a power cut can take back. The main path enters at [`Wal::open`] and [`Log::submit`].

pub(crate) mod queue;
mod segment;
mod stats;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use hotwarm_core::wal::{Cut, EncodeError, Encoder, End, LogId, LogState, Record, Replay, ReplayError, Replayed};
use tracing::{error, info, warn};

use self::queue::Queue;
use self::segment::Housekeeper;
use self::writer::{Pending, Rewriting, Writer};
use super::Log;
use super::dir::{DirError, failed, sync_dir};

pub use self::queue::NotSubmitted;
pub use self::stats::Stats;

/// Length of a segment.
pub const SEGMENT_BYTES: usize = 16 * 1024 * 1024;
/// With fewer segments than this no log is asked to be rewritten.
const SEGMENTS_KEPT: u64 = 8;

/// Why the write-ahead log does not open, or has ended.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    #[error(transparent)]
    Dir(#[from] DirError),
    #[error(transparent)]
    Replay(#[from] ReplayError),
    #[error("records that cannot be written ({0}): report this, and start the node again")]
    Encode(#[from] EncodeError),
    #[error("{doing} {} failed ({source}): what the disk holds is not known, so the node stops; check the disk, then start it again", .path.display())]
    Disk { doing: &'static str, path: PathBuf, source: io::Error },
}

/// What the write-ahead-log thread calls. Neither may block.
pub struct Callbacks {
    /// The records submitted under this token are persisted, and all submitted before them.
    pub persisted: Box<dyn Fn(u64) + Send>,
    /// Nothing more will be persisted (S12). See [`end_process`].
    pub fatal: Box<dyn Fn(&WalError) + Send>,
}

impl fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callbacks").finish_non_exhaustive()
    }
}

/// The `fatal` callback of a node: after a failed sync nobody knows what is on the disk, so the process ends at once (S12).
pub fn end_process(error: &WalError) {
    error!(code = "HW0501", "{error}");
    std::process::abort();
}

/// What was found at the start.
#[derive(Debug)]
pub struct Recovered {
    /// Each log as its records left it. One that is possibly cut must be born anew before it takes part in anything (S12).
    pub logs: BTreeMap<LogId, LogState>,
    /// Whether the end had to be cut.
    pub cut: Cut,
    /// There was no log at all: right for a node's first start, and at no other time (S11).
    pub fresh: bool,
}

/// Opens write-ahead logs.
#[derive(Debug)]
pub struct Wal;

/// An open write-ahead log; the last one dropped writes what is queued and ends the thread.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Running>);

#[derive(Debug)]
struct Running {
    queue: Arc<Queue>,
    stats: Arc<stats::Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Wal {
    /// Reads what is there, repairs the tail, and starts the thread. The caller holds the lock of the data directory.
    ///
    /// # Errors
    /// When the directory or a file in it cannot be read or written.
    pub fn open(dir: &Path, callbacks: Callbacks) -> Result<(Recovered, Handle), WalError> {
        Self::open_with(dir, callbacks, SEGMENT_BYTES)
    }

    /// Reads what is there and changes nothing, not even a file's time. Not for a node that goes on from it: what was read may only be in
    /// memory (S12). The caller holds the lock of the data directory.
    ///
    /// # Errors
    /// When the directory or a file in it cannot be read.
    pub fn read(dir: &Path) -> Result<Recovered, WalError> {
        let numbers = segment::list(dir)?;
        let Replayed { logs, cut, .. } = replay(dir, &numbers, |_, _| Ok(()))?;
        Ok(Recovered { logs, cut, fresh: numbers.is_empty() })
    }

    fn open_with(dir: &Path, callbacks: Callbacks, segment_bytes: usize) -> Result<(Recovered, Handle), WalError> {
        segment::clear(dir)?;
        let numbers = segment::list(dir)?;
        let in_hand = numbers.len().saturating_sub(IN_HAND);
        let in_hand = numbers.get(in_hand).copied().unwrap_or_default();
        let Replayed { logs, end, cut, liveness, mended } =
            replay(dir, &numbers, |number, bytes| secure(dir, number, bytes, number >= in_hand))?;
        if cut != Cut::None || mended > 0 {
            warn!(mended, "end of the write-ahead log: {cut:?}");
        }
        // Past the end there is nothing but blank segments.
        let last = end.at.map_or(0, |(segment, _)| segment.0);
        for later in numbers.iter().rev().take_while(|number| **number > last) {
            let path = segment::path(dir, *later);
            fs::remove_file(&path).map_err(failed("removing", &path))?;
        }
        sync_dir(dir)?;
        let (encoder, file) = go_on(dir, &end, segment_bytes)?;
        let current = encoder.segment().0;
        info!(segments = numbers.len(), current, offset = encoder.offset(), "write-ahead log open");
        let housekeeper = Housekeeper::start(dir).map_err(failed("starting the thread for", dir))?;
        housekeeper.prepare(current + 1, segment_bytes);
        let (queue, shared) = (Arc::new(Queue::default()), Arc::new(stats::Shared::default()));
        let writer = Writer {
            dir: dir.to_owned(),
            file,
            pending: Pending::at(encoder.offset()),
            encoder,
            liveness,
            housekeeper,
            queue: Arc::clone(&queue),
            stats: Arc::clone(&shared),
            callbacks,
            oldest: numbers.first().copied().unwrap_or(current).min(current),
            segment_bytes: segment_bytes as u64,
            rewriting: Rewriting { segments: SEGMENTS_KEPT, credit: 0 },
        };
        let thread = std::thread::Builder::new().name("wal".into()).spawn(move || writer.run());
        let thread = Mutex::new(Some(thread.map_err(failed("starting the thread for", dir))?));
        let handle = Handle(Arc::new(Running { queue, stats: shared, thread }));
        Ok((Recovered { logs, cut, fresh: numbers.is_empty() }, handle))
    }
}

/// The last segments that a process can have been writing when it ended: one, the next, and a blank one prepared.
const IN_HAND: usize = 3;

/// Reads all segments, each handed to `secure` before anything is made of it.
fn replay(dir: &Path, numbers: &[u64], secure: impl Fn(u64, &[u8]) -> Result<(), WalError>) -> Result<Replayed, WalError> {
    if let Some(gap) = numbers.windows(2).find(|pair| pair[0] + 1 != pair[1]) {
        return Err(DirError::Corrupt { path: segment::path(dir, gap[0] + 1) }.into());
    }
    let mut replay = Replay::new();
    for &number in numbers {
        let path = segment::path(dir, number);
        let bytes = fs::read(&path).map_err(failed("reading", &path))?;
        secure(number, &bytes)?;
        replay.feed(&path.display().to_string(), bytes)?;
    }
    Ok(replay.finish()?)
}

/// Syncs what was read of a segment, and writes it before if the last process may have been writing there: it may have died before its own
/// sync, and then the bytes were only in memory; or of a sync that failed, after which the system takes them for written (S12).
fn secure(dir: &Path, number: u64, bytes: &[u8], in_hand: bool) -> Result<(), WalError> {
    let (file, path) = (segment::open(dir, number)?, segment::path(dir, number));
    if in_hand {
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        file.write_all_at(&bytes[..used], 0).map_err(failed("writing", &path))?;
    }
    file.sync_all().map_err(failed("syncing", &path))?;
    Ok(())
}

/// The segment to be written next: the last one if nothing stands after its end, else a new one whose header says where that end is.
fn go_on(dir: &Path, end: &End, segment_bytes: usize) -> Result<(Encoder, File), WalError> {
    if let Some((segment, _)) = end.at {
        let (file, path) = (segment::open(dir, segment.0)?, segment::path(dir, segment.0));
        let length = file.metadata().map_err(failed("reading", &path))?.len();
        if let Some(encoder) = Encoder::resume(end, length) {
            return Ok((encoder, file));
        }
    }
    let (encoder, header) = Encoder::begin(end, segment_bytes as u64);
    let number = encoder.segment().0;
    let (file, path) = (segment::create(dir, number, segment_bytes)?, segment::path(dir, number));
    file.write_all_at(&header, 0).and_then(|()| file.sync_all()).map_err(failed("beginning", &path))?;
    Ok((encoder, file))
}

impl Log for Handle {
    fn submit(&self, token: u64, records: Vec<Record>, sync: bool) -> Result<(), NotSubmitted> {
        self.0.queue.push(token, records, sync, None)
    }

    fn rewrite(&self, token: u64, log: LogId, records: Vec<Record>) -> Result<(), NotSubmitted> {
        self.0.queue.push(token, records, true, Some(log))
    }

    fn pinning(&self) -> Vec<LogId> {
        self.0.stats.pinning()
    }

    fn oldest_ms(&self) -> u64 {
        self.0.stats.oldest_ms()
    }

    fn stop(&self) {
        self.0.stop();
    }
}

impl Handle {
    /// What it has done, and how long the last commits took.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.stats.read(self.0.queue.depth())
    }
}

impl Running {
    fn stop(&self) {
        self.queue.close(false);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A callback may hold the last handle: the thread cannot wait for itself.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id())
            && thread.join().is_err()
        {
            error!("thread of the write-ahead log panicked");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}
