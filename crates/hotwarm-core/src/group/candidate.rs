//! Who can become hot, in which order, and why the others cannot.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::reason::{Evidence, Refusal};
use super::state::{Group, Member};
use crate::ids::{Attempt, MemberId, NodeId, Position, Role};

/// Testimony of this many nodes makes a suspicion: one alone may be the one that is cut off.
const WITNESSES: usize = 2;

/// Whom a choice may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The old hot member is gone: a member that failed lately is better than none.
    Dead,
    /// The old hot member lives: only a sound successor justifies fencing it.
    Live,
}

impl Group {
    /// The witnesses against a member whose testimony has not expired.
    pub(crate) fn witnesses(&self, member: &Member) -> Vec<(NodeId, Evidence)> {
        let fresh = |at| self.at.since(at) < self.spec.bounds.testimony_ms;
        member.testimony.iter().filter(|(_, (_, at))| fresh(*at)).map(|(n, (e, _))| (n.clone(), e.clone())).collect()
    }

    pub(crate) fn suspected(&self, member: &Member) -> bool {
        self.witnesses(member).len() >= WITNESSES
    }

    /// Why a member cannot serve, whoever else can; `None` if it can.
    #[must_use]
    pub fn unfit(&self, id: &MemberId) -> Option<Refusal> {
        let member = self.members.get(id)?;
        let node = self.node(self.node_of(id)?);
        if node.silent || node.lapsed {
            return Some(Refusal::NodeLost);
        }
        if member.drained || node.drained {
            return Some(Refusal::Drained);
        }
        if member.role == Role::Spare {
            return Some(Refusal::Spare);
        }
        if !member.running() {
            return Some(Refusal::NotRunning);
        }
        if !member.ready {
            return Some(Refusal::NotReady);
        }
        self.suspected(member).then_some(Refusal::Suspected)
    }

    fn held_down(&self, member: &Member) -> Option<Refusal> {
        (member.unstable_until > self.at).then(|| Refusal::Unstable { left_ms: member.unstable_until.since(self.at) })
    }

    /// The best candidate and why each other is not it. `except` and `refused` are never chosen.
    pub(crate) fn candidate(
        &self,
        need: Need,
        except: Option<&MemberId>,
        refused: &BTreeSet<MemberId>,
    ) -> (Option<MemberId>, Vec<(MemberId, Refusal)>) {
        let mut fit = Vec::new();
        let mut others = Vec::new();
        for (id, member) in self.members.iter().filter(|(id, _)| Some(*id) != except) {
            let held_down = self.held_down(member);
            if let Some(why) = self.unfit(id) {
                others.push((id.clone(), why));
            } else if refused.contains(id) {
                others.push((id.clone(), Refusal::FailedThisTime));
            } else if let (Need::Live, Some(why)) = (need, held_down.clone()) {
                others.push((id.clone(), why));
            } else {
                fit.push((held_down.is_some(), self.rank(id, except), id.clone()));
            }
        }
        fit.sort();
        let mut fit = fit.into_iter().map(|(_, _, id)| id);
        let best = fit.next();
        others.extend(fit.map(|id| (id, Refusal::Outranked)));
        (best, others)
    }

    /// Sort key among fit members: priority, then a zone other than the one that is being left, then the name.
    fn rank(&self, id: &MemberId, leaving: Option<&MemberId>) -> (Reverse<i32>, bool) {
        let spec = &self.spec.members[id];
        let leaving_zone = leaving.and_then(|l| self.spec.members.get(l)).map(|l| l.zone.as_str());
        (Reverse(spec.priority), leaving_zone == Some(spec.zone.as_str()) && !spec.zone.is_empty())
    }

    /// Among fit members that reported in `attempt`, the one whose data reaches farthest; why the others are not it.
    pub(crate) fn candidate_by_position(
        &self,
        attempt: Attempt,
        refused: &BTreeSet<MemberId>,
    ) -> (Option<MemberId>, Vec<(MemberId, Refusal)>) {
        // A member whose promotion failed still counts for how far the data reaches: it is never passed over for one behind it.
        let best = self.reports(attempt).map(|(_, p)| p).max();
        let (_, mut others) = self.candidate(Need::Dead, None, refused);
        others.retain(|(_, why)| *why != Refusal::Outranked);
        let mut fit: Vec<(bool, (Reverse<i32>, bool), MemberId)> = Vec::new();
        for (id, member) in &self.members {
            if self.unfit(id).is_some() || refused.contains(id) {
                continue;
            }
            match (member.position.filter(|(a, _)| *a == attempt), best) {
                (Some((_, position)), Some(best)) if position == best => {
                    fit.push((self.held_down(member).is_some(), self.rank(id, None), id.clone()));
                }
                (Some((_, position)), Some(best)) => others.push((id.clone(), Refusal::Behind { position, best })),
                _ => others.push((id.clone(), Refusal::NoPosition)),
            }
        }
        fit.sort();
        let mut fit = fit.into_iter().map(|(_, _, id)| id);
        let chosen = fit.next();
        others.extend(fit.map(|id| (id, Refusal::Outranked)));
        others.sort_by(|a, b| a.0.cmp(&b.0));
        (chosen, others)
    }

    pub(crate) fn reports(&self, attempt: Attempt) -> impl Iterator<Item = (&MemberId, Position)> {
        self.members.iter().filter_map(move |(id, m)| m.position.filter(|(a, _)| *a == attempt).map(|(_, p)| (id, p)))
    }
}
