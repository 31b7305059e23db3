//! What a node shows of itself: a picture of one moment, for the API.

use std::sync::Arc;
use std::time::Duration;

use super::Node;
use crate::cluster::Cluster;
use crate::detect::{Ailment, Grade};
use crate::ids::{Index, Millis, NodeId, RaftId};

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
    /// Those of them that are heard, this one included if it votes: not who bears a voter's name and has lost its log.
    pub reached: Vec<NodeId>,
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
    pub fn leadership(&self) -> Option<(RaftId, crate::consensus::Leadership)> {
        self.replica.as_ref().map(|replica| (replica.id(), replica.leadership()))
    }

    /// This node now.
    #[must_use]
    pub fn view(&self) -> View {
        let status = self.replica.as_ref().map(crate::consensus::Replica::status);
        let voters: Vec<RaftId> = status.as_ref().map_or_else(Vec::new, |s| settled(&s.voters));
        let name_of = |id: &RaftId| self.peers.name_of(&self.cluster, *id);
        // A number that the state gives to nobody any more is that of a node which was born anew, and votes no more.
        let heard = |id: &&RaftId| self.cluster.node_of(**id).is_some_and(|name| self.peers.is_heard_as_one_of_us(name, self.now));
        let is_reached = |id: &&RaftId| self.my_raft_id() == Some(**id) || heard(id);
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
            reached: voters.iter().filter(is_reached).filter_map(name_of).collect(),
            voters: voters.iter().filter_map(name_of).collect(),
        }
    }
}

fn settled(voters: &crate::wal::Voters) -> Vec<RaftId> {
    let both = |id: &&u64| voters.outgoing.is_empty() || voters.outgoing.contains(id);
    voters.voters.iter().filter(both).map(|id| RaftId(*id)).collect()
}
