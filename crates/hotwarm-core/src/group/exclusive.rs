//! Groups in which one member serves at a time: doubt -> close and fence -> choose -> promote -> open.
//!
//! Everything is looked at anew after each input, so a transition goes on from whatever state it was left in. The order is what keeps
//! promise 1: nobody is promoted while anybody else may serve, or while a router may still send to whom it could reach (S6, S8).

use std::collections::BTreeSet;

use super::candidate::Need;
use super::effect::Effect;
use super::quorum::reports_needed;
use super::reason::{FencedBy, Reason, SelfDoubt};
use super::spec::Fence;
use super::state::{Group, Phase, Stamps, Transition};
use super::{Refusal, Step};
use crate::action::StopCause;
use crate::ids::{MemberId, Role};
use crate::plant::{self, Bug};

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
        if self.group.spec.hot == 0 {
            return self.stop_serving(hot);
        }
        if let Some(reason) = self.group.doubt(&hot) {
            return self.replace_live(&hot, reason);
        }
        // A witness that stands alone is no doubt yet; the pause counts from it all the same if others follow.
        let silent = self.group.node_of(&hot).is_some_and(|n| self.group.node(n).silent);
        if !silent && self.group.witnesses(&self.group.members[&hot]).is_empty() {
            self.group.doubt_since = None;
        }
        let node_drained = self.group.node_of(&hot).is_some_and(|n| self.group.node(n).drained);
        if self.group.members[&hot].drained || node_drained {
            return self.drain_hot(hot);
        }
        self.forget_refusal();
        false
    }

    /// It hands over to nobody, gently: what is in flight finishes.
    fn stop_serving(&mut self, hot: MemberId) -> bool {
        if self.group.paused() {
            self.refuse_paused();
            return false;
        }
        self.begin_planned(Reason::NoneWanted { member: hot.clone() }, hot, None);
        true
    }

    fn drain_hot(&mut self, hot: MemberId) -> bool {
        if self.group.paused() {
            self.refuse_paused();
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
        if let Some(refusal) = self.group.spares_live(hot) {
            let told = self.group.refusal.as_ref().map(Reason::code) == Some(refusal.code());
            if !told {
                self.because(reason);
            }
            self.refuse(refusal);
            return false;
        }
        // Whose node lapsed is not known to live: its replacement spends nothing.
        if !self.group.needs_a_lease(hot) {
            self.group.note_failover();
        }
        self.group.note_doubted(hot, &reason);
        self.because(reason.clone());
        self.begin(reason, Some(hot.clone()));
        true
    }

    /// Nobody is hot. A member that failed lately is better than none.
    fn fill_vacancy(&mut self) -> bool {
        if self.group.spec.hot == 0 {
            self.group.lost = None;
            self.forget_refusal();
            return false;
        }
        let (best, others) = self.group.candidate(Need::Dead, None, &BTreeSet::new());
        if self.group.paused() && (best.is_some() || self.group.lost.is_some()) {
            self.refuse_paused();
            return false;
        }
        if best.is_none() {
            if self.group.lost.is_some() {
                self.refuse(Reason::NoSuccessor { member: None, others });
            }
            return false;
        }
        let (from, why) = match self.group.lost.clone() {
            Some((member, why)) => (Some(member), why),
            None => (None, Reason::Vacant),
        };
        // The loss was told when it was logged: now, or a while ago.
        if !self.effects.contains(&Effect::Because(why.clone())) {
            self.because(Reason::Vacant);
        }
        self.begin(why, from);
        true
    }

    fn transition(&mut self, why: Reason, from: Option<MemberId>, to: Option<MemberId>, planned: bool, phase: Phase) {
        let at = self.group.at;
        self.group.attempt = self.group.attempt.next();
        self.group.refusal = None;
        let stamps = Stamps { doubt: self.group.doubt_since.unwrap_or(at), began: at, fenced: at, chosen: at };
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

    fn begin(&mut self, why: Reason, from: Option<MemberId>) {
        let until = self.group.at.plus(self.group.spec.bounds.promote_ms);
        self.transition(why, from, None, false, Phase::Fencing { until });
        self.close();
        self.tell_fences();
    }

    pub(super) fn begin_planned(&mut self, why: Reason, from: MemberId, to: Option<MemberId>) {
        let until = self.group.at.plus(self.group.spec.bounds.drain_ms);
        self.because(why.clone());
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
        if self.group.promoting() == Some(id) {
            let failed = matches!(&by, FencedBy::Stopped(cause) if cause.is_failure());
            self.promotion_failed(id, Reason::CandidateLost { member: id.clone() }, failed);
        }
        if served && self.group.transition.is_none() {
            let loss = self.group.loss(id, by.clone());
            self.because(loss.clone());
            self.group.lost = Some((id.clone(), loss));
        }
        self.because(Reason::Fenced { member: id.clone(), epoch, by: by.clone() });
        if served {
            self.close();
            // S8: what has stopped, and is kept down, cannot be reached by a router that does not know. What hotwarm does not start
            // itself may be up again at any moment.
            let gone = matches!(&by, FencedBy::Stopped(cause) if !matches!(cause, StopCause::Renewed { .. }));
            self.group.stale_reach_nobody = gone && self.group.spec.fence == Fence::Supervisor;
        }
    }

    /// Planned: the old hot member serves what is in flight.
    fn drain(&mut self) -> bool {
        let Some(t) = self.group.transition.clone() else { return false };
        let (Some(from), Phase::Draining { until }) = (&t.from, &t.phase) else { return false };
        let lost = self.group.hot() != Some(from);
        if let Some(why) = self.group.plan_is_off(&t).filter(|_| !lost) {
            self.group.transition = None;
            self.because(Reason::SwitchoverAborted { why });
            self.effects.push(Effect::Open { epoch: self.group.epoch, hot: vec![from.clone()] });
            return true;
        }
        let doubt = self.group.doubt(from).filter(|_| !lost);
        if let Some(doubt) = &doubt {
            self.because(doubt.clone());
            self.group.note_doubted(from, doubt);
        }
        let drained = self.group.open_routers.is_subset(&t.drained_routers);
        if lost || doubt.is_some() || drained || self.group.at >= *until {
            if !lost && doubt.is_none() && !drained {
                let routers = self.group.open_routers.difference(&t.drained_routers).cloned().collect();
                self.because(Reason::DrainTimedOut { routers, after_ms: self.group.spec.bounds.drain_ms });
            }
            let until = self.group.at.plus(self.group.spec.bounds.promote_ms);
            if let Some(transition) = &mut self.group.transition {
                // No longer a plan: whoever is best takes over.
                transition.planned = !lost && doubt.is_none();
                transition.phase = Phase::Fencing { until };
            }
            self.close();
            self.tell_fences();
            return true;
        }
        false
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
            self.refuse_paused();
            return false;
        }
        self.forget_refusal();
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

    /// A member that does not step down in time is no longer asked; one that is not fenced in time is told about.
    fn insist_on_fence(&mut self) {
        let (at, after_ms) = (self.group.at, self.group.spec.bounds.promote_ms);
        let members: Vec<MemberId> = self.group.may_serve().map(|(id, _)| id.clone()).collect();
        let Some(t) = &mut self.group.transition else { return };
        let Phase::Fencing { until } = t.phase else { return };
        if at < until {
            return;
        }
        let planned = std::mem::replace(&mut t.planned, false);
        t.phase = Phase::Fencing { until: at.plus(after_ms) };
        if let (true, Some(member)) = (planned, members.first()) {
            self.because(Reason::DemoteTimedOut { member: member.clone(), after_ms });
        } else if !self.group.paused() {
            let reach = self.group.routers_reach();
            let routers = self.group.stale_routers.iter().filter(|_| reach).cloned().collect();
            self.refuse(Reason::FenceWaits { members, routers });
        }
        self.tell_fences();
    }

    /// Fenced: whose turn is it?
    fn choose(&mut self) -> bool {
        if self.group.paused() {
            self.refuse_paused();
            return false;
        }
        let Some(t) = self.group.transition.clone() else { return false };
        let Phase::Choosing { until } = t.phase else { return false };
        if self.group.fencing_waits() {
            // S8: a member that ought to be down lives again and a router may still reach it.
            let until = self.group.at.plus(self.group.spec.bounds.promote_ms);
            if let Some(t) = &mut self.group.transition {
                t.phase = Phase::Fencing { until };
            }
            return true;
        }
        if self.group.spec.hot == 0 {
            // Fenced and wanted by nobody: that is the end of it.
            self.group.transition = None;
            return true;
        }
        let late = self.group.at >= until;
        let (best, others) = if self.group.spec.positions {
            if !self.enough_reports(&t, late) {
                return late && self.go_back(&t);
            }
            self.group.candidate_by_position(t.attempt, t.from.as_ref(), &t.refused)
        } else {
            self.group.candidate_beside(Need::Dead, None, t.from.as_ref().as_slice(), &t.refused)
        };
        let wanted = t.to.clone().filter(|to| self.group.unfit(to).is_none() && !t.refused.contains(to));
        let wanted = wanted.filter(|to| others.iter().all(|(id, why)| id != to || why.is_preference()));
        if let Some(to) = wanted.or(best) {
            if let Some(asked) = t.to.as_ref().filter(|asked| t.planned && **asked != to) {
                self.because(Reason::SwitchoverAborted { why: why_not(asked, &others) });
            }
            let others = others.into_iter().filter(|(id, _)| *id != to).collect();
            self.promote(&to, others);
            return true;
        }
        self.refuse(Reason::NoSuccessor { member: None, others });
        late && self.try_again()
    }

    /// A plan that fails for want of reports: the member that stepped down for it has all that was ever acknowledged, and serves again.
    ///
    /// S7: the entry that is applied here is the abort of the attempt, and it opens epoch + 1 with the same member. Whoever was cut follows
    /// again only once that member has answered and the group is open (docs/decisions/abort-without-an-entry.md).
    fn go_back(&mut self, t: &Transition) -> bool {
        let Some(from) = t.from.clone().filter(|from| t.planned && self.group.unfit(from).is_none() && !t.refused.contains(from)) else {
            return false;
        };
        let why = self.group.refusal.as_ref().map_or_else(|| "nobody can take over".to_owned(), ToString::to_string);
        self.because(Reason::SwitchoverAborted { why });
        self.promote(&from, Vec::new());
        true
    }

    /// Nobody is left: those whose promotion failed get another chance, once in a while.
    fn try_again(&mut self) -> bool {
        let until = self.group.at.plus(self.group.spec.bounds.positions_ms);
        let Some(t) = &mut self.group.transition else { return false };
        t.phase = Phase::Choosing { until };
        !std::mem::take(&mut t.refused).is_empty()
    }

    /// R + W > N: enough members said how far their data reaches, and nobody who could still say is left out in haste.
    fn enough_reports(&mut self, t: &Transition, late: bool) -> bool {
        let needed = self.group.reports_needed();
        let reported: Vec<&MemberId> = self.group.reports(t.attempt, t.from.as_ref()).map(|(id, _)| id).collect();
        let old_reported = t.from.as_ref().is_some_and(|from| reported.contains(&from));
        let reports = u16::try_from(reported.iter().filter(|id| Some(**id) != t.from.as_ref()).count()).unwrap_or(u16::MAX);
        let needed = if plant::is(Bug::P2OneReport) { 1 } else { needed };
        if reports < needed && !old_reported {
            if late {
                self.refuse(Reason::TooFewReports { reports, needed });
            }
            return false;
        }
        let able = |id: &MemberId| self.group.unfit(id).is_none() && !self.group.old_data(id, t.from.as_ref());
        let missing = self.group.members.keys().any(|id| able(id) && !reported.contains(&id));
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
            member.confirmed = false;
        }
        let left_ms = group.members.get(to).map_or(0, |m| m.unstable_until.since(at));
        let asked = group.transition.as_ref().is_some_and(|t| t.to.as_ref() == Some(to));
        self.effects.push(Effect::Because(Reason::Chosen { member: to.clone(), others }));
        if left_ms > 0 && !asked {
            self.effects.push(Effect::Because(Reason::HoldDownWaived { member: to.clone(), left_ms }));
        }
        if let Some(t) = &mut group.transition {
            t.stamps.chosen = at;
            t.phase = Phase::Promoting { to: to.clone(), until };
            let attempt = t.attempt;
            self.effects.push(Effect::Promote { member: to.clone(), epoch, attempt });
        }
    }

    fn await_promotion(&mut self, to: &MemberId) -> bool {
        let Some(Phase::Promoting { until, .. }) = self.group.transition.as_ref().map(|t| t.phase.clone()) else { return false };
        let Some(member) = self.group.members.get(to) else { return false };
        let node = self.group.node_of(to).map(|n| self.group.node(n)).unwrap_or_default();
        if node.silent || node.lapsed {
            self.promotion_failed(to, Reason::CandidateLost { member: to.clone() }, false);
            return true;
        }
        if self.group.at >= until {
            let after_ms = self.group.spec.bounds.promote_ms;
            self.promotion_failed(to, Reason::PromoteTimedOut { member: to.clone(), after_ms }, true);
            return true;
        }
        if member.confirmed && member.ready && member.running() && !self.group.routers_reach() {
            self.open(to);
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
            if plant::is(Bug::S6NotFenced)
                && let Some(member) = self.group.members.get_mut(failed)
            {
                member.may_serve = None;
            }
            t.phase = Phase::Fencing { until };
        }
        self.tell_fences();
    }

    /// The candidate confirmed: requests go to it.
    fn open(&mut self, id: &MemberId) {
        let Some(t) = self.group.transition.take() else { return };
        let group = &mut self.group;
        let epoch = group.epoch;
        if let Some(member) = group.members.get_mut(id) {
            member.role = Role::Hot;
            member.serving = true;
            member.confirmed = false;
            member.away = false;
        }
        group.closed = false;
        group.open_routers = group.spec.routers.iter().filter(|n| !group.node(n).lapsed).cloned().collect();
        group.lost = None;
        group.doubt_since = None;
        group.refusal = None;
        let at = group.at;
        self.because(Reason::Opened {
            member: id.clone(),
            epoch,
            pause_ms: at.since(t.stamps.doubt),
            detect_ms: t.stamps.began.since(t.stamps.doubt),
            fence_ms: t.stamps.fenced.since(t.stamps.began),
            choose_ms: t.stamps.chosen.since(t.stamps.fenced),
            promote_ms: at.since(t.stamps.chosen),
        });
        self.effects.push(Effect::Open { epoch, hot: vec![id.clone()] });
    }
}

