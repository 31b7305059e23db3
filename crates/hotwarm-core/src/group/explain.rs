//! Why the group is as it is, and what would happen if a member died now: the same `step`, tried on a copy.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::candidate::Need;
use super::input::{Answer, Body, Input, Life as Told, NodeInput, Testimony};
use super::reason::{Evidence, Refusal};
use super::spec::Fence;
use super::state::{Group, Member, Phase};
use super::{Effect, Reason, step};
use crate::action::StopCause;
use crate::ids::{Incarnation, MemberId, NodeId, Role};

/// What `hotwarm why` shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// What holds now, in a sentence.
    pub now: String,
    /// The change that is under way, and what it waits for.
    pub transition: Option<String>,
    /// The refusal that holds now.
    pub refusal: Option<Reason>,
    /// What a restart that was asked for is doing, or why it does nothing.
    pub restart: Option<String>,
    /// Each member: role, and why it could not become hot (`None` = it could, or is).
    pub members: Vec<(MemberId, Role, Option<Refusal>)>,
    /// What would follow the death of each member that serves.
    pub if_died: Vec<WhatIf>,
}

/// What would follow one death.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WhatIf {
    pub event: String,
    pub outcome: String,
    pub reasons: Vec<Reason>,
}

/// What a node knows of the quorum.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quorum<'a> {
    pub voters: &'a [NodeId],
    /// Those of them that are heard, the node that explains included.
    pub reached: &'a [NodeId],
}

impl Quorum<'_> {
    /// How many voters are left without `node`, and how many are needed, if too few are.
    fn lost_without(&self, node: &NodeId) -> Option<(usize, usize)> {
        let left = self.reached.iter().filter(|voter| *voter != node).count();
        let needed = self.voters.len() / 2 + 1;
        (self.reached.contains(node) && left < needed).then_some((left, needed))
    }
}

/// Explains `group` as it is, to a node that knows so much of the quorum.
#[must_use]
pub fn explain(group: &Group, quorum: Quorum<'_>) -> Explanation {
    Explanation {
        now: now(group),
        transition: group.transition.as_ref().map(|_| waits_for(group)),
        refusal: group.refusal.clone(),
        restart: group.restart_told(),
        members: group.members.iter().map(|(id, m)| (id.clone(), m.role, standing(group, id))).collect(),
        if_died: what_if(group, quorum),
    }
}

/// Who serves is hot, however lately it failed: a hold-down keeps nobody from going on.
fn standing(group: &Group, id: &MemberId) -> Option<Refusal> {
    let serves = group.members.get(id).is_some_and(|m| m.role == Role::Hot && m.serving);
    group.unfit(id).or_else(|| {
        if serves {
            return None;
        }
        let held_down = group.candidate(Need::Live, None, &Default::default()).1.into_iter().find(|(other, _)| other == id);
        let held_down = held_down.map(|(_, why)| why).filter(|why| matches!(why, Refusal::Unstable { .. }));
        // It is chosen where no other can be, and after them: as for who is held down.
        held_down.or_else(|| group.self_doubt(id).map(|why| Refusal::NodeDoubtsItself { why }))
    })
}

/// By the same judgement as the problems, so that the first line contradicts none of them.
fn now(group: &Group) -> String {
    let admitted = || group.members.keys().filter(|id| group.is_admitted(id));
    if admitted().next().is_none() {
        return format!("nobody serves; epoch {} is over and requests park{}", group.epoch, awaited(group));
    }
    if group.closed {
        return format!("epoch {} is closed; requests park", group.epoch);
    }
    let serving: Vec<&str> = admitted().filter(|id| group.serves(id)).map(MemberId::as_str).collect();
    let others = admitted().filter(|id| !group.serves(id)).map(|id| match group.gone(id) {
        Some(why) if group.may_answer(id) => {
            format!("{id} is hot: {why}; whether it serves is not known, and it may still answer whoever reaches it")
        }
        Some(why) => format!("{id} is hot and does not serve: {why}"),
        None => format!("{id} is hot and its node is silent: whether it serves is not known"),
    });
    let first = match serving.len() {
        0 => None,
        1 => Some(format!("{} serves epoch {}", serving[0], group.epoch)),
        _ => Some(format!("{} serve epoch {}", serving.join(", "), group.epoch)),
    };
    let park = admitted().all(|id| group.gone(id).is_some()).then(|| match admitted().any(|id| group.may_answer(id)) {
        true => "requests that do not reach it park".to_owned(),
        false => format!("nobody serves epoch {}, and requests park", group.epoch),
    });
    first.into_iter().chain(others).chain(park).chain(group.doubts()).collect::<Vec<_>>().join("; ")
}

