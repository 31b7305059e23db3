//! What a member printed: its tail, what comes next, and keeping it bounded.
//!
//! The member writes to the file itself, so that nothing of hotwarm stands between; the file is copied and truncated when it is long
//! (what is written in between is lost), never renamed under the writer. A member that prints while no agent runs is not bounded.
//! Main path: [`tail`], [`Follower`]; [`Outputs`] beside all members' tasks. All of it blocks: call it off the runtime's threads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::Place;

/// Length from which a member's output is put aside, in bytes.
const OUTPUT_BYTES_MAX: u64 = 8 << 20;
/// How many older outputs are kept.
const KEPT: u32 = 2;
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After an output was too long.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// How far back the tail looks, in bytes.
const TAIL_BYTES_MAX: u64 = 1 << 20;
/// A line is cut here, in bytes.
const LINE_BYTES_MAX: usize = 16 << 10;

/// The last `lines` lines of the member's output, the oldest first; none if it never printed.
pub fn tail(place: &Place, lines: usize) -> io::Result<Vec<String>> {
    let mut last = VecDeque::new();
    let older = PathBuf::from(format!("{}.1", place.output().display()));
    for path in [older, place.output()] {
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let length = file.metadata()?.len();
        let start = length.saturating_sub(TAIL_BYTES_MAX);
        file.seek(SeekFrom::Start(start))?;
        let mut reader = BufReader::new(file.take(TAIL_BYTES_MAX));
        if start > 0 {
            // The first line is likely not whole.
            reader.read_until(b'\n', &mut Vec::new())?;
        }
        while let Some((line, _)) = read_line(&mut reader)? {
            last.push_back(line);
            if last.len() > lines {
                last.pop_front();
            }
        }
    }
    Ok(last.into())
}

/// A line without its end, and whether it was ended; `None` at the end of the input.
fn read_line(reader: &mut impl BufRead) -> io::Result<Option<(String, bool)>> {
    let mut bytes = Vec::new();
    if reader.by_ref().take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    let ended = bytes.last() == Some(&b'\n') || bytes.len() == LINE_BYTES_MAX;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(Some((String::from_utf8_lossy(&bytes).into_owned(), ended)))
}

/// Reads what a member prints from now on.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    offset: u64,
}

impl Follower {
    /// From the present end of the output.
    #[must_use]
    pub fn new(place: &Place) -> Self {
        let path = place.output();
        let offset = path.metadata().map_or(0, |metadata| metadata.len());
        Self { path, offset }
    }

    /// The whole lines printed since the last call, at most `lines`; from the beginning if the output was put aside meanwhile.
    pub fn next_lines(&mut self, lines: usize) -> io::Result<Vec<String>> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() < self.offset {
            self.offset = 0;
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let mut reader = BufReader::new(file);
        let mut found = Vec::new();
        while found.len() < lines
            && let Some((line, true)) = read_line(&mut reader)?
        {
            found.push(line);
            self.offset = reader.stream_position()?;
        }
        Ok(found)
    }
}

/// Keeps what a node's members print bounded, from a thread of its own: a disk that hangs holds up nothing else. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Outputs(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    files: BTreeSet<PathBuf>,
    is_watched: bool,
}

/// An output that is kept bounded until this is dropped.
#[derive(Debug)]
pub(super) struct Keeping {
    outputs: Outputs,
    file: PathBuf,
}

impl Drop for Keeping {
    fn drop(&mut self) {
        self.outputs.lock().files.remove(&self.file);
    }
}

