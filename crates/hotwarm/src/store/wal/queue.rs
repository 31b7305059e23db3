//! What waits for the write-ahead-log thread: bounded in number and bytes, taken a group at a time.
//!
//! Must never block who submits. The main path enters at [`Queue::push`] (decision thread) and [`Queue::take`].

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use hotwarm_core::wal::{LogId, Record};

/// Submissions and bytes that may wait.
const SUBMISSIONS: usize = 16 * 1024;
const BYTES: usize = 128 * 1024 * 1024;
/// One group commit takes about so many bytes: more would only make the first of them wait.
const GROUP_BYTES: usize = 4 * 1024 * 1024;

/// Records that are persisted together.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) token: u64,
    pub(crate) records: Vec<Record>,
    pub(crate) sync: bool,
    /// They are all that makes this log, written again.
    pub(crate) rewrites: Option<LogId>,
    pub(crate) bytes: usize,
}

/// Why a submission is not taken; the records come back.
#[derive(Debug, thiserror::Error)]
pub enum NotSubmitted {
    #[error("full queue of the write-ahead log: the disk is slower than the load, submit again later")]
    Full(Vec<Record>),
    #[error("write-ahead log that has ended: restart the node")]
    Ended(Vec<Record>),
}

#[derive(Debug, Default)]
struct Waiting {
    submissions: VecDeque<Submission>,
    bytes: usize,
    closed: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

impl Queue {
    pub(crate) fn push(&self, token: u64, records: Vec<Record>, sync: bool, rewrites: Option<LogId>) -> Result<(), NotSubmitted> {
        let bytes = records.iter().map(size).sum();
        let mut waiting = self.lock();
        if waiting.closed {
            return Err(NotSubmitted::Ended(records));
        }
        // One submission is always taken, however large: else it could never be.
        let full = waiting.submissions.len() >= SUBMISSIONS || waiting.bytes + bytes > BYTES;
        if full && !waiting.submissions.is_empty() {
            return Err(NotSubmitted::Full(records));
        }
        waiting.bytes += bytes;
        waiting.submissions.push_back(Submission { token, records, sync, rewrites, bytes });
        drop(waiting);
        self.changed.notify_one();
        Ok(())
    }

    /// The next group, in order; waits for it. Empty once the queue is closed and everything was taken.
    pub(crate) fn take(&self) -> Vec<Submission> {
        let mut waiting = self.lock();
        while waiting.submissions.is_empty() && !waiting.closed {
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let (mut group, mut bytes) = (Vec::new(), 0);
        while bytes < GROUP_BYTES
            && let Some(submission) = waiting.submissions.pop_front()
        {
            bytes += submission.bytes;
            group.push(submission);
        }
        waiting.bytes -= bytes;
        group
    }

    /// Takes nothing more. What waits is still written, unless `forget`.
    pub(crate) fn close(&self, forget: bool) {
        let mut waiting = self.lock();
        waiting.closed = true;
        if forget {
            waiting.submissions.clear();
            waiting.bytes = 0;
        }
        drop(waiting);
        self.changed.notify_all();
    }

    pub(crate) fn depth(&self) -> (usize, usize) {
        let waiting = self.lock();
        (waiting.submissions.len(), waiting.bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// About what a record takes on the disk.
pub(super) fn size(record: &Record) -> usize {
    const AROUND: usize = 64;
    AROUND
        + match record {
            Record::Entry(_, entry) => entry.data.len() + entry.context.len(),
            Record::Snapshot(_, snapshot) => snapshot.data.len(),
            Record::HardState(..) | Record::Birth(..) => 0,
        }
}
