//! A fault never outlives its drill: a process of its own does the fault, and undoes it when the drill lets go, dies, or takes too long.
//!
//! The drill keeps the other end of the holder's standard input; whatever ends the drill, `kill -9` too, closes it. The holder has a session
//! of its own, so that what a terminal sends does not reach it. It must act on nothing but what it was given, and never outlast its time.
//! Main path: [`Grip::take`] -> the hidden command `hotwarm hold`, [`main`] -> [`Grip::let_go`], or [`Grip::end`] from a signal.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::process::{Child, ChildStdin, Command, ExitCode, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};

use super::fault;

/// The hidden command.
const COMMAND: &str = "hold";
/// What a holder says: it waits for the word to begin; the fault is done; something was there already; why it is not done.
const READY: &str = "ready";
const HELD: &str = "held";
const LEFT: &str = "left";
const FAILED: &str = "failed ";
/// Signals and packet filters are set within milliseconds; a machine that is busy gets more.
const WITHIN: Duration = Duration::from_secs(10);
/// A drill ends its fault itself; the holder does when it is so much late, as one that is suspended.
const LATE: Duration = Duration::from_secs(5);
/// Held by whoever cuts: like the packet filter it is one for each network namespace, and the kernel gives it back when its holder dies.
const CUTTER: &str = "hotwarm-drill-cut";

/// A fault that is not over once it is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lasting {
    /// A member's program is stopped, and later goes on.
    Freeze { pid: u32 },
    /// No packet passes between the node, which listens for its peers at `own`, and them.
    Cut { own: SocketAddr, peers: Vec<SocketAddr> },
    /// Processes with all below them, which stay dead; held so that no dying drill leaves it half done.
    Kill { pids: Vec<u32> },
}

impl Lasting {
    fn arguments(&self) -> Vec<String> {
        match self {
            Self::Freeze { pid } => vec!["freeze".to_owned(), pid.to_string()],
            Self::Cut { own, peers } => {
                ["cut".to_owned(), own.to_string()].into_iter().chain(peers.iter().map(ToString::to_string)).collect()
            }
            Self::Kill { pids } => std::iter::once("kill".to_owned()).chain(pids.iter().map(ToString::to_string)).collect(),
        }
    }

    fn parse(words: &[String]) -> Option<Self> {
        let (kind, rest) = words.split_first()?;
        Some(match kind.as_str() {
            "freeze" => Self::Freeze { pid: rest.first()?.parse().ok()? },
            "cut" => {
                let mut all = rest.iter().map(|word| word.parse().ok()).collect::<Option<Vec<SocketAddr>>>()?;
                (!all.is_empty()).then(|| Self::Cut { own: all.remove(0), peers: all })?
            }
            "kill" => Self::Kill { pids: rest.iter().map(|word| word.parse().ok()).collect::<Option<_>>()? },
            _ => return None,
        })
    }

    /// What has come to an end, for people.
    #[must_use]
    pub const fn over(&self) -> &'static str {
        match self {
            Self::Freeze { .. } => "the frozen program goes on",
            Self::Cut { .. } => "the cut is over",
            Self::Kill { .. } => "what was killed stays so",
        }
    }
}

/// The one fault that a drill holds at a time. Its clones are the same: another thread may end it.
#[derive(Clone, Debug, Default)]
pub struct Grip(Arc<Mutex<State>>);

#[derive(Debug, Default)]
enum State {
    #[default]
    Free,
    Held(Held),
    /// Nothing may be begun any more.
    Ended,
}

/// How a fault began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    /// What an earlier drill had left behind was removed before.
    pub(super) left: bool,
    /// Just before.
    pub(super) at: Instant,
    pub(super) wall: SystemTime,
}

impl Begun {
    pub(super) fn now() -> Self {
        Self { left: false, at: Instant::now(), wall: SystemTime::now() }
    }
}

#[derive(Debug)]
struct Held {
    lasting: Lasting,
    holder: Child,
    input: ChildStdin,
}

