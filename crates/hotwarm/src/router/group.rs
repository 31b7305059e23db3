//! What all threads share of one group: the routes in force, the targets with their fences, the counters that bound it.
//!
//! The routes are one immutable table behind one pointer; a thread switches to it in its own time and says so in `seen`. A target
//! that left the table is fenced at once, for all threads, before any of them switches: nothing is sent to it or released from it
//! from that instant (S8). The main path: [`Group::install`] -> threads -> [`Group::switched`].

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use hotwarm_core::ids::{Epoch, GroupName, MemberId, Mono};
use hotwarm_core::route::{self, RouteState, Routes};

use super::evidence::Health;
use super::stats::{Answers, Failure, GroupCounters, GroupStats, MemberCounters, MemberStats, Toll};
use super::{Event, RouterError, listen};
use crate::{clock, config};

/// One hot member, for as long as it stays in the table; in a group with one hot member, for one epoch.
pub(super) struct Target {
    pub member: MemberId,
    pub address: SocketAddr,
    pub weight: AtomicU32,
    /// The epoch of the routes that first named it.
    pub epoch: Epoch,
    /// No longer in the table: nothing may be sent to it or released from it (S8).
    pub fenced: AtomicBool,
    /// Requests sent or about to be sent to it, over all threads; of TCP, connections.
    pub in_flight: AtomicUsize,
    /// Of those, what a switchover waits for: not upgraded connections, which have no end of their own.
    pub unfinished: AtomicUsize,
    pub health: Health,
}

impl Target {
    fn new(target: &route::Target, epoch: Epoch) -> Self {
        Self {
            member: target.member.clone(),
            address: target.address,
            weight: AtomicU32::new(target.weight),
            epoch,
            fenced: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            unfinished: AtomicUsize::new(0),
            health: Health::default(),
        }
    }

    pub(super) fn is_fenced(&self) -> bool {
        self.fenced.load(Ordering::Acquire)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    Draining,
    Held,
}

/// What of the configuration a request needs.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub protocol: config::Protocol,
    pub balance: config::Balance,
    pub park: config::Park,
    pub http: config::HttpLimits,
    pub repeat: Vec<config::Mark>,
    pub timeouts: config::Timeouts,
    pub check: config::CheckKind,
    pub drain: std::time::Duration,
    /// Where this router is; empty for no preference.
    pub zone: String,
}

impl Settings {
    fn of(group: &config::Group, zone: &str) -> Self {
        Self {
            protocol: group.protocol,
            balance: group.balance.clone(),
            park: group.park,
            http: group.http,
            repeat: group.repeat.clone(),
            timeouts: group.timeouts,
            check: group.check.kind.clone(),
            drain: group.drain,
            zone: zone.to_owned(),
        }
    }
}

/// Routes and settings in force from one instant on; never changed, only replaced.
#[derive(Clone)]
pub(super) struct Install {
    pub version: u64,
    pub epoch: Epoch,
    pub exclusive: bool,
    pub state: State,
    /// As the routes name them, in the same order as `targets`.
    pub named: Vec<route::Target>,
    pub targets: Vec<Arc<Target>>,
    pub settings: Arc<Settings>,
}

/// What is said once every thread has switched.
struct Promise {
    version: u64,
    /// Of a switch that ended an epoch: that epoch.
    closed: Option<Epoch>,
}

/// What changes under the lock.
struct Ledger {
    routes: Option<Routes>,
    /// At most one entry per call of `set_routes` that no thread has answered; merged beyond [`PROMISES`].
    promises: Vec<Promise>,
    drained_said: bool,
    asked: SocketAddr,
    address: SocketAddr,
    listeners: Vec<Option<TcpListener>>,
    members: BTreeMap<MemberId, Vec<Arc<MemberCounters>>>,
}

const PROMISES: usize = 64;

