//! Groups in which one member serves at a time: doubt -> close and fence -> choose -> promote -> open.
//!
//! Everything is looked at anew after each input, so a transition goes on from whatever state it was left in. The order is what keeps
//! promise 1: nobody is promoted while anybody else may serve, or while a router may still send to whom it could reach (S6, S8).

use std::collections::BTreeSet;

use super::candidate::Need;
use super::effect::Effect;
use super::quorum::reports_needed;
use super::reason::{FencedBy, Reason};
use super::spec::Fence;
use super::state::{Group, Phase, Stamps, Transition};
use super::{Refusal, Step};
use crate::ids::{MemberId, Role};

/// A step moves through at most this many phases: each phase once, and once more after a candidate was lost.
const PHASES_MAX: usize = 12;

impl Step {
    pub(super) fn advance_exclusive(&mut self) {
        for _ in 0..PHASES_MAX {
            if !self.advance_phase() {
                return;
            }
        }
    }

    /// True if the phase changed and the next one is to be looked at.
    fn advance_phase(&mut self) -> bool {
        match self.group.transition.as_ref().map(|t| t.phase.clone()) {
            None => self.watch(),
            Some(Phase::Draining { .. }) => self.drain(),
            Some(Phase::Fencing { .. }) => self.fence(),
            Some(Phase::Choosing { .. }) => self.choose(),
            Some(Phase::Promoting { to, .. }) => self.await_promotion(&to),
        }
    }

    /// Nothing is under way: is the hot member in doubt, or missing?
    fn watch(&mut self) -> bool {
        let Some(hot) = self.group.hot().cloned() else { return self.fill_vacancy() };
        if let Some(reason) = self.group.doubt(&hot) {
            return self.replace_live(&hot, reason);
        }
        self.group.doubt_since = None;
        let node_drained = self.group.node_of(&hot).is_some_and(|n| self.group.node(n).drained);
        if self.group.members[&hot].drained || node_drained {
            return self.drain_hot(hot);
        }
        self.forget_refusal();
        false
    }

    /// What was refused before no longer is.
    fn forget_refusal(&mut self) {
        if !matches!(self.group.refusal, Some(Reason::ResumeWaits { .. })) {
            self.group.refusal = None;
        }
    }

    fn drain_hot(&mut self, hot: MemberId) -> bool {
        if self.group.paused() {
            self.refuse(Reason::AutomationPaused);
            return false;
        }
        match self.group.candidate(Need::Live, Some(&hot), &BTreeSet::new()) {
            (Some(to), _) => self.begin_planned(Reason::HotDrained { member: hot.clone() }, hot, Some(to)),
            (None, others) => {
                self.refuse(Reason::NoSuccessor { member: Some(hot), others });
                return false;
            }
        }
        true
    }

    /// The hot member lives, as far as is known: it is fenced only for a reason, when another can take over, within the budget (S9).
    fn replace_live(&mut self, hot: &MemberId, reason: Reason) -> bool {
        if self.group.paused() {
            self.refuse(Reason::AutomationPaused);
            return false;
        }
        let (successor, others) = self.group.candidate(Need::Live, Some(hot), &BTreeSet::new());
        if successor.is_none() {
            self.refuse(Reason::NoSuccessor { member: Some(hot.clone()), others });
            return false;
        }
        if self.group.budget_spent() {
            let failovers = u32::try_from(self.group.failovers.len()).unwrap_or(u32::MAX);
            self.refuse(Reason::BudgetSpent { failovers, per_hour: self.group.spec.bounds.failovers_per_hour });
            return false;
        }
        self.group.note_failover();
        self.group.note_failure(hot);
        self.begin(reason, Some(hot.clone()), None, false);
        true
    }

    /// Nobody is hot. A member that failed lately is better than none.
    fn fill_vacancy(&mut self) -> bool {
        let (best, others) = self.group.candidate(Need::Dead, None, &BTreeSet::new());
        if best.is_none() {
            if self.group.lost.is_some() {
                self.refuse(Reason::NoSuccessor { member: None, others });
            }
            return false;
        }
        if self.group.paused() {
            self.refuse(Reason::AutomationPaused);
            return false;
        }
        let (from, why) = match self.group.lost.clone() {
            Some((member, why)) => (Some(member), why),
            None => (None, Reason::Vacant),
        };
        self.begin(why, from, None, false);
        true
    }

