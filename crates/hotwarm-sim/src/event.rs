//! What is going to happen in the world, ordered by true time; what is due at the same moment happens in the order it was planned.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::rc::Rc;

use hotwarm_core::action::{EngineAction, MemberEvent};
use hotwarm_core::ids::Epoch;
use hotwarm_core::node::RouterEvent;
use hotwarm_core::route::Routes;

use crate::fault::Healing;
use crate::router::Request;

/// A node by its number in the plan.
pub type N = usize;
/// A member by its number in the plan.
pub type M = usize;

/// See [`Queue`].
#[derive(Clone, Debug)]
pub enum Event {
    /// A node's timer. `life` names the agent's life: events for an earlier one are void.
    Wake {
        n: N,
        life: u32,
    },
    Deliver {
        to: N,
        from: N,
        bytes: Rc<Vec<u8>>,
    },
    /// The other's agent refuses connections.
    Ended {
        to: N,
        of: N,
    },
    Persisted {
        n: N,
        life: u32,
        token: u64,
        through: u64,
    },
    DiskProbe {
        n: N,
        life: u32,
        ended: bool,
    },
    /// An engine tells its agent.
    Told {
        n: N,
        life: u32,
        m: M,
        event: MemberEvent,
    },
    /// An engine's work is done.
    Engine {
        n: N,
        life: u32,
        m: M,
        round: u64,
        action: EngineAction,
    },
    /// A guard looks at its deadline.
    Guard {
        m: M,
        incarnation: u64,
    },
    /// A probe looks at its member.
    Probe {
        n: N,
        life: u32,
        m: M,
        incarnation: u64,
        again: bool,
    },
    /// A member's program has started up.
    Up {
        m: M,
        incarnation: u64,
    },
    /// A member that was asked to end has ended.
    End {
        m: M,
        incarnation: u64,
        then: Option<u32>,
    },
    Router {
        n: N,
        life: u32,
        event: RouterEvent,
    },
    /// The router's threads have the new table.
    Switch {
        n: N,
        life: u32,
        routes: Rc<Routes>,
    },
    Client,
    /// A client that comes back as soon as its router does.
    ClientBack {
        n: N,
        life: u32,
        group: usize,
    },
    AtMember {
        request: Request,
        m: M,
    },
    AtRouter {
        n: N,
        life: u32,
        id: u64,
        attempt: u32,
        answered: Option<M>,
    },
    Refused {
        n: N,
        life: u32,
        id: u64,
        attempt: u32,
        m: M,
    },
    /// The router tries a member that it suspects.
    TryAgain {
        n: N,
        life: u32,
        m: M,
    },
    /// The hot member's log on its way to one that follows it: entries after `from`, which stands behind the entry `before`.
    Replicate {
        hot: M,
        to: M,
        epoch: Epoch,
        incarnation: u64,
        from: usize,
        before: u64,
        entries: Rc<Vec<u64>>,
    },
    Acked {
        hot: M,
        incarnation: u64,
        by: M,
        upto: usize,
        refused: bool,
    },
    ReplicateAgain {
        hot: M,
        incarnation: u64,
    },
    Fault(usize),
    Heal(Healing),
    /// Looks at the whole.
    Look,
}

#[derive(Debug)]
struct Item {
    at: u64,
    order: u64,
    event: Event,
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Item {}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// What is planned.
#[derive(Debug, Default)]
pub struct Queue {
    heap: BinaryHeap<Reverse<Item>>,
    order: u64,
}

impl Queue {
    pub fn push(&mut self, at: u64, event: Event) {
        self.order += 1;
        self.heap.push(Reverse(Item { at, order: self.order, event }));
    }

    /// The next event and its moment.
    pub fn pop(&mut self) -> Option<(u64, Event)> {
        self.heap.pop().map(|Reverse(item)| (item.at, item.event))
    }
}
