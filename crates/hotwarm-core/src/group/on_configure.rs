//! A new configuration of the group. What would cut a serving member loose is refused as a whole (promise 6).

use std::net::SocketAddr;

use super::Step;
use super::spec::{GroupSpec, MemberSpec};
use super::state::{Group, Member, Phase};
use crate::ids::{MemberId, NodeId, Role};
use crate::route::slots::MEMBERS_MAX;

impl GroupSpec {
    /// Why no group can be so; a sentence for the operator. Files are checked before they come here: this is for whatever else writes one.
    #[must_use]
    pub fn impossible(&self) -> Option<String> {
        let (name, members) = (&self.name, self.members.len());
        if members > MEMBERS_MAX {
            return Some(format!("group {name} has {members} members; a router can hold {MEMBERS_MAX}: make several groups"));
        }
        let warm = usize::from(self.warm).min(members.saturating_sub(usize::from(self.hot)));
        if self.exclusive && usize::from(self.acks) > warm {
            let acks = self.acks;
            return Some(format!("group {name}: {acks} members are to acknowledge each write, {warm} are warm: ask fewer, or add members"));
        }
        if self.positions && members > usize::from(self.hot) + usize::from(self.warm) {
            return Some(format!("group {name} compares positions, and a spare has none: make it warm"));
        }
        None
    }
}

impl Group {
    /// Why this configuration cannot be applied now; a sentence for the operator.
    #[must_use]
    pub fn refuses(&self, spec: &GroupSpec) -> Option<String> {
        if let Some(why) = spec.impossible() {
            return Some(why);
        }
        if spec.exclusive != self.spec.exclusive && self.epoch.0 > 0 {
            return Some(format!("group {}: the mode cannot change between one and several hot members; make a new group", spec.name));
        }
        let moved = self.may_serve().find(|(id, _)| {
            let (old, new) = (self.spec.members.get(*id), spec.members.get(*id));
            spec.exclusive && new.is_none_or(|new| old.is_none_or(|old| old.node != new.node || old.address != new.address))
        });
        if let Some((id, _)) = moved {
            return Some(format!("{id} is hot and would be removed or moved; `hotwarm switchover {}` first", spec.name));
        }
        // Where all are fenced and nobody is fit, a member that is added may be the only way out.
        let chosen = matches!(self.transition.as_ref().map(|t| &t.phase), Some(Phase::Choosing { .. }));
        if self.transition.is_some() && !chosen && spec.members != self.spec.members {
            return Some(format!("group {}: a change of the hot member is under way; try again when it is over", spec.name));
        }
        if self.spec.exclusive && spec.fence != self.spec.fence && self.may_serve().next().is_some_and(|(id, _)| self.in_change(id)) {
            return Some(format!("group {}: the fence cannot change while the hot member is replaced or its node is lost", spec.name));
        }
        // S8: a router with an old view reaches whoever answers at the address of the member that was hot.
        let reached = self.members.iter().find(|(id, m)| {
            let (old, new) = (self.spec.members.get(*id), spec.members.get(*id));
            m.away && !self.stale_routers.is_empty() && new.map(place) != old.map(place)
        });
        if let Some((id, _)) = reached {
            return Some(format!("{id} was hot and not all routers have closed yet; try again in a moment"));
        }
        None
    }

    fn in_change(&self, id: &MemberId) -> bool {
        self.transition.is_some() || self.node_of(id).is_some_and(|node| self.node(node).lapsed)
    }
}

fn place(member: &MemberSpec) -> (&NodeId, SocketAddr) {
    (&member.node, member.address)
}

impl Step {
    pub(super) fn on_configure(&mut self, spec: &GroupSpec) {
        if self.group.refuses(spec).is_some() {
            return;
        }
        let group = &mut self.group;
        if spec.exclusive != group.spec.exclusive {
            group.closed = spec.exclusive;
            group.closed_epoch = group.epoch;
        }
        // A member that moves to another node is another one: nothing that is known of it holds there.
        let stays = |group: &Group, id: &MemberId| {
            let old = group.spec.members.get(id);
            spec.members.get(id).is_some_and(|new| old.is_some_and(|old| old.node == new.node))
        };
        let gone: Vec<MemberId> = group.members.keys().filter(|id| !stays(group, id)).cloned().collect();
        let served = gone.iter().any(|id| group.members.get(id).is_some_and(|m| m.serving));
        group.members.retain(|id, _| !gone.contains(id));
        self.forget_restart_of(&gone);
        let group = &mut self.group;
        group.spec = spec.clone();
        group.drained_routers.retain(|node, _| spec.routers.contains(node));
        let running = usize::from(spec.hot) + usize::from(spec.warm);
        for (rank, id) in group.by_priority().into_iter().enumerate() {
            let role = if rank < running { Role::Warm } else { Role::Spare };
            group.members.entry(id).or_insert_with(|| Member::new(role));
        }
        // One that is new may open at once; one that is configured away stays in the set until it says that it has closed (S8).
        if !group.closed && group.spec.exclusive {
            let new: Vec<_> = spec.routers.iter().filter(|n| !group.node(n).lapsed).cloned().collect();
            group.open_routers.extend(new);
        }
        if served {
            self.group.epoch = self.group.epoch.next();
            self.tell_open();
        }
    }
}
