//! Leases whose length changes (S2).

use super::*;

#[test]
fn s2_a_longer_lease_is_waited_out_although_the_leaders_disk_stalls() {
    let mut desk = settled();
    let leader = desk.leader();
    let name = desk.nodes.keys().find(|n| **n != leader).cloned().expect("three nodes");
    let hot = MemberId::of(&"clock".into(), name.as_str());
    if desk.serving("clock", "a") != [hot.to_string()] {
        desk.ask(&leader, crate::group::input::Operator::Switchover { to: Some(hot.clone()) });
        desk.until(500, "it is hot", |d| d.serving("clock", name.as_str()) == [hot.to_string()]);
        desk.run(300);
    }
    // The others have the longer lease in force, and its leader, whose disk stalls, has yet to apply it.
    desk.stalled.insert(leader.clone(), Vec::new());
    let spec = desk.nodes[&NodeId::from("a")].options.found.clone().expect("a founded").1;
    let command = Command::Configure { spec: Box::new(ClusterSpec { lease_ms: 5000, ..spec }), revision: 1 };
    desk.nodes.get_mut(&leader).expect("known").handle_command(desk.now, 2, command);
    desk.until(500, "a lease of that length", |d| d.nodes[&name].view().lease_left > Duration::from_secs(4));
    assert_eq!(desk.cluster(leader.as_str()).lease.length_ms, 1000);
    for other in desk.nodes.keys().filter(|n| **n != name) {
        desk.cut.extend([(name.clone(), other.clone()), (other.clone(), name.clone())]);
    }
    desk.run(1500);
    for token in desk.stalled.remove(&leader).expect("set above") {
        desk.later(&leader, Todo::Persisted(token));
    }
    desk.until(8000, "another is hot", |d| {
        let held = d.nodes[&name].holder.until() > d.now;
        let served = d.serving("clock", leader.as_str()).first().is_some_and(|m| *m != hot.as_str());
        assert!(!held || !served, "the old node's lease is valid while another serves\n{}", d.log.join("\n"));
        served
    });
}
