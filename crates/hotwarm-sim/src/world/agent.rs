//! Feeding nodes and carrying out what they ask: the simulator's counterpart of the shell's agent.

use std::rc::Rc;

use hotwarm_core::action::MemberEvent;
use hotwarm_core::cluster::What;
use hotwarm_core::group::{Effect, Reason};
use hotwarm_core::ids::{Mono, Role};
use hotwarm_core::node::{Action, Node, Options, RouterEvent};
use hotwarm_core::wal::Record;

use super::World;
use crate::disk::Found;
use crate::event::{Event, M, N};
use crate::fault::Stage;
use crate::plan::{CLOCK, MS, NEWER, SECOND};

/// So long a hot member counts as just opened.
const OPENED_US: u64 = 300 * MS;
/// Once in so many inputs the agent is busy, for so long at most, and takes what else has come by then together with it.
const BUSY_ONCE_IN: u64 = 8;
const BUSY_US: u64 = 2 * MS;
/// Inputs that the shell's decision thread handles together, at most.
pub(super) const BURST_MAX: u32 = 512;

impl World {
    /// The agent's process starts.
    pub(super) fn boot(&mut self, n: N) {
        let machine = &mut self.machines[n];
        if !machine.powered || machine.agent.is_some() || machine.kept_down > 0 || machine.disk.full {
            return;
        }
        let stored = self.read_disk(n);
        if self.plan.upgrades && self.machines[n].life > 0 && self.rng.one_in(2) {
            self.machines[n].behaviour = NEWER;
        }
        let machine = &mut self.machines[n];
        machine.life += 1;
        machine.burst = 0;
        let life = machine.life;
        let mut options = Options::new(machine.name.clone(), "sim", machine.incarnation, self.rng.next_u64());
        options.peers = self.plan.names.iter().cloned().collect();
        options.heartbeat = self.plan.heartbeat;
        options.tick = self.plan.tick;
        options.snapshot_every = self.plan.snapshot_every;
        options.command_base = self.now;
        options.behaviour = machine.behaviour;
        // The right stays until the log says that it was used: a crash may come between the two.
        options.found = machine.may_found.then(|| (crate::disk::CLUSTER, self.plan.spec.clone()));
        machine.lease_until = Mono(0);
        for table in &mut machine.tables {
            *table = crate::router::Table::default();
        }
        let now = machine.clock.at(self.now);
        match Node::new(options, stored, now) {
            Ok(node) => machine.agent = Some(Box::new(node)),
            Err(error) => {
                self.checks.fail("start", format!("node {} does not start: {error}", self.machines[n].name));
                return;
            }
        }
        self.line(|w| format!("{} starts (life {life}, behaviour {})", w.machines[n].name, w.machines[n].behaviour));
        self.checks.started(n, self.machines[n].behaviour);
        for m in self.machines[n].members.clone() {
            self.adopt(n, m);
        }
        self.after(n);
        self.plan_wake(n);
        for k in 0..12 {
            self.queue.push(self.now + MS + k * 8 * MS, Event::ClientBack { n, life, group: CLOCK });
        }
        self.queue.push(self.now + SECOND / 2, Event::DiskProbe { n, life, ended: false });
    }

    /// What the agent's start finds. A log that may have lost its end is not gone on with, a rotten one not at all (S12).
    fn read_disk(&mut self, n: N) -> hotwarm_core::node::Stored {
        let another = u128::from(self.rng.next_u64()) | 1;
        let machine = &mut self.machines[n];
        let stored = match machine.disk.replay() {
            Found::Stored(stored) => *stored,
            Found::Unusable(why) => {
                machine.disk.wipe();
                machine.incarnation = another;
                machine.may_found = false;
                self.checks.forgot(n);
                self.line(|w| format!("{}: {why}", w.machines[n].name));
                return hotwarm_core::node::Stored::default();
            }
        };
        if stored.rejoins.is_some() {
            machine.incarnation = another;
            machine.may_found = false;
            self.checks.forgot(n);
            self.line(|w| format!("{} must join anew", w.machines[n].name));
        }
        stored
    }

