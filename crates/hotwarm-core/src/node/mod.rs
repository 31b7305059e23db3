//! One node's whole machine, without I/O: everything that happens goes in by `handle_*` with its moment, everything to be done comes
//! out of [`Node::poll_action`].
//!
//! It composes consensus (the control log), the cluster's state, leases, detection and reconciliation. The shell's agent and the
//! simulator drive this very type. The main path: an observation becomes a report ([`crate::reconcile::reports`]), the leader puts it
//! into the log, [`crate::cluster::Cluster::apply`] decides, [`crate::reconcile::actions`] tells this node's engines what follows.
//!
//! Inputs are taken note of at once; what follows from them is worked out when it is asked for. So all that piled up, given in one go,
//! becomes one entry, one batch to persist and one message a peer, not one of each an input.

mod commands;
mod lead;
mod lease;
mod log;
mod members;
pub mod message;
mod options;
mod peers;
mod plan;
pub mod recover;
#[cfg(test)]
mod tests;
mod view;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub use commands::{Command, CommandError, Outcome};
pub use lease::wait as lease_wait;
pub use members::Supervision;
pub use message::Message;
pub use options::{Identity, LogCut, NODE_LOG, Options, Stored};
pub use view::View;

use crate::action::{EngineAction, MemberEvent};
use crate::cluster::{Cluster, Event, Item, TELLS_STOP};
use crate::consensus::Replica;
use crate::detect::SelfHealth;
use crate::group::reason::{Evidence, SelfDoubt};
use crate::ids::{Epoch, GroupName, Incarnation, Index, MemberId, Millis, Mono, NodeId, RaftId};
use crate::plant::{self, Bug};
use crate::reconcile::Observed;
use crate::route::Routes;
use crate::wal::{LogId, Record};

/// To be done by the shell, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Losing it is allowed.
    Send {
        to: NodeId,
        bytes: Vec<u8>,
    },
    /// Append to the write-ahead log; with a token, make it durable and answer by [`Node::handle_persisted`].
    Persist {
        records: Vec<Record>,
        token: Option<u64>,
    },
    Engine {
        member: MemberId,
        action: EngineAction,
    },
    /// Probe this member now: somebody doubts it.
    Probe {
        member: MemberId,
    },
    /// What the router does for a group from now on.
    Routes(Routes),
    /// Until when the router may serve groups that allow one hot member.
    Lease {
        until: Mono,
    },
    /// What the log has just decided; `fresh` is false for what a restarted node reads again.
    Events {
        events: Vec<Event>,
        /// When the leader put them into the log by its wall clock, in milliseconds since 1970; 0 if it did not know.
        wall_ms: u64,
        fresh: bool,
    },
    Reply {
        ticket: u64,
        outcome: Outcome,
    },
    /// The configuration in force changed.
    Configured {
        revision: u64,
        text: String,
    },
    /// A person must look; a code and a sentence.
    Alarm {
        code: &'static str,
        text: String,
    },
    /// What this node holds is not to be trusted: it takes part in nothing from here on, and its process is to end.
    Halt {
        code: &'static str,
        text: String,
    },
}

/// What the router tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouterEvent {
    /// No thread admits or releases anything of this epoch or an older one.
    Closed { group: GroupName, epoch: Epoch },
    /// New requests park and none of this epoch is in flight.
    Drained { group: GroupName, epoch: Epoch },
    /// Live traffic cannot reach a member, or can again.
    Evidence { member: MemberId, evidence: Option<Evidence> },
}

impl RouterEvent {
    fn group(&self) -> GroupName {
        match self {
            Self::Closed { group, .. } | Self::Drained { group, .. } => group.clone(),
            Self::Evidence { member, .. } => member.group(),
        }
    }
}

