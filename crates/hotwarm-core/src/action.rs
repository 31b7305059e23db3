//! What a node tells its members' engines to do, and what it hears back: the vocabulary between the core and the engines.
//!
//! Every action carries the epoch it belongs to; an engine refuses an older one. Every event names the incarnation it is about (S4).

use serde::{Deserialize, Serialize};

use crate::ids::{Attempt, Epoch, Incarnation, Mono, Position, Role};

/// Told to the engine of one member. Level-triggered: the same action may be told again and must then confirm again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EngineAction {
    /// Start it in no serving role (warm). Answer: [`MemberEvent::Started`], or `Stopped` with the cause.
    Start { epoch: Epoch },
    /// End it: with grace, or at once. Answer: `Stopped` once nothing of it is left (S5).
    Stop { graceful: bool },
    /// Make it hot for `epoch`. Answer: `RoleChanged` or `RoleFailed`.
    Promote { epoch: Epoch, attempt: Attempt },
    /// Make it warm. Answer: `RoleChanged` or `RoleFailed`.
    Demote { epoch: Epoch },
    /// It must not serve for any epoch before `epoch`, whatever that takes. Answer: `Stopped`, or `Fenced` where a hook confirms.
    Fence { epoch: Epoch },
    /// Cut it from the hot member's data and report how far it has come. Answer: `Position`.
    Detach { epoch: Epoch, attempt: Attempt },
    /// Follow the hot member of `epoch` again.
    Follow { epoch: Epoch },
    /// The member's tree is killed when this moment of the node's clock passes; `None` lifts it. No answer.
    Deadline { until: Option<Mono> },
}

/// Heard from the engine or the probe of one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberEvent {
    /// It runs (not yet: answers). Sent also for one that ran before the agent did and was adopted, with the role it was last told.
    Started {
        incarnation: Incarnation,
        role: Role,
        epoch: Epoch,
    },
    /// Nothing of this incarnation is left.
    Stopped {
        incarnation: Incarnation,
        cause: StopCause,
    },
    /// The probe's verdict changed: it answers.
    Ready {
        incarnation: Incarnation,
    },
    /// The probe's verdict changed: it does not answer, and why.
    Unready {
        incarnation: Incarnation,
        why: String,
    },
    RoleChanged {
        incarnation: Incarnation,
        role: Role,
        epoch: Epoch,
    },
    RoleFailed {
        incarnation: Incarnation,
        role: Role,
        epoch: Epoch,
        why: String,
    },
    /// A fence hook confirmed that it serves for no epoch before this one.
    Fenced {
        incarnation: Incarnation,
        epoch: Epoch,
    },
    Position {
        incarnation: Incarnation,
        attempt: Attempt,
        position: Position,
    },
}

impl MemberEvent {
    /// The life of the member that the event is about.
    #[must_use]
    pub const fn incarnation(&self) -> Incarnation {
        match self {
            Self::Started { incarnation, .. }
            | Self::Stopped { incarnation, .. }
            | Self::Ready { incarnation }
            | Self::Unready { incarnation, .. }
            | Self::RoleChanged { incarnation, .. }
            | Self::RoleFailed { incarnation, .. }
            | Self::Fenced { incarnation, .. }
            | Self::Position { incarnation, .. } => *incarnation,
        }
    }
}

/// Why a member is not running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopCause {
    /// It ended by itself with this code.
    Exit(i32),
    /// It was ended by this signal, not by us.
    Signal(i32),
    /// We ended it.
    Asked,
    /// Its guard ended it when its deadline passed.
    Deadline,
    /// It could not be started, or ended before it answered its check: the message says why and what to do.
    NotStarted(String),
    /// It was found not to be running when the agent started.
    Absent,
    /// Its engine ended it in order to begin it anew in this role: another life follows, so this end proves nothing about hot ones (S6).
    Renewed { role: Role },
    /// It had answered its check and did so no more: it was ended, so that it can begin anew. The text says what was seen.
    Hung(String),
}

impl StopCause {
    /// True if the end speaks against the member itself: not if it was asked to, nor if it had to end because its node lost the lease.
    #[must_use]
    pub const fn is_failure(&self) -> bool {
        matches!(self, Self::Exit(_) | Self::Signal(_) | Self::NotStarted(_) | Self::Hung(_))
    }
}
