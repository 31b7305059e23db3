//! Makes the replicated log real: write-ahead log, snapshots, transport between nodes.