/// One node.
#[derive(Debug)]
pub struct Node {
    options: Options,
    identity: Option<Identity>,
    replica: Option<Replica>,
    /// The cluster it belonged to before its log was cut (S12).
    rejoins: Option<u128>,
    cluster: Cluster,
    applied: Index,
    /// Entries up to here were committed before this start.
    replayed: Index,
    snapshot_at: Index,
    now: Mono,
    /// When the last entry was applied, for an estimate of log time.
    applied_at: Mono,
    next_tick: Mono,
    /// In so many ticks, the next one among them, nothing is due: nobody need wake up for them.
    idle_ticks: u32,
    next_look: Mono,
    holder: lease::Holder,
    lead: Option<lead::Lead>,
    peers: peers::Peers,
    members: members::Members,
    observed: Observed,
    /// When the router last told of each member it cannot reach, and of which life.
    doubts: BTreeMap<MemberId, (Mono, Incarnation)>,
    health: SelfHealth,
    little_room: bool,
    /// Its process is about to end in an orderly way.
    stopping: bool,
    commands: commands::Commands,
    /// Waiting to be put into the log, by us or by its leader.
    items: Vec<Item>,
    /// Reports that were sent, so that they are not sent again before they can have arrived.
    reported: BTreeMap<Vec<u8>, Mono>,
    persisting: BTreeMap<u64, log::Persisting>,
    next_token: u64,
    routes: BTreeMap<GroupName, Routes>,
    lease_told: Mono,
    revision_told: u64,
    digest: Option<(Index, u32)>,
    alarmed: BTreeSet<&'static str>,
    halted: bool,
    wall: Option<(Mono, u64)>,
    /// Counts the changes of the applied state, and how many of them the routes are of.
    changes: u64,
    routes_of: Option<u64>,
    /// The state for those who look at it; it is looked at several times a second and seldom another than before.
    shown: OnceCell<Arc<Cluster>>,
    /// Something changed that reconciliation has not seen.
    dirty: bool,
    /// The last look found that something is to be told again in a while.
    restless: bool,
    /// An input came in, and what follows from it was not worked out yet.
    given: bool,
    actions: VecDeque<Action>,
}

/// Work rounds of one call: each applies what was committed and reports what follows from it.
const ROUNDS_MAX: usize = 64;
/// What the router saw of a member counts so long after it stopped looking: time for the member's own node to see for itself.
const DOUBT_LASTS: Duration = Duration::from_secs(5);

impl Node {
    /// A node as it starts: from what its disk held, or new.
    ///
    /// # Errors
    /// What the disk held cannot be what a node left there.
    pub fn new(options: Options, stored: Stored, now: Mono) -> Result<Self, StartError> {
        let mut node = Self {
            identity: stored.identity,
            replica: None,
            rejoins: stored.rejoins,
            cluster: Cluster::empty(),
            applied: Index(0),
            replayed: Index(stored.log.hard_state.commit),
            snapshot_at: Index(0),
            now,
            applied_at: now,
            next_tick: now,
            idle_ticks: 0,
            next_look: now,
            holder: lease::Holder::default(),
            lead: None,
            peers: peers::Peers::new(&options, now),
            members: members::Members::default(),
            observed: Observed::default(),
            doubts: BTreeMap::new(),
            health: SelfHealth::new(options.health),
            little_room: false,
            stopping: false,
            commands: commands::Commands::new(options.command_base),
            items: Vec::new(),
            reported: BTreeMap::new(),
            persisting: BTreeMap::new(),
            next_token: 1,
            routes: BTreeMap::new(),
            lease_told: Mono(0),
            revision_told: 0,
            digest: None,
            alarmed: BTreeSet::new(),
            halted: false,
            wall: None,
            changes: 0,
            routes_of: None,
            shown: OnceCell::new(),
            dirty: true,
            restless: true,
            given: false,
            actions: VecDeque::new(),
            options,
        };
        node.start(stored.log)?;
        node.pump();
        Ok(node)
    }

    /// The next thing to do, if there is one. Asked after an input, or after some that came together: they are worked out as one.
    pub fn poll_action(&mut self) -> Option<Action> {
        if self.halted {
            return self.actions.pop_front().filter(|action| matches!(action, Action::Halt { .. }));
        }
        if self.actions.is_empty() && std::mem::take(&mut self.given) {
            self.pump();
        }
        self.actions.pop_front()
    }

    /// An input of this moment.
    fn give(&mut self, now: Mono) {
        self.now = now;
        self.given = true;
        self.count_idle_ticks();
        self.idle_ticks = 0;
    }

