//! What a leader owes to the log, and a node that stood still to everybody.

use super::*;
use crate::consensus::{Body as LogBody, IN_FLIGHT_MAX, ReplicaRole};
use crate::wal::{Entry as LogEntry, EntryKind, LogState, Snapshot, Voters};

#[test]
fn s16_a_stall_however_long_is_one_tick() {
    let mut desk = settled();
    let leader = desk.leader();
    let name = desk.nodes.keys().find(|n| **n != leader).cloned().expect("three nodes");
    let node = desk.nodes.get_mut(&name).expect("known");
    while node.poll_action().is_some() {}
    // Long enough for any number of elections.
    node.handle_deadline(desk.now.plus(Duration::from_secs(60)));
    let votes = |action: &Action| {
        let Action::Send { bytes, .. } = action else { return false };
        matches!(Message::decode(bytes), Ok((_, Message::Log(message))) if matches!(message.body, LogBody::Vote { .. }))
    };
    assert!(!std::iter::from_fn(|| node.poll_action()).any(|action| votes(&action)), "it asks for votes");
    let (_, leadership) = node.leadership().expect("a replica");
    assert_eq!((leadership.role, node.leader()), (ReplicaRole::Follower, Some(leader)));
}

/// S14: what is told again and again while nothing becomes durable must not pile up, and who asks hears why nothing comes of it.
#[test]
fn a_sole_voter_whose_disk_hangs_proposes_no_more_than_may_be_in_flight() {
    let mut desk = Desk::new(&["a"]);
    desk.until(3000, "it serves", |d| d.serving("clock", "a").len() == 1);
    let name = NodeId::from("a");
    let in_flight = |d: &Desk| d.nodes[&name].replica.as_ref().map(Replica::status).map_or(0, |s| s.last - s.applied);
    let ask = |d: &mut Desk, ticket| {
        d.nodes.get_mut(&name).expect("known").handle_command(d.now, ticket, Command::Undrain { node: name.clone() });
    };
    desk.stalled.insert(name.clone(), Vec::new());
    ask(&mut desk, 1);
    desk.kill_member("web/a");
    desk.until(120_000, "as much waits for the disk as may", |d| in_flight(d) == IN_FLIGHT_MAX);
    ask(&mut desk, 2);
    desk.run(10_000);
    assert_eq!(in_flight(&desk), IN_FLIGHT_MAX);
    assert_eq!(desk.replies[&1], Err(CommandError::Unconfirmed), "it is in the log");
    assert_eq!(desk.replies[&2], Err(CommandError::DiskBehind), "it is not");
    for token in desk.stalled.remove(&name).expect("set above") {
        desk.later(&name, Todo::Persisted(token));
    }
    ask(&mut desk, 3);
    desk.until(1000, "the next command", |d| d.replies.contains_key(&3));
    assert!(desk.replies[&3].is_ok(), "{:?}", desk.replies[&3]);
    desk.until(2000, "the member that ended is back", |d| d.serving("web", "a").len() == 1);
}

