//! The write-ahead log against everything that a disk does to bytes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::frame::{Kind, push_as, whiten};
use super::*;

const SEGMENT: u64 = 64 << 10;

/// Files as a mover of bytes keeps them, each batch synced before the next unless told otherwise.
#[derive(Clone)]
struct Disk {
    files: Vec<(String, Vec<u8>)>,
    encoder: Encoder,
    batches: Vec<Batch>,
    /// The newest batch is still on its way.
    lazy: bool,
}

impl Disk {
    fn new() -> Self {
        Self::after(Vec::new(), &End::default())
    }

    /// Goes on after a replay that ended at `end`.
    fn after(files: Vec<(String, Vec<u8>)>, end: &End) -> Self {
        let (encoder, header) = Encoder::begin(end, SEGMENT);
        let mut disk = Self { files, encoder, batches: Vec::new(), lazy: false };
        disk.create(&header);
        disk
    }

    fn create(&mut self, header: &[u8]) {
        let mut file = vec![0; usize::try_from(SEGMENT).unwrap()];
        file[..header.len()].copy_from_slice(header);
        self.files.push((format!("{:016}.wal", self.encoder.segment().0), file));
    }

    fn write(&mut self, records: &[Record]) -> Batch {
        let mut bytes = Vec::new();
        let batch = match self.encoder.encode(records, &mut bytes) {
            Err(EncodeError::SegmentFull) => {
                self.encoder.synced(u64::MAX);
                let header = self.encoder.roll();
                self.create(&header);
                self.encoder.encode(records, &mut bytes).unwrap()
            }
            other => other.unwrap(),
        };
        assert_eq!(batch.bytes, bytes.len());
        assert!(bytes.chunks(512).all(|sector| sector.iter().any(|byte| *byte != 0)));
        let at = usize::try_from(batch.offset).unwrap();
        let file = &mut self.files.last_mut().unwrap().1;
        assert!(file[at..].iter().all(|byte| *byte == 0));
        file[at..at + bytes.len()].copy_from_slice(&bytes);
        if !self.lazy {
            self.encoder.synced(batch.seq);
        }
        self.batches.push(batch);
        batch
    }

    fn last_file(&mut self) -> &mut Vec<u8> {
        &mut self.files.last_mut().unwrap().1
    }

    fn replay(&self) -> Result<Replayed, ReplayError> {
        let mut replay = Replay::new();
        for (name, bytes) in &self.files {
            replay.feed(name, bytes.clone())?;
        }
        replay.finish()
    }
}

const LOG: LogId = LogId(0);

fn entry(index: u64, term: u64, data: &[u8]) -> Record {
    let (data, context) = (data.to_vec(), Vec::new());
    Record::Entry(LOG, Entry { index, term, kind: EntryKind::Normal, data, context })
}

fn hard_state(term: u64, vote: u64, commit: u64) -> Record {
    Record::HardState(LOG, HardState { term, vote, commit })
}

fn snapshot(index: u64, term: u64) -> Record {
    let (voters, data) = (Voters::default(), vec![7; 100]);
    Record::Snapshot(LOG, Snapshot { index, term, voters, data })
}

/// Three batches: a vote, entries of several sectors with a run of zeros among their data, a later vote.
fn little() -> Disk {
    let mut disk = Disk::new();
    disk.write(&[Record::Birth(LOG, RaftId(1)), hard_state(1, 2, 0)]);
    disk.write(&[entry(1, 1, &[0; 1500]), hard_state(1, 2, 0), entry(2, 1, b"b")]);
    disk.write(&[hard_state(2, 3, 2), entry(3, 2, &[9; 600])]);
    disk
}

/// The states after each batch, the first with none.
fn prefixes(disk: &Disk) -> Vec<BTreeMap<LogId, LogState>> {
    let mut states = vec![BTreeMap::new()];
    for batch in &disk.batches {
        let mut disk = disk.clone();
        let end = usize::try_from(batch.offset).unwrap() + batch.bytes;
        disk.last_file()[end..].fill(0);
        states.push(disk.replay().unwrap().logs);
    }
    states
}