    /// Time has passed. However much, one tick is counted beside those in which nothing was to be done: what piled up in a stall is handled
    /// first (S16).
    pub fn handle_deadline(&mut self, now: Mono) {
        let due = self.next_deadline();
        self.now = now;
        if now < due {
            return;
        }
        self.give(now);
        if let Some(late) = self.health.woke(due, now) {
            self.peers.stalled(late);
        }
        self.next_tick = if now.since(due) < self.options.tick { due.plus(self.options.tick) } else { now.plus(self.options.tick) };
        let beats = self.replica.as_mut().is_some_and(|replica| replica.tick(now));
        if beats {
            self.beat_along();
        } else {
            self.beat();
        }
        self.tend_lead(beats);
        self.tend_members();
        self.expire_commands();
        if now >= self.next_look {
            self.next_look = now.plus(self.options.heartbeat / 2);
            self.dirty |= self.restless || self.observed.leased != self.is_leased();
        }
    }

    /// Bytes from a peer, whom the transport has authenticated. Bytes that mean nothing are dropped.
    pub fn handle_message(&mut self, now: Mono, from: &NodeId, bytes: &[u8]) {
        self.give(now);
        match Message::decode(bytes) {
            Ok((cluster, message)) => self.on_message(from, cluster, message),
            Err(error) => self.alarm("HW0301", format!("message from node {from} not understood: {error}")),
        }
    }

    /// The connection to this peer broke and another is refused: its agent's process has ended, though its machine runs. It may be wrong.
    pub fn handle_ended(&mut self, now: Mono, peer: &NodeId) {
        self.give(now);
        let led = self.leader().as_ref() == Some(peer);
        if let Some(replica) = self.replica.as_mut().filter(|_| led) {
            replica.leader_ended();
        }
    }

    /// The records of this token, and of all before it, are durable.
    pub fn handle_persisted(&mut self, now: Mono, token: u64) {
        self.give(now);
        self.on_persisted(token);
    }

    /// An engine of this node tells about its member.
    pub fn handle_member(&mut self, now: Mono, member: &MemberId, event: MemberEvent) {
        self.give(now);
        self.on_member(member, event);
    }

    pub fn handle_router(&mut self, now: Mono, event: RouterEvent) {
        self.give(now);
        self.on_router(event);
    }

    /// A person or a program asks; the answer comes as [`Action::Reply`] with the same ticket.
    pub fn handle_command(&mut self, now: Mono, ticket: u64, command: Command) {
        self.give(now);
        self.on_command(ticket, command);
    }

    /// A probe of the data directory's disk began, or ended (`Some(true)` well, `Some(false)` with an error).
    pub fn handle_disk(&mut self, now: Mono, ended: Option<bool>) {
        match ended {
            None => self.health.disk_begun(now),
            Some(true) => self.health.disk_done(now),
            Some(false) => self.health.disk_failed(),
        }
    }

    /// Whether little room is left on the data directory's disk (HW0508).
    pub const fn handle_room(&mut self, little: bool) {
        self.little_room = little;
    }

    /// What the wall clock shows, in milliseconds since 1970: for people who read of decisions later.
    pub const fn set_wall(&mut self, now: Mono, wall_ms: u64) {
        self.wall = Some((now, wall_ms));
    }

    pub(crate) fn wall_ms(&self) -> u64 {
        let passed = |since| u64::try_from(self.now.since(since).as_millis()).unwrap_or(u64::MAX);
        self.wall.map_or(0, |(since, wall_ms)| wall_ms.saturating_add(passed(since)))
    }

    /// How the members of each group are kept running.
    pub fn set_supervision(&mut self, supervision: BTreeMap<GroupName, Supervision>) {
        self.members.set_supervision(supervision);
    }

    /// Works until nothing follows any more.
    fn pump(&mut self) {
        for _ in 0..ROUNDS_MAX {
            if self.halted {
                return;
            }
            self.flush_items();
            let worked = self.drain_log();
            self.settle_lease();
            if self.dirty {
                self.dirty = false;
                self.look();
            } else if !worked && self.items.is_empty() {
                break;
            }
        }
        self.plan_ticks();
    }

