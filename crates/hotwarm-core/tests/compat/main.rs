//! What goes on the wire and on disk is frozen: these bytes were written by an earlier build and must stay as they are.
//!
//! A format changes only with its version, and then the old bytes must still be read. The golden files are hex, a line each.

mod control;
mod state;

use hotwarm_core::consensus::{Body, Change, ConfChange, Message, bootstrap};
use hotwarm_core::ids::RaftId;
use hotwarm_core::wal::{Encoder, End, Entry, EntryKind, HardState, LogId, Record, Replay, SegmentId, Snapshot, Voters};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("golden files are hex");
    (0..text.len()).step_by(2).map(digit).collect()
}

/// Fails with the lines that would be right now, to be looked at before they are taken over.
fn check(golden: &str, now: &[String]) {
    let golden: Vec<&str> = golden.lines().collect();
    assert!(golden == now, "the bytes changed; they are now\n{}", now.join("\n"));
}

fn voters() -> Voters {
    Voters { voters: vec![1, 2, 300], learners: vec![4], outgoing: vec![1, 5], learners_next: vec![5], auto_leave: true }
}

fn snapshot() -> Snapshot {
    Snapshot { index: 300, term: 5, voters: voters(), data: b"state".to_vec() }
}

fn entry() -> Entry {
    Entry { index: 301, term: 6, kind: EntryKind::Normal, data: b"input".to_vec(), context: b"who".to_vec() }
}

fn conf_changes() -> Vec<ConfChange> {
    let changes = [Change::AddLearner(RaftId(7)), Change::AddVoter(RaftId(8)), Change::Remove(RaftId(9))];
    changes.map(ConfChange::Simple).into_iter().chain([ConfChange::Joint(changes.to_vec())]).collect()
}

fn messages() -> Vec<Message> {
    let change = Entry { kind: EntryKind::ConfChange, data: vec![0, 1, 8], context: Vec::new(), index: 302, term: 6 };
    let bodies = [
        Body::Append { index: 300, log_term: 5, commit: 299, entries: vec![entry(), change] },
        Body::Appended { index: 302, commit: 301 },
        Body::AppendRefused { index: 302, hint: 280, log_term: 4, commit: 270 },
        Body::Heartbeat { commit: 301, read: Some(70_000) },
        Body::HeartbeatAnswer { commit: 301, read: None },
        Body::Snapshot(snapshot()),
        Body::Vote { pre: true, transfer: false, index: 302, log_term: 6, commit: 301, commit_term: 6 },
        Body::VoteAnswer { pre: false, granted: true, commit: 301, commit_term: 6, ack_age_us: Some(1_500_000) },
        Body::TimeoutNow,
    ];
    bodies.map(|body| Message { log: LogId(3), from: RaftId(1), to: RaftId(300), term: 6, body }).into()
}

fn records() -> Vec<Record> {
    let log = LogId(3);
    let hard_state = HardState { term: 6, vote: 300, commit: 301 };
    vec![
        Record::Birth(log, RaftId(300)),
        Record::HardState(log, hard_state),
        Record::Snapshot(log, snapshot()),
        Record::Entry(log, entry()),
    ]
}

#[test]
fn messages_are_frozen() {
    let golden = include_str!("messages.hex");
    check(golden, &messages().iter().map(|message| hex(&message.encode())).collect::<Vec<_>>());
    for (line, message) in golden.lines().zip(messages()) {
        assert_eq!(Message::decode(&unhex(line)), Ok(message));
    }
}

#[test]
fn changes_of_voters_are_frozen() {
    let golden = include_str!("conf_changes.hex");
    for (line, change) in golden.lines().zip(conf_changes()) {
        assert_eq!(ConfChange::decode(&unhex(line)), Some(change), "{line}");
    }
    assert_eq!(golden.lines().count(), conf_changes().len());
}

/// The header of a segment and one batch.
#[test]
fn the_write_ahead_log_is_frozen() {
    let golden = include_str!("wal.hex");
    let end = End { at: Some((SegmentId(6), 9216)), blank: false, seq: 41, possibly_cut: [(LogId(2), RaftId(17))].into() };
    let (mut encoder, header) = Encoder::begin(&end, 1 << 20);
    let mut batch = Vec::new();
    encoder.encode(&records(), &mut batch).unwrap();
    // The header is two copies and zeros.
    assert!(header[64..2048].iter().chain(&header[2048 + 64..]).all(|byte| *byte == 0));
    check(golden, &[hex(&header[..64]), hex(&header[2048..2048 + 64]), hex(&batch)]);

    let mut file = header;
    file.extend(unhex(golden.lines().nth(2).unwrap()));
    let mut replay = Replay::new();
    replay.feed("golden", file).unwrap();
    let replayed = replay.finish().unwrap();
    let log = &replayed.logs[&LogId(3)];
    assert_eq!((log.id, &log.snapshot, &log.entries), (Some(RaftId(300)), &Some(snapshot()), &vec![entry()]));
    assert_eq!(replayed.end.possibly_cut, end.possibly_cut);
}

#[test]
fn a_log_is_born_the_same_way() {
    let first = Snapshot { index: 1, term: 1, voters: Voters { voters: vec![7], ..Voters::default() }, data: b"state".to_vec() };
    let hard_state = HardState { term: 1, vote: 0, commit: 1 };
    let log = LogId(3);
    let expected = [Record::Birth(log, RaftId(7)), Record::Snapshot(log, first), Record::HardState(log, hard_state)];
    assert_eq!(bootstrap(log, RaftId(7), b"state".to_vec()), expected);
}
