//! The write-ahead log on real files: restarts, kills, torn tails, rotation, a disk that fails.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use hotwarm_core::ids::RaftId;
use hotwarm_core::wal::{Entry, EntryKind, HardState, LogId, Snapshot, Voters};

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);
const SMALL: usize = 64 * 1024;

fn entry(index: u64, bytes: usize) -> Record {
    let data = vec![(index % 251) as u8 + 1; bytes];
    Record::Entry(LogId(0), Entry { index, term: 1, kind: EntryKind::Normal, data, context: vec![9] })
}

fn open(dir: &Path) -> (Vec<u64>, Handle, Receiver<u64>) {
    let (recovered, handle, told) = recover(dir);
    (indexes(&recovered), handle, told)
}

fn recover(dir: &Path) -> (Recovered, Handle, Receiver<u64>) {
    let (tell, told) = channel();
    let persisted = Box::new(move |token| {
        let _test_may_be_over = tell.send(token);
    });
    let fatal = Box::new(|error: &WalError| panic!("{error}"));
    let (recovered, handle) = Wal::open_with(dir, Callbacks { persisted, fatal }, SMALL).unwrap();
    (recovered, handle, told)
}

/// The entries found, from 1 to some number, each with the data it was written with.
fn indexes(recovered: &Recovered) -> Vec<u64> {
    let entries = recovered.logs.get(&LogId(0)).map_or(&[][..], |log| &log.entries);
    let found = entries.iter().map(|entry| {
        assert!(entry.data.iter().all(|byte| *byte == (entry.index % 251) as u8 + 1), "entry {}", entry.index);
        entry.index
    });
    found.collect()
}

fn up_to(last: u64) -> Vec<u64> {
    (1..=last).collect()
}

fn wait(told: &Receiver<u64>) -> u64 {
    told.recv_timeout(PATIENCE).expect("it is persisted")
}

#[test]
fn what_is_persisted_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    for life in 0..5u64 {
        let (recovered, handle, told) = recover(dir.path());
        assert_eq!((indexes(&recovered), recovered.fresh, recovered.cut), (up_to(life * 20), life == 0, Cut::None));
        for n in life * 20 + 1..=life * 20 + 20 {
            handle.submit(n, vec![entry(n, 100)], true).unwrap();
        }
        for n in life * 20 + 1..=life * 20 + 20 {
            assert_eq!(wait(&told), n, "in order");
        }
        assert!(!handle.stats().last.is_empty());
    }
}

#[test]
fn what_is_queued_when_it_stops_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (_, handle, _told) = open(dir.path());
    (1..=500).for_each(|n| handle.submit(n, vec![entry(n, 10)], n % 2 == 0).unwrap());
    handle.stop();
    assert!(matches!(handle.submit(9, vec![entry(9, 1)], true), Err(NotSubmitted::Ended(records)) if records.len() == 1));
    assert_eq!(open(dir.path()).0, up_to(500));
}

#[test]
fn it_goes_on_over_many_segments() {
    let dir = tempfile::tempdir().unwrap();
    for last in [20, 40, 60] {
        let (found, handle, told) = open(dir.path());
        assert_eq!(found, up_to(last - 20));
        for n in last - 19..=last {
            // Every tenth, the last one of each life too, is longer than a segment.
            let bytes = if n % 10 == 0 { SMALL * 2 } else { SMALL / 3 };
            handle.submit(n, vec![entry(n, bytes)], true).unwrap();
            assert_eq!(wait(&told), n);
        }
        handle.stop();
    }
    assert!(segment::list(dir.path()).unwrap().len() > 20);
    assert_eq!(open(dir.path()).0, up_to(60));
}

fn birth() -> Record {
    Record::Birth(LogId(0), RaftId(7))
}

fn snapshot(index: u64) -> Record {
    Record::Snapshot(LogId(0), Snapshot { index, term: 1, voters: Voters::default(), data: vec![1] })
}

