//! S9: a live hot member is fenced only if another can take over. S10: nobody is promoted during a pause.
//!
//! Both are seen between two states that one entry lies between.

use std::collections::BTreeMap;

use hotwarm_core::cluster::Cluster;
use hotwarm_core::group::Group;
use hotwarm_core::group::state::{Life, Pause};
use hotwarm_core::ids::{Epoch, GroupName, Index, MemberId};

use crate::event::N;

/// What of a group's state it takes.
#[derive(Clone, Debug)]
struct Seen {
    paused: bool,
    epoch: Epoch,
    /// The hot member, if it runs and its node has its lease, and nothing is under way.
    lives: Option<MemberId>,
    /// Another could serve.
    successor: bool,
}

#[derive(Debug)]
pub(super) struct Reasonable {
    last: Vec<(Index, BTreeMap<GroupName, Seen>)>,
}

impl Reasonable {
    pub(super) fn new(nodes: usize) -> Self {
        Self { last: vec![(Index(0), BTreeMap::new()); nodes] }
    }

    pub(super) fn applied(&mut self, n: N, index: Index, cluster: &Cluster) -> Option<String> {
        let groups = cluster.groups.iter().filter(|(_, group)| group.spec.exclusive);
        let now: BTreeMap<GroupName, Seen> = groups.map(|(name, group)| (name.clone(), seen(group))).collect();
        let (at, before) = std::mem::replace(&mut self.last[n], (index, now));
        if at.next() != index {
            return None;
        }
        let now = &self.last[n].1;
        before.iter().find_map(|(name, before)| {
            let (group, now) = (cluster.groups.get(name)?, now.get(name)?);
            if before.paused && now.paused && now.epoch > before.epoch {
                return Some(format!("S10: {name} went from epoch {} to {} during a pause", before.epoch, now.epoch));
            }
            let hot = before.lives.as_ref().filter(|_| !before.successor && !now.successor)?;
            let transition = group.transition.as_ref().filter(|t| !t.planned && t.from.as_ref() == Some(hot))?;
            let lives = may_live(group, hot) && group.members[hot].may_serve.is_some();
            lives.then(|| format!("S9: {hot} lives and is replaced, though nobody else could serve: {}", transition.why))
        })
    }
}

fn may_live(group: &Group, id: &MemberId) -> bool {
    let member = &group.members[id];
    member.life == Life::Running && group.node_of(id).is_some_and(|node| !group.node(node).lapsed)
}

fn seen(group: &Group) -> Seen {
    let hot = group.hot().filter(|_| group.transition.is_none()).filter(|hot| may_live(group, hot));
    let successor = group.members.keys().any(|id| Some(id) != group.hot() && group.unfit(id).is_none());
    Seen { paused: group.pause == Pause::Paused, epoch: group.epoch, lives: hot.cloned(), successor }
}
