//! What a node shows of itself: a picture of one moment, for the API.

use std::sync::Arc;
use std::time::Duration;

use super::Node;
use crate::cluster::Cluster;
use crate::detect::{Ailment, Grade};
use crate::ids::{Index, Millis, NodeId};

/// A node at one moment.
#[derive(Clone, Debug)]
pub struct View {
    pub me: NodeId,
    pub cluster: Arc<Cluster>,
    pub leader: Option<NodeId>,
    pub leads: bool,
    pub term: u64,
    pub applied: Index,
    pub commit: Index,
    pub log_now: Millis,
    /// What is left of this node's lease; zero if it holds none.
    pub lease_left: Duration,
    /// Whom it hears without a relay.
    pub heard: Vec<NodeId>,
    /// Nodes of the configuration that it hears to be of another cluster: two may serve the same groups.
    pub strangers: Vec<NodeId>,
    pub grade: Grade,
    pub ailment: Option<Ailment>,
    /// Voters of the control log, by node where known.
    /// While voters are exchanged, those that vote before and after: the exchange cannot end without them.
    pub voters: Vec<NodeId>,
}

impl Node {
    /// The state that this node has applied, and up to which entry.
    #[must_use]
    pub const fn state(&self) -> (&Cluster, Index) {
        (&self.cluster, self.applied)
    }

    /// This node as a replica of the control log, once it is one.
    #[must_use]
    pub fn replica_status(&self) -> Option<crate::consensus::Status> {
        self.replica.as_ref().map(crate::consensus::Replica::status)
    }

    /// Its number as a replica and how it stands in elections, once it is one.
    #[must_use]
    pub fn leadership(&self) -> Option<(crate::ids::RaftId, crate::consensus::Leadership)> {
        self.replica.as_ref().map(|replica| (replica.id(), replica.leadership()))
    }

    /// This node now.
    #[must_use]
    pub fn view(&self) -> View {
        let status = self.replica.as_ref().map(crate::consensus::Replica::status);
        let names = |ids: &[u64]| ids.iter().filter_map(|id| self.peers.name_of(&self.cluster, crate::ids::RaftId(*id))).collect();
        View {
            me: self.options.me.clone(),
            cluster: Arc::clone(self.shown.get_or_init(|| Arc::new(self.cluster.clone()))),
            leader: self.leader(),
            leads: self.lead.is_some(),
            term: status.as_ref().map_or(0, |s| s.leadership.term),
            applied: self.applied,
            commit: Index(status.as_ref().map_or(0, |s| s.commit)),
            log_now: self.log_now(),
            lease_left: self.holder.until().since(self.now),
            heard: self.peers.heard(self.now),
            strangers: self.peers.strangers(self.now),
            grade: self.health.grade(self.now),
            ailment: self.health.ailment(self.now),
            voters: status.map_or_else(Vec::new, |s| names(&settled(&s.voters))),
        }
    }
}

fn settled(voters: &crate::wal::Voters) -> Vec<u64> {
    let both = |id: &&u64| voters.outgoing.is_empty() || voters.outgoing.contains(id);
    voters.voters.iter().filter(both).copied().collect()
}