#[test]
fn a_snapshot_frees_the_segments_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let (_, handle, told) = open(dir.path());
    handle.submit(0, vec![birth()], true).unwrap();
    (1..=40).for_each(|n| handle.submit(n, vec![entry(n, SMALL / 3)], true).unwrap());
    while wait(&told) != 40 {}
    assert!(handle.stats().segments > 10);
    // The birth lies in the first segment: a rewrite names it again.
    handle.rewrite(41, LogId(0), vec![birth(), snapshot(39), entry(40, SMALL / 3)]).unwrap();
    wait(&told);
    assert!(handle.stats().segments <= 2, "a rewrite in pieces may end in the next segment");
    handle.stop();
    assert!(segment::list(dir.path()).unwrap().len() <= 3, "and the next one is ready");
    let (recovered, ..) = recover(dir.path());
    let log = &recovered.logs[&LogId(0)];
    assert_eq!((log.id, log.snapshot.as_ref().map(|snapshot| snapshot.index), indexes(&recovered)), (Some(RaftId(7)), Some(39), vec![40]));
}

#[test]
fn an_idle_log_is_named_and_its_rewrite_frees_what_it_pinned() {
    let dir = tempfile::tempdir().unwrap();
    let (_, handle, told) = open(dir.path());
    let idle = LogId(1);
    let lone = Record::Entry(idle, Entry { index: 1, term: 1, kind: EntryKind::Normal, data: vec![3], context: vec![] });
    handle.submit(0, vec![lone.clone()], true).unwrap();
    wait(&told);
    let mut n = 0;
    while handle.pinning().is_empty() {
        n += 1;
        handle.submit(n, vec![entry(n, SMALL / 3), snapshot(n)], true).unwrap();
        wait(&told);
    }
    assert_eq!((handle.pinning(), handle.stats().segments), (vec![idle], SEGMENTS_KEPT + 1));
    handle.rewrite(0, idle, vec![lone.clone()]).unwrap();
    wait(&told);
    assert_eq!((handle.pinning(), handle.stats().segments), (vec![], 1));
    handle.stop();
    let (recovered, ..) = recover(dir.path());
    assert_eq!(recovered.logs[&idle].entries.len(), 1);
    assert_eq!(recovered.logs[&LogId(0)].snapshot.as_ref().unwrap().index, n);
}

#[test]
fn a_large_log_is_rewritten_in_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let (_, handle, told) = open(dir.path());
    (1..=30).for_each(|n| handle.submit(n, vec![entry(n, SMALL / 5)], true).unwrap());
    let all: Vec<Record> = std::iter::once(birth()).chain((1..=30).map(|n| entry(n, SMALL / 5))).collect();
    handle.rewrite(31, LogId(0), all).unwrap();
    handle.submit(32, vec![entry(31, 5)], true).unwrap();
    while wait(&told) != 32 {}
    let lengths = |number: &u64| fs::metadata(segment::path(dir.path(), *number)).unwrap().len();
    handle.stop();
    assert!(segment::list(dir.path()).unwrap().iter().map(lengths).all(|length| length == SMALL as u64), "no segment of unusual length");
    assert_eq!(open(dir.path()).0, up_to(31));
}

#[test]
fn a_hard_state_from_before_a_birth_stays_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let (release, blocked) = channel::<()>();
    let persisted = Box::new(move |_| {
        let _test_is_over = blocked.recv();
    });
    let fatal = Box::new(|error: &WalError| panic!("{error}"));
    let (_, handle) = Wal::open_with(dir.path(), Callbacks { persisted, fatal }, SMALL).unwrap();
    let hard_state = |term| Record::HardState(LogId(0), HardState { term, vote: 0, commit: 0 });
    // The first holds the thread, so that the others are one group.
    handle.submit(0, vec![hard_state(1)], true).unwrap();
    handle.submit(1, vec![hard_state(9)], true).unwrap();
    handle.submit(2, vec![birth()], true).unwrap();
    drop(release);
    handle.stop();
    let (recovered, ..) = recover(dir.path());
    assert_eq!(recovered.logs[&LogId(0)].hard_state, HardState::default(), "the new life has voted in no term");
}

