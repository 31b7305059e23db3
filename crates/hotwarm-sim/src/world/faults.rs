//! What goes wrong, and how it is mended.

use hotwarm_core::action::StopCause;
use hotwarm_core::group::input::Operator;
use hotwarm_core::ids::Role;
use hotwarm_core::node::Command;

use super::World;
use crate::clock::Clock;
use crate::disk::Left;
use crate::event::{Event, M, N};
use crate::fault::{Begin, Fault, Healing, Kind, Stage, Target};
use crate::machine::Paused;
use crate::plan::{CLOCK, MS, NEWER, SECOND};

/// A fault that waits for its stage strikes after this at the latest.
const PATIENCE_US: u64 = 3 * SECOND;

impl World {
    /// A fault is due: it waits for its stage if it has one, then strikes once.
    pub(super) fn fault(&mut self, i: usize) {
        if self.struck[i] || self.healed {
            return;
        }
        let fault = self.plan.faults[i];
        let overdue = self.now >= fault.at + PATIENCE_US;
        if fault.stage.is_some_and(|stage| stage != self.stage_now()) && !overdue {
            if !self.armed.contains(&i) {
                self.armed.push(i);
                self.queue.push(fault.at + PATIENCE_US, Event::Fault(i));
                if self.now == fault.at {
                    self.bring_about(i, fault.begin);
                }
            }
            return;
        }
        self.struck[i] = true;
        self.armed.retain(|armed| *armed != i);
        self.counts.faults += 1;
        let n = match self.marked.get(&i) {
            Some(n) => *n,
            None => self.victim(fault.target),
        };
        let stage = self.stage_now();
        self.coverage.count(fault.kind, stage);
        self.trace.number(i as u64 | (n as u64) << 8);
        self.line(|w| format!("FAULT {} at {} ({}) for {} ms", fault.kind.text(), w.machines[n].name, stage.text(), fault.lasts_us / MS));
        self.strike(&fault, n);
    }

    fn bring_about(&mut self, i: usize, begin: Option<Begin>) {
        let hot = self.hot_member();
        match (begin, hot) {
            (Some(Begin::Switchover | Begin::SwitchoverSlowDisk), _) => {
                let n = self.victim(Target::Leader);
                if begin == Some(Begin::SwitchoverSlowDisk) {
                    let victim = self.rng.below(self.machines.len() as u64) as usize;
                    self.marked.insert(i, victim);
                    self.machines[victim].disk.latency_us = self.rng.between(100 * MS, 400 * MS);
                    self.later(3 * SECOND, Healing::DiskSpeed(victim));
                }
                let group = self.plan.groups[CLOCK].name.clone();
                self.command(n, Command::Group { group, operator: Operator::Switchover { to: None } });
            }
            (Some(Begin::KillHot), Some(m)) => {
                self.kill(m, StopCause::Signal(9));
            }
            (Some(Begin::KillAll), _) => {
                for m in 0..self.members.len() {
                    if self.members[m].group == CLOCK {
                        self.members[m].ill.cannot_start = true;
                        let back = self.rng.between(SECOND, 3 * SECOND);
                        self.later(back, Healing::Well(m));
                        self.kill(m, StopCause::Signal(9));
                    }
                }
            }
            (Some(Begin::HangHot), Some(m)) => {
                self.hang(m, 2 * SECOND);
            }
            _ => {}
        }
    }

    pub(super) fn hot_member(&self) -> Option<M> {
        let hot = |m: &M| self.members[*m].group == CLOCK && self.members[*m].program.as_ref().is_some_and(|p| p.role == Role::Hot);
        (0..self.members.len()).filter(hot).max_by_key(|m| self.members[*m].told.1)
    }

    pub(super) fn victim(&mut self, target: Target) -> N {
        let count = self.machines.len();
        let any = self.rng.below(count as u64) as usize;
        let found = match target {
            Target::Anyone => None,
            Target::Leader => (0..count).find(|n| {
                let node = self.machines[*n].agent.as_ref();
                node.and_then(|node| node.leadership()).is_some_and(|(_, l)| l.role == hotwarm_core::consensus::ReplicaRole::Leader)
            }),
            Target::Hot => self.hot_member().map(|m| self.members[m].node),
            Target::Candidate => self.candidate().map(|m| self.members[m].node),
        };
        found.unwrap_or(any)
    }

