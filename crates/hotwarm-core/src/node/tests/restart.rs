//! A restart of members through the whole machine: only once every program can read it, and then to its end.

use super::*;
use crate::cluster::WITH_RESTART;
use crate::group::input::Operator;

fn lives(desk: &Desk, group: &str) -> BTreeMap<MemberId, Incarnation> {
    desk.cluster("a").groups[&GroupName::from(group)].members.iter().map(|(id, m)| (id.clone(), m.incarnation)).collect()
}

fn ask(desk: &mut Desk, ticket: u64, group: &str) {
    let operator = Operator::Restart { lives: lives(desk, group) };
    let node = desk.nodes.get_mut(&"b".into()).expect("known");
    node.handle_command(desk.now, ticket, Command::Group { group: group.into(), operator });
}

#[test]
fn s17_nobody_is_restarted_before_every_program_knows_of_it() {
    let mut desk = Desk::new(&["a", "b", "c"]);
    desk.nodes.get_mut(&"c".into()).expect("known").options.behaviour = WITH_RESTART - 1;
    desk.until(5000, "all serve", |d| d.serving("web", "a").len() == 3 && d.serving("clock", "a").len() == 1);
    desk.run(1000);
    assert_eq!(desk.cluster("a").behaviour, WITH_RESTART - 1, "that of the oldest program");
    ask(&mut desk, 1, "web");
    desk.run(100);
    assert_eq!(desk.replies[&1], Err(CommandError::NotYet));
    desk.nodes.get_mut(&"c".into()).expect("known").options.behaviour = WITH_RESTART;
    desk.until(2000, "it is in force", |d| d.cluster("b").behaviour == WITH_RESTART);
    ask(&mut desk, 2, "web");
    desk.until(1000, "it is answered", |d| d.replies.contains_key(&2));
    assert!(desk.replies[&2].is_ok(), "{:?}", desk.replies[&2]);
}

#[test]
fn every_member_begins_one_new_life() {
    let mut desk = settled();
    desk.until(2000, "restarts are in force", |d| d.cluster("b").behaviour >= WITH_RESTART);
    // Routers of the desk say nothing of members that drain: each of `web` has its whole time.
    for (ticket, group) in [(1, "web"), (2, "clock")] {
        let before = lives(&desk, group);
        ask(&mut desk, ticket, group);
        desk.until(35_000, "all are restarted", |d| {
            let anew = lives(d, group).iter().all(|(id, life)| life.0 == before[id].0 + 1);
            anew && d.cluster("a").groups[&GroupName::from(group)].restart.is_none()
        });
        desk.until(1000, "all serve", |d| d.serving(group, "a").len() == if group == "web" { 3 } else { 1 });
    }
}
