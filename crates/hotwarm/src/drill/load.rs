//! Steady load from a client's side: each request at its own moment, whether or not those before it were answered (open loop), so that
//! an outage is seen in full and not hidden by clients that wait.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// A request that was not answered by then has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests that a load keeps the results of, at most.
const KEPT_MAX: usize = 200_000;
/// Bytes of a reply that are read, at most.
const REPLY_MAX: usize = 64 * 1024;

/// What a load is to do: go on, send no more and wait for the answers, or end at once.
const RUN: u8 = 0;
const FINISH: u8 = 1;
const END: u8 = 2;

/// One request and what became of it.
#[derive(Clone, Debug)]
pub struct Shot {
    /// Whom it was sent to.
    pub to: SocketAddr,
    /// When it was due.
    pub at: Instant,
    pub took: Duration,
    /// The status, or why there was none.
    pub outcome: Result<u16, String>,
}

impl Shot {
    #[must_use]
    pub fn answered(&self) -> bool {
        matches!(self.outcome, Ok(200..400))
    }

    fn done_at(&self) -> Instant {
        self.at + self.took
    }
}

/// What clients saw over a stretch of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub requests: usize,
    pub failed: usize,
    /// What the first failed one met.
    pub first_failure: Option<String>,
    /// The longest time in which no request that was due was answered.
    pub outage: Duration,
    pub slowest: Duration,
    /// From the start of the stretch to the first answer after the outage.
    pub first_answer: Option<Duration>,
}

/// A running load; it ends when this is dropped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicU8>,
    shots: Arc<Mutex<Vec<Shot>>>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Begins to ask `GET /` of `addresses` in turn, `rate` times a second.
    ///
    /// # Errors
    /// No thread or runtime can be made.
    pub fn start(addresses: Vec<SocketAddr>, rate: u32) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, shots) = (Arc::new(AtomicU8::new(RUN)), Arc::new(Mutex::new(Vec::new())));
        let (stopped, kept) = (Arc::clone(&stop), Arc::clone(&shots));
        let every = Duration::from_secs(1) / rate.max(1);
        let work = move || runtime.block_on(fire(&addresses, every, &stopped, &kept));
        let thread = std::thread::Builder::new().name("load".into()).spawn(work)?;
        Ok(Self { stop, shots, thread: Some(thread) })
    }

    /// What clients saw of requests due from `from` to `to`.
    #[must_use]
    pub fn seen(&self, from: Instant, to: Instant) -> Seen {
        let shots = self.shots.lock().unwrap_or_else(PoisonError::into_inner);
        summary(shots.iter().filter(|shot| shot.at >= from && shot.at <= to), from)
    }

    /// How many requests are not decided yet, of those due before `moment`.
    #[must_use]
    pub fn answered_since(&self, moment: Instant) -> usize {
        let shots = self.shots.lock().unwrap_or_else(PoisonError::into_inner);
        shots.iter().filter(|shot| shot.at >= moment && shot.answered()).count()
    }

    /// Sends no more, waits until every request is decided (each is within ten seconds), and tells all of them.
    #[must_use]
    pub fn finish(mut self) -> Vec<Shot> {
        self.stop.store(FINISH, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // See `drop`.
            let _ = thread.join();
        }
        std::mem::take(&mut *self.shots.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(END, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A load that panicked has said so; there is nothing to save.
            let _ = thread.join();
        }
    }
}

async fn fire(addresses: &[SocketAddr], every: Duration, stop: &AtomicU8, shots: &Arc<Mutex<Vec<Shot>>>) {
    let mut due = Instant::now();
    let mut turn = 0;
    let mut flying = JoinSet::new();
    while stop.load(Ordering::Relaxed) == RUN {
        tokio::time::sleep_until(due.into()).await;
        while flying.try_join_next().is_some() {}
        let Some(address) = addresses.get(turn % addresses.len().max(1)).copied() else { return };
        turn += 1;
        let (at, shots) = (due, Arc::clone(shots));
        due += every;
        flying.spawn(async move {
            let outcome = tokio::time::timeout(PATIENCE, ask(address)).await;
            let outcome = outcome.unwrap_or_else(|_| Err(format!("no answer within {} s", PATIENCE.as_secs())));
            let shot = Shot { to: address, at, took: at.elapsed(), outcome };
            let mut shots = shots.lock().unwrap_or_else(PoisonError::into_inner);
            if shots.len() < KEPT_MAX {
                shots.push(shot);
            }
        });
    }
    while stop.load(Ordering::Relaxed) == FINISH && flying.join_next().await.is_some() {}
}

async fn ask(address: SocketAddr) -> Result<u16, String> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| format!("no connection: {error}"))?;
    let request = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| format!("not sent: {error}"))?;
    let mut reply = Vec::new();
    let read = stream.take(REPLY_MAX as u64).read_to_end(&mut reply).await;
    read.map_err(|error| format!("connection broke: {error}"))?;
    let status = reply.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| digits.parse().ok());
    status.ok_or_else(|| "connection closed without a reply".to_owned())
}

fn summary<'a>(shots: impl Iterator<Item = &'a Shot>, from: Instant) -> Seen {
    let mut shots: Vec<&Shot> = shots.collect();
    shots.sort_by_key(|shot| shot.done_at());
    let mut seen = Seen { requests: shots.len(), ..Seen::default() };
    let mut last_answer = from;
    for shot in shots {
        seen.slowest = seen.slowest.max(shot.took);
        if let Err(why) = &shot.outcome {
            seen.failed += 1;
            seen.first_failure.get_or_insert_with(|| why.clone());
        } else if !shot.answered() {
            seen.failed += 1;
            seen.first_failure.get_or_insert_with(|| format!("status {}", shot.outcome.as_ref().copied().unwrap_or(0)));
        } else {
            let gap = shot.done_at().saturating_duration_since(last_answer);
            if gap > seen.outage {
                seen.outage = gap;
                seen.first_answer = Some(shot.done_at().saturating_duration_since(from));
            }
            last_answer = shot.done_at();
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shot(start: Instant, at_ms: u64, took_ms: u64, ok: bool) -> Shot {
        let outcome = if ok { Ok(200) } else { Err("refused".to_owned()) };
        Shot {
            to: SocketAddr::from(([127, 0, 0, 1], 1)),
            at: start + Duration::from_millis(at_ms),
            took: Duration::from_millis(took_ms),
            outcome,
        }
    }

    #[test]
    fn an_outage_is_the_longest_time_without_an_answer() {
        let start = Instant::now();
        let shots = [shot(start, 0, 1, true), shot(start, 10, 300, true), shot(start, 20, 290, true), shot(start, 320, 1, true)];
        let seen = summary(shots.iter(), start);
        assert_eq!((seen.outage, seen.failed, seen.slowest), (Duration::from_millis(309), 0, Duration::from_millis(300)));
        assert_eq!(seen.first_answer, Some(Duration::from_millis(310)));
    }

    #[test]
    fn errors_and_refusals_are_failures() {
        let start = Instant::now();
        let mut refused = shot(start, 5, 1, true);
        refused.outcome = Ok(503);
        let seen = summary([shot(start, 0, 1, false), refused].iter(), start);
        assert_eq!((seen.requests, seen.failed, seen.first_failure.as_deref()), (2, 2, Some("refused")));
    }
}
