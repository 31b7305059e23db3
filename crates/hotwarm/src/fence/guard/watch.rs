//! The guard's loop: the agent's socket, the member's end, the deadline.
//!
//! It waits in `poll` only, and never on the agent: a message that the agent does not take costs it the connection. At every wake the
//! clock is looked at before anything is read, so that a deadline that passed while the machine slept cannot be renewed (S2).
//! Main path: [`Watch::run`] -> `on_time`, `on_signals`, `on_agent`, `listener`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Child;
use std::time::Duration;

use hotwarm_core::action::StopCause;
use hotwarm_core::ids::Mono;
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, wait};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};

use super::frame::{FromGuard, Inbox, Spec, State, Status, ToGuard, encode};
use super::tree;
use crate::child::sys;
use crate::clock;

/// How soon the tree is walked again while something of it is left.
const KILL_AGAIN: Duration = Duration::from_millis(10);
/// The same once it has proved stubborn: a process in an uninterruptible wait dies when the wait ends, not sooner.
const KILL_AGAIN_SLOWLY: Duration = Duration::from_millis(250);
const KILLS_QUICK: u32 = 100;
/// How long a guard without a member waits for an agent to hear of it.
const LINGER: Duration = Duration::from_secs(60);

/// What the guard holds besides its member.
pub(super) struct Parts {
    /// Held, never read: see [`super::LOCK_FILE`].
    pub(super) _lock: File,
    pub(super) listener: UnixListener,
    pub(super) signals: OwnedFd,
    pub(super) timer: OwnedFd,
}

struct Agent {
    stream: UnixStream,
    inbox: Inbox,
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

enum Phase {
    Running,
    /// SIGTERM has been sent; SIGKILL follows at this moment.
    Asked {
        kill_at: Mono,
    },
    /// SIGKILL is sent to everything that is found, until nothing is.
    Killing {
        again_at: Mono,
        kills: u32,
    },
    Gone {
        linger_until: Mono,
    },
}

pub(super) struct Watch {
    parts: Parts,
    status: Status,
    main: Pid,
    /// Not yet waited for: its number, and its process group's, are still its own.
    main_unreaped: bool,
    phase: Phase,
    /// The first cause counts: what comes after it is its consequence.
    cause: Option<StopCause>,
    grace_ms: u64,
    agent: Option<Agent>,
    /// End as soon as the member has, without waiting for an agent.
    leaving: bool,
    acknowledged: bool,
}

/// A timer on the clock that goes on while the machine is suspended (S2).
pub(super) fn timer() -> io::Result<OwnedFd> {
    Ok(timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?)
}

impl Watch {
    pub(super) fn new(spec: &Spec, child: &Child, parts: Parts) -> Self {
        let status = Status {
            incarnation: spec.incarnation,
            pid: child.id(),
            role: spec.role,
            epoch: spec.epoch,
            epoch_started: spec.epoch,
            deadline: spec.deadline,
            state: State::Running,
        };
        Self {
            parts,
            status,
            main: Pid::from_child(child),
            main_unreaped: true,
            phase: Phase::Running,
            cause: None,
            grace_ms: spec.grace_ms,
            agent: None,
            leaving: false,
            acknowledged: false,
        }
    }

    /// Runs until the member is gone and the agent knows, or has been away for too long.
    pub(super) fn run(mut self, agent: UnixStream) {
        self.adopt_agent(agent);
        while !self.is_over() {
            self.set_timer();
            let ready = self.poll();
            self.on_time();
            if ready.signals {
                self.on_signals();
            }
            if ready.agent {
                self.on_agent();
            }
            if ready.listener {
                self.on_listener();
            }
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Gone { linger_until } if self.acknowledged || self.leaving || (self.agent.is_none() && clock::now() >= linger_until))
    }

    fn poll(&self) -> Ready {
        let mut fds = vec![
            PollFd::new(&self.parts.signals, PollFlags::IN),
            PollFd::new(&self.parts.timer, PollFlags::IN),
            PollFd::new(&self.parts.listener, PollFlags::IN),
        ];
        if let Some(agent) = &self.agent {
            fds.push(PollFd::new(&agent.stream, PollFlags::IN));
        }
        // An error here is an interruption or a lack of memory: look at everything, then wait again, with a pause so as not to spin.
        let pause = Timespec { tv_sec: 0, tv_nsec: 0 };
        if rustix::event::poll(&mut fds, None).is_err() {
            let _ = rustix::event::poll(&mut [], Some(&Timespec { tv_nsec: 1_000_000, ..pause }));
            return Ready { signals: true, agent: self.agent.is_some(), listener: true };
        }
        let fired = |index: usize| fds.get(index).is_some_and(|fd| !fd.revents().is_empty());
        Ready { signals: fired(0), listener: fired(2), agent: fired(3) }
    }

