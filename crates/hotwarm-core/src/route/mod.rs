//! From a group's state to what a router may do: an immutable table, stamped with the epoch, in which the router looks up and which
//! it never changes.
//!
//! The main path: `group` -> [`Routes`] -> the router's table. Choosing among targets is in [`balance`], leaving a target out because
//! of what live traffic showed is in [`outlier`].

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, GroupName, MemberId};

pub mod balance;
pub mod budget;
pub mod outlier;
pub mod slots;

/// Where a group's requests go now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Routes {
    pub group: GroupName,
    pub epoch: Epoch,
    /// True for a group that allows one hot member: a router admits requests and releases replies only under its own lease (S8).
    pub exclusive: bool,
    pub state: RouteState,
}

impl Routes {
    /// The members that requests go to, or finish at.
    #[must_use]
    pub fn targets(&self) -> &[Target] {
        match &self.state {
            RouteState::Open(targets) | RouteState::Draining(targets) => targets,
            RouteState::Held => &[],
        }
    }
}

/// What a router does with a request of the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RouteState {
    /// Requests go to these.
    Open(Vec<Target>),
    /// A switchover is under way: new requests park, those in flight at these targets finish, connections are kept until then.
    Draining(Vec<Target>),
    /// No member may serve: requests park; connections to members are cut.
    Held,
}

/// One hot member as the router sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub member: MemberId,
    pub address: SocketAddr,
    /// Share of the traffic relative to others; 0 takes none but finishes what it has (drained).
    pub weight: u32,
    pub zone: String,
}
