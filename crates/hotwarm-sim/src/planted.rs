//! Bugs planted on purpose: each must break a rule within so many seeds, or the rule is not watched.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use hotwarm_core::plant::{self, Bug};

use crate::invariants::Violation;

/// Seeds that are known to show a bug that few show.
pub const KNOWN: &[(Bug, u64)] = &[
    (Bug::S3NoFloor, 27),
    (Bug::S5StoppedEarly, 3),
    (Bug::S6NotFenced, 73),
    (Bug::S7AnyAttempt, 53),
    (Bug::S9NoSuccessor, 56),
    (Bug::S12GoesOn, 22),
    (Bug::S14NeverRewritten, 1),
    (Bug::S14NoEnd, 100_843),
    (Bug::S17TooEarly, 7),
    (Bug::S18OwnClock, 14),
    (Bug::S19WitnessLeads, 14),
    (Bug::P2OneReport, 53),
];

/// The first seed below `seeds` that breaks a rule with the bug planted, counted from 1, and the rule; else a known one that does. The process has the bug while this
/// runs: one at a time.
#[must_use]
pub fn caught(bug: Bug, seeds: u64) -> Option<(u64, Violation)> {
    plant::choose(Some(bug));
    let next = AtomicU64::new(0);
    let found: Mutex<Option<(u64, Violation)>> = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    if let Some(violation) = broken(bug, seed) {
                        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                        if found.as_ref().is_none_or(|(first, _)| seed + 1 < *first) {
                            *found = Some((seed + 1, violation));
                        }
                        next.store(seeds, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    plant::choose(None);
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let known = || KNOWN.iter().find(|(b, _)| *b == bug).and_then(|(_, seed)| Some((seed + 1, shows(bug, *seed)?)));
    found.or_else(known)
}

/// The rule that one seed breaks with the bug planted.
#[must_use]
pub fn shows(bug: Bug, seed: u64) -> Option<Violation> {
    plant::choose(Some(bug));
    let violation = broken(bug, seed);
    plant::choose(None);
    violation
}

fn broken(bug: Bug, seed: u64) -> Option<Violation> {
    if bug == Bug::S13NoChecksum {
        // In a whole run the first thing that cannot be decoded ends the node, checksum or not: a log by itself shows it.
        return crate::disk::believes_rot(seed).map(|text| Violation { rule: "S13 damaged records are seen", text });
    }
    let outcome = crate::run(seed, 0);
    if outcome.violation.is_some() || bug != Bug::S16Jitter {
        return outcome.violation;
    }
    // What does not follow from the seed shows as another trace.
    let again = crate::run(seed, 0);
    let text = format!("traces {:016x} and {:016x}", outcome.hash, again.hash);
    (outcome.hash != again.hash).then_some(Violation { rule: "same seed, same trace", text })
}
