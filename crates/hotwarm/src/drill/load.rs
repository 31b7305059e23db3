//! Steady load from a client's side: each request at its own moment, whether or not those before it were answered (open loop), so that
//! an outage is seen in full and not hidden by clients that wait.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::JoinSet;

use super::question::{Answer, Demand, Miss, Question, ask};

/// A request that was not answered by then has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests that a load keeps the results of, at most: a drill of more is not begun.
pub(super) const KEPT_MAX: usize = 1_000_000;

/// Where nothing bounds this process but the kernel.
const OPEN_FILES: u64 = 1 << 20;

/// Each request under way holds an open file: allows as many as this process may have.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.or(Some(OPEN_FILES));
    if limit.current.is_some_and(|current| most.is_some_and(|most| current < most)) {
        // Without it the drill may end early, and says so.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: most, ..limit });
    }
}

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
    /// What shows that a member answered, or why nothing does.
    pub outcome: Result<Answer, String>,
    /// Connections before this one were reset.
    pub again: bool,
}

impl Shot {
    #[must_use]
    pub const fn answered(&self) -> bool {
        self.outcome.is_ok()
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
    /// Those that found no member at once, and connected again.
    pub again: usize,
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
    question: Question,
    demand: Arc<Demand>,
    stop: Arc<AtomicU8>,
    shots: Arc<Mutex<Vec<Shot>>>,
    own: Arc<OnceLock<String>>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    /// Begins to ask `GET /` of `addresses` in turn, `rate` times a second.
    ///
    /// # Errors
    /// No thread or runtime can be made.
    pub fn start(addresses: Vec<SocketAddr>, rate: u32) -> std::io::Result<Self> {
        Self::asking(Question::root(), addresses, rate)
    }

    /// The same with another question.
    ///
    /// # Errors
    /// No thread or runtime can be made.
    pub fn asking(question: Question, addresses: Vec<SocketAddr>, rate: u32) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, shots, demand) = (Arc::new(AtomicU8::new(RUN)), Arc::new(Mutex::new(Vec::new())), Arc::new(Demand::default()));
        let own = Arc::default();
        let every = Duration::from_secs(1) / rate.max(1);
        let range = Range { question: question.clone(), addresses, every, own: Arc::clone(&own) };
        let (stopped, kept, demanded) = (Arc::clone(&stop), Arc::clone(&shots), Arc::clone(&demand));
        let work = move || runtime.block_on(fire(&Arc::new(range), &stopped, &kept, &demanded));
        let thread = std::thread::Builder::new().name("load".into()).spawn(work)?;
        Ok(Self { question, demand, stop, shots, own, thread: Some(thread) })
    }

    /// From now on asks for what every answer so far has shown; false if there was none.
    pub fn calibrate(&self) -> bool {
        let shots = self.shots.lock().unwrap_or_else(PoisonError::into_inner);
        let weakest = shots.iter().filter_map(|shot| shot.outcome.as_ref().ok()).min();
        weakest.inspect(|answer| self.demand.raise(**answer)).is_some()
    }

    /// What is taken as an answer, for people.
    #[must_use]
    pub fn evidence(&self) -> String {
        self.question.evidence(&self.demand)
    }

    /// True if what the routers count of connections that wait is not what this load's clients met: [`Seen::again`] is.
    #[must_use]
    pub fn connects_again(&self) -> bool {
        self.question.connects_again(&self.demand)
    }

    /// Why this load has ended by itself: it could not ask, and what it saw until then says nothing of what came after.
    #[must_use]
    pub fn own_failure(&self) -> Option<&str> {
        self.own.get().map(String::as_str)
    }

    /// What clients saw of requests due from `from` to `to`.
    #[must_use]
    pub fn seen(&self, from: Instant, to: Instant) -> Seen {
        let shots = self.shots.lock().unwrap_or_else(PoisonError::into_inner);
        summary(shots.iter().filter(|shot| shot.at >= from && shot.at <= to), from)
    }

    /// How many requests were answered, of those due since `moment`.
    #[must_use]
    pub fn answered_since(&self, moment: Instant) -> usize {
        let shots = self.shots.lock().unwrap_or_else(PoisonError::into_inner);
        shots.iter().filter(|shot| shot.at >= moment && shot.answered()).count()
    }

    /// Sends no more, waits until every request is decided (each is within ten seconds), and tells all of them.
    #[must_use]
    pub fn finish(mut self) -> Vec<Shot> {
        self.settle();
        std::mem::take(&mut *self.shots.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Load {
    /// Sends no more; what is under way goes on.
    pub fn stop(&self) {
        self.stop.store(FINISH, Ordering::Relaxed);
    }

    /// The same, and waits until every request is decided.
    pub fn settle(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            // See `drop`.
            let _ = thread.join();
        }
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

/// What is asked, of whom, and how often.
struct Range {
    question: Question,
    addresses: Vec<SocketAddr>,
    every: Duration,
    own: Arc<OnceLock<String>>,
}

async fn fire(range: &Arc<Range>, stop: &AtomicU8, shots: &Arc<Mutex<Vec<Shot>>>, demand: &Arc<Demand>) {
    let mut due = Instant::now();
    let mut turn = 0;
    let mut flying = JoinSet::new();
    while stop.load(Ordering::Relaxed) == RUN && range.own.get().is_none() {
        tokio::time::sleep_until(due.into()).await;
        while flying.try_join_next().is_some() {}
        let Some(to) = range.addresses.get(turn % range.addresses.len().max(1)).copied() else { return };
        turn += 1;
        let (at, shots, range, demand) = (due, Arc::clone(shots), Arc::clone(range), Arc::clone(demand));
        due += range.every;
        flying.spawn(async move {
            let told = tokio::time::timeout(PATIENCE, ask(&range.question, to, &demand)).await;
            let shot = match told.unwrap_or_else(|_| Err(Miss::Client(format!("no answer within {} s", PATIENCE.as_secs())))) {
                Ok(reply) => {
                    let took = reply.at.saturating_duration_since(at);
                    Shot { to, at, took, outcome: Ok(reply.answer), again: reply.again }
                }
                Err(Miss::Own(why)) => return drop(range.own.set(why)),
                Err(Miss::Client(why)) => Shot { to, at, took: at.elapsed(), outcome: Err(why), again: false },
            };
            let mut shots = shots.lock().unwrap_or_else(PoisonError::into_inner);
            if shots.len() < KEPT_MAX {
                shots.push(shot);
            }
        });
    }
    while stop.load(Ordering::Relaxed) == FINISH && flying.join_next().await.is_some() {}
}

fn summary<'a>(shots: impl Iterator<Item = &'a Shot>, from: Instant) -> Seen {
    let mut shots: Vec<&Shot> = shots.collect();
    shots.sort_by_key(|shot| shot.done_at());
    let mut seen = Seen { requests: shots.len(), ..Seen::default() };
    let mut last_answer = from;
    let last_due = shots.iter().map(|shot| shot.at).max().unwrap_or(from);
    for shot in shots {
        seen.slowest = seen.slowest.max(shot.took);
        seen.again += usize::from(shot.again);
        if let Err(why) = &shot.outcome {
            seen.failed += 1;
            seen.first_failure.get_or_insert_with(|| why.clone());
            continue;
        }
        let gap = shot.done_at().saturating_duration_since(last_answer);
        if gap > seen.outage {
            seen.outage = gap;
            seen.first_answer = Some(shot.done_at().saturating_duration_since(from));
        }
        last_answer = shot.done_at();
    }
    // One that is not over yet.
    let rest = last_due.saturating_duration_since(last_answer);
    if rest > seen.outage {
        (seen.outage, seen.first_answer) = (rest, None);
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shot(start: Instant, at_ms: u64, took_ms: u64, ok: bool) -> Shot {
        let outcome = if ok { Ok(Answer::Status(200)) } else { Err("refused".to_owned()) };
        Shot {
            to: SocketAddr::from(([127, 0, 0, 1], 1)),
            at: start + Duration::from_millis(at_ms),
            took: Duration::from_millis(took_ms),
            outcome,
            again: false,
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
    fn a_load_without_files_ends_and_counts_nothing_as_a_clients_failure() {
        // Connections are made, and nobody ever answers.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let load = Load::start(vec![listener.local_addr().unwrap()], 200).unwrap();
        let before = getrlimit(Resource::Nofile);
        let used = std::fs::read_dir("/proc/self/fd").unwrap();
        let highest = used.map(|fd| fd.unwrap().file_name().to_str().unwrap().parse::<u64>().unwrap()).max();
        setrlimit(Resource::Nofile, Rlimit { current: highest.map(|fd| fd + 4), ..before }).unwrap();
        let begun = Instant::now();
        while load.own_failure().is_none() && begun.elapsed() < PATIENCE / 2 {
            std::thread::yield_now();
        }
        raise_open_files();
        assert_eq!(getrlimit(Resource::Nofile).current, before.maximum);
        setrlimit(Resource::Nofile, before).unwrap();
        let seen = load.seen(begun - PATIENCE, Instant::now());
        assert_eq!((seen.failed, seen.first_failure), (0, None));
        assert!(load.own_failure().is_some_and(|why| why.contains("open files")), "{:?}", load.own_failure());
    }

    #[test]
    fn an_outage_that_is_not_over_is_one() {
        let start = Instant::now();
        let seen = summary([shot(start, 0, 1, true), shot(start, 10, 5, false), shot(start, 700, 2, false)].iter(), start);
        assert_eq!((seen.requests, seen.failed, seen.first_failure.as_deref()), (3, 2, Some("refused")));
        assert_eq!((seen.outage, seen.first_answer), (Duration::from_millis(699), None));
    }
}
