//! Live traffic as evidence: what broke or is late makes the router probe the member at once, leave it out, and testify.
//!
//! The router only leaves members out of its own choice; it must never change a role, nor believe ill of a member for what one request
//! brought about: a connection that was made and then broke is a reason to look, and only what is seen then is told. The last usable
//! member of several is never left out for being slow. The main path: [`refused`], [`torn`] and [`suspect`] -> [`watch`] (quick probes) ->
//! eject or readmit.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hotwarm_core::detect::Silence;
use hotwarm_core::ids::Mono;
use rustix::io::Errno;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::group::State;
use super::local::{LocalGroup, LocalTarget};
use super::{Event, Kind};
use crate::config::{CheckKind, Protocol};
use crate::{clock, net};

/// A probe that got no answer for this long means: silent. Longer for a member whose replies usually take long, and while this thread's own
/// timers are late.
const PROBE_TIME: Duration = Duration::from_millis(100);
const PROBE_TIME_MAX: Duration = Duration::from_secs(1);
/// How long a probe that says nothing looks whether its connection is reset.
const RESET_TIME: Duration = Duration::from_millis(20);
/// Between two reports of the same kind about the same member.
const REPORT_EVERY: Duration = Duration::from_millis(50);
/// Between two probes of a member whose replies are late but that answers its probes.
const SLOW_EVERY: Duration = Duration::from_millis(250);
/// Between probes of a member that is left out: doubles from the first to the second.
const WATCH_FIRST: Duration = Duration::from_millis(20);
const WATCH_LAST: Duration = Duration::from_millis(500);

/// What this router believes of a member, over all threads.
#[derive(Debug, Default)]
pub(super) struct Health {
    ejected: AtomicBool,
    /// The agent was told something bad of it, and not that it is over.
    doubted: AtomicBool,
    /// Ejected because it answers nothing: what waits for it and may be repeated goes elsewhere.
    silent: AtomicBool,
    probing: AtomicBool,
    /// It is probed for a late reply.
    late: AtomicBool,
    /// A connection to it broke since the last probe began.
    torn: AtomicBool,
    probed_us: AtomicU64,
    /// How many probes have begun, and the number of the last that had a result.
    begun: AtomicU64,
    ended: AtomicU64,
    looked: Notify,
    /// Ends the pause between two probes.
    look_now: Notify,
    /// How often it was taken back.
    readmissions: AtomicU64,
    reported_us: [AtomicU64; 4],
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

    fn is_doubted(&self) -> bool {
        self.doubted.load(Ordering::SeqCst)
    }

    /// A probe begins, which answers what was asked before now.
    fn begins(&self) -> u64 {
        self.torn.store(false, Ordering::SeqCst);
        self.begun.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn ended(&self, number: u64) {
        self.ended.store(number, Ordering::SeqCst);
        self.looked.notify_waiters();
    }
}

/// Tells something bad of the member, unless it was told a moment ago. `doubted` is set after it was told: who takes it back at the same
/// time leaves the doubt to whoever watches next, and it is not left standing.
fn report(group: &LocalGroup, target: &LocalTarget, kind: Kind, detail: String) {
    let shared = &target.shared;
    if shared.health.may_report(kind, clock::now()) {
        group.event(Event::Evidence { member: shared.member.clone(), epoch: shared.epoch, kind, detail });
    }
    if kind != Kind::Slow {
        shared.health.doubted.store(true, Ordering::SeqCst);
    }
}

/// Takes back what was told. It is never left out for having been said a moment ago: nobody would say it later.
fn withdraw(group: &LocalGroup, target: &LocalTarget) {
    let shared = &target.shared;
    if shared.health.doubted.swap(false, Ordering::SeqCst) {
        let detail = "a probe is answered again".to_owned();
        group.event(Event::Evidence { member: shared.member.clone(), epoch: shared.epoch, kind: Kind::Ok, detail });
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

/// No connection to the member could be made: it is left out until a probe is answered.
pub(super) fn refused(group: &Rc<LocalGroup>, target: &Rc<LocalTarget>, detail: &io::Error) {
    if target.shared.is_fenced() || is_ours(detail) {
        return;
    }
    eject(group, target, Kind::Refused);
    report(group, target, Kind::Refused, detail.to_string());
    watch(group, target);
}

/// This machine has no more ports, descriptors or memory for a connection: that says nothing of the member, and clients can bring it about.
fn is_ours(error: &io::Error) -> bool {
    let ours = [Errno::ADDRNOTAVAIL, Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::AGAIN];
    Errno::from_io_error(error).is_some_and(|errno| ours.contains(&errno))
}

/// A connection to the member was made and broke. It may have died, or closed on this one request for reasons of its own, which whoever
/// sends requests could bring about at will: a probe tells, at once. Returns its number, for [`looked_at`].
pub(super) fn torn(group: &Rc<LocalGroup>, target: &Rc<LocalTarget>) -> u64 {
    let health = &target.shared.health;
    let number = health.begun.load(Ordering::SeqCst) + 1;
    if !target.shared.is_fenced() {
        health.torn.store(true, Ordering::SeqCst);
        health.look_now.notify_one();
        watch(group, target);
    }
    number
}

/// Waits until the probe `number`, or a later one, has a result, for as long as one may take.
pub(super) async fn looked_at(target: &LocalTarget, number: u64) {
    let health = &target.shared.health;
    let looked = async {
        loop {
            let next = health.looked.notified();
            if health.ended.load(Ordering::SeqCst) >= number || health.is_ejected() || target.shared.is_fenced() {
                return;
            }
            next.await;
        }
    };
    // Past the bound nothing is known, and the request goes on as if the member were well.
    let _ = tokio::time::timeout(PROBE_TIME_MAX, looked).await;
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
            let health = &target.shared.health;
            let number = health.begins();
            let result = probe(&group, &target, &mut silence).await;
            match result {
                Probe::Missed => continue,
                Probe::Unable => {
                    rest(&group, health, WATCH_LAST).await;
                    continue;
                }
                Probe::Healthy | Probe::Unhealthy | Probe::Failed(..) => {}
            }
            let known = take_result(&group, &target, result);
            health.ended(number);
            if !known {
                rest(&group, health, pause).await;
                pause = (pause * 2).min(WATCH_LAST);
                continue;
            }
            health.probed_us.store(clock::now().0, Ordering::Relaxed);
            health.probing.store(false, Ordering::SeqCst);
            // Something came since the probe began, and found this one still probing: then this one goes on.
            let again = health.is_ejected() || health.is_doubted() || health.torn.load(Ordering::SeqCst);
            if !again || health.probing.swap(true, Ordering::SeqCst) {
                return;
            }
        }
        target.shared.health.probing.store(false, Ordering::SeqCst);
        target.shared.health.looked.notify_waiters();
    });
}

