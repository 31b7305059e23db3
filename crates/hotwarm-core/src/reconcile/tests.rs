//! One rule each: what a node tells its engines, and what it tells the log.

use super::*;
use crate::cluster::{ClusterSpec, NodeSpec};
use crate::group::reason::Reason;
use crate::group::restart::{Restart, Stage, Turn};
use crate::group::spec::{Bounds, GroupSpec, MemberSpec};
use crate::group::state::{Stamps, Transition};

const HOT: &str = "clock/a";

/// A node `a` with the member `clock/a`, which runs; the group is of two.
fn scene() -> (Cluster, Observed) {
    let group = GroupName::from("clock");
    let member = |n: &str| {
        let spec = MemberSpec { node: n.into(), address: ([127, 0, 0, 1], 9).into(), priority: 0, weight: 100, zone: String::new() };
        (MemberId::of(&group, n), spec)
    };
    let spec = GroupSpec {
        name: group.clone(),
        hot: 1,
        warm: 1,
        exclusive: true,
        stateful: true,
        members: [member("a"), member("b")].into(),
        routers: vec!["a".into()],
        fence: Fence::Supervisor,
        positions: false,
        acks: 0,
        bounds: Bounds::default(),
    };
    let node = NodeSpec { address: ([127, 0, 0, 1], 1).into(), votes: true, witness: false, zone: String::new() };
    let nodes = [("a".into(), node.clone()), ("b".into(), node)].into();
    let groups = [(group, spec)].into();
    let spec = ClusterSpec { name: "x".into(), lease_ms: 1000, nodes, groups, text: String::new() };
    let mut cluster = Cluster::empty();
    let found = crate::cluster::Body::Found { cluster: 1, spec: Box::new(spec), node: "a".into(), incarnation: 1 };
    cluster.apply(&crate::cluster::Entry { at: Millis(1), wall_ms: 0, items: vec![crate::cluster::Item { origin: None, body: found }] });
    let local = Local { incarnation: Incarnation(1), life: LocalLife::Running, ready: true, may_start: true, ..Local::default() };
    let observed = Observed { members: [(HOT.into(), local)].into(), leased: true, ..Observed::default() };
    (cluster, observed)
}

/// The member may serve epoch 3, which is closed, and is being fenced.
fn fencing(cluster: &mut Cluster, role: Role) {
    let group = cluster.groups.get_mut(&"clock".into()).expect("the only group");
    (group.epoch, group.closed) = (Epoch(3), true);
    let phase = Phase::Fencing { until: Millis(1_000) };
    group.transition = Some(Transition {
        attempt: Attempt(2),
        why: Reason::Vacant,
        from: Some(HOT.into()),
        to: None,
        planned: true,
        phase,
        refused: Default::default(),
        drained_routers: Default::default(),
        stamps: Stamps::default(),
    });
    let member = group.members.get_mut(&HOT.into()).expect("a member");
    (member.role, member.may_serve, member.incarnation, member.life) = (role, Some(Epoch(3)), Incarnation(1), Life::Running);
}

fn stepped_down(observed: &mut Observed) -> &mut Local {
    let local = observed.members.get_mut(&HOT.into()).expect("it runs here");
    (local.role, local.epoch) = (Some(Role::Warm), Epoch(3));
    local
}

#[test]
fn a_member_that_has_stepped_down_is_not_told_to_be_hot_again() {
    let (mut cluster, mut observed) = scene();
    fencing(&mut cluster, Role::Hot);
    stepped_down(&mut observed);
    assert_eq!(actions(&cluster, &observed, &"a".into()), []);
}

#[test]
fn a_hook_that_confirmed_is_not_run_again_until_the_log_knows() {
    let (mut cluster, mut observed) = scene();
    fencing(&mut cluster, Role::Hot);
    let group = cluster.groups.get_mut(&"clock".into()).expect("the only group");
    group.spec.fence = Fence::Hook;
    group.transition.as_mut().expect("set above").planned = false;
    let mut told = |life: LocalLife, fenced: u64| {
        let local = observed.members.get_mut(&HOT.into()).expect("it was here");
        (local.life, local.ready, local.fenced) = (life, false, Epoch(fenced));
        let asked = actions(&cluster, &observed, &"a".into()).into_iter().map(|(_, action)| action);
        asked.filter(|action| matches!(action, EngineAction::Fence { .. })).count()
    };
    for life in [LocalLife::Running, LocalLife::Stopped(StopCause::Asked)] {
        assert_eq!([told(life.clone(), 0), told(life.clone(), 3), told(life, 4)], [1, 1, 0], "a fence names the epoch that is next");
    }
}

#[test]
fn a_failed_promotion_does_not_hide_that_the_member_has_stepped_down() {
    let (mut cluster, mut observed) = scene();
    fencing(&mut cluster, Role::Warm);
    stepped_down(&mut observed).promote_failed = Some((Epoch(3), "no".to_owned()));
    let told = reports(&cluster, &observed, &"a".into());
    let demoted = |body: &Body| matches!(body, Body::Answer(Answer::Demoted { epoch: Epoch(3), .. }));
    assert!(told.iter().any(|(_, body)| demoted(body)), "{told:?}");
}

