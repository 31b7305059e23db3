//! Groups in which several members serve at once: leave out what cannot serve, fill up from the warm, count spares.
//!
//! Nothing is fenced here: each member serves on its own. Every change of who serves opens a new epoch, so that routers and members
//! can tell an old view from a new one.

use std::collections::BTreeSet;

use super::candidate::Need;
use super::effect::Effect;
use super::state::{Group, Life, Member};
use super::{Reason, Refusal, Step};
use crate::action::StopCause;
use crate::ids::{Epoch, MemberId, Role};

impl Step {
    pub(super) fn advance_many(&mut self) {
        self.group.closed = false;
        self.group.closed_epoch = Epoch(0);
        self.settle_promotions();
        let kept = self.leave_out();
        self.trim();
        let unfilled = self.fill();
        match kept.or(unfilled) {
            Some(refusal) => self.refuse(refusal),
            None => self.forget_refusal(),
        }
    }

    /// Members that were told to be hot and do not serve yet.
    fn settle_promotions(&mut self) {
        let pending: Vec<MemberId> =
            self.group.members.iter().filter(|(_, m)| m.role == Role::Hot && !m.serving).map(|(id, _)| id.clone()).collect();
        for id in pending {
            let Some(member) = self.group.members.get(&id) else { continue };
            let timed_out = member.confirm_until.is_none_or(|until| self.group.at >= until);
            let confirmed = member.confirmed && member.ready && member.running();
            match self.group.unfit(&id) {
                Some(Refusal::NodeLost) => self.promotion_failed(&id, Reason::CandidateLost { member: id.clone() }, false),
                Some(Refusal::Drained) => self.eject(&id, Refusal::Drained),
                _ if confirmed => self.admit(&id),
                _ if timed_out => {
                    let after_ms = self.group.spec.bounds.promote_ms;
                    self.promotion_failed(&id, Reason::PromoteTimedOut { member: id.clone(), after_ms }, true);
                }
                _ => {}
            }
        }
    }

    /// Leaves out what cannot serve; returns why one that cannot is kept. Routers that cannot reach a member that is well by its own node's
    /// probe leave it out each for itself: their way to it may be what is broken, or they may be the slow ones.
    fn leave_out(&mut self) -> Option<Reason> {
        let serving: Vec<MemberId> = self.group.members.iter().filter(|(_, m)| m.serving).map(|(id, _)| id.clone()).collect();
        let mut kept = None;
        for id in serving {
            // S10: while it is paused no lease expires. Routers that cannot reach it leave it out.
            let lease_counts = !self.group.paused();
            let unfit = self.group.unfit(&id).filter(|why| *why != Refusal::Suspected && (lease_counts || *why != Refusal::NodeLost));
            let Some(why) = unfit.filter(|why| !self.group.may_finish(&id, why)) else { continue };
            if self.group.others_serve(&id, &why) {
                self.eject(&id, why);
            } else {
                kept = kept.or(Some(Reason::LastOne { member: id, why }));
            }
        }
        kept
    }

    /// Fewer are to be hot than are.
    fn trim(&mut self) {
        for id in self.group.by_priority().into_iter().rev() {
            let hot = self.group.members.values().filter(|m| m.role == Role::Hot).count();
            if hot <= usize::from(self.group.spec.hot) {
                return;
            }
            if self.group.members.get(&id).is_some_and(|m| m.role == Role::Hot) {
                self.eject(&id, Refusal::Outranked);
            }
        }
    }

