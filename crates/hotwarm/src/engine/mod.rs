//! What runs members: one engine a kind, each member in a task of its own, all behind [`Handle`].
//!
//! An engine does what it is told and says what became of it; it decides nothing about roles, nor when to start again. It must never
//! block the caller, and it must never report `Stopped` while anything of the member is left (S5). The main path: [`spawn`] ->
//! `process`, `external` or `command`.

use std::path::PathBuf;
use std::sync::Arc;

use hotwarm_core::action::{EngineAction, MemberEvent};
use hotwarm_core::ids::{Epoch, Incarnation, MemberId, Role};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::config::{Engine, Group, Member};
use crate::probe::Control;

mod command;
mod external;
pub mod failures;
pub mod foreign;
mod job;
mod leftover;
mod link;
pub mod logs;
mod outbox;
mod place;
mod process;
pub mod stray;

pub use place::{Lives, Place};

/// Actions that may wait for a member's task, which takes them at once.
const ACTIONS_MAX: usize = 64;

/// The agent's end of one running member task. The task ends when this is dropped; the member lives on, to be adopted by the next agent:
/// whoever wants it ended says `Stop` first and waits for `Stopped`.
#[derive(Debug)]
pub struct Handle {
    pub member: MemberId,
    pub actions: mpsc::Sender<EngineAction>,
    /// Steers the member's probe.
    pub control: Control,
    /// What is known of the member now, for people and for tests.
    pub view: watch::Receiver<View>,
    task: JoinHandle<()>,
}

/// Where member tasks report; shared by all members of a node.
pub type Events = mpsc::Sender<(MemberId, MemberEvent)>;

/// What is to be run, and where.
#[derive(Clone, Debug)]
pub struct SpawnSpec {
    pub member: MemberId,
    pub group: Arc<Group>,
    pub config: Member,
    /// The node's data directory.
    pub data: PathBuf,
    /// The program that is executed with the argument `guard`: `/proc/self/exe`, or the built program in tests.
    pub exe: PathBuf,
    /// What its incarnations are made of.
    pub lives: Lives,
    /// Where hooks that fail are told.
    pub failures: failures::Failures,
    /// Where what they print is kept bounded.
    pub outputs: logs::Outputs,
}

/// A member as its engine sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub incarnation: Incarnation,
    pub running: bool,
    /// Of the program itself, if it runs and hotwarm started it.
    pub pid: Option<u32>,
    pub role: Role,
    pub epoch: Epoch,
    /// The probe's verdict; `None` before the first.
    pub ready: Option<bool>,
}

impl Default for View {
    fn default() -> Self {
        Self { incarnation: Incarnation(0), running: false, pid: None, role: Role::Spare, epoch: Epoch(0), ready: None }
    }
}

/// Starts the task of one member on the current runtime. It first finds out what runs already, and reports that.
#[must_use]
pub fn spawn(spec: SpawnSpec, events: Events) -> Handle {
    begin(spec, events, None)
}

/// As [`spawn`], for a member that `before` has run so far: it begins when that task has returned, for two that look at the member's
/// directory at once could each take the other's half-born life for none.
#[must_use]
pub fn spawn_after(spec: SpawnSpec, events: Events, before: Handle) -> Handle {
    begin(spec, events, Some(before))
}

fn begin(spec: SpawnSpec, events: Events, before: Option<Handle>) -> Handle {
    let (actions, inbox) = mpsc::channel(ACTIONS_MAX);
    let control = Control::default();
    // What was known holds until the new task has found out: a member that only changes hands has not stopped meanwhile.
    let known = before.as_ref().map(|before| before.view.borrow().clone()).unwrap_or_default();
    let (view, seen) = watch::channel(known);
    let (member, steers) = (spec.member.clone(), control.clone());
    let wires = Wires { actions: inbox, outbox: outbox::Outbox::new(spec.member.clone(), events), control, view };
    let task = tokio::spawn(async move {
        if let Some(Handle { actions, task, .. }) = before {
            drop(actions);
            // However it ended, it runs no more.
            let _ = task.await;
        }
        match spec.group.engine.clone() {
            Engine::Process(process) => process::Task::new(spec, process, wires).run().await,
            Engine::External => external::task(spec, wires).run().await,
            Engine::Command(hooks) => command::Task::new(spec, hooks, command::Presence::Asked, wires).run().await,
        }
    });
    Handle { member, actions, control: steers, view: seen, task }
}

/// A member task's ends of its channels.
#[derive(Debug)]
struct Wires {
    actions: mpsc::Receiver<EngineAction>,
    outbox: outbox::Outbox,
    control: Control,
    view: watch::Sender<View>,
}

/// The epoch that an action belongs to, if it belongs to one.
const fn epoch_of(action: &EngineAction) -> Option<Epoch> {
    match action {
        EngineAction::Start { epoch }
        | EngineAction::Promote { epoch, .. }
        | EngineAction::Demote { epoch }
        | EngineAction::Fence { epoch }
        | EngineAction::Detach { epoch, .. }
        | EngineAction::Follow { epoch } => Some(*epoch),
        EngineAction::Stop { .. } | EngineAction::Deadline { .. } => None,
    }
}

/// The newest epoch that a member has seen: whoever comes with an older one is refused.
#[derive(Clone, Copy, Debug, Default)]
struct Newest(Epoch);

impl Newest {
    fn see(&mut self, epoch: Epoch) {
        self.0 = self.0.max(epoch);
    }

    /// The refusal of `action`, if it is older than what has been seen. A start is never refused: it begins a warm life, and that of a
    /// candidate whose hot life could not begin is of the epoch before the one it was told (S6).
    fn refusal(&self, action: &EngineAction, incarnation: Incarnation) -> Option<MemberEvent> {
        if matches!(action, EngineAction::Start { .. }) {
            return None;
        }
        let epoch = epoch_of(action).filter(|epoch| *epoch < self.0)?;
        let role = if matches!(action, EngineAction::Promote { .. }) { Role::Hot } else { Role::Warm };
        let why = format!("an order of epoch {epoch}, older than {}, which this member has seen", self.0);
        Some(MemberEvent::RoleFailed { incarnation, role, epoch, why })
    }
}
