//! One timer per connection, re-armed lazily: moving its due time later costs a store, so a request costs no timer operation.
//!
//! It must never fire late; firing early is hidden here. The main path: `set`, then `poll` beside the sockets.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hotwarm_core::ids::Mono;
use tokio::time::{Instant, Sleep};

use crate::clock;

/// Farther than any wait of the router.
const NEVER: Duration = Duration::from_secs(86_400);

pub(super) struct Alarm {
    sleep: Pin<Box<Sleep>>,
    /// When the timer underneath fires; at or before `due`.
    armed: Mono,
    due: Mono,
}

impl Alarm {
    pub(super) fn new(now: Mono) -> Self {
        let at = now.plus(NEVER);
        Self { sleep: Box::pin(tokio::time::sleep(NEVER)), armed: at, due: at }
    }

    /// Fires at `due`, and no longer at the time set before.
    pub(super) fn set(&mut self, now: Mono, due: Mono) {
        self.due = due;
        if due < self.armed {
            self.sleep.as_mut().reset(Instant::now() + due.since(now));
            self.armed = due;
        }
    }

    /// Ready once the due time has come; it then stays ready until `set`.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Mono> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let now = clock::now();
            if now >= self.due {
                // Re-armed by the next `set`: whatever is set next is earlier than never.
                self.armed = Mono(u64::MAX);
                return Poll::Ready(now);
            }
            self.sleep.as_mut().reset(Instant::now() + self.due.since(now));
            self.armed = self.due;
        }
    }
}
