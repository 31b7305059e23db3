//! The connection between nodes: carries the core's messages as opaque bytes, on a thread and a runtime of its own.
//!
//! Must never block who sends, deliver what an unproven sender wrote, or promise delivery: a message may be lost, repeated by its
//! sender, or arrive after a later one. Each node dials each peer for what it sends, once per lane. The main path enters at
//! [`Transport::start`] and [`Handle::send`]; what arrives goes to the inbound callback.

mod accept;
mod connection;
mod dial;
mod frame;
mod hello;
mod lane;
#[cfg(test)]
mod tests;
mod tls;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use arc_swap::{ArcSwap, ArcSwapOption};
use hotwarm_core::ids::NodeId;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tracing::error;

use self::connection::{Connection, ConnectionError};
use self::lane::{Bounds, Queue};
use self::tls::Tls;
use crate::codes::Code;
use crate::config::pki::normal_serial;

pub use self::frame::{FrameError, MAX_BODY};
pub use self::hello::HelloError;
pub use self::lane::{BULK_OVER, Lane};
pub use self::tls::{Identity, TlsError, TlsMaterial};

/// How connections are protected.
#[derive(Clone, Debug)]
pub enum Security {
    /// Plain text, and therefore on 127.0.0.0/8 and ::1 only.
    Loopback,
    /// Mutual TLS.
    Tls(TlsMaterial),
}

/// What a transport is started with.
#[derive(Clone, Debug)]
pub struct Options {
    pub me: NodeId,
    /// Port 0 takes a free one: see [`Handle::local_addr`].
    pub listen: SocketAddr,
    /// Where the others listen; an entry for `me` is passed over.
    pub peers: BTreeMap<NodeId, SocketAddr>,
    pub cluster: String,
    pub security: Security,
    /// Serial numbers of certificates that count no more: known before anybody is listened to.
    pub revoked: Vec<String>,
}

/// What is told about peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// A message arrived. Under TLS its sender is proven by a certificate.
    Message { from: NodeId, bytes: Vec<u8> },
    /// The connection broke and another is refused: the peer's process has ended, though its machine runs. Told once for each connection.
    Ended(NodeId),
}

/// Takes it on the transport's thread and must not block: false when its queue is full, and a message is dropped and counted.
pub type InboundFn = Box<dyn Fn(Inbound) -> bool + Send + Sync>;

/// Why a transport does not start, or does not take new settings.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error(
        "address {address} of {what} is beyond loopback, and there are no certificates: run `hotwarm join` to install them, or use 127.0.0.1"
    )]
    BeyondLoopback { what: String, address: SocketAddr },
    #[error("no listener for nodes at {address} ({source}): free the port, or correct the address in [cluster] nodes")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("no thread for the transport ({0}): raise the limits on threads and open files")]
    Thread(io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    #[error("receiver that is no peer of this node")]
    NoPeer,
    #[error("message over {MAX_BODY} bytes: send it in parts")]
    TooLong,
    #[error("full bulk lane: send it again later")]
    Full,
}

/// What one lane to one peer has done. Counters only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneStats {
    pub connected: bool,
    /// Why it is not connected, for people.
    pub problem: Option<String>,
    pub connects: u64,
    pub queued_messages: usize,
    pub queued_bytes: usize,
    pub sent_messages: u64,
    pub sent_bytes: u64,
    pub dropped_full: u64,
    pub dropped_old: u64,
    /// Written to a connection that broke: they may have arrived or not.
    pub uncertain: u64,
}

/// What the transport has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub lanes: BTreeMap<(NodeId, Lane), LaneStats>,
    pub received_messages: u64,
    pub received_bytes: u64,
    /// Arrived and dropped, since the inbound callback said full.
    pub inbound_dropped: u64,
    /// Connections refused before their sender was accepted.
    pub refused: u64,
    /// Accepted connections closed for what they sent, or for a revoked certificate.
    pub bad_connections: u64,
}

#[derive(Debug, Default)]
struct Counters {
    received_messages: AtomicU64,
    received_bytes: AtomicU64,
    inbound_dropped: AtomicU64,
    refused: AtomicU64,
    bad_connections: AtomicU64,
}

fn normal_serials(serials: impl IntoIterator<Item = impl AsRef<str>>) -> BTreeSet<String> {
    serials.into_iter().map(|serial| normal_serial(serial.as_ref())).collect()
}

/// Numbers that grow when connections must look again.
#[derive(Clone, Copy, Debug, Default)]
struct Generation {
    tls: u64,
    revoked: u64,
    removed: u64,
}

/// One lane to one peer.
#[derive(Debug)]
struct Channel {
    peer: NodeId,
    address: SocketAddr,
    queue: Queue,
}

