//! The disk-health probe: every half second 4 KiB are written and synced in the data directory, on a thread of its own, and the room
//! that is left is looked at: the probe writes over its own block, so a full disk is not felt by it.
//!
//! Must never run on the decision thread, nor have two writes under way: a disk that hangs holds one thread and no more. A stall shows
//! as the age of the write under way, to whoever asks. The main path enters at [`DiskProbe::start`]; the agent asks [`Handle::oldest_ms`].

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hotwarm_core::ids::Mono;
use rustix::fs::{fdatasync, fstatvfs};

use super::dir::{DirError, failed};
use crate::clock;

/// How often a probe begins, unless told otherwise.
pub const EVERY: Duration = Duration::from_millis(500);
const BLOCK: usize = 4096;

/// Room is low below a twentieth of the disk, but within these: two segments of the log must fit, and more than the upper needs no alarm.
const FLOOR_BYTES: std::ops::RangeInclusive<u64> = (32 << 20)..=(256 << 20);

/// One finished probe.
#[derive(Debug)]
pub struct Probed {
    /// From the beginning of the write to the end of the sync.
    pub latency: Duration,
    /// Room on the disk, or why the write failed.
    pub outcome: io::Result<Room>,
}

/// What is left on the disk of the data directory for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub free_bytes: u64,
    /// Below this there is little left.
    pub floor_bytes: u64,
    /// True from below the floor until it is exceeded by a quarter.
    pub low: bool,
}

impl Room {
    /// `was_low` is what was said of the same disk before.
    fn new(free_bytes: u64, disk_bytes: u64, was_low: bool) -> Self {
        let floor_bytes = (disk_bytes / 20).clamp(*FLOOR_BYTES.start(), *FLOOR_BYTES.end());
        let enough = if was_low { floor_bytes + floor_bytes / 4 } else { floor_bytes };
        Self { free_bytes, floor_bytes, low: free_bytes < enough }
    }
}

/// Called on the probe's thread after each probe; it must not block.
pub type ProbedFn = Box<dyn Fn(Probed) + Send>;

/// Starts disk probes.
#[derive(Debug)]
pub struct DiskProbe;

/// A running probe; dropping it ends it after the write under way, without waiting for that.
#[derive(Debug)]
pub struct Handle {
    /// When the write under way began, in microseconds of [`clock::now`]; 0 when there is none.
    began_us: Arc<AtomicU64>,
    /// Dropped to end the thread.
    _run: Mutex<SyncSender<()>>,
}

impl DiskProbe {
    /// Begins to write into `file` (DATA/run/probe) every `every`.
    ///
    /// # Errors
    /// When the file cannot be made or no thread can be started.
    pub fn start(file: &Path, every: Duration, probed: ProbedFn) -> Result<Handle, DirError> {
        let mut open = open(file).map_err(failed("opening", file)).map(Some)?;
        let (path, mut number, mut low): (PathBuf, u64, bool) = (file.to_owned(), 0, false);
        let write = move || {
            number += 1;
            let result = write_once(open.as_ref(), number, low);
            match &result {
                Ok(room) => low = room.low,
                // The directory may have been replaced or remounted: look again next time.
                Err(_) => open = self::open(&path).ok(),
            }
            result
        };
        Self::run(write, every, probed).map_err(failed("starting the thread that probes", file))
    }

    fn run(mut write: impl FnMut() -> io::Result<Room> + Send + 'static, every: Duration, probed: ProbedFn) -> io::Result<Handle> {
        let began_us = Arc::new(AtomicU64::new(0));
        let (run, ended) = sync_channel::<()>(0);
        let began = Arc::clone(&began_us);
        let probe = move || {
            while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let start = clock::now();
                began.store(start.0.max(1), Ordering::SeqCst);
                let outcome = write();
                began.store(0, Ordering::SeqCst);
                probed(Probed { latency: clock::now().since(start), outcome });
            }
        };
        std::thread::Builder::new().name("disk-probe".into()).spawn(probe)?;
        Ok(Handle { began_us, _run: Mutex::new(run) })
    }
}

