//! A little world around one exclusive group, in which it is seen who really serves: nodes that apply the log late, processes that
//! live and die, routers that admit, leases that end, messages that are late, doubled or lost.
//!
//! It keeps the contracts of the program (a node acts on the state it has applied, under its own lease; an engine refuses older epochs)
//! and takes nothing from `step` on trust: promise 1 and S22 are checked on what serves, not on what the group believes.

use std::collections::{BTreeMap, BTreeSet};

use hotwarm_core::action::StopCause;
use hotwarm_core::group::input::{Answer, Body, Life as Told, NodeInput, Operator};
use hotwarm_core::group::spec::Fence;
use hotwarm_core::group::state::{Life, Pause, Phase};
use hotwarm_core::group::{Group, GroupSpec};
use hotwarm_core::ids::{Epoch, Incarnation, MemberId, NodeId, Position, Role};
use hotwarm_core::route::RouteState;

use crate::good;

const GOOD_ROUNDS_MAX: usize = 80;

#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    /// How much of the log it has applied.
    applied: usize,
    pub(crate) cut: bool,
    /// It may act as a holder.
    lease: bool,
    /// Its lease was not renewed for its whole length: it ends as soon as the node counts it (S10).
    due: bool,
    /// For which epoch, and to whose address, its router sends.
    admits: Option<(Epoch, MemberId)>,
}

/// A member as it really is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Process {
    incarnation: Incarnation,
    running: bool,
    pub(crate) ready: bool,
    cause: Option<StopCause>,
    /// The epoch for which it acts as hot.
    serves: Option<Epoch>,
    /// It gave this epoch up; its engine refuses to serve it again.
    gave_up: Epoch,
    /// Its engine changes the role by starting it anew.
    restarts: bool,
    /// Its present life began warm.
    fresh: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    /// The state after each entry of the log.
    pub(crate) log: Vec<Group>,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) members: BTreeMap<MemberId, Process>,
    /// Messages on their way.
    pub(crate) post: Vec<Body>,
    /// Messages that arrived, and may arrive again much later.
    pub(crate) arrived: Vec<Body>,
}

impl World {
    pub(crate) fn new(spec: GroupSpec, restarts: bool) -> Self {
        let names: BTreeSet<NodeId> = spec.members.values().map(|m| m.node.clone()).chain(spec.routers.iter().cloned()).collect();
        let node = Node { lease: true, ..Node::default() };
        let process = Process { restarts, cause: Some(StopCause::Absent), ..Process::default() };
        Self {
            nodes: names.iter().map(|name| (name.clone(), node.clone())).collect(),
            members: spec.members.keys().map(|id| (id.clone(), process.clone())).collect(),
            log: vec![Group::new(spec, names.into_iter().map(|name| (name, Default::default())).collect(), Epoch(0))],
            post: vec![],
            arrived: vec![],
        }
    }

    pub(crate) fn now(&self) -> &Group {
        self.log.last().expect("the log begins with a state")
    }

    fn supervised(&self) -> bool {
        self.now().spec.fence == Fence::Supervisor
    }

    /// Puts an input into the log and checks every invariant.
    pub(crate) fn enter(&mut self, body: Body, after_ms: u64) -> Result<(), String> {
        let after = good::checked_step(self.now().clone(), body, after_ms)?;
        self.log.push(after);
        self.check()
    }

    /// S22, on what really serves.
    pub(crate) fn check(&self) -> Result<(), String> {
        let reached: BTreeSet<_> = self.nodes.values().filter_map(|n| n.admits.as_ref().map(|(_, m)| m)).collect();
        let reached: Vec<_> = reached.into_iter().filter(|m| self.members.get(*m).is_some_and(|p| p.running)).collect();
        if reached.len() > 1 {
            return Err(format!("S22: routers reach {reached:?}\n{self:#?}").replace("log: [", "log (whole): ["));
        }
        let serving: Vec<_> = self.members.iter().filter(|(_, p)| p.running && p.serves.is_some()).map(|(id, _)| id).collect();
        if self.now().spec.fence != Fence::RouterOnly && serving.len() > 1 {
            return Err(format!("S22: {serving:?} serve\nnodes {:#?}\nmembers {:#?}\n{:#?}", self.nodes, self.members, self.now()));
        }
        Ok(())
    }

