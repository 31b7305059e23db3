//! Who can become hot, in which order, and why the others cannot.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::reason::{Evidence, Refusal, SelfDoubt};
use super::spec::Fence;
use super::state::{Group, Life, Member};
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

    /// Which nodes' routers say that they cannot reach which serving member, in words.
    #[must_use]
    pub fn doubts(&self) -> Vec<String> {
        let serving = self.members.iter().filter(|(_, m)| m.role == Role::Hot && m.serving);
        let told = serving.flat_map(|(id, m)| self.witnesses(m).into_iter().map(move |(node, seen)| (id, node, seen)));
        told.map(|(id, node, seen)| format!("the router of {node} cannot reach {id}: {seen}")).collect()
    }

    pub(crate) fn suspected(&self, member: &Member) -> bool {
        self.witnesses(member).len() >= WITNESSES
    }

    /// Why a member cannot serve, whoever else can; `None` if it can.
    #[must_use]
    pub fn unfit(&self, id: &MemberId) -> Option<Refusal> {
        let (Some(member), Some(node)) = (self.members.get(id), self.node_of(id)) else {
            // Configured away since somebody asked for it.
            return Some(Refusal::NotRunning { why: String::new() });
        };
        let node = self.node(node);
        if node.silent || node.lapsed {
            return Some(Refusal::NodeLost);
        }
        if member.drained || node.drained {
            return Some(Refusal::Drained);
        }
        if member.role == Role::Spare {
            return Some(Refusal::Spare);
        }
        if self.leaves_for_restart(id) {
            return Some(Refusal::Restarting);
        }
        if self.stays_down(id) {
            return Some(Refusal::KeptDown);
        }
        if !member.running() {
            return Some(Refusal::NotRunning { why: member.why_stopped() });
        }
        if !member.ready {
            return Some(Refusal::NotReady { why: member.why_unready.clone() });
        }
        self.suspected(member).then_some(Refusal::Suspected)
    }

    /// Why nobody gets an answer of a member, whatever role it has: it needs a lease and its node holds none, it does not run, or its own check
    /// and a router find the same.
    #[must_use]
    pub fn gone(&self, id: &MemberId) -> Option<Refusal> {
        let Some(member) = self.members.get(id) else { return Some(Refusal::NotRunning { why: String::new() }) };
        if self.needs_a_lease(id) {
            Some(Refusal::NodeLost)
        } else if !member.running() {
            Some(Refusal::NotRunning { why: member.why_stopped() })
        } else {
            self.cannot_serve(id).then(|| Refusal::NotReady { why: member.why_unready.clone() })
        }
    }

    /// Nothing proves that it does not serve, though nobody here hears its node: a pause lets it outlive its lease (S10), and where a hook
    /// alone can tell nothing ends it. It may answer at its own address.
    pub(crate) fn may_answer(&self, id: &MemberId) -> bool {
        let outlives = |node| self.lease_suspended(node) || self.spec.fence != Fence::Supervisor;
        let unknown = self.members.get(id).is_some_and(|member| member.may_serve.is_some() && !member.stopped());
        unknown && self.needs_a_lease(id) && self.node_of(id).is_some_and(outlives)
    }

    /// It is hot and, by all that is known, answers requests. One whose node is not heard may, and nobody knows; so may one of several whose
    /// agent has ended (promise 4).
    #[must_use]
    pub fn serves(&self, id: &MemberId) -> bool {
        let heard = self.node_of(id).map(|node| self.node(node)).is_some_and(|node| !node.silent && !node.lapsed);
        self.is_admitted(id) && heard && self.gone(id).is_none()
    }

    /// Routers send requests to it, or would if it could be reached.
    pub(crate) fn is_admitted(&self, id: &MemberId) -> bool {
        self.members.get(id).is_some_and(|m| m.role == Role::Hot && m.serving)
    }

    /// A spare that would be started if a member were missing: its node is up, it is not drained, and its last start did not fail.
    #[must_use]
    pub fn startable(&self, id: &MemberId) -> bool {
        let failed = |member: &Member| matches!(&member.life, Life::Stopped(cause) if cause.is_failure());
        self.unfit(id) == Some(Refusal::Spare) && self.members.get(id).is_some_and(|member| !failed(member))
    }

    fn held_down(&self, member: &Member) -> Option<Refusal> {
        let left_ms = self.held_down_ms(member);
        (left_ms > 0).then_some(Refusal::Unstable { left_ms })
    }

    /// Where all are held down, whoever is for the shortest time has failed the least, or the longest ago.
    fn held_down_ms(&self, member: &Member) -> u64 {
        member.unstable_until.since(self.at)
    }

    /// The best candidate and why each other is not it. `except`, which is being left, and `refused` are never chosen.
    pub(crate) fn candidate(
        &self,
        need: Need,
        except: Option<&MemberId>,
        refused: &BTreeSet<MemberId>,
    ) -> (Option<MemberId>, Vec<(MemberId, Refusal)>) {
        self.candidate_beside(need, except, except.as_slice(), refused)
    }

    /// The same for a place beside these, or in the place of one of these, which may be chosen again: a zone with few of them is preferred.
    pub(crate) fn candidate_beside(
        &self,
        need: Need,
        except: Option<&MemberId>,
        beside: &[&MemberId],
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
                fit.push((self.self_doubt(id), self.held_down_ms(member), self.rank(id, beside), id.clone()));
            }
        }
        let best = pick(fit, &mut others);
        (best, others)
    }

    /// Why the member's node doubts itself. It is no refusal: a member there is better than none.
    pub(crate) fn self_doubt(&self, id: &MemberId) -> Option<SelfDoubt> {
        self.node_of(id).and_then(|node| self.node(node).doubts_itself)
    }

    /// Sort key among fit members, before the name: priority, then how many of `beside` share its zone. A member without a zone shares none.
    pub(super) fn rank(&self, id: &MemberId, beside: &[&MemberId]) -> Rank {
        let spec = &self.spec.members[id];
        let shares = |other: &&&MemberId| self.spec.members.get(**other).is_some_and(|other| other.zone == spec.zone);
        let crowd = if spec.zone.is_empty() { 0 } else { beside.iter().filter(shares).count() };
        (Reverse(spec.priority), crowd)
    }

    /// It was hot before `last`, the member that served last, and has not followed anyone since: what its data has beyond the others'
    /// was never acknowledged by those that went on, so its position cannot be compared with theirs.
    pub(crate) fn old_data(&self, id: &MemberId, last: Option<&MemberId>) -> bool {
        Some(id) != last && self.members.get(id).is_some_and(|m| m.away)
    }

    /// Among fit members that reported in `attempt`, the one whose data reaches farthest; why the others are not it.
    pub(crate) fn candidate_by_position(
        &self,
        attempt: Attempt,
        last: Option<&MemberId>,
        refused: &BTreeSet<MemberId>,
    ) -> (Option<MemberId>, Vec<(MemberId, Refusal)>) {
        let able = |id: &MemberId| self.unfit(id).is_none() && !refused.contains(id);
        // With acknowledgements, a member that cannot be chosen still counts for how far the data reaches: it is never passed over for
        // one behind it. Where nothing is promised, the best of those that are left will do.
        let counts = |id: &MemberId| self.spec.acks > 0 || able(id);
        let best = self.reports(attempt, last).filter(|(id, _)| counts(id)).map(|(_, p)| p).max();
        let (_, mut others) = self.candidate(Need::Dead, None, refused);
        others.retain(|(_, why)| !why.is_preference());
        let mut fit = Vec::new();
        for (id, member) in self.members.iter().filter(|(id, _)| able(id)) {
            match (member.position.filter(|(a, _)| *a == attempt), best) {
                _ if self.old_data(id, last) => others.push((id.clone(), Refusal::OldData)),
                (Some((_, position)), Some(best)) if position == best => {
                    fit.push((self.self_doubt(id), self.held_down_ms(member), self.rank(id, last.as_slice()), id.clone()));
                }
                (Some((_, position)), Some(best)) => others.push((id.clone(), Refusal::Behind { position, best })),
                _ => others.push((id.clone(), Refusal::NoPosition)),
            }
        }
        let chosen = pick(fit, &mut others);
        others.sort_by(|a, b| a.0.cmp(&b.0));
        (chosen, others)
    }

    /// Positions reported in `attempt` that can be compared.
    pub(crate) fn reports(&self, attempt: Attempt, last: Option<&MemberId>) -> impl Iterator<Item = (&MemberId, Position)> {
        let of_attempt = self.members.iter().filter_map(move |(id, m)| m.position.filter(|(a, _)| *a == attempt).map(|(_, p)| (id, p)));
        let old: BTreeSet<&MemberId> = self.members.keys().filter(|id| self.old_data(id, last)).collect();
        of_attempt.filter(move |(id, _)| !old.contains(id))
    }
}

/// A member that can become hot, and what is against it: its node doubts itself, how long it is held down, its rank.
type Fit = (Option<SelfDoubt>, u64, Rank, MemberId);

/// The most preferred is the least: its priority, and how crowded its zone is.
type Rank = (Reverse<i32>, usize);

/// The first by order; why the others are not it.
fn pick(mut fit: Vec<Fit>, others: &mut Vec<(MemberId, Refusal)>) -> Option<MemberId> {
    // Who stalls or stops may hold no lease to serve under; little room weighs less than that a member failed lately.
    let away = |fit: &Fit| fit.0.is_some_and(|doubt| doubt != SelfDoubt::LittleRoom);
    fit.sort_by(|a, b| (away(a), a.1, a.0.is_some(), &a.2, &a.3).cmp(&(away(b), b.1, b.0.is_some(), &b.2, &b.3)));
    let mut fit = fit.into_iter();
    let (best_doubts, .., best) = fit.next()?;
    let why = |doubt: Option<SelfDoubt>| match doubt {
        Some(why) if best_doubts.is_none() => Refusal::NodeDoubtsItself { why },
        _ => Refusal::Outranked,
    };
    others.extend(fit.map(|(doubt, .., id)| (id, why(doubt))));
    Some(best)
}
