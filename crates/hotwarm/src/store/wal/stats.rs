//! What the write-ahead log has done, and how long its last syncs took: evidence for the node's own health.
//!
//! Must never slow a commit. The main path enters at [`Shared::began`] and [`Shared::ended`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hotwarm_core::ids::Mono;
use hotwarm_core::wal::LogId;

use crate::clock;

/// How many of the last latencies are kept.
const KEPT: usize = 128;

/// Counters that only grow, and the latencies of the last commits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub commits: u64,
    pub submissions: u64,
    pub bytes: u64,
    pub segments: u64,
    /// Submissions and bytes that wait.
    pub queued: (usize, usize),
    /// Write and sync together, in the order in which they happened.
    pub last: Vec<Duration>,
}

#[derive(Debug, Default)]
pub(crate) struct Shared {
    commits: AtomicU64,
    submissions: AtomicU64,
    bytes: AtomicU64,
    segments: AtomicU64,
    /// When the commit under way began, in microseconds of [`clock::now`]; 0 when there is none.
    began_us: AtomicU64,
    last: Mutex<Vec<Duration>>,
    pinning: Mutex<Vec<LogId>>,
}

impl Shared {
    pub(crate) fn began(&self) {
        self.began_us.store(clock::now().0.max(1), Ordering::SeqCst);
    }

    pub(crate) fn ended(&self, submissions: usize, bytes: usize) {
        let began = Mono(self.began_us.swap(0, Ordering::SeqCst));
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let at = self.commits.fetch_add(1, Ordering::Relaxed) as usize % KEPT;
        let latency = clock::now().since(began);
        if last.len() < KEPT {
            last.push(latency);
        } else {
            last[at] = latency;
        }
        self.submissions.fetch_add(submissions as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn segments(&self, there_are: u64, pinning: Vec<LogId>) {
        self.segments.store(there_are, Ordering::Relaxed);
        *self.pinning.lock().unwrap_or_else(PoisonError::into_inner) = pinning;
    }

    pub(crate) fn pinning(&self) -> Vec<LogId> {
        self.pinning.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn oldest_ms(&self) -> u64 {
        match self.began_us.load(Ordering::SeqCst) {
            0 => 0,
            began => u64::try_from(clock::now().since(Mono(began)).as_millis()).unwrap_or(u64::MAX),
        }
    }

    pub(crate) fn read(&self, queued: (usize, usize)) -> Stats {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let commits = self.commits.load(Ordering::Relaxed);
        let mut stats = Stats {
            commits,
            submissions: self.submissions.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            segments: self.segments.load(Ordering::Relaxed),
            queued,
            last,
        };
        if stats.last.len() == KEPT {
            stats.last.rotate_left(commits as usize % KEPT);
        }
        stats
    }
}
