//! The data path: one listener per group on every node; what comes in goes to a hot member, waits for one, or is refused clearly.
//!
//! It reads only the routes and its lease, decides nothing about roles, and must never admit a request or release a byte of a reply for
//! an epoch that is over (S8). The main path: [`Router::start`] -> [`thread`] (one per core) -> [`local`] (admission, parking, cutting)
//! -> [`http`] or [`tcp`].
//!
//! HTTP/1.1 is parsed and framed here, strictly, and not by a general server library: what may be repeated (S20) and what may still be
//! released (S8) hang on knowing exactly which bytes were handed to the kernel, and it costs less CPU per request.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use hotwarm_core::ids::{Epoch, GroupName, MemberId, NodeId};
use hotwarm_core::route::Routes;

use crate::config;

mod alarm;
mod balance;
mod evidence;
mod group;
mod http;
mod lease;
mod listen;
mod local;
mod park;
mod pool;
mod stats;
mod tcp;
#[cfg(test)]
mod tests;
mod thread;

pub use lease::Lease;
pub use stats::{Answers, Bucket, CLASSES, Failure, GroupStats, MemberStats, Toll};

use group::Group;
use thread::Port;

/// What the router refuses to do, and why.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    #[error("no address to listen on for group {group} ({address}): free it or change `listen`: {source}")]
    Listen { group: GroupName, address: SocketAddr, source: io::Error },
    #[error("no such group in the router: open {0} before its routes are set")]
    UnknownGroup(GroupName),
    #[error("routes of {group} for epoch {given} are older than epoch {current}: read the state again")]
    OldEpoch { group: GroupName, given: Epoch, current: Epoch },
    #[error("no thread for the router: raise the limit of threads: {0}")]
    Thread(io::Error),
}

/// What live traffic showed of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A connection was refused or could not be made.
    Refused,
    /// A probe's connection broke before the answer.
    Reset,
    /// A probe got no answer in 100 ms, or longer where that is usual.
    Silent,
    /// A reply is late, but the probe is answered.
    Slow,
    /// A member that was left out answers its probe again.
    Ok,
}

/// What the router tells the agent. Called on a router thread: it must not block, nor stop the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// No thread admits or relays anything of `group` for `epoch` or an older one any more (S8).
    Closed { group: GroupName, epoch: Epoch },
    /// Nothing of what is to finish is in flight on any thread: of a group that drains, whose new requests park, nothing but upgraded
    /// connections, or half of what may park does; of one that is open, nothing at members of weight 0.
    Drained { group: GroupName, epoch: Epoch },
    /// Testimony; bad ones at most one per member and kind in 50 ms. `Ok` takes back what was told, and is told once.
    Evidence { member: MemberId, epoch: Epoch, kind: Kind, detail: String },
}

/// How a router is made.
pub struct Options {
    /// Threads that route, each with its own runtime and listeners; at least 1.
    pub threads: usize,
    pub node: NodeId,
    pub events: Arc<dyn Fn(Event) + Send + Sync>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("threads", &self.threads).field("node", &self.node).finish_non_exhaustive()
    }
}

/// What all threads of one router share.
struct Shared {
    node: NodeId,
    lease: Arc<Lease>,
    groups: ArcSwap<BTreeMap<GroupName, Arc<Group>>>,
    /// Closed, and a thread may not have let go of them yet.
    closing: Mutex<Vec<Arc<Group>>>,
    ports: Arc<[Port]>,
    events: Arc<dyn Fn(Event) + Send + Sync>,
}

impl Shared {
    fn wake_all(&self) {
        self.ports.iter().for_each(Port::wake);
    }

    /// Those that were closed and that a thread has not let go of.
    fn closing(&self) -> Vec<Arc<Group>> {
        let mut closing = self.closing.lock().unwrap_or_else(PoisonError::into_inner);
        closing.retain(|group| !group.has_switched());
        closing.clone()
    }

    fn group(&self, name: &GroupName) -> Result<Arc<Group>, RouterError> {
        self.groups.load().get(name).cloned().ok_or_else(|| RouterError::UnknownGroup(name.clone()))
    }
}

/// The entry point.
#[derive(Debug)]
pub struct Router;

impl Router {
    /// Starts the threads; no listener is opened yet.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be made.
    pub fn start(options: Options) -> Result<Handle, RouterError> {
        let ports: Arc<[Port]> = (0..options.threads.max(1)).map(|_| Port::default()).collect();
        let shared = Arc::new(Shared {
            node: options.node,
            lease: Arc::new(Lease::new(Arc::clone(&ports))),
            groups: ArcSwap::default(),
            closing: Mutex::default(),
            ports,
            events: options.events,
        });
        let mut threads = Vec::new();
        for index in 0..shared.ports.len() {
            match thread::spawn(Arc::clone(&shared), index) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    shared.ports.iter().for_each(Port::stop);
                    return Err(RouterError::Thread(error));
                }
            }
        }
        Ok(Handle { inner: Arc::new(Inner { shared, change: Mutex::new(()), threads: Mutex::new(threads) }) })
    }
}

