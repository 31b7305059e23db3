//! S1: a holder's lease grows only by a grant whose index its node has applied.

use std::collections::BTreeSet;

use hotwarm_core::ids::Index;
use hotwarm_core::node::Message;
use hotwarm_core::node::message::VERSION;

use crate::event::N;

/// How a grant begins on the wire: the version, then the number of its kind; and a message that is passed on.
const GRANT: [u8; 2] = [VERSION, 2];
const RELAY: [u8; 2] = [VERSION, 6];

#[derive(Debug)]
pub(super) struct Grants {
    /// Of each node: the indexes of grants that came and cannot have counted yet.
    came: Vec<BTreeSet<Index>>,
    /// It led, and what it granted to itself then may count later than its leadership lasts.
    led: Vec<bool>,
}

impl Grants {
    pub(super) fn new(nodes: usize) -> Self {
        Self { came: vec![BTreeSet::new(); nodes], led: vec![false; nodes] }
    }

    pub(super) fn ended(&mut self, n: N) {
        self.came[n].clear();
        self.led[n] = false;
    }

    pub(super) fn delivered(&mut self, n: N, bytes: &[u8]) {
        if !bytes.starts_with(&GRANT) && !bytes.starts_with(&RELAY) {
            return;
        }
        match Message::decode(bytes) {
            Ok((_, Message::Grant { index, .. })) => {
                self.came[n].insert(index);
            }
            Ok((_, Message::Relay { bytes, .. })) => self.delivered(n, &bytes),
            _ => {}
        }
    }

    pub(super) fn leads(&mut self, n: N) {
        self.led[n] = true;
    }

    /// The lease grew. A leader grants to itself, without a message.
    pub(super) fn grew(&mut self, n: N, applied: Index, leads: bool) -> Option<String> {
        let later = self.came[n].split_off(&applied.next());
        let counted = std::mem::replace(&mut self.came[n], later);
        // A grant of a later leader that has counted: all that this one granted to itself was before it.
        self.led[n] &= leads || counted.is_empty();
        let waits = self.came[n].first().filter(|_| counted.is_empty() && !leads && !self.led[n]);
        waits.map(|index| format!("node {n} counts a grant of index {index} with {applied} applied"))
    }
}

#[cfg(test)]
mod tests {
    use hotwarm_core::ids::Session;

    use super::*;

    #[test]
    fn a_grant_is_known_by_its_first_bytes() {
        let grant = Message::Grant { number: 3, session: Session(1), index: Index(9) }.encode(77);
        assert!(grant.starts_with(&GRANT));
        let relay = Message::Relay { from: "a".into(), to: "b".into(), bytes: grant };
        assert!(relay.encode(77).starts_with(&RELAY));
        let mut grants = Grants::new(1);
        grants.delivered(0, &relay.encode(77));
        assert!(grants.grew(0, Index(8), false).is_some());
    }
}
