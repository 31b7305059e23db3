//! Clients, and the routers they come to.

use std::rc::Rc;

use hotwarm_core::group::reason::Evidence;
use hotwarm_core::ids::{Epoch, Role};
use hotwarm_core::node::RouterEvent;
use hotwarm_core::route::{RouteState, Routes};

use super::World;
use crate::event::{Event, M, N};
use crate::machine::Paused;
use crate::plan::{MS, SECOND};
use crate::router::Request;

/// A member that does not answer for so long is silent.
const SILENT_US: u64 = 400 * MS;
/// A parked request waits for so long.
const PATIENCE_US: u64 = 5 * SECOND;

impl World {
    pub(super) fn client(&mut self) {
        let every = self.plan.client_us;
        self.queue.push(self.now + every / 2 + self.rng.below(every), Event::Client);
        let n = self.rng.below(self.machines.len() as u64) as usize;
        let group = self.rng.below(self.plan.groups.len() as u64) as usize;
        self.ask(n, group);
    }

    pub(super) fn ask(&mut self, n: N, group: usize) {
        let machine = &self.machines[n];
        if !machine.runs() || machine.paused != Paused::No {
            return;
        }
        self.counts.asked += 1;
        let (id, entry) = (self.next_request, 0);
        self.next_request += 1;
        let (epoch, born, life, answered) = (Epoch(0), self.now, machine.life, u64::MAX);
        let request = Request { id, group, born, via: n, life, epoch, attempt: 0, entry, answered, to: 0, sent: 0 };
        self.admit(n, request);
    }

    fn admit(&mut self, n: N, mut request: Request) {
        let now = self.local(n);
        let machine = &mut self.machines[n];
        let table = &mut machine.tables[request.group];
        if !table.is_open() || !table.allowed(now, machine.lease_until) || table.targets.is_empty() {
            table.park(request);
            return;
        }
        let sound: Vec<M> = table.targets.iter().copied().filter(|m| !table.suspects.contains(m)).collect();
        let among = if sound.is_empty() { &table.targets } else { &sound };
        let to = among[self.rng.below(among.len() as u64) as usize];
        (request.epoch, request.to, request.sent) = (table.epoch(), to, self.now);
        if table.is_fenced(to, request.epoch) {
            table.park(request);
            return;
        }
        request.attempt += 1;
        table.in_flight.insert(request.id, request);
        let there = self.members[to].node;
        if self.net.passes(n, there) {
            let takes = self.net.takes(n, there, &mut self.rng);
            self.queue.push(self.now + takes, Event::AtMember { request, m: to });
        }
    }

    pub(super) fn release_parked(&mut self, n: N, group: usize) {
        if self.machines[n].paused != Paused::No {
            return;
        }
        let now = self.local(n);
        let machine = &mut self.machines[n];
        let table = &mut machine.tables[group];
        if table.parked.is_empty() || !table.is_open() || !table.allowed(now, machine.lease_until) || table.targets.is_empty() {
            return;
        }
        for request in std::mem::take(&mut table.parked) {
            if self.now - request.born < PATIENCE_US {
                self.admit(n, request);
            }
        }
    }

    /// The request is at the member's machine, which is switched on.
    pub(super) fn at_member(&mut self, mut request: Request, m: M) {
        let keeps = self.keeps_data(m);
        let member = &self.members[m];
        let Some(program) = member.program.as_ref().filter(|program| program.up) else {
            return self.answer(request, m, |n, life, id, attempt| Event::Refused { n, life, id, attempt, m });
        };
        if program.hung {
            return;
        }
        if member.stateful && program.role != Role::Hot {
            // It says that it is not the one.
            return self.answer(request, m, |n, life, id, attempt| Event::AtRouter { n, life, id, attempt, answered: None });
        }
        request.entry = self.next_entry;
        self.next_entry += 1;
        if member.stateful {
            let epoch = program.epoch;
            self.checks.executed(self.now, m, member.group, epoch);
        }
        if keeps { self.write(m, request) } else { self.reply(m, request) }
    }

    pub(super) fn reply(&mut self, m: M, request: Request) {
        self.answer(request, m, |n, life, id, attempt| Event::AtRouter { n, life, id, attempt, answered: Some(m) });
        let in_flight = self.machines[request.via].tables[request.group].in_flight.get_mut(&request.id);
        if let Some(in_flight) = in_flight.filter(|in_flight| in_flight.attempt == request.attempt) {
            in_flight.entry = request.entry;
            in_flight.answered = self.now;
        }
    }

    fn answer(&mut self, request: Request, m: M, event: impl FnOnce(N, u32, u64, u32) -> Event) {
        let (here, there) = (self.members[m].node, request.via);
        if self.net.passes(here, there) {
            let takes = self.net.takes(here, there, &mut self.rng);
            self.queue.push(self.now + takes, event(there, request.life, request.id, request.attempt));
        }
    }

    /// An answer came back to the router.
    pub(super) fn at_router(&mut self, n: N, id: u64, attempt: u32, answered: Option<M>) {
        let now = self.local(n);
        let lease = self.machines[n].lease_until;
        for g in 0..self.plan.groups.len() {
            let table = &mut self.machines[n].tables[g];
            let Some(request) = table.take(id, attempt) else { continue };
            let Some(m) = answered else {
                table.park(request);
                return;
            };
            let same_epoch = !table.exclusive() || (table.epoch() == request.epoch && !table.is_fenced(request.to, request.epoch));
            let serves = table.is_open() || table.is_draining() || !table.exclusive();
            let released = same_epoch && serves && table.allowed(now, lease);
            let worked = table.suspects.remove(&m);
            self.tell_drained(n, g);
            if worked {
                self.tell_evidence(n, m, None);
            }
            if released {
                self.counts.answered += 1;
                self.checks.released(self.now, n, m, &request);
            }
            return;
        }
    }

