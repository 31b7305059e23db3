//! Makes the replicated log real: data directory, write-ahead log, disk-health probe, transport between nodes.
//!
//! It moves bytes; what they mean is decided in `hotwarm-core`. The agent enters at [`dir::DataDir`], [`wal::Wal`],
//! [`disk::DiskProbe`] and [`transport::Transport`].

pub mod dir;
pub mod disk;
pub mod memory;
pub mod transport;
pub mod wal;

use hotwarm_core::wal::{LogId, Record};

use self::wal::NotSubmitted;

/// A write-ahead log as the decision thread sees it: on files ([`wal::Handle`]) or in memory ([`memory::MemoryHandle`]).
pub trait Log: Send + Sync {
    /// Queues records to be persisted together, and returns at once. With `sync` the callback comes when no power cut can take them
    /// back; without, when the kernel has them. Callbacks come in the order of submission.
    ///
    /// # Errors
    /// When the queue is full or the log has ended; the records come back.
    fn submit(&self, token: u64, records: Vec<Record>, sync: bool) -> Result<(), NotSubmitted>;

    /// Queues all the records that make `log` (`Replica::rewrite`), so that what it holds in older segments is no longer needed (S14).
    /// Synced, and called back, like a submission.
    ///
    /// # Errors
    /// When the queue is full or the log has ended; the records come back.
    fn rewrite(&self, token: u64, log: LogId, records: Vec<Record>) -> Result<(), NotSubmitted>;

    /// The logs whose rewrite would free old segments, and is worth it. Ask now and then; rewrite each of them once.
    fn pinning(&self) -> Vec<LogId>;

    /// For how many milliseconds the commit under way has not ended; 0 when there is none.
    fn oldest_ms(&self) -> u64;

    /// Persists what is queued and ends. Submissions after this are refused.
    fn stop(&self);
}