    /// A message arrives.
    pub(crate) fn arrive(&mut self, body: Body, after_ms: u64) -> Result<(), String> {
        if !self.arrived.contains(&body) {
            self.arrived.push(body.clone());
        }
        self.enter(body, after_ms)
    }

    fn send(&mut self, body: Body) {
        if !self.post.contains(&body) {
            self.post.push(body);
        }
    }

    /// Its members end that must not outlive the lease; its router admits nothing.
    fn end_lease(&mut self, name: &NodeId) {
        let supervised = self.supervised();
        let Some(node) = self.nodes.get_mut(name) else { return };
        (node.lease, node.admits) = (false, None);
        for id in self.members_of(name) {
            if supervised {
                self.kill(&id, StopCause::Deadline);
            }
        }
    }

    fn members_of(&self, name: &NodeId) -> Vec<MemberId> {
        self.now().spec.members.iter().filter(|(_, m)| m.node == *name).map(|(id, _)| id.clone()).collect()
    }

    pub(crate) fn kill(&mut self, id: &MemberId, cause: StopCause) {
        if let Some(process) = self.members.get_mut(id).filter(|p| p.running) {
            (process.running, process.ready, process.serves, process.cause) = (false, false, None, Some(cause));
        }
    }

    /// The process ends by itself; one that hotwarm did not start is only seen not to answer.
    pub(crate) fn crash(&mut self, id: &MemberId) {
        if self.supervised() {
            self.kill(id, StopCause::Signal(9));
        } else if let Some(process) = self.members.get_mut(id) {
            process.ready = false;
        }
    }

    /// The lease of a node that is cut off was not renewed in time.
    pub(crate) fn expire(&mut self, name: &NodeId) {
        if let Some(node) = self.nodes.get_mut(name).filter(|n| n.cut) {
            node.due = true;
            self.count_lease(name);
        }
    }

    /// A holder that has applied a pause does not count, until it has applied that the pause is to end.
    fn count_lease(&mut self, name: &NodeId) {
        let Some(node) = self.nodes.get(name) else { return };
        if node.due && self.log[node.applied].pause != Pause::Paused {
            self.end_lease(name);
        }
    }

    /// The leader has waited the lease out.
    pub(crate) fn lapse(&mut self, name: &NodeId) -> Result<(), String> {
        if self.nodes.get(name).is_some_and(|n| n.due) && !self.now().node(name).lapsed {
            self.enter(Body::Node(NodeInput::Lapsed { node: name.clone() }), 5)?;
        }
        Ok(())
    }

    /// A node that lapsed is granted leases again.
    pub(crate) fn back(&mut self, name: &NodeId) -> Result<(), String> {
        if self.now().node(name).lapsed && self.nodes.get(name).is_some_and(|n| !n.cut) {
            self.enter(Body::Node(NodeInput::Back { node: name.clone() }), 1)?;
        }
        Ok(())
    }

    /// The node applies `entries` more of the log, and acts on it.
    pub(crate) fn act(&mut self, name: &NodeId, entries: usize) -> Result<(), String> {
        let end = self.log.len() - 1;
        let Some(node) = self.nodes.get_mut(name) else { return Ok(()) };
        for _ in 0..entries.min(end - node.applied) {
            if node.cut {
                break;
            }
            node.applied += 1;
        }
        let lapsed = self.log[end].node(name).lapsed;
        self.count_lease(name);
        // S1: a grant counts once what the leader had applied is applied here.
        let node = self.nodes.get_mut(name).expect("looked up above");
        if !node.cut && node.applied == end && !lapsed {
            (node.lease, node.due) = (true, false);
        }
        let view = self.log[node.applied].clone();
        self.route(name, &view);
        for id in self.members_of(name) {
            self.look_after(&id, name, &view);
        }
        self.check()
    }

    /// For a while most goes well: nodes keep up, but for one; messages arrive, but for one in four.
    pub(crate) fn calm(&mut self, behind: &NodeId, held: usize) -> Result<(), String> {
        let names: Vec<NodeId> = self.nodes.keys().filter(|name| *name != behind || held.is_multiple_of(2)).cloned().collect();
        for round in 0..3 {
            for name in &names {
                self.back(name)?;
                self.act(name, usize::MAX)?;
            }
            for (nth, body) in std::mem::take(&mut self.post).into_iter().enumerate() {
                if (nth + round + held).is_multiple_of(4) {
                    self.send(body);
                } else {
                    self.arrive(body, 1)?;
                }
            }
        }
        Ok(())
    }

