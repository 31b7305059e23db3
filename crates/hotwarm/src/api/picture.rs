//! From what the agent and the core know to what goes over the wire. It only rewrites; it decides nothing and asks nobody.
//!
//! Main path: [`status`] for most reads; [`event`], [`why`], [`traffic`] for the others.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use hotwarm_core::cluster::{self, What};
use hotwarm_core::detect::{Ailment, Grade};
use hotwarm_core::group::explain::{self, explain};
use hotwarm_core::group::state::{Group, Life, Member, Pause, Phase};
use hotwarm_core::group::{self, Effect, Refusal, problem, reason};
use hotwarm_core::ids::{GroupName, MemberId, Millis, Role};
use hotwarm_core::node::View;

use super::gate::Gate;
use super::types::*;
use crate::agent::seen::{CLASSES, Failure, Room};
use crate::agent::{Erring, Handle, Noted, Recorded};
use crate::clock::rfc3339;
use crate::codes::Code;
use crate::config::Engine;

/// A hook that failed longer ago is not tried any more.
const HOOK_FRESH: Duration = Duration::from_secs(60);

pub(super) fn status(agent: &Handle, gate: &Gate) -> Status {
    let view = agent.view();
    Status {
        cluster: cluster_status(&view),
        node: self_status(agent, &view),
        nodes: nodes(&view),
        problems: super::problem::all(agent, gate),
        groups: groups(agent),
    }
}

pub(super) fn groups(agent: &Handle) -> Vec<GroupStatus> {
    let view = agent.view();
    view.cluster.groups.values().map(|g| group_status(agent, &view, g)).collect()
}

fn cluster_status(view: &View) -> ClusterStatus {
    ClusterStatus {
        name: view.cluster.name.clone(),
        id: format!("{:032x}", view.cluster.id),
        leader: view.leader.as_ref().map(ToString::to_string),
        term: view.term,
        revision: view.cluster.revision,
        behaviour: view.cluster.behaviour,
        lease_ms: view.cluster.lease.length_ms,
        quorum: quorum(view),
    }
}

pub(super) fn quorum(view: &View) -> Quorum {
    Quorum { voters: view.voters.iter().map(ToString::to_string).collect(), needed: view.voters.len() / 2 + 1, reached: view.reached.len() }
}

fn self_status(agent: &Handle, view: &View) -> SelfStatus {
    SelfStatus {
        name: view.me.to_string(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        leads: view.leads,
        lease_left_ms: u64::try_from(view.lease_left.as_millis()).unwrap_or(u64::MAX),
        cut_off_ms: millis(agent.cut_off()),
        no_lease_ms: millis(agent.unleased()),
        cannot_found: !view.cluster.founded() && !agent.may_found(),
        grade: grade(view.grade).to_owned(),
        ailment: view.ailment.map(ailment),
        applied: view.applied.0,
        commit: view.commit.0,
        certificate: agent.certificate().as_ref().map(certificate),
        disk: agent.room().map(|Room { free_bytes, floor_bytes, low }| DiskStatus { free_bytes, floor_bytes, low }),
    }
}

fn millis(span: Option<Duration>) -> Option<u64> {
    span.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
}

pub(super) fn certificate(identity: &crate::config::pki::Identity) -> CertificateStatus {
    CertificateStatus {
        not_after_unix_seconds: identity.not_after,
        days_left: identity.days_left(SystemTime::now()),
        serial: identity.serial.clone(),
    }
}

pub(super) const fn grade(grade: Grade) -> &'static str {
    match grade {
        Grade::Well => "well",
        Grade::Slow => "slow",
        Grade::Stalled => "stalled",
    }
}

pub(super) fn ailment(ailment: Ailment) -> String {
    match ailment {
        Ailment::DiskFailed => "the disk refused a write or sync".to_owned(),
        Ailment::Disk(took) => format!("a write and sync of the disk took {} ms", took.as_millis()),
        Ailment::Timer(late) => format!("the decision thread ran {} ms late", late.as_millis()),
    }
}

