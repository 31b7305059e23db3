//! A router with one group, and what it told.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hotwarm_core::ids::{Epoch, GroupName, MemberId, NodeId};
use hotwarm_core::route::{RouteState, Routes, Target};

use super::member::Member;
use crate::clock;
use crate::config::*;
use crate::router::{Event, Failure, GroupStats, Handle, Options, Router};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `check` holds.
pub(super) async fn until<F: Future<Output = bool>>(what: &str, mut check: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !check().await {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

pub(super) fn config(exclusive: bool, protocol: Protocol) -> Group {
    Group {
        name: GroupName::new("web"),
        mode: Mode { hot: 2, warm: 0, spare: 0, exclusive },
        listen: BTreeMap::new(),
        protocol,
        engine: Engine::External,
        members: BTreeMap::new(),
        check: Check {
            kind: if protocol == Protocol::Http {
                CheckKind::Http { path: "/healthz".into(), status: Vec::new(), body: None }
            } else {
                CheckKind::Tcp
            },
            every: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            fall: 3,
            rise: 2,
        },
        balance: Balance::LeastLoaded,
        park: Park { time: PATIENCE, requests: 100, bytes: 1 << 20 },
        http: HttpLimits { head_bytes: 16 * 1024, headers: 100, connections: 1000 },
        repeat: Vec::new(),
        timeouts: Timeouts { connect: Duration::from_secs(2), first_byte: PATIENCE, idle: PATIENCE },
        fence: Fence::Supervisor,
        objective: Objective::default(),
        drain: Duration::from_secs(10),
        stateful: exclusive,
        failovers_per_hour: 10,
    }
}

pub(super) struct Stage {
    pub handle: Handle,
    pub config: Group,
    pub address: SocketAddr,
    pub events: Arc<Mutex<Vec<Event>>>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

impl Stage {
    pub(super) fn http() -> Self {
        Self::new(config(false, Protocol::Http), 1)
    }

    pub(super) fn new(config: Group, threads: usize) -> Self {
        let events = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&events);
        let handle =
            Router::start(Options { threads, node: NodeId::new("n"), events: Arc::new(move |event| heard.lock().unwrap().push(event)) })
                .unwrap();
        let address = handle.open(&config, "", "127.0.0.1:0".parse().unwrap()).unwrap();
        Self { handle, config, address, events }
    }

    /// The lease is valid for a long time.
    pub(super) fn leased(self) -> Self {
        self.handle.lease().set(clock::now().plus(Duration::from_secs(3600)));
        self
    }

    pub(super) fn routes(&self, epoch: u64, state: impl Fn(Vec<Target>) -> RouteState, members: &[&Member]) {
        let targets = members.iter().map(|member| Target {
            member: MemberId::of(&self.config.name, &member.name),
            address: member.address,
            weight: 100,
            zone: String::new(),
        });
        let routes = Routes {
            group: self.config.name.clone(),
            epoch: Epoch(epoch),
            exclusive: self.config.mode.exclusive,
            state: state(targets.collect()),
        };
        self.handle.set_routes(&routes).unwrap();
    }

    pub(super) fn open(&self, epoch: u64, members: &[&Member]) {
        self.routes(epoch, RouteState::Open, members);
    }

    pub(super) fn held(&self, epoch: u64) {
        self.routes(epoch, |_| RouteState::Held, &[]);
    }

    pub(super) fn stats(&self) -> GroupStats {
        self.handle.stats().into_iter().find(|stats| stats.group == self.config.name).unwrap()
    }

    pub(super) fn failed(&self, why: Failure) -> u64 {
        self.stats().failed.iter().find(|(kind, _)| *kind == why).unwrap().1
    }

    pub(super) async fn parked(&self, count: usize) {
        until("requests parked", || async { self.stats().parked_now == count }).await;
    }

    pub(super) fn seen(&self, what: impl Fn(&Event) -> bool) -> bool {
        self.events.lock().unwrap().iter().any(what)
    }

    pub(super) async fn heard(&self, what: impl Fn(&Event) -> bool) {
        until("an event", || async { self.seen(&what) }).await;
    }
}