#[test]
fn what_was_written_comes_back() {
    let disk = little();
    let replayed = disk.replay().unwrap();
    let log = &replayed.logs[&LOG];
    assert_eq!(log.id, Some(RaftId(1)));
    let expected = HardState { term: 2, vote: 3, commit: 2 };
    assert_eq!(log.hard_state, expected);
    assert_eq!(log.entries.iter().map(|entry| (entry.index, entry.data.len())).collect::<Vec<_>>(), [(1, 1500), (2, 1), (3, 600)]);
    assert_eq!((replayed.cut, replayed.mended, log.possibly_cut), (Cut::None, 0, false));
    let at = Some((SegmentId(1), disk.encoder.offset()));
    let possibly_cut = BTreeMap::new();
    assert_eq!(replayed.end, End { at, blank: true, seq: 4, possibly_cut });
}

#[test]
fn an_empty_directory_is_an_empty_log() {
    let replayed = Replay::new().finish().unwrap();
    assert_eq!(replayed, Replayed { end: End { seq: 1, ..End::default() }, ..Replayed::default() });
    assert_eq!(Encoder::resume(&replayed.end, SEGMENT).map(|_| ()), None);
}

#[test]
fn the_same_segment_is_written_on() {
    let mut disk = little();
    let end = disk.replay().unwrap().end;
    disk.encoder = Encoder::resume(&end, SEGMENT).unwrap();
    disk.write(&[entry(4, 2, b"d")]);
    let replayed = disk.replay().unwrap();
    assert_eq!((replayed.logs[&LOG].entries.len(), replayed.cut), (4, Cut::None));
}

#[test]
fn entries_of_a_later_term_replace_the_tail() {
    let mut disk = little();
    disk.write(&[entry(2, 3, b"x")]);
    let terms = |disk: &Disk| disk.replay().unwrap().logs[&LOG].entries.iter().map(|entry| (entry.index, entry.term)).collect::<Vec<_>>();
    assert_eq!(terms(&disk), [(1, 1), (2, 3)]);
    // The same entry again, as when a log is written forward, replaces nothing.
    disk.write(&[entry(3, 3, b"y"), entry(1, 1, &[0; 1500])]);
    assert_eq!(terms(&disk), [(1, 1), (2, 3), (3, 3)]);
    // A snapshot of our own keeps what follows it; one from a leader, whose entry we do not have, ends the log.
    disk.write(&[snapshot(2, 3)]);
    assert_eq!(terms(&disk), [(3, 3)]);
    disk.write(&[snapshot(3, 4)]);
    assert_eq!(terms(&disk), []);
    disk.write(&[entry(4, 4, b"z")]);
    assert_eq!(terms(&disk), [(4, 4)]);
}

#[test]
fn every_truncation_of_a_batch_is_seen() {
    let whole = little();
    let states = prefixes(&whole);
    let last = whole.batches[2];
    let (start, end) = (usize::try_from(last.offset).unwrap(), usize::try_from(last.offset).unwrap() + last.bytes);
    for at in start..end {
        let mut disk = whole.clone();
        disk.last_file()[at..].fill(0);
        let replayed = disk.replay().unwrap();
        if replayed.logs == states[3] {
            assert!(replayed.cut == Cut::None && (replayed.mended == 1 || end - at < 512), "{at}");
            continue;
        }
        let mut expected = states[2].clone();
        let offset = last.offset;
        let file = whole.files[0].0.clone();
        let cut = match (at == start, end - at >= 512) {
            (true, _) => Cut::None,
            (false, true) => Cut::Torn { file, offset },
            (false, false) => Cut::MaybeSynced { file, offset },
        };
        expected.get_mut(&LOG).unwrap().possibly_cut = matches!(cut, Cut::MaybeSynced { .. });
        assert_eq!((replayed.cut, replayed.logs), (cut, expected), "{at}");
    }
}

