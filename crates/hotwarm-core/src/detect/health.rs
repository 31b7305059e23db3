//! "Am I the slow one?": a node whose own timers or disk are late doubts itself before it doubts its peers.
//!
//! It never acts: it grades. The node multiplies its suspicion thresholds by [`SelfHealth::multiplier`], gives no testimony while
//! [`SelfHealth::abstains`], and shifts its detectors by the lateness that [`SelfHealth::woke`] returns.
//!
//! The main path: each wake of the decision thread -> `woke(due, now)`; each probe of the disk (a small write and fsync in the data
//! directory, made by another thread) -> `disk_begun`, then `disk_done` or `disk_failed`; [`SelfHealth::worse_at`] is a deadline.
//! Source: Dadgar, Phillips, Currey, "Lifeguard: local health awareness for more accurate failure detection", DSN-W 2018; there health
//! is counted in missed acks, here it is measured.

use std::time::Duration;

use crate::ids::Mono;

/// The worst of the last so many seconds counts.
const WINDOW_SECONDS: usize = 10;

/// However slow we are, thresholds grow no further: a peer that is dead must be noticed in the end.
const MULTIPLIER_MAX: f64 = 8.0;

/// How this node finds itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    Well,
    /// Late, lately: wait longer before suspecting others.
    Slow,
    /// Not able to judge anybody or keep anything: give no testimony.
    Stalled,
}

/// What the grade rests on, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ailment {
    /// The disk refused a write or fsync.
    DiskFailed,
    /// A probe of the disk is under way or took so long.
    Disk(Duration),
    /// The decision thread ran so much later than it was due.
    Timer(Duration),
}

/// From when on something is slow, and stalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthLimits {
    /// Default 50 ms: half a heartbeat.
    pub timer_slow: Duration,
    /// Default 500 ms: half a lease.
    pub timer_stalled: Duration,
    /// Default 200 ms.
    pub disk_slow: Duration,
    /// Default 2 s.
    pub disk_stalled: Duration,
    /// After a stalled timer, so long until there is fresh evidence to judge by; default 200 ms: two heartbeats.
    pub recovery: Duration,
}

impl Default for HealthLimits {
    fn default() -> Self {
        Self {
            timer_slow: Duration::from_millis(50),
            timer_stalled: Duration::from_millis(500),
            disk_slow: Duration::from_millis(200),
            disk_stalled: Duration::from_secs(2),
            recovery: Duration::from_millis(200),
        }
    }
}

/// The health of the node it runs on.
#[derive(Clone, Debug)]
pub struct SelfHealth {
    limits: HealthLimits,
    timer: Worst,
    disk: Worst,
    /// A stalled timer's stall ended then.
    stall_ended: Option<Mono>,
    disk_begun: Option<Mono>,
    disk_failed: bool,
}

impl SelfHealth {
    #[must_use]
    pub fn new(limits: HealthLimits) -> Self {
        Self { limits, timer: Worst::default(), disk: Worst::default(), stall_ended: None, disk_begun: None, disk_failed: false }
    }

    /// The decision thread woke at `now` for a timer that was `due`. Returns the lateness if it was slow or worse: that much of every
    /// peer's silence is ours, so shift the detectors by it (`stalled`) before judging.
    pub fn woke(&mut self, due: Mono, now: Mono) -> Option<Duration> {
        let late = now.since(due);
        self.timer.record(now, late);
        if late >= self.limits.timer_stalled {
            self.stall_ended = Some(now);
        }
        (late >= self.limits.timer_slow).then_some(late)
    }

    /// A probe of the disk was sent off. One at a time: while one is under way, another does not start the clock again.
    pub fn disk_begun(&mut self, now: Mono) {
        self.disk_begun.get_or_insert(now);
    }

    /// It ended well.
    pub fn disk_done(&mut self, now: Mono) {
        if let Some(begun) = self.disk_begun.take() {
            self.disk.record(now, now.since(begun));
            self.disk_failed = false;
        }
    }

    /// It ended with an error: read-only, full, broken. Stays so until one ends well.
    pub fn disk_failed(&mut self) {
        self.disk_begun = None;
        self.disk_failed = true;
    }

    #[must_use]
    pub fn grade(&self, now: Mono) -> Grade {
        let stalled_disk = self.disk_failed || self.disk_age(now) >= self.limits.disk_stalled;
        let stalled_timer = self.stall_ended.is_some_and(|ended| now.since(ended) < self.limits.recovery);
        if stalled_disk || stalled_timer {
            Grade::Stalled
        } else if self.worst_disk(now) >= self.limits.disk_slow || self.timer.get(now) >= self.limits.timer_slow {
            Grade::Slow
        } else {
            Grade::Well
        }
    }

    /// What the grade rests on; `None` while well.
    #[must_use]
    pub fn ailment(&self, now: Mono) -> Option<Ailment> {
        let (disk, timer) = (self.worst_disk(now), self.timer.get(now));
        match self.grade(now) {
            Grade::Well => None,
            _ if self.disk_failed => Some(Ailment::DiskFailed),
            // The grade may be Stalled for the timer while the disk is only slow.
            Grade::Stalled if self.disk_age(now) < self.limits.disk_stalled => Some(Ailment::Timer(timer)),
            _ if disk >= self.limits.disk_slow => Some(Ailment::Disk(disk)),
            _ => Some(Ailment::Timer(timer)),
        }
    }

