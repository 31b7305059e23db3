//! What a log must live through, told on the little cluster.

use std::time::Duration;

use super::cluster::{Cluster, TICK_US, encode_state, recover};
use crate::consensus::{
    Body, Change, ConfChange, IN_FLIGHT_MAX, Leadership, Message, Options, ProposeError, ReadError, ReadState, Recovered, Replica,
    ReplicaRole, TransferError,
};
use crate::ids::{Mono, RaftId};
use crate::wal::{Encoder, End, Entry, EntryKind, HardState, LogId, Record, Replay, Snapshot, Voters};

#[test]
fn a_founder_leads_alone() {
    let mut cluster = Cluster::new(1, 1);
    cluster.tick_until(|cluster| cluster.leader() == Some(1));
    cluster.propose("a");
    assert_eq!(cluster.data(1), ["born", "a"]);
}

#[test]
fn three_voters_agree() {
    let mut cluster = Cluster::three(1);
    for data in ["a", "b", "c"] {
        cluster.propose(data);
    }
    cluster.tick(5);
    for id in 1..=3 {
        assert_eq!(cluster.data(id), ["born", "a", "b", "c"]);
    }
    let status = cluster.at(1).status();
    assert_eq!(status.voters.voters, [1, 2, 3]);
    assert!(status.peers.iter().all(|peer| peer.active && peer.matched == status.last));
}

#[test]
fn a_lost_leader_is_replaced_and_nothing_committed_is_lost() {
    for seed in 0..20 {
        let mut cluster = Cluster::three(seed);
        cluster.propose("a");
        cluster.stop(1);
        let before = cluster.now;
        cluster.tick_until(|cluster| cluster.leader().is_some());
        assert!(cluster.now.since(before).as_micros() < 1_000_000);
        cluster.propose("b");
        cluster.start(1);
        cluster.tick(50);
        assert_eq!(cluster.data(1), ["born", "a", "b"]);
    }
}

#[test]
fn a_leader_whose_process_ended_is_replaced_before_it_could_be_found_silent() {
    let patience = Duration::from_micros(Options::new(RaftId(1), LogId(0), 0).election_ticks.0 as u64 * TICK_US);
    let soon = |seed: &u64| {
        let mut cluster = Cluster::three(*seed);
        cluster.propose("a");
        cluster.stop(1);
        let before = cluster.now;
        cluster.at(2).leader_ended();
        cluster.at(3).leader_ended();
        cluster.tick_until(|cluster| cluster.leader().is_some());
        let took = cluster.now.since(before);
        cluster.propose("b");
        cluster.start(1);
        cluster.tick(50);
        assert_eq!(cluster.data(1), ["born", "a", "b"]);
        took < patience / 2
    };
    // Those who ask in the same tick must ask again, and here all tick at once.
    let soon = (0..20).filter(soon).count();
    assert!(soon >= 15, "{soon}");
}

#[test]
fn a_leader_that_lives_is_not_replaced_for_what_one_voter_is_told() {
    for seed in 0..20 {
        let mut cluster = Cluster::three(seed);
        let term = cluster.at(1).leadership().term;
        cluster.at(3).leader_ended();
        cluster.tick(100);
        assert_eq!((cluster.leader(), cluster.at(1).leadership().term), (Some(1), term));
        assert_eq!(cluster.at(3).leader(), Some(RaftId(1)));
    }
}

#[test]
fn a_learner_is_raised_and_removed() {
    let mut cluster = Cluster::new(3, 2);
    cluster.tick_until(|cluster| cluster.leader() == Some(1));
    cluster.propose("a");
    let change = |change| ConfChange::Simple(change);
    cluster.at(1).propose_conf_change(&change(Change::AddLearner(RaftId(2))), b"who").unwrap();
    assert_eq!(cluster.at(1).propose_conf_change(&change(Change::AddVoter(RaftId(2))), b""), Err(ProposeError::ConfChangePending));
    cluster.tick(10);
    assert_eq!(cluster.data(2), ["born", "a"]);
    assert_eq!(cluster.at(2).voters().learners, [2]);
    cluster.at(1).propose_conf_change(&change(Change::AddVoter(RaftId(2))), b"").unwrap();
    cluster.tick(10);
    assert_eq!(cluster.at(2).voters().voters, [1, 2]);
    cluster.at(1).propose_conf_change(&change(Change::Remove(RaftId(2))), b"").unwrap();
    cluster.tick(10);
    assert_eq!(cluster.at(1).voters().voters, [1]);
    cluster.propose("b");
    assert_eq!(cluster.data(1), ["born", "a", "b"]);
}

