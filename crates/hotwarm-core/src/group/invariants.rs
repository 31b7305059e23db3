//! What must hold of a group after every step, whatever came in. Checked in tests, in the simulator and by every node as it runs.

use super::effect::Effect;
use super::restart::Stage;
use super::state::{Group, Phase};
use crate::ids::Role;

/// The first rule that is broken, in words; `None` if all hold.
#[must_use]
pub fn check(group: &Group) -> Option<String> {
    let broken = if group.spec.exclusive { exclusive(group) } else { many(group) };
    broken.or_else(|| restart(group))
}

fn exclusive(group: &Group) -> Option<String> {
    let told: Vec<_> = group.may_serve().collect();
    if told.len() > 1 {
        return Some(format!("S6: several members may serve: {told:?}"));
    }
    if let Some((id, epoch)) = told.iter().find(|(_, epoch)| *epoch != group.epoch) {
        return Some(format!("{id} was told epoch {epoch}, the group is at {}", group.epoch));
    }
    let hot: Vec<_> = group.members.iter().filter(|(_, m)| m.role == Role::Hot).collect();
    if hot.len() > 1 {
        return Some(format!("promise 1: several members are hot: {:?}", hot.iter().map(|(id, _)| id).collect::<Vec<_>>()));
    }
    if let Some((id, member)) = hot.first()
        && (member.may_serve.is_none() || !member.serving)
    {
        return Some(format!("{id} is hot without the right to serve"));
    }
    if !group.closed && hot.is_empty() {
        return Some("routers are open and nobody is hot".to_owned());
    }
    if group.closed && !group.open_routers.is_empty() {
        return Some(format!("closed, and routers are open: {:?}", group.open_routers));
    }
    if !group.closed && !group.stale_routers.is_empty() && !group.stale_reach_nobody {
        return Some(format!("S8: opened while routers {:?} may reach the member before", group.stale_routers));
    }
    transition(group)
}

/// Who ends for a restart serves nobody, and is not the last that could.
fn restart(group: &Group) -> Option<String> {
    let restart = group.restart.as_ref()?;
    let turn = restart.turn.as_ref()?;
    let member = group.members.get(&turn.member)?;
    let (id, same_life) = (&turn.member, member.running() && member.incarnation == turn.life);
    if !restart.left.contains_key(id) || restart.stopped.is_some() {
        return Some(format!("{id} is restarted and nobody asked for it"));
    }
    if turn.stage == Stage::Ending && same_life && (member.role == Role::Hot || member.may_serve.is_some()) {
        return Some(format!("S9: {id} ends for a restart and may serve"));
    }
    if turn.stage == Stage::Ending && same_life && !group.others_fit(id) {
        return Some(format!("S9: {id} ends for a restart and no other member is well"));
    }
    None
}

fn transition(group: &Group) -> Option<String> {
    let t = group.transition.as_ref()?;
    if t.attempt != group.attempt {
        return Some(format!("S7: attempt {} is under way, the newest is {}", t.attempt, group.attempt));
    }
    let open = !group.closed;
    let may_serve = group.may_serve().map(|(id, _)| id).next();
    match &t.phase {
        Phase::Draining { .. } if group.closed => Some("requests in flight are waited for after the epoch was closed".to_owned()),
        Phase::Fencing { .. } | Phase::Choosing { .. } | Phase::Promoting { .. } if open => {
            Some("the hot member is replaced while the epoch before is open".to_owned())
        }
        Phase::Choosing { .. } if may_serve.is_some() => Some(format!("S6: a candidate is chosen while {may_serve:?} may serve")),
        Phase::Promoting { to, .. } if may_serve.is_some_and(|id| id != to) => {
            Some(format!("S6: {to} is promoted while {may_serve:?} may serve"))
        }
        _ => None,
    }
}

fn many(group: &Group) -> Option<String> {
    let hot = group.members.values().filter(|m| m.role == Role::Hot).count();
    if hot > usize::from(group.spec.hot) {
        return Some(format!("{hot} members are hot, {} are allowed", group.spec.hot));
    }
    group.members.iter().find(|(_, m)| m.serving && m.role != Role::Hot).map(|(id, _)| format!("{id} serves and is not hot"))
}

/// What must hold of the effects of one step: nobody is promoted while another may serve.
#[must_use]
pub fn check_effects(before: &Group, after: &Group, effects: &[Effect]) -> Option<String> {
    if after.epoch < before.epoch || after.attempt < before.attempt || after.at < before.at {
        return Some("a number went back".to_owned());
    }
    for effect in effects {
        if let Effect::Promote { member, epoch, .. } = effect
            && after.spec.exclusive
            && after.may_serve().any(|(id, _)| id != member)
        {
            return Some(format!("{member} is promoted for epoch {epoch} while another may serve"));
        }
    }
    None
}
