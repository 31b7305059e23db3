//! What the router counts, per thread without contention, summed when someone asks.
//!
//! A counter has one writing thread, so it needs no locked instruction; it must never be written from two. The main path: threads call
//! `add` and `record`, [`super::Handle::stats`] reads sums.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hotwarm_core::ids::{Epoch, GroupName, MemberId, Mono};

/// A count that one thread writes and any thread reads.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a request got no reply of a member, or not all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// The request was not acceptable HTTP, or too large.
    Malformed,
    /// It waited for a hot member for as long as it may.
    ParkTime,
    /// Too many requests, or bytes, were waiting.
    ParkFull,
    /// Too many connections.
    Connections,
    /// It was sent, and the connection to the member broke; it may have been carried out.
    Broken,
    /// It was sent, and the epoch or the lease ended.
    Cut,
    /// The reply broke off after bytes of it were released.
    Truncated,
    /// No byte of a reply came in time.
    Timeout,
    /// The member's reply was not acceptable HTTP.
    BadReply,
    /// The client went away.
    Client,
    /// The group's listener was closed.
    Stopped,
}

impl Failure {
    pub const ALL: [Self; 11] = [
        Self::Malformed,
        Self::ParkTime,
        Self::ParkFull,
        Self::Connections,
        Self::Broken,
        Self::Cut,
        Self::Truncated,
        Self::Timeout,
        Self::BadReply,
        Self::Client,
        Self::Stopped,
    ];

    /// It was not acceptable, or its client is gone.
    pub(super) const fn is_the_clients(self) -> bool {
        matches!(self, Self::Malformed | Self::Client)
    }

    /// Its name as a metric's label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::ParkTime => "park_time",
            Self::ParkFull => "park_full",
            Self::Connections => "connections",
            Self::Broken => "broken",
            Self::Cut => "cut",
            Self::Truncated => "truncated",
            Self::Timeout => "timeout",
            Self::BadReply => "bad_reply",
            Self::Client => "client",
            Self::Stopped => "stopped",
        }
    }
}

/// What a group's requests had to bear so far, as counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Toll {
    /// Requests that ever parked, and how many do now; of TCP, connections.
    pub parked: u64,
    pub waiting: u64,
    /// Those that failed by no fault of their client.
    pub failed: u64,
}

/// Classes of statuses, as counted.
pub const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

const PER_OCTAVE: usize = 4;
const FIRST_OCTAVE: usize = 4;
const BUCKETS: usize = 96;

/// Times to the first byte of a reply: four buckets an octave from 16 us, the last one open.
#[derive(Debug)]
pub(super) struct Histogram {
    counts: [Counter; BUCKETS],
    sum_us: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| Counter::default()), sum_us: Counter::default() }
    }
}

impl Histogram {
    pub(super) fn record(&self, us: u64) {
        self.counts[Self::index(us)].add(1);
        self.sum_us.add(us);
    }

    fn index(us: u64) -> usize {
        let us = us.max(1 << FIRST_OCTAVE);
        let octave = us.ilog2() as usize;
        let quarter = (us >> (octave - 2)) as usize & (PER_OCTAVE - 1);
        ((octave - FIRST_OCTAVE) * PER_OCTAVE + quarter).min(BUCKETS - 1)
    }

    /// The first value above bucket `index`, in microseconds.
    fn upper_us(index: usize) -> u64 {
        let octave = FIRST_OCTAVE + index / PER_OCTAVE;
        (PER_OCTAVE + index % PER_OCTAVE + 1) as u64 * (1 << (octave - 2))
    }

    pub(super) fn counts(&self) -> [u64; BUCKETS] {
        std::array::from_fn(|i| self.counts[i].get())
    }
}

/// What one thread counts of one member.
#[derive(Debug, Default)]
pub(super) struct MemberCounters {
    pub requests: Counter,
    pub failed: Counter,
    pub retried: Counter,
    pub connects: Counter,
    pub bytes_sent: Counter,
    pub bytes_received: Counter,
    /// By the first digit of the status; interim replies are not counted.
    replies: [Counter; CLASSES.len()],
    pub first_byte: Histogram,
    /// Until when the thread leaves it out because it answers 5xx: a moment, in microseconds; 0: it does not.
    pub left_out_until_us: AtomicU64,
}

impl MemberCounters {
    pub(super) fn replied(&self, status: u16) {
        if let Some(class) = self.replies.get(usize::from(status / 100).wrapping_sub(1)) {
            class.add(1);
        }
    }

