//! Who may report what.

use super::*;
use crate::group::input::Life as Told;

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
