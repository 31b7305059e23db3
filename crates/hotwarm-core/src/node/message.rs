//! What nodes say to each other, as values and as bytes. The transport authenticates the sender; this gives the bytes their meaning.

use serde::{Deserialize, Serialize};

use crate::cluster::{DecodeError, Item};
use crate::consensus;
use crate::ids::{Index, NodeId, RaftId, Session};

const VERSION: u8 = 1;

/// One message between nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Of the control log of this cluster.
    Log {
        cluster: u128,
        message: Box<consensus::Message>,
    },
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
    /// 0 before the node knows its cluster.
    pub cluster: u128,
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
    /// # Panics
    /// Never: every part of a message can be written.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(postcard::to_allocvec(self).expect("a message holds only what postcard can write"));
        bytes
    }

    /// # Errors
    /// The bytes are no message, or one of a version this program does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match bytes.split_first() {
            Some((&VERSION, rest)) => postcard::from_bytes(rest).map_err(|_| DecodeError::Malformed { what: "message of a node" }),
            Some((&version, _)) => Err(DecodeError::UnknownVersion { what: "message of a node", version }),
            None => Err(DecodeError::Malformed { what: "message of a node" }),
        }
    }
}
