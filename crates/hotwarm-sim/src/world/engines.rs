//! Members and their engines, as the real ones behave: a program under a guard that outlives the agent, an engine that dies with it.

use hotwarm_core::action::{EngineAction, MemberEvent, StopCause};
use hotwarm_core::ids::{Epoch, Incarnation, Position, Role};

use super::World;
use crate::event::{Event, M, N};
use crate::member::Program;
use crate::plan::MS;

impl World {
    pub(super) fn keeps_data(&self, m: M) -> bool {
        self.plan.groups[self.members[m].group].positions
    }

    /// The agent tells an engine.
    pub(super) fn engine(&mut self, n: N, m: M, action: EngineAction) {
        let life = self.machines[n].life;
        match action {
            EngineAction::Deadline { until } => self.set_deadline(m, until),
            EngineAction::Start { epoch } => self.start(n, m, epoch),
            EngineAction::Stop { graceful } => self.stop(n, m, graceful),
            EngineAction::Fence { .. } => self.stop(n, m, false),
            action => {
                let Some(takes) = self.begin_work(m, &action) else { return };
                let member = &mut self.members[m];
                member.round += 1;
                let round = member.round;
                self.queue.push(self.now + takes, Event::Engine { n, life, m, round, action });
            }
        }
    }

    /// How long it will take; `None` if it is refused or will never end. What was told is durable before it is carried out.
    fn begin_work(&mut self, m: M, action: &EngineAction) -> Option<u64> {
        let quick = MS + self.rng.below(10 * MS);
        let member = &mut self.members[m];
        member.program.as_ref()?;
        match action {
            EngineAction::Promote { epoch, .. } => {
                if *epoch < member.told.1 {
                    return None;
                }
                member.told = (Role::Hot, *epoch);
                if member.ill.promotes_never {
                    return None;
                }
                Some(quick + self.rng.below(30 * MS))
            }
            _ => Some(quick),
        }
    }

    fn set_deadline(&mut self, m: M, until: Option<hotwarm_core::ids::Mono>) {
        let n = self.members[m].node;
        let member = &mut self.members[m];
        let incarnation = member.life;
        let Some(program) = &mut member.program else { return };
        program.deadline = until;
        if let Some(until) = until {
            let at = self.machines[n].clock.when(until).max(self.now) + self.rng.below(3 * MS);
            self.queue.push(at, Event::Guard { m, incarnation });
        }
    }

    /// The guard ends what has outlived its deadline, whether the agent runs or not.
    pub(super) fn guard(&mut self, m: M, incarnation: u64) {
        let now = self.local(self.members[m].node);
        let due = self.members[m].living(incarnation).is_some_and(|program| program.deadline.is_some_and(|until| now >= until));
        if due {
            self.kill(m, StopCause::Deadline);
        }
    }

    /// Nothing is left of the program; its engine hears of it if there is an agent.
    pub(super) fn kill(&mut self, m: M, cause: StopCause) {
        let n = self.members[m].node;
        let member = &mut self.members[m];
        if member.program.take().is_none() {
            return;
        }
        member.round += 1;
        member.told_ready = None;
        let incarnation = Incarnation(member.life);
        self.line(|w| format!("{} ends: {cause}", w.members[m].id));
        let machine = &self.machines[n];
        if machine.runs() {
            let life = machine.life;
            let event = MemberEvent::Stopped { incarnation, cause };
            self.queue.push(self.now + MS + self.rng.below(MS), Event::Told { n, life, m, event });
        }
    }

    fn start(&mut self, n: N, m: M, epoch: Epoch) {
        let life = self.machines[n].life;
        let member = &mut self.members[m];
        if let Some((role, epoch)) = member.program.as_ref().map(|program| (program.role, program.epoch)) {
            let event = MemberEvent::Started { incarnation: Incarnation(member.life), role, epoch };
            member.told_ready = None;
            self.queue.push(self.now + MS, Event::Told { n, life, m, event });
            return;
        }
        member.life += 1;
        member.round += 1;
        let incarnation = Incarnation(member.life);
        if member.ill.cannot_start {
            let cause = StopCause::NotStarted("it is ill".to_owned());
            self.queue.push(self.now + 3 * MS, Event::Told { n, life, m, event: MemberEvent::Stopped { incarnation, cause } });
            return;
        }
        member.told = (Role::Warm, epoch);
        member.data.floor = member.data.floor.max(epoch);
        member.program = Some(Program::new(epoch));
        member.told_ready = None;
        let slowly = member.ill.starts_slowly;
        let takes = if slowly { 2_000 * MS + self.rng.below(4_000 * MS) } else { 10 * MS + self.rng.below(200 * MS) };
        let event = MemberEvent::Started { incarnation, role: Role::Warm, epoch };
        self.queue.push(self.now + MS, Event::Told { n, life, m, event });
        self.queue.push(self.now + takes, Event::Up { m, incarnation: incarnation.0 });
        self.queue.push(self.now + 50 * MS, Event::Probe { n, life, m, incarnation: incarnation.0, again: true });
    }

