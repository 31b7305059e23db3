//! A node that finds its own state broken says so; in a run that must never happen.

use hotwarm_core::ids::NodeId;

/// Alarms that a fault of the plan can rightly cause: a peer that has joined anew is refused until everybody knows it.
const ALLOWED: &[&str] = &["HW0308"];

pub(super) fn check(node: &NodeId, code: &str, text: &str) -> Option<String> {
    (!ALLOWED.contains(&code)).then(|| format!("node {node}: {code} {text}"))
}
