//! What a step decided. Effects are told and recorded; the work itself is derived from the state by `reconcile`, so that nothing is
//! lost when a process dies between the two.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::reason::Reason;
use crate::ids::{Attempt, Epoch, MemberId};

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// No router admits for this epoch any more.
    Close {
        epoch: Epoch,
    },
    /// This member must not serve for any epoch before this one.
    Fence {
        member: MemberId,
        epoch: Epoch,
    },
    /// New requests wait, those in flight finish.
    Drain {
        epoch: Epoch,
    },
    /// Candidates are cut from the old data and report their position.
    Detach {
        attempt: Attempt,
    },
    Promote {
        member: MemberId,
        epoch: Epoch,
        attempt: Attempt,
    },
    Demote {
        member: MemberId,
        epoch: Epoch,
    },
    /// Routers admit for this epoch, to these members.
    Open {
        epoch: Epoch,
        hot: Vec<MemberId>,
    },
    Start {
        member: MemberId,
    },
    Stop {
        member: MemberId,
    },
    /// Why.
    Because(Reason),
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Close { epoch } => write!(f, "close epoch {epoch}"),
            Self::Fence { member, epoch } => write!(f, "fence {member}: nothing before epoch {epoch}"),
            Self::Drain { epoch } => write!(f, "drain epoch {epoch}: new requests wait"),
            Self::Detach { attempt } => write!(f, "cut candidates from the old data (attempt {attempt})"),
            Self::Promote { member, epoch, .. } => write!(f, "promote {member} for epoch {epoch}"),
            Self::Demote { member, epoch } => write!(f, "demote {member} before epoch {epoch}"),
            Self::Open { epoch, hot } => {
                let hot: Vec<&str> = hot.iter().map(MemberId::as_str).collect();
                write!(f, "open epoch {epoch}: {}", hot.join(", "))
            }
            Self::Start { member } => write!(f, "start {member}"),
            Self::Stop { member } => write!(f, "stop {member}"),
            Self::Because(reason) => write!(f, "{reason}"),
        }
    }
}
