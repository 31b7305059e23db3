//! S4: what is told late of an older life changes nothing: incarnations, sessions and epochs in the state never go back.

use std::collections::BTreeMap;

use hotwarm_core::cluster::Cluster;
use hotwarm_core::ids::{Epoch, GroupName, Incarnation, Index, MemberId, NodeId, Session};

#[derive(Debug, Default)]
pub(super) struct Lives {
    newest: Index,
    members: BTreeMap<MemberId, Incarnation>,
    nodes: BTreeMap<NodeId, Session>,
    groups: BTreeMap<GroupName, Epoch>,
}

impl Lives {
    /// Looks at states in the order of the log only.
    pub(super) fn applied(&mut self, index: Index, cluster: &Cluster) -> Option<String> {
        if index <= self.newest {
            return None;
        }
        self.newest = index;
        for (name, group) in &cluster.groups {
            if back(&mut self.groups, name, group.epoch) {
                return Some(format!("the epoch of {name} went back to {}", group.epoch));
            }
            for (id, member) in &group.members {
                if back(&mut self.members, id, member.incarnation) {
                    return Some(format!("{id} went back to life {}", member.incarnation));
                }
            }
        }
        let node = cluster.nodes.iter().find(|(name, node)| back(&mut self.nodes, name, node.session));
        node.map(|(name, node)| format!("node {name} went back to session {}", node.session))
    }
}

/// Remembers the newest; true if this one is older.
fn back<K: Ord + Clone, V: Ord + Copy>(known: &mut BTreeMap<K, V>, key: &K, value: V) -> bool {
    match known.get_mut(key) {
        Some(newest) if value < *newest => true,
        Some(newest) => {
            *newest = value;
            false
        }
        None => {
            known.insert(key.clone(), value);
            false
        }
    }
}
