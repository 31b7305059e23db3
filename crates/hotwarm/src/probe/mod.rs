//! Probes: asks a member whether it answers, and turns the results into a verdict by `hotwarm_core::detect`.
//!
//! A probe only testifies; it acts on nothing. It belongs to one incarnation of a member: whoever owns it drops it with the incarnation,
//! and with it every result that is under way (S4). A member that accepts and does not answer in time has failed. The main path:
//! [`spawn`] -> `Prober::run` -> [`once`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use hotwarm_core::detect::{HealthLimits, Hysteresis, LatencyTracker, Pace, Pacer, SelfHealth, Silence, Verdict as Judgement};
use hotwarm_core::ids::Mono;
use hotwarm_core::rng::Rng;
use hyper::Method;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::child::hook::{self, Hook, HookError};
use crate::config::{Check, CheckKind};
use crate::{clock, net};

pub mod http;

/// How long after its start a member is not called unready for not answering yet.
const START: Duration = Duration::from_secs(1);
/// Between probes while a member starts: its first answer is awaited.
const START_INTERVAL: Duration = Duration::from_millis(20);
/// Between two refused connections on this machine: nobody listens, and asking twice costs nothing.
const REFUSED_INTERVAL: Duration = Duration::from_millis(10);

/// What to ask, and whom.
#[derive(Clone, Debug)]
pub struct Spec {
    pub check: Check,
    pub address: SocketAddr,
    /// For a command probe: its whole environment and its user.
    pub env: Vec<(String, String)>,
    pub user: Option<String>,
    /// The member runs on this machine: a refused connection is a fact, not a lost packet.
    pub local: bool,
    /// Seed of the jitter: different for every prober.
    pub seed: u64,
}

/// A change of verdict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Ready,
    Unready(String),
}

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("connection refused")]
    Refused,
    #[error("connection not made: {0}")]
    Connect(io::Error),
    #[error("no answer within {} ms", .0.as_millis())]
    Silent(Duration),
    #[error("status {0}, which the check does not accept")]
    Status(u16),
    #[error("an answer without the text {0:?}")]
    Body(String),
    #[error(transparent)]
    Http(http::HttpError),
    #[error(transparent)]
    Command(#[from] HookError),
}

/// Steers the probes of one member, over all its incarnations. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Control(Arc<Steering>);

#[derive(Debug, Default)]
struct Steering {
    pace: AtomicU8,
    now: Notify,
}

impl Control {
    /// How much depends on this member now. Doubt of the probe's own goes over it.
    pub fn set_pace(&self, pace: Pace) {
        let code = match pace {
            Pace::Idle => 0,
            Pace::Steady => 1,
            Pace::Doubtful => 2,
        };
        if self.0.pace.swap(code, Ordering::Relaxed) < code {
            self.0.now.notify_one();
        }
    }

    /// Probe at once: something else speaks against it.
    pub fn probe_now(&self) {
        self.0.now.notify_one();
    }

    fn pace(&self) -> Pace {
        match self.0.pace.load(Ordering::Relaxed) {
            0 => Pace::Idle,
            1 => Pace::Steady,
            _ => Pace::Doubtful,
        }
    }
}

/// A member is not in doubt before it has been silent for so long, however quick it usually is.
const SILENT_AFTER: Duration = Duration::from_millis(150);

/// A running prober; it ends when this is dropped.
#[derive(Debug)]
pub struct Probe {
    verdict: watch::Receiver<Option<Verdict>>,
    task: JoinHandle<()>,
}

