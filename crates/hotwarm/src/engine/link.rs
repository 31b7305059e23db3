//! The agent's end of the line to one guard: starting the guard, meeting one that lives, talking to it.
//!
//! A deadline goes to the guard at once and only the latest one: it never waits behind anything else that is to be said. It never
//! blocks its owner. Main path: [`Link::launch`] or [`Link::meet`], then [`Link::heard`].

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;

use hotwarm_core::ids::Mono;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Command;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::fence::guard::frame::{FromGuard, Inbox, Spec, ToGuard, encode};
use crate::fence::guard::{SOCKET_FILE, short_path};

/// Messages that may wait for a guard that does not read; a guard always reads, unless somebody froze it.
const MESSAGES_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct Link {
    messages: mpsc::Sender<ToGuard>,
    /// `None`: this agent has said nothing yet, and what the guard was told by another holds.
    deadline: watch::Sender<Option<Option<Mono>>>,
    heard: mpsc::Receiver<FromGuard>,
    guard: Option<OwnedFd>,
    tasks: [JoinHandle<()>; 2],
}

impl Link {
    /// Starts a guard by executing `exe` with the argument `guard`, and tells it what to run.
    pub(super) fn launch(exe: &Path, spec: Spec) -> io::Result<Self> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        let mut command = Command::new(exe);
        command.arg("guard").env_clear().current_dir("/");
        // What a program of the same user gets; one of another's gets that user's.
        command.envs(std::env::var_os("HOME").map(|home| ("HOME", home)));
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::null());
        // Not killed on drop: it is to outlive the agent. The runtime waits for it when it ends.
        let child = command.spawn()?;
        // `command` holds the guard's end of the pair: with it open here, the guard's death would go unnoticed.
        drop(command);
        ours.set_nonblocking(true)?;
        let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let deadline = Some(spec.deadline);
        let birth = encode(&ToGuard::Spec(Box::new(spec)));
        Ok(Self::over(UnixStream::from_std(ours)?, pid, deadline, birth))
    }

    /// Connects to a guard that lives; an error means that none answers.
    pub(super) async fn meet(dir: &Path) -> io::Result<Self> {
        let (_directory, path) = short_path(dir, SOCKET_FILE)?;
        let stream = UnixStream::connect(&path).await?;
        let pid = stream.peer_cred().ok().and_then(|peer| Pid::from_raw(peer.pid()?));
        Ok(Self::over(stream, pid, None, Vec::new()))
    }

    fn over(stream: UnixStream, pid: Option<Pid>, known: Option<Option<Mono>>, first: Vec<u8>) -> Self {
        let (reader, writer) = stream.into_split();
        let (messages, outgoing) = mpsc::channel(MESSAGES_MAX);
        let (incoming, heard) = mpsc::channel(MESSAGES_MAX);
        let (deadline, deadlines) = watch::channel(known);
        let guard = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let tasks = [tokio::spawn(read(reader, incoming)), tokio::spawn(write(writer, first, outgoing, deadlines))];
        Self { messages, deadline, heard, guard, tasks }
    }

    /// Without waiting. What a frozen guard has no room for is lost: its silence is noticed by whoever waits for the answer.
    pub(super) fn send(&self, message: ToGuard) {
        let _ = self.messages.try_send(message);
    }

    pub(super) fn set_deadline(&self, until: Option<Mono>) {
        self.deadline.send_if_modified(|known| known.replace(until) != Some(until));
    }

    /// The next message of the guard; `None` when the line is cut. Cancel-safe.
    pub(super) async fn heard(&mut self) -> Option<FromGuard> {
        self.heard.recv().await
    }

    /// Ends a guard that does not answer: its death takes the member's program with it.
    pub(super) fn kill_guard(&self) {
        if let Some(guard) = &self.guard {
            let _ = pidfd_send_signal(guard, Signal::KILL);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The reader only: the writer sends what it still has (an acknowledgement) and ends with its channel.
        self.tasks[0].abort();
    }
}

async fn read(mut stream: OwnedReadHalf, incoming: mpsc::Sender<FromGuard>) {
    let (mut inbox, mut chunk) = (Inbox::default(), [0_u8; 2048]);
    loop {
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(read) => inbox.push(&chunk[..read]),
        }
        loop {
            match inbox.take::<FromGuard>() {
                Ok(Some(message)) => {
                    if incoming.send(message).await.is_err() {
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "the guard's message is not understood");
                    return;
                }
            }
        }
    }
}

async fn write(
    mut stream: OwnedWriteHalf,
    first: Vec<u8>,
    mut outgoing: mpsc::Receiver<ToGuard>,
    mut deadlines: watch::Receiver<Option<Option<Mono>>>,
) {
    if stream.write_all(&first).await.is_err() {
        return;
    }
    loop {
        // The deadline first: it is the one that is late when it waits.
        let message = tokio::select! {
            biased;
            changed = deadlines.changed() => match changed {
                Ok(()) => match *deadlines.borrow_and_update() {
                    Some(until) => ToGuard::Deadline(until),
                    None => continue,
                },
                // The owner is gone: what it said before is still to be said.
                Err(_) => match outgoing.recv().await {
                    Some(message) => message,
                    None => return,
                },
            },
            message = outgoing.recv() => match message {
                Some(message) => message,
                None => return,
            },
        };
        if stream.write_all(&encode(&message)).await.is_err() {
            return;
        }
    }
}
