//! Random entries, configurations among them: what a group knows of nodes is what the cluster knows, nobody waits for a node that has
//! nothing to give up, and no epoch is used twice.

use proptest::prelude::*;

use super::*;
use crate::group::input::{Life as Told, Operator};
use crate::group::reason::SelfDoubt;
use crate::group::state::{NodeView, Pause};

const NODES: [&str; 4] = ["a", "b", "c", "d"];

/// One entry: its kind, whom it is about, and how.
type Event = (u8, u8, u8);

fn name(a: u8) -> NodeId {
    NODES[usize::from(a) % NODES.len()].into()
}

/// The nodes whose bits are set in `a`, and the group, unless `b` leaves it out, with members on those whose bits are set in `b`.
fn configured(a: u8, b: u8, fence: Fence) -> Box<ClusterSpec> {
    let chosen = |bits: u8| NODES.iter().enumerate().filter(move |(i, _)| bits & (1 << i) != 0).map(|(_, n)| *n);
    let names: Vec<&str> = chosen(a | 1).collect();
    let mut spec = with_exclusive(&names, fence);
    let members: Vec<&str> = chosen(b | 1).filter(|n| names.contains(n)).collect();
    let group = spec.groups.get_mut(&"web".into()).expect("the only group");
    let any = group.members.values().next().expect("it has some").clone();
    let member = |n: &&str| (MemberId::of(&"web".into(), n), MemberSpec { node: (*n).into(), ..any.clone() });
    group.members = members.iter().map(member).collect();
    (group.stateful, group.warm) = (true, 3);
    if b.is_multiple_of(4) {
        spec.groups.clear();
    }
    spec
}

/// What a member's node would tell next; mostly that it is better.
fn life(c: &Cluster, (a, b): (u8, u8)) -> Option<group::Body> {
    let id = MemberId::of(&"web".into(), name(a).as_str());
    let member = c.groups.get(&"web".into())?.members.get(&id)?;
    let incarnation = member.incarnation;
    Some(group::Body::Life(match (member.running(), member.ready, b % 8) {
        (false, ..) => Told::Started { member: id, incarnation: incarnation.next() },
        (true, _, 0 | 1) => Told::Stopped { member: id, incarnation, cause: crate::action::StopCause::Signal(9) },
        (true, true, 2) => Told::Unready { member: id, incarnation, why: "no".into() },
        (true, ..) => Told::Ready { member: id, incarnation },
    }))
}

/// What somebody would answer now.
fn answer(c: &Cluster, (a, b): (u8, u8)) -> Option<group::Body> {
    let group = c.groups.get(&"web".into())?;
    let node = name(a);
    let told = group.may_serve().next().map(|(id, told)| (id.clone(), told));
    Some(group::Body::Answer(match (b % 5, told) {
        (0, Some((member, told))) => Answer::Fenced { member, epoch: told.next() },
        (1, Some((member, epoch))) => {
            let incarnation = group.members.get(&member)?.incarnation;
            Answer::Promoted { member, incarnation, epoch, attempt: group.attempt }
        }
        (2, _) => Answer::ResumeSeen { node, resume: group.resumes },
        _ => Answer::RouterClosed { node, epoch: group.closed_epoch },
    }))
}

fn body(c: &Cluster, (kind, a, b): Event, fence: Fence) -> Option<Body> {
    let node = name(a);
    let session = c.nodes.get(&node).map_or(Session(0), |n| n.session);
    Some(match kind {
        0 => Body::Lapsed { node, session },
        1..=4 => Body::Back { node, session },
        5 => Body::Silent { node, session },
        6 => Body::Heard { node, session },
        7 => Body::Drain { node },
        8 => Body::Undrain { node },
        9 | 10 => Body::Configure { spec: configured(a, b, fence), revision: c.revision },
        11 => {
            let operator = if b % 4 == 0 { Operator::Pause } else { Operator::Resume { force: b % 4 == 1 } };
            Body::Group { group: "web".into(), body: group::Body::Operator(operator) }
        }
        12..=22 => Body::Group { group: "web".into(), body: life(c, (a, b))? },
        23..=38 => Body::Group { group: "web".into(), body: answer(c, (a, b))? },
        39 => Body::SelfDoubt { node, why: [None, Some(SelfDoubt::LittleRoom), Some(SelfDoubt::Stalled)][usize::from(b % 3)] },
        _ => Body::Timer,
    })
}

fn check(c: &Cluster) -> Result<(), String> {
    for group in c.groups.values() {
        if let Some(broken) = group::invariants::check(group) {
            return Err(broken);
        }
        for (name, node) in &c.nodes {
            let doubts_itself = c.self_doubts.get(name).copied();
            let known = NodeView { silent: node.silent, lapsed: !node.leased, drained: node.drained, doubts_itself };
            if group.node(name) != known {
                return Err(format!("the group takes node {name} for {:?}, it is {known:?}", group.node(name)));
            }
        }
        let holds = |node: &NodeId| c.nodes.get(node).is_some_and(|n| n.leased);
        let mut waited_for = group.open_routers.iter().chain(&group.stale_routers);
        if let Some(node) = waited_for.find(|node| group.pause == Pause::No && !holds(node)) {
            return Err(format!("the router of {node} is waited for, which holds no lease"));
        }
        let mut may_serve = group.may_serve().filter_map(|(id, _)| group.node_of(id));
        let supervised = group.spec.fence == Fence::Supervisor && group.pause == Pause::No;
        if let Some(node) = may_serve.find(|node| supervised && !holds(node)) {
            return Err(format!("a member of {node} may serve, which holds no lease"));
        }
    }
    Ok(())
}

fn live_through(fence: Fence, events: &[Event]) -> Result<(), String> {
    let mut c = found();
    let mut newest = Epoch(0);
    for event in events {
        if event.0 == 48 {
            c.begin_anew(u128::from(event.1) + 8, &name(event.1), 1);
        } else if let Some(body) = body(&c, *event, fence) {
            let at = c.at.plus(u64::from(event.2) * 20);
            for what in apply(&mut c, at.0, body) {
                let What::Group(Effect::Promote { epoch, .. }) = what else { continue };
                if epoch <= newest {
                    return Err(format!("epoch {epoch} after {newest}"));
                }
                newest = epoch;
            }
        }
        check(&c).map_err(|why| format!("{why}\nafter {event:?}"))?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn groups_know_of_nodes_what_the_cluster_knows_and_wait_for_nobody_that_is_gone(
        fence in prop_oneof![Just(Fence::Supervisor), Just(Fence::Hook), Just(Fence::RouterOnly)],
        events in prop::collection::vec((0u8..50, any::<u8>(), any::<u8>()), 0..200),
    ) {
        if let Err(why) = live_through(fence, &events) {
            prop_assert!(false, "{}", why);
        }
    }
}