pub(super) fn nodes(view: &View) -> Vec<NodeStatus> {
    let of = |(name, node): (&hotwarm_core::ids::NodeId, &cluster::Node)| NodeStatus {
        name: name.to_string(),
        address: node.spec.address,
        zone: node.spec.zone.clone(),
        role: match (node.spec.witness, node.spec.votes) {
            (true, _) => "witness",
            (false, true) => "voter",
            (false, false) => "edge",
        }
        .to_owned(),
        joined: node.raft_id.is_some(),
        votes: view.voters.contains(name),
        leads: view.leader.as_ref() == Some(name),
        // Of itself it knows better than the log, which may not have reached it for a while.
        leased: if *name == view.me { !view.lease_left.is_zero() } else { node.leased },
        silent: node.silent,
        drained: node.drained,
        heard: *name == view.me || view.heard.contains(name),
    };
    view.cluster.nodes.iter().map(of).collect()
}

pub(super) fn group_status(agent: &Handle, view: &View, group: &Group) -> GroupStatus {
    let own = agent.members();
    let unleased = agent.unleased().is_some();
    let config = agent.config();
    let listen = config.groups.get(&group.spec.name).map(|g| &g.listen);
    let member = |(id, member): (&MemberId, &Member)| {
        let seen = own.get(id);
        let status = member_status(group, id, member, view.log_now, seen.and_then(|seen| seen.pid));
        let status = MemberStatus { former_engine: agent.runs_former(id), ..status };
        match seen.filter(|_| unleased) {
            Some(seen) => as_seen_here(status, seen.running, group.spec.exclusive),
            None => status,
        }
    };
    let unopened = agent.unopened().contains_key(&group.spec.name);
    let hour_ago = view.log_now.0.saturating_sub(3_600_000);
    GroupStatus {
        name: group.spec.name.to_string(),
        mode: mode(group).to_owned(),
        exclusive: group.spec.exclusive,
        want: wanted(group),
        have: present(group),
        epoch: group.epoch.0,
        state: if unleased && group.spec.exclusive { "no-lease" } else { state(group) }.to_owned(),
        last_state: unleased.then(|| state(group).to_owned()),
        pause: pause(&group.pause).to_owned(),
        transition: group.transition.as_ref().map(transition),
        refusal: group.refusal.as_ref().map(reason),
        restart: restart(group),
        problems: problems(agent, group),
        failovers_last_hour: group.failovers.iter().filter(|at| at.0 >= hour_ago).count(),
        failovers_per_hour: group.spec.bounds.failovers_per_hour,
        listen: listen
            .into_iter()
            .flatten()
            .filter(|(node, _)| !(unopened && *node == agent.me()))
            .map(|(node, address)| (node.to_string(), *address))
            .collect(),
        members: group.members.iter().map(member).collect(),
    }
}

/// What runs here is known here, whatever the log said last; and where no lease is held, no router sends anything to a member of an
/// exclusive group here.
fn as_seen_here(status: MemberStatus, running: bool, exclusive: bool) -> MemberStatus {
    if running || status.life != "running" {
        return MemberStatus { serving: status.serving && !exclusive, ..status };
    }
    let why = if exclusive { "its node holds no lease: it was ended there" } else { "it does not run, as its node sees it" };
    let stopped = Some(why.to_owned());
    MemberStatus { serving: false, life: "stopped".to_owned(), stopped, ready: false, ..status }
}

fn mode(group: &Group) -> &'static str {
    let counts = wanted(group);
    match (counts.hot, counts.warm, counts.spare) {
        (_, 0, 0) => "hot-hot",
        (0 | 1, _, 0) => "hot-warm",
        (_, 0, _) => "hot-spare",
        _ => "mixed",
    }
}

pub(super) fn wanted(group: &Group) -> Counts {
    let (hot, warm) = (usize::from(group.spec.hot), usize::from(group.spec.warm));
    Counts { hot, warm, spare: group.spec.members.len().saturating_sub(hot + warm) }
}

pub(super) fn present(group: &Group) -> Counts {
    let count = |fits: &dyn Fn(&MemberId, &Member) -> bool| group.members.iter().filter(|(id, m)| fits(id, m)).count();
    Counts {
        hot: count(&|id, _| group.serves(id)),
        warm: count(&|id, m| m.role == Role::Warm && group.unfit(id).is_none()),
        spare: count(&|_, m| m.role == Role::Spare),
    }
}

fn state(group: &Group) -> &'static str {
    match &group.transition {
        Some(t) if matches!(t.phase, Phase::Draining { .. }) => "draining",
        Some(_) => "changing",
        None if group.closed || !group.members.iter().any(|(id, m)| m.serving && group.gone(id).is_none()) => "parked",
        None => "serving",
    }
}

