//! Random faults, orders and delays in the little world: promise 1 and S22 at every moment, service when the faults are over.

use std::collections::BTreeMap;

use hotwarm_core::action::StopCause;
use hotwarm_core::group::GroupSpec;
use hotwarm_core::group::input::{Body, NodeInput, Operator, Testimony};
use hotwarm_core::group::reason::Evidence;
use hotwarm_core::group::spec::{Bounds, Fence, MemberSpec};
use hotwarm_core::ids::{GroupName, MemberId, NodeId};
use proptest::prelude::*;

use crate::world::World;

/// What shapes a group: kept small, so that few inputs reach every phase.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) exclusive: bool,
    pub(crate) members: u8,
    pub(crate) nodes: u8,
    pub(crate) hot: u16,
    pub(crate) warm: u16,
    pub(crate) fence: Fence,
    pub(crate) positions: bool,
    pub(crate) acks: u16,
    pub(crate) failovers_per_hour: u32,
    pub(crate) restarts: bool,
}

pub(crate) fn shape(exclusive: bool) -> impl Strategy<Value = Shape> {
    // Supervised members are the common case, and have most rules.
    let fence = prop_oneof![3 => Just(Fence::Supervisor), 1 => Just(Fence::Hook), 1 => Just(Fence::RouterOnly)];
    let counts = (1u8..=5, 1u8..=5, 1u16..=3, 0u16..=3);
    (counts, fence, any::<bool>(), 0u16..=2, 1u32..=6, any::<bool>()).prop_map(
        move |((members, nodes, hot, warm), fence, positions, acks, failovers_per_hour, restarts)| Shape {
            exclusive,
            members,
            nodes,
            hot: if exclusive { 1 } else { hot },
            // Data is only in members that run: a group that compares positions has no spares.
            warm: if positions && exclusive { u16::from(members) - 1 } else { warm },
            fence,
            positions: positions && exclusive,
            acks: acks.min(u16::from(members) - 1),
            failovers_per_hour,
            // An external member is not started by anybody.
            restarts: restarts && fence == Fence::Supervisor,
        },
    )
}

/// Few members on few nodes, so that faults meet.
fn small() -> impl Strategy<Value = Shape> {
    let fewer = |shape: Shape| {
        let members = shape.members.min(4);
        let warm = if shape.positions { u16::from(members) - 1 } else { shape.warm };
        Shape { members, nodes: shape.nodes.min(3), acks: shape.acks.min(u16::from(members) - 1), warm, ..shape }
    };
    shape(true).prop_map(fewer)
}

pub(crate) fn node(i: u8) -> NodeId {
    NodeId::new(format!("n{i}"))
}

pub(crate) fn member(i: u8) -> MemberId {
    MemberId::new(format!("web/m{i}"))
}

impl Shape {
    pub(crate) fn spec(&self) -> GroupSpec {
        let one = |i: u8| MemberSpec {
            node: node(i % self.nodes),
            address: std::net::SocketAddr::from(([127, 0, 0, 1], 9000 + u16::from(i))),
            priority: i32::from(i % 2),
            weight: 1,
            zone: if i.is_multiple_of(3) { "east".to_owned() } else { String::new() },
        };
        GroupSpec {
            name: GroupName::new("web"),
            hot: self.hot,
            warm: self.warm,
            exclusive: self.exclusive,
            stateful: true,
            members: (0..self.members).map(|i| (member(i), one(i))).collect::<BTreeMap<_, _>>(),
            routers: (0..self.nodes).map(node).collect(),
            fence: self.fence,
            positions: self.positions,
            acks: self.acks,
            bounds: Bounds { failovers_per_hour: self.failovers_per_hour, ..Bounds::default() },
        }
    }
}

/// One thing that happens, and two numbers that say to whom and how.
pub(crate) type Event = (u8, u8, u8);

