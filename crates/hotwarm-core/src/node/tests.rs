//! Several nodes on one desk: messages, disks and engines that answer after a millisecond, and a clock that is turned by hand. The
//! simulator has the faults; here stand the plain stories.

mod duties;
mod joining;
mod leases;
mod quiet;
mod reports;
mod restart;
mod survivor;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::*;
use crate::action::{EngineAction, MemberEvent, StopCause};
use crate::cluster::{Body, ClusterSpec, Item, NodeSpec, What};
use crate::group::spec::{Bounds, Fence, GroupSpec, MemberSpec};
use crate::ids::{Incarnation, Role};
use crate::route::RouteState;

const MS: u64 = 1_000;

enum Todo {
    Message { from: NodeId, bytes: Vec<u8> },
    Persisted(u64),
    Member(MemberId, MemberEvent),
    Router(RouterEvent),
}

struct Desk {
    now: Mono,
    nodes: BTreeMap<NodeId, Node>,
    queue: BTreeMap<(Mono, u64), (NodeId, Todo)>,
    order: u64,
    routes: BTreeMap<(NodeId, GroupName), Routes>,
    lives: BTreeMap<MemberId, u64>,
    hot: BTreeMap<MemberId, Epoch>,
    down: BTreeSet<NodeId>,
    cut: BTreeSet<(NodeId, NodeId)>,
    frozen: BTreeSet<MemberId>,
    /// Those whose programs refuse to step down, and how often they were asked.
    refuses: BTreeMap<MemberId, u32>,
    deadlines: BTreeMap<MemberId, Mono>,
    /// Nodes at whose routers requests in flight never end.
    busy: BTreeSet<NodeId>,
    /// Nodes on whose disks nothing becomes durable, and what waits for that.
    stalled: BTreeMap<NodeId, Vec<u64>>,
    /// Deadlines that came, and moments at which anything came, by node.
    wakes: BTreeMap<NodeId, (u32, u32)>,
    replies: BTreeMap<u64, Outcome>,
    /// What each node told of decisions, and of which wall time.
    told: BTreeMap<NodeId, Vec<(u64, Event)>>,
    log: Vec<String>,
}

fn group(name: &str, exclusive: bool, nodes: &[&str]) -> GroupSpec {
    let group = GroupName::from(name);
    let member = |n: &&str| {
        let address = ([127, 0, 0, 1], 9000).into();
        (MemberId::of(&group, n), MemberSpec { node: (*n).into(), address, priority: 0, weight: 100, zone: String::new() })
    };
    GroupSpec {
        name: group.clone(),
        hot: if exclusive { 1 } else { nodes.len() as u16 },
        warm: if exclusive { nodes.len() as u16 - 1 } else { 0 },
        exclusive,
        stateful: exclusive,
        members: nodes.iter().map(member).collect(),
        routers: nodes.iter().map(|n| NodeId::from(*n)).collect(),
        fence: Fence::Supervisor,
        positions: false,
        acks: 0,
        bounds: Bounds::default(),
    }
}

impl Desk {
    fn new(names: &[&str]) -> Self {
        let node = NodeSpec { address: ([127, 0, 0, 1], 7400).into(), votes: true, witness: false, zone: String::new() };
        let groups = [group("web", false, names), group("clock", true, names)];
        let spec = ClusterSpec {
            name: "desk".into(),
            lease_ms: 1000,
            nodes: names.iter().map(|n| (NodeId::from(*n), node.clone())).collect(),
            groups: groups.into_iter().map(|g| (g.name.clone(), g)).collect(),
            text: "text".into(),
        };
        let now = Mono(1_000_000);
        let mut desk = Self {
            now,
            nodes: BTreeMap::new(),
            queue: BTreeMap::new(),
            order: 0,
            routes: BTreeMap::new(),
            lives: BTreeMap::new(),
            hot: BTreeMap::new(),
            down: BTreeSet::new(),
            cut: BTreeSet::new(),
            frozen: BTreeSet::new(),
            refuses: BTreeMap::new(),
            deadlines: BTreeMap::new(),
            busy: BTreeSet::new(),
            stalled: BTreeMap::new(),
            wakes: BTreeMap::new(),
            replies: BTreeMap::new(),
            told: BTreeMap::new(),
            log: Vec::new(),
        };
        for (i, name) in names.iter().enumerate() {
            let mut options = Options::new((*name).into(), "desk", 100 + i as u128, i as u64);
            options.peers = names.iter().map(|n| NodeId::from(*n)).collect();
            options.found = (i == 0).then(|| (77, spec.clone()));
            let node = Node::new(options, Stored::default(), now).expect("a new node starts");
            desk.nodes.insert((*name).into(), node);
            for group in ["web", "clock"] {
                let id = MemberId::of(&group.into(), name);
                let event = MemberEvent::Stopped { incarnation: Incarnation(0), cause: StopCause::Absent };
                desk.later_name(name, Todo::Member(id, event));
            }
        }
        desk
    }

