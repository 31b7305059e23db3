//! What must not keep a node from coming to rest.

use super::*;
use crate::group::reason::Evidence;
use crate::ids::Attempt;

/// How often `name` is woken in a second.
fn wakes(desk: &mut Desk, name: &NodeId) -> u32 {
    desk.run(2000);
    desk.wakes.clear();
    desk.run(1000);
    desk.wakes.get(name).copied().unwrap_or_default().0
}

#[test]
fn a_doubt_that_comes_late_of_a_group_that_is_gone_is_not_kept() {
    let mut desk = settled();
    let leader = desk.leader();
    let name = desk.nodes.keys().find(|n| **n != leader).cloned().expect("three nodes");
    let evidence = Some(Evidence::Refused);
    desk.later(&name, Todo::Router(RouterEvent::Evidence { member: "gone/a".into(), evidence }));
    desk.later(&name, Todo::Router(RouterEvent::Closed { group: "gone".into(), epoch: Epoch(1) }));
    assert!(wakes(&mut desk, &name) <= 20);
    assert!(!desk.nodes[&name].observed.routers.contains_key(&"gone".into()));
}

#[test]
fn a_member_is_told_once_to_follow() {
    let mut desk = settled();
    let hot = MemberId::from(desk.serving("clock", "a")[0].as_str());
    let name = desk.nodes.keys().find(|n| n.as_str() != hot.name()).cloned().expect("three nodes");
    let warm = MemberId::of(&"clock".into(), name.as_str());
    let node = desk.nodes.get_mut(&name).expect("known");
    node.cluster.groups.get_mut(&"clock".into()).expect("configured").spec.positions = true;
    node.observed.members.get_mut(&warm).expect("it runs here").detached = Some(Attempt(1));
    let mut told = |after_ms| {
        node.now = node.now.plus(Duration::from_millis(after_ms));
        node.dirty = true;
        node.pump();
        let actions = std::iter::from_fn(|| node.actions.pop_front());
        actions.filter(|action| matches!(action, Action::Engine { action: EngineAction::Follow { .. }, .. })).count()
    };
    assert_eq!([told(0), told(2000), told(2000)], [1, 0, 0]);
}

#[test]
fn a_node_to_which_nothing_happens_is_seldom_woken() {
    let mut desk = settled();
    desk.run(2000);
    desk.wakes.clear();
    desk.run(1000);
    let leader = desk.leader();
    for name in desk.nodes.keys() {
        let (deadlines, moments) = desk.wakes.get(name).copied().unwrap_or_default();
        let of = format!("{name} of {leader}'s cluster");
        let most = if *name == leader { 10..=40 } else { 0..=20 };
        assert!(most.contains(&deadlines), "{of} had {deadlines} deadlines in a second");
        // The log's heartbeats or the answers to them, heartbeats of another, and grants.
        assert!((15..=40).contains(&moments), "{of} was woken {moments} times in a second");
    }
}