impl Outputs {
    pub(super) fn keep(&self, place: &Place) -> Keeping {
        let file = place.output();
        let mut kept = self.lock();
        kept.files.insert(file.clone());
        if !kept.is_watched {
            let outputs = Arc::downgrade(&self.0);
            let begun = std::thread::Builder::new().name("outputs".into()).spawn(move || watch(&outputs, OUTPUT_BYTES_MAX));
            match begun {
                Ok(_) => kept.is_watched = true,
                Err(error) => tracing::warn!(%error, "no thread that keeps what members print bounded; tried again with the next member"),
            }
        }
        drop(kept);
        Keeping { outputs: self.clone(), file }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Until nobody knows of the outputs any more.
fn watch(outputs: &Weak<Mutex<Kept>>, bytes_max: u64) {
    let mut told: BTreeMap<PathBuf, Instant> = BTreeMap::new();
    let mut pause = LOOK_EVERY;
    loop {
        std::thread::sleep(pause);
        pause = LOOK_EVERY;
        let Some(kept) = outputs.upgrade() else { return };
        let files = Outputs(kept).lock().files.clone();
        told.retain(|file, _| files.contains(file));
        for file in files {
            match put_aside(&file, bytes_max) {
                Ok(false) => {}
                // Who prints that much may print as much again at once.
                Ok(true) => pause = LOOK_AGAIN,
                Err(error) => {
                    pause = LOOK_AGAIN;
                    if told.get(&file).is_none_or(|at| at.elapsed() >= TELL_AGAIN) {
                        told.insert(file.clone(), Instant::now());
                        tracing::warn!(file = %file.display(), %error, "what the member printed is lost: it was too long, and not put aside");
                    }
                }
            }
        }
    }
}

/// True if the output was longer than `bytes_max`: its end is then the newest of those put aside, and it begins anew. It does so too where
/// nothing could be kept: room on the disk is worth more than what was printed.
fn put_aside(output: &Path, bytes_max: u64) -> io::Result<bool> {
    match output.metadata() {
        Ok(metadata) if metadata.len() > bytes_max => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    let mut from = OpenOptions::new().read(true).write(true).open(output)?;
    let kept = copy_end(&mut from, output, bytes_max);
    from.set_len(0)?;
    kept.map(|()| true)
}

fn copy_end(from: &mut File, output: &Path, bytes_max: u64) -> io::Result<()> {
    let aside = |n: u32| PathBuf::from(format!("{}.{n}", output.display()));
    for n in (1..KEPT).rev() {
        match std::fs::rename(aside(n), aside(n + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let length = from.metadata()?.len();
    from.seek(SeekFrom::Start(length.saturating_sub(bytes_max)))?;
    let mut to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(aside(1))?;
    // No further: the writer goes on meanwhile.
    let copied = io::copy(&mut from.take(bytes_max), &mut to);
    if copied.is_err() {
        let _ = std::fs::remove_file(aside(1));
    }
    copied.map(drop)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use hotwarm_core::ids::MemberId;

    use super::*;

    #[test]
    fn output_is_bounded_and_read_from_its_end_and_on() {
        let data = tempfile::tempdir().unwrap();
        let place = Place::of(data.path(), &MemberId::new("web/a"));
        assert_eq!(tail(&place, 10).unwrap(), Vec::<String>::new());
        place.make().unwrap();
        let mut member = OpenOptions::new().append(true).create(true).open(place.output()).unwrap();
        writeln!(member, "one\ntwo\nthree").unwrap();
        assert_eq!(tail(&place, 2).unwrap(), ["two", "three"]);
        let mut follower = Follower::new(&place);
        write!(member, "four\nfi").unwrap();
        assert_eq!(follower.next_lines(10).unwrap(), ["four"]);
        writeln!(member, "ve").unwrap();
        assert_eq!(follower.next_lines(10).unwrap(), ["five"]);

        assert!(put_aside(&place.output(), 20).unwrap());
        assert_eq!(place.output().metadata().unwrap().len(), 0);
        writeln!(member, "six").unwrap();
        assert_eq!(follower.next_lines(10).unwrap(), ["six"], "the writer goes on in the emptied file");
        assert_eq!(tail(&place, 3).unwrap(), ["four", "five", "six"], "the tail reaches into what was put aside");
        assert!(put_aside(&place.output(), 1).unwrap());
        assert!(!put_aside(&place.output(), 1).unwrap());
        writeln!(member, "seven").unwrap();
        assert!(put_aside(&place.output(), 1).unwrap());
        assert!(place.dir.join("output.log.2").exists() && !place.dir.join("output.log.3").exists());
    }

    /// Where it cannot be put aside it is lost: the disk must not fill up.
    #[test]
    fn what_cannot_be_kept_is_let_go() {
        let data = tempfile::tempdir().unwrap();
        let output = data.path().join("output.log");
        std::fs::write(&output, "much").unwrap();
        std::fs::write(data.path().join("output.log.1"), "before").unwrap();
        std::fs::create_dir_all(data.path().join("output.log.2/in the way")).unwrap();
        put_aside(&output, 1).unwrap_err();
        assert_eq!(output.metadata().unwrap().len(), 0);
    }

    /// Its writer never pauses, and the longest output is far behind it at once.
    #[test]
    fn who_prints_without_end_is_kept_bounded() {
        let data = tempfile::tempdir().unwrap();
        let place = Place::of(data.path(), &MemberId::new("web/a"));
        place.make().unwrap();
        let printed = OpenOptions::new().append(true).create(true).open(place.output()).unwrap();
        let outputs = Outputs::default();
        let _kept = outputs.keep(&place);
        let mut member = std::process::Command::new("yes").stdout(printed).spawn().unwrap();
        let aside = |n: u32| place.dir.join(format!("output.log.{n}")).metadata().map_or(0, |kept| kept.len());
        let until = Instant::now() + Duration::from_secs(60);
        while aside(2) == 0 {
            assert!(Instant::now() < until, "nothing was put aside twice");
            std::thread::sleep(Duration::from_millis(10));
        }
        member.kill().unwrap();
        member.wait().unwrap();
        assert!(aside(1) <= OUTPUT_BYTES_MAX && aside(2) == OUTPUT_BYTES_MAX, "its end: {} {}", aside(1), aside(2));
    }
}