    fn later(&mut self, node: &NodeId, todo: Todo) {
        self.order += 1;
        self.queue.insert((self.now.plus(Duration::from_millis(1)), self.order), (node.clone(), todo));
    }

    fn later_name(&mut self, node: &str, todo: Todo) {
        self.later(&node.into(), todo);
    }

    fn run(&mut self, ms: u64) {
        let end = Mono(self.now.0 + ms * MS);
        while self.now < end {
            let names: Vec<NodeId> = self.nodes.keys().filter(|n| !self.down.contains(*n)).cloned().collect();
            for name in &names {
                self.drain(name);
            }
            let due = names.iter().map(|n| self.nodes[n].next_deadline()).min().expect("somebody is up");
            let next = self.queue.keys().next().map_or(due, |(at, _)| (*at).min(due));
            self.now = self.now.max(next).min(end);
            let mut woken = BTreeSet::new();
            while let Some(entry) = self.queue.first_entry().filter(|e| e.key().0 <= self.now) {
                let (name, todo) = entry.remove();
                self.deliver(&name, todo);
                woken.insert(name);
            }
            for name in &names {
                let node = self.nodes.get_mut(name).expect("known");
                let due = self.now >= node.next_deadline();
                let (deadlines, moments) = self.wakes.entry(name.clone()).or_default();
                *deadlines += u32::from(due);
                *moments += u32::from(due || woken.contains(name));
                node.handle_deadline(self.now);
            }
        }
    }

    fn deliver(&mut self, name: &NodeId, todo: Todo) {
        if self.down.contains(name) {
            return;
        }
        if let (Some(waiting), Todo::Persisted(token)) = (self.stalled.get_mut(name), &todo) {
            return waiting.push(*token);
        }
        let now = self.now;
        let node = self.nodes.get_mut(name).expect("known");
        match todo {
            Todo::Message { from, bytes } if !self.cut.contains(&(from.clone(), name.clone())) => node.handle_message(now, &from, &bytes),
            Todo::Message { .. } => {}
            Todo::Persisted(token) => node.handle_persisted(now, token),
            Todo::Member(member, event) => node.handle_member(now, &member, event),
            Todo::Router(event) => node.handle_router(now, event),
        }
        self.drain(name);
    }

    fn drain(&mut self, name: &NodeId) {
        let mut actions = VecDeque::new();
        while let Some(action) = self.nodes.get_mut(name).expect("known").poll_action() {
            actions.push_back(action);
        }
        for action in actions {
            self.act(name, action);
        }
    }

    fn act(&mut self, name: &NodeId, action: Action) {
        match action {
            Action::Send { to, bytes } => {
                // A transport has the addresses of those that its node's configuration names, and no others.
                let node = &self.nodes[name];
                if self.nodes.contains_key(&to) && node.peers.is_member(&node.cluster, &to) {
                    self.later(&to, Todo::Message { from: name.clone(), bytes });
                }
            }
            Action::Persist { token: Some(token), .. } => self.later(name, Todo::Persisted(token)),
            Action::Engine { member, action } => self.engine(name, member, action),
            Action::Routes(routes) => {
                let group = routes.group.clone();
                let closed = if routes.state == RouteState::Held { routes.epoch } else { Epoch(routes.epoch.0.saturating_sub(1)) };
                let drains = matches!(routes.state, RouteState::Draining(_)) && !self.busy.contains(name);
                let drained = drains.then_some(routes.epoch);
                self.routes.insert((name.clone(), group.clone()), routes);
                self.later(name, Todo::Router(RouterEvent::Closed { group: group.clone(), epoch: closed }));
                if let Some(epoch) = drained {
                    self.later(name, Todo::Router(RouterEvent::Drained { group, epoch }));
                }
            }
            Action::Events { events, wall_ms, .. } => {
                for event in events {
                    self.told.entry(name.clone()).or_default().push((wall_ms, event.clone()));
                    let group = event.group.map_or_else(String::new, |g| format!("{g}: "));
                    let what = match event.what {
                        What::Group(crate::group::Effect::Because(reason)) => reason.to_string(),
                        other => format!("{other:?}"),
                    };
                    self.log.push(format!("{:>6} {name} {group}{what}", self.now.0 / MS));
                }
            }
            Action::Reply { ticket, outcome } => drop(self.replies.insert(ticket, outcome)),
            Action::Alarm { code, text } | Action::Halt { code, text } => panic!("{code} {text}\n{}", self.log.join("\n")),
            Action::Persist { token: None, .. } | Action::Lease { .. } | Action::Probe { .. } | Action::Configured { .. } => {}
        }
    }

