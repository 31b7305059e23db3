//! What a member printed: its tail, what comes next, and keeping it bounded.
//!
//! The member writes to the file itself, so that nothing of hotwarm stands between; the file is copied and truncated when it is long
//! (what is written in between is lost), never renamed under the writer. A member that prints while no agent runs is not bounded.
//! Main path: [`tail`], [`Follower`]; `keep` beside every member's task. All of it blocks: call it off the runtime's threads.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Place;

/// Length from which a member's output is put aside, in bytes.
const OUTPUT_BYTES_MAX: u64 = 8 << 20;
/// How many older outputs are kept.
const KEPT: u32 = 2;
const LOOK_EVERY: Duration = Duration::from_secs(5);
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

/// Keeps the member's output bounded for as long as it runs.
pub(super) async fn keep(place: Place) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let output = place.output();
        let done = tokio::task::spawn_blocking(move || rotate(&output, OUTPUT_BYTES_MAX)).await;
        if let Ok(Err(error)) = done {
            tracing::warn!(dir = %place.dir.display(), %error, "the member's output could not be put aside; it grows");
        }
    }
}

fn rotate(output: &Path, bytes_max: u64) -> io::Result<()> {
    match output.metadata() {
        Ok(metadata) if metadata.len() > bytes_max => {}
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    let aside = |n: u32| PathBuf::from(format!("{}.{n}", output.display()));
    for n in (1..KEPT).rev() {
        match std::fs::rename(aside(n), aside(n + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let mut from = OpenOptions::new().read(true).write(true).open(output)?;
    let mut to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(aside(1))?;
    io::copy(&mut from, &mut to)?;
    from.set_len(0)
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

        rotate(&place.output(), 10).unwrap();
        assert_eq!(place.output().metadata().unwrap().len(), 0);
        writeln!(member, "six").unwrap();
        assert_eq!(follower.next_lines(10).unwrap(), ["six"], "the writer goes on in the emptied file");
        assert_eq!(tail(&place, 3).unwrap(), ["four", "five", "six"], "the tail reaches into what was put aside");
        rotate(&place.output(), 1).unwrap();
        rotate(&place.output(), 1).unwrap();
        assert!(place.dir.join("output.log.2").exists() && !place.dir.join("output.log.3").exists());
    }
}
