//! Requests that wait for a hot member: bounded in time, count and bytes, released oldest first, at a pace a new member can stand.
//!
//! The counts are the group's, over all threads; the order is each thread's own. A request that waits must be watched: it dies with its
//! client (S20). The main path: [`Queue::join`] -> [`Queue::start`] on new routes -> `Seat::released`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::local::{LocalGroup, Seat};

/// How many released requests may be under way at first; each that comes through lets two more go.
const PACE_FIRST: usize = 16;
const LOOK_AGAIN: Duration = Duration::from_millis(25);

#[derive(Default)]
pub(super) struct Queue {
    waiting: RefCell<VecDeque<Rc<Seat>>>,
    under_way: Cell<usize>,
    pace: Cell<usize>,
    /// A later look at the queue is on its way.
    looking: Cell<bool>,
}

impl Queue {
    /// Puts a request at the end; `None` when the group's bounds are reached.
    pub(super) fn join(&self, group: &Rc<LocalGroup>, seat: &Rc<Seat>, bytes: usize) -> Option<Ticket> {
        let park = group.settings().park;
        let shared = &group.group;
        let ticket = Ticket { group: Rc::clone(group), seat: Rc::clone(seat), bytes: bytes as u64 };
        let before = shared.parked.fetch_add(1, Ordering::Relaxed);
        let bytes_before = shared.parked_bytes.fetch_add(ticket.bytes, Ordering::Relaxed);
        if before >= park.requests || bytes_before + ticket.bytes > park.bytes {
            return None;
        }
        group.counters.parked.add(1);
        self.recall(seat);
        self.waiting.borrow_mut().push_back(Rc::clone(seat));
        shared.say_drained(&*group.shared.events);
        Some(ticket)
    }

    /// A released request found no member after all: it no longer counts as under way.
    fn recall(&self, seat: &Seat) {
        if seat.released.replace(false) {
            self.under_way.set(self.under_way.get() - 1);
        }
    }

    /// True if others wait and a newcomer must join them rather than overtake.
    pub(super) fn is_ahead(&self, group: &LocalGroup) -> bool {
        let waiting = self.waiting.borrow().len();
        waiting > 0 && waiting < group.settings().park.requests
    }

    /// New routes: the pace starts again.
    pub(super) fn calm(&self) {
        self.pace.set(PACE_FIRST);
    }

    /// Lets the oldest go, as many as the pace allows.
    pub(super) fn start(&self, group: &LocalGroup) {
        if !group.may_release() {
            return;
        }
        while self.under_way.get() < self.pace.get().max(1) {
            let Some(seat) = self.waiting.borrow_mut().pop_front() else { return };
            self.under_way.set(self.under_way.get() + 1);
            seat.released.set(true);
            seat.waker.wake_by_ref();
        }
    }

    pub(super) fn settled(&self, group: &LocalGroup) {
        self.under_way.set(self.under_way.get() - 1);
        self.pace.set(self.pace.get().saturating_add(1));
        self.start(group);
    }
}

/// One request's place among those that wait; gives its share of the bounds back when dropped.
pub(super) struct Ticket {
    group: Rc<LocalGroup>,
    seat: Rc<Seat>,
    bytes: u64,
}

impl Ticket {
    /// Counts what the request holds by now; false when that is more than the group's bound allows.
    pub(super) fn holds(&mut self, bytes: usize) -> bool {
        let (before, shared) = (std::mem::replace(&mut self.bytes, bytes as u64), &self.group.group);
        if self.bytes <= before {
            shared.parked_bytes.fetch_sub(before - self.bytes, Ordering::Relaxed);
            return true;
        }
        let more = self.bytes - before;
        let bytes = shared.parked_bytes.fetch_add(more, Ordering::Relaxed) + more;
        shared.say_drained(&*self.group.shared.events);
        bytes <= self.group.settings().park.bytes
    }

    /// Released, but no member could be used after all: back to the front, as the oldest. Looked at again soon even if no news of a
    /// member comes, for it may have come while this request was under way.
    pub(super) fn wait_again(&self) {
        let queue = &self.group.queue;
        queue.recall(&self.seat);
        queue.waiting.borrow_mut().push_front(Rc::clone(&self.seat));
        if !queue.looking.replace(true) {
            let group = Rc::clone(&self.group);
            tokio::task::spawn_local(async move {
                tokio::time::sleep(LOOK_AGAIN).await;
                group.queue.looking.set(false);
                group.queue.start(&group);
            });
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.seat.released.get() {
            self.group.queue.waiting.borrow_mut().retain(|seat| !Rc::ptr_eq(seat, &self.seat));
        }
        self.group.group.parked.fetch_sub(1, Ordering::Relaxed);
        self.group.group.parked_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