#[test]
fn impossible_changes_are_refused() {
    let mut cluster = Cluster::three(3);
    for change in [
        ConfChange::Joint(vec![]),
        ConfChange::Simple(Change::AddVoter(RaftId(0))),
        ConfChange::Joint((1..=3).map(|id| Change::Remove(RaftId(id))).collect()),
    ] {
        let refused = cluster.at(1).propose_conf_change(&change, b"");
        assert!(matches!(refused, Err(ProposeError::ConfChangeInvalid(_))), "{refused:?}");
    }
}

#[test]
fn a_voter_is_replaced_in_one_joint_change() {
    let mut cluster = Cluster::three(4);
    cluster.nodes.insert(4, super::cluster::Node::default());
    cluster.start(4);
    let change = ConfChange::Joint(vec![Change::AddVoter(RaftId(4)), Change::Remove(RaftId(3))]);
    cluster.at(1).propose_conf_change(&change, b"").unwrap();
    cluster.tick(20);
    let voters = cluster.at(4).voters().clone();
    assert_eq!((voters.voters, voters.outgoing), (vec![1, 2, 4], vec![]));
    assert_eq!(cluster.at(1).voters().voters, [1, 2, 4]);
}

#[test]
fn a_leader_that_removes_itself_steps_down() {
    let mut cluster = Cluster::three(5);
    cluster.at(1).propose_conf_change(&ConfChange::Simple(Change::Remove(RaftId(1))), b"").unwrap();
    cluster.tick(5);
    assert!(!cluster.at(1).leads());
    cluster.tick_until(|cluster| matches!(cluster.leader(), Some(2 | 3)));
    cluster.propose("a");
    cluster.tick(60);
    assert_eq!(cluster.data(2), ["born", "a"]);
    assert!(!cluster.at(1).leads());
}

#[test]
fn leadership_is_handed_over_at_once() {
    let mut cluster = Cluster::three(6);
    assert_eq!(cluster.at(2).transfer_leader(RaftId(3)), Err(TransferError::NotLeader { leader: Some(RaftId(1)) }));
    assert_eq!(cluster.at(1).transfer_leader(RaftId(9)), Err(TransferError::NotVoter { to: RaftId(9) }));
    cluster.isolate(3);
    cluster.at(1).transfer_leader(RaftId(3)).unwrap();
    let refused = cluster.at(1).propose(b"a".to_vec(), Vec::new());
    assert_eq!(refused, Err(ProposeError::Transferring { to: RaftId(3) }));
    cluster.heal();
    cluster.tick_until(|cluster| cluster.leader() == Some(3));
    cluster.at(3).transfer_leader(RaftId(2)).unwrap();
    cluster.settle();
    assert_eq!(cluster.leader(), Some(2));
}

#[test]
fn a_read_asked_for_at_a_heartbeat_costs_no_message_of_its_own() {
    let mut cluster = Cluster::three(7);
    cluster.propose("a");
    let mut now = Mono(3_600_000_000);
    while !cluster.at(1).tick(now) {
        now = now.plus(Duration::from_millis(10));
    }
    cluster.at(1).read_index(70).unwrap();
    let ready = cluster.at(1).poll_ready(now).expect("heartbeats are to be sent");
    let to: Vec<u64> = ready.messages.iter().map(|message| message.to.0).collect();
    assert_eq!(to, [2, 3], "{:?}", ready.messages);
    assert!(ready.messages.iter().all(|m| matches!(m.body, Body::Heartbeat { read: Some(_), .. })), "{:?}", ready.messages);
}