    fn engine(&mut self, name: &NodeId, member: MemberId, action: EngineAction) {
        let life = self.lives.entry(member.clone()).or_default();
        let incarnation = Incarnation(*life);
        let events = match action {
            EngineAction::Start { epoch } => {
                *life += 1;
                let incarnation = Incarnation(*life);
                vec![MemberEvent::Started { incarnation, role: Role::Warm, epoch }, MemberEvent::Ready { incarnation }]
            }
            EngineAction::Stop { .. } | EngineAction::Fence { .. } => {
                self.hot.remove(&member);
                self.frozen.remove(&member);
                vec![MemberEvent::Stopped { incarnation, cause: StopCause::Asked }]
            }
            EngineAction::Promote { epoch, .. } => {
                self.hot.insert(member.clone(), epoch);
                vec![MemberEvent::RoleChanged { incarnation, role: Role::Hot, epoch }]
            }
            EngineAction::Demote { epoch } if self.refuses.contains_key(&member) => {
                *self.refuses.entry(member.clone()).or_default() += 1;
                vec![MemberEvent::RoleFailed { incarnation, role: Role::Warm, epoch, why: "no".to_owned() }]
            }
            EngineAction::Demote { epoch } => {
                self.hot.remove(&member);
                vec![MemberEvent::RoleChanged { incarnation, role: Role::Warm, epoch }]
            }
            EngineAction::Deadline { until: Some(until) } if until <= self.now => {
                self.hot.remove(&member);
                vec![MemberEvent::Stopped { incarnation, cause: StopCause::Deadline }]
            }
            EngineAction::Deadline { until } => {
                match until {
                    Some(until) => self.deadlines.insert(member.clone(), until),
                    None => self.deadlines.remove(&member),
                };
                vec![]
            }
            EngineAction::Detach { .. } | EngineAction::Follow { .. } => vec![],
        };
        for event in events {
            self.later(name, Todo::Member(member.clone(), event));
        }
    }

    fn kill_member(&mut self, member: &str) {
        let member = MemberId::from(member);
        let incarnation = Incarnation(self.lives[&member]);
        self.hot.remove(&member);
        let name = member.name().to_owned();
        self.later_name(&name, Todo::Member(member, MemberEvent::Stopped { incarnation, cause: StopCause::Signal(9) }));
    }

    fn serving(&self, group: &str, on: &str) -> Vec<String> {
        match &self.routes.get(&(on.into(), group.into())).map(|r| r.state.clone()) {
            Some(RouteState::Open(targets)) => targets.iter().map(|t| t.member.to_string()).collect(),
            _ => Vec::new(),
        }
    }

    fn cluster(&self, on: &str) -> &Cluster {
        &self.nodes[&NodeId::from(on)].cluster
    }

    fn leader(&self) -> NodeId {
        let leads = |n: &&NodeId| !self.down.contains(*n) && self.nodes[*n].lead.is_some();
        self.nodes.keys().find(leads).cloned().unwrap_or_else(|| panic!("nobody leads\n{}", self.log.join("\n")))
    }

    /// The milliseconds until `done`, at most `ms`.
    fn until(&mut self, ms: u64, what: &str, done: impl Fn(&Self) -> bool) -> u64 {
        let begun = self.now;
        while !done(self) {
            assert!(
                self.now.since(begun) < Duration::from_millis(ms),
                "not in {ms} ms: {what}\n{}\n{}",
                self.log.join("\n"),
                self.nodes
                    .values()
                    .map(|n| format!("{:?} {:?} {:?}", n.options.me, n.identity, n.replica.as_ref().map(|r| r.status())))
                    .collect::<Vec<_>>()
                    .join("\n")
            );
            self.run(1);
        }
        self.now.since(begun).as_millis() as u64
    }
}

/// What a node finds that reads these records.
fn log_of(records: Vec<Record>) -> crate::consensus::Recovered {
    let mut log = crate::consensus::Recovered::default();
    for record in records.into_iter().filter(|record| record.log() == log::CONTROL) {
        match record {
            Record::Snapshot(_, snapshot) => log.snapshot = Some(snapshot),
            Record::HardState(_, hard_state) => log.hard_state = hard_state,
            Record::Entry(_, entry) => log.entries.push(entry),
            Record::Birth(..) => {}
        }
    }
    log
}

fn settled() -> Desk {
    let mut desk = Desk::new(&["a", "b", "c"]);
    desk.until(3000, "all members serve", |d| d.serving("web", "c").len() == 3 && d.serving("clock", "c").len() == 1);
    desk.until(1000, "three voters", |d| {
        let leader = d.leader();
        d.nodes[&leader].view().voters.len() == 3
    });
    desk.run(500);
    desk
}

#[test]
fn three_nodes_found_a_cluster_and_serve() {
    let desk = settled();
    assert!(desk.cluster("b").founded());
    assert_eq!(desk.cluster("a"), desk.cluster("c"));
    assert!(desk.cluster("a").nodes.values().all(|n| n.leased), "{:#?}", desk.cluster("a").nodes);
}

