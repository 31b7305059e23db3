//! S14: a log that is idle keeps no segment of the others from going, and a busy one is bounded: so is what lies on a disk.
//!
//! **Segments.** Now and then, when more than [`SEGMENTS`] lie there, every log that needs the oldest of them is written forward whole, to
//! the segment of that moment or later ones. Of the two logs of a node the other may need the second oldest; it is moved the next time, if
//! what was written forward is synced by then. So after two such times nothing older is needed than the segment of the first, less those
//! that are let lie, and what is not needed is gone once all is synced:
//!
//! ```text
//! segments <= SEGMENTS + segments begun since the last time but one
//! ```
//!
//! **What begins segments** meanwhile is what is written forward (a snapshot, and the entries that are not in it) and new entries. Of those
//! that are not in the snapshot fewer than `snapshot_every` are applied when the next is taken. The others come from leaders, and a leader
//! proposes only while fewer than [`IN_FLIGHT_MAX`] entries are not both committed and durable on its own disk. So however long that
//! stalls, its log ends at most [`IN_FLIGHT_MAX`] and [`UNASKED`] entries after what it has applied, or where it ended when its term began.

use hotwarm_core::consensus::{IN_FLIGHT_MAX, ReplicaRole, Status};

use crate::disk::SEGMENTS;
use crate::event::N;

/// What a leader appends unasked: the first entry of its term, and the one that ends a joint change of voters.
const UNASKED: u64 = 2;

#[derive(Debug)]
pub(super) struct Segments {
    nodes: Vec<Disk>,
}

/// What a node did in this life of its agent: of an older one it need not know when its logs were written forward.
#[derive(Clone, Debug, Default)]
struct Disk {
    /// The oldest segment that may be needed after each of the last two occasions and one more.
    floors: [usize; 2],
    /// All was synced since the last occasion, so the next one goes further.
    tidied: bool,
    /// The term it leads in, and the end of its log when that was first seen.
    leads: (u64, u64),
}

impl Segments {
    pub(super) fn new(nodes: usize) -> Self {
        Self { nodes: vec![Disk::default(); nodes] }
    }

    pub(super) fn started(&mut self, n: N) {
        self.nodes[n] = Disk::default();
    }

    pub(super) fn forward(&mut self, n: N, current: usize) {
        let disk = &mut self.nodes[n];
        if std::mem::take(&mut disk.tidied) {
            disk.floors = [disk.floors[1], (current + 1).saturating_sub(SEGMENTS)];
        }
    }

    pub(super) fn tidied(&mut self, n: N, oldest: usize, current: usize) -> Option<String> {
        let disk = &mut self.nodes[n];
        disk.tidied = true;
        let floor = disk.floors[0];
        (oldest < floor).then(|| format!("node {n} keeps segments {oldest} to {current} and needs none before {floor}"))
    }

    /// A sync of this node ended: how its replica stood until then.
    pub(super) fn in_flight(&mut self, n: N, status: &Status) -> Option<String> {
        if status.leadership.role != ReplicaRole::Leader {
            return None;
        }
        let leads = &mut self.nodes[n].leads;
        if leads.0 != status.leadership.term {
            *leads = (status.leadership.term, status.last);
        }
        let most = leads.1.max(status.applied + IN_FLIGHT_MAX) + UNASKED;
        (status.last > most).then(|| format!("node {n} leads, has applied up to {} and proposed up to {}", status.applied, status.last))
    }
}
