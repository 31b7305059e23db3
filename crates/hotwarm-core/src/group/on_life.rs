//! What a member's own node saw of it: started, stopped, answers, does not answer.

use super::input::Life as Told;
use super::reason::FencedBy;
use super::state::Life;
use super::{Reason, Step};
use crate::action::StopCause;
use crate::ids::{Incarnation, MemberId, Role};

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
        if incarnation < member.incarnation || (incarnation == member.incarnation && member.running()) {
            return;
        }
        if incarnation > member.incarnation && member.running() {
            self.ended(id, &StopCause::Absent);
        }
        let member = self.group.members.get_mut(id).expect("looked up above");
        member.incarnation = incarnation;
        member.life = Life::Running;
        member.ready = false;
        "it has just started".clone_into(&mut member.why_unready);
        member.testimony.clear();
        member.position = None;
    }

    fn on_stopped(&mut self, id: &MemberId, incarnation: Incarnation, cause: &StopCause) {
        let Some(member) = self.group.members.get_mut(id) else { return };
        if incarnation < member.incarnation {
            return;
        }
        member.incarnation = incarnation;
        self.ended(id, cause);
    }

    /// Nothing of the member's present life is left: whatever it was told to be, it is no more.
    fn ended(&mut self, id: &MemberId, cause: &StopCause) {
        let group = &mut self.group;
        let Some(member) = group.members.get_mut(id) else { return };
        let was_running = member.running();
        member.life = Life::Stopped(cause.clone());
        member.ready = false;
        member.why_unready = cause.to_string();
        member.position = None;
        member.testimony.clear();
        let by_itself = !matches!(cause, StopCause::Asked | StopCause::Absent);
        let was_hot = member.role == Role::Hot;
        if was_hot && group.doubt_since.is_none() {
            group.doubt_since = Some(group.at);
        }
        if was_running && by_itself && was_hot {
            group.note_failure(id);
        }
        // An engine that tells the role by restarting its member ends the old life in order to begin the hot one.
        if group.promoting() == Some(id) && !by_itself {
            return;
        }
        self.fenced(id, FencedBy::Stopped(cause.clone()));
    }

    fn on_ready(&mut self, id: &MemberId, incarnation: Incarnation) {
        let Some(member) = self.group.members.get_mut(id) else { return };
        if incarnation != member.incarnation || !member.running() || member.ready {
            return;
        }
        member.ready = true;
        member.why_unready.clear();
        if member.away && member.role == Role::Warm {
            member.away = false;
            self.because(Reason::ReturnedWarm { member: id.clone() });
        }
    }

    fn on_unready(&mut self, id: &MemberId, incarnation: Incarnation, why: &str) {
        let group = &mut self.group;
        let Some(member) = group.members.get_mut(id) else { return };
        if incarnation != member.incarnation || !member.ready {
            return;
        }
        member.ready = false;
        why.clone_into(&mut member.why_unready);
        if member.role == Role::Hot && group.doubt_since.is_none() {
            group.doubt_since = Some(group.at);
        }
    }
}
