//! Live traffic as evidence: what broke or is late makes the router probe the member at once, leave it out, and testify.
//!
//! The router only leaves members out of its own choice; it must never change a role. The last usable member of several is never left
//! out for being slow. The main path: [`broke`] and [`suspect`] -> [`watch`] (quick probes) -> eject or readmit.

use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hotwarm_core::detect::Silence;
use hotwarm_core::ids::Mono;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::group::State;
use super::local::{LocalGroup, LocalTarget};
use super::{Event, Kind};
use crate::clock;
use crate::config::{CheckKind, Protocol};

/// A probe that got no answer for this long means: silent. Longer for a member whose replies usually take long, and while this thread's own
/// timers are late.
const PROBE_TIME: Duration = Duration::from_millis(100);
const PROBE_TIME_MAX: Duration = Duration::from_secs(1);
/// Between two reports of the same kind about the same member.
const REPORT_EVERY: Duration = Duration::from_millis(50);
/// Between two probes of a member whose replies are late but that answers its probes.
const SLOW_EVERY: Duration = Duration::from_millis(250);
/// Between probes of a member that is left out: doubles from the first to the second.
const WATCH_FIRST: Duration = Duration::from_millis(20);
const WATCH_LAST: Duration = Duration::from_millis(500);

/// What this router believes of a member, over all threads.
#[derive(Debug)]
pub(super) struct Health {
    ejected: AtomicBool,
    /// Ejected because it answers nothing: what waits for it and may be repeated goes elsewhere.
    silent: AtomicBool,
    probing: AtomicBool,
    /// It is probed for a late reply.
    late: AtomicBool,
    probed_us: AtomicU64,
    /// How often it was taken back.
    readmissions: AtomicU64,
    reported_us: [AtomicU64; 5],
}

impl Default for Health {
    fn default() -> Self {
        Self {
            ejected: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            probing: AtomicBool::new(false),
            late: AtomicBool::new(false),
            probed_us: AtomicU64::new(0),
            readmissions: AtomicU64::new(0),
            reported_us: Default::default(),
        }
    }
}