    fn candidate(&self) -> Option<M> {
        let states = self.machines.iter().filter_map(|m| m.agent.as_ref()).map(|node| node.state());
        let (cluster, _) = states.max_by_key(|(_, applied)| *applied)?;
        let group = cluster.groups.get(&self.plan.groups[CLOCK].name)?;
        group.promoting().and_then(|id| self.numbers.get(id)).copied()
    }

    pub(super) fn later(&mut self, us: u64, healing: Healing) {
        self.queue.push(self.now + us, Event::Heal(healing));
    }

    fn member_on(&mut self, n: N) -> Option<M> {
        let group = if self.rng.one_in(3) { 0 } else { CLOCK };
        self.machines[n].members.iter().copied().find(|m| self.members[*m].group == group)
    }

    fn strike(&mut self, fault: &Fault, n: N) {
        let lasts = fault.lasts_us;
        match fault.kind {
            Kind::AgentKilled | Kind::MachineCrashed | Kind::PairCrashed | Kind::AgentStopped | Kind::MachineStopped | Kind::NodeSlow => {
                self.strike_node(fault.kind, n, lasts);
            }
            Kind::CutOff | Kind::CutLate | Kind::CutOneWay | Kind::CutPartial | Kind::Split | Kind::Lossy | Kind::Swizzle => {
                self.strike_network(fault.kind, n, lasts);
            }
            Kind::DiskSlow | Kind::DiskStalled | Kind::DiskFull | Kind::DiskTorn | Kind::DiskRotten | Kind::Wiped => {
                self.strike_disk(fault.kind, n, lasts);
            }
            Kind::Drained | Kind::AutomationPaused => self.strike_by_hand(fault.kind, n, lasts),
            _ => {
                if let Some(m) = self.member_on(n) {
                    self.strike_member(fault.kind, m, lasts);
                }
            }
        }
    }

    fn strike_node(&mut self, kind: Kind, n: N, lasts: u64) {
        match kind {
            Kind::AgentKilled => {
                self.kill_agent(n);
                // An upgrade takes a moment, a broken one longer.
                let lasts = if self.rng.one_in(2) { self.rng.between(20 * MS, 400 * MS) } else { lasts };
                self.later(lasts, Healing::Boot(n));
            }
            Kind::MachineCrashed => {
                self.crash(n);
                self.later(lasts, Healing::Boot(n));
            }
            Kind::PairCrashed => self.crash_pair(lasts),
            Kind::AgentStopped | Kind::MachineStopped if self.machines[n].paused == Paused::No => {
                self.machines[n].paused = if kind == Kind::AgentStopped { Paused::Agent } else { Paused::Machine };
                self.later(lasts, Healing::Resume(n));
            }
            Kind::NodeSlow => {
                let most = if self.rng.one_in(2) { 150 * MS } else { 800 * MS };
                self.machines[n].slow_us = self.rng.between(10 * MS, most);
                self.later(lasts, Healing::Speed(n));
            }
            _ => {}
        }
    }

    /// All followers but one are cut from the hot member for a moment; then its machine and that follower's crash, and who is left
    /// has not got the last writes.
    fn crash_pair(&mut self, lasts: u64) {
        let Some(hot) = self.hot_member().map(|m| self.members[m].node) else { return };
        let followers: Vec<N> = (0..self.machines.len()).filter(|n| *n != hot && !self.machines[*n].members.is_empty()).collect();
        if followers.is_empty() {
            return;
        }
        let other = followers[self.rng.below(followers.len() as u64) as usize];
        let links: Vec<(N, N)> = followers.iter().filter(|n| **n != other).flat_map(|n| [(hot, *n), (*n, hot)]).collect();
        links.iter().for_each(|(from, to)| self.net.cut(*from, *to));
        let moment = self.rng.between(100 * MS, 700 * MS);
        self.later(moment + 50 * MS, Healing::Links(links));
        self.later(moment, Healing::Crash(hot, lasts));
        let back = self.rng.between(500 * MS, 6 * SECOND);
        self.later(moment, Healing::Crash(other, back));
    }

    /// The agent's process ends; members and guards live on.
    pub(super) fn kill_agent(&mut self, n: N) {
        let members = self.machines[n].members.clone();
        let machine = &mut self.machines[n];
        if machine.agent.take().is_none() {
            return;
        }
        machine.disk.lose_process(&mut self.rng);
        if machine.paused == Paused::Agent {
            machine.paused = Paused::No;
        }
        machine.lease_until = hotwarm_core::ids::Mono(0);
        self.checks.ended(n);
        self.tell_ended(n);
        for m in members {
            // What its engine was doing may be done all the same.
            if self.rng.one_in(2) {
                self.members[m].round += 1;
            }
        }
    }