impl Channel {
    /// Keeps the reason there is no connection; true when it is another than before.
    fn note_problem(&self, problem: Option<&str>) -> bool {
        let mut noted = self.queue.problem.lock().unwrap_or_else(PoisonError::into_inner);
        let new = noted.as_deref() != problem;
        *noted = problem.map(str::to_owned);
        new
    }
}

#[derive(Debug)]
struct Peer {
    messages: Arc<Channel>,
    bulk: Arc<Channel>,
    tasks: [AbortHandle; 2],
}

/// What the tasks and the handle have in common.
struct Shared {
    me: NodeId,
    cluster: String,
    /// `None` on loopback without TLS.
    tls: ArcSwapOption<Tls>,
    revoked: ArcSwap<BTreeSet<String>>,
    changes: watch::Sender<Generation>,
    peers: ArcSwap<BTreeMap<NodeId, Arc<Peer>>>,
    /// Were peers and are not: their certificates are still valid, and count no more. A name that nobody has told of is let in, for this
    /// node may only be behind: whoever joins is known to others first, and what it may ask for is the core's to judge.
    removed: ArcSwap<BTreeSet<NodeId>>,
    /// The last second, since 1970, of the certificate that each node showed last.
    certificates: Mutex<BTreeMap<NodeId, i64>>,
    accepted: accept::Accepted,
    complaints: accept::Complaints,
    counters: Counters,
    inbound: InboundFn,
}

impl Shared {
    fn tls(&self) -> Option<Arc<Tls>> {
        self.tls.load_full()
    }

    fn deliver(&self, from: &NodeId, bytes: Vec<u8>) {
        self.counters.received_messages.fetch_add(1, Ordering::Relaxed);
        self.counters.received_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if !(self.inbound)(Inbound::Message { from: from.clone(), bytes }) {
            self.counters.inbound_dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Keeps until when the certificate of a node is valid, which has just shown it.
    fn note_certificate(&self, peer: &NodeId, connection: &Connection) {
        if let Some(identity) = &connection.identity {
            let mut all = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
            let peers = self.peers.load();
            all.retain(|name, _| peers.contains_key(name));
            all.insert(peer.clone(), identity.not_after_s);
        }
    }

    /// Is `peer` still one whose messages count, and its certificate one that is accepted?
    fn still_trusted(&self, connection: &Connection, peer: &NodeId) -> Result<(), ConnectionError> {
        if self.removed.load().contains(peer) {
            return Err(ConnectionError::Removed(peer.clone()));
        }
        connection.identity.as_ref().map_or(Ok(()), |identity| identity.check_revoked(&self.revoked.load())).map_err(Into::into)
    }

    /// Ends the dialer's wait for this peer.
    fn dial_now(&self, peer: &NodeId) {
        if let Some(peer) = self.peers.load().get(peer) {
            for channel in [&peer.messages, &peer.bulk] {
                if !channel.queue.counters.connected.load(Ordering::Relaxed) {
                    channel.queue.dial_now.notify_one();
                }
            }
        }
    }
}

/// Starts transports.
#[derive(Debug)]
pub struct Transport;

/// A running transport; the last one dropped stops it. Every method returns at once.
#[derive(Clone)]
pub struct Handle(Arc<Running>);

struct Running {
    shared: Arc<Shared>,
    runtime: tokio::runtime::Handle,
    local_addr: SocketAddr,
    stop: Arc<Notify>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// One change of the peers at a time.
    changing: Mutex<()>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("me", &self.0.shared.me).field("local_addr", &self.0.local_addr).finish_non_exhaustive()
    }
}

impl Transport {
    /// Listens, starts the thread, and begins to dial the peers.
    ///
    /// # Errors
    /// When an address is beyond loopback without TLS, the port is taken, or the TLS material does not fit.
    pub fn start(options: Options, inbound: InboundFn) -> Result<Handle, TransportError> {
        let Options { me, listen, peers, cluster, security, revoked } = options;
        let tls = match &security {
            Security::Loopback => {
                loopback_only("this node", listen)?;
                None
            }
            Security::Tls(material) => Some(Arc::new(Tls::load(material, &cluster, &me)?)),
        };
        if tls.as_ref().is_some_and(|tls| tls.out_of_date) {
            error!(
                "certificate of this node is not valid now, no other node accepts it: renew it with `hotwarm certs renew`, and check the clock"
            );
        }
        let failed = |source| TransportError::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let local_addr = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(Shared {
            me,
            cluster,
            tls: ArcSwapOption::new(tls),
            revoked: ArcSwap::from_pointee(normal_serials(revoked)),
            changes: watch::Sender::new(Generation::default()),
            peers: ArcSwap::default(),
            removed: ArcSwap::default(),
            certificates: Mutex::default(),
            accepted: accept::Accepted::default(),
            complaints: accept::Complaints::default(),
            counters: Counters::default(),
            inbound,
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(TransportError::Thread)?;
        let (stop, for_tasks) = (Arc::new(Notify::new()), Arc::clone(&shared));
        let (stopped, handle) = (Arc::clone(&stop), runtime.handle().clone());
        let run = move || {
            runtime.block_on(async move {
                match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => drop(tokio::spawn(accept::accept_all(for_tasks, listener))),
                    Err(e) => error!("no connections are accepted, restart this node: {e}"),
                }
                stopped.notified().await;
            });
        };
        let thread = std::thread::Builder::new().name("transport".into()).spawn(run).map_err(TransportError::Thread)?;
        let thread = Mutex::new(Some(thread));
        let handle = Handle(Arc::new(Running { shared, runtime: handle, local_addr, stop, thread, changing: Mutex::new(()) }));
        handle.tell_if_revoked();
        handle.set_peers(&peers)?;
        Ok(handle)
    }
}

fn loopback_only(what: &str, address: SocketAddr) -> Result<(), TransportError> {
    if address.ip().is_loopback() { Ok(()) } else { Err(TransportError::BeyondLoopback { what: what.to_owned(), address }) }
}

impl Handle {
    /// Queues a message for a peer and returns at once. Whether it arrives is not promised; a full queue of small messages drops its
    /// oldest for this one.
    ///
    /// # Errors
    /// When it is not even queued.
    pub fn send(&self, to: &NodeId, bytes: Vec<u8>) -> Result<(), NotSent> {
        if bytes.len() > MAX_BODY {
            return Err(NotSent::TooLong);
        }
        let peers = self.0.shared.peers.load();
        let peer = peers.get(to).ok_or(NotSent::NoPeer)?;
        let channel = if bytes.len() > BULK_OVER { &peer.bulk } else { &peer.messages };
        if channel.queue.push(bytes) { Ok(()) } else { Err(NotSent::Full) }
    }

