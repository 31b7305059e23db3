//! S22: at most one member of a group that allows one serves at any instant of true time, whatever the epochs.
//!
//! Serving is a reply that a router released; for members with state also an execution in the hot role, and holding that role at all.

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
        Self { exclusive, released: vec![Last::default(); groups], executed: vec![Last::default(); groups] }
    }

    pub(super) fn released(&mut self, _now: u64, m: M, request: &Request) -> Option<String> {
        if !self.exclusive[request.group] {
            return None;
        }
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