    /// Compares what is with what should be: tells engines, router and log what follows.
    fn look(&mut self) {
        self.observed.leased = self.is_leased();
        self.observed.log_now = self.log_now();
        self.tell_configuration();
        self.tell_routes();
        self.forget_doubts();
        self.feed_deadlines();
        let told = self.tell_engines();
        let reported = self.report();
        self.restless = told || reported || self.observed.routers.values().any(|router| !router.suspects.is_empty());
    }

    fn is_leased(&self) -> bool {
        self.now < self.holder.until()
    }

    /// The log's time as far as this node can tell.
    pub(crate) fn log_now(&self) -> Millis {
        let passed = self.now.since(self.applied_at);
        self.cluster.at.plus(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
    }

    /// Before routes and engines are told anything that needs it.
    fn tell_configuration(&mut self) {
        if self.revision_told != self.cluster.revision {
            self.revision_told = self.cluster.revision;
            self.actions.push_back(Action::Configured { revision: self.cluster.revision, text: self.cluster.text.clone() });
        }
    }

    /// Routes follow from the state alone.
    fn tell_routes(&mut self) {
        if self.routes_of == Some(self.changes) && !plant::is(Bug::S10HotHotStops) {
            return;
        }
        self.routes_of = Some(self.changes);
        for (name, group) in &self.cluster.groups {
            let mut routes = group.routes();
            if plant::is(Bug::S10HotHotStops) && !group.spec.exclusive && self.now >= self.holder.until() {
                routes.state = crate::route::RouteState::Held;
            }
            let before = self.routes.get(name);
            if before == Some(&routes) {
                continue;
            }
            // A member that serves anew has a fresh start: what was seen of it was of an older epoch (S4).
            let anew = |id: &MemberId| {
                let target = |r: &Routes| r.targets().iter().any(|t| t.member == *id);
                target(&routes) && before.is_none_or(|b| !target(b) || (routes.exclusive && b.epoch != routes.epoch))
            };
            if let Some(router) = self.observed.routers.get_mut(name) {
                router.suspects.retain(|id, _| !anew(id));
            }
            if before.is_none() {
                // This process is new, and so is its router: it never admitted anything of an epoch before these routes. Nobody else would
                // say so for it, and a member that is kept down until all routers have closed would wait forever.
                let closed = if routes.targets().is_empty() { routes.epoch } else { Epoch(routes.epoch.0.saturating_sub(1)) };
                let router = self.observed.routers.entry(name.clone()).or_default();
                router.closed = router.closed.max(Some(closed));
            }
            if !matches!(routes.state, crate::route::RouteState::Draining(_))
                && let Some(router) = self.observed.routers.get_mut(name)
            {
                // What an earlier drain of the same epoch left says nothing about the next.
                router.drained = None;
            }
            self.routes.insert(name.clone(), routes.clone());
            self.actions.push_back(Action::Routes(routes));
        }
        let gone: Vec<GroupName> = self.routes.keys().filter(|name| !self.cluster.groups.contains_key(*name)).cloned().collect();
        for name in gone {
            self.routes.remove(&name);
            self.observed.routers.remove(&name);
            self.doubts.retain(|id, _| id.group() != name);
        }
    }

    /// A router does not look at a member that it sends nothing to. What it saw of one goes with that life, or with time (S4).
    fn forget_doubts(&mut self) {
        for (name, router) in &mut self.observed.routers {
            let (Some(group), Some(routes)) = (self.cluster.groups.get(name), self.routes.get(name)) else { continue };
            router.suspects.retain(|id, _| {
                let Some((seen, life)) = self.doubts.get(id) else { return false };
                let same_life = group.members.get(id).is_some_and(|m| m.incarnation == *life);
                let looked_at = routes.targets().iter().any(|t| t.member == *id);
                same_life && (looked_at || self.now.since(*seen) < DOUBT_LASTS)
            });
        }
    }

    /// Counts grants; tells the router when the lease's end moved.
    fn settle_lease(&mut self) {
        let (me, applied) = (self.options.me.clone(), self.applied);
        if self.holder.settle(&self.cluster, &me, applied) || self.holder.until() != self.lease_told {
            self.lease_told = self.holder.until();
            // Routes first: under the longer lease nothing of an older epoch may be released (S8).
            self.tell_configuration();
            self.tell_routes();
            self.actions.push_back(Action::Lease { until: self.lease_told });
            self.feed_deadlines();
            self.dirty |= self.observed.leased != self.is_leased();
        }
    }

    fn on_router(&mut self, event: RouterEvent) {
        // What comes late of a group that is gone would be kept forever, and doubted forever.
        let Some(router) = self.observed.routers.get_mut(&event.group()) else { return };
        self.dirty = true;
        match event {
            RouterEvent::Closed { epoch, .. } => router.closed = router.closed.max(Some(epoch)),
            RouterEvent::Drained { epoch, .. } => router.drained = Some(epoch),
            RouterEvent::Evidence { member, evidence } => {
                let life = self.cluster.groups.get(&member.group()).and_then(|g| g.members.get(&member)).map(|m| m.incarnation);
                self.doubts.insert(member.clone(), (self.now, life.unwrap_or_default()));
                match evidence {
                    Some(evidence) => router.suspects.insert(member, evidence),
                    None => router.suspects.remove(&member),
                };
            }
        }
    }

    /// Nothing that was still to be done is done (S12, S17): leases run out, guards end what must not go on.
    fn halt(&mut self, code: &'static str, text: String) {
        if !self.halted {
            self.halted = true;
            self.actions.clear();
            self.actions.push_back(Action::Halt { code, text });
        }
    }

    /// A person must look; each code is told once.
    fn alarm(&mut self, code: &'static str, text: String) {
        if self.alarmed.insert(code) {
            self.actions.push_back(Action::Alarm { code, text });
        }
    }

    /// The applied state is another now.
    fn state_changed(&mut self) {
        self.changes += 1;
        self.shown.take();
    }

    /// The last entry of the log that is in the state.
    #[must_use]
    pub const fn applied(&self) -> Index {
        self.applied
    }

    /// Who this node is, once it has been admitted.
    #[must_use]
    pub const fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// The records that hold all of one of this node's logs, to be written anew so that it keeps no old segment (S14).
    #[must_use]
    pub fn rewrite(&self, log: LogId) -> Vec<Record> {
        match (log, &self.replica, self.identity) {
            (log::CONTROL, Some(replica), _) => replica.rewrite(),
            (NODE_LOG, _, Some(identity)) => identity.records().into_iter().filter(|record| record.log() == NODE_LOG).collect(),
            _ => Vec::new(),
        }
    }

    /// This node will stop in a moment: the others are told, so that its members, which live on, are not taken for lost at once. The shell
    /// goes on as ever until [`Self::stop_is_told`], or for as long as it can wait; then comes [`Self::handle_stop`].
    pub fn handle_stopping(&mut self, now: Mono) {
        self.give(now);
        self.stopping = true;
        self.tell_self_doubt();
    }

    /// True once the log has it that this node stops, or where nobody can put it there.
    #[must_use]
    pub fn stop_is_told(&self) -> bool {
        let told = self.cluster.self_doubts.get(&self.options.me) == Some(&SelfDoubt::Stopping);
        told || self.cluster.behaviour < TELLS_STOP || self.leader().is_none() || self.cluster.nodes.len() < 2
    }

    /// This node is about to stop: whoever is level leads from now on.
    pub fn handle_stop(&mut self, now: Mono) {
        self.give(now);
        self.step_down();
    }

    fn leader(&self) -> Option<NodeId> {
        let id = self.replica.as_ref()?.leader()?;
        self.peers.name_of(&self.cluster, id)
    }

    fn my_raft_id(&self) -> Option<RaftId> {
        self.identity.map(|identity| identity.raft_id)
    }
}

/// A node that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Consensus(#[from] crate::consensus::Error),
    #[error("state in the snapshot not readable: {0}")]
    Snapshot(#[from] crate::cluster::DecodeError),
}
