//! A node that finds its own state broken says so; in a run that must never happen.

use hotwarm_core::ids::NodeId;

/// Alarms that a fault of the plan can rightly cause: a peer that has joined anew is refused until everybody knows it.
const ALLOWED: &[&str] = &["HW0308"];

pub(super) fn check(node: &NodeId, code: &str, text: &str) -> Option<String> {
    // Records are lost only where a disk lost them, and such a node joins anew before it says a word (S12).
    let lost = text.contains("lost records") || text.contains("lost its disk");
    (lost || !ALLOWED.contains(&code)).then(|| format!("node {node}: {code} {text}"))
}
