//! What became of what the group asked for. An answer about another life, epoch or attempt is ignored (S4, S7).

use super::Step;
use super::input::Answer;
use super::reason::{FencedBy, Reason};
use super::state::{Group, Phase};
use crate::ids::{Attempt, Epoch, Incarnation, MemberId, NodeId, Role};

impl Group {
    /// The candidate that was told to become hot and has not answered.
    #[must_use]
    pub fn promoting(&self) -> Option<&MemberId> {
        match self.transition.as_ref().map(|t| &t.phase) {
            Some(Phase::Promoting { to, .. }) => Some(to),
            _ => None,
        }
    }
}

impl Step {
    pub(super) fn on_answer(&mut self, answer: &Answer) {
        match answer {
            Answer::Promoted { member, incarnation, epoch, attempt } => self.on_promoted(member, *incarnation, *epoch, *attempt),
            Answer::PromoteFailed { member, incarnation, epoch, attempt, why } => {
                if self.is_asked(member, *incarnation, *epoch, *attempt) {
                    self.promotion_failed(member, Reason::PromoteFailed { member: member.clone(), why: why.clone() }, true);
                }
            }
            Answer::Demoted { member, incarnation, epoch } => self.on_demoted(member, *incarnation, *epoch),
            Answer::Fenced { member, epoch } => {
                // Strictly: the epoch a fence names is the one that the next promotion gets, even of the same member (S6).
                let covered = self.group.members.get(member).is_some_and(|m| m.may_serve.is_some_and(|told| told < *epoch));
                if covered && self.group.spec.exclusive {
                    self.fenced(member, FencedBy::Hook);
                }
            }
            Answer::RouterClosed { node, epoch } => self.on_router_closed(node, *epoch),
            Answer::RouterDrained { node, epoch } => self.on_router_drained(node, *epoch),
            Answer::Position { member, incarnation, attempt, position } => {
                let current = self.group.transition.as_ref().is_some_and(|t| t.attempt == *attempt);
                if let Some(m) = self.group.members.get_mut(member)
                    && current
                    && m.incarnation == *incarnation
                {
                    m.position = Some((*attempt, *position));
                }
            }
            Answer::ResumeSeen { node, resume } => self.on_resume_seen(node, *resume),
        }
    }

    /// True if the group waits for this very promotion.
    fn is_asked(&self, id: &MemberId, incarnation: Incarnation, epoch: Epoch, attempt: Attempt) -> bool {
        let Some(member) = self.group.members.get(id) else { return false };
        if member.incarnation != incarnation || !member.running() || member.may_serve != Some(epoch) || member.serving {
            return false;
        }
        !self.group.spec.exclusive
            || (self.group.promoting() == Some(id) && self.group.transition.as_ref().is_some_and(|t| t.attempt == attempt))
    }

    fn on_promoted(&mut self, id: &MemberId, incarnation: Incarnation, epoch: Epoch, attempt: Attempt) {
        if !self.is_asked(id, incarnation, epoch, attempt) {
            return;
        }
        // It opens once it also answers its check; a life that began in its hot role may not do so yet.
        if let Some(member) = self.group.members.get_mut(id) {
            member.confirmed = true;
        }
    }

    /// `failed`: that is the member's own doing, and counts against it.
    pub(super) fn promotion_failed(&mut self, id: &MemberId, reason: Reason, failed: bool) {
        self.because(reason);
        if failed {
            self.group.note_failure(id);
        }
        if self.group.spec.exclusive {
            self.next_candidate(id);
        } else if let Some(member) = self.group.members.get_mut(id) {
            // It stays out at least as long as a first hold-down: trying again at once would fail again.
            if failed {
                member.unstable_until = member.unstable_until.max(self.group.at.plus(self.group.spec.bounds.hold_down_ms));
            }
            member.retry_at = self.group.at.plus(self.group.spec.bounds.positions_ms);
            member.dethrone();
            member.may_serve = None;
        }
    }

    fn on_demoted(&mut self, id: &MemberId, incarnation: Incarnation, epoch: Epoch) {
        let Some(member) = self.group.members.get_mut(id) else { return };
        if member.incarnation != incarnation || member.may_serve.is_none_or(|told| told > epoch) {
            return;
        }
        // Only what the group asked to step down may say that it did: a member that is wanted hot is told again instead.
        if !self.group.spec.exclusive || (member.role == Role::Hot && self.group.transition.is_none()) {
            return;
        }
        self.fenced(id, FencedBy::Demoted);
    }

    fn on_router_closed(&mut self, node: &NodeId, epoch: Epoch) {
        let group = &mut self.group;
        if epoch >= group.closed_epoch {
            group.stale_routers.remove(node);
        }
        // One that was configured away is open until it says so.
        if epoch >= group.epoch && !group.spec.routers.contains(node) {
            group.open_routers.remove(node);
        }
    }

    fn on_router_drained(&mut self, node: &NodeId, epoch: Epoch) {
        if let Some(transition) = &mut self.group.transition
            && epoch == self.group.epoch
            && self.group.open_routers.contains(node)
        {
            transition.drained_routers.insert(node.clone());
        }
        if !self.group.spec.exclusive && epoch == self.group.epoch && self.group.spec.routers.contains(node) {
            self.group.drained_routers.insert(node.clone(), epoch);
        }
    }
}