#[test]
fn one_sync_serves_all_that_waited() {
    let dir = tempfile::tempdir().unwrap();
    let (release, blocked) = channel::<()>();
    let (tell, told) = channel();
    let persisted = Box::new(move |token| {
        tell.send(token).unwrap();
        if token == 0 {
            blocked.recv().unwrap();
        }
    });
    let fatal = Box::new(|error: &WalError| panic!("{error}"));
    let (_, handle) = Wal::open_with(dir.path(), Callbacks { persisted, fatal }, SMALL).unwrap();
    handle.submit(0, vec![entry(1, 10)], true).unwrap();
    assert_eq!(wait(&told), 0);
    (1..100).for_each(|n| handle.submit(n, vec![entry(n + 1, 10)], true).unwrap());
    release.send(()).unwrap();
    (1..100).for_each(|n| assert_eq!(wait(&told), n));
    handle.stop();
    assert_eq!((handle.stats().commits, handle.stats().submissions), (2, 100));
}

#[test]
fn a_full_queue_gives_the_records_back() {
    let dir = tempfile::tempdir().unwrap();
    let (release, blocked) = channel::<()>();
    let persisted = Box::new(move |_| {
        let _test_is_over = blocked.recv();
    });
    let fatal = Box::new(|error: &WalError| panic!("{error}"));
    let (_, handle) = Wal::open_with(dir.path(), Callbacks { persisted, fatal }, SMALL).unwrap();
    let big = 8 * 1024 * 1024;
    let full = (0..100).find_map(|n| handle.submit(n, vec![entry(n, big)], false).err());
    assert!(matches!(full, Some(NotSubmitted::Full(records)) if records.len() == 1));
    drop(release);
}

/// A directory in memory, where there is such a place: for what syncs often, and needs no power cut to be tested.
fn in_memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Copies a directory with one segment changed.
fn damaged(dir: &Path, number: u64, change: impl FnOnce(&mut Vec<u8>)) -> tempfile::TempDir {
    let copy = in_memory();
    for other in segment::list(dir).unwrap() {
        fs::copy(segment::path(dir, other), segment::path(copy.path(), other)).unwrap();
    }
    let path = segment::path(copy.path(), number);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
    copy
}

fn used(dir: &Path, number: u64) -> usize {
    let bytes = fs::read(segment::path(dir, number)).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_and_never_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let write = |records: Vec<Record>| {
        let (_, handle, told) = open(dir.path());
        handle.submit(0, records, true).unwrap();
        wait(&told);
        handle.stop();
        used(dir.path(), 1)
    };
    let before = write((1..=3).map(|n| entry(n, 5)).collect());
    let after = write((4..=6).map(|n| entry(n, 5)).collect());
    assert!(before < after);
    let torn: [fn(&mut Vec<u8>, usize); 3] =
        [|bytes, cut| bytes.truncate(cut), |bytes, cut| bytes[cut..].fill(0), |bytes, cut| bytes[cut] ^= 0x55];
    for (cut, (kind, tear)) in (before..after).flat_map(|cut| torn.into_iter().enumerate().map(move |tear| (cut, tear))) {
        if kind > 0 && cut % 7 > 0 {
            continue;
        }
        let copy = damaged(dir.path(), 1, |bytes| tear(bytes, cut));
        let (recovered, handle, told) = recover(copy.path());
        let (found, possibly_cut) = (indexes(&recovered), recovered.logs[&LogId(0)].possibly_cut);
        assert!(found == up_to(3) || found == up_to(6), "cut at {cut}, kind {kind}: {found:?}");
        assert_eq!(possibly_cut, matches!(recovered.cut, Cut::MaybeSynced { .. }));
        let next = found.len() as u64 + 1;
        handle.submit(1, vec![entry(next, cut % 7)], true).unwrap();
        wait(&told);
        handle.stop();
        let (again, ..) = recover(copy.path());
        assert_eq!(indexes(&again), up_to(next), "cut at {cut}, kind {kind}: nothing torn comes to life behind a new record");
        assert_eq!((again.cut, again.logs[&LogId(0)].possibly_cut), (Cut::None, possibly_cut), "a cut is not forgotten");
    }
}

#[test]
fn rot_in_what_was_synced_stops_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let (_, handle, told) = open(dir.path());
    for n in 1..=3 {
        handle.submit(n, vec![entry(n, 2000)], true).unwrap();
        wait(&told);
    }
    handle.stop();
    let rotten = damaged(dir.path(), 1, |bytes| bytes[hotwarm_core::wal::HEADER_BYTES as usize + 1000] ^= 1);
    let callbacks = Callbacks { persisted: Box::new(|_| {}), fatal: Box::new(end_process) };
    let error = Wal::open_with(rotten.path(), callbacks, SMALL).unwrap_err();
    assert!(matches!(error, WalError::Replay(ReplayError::Corrupt { offset, .. }) if offset == hotwarm_core::wal::HEADER_BYTES), "{error}");
}