/// Sectors reach the disk in any order; whichever are missing, nothing half is taken and nobody was promised anything.
#[test]
fn every_set_of_missing_sectors_is_torn() {
    let whole = little();
    let states = prefixes(&whole);
    let last = whole.batches[2];
    let sectors = last.bytes / 512;
    for missing in 1u32..1 << sectors {
        let mut disk = whole.clone();
        for sector in (0..sectors).filter(|sector| missing & (1 << sector) != 0) {
            let at = usize::try_from(last.offset).unwrap() + sector * 512;
            disk.last_file()[at..at + 512].fill(0);
        }
        let replayed = disk.replay().unwrap();
        let all = missing == (1 << sectors) - 1;
        if replayed.logs == states[3] {
            assert_eq!((replayed.mended, replayed.cut), (1, Cut::None));
        } else {
            assert_eq!(replayed.logs, states[2]);
            assert_eq!(matches!(replayed.cut, Cut::Torn { .. }), !all, "{:?}", replayed.cut);
            assert_eq!(replayed.end.blank, all);
        }
    }
}

/// S12, S13: one flipped bit anywhere never yields anything but the truth, less a tail that is reported.
#[test]
fn every_single_bit_flip_is_harmless_or_seen() {
    let whole = little();
    let states = prefixes(&whole);
    let used = usize::try_from(whole.encoder.offset()).unwrap();
    for at in 0..used {
        let bit = at % 8;
        let mut disk = whole.clone();
        disk.last_file()[at] ^= 1 << bit;
        let last = usize::try_from(whole.batches[2].offset).unwrap();
        match disk.replay() {
            Ok(replayed) if replayed.logs == states[3] && replayed.cut == Cut::None => {}
            Ok(replayed) => {
                assert!(at >= last, "{at}");
                assert!(matches!(replayed.cut, Cut::MaybeSynced { .. }), "{at}");
                assert!(replayed.logs[&LOG].possibly_cut);
                assert_eq!(replayed.logs[&LOG].entries, states[2][&LOG].entries);
            }
            Err(ReplayError::Corrupt { offset, .. }) => {
                let batch = whole.batches.iter().rfind(|batch| batch.offset <= at as u64).unwrap();
                assert_eq!(offset, batch.offset);
                assert!(at < last);
            }
            Err(other) => panic!("{at}: {other}"),
        }
    }
}

/// S12: one rotten sector does not make a node forget its vote.
#[test]
fn a_vote_is_kept_twice() {
    let mut whole = Disk::new();
    whole.write(&[Record::Birth(LOG, RaftId(1)), hard_state(1, 0, 0)]);
    let batch = whole.write(&[hard_state(5, 3, 0)]);
    assert_eq!(batch.bytes, 1024);
    for (sectors, kept) in [(vec![0], true), (vec![1], true), (vec![0, 1], false)] {
        let mut disk = whole.clone();
        for sector in sectors {
            let at = usize::try_from(batch.offset).unwrap() + sector * 512;
            disk.last_file()[at..at + 512].fill(0xa5);
        }
        let replayed = disk.replay().unwrap();
        assert_eq!(replayed.logs[&LOG].hard_state.vote == 3, kept);
        assert_eq!(replayed.mended, usize::from(kept));
        assert_eq!(replayed.logs[&LOG].possibly_cut, !kept);
    }
}

/// A batch that was not synced when later ones were written may be missing although they are there.
#[test]
fn an_unsynced_batch_may_be_lost_before_later_ones() {
    let mut disk = Disk::new();
    disk.write(&[Record::Birth(LOG, RaftId(1)), hard_state(1, 0, 0)]);
    disk.lazy = true;
    let lost = disk.write(&[hard_state(1, 0, 1)]);
    disk.write(&[hard_state(1, 0, 2)]);
    let at = usize::try_from(lost.offset).unwrap();
    let mut torn = disk.clone();
    torn.last_file()[at..at + 1024].fill(0);
    let file = disk.files[0].0.clone();
    let offset = lost.offset;
    assert_eq!(torn.replay().unwrap().cut, Cut::Torn { file: file.clone(), offset });
    let mut rotten = disk.clone();
    rotten.last_file()[at..at + 1024].fill(0xa5);
    assert_eq!(rotten.replay().unwrap().cut, Cut::MaybeSynced { file: file.clone(), offset });
    // And with a later one that knows it was synced, it is rot.
    disk.encoder.synced(u64::MAX);
    disk.write(&[hard_state(1, 0, 3)]);
    disk.last_file()[at..at + 1024].fill(0);
    let what = "a batch that later ones know to be synced is damaged";
    assert_eq!(disk.replay(), Err(ReplayError::Corrupt { file, offset, what }));
}