impl Ledger {
    fn promise(&mut self, version: u64, closed: Option<Epoch>) {
        let closed = if self.promises.len() < PROMISES {
            closed
        } else {
            // The newest promise takes over what the older ones were to say: it is kept later than they would have been.
            self.promises.drain(..).filter_map(|promise| promise.closed).chain(closed).max()
        };
        self.promises.push(Promise { version, closed });
    }
}

pub(super) struct Group {
    pub name: GroupName,
    pub install: ArcSwap<Install>,
    /// Of each thread: the version it works by.
    seen: Box<[AtomicU64]>,
    pub counters: Box<[Arc<GroupCounters>]>,
    pub parked: AtomicUsize,
    pub parked_bytes: AtomicU64,
    pub connections: AtomicUsize,
    ledger: Mutex<Ledger>,
}

impl Group {
    pub(super) fn new(config: &config::Group, zone: &str, asked: SocketAddr, threads: usize) -> Self {
        Self {
            name: config.name.clone(),
            install: ArcSwap::from_pointee(Install {
                version: 1,
                epoch: Epoch(0),
                exclusive: config.mode.exclusive,
                state: State::Held,
                named: Vec::new(),
                targets: Vec::new(),
                settings: Arc::new(Settings::of(config, zone)),
            }),
            seen: (0..threads).map(|_| AtomicU64::new(0)).collect(),
            counters: (0..threads).map(|_| Arc::default()).collect(),
            parked: AtomicUsize::new(0),
            parked_bytes: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            ledger: Mutex::new(Ledger {
                routes: None,
                promises: Vec::new(),
                drained_said: false,
                asked,
                address: asked,
                listeners: Vec::new(),
                members: BTreeMap::new(),
            }),
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn asked(&self) -> SocketAddr {
        self.ledger().asked
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.ledger().address
    }

    /// Binds one listener per thread; threads take theirs when they next look.
    pub(super) fn listen(&self, asked: SocketAddr, threads: usize) -> Result<(), RouterError> {
        let (listeners, address) =
            listen::bind_all(asked, threads).map_err(|source| RouterError::Listen { group: self.name.clone(), address: asked, source })?;
        let mut ledger = self.ledger();
        (ledger.asked, ledger.address) = (asked, address);
        ledger.listeners = listeners.into_iter().map(Some).collect();
        Ok(())
    }

    /// The listener that thread `index` has not taken yet.
    pub(super) fn take_listener(&self, index: usize) -> Option<TcpListener> {
        self.ledger().listeners.get_mut(index).and_then(Option::take)
    }

    /// New limits, same routes.
    pub(super) fn configure(&self, config: &config::Group, zone: &str) {
        let _ledger = self.ledger();
        let mut install = Install::clone(&self.install.load());
        install.version += 1;
        install.settings = Arc::new(Settings::of(config, zone));
        self.install.store(Arc::new(install));
    }

    /// Puts routes into force; true if anything changed. Targets that left are fenced before this returns.
    pub(super) fn install(&self, routes: &Routes) -> Result<bool, RouterError> {
        let mut ledger = self.ledger();
        let current = self.install.load_full();
        if routes.epoch < current.epoch {
            return Err(RouterError::OldEpoch { group: self.name.clone(), given: routes.epoch, current: current.epoch });
        }
        if ledger.routes.as_ref() == Some(routes) {
            return Ok(false);
        }
        let (state, named) = match &routes.state {
            RouteState::Open(targets) => (State::Open, targets.as_slice()),
            RouteState::Draining(targets) => (State::Draining, targets.as_slice()),
            RouteState::Held => (State::Held, &[][..]),
        };
        let targets: Vec<_> = named.iter().map(|target| Self::keep(&current, routes, target)).collect();
        for old in &current.targets {
            if !targets.iter().any(|new| Arc::ptr_eq(old, new)) {
                old.fenced.store(true, Ordering::SeqCst);
            }
        }
        let closed = match state {
            State::Held => Some(routes.epoch),
            // All before it is closed, also what never was in force here: a router that begins anew, or skips an epoch, is waited for too.
            State::Open | State::Draining => (routes.epoch > current.epoch).then(|| Epoch(routes.epoch.0.saturating_sub(1))),
        };
        let version = current.version + 1;
        ledger.promise(version, closed);
        ledger.routes = Some(routes.clone());
        ledger.drained_said = false;
        self.install.store(Arc::new(Install {
            version,
            epoch: routes.epoch,
            exclusive: routes.exclusive,
            state,
            named: named.to_vec(),
            targets,
            settings: Arc::clone(&current.settings),
        }));
        Ok(true)
    }

    /// The listener goes. Of a group with one hot member nothing is sent or released from this instant (S8), and that is said once every
    /// thread has let go; what is at one of several hot members may finish.
    pub(super) fn close(&self) {
        let mut ledger = self.ledger();
        let current = self.install.load_full();
        if !current.exclusive {
            return;
        }
        current.targets.iter().for_each(|target| target.fenced.store(true, Ordering::SeqCst));
        let version = current.version + 1;
        ledger.promise(version, Some(current.epoch));
        ledger.routes = None;
        let held = Install { version, state: State::Held, named: Vec::new(), targets: Vec::new(), ..Install::clone(&current) };
        self.install.store(Arc::new(held));
    }

    /// Thread `index` is told of the group when it is closed already: nothing of it was ever there.
    pub(super) fn passed_by(&self, index: usize, events: &dyn Fn(Event)) {
        if self.seen[index].load(Ordering::SeqCst) == 0 {
            self.switched(index, self.install.load().version, events);
        }
    }

    /// Every thread works by what is in force.
    pub(super) fn has_switched(&self) -> bool {
        self.slowest() >= self.install.load().version
    }

    /// The target in force now for the same member, or a new one. A new epoch of a group with one hot member is always a new one:
    /// what was admitted under the old epoch may not be released under the new (S8).
    fn keep(current: &Install, routes: &Routes, target: &route::Target) -> Arc<Target> {
        let same = |old: &&Arc<Target>| {
            old.member == target.member && old.address == target.address && (!routes.exclusive || old.epoch == routes.epoch)
        };
        current.targets.iter().find(same).map_or_else(
            || Arc::new(Target::new(target, routes.epoch)),
            |old| {
                old.weight.store(target.weight, Ordering::Relaxed);
                Arc::clone(old)
            },
        )
    }

    /// Thread `index` works by `version`, and nothing of an older one is in flight there.
    pub(super) fn switched(&self, index: usize, version: u64, events: &dyn Fn(Event)) {
        self.seen[index].store(version, Ordering::SeqCst);
        let slowest = self.slowest();
        let mut ledger = self.ledger();
        let kept = ledger.promises.partition_point(|promise| promise.version <= slowest);
        let closed = ledger.promises.drain(..kept).filter_map(|promise| promise.closed).max();
        drop(ledger);
        if let Some(epoch) = closed {
            events(Event::Closed { group: self.name.clone(), epoch });
        }
        self.say_drained(events);
    }

    fn slowest(&self) -> u64 {
        self.seen.iter().map(|seen| seen.load(Ordering::SeqCst)).min().unwrap_or(0)
    }

    /// Every thread parks new requests and none is in flight; an upgraded connection may be.
    pub(super) fn is_drained(&self) -> bool {
        let install = self.install.load();
        install.state != State::Open
            && self.slowest() >= install.version
            && install.targets.iter().all(|target| target.unfinished.load(Ordering::SeqCst) == 0)
    }

    /// Nothing of what is to finish is in flight, and nothing new comes: in a group that drains, at any member; in one that is open, at
    /// the members that take no new requests. While a group drains everybody waits: so what has no end of its own is not waited for, nor
    /// anything once half the room to wait is taken, for the rest is needed until another is hot. Where others serve, it is.
    fn has_finished(&self, install: &Install) -> bool {
        let draining = install.state == State::Draining;
        let finishes = |target: &&Arc<Target>| draining || target.weight.load(Ordering::Relaxed) == 0;
        let count = |target: &Arc<Target>| if draining { &target.unfinished } else { &target.in_flight }.load(Ordering::SeqCst);
        let mut finishing = install.targets.iter().filter(finishes).peekable();
        let asked = draining || finishing.peek().is_some();
        let enough = draining && self.is_half_full(&install.settings.park);
        asked && self.slowest() >= install.version && (enough || finishing.all(|target| count(target) == 0))
    }

    fn is_half_full(&self, park: &config::Park) -> bool {
        let (parked, bytes) = (self.parked.load(Ordering::SeqCst), self.parked_bytes.load(Ordering::SeqCst));
        parked >= park.requests.div_ceil(2) || bytes >= park.bytes.div_ceil(2)
    }

    /// Says once that what was to finish has, if it has.
    pub(super) fn say_drained(&self, events: &dyn Fn(Event)) {
        if !self.has_finished(&self.install.load()) {
            return;
        }
        let mut ledger = self.ledger();
        let install = self.install.load();
        if self.has_finished(&install) && !std::mem::replace(&mut ledger.drained_said, true) {
            let epoch = install.epoch;
            drop(ledger);
            events(Event::Drained { group: self.name.clone(), epoch });
        }
    }

    /// A thread's own counters of a member; they outlive the member's place in the table.
    pub(super) fn member_counters(&self, member: &MemberId, index: usize) -> Arc<MemberCounters> {
        let mut ledger = self.ledger();
        let threads = self.seen.len();
        let all = ledger.members.entry(member.clone()).or_insert_with(|| (0..threads).map(|_| Arc::default()).collect());
        Arc::clone(&all[index])
    }

    pub(super) fn answers(&self) -> Vec<Answers> {
        let install = self.install.load();
        let ledger = self.ledger();
        let of = |target: &Arc<Target>| {
            let threads = ledger.members.get(&target.member)?;
            Some(Answers::of(&target.member, install.exclusive, threads.iter()))
        };
        install.targets.iter().filter_map(of).collect()
    }

    pub(super) fn toll(&self) -> Toll {
        let failed = |counters: &Arc<GroupCounters>| {
            Failure::ALL.iter().filter(|why| !why.is_the_clients()).map(|why| counters.failed[*why as usize].get()).sum::<u64>()
        };
        Toll {
            parked: self.counters.iter().map(|counters| counters.parked.get()).sum(),
            waiting: self.parked.load(Ordering::Relaxed) as u64,
            failed: self.counters.iter().map(failed).sum(),
        }
    }

    pub(super) fn snapshot(&self) -> GroupStats {
        let install = self.install.load();
        let sum = |of: fn(&GroupCounters) -> u64| self.counters.iter().map(|counters| of(counters)).sum();
        let (ledger, now) = (self.ledger(), clock::now());
        let members = ledger.members.iter().map(|(member, threads)| {
            let mut stats = MemberStats::new(member.clone());
            threads.iter().for_each(|counters| stats.add(counters));
            if let Some(target) = install.targets.iter().find(|target| target.member == *member) {
                stats.in_flight = target.in_flight.load(Ordering::Relaxed);
                let errs = |counters: &Arc<MemberCounters>| Mono(counters.left_out_until_us.load(Ordering::Relaxed)) > now;
                stats.ejected = target.health.is_ejected() || threads.iter().any(errs);
            }
            stats
        });
        GroupStats {
            group: self.name.clone(),
            epoch: install.epoch,
            connections: sum(|c| c.connections.get()),
            connections_now: self.connections.load(Ordering::Relaxed),
            requests: sum(|c| c.requests.get()),
            retried: sum(|c| c.retried.get()),
            parked: sum(|c| c.parked.get()),
            parked_now: self.parked.load(Ordering::Relaxed),
            parked_bytes_now: self.parked_bytes.load(Ordering::Relaxed),
            failed: Failure::ALL.iter().map(|why| (*why, self.counters.iter().map(|c| c.failed[*why as usize].get()).sum())).collect(),
            members: members.collect(),
        }
    }
}
