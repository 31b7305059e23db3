//! S14: a log that is idle keeps no segment of the others from going: what lies on a disk is bounded by what is needed.

/// Segments that the control log needs of itself, where it takes snapshots often, with those that are being left.
const MAX: usize = 12;
/// A log with rarer snapshots needs all its segments in a run of a minute.
const OFTEN: u64 = 150;

pub(super) fn check(node: usize, kept: usize, snapshot_every: u64) -> Option<String> {
    (snapshot_every <= OFTEN && kept > MAX).then(|| format!("node {node} keeps {kept} segments"))
}
