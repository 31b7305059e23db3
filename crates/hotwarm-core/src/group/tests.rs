//! What an operator is told of a healthy, a degraded, a changing and a vacant group. The decisions themselves are told in
//! `tests/transcripts`.

use std::collections::BTreeMap;

use super::explain::{Explanation, Quorum};
use super::input::{Answer, Body, Input, Life as Told, NodeInput, Operator};
use super::problem::{self, Severity, TABLE};
use super::spec::{Bounds, Fence, GroupSpec, MemberSpec};
use super::state::Life;
use super::{Group, Refusal, step};
use crate::action::StopCause;
use crate::ids::{Epoch, GroupName, Incarnation, MemberId, NodeId};
use crate::route::RouteState;

fn id(name: &str) -> MemberId {
    MemberId::of(&GroupName::new("web"), name)
}

fn spec(exclusive: bool) -> GroupSpec {
    let member = |(i, name): (u16, &str)| {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 9000 + i));
        let spec = MemberSpec { node: NodeId::new(name), address, priority: -i32::from(i), weight: 1, zone: String::new() };
        (id(name), spec)
    };
    GroupSpec {
        name: GroupName::new("web"),
        hot: if exclusive { 1 } else { 3 },
        warm: if exclusive { 2 } else { 0 },
        exclusive,
        stateful: true,
        members: (0u16..).zip(["a", "b", "c"]).map(member).collect::<BTreeMap<_, _>>(),
        routers: ["a", "b", "c"].map(NodeId::new).to_vec(),
        fence: Fence::Supervisor,
        positions: false,
        acks: 0,
        bounds: Bounds::default(),
    }
}

fn feed(group: &mut Group, body: Body) {
    let input = Input { at: group.at.plus(1), body };
    *group = step(group.clone(), &input).0;
    assert_eq!(super::invariants::check(group), None, "after {input:?}");
}

fn stop(group: &mut Group, name: &str) {
    let incarnation = group.members[&id(name)].incarnation;
    feed(group, Body::Life(Told::Stopped { member: id(name), incarnation, cause: StopCause::Signal(9) }));
}

/// Everything runs and answers.
fn healthy(exclusive: bool) -> Group {
    let mut group = Group::new(spec(exclusive), BTreeMap::new(), Epoch(0));
    for name in ["a", "b", "c"] {
        feed(&mut group, Body::Life(Told::Started { member: id(name), incarnation: Incarnation(1) }));
        feed(&mut group, Body::Life(Told::Ready { member: id(name), incarnation: Incarnation(1) }));
        if let Some(epoch) = group.members[&id(name)].may_serve {
            let attempt = group.attempt;
            feed(&mut group, Body::Answer(Answer::Promoted { member: id(name), incarnation: Incarnation(1), epoch, attempt }));
        }
    }
    group
}

fn explain(group: &Group) -> Explanation {
    super::explain::explain(group, Quorum::default())
}

fn problems(group: &Group) -> Vec<&'static str> {
    problem::of(group).map(|problem| problem.code).collect()
}

fn outcomes(explained: &Explanation) -> Vec<String> {
    explained.if_died.iter().map(|what| format!("{}: {}", what.event, what.outcome)).collect()
}

#[test]
fn a_healthy_group_has_no_problem_and_says_who_would_take_over() {
    let group = healthy(true);
    let explained = explain(&group);
    assert_eq!(problems(&group), [""; 0]);
    assert_eq!(explained.now, "web/a serves epoch 1");
    assert_eq!((explained.transition.clone(), explained.refusal.clone()), (None, None));
    assert_eq!(outcomes(&explained), ["web/a is killed: web/b takes over", "node a dies: web/b takes over"]);
    assert!(explained.members.iter().all(|(_, _, lacks)| lacks.is_none()));

    let group = healthy(false);
    assert_eq!(problems(&group), [""; 0]);
    assert_eq!(outcomes(&explain(&group))[0], "web/a is killed: web/b, web/c go on");
}

/// One serves; the rest are spares, which do not run.
fn with_spares() -> Group {
    let mut group = Group::new(GroupSpec { warm: 0, ..spec(true) }, BTreeMap::new(), Epoch(0));
    let incarnation = Incarnation(1);
    feed(&mut group, Body::Life(Told::Started { member: id("a"), incarnation }));
    feed(&mut group, Body::Life(Told::Ready { member: id("a"), incarnation }));
    let (epoch, attempt) = (group.members[&id("a")].may_serve.unwrap(), group.attempt);
    feed(&mut group, Body::Answer(Answer::Promoted { member: id("a"), incarnation, epoch, attempt }));
    group
}