    fn route(&mut self, name: &NodeId, view: &Group) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        node.admits = match view.routes().state {
            RouteState::Open(to) | RouteState::Draining(to) if node.lease && view.spec.routers.contains(name) => {
                to.first().map(|target| (view.epoch, target.member.clone()))
            }
            _ => None,
        };
        let closed = node.admits.as_ref().is_none_or(|(epoch, _)| *epoch > view.closed_epoch);
        if view.stale_routers.contains(name) && closed {
            self.send(Body::Answer(Answer::RouterClosed { node: name.clone(), epoch: view.closed_epoch }));
        }
        if matches!(view.routes().state, RouteState::Draining(_)) {
            self.send(Body::Answer(Answer::RouterDrained { node: name.clone(), epoch: view.epoch }));
        }
        if let Pause::Resuming { waiting } = &view.pause
            && waiting.contains(name)
        {
            self.send(Body::Answer(Answer::ResumeSeen { node: name.clone(), resume: view.resumes }));
        }
    }

    fn look_after(&mut self, id: &MemberId, name: &NodeId, view: &Group) {
        let lease = self.nodes.get(name).is_some_and(|n| n.lease);
        let Some(member) = view.members.get(id) else { return };
        let fencing = matches!(view.transition.as_ref().map(|t| &t.phase), Some(Phase::Fencing { .. })) && member.may_serve.is_some();
        self.tell_life(id, view);
        let process = &self.members[id];
        if !process.running && fencing {
            self.confirm_fence(id, view.epoch.next());
        } else if !process.running {
            let told = member.stopped() && member.incarnation == process.incarnation;
            let first = process.incarnation == Incarnation(0);
            // S8: what a router with an old view could reach is not started.
            if member.role != Role::Spare && (told || first) && !view.stays_down(id) && lease {
                self.start(id);
            }
        } else if fencing {
            self.step_down(id, view);
        } else if member.role == Role::Spare && member.may_serve.is_none() || lease && view.is_to_end(id, process.incarnation) {
            self.kill(id, StopCause::Asked);
        } else {
            self.take_role(id, view, lease);
        }
        self.tell_position(id, view);
    }

    fn start(&mut self, id: &MemberId) {
        if let Some(process) = self.members.get_mut(id) {
            process.incarnation = process.incarnation.next();
            (process.running, process.ready, process.serves, process.fresh) = (true, true, None, true);
        }
    }

    fn tell_life(&mut self, id: &MemberId, view: &Group) {
        let (process, member) = (self.members[id].clone(), &view.members[id]);
        let (member_id, incarnation) = (id.clone(), process.incarnation);
        let newer = incarnation > member.incarnation;
        let same = incarnation == member.incarnation;
        let told = match (process.running, &member.life) {
            (true, Life::Unknown) => Told::Started { member: member_id, incarnation },
            (true, _) if newer => Told::Started { member: member_id, incarnation },
            (true, Life::Running) if same && process.ready && !member.ready => Told::Ready { member: member_id, incarnation },
            (true, Life::Running) if same && !process.ready && member.ready => {
                Told::Unready { member: member_id, incarnation, why: "no answer".to_owned() }
            }
            (false, life) if newer || !matches!(life, Life::Stopped(_)) => {
                Told::Stopped { member: member_id, incarnation, cause: process.cause.unwrap_or(StopCause::Absent) }
            }
            _ => return,
        };
        self.send(Body::Life(told));
    }

    /// By its engine, or by the user's hook: it serves nothing before `epoch` and will not.
    pub(crate) fn confirm_fence(&mut self, id: &MemberId, epoch: Epoch) {
        let Some(process) = self.members.get_mut(id) else { return };
        process.serves = process.serves.filter(|serves| *serves >= epoch);
        process.gave_up = process.gave_up.max(Epoch(epoch.0.saturating_sub(1)));
        self.send(Body::Answer(Answer::Fenced { member: id.clone(), epoch }));
    }

    fn step_down(&mut self, id: &MemberId, view: &Group) {
        let (Some(epoch), Some(t)) = (view.members[id].may_serve, &view.transition) else { return };
        if t.planned {
            let process = self.members.get_mut(id).expect("it is one of the group");
            process.serves = None;
            process.gave_up = process.gave_up.max(epoch);
            if process.restarts && !process.fresh {
                let (member, incarnation) = (id.clone(), process.incarnation);
                (process.incarnation, process.fresh) = (incarnation.next(), true);
                let cause = StopCause::Renewed { role: Role::Warm };
                self.post.push(Body::Life(Told::Stopped { member, incarnation, cause }));
            }
            let incarnation = self.members[id].incarnation;
            self.send(Body::Answer(Answer::Demoted { member: id.clone(), incarnation, epoch }));
            return;
        }
        match view.spec.fence {
            Fence::Supervisor => self.kill(id, StopCause::Asked),
            Fence::Hook => self.confirm_fence(id, view.epoch.next()),
            Fence::RouterOnly => {}
        }
    }

    fn take_role(&mut self, id: &MemberId, view: &Group, lease: bool) {
        let member = &view.members[id];
        let wanted = member.role == Role::Hot || view.promoting() == Some(id);
        let process = self.members.get_mut(id).expect("it is one of the group");
        match member.may_serve {
            Some(epoch) if wanted && epoch > process.gave_up => {
                if process.serves != Some(epoch) && lease {
                    if process.restarts {
                        let (member, incarnation) = (id.clone(), process.incarnation);
                        (process.incarnation, process.fresh) = (incarnation.next(), false);
                        let cause = StopCause::Renewed { role: Role::Hot };
                        self.post.push(Body::Life(Told::Stopped { member, incarnation, cause }));
                    }
                    self.members.get_mut(id).expect("it is one of the group").serves = Some(epoch);
                }
                let process = &self.members[id];
                if process.serves == Some(epoch) && !member.serving {
                    let (member, incarnation, attempt) = (id.clone(), process.incarnation, view.attempt);
                    self.send(Body::Answer(Answer::Promoted { member, incarnation, epoch, attempt }));
                }
            }
            None if process.serves.is_some() => process.serves = None,
            _ => {}
        }
    }

    fn tell_position(&mut self, id: &MemberId, view: &Group) {
        let Some(t) = view.transition.as_ref().filter(|t| matches!(t.phase, Phase::Choosing { .. })) else { return };
        let process = &self.members[id];
        let told = view.members[id].position.is_some_and(|(attempt, _)| attempt == t.attempt);
        if view.spec.positions && process.running && !told {
            let (member, incarnation, attempt) = (id.clone(), process.incarnation, t.attempt);
            self.send(Body::Answer(Answer::Position { member, incarnation, attempt, position: Position(7) }));
        }
    }

    /// All faults are lifted; the group must come into service, and nothing be broken on the way.
    pub(crate) fn heal(&mut self) -> Result<(), String> {
        let names: Vec<NodeId> = self.nodes.keys().cloned().collect();
        for _ in 0..GOOD_ROUNDS_MAX {
            self.nodes.values_mut().for_each(|node| node.cut = false);
            self.members.values_mut().for_each(|process| process.ready = process.running);
            for name in &names {
                self.heal_node(name)?;
            }
            let quiet = self.post.is_empty();
            for body in std::mem::take(&mut self.post) {
                self.enter(body, 1)?;
            }
            if self.now().pause == Pause::Paused {
                self.enter(Body::Operator(Operator::Resume { force: false }), 1)?;
            }
            if good::in_service(self.now()) && quiet && !good::restarts(self.now()) {
                return Ok(());
            }
            // Time passes only when nobody has anything to say.
            if let Some(deadline) = self.now().next_deadline().filter(|_| quiet) {
                let wait_ms = deadline.since(self.now().at);
                self.enter(Body::Timer, wait_ms)?;
            }
        }
        Err(format!("not in service: {:#?}\nnodes {:#?}\nmembers {:#?}\n{:#?}", self.post, self.nodes, self.members, self.now()))
    }

    fn heal_node(&mut self, name: &NodeId) -> Result<(), String> {
        self.back(name)?;
        let view = self.now().node(name);
        if view.silent {
            self.enter(Body::Node(NodeInput::Heard { node: name.clone() }), 1)?;
        }
        if view.drained {
            self.enter(Body::Node(NodeInput::Undrain { node: name.clone() }), 1)?;
        }
        for id in self.members_of(name) {
            if self.now().members[&id].drained {
                self.enter(Body::Operator(Operator::Undrain { member: id.clone() }), 1)?;
            }
        }
        self.act(name, usize::MAX)
    }
}
