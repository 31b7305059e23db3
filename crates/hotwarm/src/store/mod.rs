//! Makes the replicated log real: write-ahead log, data directory, disk-health probe, transport between nodes.
//!
//! It moves bytes; what they mean is decided in `hotwarm-core`. The agent enters at [`dir::DataDir`], [`wal::Wal`],
//! [`disk::DiskProbe`] and [`transport::Transport`].

pub mod dir;
pub mod disk;
pub mod transport;
