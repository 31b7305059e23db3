//! S10: a group with several hot members goes on without a quorum: no router is emptied while nothing new is decided.

use hotwarm_core::ids::Epoch;
use hotwarm_core::route::{RouteState, Routes};

use crate::event::N;
use crate::plan::Plan;

#[derive(Debug)]
pub(super) struct FailStatic {
    exclusive: Vec<bool>,
    /// The epoch that each router of each group was open for.
    open: Vec<Vec<Option<Epoch>>>,
}

impl FailStatic {
    pub(super) fn new(plan: &Plan) -> Self {
        let exclusive: Vec<bool> = plan.groups.iter().map(|g| g.exclusive).collect();
        Self { open: vec![vec![None; exclusive.len()]; plan.names.len()], exclusive }
    }

    pub(super) fn ended(&mut self, n: N) {
        self.open[n].fill(None);
    }

    pub(super) fn switched(&mut self, _now: u64, n: N, group: usize, routes: &Routes) -> Option<String> {
        if self.exclusive[group] {
            return None;
        }
        let before = self.open[n][group];
        self.open[n][group] = matches!(routes.state, RouteState::Open(_)).then_some(routes.epoch);
        // The same epoch means that the log decided nothing in between.
        let emptied = routes.state == RouteState::Held && before == Some(routes.epoch);
        emptied.then(|| format!("router {n} holds group {} in the epoch {} that it was open for", routes.group, routes.epoch))
    }
}