    fn transition(&mut self, why: Reason, from: Option<MemberId>, to: Option<MemberId>, planned: bool, phase: Phase) {
        let at = self.group.at;
        self.group.attempt = self.group.attempt.next();
        self.group.refusal = None;
        let stamps = Stamps { doubt: self.group.doubt_since.unwrap_or(at), began: at, fenced: at, chosen: at };
        self.because(why.clone());
        self.group.transition = Some(Transition {
            attempt: self.group.attempt,
            why,
            from,
            to,
            planned,
            phase,
            refused: BTreeSet::new(),
            drained_routers: BTreeSet::new(),
            stamps,
        });
    }

    fn begin(&mut self, why: Reason, from: Option<MemberId>, to: Option<MemberId>, planned: bool) {
        let until = self.group.at.plus(self.group.spec.bounds.promote_ms);
        self.transition(why, from, to, planned, Phase::Fencing { until });
        self.close();
        self.tell_fences();
    }

    pub(super) fn begin_planned(&mut self, why: Reason, from: MemberId, to: Option<MemberId>) {
        let until = self.group.at.plus(self.group.spec.bounds.drain_ms);
        self.transition(why, Some(from), to, true, Phase::Draining { until });
        self.effects.push(Effect::Drain { epoch: self.group.epoch });
    }

    /// No router admits for the epoch any more; those that did must confirm (S8).
    fn close(&mut self) {
        if self.group.closed {
            return;
        }
        let group = &mut self.group;
        group.closed = true;
        group.closed_epoch = group.epoch;
        group.stale_routers.append(&mut group.open_routers);
        group.stale_reach_nobody = false;
        self.effects.push(Effect::Close { epoch: self.group.epoch });
    }

    fn tell_fences(&mut self) {
        let epoch = self.group.epoch.next();
        let told: Vec<MemberId> = self.group.may_serve().map(|(id, _)| id.clone()).collect();
        let planned = self.group.transition.as_ref().is_some_and(|t| t.planned);
        for member in told {
            self.effects.push(if planned { Effect::Demote { member, epoch } } else { Effect::Fence { member, epoch } });
        }
    }

    /// `id` is known to serve no more for what it was told.
    pub(super) fn fenced(&mut self, id: &MemberId, by: FencedBy) {
        let Some(member) = self.group.members.get_mut(id) else { return };
        let Some(epoch) = member.may_serve.take() else { return };
        let served = member.serving;
        member.dethrone();
        self.because(Reason::Fenced { member: id.clone(), epoch, by: by.clone() });
        if !self.group.spec.exclusive || !served {
            return;
        }
        self.close();
        self.group.stale_reach_nobody = matches!(by, FencedBy::Stopped(_));
        if self.group.transition.is_none() {
            self.group.lost = Some((id.clone(), self.group.loss(id, by)));
        }
    }

    fn set_phase(&mut self, phase: Phase) {
        if let Some(transition) = &mut self.group.transition {
            transition.phase = phase;
        }
    }

    /// Planned: the old hot member serves what is in flight.
    fn drain(&mut self) -> bool {
        let Some(t) = self.group.transition.clone() else { return false };
        let (Some(from), Phase::Draining { until }) = (&t.from, &t.phase) else { return false };
        let fencing = Phase::Fencing { until: self.group.at.plus(self.group.spec.bounds.promote_ms) };
        let lost = self.group.hot() != Some(from);
        if lost || self.group.doubt(from).is_some() {
            // No longer a plan: whoever is best takes over.
            self.unplan();
            self.set_phase(fencing);
            self.close();
            self.tell_fences();
            return true;
        }
        if let Some(why) = t.to.as_ref().and_then(|to| self.group.unfit(to).map(|why| format!("{to}: {why}"))) {
            self.group.transition = None;
            self.because(Reason::SwitchoverAborted { why });
            self.effects.push(Effect::Open { epoch: self.group.epoch, hot: vec![from.clone()] });
            return false;
        }
        let drained = self.group.open_routers.is_subset(&t.drained_routers);
        if drained || self.group.at >= *until {
            self.set_phase(fencing);
            self.close();
            self.tell_fences();
            return true;
        }
        false
    }

