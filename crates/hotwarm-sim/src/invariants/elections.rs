//! Election safety: one leader a term.

use std::collections::BTreeMap;

use hotwarm_core::consensus::{Leadership, ReplicaRole};
use hotwarm_core::ids::RaftId;

#[derive(Debug, Default)]
pub(super) struct Elections {
    leaders: BTreeMap<u64, RaftId>,
}

impl Elections {
    pub(super) fn observe(&mut self, id: RaftId, leadership: Leadership) -> Option<String> {
        if leadership.role != ReplicaRole::Leader {
            return None;
        }
        let known = *self.leaders.entry(leadership.term).or_insert(id);
        (known != id).then(|| format!("replicas {known} and {id} lead term {}", leadership.term))
    }
}