#[test]
fn inputs_that_come_together_are_one_entry() {
    let mut desk = settled();
    let leader = desk.leader();
    let (now, node) = (desk.now, desk.nodes.get_mut(&leader).expect("known"));
    while node.poll_action().is_some() {}
    for ticket in 0..5 {
        node.handle_command(now, ticket, Command::Undrain { node: "a".into() });
    }
    let actions: Vec<Action> = std::iter::from_fn(|| node.poll_action()).collect();
    let persisted = actions.iter().filter(|action| matches!(action, Action::Persist { .. })).count();
    let sent = actions.iter().filter(|action| matches!(action, Action::Send { .. })).count();
    assert_eq!((persisted, sent), (1, 2), "one batch, one message a peer: {actions:?}");
    desk.queue.clear();
}

#[test]
fn a_killed_hot_member_is_replaced_without_waiting_for_a_lease() {
    let mut desk = settled();
    let hot = desk.serving("clock", "a")[0].clone();
    desk.kill_member(&hot);
    let took =
        desk.until(200, "another is hot", |d| ["a", "b", "c"].iter().all(|n| d.serving("clock", n).first().is_some_and(|m| *m != hot)));
    assert!(took < 50, "{took} ms\n{}", desk.log.join("\n"));
    desk.until(2000, "the old one is back as warm", |d| d.log.iter().any(|l| l.ends_with(&format!("{hot} is back as warm"))));
}

#[test]
fn the_leader_of_the_log_and_the_hot_member_die_together() {
    let mut desk = settled();
    let leader = desk.leader();
    let hot = NodeId::from(desk.serving("clock", "a")[0].split_once('/').expect("group/member").1);
    if hot != leader {
        desk.nodes.get_mut(&leader).expect("known").handle_command(
            desk.now,
            1,
            Command::Group {
                group: "clock".into(),
                operator: crate::group::input::Operator::Switchover { to: Some(MemberId::of(&"clock".into(), leader.as_str())) },
            },
        );
        desk.run(300);
    }
    assert_eq!(desk.serving("clock", "a"), [format!("clock/{leader}")], "{}", desk.log.join("\n"));
    desk.down.insert(leader.clone());
    let left: Vec<String> = ["a", "b", "c"].iter().filter(|n| **n != leader.as_str()).map(ToString::to_string).collect();
    let took = desk.until(3000, "another is hot", |d| {
        left.iter().all(|n| d.serving("clock", n).first().is_some_and(|m| !m.ends_with(leader.as_str())))
    });
    assert!((900..1500).contains(&took), "{took} ms: the lease must be waited out, once\n{}", desk.log.join("\n"));
}

#[test]
fn commands_that_died_with_the_leader_are_applied_although_later_ones_were_first() {
    let mut desk = settled();
    let leader = desk.leader();
    let asked = desk.nodes.keys().find(|n| **n != leader).cloned().expect("three nodes");
    let command = |desk: &mut Desk, ticket| {
        let command = Command::Undrain { node: "a".into() };
        desk.nodes.get_mut(&asked).expect("known").handle_command(desk.now, ticket, command);
    };
    desk.down.insert(leader.clone());
    command(&mut desk, 1);
    desk.run(20);
    command(&mut desk, 2);
    desk.until(1000, "another leads", |d| d.nodes[&asked].leader().is_some_and(|l| l != leader));
    command(&mut desk, 3);
    let took = desk.until(1000, "all are answered", |d| d.replies.len() == 3);
    assert!(desk.replies.values().all(Result::is_ok), "{:?}", desk.replies);
    assert!(took < 100, "{took} ms");
}

#[test]
fn commands_are_answered_although_the_wall_clock_went_back_since_the_last_life() {
    let mut desk = settled();
    let asked = NodeId::from("b");
    for base in [1 << 40, 7] {
        desk.nodes.get_mut(&asked).expect("known").commands = commands::Commands::new(base);
        desk.nodes.get_mut(&asked).expect("known").handle_command(desk.now, base, Command::Undrain { node: "a".into() });
        desk.until(500, "it is answered", |d| d.replies.contains_key(&base));
        assert_eq!(desk.replies[&base], Ok(vec![]));
    }
}

#[test]
fn a_node_that_is_cut_off_stops_before_another_serves() {
    let mut desk = settled();
    let hot = NodeId::from(desk.serving("clock", "a")[0].split_once('/').expect("group/member").1);
    let others: Vec<NodeId> = desk.nodes.keys().filter(|n| **n != hot).cloned().collect();
    for other in &others {
        desk.cut.insert((hot.clone(), other.clone()));
        desk.cut.insert((other.clone(), hot.clone()));
    }
    desk.until(3000, "another is hot", |d| {
        let held = d.nodes[&hot].holder.until() <= d.now;
        let served = others.iter().any(|n| d.serving("clock", n.as_str()).first().is_some_and(|m| !m.ends_with(hot.as_str())));
        assert!(held || !served, "the old node's lease is valid while another serves");
        served
    });
    desk.cut.clear();
    desk.until(5000, "the node is back", |d| d.cluster(others[0].as_str()).nodes[&hot].leased && d.serving("web", "a").len() == 3);
}