const fn pause(pause: &Pause) -> &'static str {
    match pause {
        Pause::No => "no",
        Pause::Paused => "paused",
        Pause::Resuming { .. } => "resuming",
    }
}

fn transition(t: &group::state::Transition) -> Transition {
    let (phase, promoting) = match &t.phase {
        Phase::Draining { .. } => ("draining", None),
        Phase::Fencing { .. } => ("fencing", None),
        Phase::Choosing { .. } => ("choosing", None),
        Phase::Promoting { to, .. } => ("promoting", Some(to)),
    };
    Transition {
        attempt: t.attempt.0,
        why: reason(&t.why),
        from: t.from.as_ref().map(ToString::to_string),
        to: promoting.or(t.to.as_ref()).map(ToString::to_string),
        planned: t.planned,
        phase: phase.to_owned(),
    }
}

fn restart(group: &Group) -> Option<Restarting> {
    let restart = group.restart.as_ref()?;
    Some(Restarting {
        member: restart.turn.as_ref().map(|turn| turn.member.to_string()),
        left: group.restart_order(restart.left.keys()).iter().map(ToString::to_string).collect(),
        stopped: restart.stopped.is_some(),
        text: group.restart_told().unwrap_or_else(|| "it is about to begin".to_owned()),
    })
}

/// What the group's state shows, and what only this node knows.
pub(super) fn problems(agent: &Handle, group: &Group) -> Vec<Problem> {
    problems_with(agent, group, problem::Problem::advice_from_afar)
}

fn problems_with(agent: &Handle, group: &Group, advice: fn(&problem::Problem, &Group) -> String) -> Vec<Problem> {
    let of = |p: &problem::Problem| {
        let (title, advice) = named(group, p, advice(p, group), is_external(agent, &group.spec.name));
        let severity = match p.severity {
            problem::Severity::Down => "down",
            problem::Severity::Bare => "bare",
            problem::Severity::Notice => "notice",
        };
        Problem { code: p.code.to_owned(), severity: severity.to_owned(), title, advice }
    };
    let unopened = agent.unopened().get(&group.spec.name).map(|why| Problem {
        code: Code::LISTENER_REFUSED.to_string(),
        severity: "down".to_owned(),
        title: format!("node {} does not serve its clients: {why}", agent.me()),
        advice: "tried again each second; `ss -ltnp` tells who has the port".to_owned(),
    });
    let unleased = agent.unleased().filter(|_| group.spec.exclusive).map(|_| Problem {
        code: Code::LEASE_ENDED.to_string(),
        severity: "down".to_owned(),
        title: format!("node {} holds no lease: it serves nothing of this group", agent.me()),
        advice: "ask a node that holds one; why this one has none: docs/reference/errors/HW0509.md".to_owned(),
    });
    let here = unleased.into_iter().chain(unopened).chain(failed_hooks(agent, group));
    here.chain(problem::of(group).map(of)).chain(erring(agent, group)).collect()
}

/// Members that answer this node's router with 5xx; one whose check fails as well is told of by that.
fn erring(agent: &Handle, group: &Group) -> Vec<Problem> {
    let seen = agent.erring();
    let problem = |(id, erring): (&MemberId, &Erring)| {
        let member = group.members.get(id).filter(|m| m.ready && m.running())?;
        let node = &group.spec.members.get(id).filter(|_| member.role == Role::Hot)?.node;
        Some(Problem {
            code: Code::ANSWERS_5XX.to_string(),
            severity: "notice".to_owned(),
            title: erring.text(agent.me(), id),
            advice: format!("see its log: `hotwarm logs {id}` on node {node}; docs/reference/errors/HW0511.md"),
        })
    };
    seen.iter().filter_map(problem).collect()
}

