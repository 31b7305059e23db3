//! Bounds on what a router adds to a failure: retries to the targets, testimony to the group.
//!
//! Neither ever waits; a bound that is reached is an answer. The main path: [`RetryBudget::arrived`] for each request,
//! [`RetryBudget::grant`] for each ejection, [`RetryBudget::take`] before each retry; [`TestimonyLimit::allows`] before each testimony.
//!
//! A share of the requests alone would fail what this program is for: when one of three members dies, a third of all requests must be
//! repeated within a millisecond, and that is no storm, since each is repeated once on those that live. So a dead member brings the
//! retries of what was in flight at it; what fails for other reasons stays within the share.

use std::time::Duration;

use super::outlier::Evidence;
use crate::ids::Mono;

/// Requests and retries are remembered for as many seconds.
const WINDOW_SECONDS: usize = 10;

/// One retry for so many requests: 20 %.
const REQUESTS_PER_RETRY: u64 = 5;

/// Retries per second that are always allowed: for a quiet group a share of nothing is nothing.
const FLOOR_PER_SECOND: u64 = 10;

/// How many retries one group may make in one router thread, over a sliding window of 10 s.
#[derive(Clone, Debug, Default)]
pub struct RetryBudget {
    seconds: [Second; WINDOW_SECONDS],
    now_s: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    requests: u64,
    granted: u64,
    retries: u64,
}

impl RetryBudget {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A request came in.
    pub fn arrived(&mut self, now: Mono) {
        self.second(now).requests += 1;
    }

    /// A target was ejected with so many requests in flight: each may be repeated, within the window.
    pub fn grant(&mut self, now: Mono, in_flight: u32) {
        self.second(now).granted += u64::from(in_flight);
    }

    /// Takes one retry if there is one left.
    pub fn take(&mut self, now: Mono) -> bool {
        let left = self.left(now) > 0;
        self.second(now).retries += u64::from(left);
        left
    }

    /// Retries left now.
    pub fn left(&mut self, now: Mono) -> u64 {
        self.second(now);
        let sum = |count: fn(&Second) -> u64| self.seconds.iter().map(count).sum::<u64>();
        let allowed =
            sum(|second| second.requests) / REQUESTS_PER_RETRY + sum(|second| second.granted) + FLOOR_PER_SECOND * WINDOW_SECONDS as u64;
        allowed.saturating_sub(sum(|second| second.retries))
    }

    /// The count of the present second; what is older than the window is forgotten.
    fn second(&mut self, now: Mono) -> &mut Second {
        let now_s = (now.0 / 1_000_000).max(self.now_s);
        let passed = usize::try_from(now_s - self.now_s).unwrap_or(usize::MAX).min(WINDOW_SECONDS);
        for k in 0..passed {
            self.seconds[(now_s as usize - k) % WINDOW_SECONDS] = Second::default();
        }
        self.now_s = now_s;
        &mut self.seconds[now_s as usize % WINDOW_SECONDS]
    }
}

/// Says the same about the same target once per interval, however many requests show it.
#[derive(Clone, Debug)]
pub struct TestimonyLimit {
    every: Duration,
    last: Vec<Option<(Evidence, Mono)>>,
}

impl TestimonyLimit {
    /// `every`: at least so long between two testimonies of the same kind about one target.
    #[must_use]
    pub const fn new(every: Duration) -> Self {
        Self { every, last: Vec::new() }
    }

    /// Whether to testify now. Other evidence than the last is told at once if it says more (a refused connection after an error), and
    /// waits its turn if it says less.
    pub fn allows(&mut self, slot: usize, now: Mono, evidence: Evidence) -> bool {
        if slot >= self.last.len() {
            self.last.resize(slot + 1, None);
        }
        let told = self.last[slot].is_some_and(|(last, at)| now.since(at) < self.every && last <= evidence);
        if !told {
            self.last[slot] = Some((evidence, now));
        }
        !told
    }

    /// The slot has a new target.
    pub fn forget(&mut self, slot: usize) {
        if let Some(last) = self.last.get_mut(slot) {
            *last = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono(ms * 1000)
    }

    fn take_all(budget: &mut RetryBudget, now: Mono) -> usize {
        (0..100_000).take_while(|_| budget.take(now)).count()
    }

    #[test]
    fn a_quiet_group_has_the_floor_and_a_busy_one_its_share() {
        let mut budget = RetryBudget::new();
        assert_eq!(take_all(&mut budget, at(500)), 100);
        assert_eq!(take_all(&mut budget, at(9_999)), 0);
        assert_eq!(take_all(&mut budget, at(10_500)), 100, "what was taken is forgotten after the window");
        (0..1000).for_each(|_| budget.arrived(at(10_600)));
        assert_eq!(take_all(&mut budget, at(10_700)), 200);
        assert_eq!(take_all(&mut budget, at(60_000)), 100);
    }

    #[test]
    fn a_dead_member_brings_the_retries_of_what_was_in_flight() {
        let mut budget = RetryBudget::new();
        take_all(&mut budget, at(500));
        budget.grant(at(600), 3000);
        assert_eq!(take_all(&mut budget, at(600)), 3000);
        budget.grant(at(700), 5);
        assert_eq!(budget.left(at(700)), 5);
        assert_eq!(budget.left(at(10_700)), 100, "grants expire with the window");
    }

    #[test]
    fn time_that_goes_back_changes_nothing() {
        let mut budget = RetryBudget::new();
        take_all(&mut budget, at(20_000));
        assert!(!budget.take(at(5_000)));
        assert_eq!(budget.left(at(20_000)), 0);
    }

    #[test]
    fn the_same_is_told_once_and_worse_at_once() {
        let mut limit = TestimonyLimit::new(Duration::from_secs(1));
        assert!(limit.allows(3, at(0), Evidence::ServerError));
        assert!(!limit.allows(3, at(999), Evidence::ServerError));
        assert!(limit.allows(3, at(999), Evidence::Refused));
        assert!(!limit.allows(3, at(999), Evidence::ServerError));
        assert!(limit.allows(0, at(999), Evidence::ServerError));
        assert!(limit.allows(3, at(1_999), Evidence::ServerError));
        limit.forget(3);
        assert!(limit.allows(3, at(1_999), Evidence::ServerError));
    }
}
