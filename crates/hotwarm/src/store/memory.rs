//! A write-ahead log in memory, for tests of what stands above it.
//!
//! Must never be used for a node that is to survive. It keeps the order and the threads of the real one: records are persisted on a
//! thread of its own, in the order of submission. The main path enters at [`MemoryDisk::open`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use hotwarm_core::wal::{Encoder, End, LogId, LogState, Record, Replay, ReplayError};

use super::Log;
use super::wal::NotSubmitted;
use super::wal::queue::Queue;

/// Its one segment never fills.
const ENDLESS: u64 = 1 << 40;

/// What outlives the log: open it again after a stop and it is all there, in the bytes that a real disk would hold.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk(Arc<Mutex<Vec<u8>>>);

/// An open log in memory; dropping it persists what is queued.
#[derive(Debug)]
pub struct MemoryHandle {
    queue: Arc<Queue>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl MemoryDisk {
    /// What was persisted so far, and a log that goes on from there. Only one may be open at a time.
    ///
    /// # Errors
    /// When what was persisted does not make whole logs.
    pub fn open(&self, persisted: Box<dyn Fn(u64) + Send>) -> Result<(BTreeMap<LogId, LogState>, MemoryHandle), ReplayError> {
        let mut replay = Replay::new();
        let bytes = self.bytes().clone();
        if !bytes.is_empty() {
            replay.feed("memory", bytes)?;
        }
        let replayed = replay.finish()?;
        let encoder = Encoder::resume(&replayed.end, ENDLESS).unwrap_or_else(|| {
            let (encoder, header) = Encoder::begin(&End::default(), ENDLESS);
            *self.bytes() = header;
            encoder
        });
        let queue = Arc::new(Queue::default());
        let (disk, submissions) = (self.clone(), Arc::clone(&queue));
        let thread = Mutex::new(Some(std::thread::spawn(move || disk.run(encoder, &submissions, &persisted))));
        Ok((replayed.logs, MemoryHandle { queue, thread }))
    }

    fn run(&self, mut encoder: Encoder, submissions: &Queue, persisted: &dyn Fn(u64)) {
        loop {
            let group = submissions.take();
            if group.is_empty() {
                return;
            }
            for submission in group {
                let batch = encoder.encode(&submission.records, &mut self.bytes()).expect("a test's records are small");
                encoder.synced(batch.seq);
                persisted(submission.token);
            }
        }
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for MemoryHandle {
    fn submit(&self, token: u64, records: Vec<Record>, sync: bool) -> Result<(), NotSubmitted> {
        self.queue.push(token, records, sync, None)
    }

    fn rewrite(&self, token: u64, log: LogId, records: Vec<Record>) -> Result<(), NotSubmitted> {
        self.queue.push(token, records, true, Some(log))
    }

    fn pinning(&self) -> Vec<LogId> {
        Vec::new()
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
        let (found, log) = disk.open(Box::new(move |token| tell.send(token).unwrap())).unwrap();
        assert!(found.is_empty());
        (0..50).for_each(|n| log.submit(n, vec![record(n)], true).unwrap());
        log.stop();
        assert!(told.iter().eq(0..50));
        assert!(matches!(log.submit(9, vec![], true), Err(NotSubmitted::Ended(_))));
        for _ in 0..2 {
            let (found, _log) = disk.open(Box::new(|_| {})).unwrap();
            assert_eq!(found[&LogId(0)].hard_state.term, 49);
        }
    }
}
