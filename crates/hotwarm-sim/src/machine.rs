//! A machine: clock, disk, router, and the agent that drives [`hotwarm_core::node::Node`] on it.

use hotwarm_core::ids::{Mono, NodeId};
use hotwarm_core::node::Node;

use crate::clock::Clock;
use crate::disk::Disk;
use crate::event::Event;
use crate::router::Table;

/// What does not run though it is not dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Paused {
    #[default]
    No,
    /// The agent alone was stopped.
    Agent,
    /// The whole machine stands still; its clock goes on.
    Machine,
}

/// See the module.
#[derive(Debug)]
pub struct Machine {
    pub name: NodeId,
    pub clock: Clock,
    pub powered: bool,
    pub agent: Option<Box<Node>>,
    /// Counts the lives of the agent.
    pub life: u32,
    pub paused: Paused,
    /// What came while it was paused, in order.
    pub held: Vec<Event>,
    /// It has just gone on: so many inputs more belong to the burst that its decision thread takes before it does anything.
    pub burst: u32,
    pub disk: Disk,
    /// The newest behaviour that its program has (S17).
    pub behaviour: u32,
    pub incarnation: u128,
    /// The one-use right to found the cluster.
    pub may_found: bool,
    /// Its agent is to run, unless a fault prevents that.
    pub wanted: bool,
    pub lease_until: Mono,
    pub tables: Vec<Table>,
    /// What comes to it is this much later, and its timers too.
    pub slow_us: u64,
    /// What is sent to it takes so much longer, at most.
    pub late_us: u64,
    /// Its disk loses, at a crash, the next batch that it says is synced.
    pub disk_lies: bool,
    pub wake_at: u64,
    /// Faults that keep the agent from running.
    pub kept_down: u16,
    pub members: Vec<usize>,
}

impl Machine {
    #[must_use]
    pub const fn runs(&self) -> bool {
        self.powered && self.agent.is_some()
    }
}
