//! Everything that can happen to a group. Closed: a new kind of input is a new behaviour version (S17).
//!
//! Each input names what it is about precisely enough to be ignored when it is late: incarnation, epoch, attempt, session (S4, S7).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::reason::{Evidence, SelfDoubt};
use super::spec::GroupSpec;
use crate::action::StopCause;
use crate::ids::{Attempt, Epoch, Incarnation, MemberId, Millis, NodeId, Position};

/// One input at its moment of log time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    pub at: Millis,
    pub body: Body,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    Life(Life),
    Testimony(Testimony),
    Answer(Answer),
    Node(NodeInput),
    Operator(Operator),
    Configure(Box<GroupSpec>),
    /// A deadline of the group has passed.
    Timer,
}

/// Told by the member's own node: what its supervisor and its probe saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Life {
    Started {
        member: MemberId,
        incarnation: Incarnation,
    },
    /// Nothing of that incarnation, nor of any before, is left (S5).
    Stopped {
        member: MemberId,
        incarnation: Incarnation,
        cause: StopCause,
    },
    Ready {
        member: MemberId,
        incarnation: Incarnation,
    },
    Unready {
        member: MemberId,
        incarnation: Incarnation,
        why: String,
    },
}

impl Life {
    #[must_use]
    pub const fn member(&self) -> &MemberId {
        match self {
            Self::Started { member, .. } | Self::Stopped { member, .. } | Self::Ready { member, .. } | Self::Unready { member, .. } => {
                member
            }
        }
    }
}

/// Told by any node about a member, from what its router or its detector saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Testimony {
    Suspect { member: MemberId, incarnation: Incarnation, epoch: Epoch, witness: NodeId, evidence: Evidence },
    Clear { member: MemberId, witness: NodeId },
}

/// What became of something the group asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Promoted {
        member: MemberId,
        incarnation: Incarnation,
        epoch: Epoch,
        attempt: Attempt,
    },
    PromoteFailed {
        member: MemberId,
        incarnation: Incarnation,
        epoch: Epoch,
        attempt: Attempt,
        why: String,
    },
    /// It serves for no epoch up to this one and will not by itself.
    Demoted {
        member: MemberId,
        incarnation: Incarnation,
        epoch: Epoch,
    },
    /// It serves for no epoch before this one and will not by itself.
    Fenced {
        member: MemberId,
        epoch: Epoch,
    },
    /// The router of this node admits and releases nothing more for this epoch (S8).
    RouterClosed {
        node: NodeId,
        epoch: Epoch,
    },
    /// The router of this node has no request in flight for this epoch and parks new ones; in a group of several hot members: none at
    /// members that are drained.
    RouterDrained {
        node: NodeId,
        epoch: Epoch,
    },
    Position {
        member: MemberId,
        incarnation: Incarnation,
        attempt: Attempt,
        position: Position,
    },
    /// The holder counts its lease again after a pause (S10); `resume` is the group's number of the resume it has seen.
    ResumeSeen {
        node: NodeId,
        resume: u64,
    },
}

/// What the cluster knows of a node that the group uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeInput {
    /// The leader hears nothing from it.
    Silent {
        node: NodeId,
    },
    Heard {
        node: NodeId,
    },
    /// Its lease was waited out: whatever it held, it holds no more (S2).
    Lapsed {
        node: NodeId,
    },
    /// It is granted leases again.
    Back {
        node: NodeId,
    },
    Drain {
        node: NodeId,
    },
    Undrain {
        node: NodeId,
    },
    /// It doubts itself for this reason, or no longer.
    SelfDoubt {
        node: NodeId,
        why: Option<SelfDoubt>,
    },
}

/// Asked by a person or a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    Switchover {
        to: Option<MemberId>,
    },
    Drain {
        member: MemberId,
    },
    Undrain {
        member: MemberId,
    },
    Pause,
    /// `force`: the person vouches that nodes which do not answer are stopped.
    Resume {
        force: bool,
    },
    /// These lives are to end, one after the other (S4); a new kind of entry (S17).
    Restart {
        lives: BTreeMap<MemberId, Incarnation>,
    },
    /// What is left of a restart is called off.
    EndRestart,
}
