//! How unlikely this silence is, learned from the rhythm of a peer's heartbeats: phi accrual.
//!
//! It never suspects by itself: the caller brings the threshold, and multiplies it while it doubts its own health. It never blames a
//! peer for our own lateness: [`PhiAccrual::stalled`]. The main path: `arrived` on each heartbeat, then `suspect_at` as the deadline.
//!
//! In words: heartbeats that came every 100 ms, give or take 10, make a silence of 150 ms very unlikely; if they came give or take 50,
//! it is nothing unusual. Phi 1 means that one silence in ten would be this long though all is well, phi 8 one in a hundred million,
//! if arrivals were normally distributed; they have heavier tails, hence a floor under the deviation and thresholds higher than the
//! error rate one wants. Rejected: elapsed time over mean, which calls itself phi elsewhere, but does not know steady from jittery.
//!
//! Source: Hayashibara, Defago, Yared, Katayama, "The phi accrual failure detector", SRDS 2004.

use std::time::Duration;

use super::normal;
use crate::ids::Mono;

/// Intervals remembered: at 100 ms between heartbeats, the last 6 s.
const WINDOW: usize = 64;

/// An interval longer than so many expected ones was an outage, not a rhythm: it is not learned, or the next outage would be noticed late.
const OUTAGE: u32 = 10;

/// One peer's heartbeats.
#[derive(Clone, Debug)]
pub struct PhiAccrual {
    expected_us: u32,
    deviation_min_us: f64,
    intervals_us: [u32; WINDOW],
    next: usize,
    len: usize,
    sum_us: u64,
    sum_squares: u128,
    last: Mono,
}

impl PhiAccrual {
    /// Counts silence from `now`. `expected`: the interval at which the peer sends (up to 7 minutes). `deviation_min`: the floor under the
    /// standard deviation; it should cover what the network and both schedulers do on a bad day, `expected / 2` where nothing is known.
    #[must_use]
    pub fn new(now: Mono, expected: Duration, deviation_min: Duration) -> Self {
        let expected_us = micros(expected).clamp(1, u32::MAX / OUTAGE);
        let mut phi = Self {
            expected_us,
            deviation_min_us: f64::from(micros(deviation_min).max(1)),
            intervals_us: [0; WINDOW],
            next: 0,
            len: 0,
            sum_us: 0,
            sum_squares: 0,
            last: now,
        };
        // A first estimate, before there are samples: the expected interval, give or take a quarter.
        phi.learn(expected_us - expected_us / 4);
        phi.learn(expected_us + expected_us / 4);
        phi
    }

    /// A heartbeat arrived.
    pub fn arrived(&mut self, now: Mono) {
        let interval_us = micros(now.since(self.last));
        if interval_us <= self.expected_us.saturating_mul(OUTAGE) {
            self.learn(interval_us);
        }
        self.last = self.last.max(now);
    }

    /// -log10 of the probability that a heartbeat of a healthy peer comes later than now.
    #[must_use]
    pub fn phi(&self, now: Mono) -> f64 {
        let (mean_us, deviation_us) = self.rhythm();
        normal::phi((now.since(self.last).as_micros() as f64 - mean_us) / deviation_us)
    }

    /// Whether phi has reached `threshold`.
    #[must_use]
    pub fn suspect(&self, now: Mono, threshold: f64) -> bool {
        // Not `phi(now) >= threshold`: a deadline set by `suspect_at` must not find itself a rounding error too early.
        now >= self.suspect_at(threshold)
    }

    /// The moment at which phi reaches `threshold` if nothing arrives before.
    #[must_use]
    pub fn suspect_at(&self, threshold: f64) -> Mono {
        self.overdue_at(deviations(threshold))
    }

    /// [`Self::suspect_at`] for a threshold that is asked for often: `deviations` is what [`deviations`] says of it.
    #[must_use]
    pub fn overdue_at(&self, deviations: f64) -> Mono {
        let (mean_us, deviation_us) = self.rhythm();
        let silence_us = (mean_us + deviation_us * deviations).max(0.0).ceil();
        self.last.plus(Duration::from_micros(silence_us as u64))
    }

    /// This node itself did not run for `by`: that much of the silence is ours. Call it before judging, at the first wake after.
    pub fn stalled(&mut self, by: Duration) {
        self.last = self.last.plus(by);
    }

    /// The last arrival, later by what [`stalled`](Self::stalled) added.
    #[must_use]
    pub const fn last(&self) -> Mono {
        self.last
    }

    /// Mean and standard deviation in microseconds, each with its floor.
    fn rhythm(&self) -> (f64, f64) {
        let n = self.len as f64;
        let mean = self.sum_us as f64 / n;
        let variance = (self.sum_squares as f64 / n - mean * mean).max(0.0);
        // After a stall, of ours or of the network, many arrive at once; their tiny intervals must not make us impatient.
        (mean.max(f64::from(self.expected_us)), variance.sqrt().max(self.deviation_min_us))
    }