impl Grip {
    /// Does the fault, for `time` at most and a little.
    ///
    /// # Errors
    /// It cannot be done; nothing is left of it.
    pub(super) fn take(&self, lasting: Lasting, time: Duration) -> io::Result<Begun> {
        let mut state = self.lock();
        // The process is about to end.
        while matches!(*state, State::Ended) {
            drop(state);
            std::thread::park();
            state = self.lock();
        }
        let (held, begun) = Held::begin(lasting, time)?;
        *state = State::Held(held);
        Ok(begun)
    }

    /// Undoes the fault, if one is held.
    ///
    /// # Errors
    /// It is not undone: says what to do by hand.
    pub(super) fn let_go(&self) -> io::Result<()> {
        let mut state = self.lock();
        if !matches!(*state, State::Held(_)) {
            return Ok(());
        }
        match std::mem::take(&mut *state) {
            State::Held(held) => held.let_go(),
            State::Free | State::Ended => Ok(()),
        }
    }

    /// The same for good: nothing is begun afterwards. What was held, and whether it is undone.
    #[must_use]
    pub fn end(&self) -> Option<(Lasting, io::Result<()>)> {
        match std::mem::replace(&mut *self.lock(), State::Ended) {
            State::Held(held) => Some((held.lasting.clone(), held.let_go())),
            State::Free | State::Ended => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn begin(lasting: Lasting, time: Duration) -> io::Result<(Self, Begun)> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(COMMAND).arg((time + LATE).as_millis().to_string()).args(lasting.arguments());
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(mut input), Some(output)) = (holder.stdin.take(), holder.stdout.take()) else {
            return Err(io::Error::other("the holder has no pipes"));
        };
        let (say, said) = mpsc::channel();
        // Ends with the holder at the latest.
        std::thread::Builder::new().name("holder".into()).spawn(move || {
            // Nobody listens once it is held.
            BufReader::new(output).lines().map_while(Result::ok).for_each(|line| drop(say.send(line)));
        })?;
        let until = Instant::now() + WITHIN;
        let mut begun = Begun::now();
        loop {
            // On an error the input closes: a holder that comes to it later undoes it at once.
            match said.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) if line == READY => {
                    begun = Begun::now();
                    input.write_all(b".")?;
                }
                Ok(line) if line == LEFT => begun.left = true,
                Ok(line) if line == HELD => return Ok((Self { lasting, holder, input }, begun)),
                Ok(line) => {
                    let _ = holder.wait();
                    return Err(io::Error::other(line.strip_prefix(FAILED).unwrap_or(&line).to_owned()));
                }
                Err(error) => return Err(io::Error::other(format!("the process that is to do it says nothing: {error}"))),
            }
        }
    }

    fn let_go(mut self) -> io::Result<()> {
        // One that has gone already is seen below.
        let _ = self.input.write_all(b".");
        drop(self.input);
        let until = Instant::now() + WITHIN;
        let ended = loop {
            match self.holder.try_wait()? {
                Some(status) => break Some(status),
                None if Instant::now() > until => break None,
                None => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        if ended.as_ref().is_some_and(ExitStatus::success) {
            return Ok(());
        }
        // It was killed, or could not.
        match &self.lasting {
            Lasting::Freeze { pid } if fault::state(*pid) == Some('T') && fault::is_member(*pid) => fault::signal(*pid, Signal::CONT),
            Lasting::Cut { .. } => fault::uncut(),
            Lasting::Freeze { .. } | Lasting::Kill { .. } => Ok(()),
        }
    }
}

/// The hidden command `hotwarm hold MILLISECONDS FAULT ...`.
#[must_use]
pub fn main(arguments: &[String]) -> ExitCode {
    // Away from the drill's terminal. It fails only where this process leads a session already.
    let _ = rustix::process::setsid();
    let time = arguments.first().and_then(|word| word.parse().ok()).map(Duration::from_millis);
    let (Some(time), Some(lasting)) = (time, arguments.get(1..).and_then(Lasting::parse)) else {
        tell("usage: hotwarm hold MILLISECONDS freeze PID|cut ADDRESS PEER...|kill PID...; what `hotwarm drill` starts");
        return ExitCode::from(2);
    };
    let held =
        tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| runtime.block_on(hold(&lasting, time)));
    match held {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{FAILED}{error}"));
            ExitCode::FAILURE
        }
    }
}

