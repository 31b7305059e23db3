//! Segment files: made ahead of need, filled with zeros so that a later sync writes data and no metadata, and removed when obsolete.
//!
//! Must never show a segment under its name before its zeros and its directory entry are durable. The housekeeper is a thread of its
//! own, since all of this is slow; the main path enters at [`Housekeeper::next`].

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate};
use tracing::{debug, error};

use super::super::dir::{DirError, failed, sync_dir};

/// Zeros are written and synced in pieces, so that a commit that runs meanwhile waits for one piece at most.
const PIECE: usize = 1024 * 1024;
/// A full disk is asked again after this: somebody may make room, and meanwhile the write-ahead log stalls, as its handle shows.
const RETRY: Duration = Duration::from_millis(500);
const ENDING: &str = "wal";

/// The file of segment `number`.
pub(super) fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:016x}.{ENDING}"))
}

/// The segments that are there, oldest first. What a crash left unfinished is passed over; a file that is no segment is an error.
pub(super) fn list(dir: &Path) -> Result<Vec<u64>, DirError> {
    Ok(look(dir)?.0)
}

/// Removes what a crash left unfinished.
pub(super) fn clear(dir: &Path) -> Result<(), DirError> {
    look(dir)?.1.iter().try_for_each(|file| fs::remove_file(file).map_err(failed("removing", file)))
}

/// The segments, oldest first, and what a crash left unfinished.
fn look(dir: &Path) -> Result<(Vec<u64>, Vec<PathBuf>), DirError> {
    let (mut numbers, mut unfinished) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(dir).map_err(failed("reading", dir))? {
        let file = entry.map_err(failed("reading", dir))?.path();
        let stem = file.file_stem().and_then(|stem| stem.to_str()).filter(|stem| stem.len() == 16);
        let number = stem.and_then(|stem| u64::from_str_radix(stem, 16).ok());
        match (number, file.extension().and_then(|ending| ending.to_str())) {
            (Some(number), Some(ENDING)) => numbers.push(number),
            (_, Some("tmp")) => unfinished.push(file),
            _ => return Err(DirError::Corrupt { path: file }),
        }
    }
    numbers.sort_unstable();
    Ok((numbers, unfinished))
}

/// Opens an existing segment for writing.
pub(super) fn open(dir: &Path, number: u64) -> Result<File, DirError> {
    let path = path(dir, number);
    OpenOptions::new().read(true).write(true).open(&path).map_err(failed("opening", &path))
}

/// Makes a segment of `length` zeros, durable under its name when this returns.
pub(super) fn create(dir: &Path, number: u64, length: usize) -> Result<File, DirError> {
    let path = path(dir, number);
    let tmp = path.with_extension("tmp");
    let write = || -> io::Result<File> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&tmp)?;
        // Room for all of it or for nothing; a file system that cannot reserve gets its zeros all the same.
        match fallocate(&file, FallocateFlags::empty(), 0, length as u64) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e.into()),
        }
        zero(&file, 0, length)?;
        file.sync_all()?;
        fs::rename(&tmp, &path)?;
        Ok(file)
    };
    let file = write().map_err(failed("preparing", &path))?;
    sync_dir(dir)?;
    Ok(file)
}

/// Overwrites from `start` to `end` with zeros, durably.
pub(super) fn zero(file: &File, start: usize, end: usize) -> io::Result<()> {
    let zeros = vec![0; PIECE.min(end.saturating_sub(start))];
    let mut at = start;
    while at < end {
        let piece = &zeros[..zeros.len().min(end - at)];
        file.write_all_at(piece, at as u64)?;
        file.sync_data()?;
        at += piece.len();
    }
    Ok(())
}

enum Work {
    Prepare { number: u64, length: usize },
    Remove(Vec<u64>),
}

/// The thread that prepares and removes segments.
#[derive(Debug)]
pub(super) struct Housekeeper {
    /// `None` only while it is being dropped.
    work: Option<Sender<Work>>,
    ready: Receiver<(u64, File)>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Housekeeper {
    /// Starts it for the segments of `dir`.
    pub(super) fn start(dir: &Path) -> io::Result<Self> {
        // At most one preparation is asked for at a time, and removals are few and small: the channel stays short.
        let (work, todo) = channel();
        let (done, ready) = sync_channel(1);
        let dir = dir.to_owned();
        let thread = thread::Builder::new().name("wal-segments".into()).spawn(move || keep_house(&dir, &todo, &done))?;
        Ok(Self { work: Some(work), ready, thread: Some(thread) })
    }

    /// Begins to prepare a segment; [`Self::next`] hands it out.
    pub(super) fn prepare(&self, number: u64, length: usize) {
        self.tell(Work::Prepare { number, length });
    }

    /// The segment that was asked for; waits until it is ready. `None` when the housekeeper is gone.
    pub(super) fn next(&self) -> Option<(u64, File)> {
        self.ready.recv().ok()
    }

    /// Removes segments of which nothing is needed.
    pub(super) fn remove(&self, numbers: Vec<u64>) {
        if !numbers.is_empty() {
            self.tell(Work::Remove(numbers));
        }
    }

    fn tell(&self, work: Work) {
        // A housekeeper that is gone shows at the next hand-out.
        let _shown_later = self.work.as_ref().map(|to| to.send(work));
    }
}

impl Drop for Housekeeper {
    /// Waits for the work under way: whoever opens the directory next must not meet it.
    fn drop(&mut self) {
        self.work = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            error!("thread that prepares segments panicked");
        }
    }
}

fn keep_house(dir: &Path, todo: &Receiver<Work>, done: &SyncSender<(u64, File)>) {
    let mut wanted: Option<(u64, usize)> = None;
    loop {
        // Removals go on while a preparation is tried again: they are what makes room.
        let work = match wanted {
            None => todo.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(_) => todo.recv_timeout(RETRY),
        };
        match work {
            Ok(Work::Prepare { number, length }) => wanted = Some((number, length)),
            Ok(Work::Remove(numbers)) => remove(dir, &numbers),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let Some((number, length)) = wanted else { continue };
        match create(dir, number, length) {
            Ok(file) => {
                wanted = None;
                if done.send((number, file)).is_err() {
                    return;
                }
            }
            Err(e) => error!("no next segment of the write-ahead log, trying again: {e}"),
        }
    }
}

/// Oldest first and each one durably before the next, so that a crash leaves no gap.
fn remove(dir: &Path, numbers: &[u64]) {
    for &number in numbers {
        let path = path(dir, number);
        match fs::remove_file(&path).map_err(failed("removing", &path)).and_then(|()| sync_dir(dir)) {
            Ok(()) => debug!(number, "removed an obsolete segment"),
            Err(e) => {
                error!("obsolete segment stays until the next start: {e}");
                return;
            }
        }
    }
}
