//! What a snapshot of the state may hold beside what `control` shows: every reason and refusal, every stage of a change and of a restart.
//! A kind more goes at the end of its enum, and is a behaviour more (S17).

use std::collections::BTreeSet;

use hotwarm_core::action::StopCause;
use hotwarm_core::group::Reason;
use hotwarm_core::group::reason::{Evidence, FencedBy, Refusal, SelfDoubt};
use hotwarm_core::group::restart::{Restart, Stage, Turn};
use hotwarm_core::group::state::{Life, NodeView, Pause, Phase, Stamps, Transition};
use hotwarm_core::ids::{Attempt, Epoch, Incarnation, MemberId, Millis, NodeId, Position};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{hex, unhex};

fn a() -> MemberId {
    "web/a".into()
}

fn n() -> NodeId {
    "b".into()
}

fn why() -> String {
    "no".into()
}

fn refusals() -> Vec<Refusal> {
    vec![
        Refusal::NodeLost,
        Refusal::Drained,
        Refusal::Spare,
        Refusal::NotRunning { why: why() },
        Refusal::KeptDown,
        Refusal::NotReady { why: why() },
        Refusal::Suspected,
        Refusal::Unstable { left_ms: 300 },
        Refusal::FailedThisTime,
        Refusal::NoPosition,
        Refusal::OldData,
        Refusal::Behind { position: Position(1), best: Position(2) },
        Refusal::Outranked,
        Refusal::Restarting,
        Refusal::NodeDoubtsItself { why: SelfDoubt::Stalled },
    ]
}

/// In the order of [`Reason::CODES`].
fn reasons() -> Vec<Reason> {
    let (epoch, others) = (Epoch(300), vec![(a(), Refusal::Spare)]);
    let opened = Reason::Opened { member: a(), epoch, pause_ms: 1, detect_ms: 2, fence_ms: 3, choose_ms: 4, promote_ms: 5 };
    let mut all = vec![
        Reason::HotStopped { member: a(), cause: StopCause::Signal(9) },
        Reason::HotUnready { member: a(), why: why() },
        Reason::HotUnreachable { member: a(), witnesses: vec![(n(), Evidence::Reset)] },
        Reason::NodeSilent { member: a(), node: n() },
        Reason::NodeLapsed { member: a(), node: n() },
        Reason::Vacant,
        Reason::SwitchoverAsked { from: a(), to: "web/b".into() },
        Reason::HotDrained { member: a() },
        Reason::Fenced { member: a(), epoch, by: FencedBy::LeaseOut },
        Reason::Chosen { member: a(), others: others.clone() },
        Reason::PromoteFailed { member: a(), why: why() },
        Reason::PromoteTimedOut { member: a(), after_ms: 300 },
        Reason::CandidateLost { member: a() },
        opened,
        Reason::ReturnedWarm { member: a() },
        Reason::Ejected { member: a(), why: Refusal::Drained },
        Reason::Admitted { member: a(), epoch },
        Reason::SpareStarted { member: a() },
        Reason::SpareRests { member: a() },
        Reason::DrainTimedOut { routers: vec![n()], after_ms: 300 },
        Reason::SwitchoverAborted { why: why() },
        Reason::DemoteTimedOut { member: a(), after_ms: 300 },
        Reason::Paused,
        Reason::Resumed,
    ];
    all.extend(refused(others));
    all
}

