//! What a seed stands for: nodes, groups, timing, network, faults. Everything is drawn here or from the world's stream, nothing elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use hotwarm_core::cluster::{BEHAVIOUR, ClusterSpec, NodeSpec};
use hotwarm_core::group::spec::{Bounds, Fence, GroupSpec, MemberSpec};
use hotwarm_core::ids::{GroupName, MemberId, NodeId};
use hotwarm_core::rng::Rng;

use crate::fault::{Begin, Fault, Kind, Stage, Target};

pub const MS: u64 = 1_000;
pub const SECOND: u64 = 1_000_000;
/// The exclusive group's number.
pub const CLOCK: usize = 1;
/// The behaviour of the program that nodes are upgraded to: nothing differs but its number (S17).
pub const NEWER: u32 = BEHAVIOUR + 1;
/// The number of the group in which several members are hot.
pub const WEB: usize = 0;

/// See the module.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub names: Vec<NodeId>,
    pub spec: ClusterSpec,
    /// In the order of their numbers.
    pub groups: Vec<GroupSpec>,
    pub tick: Duration,
    pub heartbeat: Duration,
    pub rates_ppm: Vec<i64>,
    pub latency_us: u64,
    pub client_us: u64,
    pub snapshot_every: u64,
    pub faults: Vec<Fault>,
    /// When a person asks for a restart of which group's members.
    pub restarts: Vec<(u64, usize)>,
    /// Programs are upgraded to [`NEWER`], some at a restart, the rest at the end.
    pub upgrades: bool,
    /// When the last fault ends at the latest; from then on everything heals.
    pub heal_at: u64,
    /// Everything must serve again by then, and the run ends.
    pub end_at: u64,
}

/// What is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Faults,
    /// No fault at all: no failover may happen.
    Quiet,
}

impl Plan {
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let shape = if seed % 16 == 15 { Shape::Quiet } else { Shape::Faults };
        Self::draw_shape(seed, shape)
    }

    #[must_use]
    pub fn draw_shape(seed: u64, shape: Shape) -> Self {
        let mut rng = Rng::new(seed).split();
        let count = [3, 3, 3, 3, 4, 5, 5, 6, 7][rng.below(9) as usize];
        let names: Vec<NodeId> = ["a", "b", "c", "d", "e", "f", "g"].iter().take(count).map(|n| NodeId::from(*n)).collect();
        let witness = (count > 3 && rng.one_in(3)).then(|| 1 + rng.below(count as u64 - 1) as usize);
        let edges: Vec<usize> = if count > 4 { (0..rng.below(3) as usize).map(|i| count - 1 - i).collect() } else { Vec::new() };
        let hosts: Vec<usize> = (0..count).filter(|n| Some(*n) != witness && !edges.contains(n)).take(5).collect();
        let (tick_ms, beat_ms, lease_ms) = [(30, 100, 1000), (30, 150, 1500), (20, 100, 1000)][rng.below(3) as usize];
        let groups = vec![web(&mut rng, &names, &hosts), clock(&mut rng, &names, &hosts)];
        let node = |n: usize| NodeSpec {
            address: ([127, 0, 0, 1], 7400 + n as u16).into(),
            votes: !edges.contains(&n),
            witness: Some(n) == witness && !edges.contains(&n),
            zone: String::new(),
        };
        let spec = ClusterSpec {
            name: "sim".into(),
            lease_ms,
            nodes: names.iter().enumerate().map(|(n, name)| (name.clone(), node(n))).collect(),
            groups: groups.iter().map(|g| (g.name.clone(), g.clone())).collect(),
            text: String::new(),
        };
        let heal_at = 38 * SECOND;
        let faults = if shape == Shape::Quiet { Vec::new() } else { faults(&mut rng, heal_at, groups[CLOCK].positions) };
        Self {
            seed,
            spec,
            groups,
            tick: Duration::from_millis(tick_ms),
            heartbeat: Duration::from_millis(beat_ms),
            rates_ppm: names.iter().map(|_| rng.between(0, 10_000) as i64 - 5_000).collect(),
            latency_us: [200, 500, 2_000, 5_000][rng.below(4) as usize],
            client_us: rng.between(8, 20) * MS,
            snapshot_every: [40, 150, 2_000][rng.below(3) as usize],
            restarts: if shape == Shape::Quiet { Vec::new() } else { restarts(seed, heal_at) },
            upgrades: shape == Shape::Faults && rng.one_in(3),
            names,
            faults,
            heal_at,
            end_at: 60 * SECOND,
        }
    }
}