/// Hooks that fail here now; those of a change of the hot member only while it is under way.
fn failed_hooks(agent: &Handle, group: &Group) -> impl Iterator<Item = Problem> {
    let (now, me) = (crate::clock::now(), agent.me().clone());
    let waits = group.transition.is_some();
    let matters = move |failure: &Failure| now.since(failure.at) < HOOK_FRESH && (waits || matches!(failure.hook, "start" | "stop"));
    let failed = agent.failed_hooks(&group.spec.name).into_iter().filter(matters);
    failed.map(move |Failure { member, hook, text, at, times, .. }| Problem {
        code: Code::HOOK_FAILED.to_string(),
        severity: if hook == "fence" { "down" } else { "notice" }.to_owned(),
        title: format!("{member}: {text} ({times} times on node {me}, last {:.1} s ago)", now.since(at).as_secs_f64()),
        advice: "look at its output and run it by hand on that node: docs/reference/errors/HW0510.md".to_owned(),
    })
}

/// True if something else than hotwarm runs the group's members, by the configuration in force.
pub(super) fn is_external(agent: &Handle, group: &GroupName) -> bool {
    agent.config().groups.get(group).is_some_and(|group| group.engine == Engine::External)
}

/// A problem of single members names them and what to do about each.
fn named(group: &Group, problem: &problem::Problem, mut advice: String, external: bool) -> (String, String) {
    let those = |wanted: fn(&Member, &Refusal) -> bool| -> Vec<&MemberId> {
        let unfit = group.members.iter().filter(|(id, m)| group.unfit(id).is_some_and(|why| wanted(m, &why)));
        unfit.map(|(id, _)| id).collect()
    };
    let members = match problem.code {
        "member-missing" => those(|m, why| m.role != Role::Spare && *why != Refusal::Drained),
        "drained" => those(|m, why| !m.serving && *why == Refusal::Drained),
        "kept-drained" => those(|m, why| m.serving && *why == Refusal::Drained),
        _ => Vec::new(),
    };
    let mut title = problem.title.to_owned();
    let of_first = members.first().and_then(|first| group.spec.members.get(first)).map(|spec| &spec.node);
    if problem.code == "member-missing" && of_first.is_some_and(|node| group.node(node).lapsed || group.node(node).silent) {
        "bring node NODE back: it does not answer, and nothing there can be asked for".clone_into(&mut advice);
    } else if external && problem.code == "member-missing" {
        "look at MEMBER on node NODE: hotwarm does not run it, it probes it".clone_into(&mut advice);
    }
    if problem.code == "router-cut" {
        title = format!("{title} ({})", group.doubts().join("; "));
    }
    if let [first, rest @ ..] = &members[..] {
        let all = members.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        title = of_members(problem.code, &all, !rest.is_empty()).unwrap_or(title);
        advice = advice.replace("MEMBER", first.as_str());
        if let Some(spec) = group.spec.members.get(first) {
            advice = advice.replace("NODE", spec.node.as_str());
        }
        if !rest.is_empty() {
            advice.push_str("; likewise the others");
        }
        if problem.code == "member-missing" {
            let why = group.unfit(first).map(|why| why.to_string()).unwrap_or_default();
            title = format!("{title} ({first}: {why})");
        }
    }
    (title, advice)
}

/// What the table of problems says of "a member", of those that it is about.
fn of_members(code: &str, names: &str, several: bool) -> Option<String> {
    let rest = match (code, several) {
        ("member-missing", false) => "should run and does not, or fails its check",
        ("member-missing", true) => "should run and do not, or fail their checks",
        ("drained", false) => "is drained and takes over from nobody",
        ("drained", true) => "are drained and take over from nobody",
        ("kept-drained", false) => "is drained and goes on serving: no other can take over",
        ("kept-drained", true) => "are drained and go on serving: no others can take over",
        _ => return None,
    };
    Some(format!("{names} {rest}"))
}

fn member_status(group: &Group, id: &MemberId, member: &Member, log_now: Millis, pid: Option<u32>) -> MemberStatus {
    let spec = group.spec.members.get(id);
    let (life, stopped) = match &member.life {
        Life::Unknown => ("unknown", None),
        Life::Running => ("running", None),
        Life::Stopped(cause) => ("stopped", Some(cause.to_string())),
    };
    MemberStatus {
        name: id.to_string(),
        node: spec.map(|s| s.node.to_string()).unwrap_or_default(),
        address: spec.map_or_else(|| ([0, 0, 0, 0], 0).into(), |s| s.address),
        role: member.role.to_string(),
        serving: group.serves(id),
        life: life.to_owned(),
        stopped,
        ready: member.ready,
        why_unready: member.why_unready.clone(),
        drained: member.drained,
        unfit: group.unfit(id).as_ref().map(unfit),
        former_engine: false,
        held_down_ms: Some(member.unstable_until.since(log_now)).filter(|ms| *ms > 0),
        pid,
        incarnation: member.incarnation.0,
        priority: spec.map_or(0, |s| s.priority),
        weight: spec.map_or(0, |s| s.weight),
    }
}