#[test]
fn s18_a_new_leader_goes_on_from_the_last_time_in_the_log() {
    let mut desk = settled();
    // Clocks of machines have nothing to do with each other, nor with the log's time.
    let log_time = |d: &Desk, name: &NodeId| d.nodes[name].cluster.at.0;
    let leader = desk.leader();
    let (began, at) = (desk.now, desk.nodes[&leader].log_now().0);
    assert!(began.0 / MS > at + 500, "the log's time is not the clock's");
    desk.down.insert(leader.clone());
    let other = desk.nodes.keys().find(|n| **n != leader).cloned().expect("three nodes");
    let lapsed = |d: &Desk| !d.nodes[&other].cluster.nodes[&leader].leased;
    desk.until(5000, "the dead node's lease to be waited out", lapsed);
    let (passed, stamped) = (desk.now.since(began).as_millis() as u64, log_time(&desk, &other) - at);
    assert!((passed - 100..=passed + 100).contains(&stamped), "{stamped} ms in the log, {passed} ms by the clocks");
    let times: Vec<u64> = desk.told[&other].iter().map(|(_, event)| event.at.0).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn s19_a_witness_hands_its_leadership_to_a_data_voter_that_is_level() {
    let mut desk = settled();
    let leader = desk.leader();
    for node in desk.nodes.values_mut() {
        node.cluster.nodes.get_mut(&leader).expect("configured").spec.witness = true;
    }
    desk.until(2000, "another to lead", |d| d.nodes.iter().any(|(name, node)| *name != leader && node.lead.is_some()));
    desk.run(2000);
    assert_ne!(desk.leader(), leader);
    assert!(desk.nodes[&leader].lead.is_none(), "and it stays so");
}

#[test]
fn s12_whose_log_may_have_lost_its_end_joins_as_another_unless_it_is_alone() {
    let identity = Identity { cluster: 77, raft_id: RaftId(1), incarnation: 5 };
    let own = Snapshot { index: 1, term: 1, data: postcard::to_allocvec(&identity).expect("numbers"), ..Snapshot::default() };
    let stored = |voters: &[u64], possibly_cut, changed| {
        let voters = Voters { voters: voters.to_vec(), ..Voters::default() };
        let snapshot = Some(Snapshot { index: 3, term: 1, voters, data: Vec::new() });
        let change = LogEntry { index: 4, term: 1, kind: EntryKind::ConfChange, data: Vec::new(), context: Vec::new() };
        let entries = if changed { vec![change] } else { Vec::new() };
        let control = LogState { id: Some(RaftId(1)), snapshot, entries, possibly_cut, ..LogState::default() };
        let named = LogState { id: Some(RaftId(1)), snapshot: Some(own.clone()), ..LogState::default() };
        Stored::from_logs([(NODE_LOG, named), (log::CONTROL, control)].into(), None).map(|stored| (stored.identity, stored.rejoins))
    };
    assert_eq!(stored(&[1, 2, 3], false, false), Ok((Some(identity), None)));
    assert_eq!(stored(&[1, 2, 3], true, false), Ok((None, Some(77))), "it votes no more under that number");
    assert_eq!(stored(&[1], true, true), Ok((None, Some(77))), "those that came after the snapshot have the log too");
    assert_eq!(stored(&[1], true, false), Err(LogCut::SoleVoter), "nobody else has it");
}

/// What `message` makes the node say.
fn told(node: &mut Node, now: Mono, from: &NodeId, message: &Message) -> Vec<Action> {
    while node.poll_action().is_some() {}
    node.handle_message(now, from, &message.encode(77));
    std::iter::from_fn(|| node.poll_action()).collect()
}

#[test]
fn s17_states_that_differ_at_one_index_are_told() {
    let mut desk = settled();
    let leader = desk.leader();
    let all = |d: &Desk| d.nodes.values().filter_map(|node| node.digest).collect::<BTreeSet<_>>();
    for ticket in 0..300 {
        let command = Command::Undrain { node: "a".into() };
        desk.nodes.get_mut(&leader).expect("known").handle_command(desk.now, ticket, command);
        desk.run(2);
    }
    desk.run(500);
    assert!(desk.nodes.values().all(|node| node.digest.is_some()), "each takes one now and then");
    assert_eq!(all(&desk).len(), 1, "and they agree: {:?}", all(&desk));
    let other = desk.nodes.keys().find(|n| **n != leader).cloned().expect("three nodes");
    let (now, digest, session) = (desk.now, desk.nodes[&leader].digest, desk.cluster("a").nodes[&leader].session);
    let node = desk.nodes.get_mut(&other).expect("known");
    let beat = |digest| Message::Beat(message::Beat { number: 1, session, renew: true, heard: Vec::new(), behaviour: 2, digest });
    let alarms = |actions: &[Action]| actions.iter().any(|action| matches!(action, Action::Alarm { code: "HW0309", .. }));
    let another = digest.map(|(index, hash)| (Index(index.0 + 256), hash + 1));
    for harmless in [digest, None, another] {
        assert!(!alarms(&told(node, now, &leader, &beat(harmless))), "{harmless:?}");
    }
    let differs = digest.map(|(index, hash)| (index, hash.wrapping_add(1)));
    assert!(alarms(&told(node, now, &leader, &beat(differs))));
}

#[test]
fn s17_a_program_older_than_what_is_in_force_is_not_welcome() {
    let mut desk = settled();
    let leader = desk.leader();
    let other = desk.nodes.keys().find(|n| **n != leader).cloned().expect("three nodes");
    let (now, in_force) = (desk.now, desk.cluster("a").behaviour);
    let incarnation = desk.nodes[&other].options.incarnation;
    let node = desk.nodes.get_mut(&leader).expect("known");
    let hello = |behaviour| Message::Hello { cluster: Some(77), name: "desk".into(), incarnation, behaviour };
    let welcomes = |actions: &[Action]| {
        let welcome = |bytes: &[u8]| matches!(Message::decode(bytes), Ok((_, Message::Welcome { .. })));
        actions.iter().any(|action| matches!(action, Action::Send { bytes, .. } if welcome(bytes)))
    };
    let refused = told(node, now, &other, &hello(in_force - 1));
    assert!(refused.iter().any(|action| matches!(action, Action::Alarm { code: "HW0310", .. })), "{refused:?}");
    assert!(!welcomes(&refused));
    assert!(welcomes(&told(node, now, &other, &hello(in_force))));
}