fn group(name: &str, names: &[NodeId], hosts: &[usize]) -> GroupSpec {
    let group = GroupName::from(name);
    let members: BTreeMap<MemberId, MemberSpec> = hosts
        .iter()
        .map(|n| {
            let address = ([127, 0, 0, 1], 9000 + *n as u16).into();
            let spec = MemberSpec { node: names[*n].clone(), address, priority: 0, weight: 100, zone: String::new() };
            (MemberId::of(&group, names[*n].as_str()), spec)
        })
        .collect();
    let bounds = Bounds { promote_ms: 2_000, drain_ms: 300, positions_ms: 1_000, failovers_per_hour: 1_000, ..Bounds::default() };
    GroupSpec {
        name: group,
        hot: 1,
        warm: members.len() as u16 - 1,
        exclusive: false,
        stateful: false,
        routers: names.to_vec(),
        members,
        fence: Fence::Supervisor,
        positions: false,
        acks: 0,
        bounds: Bounds { hold_down_ms: 1_000, hold_down_max_ms: 8_000, ..bounds },
    }
}

fn web(rng: &mut Rng, names: &[NodeId], hosts: &[usize]) -> GroupSpec {
    let mut spec = group("web", names, hosts);
    let all = spec.members.len() as u16;
    (spec.hot, spec.warm) = match rng.below(4) {
        0 if all >= 4 => (2, 1),
        1 => (2, 0),
        _ => (all, 0),
    };
    spec
}

fn clock(rng: &mut Rng, names: &[NodeId], hosts: &[usize]) -> GroupSpec {
    let mut spec = group("clock", names, hosts);
    spec.exclusive = true;
    spec.stateful = !rng.one_in(3);
    let all = spec.members.len() as u16;
    if rng.one_in(4) {
        spec.warm = 1;
    }
    if spec.stateful && rng.one_in(2) {
        spec.warm = all - 1;
        spec.positions = true;
        spec.acks = 1 + rng.below(u64::from(all - 1)) as u16;
    }
    spec
}

/// From a stream of their own: what else a seed stands for is the same with them and without.
fn restarts(seed: u64, heal_at: u64) -> Vec<(u64, usize)> {
    let mut rng = Rng::new(seed ^ 0x52_4553_5441_5254).split();
    let count = if rng.one_in(2) { rng.between(1, 3) } else { 0 };
    (0..count).map(|_| (rng.between(4 * SECOND, heal_at - 2 * SECOND), if rng.one_in(3) { WEB } else { CLOCK })).collect()
}

fn faults(rng: &mut Rng, heal_at: u64, positions: bool) -> Vec<Fault> {
    let count = rng.between(5, 9);
    let mut faults: Vec<Fault> = (0..count).map(|_| fault(rng, heal_at, positions)).collect();
    faults.sort_by_key(|fault| fault.at);
    faults
}

fn fault(rng: &mut Rng, heal_at: u64, positions: bool) -> Fault {
    if rng.one_in(4) {
        return sharp(rng, heal_at);
    }
    let kind = Kind::ALL[rng.below(Kind::ALL.len() as u64) as usize];
    let stage = match rng.below(10) {
        4 => Some(Stage::Opened),
        0 => Some(Stage::Draining),
        1 => Some(Stage::Fencing),
        2 if positions => Some(Stage::Choosing),
        3 => Some(Stage::Promoting),
        5 => Some(Stage::Vacant),
        _ => None,
    };
    let begin = stage.map(|stage| match stage {
        Stage::Draining => Begin::Switchover,
        Stage::Vacant => Begin::KillAll,
        Stage::Fencing if rng.one_in(2) => Begin::HangHot,
        Stage::Fencing => Begin::Switchover,
        _ if rng.one_in(3) => Begin::Switchover,
        _ => Begin::KillHot,
    });
    let target = [Target::Anyone, Target::Leader, Target::Hot, Target::Candidate][rng.below(4) as usize];
    let at = if rng.one_in(12) { rng.between(SECOND / 2, 4 * SECOND) } else { rng.between(4 * SECOND, heal_at - 5 * SECOND) };
    let lasts_us = match rng.below(3) {
        0 => rng.between(50 * MS, 900 * MS),
        1 => rng.between(900 * MS, 3 * SECOND),
        _ => rng.between(3 * SECOND, 9 * SECOND),
    };
    Fault { kind, at, stage, target, lasts_us, begin }
}

/// Faults that strike where chance alone would seldom bring them: an old view that lives on while a new member opens.
fn sharp(rng: &mut Rng, heal_at: u64) -> Fault {
    let (kind, stage) = match rng.below(5) {
        0 => (Kind::CutLate, Stage::Draining),
        1 => (Kind::NodeSlow, Stage::Draining),
        2 => (Kind::PairCrashed, Stage::Steady),
        _ => (Kind::AgentKilled, Stage::Opened),
    };
    let begin = match stage {
        Stage::Steady => None,
        Stage::Opened => Some(Begin::SwitchoverSlowDisk),
        _ => Some(Begin::Switchover),
    };
    let at = rng.between(4 * SECOND, heal_at - 5 * SECOND);
    let lasts_us = rng.between(500 * MS, 4 * SECOND);
    Fault { kind, at, stage: Some(stage), target: Target::Anyone, lasts_us, begin }
}
