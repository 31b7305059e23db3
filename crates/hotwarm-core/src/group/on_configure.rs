//! A new configuration of the group. What would cut a serving member loose is refused as a whole (promise 6).

use super::Step;
use super::spec::GroupSpec;
use super::state::{Group, Member};
use crate::ids::Role;

impl Group {
    /// Why this configuration cannot be applied now; a sentence for the operator.
    #[must_use]
    pub fn refuses(&self, spec: &GroupSpec) -> Option<String> {
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
        if self.transition.is_some() && spec.members != self.spec.members {
            return Some(format!("group {}: a change of the hot member is under way; try again when it is over", spec.name));
        }
        None
    }
}

impl Step {
    pub(super) fn on_configure(&mut self, spec: &GroupSpec) {
        if self.group.refuses(spec).is_some() {
            return;
        }
        let group = &mut self.group;
        let routers_gone: Vec<_> = group.spec.routers.iter().filter(|n| !spec.routers.contains(n)).cloned().collect();
        group.spec = spec.clone();
        group.members.retain(|id, _| spec.members.contains_key(id));
        let running = usize::from(spec.hot) + usize::from(spec.warm);
        for (rank, id) in group.by_priority().into_iter().enumerate() {
            let role = if rank < running { Role::Warm } else { Role::Spare };
            group.members.entry(id).or_insert_with(|| Member::new(role));
        }
        // A router that is configured away still has to close before a successor opens; one that is new may open at once.
        if !group.closed && group.spec.exclusive {
            group.stale_routers.extend(routers_gone);
            let new: Vec<_> = spec.routers.iter().filter(|n| !group.node(n).lapsed).cloned().collect();
            group.open_routers.extend(new);
        }
    }
}
