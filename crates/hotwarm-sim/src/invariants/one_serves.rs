//! S22: at most one member of a group that allows one serves at any instant of true time, whatever the epochs.
//!
//! Serving is a reply that a router released; for members with state also an execution in the hot role, and holding that role at all. It is
//! served when it leaves its member: a router that stood still may have the reply of a member that has stopped since, and what that said
//! while nobody else served is no less true for coming late (S8).

use std::collections::BTreeMap;

use hotwarm_core::ids::{Epoch, Role};

use crate::event::M;
use crate::machine::{Machine, Paused};
use crate::member::Member;
use crate::plan::Plan;
use crate::router::Request;

#[derive(Clone, Copy, Debug, Default)]
struct Last {
    epoch: Epoch,
    member: Option<M>,
}

#[derive(Debug)]
pub(super) struct OneServes {
    exclusive: Vec<bool>,
    released: Vec<Last>,
    /// When the first reply of each epoch was released.
    first: Vec<BTreeMap<Epoch, u64>>,
    executed: Vec<Last>,
}

impl Last {
    /// What is wrong with `m` serving for `epoch` after all that was before.
    fn serves(&mut self, m: M, epoch: Epoch, how: &str) -> Option<String> {
        let last = *self;
        if epoch > last.epoch {
            *self = Self { epoch, member: Some(m) };
            return None;
        }
        let same = epoch == last.epoch && last.member == Some(m);
        (!same).then(|| format!("member {m} {how} for epoch {epoch} after member {:?} did for epoch {}", last.member, last.epoch))
    }
}

impl OneServes {
    pub(super) fn new(plan: &Plan) -> Self {
        let groups = plan.groups.len();
        let exclusive = plan.groups.iter().map(|g| g.exclusive).collect();
        let (released, executed) = (vec![Last::default(); groups], vec![Last::default(); groups]);
        Self { exclusive, released, first: vec![BTreeMap::new(); groups], executed }
    }

    pub(super) fn released(&mut self, now: u64, m: M, request: &Request) -> Option<String> {
        if !self.exclusive[request.group] {
            return None;
        }
        let first = &mut self.first[request.group];
        let next = first.range(request.epoch.next()..).map(|(_, at)| *at).min();
        if next.is_some_and(|next| request.answered < next) {
            return None;
        }
        first.entry(request.epoch).or_insert(now);
        self.released[request.group].serves(m, request.epoch, "answered")
    }

    pub(super) fn executed(&mut self, m: M, group: usize, epoch: Epoch) -> Option<String> {
        if !self.exclusive[group] {
            return None;
        }
        self.executed[group].serves(m, epoch, "executed")
    }

    /// Nobody else has the hot role and runs. A machine that stands still executes nothing; its guard is first when it goes on.
    pub(super) fn became_hot(&self, now: u64, m: M, epoch: Epoch, members: &[Member], machines: &[Machine]) -> Option<String> {
        let group = members[m].group;
        if !self.exclusive[group] || !members[m].stateful {
            return None;
        }
        let other = members.iter().enumerate().find(|(o, other)| {
            let machine = &machines[other.node];
            let hot = other.program.as_ref().filter(|p| p.role == Role::Hot);
            *o != m
                && other.group == group
                && machine.paused != Paused::Machine
                && hot.is_some_and(|p| p.deadline.is_none_or(|until| machine.clock.at(now) < until))
        });
        other.map(|(_, other)| format!("{} is hot for epoch {epoch} while {} still is for {}", members[m].id, other.id, other.told.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_reply_serves_when_it_left_its_member() {
        let mut rule =
            OneServes { exclusive: vec![true], released: vec![Last::default()], first: vec![BTreeMap::new()], executed: Vec::new() };
        let reply = |epoch, answered| Request {
            id: 0,
            group: 0,
            born: 0,
            via: 0,
            life: 0,
            epoch: Epoch(epoch),
            attempt: 0,
            entry: 0,
            answered,
            to: 0,
            sent: 0,
        };
        assert_eq!(rule.released(10, 1, &reply(1, 9)), None);
        assert_eq!(rule.released(20, 2, &reply(3, 19)), None);
        assert_eq!(rule.released(30, 1, &reply(1, 18)), None, "it was said before the other served");
        assert!(rule.released(30, 1, &reply(1, 21)).is_some(), "it was said while the other served");
        assert!(rule.released(30, 1, &reply(1, u64::MAX)).is_some(), "nobody knows when it was said");
        assert!(rule.released(30, 1, &reply(3, 29)).is_some(), "two of one epoch");
        assert_eq!(rule.released(40, 2, &reply(3, 39)), None);
    }
}
