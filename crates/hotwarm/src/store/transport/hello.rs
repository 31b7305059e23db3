//! The first frames of a connection: who dials, whom it wants, of which cluster; and the acceptor's answer.
//!
//! Must never let a connection of another cluster, or for another node, carry a message. The main path enters at [`Hello::check`].

use hotwarm_core::ids::NodeId;
use serde::{Deserialize, Serialize};

use super::lane::Lane;

/// Opens the body of every hello, so that a stranger's bytes are told from a node's.
const MAGIC: [u8; 8] = *b"hotwarm\0";
/// The version of the protocol between nodes.
const PROTOCOL: u16 = 1;

/// What the dialer says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    magic: [u8; 8],
    protocol: u16,
    pub(super) cluster: String,
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) lane: Lane,
}

/// Why a hello is refused; the text goes to the dialer too.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    #[error("first frame that is no hello: the other side is not a hotwarm node")]
    NotHello,
    #[error("protocol {theirs} of node {from} where this node speaks {PROTOCOL}: upgrade hotwarm on the older of the two")]
    Protocol { from: NodeId, theirs: u16 },
    #[error("node {from} of cluster \"{theirs}\" at a node of cluster \"{ours}\": correct the addresses in [cluster] nodes of one of them")]
    Cluster { from: NodeId, theirs: String, ours: String },
    #[error("node {from} wants node {wanted} and reached node {me}: correct the address of {wanted} in [cluster] nodes")]
    Receiver { from: NodeId, wanted: NodeId, me: NodeId },
    #[error("node that calls itself {me} reached the node {me}: two nodes have one name, give each its own (--node)")]
    Myself { me: NodeId },
}

impl Hello {
    pub(super) fn new(cluster: &str, from: &NodeId, to: &NodeId, lane: Lane) -> Self {
        Self { magic: MAGIC, protocol: PROTOCOL, cluster: cluster.to_owned(), from: from.clone(), to: to.clone(), lane }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("a struct of strings and numbers always serializes")
    }

    /// Reads and checks a hello that arrived at node `me` of `cluster`.
    ///
    /// # Errors
    /// When the connection must be refused; the text says what to correct.
    pub(super) fn check(body: &[u8], cluster: &str, me: &NodeId) -> Result<Self, HelloError> {
        let hello: Self = postcard::from_bytes(body).map_err(|_| HelloError::NotHello)?;
        if hello.magic != MAGIC {
            return Err(HelloError::NotHello);
        }
        if hello.protocol != PROTOCOL {
            return Err(HelloError::Protocol { from: hello.from, theirs: hello.protocol });
        }
        if hello.cluster != cluster {
            return Err(HelloError::Cluster { from: hello.from, theirs: hello.cluster, ours: cluster.to_owned() });
        }
        if hello.to != *me {
            return Err(HelloError::Receiver { from: hello.from, wanted: hello.to, me: me.clone() });
        }
        if hello.from == *me {
            return Err(HelloError::Myself { me: me.clone() });
        }
        Ok(hello)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_says_what_to_do() {
        let (a, b) = (NodeId::from("a"), NodeId::from("b"));
        let hello = Hello::new("shop", &a, &b, Lane::Messages);
        assert_eq!(Hello::check(&hello.to_bytes(), "shop", &b), Ok(hello.clone()));
        let refused = |cluster: &str, me: &str| Hello::check(&hello.to_bytes(), cluster, &me.into()).unwrap_err().to_string();
        assert!(refused("bank", "b").contains("cluster \"shop\""));
        assert!(refused("shop", "c").contains("wants node b and reached node c"));
        let twin = Hello::new("shop", &a, &a, Lane::Messages);
        assert_eq!(Hello::check(&twin.to_bytes(), "shop", &a), Err(HelloError::Myself { me: a.clone() }));
        let newer = Hello { protocol: 2, ..hello.clone() };
        assert!(matches!(Hello::check(&newer.to_bytes(), "shop", &b), Err(HelloError::Protocol { theirs: 2, .. })));
        let other = Hello { magic: *b"GET / HT", ..hello };
        assert_eq!(Hello::check(&other.to_bytes(), "shop", &b), Err(HelloError::NotHello));
        assert_eq!(Hello::check(b"GET / HTTP/1.1\r\n", "shop", &b), Err(HelloError::NotHello));
    }
}
