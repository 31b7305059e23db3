//! What a log must live through, told on the little cluster.

use super::cluster::{Cluster, TICK_US, encode_state};
use crate::consensus::{Body, Change, ConfChange, Leadership, ProposeError, ReadError, ReplicaRole, TransferError};
use crate::ids::{Mono, RaftId};

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
fn a_read_before_the_terms_first_commit_is_answered_after_it() {
    let mut cluster = Cluster::three(8);
    cluster.stop(1);
    let now = cluster.now;
    // Two is elected with three's vote, and the answer to its first entry is lost.
    cluster.tick(20);
    cluster.at(2).campaign(now);
    while !cluster.at(2).leads() {
        cluster.drain(2);
        cluster.drain(3);
        for message in std::mem::take(&mut cluster.network) {
            if !matches!(message.body, Body::Appended { .. }) && message.to.0 != 1 {
                let _ = cluster.at(message.to.0).handle_message(now, message);
            }
        }
    }
    cluster.at(2).read_index(1).unwrap();
    assert!(cluster.nodes[&2].reads.is_empty());
    cluster.tick(20);
    let commit = cluster.at(2).status().commit;
    assert_eq!(cluster.nodes[&2].reads, [(1, commit)]);
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
    cluster.heal();
    // The first snapshot on its way is lost.
    for _ in 0..100 {
        cluster.cut.insert((1, 3));
        cluster.tick(1);
        if cluster.said.iter().any(|message| matches!(message.body, Body::Snapshot(_))) {
            break;
        }
        cluster.cut.clear();
        cluster.tick(1);
    }
    cluster.heal();
    cluster.propose("after");
    cluster.tick_until(|cluster| cluster.data(3) == cluster.data(1));
    assert!(cluster.said.iter().any(|message| matches!(message.body, Body::Snapshot(_))));
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
    let small = (0..20_000).find_map(|_| cluster.at(1).propose(vec![1], vec![]).err());
    assert_eq!(small, Some(ProposeError::Full));
    let refused = cluster.at(2).propose(vec![1], Vec::new());
    assert_eq!(refused, Err(ProposeError::NotLeader { leader: Some(RaftId(1)) }));
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
    assert!(until <= cut_at && until >= cut_at.minus(std::time::Duration::from_micros(5 * TICK_US)), "{until:?} {cut_at:?}");
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

/// Entries that replace ones still on their way to disk are held.
#[test]
fn a_slow_disk_sees_no_entry_replaced_under_way() {
    let mut cluster = Cluster::three(18);
    cluster.nodes.get_mut(&3).unwrap().stalled = true;
    // Three has an entry of the old leader that nobody else has, and it is not durable.
    cluster.cut.insert((1, 2));
    cluster.propose("lost");
    cluster.stop(1);
    cluster.heal();
    cluster.cut.extend([(3, 2), (2, 3)]);
    cluster.tick(20);
    cluster.nodes.get_mut(&3).unwrap().replica.as_mut().unwrap();
    cluster.heal();
    let pending = cluster.nodes[&3].pending.len();
    // Two cannot win without three, whose disk stalls; so one returns without the entry it lost, and wins with two.
    let node = cluster.nodes.get_mut(&1).unwrap();
    node.disk.retain(|record| !format!("{record:?}").contains(&format!("{:?}", b"lost".to_vec())));
    cluster.start(1);
    cluster.tick_until(|cluster| matches!(cluster.leader(), Some(1 | 2)));
    cluster.propose("kept");
    cluster.tick(50);
    let entries = |cluster: &Cluster, text: &str| {
        let text = format!("{:?}", text.as_bytes().to_vec());
        cluster.nodes[&3].pending.iter().filter(|(_, records)| format!("{records:?}").contains(&text)).count()
    };
    assert_eq!((entries(&cluster, "lost"), entries(&cluster, "kept")), (1, 0));
    assert!(pending > 0);
    cluster.nodes.get_mut(&3).unwrap().stalled = false;
    cluster.tick(50);
    assert_eq!(cluster.data(3), ["born", "kept"]);
    assert!(cluster.now > Mono(0));
}