#[test]
fn a_missing_segment_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (_, handle, _told) = open(dir.path());
    (1..9).for_each(|n| handle.submit(n, vec![entry(n, SMALL / 2)], true).unwrap());
    handle.stop();
    fs::remove_file(segment::path(dir.path(), 4)).unwrap();
    let callbacks = Callbacks { persisted: Box::new(|_| {}), fatal: Box::new(end_process) };
    assert!(Wal::open(dir.path(), callbacks).unwrap_err().to_string().contains("0000000000000004.wal"));
}

#[test]
fn a_file_that_is_no_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("0000000000000001.wal.bak"), "x").unwrap();
    let callbacks = Callbacks { persisted: Box::new(|_| {}), fatal: Box::new(end_process) };
    assert!(matches!(Wal::open(dir.path(), callbacks), Err(WalError::Dir(DirError::Corrupt { .. }))));
}

/// The tests below kill this process: it writes without end and prints what is persisted.
#[test]
fn child_process() {
    let Ok(dir) = std::env::var("HOTWARM_TEST_WAL") else { return };
    let size: usize = std::env::var("HOTWARM_TEST_WAL_ENTRY").unwrap().parse().unwrap();
    let persisted = Box::new(|token| {
        println!("\npersisted {token}");
        io::stdout().flush().unwrap();
    });
    let (recovered, handle) = Wal::open_with(Path::new(&dir), Callbacks { persisted, fatal: Box::new(end_process) }, SMALL).unwrap();
    for n in indexes(&recovered).len() as u64 + 1.. {
        let mut submission = Some(vec![entry(n, size)]);
        while let Some(records) = submission.take() {
            match handle.submit(n, records, true) {
                Ok(()) => {}
                Err(NotSubmitted::Full(records)) => submission = Some(records),
                Err(NotSubmitted::Ended(_)) => return,
            }
        }
    }
}

fn child(dir: &Path, size: usize, limit: &str) -> Child {
    Command::new("sh")
        .arg("-c")
        .arg(format!("{limit} exec \"$0\" --exact store::wal::tests::child_process --nocapture"))
        .arg(std::env::current_exe().unwrap())
        .env("HOTWARM_TEST_WAL", dir)
        .env("HOTWARM_TEST_WAL_ENTRY", size.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn relay(child: &mut Child, tell: Sender<u64>) -> JoinHandle<()> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let relay = move || {
        for token in lines.filter_map(|line| line.strip_prefix("persisted ")?.parse().ok()) {
            tell.send(token).unwrap();
        }
    };
    std::thread::spawn(relay)
}

#[test]
fn a_killed_process_loses_nothing_that_was_persisted() {
    let dir = in_memory();
    let mut before = 0;
    for life in 1..=10u64 {
        let mut child = child(dir.path(), 900, "");
        let (tell, told) = channel();
        let relay = relay(&mut child, tell);
        // Killed at another place each time, also while segments change.
        let enough = before + 37 * life;
        let mut last = 0;
        while last < enough {
            last = wait(&told);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        relay.join().unwrap();
        last = told.try_iter().last().unwrap_or(last);
        let (found, handle, _) = open(dir.path());
        assert!(found.len() as u64 >= last, "{last} was persisted, {} are there", found.len());
        assert_eq!(found, up_to(found.len() as u64));
        before = found.len() as u64;
        handle.stop();
    }
}

#[test]
fn a_failed_write_ends_the_process() {
    use std::os::unix::process::ExitStatusExt;
    let dir = tempfile::tempdir().unwrap();
    // A file may grow to 512 KiB or 1 MiB (the unit differs between shells): segments fit, an entry of 2 MiB does not.
    let mut child = child(dir.path(), 2 * 1024 * 1024, "trap '' XFSZ; ulimit -f 1024;");
    let (tell, told) = channel();
    let relay = relay(&mut child, tell);
    assert_eq!(child.wait().unwrap().signal(), Some(6), "aborted");
    relay.join().unwrap();
    assert_eq!(told.try_iter().count(), 0, "nothing was called persisted");
}
