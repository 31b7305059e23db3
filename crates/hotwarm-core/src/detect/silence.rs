//! Whose silence is it? A probe that went unanswered speaks against its target only if this process was there to hear the answer.
//!
//! It doubts us a bounded number of times: a target that is dead is found out in the end, however slow we are. The main path: the limit for
//! a probe from [`SelfHealth::patience`]; on its end without an answer [`SelfHealth::woke`] says how late we were, and
//! [`Silence::is_theirs`] whether to believe it.

use std::time::Duration;

use super::SelfHealth;
use crate::ids::Mono;

/// So many probes in a row may be put down to our own lateness.
const OURS_MAX: u32 = 3;

/// Unanswered probes of one target that were put down to ourselves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silence {
    ours: u32,
}

impl Silence {
    /// No answer came by the limit, and the timer that said so was `late`.
    pub fn is_theirs(&mut self, late: Option<Duration>) -> bool {
        let ours = late.is_some() && self.ours < OURS_MAX;
        self.ours = if ours { self.ours + 1 } else { 0 };
        !ours
    }

    /// An answer came, of whatever kind.
    pub const fn broken(&mut self) {
        self.ours = 0;
    }
}

impl SelfHealth {
    /// How long to wait for an answer that is usually there within `usual`: longer while our own timers are late, `most` at most.
    #[must_use]
    pub fn patience(&self, now: Mono, usual: Duration, most: Duration) -> Duration {
        usual.mul_f64(self.multiplier(now)).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::HealthLimits;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn silence_counts_if_we_were_in_time_to_hear() {
        let mut silence = Silence::default();
        assert!(silence.is_theirs(None));
        assert!((0..3).all(|_| !silence.is_theirs(Some(60 * MS))));
        assert!(silence.is_theirs(Some(60 * MS)), "in the end it is believed");
        assert!(!silence.is_theirs(Some(60 * MS)));
        silence.broken();
        assert!((0..3).all(|_| !silence.is_theirs(Some(60 * MS))), "an answer starts the count anew");
        assert!(silence.is_theirs(None));
    }

    #[test]
    fn who_is_late_waits_longer_up_to_a_bound() {
        let mut health = SelfHealth::new(HealthLimits::default());
        let at = |ms: u64| Mono(ms * 1000);
        let limit = |health: &SelfHealth, now| health.patience(now, 100 * MS, 1000 * MS);
        assert_eq!(limit(&health, at(1000)), 100 * MS);
        health.woke(at(1000), at(1100));
        assert_eq!(limit(&health, at(1100)), 300 * MS);
        health.woke(at(2000), at(9000));
        assert_eq!(limit(&health, at(9000)), 800 * MS);
        assert_eq!(health.patience(at(9000), 200 * MS, 1000 * MS), 1000 * MS);
        assert_eq!(limit(&health, at(30_000)), 100 * MS);
    }
}
