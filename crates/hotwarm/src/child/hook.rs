//! Running one of the user's programs to its end, within a time limit: hooks and command probes.
//!
//! No shell. A program that overruns its time, or whose caller has lost interest (the future is dropped), is killed with its whole
//! process group; one that ends in time may leave daemons behind (a start hook does). Main path: [`run`].

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::time::timeout;

use super::sys::{self, User};

/// How much of a hook's standard output is kept as its answer, in bytes.
const ANSWER_BYTES_MAX: usize = 4096;
/// How long after its end a hook's standard output may stay open, held by something that it left behind.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(200);
/// How long a hook that was killed may take to vanish before it is left behind: it is then in an uninterruptible wait.
const REAP_TIMEOUT: Duration = Duration::from_secs(1);

/// A program to run to its end.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    pub user: Option<String>,
    pub timeout: Duration,
    /// Where its standard error goes, and its standard output unless that is the answer; nowhere if `None`.
    pub output: Option<PathBuf>,
    /// Its standard output is wanted.
    pub answers: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error("no program given for the hook")]
    Empty,
    #[error(transparent)]
    User(#[from] sys::UserError),
    #[error("hook {program} could not be started: {source}; check its path and rights")]
    Start { program: String, source: io::Error },
    #[error("hook {program} was killed after its time limit of {} ms", .limit.as_millis())]
    Overran { program: String, limit: Duration },
    #[error("hook {program} failed with exit code {code}; its output is in the member's log")]
    Failed { program: String, code: i32 },
    #[error("hook {program} was ended by signal {signal}")]
    Killed { program: String, signal: i32 },
    #[error("hook {program} could not be watched: {source}")]
    Watch { program: String, source: io::Error },
}

impl HookError {
    /// In words that say which hook it was.
    #[must_use]
    pub fn of(&self, name: &str) -> String {
        match self {
            Self::Empty | Self::User(_) => format!("{name} hook: {self}"),
            _ => format!("{name} {self}"),
        }
    }
}

/// Runs `hook`; its standard output, cut to 4 KiB, if it exits with 0 in time.
pub async fn run(hook: &Hook) -> Result<String, HookError> {
    let program = hook.argv.first().ok_or(HookError::Empty)?.clone();
    let failed = |source| HookError::Start { program: program.clone(), source };
    let mut command = command(hook).map_err(|e| e.into_error(&program))?;
    let mut child = command.spawn().map_err(failed)?;
    let group = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    let mut reaper = GroupKiller { group };
    let stdout = child.stdout.take();
    let ended = timeout(hook.timeout, async {
        let mut answer = std::pin::pin!(answer(stdout));
        let mut printed = None;
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                text = &mut answer, if printed.is_none() => printed = Some(text),
            }
        };
        if printed.is_none() {
            printed = timeout(ANSWER_TIMEOUT, answer).await.ok();
        }
        (status, printed.unwrap_or_default())
    })
    .await;
    let Ok((status, answer)) = ended else {
        reaper.kill();
        let _ = timeout(REAP_TIMEOUT, child.wait()).await;
        reaper.group = None;
        return Err(HookError::Overran { program, limit: hook.timeout });
    };
    reaper.group = None;
    let status = status.map_err(|source| HookError::Watch { program: program.clone(), source })?;
    match (status.code(), std::os::unix::process::ExitStatusExt::signal(&status)) {
        (Some(0), _) => Ok(answer),
        (Some(code), _) => Err(HookError::Failed { program, code }),
        (None, signal) => Err(HookError::Killed { program, signal: signal.unwrap_or(0) }),
    }
}

enum SetupError {
    User(sys::UserError),
    Io(io::Error),
}

impl SetupError {
    fn into_error(self, program: &str) -> HookError {
        match self {
            Self::User(error) => error.into(),
            Self::Io(source) => HookError::Start { program: program.to_owned(), source },
        }
    }
}

fn command(hook: &Hook) -> Result<Command, SetupError> {
    let user = hook.user.as_deref().map(User::find).transpose().map_err(SetupError::User)?;
    let mut command = std::process::Command::new(&hook.argv[0]);
    command.args(&hook.argv[1..]).env_clear().envs(hook.env.iter().cloned()).current_dir("/").stdin(Stdio::null());
    command.envs(sys::home(user.as_ref(), hook.env.iter().map(|(name, _)| name.as_str())));
    let log = || hook.output.as_deref().map(append).transpose().map(|file| file.map_or_else(Stdio::null, Stdio::from));
    command.stderr(log().map_err(SetupError::Io)?);
    command.stdout(if hook.answers { Stdio::piped() } else { log().map_err(SetupError::Io)? });
    sys::prepare(&mut command, &sys::Child { session: true, user, ..sys::Child::default() });
    Ok(Command::from(command))
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// What it prints until its output is closed; what is over the limit is read and dropped, so that it does not block.
async fn answer(stdout: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut stdout) = stdout else { return String::new() };
    let (mut kept, mut chunk) = (Vec::new(), [0_u8; 1024]);
    while let Ok(read @ 1..) = stdout.read(&mut chunk).await {
        let room = ANSWER_BYTES_MAX - kept.len();
        kept.extend_from_slice(&chunk[..read.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// Kills the hook's process group unless it has been disarmed. The group's number is the hook's own while it is not waited for.
struct GroupKiller {
    group: Option<Pid>,
}

impl GroupKiller {
    fn kill(&self) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for GroupKiller {
    fn drop(&mut self) {
        self.kill();
    }
}
