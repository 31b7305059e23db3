//! Groups in which several members serve at once: leave out what cannot serve, fill up from the warm, count spares.
//!
//! Nothing is fenced here: each member serves on its own. Every change of who serves opens a new epoch, so that routers and members
//! can tell an old view from a new one.

use std::collections::BTreeSet;

use super::candidate::Need;
use super::effect::Effect;
use super::state::{Group, Life};
use super::{Reason, Refusal, Step};
use crate::action::StopCause;
use crate::ids::{MemberId, Role};

impl Step {
    pub(super) fn advance_many(&mut self) {
        self.leave_out();
        self.fill();
        self.group.closed = false;
        self.group.closed_epoch = Default::default();
    }

    fn leave_out(&mut self) {
        let hot: Vec<MemberId> = self.group.members.iter().filter(|(_, m)| m.role == Role::Hot).map(|(id, _)| id.clone()).collect();
        let mut doubt = false;
        for id in hot {
            let Some(why) = self.group.unfit(&id).filter(|why| !self.group.may_finish(&id, why)) else { continue };
            let stopped = self.group.members.get(&id).is_none_or(|m| m.stopped());
            let others_serve = self.group.members.iter().any(|(other, m)| *other != id && m.serving && self.group.unfit(other).is_none());
            if !stopped && !others_serve && why != Refusal::Drained {
                doubt = true;
                self.refuse(Reason::LastOne { member: id, why });
                continue;
            }
            self.eject(&id, why);
        }
        if !doubt && matches!(self.group.refusal, Some(Reason::LastOne { .. })) {
            self.group.refusal = None;
        }
    }

    fn eject(&mut self, id: &MemberId, why: Refusal) {
        // A member that stopped has been counted when its end was logged; a drained one did not fail.
        if !matches!(why, Refusal::Drained | Refusal::NotRunning) {
            self.group.note_failure(id);
        }
        self.group.epoch = self.group.epoch.next();
        if let Some(member) = self.group.members.get_mut(id) {
            member.dethrone();
            member.may_serve = None;
        }
        self.because(Reason::Ejected { member: id.clone(), why });
        self.tell_open();
    }

    fn fill(&mut self) {
        // Bounded: each turn makes one more member hot.
        for _ in 0..self.group.members.len() {
            let hot = self.group.members.values().filter(|m| m.role == Role::Hot).count();
            if hot >= usize::from(self.group.spec.hot) {
                return;
            }
            let serving: BTreeSet<MemberId> =
                self.group.members.iter().filter(|(_, m)| m.role == Role::Hot).map(|(id, _)| id.clone()).collect();
            let need = if serving.is_empty() { Need::Dead } else { Need::Live };
            let (Some(id), _) = self.group.candidate(need, None, &serving) else { return };
            if self.group.paused() {
                self.refuse(Reason::AutomationPaused);
                return;
            }
            self.group.epoch = self.group.epoch.next();
            let epoch = self.group.epoch;
            if let Some(member) = self.group.members.get_mut(&id) {
                member.role = Role::Hot;
                member.serving = false;
                member.may_serve = Some(epoch);
            }
            self.effects.push(Effect::Promote { member: id, epoch, attempt: self.group.attempt });
        }
    }

    /// The member confirmed that it serves.
    pub(super) fn admit(&mut self, id: &MemberId) {
        let Some(member) = self.group.members.get_mut(id) else { return };
        member.serving = true;
        member.away = false;
        let Some(epoch) = member.may_serve else { return };
        self.group.epoch = self.group.epoch.next();
        self.because(Reason::Admitted { member: id.clone(), epoch });
        self.tell_open();
    }

    fn tell_open(&mut self) {
        let hot = self.group.members.iter().filter(|(_, m)| m.role == Role::Hot && m.serving).map(|(id, _)| id.clone()).collect();
        self.effects.push(Effect::Open { epoch: self.group.epoch, hot });
    }

    /// Spares are started while running members are missing, and rest again when they are not.
    pub(super) fn assign_spares(&mut self) {
        if self.group.paused() {
            return;
        }
        let wanted = usize::from(self.group.spec.hot) + usize::from(self.group.spec.warm);
        let order = self.group.by_priority();
        let active = |g: &Group| g.members.iter().filter(|(id, m)| m.role != Role::Spare && !g.missing(id)).count();
        for id in &order {
            if active(&self.group) >= wanted {
                break;
            }
            if self.group.members.get(id).is_some_and(|m| m.role == Role::Spare) && !self.group.unreachable(id) {
                self.start_spare(id);
            }
        }
        for id in order.iter().rev() {
            let sound = |g: &Group| g.members.iter().filter(|(id, m)| m.role != Role::Spare && g.unfit(id).is_none()).count();
            let idle = self.group.members.get(id).is_some_and(|m| m.role == Role::Warm && m.may_serve.is_none());
            if sound(&self.group) <= wanted || !idle || self.group.unfit(id).is_some() || self.group.transition.is_some() {
                continue;
            }
            if let Some(member) = self.group.members.get_mut(id) {
                member.role = Role::Spare;
            }
            self.effects.push(Effect::Stop { member: id.clone() });
        }
    }

    fn start_spare(&mut self, id: &MemberId) {
        if let Some(member) = self.group.members.get_mut(id) {
            member.role = Role::Warm;
        }
        self.because(Reason::SpareStarted { member: id.clone() });
        self.effects.push(Effect::Start { member: id.clone() });
    }
}

impl Group {
    /// A drained member finishes what it has until its time is up.
    fn may_finish(&self, id: &MemberId, why: &Refusal) -> bool {
        *why == Refusal::Drained && self.members.get(id).and_then(|m| m.draining_until).is_some_and(|until| self.at < until)
    }

    /// No use in starting it there.
    fn unreachable(&self, id: &MemberId) -> bool {
        let node = self.node_of(id).map(|n| self.node(n)).unwrap_or_default();
        node.silent || node.lapsed || node.drained || self.members.get(id).is_some_and(|m| m.drained)
    }

    /// It ought to run and, for a reason that does not pass by itself at once, does not. One that merely starts is not missing.
    fn missing(&self, id: &MemberId) -> bool {
        let Some(member) = self.members.get(id) else { return true };
        let failed = matches!(&member.life, Life::Stopped(cause) if !matches!(cause, StopCause::Absent | StopCause::Asked));
        self.unreachable(id) || failed || self.suspected(member)
    }
}