    /// Takes a new list of peers: what is unchanged keeps its connections, what is gone is cut both ways, its queue forgotten, and it is
    /// refused from now on.
    ///
    /// # Errors
    /// When an address is beyond loopback without TLS; nothing changes then.
    pub fn set_peers(&self, wanted: &BTreeMap<NodeId, SocketAddr>) -> Result<(), TransportError> {
        let shared = &self.0.shared;
        if shared.tls.load().is_none() {
            wanted.iter().try_for_each(|(peer, address)| loopback_only(&format!("node {peer}"), *address))?;
        }
        let _one_at_a_time = self.0.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let current = shared.peers.load_full();
        let mut next = BTreeMap::new();
        for (name, address) in wanted.iter().filter(|(name, _)| **name != shared.me) {
            let kept = current.get(name).filter(|peer| peer.messages.address == *address).cloned();
            next.insert(name.clone(), kept.unwrap_or_else(|| Arc::new(self.new_peer(name, *address))));
        }
        let next = Arc::new(next);
        let mut removed = BTreeSet::clone(&shared.removed.load());
        removed.extend(current.keys().cloned());
        removed.retain(|name| !wanted.contains_key(name));
        shared.removed.store(Arc::new(removed));
        shared.peers.store(Arc::clone(&next));
        shared.changes.send_modify(|generation| generation.removed += 1);
        for (name, peer) in current.iter() {
            if !next.get(name).is_some_and(|kept| Arc::ptr_eq(kept, peer)) {
                peer.tasks.iter().for_each(AbortHandle::abort);
            }
        }
        Ok(())
    }

    fn new_peer(&self, name: &NodeId, address: SocketAddr) -> Peer {
        let channel = |lane| Arc::new(Channel { peer: name.clone(), address, queue: Queue::new(lane, Bounds::of(lane)) });
        let (messages, bulk) = (channel(Lane::Messages), channel(Lane::Bulk));
        let dial = |channel: &Arc<Channel>| {
            // Jitter needs no more than to differ between processes, peers and lanes.
            let text = format!("{}{name}{}{}", self.0.shared.me, channel.queue.lane, std::process::id());
            let seed = u64::from(crc32c::crc32c(text.as_bytes()));
            let task = dial::keep_connected(Arc::clone(&self.0.shared), Arc::clone(channel), seed);
            self.0.runtime.spawn(task).abort_handle()
        };
        let tasks = [dial(&messages), dial(&bulk)];
        Peer { messages, bulk, tasks }
    }

    /// Takes new TLS material. New connections use it at once; each standing one is replaced by one made with it, and kept if that fails.
    ///
    /// # Errors
    /// When the material does not fit or has expired; the old stays in use then.
    pub fn reload_tls(&self, material: &TlsMaterial) -> Result<(), TransportError> {
        let shared = &self.0.shared;
        if shared.tls.load().is_none() {
            return Err(TlsError::NotTls.into());
        }
        let tls = Tls::load(material, &shared.cluster, &shared.me)?;
        if tls.out_of_date {
            return Err(TlsError::OutOfDate { name: tls.own.to_string() }.into());
        }
        shared.tls.store(Some(Arc::new(tls)));
        shared.changes.send_modify(|generation| generation.tls += 1);
        Ok(())
    }