pub(super) fn unfit(why: &Refusal) -> Unfit {
    let code = match why {
        Refusal::NodeLost => "node-lost",
        Refusal::Drained => "drained",
        Refusal::Spare => "spare",
        Refusal::NotRunning { .. } => "not-running",
        Refusal::NotReady { .. } => "not-ready",
        Refusal::Suspected => "suspected",
        Refusal::Unstable { .. } => "unstable",
        Refusal::FailedThisTime => "failed-this-time",
        Refusal::NoPosition => "no-position",
        Refusal::Behind { .. } => "behind",
        Refusal::Outranked => "outranked",
        Refusal::KeptDown => "kept-down",
        Refusal::OldData => "old-data",
        Refusal::Restarting => "restarting",
        Refusal::NodeDoubtsItself { .. } => "node-doubts-itself",
    };
    Unfit { code: code.to_owned(), text: why.to_string() }
}

/// Who it is about; the rest is in its text.
pub(super) fn reason(reason: &reason::Reason) -> Reason {
    use reason::Reason as R;
    let (member, node, epoch) = match reason {
        R::NodeSilent { member, node } | R::NodeLapsed { member, node } => (Some(member), Some(node), None),
        R::Fenced { member, epoch, .. } | R::Opened { member, epoch, .. } | R::Admitted { member, epoch } => {
            (Some(member), None, Some(epoch.0))
        }
        R::SwitchoverAsked { to, .. } => (Some(to), None, None),
        R::HotStopped { member, .. }
        | R::HotUnready { member, .. }
        | R::HotUnreachable { member, .. }
        | R::HotDrained { member }
        | R::NoneWanted { member }
        | R::Chosen { member, .. }
        | R::PromoteFailed { member, .. }
        | R::PromoteTimedOut { member, .. }
        | R::CandidateLost { member }
        | R::ReturnedWarm { member }
        | R::Ejected { member, .. }
        | R::SpareStarted { member }
        | R::LastOne { member, .. } => (Some(member), None, None),
        R::Restarting { member } | R::Restarted { member, .. } | R::RestartWaits { member, .. } => (Some(member), None, None),
        R::RestartStopped { member, .. } => (member.as_ref(), None, None),
        R::NoSuccessor { member, .. } => (member.as_ref(), None, None),
        _ => (None, None, None),
    };
    let pause = match reason {
        R::Opened { pause_ms, detect_ms, fence_ms, choose_ms, promote_ms, .. } => {
            Some(Phases { pause_ms: *pause_ms, detect_ms: *detect_ms, fence_ms: *fence_ms, choose_ms: *choose_ms, promote_ms: *promote_ms })
        }
        _ => None,
    };
    Reason {
        code: reason.code().to_owned(),
        text: reason.to_string(),
        refusal: reason.is_refusal(),
        rules: reason.rules().iter().map(ToString::to_string).collect(),
        member: member.map(ToString::to_string),
        node: node.map(ToString::to_string),
        epoch,
        pause,
    }
}

pub(super) fn recorded(record: &Recorded) -> Event {
    let told = match &record.what {
        Noted::Decided(decided) => event(decided, record.time),
        Noted::Here { at, kind, text } => Event {
            number: 0,
            time: rfc3339(record.time),
            at_ms: at.0,
            group: record.group.as_ref().map(ToString::to_string),
            kind: (*kind).to_owned(),
            text: text.clone(),
            reason: None,
        },
    };
    Event { number: record.number, ..told }
}

pub(super) fn event(event: &cluster::Event, time: SystemTime) -> Event {
    Event {
        number: 0,
        time: rfc3339(time),
        at_ms: event.at.0,
        group: event.group.as_ref().map(ToString::to_string),
        kind: kind(&event.what).to_owned(),
        text: event.what.to_string(),
        reason: match &event.what {
            What::Group(Effect::Because(why)) => Some(reason(why)),
            _ => None,
        },
    }
}