    fn set_timer(&self) {
        let own = match self.phase {
            Phase::Running => None,
            Phase::Asked { kill_at } => Some(kill_at),
            Phase::Killing { again_at, .. } => Some(again_at),
            Phase::Gone { linger_until } => Some(linger_until).filter(|_| self.agent.is_none()),
        };
        let deadline = self.status.deadline.filter(|_| self.is_deadline_of_use());
        let next = own.into_iter().chain(deadline).min();
        // A zero time disarms the timer; a passed one fires at once.
        let at = next.map_or(0, |at| at.0.max(1));
        let it_value = Timespec { tv_sec: i64::try_from(at / 1_000_000).unwrap_or(i64::MAX), tv_nsec: ((at % 1_000_000) * 1_000) as _ };
        let setting = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        let _ = timerfd_settime(&self.parts.timer, TimerfdTimerFlags::ABSTIME, &setting);
    }

    /// Nothing is being killed yet, so the deadline still means something.
    fn is_deadline_of_use(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Asked { .. })
    }

    fn on_time(&mut self) {
        let now = clock::now();
        if self.is_deadline_of_use() && self.status.deadline.is_some_and(|deadline| now >= deadline) {
            self.begin_killing(StopCause::Deadline);
        }
        match self.phase {
            Phase::Asked { kill_at } if now >= kill_at => self.begin_killing(StopCause::Asked),
            Phase::Killing { again_at, .. } if now >= again_at => self.kill(),
            _ => {}
        }
    }

    fn on_signals(&mut self) {
        let signals = sys::read_signals(&self.parts.signals);
        // Told to end by the system, at its shutdown for example: end the member as one would, and do not stay behind.
        if signals.iter().any(|signal| *signal != libc::SIGCHLD) && !self.leaving {
            self.leaving = true;
            self.stop(self.grace_ms);
        }
        self.reap();
    }

