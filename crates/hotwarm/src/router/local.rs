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

use hotwarm_core::ids::{Epoch, Mono};
use hotwarm_core::rng::Rng;
use slab::Slab;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use super::group::{Group, Settings, State, Target};
use super::park::Queue;
use super::pool::{Buffers, Idle};
use super::stats::{Failure, GroupCounters, MemberCounters, NO_SAMPLES, quantile_since};
use super::{Event, Shared, http, tcp};
use crate::clock;
use crate::config::Protocol;

/// A target as one thread sees it.
pub(super) struct LocalTarget {
    pub shared: Arc<Target>,
    pub idle: Idle,
    pub counters: Arc<MemberCounters>,
    samples: RefCell<[u64; NO_SAMPLES.len()]>,
}

/// The routes as one thread works by them.
pub(super) struct Table {
    pub version: u64,
    pub epoch: Epoch,
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
    pub queue: Queue,
    index: usize,
    table: RefCell<Rc<Table>>,
    seats: RefCell<Slab<Rc<Seat>>>,
    rng: RefCell<Rng>,
    closing: Cell<bool>,
    /// Requests that were cut and have not let go of their member yet.
    cutting: Cell<usize>,
    /// The version that `group` was told of.
    told: Cell<u64>,
    acceptors: RefCell<Vec<AbortHandle>>,
}

impl LocalGroup {
    pub(super) fn new(shared: Arc<Shared>, group: Arc<Group>, index: usize, buffers: &Rc<Buffers>) -> Rc<Self> {
        let install = group.install.load_full();
        let table = Table {
            version: 0,
            epoch: Epoch(0),
            exclusive: install.exclusive,
            state: State::Held,
            targets: Vec::new(),
            settings: Arc::clone(&install.settings),
        };
        Rc::new(Self {
            counters: Arc::clone(&group.counters[index]),
            shared,
            buffers: Rc::clone(buffers),
            queue: Queue::default(),
            index,
            table: RefCell::new(Rc::new(table)),
            seats: RefCell::default(),
            rng: RefCell::new(Rng::new(clock::now().0 ^ (index as u64) << 48)),
            closing: Cell::new(false),
            cutting: Cell::new(0),
            told: Cell::new(0),
            acceptors: RefCell::default(),
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
        self.queue.start(self);
    }

    /// Takes over the routes in force and cuts what is at members they no longer name.
    fn switch(&self) {
        let install = self.group.install.load_full();
        let old = self.table();
        let targets = install.targets.iter().map(|target| {
            old.targets.iter().find(|local| Arc::ptr_eq(&local.shared, target)).cloned().unwrap_or_else(|| {
                Rc::new(LocalTarget {
                    shared: Arc::clone(target),
                    idle: Idle::default(),
                    counters: self.group.member_counters(&target.member, self.index),
                    samples: RefCell::new(NO_SAMPLES),
                })
            })
        });
        *self.table.borrow_mut() = Rc::new(Table {
            version: install.version,
            epoch: install.epoch,
            exclusive: install.exclusive,
            state: install.state,
            targets: targets.collect(),
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
        self.acceptors.borrow_mut().drain(..).for_each(|task| task.abort());
        let local = Rc::clone(self);
        let task = tokio::task::spawn_local(async move { local.accept(listener).await });
        self.acceptors.borrow_mut().push(task.abort_handle());
    }

    async fn accept(self: Rc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
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
        if self.group.connections.load(Ordering::Relaxed) > settings.http.connections {
            self.counters.fail(Failure::Connections);
            if settings.protocol == Protocol::Http {
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
    pub(super) fn admit(self: &Rc<Self>, seat: &Rc<Seat>, hash: Option<u64>, tried: &[Rc<LocalTarget>]) -> Admission {
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
        let Some(target) = self.choose(&table, hash, tried) else { return Admission::Wait };
        target.shared.in_flight.fetch_add(1, Ordering::SeqCst);
        *seat.target.borrow_mut() = Some(Rc::clone(&target));
        let flight = Flight { group: Rc::clone(self), seat: Rc::clone(seat), target, exclusive: table.exclusive };
        drop(table);
        // Fenced by another thread while this one chose: it has not switched yet, and parks until it has.
        if flight.is_over() { Admission::Wait } else { Admission::Go(flight) }
    }

    fn choose(&self, table: &Table, _hash: Option<u64>, tried: &[Rc<LocalTarget>]) -> Option<Rc<LocalTarget>> {
        let usable = |target: &Rc<LocalTarget>, panic: bool| {
            target.shared.weight.load(Ordering::Relaxed) > 0
                && (panic || !target.shared.health.is_ejected())
                && !tried.iter().any(|tried| Rc::ptr_eq(tried, target))
        };
        let pick = |panic: bool| {
            let candidates: Vec<_> = table.targets.iter().filter(|target| usable(target, panic)).collect();
            let mut rng = self.rng.borrow_mut();
            let mut draw = || candidates.get(usize::try_from(rng.below(candidates.len() as u64)).unwrap_or(0)).copied();
            let load = |target: &&Rc<LocalTarget>| target.shared.in_flight.load(Ordering::Relaxed);
            draw().into_iter().chain(draw()).min_by_key(load).cloned()
        };
        // Never everybody: with several hot members all ejected, all are used (panic mode). A single one has nobody to be unjust to.
        pick(false).or_else(|| if table.exclusive { None } else { pick(true) })
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
        for target in &self.table().targets {
            target.idle.expire(now);
            if let Some(p99_us) = quantile_since(&target.counters.first_byte, &mut target.samples.borrow_mut(), 990) {
                target.shared.health.learn(p99_us);
            }
        }
    }

    /// The group was closed: nothing new is accepted, what is parked is refused, what is in flight gets the drain time.
    pub(super) fn close(self: &Rc<Self>) {
        self.stop();
        let local = Rc::clone(self);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(local.settings().drain).await;
            local.cut(|_| true);
        });
    }

    pub(super) fn stop(&self) {
        self.closing.set(true);
        self.acceptors.borrow_mut().drain(..).for_each(|task| task.abort());
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
}

impl Flight {
    /// True when nothing more may be sent to the member or released from it (S8). The lease is read before the fence: a lease extended
    /// for a newer epoch was extended after that epoch's routes fenced this target, so whoever sees the one sees the other.
    pub(super) fn is_over(&self) -> bool {
        self.seat.cut.get() || (self.exclusive && !self.group.shared.lease.is_valid()) || self.target.shared.is_fenced()
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.seat.target.borrow_mut().take();
        let left = self.target.shared.in_flight.fetch_sub(1, Ordering::SeqCst) - 1;
        if self.seat.cut.replace(false) {
            self.group.cutting.set(self.group.cutting.get() - 1);
            self.group.say_switched();
        }
        if left == 0 && self.group.group.install.load().state == State::Draining {
            self.group.group.say_drained(&*self.group.shared.events);
        }
    }
}
