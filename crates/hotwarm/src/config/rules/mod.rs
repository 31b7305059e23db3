//! What concerns several keys at once: whether the cluster and its groups can be, and can keep what they promise.
//!
//! Main path: [`judge`] runs every rule; each reports what it finds and none stops the others. A rule must never speak of a hole that reading
//! left: that was reported.

mod addresses;
mod api;
mod cluster;
mod group;

use std::time::Duration;

use hotwarm_core::ids::NodeId;

use super::diagnostic::Findings;
use super::draft::Draft;
use super::model::Config;
use super::units::show_duration;

pub use group::smallest_rto;

/// Runs every rule over `draft`, read for `node` if it is known.
pub(super) fn judge(draft: &Draft<'_>, node: Option<&NodeId>, findings: &mut Findings) {
    cluster::judge(draft, node, findings);
    api::judge(draft, findings);
    addresses::judge(draft, findings);
    for group in &draft.groups {
        group::judge(draft, group, findings);
    }
}

/// Runs the rules about this machine for the node `node`, which is `here` if that is known.
pub(super) fn judge_here(draft: &Draft<'_>, node: Option<&NodeId>, here: Option<&NodeId>, findings: &mut Findings) {
    cluster::data_here(draft, node.or(here), findings);
    // Another machine has tokens and certificates of its own, and none where it is no node.
    if let Some(here) = here.filter(|here| node.is_none_or(|node| node == *here)) {
        api::judge_here(draft, here, false, findings);
    }
}

/// Runs the rules about what this machine's disk, of which `sync` was measured, cannot keep.
pub(super) fn judge_disk(draft: &Draft<'_>, sync: Duration, findings: &mut Findings) {
    for group in &draft.groups {
        group::judge_disk(draft, group, sync, findings);
    }
}

/// What `check` says of each objective that is kept, and of what it stands for; `sync` of this machine's disk, or why it was not measured.
pub(super) fn objectives(config: &Config, sync: &Result<Duration, String>) -> Vec<String> {
    let (lease, heartbeat) = (config.cluster.lease, config.cluster.heartbeat);
    let mut notes = Vec::new();
    for group in config.groups.values() {
        let name = &group.name;
        if let Some(rto) = group.objective.rto {
            let configured = smallest_rto(lease, heartbeat, group.mode.exclusive);
            let measured = match sync {
                _ if !group.mode.exclusive => "no disk is waited for".to_owned(),
                Ok(sync) => format!(
                    "with the syncs of this machine's disk, {} each as measured, {}",
                    group::show_sync(*sync),
                    show_duration(group::smallest_rto_here(configured, *sync))
                ),
                Err(why) => format!("the disk was not measured: {why}"),
            };
            let (rto, configured) = (show_duration(rto), show_duration(configured));
            notes.push(format!("{name}: rto {rto}; the smallest is {configured} by lease and heartbeat; {measured}"));
        }
        if group.objective.false_failovers.is_some() {
            let most = group.failovers_per_hour;
            notes.push(format!(
                "{name}: nothing is derived from false_failovers; what bounds failovers for doubt is failovers_per_hour, here {most}"
            ));
        }
    }
    notes
}

/// Runs the rules about what a node that is about to run lacks on this machine.
pub(super) fn judge_start(draft: &Draft<'_>, node: Option<&NodeId>, findings: &mut Findings) {
    let own = draft.own_name().map(|own| own.value);
    if let Some(node) = node.or(own.as_ref()) {
        api::judge_here(draft, node, true, findings);
    }
}

/// `lease` must span several heartbeats, or one lost packet ends it.
const HEARTBEATS_PER_LEASE: u32 = 4;

/// The part of a span that clocks may drift, and what a verdict may be late: used in the wait for a lease (S2).
const DRIFT_DIVISOR: u32 = 100;

/// The wait for a silent node's lease: its length with drift.
fn lease_wait(lease: Duration) -> Duration {
    lease + lease / DRIFT_DIVISOR
}