/// The pause between two probes, which a connection that breaks ends.
async fn rest(group: &LocalGroup, health: &Health, pause: Duration) {
    let due = clock::now().plus(pause);
    if tokio::time::timeout(pause, health.look_now.notified()).await.is_err() {
        group.health.borrow_mut().woke(due, clock::now());
    }
}

/// Acts on a probe's result; true when no further probe is needed.
fn take_result(group: &Rc<LocalGroup>, target: &Rc<LocalTarget>, result: Probe) -> bool {
    let health = &target.shared.health;
    match result {
        Probe::Healthy => {
            health.silent.store(false, Ordering::Relaxed);
            let late = health.late.swap(false, Ordering::Relaxed);
            let was_out = health.ejected.swap(false, Ordering::SeqCst);
            withdraw(group, target);
            if was_out {
                health.readmissions.fetch_add(1, Ordering::Relaxed);
                // Requests may be parked on every thread for want of this member.
                group.shared.wake_all();
            } else if late {
                report(group, target, Kind::Slow, "a reply is late, but a probe is answered".into());
            }
            true
        }
        // Answered, but not well: whether it may serve is for the prober and the group to say. It is not readmitted by this.
        Probe::Unhealthy => !health.is_ejected() && !health.is_doubted(),
        Probe::Missed | Probe::Unable => false,
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
    /// This machine could not ask.
    Unable,
    Failed(Kind, io::Error),
}

async fn probe(group: &LocalGroup, target: &LocalTarget, silence: &mut Silence) -> Probe {
    let settings = group.settings();
    let begun = clock::now();
    let limit = group.health.borrow().patience(begun, target.usual(PROBE_TIME), PROBE_TIME_MAX);
    let address = target.shared.address;
    let attempt = async {
        let stream = net::connect(address).await?;
        // A frozen program's connections are still accepted, by its kernel: a member that speaks HTTP has to say something. Without a
        // path to ask for, the request that RFC 9110 (section 9.3.7) calls a ping is used, and any answer will do.
        match (&settings.check, settings.protocol) {
            (CheckKind::Http { path, status, .. }, _) => {
                let code = ask(stream, &format!("GET {path}"), address).await?;
                Ok(if status.is_empty() { (200..400).contains(&code) } else { status.contains(&code) })
            }
            (CheckKind::Tcp | CheckKind::Command(_), Protocol::Http) => {
                // To hang up is an answer too, of a program that lives: one that was killed meanwhile accepts nothing more.
                if ask(stream, "OPTIONS *", address).await.is_err() {
                    net::connect(address).await?;
                }
                Ok(true)
            }
            (CheckKind::Tcp | CheckKind::Command(_), Protocol::Tcp) => {
                // What resets a connection on which nothing was said does so to everybody.
                match tokio::time::timeout(RESET_TIME, stream.peek(&mut [0])).await {
                    Ok(Err(error)) => Err(error),
                    Ok(Ok(_)) | Err(_) => Ok(true),
                }
            }
        }
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
        Err(error) if is_ours(&error) => Probe::Unable,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Probe::Failed(Kind::Refused, error),
        Err::<bool, io::Error>(error) => Probe::Failed(Kind::Reset, error),
    }
}

/// Asks, and reads the status of the answer; 0 if it is none of HTTP's.
async fn ask(mut stream: TcpStream, what: &str, host: SocketAddr) -> io::Result<u16> {
    stream.write_all(format!("{what} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut line = [0; 12];
    stream.read_exact(&mut line).await?;
    Ok(std::str::from_utf8(&line[9..]).ok().and_then(|code| code.parse().ok()).unwrap_or(0))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_lacks_says_nothing_of_a_member() {
        let of = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        assert!([Errno::ADDRNOTAVAIL, Errno::MFILE, Errno::NFILE].into_iter().all(|errno| is_ours(&of(errno))));
        assert!([Errno::CONNREFUSED, Errno::TIMEDOUT, Errno::HOSTUNREACH].into_iter().all(|errno| !is_ours(&of(errno))));
        assert!(!is_ours(&io::ErrorKind::TimedOut.into()));
    }
}