#[test]
fn a_spare_that_can_be_started_is_somebody_who_can_take_over() {
    let mut group = with_spares();
    assert_eq!(problems(&group), [""; 0]);
    let takes = "spare web/b is started, then takes over";
    assert_eq!(outcomes(&explain(&group)), [format!("web/a is killed: {takes}"), format!("node a dies: {takes}")]);
    // One that is drained, one whose node is lost.
    feed(&mut group, Body::Operator(Operator::Drain { member: id("b") }));
    assert!(outcomes(&explain(&group))[0].ends_with("spare web/c is started, then takes over"));
    feed(&mut group, Body::Node(NodeInput::Silent { node: "c".into() }));
    assert_eq!(problems(&group), ["no-warm", "drained"]);
    assert!(outcomes(&explain(&group))[0].contains("until then nobody can become hot"), "{:?}", outcomes(&explain(&group)));
}

/// One whose last start failed is tried, and not counted on.
#[test]
fn a_spare_that_did_not_start_is_nobody_to_count_on() {
    let mut group = with_spares();
    for name in ["b", "c"] {
        group.members.get_mut(&id(name)).unwrap().life = Life::Stopped(StopCause::NotStarted("no such program".into()));
    }
    assert_eq!(problems(&group), ["no-warm"]);
}

#[test]
fn who_serves_is_hot_however_lately_it_failed() {
    let mut group = healthy(true);
    for name in ["a", "b"] {
        group.members.get_mut(&id(name)).unwrap().unstable_until = group.at.plus(312_000);
    }
    let told = explain(&group).members;
    assert_eq!((&told[0].2, &told[2].2), (&None, &None));
    assert!(matches!(told[1].2, Some(Refusal::Unstable { left_ms: 312_000 })), "{told:?}");
}

#[test]
fn explaining_changes_nothing() {
    let group = healthy(true);
    let before = group.clone();
    let _ = explain(&group);
    assert_eq!(group, before);
}

#[test]
fn a_degraded_group_says_that_the_next_loss_is_not_survived() {
    let mut group = healthy(true);
    stop(&mut group, "b");
    stop(&mut group, "c");
    assert_eq!(problems(&group), ["no-warm", "member-missing"]);
    let explained = explain(&group);
    let lacks: Vec<String> = explained.members.iter().filter_map(|(_, _, lacks)| lacks.as_ref()).map(ToString::to_string).collect();
    assert_eq!(lacks, ["it does not run: signal 9", "it does not run: signal 9"]);
    let killed = &outcomes(&explained)[0];
    assert!(killed.starts_with("web/a is killed: requests park until web/a is ready again, which is started again at once; until then nobody can become hot (web/b: "), "{killed}");
    assert!(!killed.contains("(web/a: ") && outcomes(&explained)[1].contains("nobody serves, and requests park: nobody can become hot"));

    let mut group = healthy(false);
    stop(&mut group, "b");
    stop(&mut group, "c");
    assert_eq!(problems(&group), ["last-hot", "member-missing"]);
}

#[test]
fn a_vacant_group_is_down_and_names_what_each_member_lacks() {
    for exclusive in [true, false] {
        let mut group = healthy(exclusive);
        for name in ["b", "c", "a"] {
            stop(&mut group, name);
        }
        let found: Vec<_> = problem::of(&group).map(|problem| (problem.severity, problem.code)).collect();
        assert_eq!(found[0], (Severity::Down, "no-hot"), "{found:?}");
        let explained = explain(&group);
        assert!(explained.now.starts_with("nobody serves; epoch "), "{}", explained.now);
        assert!(explained.refusal.is_some_and(|why| why.code() == "no-successor"));
        assert!(explained.members.iter().all(|(_, _, lacks)| lacks.is_some()));
        assert!(explained.if_died.is_empty());
    }
}

#[test]
fn a_change_under_way_says_what_it_waits_for() {
    let mut group = healthy(true);
    let a = MemberId::new("web/a");
    let incarnation = group.members[&a].incarnation;
    feed(&mut group, Body::Life(Told::Unready { member: a, incarnation, why: "no answer".into() }));
    assert_eq!(problems(&group), ["changing", "member-missing"]);
    let waits = explain(&group).transition.unwrap();
    assert!(waits.ends_with("waiting for proof that web/a serves no more and the routers of a, b, c to close"), "{waits}");
}

#[test]
fn s8_while_a_promotion_is_under_way_routers_are_told_to_hold_the_epoch_that_was_closed() {
    let mut group = healthy(true);
    stop(&mut group, "a");
    assert_eq!((group.promoting(), group.epoch), (Some(&id("b")), Epoch(2)));
    let routes = group.routes();
    assert_eq!((routes.epoch, routes.state), (Epoch(1), RouteState::Held), "nothing of the coming epoch is closed yet");
    // Nor is it once that candidate is lost and another is asked.
    stop(&mut group, "b");
    assert_eq!((group.promoting(), group.epoch), (Some(&id("c")), Epoch(3)));
    assert_eq!(group.routes().epoch, Epoch(1));
}