    pub(super) fn up(&mut self, m: M, incarnation: u64) {
        if let Some(program) = self.members[m].living(incarnation) {
            program.up = true;
            self.probe_soon(m);
        }
    }

    fn stop(&mut self, n: N, m: M, graceful: bool) {
        let life = self.machines[n].life;
        let member = &mut self.members[m];
        member.round += 1;
        let incarnation = member.life;
        if member.program.is_none() {
            let event = MemberEvent::Stopped { incarnation: Incarnation(incarnation), cause: StopCause::Asked };
            self.queue.push(self.now + MS, Event::Told { n, life, m, event });
            return;
        }
        let takes = if graceful { MS + self.rng.below(150 * MS) } else { MS + self.rng.below(4 * MS) };
        self.queue.push(self.now + takes, Event::End { m, incarnation, then: Some(life) });
    }

    pub(super) fn end(&mut self, m: M, incarnation: u64, then: Option<u32>) {
        if self.members[m].living(incarnation).is_some() {
            self.kill(m, if then.is_some() { StopCause::Asked } else { StopCause::Signal(9) });
        }
    }

    fn probe_soon(&mut self, m: M) {
        let n = self.members[m].node;
        let (life, incarnation) = (self.machines[n].life, self.members[m].life);
        self.queue.push(self.now + MS, Event::Probe { n, life, m, incarnation, again: false });
    }

    pub(super) fn probe(&mut self, n: N, life: u32, m: M, incarnation: u64, again: bool) {
        let member = &mut self.members[m];
        if member.living(incarnation).is_none() {
            return;
        }
        let answers = member.answers();
        // Before the first answer there is nothing to tell.
        let changed = member.told_ready.unwrap_or(false) != answers;
        member.told_ready = Some(answers);
        let every = if changed || !answers { 100 * MS } else { 300 * MS };
        if again {
            self.queue.push(self.now + every, Event::Probe { n, life, m, incarnation, again });
        }
        if changed {
            let incarnation = Incarnation(incarnation);
            let why = || "no answer".to_owned();
            let event = if answers { MemberEvent::Ready { incarnation } } else { MemberEvent::Unready { incarnation, why: why() } };
            self.told(n, m, event);
        }
    }

    /// Work of an agent that has died since may still have been done; nobody hears of it.
    pub(super) fn engine_done(&mut self, n: N, life: u32, m: M, round: u64, action: EngineAction) {
        if self.members[m].round != round || self.members[m].program.is_none() {
            return;
        }
        let incarnation = Incarnation(self.members[m].life);
        let event = match action {
            EngineAction::Promote { epoch, .. } if self.members[m].ill.cannot_promote => {
                MemberEvent::RoleFailed { incarnation, role: Role::Hot, epoch, why: "it is ill".to_owned() }
            }
            EngineAction::Promote { epoch, .. } => {
                self.become_hot(m, epoch);
                MemberEvent::RoleChanged { incarnation, role: Role::Hot, epoch }
            }
            EngineAction::Demote { epoch } => {
                let member = &mut self.members[m];
                member.told = (Role::Warm, epoch.max(member.told.1));
                member.data.floor = member.data.floor.max(epoch.next());
                if let Some(program) = &mut member.program {
                    (program.role, program.epoch) = (Role::Warm, epoch);
                    program.waiting.clear();
                }
                self.probe_soon(m);
                MemberEvent::RoleChanged { incarnation, role: Role::Warm, epoch }
            }
            EngineAction::Detach { epoch, attempt } => {
                let member = &mut self.members[m];
                member.data.floor = member.data.floor.max(epoch.next());
                let position = Position(member.data.log.len() as u64);
                MemberEvent::Position { incarnation, attempt, position }
            }
            EngineAction::Follow { epoch } => {
                let member = &mut self.members[m];
                member.data.floor = member.data.floor.max(epoch);
                return;
            }
            _ => return,
        };
        let machine = &self.machines[n];
        if machine.runs() && machine.life == life {
            self.told(n, m, event);
        }
    }

    fn become_hot(&mut self, m: M, epoch: Epoch) {
        let member = &mut self.members[m];
        let Some(program) = &mut member.program else { return };
        (program.role, program.epoch) = (Role::Hot, epoch);
        program.followers.clear();
        program.waiting.clear();
        member.data.was_hot = Some(epoch);
        member.data.floor = member.data.floor.max(epoch);
        self.line(|w| format!("{} is hot for epoch {epoch}", w.members[m].id));
        self.checks.became_hot(self.now, m, epoch, &self.members, &self.machines);
        if self.keeps_data(m) {
            let incarnation = self.members[m].life;
            self.queue.push(self.now, Event::ReplicateAgain { hot: m, incarnation });
        }
    }
}