    fn unplan(&mut self) {
        if let Some(transition) = &mut self.group.transition {
            transition.planned = false;
        }
    }

    /// Closed: wait until nobody may serve and no router may reach whom it should not.
    fn fence(&mut self) -> bool {
        if self.group.spec.fence == Fence::RouterOnly && self.group.stale_routers.is_empty() {
            let told: Vec<MemberId> = self.group.may_serve().map(|(id, _)| id.clone()).collect();
            told.iter().for_each(|id| self.fenced(id, FencedBy::RoutersClosed));
        }
        if self.group.fencing_waits() {
            self.insist_on_fence();
            return false;
        }
        if self.group.paused() {
            self.refuse(Reason::AutomationPaused);
            return false;
        }
        let at = self.group.at;
        let until = at.plus(self.group.spec.bounds.positions_ms);
        let positions = self.group.spec.positions;
        if let Some(t) = &mut self.group.transition {
            t.stamps.fenced = at;
            t.phase = Phase::Choosing { until };
            let attempt = t.attempt;
            if positions {
                self.effects.push(Effect::Detach { attempt });
            }
        }
        true
    }

    /// A member that does not step down in time is no longer asked.
    fn insist_on_fence(&mut self) {
        let (at, promote_ms) = (self.group.at, self.group.spec.bounds.promote_ms);
        let Some(t) = &mut self.group.transition else { return };
        let Phase::Fencing { until } = t.phase else { return };
        if at < until {
            return;
        }
        t.planned = false;
        t.phase = Phase::Fencing { until: at.plus(promote_ms) };
        self.tell_fences();
    }

    /// Fenced: whose turn is it?
    fn choose(&mut self) -> bool {
        if self.group.paused() {
            self.refuse(Reason::AutomationPaused);
            return false;
        }
        let Some(t) = self.group.transition.clone() else { return false };
        let Phase::Choosing { until } = t.phase else { return false };
        let late = self.group.at >= until;
        let (best, others) = if self.group.spec.positions {
            if !self.enough_reports(&t, late) {
                return false;
            }
            self.group.candidate_by_position(t.attempt, &t.refused)
        } else {
            self.group.candidate(Need::Dead, None, &t.refused)
        };
        let wanted = t.to.clone().filter(|to| self.group.unfit(to).is_none() && !t.refused.contains(to));
        let wanted = wanted.filter(|to| others.iter().all(|(id, why)| id != to || *why == Refusal::Outranked));
        if let Some(to) = wanted.or(best) {
            let others = others.into_iter().filter(|(id, _)| *id != to).collect();
            self.promote(&to, others);
            return true;
        }
        self.refuse(Reason::NoSuccessor { member: None, others });
        if late {
            self.try_again_later();
        }
        false
    }

    /// All have been refused: each gets another chance when the time is up.
    fn try_again_later(&mut self) {
        let until = self.group.at.plus(self.group.spec.bounds.positions_ms);
        if let Some(t) = &mut self.group.transition {
            t.refused.clear();
            t.phase = Phase::Choosing { until };
        }
    }

    /// R + W > N: enough members said how far their data reaches, and nobody who could still say is left out in haste.
    fn enough_reports(&mut self, t: &Transition, late: bool) -> bool {
        let others = u16::try_from(self.group.spec.members.len().saturating_sub(1)).unwrap_or(u16::MAX);
        let needed = reports_needed(others, self.group.spec.acks);
        let reported: Vec<&MemberId> = self.group.reports(t.attempt).map(|(id, _)| id).collect();
        let old_reported = t.from.as_ref().is_some_and(|from| reported.contains(&from));
        let reports = u16::try_from(reported.iter().filter(|id| Some(**id) != t.from.as_ref()).count()).unwrap_or(u16::MAX);
        if reports < needed && !old_reported {
            if late {
                self.refuse(Reason::TooFewReports { reports, needed });
            }
            return false;
        }
        let missing = self.group.members.keys().any(|id| self.group.unfit(id).is_none() && !reported.contains(&id));
        late || !missing
    }