    /// Whoever is connected finds its connection closed, and another one refused. Now and then that is said of one who lives.
    fn tell_ended(&mut self, n: N) {
        for to in (0..self.machines.len()).filter(|to| *to != n && self.net.passes(n, *to) && self.net.passes(*to, n)) {
            let round_trip = self.net.takes(to, n, &mut self.rng) + self.net.takes(n, to, &mut self.rng);
            let redialed = self.rng.between(10 * MS, 30 * MS);
            self.queue.push(self.now + round_trip + redialed, Event::Ended { to, of: n });
        }
    }

    /// Power is lost: nothing on the machine lives on, and what was not synced may be gone.
    pub(super) fn crash(&mut self, n: N) {
        self.crash_leaving(n, None);
    }

    fn crash_leaving(&mut self, n: N, left: Option<Left>) {
        if !self.machines[n].powered {
            return;
        }
        let left = left.unwrap_or_else(|| if self.rng.one_in(2) { Left::Nothing } else { Left::Beginning });
        self.end_agent(n, left);
        for m in self.machines[n].members.clone() {
            self.members[m].program = None;
            self.members[m].round += 1;
        }
        let machine = &mut self.machines[n];
        machine.powered = false;
        machine.paused = Paused::No;
        machine.held.clear();
    }

    fn end_agent(&mut self, n: N, left: Left) {
        let machine = &mut self.machines[n];
        machine.agent = None;
        machine.disk.lose_power(left, &mut self.rng);
        machine.lease_until = hotwarm_core::ids::Mono(0);
        self.checks.ended(n);
    }

    fn strike_network(&mut self, kind: Kind, n: N, lasts: u64) {
        let count = self.machines.len();
        let mut links = Vec::new();
        match kind {
            Kind::CutOff => {
                let others = (0..count).filter(|o| *o != n);
                others.for_each(|o| links.extend([(n, o), (o, n)]));
            }
            Kind::CutLate => {
                self.machines[n].late_us = self.rng.between(100 * MS, 900 * MS);
                let moment = self.rng.between(100 * MS, 900 * MS);
                self.later(moment, Healing::CutOut(n, lasts));
                return;
            }
            Kind::CutOneWay => {
                let other = (n + 1 + self.rng.below(count as u64 - 1) as usize) % count;
                let whole = self.rng.one_in(2);
                let inward = self.rng.one_in(2);
                let others = (0..count).filter(|o| *o != n && (whole || *o == other));
                others.for_each(|o| links.push(if inward { (o, n) } else { (n, o) }));
            }
            Kind::CutPartial => {
                let other = (n + 1 + self.rng.below(count as u64 - 1) as usize) % count;
                links.extend([(n, other), (other, n)]);
            }
            Kind::Split => {
                let side: Vec<bool> = (0..count).map(|_| self.rng.one_in(2)).collect();
                let all = (0..count).flat_map(|a| (0..count).map(move |b| (a, b)));
                links.extend(all.filter(|(a, b)| side[*a] != side[*b]));
            }
            Kind::Lossy => {
                let rng = &mut self.rng;
                (self.net.lost, self.net.doubled, self.net.late) = (20 + rng.below(200), rng.below(100), rng.below(200));
                self.net.late_us = if rng.one_in(3) { rng.between(SECOND, 4 * SECOND) } else { rng.between(10 * MS, 800 * MS) };
                self.later(lasts, Healing::Quality);
                if self.rng.one_in(2) {
                    self.tell_ended(n);
                }
            }
            _ => return self.swizzle(lasts),
        }
        self.cut(links, lasts);
    }

    fn cut(&mut self, links: Vec<(N, N)>, lasts: u64) {
        links.iter().for_each(|(from, to)| self.net.cut(*from, *to));
        self.later(lasts, Healing::Links(links));
    }

    /// Some nodes are cut off one after another, then mended in another order.
    fn swizzle(&mut self, lasts: u64) {
        let count = self.machines.len();
        for n in 0..count {
            if self.rng.one_in(2) {
                let links: Vec<(N, N)> = (0..count).filter(|o| *o != n).flat_map(|o| [(n, o), (o, n)]).collect();
                let until = lasts / 2 + self.rng.below(lasts);
                self.cut(links, until);
            }
        }
    }