    /// By how much to multiply suspicion thresholds, 1 to 8: 1 while the timers are in time, growing with their lateness. The disk plays
    /// no part: a slow disk delays no heartbeat that arrives.
    #[must_use]
    pub fn multiplier(&self, now: Mono) -> f64 {
        let (late, slow) = (self.timer.get(now), self.limits.timer_slow);
        if late < slow {
            return 1.0;
        }
        (1.0 + late.as_secs_f64() / slow.as_secs_f64().max(1e-6)).min(MULTIPLIER_MAX)
    }

    /// True while this node's word about others is worth nothing.
    #[must_use]
    pub fn abstains(&self, now: Mono) -> bool {
        self.grade(now) == Grade::Stalled
    }

    /// The moment at which the grade becomes worse if the disk's probe does not end before.
    #[must_use]
    pub fn worse_at(&self, now: Mono) -> Option<Mono> {
        let begun = self.disk_begun?;
        [self.limits.disk_slow, self.limits.disk_stalled].into_iter().map(|limit| begun.plus(limit)).find(|at| *at > now)
    }

    /// The worst lateness of the decision thread in the last seconds.
    #[must_use]
    pub fn lateness(&self, now: Mono) -> Duration {
        self.timer.get(now)
    }

    /// How long the probe that is under way has taken so far.
    fn disk_age(&self, now: Mono) -> Duration {
        self.disk_begun.map_or(Duration::ZERO, |begun| now.since(begun))
    }

    fn worst_disk(&self, now: Mono) -> Duration {
        self.disk.get(now).max(self.disk_age(now))
    }
}

/// The worst of each of the last seconds: exact for any number of samples, and of fixed size.
#[derive(Clone, Debug, Default)]
struct Worst([(u64, Duration); WINDOW_SECONDS]);

impl Worst {
    fn record(&mut self, now: Mono, value: Duration) {
        let second = now.0 / 1_000_000;
        let slot = &mut self.0[second as usize % WINDOW_SECONDS];
        *slot = if slot.0 == second { (second, slot.1.max(value)) } else { (second, value) };
    }

    fn get(&self, now: Mono) -> Duration {
        let second = now.0 / 1_000_000;
        let recent = |at: u64| at + WINDOW_SECONDS as u64 > second;
        self.0.iter().filter(|(at, _)| recent(*at)).map(|(_, value)| *value).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u64) -> Mono {
        Mono(ms * 1000)
    }

    fn health() -> SelfHealth {
        SelfHealth::new(HealthLimits::default())
    }

    #[test]
    fn late_timers_make_it_patient_for_the_window() {
        let mut h = health();
        assert_eq!(h.woke(at(1000), at(1010)), None);
        assert_eq!((h.grade(at(1010)), h.multiplier(at(1010))), (Grade::Well, 1.0));
        assert_eq!(h.woke(at(2000), at(2100)), Some(100 * MS));
        h.woke(at(2110), at(2110));
        assert_eq!((h.grade(at(2110)), h.multiplier(at(2110))), (Grade::Slow, 3.0));
        assert_eq!(h.ailment(at(2110)), Some(Ailment::Timer(100 * MS)));
        assert_eq!(h.grade(at(11_999)), Grade::Slow);
        assert_eq!((h.grade(at(12_000)), h.ailment(at(12_000))), (Grade::Well, None));
    }

    #[test]
    fn a_stall_silences_it_until_there_is_fresh_evidence() {
        let mut h = health();
        assert_eq!(h.woke(at(1000), at(4000)), Some(3000 * MS));
        assert!(h.abstains(at(4000)) && h.abstains(at(4199)));
        assert_eq!((h.abstains(at(4200)), h.grade(at(4200)), h.multiplier(at(4200))), (false, Grade::Slow, MULTIPLIER_MAX));
    }

    #[test]
    fn a_disk_that_does_not_answer_gets_worse_with_time() {
        let mut h = health();
        h.disk_begun(at(1000));
        assert_eq!((h.grade(at(1199)), h.worse_at(at(1199))), (Grade::Well, Some(at(1200))));
        assert_eq!((h.grade(at(1200)), h.worse_at(at(1200))), (Grade::Slow, Some(at(3000))));
        h.disk_begun(at(2000));
        assert_eq!((h.grade(at(3000)), h.worse_at(at(3000))), (Grade::Stalled, None), "the second does not start the clock again");
        assert_eq!((h.ailment(at(3000)), h.multiplier(at(3000))), (Some(Ailment::Disk(2000 * MS)), 1.0));
        h.disk_done(at(3500));
        assert_eq!((h.grade(at(3500)), h.ailment(at(3500))), (Grade::Slow, Some(Ailment::Disk(2500 * MS))));
        assert_eq!(h.grade(at(13_000)), Grade::Well);
    }

    #[test]
    fn a_disk_that_fails_is_stalled_until_it_works() {
        let mut h = health();
        h.disk_begun(at(1000));
        h.disk_failed();
        assert_eq!((h.grade(at(60_000)), h.ailment(at(60_000))), (Grade::Stalled, Some(Ailment::DiskFailed)));
        h.disk_done(at(60_000));
        assert!(h.abstains(at(60_000)), "an answer nobody waits for says nothing");
        h.disk_begun(at(60_000));
        assert!(h.abstains(at(60_000)));
        h.disk_done(at(60_001));
        assert_eq!(h.grade(at(60_001)), Grade::Well);
    }
}