    fn learn(&mut self, interval_us: u32) {
        if self.len == WINDOW {
            let oldest = u64::from(self.intervals_us[self.next]);
            self.sum_us -= oldest;
            self.sum_squares -= u128::from(oldest * oldest);
        } else {
            self.len += 1;
        }
        self.intervals_us[self.next] = interval_us;
        self.next = (self.next + 1) % WINDOW;
        let newest = u64::from(interval_us);
        self.sum_us += newest;
        self.sum_squares += u128::from(newest * newest);
    }
}

/// By how many standard deviations a heartbeat is late when phi reaches `threshold`.
#[must_use]
pub fn deviations(threshold: f64) -> f64 {
    normal::deviations(threshold)
}

fn micros(span: Duration) -> u32 {
    u32::try_from(span.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BEAT: Duration = Duration::from_millis(100);
    const MS: Duration = Duration::from_millis(1);

    fn steady(beats: u32) -> PhiAccrual {
        let mut phi = PhiAccrual::new(Mono(0), BEAT, 10 * MS);
        (1..=beats).for_each(|k| phi.arrived(Mono(0).plus(BEAT * k)));
        phi
    }

    #[test]
    fn judges_before_the_first_sample_by_the_first_estimate() {
        let phi = PhiAccrual::new(Mono(0), BEAT, 10 * MS);
        let silence = phi.suspect_at(8.0).since(Mono(0));
        assert!(silence > BEAT * 2 && silence < BEAT * 3, "{silence:?}");
    }

    #[test]
    fn a_jittery_peer_gets_more_time_than_a_steady_one() {
        let mut jittery = PhiAccrual::new(Mono(0), BEAT, 10 * MS);
        let mut now = Mono(0);
        for k in 0..100u32 {
            now = now.plus(if k % 2 == 0 { BEAT / 2 } else { BEAT * 3 / 2 });
            jittery.arrived(now);
        }
        let patience = |phi: &PhiAccrual| phi.suspect_at(8.0).since(phi.last());
        assert!(patience(&jittery) > patience(&steady(100)) * 2);
        // Steady: mean 100 ms, deviation at its floor of 10 ms, phi 8 at 5.612 deviations.
        assert_eq!(patience(&steady(100)).as_millis(), 156);
    }

    #[test]
    fn an_outage_is_not_learned() {
        let mut phi = steady(64);
        let before = phi.suspect_at(8.0).since(phi.last());
        phi.arrived(phi.last().plus(Duration::from_secs(3600)));
        assert_eq!(phi.suspect_at(8.0).since(phi.last()), before);
    }

    #[test]
    fn a_burst_does_not_make_it_impatient() {
        for threshold in [0.5, 1.0, 8.0] {
            let mut phi = steady(64);
            let before = phi.suspect_at(threshold).since(phi.last());
            let now = phi.last().plus(BEAT);
            (0..40).for_each(|_| phi.arrived(now));
            assert!(phi.suspect_at(threshold).since(now) >= before, "at {threshold}");
        }
    }

    #[test]
    fn our_own_stall_is_not_the_peers_silence() {
        let mut phi = steady(64);
        let now = phi.last().plus(Duration::from_secs(2));
        assert!(phi.suspect(now, 8.0));
        phi.stalled(Duration::from_secs(2));
        assert!(!phi.suspect(now, 8.0));
        assert!(phi.suspect(now.plus(BEAT * 2), 8.0), "silence after the stall counts in full");
    }

    #[test]
    fn time_that_goes_back_changes_nothing() {
        let mut phi = steady(10);
        let last = phi.last();
        phi.arrived(last.minus(BEAT * 3));
        assert_eq!(phi.last(), last);
    }

    proptest! {
        #[test]
        fn phi_grows_with_silence_and_the_deadline_agrees(
            intervals in proptest::collection::vec(0u64..400_000, 0..200), threshold in 0.1f64..40.0, step in 1u64..50_000,
        ) {
            let mut phi = PhiAccrual::new(Mono(0), BEAT, 5 * MS);
            let mut now = Mono(0);
            for interval in intervals {
                now = Mono(now.0 + interval);
                phi.arrived(now);
            }
            let silences: Vec<f64> = (0..40).map(|k| phi.phi(Mono(now.0 + k * step))).collect();
            prop_assert!(silences.windows(2).all(|pair| pair[0] <= pair[1]));
            let at = phi.suspect_at(threshold);
            prop_assert!(phi.suspect(at, threshold) && phi.phi(at) >= threshold - 1e-6);
            prop_assert!(at == phi.last() || (!phi.suspect(Mono(at.0 - 1), threshold) && phi.phi(Mono(at.0 - 1)) < threshold + 1e-6));
        }
    }
}
