//! What a change of the hot member cost this node's clients: requests that parked and failed while its router admitted none.
//!
//! It must never decide anything, nor cost anything per request: it compares counters that are there, at the end of an epoch and at the
//! beginning of the next. Main path: [`Tolls::before`].

use std::collections::BTreeMap;

use hotwarm_core::ids::{Epoch, GroupName, NodeId};
use hotwarm_core::route::{RouteState, Routes};

use crate::router::Toll;

/// The kind of the event, which programs compare.
pub(super) const KIND: &str = "here-parked";

/// Groups that admit nothing here now: since which epoch's end, and what was counted then.
#[derive(Debug, Default)]
pub(super) struct Tolls {
    since: BTreeMap<GroupName, (Epoch, Toll)>,
}

impl Tolls {
    /// Its listener is closed; what the next one counts begins anew.
    pub(super) fn forget(&mut self, group: &GroupName) {
        self.since.remove(group);
    }

    /// To be called before `routes` are put into force. What is to be told, if they end a time in which requests parked or failed.
    pub(super) fn before(&mut self, routes: &Routes, now: Toll, node: &NodeId) -> Option<String> {
        if !matches!(routes.state, RouteState::Open(_)) {
            self.since.entry(routes.group.clone()).or_insert((routes.epoch, now));
            return None;
        }
        let (epoch, then) = self.since.remove(&routes.group)?;
        // Those that waited already, because the member could not be reached, belong to it.
        let parked = now.parked.saturating_sub(then.parked) + then.waiting;
        let failed = now.failed.saturating_sub(then.failed);
        let when = match routes.epoch {
            next if next == epoch => format!("while epoch {epoch} drained, which goes on"),
            next => format!("between the end of epoch {epoch} and the beginning of epoch {next}"),
        };
        (parked + failed > 0).then(|| format!("the router of {node}: {parked} requests parked and {failed} failed {when}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(epoch: u64, state: RouteState) -> Routes {
        Routes { group: "web".into(), epoch: Epoch(epoch), exclusive: true, state }
    }

    #[test]
    fn what_parked_and_failed_is_told_once_when_the_next_epoch_begins() {
        let (mut tolls, node) = (Tolls::default(), NodeId::new("n"));
        let toll = |parked, waiting, failed| Toll { parked, waiting, failed };
        let mut before = |epoch, state, toll| tolls.before(&routes(epoch, state), toll, &node);
        let open = || RouteState::Open(Vec::new());
        assert_eq!(before(1, open(), toll(7, 0, 7)), None, "what was before it saw an end");
        assert_eq!(before(1, RouteState::Draining(Vec::new()), toll(10, 2, 5)), None);
        assert_eq!(before(1, RouteState::Held, toll(11, 3, 5)), None, "the same time goes on");
        let told = before(2, open(), toll(13, 4, 6)).unwrap();
        assert_eq!(told, "the router of n: 5 requests parked and 1 failed between the end of epoch 1 and the beginning of epoch 2");
        assert_eq!(before(2, open(), toll(20, 0, 9)), None, "an epoch that goes on");
        assert_eq!(before(2, RouteState::Draining(Vec::new()), toll(20, 0, 9)), None);
        let told = before(2, open(), toll(21, 0, 9)).unwrap();
        assert_eq!(told, "the router of n: 1 requests parked and 0 failed while epoch 2 drained, which goes on");
        assert_eq!(before(2, RouteState::Held, toll(20, 0, 9)), None);
        assert_eq!(before(3, open(), toll(20, 0, 9)), None, "nobody was harmed");
        assert_eq!(before(3, RouteState::Held, toll(20, 1, 9)), None);
        tolls.forget(&"web".into());
        assert_eq!(tolls.before(&routes(4, open()), toll(0, 0, 0), &node), None, "its listener was closed in between");
    }
}
