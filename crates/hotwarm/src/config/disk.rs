//! How long the disk of a data directory takes to keep 4 KiB: what `check` judges an objective by.
//!
//! It must leave nothing behind, also when it is killed, and wait for no disk longer than [`PATIENCE`]. Main path: [`sync_time`].

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, fdatasync, open};

/// All of it takes no longer.
pub const PATIENCE: Duration = Duration::from_secs(2);
const BLOCK: usize = 4096;
/// Enough that one slow one among them does not count.
const WRITES: u64 = 15;

/// What 4 KiB written and synced in `dir` take: the median of some, or [`PATIENCE`] if not one ended within that time.
///
/// # Errors
/// Why it cannot be measured.
pub fn sync_time(dir: &Path) -> Result<Duration, String> {
    let refused = |error: io::Error| format!("{}: {error}", dir.display());
    // It has no name and is gone with its last user.
    let file = open(dir, OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
    let file = File::from(file.map_err(|error| refused(error.into()))?);
    median_within(PATIENCE, move |number| write(&file, number)).map_err(refused)
}

fn write(file: &File, number: u64) -> io::Result<()> {
    let mut block = [0; BLOCK];
    // Other bytes each time, so that nothing below finds the write needless.
    block[..8].copy_from_slice(&number.to_le_bytes());
    file.write_all_at(&block, 0)?;
    Ok(fdatasync(file)?)
}

/// A disk that hangs holds a thread, and not us.
fn median_within(patience: Duration, mut write: impl FnMut(u64) -> io::Result<()> + Send + 'static) -> io::Result<Duration> {
    let (begun, (tell, told)) = (Instant::now(), channel());
    std::thread::Builder::new().name("disk-check".into()).spawn(move || {
        // The first makes the file longer; those that follow write over it, as the log does.
        for number in 0..=WRITES {
            let start = Instant::now();
            let done = write(number).map(|()| start.elapsed());
            if tell.send((number, done)).is_err() {
                return;
            }
        }
    })?;
    let mut took = Vec::new();
    loop {
        match told.recv_timeout(patience.saturating_sub(begun.elapsed())) {
            Ok((0, done)) => drop(done?),
            Ok((_, done)) => took.push(done?),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    took.sort_unstable();
    Ok(took.get(took.len() / 2).copied().unwrap_or(patience))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_measured_and_nothing_is_left() {
        let tmp = tempfile::tempdir().unwrap();
        assert!(sync_time(tmp.path()).unwrap() > Duration::ZERO);
        assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 0);
        let told = sync_time(&tmp.path().join("missing")).unwrap_err();
        assert!(told.contains("missing") && told.contains("No such file"), "{told}");
    }

    #[test]
    fn a_disk_that_hangs_counts_with_all_the_time_it_was_given() {
        let (release, blocked) = channel::<()>();
        let blocked = std::sync::Mutex::new(blocked);
        let hangs = move |_| blocked.lock().unwrap().recv().map_err(io::Error::other);
        let patience = Duration::from_millis(20);
        assert_eq!(median_within(patience, hangs).unwrap(), patience);
        drop(release);
        assert!(median_within(PATIENCE, |_| Err(io::Error::other("full"))).is_err());
    }
}