    /// A member's engine finds out what runs already, and says so.
    fn adopt(&mut self, n: N, m: M) {
        let life = self.machines[n].life;
        let at = self.now + MS + self.rng.below(8 * MS);
        let member = &mut self.members[m];
        member.told_ready = None;
        let incarnation = hotwarm_core::ids::Incarnation(member.life);
        if let Some((role, epoch)) = member.program.as_ref().map(|program| (program.role, program.epoch)) {
            let event = MemberEvent::Started { incarnation, role, epoch };
            self.queue.push(at, Event::Told { n, life, m, event });
            self.queue.push(at + 10 * MS, Event::Probe { n, life, m, incarnation: incarnation.0, again: true });
        } else {
            let cause = hotwarm_core::action::StopCause::Absent;
            self.queue.push(at, Event::Told { n, life, m, event: MemberEvent::Stopped { incarnation, cause } });
        }
    }

    fn plan_wake(&mut self, n: N) {
        let machine = &mut self.machines[n];
        let Some(node) = &machine.agent else { return };
        let mut at = machine.clock.when(node.next_deadline()).max(self.now) + self.rng.below(300);
        if machine.slow_us > 0 {
            at += self.rng.below(machine.slow_us);
        }
        machine.wake_at = at;
        let life = machine.life;
        self.queue.push(at, Event::Wake { n, life });
    }

    /// Gives the agent something, and does what it asks in return: at once, or now and then together with what else comes in the next
    /// moment, as a decision thread does that was busy. What piled up while it stood still is a burst (S16): the wake after it does what is
    /// asked.
    fn agent(&mut self, n: N, give: impl FnOnce(&mut Node, Mono)) {
        self.give(n, give);
        match self.machines[n].burst {
            0 => {}
            1 => {
                self.machines[n].burst = BURST_MAX;
                return self.after(n);
            }
            _ => return self.machines[n].burst -= 1,
        }
        if self.rng.below(BUSY_ONCE_IN) > 0 {
            return self.after(n);
        }
        let at = self.now + 1 + self.rng.below(BUSY_US);
        let machine = &mut self.machines[n];
        if machine.wake_at <= self.now || machine.wake_at > at {
            machine.wake_at = at;
            let life = machine.life;
            self.queue.push(at, Event::Wake { n, life });
        }
    }

    fn give(&mut self, n: N, give: impl FnOnce(&mut Node, Mono)) {
        let now = self.local(n);
        if let Some(node) = &mut self.machines[n].agent {
            give(node, now);
        }
    }

    pub(super) fn wake(&mut self, n: N) {
        if self.now != self.machines[n].wake_at {
            // Planned anew since.
            return;
        }
        self.trace.number(self.now << 4 | n as u64);
        self.machines[n].burst = 0;
        self.give(n, |node, now| node.handle_deadline(now));
        self.after(n);
        self.plan_wake(n);
    }

    pub(super) fn deliver(&mut self, to: N, from: N, bytes: &[u8]) {
        self.checks.delivered(to, bytes);
        let name = self.machines[from].name.clone();
        self.agent(to, |node, now| node.handle_message(now, &name, bytes));
    }

    pub(super) fn ended(&mut self, to: N, of: N) {
        let name = self.machines[of].name.clone();
        self.agent(to, |node, now| node.handle_ended(now, &name));
    }

    pub(super) fn persisted(&mut self, n: N, token: u64, through: u64) {
        self.machines[n].disk.synced(through);
        if let Some(status) = self.machines[n].agent.as_ref().and_then(|node| node.replica_status()) {
            self.checks.in_flight(n, &status);
        }
        let disk = &self.machines[n].disk;
        self.counts.segments = self.counts.segments.max(disk.kept());
        if disk.is_synced() {
            self.checks.tidied(n, disk.oldest(), disk.current());
        }
        self.agent(n, |node, now| node.handle_persisted(now, token));
        self.break_promise(n, through);
    }

