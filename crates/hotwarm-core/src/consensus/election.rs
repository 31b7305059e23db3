//! What elections need beside raft-rs: our own jitter (S16), and when the voters last acknowledged an older term's leader (S3).
//!
//! Nothing here decides an election.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::{Mono, RaftId};
use crate::rng::Rng;

/// The election timeout, drawn from the replica's seed.
#[derive(Debug)]
pub(super) struct Jitter {
    rng: Rng,
    range: (usize, usize),
    timeout: usize,
    drawn_for: (u64, u8, u64),
}

impl Jitter {
    pub(super) fn new(seed: u64, id: RaftId, range: (usize, usize)) -> Self {
        // Replicas of one seed must not draw alike.
        let mut rng = Rng::new(seed ^ id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)).split();
        let timeout = draw(&mut rng, range);
        Self { rng, range, timeout, drawn_for: (0, 0, 0) }
    }

    /// The timeout while `standing` (term, role, leader) lasts; a new one when it changed or an election began.
    pub(super) fn timeout(&mut self, standing: (u64, u8, u64), began_election: bool) -> usize {
        if began_election || self.drawn_for != standing {
            self.drawn_for = standing;
            self.timeout = draw(&mut self.rng, self.range);
        }
        self.timeout
    }

    /// As little patience as the range allows, and still not the same for all, while this standing lasts.
    pub(super) fn hasten(&mut self) {
        let (min, max) = self.range;
        self.timeout = draw(&mut self.rng, (min, max.min(min + HASTE)));
    }
}

/// Ticks over which those spread who hasten at the same moment.
const HASTE: usize = 8;

fn draw(rng: &mut Rng, (min, max): (usize, usize)) -> usize {
    min + usize::try_from(rng.below((max - min) as u64)).expect("below a usize")
}

/// When this replica last acknowledged a leader, by term (S3). A leader acknowledges itself all the time.
#[derive(Debug, Default)]
pub(super) struct Acks {
    term: u64,
    /// The last acknowledgement of `term`'s leader.
    at: Option<Mono>,
    /// The last acknowledgement of any older term's.
    older: Option<Mono>,
}

impl Acks {
    /// After a restart at `now`: what was acknowledged before is not known, so `now` stands for all of it.
    pub(super) const fn restarted(term: u64, now: Mono) -> Self {
        Self { term, at: Some(now), older: Some(now) }
    }

    pub(super) fn note(&mut self, term: u64, now: Mono) {
        if term > self.term {
            self.older = self.older.max(self.at);
            self.term = term;
        }
        self.at = Some(now);
    }

    /// The last acknowledgement of a leader of a term before `term`.
    pub(super) fn before(&self, term: u64) -> Option<Mono> {
        if self.term < term { self.older.max(self.at) } else { self.older }
    }
}

/// The votes granted to this replica in the term it campaigns in, each with the voter's last acknowledgement of an older term, on this
/// replica's clock.
#[derive(Debug, Default)]
pub(super) struct Grants {
    term: u64,
    acked: BTreeMap<RaftId, Option<Mono>>,
}

impl Grants {
    /// A vote that came at `now`, sent `age_us` after the voter's last acknowledgement. That was before it was sent, so on our clock it
    /// was at `now` less the age or earlier.
    pub(super) fn note(&mut self, term: u64, from: RaftId, now: Mono, age_us: Option<u64>) {
        if self.term != term {
            self.term = term;
            self.acked.clear();
        }
        let acked = age_us.map(|age| now.minus(Duration::from_micros(age)));
        let known = self.acked.entry(from).or_default();
        *known = (*known).max(acked);
    }

    /// The latest moment at which one of the voters of `term` acknowledged an older term's leader; `own` is ours.
    pub(super) fn acked_until(&self, term: u64, own: Option<Mono>) -> Option<Mono> {
        let others = (self.term == term).then(|| self.acked.values().copied().max().flatten()).flatten();
        others.max(own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_lasts_as_long_as_the_standing() {
        let mut jitter = Jitter::new(1, RaftId(1), (10, 1000));
        let first = jitter.timeout((1, 0, 0), false);
        assert_eq!(jitter.timeout((1, 0, 0), false), first);
        assert_ne!(jitter.timeout((2, 0, 0), false), first);
        let second = jitter.timeout((2, 0, 0), true);
        assert_ne!(jitter.timeout((2, 0, 0), true), second);
        assert!((0..1000).all(|_| (10..1000).contains(&jitter.timeout((2, 0, 0), true))));
    }

    #[test]
    fn acknowledgements_count_for_later_terms_only() {
        let mut acks = Acks::default();
        assert_eq!(acks.before(9), None);
        acks.note(3, Mono(10));
        acks.note(3, Mono(20));
        assert_eq!((acks.before(3), acks.before(4)), (None, Some(Mono(20))));
        acks.note(5, Mono(30));
        assert_eq!((acks.before(5), acks.before(6)), (Some(Mono(20)), Some(Mono(30))));
        let restarted = Acks::restarted(5, Mono(40));
        assert_eq!((restarted.before(5), restarted.before(6)), (Some(Mono(40)), Some(Mono(40))));
    }

    #[test]
    fn the_latest_voter_counts() {
        let mut grants = Grants::default();
        grants.note(4, RaftId(2), Mono(5_000), Some(4_000));
        grants.note(5, RaftId(2), Mono(10_000), Some(3_000));
        grants.note(5, RaftId(3), Mono(12_000), None);
        assert_eq!(grants.acked_until(5, None), Some(Mono(7_000)));
        assert_eq!(grants.acked_until(5, Some(Mono(8_000))), Some(Mono(8_000)));
        assert_eq!(grants.acked_until(6, None), None);
    }
}
