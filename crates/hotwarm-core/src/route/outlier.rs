//! Leaving a target out because of what live traffic showed, and never all of them.
//!
//! One [`Outlier`] per group and router thread, beside the [`Chooser`](super::balance::Chooser) and indexed by its slots. It never
//! decides a role: an ejection counts in this router only, and goes to the group as testimony. It never leaves nobody: in *panic mode*
//! ejections are ignored, and [`Outlier::panics`] says so.
//!
//! The main path: [`Outlier::failed`] and `succeeded` for each request; [`Outlier::ejected`] is what the chooser leaves out;
//! [`Outlier::probed`] takes back. What is certain (refused, reset, silent also to a probe) ejects at once. Answers that only say "error"
//! eject after several in a row, for a time that no probe shortens (a health page may be well while the service is not), and at most
//! half of the targets, since what fails on all of them is not their own fault.

use std::fmt;
use std::time::Duration;

use super::slots::SlotSet;
use crate::ids::Mono;

/// After so long without a new ejection one of the earlier ones is forgotten.
const FORGIVEN_AFTER: Duration = Duration::from_secs(10);

/// What one request showed about a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// The connection was refused.
    Refused,
    /// The connection was reset or closed before a reply. Not for one that had been idle in a pool: that is how servers end those.
    Reset,
    /// It could not be reached, or did not accept within the time for connecting.
    Unreachable,
    /// No byte came in the time that is usual for it, and a probe was silent too.
    Silent,
    /// It answered that it failed (HTTP 5xx).
    ServerError,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Refused => "connection refused",
            Self::Reset => "connection reset",
            Self::Unreachable => "not reachable",
            Self::Silent => "silent, also to a probe",
            Self::ServerError => "server error",
        })
    }
}

/// When a target is ejected and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierLimits {
    /// Refused, reset or unreachable in a row; default 1.
    pub connection_errors: u32,
    /// Server errors in a row; default 5.
    pub server_errors: u32,
    /// The first ejection's length; each further one is twice as long. Default 1 s.
    pub base: Duration,
    /// Default 60 s.
    pub max: Duration,
}

impl Default for OutlierLimits {
    fn default() -> Self {
        Self { connection_errors: 1, server_errors: 5, base: Duration::from_secs(1), max: Duration::from_secs(60) }
    }
}

/// Why and until when a target is ejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ejection {
    pub evidence: Evidence,
    /// So many in a row.
    pub count: u32,
    pub at: Mono,
    /// Then it is tried again, unless a probe took it back before.
    pub until: Mono,
}

impl Ejection {
    const fn is_certain(&self) -> bool {
        !matches!(self.evidence, Evidence::ServerError)
    }
}

impl fmt::Display for Ejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} in a row)", self.evidence, self.count)
    }
}

/// The targets of one group that live traffic speaks against.
#[derive(Clone, Debug)]
pub struct Outlier {
    limits: OutlierLimits,
    live: SlotSet,
    slots: Vec<Record>,
    /// What follows from the records until `stale_at`, so that it costs nothing per request.
    ejected: SlotSet,
    panics: bool,
    stale_at: Option<Mono>,
}

#[derive(Clone, Debug, Default)]
struct Record {
    connection_errors: u32,
    server_errors: u32,
    /// Earlier ejections that are not forgotten: the next is twice as long for each.
    strikes: u32,
    forgiven_at: Mono,
    ejection: Option<Ejection>,
}

impl Outlier {
    #[must_use]
    pub const fn new(limits: OutlierLimits) -> Self {
        let none = SlotSet::EMPTY;
        Self { limits, live: none, slots: Vec::new(), ejected: none, panics: false, stale_at: None }
    }

    /// Takes over what [`Chooser::update`](super::balance::Chooser::update) changed: the present targets, and those that are new.
    pub fn update(&mut self, now: Mono, live: SlotSet, fresh: SlotSet) {
        self.live = live;
        for slot in fresh.iter() {
            *self.record(slot) = Record::default();
        }
        self.settle(now);
    }

