//! The sending side: one task per peer and lane keeps a connection and empties the lane's queue into it.
//!
//! Must never keep a sender waiting, nor hammer a peer that is away. The main path enters at [`keep_connected`].

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hotwarm_core::rng::Rng;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::connection::{Connection, ConnectionError};
use super::lane::Lane;
use super::{Channel, Inbound, Shared};

/// First wait after a failure, and the longest.
pub(super) const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_CAP: Duration = Duration::from_secs(1);
/// A connection that lived this long was a good one: the next failure starts from the first wait again.
const GOOD_AFTER: Duration = Duration::from_secs(1);
/// A write buffer that grew over this is given back.
const KEEP_BUFFER: usize = 1024 * 1024;

/// Waits that double up to a cap, each off by up to a half either way so that peers do not move in step.
struct Backoff {
    wait: Duration,
    rng: Rng,
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let wait = self.wait;
        self.wait = (wait * 2).min(RETRY_CAP);
        let us = wait.as_micros() as u64;
        Duration::from_micros(self.rng.between(us / 2, us + us / 2)).min(RETRY_CAP)
    }
}

/// Keeps the channel connected until the task is aborted. The bulk lane connects when it first has something to send.
pub(super) async fn keep_connected(shared: Arc<Shared>, channel: Arc<Channel>, seed: u64) {
    let mut backoff = Backoff { wait: RETRY_FIRST, rng: Rng::new(seed) };
    let queue = &channel.queue;
    let mut lost = false;
    loop {
        while queue.lane == Lane::Bulk && queue.depth().0 == 0 {
            queue.ready.notified().await;
        }
        let problem = match Connection::connect(&shared, &channel).await {
            Err(problem) => {
                // Told again of no connection: whoever asks for it too early only costs others their sleep.
                if queue.lane == Lane::Messages && problem.is_refusal() && std::mem::take(&mut lost) {
                    let _it_will_be_found_silent = (shared.inbound)(Inbound::Ended(channel.peer.clone()));
                }
                problem
            }
            Ok(connection) => {
                let since = Instant::now();
                shared.note_certificate(&channel.peer, &connection);
                info!(peer = %channel.peer, lane = %queue.lane, "connected");
                channel.note_problem(None);
                queue.counters.connected.store(true, Ordering::Relaxed);
                queue.counters.connects.fetch_add(1, Ordering::Relaxed);
                let problem = carry(&shared, &channel, connection).await;
                queue.counters.connected.store(false, Ordering::Relaxed);
                if since.elapsed() >= GOOD_AFTER {
                    backoff.wait = RETRY_FIRST;
                }
                lost = true;
                problem
            }
        };
        let text = problem.to_string();
        // The same trouble again and again is one line in the log.
        if channel.note_problem(Some(&text)) {
            warn!(peer = %channel.peer, lane = %queue.lane, "not connected: {text}");
        } else {
            debug!(peer = %channel.peer, lane = %queue.lane, "still not connected: {text}");
        }
        tokio::select! {
            () = sleep(backoff.next()) => {}
            () = async { queue.dial_now.notified().await; sleep(RETRY_FIRST / 2).await } => {}
        }
    }
}

type Redial = oneshot::Receiver<Result<Connection, ConnectionError>>;

/// Empties the queue into the connection until it breaks; returns why it did. New certificates are taken up by a second connection
/// that replaces this one once it stands, so that no message is lost to a renewal.
async fn carry(shared: &Arc<Shared>, channel: &Arc<Channel>, mut connection: Connection) -> ConnectionError {
    let (queue, mut changes) = (&channel.queue, shared.changes.subscribe());
    let mut tls_generation = changes.borrow_and_update().tls;
    let mut redial: Option<Redial> = None;
    let mut buffer = Vec::new();
    loop {
        if changes.has_changed().unwrap_or(false) {
            let now = *changes.borrow_and_update();
            if let Err(revoked) = shared.still_trusted(&connection, &channel.peer) {
                return revoked;
            }
            if now.tls != tls_generation {
                tls_generation = now.tls;
                redial = Some(start_redial(shared, channel));
            }
        }
        if let Some(answer) = redial.as_mut().and_then(|redial| redial.try_recv().ok()) {
            redial = None;
            match answer {
                Ok(fresh) => {
                    shared.note_certificate(&channel.peer, &fresh);
                    queue.counters.connects.fetch_add(1, Ordering::Relaxed);
                    connection = fresh;
                }
                Err(e) => warn!(peer = %channel.peer, "connection made with the older certificate is kept: {e}"),
            }
        }
        buffer.clear();
        let messages = queue.drain(&mut buffer);
        if messages > 0 {
            if let Err(e) = connection.write(&buffer).await {
                queue.counters.uncertain.fetch_add(messages, Ordering::Relaxed);
                return e;
            }
            queue.counters.sent_messages.fetch_add(messages, Ordering::Relaxed);
            queue.counters.sent_bytes.fetch_add(buffer.len() as u64, Ordering::Relaxed);
            if buffer.capacity() > KEEP_BUFFER {
                buffer = Vec::new();
            }
            continue;
        }
        tokio::select! {
            () = queue.ready.notified() => {}
            _ = changes.changed() => changes.mark_changed(),
            frame = connection.receive() => return match frame {
                Ok((kind, _)) => ConnectionError::Unexpected(kind),
                Err(e) => e,
            },
        }
    }
}

fn start_redial(shared: &Arc<Shared>, channel: &Arc<Channel>) -> Redial {
    let (tell, redial) = oneshot::channel();
    let (shared, channel) = (Arc::clone(shared), Arc::clone(channel));
    tokio::spawn(async move {
        let _carry_may_have_ended = tell.send(Connection::connect(&shared, &channel).await);
        channel.queue.ready.notify_one();
    });
    redial
}