impl Probe {
    /// The next change of verdict; only the latest counts, a reader that is slow misses those between. Cancel-safe.
    pub async fn changed(&mut self) -> Verdict {
        loop {
            if self.verdict.changed().await.is_err() {
                // The task ends only with this value.
                std::future::pending::<()>().await;
            }
            if let Some(verdict) = self.verdict.borrow_and_update().clone() {
                return verdict;
            }
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts probing one incarnation of a member.
#[must_use]
pub fn spawn(spec: Spec, control: Control) -> Probe {
    let (sender, verdict) = watch::channel(None);
    let pacer = Pacer::new(spec.check.every, Rng::new(spec.seed));
    let hysteresis = Hysteresis::new(spec.check.fall, spec.check.rise);
    let prober = Prober {
        spec,
        control,
        pacer,
        hysteresis,
        verdict: sender,
        started: Instant::now(),
        refused: 0,
        latency: LatencyTracker::new(clock::now()),
        health: SelfHealth::new(HealthLimits::default()),
        silence: Silence::default(),
    };
    Probe { verdict, task: tokio::spawn(prober.run()) }
}

struct Prober {
    spec: Spec,
    control: Control,
    pacer: Pacer,
    hysteresis: Hysteresis,
    verdict: watch::Sender<Option<Verdict>>,
    started: Instant,
    /// Connections refused in a row.
    refused: u32,
    /// Of answers.
    latency: LatencyTracker,
    /// Of this prober's own timers: is it itself that is late?
    health: SelfHealth,
    silence: Silence,
}

impl Prober {
    async fn run(mut self) {
        sleep(self.pause(&Ok(()))).await;
        loop {
            let begun = clock::now();
            let limit = self.limit(begun);
            let result = once_within(&self.spec, limit).await;
            if self.missed(&result, begun.plus(limit)) {
                continue;
            }
            if result.is_ok() {
                self.latency.record(clock::now(), clock::now().since(begun));
            }
            self.judge(&result);
            let pause = self.pause(&result);
            let due = clock::now().plus(pause);
            tokio::select! {
                () = sleep(pause) => drop(self.health.woke(due, clock::now())),
                () = self.control.0.now.notified() => {}
            }
        }
    }

    /// How long an answer may take. The configured time is the upper bound: a member that always answers in a millisecond is in doubt
    /// long before that, and one that is slow under load is given three times what it usually takes; more while our own timers are late.
    fn limit(&self, now: Mono) -> Duration {
        let bound = self.spec.check.timeout;
        let usual = self.hysteresis.verdict() == Some(Judgement::Healthy) && !matches!(self.spec.check.kind, CheckKind::Command(_));
        if usual { self.health.patience(now, self.latency.limit(SILENT_AFTER), bound) } else { bound }
    }

    /// True if nothing was heard because this task ran too late to hear it: then it asks again.
    fn missed(&mut self, result: &Result<(), Failure>, due: Mono) -> bool {
        if !matches!(result, Err(Failure::Silent(_))) {
            self.silence.broken();
            return false;
        }
        let late = self.health.woke(due, clock::now());
        !self.silence.is_theirs(late)
    }

    fn judge(&mut self, result: &Result<(), Failure>) {
        self.refused = if matches!(result, Err(Failure::Refused)) { self.refused.saturating_add(1) } else { 0 };
        if result.is_err() && self.is_starting() {
            return;
        }
        let changed = if self.spec.local && self.refused >= 2 {
            self.hysteresis.settle(Judgement::Unhealthy)
        } else {
            self.hysteresis.observe(result.is_ok())
        };
        let verdict = changed.map(|judgement| match (judgement, result) {
            (Judgement::Healthy, _) | (Judgement::Unhealthy, Ok(())) => Verdict::Ready,
            (Judgement::Unhealthy, Err(failure)) => Verdict::Unready(failure.to_string()),
        });
        if verdict.is_some() {
            self.verdict.send_replace(verdict);
        }
    }

    fn is_starting(&self) -> bool {
        self.hysteresis.verdict().is_none() && self.started.elapsed() < START
    }

    fn pause(&mut self, result: &Result<(), Failure>) -> Duration {
        let every = self.spec.check.every;
        let now = clock::now();
        if self.is_starting() {
            // The pacer's jitter within the start's interval.
            let spread = self.pacer.next(now, Pace::Doubtful).since(now).as_micros() % START_INTERVAL.as_micros();
            return Duration::from_micros(u64::try_from(spread).unwrap_or(0)).max(Duration::from_millis(1)).min(every);
        }
        let fallen = self.hysteresis.verdict() == Some(Judgement::Unhealthy);
        if self.spec.local && !fallen && matches!(result, Err(Failure::Refused)) {
            return REFUSED_INTERVAL.min(every);
        }
        let pace = if self.hysteresis.in_doubt() || fallen { Pace::Doubtful } else { self.control.pace() };
        self.pacer.next(now, pace).since(now)
    }
}

/// Asks once, within the check's time limit: whether a member is there that no probe follows yet.
pub async fn once(spec: &Spec) -> Result<(), Failure> {
    once_within(spec, spec.check.timeout).await
}

async fn once_within(spec: &Spec, limit: Duration) -> Result<(), Failure> {
    match timeout(limit, ask(spec)).await {
        Ok(result) => result,
        Err(_) => Err(Failure::Silent(limit)),
    }
}

async fn ask(spec: &Spec) -> Result<(), Failure> {
    match &spec.check.kind {
        CheckKind::Tcp => net::connect(spec.address).await.map(drop).map_err(connect_failure),
        CheckKind::Http { path, status, body } => {
            let answer = http::request(spec.address, Method::GET, path, None).await.map_err(|error| match error {
                http::HttpError::Connect(error) => connect_failure(error),
                error => Failure::Http(error),
            })?;
            let accepted = if status.is_empty() { (200..400).contains(&answer.status) } else { status.contains(&answer.status) };
            if !accepted {
                return Err(Failure::Status(answer.status));
            }
            match body {
                Some(text) if !contains(&answer.body, text.as_bytes()) => Err(Failure::Body(text.clone())),
                _ => Ok(()),
            }
        }
        CheckKind::Command(argv) => {
            let (argv, env, user) = (argv.clone(), spec.env.clone(), spec.user.clone());
            let hook = Hook { argv, env, user, timeout: spec.check.timeout, output: None, answers: false };
            Ok(hook::run(&hook).await.map(drop)?)
        }
    }
}

fn connect_failure(error: io::Error) -> Failure {
    if error.kind() == io::ErrorKind::ConnectionRefused { Failure::Refused } else { Failure::Connect(error) }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    needle.is_empty() || haystack.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests;