#[test]
fn a_link_between_two_nodes_is_replaced_by_a_relay() {
    let mut desk = settled();
    let leader = desk.leader();
    let other = desk.nodes.keys().find(|n| **n != leader).cloned().expect("three nodes");
    let hot_before = desk.serving("clock", "a");
    desk.cut.insert((leader.clone(), other.clone()));
    desk.cut.insert((other.clone(), leader.clone()));
    desk.run(5000);
    assert_eq!(desk.leader(), leader);
    assert_eq!(desk.serving("clock", other.as_str()), hot_before, "{}", desk.log.join("\n"));
    assert!(desk.cluster(leader.as_str()).nodes[&other].leased);
    assert!(desk.nodes[&other].view().lease_left > Duration::from_millis(500));
}

#[test]
fn without_a_quorum_hot_hot_goes_on_and_the_single_hot_one_stops() {
    let mut desk = settled();
    desk.down.extend([NodeId::from("b"), NodeId::from("c")]);
    desk.run(3000);
    assert_eq!(desk.serving("web", "a").len(), 3, "routes stay as they were (S10)");
    assert!(desk.nodes[&NodeId::from("a")].holder.until() < desk.now);
}

#[test]
fn a_new_leader_unsays_that_it_is_silent() {
    let mut desk = settled();
    let old = desk.leader();
    let new = desk.nodes.keys().find(|n| **n != old).cloned().expect("three nodes");
    let view = &desk.cluster(old.as_str()).nodes[&new];
    let (session, id) = (view.session, view.raft_id.expect("admitted"));
    let leader = desk.nodes.get_mut(&old).expect("known");
    leader.propose(Body::Silent { node: new.clone(), session });
    leader.pump();
    leader.replica.as_mut().expect("it leads").transfer_leader(id).expect("a voter");
    desk.until(500, "it leads and is said to be silent", |d| d.nodes[&new].lead.is_some() && d.cluster(new.as_str()).nodes[&new].silent);
    desk.until(500, "it is heard", |d| d.cluster(old.as_str()).nodes.values().all(|n| !n.silent));
}

#[test]
fn a_new_process_shortens_the_deadline_of_no_member_it_adopts() {
    let mut desk = settled();
    let hot = desk.serving("clock", "a")[0].clone();
    let name = NodeId::from(hot.split_once('/').expect("group/member").1);
    let node = desk.nodes.get_mut(&name).expect("known");
    // What a process that starts does not know of the one before it.
    node.holder = lease::Holder::default();
    node.members = members::Members::default();
    node.dirty = true;
    node.pump();
    let deadline = |desk: &Desk| desk.deadlines.get(&MemberId::from(hot.as_str())).copied();
    let before = deadline(&desk).expect("fed");
    desk.until(500, "a grant of its own", |d| d.nodes[&name].holder.until() > d.now);
    desk.run(5);
    assert_eq!(
        desk.serving("clock", name.as_str()),
        std::slice::from_ref(&hot),
        "its guard was not told to end it\n{}",
        desk.log.join("\n")
    );
    assert!(deadline(&desk) > Some(before), "and its own grant extends it");
}

impl Desk {
    fn ask(&mut self, node: &NodeId, operator: crate::group::input::Operator) {
        let command = Command::Group { group: "clock".into(), operator };
        self.nodes.get_mut(node).expect("known").handle_command(self.now, 1, command);
    }

    fn clock(&self, on: &str) -> &crate::group::Group {
        &self.cluster(on).groups[&"clock".into()]
    }
}

#[test]
fn s10_a_member_adopted_in_a_pause_keeps_no_deadline_of_before() {
    let mut desk = settled();
    let hot = MemberId::from(desk.serving("clock", "a")[0].as_str());
    let name = NodeId::from(hot.name());
    let other = desk.nodes.keys().find(|n| **n != name).cloned().expect("three nodes");
    assert!(desk.deadlines.contains_key(&hot), "its guard was told when to end it");
    // Its agent ends, and is replaced before the lease is over; in between, automation is paused.
    desk.down.insert(name.clone());
    desk.until(500, "another leads", |d| d.nodes[&other].leader().is_some_and(|l| l != name));
    desk.ask(&other, crate::group::input::Operator::Pause);
    desk.until(200, "paused", |d| d.clock(other.as_str()).paused());
    let node = desk.nodes.get_mut(&name).expect("known");
    node.holder = lease::Holder::default();
    node.members = members::Members::default();
    desk.down.clear();
    desk.until(500, "the new agent knows of the pause", |d| d.clock(name.as_str()).paused());
    desk.run(50);
    assert_eq!(desk.deadlines.get(&hot), None, "the guard would end it in the pause\n{}", desk.log.join("\n"));
}