/// Done, held, undone.
async fn hold(lasting: &Lasting, time: Duration) -> io::Result<()> {
    // Before anything is done: from here on no signal but SIGKILL ends this process.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut lifeline = pipe::Receiver::from_owned_fd(rustix::io::dup(io::stdin())?)?;
    let mut word = [0];
    say(READY);
    if !matches!(lifeline.read(&mut word).await, Ok(1)) {
        return Ok(());
    }
    let done = Done::begin(lasting)?;
    say(HELD);
    let why = tokio::select! {
        read = lifeline.read(&mut word) => if matches!(read, Ok(1)) { None } else { Some("the drill has died") },
        () = tokio::time::sleep(time) => Some("the drill takes too long"),
        _ = interrupt.recv() => Some("ended by a signal"),
        _ = terminate.recv() => Some("ended by a signal"),
        _ = hang_up.recv() => Some("ended by a signal"),
    };
    let undone = done.undo();
    if let Err(error) = &undone {
        tell(&format!("hotwarm drill: {error}"));
    } else if let Some(why) = why {
        tell(&format!("hotwarm drill: {why}: {}", lasting.over()));
    }
    undone
}

/// A fault that is done, and what undoes it.
enum Done {
    Freeze(OwnedFd),
    /// With what says that this process cuts.
    Cut(#[expect(dead_code, reason = "it is held, not read")] UnixListener),
    Kill,
}

impl Done {
    fn begin(lasting: &Lasting) -> io::Result<Self> {
        match lasting {
            Lasting::Freeze { pid } => {
                let gone = || io::Error::other(format!("process {pid} is no member's program"));
                let number = i32::try_from(*pid).ok().and_then(Pid::from_raw).ok_or_else(gone)?;
                let process = pidfd_open(number, PidfdFlags::empty())?;
                // Now the number is this process's and no other's.
                if !fault::is_member(*pid) {
                    return Err(gone());
                }
                pidfd_send_signal(&process, Signal::STOP)?;
                Ok(Self::Freeze(process))
            }
            Lasting::Cut { own, peers } => {
                let cutter = UnixListener::bind_addr(&UnixAddress::from_abstract_name(CUTTER)?).map_err(|error| match error.kind() {
                    io::ErrorKind::AddrInUse => io::Error::other("another drill cuts this machine's node off now"),
                    _ => error,
                })?;
                // Nobody else cuts: a table that is there was left behind.
                if fault::is_cut()? {
                    say(LEFT);
                }
                fault::cut(*own, peers)?;
                Ok(Self::Cut(cutter))
            }
            Lasting::Kill { pids } => {
                fault::kill_trees(pids.iter().copied());
                Ok(Self::Kill)
            }
        }
    }

    fn undo(self) -> io::Result<()> {
        match self {
            Self::Freeze(process) => match pidfd_send_signal(&process, Signal::CONT) {
                // The cluster has ended it meanwhile.
                Err(rustix::io::Errno::SRCH) => Ok(()),
                other => Ok(other?),
            },
            Self::Cut(_) => fault::uncut(),
            Self::Kill => Ok(()),
        }
    }
}

/// To the drill, which may be gone.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// To a person, whose terminal may be gone.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_holder_is_told_is_what_it_does() {
        let address = |text: &str| text.parse().unwrap();
        for lasting in [
            Lasting::Freeze { pid: 7 },
            Lasting::Cut { own: address("10.0.0.1:7400"), peers: vec![address("10.0.0.2:7400"), address("[::1]:7400")] },
            Lasting::Kill { pids: vec![7, 8] },
        ] {
            assert_eq!(Lasting::parse(&lasting.arguments()), Some(lasting));
        }
        for wrong in ["", "freeze", "freeze x", "cut", "cut a:1", "kill x", "tease 1"] {
            let words: Vec<String> = wrong.split_whitespace().map(str::to_owned).collect();
            assert_eq!(Lasting::parse(&words), None, "{wrong}");
        }
    }
}