fn refused(others: Vec<(MemberId, Refusal)>) -> [Reason; 17] {
    [
        Reason::FenceWaits { members: vec![a()], routers: vec![n()] },
        Reason::NoSuccessor { member: Some(a()), others },
        Reason::AutomationPaused,
        Reason::BudgetSpent { failovers: 6, per_hour: 7 },
        Reason::TooFewReports { reports: 1, needed: 2 },
        Reason::LastOne { member: a(), why: Refusal::Suspected },
        Reason::SwitchoverRefused { why: why() },
        Reason::ResumeWaits { nodes: vec![n()] },
        Reason::HoldDownWaived { member: a(), left_ms: 300 },
        Reason::NotStarted { member: a(), why: why() },
        Reason::NoneWanted { member: a() },
        Reason::RestartAsked { members: vec![a()] },
        Reason::Restarting { member: a() },
        Reason::Restarted { member: a(), left: 2 },
        Reason::RestartWaits { member: a(), why: why() },
        Reason::RestartStopped { member: Some(a()), why: why(), left: vec![a()] },
        Reason::RestartRefused { why: why() },
    ]
}

fn fenced() -> Vec<FencedBy> {
    let stopped = FencedBy::Stopped(StopCause::Asked);
    vec![stopped, FencedBy::Demoted, FencedBy::LeaseOut, FencedBy::Hook, FencedBy::RoutersClosed, FencedBy::Vouched]
}

fn transitions() -> Vec<Transition> {
    let until = Millis(300);
    let phases = [Phase::Draining { until }, Phase::Fencing { until }, Phase::Choosing { until }, Phase::Promoting { to: a(), until }];
    let transition = |phase| Transition {
        attempt: Attempt(5),
        why: Reason::Vacant,
        from: Some(a()),
        to: None,
        planned: true,
        phase,
        refused: BTreeSet::from([a()]),
        drained_routers: BTreeSet::from([n()]),
        stamps: Stamps { doubt: Millis(1), began: Millis(2), fenced: Millis(3), chosen: Millis(4) },
    };
    phases.map(transition).into()
}

fn restarts() -> Vec<Restart> {
    let stages = [Stage::Relieved, Stage::HandingOver, Stage::Draining, Stage::Ending, Stage::Starting];
    let restart = |stage| Restart {
        left: [(a(), Incarnation(3))].into(),
        turn: Some(Turn { member: a(), life: Incarnation(3), stage }),
        waits: Some(Reason::Vacant),
        stopped: None,
        until: Millis(300),
    };
    stages.map(restart).into()
}

fn bytes<T: Serialize>(values: &[T]) -> Vec<String> {
    values.iter().map(|value| hex(&postcard::to_allocvec(value).expect("what the state holds can be written"))).collect()
}

fn read<T: DeserializeOwned + PartialEq + std::fmt::Debug>(lines: &mut std::str::Lines<'_>, values: &[T]) {
    for value in values {
        let line = lines.next().expect("a line for each");
        assert_eq!(postcard::from_bytes::<T>(&unhex(line)).as_ref(), Ok(value), "{line}");
    }
}

#[test]
fn what_a_snapshot_may_hold_is_frozen() {
    let codes: Vec<&str> = reasons().iter().map(Reason::code).collect();
    assert_eq!(codes, Reason::CODES, "one of each");
    let pauses = [Pause::No, Pause::Paused, Pause::Resuming { waiting: BTreeSet::from([n()]) }];
    let lives = [Life::Unknown, Life::Running, Life::Stopped(StopCause::Exit(3))];
    let views = [NodeView { silent: true, lapsed: false, drained: true, doubts_itself: Some(SelfDoubt::Stalled) }];
    let (reasons, refusals, fenced) = (reasons(), refusals(), fenced());
    let (transitions, restarts) = (transitions(), restarts());
    let mut now = [bytes(&reasons), bytes(&refusals), bytes(&fenced), bytes(&transitions), bytes(&restarts)].concat();
    now.extend([bytes(&pauses), bytes(&lives), bytes(&views)].concat());
    let golden = include_str!("state.hex");
    super::check(golden, &now);
    let lines = &mut golden.lines();
    read(lines, &reasons);
    read(lines, &refusals);
    read(lines, &fenced);
    read(lines, &transitions);
    read(lines, &restarts);
    read(lines, &pauses);
    read(lines, &lives);
    read(lines, &views);
}
