//! The way out of a lost quorum: the survivor alone goes on.

use super::*;
use crate::group::input::Operator;

/// The agent of `name` has ended, and the others are lost: what is left there begins as a new cluster.
fn recovered(desk: &mut Desk, name: &NodeId) {
    desk.down = desk.nodes.keys().filter(|n| *n != name).cloned().collect();
    let node = &desk.nodes[name];
    let stored = Stored { identity: node.identity, log: log_of(node.rewrite(log::CONTROL)), rejoins: None };
    let plan = recover::recover(&stored, name, 555, 99).expect("it has a state");
    let options = Options { incarnation: 555, found: None, ..node.options.clone() };
    let stored = Stored { identity: Some(plan.identity), log: log_of(plan.records), rejoins: None };
    desk.nodes.insert(name.clone(), Node::new(options, stored, desk.now).expect("it starts"));
    (desk.routes, desk.hot) = Default::default();
    for group in ["web", "clock"] {
        let id = MemberId::of(&group.into(), name.as_str());
        let incarnation = Incarnation(desk.lives[&id]);
        desk.later(name, Todo::Member(id, MemberEvent::Stopped { incarnation, cause: StopCause::Absent }));
    }
}

#[test]
fn a_survivor_serves_alone_whoever_was_hot() {
    for name in ["a", "b", "c"].map(NodeId::from) {
        let mut desk = settled();
        let before = desk.cluster("a").groups[&"clock".into()].epoch;
        recovered(&mut desk, &name);
        desk.until(3000, "it serves", |d| d.serving("clock", name.as_str()) == [format!("clock/{name}")]);
        assert_eq!((desk.cluster(name.as_str()).id, desk.nodes[&name].identity().map(|i| i.cluster)), (99, Some(99)));
        assert!(desk.hot[&MemberId::of(&"clock".into(), name.as_str())] > Epoch(before.0 + 1000));
    }
}

#[test]
fn s10_a_survivor_of_a_paused_cluster_waits_for_a_person() {
    let (mut desk, name) = (settled(), NodeId::from("c"));
    desk.ask(&name, Operator::Pause);
    desk.until(200, "paused", |d| d.clock("c").paused());
    recovered(&mut desk, &name);
    desk.run(3000);
    assert_ne!(desk.serving("clock", "c"), ["clock/c"], "nothing is promoted\n{}", desk.log.join("\n"));
    desk.ask(&name, Operator::Resume { force: true });
    desk.until(3000, "it serves", |d| d.serving("clock", "c") == ["clock/c"]);
}

#[test]
fn a_node_that_is_not_configured_is_no_survivor() {
    let (desk, name) = (settled(), NodeId::from("c"));
    let node = &desk.nodes[&name];
    let stored = Stored { identity: node.identity, log: log_of(node.rewrite(log::CONTROL)), rejoins: None };
    let refused = recover::recover(&stored, &"x".into(), 555, 99);
    assert!(matches!(refused, Err(recover::RecoverError::NotConfigured(node)) if node.as_str() == "x"));
}