#[test]
fn a_tick_that_may_be_left_out_only_counts() {
    let mut cluster = Cluster::three(8);
    let mut left_out = 0;
    for _ in 0..200 {
        // Every other round somebody is alone, so that there are followers, candidates and leaders in all states.
        cluster.heal();
        if left_out % 2 == 0 {
            cluster.isolate(1 + left_out % 3);
        }
        cluster.tick(1);
        for id in 1..=3 {
            let now = cluster.now;
            for _ in 0..cluster.at(id).idle_ticks() {
                left_out += 1;
                assert!(!cluster.at(id).tick(now), "no heartbeat");
                assert_eq!(cluster.at(id).poll_ready(now), None);
            }
        }
    }
    assert!(left_out > 500, "{left_out}");
}

#[test]
fn reads_wait_for_a_round_and_fail_with_the_leadership() {
    let mut cluster = Cluster::three(7);
    cluster.propose("a");
    let commit = cluster.at(1).status().commit;
    for context in 1..=3 {
        cluster.at(1).read_index(context).unwrap();
    }
    cluster.settle();
    assert_eq!(cluster.nodes[&1].reads, [(1, commit), (2, commit), (3, commit)]);
    assert_eq!(cluster.at(2).read_index(4), Err(ReadError::NotLeader { leader: Some(RaftId(1)) }));
    cluster.isolate(1);
    cluster.at(1).read_index(5).unwrap();
    cluster.tick(100);
    assert_eq!((cluster.nodes[&1].reads.len(), &cluster.nodes[&1].reads_failed), (3, &vec![5]));
}

#[test]
fn one_far_behind_is_sent_the_snapshot_even_if_the_first_is_lost() {
    let mut cluster = Cluster::three(9);
    cluster.isolate(3);
    for n in 0..20 {
        cluster.propose(&format!("n{n}"));
    }
    let (applied, state) = (cluster.at(1).status().applied, encode_state(&cluster.nodes[&1].applied));
    cluster.at(1).take_snapshot(applied, state.clone()).unwrap();
    assert!(cluster.at(1).take_snapshot(applied, state).is_err());
    assert!(cluster.at(1).take_snapshot(applied + 1, Vec::new()).is_err());
    cluster.at(1).compact(applied);
    cluster.tick(5);
    cluster.snapshots_to_lose = 2;
    cluster.heal();
    cluster.propose("after");
    cluster.tick_until(|cluster| cluster.data(3) == cluster.data(1));
    assert_eq!(cluster.snapshots_to_lose, 0);
    // And it stands on its own feet after a restart.
    let last = cluster.data(1);
    cluster.start(3);
    cluster.tick(10);
    assert_eq!(cluster.data(3), last);
}

#[test]
fn everyone_restarts_from_its_records() {
    let mut cluster = Cluster::three(10);
    for n in 0..10 {
        cluster.propose(&format!("n{n}"));
    }
    let (applied, state) = (cluster.at(1).status().applied, encode_state(&cluster.nodes[&1].applied));
    cluster.at(1).take_snapshot(applied, state).unwrap();
    cluster.at(1).compact(applied);
    cluster.propose("after");
    let data = cluster.data(1);
    for id in 1..=3 {
        cluster.stop(id);
    }
    for id in 1..=3 {
        cluster.start(id);
    }
    cluster.tick_until(|cluster| cluster.leader().is_some());
    cluster.tick(10);
    for id in 1..=3 {
        assert_eq!(cluster.data(id), data);
        assert_eq!(cluster.at(id).voters().voters, [1, 2, 3]);
    }
}

#[test]
fn a_partitioned_voter_disturbs_nobody_when_it_returns() {
    let mut cluster = Cluster::three(11);
    let term = cluster.at(1).leadership().term;
    cluster.isolate(3);
    cluster.tick(300);
    cluster.heal();
    cluster.tick(100);
    let expected = Leadership { term, role: ReplicaRole::Leader, leader: Some(RaftId(1)) };
    assert_eq!(cluster.at(1).leadership(), expected);
    assert_eq!(cluster.at(3).leadership().term, term);
}