/// S12: a cut that leaves nothing of a log, nor of the log that says whose it was, is remembered as well.
#[test]
fn a_log_of_which_nothing_is_left_is_cut() {
    let mut disk = Disk::new();
    disk.write(&[Record::Birth(LogId::default(), RaftId(1)), hard_state(1, 0, 0)]);
    let end = usize::try_from(disk.encoder.offset()).unwrap();
    let start = usize::try_from(disk.batches[0].offset).unwrap();
    disk.last_file()[start..end].fill(0xa5);
    let cut = LogState { possibly_cut: true, ..LogState::default() };
    for _ in 0..3 {
        let replayed = disk.replay().unwrap();
        assert_eq!(replayed.logs[&LogId::default()], cut);
        disk = Disk::after(disk.files, &replayed.end);
    }
    disk.write(&[Record::Birth(LogId::default(), RaftId(9))]);
    assert!(!disk.replay().unwrap().logs[&LogId::default()].possibly_cut);
}

/// S12: what may have been lost is remembered over restarts, until the log is born as another replica.
#[test]
fn a_cut_is_remembered_until_the_log_is_born_anew() {
    let mut disk = little();
    let end = usize::try_from(disk.encoder.offset()).unwrap();
    let start = usize::try_from(disk.batches[2].offset).unwrap();
    disk.last_file()[start..end].fill(0xa5);
    let mut replayed = disk.replay().unwrap();
    for _ in 0..3 {
        assert!(replayed.logs[&LOG].possibly_cut && !replayed.end.blank || replayed.cut == Cut::None);
        disk = Disk::after(disk.files, &replayed.end);
        // A log written forward is still the one that was cut.
        disk.write(&[Record::Birth(LOG, RaftId(1)), hard_state(1, 2, 0)]);
        replayed = disk.replay().unwrap();
        assert!(replayed.logs[&LOG].possibly_cut);
        assert_eq!(replayed.logs[&LOG].entries.len(), 2);
    }
    disk.write(&[Record::Birth(LOG, RaftId(9))]);
    let replayed = disk.replay().unwrap();
    let born = LogState { id: Some(RaftId(9)), ..LogState::default() };
    assert_eq!((&replayed.logs[&LOG], &replayed.end.possibly_cut), (&born, &BTreeMap::new()));
    let disk = Disk::after(disk.files, &replayed.end);
    assert_eq!(disk.replay().unwrap().logs[&LOG], born);
}

#[test]
fn segments_follow_each_other() {
    let mut disk = Disk::new();
    disk.write(&[Record::Birth(LOG, RaftId(1)), hard_state(1, 0, 0)]);
    for index in 1..=200 {
        disk.write(&[entry(index, 1, &[3; 700])]);
    }
    assert!(disk.files.len() > 3);
    let replayed = disk.replay().unwrap();
    assert_eq!(replayed.logs[&LOG].entries.len(), 200);
    // A segment that is missing, rotten, or twice there is never passed over.
    for missing in 0..disk.files.len() - 1 {
        let mut disk = disk.clone();
        disk.files.remove(missing);
        assert!(disk.replay().is_err(), "{missing}");
    }
    let mut twice = disk.clone();
    twice.files.insert(1, twice.files[0].clone());
    assert!(twice.replay().is_err());
    for at in (0..usize::try_from(SEGMENT).unwrap()).step_by(509) {
        let mut disk = disk.clone();
        disk.files[1].1[at] ^= 4;
        assert!(disk.replay().map_or(true, |replayed| replayed.logs[&LOG].entries.len() == 200), "{at}");
    }
    // The next segment, begun but with no header on disk yet, is nothing.
    disk.files.push(("next".to_owned(), vec![0; 9000]));
    assert_eq!(disk.replay().unwrap().logs[&LOG].entries.len(), 200);
}

/// Bytes that are in the wrong place, or from an older life of the file, are not taken.
#[test]
fn bytes_of_another_place_never_pass() {
    let disk = little();
    let other = Disk::after(disk.files.clone(), &disk.replay().unwrap().end);
    let mut moved = other.clone();
    let old = disk.files[0].1[4096..].to_vec();
    moved.last_file()[4096..].copy_from_slice(&old);
    let replayed = moved.replay().unwrap();
    assert_eq!(replayed.logs[&LOG].entries, other.replay().unwrap().logs[&LOG].entries);
    assert!(matches!(replayed.cut, Cut::MaybeSynced { .. }));
}