#[test]
fn a_pause_is_a_problem_and_says_what_a_death_would_mean() {
    let mut group = healthy(true);
    feed(&mut group, Body::Operator(Operator::Pause));
    assert_eq!(problems(&group), ["paused"]);
    let killed = &outcomes(&explain(&group))[0];
    assert!(killed.contains("nothing is promoted: automation is paused"), "{killed}");
}

fn advice(group: &Group, code: &str) -> (String, String) {
    let found = problem::of(group).find(|problem| problem.code == code).expect(code);
    (found.advice_from_afar(group), found.advice(group))
}

/// Seen: the first line said that it serves, above the problem that said that it cannot.
#[test]
fn a_hot_member_that_is_gone_serves_in_no_line() {
    for supervised in [true, false] {
        let mut group = healthy(true);
        if !supervised {
            group.spec.fence = Fence::Hook;
        }
        feed(&mut group, Body::Operator(Operator::Pause));
        feed(&mut group, Body::Node(NodeInput::Silent { node: NodeId::new("a") }));
        assert_eq!(explain(&group).now, "web/a is hot and its node is silent: whether it serves is not known");
        assert!(!group.serves(&id("a")) && group.gone(&id("a")).is_none());
        feed(&mut group, Body::Node(NodeInput::Lapsed { node: NodeId::new("a") }));
        assert_eq!(problems(&group), ["hot-in-doubt", "paused", "member-missing"]);
        // S10: it may live on and answer at its own address; who is told that nobody serves would end the pause by force, and have two.
        assert_eq!(
            explain(&group).now,
            "web/a is hot: its node is not heard or holds no lease; whether it serves is not known, and it may still answer whoever reaches it; requests that do not reach it park"
        );
        assert!(!group.serves(&id("a")));
        // `why` is not told to run `why`.
        let (afar, near) = advice(&group, "hot-in-doubt");
        assert!(afar.starts_with("`hotwarm resume web`; `hotwarm why web` names the doubt"), "{afar}");
        assert_eq!(near, "`hotwarm resume web`");
    }
}

/// Seen: with one of three nodes dead, `why` promised that another takes over from the second.
#[test]
fn a_death_that_takes_the_quorum_promotes_nobody() {
    let all = ["a", "b", "c"].map(NodeId::new);
    let told = |exclusive: bool, reached: &[NodeId]| {
        let explained = super::explain::explain(&healthy(exclusive), Quorum { voters: &all, reached });
        outcomes(&explained)
    };
    assert_eq!(told(true, &all)[1], "node a dies: web/b takes over");
    let two = told(true, &all[..2]);
    assert_eq!(two[0], "web/a is killed: web/b takes over", "its node goes on voting");
    let lost = "the quorum is lost (1 voters left, 2 needed), and nothing is promoted until one more is back";
    assert_eq!(two[1], format!("node a dies: nobody serves, and requests park: {lost}"));
    assert_eq!(told(true, &all[1..])[1], "node a dies: web/b takes over", "it is not among those that are heard, and counts for none");
    assert_eq!(told(false, &all[..2])[1], format!("node a dies: web/b, web/c go on; {lost}"));
}

/// Who is chosen last for its node's sake is not shown as one that nothing is against.
#[test]
fn a_node_that_doubts_itself_is_named_where_members_are_compared() {
    let mut group = healthy(true);
    let why = super::reason::SelfDoubt::LittleRoom;
    feed(&mut group, Body::Node(NodeInput::SelfDoubt { node: NodeId::new("b"), why: Some(why) }));
    let told = explain(&group).members;
    assert_eq!((&told[0].2, &told[1].2, &told[2].2), (&None, &Some(Refusal::NodeDoubtsItself { why }), &None));
    assert_eq!(outcomes(&explain(&group))[0], "web/a is killed: web/c takes over");
}

/// One alone is started again: to say that nobody can become hot would say that it is over.
#[test]
fn the_end_of_a_sole_member_is_told_as_what_it_is() {
    let mut spec = spec(true);
    spec.members.retain(|id, _| id.name() == "a");
    let mut group = Group::new(GroupSpec { warm: 0, ..spec }, BTreeMap::new(), Epoch(0));
    let incarnation = Incarnation(1);
    feed(&mut group, Body::Life(Told::Started { member: id("a"), incarnation }));
    feed(&mut group, Body::Life(Told::Ready { member: id("a"), incarnation }));
    let (epoch, attempt) = (group.members[&id("a")].may_serve.unwrap(), group.attempt);
    feed(&mut group, Body::Answer(Answer::Promoted { member: id("a"), incarnation, epoch, attempt }));
    let told = outcomes(&explain(&group));
    assert_eq!(told[0], "web/a is killed: requests park until web/a is ready again, which is started again at once");
    assert!(told[1].starts_with("node a dies: nobody serves, and requests park: "), "{told:?}");
}

