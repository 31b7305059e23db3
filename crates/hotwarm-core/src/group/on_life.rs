//! What a member's own node saw of it: started, stopped, answers, does not answer.

use super::input::Life as Told;
use super::reason::FencedBy;
use super::spec::Fence;
use super::state::Life;
use super::{Reason, Refusal, Step};
use crate::action::StopCause;
use crate::ids::{Incarnation, MemberId, Role};
use crate::plant::{self, Bug};

impl Step {
    pub(super) fn on_life(&mut self, life: &Told) {
        match life {
            Told::Started { member, incarnation } => self.on_started(member, *incarnation),
            Told::Stopped { member, incarnation, cause } => self.on_stopped(member, *incarnation, cause),
            Told::Ready { member, incarnation } => self.on_ready(member, *incarnation),
            Told::Unready { member, incarnation, why } => self.on_unready(member, *incarnation, why),
        }
    }

    /// A new life begins. One life of a member ends before the next begins, so a newer incarnation also says that the older one is
    /// gone; this matters where the `Stopped` was lost with the node's memory.
    fn on_started(&mut self, id: &MemberId, incarnation: Incarnation) {
        let Some(member) = self.group.members.get(id) else { return };
        // S4: what has ended does not begin again under the same number.
        if incarnation < member.incarnation || (incarnation == member.incarnation && member.life != Life::Unknown) {
            return;
        }
        if incarnation > member.incarnation && member.running() {
            // S6: of a candidate that has not confirmed, it may be the hot life that begins.
            let renewed = StopCause::Renewed { role: Role::Hot };
            let cause = if member.may_serve.is_some() && !member.serving { renewed } else { StopCause::Absent };
            self.ended(id, &cause);
        }
        let (at, promote_ms) = (self.group.at, self.group.spec.bounds.promote_ms);
        let member = self.group.members.get_mut(id).expect("looked up above");
        let before = match &member.life {
            Life::Stopped(cause) if cause.is_failure() => format!("; its life before: {cause}"),
            _ => String::new(),
        };
        member.incarnation = incarnation;
        member.life = Life::Running;
        member.ready = false;
        member.confirmed = false;
        member.failing_from = Some(at.plus(promote_ms));
        member.why_unready = format!("it has not answered since its start{before}");
        member.testimony.clear();
        member.position = None;
        // S8: it lives, so a router with an old view may reach it again.
        if member.away && self.group.closed {
            self.group.stale_reach_nobody = false;
        }
    }

    fn on_stopped(&mut self, id: &MemberId, incarnation: Incarnation, cause: &StopCause) {
        let Some(member) = self.group.members.get_mut(id) else { return };
        // Said again it proves nothing: the next life may have begun in between, and not been told yet (S4).
        let older = incarnation < member.incarnation && !plant::is(Bug::S4AnyLife);
        if older {
            return;
        }
        if incarnation == member.incarnation && member.stopped() {
            // Of another attempt to begin a life, which got no number: nothing but its cause is new.
            if !cause.is_failure() || member.life == Life::Stopped(cause.clone()) {
                return;
            }
            member.life = Life::Stopped(cause.clone());
            member.why_unready = cause.to_string();
            return self.tell_failed_start(id, cause);
        }
        member.incarnation = incarnation;
        self.ended(id, cause);
        self.tell_failed_start(id, cause);
    }

    /// Told once, until it has answered again.
    fn tell_failed_start(&mut self, id: &MemberId, cause: &StopCause) {
        let (Some(member), StopCause::NotStarted(why)) = (self.group.members.get_mut(id), cause) else { return };
        if !std::mem::replace(&mut member.failed_start, true) {
            self.because(Reason::NotStarted { member: id.clone(), why: why.clone() });
        }
    }

    /// Nothing of the member's present life is left: whatever it was told to be, it is no more.
    fn ended(&mut self, id: &MemberId, cause: &StopCause) {
        let group = &mut self.group;
        let Some(member) = group.members.get_mut(id) else { return };
        let was_running = member.running();
        // A life that begins anew in its hot role has yet to confirm it.
        member.confirmed = false;
        member.failing_from = None;
        member.life = Life::Stopped(cause.clone());
        member.ready = false;
        member.why_unready = cause.to_string();
        member.testimony.clear();
        let was_hot = member.role == Role::Hot;
        let serving = member.serving;
        let being_fenced = group.transition.as_ref().is_some_and(|t| !t.planned && t.from.as_ref() == Some(id));
        if was_running && cause.is_failure() && was_hot && serving && !being_fenced {
            group.note_failure(id);
        }
        self.doubt_begins(id);
        // S6: an engine that tells the role by starting its member anew ends the old life in order to begin the hot one. That end is no
        // fence, however late it is heard of.
        if matches!(cause, StopCause::Renewed { role: Role::Hot }) {
            return;
        }
        // S5: where hotwarm is not the member's parent, not being seen to run is no proof that it does not serve: its fence tells.
        let unproven = self.group.spec.fence != Fence::Supervisor && matches!(cause, StopCause::Absent);
        if self.group.spec.exclusive {
            if !unproven {
                self.fenced(id, FencedBy::Stopped(cause.clone()));
            }
        } else if serving {
            self.eject(id, Refusal::NotRunning { why: cause.to_string() });
        } else if was_hot {
            self.promotion_failed(id, Reason::CandidateLost { member: id.clone() }, cause.is_failure());
        }
    }

    fn on_ready(&mut self, id: &MemberId, incarnation: Incarnation) {
        let Some(member) = self.group.members.get_mut(id) else { return };
        if incarnation != member.incarnation || !member.running() || member.ready {
            return;
        }
        member.ready = true;
        member.failed_start = false;
        member.failing_from = None;
        member.why_unready.clear();
    }

    fn on_unready(&mut self, id: &MemberId, incarnation: Incarnation, why: &str) {
        let group = &mut self.group;
        let Some(member) = group.members.get_mut(id) else { return };
        if incarnation != member.incarnation || !member.ready {
            return;
        }
        member.ready = false;
        member.failing_from = Some(group.at);
        why.clone_into(&mut member.why_unready);
        self.doubt_begins(id);
    }
}