/// What keeps members from serving that lack nothing: nobody would find it in what each of them lacks.
fn awaited(group: &Group) -> String {
    let named = |which: &dyn Fn(&MemberId, &Member) -> bool| -> Vec<&str> {
        group.members.iter().filter(|(id, m)| which(id, m)).map(|(id, _)| id.as_str()).collect()
    };
    let told = named(&|_, m| m.role == Role::Hot);
    let failed = named(&|id, m| m.retry_at > group.at && group.unfit(id).is_none());
    if group.paused() {
        // Of several, one that served comes back by itself.
        let who = if group.spec.exclusive { "nobody" } else { "nobody new" };
        format!(": automation is paused, and {who} becomes hot before `hotwarm resume {}`", group.spec.name)
    } else if !told.is_empty() && group.transition.is_none() {
        format!(" until {} confirm{} the hot role", told.join(", "), if told.len() == 1 { "s" } else { "" })
    } else if !failed.is_empty() {
        format!("; {} failed to become hot, and {} tried again soon", failed.join(", "), if failed.len() == 1 { "is" } else { "are" })
    } else {
        String::new()
    }
}

fn waits_for(group: &Group) -> String {
    let Some(t) = &group.transition else { return String::new() };
    let names = |ids: Vec<String>| ids.join(", ");
    let what = match &t.phase {
        Phase::Draining { .. } => {
            let open = group.open_routers.difference(&t.drained_routers).map(ToString::to_string).collect();
            format!("requests in flight finish (routers of {})", names(open))
        }
        Phase::Fencing { .. } => {
            let told = group.may_serve().map(|(id, _)| id.to_string()).collect::<Vec<_>>();
            let stale = group.stale_routers.iter().map(ToString::to_string).collect::<Vec<_>>();
            let mut waits = Vec::new();
            if !told.is_empty() {
                waits.push(format!("proof that {} serves no more{}", names(told), whose_hook(group)));
            }
            if !stale.is_empty() && !group.stale_reach_nobody {
                waits.push(format!("the routers of {} to close", names(stale)));
            }
            format!("waiting for {}", if waits.is_empty() { "the end of the pause".to_owned() } else { waits.join(" and ") })
        }
        Phase::Choosing { .. } => "waiting for a member that can become hot".to_owned(),
        Phase::Promoting { to, .. } => format!("waiting for {to} to confirm that it is hot"),
    };
    format!("attempt {}: {}; {what}", t.attempt, t.why)
}

/// Where only a fence command can tell: which node runs it, for that node's log and `why` tell how it fails.
fn whose_hook(group: &Group) -> String {
    let runs = group.may_serve().filter_map(|(id, _)| group.fence_runs_on(id)).map(|node| node.as_str()).collect::<BTreeSet<_>>();
    if runs.is_empty() || group.spec.fence != Fence::Hook {
        return String::new();
    }
    format!(" (its fence command, which node {} runs now)", runs.into_iter().collect::<Vec<_>>().join(", "))
}

fn what_if(group: &Group, quorum: Quorum<'_>) -> Vec<WhatIf> {
    let serving = group.members.iter().filter(|(_, m)| m.role == Role::Hot && m.serving);
    let mut all: Vec<WhatIf> = Vec::new();
    for (id, member) in serving {
        all.push(try_inputs(group, id, format!("{id} is killed"), death(group, id, member)));
        if let Some(node) = group.node_of(id) {
            let lost = vec![Body::Node(NodeInput::Silent { node: node.clone() }), Body::Node(NodeInput::Lapsed { node: node.clone() })];
            let mut what = try_inputs(group, id, format!("node {node} dies"), lost);
            if let Some((left, needed)) = quorum.lost_without(node) {
                // Nothing of what the group would do comes to pass: nobody can put it into the log.
                what.outcome = without_quorum(group, id, left, needed);
                what.reasons.clear();
            }
            all.push(what);
        }
    }
    all
}

fn without_quorum(group: &Group, gone: &MemberId, left: usize, needed: usize) -> String {
    let lost = format!("the quorum is lost ({left} voters left, {needed} needed), and nothing is promoted until one more is back");
    let others = group.members.keys().filter(|id| *id != gone && group.serves(id)).map(MemberId::as_str).collect::<Vec<_>>();
    match (group.spec.exclusive, &others[..]) {
        (true, _) => format!("nobody serves, and requests park: {lost}"),
        (false, []) => format!("nobody serves: {lost}"),
        (false, [_]) => format!("{} goes on; {lost}", others[0]),
        (false, _) => format!("{} go on; {lost}", others.join(", ")),
    }
}

/// Where no supervisor of ours sees its end, all that is known of it is that its check fails and a router is refused.
fn death(group: &Group, id: &MemberId, member: &Member) -> Vec<Body> {
    let (member, incarnation) = (id.clone(), member.incarnation);
    if group.spec.fence == Fence::Supervisor {
        return vec![Body::Life(Told::Stopped { member, incarnation, cause: StopCause::Signal(9) })];
    }
    let unready = Told::Unready { member: member.clone(), incarnation, why: "connection refused".to_owned() };
    let witness = group.node_of(id).cloned();
    let refused =
        witness.map(|witness| Testimony::Suspect { member, incarnation, epoch: group.epoch, witness, evidence: Evidence::Refused });
    refused.map(Body::Testimony).into_iter().chain([Body::Life(unready)]).collect()
}