#[test]
fn what_an_earlier_drain_of_the_same_epoch_left_does_not_end_the_next_one() {
    use crate::group::input::Operator::{Pause, Resume, Switchover};
    let mut desk = settled();
    let from = desk.serving("clock", "a");
    let drained = |d: &Desk| d.clock("b").transition.as_ref().map(|t| t.drained_routers.clone());
    desk.busy.extend([NodeId::from("b"), NodeId::from("c")]);
    desk.ask(&"b".into(), Switchover { to: None });
    desk.until(200, "one router is drained", |d| drained(d) == Some(["a".into()].into()));
    desk.ask(&"b".into(), Pause);
    desk.until(200, "the switchover is given up", |d| d.clock("b").transition.is_none());
    desk.ask(&"b".into(), Resume { force: false });
    desk.until(500, "the pause is over", |d| !d.clock("b").paused());
    assert_eq!(desk.serving("clock", "a"), from);
    desk.busy.insert("a".into());
    let epoch = desk.clock("b").epoch;
    desk.ask(&"b".into(), Switchover { to: None });
    desk.until(200, "another begins", |d| drained(d).is_some());
    desk.run(500);
    assert_eq!((desk.clock("b").epoch, drained(&desk)), (epoch, Some(BTreeSet::new())), "{}", desk.log.join("\n"));
}

#[test]
fn s2_a_leader_that_does_not_know_yet_what_older_terms_committed_declares_nobody_lapsed() {
    let mut desk = settled();
    let old = desk.leader();
    let new = desk.nodes.keys().find(|n| **n != old).cloned().expect("three nodes");
    let id = desk.cluster("a").nodes[&new].raft_id.expect("admitted");
    desk.nodes.get_mut(&old).expect("known").replica.as_mut().expect("it leads").transfer_leader(id).expect("a voter");
    desk.until(500, "it leads", |d| d.nodes[&new].lead.is_some());
    // Of three voters one acknowledges, which is enough to lead and not to commit.
    desk.stalled = [(old, Vec::new()), (new.clone(), Vec::new())].into();
    let settled = |d: &Desk| d.nodes[&new].replica.as_ref().expect("it is one").leads_settled();
    desk.run(2000);
    assert!(desk.nodes[&new].lead.is_some() && !settled(&desk), "it leads for longer than a lease, and nothing is committed");
    for (name, tokens) in std::mem::take(&mut desk.stalled) {
        tokens.into_iter().for_each(|token| desk.later(&name, Todo::Persisted(token)));
    }
    desk.until(500, "it is settled", settled);
    desk.run(2000);
    let lapsed = |d: &Desk| d.log.iter().any(|line| line.contains("Lapsed"));
    assert!(!lapsed(&desk), "{}", desk.log.join("\n"));
    assert!(desk.cluster("a").nodes.values().all(|node| node.leased));
}

#[test]
fn an_event_has_the_time_of_its_entry_on_every_node_and_when_it_is_read_again() {
    let mut desk = settled();
    let (now, leader) = (desk.now, desk.leader());
    let other = desk.nodes.keys().find(|n| **n != leader).cloned().expect("three nodes");
    let wall = |name: &NodeId| if *name == leader { 1_700_000_000_000 } else { 1_600_000_000_000 };
    desk.nodes.iter_mut().for_each(|(name, node)| node.set_wall(now, wall(name)));
    desk.told.clear();
    let hot = desk.serving("clock", "a")[0].clone();
    desk.kill_member(&hot);
    desk.run(500);
    let told = desk.told.remove(&other).expect("something happened");
    assert!(desk.told.values().all(|others| *others == told), "every node says the same");
    let span = wall(&leader)..wall(&leader) + 500;
    assert!(told.iter().all(|(wall, _)| span.contains(wall)), "the leader's time: {told:?}");
    // The node starts again from what its disk holds, later.
    let node = &desk.nodes[&other];
    let log = log_of(node.rewrite(log::CONTROL));
    let stored = Stored { identity: node.identity, log, rejoins: None };
    let mut again = Node::new(node.options.clone(), stored, desk.now).expect("it starts again");
    again.set_wall(desk.now, wall(&other) + 3_600_000);
    let mut read = Vec::new();
    while let Some(action) = again.poll_action() {
        if let Action::Events { events, wall_ms, fresh } = action {
            assert!(!fresh);
            read.extend(events.into_iter().filter(|_| wall_ms > 0).map(|event| (wall_ms, event)));
        }
    }
    assert_eq!(read, told);
}

/// S12: whoever forgot who it was does not come back under that number: it has forgotten what it promised as well.
#[test]
fn a_cut_that_took_the_name_with_it_is_not_gone_on_from() {
    let cut = crate::wal::LogState { possibly_cut: true, ..crate::wal::LogState::default() };
    let logs = || [(log::CONTROL, cut.clone())].into();
    let stored = Stored::from_logs(logs(), Some(77)).expect("the directory knows its cluster");
    assert!(stored.identity.is_none() && stored.rejoins == Some(77));
    assert_eq!(Stored::from_logs(logs(), None).err(), Some(LogCut::Nameless));
    let whole = Stored::from_logs(BTreeMap::new(), None).expect("a first start");
    assert!(whole.identity.is_none() && whole.rejoins.is_none());
}

