//! What is usual for a target: a histogram of its latencies that forgets, for quantiles and for the limit past which silence is odd.
//!
//! Fixed size (1 KiB), no allocation; a record costs a few instructions, the limit is ready when asked. It never learns from requests
//! that did not end. The main path: [`LatencyTracker::record`] per answer, [`LatencyTracker::limit`] per request.

use std::time::Duration;

use crate::ids::Mono;

/// Buckets per doubling: a quantile is told at most 12.5 % too high, never too low.
const STEPS: usize = 8;

/// Each bucket below this holds one microsecond.
const LINEAR: u64 = STEPS as u64;

/// 60 s fall into the 23rd doubling above the linear part.
const BUCKETS: usize = STEPS * 24;

/// Counts are halved after this time or so many records, whichever is first: what was seen counts half after 10 s, little after a minute.
const HALVE_EVERY: Duration = Duration::from_secs(10);
const HALVE_AT: u32 = 20_000 * ONE;

/// An answer's count at first: what is left of a single one after four halvings still tells something of a quiet target, and then nothing.
const ONE: u32 = 16;

/// The limit is derived anew after so many records.
const REFRESH: u32 = 32;

/// The latencies of one target.
#[derive(Clone, Debug)]
pub struct LatencyTracker {
    counts: [u32; BUCKETS],
    total: u32,
    halved_at: Mono,
    until_refresh: u32,
    p99: Option<Duration>,
}

impl LatencyTracker {
    #[must_use]
    pub const fn new(now: Mono) -> Self {
        Self { counts: [0; BUCKETS], total: 0, halved_at: now, until_refresh: 0, p99: None }
    }

    /// The target answered after `latency`; above 60 s counts as 60 s.
    pub fn record(&mut self, now: Mono, latency: Duration) {
        if self.total >= HALVE_AT || now.since(self.halved_at) >= HALVE_EVERY {
            self.halve(now);
        }
        self.counts[bucket(latency)] += ONE;
        self.total += ONE;
        // While there are few, each counts.
        if self.until_refresh == 0 || self.total < REFRESH * ONE {
            self.p99 = self.quantile(0.99);
            self.until_refresh = REFRESH;
        }
        self.until_refresh -= 1;
    }

    /// The latency that the share `q` of the answers did not exceed, rounded up to its bucket's end; `None` before the first answer.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let rank = (f64::from(self.total) * q.clamp(0.0, 1.0)).ceil().max(1.0) as u32;
        let mut seen = 0;
        self.counts
            .iter()
            .position(|count| {
                seen += count;
                seen >= rank
            })
            .map(bucket_end)
    }

    #[must_use]
    pub fn p50(&self) -> Option<Duration> {
        self.quantile(0.5)
    }

    /// As of the last few records at most.
    #[must_use]
    pub const fn p99(&self) -> Option<Duration> {
        self.p99
    }

    /// How long no byte may come before the target is probed: three times its p99, `floor` at least (50 ms by default), and `floor` while
    /// nothing is known: a probe too many harms nobody.
    #[must_use]
    pub fn limit(&self, floor: Duration) -> Duration {
        self.p99.map_or(floor, |p99| floor.max(p99 * 3))
    }

    /// Halves all counts, once for each period that passed.
    fn halve(&mut self, now: Mono) {
        let periods = now.since(self.halved_at).as_secs() / HALVE_EVERY.as_secs();
        let times = u32::try_from(periods).unwrap_or(u32::MAX).clamp(1, 31);
        self.total = 0;
        for count in &mut self.counts {
            *count >>= times;
            self.total += *count;
        }
        self.halved_at = now;
        self.until_refresh = 0;
    }
}

/// The number of the bucket: linear below [`LINEAR`] microseconds, then [`STEPS`] to a doubling.
fn bucket(latency: Duration) -> usize {
    let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).min(60_000_000);
    if us < LINEAR {
        return us as usize;
    }
    let doubling = us.ilog2() - LINEAR.ilog2();
    (doubling as usize) * STEPS + (us >> doubling) as usize
}

/// The longest latency that falls into the bucket.
fn bucket_end(bucket: usize) -> Duration {
    if bucket < STEPS {
        return Duration::from_micros(bucket as u64);
    }
    let doubling = bucket / STEPS - 1;
    Duration::from_micros(((STEPS + bucket % STEPS + 1) as u64) << doubling) - Duration::from_micros(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const FLOOR: Duration = Duration::from_millis(50);

    #[test]
    fn nothing_known_means_the_floor() {
        let tracker = LatencyTracker::new(Mono(0));
        assert_eq!((tracker.p50(), tracker.p99(), tracker.limit(FLOOR)), (None, None, FLOOR));
    }

    #[test]
    fn quantiles_are_told_at_most_an_eighth_too_high() {
        let mut tracker = LatencyTracker::new(Mono(0));
        (1..=1000).for_each(|k| tracker.record(Mono(k), MS * k as u32));
        for (told, true_ms) in
            [(tracker.p50(), 500), (tracker.quantile(0.99), 990), (tracker.quantile(1.0), 1000), (tracker.quantile(0.0), 1)]
        {
            let told = told.unwrap();
            assert!(told >= MS * true_ms && told <= MS * true_ms * 9 / 8, "{told:?} for {true_ms} ms");
        }
        let p99 = tracker.p99().unwrap();
        assert!(p99 >= MS * 940 && tracker.limit(FLOOR) == p99 * 3);
    }

    #[test]
    fn a_change_is_learned_in_a_minute_and_one_odd_answer_is_not_the_rule() {
        let mut tracker = LatencyTracker::new(Mono(0));
        let mut now = Mono(0);
        let mut run = |tracker: &mut LatencyTracker, seconds: u32, latency: Duration| {
            for _ in 0..seconds * 10 {
                now = now.plus(MS * 100);
                tracker.record(now, latency);
            }
        };
        run(&mut tracker, 60, MS * 100);
        assert!(tracker.limit(FLOOR) >= MS * 300);
        tracker.record(Mono(60_000_001), MS * 30_000);
        assert!(tracker.limit(FLOOR) < MS * 400);
        run(&mut tracker, 120, MS);
        assert_eq!(tracker.limit(FLOOR), FLOOR);
    }

    #[test]
    fn a_long_silence_forgets() {
        let mut tracker = LatencyTracker::new(Mono(0));
        (0..1000).for_each(|_| tracker.record(Mono(0), MS * 500));
        tracker.record(Mono(0).plus(Duration::from_secs(3600)), MS);
        assert!(tracker.total == ONE && tracker.p99() < Some(MS * 2), "{}", tracker.total);
    }

    #[test]
    fn many_records_do_not_overflow() {
        let mut tracker = LatencyTracker::new(Mono(0));
        (0..100_000).for_each(|_| tracker.record(Mono(0), Duration::MAX));
        assert!(tracker.total <= HALVE_AT && tracker.p99().unwrap() >= Duration::from_secs(60));
    }

    proptest! {
        #[test]
        fn each_latency_is_within_its_bucket(us in prop_oneof![0u64..100, 0u64..60_000_000]) {
            let latency = Duration::from_micros(us);
            let bucket = bucket(latency);
            prop_assert!(bucket < BUCKETS && bucket_end(bucket) >= latency && bucket_end(bucket) <= latency * 9 / 8);
            prop_assert!(bucket == 0 || bucket_end(bucket - 1) < latency);
        }
    }
}