    /// Waits for whatever has ended. The member is gone when this process has no child left: all its descendants were handed to it (S5).
    fn reap(&mut self) {
        if self.main_unreaped
            && let Some(cause) = ended(self.main)
        {
            // Its workers too, while its group's number is still reserved by its unreaped remains.
            self.begin_killing(cause);
        }
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.main => {
                    self.main_unreaped = false;
                    self.begin_killing(cause_of(status));
                }
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => return,
                Err(_) => return self.on_empty(),
            }
        }
    }

    fn on_empty(&mut self) {
        if matches!(self.phase, Phase::Gone { .. }) {
            return;
        }
        self.phase = Phase::Gone { linger_until: clock::now().plus(LINGER) };
        self.status.state = State::Gone(self.cause.clone().unwrap_or(StopCause::Asked));
        self.tell_status();
    }

    fn stop(&mut self, grace_ms: u64) {
        match self.phase {
            Phase::Running | Phase::Asked { .. } if grace_ms == 0 => self.begin_killing(StopCause::Asked),
            Phase::Running => {
                self.cause.get_or_insert(StopCause::Asked);
                self.phase = Phase::Asked { kill_at: clock::now().plus(Duration::from_millis(grace_ms)) };
                self.status.state = State::Stopping;
                if self.main_unreaped {
                    let _ = kill_process_group(self.main, Signal::TERM);
                    // A stopped program could not even hear it.
                    let _ = kill_process_group(self.main, Signal::CONT);
                }
            }
            // Already on its way, or gone: only say so again.
            Phase::Asked { .. } | Phase::Killing { .. } | Phase::Gone { .. } => {}
        }
        self.tell_status();
    }

    fn begin_killing(&mut self, cause: StopCause) {
        if !self.is_deadline_of_use() {
            return;
        }
        self.cause.get_or_insert(cause);
        self.phase = Phase::Killing { again_at: clock::now(), kills: 0 };
        self.status.state = State::Stopping;
        self.kill();
    }

    fn kill(&mut self) {
        let Phase::Killing { kills, .. } = self.phase else { return };
        if self.main_unreaped {
            // The group first: the kernel takes all of it at once, also what is being forked.
            let _ = kill_process_group(self.main, Signal::KILL);
        }
        tree::kill_all();
        let pause = if kills < KILLS_QUICK { KILL_AGAIN } else { KILL_AGAIN_SLOWLY };
        self.phase = Phase::Killing { again_at: clock::now().plus(pause), kills: kills.saturating_add(1) };
        self.reap_others();
    }

    /// What has ended is waited for at once, but not the program itself while its remains protect its group's number.
    fn reap_others(&mut self) {
        if !self.main_unreaped {
            self.reap();
        }
    }

    fn on_listener(&mut self) {
        let Ok((stream, _)) = self.parts.listener.accept() else { return };
        if is_ours(&stream) {
            self.adopt_agent(stream);
        }
    }

    /// One agent at a time; the newest counts, for it is the one that was started last.
    fn adopt_agent(&mut self, stream: UnixStream) {
        if stream.set_nonblocking(true).is_ok() {
            self.agent = Some(Agent { stream, inbox: Inbox::default() });
            self.tell_status();
        }
    }

    fn on_agent(&mut self) {
        let mut chunk = [0_u8; 4096];
        let Some(agent) = &mut self.agent else { return };
        match agent.stream.read(&mut chunk) {
            Ok(0) => return self.lose_agent(),
            Ok(read) => agent.inbox.push(&chunk[..read]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => return,
            Err(_) => return self.lose_agent(),
        }
        while let Some(agent) = &mut self.agent {
            match agent.inbox.take::<ToGuard>() {
                Ok(Some(message)) => self.on_message(&message),
                Ok(None) => return,
                Err(_) => return self.lose_agent(),
            }
        }
    }

    fn lose_agent(&mut self) {
        self.agent = None;
        if let Phase::Gone { linger_until } = &mut self.phase {
            *linger_until = clock::now().plus(LINGER);
        }
    }

    fn on_message(&mut self, message: &ToGuard) {
        match message {
            ToGuard::Spec(_) => self.lose_agent(),
            ToGuard::Deadline(until) => self.status.deadline = *until,
            ToGuard::Role { role, epoch, signal } => self.on_role(*role, *epoch, *signal),
            ToGuard::Stop { grace_ms } => self.stop(*grace_ms),
            ToGuard::Acknowledge => self.acknowledged = matches!(self.phase, Phase::Gone { .. }),
        }
    }

    fn on_role(&mut self, role: hotwarm_core::ids::Role, epoch: hotwarm_core::ids::Epoch, signal: Option<i32>) {
        let error = if epoch < self.status.epoch {
            Some(format!("an epoch older than {}, which this member has seen", self.status.epoch))
        } else {
            // S6: from here on it is what it was told to be, whether or not the signal is heard.
            (self.status.role, self.status.epoch) = (role, epoch);
            signal.and_then(|signal| self.signal(signal).err())
        };
        self.tell(&FromGuard::Told { role, epoch, error });
    }

    fn signal(&self, number: i32) -> Result<(), String> {
        let signal = Signal::from_named_raw(number).ok_or_else(|| format!("no signal {number}: correct `on_role_change`"))?;
        if !self.main_unreaped {
            return Err("a program that has already ended".to_owned());
        }
        kill_process(self.main, signal).map_err(|e| format!("signal {number} could not be sent: {e}"))
    }

    fn tell_status(&mut self) {
        self.tell(&FromGuard::Status(self.status.clone()));
    }

    /// Written whole or not at all: an agent that does not read is dropped, and gets the whole status when it comes again. From one that
    /// has hung up there may still be something to read, an acknowledgement above all; behind it the line's end is found.
    fn tell(&mut self, message: &FromGuard) {
        let Some(agent) = &mut self.agent else { return };
        let frame = encode(message);
        match agent.stream.write(&frame) {
            Ok(written) if written == frame.len() => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {}
            _ => self.lose_agent(),
        }
    }
}

struct Ready {
    signals: bool,
    agent: bool,
    listener: bool,
}

/// How the child ended, without waiting for it for good.
fn ended(pid: Pid) -> Option<StopCause> {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let status = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT).ok()??;
    status.exit_status().map(StopCause::Exit).or_else(|| status.terminating_signal().map(StopCause::Signal))
}

fn cause_of(status: WaitStatus) -> StopCause {
    status.exit_status().map_or_else(|| StopCause::Signal(status.terminating_signal().unwrap_or(0)), StopCause::Exit)
}

/// Only the same user and root may guide a guard.
fn is_ours(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream.as_fd()).is_ok_and(|peer| peer.uid.is_root() || peer.uid == rustix::process::geteuid())
}