    fn strike_disk(&mut self, kind: Kind, n: N, lasts: u64) {
        match kind {
            Kind::DiskSlow => {
                self.machines[n].disk.latency_us = self.rng.between(20 * MS, 400 * MS);
                self.later(lasts, Healing::DiskSpeed(n));
            }
            Kind::DiskStalled => {
                self.machines[n].disk.stalled = true;
                self.later(lasts, Healing::Stall(n));
            }
            Kind::DiskFull => {
                self.machines[n].disk.full = true;
                self.kill_agent(n);
                self.later(lasts, Healing::DiskSpace(n));
            }
            Kind::DiskRotten if self.rng.one_in(2) => self.machines[n].disk_lies = true,
            Kind::DiskTorn | Kind::DiskRotten | Kind::Wiped => {
                // Losing the directories of a quorum is not to be survived, and not tried.
                let rest_is_whole = self.rest_is_whole(n);
                let torn = rest_is_whole && kind == Kind::DiskTorn;
                self.crash_leaving(n, torn.then_some(Left::Sectors));
                match kind {
                    Kind::DiskRotten if rest_is_whole => self.machines[n].disk.rot(&mut self.rng),
                    Kind::Wiped if rest_is_whole => self.forget(n),
                    _ => {}
                }
                self.later(lasts, Healing::Boot(n));
            }
            _ => {}
        }
    }

    /// The disk said that a batch is synced, its replica has answered for it, and now it is gone (S12).
    pub(super) fn break_promise(&mut self, n: N, through: u64) {
        if self.machines[n].disk_lies && self.machines[n].disk.promises(through) && self.rest_is_whole(n) {
            self.machines[n].disk_lies = false;
            self.crash_leaving(n, Some(Left::Nothing));
            self.machines[n].disk.lose_synced();
            let back = self.rng.between(10 * MS, 300 * MS);
            self.later(back, Healing::Boot(n));
        }
    }

    /// All other nodes are in the log with the directory that they have now, and the voters are all that vote.
    fn rest_is_whole(&self, n: N) -> bool {
        let states = self.machines.iter().filter_map(|m| m.agent.as_ref());
        let Some(newest) = states.max_by_key(|node| node.state().1) else { return false };
        let (cluster, _) = newest.state();
        let Some(status) = newest.replica_status().filter(|status| status.voters.outgoing.is_empty()) else { return false };
        let votes = |id: u64| status.voters.voters.contains(&id);
        self.machines.iter().enumerate().filter(|(other, _)| *other != n).all(|(_, machine)| {
            let node = cluster.nodes.get(&machine.name);
            node.is_some_and(|node| {
                let named = node.raft_id.is_some_and(|id| !node.spec.votes || votes(id.0));
                node.incarnation == machine.incarnation && named && machine.disk.is_named()
            })
        })
    }

    /// The node's directory is gone, or cannot be believed: it comes back as if for the first time (S11, S12).
    fn forget(&mut self, n: N) {
        let incarnation = u128::from(self.rng.next_u64()) | 1;
        let machine = &mut self.machines[n];
        machine.disk.wipe();
        machine.incarnation = incarnation;
        machine.may_found = false;
        self.checks.forgot(n);
    }

    fn strike_member(&mut self, kind: Kind, m: M, lasts: u64) {
        match kind {
            Kind::MemberKilled => self.kill(m, StopCause::Signal(9)),
            Kind::MemberExits => self.kill(m, StopCause::Exit(3)),
            Kind::MemberHangs => self.hang(m, lasts),
            Kind::StartFails => {
                self.members[m].ill.cannot_start = true;
                self.kill(m, StopCause::Exit(1));
            }
            Kind::StartSlow => {
                self.members[m].ill.starts_slowly = true;
                self.kill(m, StopCause::Exit(1));
            }
            Kind::PromoteFails | Kind::PromoteHangs => {
                // The one that would be promoted is ill; the one that is hot dies.
                let group = self.members[m].group;
                let all: Vec<M> = (0..self.members.len()).filter(|o| self.members[*o].group == group).collect();
                for other in all {
                    let ill = other == m || self.rng.one_in(2);
                    self.members[other].ill.cannot_promote |= ill && kind == Kind::PromoteFails;
                    self.members[other].ill.promotes_never |= ill && kind == Kind::PromoteHangs;
                    self.later(lasts, Healing::Well(other));
                }
                if let Some(hot) = self.hot_member().filter(|_| group == CLOCK && self.stage == Stage::Steady) {
                    self.kill(hot, StopCause::Signal(11));
                }
            }
            _ => {}
        }
        if matches!(kind, Kind::StartFails | Kind::StartSlow) {
            self.later(lasts, Healing::Well(m));
        }
    }

