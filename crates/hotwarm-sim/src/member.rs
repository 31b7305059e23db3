//! A member: its program, the guard over it, the engine that steers it, and the data it keeps.
//!
//! It must keep what real engines promise and nothing more: an older epoch is refused, a role that was told survives the agent, data
//! that was acknowledged survives the program. The program lives on when the agent dies; its guard does too.

use std::collections::{BTreeMap, VecDeque};

use hotwarm_core::ids::{Epoch, MemberId, Mono, Role};

use crate::event::{M, N};
use crate::router::Request;

/// See the module.
#[derive(Clone, Debug)]
pub struct Member {
    pub id: MemberId,
    pub node: N,
    /// Its group's number in the plan.
    pub group: usize,
    pub stateful: bool,
    /// The number of its last life, durable.
    pub life: u64,
    pub program: Option<Program>,
    /// What the engine does now; work of an earlier round is void. Lost with the agent.
    pub round: u64,
    /// What the agent was told of its check.
    pub told_ready: Option<bool>,
    /// The role it was last told and for which epoch, durable before it is carried out.
    pub told: (Role, Epoch),
    pub data: Data,
    pub ill: Ill,
}

/// A life of its program.
#[derive(Clone, Debug)]
pub struct Program {
    pub role: Role,
    pub epoch: Epoch,
    /// It has started up.
    pub up: bool,
    pub hung: bool,
    /// The guard ends it when the node's clock passes this.
    pub deadline: Option<Mono>,
    /// How far each follower is known to have come.
    pub followers: BTreeMap<M, usize>,
    /// Writes that wait for acknowledgements: their positions.
    pub waiting: VecDeque<(usize, Request)>,
}

/// What the member keeps on disk. Each execution of a write is an entry of its own, so the same entry stands behind the same ones.
#[derive(Clone, Debug, Default)]
pub struct Data {
    pub log: Vec<u64>,
    /// It takes nothing from a hot member of an older epoch.
    pub floor: Epoch,
    /// It was hot for that epoch and has not been brought in line with a later one.
    pub was_hot: Option<Epoch>,
}

/// What is wrong with a member for a while.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ill {
    pub cannot_start: bool,
    pub starts_slowly: bool,
    pub cannot_promote: bool,
    pub promotes_never: bool,
}

impl Member {
    #[must_use]
    pub fn new(id: MemberId, node: N, group: usize, stateful: bool) -> Self {
        Self {
            id,
            node,
            group,
            stateful,
            life: 0,
            program: None,
            round: 0,
            told_ready: None,
            told: (Role::Warm, Epoch(0)),
            data: Data::default(),
            ill: Ill::default(),
        }
    }

    /// The program of this life, if it is there.
    pub fn living(&mut self, incarnation: u64) -> Option<&mut Program> {
        (self.life == incarnation).then_some(self.program.as_mut()).flatten()
    }

    /// Whether a check of it succeeds.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.program.as_ref().is_some_and(|program| program.up && !program.hung)
    }
}

impl Program {
    #[must_use]
    pub const fn new(epoch: Epoch) -> Self {
        Self { role: Role::Warm, epoch, up: false, hung: false, deadline: None, followers: BTreeMap::new(), waiting: VecDeque::new() }
    }
}
