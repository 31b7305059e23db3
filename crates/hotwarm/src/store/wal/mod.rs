//! The write-ahead log of a node: one for all its replicated logs, with one group commit. It moves bytes; `hotwarm_core::wal` knows
//! what they mean (S13).
//!
//! Must never report a record persisted that a power cut can take back. The main path enters at [`Wal::open`] and [`Log::submit`].

mod codec;
pub(crate) mod queue;
mod segment;
mod stats;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use hotwarm_core::wal::Record;
use tracing::{error, warn};

use self::queue::Queue;
use self::segment::Housekeeper;
use self::writer::{Current, Writer};
use super::Log;
use super::dir::{DirError, failed, sync_dir, write_atomic};

pub use self::queue::NotSubmitted;
pub use self::stats::Stats;

/// Length of a segment.
pub const SEGMENT_BYTES: usize = 16 * 1024 * 1024;
/// The file that remembers a cut (S12).
const CUT: &str = "cut";

/// Why the write-ahead log does not open, or has ended.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    #[error(transparent)]
    Dir(#[from] DirError),
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
    error!(code = "HW0100", "{error}");
    std::process::abort();
}

/// What was found at the start.
#[derive(Debug)]
pub struct Recovered {
    pub records: Vec<Record>,
    /// There was no log at all: right for a node's first start, and at no other time (S11).
    pub fresh: bool,
    /// Records were cut that may have been synced (S12), at this start or at an earlier one that was not followed by
    /// [`Handle::forget_cut`]: no vote and no acknowledgement before that.
    pub cut: Option<String>,
}

/// Opens write-ahead logs.
#[derive(Debug)]
pub struct Wal;

/// An open write-ahead log; the last one dropped writes what is queued and ends the thread.
#[derive(Clone, Debug)]
pub struct Handle(Arc<Running>);

#[derive(Debug)]
struct Running {
    dir: PathBuf,
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

    fn open_with(dir: &Path, callbacks: Callbacks, segment_bytes: usize) -> Result<(Recovered, Handle), WalError> {
        let numbers = segment::list(dir)?;
        if let Some(gap) = numbers.windows(2).find(|pair| pair[0] + 1 != pair[1]) {
            return Err(DirError::Corrupt { path: segment::path(dir, gap[0] + 1) }.into());
        }
        let mut replay = codec::Replay::default();
        for &number in &numbers {
            let path = segment::path(dir, number);
            replay.segment(number, &fs::read(&path).map_err(failed("reading", &path))?);
        }
        let cut = note_cut(dir, replay.cut.then(|| format!("cut at {:?}", replay.tail)))?;
        let current = resume(dir, &numbers, replay.tail, segment_bytes)?;
        let housekeeper = Housekeeper::start(dir).map_err(failed("starting the thread for", dir))?;
        housekeeper.prepare(current.number + 1, segment_bytes);
        let (queue, shared) = (Arc::new(Queue::default()), Arc::new(stats::Shared::default()));
        let mut writer = Writer {
            dir: dir.to_owned(),
            housekeeper,
            queue: Arc::clone(&queue),
            stats: Arc::clone(&shared),
            callbacks,
            segment_bytes,
            buffer: Vec::new(),
            must_sync: false,
            current,
        };
        if writer.current.offset == 0 {
            codec::header(writer.current.number, &mut writer.buffer);
        }
        let thread = std::thread::Builder::new().name("wal".into()).spawn(move || writer.run());
        let thread = Mutex::new(Some(thread.map_err(failed("starting the thread for", dir))?));
        let handle = Handle(Arc::new(Running { dir: dir.to_owned(), queue, stats: shared, thread }));
        Ok((Recovered { records: replay.records, fresh: numbers.is_empty(), cut }, handle))
    }
}

/// Remembers a cut until the node has caught up: the next start finds a clean log and would not know (S12).
fn note_cut(dir: &Path, now: Option<String>) -> Result<Option<String>, WalError> {
    let path = dir.join(CUT);
    if let Some(what) = now {
        warn!("write-ahead log {what}: this node neither votes nor acknowledges until it has joined again");
        write_atomic(&path, what.as_bytes())?;
    }
    match fs::read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("reading", &path)(e).into()),
        Ok(what) => Ok(Some(String::from_utf8_lossy(&what).into_owned())),
    }
}

/// Makes everything after the last good record zeros again, durably, before anything is written: what is left of a torn write must not
/// come to life behind a new record.
fn resume(dir: &Path, numbers: &[u64], tail: Option<(u64, usize)>, segment_bytes: usize) -> Result<Current, WalError> {
    let Some((number, offset)) = tail.or_else(|| numbers.first().map(|first| (*first, 0))) else {
        return Ok(Current { number: 1, file: segment::create(dir, 1, segment_bytes)?, offset: 0 });
    };
    for later in numbers.iter().rev().take_while(|later| **later > number) {
        let path = segment::path(dir, *later);
        fs::remove_file(&path).map_err(failed("removing", &path))?;
    }
    sync_dir(dir)?;
    let (file, path) = (segment::open(dir, number)?, segment::path(dir, number));
    let length = file.metadata().map_err(failed("reading", &path))?.len() as usize;
    let mut rest = vec![0; length.saturating_sub(offset)];
    file.read_exact_at(&mut rest, offset as u64).map_err(failed("reading", &path))?;
    let dirty = rest.iter().rposition(|byte| *byte != 0).map_or(offset, |last| offset + last + 1);
    segment::zero(&file, offset, dirty).map_err(failed("clearing", &path))?;
    if length < segment_bytes {
        segment::zero(&file, length, segment_bytes).map_err(failed("lengthening", &path))?;
        file.sync_all().map_err(failed("syncing", &path))?;
    }
    Ok(Current { number, file, offset })
}

impl Log for Handle {
    fn submit(&self, token: u64, records: Vec<Record>, sync: bool) -> Result<(), NotSubmitted> {
        self.0.queue.push(token, records, sync)
    }

    fn oldest_ms(&self) -> u64 {
        self.0.stats.oldest_ms()
    }

    fn stop(&self) {
        self.0.stop();
    }
}

impl Handle {
    /// Nothing that was cut counts any more (S12): this node has joined again under a new raft id. The next start is an ordinary one.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn forget_cut(&self) -> Result<(), DirError> {
        let path = self.0.dir.join(CUT);
        match fs::remove_file(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(failed("removing", &path)(e)),
            Ok(()) => sync_dir(&self.0.dir),
        }
    }

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
