//! What a cluster in good health answers to a group: everything heard, started, confirmed, closed. It is how a test asks "and does it
//! come back by itself?" It derives every answer from the state alone, as the program does, so an answer that is lost is given again.

use hotwarm_core::action::StopCause;
use hotwarm_core::group::input::{Answer, Body, Input, Life as Told, NodeInput, Operator};
use hotwarm_core::group::state::{Life, Pause, Phase};
use hotwarm_core::group::{Group, invariants, step};
use hotwarm_core::ids::{Incarnation, MemberId, NodeId, Position, Role};

/// More than any story needs: each round answers all that is asked.
const ROUNDS_MAX: usize = 60;

/// As many hot members as are wanted and there are serve, routers are open (or closed, where nobody is to serve), nothing is under way.
pub(crate) fn in_service(group: &Group) -> bool {
    let serving = group.members.values().filter(|m| m.role == Role::Hot && m.serving).count();
    let wanted = usize::from(group.spec.hot).min(group.spec.members.len());
    serving == wanted && group.transition.is_none() && group.closed == (wanted == 0) && group.pause == Pause::No
}

/// A restart that was asked for is neither over nor stopped.
pub(crate) fn restarts(group: &Group) -> bool {
    group.restart.as_ref().is_some_and(|restart| restart.stopped.is_none())
}

/// Drives `group` back into service. `lost` is the number of the answer that is lost on its first way.
///
/// # Errors
/// What was broken, or what it stands at after too many rounds.
pub(crate) fn drive(mut group: Group, lost: Option<usize>) -> Result<Group, String> {
    let mut answered = 0;
    for _ in 0..ROUNDS_MAX {
        let answers = answers(&group);
        if answers.is_empty() && in_service(&group) && !restarts(&group) {
            return Ok(group);
        }
        for body in answers {
            answered += 1;
            if Some(answered) != lost {
                group = checked_step(group, body, 1)?;
            }
        }
        if let Some(deadline) = group.next_deadline() {
            let wait_ms = deadline.since(group.at);
            group = checked_step(group, Body::Timer, wait_ms)?;
        }
    }
    Err(format!("not in service after {ROUNDS_MAX} rounds, refusal {:?}, restart {:?}: {group:#?}", group.refusal, group.restart_told()))
}

/// One step, with every invariant checked after it.
///
/// # Errors
/// The rule that is broken.
pub(crate) fn checked_step(group: Group, body: Body, after_ms: u64) -> Result<Group, String> {
    let before = group.clone();
    let input = Input { at: group.at.plus(after_ms), body };
    let (after, effects) = step(group, &input);
    if let Some(broken) = invariants::check(&after).or_else(|| invariants::check_effects(&before, &after, &effects)) {
        return Err(format!("{broken}\nafter {input:?}\nbefore {before:#?}\nafter {after:#?}"));
    }
    Ok(after)
}

/// All that a healthy cluster would say now.
pub(crate) fn answers(group: &Group) -> Vec<Body> {
    let mut told = nodes(group);
    told.extend(group.members.keys().flat_map(|id| life(group, id)));
    told.extend(group.members.keys().filter_map(|id| role(group, id)).map(Body::Answer));
    told.extend(routers(group).into_iter().map(Body::Answer));
    told
}

fn nodes(group: &Group) -> Vec<Body> {
    let mut told = Vec::new();
    for (node, view) in &group.nodes {
        let node = node.clone();
        match (view.lapsed, view.silent) {
            (true, _) => told.push(Body::Node(NodeInput::Back { node: node.clone() })),
            (false, true) => told.push(Body::Node(NodeInput::Heard { node: node.clone() })),
            (false, false) => {}
        }
        if view.drained {
            told.push(Body::Node(NodeInput::Undrain { node }));
        }
    }
    let drained = group.members.iter().filter(|(_, m)| m.drained);
    told.extend(drained.map(|(id, _)| Body::Operator(Operator::Undrain { member: id.clone() })));
    if group.pause == Pause::Paused {
        told.push(Body::Operator(Operator::Resume { force: false }));
    }
    if let Pause::Resuming { waiting } = &group.pause {
        told.extend(waiting.iter().map(|node| Body::Answer(Answer::ResumeSeen { node: node.clone(), resume: group.resumes })));
    }
    told
}

fn life(group: &Group, id: &MemberId) -> Vec<Body> {
    let member = &group.members[id];
    let (member_id, incarnation) = (id.clone(), member.incarnation);
    let next = Incarnation(member.incarnation.0 + 1);
    let told = match (&member.life, member.role) {
        (Life::Running, _) if group.is_to_end(id, incarnation) => {
            vec![Told::Stopped { member: member_id, incarnation, cause: StopCause::Asked }]
        }
        (Life::Running, Role::Spare) => vec![Told::Stopped { member: member_id, incarnation, cause: StopCause::Asked }],
        (Life::Unknown, Role::Spare) => vec![Told::Stopped { member: member_id, incarnation, cause: StopCause::Absent }],
        (Life::Running, _) if !member.ready => vec![Told::Ready { member: member_id, incarnation }],
        (Life::Stopped(_), Role::Spare) | (Life::Running, _) => vec![],
        // S8: kept down while a router could reach it; S6: one that is being fenced is fenced first.
        (Life::Unknown | Life::Stopped(_), _) if group.stays_down(id) || told_to_end(group, id) => vec![],
        (Life::Unknown | Life::Stopped(_), _) => {
            vec![Told::Started { member: id.clone(), incarnation: next }, Told::Ready { member: member_id, incarnation: next }]
        }
    };
    told.into_iter().map(Body::Life).collect()
}

fn told_to_end(group: &Group, id: &MemberId) -> bool {
    let fencing = matches!(group.transition.as_ref().map(|t| &t.phase), Some(Phase::Fencing { .. }));
    fencing && group.members[id].may_serve.is_some()
}

/// What a member answers to the role it is told.
fn role(group: &Group, id: &MemberId) -> Option<Answer> {
    let member = &group.members[id];
    let (member_id, incarnation, attempt) = (id.clone(), member.incarnation, group.attempt);
    let position = Position(100);
    match group.transition.as_ref().map(|t| (&t.phase, t.planned)) {
        Some((Phase::Fencing { .. }, planned)) => match (member.may_serve?, member.running()) {
            (epoch, true) if planned => Some(Answer::Demoted { member: member_id, incarnation, epoch }),
            _ => Some(Answer::Fenced { member: member_id, epoch: group.epoch.next() }),
        },
        Some((Phase::Choosing { .. }, _)) => {
            let reported = member.position.is_some_and(|(a, _)| a == attempt);
            let able = group.spec.positions && group.unfit(id).is_none() && !reported;
            able.then_some(Answer::Position { member: member_id, incarnation, attempt, position })
        }
        _ => {
            let epoch = member.may_serve.filter(|_| !member.serving)?;
            Some(Answer::Promoted { member: member_id, incarnation, epoch, attempt })
        }
    }
}

fn routers(group: &Group) -> Vec<Answer> {
    let closed = |node: &NodeId| Answer::RouterClosed { node: node.clone(), epoch: group.closed_epoch };
    let mut told: Vec<Answer> = group.stale_routers.iter().map(closed).collect();
    if let Some(t) = &group.transition
        && matches!(t.phase, Phase::Draining { .. })
    {
        let drained = |node: &NodeId| Answer::RouterDrained { node: node.clone(), epoch: group.epoch };
        told.extend(group.open_routers.difference(&t.drained_routers).map(drained));
    }
    told
}
