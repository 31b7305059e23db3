//! When to probe next: slowly what is idle, fast what is in doubt, and never all at the same moment.
//!
//! It never goes over the user's `every`: that is an upper bound, jitter included. The main path enters at [`Pacer::next`].

use std::time::Duration;

use crate::ids::Mono;
use crate::rng::Rng;

/// Below this a probe costs more than it tells.
const FASTEST: Duration = Duration::from_millis(20);

/// How much depends on the next result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Nothing is sent to it (warm, or without traffic): each `every`.
    Idle,
    /// It serves: twice as often.
    Steady,
    /// Its last result or live traffic speaks against it, or it is starting: ten times as often, each 20 ms at the most.
    Doubtful,
}

/// The schedule of one prober.
#[derive(Clone, Debug)]
pub struct Pacer {
    every: Duration,
    rng: Rng,
    begun: bool,
}

impl Pacer {
    /// `every` bounds the time between two probes from above.
    #[must_use]
    pub const fn new(every: Duration, rng: Rng) -> Self {
        Self { every, rng, begun: false }
    }

    /// The time between two probes at this pace, before jitter.
    #[must_use]
    pub fn interval(&self, pace: Pace) -> Duration {
        match pace {
            Pace::Idle => self.every,
            Pace::Steady => (self.every / 2).max(FASTEST).min(self.every),
            Pace::Doubtful => (self.every / 10).max(FASTEST).min(self.every),
        }
    }

    /// The moment of the next probe after one at `now`. The first is anywhere within one interval, so that probers that start together
    /// do not probe together; later ones keep apart by a tenth of jitter. When the pace changes, take the earlier of the old moment and
    /// the new one.
    pub fn next(&mut self, now: Mono, pace: Pace) -> Mono {
        let interval_us = u64::try_from(self.interval(pace).as_micros()).unwrap_or(u64::MAX);
        let least_us = if self.begun { interval_us - interval_us / 10 } else { 0 };
        self.begun = true;
        now.plus(Duration::from_micros(self.rng.between(least_us, interval_us)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(1);
    const NOW: Mono = Mono(5_000_000);

    #[test]
    fn every_is_an_upper_bound_and_doubt_is_faster() {
        let mut pacer = Pacer::new(EVERY, Rng::new(1));
        pacer.next(NOW, Pace::Idle);
        for _ in 0..1000 {
            let idle = pacer.next(NOW, Pace::Idle).since(NOW);
            let steady = pacer.next(NOW, Pace::Steady).since(NOW);
            let doubtful = pacer.next(NOW, Pace::Doubtful).since(NOW);
            assert!(idle <= EVERY && idle >= EVERY * 9 / 10);
            assert!(doubtful < steady && steady < idle);
        }
    }

    #[test]
    fn the_first_is_spread_over_the_whole_interval() {
        let first = |seed| Pacer::new(EVERY, Rng::new(seed)).next(NOW, Pace::Idle).since(NOW);
        let firsts: Vec<Duration> = (0..1000).map(first).collect();
        for quarter in 0..4u32 {
            let within = firsts.iter().filter(|at| **at >= EVERY * quarter / 4 && **at < EVERY * (quarter + 1) / 4).count();
            assert!((150..350).contains(&within), "{within} of 1000 in quarter {quarter}");
        }
        assert_eq!(first(7), first(7));
    }

    #[test]
    fn a_short_every_is_not_exceeded_by_the_fastest_pace() {
        let pacer = Pacer::new(Duration::from_millis(5), Rng::new(1));
        assert_eq!(pacer.interval(Pace::Doubtful), Duration::from_millis(5));
        assert_eq!(Pacer::new(Duration::from_millis(100), Rng::new(1)).interval(Pace::Doubtful), FASTEST);
    }
}