    /// The target answered well.
    pub fn succeeded(&mut self, slot: usize) {
        if let Some(record) = self.slots.get_mut(slot) {
            (record.connection_errors, record.server_errors) = (0, 0);
        }
    }

    /// The target failed; returns the ejection if this failure caused one: grant the retry budget what is in flight there, and testify.
    pub fn failed(&mut self, slot: usize, now: Mono, evidence: Evidence) -> Option<Ejection> {
        if !self.live.contains(slot) {
            return None;
        }
        let limits = self.limits;
        let record = self.record(slot);
        let (count, limit) = match evidence {
            Evidence::ServerError => {
                // It answers: whatever was wrong with its connections is over.
                record.connection_errors = 0;
                record.server_errors = record.server_errors.saturating_add(1);
                (record.server_errors, limits.server_errors)
            }
            Evidence::Silent => (1, 1),
            Evidence::Refused | Evidence::Reset | Evidence::Unreachable => {
                record.connection_errors = record.connection_errors.saturating_add(1);
                (record.connection_errors, limits.connection_errors)
            }
        };
        let out = record.ejection.filter(|ejection| ejection.until > now);
        // Requests in flight go on failing after the ejection: they are part of it. Certainty replaces mere errors.
        if count < limit.max(1) || out.is_some_and(|out| out.is_certain() || evidence == Evidence::ServerError) {
            return None;
        }
        let ejection = Ejection { evidence, count, at: now, until: now.plus(record.strike(now, &limits)) };
        (record.connection_errors, record.server_errors) = (0, 0);
        record.ejection = Some(ejection);
        self.settle(now);
        Some(ejection)
    }

    /// A probe of the target ended; returns true if it is taken back because of it (then tell the chooser). A failure keeps an ejected
    /// target out for its time once more; it ejects none.
    pub fn probed(&mut self, slot: usize, now: Mono, ok: bool) -> bool {
        let limits = self.limits;
        let Some(record) = self.slots.get_mut(slot) else { return false };
        let length = record.length(&limits);
        let Some(ejection) = record.ejection.as_mut().filter(|ejection| ejection.until > now) else { return false };
        if ok && ejection.is_certain() {
            record.ejection = None;
        } else if !ok {
            ejection.until = ejection.until.max(now.plus(length));
        }
        let back = record.ejection.is_none();
        self.settle(now);
        back
    }

    /// The targets to leave out now: in panic mode none, or those that do not answer while others answer with errors. Whatever was in it
    /// at the last call and is no longer, and is still there, was taken back: tell the chooser.
    pub fn ejected(&mut self, now: Mono) -> SlotSet {
        if self.stale_at.is_some_and(|at| now >= at) {
            self.settle(now);
        }
        self.ejected
    }

    /// True while all targets would be ejected, and some or all of them are therefore used in spite of it.
    pub fn panics(&mut self, now: Mono) -> bool {
        self.ejected(now);
        self.panics
    }

    /// Why a target is ejected (in panic mode: would be).
    #[must_use]
    pub fn reason(&self, slot: usize, now: Mono) -> Option<Ejection> {
        self.slots.get(slot)?.ejection.filter(|ejection| ejection.until > now && self.live.contains(slot))
    }

    /// Derives what is left out from the records.
    fn settle(&mut self, now: Mono) {
        let with = |outlier: &Self, certain: bool| -> SlotSet {
            let is = |slot: &usize| outlier.reason(*slot, now).is_some_and(|ejection| ejection.is_certain() == certain);
            outlier.live.iter().filter(is).collect()
        };
        let (certain, errors) = (with(self, true), with(self, false));
        // Errors on more than half of the targets are no outliers: the earliest of them stay out, the rest is used.
        let mut by_age: Vec<usize> = errors.iter().collect();
        by_age.sort_by_key(|slot| self.slots[*slot].ejection.map(|ejection| ejection.at));
        by_age.truncate(self.live.len() / 2);
        let errors_out: SlotSet = by_age.into_iter().collect();

        self.panics = !self.live.is_empty() && (certain | errors) == self.live;
        // One that answers with errors is better than one that does not answer; if none answers, all are tried.
        self.ejected = if !self.panics {
            certain | errors_out
        } else if errors.is_empty() {
            SlotSet::EMPTY
        } else {
            certain
        };
        self.stale_at = (certain | errors).iter().filter_map(|slot| self.reason(slot, now)).map(|ejection| ejection.until).min();
    }

