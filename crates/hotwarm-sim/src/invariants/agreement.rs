//! Nodes that have applied the same index have the same state.

use std::collections::BTreeMap;

use hotwarm_core::cluster::Cluster;
use hotwarm_core::group::invariants;
use hotwarm_core::ids::Index;

use crate::event::N;

/// States remembered, at most: those of the newest indexes.
const MAX: usize = 512;

#[derive(Debug, Default)]
pub(super) struct Agreement {
    states: BTreeMap<Index, (u32, N)>,
}

impl Agreement {
    pub(super) fn applied(&mut self, n: N, index: Index, cluster: &Cluster) -> Option<String> {
        if let Some(broken) = cluster.groups.values().find_map(invariants::check) {
            return Some(broken);
        }
        let hash = crc32c::crc32c(&cluster.encode());
        let (known, other) = *self.states.entry(index).or_insert((hash, n));
        if self.states.len() > MAX {
            self.states.pop_first();
        }
        (known != hash).then(|| format!("nodes {n} and {other} differ at index {index}"))
    }
}