    pub(super) fn disk_probe(&mut self, n: N, ended: bool) {
        let life = self.machines[n].life;
        if ended {
            if self.machines[n].disk.stalled {
                self.queue.push(self.now + 50 * MS, Event::DiskProbe { n, life, ended });
                return;
            }
            self.agent(n, |node, now| node.handle_disk(now, Some(true)));
            self.write_forward(n);
            self.queue.push(self.now + SECOND, Event::DiskProbe { n, life, ended: false });
        } else {
            self.agent(n, |node, now| node.handle_disk(now, None));
            let takes = self.machines[n].disk.latency_us;
            self.queue.push(self.now + takes, Event::DiskProbe { n, life, ended: true });
        }
    }

    /// S14: a log that is idle keeps no segment from going.
    fn write_forward(&mut self, n: N) {
        let machine = &mut self.machines[n];
        let Some(node) = &machine.agent else { return };
        self.checks.forward(n, machine.disk.current());
        for log in machine.disk.pinning() {
            machine.disk.rewrite(log, &node.rewrite(log));
        }
    }

    pub(super) fn told(&mut self, n: N, m: M, event: MemberEvent) {
        let id = self.members[m].id.clone();
        self.line(|w| format!("{} <- {id} {event:?}", w.machines[n].name));
        self.agent(n, |node, now| node.handle_member(now, &id, event));
    }

    pub(super) fn router_told(&mut self, n: N, event: RouterEvent) {
        self.agent(n, |node, now| node.handle_router(now, event));
    }

    pub(super) fn command(&mut self, n: N, command: hotwarm_core::node::Command) {
        if !self.machines[n].runs() {
            return;
        }
        self.line(|w| format!("{} is asked {command:?}", w.machines[n].name));
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.agent(n, |node, now| node.handle_command(now, ticket, command));
    }

    /// Does what the node asks for, then looks at it.
    fn after(&mut self, n: N) {
        while let Some(action) = self.machines[n].agent.as_mut().and_then(|node| node.poll_action()) {
            self.act(n, action);
        }
        let machine = &self.machines[n];
        let Some(node) = &machine.agent else { return };
        if machine.wake_at > self.now && machine.clock.when(node.next_deadline()).max(self.now) + machine.slow_us + 300 < machine.wake_at {
            self.plan_wake(n);
        }
        let Some(node) = &self.machines[n].agent else { return };
        self.checks.observe(self.now, n, node);
        let (cluster, applied) = node.state();
        let founded = cluster.founded();
        if applied > self.newest {
            self.newest = applied;
            if let Some(group) = cluster.groups.get(&self.plan.groups[CLOCK].name) {
                let stage = stage_of(group);
                self.enter(stage);
            }
        }
        self.machines[n].may_found &= !founded;
    }

    fn enter(&mut self, stage: Stage) {
        if self.stage == stage {
            return;
        }
        let opened = self.stage == Stage::Promoting && stage == Stage::Steady;
        if opened {
            self.opened_at = self.now;
        }
        self.stage = stage;
        let stage = if opened { Stage::Opened } else { stage };
        let faults = &self.plan.faults;
        let (due, rest) = self.armed.iter().copied().partition(|i| faults[*i].stage == Some(stage));
        self.armed = rest;
        let due: Vec<usize> = due;
        for i in due {
            self.queue.push(self.now, Event::Fault(i));
        }
    }

    /// The stage, for a fault that strikes now.
    pub(super) const fn stage_now(&self) -> Stage {
        match self.stage {
            Stage::Steady if self.now < self.opened_at + OPENED_US => Stage::Opened,
            stage => stage,
        }
    }

    fn act(&mut self, n: N, action: Action) {
        match action {
            Action::Send { to, bytes } => self.send(n, &to, bytes),
            Action::Persist { records, token } => self.persist(n, &records, token),
            Action::Engine { member, action } => {
                if let Some(m) = self.numbers.get(&member).copied() {
                    self.trace.number(m as u64);
                    self.line(|w| format!("{} -> {member} {action:?}", w.machines[n].name));
                    self.engine(n, m, action);
                }
            }
            Action::Probe { member } => {
                if let Some(m) = self.numbers.get(&member).copied() {
                    let (life, incarnation) = (self.machines[n].life, self.members[m].life);
                    self.queue.push(self.now + MS, Event::Probe { n, life, m, incarnation, again: false });
                }
            }
            Action::Routes(routes) => self.give_routes(n, routes),
            Action::Lease { until } => self.give_lease(n, until),
            Action::Events { events, fresh, .. } => {
                if fresh {
                    self.tell_events(n, &events);
                }
            }
            Action::Reply { ticket, .. } => self.trace.number(ticket),
            Action::Configured { .. } => {}
            Action::Alarm { code, text } | Action::Halt { code, text } => {
                self.line(|w| format!("{} ALARM {code} {text}", w.machines[n].name));
                self.checks.alarm(&self.machines[n].name, code, &text);
            }
        }
    }