#[test]
fn s6_a_candidate_that_begins_a_new_life_has_not_stepped_down_from_its_epoch() {
    let (mut cluster, mut observed) = scene();
    fencing(&mut cluster, Role::Warm);
    let group = cluster.groups.get_mut(&"clock".into()).expect("the only group");
    group.transition.as_mut().expect("set above").phase = Phase::Promoting { to: HOT.into(), until: Millis(1_000) };
    group.members.get_mut(&HOT.into()).expect("a member").life = Life::Stopped(StopCause::Asked);
    observed.members.get_mut(&HOT.into()).expect("it was here").life = LocalLife::Stopped(StopCause::Asked);
    let told = actions(&cluster, &observed, &"a".into());
    assert_eq!(told, [(HOT.into(), EngineAction::Start { epoch: Epoch(2) })]);
}

#[test]
fn a_start_that_failed_before_it_had_a_number_is_told_once_and_absence_never_hides_a_cause() {
    let (mut cluster, mut observed) = scene();
    let known = StopCause::Exit(1);
    let group = cluster.groups.get_mut(&"clock".into()).expect("the only group");
    let member = group.members.get_mut(&HOT.into()).expect("a member");
    (member.incarnation, member.life) = (Incarnation(1), Life::Stopped(known.clone()));
    let mut told = |cause: StopCause| {
        observed.members.get_mut(&HOT.into()).expect("it was here").life = LocalLife::Stopped(cause);
        reports(&cluster, &observed, &"a".into())
    };
    assert_eq!([told(known), told(StopCause::Absent), told(StopCause::Asked)], [vec![], vec![], vec![]]);
    let failed = StopCause::NotStarted("the disk is full".to_owned());
    let stopped = Told::Stopped { member: HOT.into(), incarnation: Incarnation(1), cause: failed.clone() };
    assert_eq!(told(failed), [("clock".into(), Body::Life(stopped))]);
}

/// The member is being promoted to epoch 3, and runs.
fn promoting(cluster: &mut Cluster) {
    fencing(cluster, Role::Warm);
    let group = cluster.groups.get_mut(&"clock".into()).expect("the only group");
    group.transition.as_mut().expect("set above").phase = Phase::Promoting { to: HOT.into(), until: Millis(1_000) };
}

fn local(observed: &mut Observed) -> &mut Local {
    observed.members.get_mut(&HOT.into()).expect("it runs here")
}

#[test]
fn s6_a_candidate_found_hot_by_a_new_agent_is_told_again_before_it_counts_as_promoted() {
    let (mut cluster, mut observed) = scene();
    promoting(&mut cluster);
    (local(&mut observed).role, local(&mut observed).epoch) = (Some(Role::Hot), Epoch(3));
    let promote = EngineAction::Promote { epoch: Epoch(3), attempt: Attempt(2) };
    assert_eq!(actions(&cluster, &observed, &"a".into()), [(HOT.into(), promote)]);
    let promoted = |(_, body): &(GroupName, Body)| matches!(body, Body::Answer(Answer::Promoted { .. }));
    assert!(!reports(&cluster, &observed, &"a".into()).iter().any(promoted));
    local(&mut observed).confirmed = true;
    assert_eq!(actions(&cluster, &observed, &"a".into()), []);
    assert!(reports(&cluster, &observed, &"a".into()).iter().any(promoted));
    // One that served before goes on undisturbed.
    local(&mut observed).confirmed = false;
    let group = cluster.groups.get_mut(&"clock".into()).expect("the only group");
    let member = group.members.get_mut(&HOT.into()).expect("a member");
    (member.role, member.serving, group.closed, group.transition) = (Role::Hot, true, false, None);
    assert_eq!(actions(&cluster, &observed, &"a".into()), []);
}

#[test]
fn a_member_that_moved_to_another_node_is_stopped_here_once_the_state_is_known_to_be_new() {
    let (mut cluster, mut observed) = scene();
    let group = cluster.groups.get_mut(&"clock".into()).expect("the only group");
    group.spec.members.get_mut(&HOT.into()).expect("a member").node = "b".into();
    assert_eq!(actions(&cluster, &observed, &"a".into()), [(HOT.into(), EngineAction::Stop { graceful: true })]);
    observed.leased = false;
    assert_eq!(actions(&cluster, &observed, &"a".into()), [], "a state that is replayed may be an old one");
}

#[test]
fn s5_a_hook_fences_also_what_is_not_seen_to_run() {
    let (mut cluster, mut observed) = scene();
    fencing(&mut cluster, Role::Hot);
    let group = cluster.groups.get_mut(&"clock".into()).expect("the only group");
    group.spec.fence = Fence::Hook;
    group.members.get_mut(&HOT.into()).expect("a member").life = Life::Stopped(StopCause::Absent);
    local(&mut observed).life = LocalLife::Stopped(StopCause::Absent);
    assert_eq!(actions(&cluster, &observed, &"a".into()), [(HOT.into(), EngineAction::Fence { epoch: Epoch(4) })]);
}