/// Nodes that are not configured put nothing into the log, neither themselves nor by another, nor in another's name.
#[test]
fn strangers_propose_and_relay_nothing() {
    let mut desk = Desk::new(&["a", "b", "c"]);
    desk.run(3_000);
    let leader = desk.leader();
    let drain = |node: &str| Message::Propose { items: vec![Item { origin: None, body: Body::Drain { node: node.into() } }] };
    let relay = |from: &str, of: &Message| Message::Relay { from: from.into(), to: leader.clone(), bytes: of.encode(77) };
    for (from, message) in [("x", drain("b")), ("x", relay("b", &drain("b"))), ("b", relay("x", &drain("b")))] {
        desk.later(&leader, Todo::Message { from: from.into(), bytes: message.encode(77) });
    }
    desk.run(1_000);
    assert!(desk.cluster("a").nodes.values().all(|node| !node.drained), "{}", desk.log.join("\n"));
    for (node, message) in [("b", drain("b")), ("c", relay("b", &drain("c")))] {
        desk.later(&leader, Todo::Message { from: node.into(), bytes: message.encode(77) });
    }
    desk.run(1_000);
    let drained: Vec<_> = desk.cluster("a").nodes.iter().filter(|(_, node)| node.drained).map(|(name, _)| name.to_string()).collect();
    assert_eq!(drained, ["b", "c"]);
}

#[test]
fn a_node_that_is_heard_and_hears_nobody_is_replaced() {
    let mut desk = settled();
    let hot = NodeId::from(desk.serving("clock", "a")[0].split_once('/').expect("group/member").1);
    if desk.leader() == hot {
        // A leader that hears nobody is deposed; this is about a follower.
        desk.nodes.get_mut(&hot).expect("known").step_down();
        desk.until(1000, "another leads", |d| d.nodes.iter().any(|(name, n)| *name != hot && n.lead.is_some()));
        desk.run(300);
    }
    let others: Vec<NodeId> = desk.nodes.keys().filter(|n| **n != hot).cloned().collect();
    desk.cut.extend(others.iter().map(|other| (other.clone(), hot.clone())));
    let took = desk.until(5000, "another is hot", |d| {
        let served = others.iter().all(|n| d.serving("clock", n.as_str()).first().is_some_and(|m| !m.ends_with(hot.as_str())));
        assert!(d.nodes[&hot].holder.until() <= d.now || !served, "the old node's lease is valid while another serves");
        served
    });
    assert!(took < 2500, "{took} ms\n{}", desk.log.join("\n"));
    desk.run(3000);
    assert!(!desk.cluster(others[0].as_str()).nodes[&hot].leased, "it could use no lease: {}", desk.log.join("\n"));
    desk.cut.clear();
    desk.until(3000, "it is back", |d| d.cluster(others[0].as_str()).nodes[&hot].leased);
}

#[test]
fn s12_a_node_whose_leader_knows_more_of_its_log_than_it_has_takes_part_in_nothing() {
    let mut desk = settled();
    let leader = desk.leader();
    let other = desk.nodes.keys().find(|n| **n != leader).cloned().expect("three nodes");
    let (from, to) = (desk.nodes[&leader].my_raft_id().expect("admitted"), desk.nodes[&other].my_raft_id().expect("admitted"));
    let node = desk.nodes.get_mut(&other).expect("known");
    let term = node.replica.as_ref().expect("it has one").leadership().term;
    let commit = node.applied.0 + 1000;
    let body = crate::consensus::Body::Heartbeat { commit, read: None };
    let message = Message::Log(Box::new(crate::consensus::Message { log: log::CONTROL, from, to, term, body }));
    node.handle_message(desk.now, &leader, &message.encode(77));
    assert!(matches!(node.poll_action(), Some(Action::Halt { code: "HW0311", .. })));
    node.handle_deadline(desk.now.plus(Duration::from_secs(5)));
    assert!(node.poll_action().is_none(), "neither votes nor heartbeats nor leases");
}

#[test]
fn what_only_a_leader_can_know_is_not_taken_from_another_node() {
    let mut desk = settled();
    let leader = desk.leader();
    let other = desk.nodes.keys().find(|n| **n != leader).cloned().expect("three nodes");
    let session = desk.cluster("a").nodes[&other].session;
    let body = Body::Lapsed { node: other.clone(), session };
    let propose = Message::Propose { items: vec![Item { origin: None, body }] };
    desk.nodes.get_mut(&leader).expect("known").handle_message(desk.now, &other, &propose.encode(77));
    desk.run(100);
    assert!(desk.cluster("a").nodes[&other].leased);
}