#[test]
fn a_leader_without_a_quorum_steps_down() {
    let mut cluster = Cluster::three(12);
    cluster.isolate(1);
    cluster.tick(60);
    assert!(!cluster.at(1).leads());
}

#[test]
fn proposals_are_bounded() {
    let mut cluster = Cluster::three(13);
    cluster.isolate(1);
    assert_eq!(cluster.at(1).propose(Vec::new(), Vec::new()), Err(ProposeError::Empty));
    let refused = cluster.at(1).propose(vec![1; 5 << 20], Vec::new());
    assert!(matches!(refused, Err(ProposeError::TooLarge { .. })));
    let full = (0..10).find_map(|_| cluster.at(1).propose(vec![1; 4 << 20], Vec::new()).err());
    assert_eq!(full, Some(ProposeError::Full));
    let mut cluster = Cluster::three(13);
    cluster.isolate(1);
    let small = (0..1_000).find_map(|_| {
        let refused = cluster.at(1).propose(vec![1], vec![]).err();
        cluster.settle();
        refused
    });
    assert_eq!(small, Some(ProposeError::Full));
    let refused = cluster.at(2).propose(vec![1], Vec::new());
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: Some(RaftId(1)) }));
}

/// S14: its followers commit what it proposes, so nothing else would end it.
#[test]
fn a_leader_whose_disk_hangs_proposes_no_more_than_may_be_in_flight() {
    let mut cluster = Cluster::three(13);
    let before = cluster.at(1).status().last;
    cluster.nodes.get_mut(&1).unwrap().stalled = true;
    let refused = (0..1_000).find_map(|_| {
        let refused = cluster.at(1).propose(vec![b'a'], vec![]).err();
        cluster.settle();
        refused
    });
    assert_eq!(refused, Some(ProposeError::DiskBehind { entries: IN_FLIGHT_MAX }));
    let status = cluster.at(1).status();
    assert_eq!((status.last, status.commit), (before + IN_FLIGHT_MAX, before + IN_FLIGHT_MAX));
    cluster.nodes.get_mut(&1).unwrap().stalled = false;
    cluster.settle();
    cluster.propose("b");
    assert_eq!(cluster.data(1).last().unwrap(), "b");
}

/// S3: the new leader knows when its voters last followed the old one.
#[test]
fn a_new_leader_knows_until_when_the_old_one_was_followed() {
    let mut cluster = Cluster::three(14);
    cluster.tick(10);
    cluster.isolate(1);
    let cut_at = cluster.now;
    cluster.tick_until(|cluster| matches!(cluster.leader(), Some(2 | 3)));
    let leader = cluster.leader().unwrap();
    let until = cluster.at(leader).older_term_acked_until().unwrap();
    assert!(until <= cut_at && until >= cut_at.minus(Duration::from_micros(5 * TICK_US)), "{until:?} {cut_at:?}");
    assert_eq!(cluster.at(1).older_term_acked_until(), None);
    // A restarted voter does not know, so its start counts.
    let mut cluster = Cluster::three(15);
    cluster.stop(1);
    cluster.tick(500);
    cluster.stop(2);
    cluster.stop(3);
    cluster.start(2);
    cluster.start(3);
    let started = cluster.now;
    cluster.tick_until(|cluster| cluster.leader().is_some());
    let leader = cluster.leader().unwrap();
    assert_eq!(cluster.at(leader).older_term_acked_until(), Some(started));
}

#[test]
fn a_founder_waits_for_nobody() {
    let mut cluster = Cluster::new(1, 1);
    cluster.tick_until(|cluster| cluster.leader() == Some(1));
    assert_eq!(cluster.at(1).older_term_acked_until(), None);
    cluster.tick(100);
    let stopped = cluster.now;
    cluster.start(1);
    cluster.tick_until(|cluster| cluster.leader() == Some(1));
    assert_eq!(cluster.at(1).older_term_acked_until(), Some(stopped));
}

