//! Promise 2: no acknowledged write is lost by a failover, where each waits for W of N others and the client came through a router.

use std::collections::BTreeSet;

use crate::event::M;
use crate::member::Member;
use crate::plan::Plan;
use crate::router::Request;

#[derive(Debug)]
pub(super) struct Acknowledged {
    /// Groups with acknowledgements.
    kept: Vec<bool>,
    writes: BTreeSet<u64>,
}

impl Acknowledged {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { kept: plan.groups.iter().map(|g| g.positions && g.acks > 0).collect(), writes: BTreeSet::new() }
    }

    pub(super) fn released(&mut self, request: &Request) {
        if self.kept[request.group] && request.entry > 0 {
            self.writes.insert(request.entry);
        }
    }

    /// A machine's loss of its directory is the loss of a copy: nothing is promised of what is older.
    pub(super) fn copy_lost(&mut self) {
        self.writes.clear();
    }

    pub(super) fn became_hot(&self, m: M, members: &[Member]) -> Option<String> {
        if !self.kept[members[m].group] || self.writes.is_empty() {
            return None;
        }
        let has: BTreeSet<u64> = members[m].data.log.iter().copied().collect();
        let lost = self.writes.iter().filter(|write| !has.contains(write)).count();
        (lost > 0).then(|| format!("{} became hot without {lost} acknowledged writes", members[m].id))
    }
}
