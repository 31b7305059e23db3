//! S14: a log that is idle keeps no segment of the others from going: what lies on a disk is bounded by what is needed.

/// Segments that the control log needs of itself, where it takes snapshots often, with those that are being left.
const MAX: usize = 14;
/// Entries after which a snapshot is taken often enough for that; a log with rarer ones needs all its segments in a run of a minute.
pub(crate) const OFTEN: u64 = 40;

pub(super) fn check(node: usize, kept: usize) -> Option<String> {
    (kept > MAX).then(|| format!("node {node} keeps {kept} segments"))
}