    fn replies(&self) -> [u64; CLASSES.len()] {
        std::array::from_fn(|class| self.replies[class].get())
    }
}

/// What one thread counts of one group.
#[derive(Debug, Default)]
pub(super) struct GroupCounters {
    pub connections: Counter,
    pub requests: Counter,
    pub retried: Counter,
    pub parked: Counter,
    pub failed: [Counter; Failure::ALL.len()],
}

impl GroupCounters {
    pub(super) fn fail(&self, why: Failure) {
        self.failed[why as usize].add(1);
    }
}

/// One bucket of a histogram: how many samples lie below `below_us` and above the bucket before. `None` = no upper bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub below_us: Option<u64>,
    pub count: u64,
}

/// What the router counted of one member, over all threads.
#[derive(Clone, Debug)]
pub struct MemberStats {
    pub member: MemberId,
    pub requests: u64,
    pub failed: u64,
    pub retried: u64,
    pub connects: u64,
    /// Bytes of requests, to the member.
    pub bytes_sent: u64,
    /// Bytes of replies, from the member.
    pub bytes_received: u64,
    /// By class of status, in the order of [`CLASSES`].
    pub replies: [u64; CLASSES.len()],
    pub in_flight: usize,
    /// Left out by every thread because it is down, or by one because it answers 5xx.
    pub ejected: bool,
    /// Time to the first byte of a reply; buckets without samples are left out.
    pub first_byte: Vec<Bucket>,
    pub first_byte_sum_us: u64,
}

/// How one member that requests go to answers, over all threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    pub member: MemberId,
    /// It is the one hot member of its group.
    pub exclusive: bool,
    pub replies: u64,
    /// Of those, 5xx.
    pub errors: u64,
    /// Until when a thread leaves it out for answering 5xx; it may have passed.
    pub left_out_until: Option<Mono>,
}

impl Answers {
    pub(super) fn of<'a>(member: &MemberId, exclusive: bool, threads: impl Iterator<Item = &'a Arc<MemberCounters>>) -> Self {
        let mut answers = Self { member: member.clone(), exclusive, replies: 0, errors: 0, left_out_until: None };
        for counters in threads {
            let replies = counters.replies();
            answers.replies += replies.iter().sum::<u64>();
            answers.errors += replies[CLASSES.len() - 1];
            let until = counters.left_out_until_us.load(Ordering::Relaxed);
            answers.left_out_until = answers.left_out_until.max((until > 0).then_some(Mono(until)));
        }
        answers
    }
}

/// What the router counted of one group, over all threads.
#[derive(Clone, Debug)]
pub struct GroupStats {
    pub group: GroupName,
    pub epoch: Epoch,
    pub connections: u64,
    pub connections_now: usize,
    pub requests: u64,
    pub retried: u64,
    pub parked: u64,
    pub parked_now: usize,
    pub parked_bytes_now: u64,
    pub failed: Vec<(Failure, u64)>,
    pub members: Vec<MemberStats>,
}

impl MemberStats {
    pub(super) fn new(member: MemberId) -> Self {
        Self {
            member,
            requests: 0,
            failed: 0,
            retried: 0,
            connects: 0,
            bytes_sent: 0,
            bytes_received: 0,
            replies: [0; CLASSES.len()],
            in_flight: 0,
            ejected: false,
            first_byte: (0..BUCKETS).map(|i| Bucket { below_us: (i + 1 < BUCKETS).then(|| Histogram::upper_us(i)), count: 0 }).collect(),
            first_byte_sum_us: 0,
        }
    }

    /// Adds what one thread counted.
    pub(super) fn add(&mut self, counters: &MemberCounters) {
        self.requests += counters.requests.get();
        self.failed += counters.failed.get();
        self.retried += counters.retried.get();
        self.connects += counters.connects.get();
        self.bytes_sent += counters.bytes_sent.get();
        self.bytes_received += counters.bytes_received.get();
        self.replies.iter_mut().zip(counters.replies()).for_each(|(sum, count)| *sum += count);
        self.first_byte_sum_us += counters.first_byte.sum_us.get();
        for (bucket, count) in self.first_byte.iter_mut().zip(counters.first_byte.counts()) {
            bucket.count += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_lies_in_its_bucket() {
        for us in [1, 15, 16, 17, 19, 20, 1_000, 50_000, 999_999, u64::MAX] {
            let index = Histogram::index(us);
            if index + 1 < BUCKETS {
                assert!(us < Histogram::upper_us(index), "{us}");
            }
            assert!(index == 0 || us >= Histogram::upper_us(index - 1), "{us}");
        }
    }
}
