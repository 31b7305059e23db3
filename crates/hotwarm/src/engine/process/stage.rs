//! Where a supervised member is between two lives, and what it is waited for.
//!
//! Only data and the one place where a stage is waited on; what follows from it is in the parent. Main path: [`Stage::next`].

use std::io;
use std::time::{Duration, SystemTime};

use hotwarm_core::action::StopCause;
use hotwarm_core::ids::{Epoch, Incarnation, Role};
use tokio::time::Instant;

use super::super::job::Job;
use super::super::link::Link;
use crate::child::hook::HookError;
use crate::fence::guard::frame::FromGuard;
use crate::probe::{Probe, Verdict, http::HttpError};

pub(super) enum Stage {
    /// Looking for a guard that lives, and clearing away what a dead one left. With the life that was lost, if it was this task's own.
    Seeking {
        job: Job<Option<Link>>,
        lost: Option<Lost>,
    },
    Absent,
    /// The number of the next life is being made durable (S4).
    Numbering {
        job: Job<io::Result<Incarnation>>,
        birth: Birth,
    },
    Living(Box<Living>),
    /// It ended before it answered: what it printed last is looked up, for whoever asks why.
    Reading {
        job: Job<Option<String>>,
        incarnation: Incarnation,
        cause: StopCause,
    },
}

/// A life whose guard was lost: how it will have ended if nothing of it is found, and what was to follow.
pub(super) struct Lost {
    pub(super) cause: StopCause,
    pub(super) then: Option<Birth>,
}

/// The role in which a life is to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Birth {
    pub(super) role: Role,
    pub(super) epoch: Epoch,
    /// It begins because its role changes by a restart: confirm the change once it answers.
    pub(super) by_change: bool,
}

/// One life under a guard.
pub(super) struct Living {
    pub(super) incarnation: Incarnation,
    pub(super) role: Role,
    pub(super) epoch: Epoch,
    pub(super) epoch_started: Epoch,
    /// The program has followed its latest change of role, as far as is known.
    pub(super) settled: bool,
    pub(super) link: Link,
    pub(super) pid: u32,
    /// The guard has said that it runs.
    pub(super) told_running: bool,
    /// The guard must have said something by then, or it is frozen.
    pub(super) answer_by: Option<Instant>,
    pub(super) probe: Option<Probe>,
    pub(super) ready: Option<Verdict>,
    /// It has answered its check, or may have under an agent before this one.
    pub(super) answered: bool,
    pub(super) began: SystemTime,
    /// It must have become ready by then; only for a life that this task began.
    pub(super) ready_by: Option<Instant>,
    /// It is being ended, or has begun to end.
    pub(super) ending: bool,
    /// What it ended from, where the guard cannot know.
    pub(super) cause: Option<StopCause>,
    /// The life after this one.
    pub(super) then: Option<Birth>,
    pub(super) change: Option<Change>,
}

/// A change of role under way.
pub(super) struct Change {
    pub(super) role: Role,
    pub(super) epoch: Epoch,
    pub(super) until: Instant,
    pub(super) step: Step,
}

pub(super) enum Step {
    /// The guard is being told; `hook_next`: the program only after it.
    Telling { hook_next: bool },
    /// The program is being told, by HTTP or by a command.
    Hooking(Job<Result<(), HookFailure>>),
    /// It was started again, and has not answered yet.
    Answering,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum HookFailure {
    #[error(transparent)]
    Hook(#[from] HookError),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("status {0} in answer to the change of role; it must answer with 2xx")]
    Status(u16),
}

/// What has happened in a stage.
pub(super) enum Happening {
    Sought(Option<Link>),
    Numbered(io::Result<Incarnation>),
    Heard(Option<FromGuard>),
    Judged(Verdict),
    Read(Option<String>),
    Hooked(Result<(), HookFailure>),
}

impl Stage {
    /// The next thing that happens; never, when nothing can. Cancel-safe.
    pub(super) async fn next(&mut self) -> Happening {
        match self {
            Self::Absent => std::future::pending().await,
            Self::Seeking { job, .. } => Happening::Sought(job.done().await),
            Self::Numbering { job, .. } => Happening::Numbered(job.done().await),
            Self::Living(living) => living.next().await,
            Self::Reading { job, .. } => Happening::Read(job.done().await),
        }
    }
}

impl Living {
    async fn next(&mut self) -> Happening {
        let Self { link, probe, change, .. } = self;
        let judged = async {
            match probe {
                Some(probe) => probe.changed().await,
                None => std::future::pending().await,
            }
        };
        let hooked = async {
            match change {
                Some(Change { step: Step::Hooking(job), .. }) => job.done().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            heard = link.heard() => Happening::Heard(heard),
            result = hooked => Happening::Hooked(result),
            verdict = judged => Happening::Judged(verdict),
        }
    }

    /// The next moment at which something is overdue.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        [self.answer_by, self.ready_by, self.change.as_ref().map(|change| change.until)].into_iter().flatten().min()
    }

    /// Why it is ended, in words.
    pub(super) fn never_answered(&self, limit: Duration) -> String {
        let last = match &self.ready {
            Some(Verdict::Unready(why)) => format!(": {why}"),
            _ => String::new(),
        };
        format!("no answer to its check within {} ms of its start{last}; see its log, or raise `start_timeout`", limit.as_millis())
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready == Some(Verdict::Ready)
    }
}