    fn promote(&mut self, to: &MemberId, others: Vec<(MemberId, Refusal)>) {
        let group = &mut self.group;
        group.epoch = group.epoch.next();
        group.refusal = None;
        let (epoch, at) = (group.epoch, group.at);
        let until = at.plus(group.spec.bounds.promote_ms);
        if let Some(member) = group.members.get_mut(to) {
            member.may_serve = Some(epoch);
        }
        if let Some(t) = &mut group.transition {
            t.stamps.chosen = at;
            t.phase = Phase::Promoting { to: to.clone(), until };
            let attempt = t.attempt;
            self.effects.push(Effect::Promote { member: to.clone(), epoch, attempt });
        }
        self.because(Reason::Chosen { member: to.clone(), others });
    }

    fn await_promotion(&mut self, to: &MemberId) -> bool {
        let Some(Phase::Promoting { until, .. }) = self.group.transition.as_ref().map(|t| t.phase.clone()) else { return false };
        let Some(member) = self.group.members.get(to) else { return false };
        let node = self.group.node_of(to).map(|n| self.group.node(n)).unwrap_or_default();
        if member.may_serve.is_none() || node.silent || node.lapsed {
            self.promotion_failed(to, Reason::CandidateLost { member: to.clone() });
            return true;
        }
        if self.group.at >= until {
            let after_ms = self.group.spec.bounds.promote_ms;
            self.promotion_failed(to, Reason::PromoteTimedOut { member: to.clone(), after_ms });
            return true;
        }
        false
    }

    /// S6: whoever was told to be hot is fenced before another is.
    pub(super) fn next_candidate(&mut self, failed: &MemberId) {
        let until = self.group.at.plus(self.group.spec.bounds.promote_ms);
        if let Some(t) = &mut self.group.transition {
            t.refused.insert(failed.clone());
            t.planned = false;
            t.phase = Phase::Fencing { until };
        }
        self.tell_fences();
    }

    /// The candidate confirmed: requests go to it.
    pub(super) fn open(&mut self, id: &MemberId) {
        let Some(t) = self.group.transition.take() else { return };
        let group = &mut self.group;
        let epoch = group.epoch;
        if let Some(member) = group.members.get_mut(id) {
            member.role = Role::Hot;
            member.serving = true;
            member.away = false;
        }
        group.closed = false;
        group.open_routers = group.spec.routers.iter().filter(|n| !group.node(n).lapsed).cloned().collect();
        group.lost = None;
        group.doubt_since = None;
        group.refusal = None;
        let at = group.at;
        self.effects.push(Effect::Open { epoch, hot: vec![id.clone()] });
        self.because(Reason::Opened {
            member: id.clone(),
            epoch,
            pause_ms: at.since(t.stamps.doubt),
            detect_ms: t.stamps.began.since(t.stamps.doubt),
            fence_ms: t.stamps.fenced.since(t.stamps.began),
            choose_ms: t.stamps.chosen.since(t.stamps.fenced),
            promote_ms: at.since(t.stamps.chosen),
        });
    }
}

impl Group {
    /// Why the hot member is in doubt, if it is.
    pub(crate) fn doubt(&self, hot: &MemberId) -> Option<Reason> {
        let member = self.members.get(hot)?;
        let node = self.node_of(hot)?.clone();
        let view = self.node(&node);
        let id = hot.clone();
        if view.lapsed {
            return Some(Reason::NodeLapsed { member: id, node });
        }
        if view.silent {
            return Some(Reason::NodeSilent { member: id, node });
        }
        if !member.ready {
            return Some(Reason::HotUnready { member: id, why: member.why_unready.clone() });
        }
        self.suspected(member).then(|| Reason::HotUnreachable { member: id, witnesses: self.witnesses(member) })
    }

    /// Why a hot member that was fenced outside a transition is lost.
    fn loss(&self, id: &MemberId, by: FencedBy) -> Reason {
        match (by, self.node_of(id)) {
            (FencedBy::Stopped(cause), _) => Reason::HotStopped { member: id.clone(), cause },
            (_, Some(node)) => Reason::NodeLapsed { member: id.clone(), node: node.clone() },
            (_, None) => Reason::Vacant,
        }
    }

    /// True while somebody may still serve an epoch that was closed, or may be reached by a router that has not closed it.
    #[must_use]
    pub fn fencing_waits(&self) -> bool {
        self.may_serve().next().is_some() || (!self.stale_routers.is_empty() && !self.stale_reach_nobody)
    }
}
