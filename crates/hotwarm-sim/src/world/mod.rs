//! The world: everything that exists in a run, and the loop that lets it happen.
//!
//! It is single-threaded and takes every chance from its own stream. One file for each part: `agent` feeds nodes and carries out
//! their actions, `engines` are the members, `traffic` the clients and routers, `data` the replication between members, `faults` what
//! goes wrong and is mended.

mod agent;
mod data;
mod engines;
mod faults;
mod operator;
mod traffic;

use std::collections::BTreeMap;

use hotwarm_core::cluster::BEHAVIOUR;
use hotwarm_core::ids::{Index, MemberId, Mono, NodeId};
use hotwarm_core::rng::Rng;

use crate::clock::Clock;
use crate::coverage::Coverage;
use crate::disk::Disk;
use crate::event::{Event, M, N, Queue};
use crate::fault::Stage;
use crate::invariants::{Checks, Violation};
use crate::machine::{Machine, Paused};
use crate::member::Member;
use crate::net::Net;
use crate::plan::{MS, Plan, SECOND};
use crate::router::Table;
use crate::trace::Trace;

/// The whole is looked at so often.
const LOOK_US: u64 = 100 * MS;

/// See the module.
#[derive(Debug)]
pub struct World {
    pub plan: Plan,
    pub now: u64,
    queue: Queue,
    rng: Rng,
    pub machines: Vec<Machine>,
    pub members: Vec<Member>,
    numbers: BTreeMap<MemberId, M>,
    names: BTreeMap<NodeId, N>,
    pub net: Net,
    pub checks: Checks,
    pub trace: Trace,
    pub coverage: Coverage,
    pub stage: Stage,
    opened_at: u64,
    /// The newest state that any node has applied.
    newest: Index,
    armed: Vec<usize>,
    struck: Vec<bool>,
    /// Whom a fault will strike, where that was decided before.
    marked: BTreeMap<usize, N>,
    next_request: u64,
    next_entry: u64,
    next_ticket: u64,
    healed: bool,
    pub served_again: Option<u64>,
    pub counts: Counts,
}

/// What a run adds up to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub events: u64,
    pub asked: u64,
    pub answered: u64,
    pub promotions: u64,
    /// Members that were restarted, as the nodes that applied it saw it.
    pub restarted: u64,
    /// The most segments that took room on one disk.
    pub segments: usize,
    pub faults: u64,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    pub seed: u64,
    pub hash: u64,
    pub violation: Option<Violation>,
    /// When everything served again after healing, in microseconds from then.
    pub healed_in: Option<u64>,
    pub coverage: Coverage,
    pub counts: Counts,
    pub lines: Vec<String>,
}

