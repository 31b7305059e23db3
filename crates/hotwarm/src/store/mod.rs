//! Makes the replicated log real: data directory, write-ahead log, disk-health probe, transport between nodes.
//!
//! It moves bytes; what they mean is decided in `hotwarm-core`. The agent enters at [`dir::DataDir`], [`wal::Wal`],
//! [`disk::DiskProbe`] and [`transport::Transport`].

pub mod dir;
pub mod disk;
pub mod memory;
pub mod transport;
pub mod wal;

use hotwarm_core::wal::Record;

use self::wal::NotSubmitted;

/// A write-ahead log as the decision thread sees it: on files ([`wal::Handle`]) or in memory ([`memory::MemoryHandle`]).
pub trait Log: Send + Sync {
    /// Queues records to be persisted together, and returns at once. With `sync` the callback comes when no power cut can take them
    /// back; without, when the kernel has them. Callbacks come in the order of submission.
    ///
    /// # Errors
    /// When the queue is full or the log has ended; the records come back.
    fn submit(&self, token: u64, records: Vec<Record>, sync: bool) -> Result<(), NotSubmitted>;

    /// For how many milliseconds the commit under way has not ended; 0 when there is none.
    fn oldest_ms(&self) -> u64;

    /// Persists what is queued and ends. Submissions after this are refused.
    fn stop(&self);
}
