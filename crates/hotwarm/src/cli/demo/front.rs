//! The demo's outer process: it starts the inner one, which does everything, and sees to it that nothing outlives either.
//!
//! Guards are made to outlive their agent, so a demo that merely ended would leave members behind. Two processes watch each other: the outer
//! one hears signals and is the subreaper of all; the inner one holds the read end of a pipe, and clears up itself when the outer one is
//! gone, killed with SIGKILL too. Main path: [`outer`] -> [`inner`] -> [`watch_lifeline`].

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

use super::super::failure::tell;
use super::super::{Exit, Failure};
use crate::drill::fault;

/// Killed processes are gone within milliseconds; a machine that is busy gets more.
const END_WITHIN: Duration = Duration::from_secs(10);

/// How the inner process ended, or which signal came first.
enum Ended {
    Inner(ExitStatus),
    Signal(Exit, &'static str),
}

fn failed(what: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::plain(Exit::Failed, format!("{what}: {error}"))
}

/// Whatever is left by those that this process starts becomes a child of its own.
fn adopt() -> Result<(), Failure> {
    let adopted = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    adopted.map_err(|error| failed("cannot adopt the processes of the demo", &error))
}

/// Runs the demo in a process of its own and ends everything of it, whatever happens.
pub(super) fn outer() -> Result<(), Failure> {
    adopt()?;
    let dir = std::env::temp_dir().join(format!("hotwarm-demo-{}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| failed("signals are not received", &error))?;
    let ended = runtime.block_on(run_inner(&dir))?;
    fault::end_descendants(END_WITHIN);
    match ended {
        Ended::Signal(exit, how) => {
            clear(&dir);
            tell(&format!("{how}: every node and member of the demo has ended, and {} is removed", dir.display()));
            Err(Failure::told(exit))
        }
        Ended::Inner(status) => {
            let exit = match status.code() {
                Some(0) => Exit::Done,
                Some(2) => Exit::Usage,
                Some(5) => Exit::ObjectiveMissed,
                _ => Exit::Failed,
            };
            // Whoever wants to know why it failed reads the nodes' logs.
            if exit == Exit::Failed && dir.exists() {
                tell(&format!("the logs of the nodes are left in {}; nothing of the demo runs any more", dir.display()));
            } else {
                clear(&dir);
            }
            if exit == Exit::Done { Ok(()) } else { Err(Failure::told(exit)) }
        }
    }
}

async fn run_inner(dir: &Path) -> Result<Ended, Failure> {
    let hear = |kind| signal(kind).map_err(|error| failed("signals are not received", &error));
    let (mut interrupt, mut terminate) = (hear(SignalKind::interrupt())?, hear(SignalKind::terminate())?);
    let (mut hang_up, mut child) = (hear(SignalKind::hangup())?, hear(SignalKind::child())?);
    let mut inner = start_inner(dir)?;
    loop {
        if let Some(status) = inner.try_wait().map_err(|error| failed("the demo is not waited for", &error))? {
            return Ok(Ended::Inner(status));
        }
        tokio::select! {
            _ = child.recv() => {}
            _ = interrupt.recv() => return Ok(Ended::Signal(Exit::Interrupted, "interrupted")),
            _ = terminate.recv() => return Ok(Ended::Signal(Exit::Terminated, "terminated")),
            _ = hang_up.recv() => return Ok(Ended::Signal(Exit::HungUp, "the terminal went away")),
        }
    }
}

/// The same command again, in a process group of its own: Ctrl-C at a terminal reaches this process alone.
fn start_inner(dir: &Path) -> Result<Child, Failure> {
    let exe = std::env::current_exe().map_err(|error| failed("the path of this program", &error))?;
    let mut command = Command::new(exe);
    command.args(std::env::args_os().skip(1)).arg("--inner").arg(dir);
    command.stdin(Stdio::piped()).process_group(0).spawn().map_err(|error| failed("the demo does not start", &error))
}

fn clear(dir: &Path) {
    // It may not have been made yet; what cannot be removed is named.
    if let Err(error) = std::fs::remove_dir_all(dir)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tell(&format!("{} is not removed: {error}", dir.display()));
    }
}

/// The inner process: `play`, and the end of all that it started.
pub(super) fn inner(dir: &Path, play: impl FnOnce(Arc<Mutex<()>>) -> Result<(), Failure>) -> Result<(), Failure> {
    adopt()?;
    let starting = Arc::new(Mutex::new(()));
    watch_lifeline(dir, Arc::clone(&starting))?;
    let played = play(Arc::clone(&starting));
    // Where the lifeline has it, this process ends when everything is cleared up. Else it is kept: the process ends now.
    std::mem::forget(starting.lock().unwrap_or_else(PoisonError::into_inner));
    fault::end_descendants(END_WITHIN);
    played
}

/// Clears up when the other end of standard input is closed, which only the end of the outer process does. It takes `starting` first, so
/// that nothing is started meanwhile, and keeps it.
fn watch_lifeline(dir: &Path, starting: Arc<Mutex<()>>) -> Result<(), Failure> {
    let dir = dir.to_owned();
    let watch = move || {
        let mut nothing = [0];
        // Nobody writes: any outcome but an interrupted call is the end.
        while std::io::stdin().read(&mut nothing).is_err_and(|error| error.kind() == std::io::ErrorKind::Interrupted) {}
        let _nothing_starts = starting.lock().unwrap_or_else(PoisonError::into_inner);
        fault::end_descendants(END_WITHIN);
        clear(&dir);
        let _ = fault::signal(std::process::id(), Signal::KILL);
    };
    let thread = std::thread::Builder::new().name("lifeline".into()).spawn(watch);
    thread.map(drop).map_err(|error| failed("no thread", &error))
}