/// A running router. Clones are the same router; it stops with [`Handle::stop`] or with the last clone.
#[derive(Clone)]
pub struct Handle {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    /// Held while the table of groups changes: one change at a time.
    change: Mutex<()>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.ports.iter().for_each(Port::stop);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("node", &self.inner.shared.node).finish_non_exhaustive()
    }
}

impl Handle {
    /// Opens the group's listener on every thread, or changes the limits of an open one; a changed address moves the listener.
    /// Members of `zone`, where this router is, are preferred; empty for none. Requests park until routes are set. Returns the address (with its real port when 0 was asked for).
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn open(&self, config: &config::Group, zone: &str, listen: SocketAddr) -> Result<SocketAddr, RouterError> {
        let shared = &self.inner.shared;
        let _one = self.inner.change.lock().unwrap_or_else(PoisonError::into_inner);
        let known = shared.groups.load().get(&config.name).cloned();
        let group = match known {
            Some(group) => {
                group.configure(config, zone);
                if group.asked() != listen {
                    group.listen(listen, shared.ports.len())?;
                }
                group
            }
            None => {
                let group = Arc::new(Group::new(config, zone, listen, shared.ports.len()));
                group.listen(listen, shared.ports.len())?;
                let mut groups = BTreeMap::clone(&shared.groups.load());
                groups.insert(config.name.clone(), Arc::clone(&group));
                shared.groups.store(Arc::new(groups));
                group
            }
        };
        shared.wake_all();
        Ok(group.address())
    }

    /// Closes the group's listener. Parked requests are refused, those in flight get the group's drain time; where one member is hot they are
    /// cut before this returns, and [`Event::Closed`] follows when every thread has let go (S8).
    pub fn close(&self, name: &GroupName) {
        let shared = &self.inner.shared;
        let _one = self.inner.change.lock().unwrap_or_else(PoisonError::into_inner);
        let mut groups = BTreeMap::clone(&shared.groups.load());
        if let Some(group) = groups.remove(name) {
            group.close();
            shared.closing.lock().unwrap_or_else(PoisonError::into_inner).push(group);
            shared.groups.store(Arc::new(groups));
            shared.wake_all();
        }
    }

    /// Puts new routes into force. Requests at members which they no longer name are cut at once; [`Event::Closed`] follows when
    /// every thread has done so (S8). The same routes again do nothing.
    ///
    /// # Errors
    /// When the group is not open, or the routes are of an older epoch than those in force.
    pub fn set_routes(&self, routes: &Routes) -> Result<(), RouterError> {
        let shared = &self.inner.shared;
        if shared.group(&routes.group)?.install(routes)? {
            shared.wake_all();
        }
        Ok(())
    }

    /// The lease under which groups with one hot member are served; the agent writes it (S8).
    #[must_use]
    pub fn lease(&self) -> Arc<Lease> {
        Arc::clone(&self.inner.shared.lease)
    }

    /// True when the group is draining (or held), every thread has switched, and no request is in flight; an upgraded connection may be.
    ///
    /// # Errors
    /// When the group is not open.
    pub fn drained(&self, name: &GroupName) -> Result<bool, RouterError> {
        Ok(self.inner.shared.group(name)?.is_drained())
    }

    /// True if the group is not open, and no thread admits anything of it any more, nor, where one member is hot, releases anything (S8).
    #[must_use]
    pub fn is_closed(&self, name: &GroupName) -> bool {
        let shared = &self.inner.shared;
        !shared.groups.load().contains_key(name) && !shared.closing().iter().any(|group| group.name == *name)
    }

    /// What every open group has counted so far.
    #[must_use]
    pub fn stats(&self) -> Vec<GroupStats> {
        self.inner.shared.groups.load().values().map(|group| group.snapshot()).collect()
    }

    /// What the group's requests had to bear so far; `None` if it is not open.
    #[must_use]
    pub fn toll(&self, name: &GroupName) -> Option<Toll> {
        self.inner.shared.groups.load().get(name).map(|group| group.toll())
    }

    /// How the members answer that requests go to now.
    #[must_use]
    pub fn answers(&self) -> Vec<Answers> {
        self.inner.shared.groups.load().values().flat_map(|group| group.answers()).collect()
    }

    /// Stops every thread and waits for them. Connections are closed.
    pub fn stop(&self) {
        self.inner.shared.ports.iter().for_each(Port::stop);
        let threads = std::mem::take(&mut *self.inner.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A thread that panicked has said so on stderr; stopping goes on.
            let _ = thread.join();
        }
    }
}
