//! What the rest of the program may ask of a running agent: a picture, the records, a command.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use hotwarm_core::ids::{GroupName, Incarnation, MemberId, Mono, NodeId};
use hotwarm_core::node::{Command, CommandError, Outcome, View};
use tokio::sync::oneshot;

use super::decision::{Inbox, Input};
use super::erring::Erring;
use super::record::Records;
use crate::config::Config;
use crate::config::pki::Identity;
use crate::{engine, router, store};

/// Clones are the same agent.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
    pub(super) inbox: Inbox,
}

/// What the decision thread publishes.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) me: NodeId,
    pub(super) data: PathBuf,
    /// Of this node, as last loaded.
    pub(super) certificate: ArcSwap<Option<Identity>>,
    pub(super) view: ArcSwap<View>,
    /// When this node was last seen to hold a lease, else when it started: [`Mono`].
    pub(super) leased: AtomicU64,
    pub(super) config: ArcSwap<Config>,
    pub(super) members: ArcSwap<BTreeMap<MemberId, tokio::sync::watch::Receiver<engine::View>>>,
    /// On the disk of the data directory, as last looked at.
    pub(super) room: Arc<ArcSwap<Option<store::disk::Room>>>,
    /// Members that ran when their engine's configuration changed, by the life that runs on with the former one.
    pub(super) former: Mutex<BTreeMap<MemberId, Incarnation>>,
    pub(super) records: Records,
    /// Hooks that fail on this node.
    pub(super) failures: engine::failures::Failures,
    pub(super) outputs: engine::logs::Outputs,
    /// Groups whose listener here is not as the configuration wants it, and why.
    pub(super) unopened: ArcSwap<BTreeMap<GroupName, String>>,
    /// Members that answer this node's router with 5xx.
    pub(super) erring: ArcSwap<BTreeMap<MemberId, Erring>>,
    pub(super) router: router::Handle,
    pub(super) transport: store::transport::Handle,
    pub(super) wal: store::wal::Handle,
    pub(super) tickets: Mutex<Tickets>,
}

impl Shared {
    /// Until which second (since 1970) the certificates are valid of this node and of those that it is connected to.
    pub(super) fn certificates(&self) -> BTreeMap<NodeId, i64> {
        let own = self.certificate.load();
        let own = own.as_ref().as_ref().map(|identity| (self.me.clone(), identity.not_after));
        self.transport.certificates().into_iter().chain(own).collect()
    }
}

/// Commands that wait for their answer.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    next: u64,
    waiting: BTreeMap<u64, oneshot::Sender<Outcome>>,
}

impl Tickets {
    pub(super) fn answer(&mut self, ticket: u64, outcome: Outcome) {
        if let Some(waiting) = self.waiting.remove(&ticket) {
            // Whoever asked may have gone.
            let _ = waiting.send(outcome);
        }
    }
}

impl Handle {
    #[must_use]
    pub fn me(&self) -> &NodeId {
        &self.shared.me
    }

