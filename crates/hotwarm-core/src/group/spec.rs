//! What the user asked of a group: counts, members, bounds. It changes only by a logged configuration.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::ids::{GroupName, MemberId, NodeId};

/// A group as configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSpec {
    pub name: GroupName,
    /// Members that serve.
    pub hot: u16,
    /// Members kept running and in sync beside them.
    pub warm: u16,
    /// One member serves at a time, of several: leases and fencing apply.
    pub exclusive: bool,
    /// The member must not outlive its node's lease, even if the agent hangs.
    pub stateful: bool,
    pub members: BTreeMap<MemberId, MemberSpec>,
    /// Nodes whose routers open this group's listener.
    pub routers: Vec<NodeId>,
    pub fence: Fence,
    /// Candidates are cut from the old data and report how far they have come before one is chosen.
    pub positions: bool,
    /// How many of the other members acknowledge each write (W); 0 where hotwarm does not keep the data.
    pub acks: u16,
    pub bounds: Bounds,
}

/// One member as configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberSpec {
    pub node: NodeId,
    pub address: SocketAddr,
    /// Higher is preferred as hot.
    pub priority: i32,
    /// Share of the traffic relative to others.
    pub weight: u32,
    pub zone: String,
}

/// What confirms that an old hot member serves no more (S5, S8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fence {
    /// Its supervisor stopped it, or its node's lease was waited out.
    Supervisor,
    /// Only the user's hook can tell; a lease that ran out does not stop it.
    Hook,
    /// Routers send nothing to it; direct clients may still reach it.
    RouterOnly,
}

/// Times and budgets, in milliseconds of log time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// How long a candidate may take to become hot.
    pub promote_ms: u64,
    /// How long a switchover or drain waits for requests in flight.
    pub drain_ms: u64,
    /// How long candidates may take to report their positions.
    pub positions_ms: u64,
    /// The age at which testimony of other nodes no longer counts (S4).
    pub testimony_ms: u64,
    /// First hold-down of a member that lost its role by failing; doubles up to `hold_down_max_ms`.
    pub hold_down_ms: u64,
    pub hold_down_max_ms: u64,
    /// Failovers of live members in an hour, after which a person is asked (S9).
    pub failovers_per_hour: u32,
}

/// What the file says by default is the same: a test of the shell compares them (`hotwarm/src/agent/spec.rs`).
impl Default for Bounds {
    fn default() -> Self {
        Self {
            promote_ms: 10_000,
            drain_ms: 5_000,
            positions_ms: 1_000,
            testimony_ms: 3_000,
            hold_down_ms: 10_000,
            hold_down_max_ms: 600_000,
            failovers_per_hour: 6,
        }
    }
}