impl World {
    #[must_use]
    pub fn new(plan: Plan, trace: Trace) -> Self {
        let mut rng = Rng::new(plan.seed ^ 0x5157_4f52_4c44).split();
        let mut members: Vec<Member> = Vec::new();
        let names: BTreeMap<NodeId, N> = plan.names.iter().enumerate().map(|(n, name)| (name.clone(), n)).collect();
        for (group, spec) in plan.groups.iter().enumerate() {
            members.extend(spec.members.iter().map(|(id, m)| Member::new(id.clone(), names[&m.node], group, spec.stateful)));
        }
        let machines = (0..plan.names.len()).map(|n| machine(&plan, n, &members, &mut rng)).collect();
        let mut world = Self {
            now: 0,
            queue: Queue::default(),
            numbers: members.iter().enumerate().map(|(m, member)| (member.id.clone(), m)).collect(),
            names,
            net: Net::new(plan.names.len(), plan.latency_us),
            checks: Checks::new(&plan),
            trace,
            coverage: Coverage::default(),
            stage: Stage::Vacant,
            opened_at: 0,
            newest: Index(0),
            armed: Vec::new(),
            marked: BTreeMap::new(),
            struck: vec![false; plan.faults.len()],
            next_request: 1,
            next_entry: 1,
            next_ticket: 1,
            healed: false,
            served_again: None,
            counts: Counts::default(),
            machines,
            members,
            rng,
            plan,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for n in 0..self.machines.len() {
            let at = self.rng.below(50 * MS);
            self.queue.push(at, Event::Heal(crate::fault::Healing::Boot(n)));
        }
        for (i, fault) in self.plan.faults.iter().enumerate() {
            self.queue.push(fault.at, Event::Fault(i));
        }
        for (at, group) in self.plan.restarts.clone() {
            self.queue.push(at, Event::Heal(crate::fault::Healing::Restart(group)));
        }
        self.queue.push(100 * MS, Event::Client);
        self.queue.push(LOOK_US, Event::Look);
    }

    /// Lets everything happen, until the end or the first broken rule.
    #[must_use]
    pub fn run(mut self) -> Outcome {
        while let Some((at, event)) = self.queue.pop() {
            if at > self.plan.end_at || self.checks.broken() {
                break;
            }
            self.now = at;
            self.counts.events += 1;
            self.happen(event);
        }
        if !self.checks.broken() {
            crate::liveness::at_the_end(&mut self);
        }
        if self.checks.broken() && self.trace.wants_lines() {
            for line in crate::liveness::picture(&self) {
                self.trace.line(self.now, &line);
            }
        }
        let lines = self.trace.lines().cloned().collect();
        Outcome {
            seed: self.plan.seed,
            hash: self.trace.hash(),
            violation: self.checks.take(),
            healed_in: self.served_again.map(|at| at - self.plan.heal_at),
            coverage: self.coverage,
            counts: self.counts,
            lines,
        }
    }

    /// Where an event is to happen: a node's agent in one of its lives, or the node as such.
    const fn place(event: &Event) -> Option<(N, Option<u32>)> {
        Some(match *event {
            Event::Wake { n, life }
            | Event::Persisted { n, life, .. }
            | Event::DiskProbe { n, life, .. }
            | Event::Told { n, life, .. }
            | Event::Probe { n, life, .. }
            | Event::Router { n, life, .. }
            | Event::Switch { n, life, .. }
            | Event::AtRouter { n, life, .. }
            | Event::Refused { n, life, .. }
            | Event::ClientBack { n, life, .. }
            | Event::TryAgain { n, life, .. } => (n, Some(life)),
            Event::Deliver { to, .. } | Event::Ended { to, .. } => (to, None),
            _ => return None,
        })
    }

    fn happen(&mut self, event: Event) {
        if let Some((n, life)) = Self::place(&event) {
            let machine = &mut self.machines[n];
            if !machine.runs() || life.is_some_and(|life| life != machine.life) {
                return;
            }
            if machine.paused != Paused::No {
                if !matches!(event, Event::Wake { .. }) {
                    machine.held.push(event);
                }
                return;
            }
        }
        match event {
            Event::Wake { n, .. } => self.wake(n),
            Event::Deliver { to, from, bytes } => self.deliver(to, from, &bytes),
            Event::Ended { to, of } => self.ended(to, of),
            Event::Persisted { n, token, through, .. } => self.persisted(n, token, through),
            Event::DiskProbe { n, ended, .. } => self.disk_probe(n, ended),
            Event::Told { n, m, event, .. } => self.told(n, m, event),
            Event::Probe { n, life, m, incarnation, again } => self.probe(n, life, m, incarnation, again),
            Event::Router { n, event, .. } => self.router_told(n, event),
            Event::Switch { n, routes, .. } => self.switch(n, routes),
            Event::AtRouter { n, id, attempt, answered, .. } => self.at_router(n, id, attempt, answered),
            Event::Refused { n, id, attempt, m, .. } => self.refused(n, id, attempt, m),
            Event::TryAgain { n, life, m } => self.try_again(n, life, m),
            Event::Client => self.client(),
            Event::ClientBack { n, group, .. } => self.ask(n, group),
            Event::Fault(i) => self.fault(i),
            Event::Heal(healing) => self.heal(healing),
            Event::Look => self.look(),
            at_member => self.at_a_member(at_member),
        }
    }

    /// What happens on a machine whether its agent runs or not.
    fn at_a_member(&mut self, event: Event) {
        let m = match event {
            Event::Engine { m, .. } | Event::Guard { m, .. } | Event::Up { m, .. } | Event::End { m, .. } | Event::AtMember { m, .. } => m,
            Event::Replicate { to, .. } => to,
            Event::Acked { hot, .. } | Event::ReplicateAgain { hot, .. } => hot,
            _ => return,
        };
        let n = self.members[m].node;
        let machine = &mut self.machines[n];
        if !machine.powered {
            return;
        }
        let waits = machine.paused == Paused::Machine || (machine.paused == Paused::Agent && matches!(event, Event::Engine { .. }));
        if waits {
            machine.held.push(event);
            return;
        }
        match event {
            Event::Engine { life, m, round, action, .. } => self.engine_done(n, life, m, round, action),
            Event::Guard { m, incarnation } => self.guard(m, incarnation),
            Event::Up { m, incarnation } => self.up(m, incarnation),
            Event::End { m, incarnation, then } => self.end(m, incarnation, then),
            Event::AtMember { request, m } => self.at_member(request, m),
            Event::Replicate { hot, to, epoch, incarnation, from, before, entries } => {
                self.replicate(hot, to, epoch, incarnation, from, before, &entries);
            }
            Event::Acked { hot, incarnation, by, upto, refused } => self.acked(hot, incarnation, by, upto, refused),
            Event::ReplicateAgain { hot, incarnation } => self.replicate_again(hot, incarnation),
            _ => {}
        }
    }

    fn look(&mut self) {
        self.queue.push(self.now + LOOK_US, Event::Look);
        self.sweep();
        if self.now >= self.plan.heal_at && !self.healed {
            self.healed = true;
            self.heal_everything();
        }
        if self.healed && self.served_again.is_none() && crate::liveness::missing(self).is_none() {
            self.served_again = Some(self.now);
        }
        if self.healed && self.now % SECOND < LOOK_US {
            self.take_all_back();
        }
    }

    fn local(&self, n: N) -> Mono {
        self.machines[n].clock.at(self.now)
    }

    fn line(&mut self, text: impl FnOnce(&Self) -> String) {
        if self.trace.wants_lines() {
            let text = text(self);
            self.trace.line(self.now, &text);
        }
    }
}

fn machine(plan: &Plan, n: N, members: &[Member], rng: &mut Rng) -> Machine {
    let mine = members.iter().enumerate().filter(|(_, m)| m.node == n).map(|(m, _)| m).collect();
    Machine {
        name: plan.names[n].clone(),
        clock: Clock::new(0, rng.between(10 * SECOND, 1000 * SECOND), plan.rates_ppm[n]),
        powered: true,
        agent: None,
        life: 0,
        paused: Paused::No,
        held: Vec::new(),
        burst: 0,
        disk: Disk::new(200 + rng.below(2_000)),
        behaviour: BEHAVIOUR,
        incarnation: u128::from(rng.next_u64()) | 1,
        may_found: n == 0,
        wanted: true,
        lease_until: Mono(0),
        tables: plan.groups.iter().map(|_| Table::default()).collect(),
        slow_us: 0,
        late_us: 0,
        disk_lies: false,
        wake_at: 0,
        kept_down: 0,
        members: mine,
    }
}
