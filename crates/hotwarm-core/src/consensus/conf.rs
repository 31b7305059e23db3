//! Changes of a log's voters in our own terms, and to and from raft-rs's. Only committed entries ever carry one into effect.

use raft::eraftpb;
use serde::{Deserialize, Serialize};

use crate::ids::RaftId;
use crate::wal::{EntryKind, Voters};

/// One replica added, raised or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// It gets the log and has no vote; a voter named here loses its vote.
    AddLearner(RaftId),
    AddVoter(RaftId),
    Remove(RaftId),
}

impl Change {
    /// The replica that the change is about.
    #[must_use]
    pub const fn id(self) -> RaftId {
        match self {
            Self::AddLearner(id) | Self::AddVoter(id) | Self::Remove(id) => id,
        }
    }
}

/// A change of a log's voters, as it stands in the data of a [`EntryKind::ConfChange`] entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConfChange {
    /// One step; safe because any two majorities of the old and the new voters meet.
    Simple(Change),
    /// Several changes at once through a joint configuration, which the leader ends by itself.
    Joint(Vec<Change>),
}

/// Changes in one [`ConfChange`], at most.
const CHANGES_MAX: usize = 64;

impl ConfChange {
    /// From the data of a committed entry; `None` if it is not one of ours. Empty data is the end of a joint configuration.
    #[must_use]
    pub fn decode(data: &[u8]) -> Option<Self> {
        let (change, rest) = postcard::take_from_bytes::<Self>(data).ok()?;
        (rest.is_empty() && change.is_plausible()).then_some(change)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("a change of voters always encodes into memory")
    }

    pub(super) fn is_plausible(&self) -> bool {
        match self {
            Self::Simple(change) => change.id().0 != 0,
            Self::Joint(changes) => (1..=CHANGES_MAX).contains(&changes.len()) && changes.iter().all(|change| change.id().0 != 0),
        }
    }

    pub(super) fn to_raft(&self) -> eraftpb::ConfChangeV2 {
        let mut raft = eraftpb::ConfChangeV2::default();
        let changes = match self {
            Self::Simple(change) => std::slice::from_ref(change),
            Self::Joint(changes) => {
                // Explicit about the joint configuration even for one change: the entry says what happens, not its length.
                raft.set_transition(eraftpb::ConfChangeTransition::Implicit);
                changes
            }
        };
        raft.set_changes(changes.iter().map(single).collect::<Vec<_>>().into());
        raft
    }
}

fn single(change: &Change) -> eraftpb::ConfChangeSingle {
    let mut raft = eraftpb::ConfChangeSingle { node_id: change.id().0, ..eraftpb::ConfChangeSingle::default() };
    raft.set_change_type(match change {
        Change::AddLearner(_) => eraftpb::ConfChangeType::AddLearnerNode,
        Change::AddVoter(_) => eraftpb::ConfChangeType::AddNode,
        Change::Remove(_) => eraftpb::ConfChangeType::RemoveNode,
    });
    raft
}

/// What a committed entry of kind [`EntryKind::ConfChange`] tells raft-rs to do; `None` for data of nobody's.
pub(super) fn committed_change(data: &[u8]) -> Option<eraftpb::ConfChangeV2> {
    if data.is_empty() {
        return Some(eraftpb::ConfChangeV2::default());
    }
    ConfChange::decode(data).map(|change| change.to_raft())
}

/// Whether an entry from a peer carries what its kind says.
pub(super) fn is_plausible_data(kind: EntryKind, data: &[u8]) -> bool {
    kind == EntryKind::Normal || committed_change(data).is_some()
}

pub(super) fn voters_to_raft(voters: &Voters) -> eraftpb::ConfState {
    let mut raft = eraftpb::ConfState::default();
    raft.set_voters(voters.voters.clone());
    raft.set_learners(voters.learners.clone());
    raft.set_voters_outgoing(voters.outgoing.clone());
    raft.set_learners_next(voters.learners_next.clone());
    raft.auto_leave = voters.auto_leave;
    raft
}

/// Sorted, because raft-rs gives them in the order of a hash map.
pub(super) fn voters_from_raft(mut raft: eraftpb::ConfState) -> Voters {
    let sorted = |mut ids: Vec<u64>| {
        ids.sort_unstable();
        ids
    };
    Voters {
        voters: sorted(raft.take_voters()),
        learners: sorted(raft.take_learners()),
        outgoing: sorted(raft.take_voters_outgoing()),
        learners_next: sorted(raft.take_learners_next()),
        auto_leave: raft.auto_leave,
    }
}

/// Whether raft-rs can take these voters without a panic: no id twice or zero, sets disjoint where it needs them so.
pub(super) fn is_plausible_voters(voters: &Voters) -> bool {
    let Voters { voters: incoming, learners, outgoing, learners_next, auto_leave } = voters;
    let sound = |ids: &[u64]| {
        let mut sorted = ids.to_vec();
        sorted.sort_unstable();
        !sorted.contains(&0) && sorted.windows(2).all(|pair| pair[0] != pair[1])
    };
    let apart = |a: &[u64], b: &[u64]| a.iter().all(|id| !b.contains(id));
    [incoming, learners, outgoing, learners_next].into_iter().all(|ids| sound(ids))
        && !incoming.is_empty()
        && apart(learners, incoming)
        && apart(learners, outgoing)
        && apart(learners_next, incoming)
        && learners_next.iter().all(|id| outgoing.contains(id))
        && (!auto_leave || !outgoing.is_empty())
}