    fn record(&mut self, slot: usize) -> &mut Record {
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, Record::default);
        }
        &mut self.slots[slot]
    }
}

impl Record {
    /// Counts one more ejection and returns its length.
    fn strike(&mut self, now: Mono, limits: &OutlierLimits) -> Duration {
        let forgiven = now.since(self.forgiven_at).as_secs() / FORGIVEN_AFTER.as_secs();
        self.strikes = self.strikes.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX)).saturating_add(1);
        let length = self.length(limits);
        // Being out is not good behaviour: forgiving starts when it is back.
        self.forgiven_at = now.plus(length);
        length
    }

    fn length(&self, limits: &OutlierLimits) -> Duration {
        limits.base.saturating_mul(1 << self.strikes.saturating_sub(1).min(16)).min(limits.max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn set(slots: &[usize]) -> SlotSet {
        slots.iter().copied().collect()
    }

    fn outlier(targets: usize) -> Outlier {
        let mut outlier = Outlier::new(OutlierLimits::default());
        let live = (0..targets).collect();
        outlier.update(Mono(0), live, live);
        outlier
    }

    fn at(seconds: u64) -> Mono {
        Mono(seconds * 1_000_000)
    }

    fn server_errors(outlier: &mut Outlier, slot: usize, now: Mono, count: usize) -> Option<Ejection> {
        (0..count).filter_map(|_| outlier.failed(slot, now, Evidence::ServerError)).last()
    }

    #[test]
    fn a_refused_connection_ejects_at_once_and_a_probe_takes_back() {
        let mut o = outlier(3);
        let ejection = o.failed(1, at(1), Evidence::Refused).unwrap();
        assert_eq!((ejection.evidence, ejection.count, ejection.until), (Evidence::Refused, 1, at(2)));
        assert_eq!(o.failed(1, at(1), Evidence::Reset), None, "what was in flight belongs to the same ejection");
        assert_eq!((o.ejected(at(1)), o.panics(at(1))), (set(&[1]), false));
        assert_eq!(o.reason(1, at(1)).unwrap().to_string(), "connection refused (1 in a row)");
        assert!(o.probed(1, at(1), true) && o.ejected(at(1)).is_empty());
        assert!(!o.probed(1, at(1), true));
    }

    #[test]
    fn a_failed_probe_keeps_out_and_time_alone_lets_in() {
        let mut o = outlier(2);
        o.failed(0, at(1), Evidence::Silent);
        assert!(!o.probed(0, Mono(1_900_000), false));
        assert_eq!((o.ejected(at(2)), o.ejected(Mono(2_899_999))), (set(&[0]), set(&[0])));
        assert!(o.ejected(Mono(2_900_000)).is_empty());
        assert!(!o.probed(0, at(3), false) && o.ejected(at(3)).is_empty(), "a probe ejects none");
    }

    #[test]
    fn server_errors_in_a_row_eject_for_a_time_that_grows_and_is_forgiven() {
        let mut o = outlier(3);
        assert_eq!(server_errors(&mut o, 0, at(0), 4), None);
        o.succeeded(0);
        assert_eq!(server_errors(&mut o, 0, at(0), 4), None);
        let mut now = at(0);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let ejection = server_errors(&mut o, 0, now, 5).unwrap();
            assert_eq!(ejection.until.since(now), SECOND * seconds);
            assert!(!o.probed(0, now, true), "a probe does not shorten it");
            assert_eq!(o.ejected(now), set(&[0]));
            now = ejection.until;
        }
        let ejection = server_errors(&mut o, 0, now.plus(FORGIVEN_AFTER * 100), 5).unwrap();
        assert_eq!(ejection.until.since(ejection.at), SECOND);
    }

    #[test]
    fn server_errors_eject_half_at_most() {
        let mut o = outlier(4);
        (0..3).for_each(|slot| assert!(server_errors(&mut o, slot, at(1).plus(SECOND / 10 * slot as u32), 5).is_some()));
        assert_eq!((o.ejected(Mono(1_300_000)), o.panics(Mono(1_300_000))), (set(&[0, 1]), false));
        let mut single = outlier(1);
        server_errors(&mut single, 0, at(1), 5);
        assert!(single.ejected(at(1)).is_empty());
    }

    #[test]
    fn never_everybody() {
        let mut o = outlier(3);
        o.failed(0, at(1), Evidence::Refused);
        o.failed(1, at(1), Evidence::Silent);
        assert_eq!((o.ejected(at(1)), o.panics(at(1))), (set(&[0, 1]), false));
        assert!(o.failed(2, at(1), Evidence::Reset).is_some(), "it is told all the same");
        assert_eq!((o.ejected(at(1)), o.panics(at(1))), (SlotSet::EMPTY, true));
        assert!(o.reason(2, at(1)).is_some());
        assert!(o.probed(0, at(1), true));
        assert_eq!((o.ejected(at(1)), o.panics(at(1))), (set(&[1, 2]), false));
        // One that answers with errors is preferred to those that do not answer.
        server_errors(&mut o, 0, at(1), 5);
        assert_eq!((o.ejected(at(1)), o.panics(at(1))), (set(&[1, 2]), true));
    }

    #[test]
    fn certainty_replaces_mere_errors() {
        let mut o = outlier(2);
        server_errors(&mut o, 0, at(1), 5);
        assert_eq!(o.failed(0, at(1), Evidence::Refused).unwrap().until, at(3));
        assert_eq!(o.reason(0, at(1)).unwrap().evidence, Evidence::Refused);
    }

    #[test]
    fn a_new_life_starts_clean_and_one_that_left_does_not_count() {
        let mut o = outlier(3);
        o.failed(0, at(1), Evidence::Refused);
        o.failed(1, at(1), Evidence::Refused);
        o.update(at(1), set(&[0, 1]), SlotSet::EMPTY);
        assert!(o.panics(at(1)));
        o.update(at(1), set(&[0, 1]), set(&[1]));
        assert_eq!((o.ejected(at(1)), o.reason(1, at(1))), (set(&[0]), None));
        assert_eq!(o.failed(2, at(1), Evidence::Refused), None);
    }

    proptest! {
        #[test]
        fn somebody_is_always_left(targets in 1usize..6, events in proptest::collection::vec((0usize..6, 0u8..8, 0u64..500_000), 0..200)) {
            let mut o = outlier(targets);
            let mut now = Mono(0);
            for (slot, event, passed) in events {
                now = Mono(now.0 + passed);
                match event {
                    0 => o.succeeded(slot),
                    1 => _ = o.probed(slot, now, true),
                    2 => _ = o.probed(slot, now, false),
                    3 => _ = o.failed(slot, now, Evidence::Refused),
                    4 => _ = o.failed(slot, now, Evidence::Silent),
                    _ => _ = o.failed(slot, now, Evidence::ServerError),
                }
                let out = o.ejected(now);
                prop_assert!(out.iter().all(|slot| o.reason(slot, now).is_some()));
                prop_assert!(out.len() < targets);
                let would: usize = (0..targets).filter(|slot| o.reason(*slot, now).is_some()).count();
                prop_assert_eq!(o.panics(now), would == targets);
            }
        }
    }
}