impl Health {
    pub(super) fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::SeqCst)
    }

    pub(super) fn is_silent(&self) -> bool {
        self.silent.load(Ordering::Relaxed)
    }

    pub(super) fn readmissions(&self) -> u64 {
        self.readmissions.load(Ordering::Relaxed)
    }

    fn may_report(&self, kind: Kind, now: Mono) -> bool {
        let last = &self.reported_us[kind as usize];
        let before = last.load(Ordering::Relaxed);
        let due = before == 0 || now.since(Mono(before)) >= REPORT_EVERY;
        due && last.compare_exchange(before, now.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

fn report(group: &LocalGroup, target: &LocalTarget, kind: Kind, detail: String) {
    let shared = &target.shared;
    if shared.health.may_report(kind, clock::now()) {
        group.event(Event::Evidence { member: shared.member.clone(), epoch: shared.epoch, kind, detail });
    }
}

/// Leaves the member out, unless that would leave nobody of several for another reason than being down.
fn eject(group: &LocalGroup, target: &Rc<LocalTarget>, kind: Kind) {
    if kind == Kind::Silent && !group.is_exclusive() && !group.has_other(target) {
        return;
    }
    let health = &target.shared.health;
    let newly_silent = kind == Kind::Silent && !health.silent.swap(true, Ordering::Relaxed);
    if !health.ejected.swap(true, Ordering::SeqCst) || newly_silent {
        target.idle.clear();
        group.wake_at(&target.shared);
    }
}

/// A connection to the member was refused, timed out or broke: it is left out until a probe is answered.
pub(super) fn broke(group: &Rc<LocalGroup>, target: &Rc<LocalTarget>, kind: Kind, detail: &io::Error) {
    if target.shared.is_fenced() {
        return;
    }
    eject(group, target, kind);
    report(group, target, kind, detail.to_string());
    watch(group, target);
}

/// A reply is late (or an idle connection was closed: `late` is false): the member is probed now, unless it was a moment ago.
pub(super) fn suspect(group: &Rc<LocalGroup>, target: &Rc<LocalTarget>, now: Mono, late: bool) {
    let health = &target.shared.health;
    let probed = Mono(health.probed_us.load(Ordering::Relaxed));
    if !target.shared.is_fenced() && now.since(probed) >= SLOW_EVERY {
        health.late.fetch_or(late, Ordering::Relaxed);
        watch(group, target);
    }
}

/// Probes until the member answers well; one task per member, over all threads.
fn watch(group: &Rc<LocalGroup>, target: &Rc<LocalTarget>) {
    if target.shared.health.probing.swap(true, Ordering::SeqCst) {
        return;
    }
    let (group, target) = (Rc::clone(group), Rc::clone(target));
    tokio::task::spawn_local(async move {
        let mut pause = WATCH_FIRST;
        let mut silence = Silence::default();
        let goes_on = || !target.shared.is_fenced() && !group.is_closing();
        while goes_on() {
            let result = probe(&group, &target, &mut silence).await;
            if matches!(result, Probe::Missed) {
                continue;
            }
            if !take_result(&group, &target, result) {
                let due = clock::now().plus(pause);
                tokio::time::sleep(pause).await;
                group.health.borrow_mut().woke(due, clock::now());
                pause = (pause * 2).min(WATCH_LAST);
                continue;
            }
            target.shared.health.probed_us.store(clock::now().0, Ordering::Relaxed);
            target.shared.health.probing.store(false, Ordering::SeqCst);
            // Ejected by another thread since the answer, and it found this one still probing: then this one goes on.
            if !target.shared.health.is_ejected() || target.shared.health.probing.swap(true, Ordering::SeqCst) {
                return;
            }
        }
        target.shared.health.probing.store(false, Ordering::SeqCst);
    });
}

/// Acts on a probe's result; true when no further probe is needed.
fn take_result(group: &Rc<LocalGroup>, target: &Rc<LocalTarget>, result: Probe) -> bool {
    let health = &target.shared.health;
    match result {
        Probe::Healthy => {
            health.silent.store(false, Ordering::Relaxed);
            if health.ejected.swap(false, Ordering::SeqCst) {
                health.readmissions.fetch_add(1, Ordering::Relaxed);
                report(group, target, Kind::Ok, "a probe is answered again".into());
                // Requests may be parked on every thread for want of this member.
                group.shared.wake_all();
            } else if health.late.swap(false, Ordering::Relaxed) {
                report(group, target, Kind::Slow, "a reply is late, but a probe is answered".into());
            }
            true
        }
        // Answered, but not well: whether it may serve is for the prober and the group to say. It is not readmitted by this.
        Probe::Unhealthy => !health.is_ejected(),
        Probe::Missed => false,
        Probe::Failed(kind, error) => {
            eject(group, target, kind);
            report(group, target, kind, error.to_string());
            false
        }
    }
}

enum Probe {
    Healthy,
    Unhealthy,
    /// This thread ran too late to know.
    Missed,
    Failed(Kind, io::Error),
}

async fn probe(group: &LocalGroup, target: &LocalTarget, silence: &mut Silence) -> Probe {
    let settings = group.settings();
    let begun = clock::now();
    let limit = group.health.borrow().patience(begun, target.usual(PROBE_TIME), PROBE_TIME_MAX);
    let attempt = async {
        let mut stream = TcpStream::connect(target.shared.address).await?;
        // A frozen program's connections are still accepted, by its kernel: a member that speaks HTTP has to say something. Without a
        // path to ask for, the request that RFC 9110 (section 9.3.7) calls a ping is used, and any answer will do.
        let (ask, wanted) = match (&settings.check, settings.protocol) {
            (CheckKind::Http { path, status, .. }, _) => (format!("GET {path}"), Some(status)),
            (CheckKind::Tcp | CheckKind::Command(_), Protocol::Http) => ("OPTIONS *".to_owned(), None),
            (CheckKind::Tcp | CheckKind::Command(_), Protocol::Tcp) => return Ok(true),
        };
        let request = format!("{ask} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", target.shared.address);
        stream.write_all(request.as_bytes()).await?;
        let mut line = [0; 12];
        stream.read_exact(&mut line).await?;
        let code = std::str::from_utf8(&line[9..]).ok().and_then(|code| code.parse::<u16>().ok()).unwrap_or(0);
        Ok(wanted.is_none_or(|status| if status.is_empty() { (200..400).contains(&code) } else { status.contains(&code) }))
    };
    let Ok(result) = tokio::time::timeout(limit, attempt).await else {
        let late = group.health.borrow_mut().woke(begun.plus(limit), clock::now());
        if !silence.is_theirs(late) {
            return Probe::Missed;
        }
        let why = format!("no answer to a probe in {} ms", limit.as_millis());
        return Probe::Failed(Kind::Silent, io::Error::new(io::ErrorKind::TimedOut, why));
    };
    silence.broken();
    match result {
        Ok(true) => Probe::Healthy,
        Ok(false) => Probe::Unhealthy,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Probe::Failed(Kind::Refused, error),
        Err::<bool, io::Error>(error) => Probe::Failed(Kind::Reset, error),
    }
}

impl LocalGroup {
    /// Members are hot, and this router has left out each of them: its own way to them is cut, or the group has not noticed yet.
    pub(super) fn is_cut_off(&self) -> bool {
        let table = self.table();
        table.state == State::Open && !table.targets.is_empty() && table.targets.iter().all(|target| target.shared.health.is_ejected())
    }

    /// True if a parked request that is let go has a member to go to. One that is fenced already is none, although this thread has not
    /// switched yet.
    pub(super) fn may_release(&self) -> bool {
        let table = self.table();
        let usable = |target: &Rc<LocalTarget>| {
            let shared = &target.shared;
            !shared.is_fenced() && !shared.health.is_ejected() && shared.weight.load(Ordering::Relaxed) > 0
        };
        table.state == State::Open && (!table.exclusive || self.shared.lease.is_valid()) && table.targets.iter().any(usable)
    }
}
