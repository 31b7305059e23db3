//! One group on one router thread: who is connected, which member each request is at, and which table the thread works by.
//!
//! Everything here belongs to one thread. A request is at a member only between [`LocalGroup::admit`] and the drop of its [`Flight`];
//! whoever sends or releases a byte must ask [`Flight::is_over`] first, after every await (S8). The main path: [`LocalGroup::reconcile`]
//! switches to new routes and cuts; connections call `admit`, or park.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use hotwarm_core::detect::{LatencyTracker, SelfHealth};
use hotwarm_core::ids::Mono;
use hotwarm_core::route::slots::SlotSet;
use slab::Slab;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::balance::{Answer, Balancer};
use super::group::{Group, Settings, State, Target};
use super::park::Queue;
use super::pool::{Buffers, Idle};
use super::stats::{Failure, GroupCounters, MemberCounters};
use super::thread::Thread;
use super::{Event, Shared, http, tcp};
use crate::clock;
use crate::config::Protocol;

/// Connections over the limit that are told so.
const TURNED_AWAY: usize = 100;
/// No reply is called late before this.
const SUSPECT_FLOOR: Duration = Duration::from_millis(50);

/// A target as one thread sees it.
pub(super) struct LocalTarget {
    pub shared: Arc<Target>,
    pub idle: Idle,
    pub counters: Arc<MemberCounters>,
    /// Its number in the balancer.
    pub slot: Cell<usize>,
    latency: RefCell<LatencyTracker>,
    /// How many of its readmissions the balancer was told.
    readmissions: Cell<u64>,
}

impl LocalTarget {
    fn new(shared: &Arc<Target>, counters: Arc<MemberCounters>, now: Mono) -> Rc<Self> {
        Rc::new(Self {
            readmissions: Cell::new(shared.health.readmissions()),
            shared: Arc::clone(shared),
            idle: Idle::default(),
            counters,
            slot: Cell::new(0),
            latency: RefCell::new(LatencyTracker::new(now)),
        })
    }

    /// How long a reply may take before the member is probed: max(50 ms, 3 x p99).
    pub(super) fn suspect_after(&self) -> Duration {
        self.usual(SUSPECT_FLOOR)
    }

    /// What is not unusual of it: three times its p99, `floor` at least.
    pub(super) fn usual(&self, floor: Duration) -> Duration {
        self.latency.borrow().limit(floor)
    }
}

/// The routes as one thread works by them.
pub(super) struct Table {
    pub version: u64,
    pub exclusive: bool,
    pub state: State,
    pub targets: Vec<Rc<LocalTarget>>,
    pub settings: Arc<Settings>,
}

/// One client connection's place in its thread.
pub(super) struct Seat {
    pub waker: Waker,
    pub peer: SocketAddr,
    key: Cell<usize>,
    target: RefCell<Option<Rc<LocalTarget>>>,
    /// What it does at its member is over: the epoch, the lease or the drain time ended.
    cut: Cell<bool>,
    /// It was parked and may go; until its first byte it counts against the pace of release.
    pub released: Cell<bool>,
}

/// What `admit` found.
pub(super) enum Admission {
    Go(Flight),
    /// No member may be used now: park.
    Wait,
    /// The group's listener is closed.
    Stopped,
}

pub(super) struct LocalGroup {
    pub shared: Arc<Shared>,
    pub group: Arc<Group>,
    pub counters: Arc<GroupCounters>,
    pub buffers: Rc<Buffers>,
    /// Of this thread: is it itself that is late?
    pub health: Rc<RefCell<SelfHealth>>,
    pub queue: Queue,
    index: usize,
    table: RefCell<Rc<Table>>,
    seats: RefCell<Slab<Rc<Seat>>>,
    balancer: RefCell<Balancer>,
    closing: Cell<bool>,
    /// Requests that were cut and have not let go of their member yet.
    cutting: Cell<usize>,
    /// The version that `group` was told of.
    told: Cell<u64>,
    /// Tells the task that accepts to take what the kernel has queued, and to close the listener.
    acceptor: RefCell<Rc<Notify>>,
}

