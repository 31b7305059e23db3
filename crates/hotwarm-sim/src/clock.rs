//! A node's own clock: another origin than true time's, and a rate that is a little off.
//!
//! It only converts. True time is in microseconds since the run began; a node is never told it.

use hotwarm_core::ids::Mono;

/// One node's monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What it showed when true time was 0; negative if the machine was switched on later.
    origin_us: i64,
    /// Microseconds too fast in a second.
    rate_ppm: i64,
}

impl Clock {
    #[must_use]
    pub const fn new(now_us: u64, shows_us: u64, rate_ppm: i64) -> Self {
        let clock = Self { origin_us: 0, rate_ppm };
        let bare = clock.scaled(now_us);
        Self { origin_us: shows_us as i64 - bare, rate_ppm }
    }

    const fn scaled(&self, true_us: u64) -> i64 {
        let t = true_us as i64;
        t + t * self.rate_ppm / 1_000_000
    }

    /// What it shows at a moment of true time.
    #[must_use]
    pub const fn at(&self, true_us: u64) -> Mono {
        let shown = self.origin_us + self.scaled(true_us);
        Mono(if shown < 0 { 0 } else { shown as u64 })
    }

    /// The first moment of true time at which it shows `local` or more.
    #[must_use]
    pub const fn when(&self, local: Mono) -> u64 {
        let bare = local.0 as i64 - self.origin_us;
        if bare <= 0 {
            return 0;
        }
        let mut t = (bare as i128 * 1_000_000 / (1_000_000 + self.rate_ppm as i128)) as u64;
        while self.at(t).0 < local.0 {
            t += 1;
        }
        t
    }

    #[must_use]
    pub const fn rate_ppm(&self) -> i64 {
        self.rate_ppm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_is_the_first_moment_that_shows_it() {
        for rate in [-5000, -17, 0, 3, 5000] {
            let clock = Clock::new(7_000_000, 1_234, rate);
            assert_eq!(clock.at(7_000_000), Mono(1_234));
            for local in [2_000u64, 1_000_000, 55_555_555] {
                let t = clock.when(Mono(local));
                assert!(clock.at(t).0 >= local && clock.at(t - 1).0 < local, "{rate} {local}");
            }
        }
    }
}
