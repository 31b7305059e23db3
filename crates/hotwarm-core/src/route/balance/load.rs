//! What one router thread knows of one target's load: requests in flight, latency as a peak-sensitive moving average, slow start.
//!
//! Only arithmetic; it chooses nothing. The main path: `started`, `finished`, and [`Load::cost`] when two targets are compared.
//! Source of the average: peak EWMA as in Finagle and linkerd: it jumps up to a slow answer at once and forgets it over [`DECAY`].

use std::time::Duration;

use crate::ids::Mono;

/// Time in which the weight of what was seen falls to 1/e.
const DECAY: Duration = Duration::from_secs(10);

/// A new target's weight grows from a tenth to full over this time.
const SLOW_START: Duration = Duration::from_secs(10);

/// Full weight on the scale of [`Load::ramp`].
pub(super) const FULL: u64 = 1000;

/// Differences of latency well below this are noise and must not decide.
const NOISE_US: f64 = 1000.0;

/// Cost of a target that has a request in flight and has not answered one yet: one request tries it, others wait for the result.
const UNKNOWN_US: f64 = 1_000_000.0;

/// A failed request counts as so much slower than usual, that a member which fails fast does not attract what others answer slowly;
/// repeated failures multiply up to the bound.
const FAILURE_FACTOR: f64 = 4.0;
const FAILURE_MAX_US: f64 = 5_000_000.0;

#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) in_flight: u32,
    latency_us: Option<f64>,
    at: Mono,
    since: Option<Mono>,
    /// Share of the weight reached by now, of [`FULL`].
    pub(super) ramp: u64,
}

impl Load {
    /// With `slow`, its weight is ramped from `now` on.
    pub(super) fn new(now: Mono, slow: bool) -> Self {
        let mut load = Self { in_flight: 0, latency_us: None, at: now, since: None, ramp: FULL };
        if slow {
            load.ease(now);
        }
        load
    }

    /// Forgets the latency and starts slowly again.
    pub(super) fn ease(&mut self, now: Mono) {
        (self.latency_us, self.at, self.since) = (None, now, Some(now));
        self.grow(now);
    }

    /// Brings the ramp up to `now`; false once it is at the top.
    pub(super) fn grow(&mut self, now: Mono) -> bool {
        let Some(since) = self.since else { return false };
        let passed = now.since(since);
        if passed >= SLOW_START {
            (self.since, self.ramp) = (None, FULL);
            return false;
        }
        self.ramp = FULL / 10 + (FULL - FULL / 10) * passed.as_micros() as u64 / SLOW_START.as_micros() as u64;
        true
    }

    pub(super) fn ended(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    pub(super) fn observe(&mut self, now: Mono, latency: Duration, ok: bool) {
        let mut seen_us = latency.as_micros() as f64;
        let known_us = self.latency_us;
        if !ok {
            let punished_us = (known_us.unwrap_or(0.0).max(NOISE_US) * FAILURE_FACTOR).min(FAILURE_MAX_US);
            seen_us = seen_us.max(punished_us);
        }
        self.latency_us = Some(match known_us {
            Some(old_us) if seen_us < old_us => {
                let keep = decay(now.since(self.at));
                old_us * keep + seen_us * (1.0 - keep)
            }
            _ => seen_us,
        });
        self.at = self.at.max(now);
    }

    /// What one more request would cost here; `share` is the weight relative to the mean weight, above 0. At no load the weight plays
    /// no part (it does in the draw): a light target is as quick as a heavy one until it is busy.
    pub(super) fn cost(&self, now: Mono, share: f64) -> f64 {
        let latency_us = match self.latency_us {
            Some(latency_us) => latency_us * decay(now.since(self.at)),
            None if self.in_flight == 0 => 0.0,
            None => UNKNOWN_US,
        };
        let share = share * self.ramp as f64 / FULL as f64;
        (latency_us + NOISE_US) * (1.0 + f64::from(self.in_flight) / share)
    }
}

/// The weight that what is this old still has.
fn decay(age: Duration) -> f64 {
    // Most calls find it a few milliseconds old: an exponential per request buys nothing there.
    if age < DECAY / 1000 { 1.0 - age.as_secs_f64() / DECAY.as_secs_f64() } else { (-age.as_secs_f64() / DECAY.as_secs_f64()).exp() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn jumps_up_at_once_and_forgets_slowly() {
        let mut load = Load::new(Mono(0), false);
        load.observe(Mono(0), 5 * MS, true);
        let quick = load.cost(Mono(0), 1.0);
        load.observe(Mono(0), 500 * MS, true);
        assert!(load.cost(Mono(0), 1.0) > quick * 50.0);
        let later = Mono(0).plus(DECAY);
        load.observe(later, 5 * MS, true);
        let faded = load.cost(later, 1.0);
        assert!(faded > quick * 20.0 && faded < quick * 40.0, "{faded} beside {quick}");
        assert!(load.cost(later.plus(DECAY * 10), 1.0) < quick, "silence is forgiven: it is tried again");
    }

    #[test]
    fn failing_fast_does_not_look_fast() {
        let (mut good, mut bad) = (Load::new(Mono(0), false), Load::new(Mono(0), false));
        good.observe(Mono(0), 3 * MS, true);
        bad.observe(Mono(0), MS / 10, false);
        assert!(bad.cost(Mono(0), 1.0) > good.cost(Mono(0), 1.0));
        (0..100).for_each(|_| bad.observe(Mono(0), MS, false));
        assert!(bad.cost(Mono(0), 1.0) <= FAILURE_MAX_US + NOISE_US);
    }

    #[test]
    fn in_flight_costs_by_weight_and_a_new_target_is_tried_once() {
        let mut load = Load::new(Mono(0), false);
        let idle = load.cost(Mono(0), 1.0);
        load.in_flight = 1;
        assert!(load.cost(Mono(0), 1.0) >= UNKNOWN_US);
        load.observe(Mono(0), Duration::ZERO, true);
        assert!((load.cost(Mono(0), 1.0) - 2.0 * idle).abs() < 1e-6);
        assert!((load.cost(Mono(0), 0.5) - 3.0 * idle).abs() < 1e-6);
    }

    #[test]
    fn the_ramp_goes_from_a_tenth_to_full() {
        let mut load = Load::new(Mono(7), true);
        assert_eq!(load.ramp, FULL / 10);
        assert!(load.grow(Mono(7).plus(SLOW_START / 2)));
        assert_eq!(load.ramp, FULL * 55 / 100);
        assert!(!load.grow(Mono(7).plus(SLOW_START)));
        assert_eq!(load.ramp, FULL);
    }

    #[test]
    fn the_short_form_of_the_decay_meets_the_long_one() {
        let at = DECAY / 1000;
        assert!((decay(at) - decay(at - Duration::from_nanos(1))).abs() < 1e-6);
    }
}
