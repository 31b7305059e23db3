//! One router thread: its runtime, and the loop that makes its own state equal to what is wanted.
//!
//! Level-triggered: a wake carries nothing, the thread compares and acts, so no queue between agent and router can fill. It must never
//! wait for another thread. The main path: [`spawn`] -> [`Worker::reconcile`] on each wake, lease end and tick.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use hotwarm_core::detect::{HealthLimits, SelfHealth};
use hotwarm_core::ids::GroupName;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::Notify;

use super::Shared;
use super::local::LocalGroup;
use super::pool::Buffers;
use crate::clock;

/// How often idle connections are looked over and percentiles computed.
const TICK: Duration = Duration::from_secs(1);

/// How other threads reach a router thread.
#[derive(Default)]
pub(super) struct Port {
    notify: Notify,
    stopping: AtomicBool,
}

impl Port {
    pub(super) fn wake(&self) {
        self.notify.notify_one();
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.wake();
    }
}

/// Starts thread `index`.
pub(super) fn spawn(shared: Arc<Shared>, index: usize) -> io::Result<JoinHandle<()>> {
    // Built on the thread itself: a local runtime cannot move.
    let (told, answer) = std::sync::mpsc::sync_channel(1);
    let handle = std::thread::Builder::new().name(format!("router-{index}")).spawn(move || {
        match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => {
                let _ = told.send(Ok(()));
                let health = Rc::new(RefCell::new(SelfHealth::new(HealthLimits::default())));
                let thread = Thread { buffers: Rc::default(), health };
                runtime.block_on(Worker { shared, index, groups: BTreeMap::new(), thread }.run());
            }
            Err(error) => {
                let _ = told.send(Err(error));
            }
        }
    })?;
    answer.recv().map_err(|_| io::Error::other("the thread ended at its start"))??;
    Ok(handle)
}

/// What the groups of one thread share.
pub(super) struct Thread {
    pub buffers: Rc<Buffers>,
    pub health: Rc<RefCell<SelfHealth>>,
}

struct Worker {
    shared: Arc<Shared>,
    index: usize,
    groups: BTreeMap<GroupName, Rc<LocalGroup>>,
    thread: Thread,
}

impl Worker {
    async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let port = &shared.ports[self.index];
        let mut tick = tokio::time::interval(TICK);
        while !port.stopping.load(Ordering::Acquire) {
            self.reconcile();
            tokio::select! {
                () = port.notify.notified() => {}
                () = self.lease_end() => {}
                due = tick.tick() => self.tick(due.elapsed()),
            }
        }
        self.groups.values().for_each(|group| group.stop());
    }

    fn tick(&self, late: Duration) {
        let now = clock::now();
        self.thread.health.borrow_mut().woke(now.minus(late), now);
        self.groups.values().for_each(|group| group.tick(now));
    }

    /// When the lease ends by itself; never while it is not valid, or no group needs it: a wake tells of its return.
    async fn lease_end(&self) {
        let (now, until) = (clock::now(), self.shared.lease.until());
        if now < until && self.groups.values().any(|group| group.is_exclusive()) {
            tokio::time::sleep(until.since(now)).await;
        } else {
            std::future::pending::<()>().await;
        }
    }

    fn reconcile(&mut self) {
        let wanted = self.shared.groups.load_full();
        self.groups.retain(|name, local| {
            let keep = wanted.get(name).is_some_and(|group| Arc::ptr_eq(group, &local.group));
            if !keep {
                local.close();
            }
            keep
        });
        for (name, group) in wanted.iter() {
            let local = self
                .groups
                .entry(name.clone())
                .or_insert_with(|| LocalGroup::new(Arc::clone(&self.shared), Arc::clone(group), self.index, &self.thread));
            local.reconcile();
        }
    }
}