    fn hang(&mut self, m: M, lasts: u64) {
        let incarnation = self.members[m].life;
        if let Some(program) = &mut self.members[m].program {
            program.hung = true;
            self.later(lasts, Healing::Unhang(m, incarnation));
        }
    }

    pub(super) fn heal(&mut self, healing: Healing) {
        match healing {
            Healing::Boot(n) => {
                self.power_on(n);
                self.boot(n);
            }
            Healing::Resume(n) => self.resume(n),
            Healing::Speed(n) => self.machines[n].slow_us = 0,
            Healing::Links(links) => links.iter().for_each(|(from, to)| self.net.mend(*from, *to)),
            Healing::Crash(n, lasts) if !self.healed => {
                self.crash(n);
                self.later(lasts, Healing::Boot(n));
            }
            Healing::CutOut(n, lasts) if !self.healed => {
                self.machines[n].late_us = 0;
                let links = (0..self.machines.len()).filter(|o| *o != n).map(|o| (n, o)).collect();
                self.cut(links, lasts);
            }
            Healing::Crash(..) | Healing::CutOut(..) => {}
            Healing::Quality => (self.net.lost, self.net.doubled, self.net.late) = (0, 0, 0),
            Healing::DiskSpeed(n) => self.machines[n].disk.latency_us = MS,
            Healing::DiskSpace(n) => {
                self.machines[n].disk.full = false;
                self.boot(n);
            }
            Healing::Stall(n) => self.disk_goes_on(n),
            Healing::Unhang(m, incarnation) => {
                if let Some(program) = self.members[m].living(incarnation) {
                    program.hung = false;
                }
            }
            Healing::Well(m) => self.members[m].ill = crate::member::Ill::default(),
            Healing::Upgrade(n) => {
                self.kill_agent(n);
                self.machines[n].behaviour = NEWER;
                self.later(20 * MS, Healing::Boot(n));
            }
            Healing::Operator(undo) => self.take_back(undo),
            Healing::Restart(group) => self.restart_members(group),
        }
    }

    fn power_on(&mut self, n: N) {
        let rate = self.machines[n].clock.rate_ppm();
        let shows = self.rng.between(2 * SECOND, 9 * SECOND);
        let machine = &mut self.machines[n];
        if !machine.powered {
            machine.powered = true;
            machine.clock = Clock::new(self.now, shows, rate);
        }
    }

    /// What was held happens at once, then the timer (S16).
    fn resume(&mut self, n: N) {
        if self.machines[n].paused == Paused::No {
            return;
        }
        self.machines[n].paused = Paused::No;
        let mut held = std::mem::take(&mut self.machines[n].held);
        // The guards' timers are the kernel's: they fire before anything else has run.
        held.sort_by_key(|event| !matches!(event, Event::Guard { .. }));
        for event in held {
            self.queue.push(self.now, event);
        }
        if self.machines[n].runs() {
            let life = self.machines[n].life;
            self.machines[n].burst = super::agent::BURST_MAX;
            self.machines[n].wake_at = self.now + 1;
            self.queue.push(self.now + 1, Event::Wake { n, life });
        }
    }

    fn disk_goes_on(&mut self, n: N) {
        let machine = &mut self.machines[n];
        machine.disk.stalled = false;
        let life = machine.life;
        for (token, through) in std::mem::take(&mut machine.disk.waiting) {
            self.queue.push(self.now + MS, Event::Persisted { n, life, token, through });
        }
    }

    /// No more faults: whatever is broken is repaired now.
    pub(super) fn heal_everything(&mut self) {
        self.line(|_| "everything is healed".to_owned());
        self.net.mend_all();
        for n in 0..self.machines.len() {
            (self.machines[n].slow_us, self.machines[n].late_us) = (0, 0);
            self.machines[n].disk.latency_us = MS;
            self.machines[n].disk.full = false;
            self.machines[n].disk_lies = false;
            self.disk_goes_on(n);
            self.resume(n);
            self.heal(Healing::Boot(n));
            if self.plan.upgrades && self.machines[n].behaviour != NEWER {
                self.later(n as u64 * SECOND / 2, Healing::Upgrade(n));
            }
        }
        for m in 0..self.members.len() {
            self.members[m].ill = crate::member::Ill::default();
            if let Some(program) = &mut self.members[m].program {
                program.hung = false;
            }
        }
    }
}