/// A follower says nothing that its disk does not yet hold.
#[test]
fn nothing_is_acknowledged_before_it_is_durable() {
    let mut cluster = Cluster::three(16);
    cluster.nodes.get_mut(&2).unwrap().stalled = true;
    cluster.nodes.get_mut(&3).unwrap().stalled = true;
    cluster.propose("a");
    cluster.tick(3);
    assert_eq!(cluster.data(1), ["born"]);
    cluster.nodes.get_mut(&2).unwrap().stalled = false;
    cluster.tick(3);
    assert_eq!(cluster.data(1), ["born", "a"]);
}

/// A voter that leads alone must not speak in a term that a crash could make it forget: it would lead it twice.
#[test]
fn a_sole_voter_speaks_only_in_a_durable_term() {
    let mut cluster = Cluster::new(17, 2);
    cluster.tick_until(|cluster| cluster.leader() == Some(1));
    cluster.at(1).propose_conf_change(&ConfChange::Simple(Change::AddLearner(RaftId(2))), b"").unwrap();
    cluster.tick(10);
    cluster.start(1);
    cluster.nodes.get_mut(&1).unwrap().stalled = true;
    cluster.said.clear();
    cluster.tick(60);
    assert!(cluster.at(1).leads());
    assert_eq!(cluster.said.iter().filter(|message| message.from.0 == 1).count(), 0);
    cluster.nodes.get_mut(&1).unwrap().stalled = false;
    cluster.tick(5);
    assert!(cluster.said.iter().any(|message| message.from.0 == 1));
}

/// Replica 2 of a log that 1 and 2 vote in, hearing leader 1 in term 2, and all that it has to do now.
fn follower() -> (Replica, impl Fn(Body) -> Message) {
    let voters = Voters { voters: vec![1, 2], ..Voters::default() };
    let snapshot = Snapshot { index: 1, term: 1, voters, data: b"born".to_vec() };
    let hard_state = HardState { term: 2, vote: 0, commit: 1 };
    let recovered = Recovered { hard_state, snapshot: Some(snapshot), entries: Vec::new() };
    let mut replica = Replica::new(Options::new(RaftId(2), LogId(0), 1), recovered, Mono(0)).unwrap();
    work(&mut replica, true);
    let say = |body| Message { log: LogId(0), from: RaftId(1), to: RaftId(2), term: 2, body };
    (replica, say)
}

fn entry(index: u64, term: u64, data: u8) -> Entry {
    Entry { index, term, kind: EntryKind::Normal, data: vec![data], context: Vec::new() }
}

/// Takes its work; the disk finishes if it is `durable`. Nothing is applied.
fn work(replica: &mut Replica, durable: bool) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(ready) = replica.poll_ready(Mono(0)) {
        messages.extend(ready.messages);
        if durable {
            replica.persisted(ready.number);
        }
    }
    messages
}

fn tick(replica: &mut Replica) -> Vec<Message> {
    (0..100)
        .flat_map(|_| {
            replica.tick(Mono(0));
            work(replica, true)
        })
        .collect()
}

#[test]
fn nobody_campaigns_on_a_snapshot_not_yet_applied() {
    let (mut replica, say) = follower();
    let voters = replica.voters().clone();
    let snapshot = Snapshot { index: 9, term: 2, voters, data: Vec::new() };
    replica.handle_message(Mono(0), say(Body::Snapshot(snapshot))).unwrap();
    work(&mut replica, true);
    replica.handle_message(Mono(0), say(Body::TimeoutNow)).unwrap();
    replica.campaign(Mono(0));
    assert_eq!(tick(&mut replica), []);
    replica.applied(9);
    assert!(matches!(tick(&mut replica)[0].body, Body::Vote { pre: true, .. }));
}

