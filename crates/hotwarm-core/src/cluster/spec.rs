//! The cluster as configured: what the core needs of the configuration file, beside its text.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::group::GroupSpec;
use crate::ids::{GroupName, NodeId};

/// The configuration as it enters the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterSpec {
    pub name: String,
    pub lease_ms: u64,
    pub nodes: BTreeMap<NodeId, NodeSpec>,
    pub groups: BTreeMap<GroupName, GroupSpec>,
    /// The file's text, from which the adapters read their part.
    pub text: String,
}

/// One node as configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    pub address: SocketAddr,
    /// Votes; false for an edge node.
    pub votes: bool,
    /// Votes, hosts nothing, leads only to bring another level (S19).
    pub witness: bool,
    pub zone: String,
}