const fn kind(what: &What) -> &'static str {
    match what {
        What::Founded { .. } => "founded",
        What::Configured { .. } => "configured",
        What::ConfigureRefused { .. } => "configure-refused",
        What::Admitted { .. } => "node-admitted",
        What::Silent { .. } => "node-silent",
        What::Heard { .. } => "node-heard",
        What::Lapsed { .. } => "node-lapsed",
        What::Back { .. } => "node-back",
        What::Drained { .. } => "node-drained",
        What::Undrained { .. } => "node-undrained",
        What::Behaviour { .. } => "behaviour",
        What::SelfDoubt { why: Some(_), .. } => "node-doubts-itself",
        What::SelfDoubt { why: None, .. } => "node-doubts-no-longer",
        What::Group(effect) => match effect {
            Effect::Close { .. } => "close",
            Effect::Fence { .. } => "fence",
            Effect::Drain { .. } => "drain",
            Effect::Detach { .. } => "detach",
            Effect::Promote { .. } => "promote",
            Effect::Demote { .. } => "demote",
            Effect::Open { .. } => "open",
            Effect::Start { .. } => "start",
            Effect::Stop { .. } => "stop",
            Effect::Because(_) => "because",
        },
    }
}

pub(super) fn why(agent: &Handle, group: &Group) -> Why {
    let view = agent.view();
    let explained = explain(group, explain::Quorum { voters: &view.voters, reached: &view.reached });
    let no_lease_ms = millis(agent.unleased());
    Why {
        node: agent.me().to_string(),
        cut_off_ms: millis(agent.cut_off()),
        no_lease_ms,
        group: group.spec.name.to_string(),
        epoch: group.epoch.0,
        now: match (no_lease_ms, group.spec.exclusive) {
            (None, _) => explained.now,
            (Some(_), true) => {
                format!("nothing of it is served by node {}, which holds no lease; when it last knew: {}", agent.me(), explained.now)
            }
            (Some(_), false) => format!("what serves on node {} goes on; when it last knew: {}", agent.me(), explained.now),
        },
        transition: explained.transition,
        refusal: explained.refusal.as_ref().map(reason),
        restart: explained.restart,
        // It is `why` that is asked: to point there would be to point nowhere.
        problems: problems_with(agent, group, problem::Problem::advice),
        members: explained
            .members
            .iter()
            .map(|(id, role, why)| Standing { member: id.to_string(), role: role.to_string(), unfit: why.as_ref().map(unfit) })
            .collect(),
        if_died: explained
            .if_died
            .iter()
            // What a death would bring is decided by those that do not hear it, or that it does not hear.
            .filter(|_| no_lease_ms.is_none())
            .map(|w| WhatIf { event: w.event.clone(), outcome: w.outcome.clone(), reasons: w.reasons.iter().map(reason).collect() })
            .collect(),
    }
}

pub(super) fn traffic(agent: &Handle) -> Traffic {
    let member = |m: crate::router::MemberStats| MemberTraffic {
        member: m.member.to_string(),
        requests: m.requests,
        failed: m.failed,
        retried: m.retried,
        connects: m.connects,
        sent_bytes: m.bytes_sent,
        received_bytes: m.bytes_received,
        in_flight: m.in_flight,
        replies: CLASSES.iter().zip(m.replies).map(|(class, count)| ((*class).to_owned(), count)).collect(),
        ejected: m.ejected,
        first_byte_us: m.first_byte.iter().filter(|b| b.count > 0).map(|b| (b.below_us, b.count)).collect(),
        first_byte_sum_us: m.first_byte_sum_us,
    };
    let group = |g: crate::router::GroupStats| GroupTraffic {
        group: g.group.to_string(),
        epoch: g.epoch.0,
        connections: g.connections,
        connections_now: g.connections_now,
        requests: g.requests,
        retried: g.retried,
        parked: g.parked,
        parked_now: g.parked_now,
        parked_bytes_now: g.parked_bytes_now,
        failed: g.failed.iter().map(|(why, count)| (why.name().to_owned(), *count)).collect::<BTreeMap<_, _>>(),
        members: g.members.into_iter().map(member).collect(),
    };
    let at_ms = crate::clock::now().0 / 1_000;
    Traffic { node: agent.me().to_string(), at_ms, groups: agent.traffic().into_iter().map(group).collect() }
}