#[test]
fn nobody_leads_before_its_log_is_durable() {
    let (mut replica, say) = follower();
    let append = |index, log_term, commit, entry| Body::Append { index, log_term, commit, entries: vec![entry] };
    let alone = ConfChange::Simple(Change::Remove(RaftId(1))).encode();
    let change = Entry { kind: EntryKind::ConfChange, data: alone, ..entry(2, 2, 0) };
    let change = append(1, 1, 2, change);
    replica.handle_message(Mono(0), say(change)).unwrap();
    work(&mut replica, true);
    replica.applied(2);
    assert_eq!(replica.voters().voters, [2]);
    let more = append(2, 2, 2, entry(3, 2, 1));
    replica.handle_message(Mono(0), say(more)).unwrap();
    work(&mut replica, false);
    for _ in 0..100 {
        replica.tick(Mono(0));
        work(&mut replica, false);
    }
    assert!(!replica.leads());
    replica.persisted(u64::MAX);
    tick(&mut replica);
    assert!(replica.leads());
}

/// Entries that replace ones still on their way to disk are held.
#[test]
fn a_slow_disk_sees_no_entry_replaced_under_way() {
    let (mut replica, say) = follower();
    let append = |term, data| Body::Append { index: 1, log_term: 1, commit: 1, entries: vec![entry(2, term, data)] };
    replica.handle_message(Mono(0), say(append(2, 1))).unwrap();
    let first = replica.poll_ready(Mono(0)).unwrap();
    assert!(first.persist.contains(&Record::Entry(LogId(0), entry(2, 2, 1))));
    let later = Message { term: 3, ..say(append(3, 2)) };
    replica.handle_message(Mono(0), later).unwrap();
    assert!(replica.poll_ready(Mono(0)).is_none_or(|ready| ready.persist.is_empty()));
    replica.persisted(first.number);
    let second = replica.poll_ready(Mono(0)).unwrap();
    assert!(second.persist.contains(&Record::Entry(LogId(0), entry(2, 3, 2))));
}

/// raft-rs would drop the read (S15).
#[test]
fn a_read_before_the_terms_first_commit_is_answered_after_it() {
    let (mut replica, say) = follower();
    replica.campaign(Mono(0));
    work(&mut replica, true);
    for pre in [true, false] {
        let granted = Body::VoteAnswer { pre, granted: true, commit: 0, commit_term: 0, ack_age_us: None };
        let granted = Message { term: 3, ..say(granted) };
        replica.handle_message(Mono(0), granted).unwrap();
        work(&mut replica, true);
    }
    assert!(replica.leads());
    replica.read_index(7).unwrap();
    work(&mut replica, true);
    let appended = Message { term: 3, ..say(Body::Appended { index: 2, commit: 1 }) };
    replica.handle_message(Mono(0), appended).unwrap();
    let round = work(&mut replica, true).into_iter().find_map(|message| match message.body {
        Body::Heartbeat { read, .. } => read,
        _ => None,
    });
    let answer = Message { term: 3, ..say(Body::HeartbeatAnswer { commit: 1, read: round }) };
    replica.handle_message(Mono(0), answer).unwrap();
    let reads = std::iter::from_fn(|| replica.poll_ready(Mono(0))).flat_map(|ready| ready.reads);
    assert_eq!(reads.collect::<Vec<_>>(), [ReadState { context: 7, index: 2 }]);
}

/// S14: written forward, a log is the same log.
#[test]
fn a_rewritten_log_is_the_same_log() {
    let mut cluster = Cluster::three(19);
    for n in 0..10 {
        cluster.propose(&format!("n{n}"));
    }
    let (applied, state) = (cluster.at(1).status().applied, encode_state(&cluster.nodes[&1].applied));
    cluster.at(1).take_snapshot(applied, state).unwrap();
    cluster.propose("after");
    cluster.tick(5);
    for id in 1..=3 {
        let records = cluster.at(id).rewrite();
        let (mut encoder, header) = Encoder::begin(&End::default(), 1 << 20);
        let mut file = header;
        encoder.encode(&records, &mut file).unwrap();
        let mut replay = Replay::new();
        replay.feed("rewritten", file).unwrap();
        let state = replay.finish().unwrap().logs.remove(&LogId(0)).unwrap();
        assert_eq!(state.id, Some(RaftId(id)));
        assert_eq!(Recovered::from(state), recover(&cluster.nodes[&id].disk));
    }
}
