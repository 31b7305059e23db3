//! Who may report what.

use super::*;
use crate::group::input::Life as Told;
use crate::group::reason::SelfDoubt;

#[test]
fn s4_of_a_member_its_own_node_alone_tells_whether_it_lives() {
    let mut desk = settled();
    let leader = desk.leader();
    let [one, other] = [0, 1].map(|i| desk.nodes.keys().filter(|n| **n != leader).nth(i).cloned().expect("three nodes"));
    let id = MemberId::of(&"clock".into(), other.as_str());
    let life = |d: &Desk| (d.clock("a").members[&id].incarnation, d.clock("a").members[&id].running());
    let (incarnation, _) = life(&desk);
    // Of a place that had it before, where lives have higher numbers.
    let later = Incarnation(incarnation.0 + 100);
    let told = Told::Stopped { member: id.clone(), incarnation: later, cause: StopCause::Signal(9) };
    let body = Body::Group { group: "clock".into(), body: crate::group::Body::Life(told) };
    let propose = Message::Propose { items: vec![Item { origin: None, body }] }.encode(77);
    desk.later(&leader, Todo::Message { from: one, bytes: propose.clone() });
    desk.run(100);
    assert_eq!(life(&desk), (incarnation, true));
    desk.later(&leader, Todo::Message { from: other.clone(), bytes: propose });
    desk.run(100);
    assert_eq!(life(&desk), (later, false));
}

/// S17: not before every program knows of it. And each node for itself alone.
#[test]
fn a_node_with_little_room_says_so_and_its_members_are_chosen_last() {
    let mut desk = settled();
    let b = NodeId::from("b");
    let doubts = |d: &Desk| d.cluster("a").self_doubts.get(&NodeId::from("b")).copied();
    // As if c's program were one of before.
    let before = crate::cluster::TELLS_SELF_DOUBT - 1;
    for node in desk.nodes.values_mut() {
        node.cluster.behaviour = before;
        node.cluster.nodes.get_mut(&"c".into()).expect("configured").behaviour = before;
    }
    desk.nodes.get_mut(&"c".into()).expect("known").options.behaviour = before;
    desk.nodes.get_mut(&b).expect("known").handle_room(true);
    desk.run(1000);
    assert_eq!(doubts(&desk), None, "a program of before could not read it");
    desk.nodes.get_mut(&"c".into()).expect("known").options.behaviour = crate::cluster::BEHAVIOUR;
    desk.until(2000, "all to know", |d| doubts(d) == Some(SelfDoubt::LittleRoom));
    let what = |e: &Event| matches!(&e.what, What::SelfDoubt { node, .. } if *node == "b".into());
    let told = |d: &Desk| d.told[&NodeId::from("a")].iter().filter(|(_, event)| what(event)).count();
    desk.run(2000);
    assert_eq!(told(&desk), 1, "it is told once");
    let view = |d: &Desk| d.clock("c").node(&"b".into()).doubts_itself;
    assert_eq!(view(&desk), Some(SelfDoubt::LittleRoom), "its groups know");
    // Another node cannot say it of this one.
    let (leader, body) = (desk.leader(), Body::SelfDoubt { node: b.clone(), why: None });
    let from = desk.nodes.keys().find(|n| **n != leader && **n != b).cloned().unwrap_or_else(|| "c".into());
    let propose = Message::Propose { items: vec![Item { origin: None, body }] }.encode(77);
    desk.later(&leader, Todo::Message { from, bytes: propose });
    desk.run(50);
    assert_eq!((doubts(&desk), told(&desk)), (Some(SelfDoubt::LittleRoom), 1));
    desk.nodes.get_mut(&b).expect("known").handle_room(false);
    desk.until(1000, "all to know", |d| doubts(d).is_none() && view(d).is_none());
}

#[test]
fn who_is_not_configured_grants_nothing_and_is_not_heard() {
    let mut desk = settled();
    let leader = desk.leader();
    let other = desk.nodes.keys().find(|n| **n != leader).cloned().expect("three nodes");
    let (now, session) = (desk.now, desk.cluster("a").nodes[&other].session);
    let node = desk.nodes.get_mut(&other).expect("known");
    let number = u64::MAX;
    node.holder.asked(number, now.plus(Duration::from_millis(1)), node.cluster.lease);
    let until = node.holder.until();
    let grant = Message::Grant { number, session, index: node.applied }.encode(77);
    let beat = message::Beat { number: 1, session, renew: true, heard: vec![other.clone()], behaviour: 1, digest: None };
    let beat = Message::Beat(beat).encode(77);
    let given = |node: &mut Node, from: &str, bytes: &[u8]| {
        node.handle_message(now, &from.into(), bytes);
        while node.poll_action().is_some() {}
    };
    // Removed since, and still running; and one that never was.
    node.cluster.nodes.retain(|name, _| *name == other || *name == leader);
    let gone = desk.nodes.keys().find(|n| **n != leader && **n != other).cloned().expect("three nodes");
    let node = desk.nodes.get_mut(&other).expect("known");
    let heard = |node: &Node, name: &str| node.peers.heard(now.plus(Duration::from_secs(60))).contains(&name.into());
    for stranger in [gone.as_str(), "x"] {
        given(node, stranger, &grant);
        node.handle_message(now.plus(Duration::from_secs(60)), &stranger.into(), &beat);
        assert!(!heard(node, stranger), "{stranger}");
        assert_eq!(node.holder.until(), until, "{stranger}");
    }
    node.handle_message(now.plus(Duration::from_secs(60)), &leader, &beat);
    assert!(heard(node, leader.as_str()));
    given(node, leader.as_str(), &grant);
    assert!(node.holder.until() > until, "of a node of the configuration it counts");
}

/// A leader and a follower alike: the log has it before their process ends, and the next process takes it back.
#[test]
fn a_node_that_stops_says_so_and_takes_it_back_when_it_is_there_again() {
    let mut desk = settled();
    desk.until(3000, "it is in force", |d| d.cluster("b").behaviour >= TELLS_STOP);
    for leads in [true, false] {
        let leader = desk.leader();
        let stops = desk.nodes.keys().find(|name| (**name == leader) == leads).cloned().expect("three nodes");
        let other = desk.nodes.keys().find(|name| **name != stops).cloned().expect("three nodes");
        let told = |d: &Desk| d.cluster(other.as_str()).self_doubts.get(&stops).copied();
        assert!(!desk.nodes[&stops].stop_is_told());
        desk.nodes.get_mut(&stops).expect("known").handle_stopping(desk.now);
        let took = desk.until(300, "it is told", |d| d.nodes[&stops].stop_is_told());
        assert!(took < 50, "{took} ms");
        desk.run(10);
        assert_eq!(told(&desk), Some(SelfDoubt::Stopping));
        desk.run(1000);
        assert_eq!(told(&desk), Some(SelfDoubt::Stopping), "it goes on saying so for as long as it waits");
        // Another process, which does not stop.
        desk.nodes.get_mut(&stops).expect("known").stopping = false;
        desk.until(500, "it is taken back", |d| told(d).is_none());
    }
}
