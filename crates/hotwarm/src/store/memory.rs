//! A write-ahead log in memory, for tests of what stands above it.
//!
//! Must never be used for a node that is to survive. It keeps the order and the threads of the real one: records are persisted on a
//! thread of its own, in the order of submission. The main path enters at [`MemoryDisk::open`].

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use hotwarm_core::wal::Record;

use super::Log;
use super::wal::NotSubmitted;
use super::wal::queue::Queue;

/// What outlives the log: open it again after a stop and it is all there.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Arc<Mutex<Vec<Record>>>);

/// An open log in memory; dropping it persists what is queued.
#[derive(Debug)]
pub struct MemoryHandle {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl MemoryDisk {
    /// What was persisted so far, and a log that goes on from there.
    #[must_use]
    pub fn open(&self, persisted: Box<dyn Fn(u64) + Send>) -> (Vec<Record>, MemoryHandle) {
        let queue = Arc::new(Queue::default());
        let (disk, submissions) = (self.clone(), Arc::clone(&queue));
        let run = move || {
            loop {
                let group = submissions.take();
                if group.is_empty() {
                    return;
                }
                for submission in group {
                    disk.records().extend(submission.records);
                    persisted(submission.token);
                }
            }
        };
        let thread = Mutex::new(Some(std::thread::spawn(run)));
        (self.records().clone(), MemoryHandle { queue, thread })
    }

    fn records(&self) -> std::sync::MutexGuard<'_, Vec<Record>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for MemoryHandle {
    fn submit(&self, token: u64, records: Vec<Record>, sync: bool) -> Result<(), NotSubmitted> {
        self.queue.push(token, records, sync)
    }

    fn oldest_ms(&self) -> u64 {
        0
    }

    fn stop(&self) {
        self.queue.close(false);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A callback that panicked has said so; there is nothing to add.
        let _said_already = thread.map(JoinHandle::join);
    }
}

impl Drop for MemoryHandle {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use hotwarm_core::wal::{HardState, LogId};

    use super::*;

    #[test]
    fn what_was_persisted_is_there_again() {
        let disk = MemoryDisk::default();
        let record = |term| Record::HardState(LogId(0), HardState { term, vote: 1, commit: 0 });
        let (tell, told) = channel();
        let (found, log) = disk.open(Box::new(move |token| tell.send(token).unwrap()));
        assert_eq!(found, []);
        (0..50).for_each(|n| log.submit(n, vec![record(n)], true).unwrap());
        log.stop();
        assert!(told.iter().eq(0..50));
        assert!(matches!(log.submit(9, vec![], true), Err(NotSubmitted::Ended(_))));
        let (found, _log) = disk.open(Box::new(|_| {}));
        assert_eq!(found, (0..50).map(record).collect::<Vec<_>>());
    }
}
