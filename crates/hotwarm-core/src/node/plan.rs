//! When this node must be woken next: at the first tick in which something is due. The ticks before it only count.
//!
//! It must never leave out a tick in which something is to be done: whatever changes that comes as an input, after which all is planned
//! anew. The main path: [`Node::next_deadline`], and `plan_ticks` after everything was worked out.

use super::Node;
use crate::ids::Mono;

/// However quiet it is: so many ticks, and no more, are left out in a row.
const IDLE_TICKS_MAX: u32 = 10;

impl Node {
    /// When [`Self::handle_deadline`] is to be called at the latest. An input may bring it nearer: ask again after each.
    #[must_use]
    pub fn next_deadline(&self) -> Mono {
        self.next_tick.plus(self.options.tick * self.idle_ticks)
    }

    /// Counts those ticks that have passed in which nothing was to be done.
    pub(super) fn count_idle_ticks(&mut self) {
        while self.idle_ticks > 0 && self.now >= self.next_tick {
            self.idle_ticks -= 1;
            self.next_tick = self.next_tick.plus(self.options.tick);
            if let Some(replica) = &mut self.replica {
                replica.tick(self.now);
            }
        }
    }

    /// Finds the first tick in which something is due.
    pub(super) fn plan_ticks(&mut self) {
        let counting = self.replica.as_ref().map_or(0, |replica| u32::try_from(replica.idle_ticks()).unwrap_or(IDLE_TICKS_MAX));
        let busy = !self.items.is_empty() || !self.commands.is_empty();
        let most = if busy { 0 } else { counting.min(IDLE_TICKS_MAX) };
        // A look finds nothing new while nothing is to be told again; only the end of the lease is no input.
        let leased_until = if self.observed.leased { self.holder.until() } else { Mono(u64::MAX) };
        let look = if self.restless { self.next_look } else { leased_until };
        let mut due = self.peers.next_beat().min(look);
        due = due.min(self.lead_due().unwrap_or(due)).min(self.members_due().unwrap_or(due));
        let tick = self.options.tick;
        self.idle_ticks = (0..most).take_while(|n| self.next_tick.plus(tick * *n) < due).count().try_into().unwrap_or(0);
    }
}
