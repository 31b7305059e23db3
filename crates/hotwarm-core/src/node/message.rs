//! What nodes say to each other, as values and as bytes. The transport authenticates the sender; this gives the bytes their meaning.

use serde::{Deserialize, Serialize};

use crate::cluster::{DecodeError, Item};
use crate::consensus;
use crate::ids::{Index, NodeId, RaftId, Session};

/// 2: each says at its end which cluster it is of.
pub const VERSION: u8 = 2;

/// One message between nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Of the control log.
    Log(Box<consensus::Message>),
    Beat(Beat),
    /// The lease asked for by beat `number` is granted, for a holder that has applied `index` (S1).
    Grant {
        number: u64,
        session: Session,
        index: Index,
    },
    /// To be put into the log; sent to its leader.
    Propose {
        items: Vec<Item>,
    },
    /// A node that is no replica yet asks to be one (S11).
    Hello {
        cluster: Option<u128>,
        name: String,
        incarnation: u128,
        behaviour: u32,
    },
    /// It is one now, under this number.
    Welcome {
        cluster: u128,
        incarnation: u128,
        raft_id: RaftId,
    },
    /// To be passed on: the sender does not hear `to`, the receiver does.
    Relay {
        from: NodeId,
        to: NodeId,
        bytes: Vec<u8>,
    },
    /// To one that said hello and of which `incarnation` is the number: which cluster the sender belongs to, if to any (S11).
    Birth {
        incarnation: u128,
        cluster: Option<u128>,
    },
}

/// A node's heartbeat to every other; for the leader it is also the renewal of the node's lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    pub number: u64,
    pub session: Session,
    /// False while the node doubts itself: it is alive and asks for no lease.
    pub renew: bool,
    /// Whom it hears without a relay.
    pub heard: Vec<NodeId>,
    pub behaviour: u32,
    /// Checksum of the state at an index, for peers to compare (S17).
    pub digest: Option<(Index, u32)>,
}

impl Message {
    /// As a member of `cluster` says it; 0 if it belongs to none yet.
    ///
    /// # Panics
    /// Never: every part of a message can be written.
    #[must_use]
    pub fn encode(&self, cluster: u128) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(postcard::to_allocvec(self).expect("a message holds only what postcard can write"));
        bytes.extend(cluster.to_le_bytes());
        bytes
    }

    /// The sender's cluster, and what it says.
    ///
    /// # Errors
    /// The bytes are no message, or one of a version this program does not know.
    pub fn decode(bytes: &[u8]) -> Result<(u128, Self), DecodeError> {
        let malformed = DecodeError::Malformed { what: "message of a node" };
        match bytes.split_first() {
            Some((&VERSION, rest)) => {
                let (message, cluster) = rest.split_last_chunk().ok_or(malformed.clone())?;
                Ok((u128::from_le_bytes(*cluster), postcard::from_bytes(message).map_err(|_| malformed)?))
            }
            Some((&version, _)) => Err(DecodeError::UnknownVersion { what: "message of a node", version }),
            None => Err(malformed),
        }
    }

    /// What the leader of a log says to a replica, or to one that is to be a replica: judged by its term and numbers, not by its name.
    pub(crate) const fn is_of_a_leader(&self) -> bool {
        use consensus::Body::{Append, Heartbeat, Snapshot};
        match self {
            Self::Log(message) => matches!(message.body, Append { .. } | Heartbeat { .. } | Snapshot { .. }),
            Self::Welcome { .. } => true,
            _ => false,
        }
    }

    /// What nodes of several clusters may say to each other: by these a node finds out where it belongs (S11).
    pub(crate) const fn is_for_strangers(&self) -> bool {
        matches!(self, Self::Hello { .. } | Self::Welcome { .. } | Self::Birth { .. })
    }
}