impl Desk {
    /// The node's directory is gone, and its join file, with the right to found, is used again.
    fn wipe(&mut self, name: &str, may_found: bool) {
        let spec = self.nodes[&NodeId::from("a")].options.found.clone().expect("a founded").1;
        let mut options = Options::new(name.into(), "desk", 900 + self.order as u128, 9);
        options.peers = self.nodes.keys().cloned().collect();
        options.found = may_found.then_some((78, spec));
        self.nodes.insert(name.into(), Node::new(options, Stored::default(), self.now).expect("a new node starts"));
        // What its engines find: nothing runs there any more.
        for group in ["web", "clock"] {
            let id = MemberId::of(&group.into(), name);
            self.hot.remove(&id);
            let incarnation = Incarnation(self.lives.get(&id).copied().unwrap_or_default());
            self.later_name(name, Todo::Member(id, MemberEvent::Stopped { incarnation, cause: StopCause::Absent }));
        }
    }
}

#[test]
fn s11_a_second_birth_is_refused_by_those_who_know_of_the_first() {
    let mut desk = settled();
    desk.wipe("a", true);
    desk.until(5000, "the wiped founder votes, under a number of its own", |d| {
        let leader = d.nodes.values().find(|n| n.lead.is_some());
        let voters = leader.map(|n| n.replica.as_ref().expect("it leads").voters().voters.clone()).unwrap_or_default();
        voters.len() == 3
            && !voters.contains(&1)
            && d.cluster("b").nodes[&NodeId::from("a")].raft_id.is_some_and(|id| voters.contains(&id.0))
    });
    assert_eq!(desk.cluster("a").id, 77);
    desk.until(5000, "it serves again", |d| d.serving("web", "a").len() == 3);
}

#[test]
fn s11_nothing_is_founded_where_one_still_belongs_to_a_cluster() {
    let mut desk = settled();
    desk.wipe("c", false);
    desk.wipe("a", true);
    let founder = NodeId::from("a");
    let said = |desk: &mut Desk, from: &str, cluster| {
        let incarnation = desk.nodes[&founder].options.incarnation;
        let bytes = Message::Birth { incarnation, cluster }.encode(77);
        desk.nodes.get_mut(&founder).expect("known").handle_message(desk.now, &from.into(), &bytes);
    };
    said(&mut desk, "b", Some(77));
    said(&mut desk, "c", None);
    desk.nodes.get_mut(&founder).expect("known").handle_deadline(desk.now.plus(Duration::from_secs(6)));
    let node = desk.nodes.get_mut(&founder).expect("known");
    let actions: Vec<Action> = std::iter::from_fn(|| node.poll_action()).collect();
    assert!(actions.iter().any(|action| matches!(action, Action::Alarm { code: "HW0312", .. })));
    assert!(!actions.iter().any(|action| matches!(action, Action::Persist { .. })), "nothing is founded");
}

#[test]
fn a_member_that_refuses_its_role_is_asked_again_after_a_pause() {
    let mut desk = settled();
    let hot = MemberId::from(desk.serving("clock", "c")[0].as_str());
    desk.refuses.insert(hot.clone(), 0);
    let (now, node) = (desk.now, hot.name().into());
    let operator = crate::group::input::Operator::Switchover { to: None };
    desk.nodes.get_mut(&node).expect("known").handle_command(now, 9, Command::Group { group: "clock".into(), operator });
    desk.until(5000, "a first refusal", |d| d.refuses[&hot] > 0);
    desk.run(3000);
    assert!((2..=5).contains(&desk.refuses[&hot]), "asked {} times in three seconds", desk.refuses[&hot]);
}

#[test]
fn what_nodes_of_another_cluster_count_and_grant_means_nothing_here() {
    let mut desk = settled();
    let leader = desk.leader();
    let other = desk.nodes.keys().find(|n| **n != leader).cloned().expect("three nodes");
    let (until, session) = (desk.nodes[&other].holder.until(), desk.cluster("a").nodes[&other].session);
    let node = desk.nodes.get_mut(&other).expect("known");
    // It would count: that number was asked for, the session is in force, and the index is applied.
    let number = u64::MAX;
    node.holder.asked(number, desk.now.plus(Duration::from_millis(1)), node.cluster.lease);
    let grant = Message::Grant { number, session, index: node.applied };
    node.handle_message(desk.now, &leader, &grant.encode(78));
    let actions: Vec<Action> = std::iter::from_fn(|| node.poll_action()).collect();
    assert!(actions.iter().any(|action| matches!(action, Action::Alarm { code: "HW0306", .. })));
    assert_eq!(node.view().strangers, std::slice::from_ref(&leader), "two clusters may serve");
    assert_eq!(node.holder.until(), until);
    node.handle_message(desk.now, &leader, &grant.encode(77));
    while node.poll_action().is_some() {}
    assert!(node.holder.until() > until, "of this cluster it counts");
}