    pub(super) fn refused(&mut self, n: N, id: u64, attempt: u32, m: M) {
        let group = self.members[m].group;
        let table = &mut self.machines[n].tables[group];
        if let Some(request) = table.take(id, attempt) {
            table.park(request);
            self.tell_drained(n, group);
            self.suspect(n, m, Evidence::Refused);
            self.release_parked(n, group);
        }
    }

    fn suspect(&mut self, n: N, m: M, evidence: Evidence) {
        let machine = &mut self.machines[n];
        let table = &mut machine.tables[self.members[m].group];
        if table.suspects.insert(m) {
            let life = machine.life;
            self.queue.push(self.now + 300 * MS, Event::TryAgain { n, life, m });
            self.tell_evidence(n, m, Some(evidence));
        }
    }

    fn tell_evidence(&mut self, n: N, m: M, evidence: Option<Evidence>) {
        let life = self.machines[n].life;
        let member = self.members[m].id.clone();
        self.queue.push(self.now + 100, Event::Router { n, life, event: RouterEvent::Evidence { member, evidence } });
    }

    /// The router's own probe of a member it suspects.
    pub(super) fn try_again(&mut self, n: N, life: u32, m: M) {
        let group = self.members[m].group;
        if !self.machines[n].tables[group].suspects.contains(&m) {
            return;
        }
        let target = self.machines[n].tables[group].targets.contains(&m);
        if self.answers(n, m) || !target {
            self.machines[n].tables[group].suspects.remove(&m);
            self.tell_evidence(n, m, None);
            self.release_parked(n, group);
        } else {
            self.queue.push(self.now + 300 * MS, Event::TryAgain { n, life, m });
        }
    }

    /// What a probe of the member by the router of `n` finds.
    fn answers(&self, n: N, m: M) -> bool {
        let there = self.members[m].node;
        let up = self.machines[there].powered
            && self.machines[there].paused != Paused::Machine
            && self.members[m].program.as_ref().is_some_and(|p| p.up && !p.hung);
        up && self.net.passes(n, there) && self.net.passes(there, n)
    }

    /// Requests that nobody answers make the router probe their member: one that waits for the acknowledgement of others is not to blame.
    /// Parked ones do not wait for ever.
    pub(super) fn sweep(&mut self) {
        for n in 0..self.machines.len() {
            if !self.machines[n].runs() || self.machines[n].paused != Paused::No {
                continue;
            }
            for g in 0..self.plan.groups.len() {
                let now = self.now;
                let table = &mut self.machines[n].tables[g];
                table.parked.retain(|request| now - request.born < PATIENCE_US);
                let late: Vec<(u64, M)> = table.in_flight.values().filter(|r| now - r.sent >= SILENT_US).map(|r| (r.id, r.to)).collect();
                if late.is_empty() {
                    continue;
                }
                for (id, m) in late {
                    self.machines[n].tables[g].in_flight.remove(&id);
                    if !self.answers(n, m) {
                        self.suspect(n, m, Evidence::Silent);
                    }
                }
                self.tell_drained(n, g);
            }
        }
    }

    /// The decision thread hands a new table to the router's threads, which have it a moment later, in order.
    pub(super) fn give_routes(&mut self, n: N, routes: Routes) {
        let Some(g) = self.plan.groups.iter().position(|group| group.name == routes.group) else { return };
        self.trace.number(routes.epoch.0 << 8 | g as u64);
        let takes = 50 + self.rng.below(500);
        let named = routes.targets().iter().filter_map(|t| self.numbers.get(&t.member).copied()).collect();
        let machine = &mut self.machines[n];
        let table = &mut machine.tables[g];
        table.given = (routes.epoch, named);
        table.switched_at = table.switched_at.max(self.now + takes);
        let (at, life) = (table.switched_at, machine.life);
        self.queue.push(at, Event::Switch { n, life, routes: Rc::new(routes) });
    }

    pub(super) fn switch(&mut self, n: N, routes: Rc<Routes>) {
        let Some(g) = self.plan.groups.iter().position(|group| group.name == routes.group) else { return };
        let targets = routes.targets().iter().filter(|t| t.weight > 0).filter_map(|t| self.numbers.get(&t.member).copied()).collect();
        self.checks.switched(self.now, n, g, &routes);
        let life = self.machines[n].life;
        let table = &mut self.machines[n].tables[g];
        let cut = routes.exclusive && (routes.epoch != table.epoch() || routes.state == RouteState::Held);
        let closed = if routes.state == RouteState::Held { routes.epoch } else { Epoch(routes.epoch.0.saturating_sub(1)) };
        let group = routes.group.clone();
        table.targets = targets;
        table.routes = Some(routes);
        if cut {
            // Safe to repeat: they wait for whoever is next.
            for (_, request) in std::mem::take(&mut table.in_flight) {
                table.park(request);
            }
        }
        if !table.is_draining() {
            table.drained = None;
        }
        let event = RouterEvent::Closed { group, epoch: closed };
        self.queue.push(self.now + 100, Event::Router { n, life, event });
        self.tell_drained(n, g);
        self.release_parked(n, g);
    }

    fn tell_drained(&mut self, n: N, g: usize) {
        let life = self.machines[n].life;
        let table = &mut self.machines[n].tables[g];
        let epoch = table.epoch();
        if table.is_draining() && table.in_flight.is_empty() && table.drained != Some(epoch) {
            table.drained = Some(epoch);
            let event = RouterEvent::Drained { group: self.plan.groups[g].name.clone(), epoch };
            self.queue.push(self.now + 100, Event::Router { n, life, event });
        }
    }
}