/// Up: a leader, a lease, a disk, and every group served, here too.
pub(super) fn health(agent: &Handle, gate: &Gate) -> Health {
    let view = &*agent.view();
    let (mut reasons, mut warnings) = (Vec::new(), Vec::new());
    if !view.cluster.founded() {
        reasons.push("this node has not joined its cluster yet".to_owned());
        if !agent.may_found() {
            reasons.push("it may not found the cluster: `hotwarm init` and `hotwarm join` give one node the right to".to_owned());
        }
    }
    if view.leader.is_none() {
        let quorum = quorum(view);
        reasons.push(format!("no leader ({} of {} voters reached, {} needed)", quorum.reached, quorum.voters.len(), quorum.needed));
    }
    if view.lease_left.is_zero() {
        reasons.push("this node holds no lease".to_owned());
    }
    if view.grade == Grade::Stalled {
        reasons.push(format!("this node is stalled: {}", view.ailment.map(ailment).unwrap_or_default()));
    }
    for problem in super::problem::all(agent, gate) {
        match (problem.code.as_str(), problem.severity.as_str()) {
            // They are reasons already.
            ("no-leader" | "node-stalled", _) => {}
            (_, "down") => reasons.push(super::problem::warning(&problem)),
            _ => warnings.push(super::problem::warning(&problem)),
        }
    }
    for group in view.cluster.groups.values() {
        for problem in problems(agent, group) {
            let text = format!("group {}: {}", group.spec.name, problem.title);
            let list = if problem.severity == "down" { &mut reasons } else { &mut warnings };
            list.push(text);
        }
    }
    let status = if reasons.is_empty() { "UP" } else { "DOWN" };
    Health { status: status.to_owned(), node: view.me.to_string(), reasons, warnings }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The log that has not reached it says that it holds a lease; it knows that it holds none.
    #[test]
    fn a_node_knows_of_its_own_lease_better_than_the_log() {
        use hotwarm_core::cluster::{Body, Cluster, ClusterSpec, Entry, Item, NodeSpec};
        use hotwarm_core::ids::{Index, NodeId, Session};
        let spec = |port| NodeSpec { address: ([127, 0, 0, 1], port).into(), votes: true, witness: false, zone: String::new() };
        let (a, b) = (NodeId::from("a"), NodeId::from("b"));
        let nodes: BTreeMap<_, _> = [(a.clone(), spec(1)), (b.clone(), spec(2))].into();
        let spec = ClusterSpec { name: "x".into(), lease_ms: 1000, nodes, groups: BTreeMap::new(), text: String::new() };
        let found = Body::Found { cluster: 1, spec: Box::new(spec), node: a.clone(), incarnation: 1 };
        let back = |node: &NodeId| Body::Back { node: node.clone(), session: Session(0) };
        let items = [found, back(&a), back(&b)].map(|body| Item { origin: None, body }).into();
        let mut cluster = Cluster::empty();
        cluster.apply(&Entry { at: Millis(1), wall_ms: 0, items });
        let mut view = View {
            me: b,
            cluster: std::sync::Arc::new(cluster),
            leader: Some(a),
            leads: false,
            term: 1,
            applied: Index(1),
            commit: Index(1),
            log_now: Millis(1),
            lease_left: Duration::from_millis(1),
            heard: Vec::new(),
            strangers: Vec::new(),
            grade: Grade::Well,
            ailment: None,
            voters: Vec::new(),
            reached: Vec::new(),
        };
        let leased = |view: &View| super::nodes(view).iter().map(|node| node.leased).collect::<Vec<_>>();
        assert_eq!(leased(&view), [true, true]);
        view.lease_left = Duration::ZERO;
        assert_eq!(leased(&view), [true, false]);
    }

    /// Every problem that names members has a sentence of its own for one and for several.
    #[test]
    fn several_members_are_spoken_of_as_several() {
        for problem in problem::TABLE.iter().filter(|problem| problem.title.starts_with("a member ")) {
            let said = |several| of_members(problem.code, "x", several).unwrap_or_else(|| panic!("no sentence for {}", problem.code));
            assert_ne!(said(false), said(true), "{}", problem.code);
        }
        assert_eq!(of_members("drained", "clk/a, clk/b", true).unwrap(), "clk/a, clk/b are drained and take over from nobody");
    }
}
