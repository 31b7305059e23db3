//! What waits for one peer: two lanes, each with its own queue and its own connection.
//!
//! Must never block the sender, hold more than its bounds, or let a heartbeat wait behind a snapshot: a message over
//! [`BULK_OVER`] bytes travels on a lane of its own. The main path enters at [`Queue::push`] (decision thread) and [`Queue::drain`].

use std::collections::VecDeque;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::frame;

/// A message longer than this takes the bulk lane.
pub const BULK_OVER: usize = 64 * 1024;
/// How many bytes go to the socket in one write.
const WRITE_BATCH: usize = 256 * 1024;

/// Which of a peer's two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Lane {
    /// Heartbeats, acknowledgements, small appends. The oldest gives way when it is full: newer ones say more.
    Messages,
    /// Snapshots and large appends. The newest is refused when it is full: what is under way is worth most.
    Bulk,
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Messages => "messages",
            Self::Bulk => "bulk",
        })
    }
}

/// How much may wait in one lane.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) messages: usize,
    pub(super) bytes: usize,
    /// What waited longer is dropped instead of sent: its sender has long repeated or replaced it.
    pub(super) age: Duration,
}

impl Bounds {
    pub(super) const fn of(lane: Lane) -> Self {
        match lane {
            Lane::Messages => Self { messages: 4096, bytes: 16 * 1024 * 1024, age: Duration::from_secs(2) },
            Lane::Bulk => Self { messages: 256, bytes: 64 * 1024 * 1024, age: Duration::from_secs(30) },
        }
    }
}

/// Counters of one lane; monotonic but for `connected` and the two gauges.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) connected: AtomicBool,
    pub(super) connects: AtomicU64,
    pub(super) sent_messages: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    pub(super) dropped_full: AtomicU64,
    pub(super) dropped_old: AtomicU64,
    /// Handed to a connection that then broke: they may or may not have arrived.
    pub(super) uncertain: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<(Instant, Vec<u8>)>,
    bytes: usize,
}

/// The bounded queue of one lane of one peer.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) lane: Lane,
    bounds: Bounds,
    waiting: Mutex<Waiting>,
    /// Something to send.
    pub(super) ready: Notify,
    /// The peer is known to be there: dial now, whatever the back-off says.
    pub(super) dial_now: Notify,
    pub(super) counters: Counters,
    /// Why there is no connection, as last told by the dialer.
    pub(super) problem: Mutex<Option<String>>,
}

impl Queue {
    pub(super) fn new(lane: Lane, bounds: Bounds) -> Self {
        Self {
            lane,
            bounds,
            waiting: Mutex::default(),
            ready: Notify::new(),
            dial_now: Notify::new(),
            counters: Counters::default(),
            problem: Mutex::default(),
        }
    }

    /// Takes a message; false when the bulk lane is full and refuses it.
    pub(super) fn push(&self, message: Vec<u8>) -> bool {
        let dropped = {
            let mut waiting = self.lock();
            let mut dropped = 0;
            while waiting.messages.len() >= self.bounds.messages || waiting.bytes + message.len() > self.bounds.bytes {
                if self.lane == Lane::Bulk {
                    self.counters.dropped_full.fetch_add(1, Ordering::Relaxed);
                    return false;
                }
                let Some((_, oldest)) = waiting.messages.pop_front() else { break };
                waiting.bytes -= oldest.len();
                dropped += 1;
            }
            waiting.bytes += message.len();
            waiting.messages.push_back((Instant::now(), message));
            dropped
        };
        self.counters.dropped_full.fetch_add(dropped, Ordering::Relaxed);
        self.ready.notify_one();
        true
    }

    /// Appends what waits to `out` as frames, up to one write's worth; returns the number of messages.
    pub(super) fn drain(&self, out: &mut Vec<u8>) -> u64 {
        let now = Instant::now();
        let (mut taken, mut bytes, mut old) = (Vec::new(), 0, 0);
        let mut waiting = self.lock();
        while bytes < WRITE_BATCH {
            let Some((since, message)) = waiting.messages.pop_front() else { break };
            waiting.bytes -= message.len();
            if now.duration_since(since) > self.bounds.age {
                old += 1;
                continue;
            }
            bytes += message.len();
            taken.push(message);
        }
        // Copying and summing happen outside the lock: the decision thread may be waiting for it.
        drop(waiting);
        for message in &taken {
            frame::encode(out, frame::Kind::Message, message);
        }
        self.counters.dropped_old.fetch_add(old, Ordering::Relaxed);
        taken.len() as u64
    }

    /// Messages and bytes that wait.
    pub(super) fn depth(&self) -> (usize, usize) {
        let waiting = self.lock();
        (waiting.messages.len(), waiting.bytes)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        // A poisoned queue is still a queue: no step under the lock leaves it half changed in a way that matters.
        self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(lane: Lane, messages: usize, bytes: usize) -> Queue {
        Queue::new(lane, Bounds { messages, bytes, age: Duration::from_secs(60) })
    }

    fn frames(queue: &Queue) -> Vec<Vec<u8>> {
        let (mut out, mut reader) = (Vec::new(), frame::Reader::new());
        queue.drain(&mut out);
        reader.space().extend_from_slice(&out);
        std::iter::from_fn(|| reader.next().unwrap().map(|(_, body)| body)).collect()
    }

    #[test]
    fn messages_give_way_oldest_first() {
        let queue = queue(Lane::Messages, 3, 100);
        for n in 0..5u8 {
            assert!(queue.push(vec![n]));
        }
        assert_eq!(queue.depth(), (3, 3));
        assert!(queue.push(vec![9; 99]), "bytes are bounded too");
        assert_eq!(queue.counters.dropped_full.load(Ordering::Relaxed), 4);
        assert_eq!(frames(&queue), [vec![4], vec![9; 99]]);
        assert_eq!(queue.depth(), (0, 0));
    }

    #[test]
    fn bulk_refuses_the_newest() {
        let queue = queue(Lane::Bulk, 2, 100);
        assert!(queue.push(vec![1; 60]));
        assert!(!queue.push(vec![2; 60]));
        assert_eq!(frames(&queue), [vec![1; 60]]);
        assert_eq!(queue.counters.dropped_full.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn the_old_are_dropped_not_sent() {
        let queue = Queue::new(Lane::Messages, Bounds { messages: 9, bytes: 99, age: Duration::ZERO });
        queue.push(vec![1]);
        assert_eq!(frames(&queue), Vec::<Vec<u8>>::new());
        assert_eq!(queue.counters.dropped_old.load(Ordering::Relaxed), 1);
    }
}