    pub(super) fn eject(&mut self, id: &MemberId, why: Refusal) {
        // One that stopped was counted when its end was logged. One that is drained or whose node is lost did not fail.
        if matches!(why, Refusal::NotReady { .. }) {
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

    /// Makes members hot until there are enough; returns why there are not.
    fn fill(&mut self) -> Option<Reason> {
        // Bounded: each turn makes one more member hot.
        for _ in 0..self.group.members.len() {
            // While it is paused nobody new serves; who served and was left out for a failure comes back, or in time nobody would be left.
            let paused = self.group.paused();
            let not = |m: &Member| m.role == Role::Hot || m.retry_at > self.group.at || paused && !m.away;
            let hot = self.group.members.values().filter(|m| m.role == Role::Hot).count();
            if hot >= usize::from(self.group.spec.hot) {
                return None;
            }
            let refused: BTreeSet<MemberId> = self.group.members.iter().filter(|(_, m)| not(m)).map(|(id, _)| id.clone()).collect();
            let need = if hot == 0 { Need::Dead } else { Need::Live };
            let beside: Vec<&MemberId> = self.group.members.iter().filter(|(_, m)| m.role == Role::Hot).map(|(id, _)| id).collect();
            let (best, others) = self.group.candidate_beside(need, None, &beside, &refused);
            let Some(id) = best else {
                if paused {
                    return Some(Reason::AutomationPaused);
                }
                let served = self.group.epoch > Epoch(0);
                return (hot == 0 && served).then_some(Reason::NoSuccessor { member: None, others });
            };
            self.group.epoch = self.group.epoch.next();
            let (epoch, until) = (self.group.epoch, self.group.at.plus(self.group.spec.bounds.promote_ms));
            if let Some(member) = self.group.members.get_mut(&id) {
                member.role = Role::Hot;
                member.serving = false;
                member.confirmed = false;
                member.confirm_until = Some(until);
                member.may_serve = Some(epoch);
            }
            self.effects.push(Effect::Promote { member: id, epoch, attempt: self.group.attempt });
        }
        None
    }

    /// The member confirmed that it serves.
    fn admit(&mut self, id: &MemberId) {
        let Some(member) = self.group.members.get_mut(id) else { return };
        member.serving = true;
        member.confirmed = false;
        member.confirm_until = None;
        member.away = false;
        self.group.epoch = self.group.epoch.next();
        self.because(Reason::Admitted { member: id.clone(), epoch: self.group.epoch });
        self.tell_open();
    }

    pub(super) fn tell_open(&mut self) {
        let hot = self.group.members.iter().filter(|(_, m)| m.role == Role::Hot && m.serving).map(|(id, _)| id.clone()).collect();
        self.effects.push(Effect::Open { epoch: self.group.epoch, hot });
    }

    /// Spares are started while running members are missing, and rest again when they are not. True if one was started.
    pub(super) fn assign_spares(&mut self) -> bool {
        if self.group.paused() {
            return false;
        }
        let mut started = false;
        let wanted = usize::from(self.group.spec.hot) + usize::from(self.group.spec.warm);
        // Bounded: each turn takes one of the spares.
        while self.group.active().len() < wanted {
            let Some(id) = self.group.next_spare() else { break };
            self.start_spare(&id);
            started = true;
        }
        let mut order = self.group.by_priority();
        order.sort_by_key(|id| self.group.self_doubt(id).is_some());
        for id in order.iter().rev() {
            let sound = |g: &Group| {
                let sound = g.members.iter().filter(|(id, m)| m.role != Role::Spare && g.unfit(id).is_none());
                sound.filter(|(id, _)| !g.is_relieved(id)).count()
            };
            let idle = self.group.members.get(id).is_some_and(|m| m.role == Role::Warm && m.may_serve.is_none());
            if sound(&self.group) <= wanted || !idle || self.group.unfit(id).is_some() || self.group.transition.is_some() {
                continue;
            }
            if let Some(member) = self.group.members.get_mut(id) {
                member.role = Role::Spare;
            }
            self.because(Reason::SpareRests { member: id.clone() });
            self.effects.push(Effect::Stop { member: id.clone() });
        }
        started
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
    /// A drained member finishes what it has until its time is up, or no router has anything in flight there.
    fn may_finish(&self, id: &MemberId, why: &Refusal) -> bool {
        let in_time = self.members.get(id).and_then(|m| m.draining_until).is_some_and(|until| self.at < until);
        matches!(why, Refusal::Drained | Refusal::Restarting) && in_time && !self.routers_done()
    }

    /// Every router whose node is heard has finished what it had at drained members. One that is not heard of does not know of the drain.
    fn routers_done(&self) -> bool {
        let mut asked = self.spec.routers.iter().filter(|node| !self.node(node).lapsed).peekable();
        asked.peek().is_some() && asked.all(|node| self.drained_routers.get(node) == Some(&self.epoch))
    }

    /// Never leave out everybody: a doubted member is better than none, and so is a drained one.
    fn others_serve(&self, id: &MemberId, why: &Refusal) -> bool {
        self.members.iter().filter(|(other, m)| *other != id && m.serving).any(|(other, _)| match self.unfit(other) {
            None => true,
            Some(Refusal::Drained) => *why == Refusal::Drained,
            Some(_) => false,
        })
    }

    /// Members that run, or are to, and are not missing.
    fn active(&self) -> Vec<&MemberId> {
        self.members.iter().filter(|(id, m)| m.role != Role::Spare && !self.missing(id)).map(|(id, _)| id).collect()
    }

    /// The spare to start: on a node that does not doubt itself, then by priority, then where the fewest of its zone run.
    fn next_spare(&self) -> Option<MemberId> {
        let beside = self.active();
        let spare = |id: &MemberId| self.members.get(id).is_some_and(|m| m.role == Role::Spare) && !self.unreachable(id);
        let spares = self.spec.members.keys().filter(|id| spare(id));
        spares.min_by_key(|id| (self.self_doubt(id).is_some(), self.rank(id, &beside), (*id).clone())).cloned()
    }

    /// No use in starting it there.
    fn unreachable(&self, id: &MemberId) -> bool {
        let node = self.node_of(id).map(|n| self.node(n)).unwrap_or_default();
        node.silent || node.lapsed || node.drained || self.members.get(id).is_some_and(|m| m.drained)
    }

    /// It ought to run and serve or stand by and, for a reason that does not pass by itself at once, does not. One that merely starts
    /// is not missing.
    fn missing(&self, id: &MemberId) -> bool {
        let Some(member) = self.members.get(id) else { return true };
        let asked = matches!(&member.life, Life::Stopped(StopCause::Absent | StopCause::Asked | StopCause::Renewed { .. }));
        let failed = member.stopped() && !asked;
        let failing = member.failing_from.is_some_and(|from| from <= self.at);
        self.unreachable(id) || failed || failing || self.suspected(member) || self.is_relieved(id)
    }
}