fn why_not(id: &MemberId, others: &[(MemberId, Refusal)]) -> String {
    let refused = others.iter().find(|(other, _)| other == id);
    refused.map_or_else(|| format!("{id} is no member any more"), |(_, why)| format!("{id}: {why}"))
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
        // Silence alone fences nobody where the lease will tell: acting on it gains nothing, since the lease must be waited out either way,
        // and a node that was only slow would have been failed over for nothing.
        // Nor where its agent said that it stops: its member lives on, and the next agent may be there before the lease is out.
        let stops = view.doubts_itself == Some(SelfDoubt::Stopping);
        if view.silent && self.spec.fence != Fence::Supervisor && !stops {
            return Some(Reason::NodeSilent { member: id, node });
        }
        if !member.ready {
            return Some(Reason::HotUnready { member: id, why: member.why_unready.clone() });
        }
        self.suspected(member).then(|| Reason::HotUnreachable { member: id, witnesses: self.witnesses(member) })
    }

    /// Two who look in different ways agree: its own node's probe fails and a router cannot reach it; or its node is gone.
    pub(crate) fn cannot_serve(&self, hot: &MemberId) -> bool {
        let Some(member) = self.members.get(hot) else { return true };
        self.needs_a_lease(hot) || (!member.ready && !self.witnesses(member).is_empty())
    }

    /// It may serve under a lease only, and its node holds none. One of several goes on (promise 4).
    pub(super) fn needs_a_lease(&self, id: &MemberId) -> bool {
        self.spec.exclusive && self.node_of(id).is_some_and(|node| self.node(node).lapsed)
    }

    /// Why a hot member that is in doubt, but not known to be dead, is left alone (S9).
    fn spares_live(&self, hot: &MemberId) -> Option<Reason> {
        if self.paused() {
            let waits = self.refusal.clone().filter(|why| matches!(why, Reason::ResumeWaits { .. }));
            return Some(waits.unwrap_or(Reason::AutomationPaused));
        }
        // S9: anti-flap protects a service that answers. Where it is proven that none does, a member held down is better than none; the
        // budget below goes on counting.
        let need = if self.cannot_serve(hot) { Need::Dead } else { Need::Live };
        let (successor, others) = self.candidate(need, Some(hot), &BTreeSet::new());
        if successor.is_none() && !plant::is(Bug::S9NoSuccessor) {
            return Some(Reason::NoSuccessor { member: Some(hot.clone()), others });
        }
        // Once it is fenced its data may be out of reach: enough others must be able to say how far theirs reaches.
        let (reports, needed) = (self.could_report(hot), self.reports_needed());
        if self.spec.positions && reports < needed {
            return Some(Reason::TooFewReports { reports, needed });
        }
        let failovers = u32::try_from(self.failovers.len()).unwrap_or(u32::MAX);
        let per_hour = self.spec.bounds.failovers_per_hour;
        let live = !self.needs_a_lease(hot);
        (live && self.budget_spent()).then_some(Reason::BudgetSpent { failovers, per_hour })
    }

    /// Why a switchover that still drains is given up; nothing has been cut yet, so the hot member simply goes on.
    fn plan_is_off(&self, t: &Transition) -> Option<String> {
        let from = t.from.as_ref()?;
        if self.paused() {
            return Some("automation was paused".to_owned());
        }
        if matches!(t.why, Reason::NoneWanted { .. }) {
            return (self.spec.hot > 0).then(|| "a hot member is wanted again".to_owned());
        }
        let drained = self.members.get(from).is_some_and(|m| m.drained) || self.node_of(from).is_some_and(|n| self.node(n).drained);
        if matches!(t.why, Reason::HotDrained { .. }) && !drained {
            return Some(format!("{from} is no longer drained"));
        }
        if let Some(doubt) = self.doubt(from) {
            // S9: a live member is fenced only if another can take over.
            return self.candidate(Need::Dead, Some(from), &BTreeSet::new()).0.is_none().then(|| doubt.to_string());
        }
        t.to.as_ref().and_then(|to| self.unfit(to).map(|why| format!("{to}: {why}")))
    }

    /// How many reports of other members than the old hot one make a choice safe.
    pub(super) fn reports_needed(&self) -> u16 {
        let others = u16::try_from(self.spec.members.len().saturating_sub(1)).unwrap_or(u16::MAX);
        reports_needed(others, self.spec.acks)
    }

    /// How many other members than `hot` could report their position.
    pub(super) fn could_report(&self, hot: &MemberId) -> u16 {
        let able = self.members.iter().filter(|(id, m)| *id != hot && !m.away && self.unfit(id).is_none()).count();
        u16::try_from(able).unwrap_or(u16::MAX)
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
        let serves = self.may_serve().next().is_some() && !plant::is(Bug::S22NotFenced);
        serves || self.routers_reach()
    }

    /// True while a router that has not closed an older epoch may reach a member that was hot in it.
    fn routers_reach(&self) -> bool {
        !self.stale_routers.is_empty() && !self.stale_reach_nobody && !plant::is(Bug::S8OpenEarly)
    }
}