fn happen(world: &mut World, (kind, a, b): Event, shape: &Shape) -> Result<(), String> {
    let (name, id) = (node(a % shape.nodes), member(a % shape.members));
    // Mostly in order, now and then not.
    let nth = if b % 3 == 0 { usize::from(a) } else { 0 }.checked_rem(world.post.len());
    match kind {
        0..=9 => world.act(&name, [1, 3, usize::MAX, usize::MAX][usize::from(b % 4)])?,
        10..=13 => {
            if let Some(nth) = usize::from(a).checked_rem(world.arrived.len()) {
                let late = world.arrived[world.arrived.len() - 1 - nth].clone();
                world.enter(late, 1)?;
            }
        }
        14..=22 => {
            if let Some(nth) = nth {
                // Now and then it comes twice.
                let body = if b % 8 == 0 { world.post[nth].clone() } else { world.post.remove(nth) };
                world.arrive(body, u64::from(b))?;
            }
        }
        23 => drop(nth.map(|nth| world.post.remove(nth))),
        24 => world.crash(&id),
        25 => world.members.get_mut(&id).into_iter().for_each(|process| process.ready = false),
        26 => world.nodes.get_mut(&name).into_iter().for_each(|node| node.cut = true),
        27 => world.nodes.get_mut(&name).into_iter().for_each(|node| node.cut = false),
        28 => world.expire(&name),
        29 => {
            world.expire(&name);
            world.lapse(&name)?;
        }
        30 => world.back(&name)?,
        31 => world.enter(Body::Node(NodeInput::Silent { node: name }), 1)?,
        32 => world.enter(Body::Node(NodeInput::Heard { node: name }), 1)?,
        33 => {
            let (incarnation, epoch) = (world.now().members[&id].incarnation, world.now().epoch);
            let witness = node(b % shape.nodes);
            let evidence = Evidence::Refused;
            world.enter(Body::Testimony(Testimony::Suspect { member: id, incarnation, epoch, witness, evidence }), 1)?;
        }
        34 => world.enter(Body::Operator(Operator::Switchover { to: (b % 2 == 0).then_some(id) }), 1)?,
        35 => world.enter(Body::Operator(if b % 2 == 0 { Operator::Drain { member: id } } else { Operator::Undrain { member: id } }), 1)?,
        36 => world.enter(Body::Operator(Operator::Pause), 1)?,
        37 => world.enter(Body::Operator(Operator::Resume { force: false }), 1)?,
        38 => {
            let wait_ms = world.now().next_deadline().map_or(1, |at| at.since(world.now().at));
            world.enter(Body::Timer, wait_ms)?;
        }
        39 => world.kill(&id, StopCause::Exit(1)),
        40 => {
            let one = world.now().members.get(&id).map(|m| (id.clone(), m.incarnation));
            let all = world.now().members.iter().map(|(id, m)| (id.clone(), m.incarnation));
            let lives = if b % 3 == 0 { one.into_iter().collect() } else { all.collect() };
            world.enter(Body::Operator(if b % 16 == 1 { Operator::EndRestart } else { Operator::Restart { lives } }), 1)?;
        }
        _ => world.calm(&name, usize::from(b))?,
    }
    world.check()
}

fn live_through(shape: &Shape, events: &[Event]) -> Result<(), String> {
    let mut world = World::new(shape.spec(), shape.restarts);
    if !events.len().is_multiple_of(4) {
        world.heal()?;
    }
    for event in events {
        happen(&mut world, *event, shape)?;
    }
    world.heal()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(1000), max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// S22, S6, S8, S10; and liveness once the faults are over.
    #[test]
    fn one_serves_at_any_instant(shape in small(), events in prop::collection::vec((0u8..49, any::<u8>(), any::<u8>()), 0..240)) {
        if let Err(why) = live_through(&shape, &events) {
            prop_assert!(false, "{}", why);
        }
    }
}

/// `HOTWARM_CASES` asks for more than a build has time for.
pub(crate) fn cases(usual: u32) -> u32 {
    std::env::var_os("HOTWARM_CASES").and_then(|n| n.to_str()?.parse().ok()).unwrap_or(usual)
}