#[test]
fn an_unknown_version_is_refused_by_name() {
    for (kind, version) in [(Kind::Entry as u8, 2), (Kind::BatchStart as u8, 7), (99, 1)] {
        let mut disk = little();
        let at = disk.encoder.offset();
        let mut bytes = Vec::new();
        push_as(&mut bytes, SegmentId(1), at, (kind, version), b"from the future");
        whiten(SegmentId(1), at, &mut bytes);
        let from = usize::try_from(at).unwrap();
        disk.last_file()[from..from + bytes.len()].copy_from_slice(&bytes);
        let file = disk.files[0].0.clone();
        if version == 1 || kind != Kind::Entry as u8 || version == 2 {
            let expected = ReplayError::UnknownVersion { file, offset: at, kind, version };
            assert_eq!(disk.replay(), Err(expected));
        }
    }
}

#[test]
fn what_is_too_large_is_refused() {
    let mut disk = Disk::new();
    let offset = disk.encoder.offset();
    let mut bytes = Vec::new();
    let refused = disk.encoder.encode(&[entry(1, 1, &[1; 70_000])], &mut bytes);
    assert!(matches!(refused, Err(EncodeError::BatchTooLarge { .. })));
    let refused = disk.encoder.encode(&[entry(1, 1, &vec![1; RECORD_MAX_BYTES])], &mut bytes);
    assert!(matches!(refused, Err(EncodeError::RecordTooLarge { .. })));
    assert_eq!((bytes.len(), disk.encoder.offset()), (0, offset));
}

/// S14: an idle log does not keep the segments of a busy one.
#[test]
fn an_idle_log_is_written_forward() {
    let idle = LogId(1);
    let own = |record: Record| match record {
        Record::Entry(_, entry) => Record::Entry(idle, entry),
        Record::HardState(_, hard_state) => Record::HardState(idle, hard_state),
        Record::Birth(_, id) => Record::Birth(idle, id),
        Record::Snapshot(_, snapshot) => Record::Snapshot(idle, snapshot),
    };
    let mut disk = Disk::new();
    let mut liveness = Liveness::default();
    let idle_records = [Record::Birth(LOG, RaftId(1)), snapshot(5, 1), hard_state(1, 1, 6), entry(6, 1, b"a"), entry(7, 1, b"b")].map(own);
    let write = |disk: &mut Disk, liveness: &mut Liveness, records: &[Record]| {
        let batch = disk.write(records);
        records.iter().for_each(|record| liveness.note(batch.segment, record));
        batch.segment
    };
    write(&mut disk, &mut liveness, &idle_records);
    write(&mut disk, &mut liveness, &[Record::Birth(LOG, RaftId(1)), hard_state(1, 1, 0)]);
    for index in 1..=200 {
        write(&mut disk, &mut liveness, &[entry(index, 1, &[3; 700])]);
    }
    let current = disk.encoder.segment();
    let busy = [Record::Birth(LOG, RaftId(1)), snapshot(199, 1), hard_state(1, 1, 199), entry(200, 1, &[3; 700])];
    let at = write(&mut disk, &mut liveness, &busy);
    liveness.rewritten(LOG, at);
    assert_eq!(liveness.first_needed(), Some(SegmentId(1)));
    assert_eq!(liveness.pinning(current), [idle]);
    let at = write(&mut disk, &mut liveness, &idle_records);
    liveness.rewritten(idle, at);
    assert_eq!((liveness.first_needed(), liveness.pinning(current)), (Some(current), vec![]));
    // What is left is enough, and replay keeps the same account of it.
    let before = disk.replay().unwrap().logs;
    disk.files.retain(|(name, _)| *name >= format!("{:016}", current.0));
    assert_eq!(disk.files.len(), 1);
    let after = disk.replay().unwrap();
    assert_eq!(after.logs, before);
    assert_eq!(after.logs[&idle].entries.len(), 2);
    assert_eq!(after.liveness.first_needed(), Some(current));
}