    /// Replaces the list of revoked certificates (serial numbers in hexadecimal). Standing connections of a revoked one end at once.
    pub fn set_revoked(&self, serials: impl IntoIterator<Item = impl AsRef<str>>) {
        self.0.shared.revoked.store(Arc::new(normal_serials(serials)));
        self.0.shared.changes.send_modify(|generation| generation.revoked += 1);
    }

    /// Says so if this node's own list names this node's own certificate; true then.
    pub fn tell_if_revoked(&self) -> bool {
        let shared = &self.0.shared;
        let Some(revoked) = shared.tls().and_then(|tls| tls.own.check_revoked(&shared.revoked.load()).err()) else { return false };
        error!(code = %Code::CERTIFICATE, "this node's own {revoked}; nodes with the same list refuse this node");
        true
    }

    /// Is there a connection that takes messages for this peer?
    #[must_use]
    pub fn is_connected(&self, to: &NodeId) -> bool {
        self.0.shared.peers.load().get(to).is_some_and(|peer| peer.messages.queue.counters.connected.load(Ordering::Relaxed))
    }

    /// Who this node's own certificate says it is, and until when; `None` without TLS.
    #[must_use]
    pub fn own_identity(&self) -> Option<Identity> {
        self.0.shared.tls().map(|tls| tls.own.clone())
    }

    /// TLS for the operator's API, with this node's certificate as last loaded; `None` without TLS.
    #[must_use]
    pub fn api_tls(&self) -> Option<Arc<rustls::ServerConfig>> {
        self.0.shared.tls().map(|tls| Arc::clone(&tls.api))
    }

    /// The last second, since 1970, of each peer's certificate, as it showed it last; nothing without TLS.
    #[must_use]
    pub fn certificates(&self) -> BTreeMap<NodeId, i64> {
        let shared = &self.0.shared;
        let (all, peers) = (shared.certificates.lock().unwrap_or_else(PoisonError::into_inner), shared.peers.load());
        all.iter().filter(|(name, _)| peers.contains_key(*name)).map(|(name, last)| (name.clone(), *last)).collect()
    }

    /// Peers that refuse this node, for it was removed from the cluster as they know it.
    #[must_use]
    pub fn removed_by(&self) -> Vec<NodeId> {
        let said = format!("node {} {}", self.0.shared.me, connection::REMOVED);
        let refuses = |peer: &&Arc<Peer>| {
            let problem = peer.messages.queue.problem.lock().unwrap_or_else(PoisonError::into_inner);
            problem.as_ref().is_some_and(|problem| problem.contains(&said))
        };
        self.0.shared.peers.load().values().filter(refuses).map(|peer| peer.messages.peer.clone()).collect()
    }

    /// The address it listens on, with the port it was given.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local_addr
    }

    /// What every lane has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let (shared, get) = (&self.0.shared, |counter: &AtomicU64| counter.load(Ordering::Relaxed));
        let peers = shared.peers.load();
        let channels = peers.values().flat_map(|peer| [&peer.messages, &peer.bulk]);
        Stats {
            lanes: channels.map(|channel| ((channel.peer.clone(), channel.queue.lane), lane_stats(&channel.queue))).collect(),
            received_messages: get(&shared.counters.received_messages),
            received_bytes: get(&shared.counters.received_bytes),
            inbound_dropped: get(&shared.counters.inbound_dropped),
            refused: get(&shared.counters.refused),
            bad_connections: get(&shared.counters.bad_connections),
        }
    }

    /// Stops and waits until the thread has ended; what is queued is not sent. Afterwards `send` queues for nobody.
    pub fn stop(&self) {
        self.0.stop();
    }
}

fn lane_stats(queue: &Queue) -> LaneStats {
    let (counters, get) = (&queue.counters, |counter: &AtomicU64| counter.load(Ordering::Relaxed));
    let (queued_messages, queued_bytes) = queue.depth();
    LaneStats {
        connected: counters.connected.load(Ordering::Relaxed),
        problem: queue.problem.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        connects: get(&counters.connects),
        queued_messages,
        queued_bytes,
        sent_messages: get(&counters.sent_messages),
        sent_bytes: get(&counters.sent_bytes),
        dropped_full: get(&counters.dropped_full),
        dropped_old: get(&counters.dropped_old),
        uncertain: get(&counters.uncertain),
    }
}

impl Running {
    fn stop(&self) {
        self.stop.notify_one();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The inbound callback may hold the last handle: the thread cannot wait for itself.
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id())
            && thread.join().is_err()
        {
            error!("transport thread panicked");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}