impl LocalGroup {
    pub(super) fn new(shared: Arc<Shared>, group: Arc<Group>, index: usize, thread: &Thread) -> Rc<Self> {
        let install = group.install.load_full();
        let table = Table {
            version: 0,
            exclusive: install.exclusive,
            state: State::Held,
            targets: Vec::new(),
            settings: Arc::clone(&install.settings),
        };
        let seed = clock::now().0 ^ (index as u64) << 48;
        let balancer = Balancer::new(&install.settings, seed);
        Rc::new(Self {
            counters: Arc::clone(&group.counters[index]),
            shared,
            buffers: Rc::clone(&thread.buffers),
            health: Rc::clone(&thread.health),
            queue: Queue::default(),
            index,
            table: RefCell::new(Rc::new(table)),
            seats: RefCell::default(),
            balancer: RefCell::new(balancer),
            closing: Cell::new(false),
            cutting: Cell::new(0),
            told: Cell::new(0),
            acceptor: RefCell::default(),
            group,
        })
    }

    pub(super) fn table(&self) -> Rc<Table> {
        Rc::clone(&self.table.borrow())
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.table.borrow().settings)
    }

    pub(super) fn is_exclusive(&self) -> bool {
        self.table.borrow().exclusive
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    fn lease_holds(&self) -> bool {
        !self.is_exclusive() || self.shared.lease.is_valid()
    }

    /// Makes this thread's state equal to the group's.
    pub(super) fn reconcile(self: &Rc<Self>) {
        if let Some(listener) = self.group.take_listener(self.index) {
            self.accept_on(listener);
        }
        if self.group.install.load().version != self.table.borrow().version {
            self.switch();
        }
        if !self.lease_holds() {
            self.cut(|_| true);
        }
        self.say_switched();
        for target in &self.table().targets {
            let count = target.shared.health.readmissions();
            if target.readmissions.replace(count) != count {
                self.balancer.borrow_mut().readmitted(target.slot.get(), clock::now());
            }
        }
        self.queue.start(self);
    }

    /// Takes over the routes in force and cuts what is at members they no longer name.
    fn switch(&self) {
        let (install, old, now) = (self.group.install.load_full(), self.table(), clock::now());
        let targets = install.targets.iter().map(|target| {
            old.targets
                .iter()
                .find(|local| Arc::ptr_eq(&local.shared, target))
                .cloned()
                .unwrap_or_else(|| LocalTarget::new(target, self.group.member_counters(&target.member, self.index), now))
        });
        let targets: Vec<_> = targets.collect();
        self.balancer.borrow_mut().update(now, &install.settings, &install.named, &targets);
        *self.table.borrow_mut() = Rc::new(Table {
            version: install.version,
            exclusive: install.exclusive,
            state: install.state,
            targets,
            settings: Arc::clone(&install.settings),
        });
        old.targets.iter().filter(|target| target.shared.is_fenced()).for_each(|target| target.idle.clear());
        self.cut(|target| target.shared.is_fenced());
        self.queue.calm();
    }

    /// Ends what is in flight at the targets that `which` names; their tasks let go of the sockets when they next run.
    fn cut(&self, which: impl Fn(&LocalTarget) -> bool) {
        for (_, seat) in self.seats.borrow().iter() {
            if !seat.cut.get() && seat.target.borrow().as_ref().is_some_and(|target| which(target)) {
                seat.cut.set(true);
                self.cutting.set(self.cutting.get() + 1);
                seat.waker.wake_by_ref();
            }
        }
    }

    /// Tells the group which version this thread works by, once nothing of an older one is in flight here.
    fn say_switched(&self) {
        let version = self.table.borrow().version;
        if self.cutting.get() == 0 && self.told.get() != version {
            self.told.set(version);
            self.group.switched(self.index, version, &*self.shared.events);
        }
    }

    fn accept_on(self: &Rc<Self>, listener: std::net::TcpListener) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(group = %self.group.name, %error, "no listener on this thread: raise the limit of open files");
                return;
            }
        };
        // A moved listener takes the place of the old one; connections it accepted stay.
        let retire = Rc::new(Notify::new());
        self.acceptor.replace(Rc::clone(&retire)).notify_one();
        tokio::task::spawn_local(Rc::clone(self).accept(listener, retire));
    }

    async fn accept(self: Rc<Self>, listener: TcpListener, retire: Rc<Notify>) {
        loop {
            let accepted = tokio::select! {
                biased;
                accepted = listener.accept() => accepted,
                () = retire.notified() => return,
            };
            match accepted {
                Ok((stream, peer)) => self.admit_connection(stream, peer),
                Err(error) => {
                    // Out of descriptors, mostly: the connection stays in the kernel's queue, so waiting loses nothing.
                    tracing::warn!(group = %self.group.name, %error, "no connection accepted: raise the limit of open files");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn admit_connection(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr) {
        self.counters.connections.add(1);
        let settings = self.settings();
        let place = Place::take(self);
        let (count, limit) = (self.group.connections.load(Ordering::Relaxed), settings.http.connections);
        if count > limit {
            self.counters.fail(Failure::Connections);
            // To tell them costs a connection too: a flood is closed without a word.
            if settings.protocol == Protocol::Http && count <= limit + TURNED_AWAY {
                tokio::task::spawn_local(async move { http::turn_away(stream, place).await });
            }
            return;
        }
        match settings.protocol {
            Protocol::Http => tokio::task::spawn_local(http::serve(stream, peer, place)),
            Protocol::Tcp => tokio::task::spawn_local(tcp::serve(stream, peer, place)),
        };
    }

    /// A place at a member for one request, or the advice to wait. Members in `tried` are left out.
    pub(super) fn admit(self: &Rc<Self>, seat: &Rc<Seat>, now: Mono, hash: Option<u64>, tried: &SlotSet) -> Admission {
        if self.closing.get() {
            return Admission::Stopped;
        }
        if !seat.released.get() && self.queue.is_ahead(self) {
            return Admission::Wait;
        }
        let table = self.table.borrow();
        if table.state != State::Open || !self.lease_holds() {
            return Admission::Wait;
        }
        let chosen = self.balancer.borrow_mut().choose(now, hash, tried, table.exclusive);
        let Some(target) = chosen else { return Admission::Wait };
        target.shared.in_flight.fetch_add(1, Ordering::SeqCst);
        target.shared.unfinished.fetch_add(1, Ordering::SeqCst);
        *seat.target.borrow_mut() = Some(Rc::clone(&target));
        let (group, seat, exclusive) = (Rc::clone(self), Rc::clone(seat), table.exclusive);
        let flight = Flight { group, seat, target, exclusive, endless: Cell::new(false), answer: Cell::new(None) };
        drop(table);
        // Fenced by another thread while this one chose: it has not switched yet, and parks until it has.
        if flight.is_over() { Admission::Wait } else { Admission::Go(flight) }
    }

    /// Counts a request for the budget of repeats.
    pub(super) fn arrived(&self, now: Mono) {
        self.counters.requests.add(1);
        self.balancer.borrow_mut().arrived(now);
    }

    /// True if the budget allows one more request to be repeated.
    pub(super) fn may_repeat(&self, now: Mono) -> bool {
        self.balancer.borrow_mut().may_repeat(now)
    }

    /// True if another target than `target` could take a request now.
    pub(super) fn has_other(&self, target: &Rc<LocalTarget>) -> bool {
        self.table
            .borrow()
            .targets
            .iter()
            .any(|other| !Rc::ptr_eq(other, target) && !other.shared.health.is_ejected() && other.shared.weight.load(Ordering::Relaxed) > 0)
    }

    /// Wakes whoever waits at `target`, to look at its health.
    pub(super) fn wake_at(&self, target: &Target) {
        for (_, seat) in self.seats.borrow().iter() {
            if seat.target.borrow().as_ref().is_some_and(|at| std::ptr::eq(&*at.shared, target)) {
                seat.waker.wake_by_ref();
            }
        }
    }

    pub(super) fn tick(&self, now: Mono) {
        self.table().targets.iter().for_each(|target| target.idle.expire(now));
    }

    /// The group was closed: nothing new is accepted, what is parked is refused, what is in flight gets the drain time, but at the one hot
    /// member of its group, where it is cut.
    pub(super) fn close(self: &Rc<Self>) {
        self.stop();
        if self.group.install.load().version != self.table.borrow().version {
            self.switch();
        }
        self.say_switched();
        let local = Rc::clone(self);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(local.settings().drain).await;
            local.cut(|_| true);
        });
    }

    pub(super) fn stop(&self) {
        self.closing.set(true);
        self.acceptor.borrow().notify_one();
        self.seats.borrow().iter().for_each(|(_, seat)| seat.waker.wake_by_ref());
    }

    pub(super) fn event(&self, event: Event) {
        (self.shared.events)(event);
    }
}

/// A connection that counts against the group's limit.
pub(super) struct Place {
    pub group: Rc<LocalGroup>,
}

impl Place {
    fn take(group: &Rc<LocalGroup>) -> Self {
        group.group.connections.fetch_add(1, Ordering::Relaxed);
        Self { group: Rc::clone(group) }
    }

    /// Sits down: from now on a cut or a release wakes the calling task.
    pub(super) async fn sit(self, peer: SocketAddr) -> Seated {
        let waker = std::future::poll_fn(|cx| std::task::Poll::Ready(cx.waker().clone())).await;
        let seat =
            Rc::new(Seat { waker, peer, key: Cell::new(0), target: RefCell::new(None), cut: Cell::new(false), released: Cell::new(false) });
        seat.key.set(self.group.seats.borrow_mut().insert(Rc::clone(&seat)));
        Seated { seat, place: self }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.group.group.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A seat that is given up when the connection ends.
pub(super) struct Seated {
    pub seat: Rc<Seat>,
    place: Place,
}

impl Seated {
    pub(super) fn group(&self) -> &Rc<LocalGroup> {
        &self.place.group
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.seat.settle(&self.place.group);
        self.place.group.seats.borrow_mut().remove(self.seat.key.get());
    }
}

impl Seat {
    /// A released request has come through (or given up): the next ones may go.
    pub(super) fn settle(&self, group: &Rc<LocalGroup>) {
        if self.released.replace(false) {
            group.queue.settled(group);
        }
    }
}

/// One request at one member.
pub(super) struct Flight {
    pub group: Rc<LocalGroup>,
    pub target: Rc<LocalTarget>,
    seat: Rc<Seat>,
    exclusive: bool,
    /// What is passed has no end of its own.
    endless: Cell<bool>,
    answer: Cell<Option<Answer>>,
}

impl Flight {
    /// True when nothing more may be sent to the member or released from it (S8). The lease is read before the fence: a lease extended
    /// for a newer epoch was extended after that epoch's routes fenced this target, so whoever sees the one sees the other.
    pub(super) fn is_over(&self) -> bool {
        self.seat.cut.get() || (self.exclusive && !self.group.shared.lease.is_valid()) || self.target.shared.is_fenced()
    }
}

impl Flight {
    /// The reply's head is here: what the balance and the limit for late replies learn from.
    pub(super) fn answered(&self, answer: Answer) {
        self.target.latency.borrow_mut().record(answer.at, answer.latency);
        self.target.counters.replied(answer.status);
        self.answer.set(Some(answer));
    }

    /// It became a connection without an end of its own: a switchover waits for it no longer, for all others would wait with it.
    pub(super) fn never_ends(&self) {
        if !self.endless.replace(true) && self.target.shared.unfinished.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.say_drained();
        }
    }

    /// The last that was waited for has let go, if anything is waited for.
    fn say_drained(&self) {
        let draining = || self.group.group.install.load().state == State::Draining;
        if self.target.shared.weight.load(Ordering::Relaxed) == 0 || draining() {
            self.group.group.say_drained(&*self.group.shared.events);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.group.balancer.borrow_mut().ended(self.target.slot.get(), self.answer.get());
        self.seat.target.borrow_mut().take();
        let shared = &self.target.shared;
        let last = shared.in_flight.fetch_sub(1, Ordering::SeqCst) == 1;
        let last_unfinished = !self.endless.get() && shared.unfinished.fetch_sub(1, Ordering::SeqCst) == 1;
        if self.seat.cut.replace(false) {
            self.group.cutting.set(self.group.cutting.get() - 1);
            self.group.say_switched();
        }
        if last || last_unfinished {
            self.say_drained();
        }
    }
}
