//! The guard: the parent of one member, which kills the member's whole tree when its deadline passes, whatever became of the agent.
//!
//! One thread, no runtime, no disk access once the member runs: nothing may keep it from killing in time (docs/internals/fencing.md). It
//! survives the agent and is adopted again through its socket. It never reports a member gone while anything of it is left (S5), and a
//! deadline that has passed is never renewed (S2). The main path: [`main`] -> `birth` -> `watch::Watch::run`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use hotwarm_core::action::StopCause;
use rustix::fs::{FlockOperation, flock};

use self::frame::{FromGuard, Inbox, Spec, State, Status, ToGuard};
use crate::child::sys;

pub mod frame;
mod start;
mod tree;
mod watch;

/// The socket on which agents meet the guard, in the member's run directory.
pub const SOCKET_FILE: &str = "guard.sock";
/// Held by the guard for as long as it lives: whoever gets it knows that no guard does.
pub const LOCK_FILE: &str = "guard.lock";
/// What the member writes to its standard output and error.
pub const OUTPUT_FILE: &str = "output.log";

/// How long the agent may take to say what to run, and an ending guard to give up the lock, before this one gives up.
const BIRTH_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a predecessor that has been told to end may keep the lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// The hidden subcommand `hotwarm guard`. It takes no arguments: standard input is a Unix socket whose first frame is the [`Spec`].
#[must_use]
pub fn main(arguments: &[String]) -> ExitCode {
    sys::close_inherited();
    if !arguments.is_empty() {
        eprintln!("hotwarm guard: no arguments are taken: it is started by hotwarm itself");
        return ExitCode::from(2);
    }
    // Fails only for the leader of a process group, which then is a session's leader or under a shell's control by someone's wish.
    let _ = rustix::process::setsid();
    let (mut agent, spec) = match hear_spec() {
        Ok(heard) => heard,
        Err(error) => {
            eprintln!("hotwarm guard: no member to guard: {error}; it is started by hotwarm itself");
            return ExitCode::from(2);
        }
    };
    match birth(&spec, &agent) {
        Ok(born) => {
            born.run(agent);
            ExitCode::SUCCESS
        }
        Err(why) => {
            let state = State::Gone(StopCause::NotStarted(why));
            let status = Status {
                incarnation: spec.incarnation,
                pid: 0,
                role: spec.role,
                epoch: spec.epoch,
                epoch_started: spec.epoch,
                deadline: None,
                state,
            };
            let _ = io::Write::write_all(&mut agent, &frame::encode(&FromGuard::Status(status)));
            ExitCode::FAILURE
        }
    }
}

/// Takes the inherited socket from standard input and reads what to run.
fn hear_spec() -> io::Result<(UnixStream, Spec)> {
    let inherited: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    let mut agent = UnixStream::from(inherited);
    let until = Instant::now() + BIRTH_TIMEOUT;
    let mut inbox = Inbox::default();
    let mut chunk = [0_u8; 4096];
    loop {
        match inbox.take::<ToGuard>().map_err(io::Error::other)? {
            Some(ToGuard::Spec(spec)) => {
                agent.set_read_timeout(None)?;
                return Ok((agent, *spec));
            }
            Some(_) => return Err(io::Error::other("something else where a member's description was expected")),
            None => {}
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        agent.set_read_timeout(Some(left))?;
        // One frame at a time: what follows the description is read by the watch.
        let wanted = inbox.missing().min(chunk.len());
        let read = agent.read(&mut chunk[..wanted])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        inbox.push(&chunk[..read]);
    }
}

/// Everything that may fail or block, in the order that leaves nothing behind when it does.
fn birth(spec: &Spec, agent: &UnixStream) -> Result<watch::Watch, String> {
    let lock = take_lock(&spec.run_dir)?;
    let listener = listen(&spec.run_dir)
        .map_err(|e| format!("no guard socket in {}: {e}; check the rights of the data directory", spec.run_dir.display()))?;
    let signals = sys::signal_fd(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT, libc::SIGHUP])
        .map_err(|e| format!("no descriptor for signals: {e}"))?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(|e| format!("no subreaper: {e}"))?;
    let timer = watch::timer().map_err(|e| format!("no timer: {e}"))?;
    // The lock is held: an agent that comes now waits for this guard. One that came before it took that nobody is being born, and it
    // came after the one that wanted this birth was gone.
    if has_hung_up(agent) {
        return Err("an agent that is gone: the next one starts the member".to_owned());
    }
    let child = start::start(spec)?;
    harden();
    Ok(watch::Watch::new(spec, &child, watch::Parts { _lock: lock, listener, signals, timer }))
}

fn has_hung_up(agent: &UnixStream) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(agent, PollFlags::empty())];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&at_once)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
}

/// Two guards of one member would be two lives at once. The lock also outlasts a crash of this program correctly: the kernel frees it.
fn take_lock(run_dir: &Path) -> Result<File, String> {
    let path = run_dir.join(LOCK_FILE);
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = opened.map_err(|e| format!("no lock file {}: {e}; check the space and the rights of the data directory", path.display()))?;
    let until = Instant::now() + LOCK_TIMEOUT;
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() >= until {
            return Err("another guard that still keeps an earlier life of this member: stop it first".to_owned());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(file)
}

fn listen(run_dir: &Path) -> io::Result<UnixListener> {
    let (_directory, path) = short_path(run_dir, SOCKET_FILE)?;
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A path to `file` in `directory` that is short enough for a socket's address (108 bytes) however deep the directory lies. It is valid
/// while the returned directory is open.
pub fn short_path(directory: &Path, file: &str) -> io::Result<(File, PathBuf)> {
    let opened = File::open(directory)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{file}", std::os::fd::AsRawFd::as_raw_fd(&opened)));
    Ok((opened, path))
}

/// Keeps the guard in memory and out of the way of the memory killer. Best effort: an ordinary user may do neither. After the start, so
/// that the member inherits nothing of it.
fn harden() {
    // Touch the code that kills while the disk still answers; what has been touched stays (locked on fault, not the whole program).
    let _ = tree::count();
    use rustix::mm::MlockAllFlags as Flags;
    let _ = rustix::mm::mlockall(Flags::CURRENT | Flags::FUTURE | Flags::ONFAULT);
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
}