/// What a crash left of a log that was being written forward frees nothing: read from there on, what came before would be gone.
#[test]
fn a_log_written_forward_in_part_keeps_what_it_was_written_from() {
    let mut disk = Disk::new();
    let large = Record::Snapshot(LOG, Snapshot { index: 5, term: 1, data: vec![7; 59_500], ..Snapshot::default() });
    let begin = [Record::Birth(LOG, RaftId(1)), large, hard_state(1, 1, 5)];
    disk.write(&begin);
    for index in 6..=100 {
        disk.write(&[entry(index, 1, &[3; 700])]);
    }
    let before = disk.replay().unwrap().logs;
    disk.write(&begin);
    let replayed = disk.replay().unwrap();
    assert_eq!((replayed.logs, replayed.liveness.first_needed()), (before, Some(SegmentId(1))));
}

#[test]
fn a_log_without_its_beginning_is_refused() {
    let mut disk = Disk::new();
    disk.write(&[hard_state(1, 0, 0), entry(5, 1, b"a")]);
    assert_eq!(disk.replay(), Err(ReplayError::Gap { log: LOG, index: 1 }));
}

fn any_record() -> impl Strategy<Value = Record> {
    let log = (0u32..3).prop_map(LogId);
    let data = || prop::collection::vec(any::<u8>(), 0..900);
    (log, 0u8..12, any::<(u64, u64, u64)>(), data(), data()).prop_map(|(log, kind, (a, b, c), data, context)| match kind {
        0 => Record::Birth(log, RaftId(a % 3)),
        1 | 2 => Record::HardState(log, HardState { term: a, vote: b, commit: c }),
        3 => {
            let (index, term, voters) = (a % 10, b % 4, Voters::default());
            Record::Snapshot(log, Snapshot { index, term, voters, data })
        }
        _ => {
            let (index, term, kind) = (a % 10, b % 4, if c % 5 == 0 { EntryKind::ConfChange } else { EntryKind::Normal });
            Record::Entry(log, Entry { index, term, kind, data, context })
        }
    })
}

/// But for logs of which nothing is left.
fn flat(logs: &BTreeMap<LogId, LogState>) -> String {
    let left: BTreeMap<_, _> = logs.iter().filter(|(_, log)| **log != LogState::default()).collect();
    format!("{left:?}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Damage to the newest batch leaves the state before it, or after it.
    #[test]
    fn replay_gives_a_prefix(
        batches in prop::collection::vec(prop::collection::vec(any_record(), 1..6), 1..12),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let mut disk = Disk::new();
        let mut before = Ok(BTreeMap::new());
        for batch in &batches {
            before = disk.replay().map(|replayed| replayed.logs);
            disk.write(batch);
        }
        let after = disk.replay().map(|replayed| replayed.logs);
        let last = *disk.batches.last().unwrap();
        for (at, byte) in damage {
            let at = usize::try_from(last.offset).unwrap() + at.index(last.bytes);
            disk.last_file()[at] = byte;
        }
        match disk.replay() {
            Ok(replayed) => {
                let mut logs = replayed.logs;
                logs.values_mut().for_each(|state| state.possibly_cut = false);
                let fits = |expected: &Result<BTreeMap<_, _>, _>| expected.as_ref().is_ok_and(|expected| flat(expected) == flat(&logs));
                prop_assert!(fits(&before) || fits(&after));
            }
            Err(error) => {
                let gap = matches!(error, ReplayError::Gap { .. });
                prop_assert!(gap);
                prop_assert!(before.is_err() || after.is_err());
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..20_000),
        header in any::<bool>(),
        zeros in prop::collection::vec((any::<prop::sample::Index>(), 0usize..3000), 0..4),
    ) {
        for (at, length) in zeros {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                let end = (at + length).min(bytes.len());
                bytes[at..end].fill(0);
            }
        }
        if header && bytes.len() > 4096 {
            bytes[..4096].copy_from_slice(&Encoder::begin(&End::default(), SEGMENT).1);
        }
        let mut replay = Replay::new();
        if replay.feed("random", bytes).is_ok() && let Ok(replayed) = replay.finish() {
            let nothing = LogState { possibly_cut: true, ..LogState::default() };
            prop_assert!(replayed.logs.into_values().all(|log| log == nothing));
        }
    }
}