#[test]
fn s8_the_hook_of_a_lost_nodes_member_is_run_by_one_node_at_a_time_and_by_each_in_turn() {
    let (mut cluster, observed) = scene();
    fencing(&mut cluster, Role::Hot);
    let group = cluster.groups.get_mut(&"clock".into()).expect("the only group");
    group.spec.fence = Fence::Hook;
    for (node, lapsed) in [("a", true), ("b", false), ("c", false)] {
        group.nodes.insert(node.into(), crate::group::state::NodeView { lapsed, ..Default::default() });
    }
    let third = MemberSpec { node: "c".into(), ..group.spec.members[&HOT.into()].clone() };
    group.spec.members.insert("clock/c".into(), third);
    let elsewhere = Observed { members: BTreeMap::new(), ..observed };
    let mut ran = Vec::new();
    for round in 1..=4 {
        let group = cluster.groups.get_mut(&"clock".into()).expect("the only group");
        let until = Millis(round * group.spec.bounds.promote_ms);
        group.transition.as_mut().expect("set above").phase = Phase::Fencing { until };
        let whose: Vec<&str> = ["b", "c"].into_iter().filter(|n| !actions(&cluster, &elsewhere, &(*n).into()).is_empty()).collect();
        ran.extend(whose);
    }
    assert!(ran == ["b", "c", "b", "c"] || ran == ["c", "b", "c", "b"], "{ran:?}");
}

#[test]
fn s10_the_end_of_a_pause_is_seen_once_leases_bind_the_members_that_may_serve() {
    let (mut cluster, mut observed) = scene();
    let group = cluster.groups.get_mut(&"clock".into()).expect("the only group");
    (group.pause, group.resumes) = (Pause::Resuming { waiting: ["a".into()].into() }, 4);
    let hot = group.members.get_mut(&HOT.into()).expect("a member");
    (hot.role, hot.may_serve, hot.serving) = (Role::Hot, Some(Epoch(3)), true);
    // Of another node's members this one can say nothing.
    group.members.get_mut(&"clock/b".into()).expect("a member").may_serve = Some(Epoch(3));
    observed.routers.insert("clock".into(), LocalRouter::default());
    let seen = |cluster: &Cluster, observed: &Observed| {
        let seen = Body::Answer(Answer::ResumeSeen { node: "a".into(), resume: 4 });
        reports(cluster, observed, &"a".into()).contains(&("clock".into(), seen))
    };
    assert!(!seen(&cluster, &observed), "its guard was told of no deadline");
    local(&mut observed).under_deadline = true;
    assert!(seen(&cluster, &observed));
    observed.leased = false;
    assert!(!seen(&cluster, &observed), "without a lease there is none to count");
    observed.leased = true;
    local(&mut observed).life = LocalLife::Unknown;
    assert!(!seen(&cluster, &observed), "it may run, under no deadline");
    local(&mut observed).life = LocalLife::Stopped(StopCause::Asked);
    local(&mut observed).under_deadline = false;
    assert!(seen(&cluster, &observed), "what has ended needs no deadline");
    (local(&mut observed).life, local(&mut observed).under_deadline) = (LocalLife::Running, false);
    let group = cluster.groups.get_mut(&"clock".into()).expect("the only group");
    group.members.get_mut(&HOT.into()).expect("a member").may_serve = None;
    assert!(seen(&cluster, &observed), "nor does what may serve nothing");
    observed.members.clear();
    assert!(seen(&cluster, &observed));
}

#[test]
fn s1_a_restart_ends_the_life_it_names_and_only_under_a_lease() {
    let (mut cluster, mut observed) = scene();
    let group = cluster.groups.get_mut(&"clock".into()).expect("the only group");
    let member = group.members.get_mut(&HOT.into()).expect("a member");
    (member.incarnation, member.life, member.ready) = (Incarnation(1), Life::Running, true);
    let turn = Turn { member: HOT.into(), life: Incarnation(1), stage: Stage::Ending };
    group.restart = Some(Restart { left: [(HOT.into(), Incarnation(1))].into(), turn: Some(turn), ..Restart::default() });
    let ends = [(HOT.into(), EngineAction::Stop { graceful: true })];
    assert_eq!(actions(&cluster, &observed, &"a".into()), ends);
    // A state that is replayed may be older than what became of it.
    observed.leased = false;
    assert_eq!(actions(&cluster, &observed, &"a".into()), []);
    observed.leased = true;
    // S4: the next life is not meant, nor one that may serve.
    observed.members.get_mut(&HOT.into()).expect("it runs here").incarnation = Incarnation(2);
    assert_eq!(actions(&cluster, &observed, &"a".into()), []);
    observed.members.get_mut(&HOT.into()).expect("it runs here").incarnation = Incarnation(1);
    cluster.groups.get_mut(&"clock".into()).expect("the only group").members.get_mut(&HOT.into()).expect("a member").may_serve =
        Some(Epoch(1));
    assert_eq!(actions(&cluster, &observed, &"a".into()), []);
}