#[test]
fn of_several_hot_members_the_one_that_is_gone_is_named_beside_those_that_serve() {
    let mut group = healthy(false);
    assert_eq!(explain(&group).now, "web/a, web/b, web/c serve epoch 6");
    group.members.get_mut(&id("b")).unwrap().life = Life::Stopped(StopCause::Signal(9));
    assert_eq!(explain(&group).now, "web/a, web/c serve epoch 6; web/b is hot and does not serve: it does not run: signal 9");
    group.nodes.entry(NodeId::new("c")).or_default().silent = true;
    assert!(explain(&group).now.starts_with("web/a serves epoch 6; web/b is hot"), "{}", explain(&group).now);
}

/// Asked for, and refused before anybody steps down: what the others cannot tell could be lost (S7).
#[test]
fn a_switchover_is_refused_where_too_few_could_report_their_positions() {
    let mut group = healthy(true);
    (group.spec.positions, group.spec.acks) = (true, 1);
    assert_eq!(group.switchover_target(None), Ok((id("a"), id("b"))));
    stop(&mut group, "c");
    let refused = group.switchover_target(Some(&id("b"))).unwrap_err();
    assert!(refused.starts_with("1 members can tell how far their data reaches, 2 must"), "{refused}");
}

/// Its agent may be all that ended: routers still send it requests, and it answers.
#[test]
fn of_several_hot_members_one_without_a_lease_may_serve() {
    let mut group = healthy(false);
    feed(&mut group, Body::Operator(Operator::Pause));
    feed(&mut group, Body::Node(NodeInput::Silent { node: NodeId::new("c") }));
    feed(&mut group, Body::Node(NodeInput::Lapsed { node: NodeId::new("c") }));
    assert!(group.gone(&id("c")).is_none() && !group.serves(&id("c")));
    assert_eq!(explain(&group).now, "web/a, web/b serve epoch 6; web/c is hot and its node is silent: whether it serves is not known");
}

/// Seen: status pointed to why, and why found that nobody lacked anything.
#[test]
fn who_lacks_nothing_in_a_paused_group_waits_for_the_end_of_the_pause() {
    let mut group = healthy(false);
    feed(&mut group, Body::Operator(Operator::Pause));
    for member in group.members.values_mut() {
        (member.role, member.serving) = (super::super::ids::Role::Warm, false);
    }
    assert!(group.members.keys().all(|id| group.unfit(id).is_none()));
    assert_eq!(
        explain(&group).now,
        format!(
            "nobody serves; epoch {} is over and requests park: automation is paused, and nobody new becomes hot before `hotwarm resume web`",
            group.epoch
        )
    );
    assert_eq!(advice(&group, "no-hot"), ("`hotwarm resume web`".to_owned(), "`hotwarm resume web`".to_owned()));
    // One lacks something: `why` names it.
    group.members.get_mut(&id("a")).unwrap().ready = false;
    assert_eq!(advice(&group, "no-hot").0, "`hotwarm resume web`; `hotwarm why web` names what each member lacks");
}

#[test]
fn who_lacks_nothing_and_does_not_serve_yet_is_said_to_be_on_its_way() {
    let mut group = Group::new(spec(false), BTreeMap::new(), Epoch(0));
    feed(&mut group, Body::Life(Told::Started { member: id("a"), incarnation: Incarnation(1) }));
    feed(&mut group, Body::Life(Told::Ready { member: id("a"), incarnation: Incarnation(1) }));
    assert!(explain(&group).now.ends_with("requests park until web/a confirms the hot role"), "{}", explain(&group).now);
    let until = group.members[&id("a")].confirm_until.unwrap();
    group = step(group, &Input { at: until, body: Body::Timer }).0;
    assert!(explain(&group).now.ends_with("requests park; web/a failed to become hot, and is tried again soon"), "{}", explain(&group).now);
}

#[test]
fn the_table_is_sorted_by_severity_and_each_problem_says_what_to_do() {
    assert!(TABLE.is_sorted_by_key(|problem| problem.severity));
    let mut codes: Vec<_> = TABLE.iter().map(|problem| problem.code).collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes.len(), TABLE.len(), "a code is used twice");
    assert!(TABLE.iter().all(|problem| !problem.title.is_empty() && problem.is_answered()));
}
