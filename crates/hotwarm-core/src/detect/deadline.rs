//! Suspicion by a fixed limit of silence: for what has no rhythm to learn, with the methods of [`PhiAccrual`](super::PhiAccrual).
//!
//! It never learns and never acts. The main path: `arrived`, then `suspect_at` as the node's deadline.

use std::time::Duration;

use crate::ids::Mono;

/// When something was last heard, and how long its silence may be.
#[derive(Clone, Debug)]
pub struct Deadline {
    limit: Duration,
    last: Mono,
}

impl Deadline {
    /// Counts silence from `now`; a threshold of 1 is `limit`.
    #[must_use]
    pub const fn new(now: Mono, limit: Duration) -> Self {
        Self { limit, last: now }
    }

    /// Something was heard.
    pub fn arrived(&mut self, now: Mono) {
        self.last = self.last.max(now);
    }

    /// The silence in units of the limit.
    #[must_use]
    pub fn phi(&self, now: Mono) -> f64 {
        now.since(self.last).as_secs_f64() / self.limit.as_secs_f64().max(1e-6)
    }

    /// Whether the silence has reached `threshold` limits.
    #[must_use]
    pub fn suspect(&self, now: Mono, threshold: f64) -> bool {
        now >= self.suspect_at(threshold)
    }

    /// The moment at which the silence reaches `threshold` limits if nothing is heard before.
    #[must_use]
    pub fn suspect_at(&self, threshold: f64) -> Mono {
        let silence_us = (self.limit.as_micros() as f64 * threshold.max(0.0)).ceil();
        self.last.plus(Duration::from_micros(silence_us as u64))
    }

    /// This node itself did not run for `by`: that much of the silence is ours.
    pub fn stalled(&mut self, by: Duration) {
        self.last = self.last.plus(by);
    }

    /// The moment from which silence is counted.
    #[must_use]
    pub const fn last(&self) -> Mono {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_up_to_the_limit_is_no_suspicion() {
        let mut deadline = Deadline::new(Mono(0), Duration::from_millis(500));
        deadline.arrived(Mono(1_000));
        deadline.arrived(Mono(400));
        assert_eq!(deadline.suspect_at(1.0), Mono(501_000));
        assert!(!deadline.suspect(Mono(500_999), 1.0) && deadline.suspect(Mono(501_000), 1.0));
        assert!(!deadline.suspect(Mono(501_000), 2.0), "a node that doubts itself waits longer");
        deadline.stalled(Duration::from_millis(100));
        assert_eq!(deadline.suspect_at(1.0), Mono(601_000));
    }
}