impl Handle {
    /// For how many milliseconds the write under way has had no answer; 0 when there is none.
    #[must_use]
    pub fn oldest_ms(&self) -> u64 {
        match self.began_us.load(Ordering::SeqCst) {
            0 => 0,
            began => u64::try_from(clock::now().since(Mono(began)).as_millis()).unwrap_or(u64::MAX),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn write_once(file: Option<&File>, number: u64, was_low: bool) -> io::Result<Room> {
    let file = file.ok_or_else(|| io::Error::other("the probe's file is gone"))?;
    let mut block = [0; BLOCK];
    // Other bytes each time, so that nothing below finds the write needless.
    block[..8].copy_from_slice(&number.to_le_bytes());
    file.write_all_at(&block, 0)?;
    fdatasync(file)?;
    let disk = fstatvfs(file)?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Ok(Room::new(bytes(disk.f_bavail), bytes(disk.f_blocks), was_low))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn a_working_disk_answers_again_and_again() {
        let tmp = tempfile::tempdir().unwrap();
        let file = tmp.path().join("probe");
        let (tell, told) = channel();
        let handle =
            DiskProbe::start(&file, Duration::from_millis(1), Box::new(move |probed| tell.send(probed).unwrap_or_default())).unwrap();
        for _ in 0..5 {
            assert!(told.recv_timeout(PATIENCE).unwrap().outcome.unwrap().free_bytes > 0);
        }
        assert_eq!(std::fs::metadata(&file).unwrap().len(), BLOCK as u64);
        drop(handle);
        while told.recv_timeout(PATIENCE).is_ok() {}
        assert_eq!(told.recv_timeout(PATIENCE).unwrap_err(), RecvTimeoutError::Disconnected, "the thread has ended");
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        let tmp = tempfile::tempdir().unwrap();
        assert!(DiskProbe::start(&tmp.path().join("no/probe"), EVERY, Box::new(|_| {})).is_err());
    }

    #[test]
    fn room_is_low_below_the_floor_until_well_above_it() {
        const MIB: u64 = 1 << 20;
        let low = |free_mib: u64, disk_mib: u64, was: bool| Room::new(free_mib * MIB, disk_mib * MIB, was).low;
        // A twentieth of the disk, two segments of the log at least, and no more than a large disk needs.
        for (disk_mib, floor_mib) in [(64, 32), (2_000, 100), (1_000_000, 256)] {
            assert_eq!(Room::new(0, disk_mib * MIB, false).floor_bytes, floor_mib * MIB);
            assert!(low(floor_mib - 1, disk_mib, false) && !low(floor_mib, disk_mib, false));
            assert!(low(floor_mib * 5 / 4 - 1, disk_mib, true) && !low(floor_mib * 5 / 4, disk_mib, true), "not said again and again");
        }
    }

    #[test]
    fn a_stall_shows_as_the_age_of_the_one_write_under_way() {
        let (release, blocked) = channel::<()>();
        let (started, starts) = channel();
        let (tell, told) = channel();
        let write = move || {
            started.send(()).unwrap();
            blocked.recv().map(|()| Room::new(1, 1, false)).map_err(|_| io::Error::other("test is over"))
        };
        let handle =
            DiskProbe::run(write, Duration::from_millis(1), Box::new(move |probed| tell.send(probed).unwrap_or_default())).unwrap();
        starts.recv_timeout(PATIENCE).unwrap();
        while handle.oldest_ms() < 20 {
            std::thread::yield_now();
        }
        assert!(starts.try_recv().is_err(), "one outstanding, never two");
        release.send(()).unwrap();
        assert!(told.recv_timeout(PATIENCE).unwrap().latency >= Duration::from_millis(20));
    }
}
