//! What the cluster knows of nodes: silent, heard, lapsed, back, drained.

use super::input::NodeInput;
use super::reason::FencedBy;
use super::spec::Fence;
use super::state::Life;
use super::{Reason, Step};
use crate::ids::{MemberId, NodeId, Role};

impl Step {
    pub(super) fn on_node(&mut self, input: &NodeInput) {
        match input {
            NodeInput::Silent { node } => self.on_silent(node),
            NodeInput::Heard { node } => self.group.nodes.entry(node.clone()).or_default().silent = false,
            NodeInput::Lapsed { node } => self.on_lapsed(node),
            NodeInput::Back { node } => self.on_back(node),
            NodeInput::Drain { node } => self.on_drain_node(node, true),
            NodeInput::Undrain { node } => self.on_drain_node(node, false),
            NodeInput::SelfDoubt { node, why } => self.group.nodes.entry(node.clone()).or_default().doubts_itself = *why,
        }
    }

    pub(super) fn members_on(&self, node: &NodeId) -> Vec<MemberId> {
        self.group.spec.members.iter().filter(|(_, m)| m.node == *node).map(|(id, _)| id.clone()).collect()
    }

    fn on_silent(&mut self, node: &NodeId) {
        self.group.nodes.entry(node.clone()).or_default().silent = true;
        for id in self.members_on(node) {
            self.doubt_begins(&id);
        }
    }

    /// The lease was waited out (S2): the node's router admits nothing, its guards have killed what must not outlive the lease. Only
    /// where a hook alone can tell does the member go on counting as one that may serve.
    fn on_lapsed(&mut self, node: &NodeId) {
        self.group.nodes.entry(node.clone()).or_default().lapsed = true;
        for id in self.members_on(node) {
            self.doubt_begins(&id);
        }
        // S10: a holder that has not seen the end of a pause does not count its lease, so the wait proves nothing.
        if !self.group.lease_suspended(node) {
            self.lease_over(node, &FencedBy::LeaseOut);
        }
    }

    /// Whatever the node's lease covered is over.
    pub(super) fn lease_over(&mut self, node: &NodeId, by: &FencedBy) {
        self.group.open_routers.remove(node);
        self.group.stale_routers.remove(node);
        // A person who vouches for the node vouches also for what only a hook could have told.
        let covered = self.group.spec.fence == Fence::Supervisor || (*by == FencedBy::Vouched && self.group.spec.fence == Fence::Hook);
        if self.group.spec.exclusive && covered {
            for id in self.members_on(node) {
                self.fenced(&id, by.clone());
                // Whether it lives is not known until its node says so again.
                if let Some(member) = self.group.members.get_mut(&id) {
                    member.life = Life::Unknown;
                    member.ready = false;
                    member.failing_from = None;
                    "its node's lease ran out".clone_into(&mut member.why_unready);
                }
            }
        }
    }

    fn on_back(&mut self, node: &NodeId) {
        let view = self.group.nodes.entry(node.clone()).or_default();
        view.lapsed = false;
        view.silent = false;
        // It may admit for the open epoch from its first grant on.
        if self.group.spec.exclusive && !self.group.closed && self.group.spec.routers.contains(node) {
            self.group.open_routers.insert(node.clone());
        }
    }

    fn on_drain_node(&mut self, node: &NodeId, drained: bool) {
        self.group.nodes.entry(node.clone()).or_default().drained = drained;
        for id in self.members_on(node) {
            self.note_drain(&id);
        }
    }

    /// In a group of several hot members, a drained one takes no new requests and has a time to finish; in an exclusive group the
    /// switchover does that.
    pub(super) fn note_drain(&mut self, id: &MemberId) {
        let group = &mut self.group;
        let node_drained = group.node_of(id).is_some_and(|node| group.node(node).drained);
        let until = group.at.plus(group.spec.bounds.drain_ms);
        let restarts = group.leaves_for_restart(id);
        let exclusive = group.spec.exclusive;
        let Some(member) = group.members.get_mut(id) else { return };
        let drained = member.drained || node_drained || restarts;
        if !drained {
            member.draining_until = None;
        } else if !exclusive && member.role == Role::Hot && member.draining_until.is_none() {
            member.draining_until = Some(until);
            // A new epoch: what routers said of an earlier drain says nothing of this one.
            group.epoch = group.epoch.next();
            if !restarts {
                self.because(Reason::HotDrained { member: id.clone() });
            }
            self.tell_open();
        }
    }
}
