//! The entries of the control log, as values and as bytes. Frozen by golden bytes: a new kind is a new behaviour version (S17).

use serde::{Deserialize, Serialize};

use super::{ClusterSpec, DecodeError};
use crate::group;
use crate::group::reason::SelfDoubt;
use crate::ids::{GroupName, Millis, NodeId, Session};

const VERSION: u8 = 1;

/// One entry: what happened, stamped by the leader (S18).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub at: Millis,
    /// The leader's wall clock, milliseconds since 1970; 0 if unknown. For people: nothing is decided by it.
    pub wall_ms: u64,
    pub items: Vec<Item>,
}

/// One thing that happened, and who waits to hear what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    pub origin: Option<Origin>,
    pub body: Body,
}

/// A command's sender and its number there, growing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    pub node: NodeId,
    pub number: u64,
}

/// See [`Item`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// The first entry.
    Found {
        cluster: u128,
        spec: Box<ClusterSpec>,
        node: NodeId,
        incarnation: u128,
    },
    /// A new configuration; `revision` is the one it was made from, and it is refused if that is no longer in force.
    Configure {
        spec: Box<ClusterSpec>,
        revision: u64,
    },
    /// A node came with this data directory (S11).
    Admit {
        node: NodeId,
        incarnation: u128,
        behaviour: u32,
    },
    Silent {
        node: NodeId,
        session: Session,
    },
    Heard {
        node: NodeId,
        session: Session,
    },
    /// The lease of that session was waited out (S2).
    Lapsed {
        node: NodeId,
        session: Session,
    },
    /// It is heard again; `session` is the one that lapsed.
    Back {
        node: NodeId,
        session: Session,
    },
    Drain {
        node: NodeId,
    },
    Undrain {
        node: NodeId,
    },
    Behaviour {
        version: u32,
    },
    /// A deadline has passed.
    Timer,
    Group {
        group: GroupName,
        body: group::Body,
    },
    /// A node says that it doubts itself for this reason, or no longer.
    SelfDoubt {
        node: NodeId,
        why: Option<SelfDoubt>,
    },
}

impl Entry {
    /// # Panics
    /// Never: every part of an entry can be written.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(postcard::to_allocvec(self).expect("an entry holds only what postcard can write"));
        bytes
    }

    /// # Errors
    /// The bytes are no entry, or one of a version this program does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(|_| DecodeError::Malformed { what: "log entry" }),
            Some((&version, _)) => Err(DecodeError::UnknownVersion { what: "log entry", version }),
            None => Err(DecodeError::Malformed { what: "log entry" }),
        }
    }
}
