//! One node's router: its table for each group, what is parked and what is in flight.
//!
//! It keeps the rules of the real one (S8): a group with one hot member is served only under the node's lease, by the node's own clock,
//! both when a request is admitted and when its reply is released; a member that new routes no longer name is fenced before any thread
//! has them; a new epoch cuts what is in flight.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hotwarm_core::ids::{Epoch, Mono};
use hotwarm_core::route::{RouteState, Routes};
use std::rc::Rc;

use crate::event::M;

/// Parked requests of one group, at most.
pub const PARKED_MAX: usize = 64;

/// One request of a client.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub id: u64,
    pub group: usize,
    pub born: u64,
    /// The router that has it, and that router's life.
    pub via: usize,
    pub life: u32,
    pub epoch: Epoch,
    /// Counts how often it was sent: an answer to an earlier attempt comes on a connection that was given up.
    pub attempt: u32,
    /// The entry that it became where it was executed.
    pub entry: u64,
    /// When its member answered.
    pub answered: u64,
    /// Whom it was sent to, and when.
    pub to: M,
    pub sent: u64,
}

/// One group in one router.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub routes: Option<Rc<Routes>>,
    pub targets: Vec<M>,
    /// The targets of the table that was given last. Those that it no longer names are fenced for all threads before any has it (S8).
    pub given: (Epoch, Vec<M>),
    /// When the last table that was given reaches the threads.
    pub switched_at: u64,
    pub parked: VecDeque<Request>,
    pub in_flight: BTreeMap<u64, Request>,
    pub suspects: BTreeSet<M>,
    /// The epoch for which it said that it has drained.
    pub drained: Option<Epoch>,
}

impl Table {
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.routes.as_ref().map_or(Epoch(0), |routes| routes.epoch)
    }

    #[must_use]
    pub fn exclusive(&self) -> bool {
        self.routes.as_ref().is_some_and(|routes| routes.exclusive)
    }

    #[must_use]
    pub fn is_open(&self) -> bool {
        self.routes.as_ref().is_some_and(|routes| matches!(routes.state, RouteState::Open(_)))
    }

    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.routes.as_ref().is_some_and(|routes| matches!(routes.state, RouteState::Draining(_)))
    }

    /// May a request of the group be admitted, or its reply released, now?
    #[must_use]
    pub fn allowed(&self, now: Mono, lease_until: Mono) -> bool {
        !self.exclusive() || now < lease_until
    }

    /// What was sent to this member for this epoch is over: nothing more may be sent there or released from there.
    #[must_use]
    pub fn is_fenced(&self, to: M, epoch: Epoch) -> bool {
        self.exclusive() && (self.given.0 != epoch || !self.given.1.contains(&to))
    }

    /// Takes the request out if this very attempt of it is still under way.
    pub fn take(&mut self, id: u64, attempt: u32) -> Option<Request> {
        self.in_flight.get(&id).is_some_and(|request| request.attempt == attempt).then(|| self.in_flight.remove(&id)).flatten()
    }

    pub fn park(&mut self, request: Request) {
        if self.parked.len() < PARKED_MAX {
            self.parked.push_back(request);
        }
    }
}