/// Applies `inputs` to a copy, lets routers and candidates answer as they should, and tells who serves then.
fn try_inputs(group: &Group, gone: &MemberId, event: String, inputs: Vec<Body>) -> WhatIf {
    let mut g = group.clone();
    let mut reasons = Vec::new();
    let mut pending = inputs;
    let (mut started, mut hook) = (Vec::new(), false);
    // Each round answers what the last one asked for; a failover takes three.
    let mut at = group.at;
    for _ in 0..8 {
        if pending.is_empty() {
            // What waits only for a time to pass (reports that will not come) is decided then.
            let Some(deadline) = g.next_deadline().filter(|_| g.transition.is_some()) else { break };
            at = deadline;
            pending.push(Body::Timer);
        }
        for body in std::mem::take(&mut pending) {
            let (next, effects) = step(g, &Input { at, body });
            g = next;
            reasons.extend(effects.iter().filter_map(|e| if let Effect::Because(r) = e { Some(r.clone()) } else { None }));
            started.extend(effects.iter().filter_map(|e| if let Effect::Start { member } = e { Some(member.clone()) } else { None }));
            hook |= g.spec.fence == Fence::Hook && effects.iter().any(|e| matches!(e, Effect::Fence { member, .. } if member == gone));
            pending.extend(good_answers(&g, &effects));
        }
    }
    let serving: Vec<&str> =
        g.members.iter().filter(|(id, m)| *id != gone && m.role == Role::Hot && m.serving).map(|(id, _)| id.as_str()).collect();
    let outcome = match (serving.is_empty(), g.closed) {
        (false, false) if group.spec.exclusive => {
            let once = if hook { format!(", once the fence command of {gone} has confirmed") } else { String::new() };
            let first = if started.iter().any(|id| id.as_str() == serving[0]) { "spare " } else { "" };
            let is_started = if first.is_empty() { "" } else { "is started, then " };
            format!("{first}{} {is_started}takes over{once}", serving[0])
        }
        (false, false) => format!("{} go{} on", serving.join(", "), if serving.len() == 1 { "es" } else { "" }),
        _ => match g.refusal.as_ref().filter(|why| !matches!(why, Reason::LastOne { .. })) {
            Some(Reason::NoSuccessor { others, .. }) if is_started_again(&g, gone) => {
                let others: Vec<_> = others.iter().filter(|(id, _)| id != gone).cloned().collect();
                let nobody = Reason::NoSuccessor { member: None, others: others.clone() };
                let meanwhile = if others.is_empty() { String::new() } else { format!("; until then {nobody}") };
                format!("requests park until {gone} is ready again, which is started again at once{meanwhile}")
            }
            Some(why) => format!("nobody serves, and requests park: {why}"),
            None => "nobody serves, and requests park until a member can".to_owned(),
        },
    };
    WhatIf { event, outcome, reasons }
}

/// It ended, is run by us, and nothing but its end is against it.
fn is_started_again(g: &Group, id: &MemberId) -> bool {
    let node_well = g.node_of(id).map(|node| g.node(node)).is_some_and(|node| !node.silent && !node.lapsed);
    let ended = matches!(g.unfit(id), Some(Refusal::NotRunning { .. } | Refusal::KeptDown));
    g.spec.fence == Fence::Supervisor && node_well && ended && !g.paused()
}

fn good_answers(g: &Group, effects: &[Effect]) -> Vec<Body> {
    let mut answers = Vec::new();
    for effect in effects {
        match effect {
            Effect::Close { epoch } => {
                answers.extend(g.stale_routers.iter().map(|node| Body::Answer(Answer::RouterClosed { node: node.clone(), epoch: *epoch })));
            }
            Effect::Start { member } => {
                let incarnation = Incarnation(g.members.get(member).map_or(0, |m| m.incarnation.0) + 1);
                answers.push(Body::Life(Told::Started { member: member.clone(), incarnation }));
                answers.push(Body::Life(Told::Ready { member: member.clone(), incarnation }));
            }
            // Its own node runs the fence command, or another if that one is lost.
            Effect::Fence { member, epoch } if g.spec.fence == Fence::Hook => {
                answers.push(Body::Answer(Answer::Fenced { member: member.clone(), epoch: *epoch }));
            }
            Effect::Promote { member, epoch, attempt } => {
                let incarnation = g.members.get(member).map(|m| m.incarnation).unwrap_or_default();
                answers.push(Body::Answer(Answer::Promoted { member: member.clone(), incarnation, epoch: *epoch, attempt: *attempt }));
            }
            Effect::Detach { attempt } => answers.extend(g.members.iter().filter(|(id, _)| g.unfit(id).is_none()).map(|(id, m)| {
                let position = Default::default();
                Body::Answer(Answer::Position { member: id.clone(), incarnation: m.incarnation, attempt: *attempt, position })
            })),
            _ => {}
        }
    }
    answers
}
