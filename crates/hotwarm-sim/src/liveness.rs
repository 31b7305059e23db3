//! After the faults everything must serve again: what is still missing, in words.

use hotwarm_core::ids::Role;
use hotwarm_core::route::RouteState;

use crate::plan::{NEWER, SECOND};
use crate::world::World;

/// Everything must serve so soon after the faults.
pub const BOUND_US: u64 = 20 * SECOND;

/// The first thing that does not serve as it should; `None` if all does.
#[must_use]
pub fn missing(world: &World) -> Option<String> {
    let plan = &world.plan;
    for (n, machine) in world.machines.iter().enumerate() {
        let Some(node) = &machine.agent else { return Some(format!("node {} does not run", machine.name)) };
        let (cluster, _) = node.state();
        let Some(mine) = cluster.nodes.get(&machine.name) else { return Some(format!("node {} is in no cluster", machine.name)) };
        if !mine.leased || mine.silent || machine.clock.at(world.now) >= machine.lease_until {
            return Some(format!("node {} has no lease", machine.name));
        }
        for (g, spec) in plan.groups.iter().enumerate() {
            let table = &world.machines[n].tables[g];
            let serving = match table.routes.as_ref().map(|routes| &routes.state) {
                Some(RouteState::Open(targets)) => targets.len(),
                _ => 0,
            };
            if serving != usize::from(spec.hot) {
                return Some(format!("router {} has {serving} of {} hot members of {}", machine.name, spec.hot, spec.name));
            }
        }
    }
    let behaves = |machine: &crate::machine::Machine| machine.agent.as_ref().is_some_and(|node| node.state().0.behaviour == NEWER);
    if plan.upgrades && !world.machines.iter().all(behaves) {
        return Some(format!("behaviour {NEWER} is not in force, though every program has it (S17)"));
    }
    voters(world).or_else(|| members(world)).or_else(|| restarts(world))
}

fn voters(world: &World) -> Option<String> {
    let wanted = world.plan.spec.nodes.values().filter(|node| node.votes).count();
    let views = world.machines.iter().filter_map(|m| m.agent.as_deref());
    let leads = |n: &&hotwarm_core::node::Node| n.leadership().is_some_and(|(_, l)| l.role == hotwarm_core::consensus::ReplicaRole::Leader);
    let Some(leader) = views.filter(leads).max_by_key(|n| n.leadership().map(|(_, l)| l.term)) else {
        return Some("nobody leads".to_owned());
    };
    let view = leader.state().0.nodes.values().find(|node| Some(leader.leadership().map(|(id, _)| id)) == Some(node.raft_id));
    if view.is_some_and(|node| node.spec.witness) {
        return Some("a witness leads (S19)".to_owned());
    }
    let status = leader.replica_status()?;
    let (voters, learners) = (&status.voters.voters, &status.voters.learners);
    let edges = world.machines.len() - wanted;
    (voters.len() != wanted || learners.len() != edges)
        .then(|| format!("voters {voters:?} and learners {learners:?}, not {wanted} and {edges}"))
}

/// All are well: a restart goes on to its end.
fn restarts(world: &World) -> Option<String> {
    let newest = world.machines.iter().filter_map(|m| m.agent.as_deref()).max_by_key(|node| node.state().1)?;
    newest.state().0.groups.values().find_map(|group| {
        let restart = group.restart.as_ref().filter(|restart| restart.stopped.is_none())?;
        Some(format!("a restart of {} is not over: {restart:?}", group.spec.name))
    })
}

fn members(world: &World) -> Option<String> {
    for spec in &world.plan.groups {
        let of_group = world.members.iter().filter(|m| m.id.group() == spec.name);
        let answering = of_group.filter(|m| m.answers()).count();
        let wanted = usize::from(spec.hot) + usize::from(spec.warm);
        if answering < wanted {
            return Some(format!("{answering} of {wanted} members of {} answer", spec.name));
        }
        if spec.exclusive && spec.stateful {
            let hot = world.members.iter().filter(|m| m.id.group() == spec.name);
            let hot = hot.filter(|m| m.program.as_ref().is_some_and(|p| p.role == Role::Hot)).count();
            if hot != 1 {
                return Some(format!("{hot} members of {} are hot", spec.name));
            }
        }
    }
    None
}

/// How every node and member stands, for the trace of a failure.
#[must_use]
pub fn picture(world: &World) -> Vec<String> {
    let mut lines = Vec::new();
    for machine in &world.machines {
        let now = machine.clock.at(world.now);
        let Some(node) = &machine.agent else {
            lines.push(format!(
                "{}: down (powered {}, kept down {}, full {})",
                machine.name, machine.powered, machine.kept_down, machine.disk.full
            ));
            continue;
        };
        let view = node.view();
        lines.push(format!(
            "{}: leads {} leader {:?} term {} applied {} commit {} lease {:?} voters {:?} grade {:?} {:?} paused {:?} next deadline in {} us",
            machine.name, view.leads, view.leader, view.term, view.applied, view.commit, view.lease_left, view.voters, view.grade,
            view.ailment, machine.paused, node.next_deadline().since(now).as_micros()
        ));
        lines.push(format!("   {:?}", node.replica_status()));
        let state = |(name, n): (&hotwarm_core::ids::NodeId, &hotwarm_core::cluster::Node)| {
            format!("{name} raft {:?} session {} leased {} silent {}", n.raft_id, n.session, n.leased, n.silent)
        };
        lines.push(format!("   {}", view.cluster.nodes.iter().map(state).collect::<Vec<_>>().join("; ")));
    }
    let newest = world.machines.iter().filter_map(|m| m.agent.as_deref()).max_by_key(|node| node.state().1);
    for group in newest.iter().flat_map(|node| node.state().0.groups.values()) {
        lines.push(format!(
            "{}: closed {} epoch {} stale {:?} transition {:?} restart {:?}",
            group.spec.name, group.closed, group.epoch, group.stale_routers, group.transition, group.restart
        ));
        lines.extend(group.members.iter().map(|(id, m)| format!("   {id} {m:?}")));
    }
    for member in &world.members {
        let data = (member.data.log.len(), member.data.floor, member.data.was_hot);
        lines.push(format!(
            "{} life {} told {:?} data {data:?} {:?} {:?}",
            member.id,
            member.life,
            member.told,
            member.ill,
            member.program.as_ref().map(|p| (p.role, p.epoch, p.up, p.hung, p.deadline))
        ));
    }
    lines
}

/// The verdict when the run is over.
pub fn at_the_end(world: &mut World) {
    if world.now < world.plan.heal_at {
        return;
    }
    let late = world.served_again.is_none_or(|at| at > world.plan.heal_at + BOUND_US);
    if late {
        let why = missing(world).unwrap_or_else(|| "it took too long".to_owned());
        world.checks.fail("liveness", why);
    } else if let Some(why) = missing(world) {
        world.checks.fail("liveness", format!("it served again and then did not: {why}"));
    }
}
