//! The receiving side: accepts, checks who is there, and hands each message to the inbound callback.
//!
//! Must never deliver a byte of a connection whose sender is not known, nor hold more than a bounded number of connections. The main
//! path enters at [`accept_all`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hotwarm_core::ids::NodeId;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::Shared;
use super::connection::{Connection, ConnectionError, GREET_WITHIN};
use super::frame::Kind;
use super::lane::Lane;

/// Connections whose sender is not known yet, from addresses of no peer.
const STRANGERS_AT_ONCE: usize = 64;
/// Of them, from one address: nobody takes all places.
const STRANGERS_OF_ADDRESS: usize = 16;
/// The same from an address of a peer: two lanes of each node there, and what is being replaced.
const GREETING_OF_PEER: usize = 64;
/// Connections in all.
const CONNECTIONS: usize = 1024;
/// Connections of one peer and lane: one that works, and some that are being replaced or have not been noticed to be dead.
const CONNECTIONS_PER_LANE: usize = 4;
/// After an error of accept itself (no more file descriptors): do not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Strangers fill the log no faster than one line in this time.
const COMPLAIN_EVERY: Duration = Duration::from_secs(1);

/// The accepted connections by sender and lane, oldest first, and how to end each.
#[derive(Debug, Default)]
pub(super) struct Accepted {
    next: AtomicU64,
    open: Mutex<BTreeMap<(NodeId, Lane), Vec<Open>>>,
}

/// One accepted connection: its number, and what ends it.
type Open = (u64, Arc<Notify>);

impl Accepted {
    /// Enters a connection; the oldest of the same sender and lane gives way when there are too many.
    fn enter(&self, from: &NodeId, lane: Lane) -> Open {
        let (id, end) = (self.next.fetch_add(1, Ordering::Relaxed), Arc::new(Notify::new()));
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = open.entry((from.clone(), lane)).or_default();
        of_peer.push((id, Arc::clone(&end)));
        if of_peer.len() > CONNECTIONS_PER_LANE {
            of_peer.remove(0).1.notify_one();
        }
        (id, end)
    }

    fn leave(&self, from: &NodeId, lane: Lane, id: u64) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (from.clone(), lane);
        if let Some(of_peer) = open.get_mut(&key) {
            of_peer.retain(|(other, _)| *other != id);
            if of_peer.is_empty() {
                open.remove(&key);
            }
        }
    }
}

/// Who is greeted now, by address. What strangers take, peers have not to do without.
#[derive(Debug, Default)]
struct Greeting(Mutex<BTreeMap<IpAddr, usize>>);

/// A place among those who are greeted; given back when dropped.
struct Turn {
    greeting: Arc<Greeting>,
    address: IpAddr,
}

impl Greeting {
    /// `None` when there are too many of its kind, or from its address.
    fn enter(self: &Arc<Self>, address: IpAddr, peers: &BTreeSet<IpAddr>) -> Option<Turn> {
        let address = address.to_canonical();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = all.get(&address).copied().unwrap_or(0);
        let room = if peers.contains(&address) {
            mine < GREETING_OF_PEER
        } else {
            let strangers: usize = all.iter().filter(|(from, _)| !peers.contains(from)).map(|(_, count)| count).sum();
            mine < STRANGERS_OF_ADDRESS && strangers < STRANGERS_AT_ONCE
        };
        room.then(|| {
            all.insert(address, mine + 1);
            Turn { greeting: Arc::clone(self), address }
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut all = self.greeting.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.address);
            }
        }
    }
}

/// Says at most one thing a second about connections that were refused.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    last: Mutex<Option<Instant>>,
    unsaid: AtomicU64,
}

impl Complaints {
    fn say(&self, from: &str, why: &str) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.elapsed() < COMPLAIN_EVERY) {
            self.unsaid.fetch_add(1, Ordering::Relaxed);
            debug!(from, "connection refused: {why}");
            return;
        }
        *last = Some(Instant::now());
        warn!(from, unsaid = self.unsaid.swap(0, Ordering::Relaxed), "connection refused: {why}");
    }
}

/// Accepts connections until the task is aborted.
pub(super) async fn accept_all(shared: Arc<Shared>, listener: TcpListener) {
    let (greeting, all) = (Arc::new(Greeting::default()), Arc::new(Semaphore::new(CONNECTIONS)));
    loop {
        let (socket, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                shared.complaints.say("", &format!("accept failed ({e}): raise the limit of open files if it is that"));
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let peers = shared.peers.load().values().map(|peer| peer.messages.address.ip().to_canonical()).collect();
        let (Ok(place), Some(turn)) = (Arc::clone(&all).try_acquire_owned(), greeting.enter(from.ip(), &peers)) else {
            shared.counters.refused.fetch_add(1, Ordering::Relaxed);
            shared.complaints.say(&from.to_string(), "too many connections at once");
            continue;
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let greeted = timeout(GREET_WITHIN, greet(&shared, socket)).await.unwrap_or(Err(ConnectionError::GreetTimeout));
            drop(turn);
            match greeted {
                Ok((connection, sender, lane)) => serve(&shared, connection, &sender, lane).await,
                Err(e) => {
                    shared.counters.refused.fetch_add(1, Ordering::Relaxed);
                    shared.complaints.say(&from.to_string(), &e.to_string());
                }
            }
            drop(place);
        });
    }
}

/// Finds out who is there, and tells a dialer that is refused why.
async fn greet(shared: &Shared, socket: TcpStream) -> Result<(Connection, NodeId, Lane), ConnectionError> {
    let mut connection = Connection::accept(shared, socket).await?;
    match connection.hello(shared).await {
        Ok(hello) => {
            connection.send(Kind::Welcome, &[]).await?;
            Ok((connection, hello.from, hello.lane))
        }
        Err(e) => {
            connection.refuse(&e.to_string()).await;
            Err(e)
        }
    }
}

/// Delivers what arrives until the connection ends.
async fn serve(shared: &Arc<Shared>, mut connection: Connection, from: &NodeId, lane: Lane) {
    let (id, end) = shared.accepted.enter(from, lane);
    info!(%from, %lane, "accepted");
    shared.note_certificate(from, &connection);
    // It has just shown that it lives: no need to sit out a wait before dialing it.
    shared.dial_now(from);
    let why = deliver(shared, &mut connection, from, &end).await;
    shared.accepted.leave(from, lane, id);
    match why {
        ConnectionError::Closed | ConnectionError::Broken(_) | ConnectionError::Replaced => {
            debug!(%from, %lane, "connection ended: {why}");
        }
        _ => {
            shared.counters.bad_connections.fetch_add(1, Ordering::Relaxed);
            warn!(%from, %lane, "connection closed: {why}");
            connection.refuse(&why.to_string()).await;
        }
    }
}

async fn deliver(shared: &Arc<Shared>, connection: &mut Connection, from: &NodeId, end: &Notify) -> ConnectionError {
    let mut changes = shared.changes.subscribe();
    if let Err(refused) = shared.still_trusted(connection, from) {
        return refused;
    }
    loop {
        let frame = tokio::select! {
            frame = connection.receive() => frame,
            () = end.notified() => return ConnectionError::Replaced,
            _ = changes.changed() => match shared.still_trusted(connection, from) {
                Ok(()) => continue,
                Err(refused) => return refused,
            },
        };
        match frame {
            Ok((Kind::Message, bytes)) => shared.deliver(from, bytes),
            Ok((kind, _)) => return ConnectionError::Unexpected(kind),
            Err(e) => return e,
        }
    }
}