    fn send(&mut self, n: N, to: &hotwarm_core::ids::NodeId, bytes: Vec<u8>) {
        self.trace.bytes(&bytes);
        let Some(to) = self.names.get(to).copied() else { return };
        let slow = self.machines[to].slow_us + self.machines[n].slow_us + self.machines[to].late_us;
        let [first, second] = self.net.fate(n, to, &mut self.rng);
        let Some(first) = first else { return };
        let late = if slow > 0 { self.rng.below(slow) } else { 0 };
        let bytes = Rc::new(bytes);
        if let Some(second) = second {
            self.queue.push(self.now + second + late, Event::Deliver { to, from: n, bytes: bytes.clone() });
        }
        self.queue.push(self.now + first + late, Event::Deliver { to, from: n, bytes });
    }

    fn persist(&mut self, n: N, records: &[Record], token: Option<u64>) {
        self.checks.records(n, records);
        self.trace.number(records.len() as u64 | token.unwrap_or(0) << 16);
        let life = self.machines[n].life;
        let disk = &mut self.machines[n].disk;
        let (through, ends) = disk.write(self.now, records, &mut self.rng);
        match (token, ends) {
            (Some(token), Some(at)) => self.queue.push(at, Event::Persisted { n, life, token, through }),
            (Some(token), None) => disk.waiting.push((token, through)),
            (None, _) => {}
        }
    }

    fn give_lease(&mut self, n: N, until: Mono) {
        let machine = &mut self.machines[n];
        let renewed = until > machine.lease_until;
        machine.lease_until = until;
        let ends = machine.clock.when(until);
        if let Some(node) = &machine.agent {
            let session = node.state().0.nodes.get(&machine.name).map(|node| node.session);
            self.checks.lease(n, session, ends);
            if renewed {
                let leads = node.leadership().is_some_and(|(_, l)| l.role == hotwarm_core::consensus::ReplicaRole::Leader);
                self.checks.lease_grew(n, node.state().1, leads);
            }
        }
        if renewed {
            for g in 0..self.plan.groups.len() {
                self.release_parked(n, g);
            }
        }
    }

    fn tell_events(&mut self, n: N, events: &[hotwarm_core::cluster::Event]) {
        for event in events {
            match &event.what {
                What::Group(Effect::Promote { .. }) => self.counts.promotions += 1,
                What::Group(Effect::Because(Reason::Restarted { .. })) => self.counts.restarted += 1,
                _ => {}
            }
            self.line(|w| {
                let group = event.group.as_ref().map_or_else(String::new, |g| format!("{g}: "));
                let what = match &event.what {
                    What::Group(Effect::Because(reason)) => reason.to_string(),
                    other => format!("{other:?}"),
                };
                format!("{}  | {group}{what}", w.machines[n].name)
            });
        }
        self.checks.events(self.now, n, &self.machines, events);
    }
}

fn stage_of(group: &hotwarm_core::group::Group) -> Stage {
    use hotwarm_core::group::state::Phase;
    match group.transition.as_ref().map(|t| &t.phase) {
        Some(Phase::Draining { .. }) => Stage::Draining,
        Some(Phase::Fencing { .. }) => Stage::Fencing,
        Some(Phase::Choosing { .. }) => Stage::Choosing,
        Some(Phase::Promoting { .. }) => Stage::Promoting,
        None if group.members.values().any(|m| m.role == Role::Hot) => Stage::Steady,
        None => Stage::Vacant,
    }
}