    /// The node as it was a moment ago.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.shared.view.load_full()
    }

    /// How long it holds no lease, whatever it hears: nothing of an exclusive group is served by its router and members.
    #[must_use]
    pub fn unleased(&self) -> Option<Duration> {
        let view = self.view();
        let unleased = view.cluster.founded() && view.lease_left.is_zero();
        unleased.then(|| crate::clock::now().since(Mono(self.shared.leased.load(Ordering::Relaxed))))
    }

    /// How long it holds no lease while it reaches no quorum: for that long it knows nothing of the others.
    #[must_use]
    pub fn cut_off(&self) -> Option<Duration> {
        let (unleased, view) = (self.unleased()?, self.view());
        (view.reached.len() < view.voters.len() / 2 + 1).then_some(unleased)
    }

    /// True if this node may found a cluster that nobody has founded (S11).
    #[must_use]
    pub fn may_found(&self) -> bool {
        self.shared.data.join("bootstrap").exists()
    }

    /// The configuration in force on this node.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.shared.config.load_full()
    }

    #[must_use]
    pub fn records(&self) -> &Records {
        &self.shared.records
    }

    /// Which hooks of the group's members failed here last, and have not worked since.
    #[must_use]
    pub fn failed_hooks(&self, group: &GroupName) -> Vec<engine::failures::Failure> {
        self.shared.failures.of(group)
    }

    /// Why this node does not listen where the configuration says, by group; tried again each second.
    #[must_use]
    pub fn unopened(&self) -> Arc<BTreeMap<GroupName, String>> {
        self.shared.unopened.load_full()
    }

    /// Which members answer this node's router with 5xx, and what it makes of that.
    #[must_use]
    pub fn erring(&self) -> Arc<BTreeMap<MemberId, Erring>> {
        self.shared.erring.load_full()
    }

    /// What the router counted.
    #[must_use]
    pub fn traffic(&self) -> Vec<router::GroupStats> {
        self.shared.router.stats()
    }

    #[must_use]
    pub fn transport(&self) -> store::transport::Stats {
        self.shared.transport.stats()
    }

    #[must_use]
    pub fn wal(&self) -> store::wal::Stats {
        self.shared.wal.stats()
    }

    /// What is left on the disk of the data directory; `None` until it was looked at.
    #[must_use]
    pub fn room(&self) -> Option<store::disk::Room> {
        **self.shared.room.load()
    }

    /// Loads new certificates without dropping traffic.
    ///
    /// # Errors
    /// The material does not fit together; the old one stays in force.
    pub fn reload_tls(&self, material: &store::transport::TlsMaterial) -> Result<(), store::transport::TransportError> {
        self.shared.transport.reload_tls(material)
    }

    /// How its API speaks TLS: with the certificate as last loaded. `None` without certificates.
    #[must_use]
    pub fn api_tls(&self) -> Option<Arc<rustls::ServerConfig>> {
        self.shared.transport.api_tls()
    }

    /// Nodes that refuse this one, for it was removed from the cluster as they know it.
    #[must_use]
    pub fn removed_by(&self) -> Vec<NodeId> {
        self.shared.transport.removed_by()
    }

    /// Until which second (since 1970) the certificates are valid of this node and of those that it is connected to.
    #[must_use]
    pub fn certificates(&self) -> BTreeMap<NodeId, i64> {
        self.shared.certificates()
    }

    /// This node's own members as their engines see them.
    #[must_use]
    pub fn members(&self) -> BTreeMap<MemberId, engine::View> {
        self.shared.members.load().iter().map(|(id, view)| (id.clone(), view.borrow().clone())).collect()
    }

    /// True if a member of this node runs on with an engine that was changed since it started. An agent that was started since does not know.
    #[must_use]
    pub fn runs_former(&self, member: &MemberId) -> bool {
        let former = self.shared.former.lock().unwrap_or_else(PoisonError::into_inner).get(member).copied();
        let members = self.shared.members.load();
        former.is_some_and(|life| members.get(member).is_some_and(|view| view.borrow().running && view.borrow().incarnation == life))
    }

    /// Puts a command into the log and waits until it is applied, at most 5 s.
    ///
    /// # Errors
    /// It was not applied, or it is not known whether it was.
    pub async fn command(&self, command: Command) -> Outcome {
        let (answer, answered) = oneshot::channel();
        let ticket = {
            let mut tickets = self.shared.tickets.lock().unwrap_or_else(PoisonError::into_inner);
            tickets.next += 1;
            let ticket = tickets.next;
            tickets.waiting.insert(ticket, answer);
            ticket
        };
        if !self.inbox.offer(Input::Command { ticket, command }) {
            self.shared.tickets.lock().unwrap_or_else(PoisonError::into_inner).waiting.remove(&ticket);
            return Err(CommandError::Busy);
        }
        answered.await.unwrap_or(Err(CommandError::Unconfirmed))
    }
}
