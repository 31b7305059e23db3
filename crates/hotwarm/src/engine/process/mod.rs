//! The process engine: a supervised program under a guard.
//!
//! One task a member. It never waits for anything but its own channels, so that a deadline goes to the guard while a hook hangs, a disk
//! stalls or the agent is slow to listen. Actions are level-triggered: told twice, confirmed twice. It never starts a member by itself,
//! and never reports one stopped before its guard has seen the last of its processes end (S5), or, where the guard itself was killed,
//! before nothing with the life's mark is found. Main path: [`Task::run`] -> `on_action` -> `work`, and `on_happening`.

mod change;
mod failing;
mod stage;

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hotwarm_core::action::{EngineAction, MemberEvent, StopCause};
use hotwarm_core::ids::{Epoch, Incarnation, Mono, Position, Role};
use tokio::time::{Instant, sleep_until};

use self::stage::{Birth, Change, Happening, Living, Lost, Stage, Step};
use super::job::Job;
use super::leftover::Mark;
use super::link::Link;
use super::place::{self, Life, Place};
use super::{Newest, SpawnSpec, View, Wires, epoch_of, leftover};
use crate::config::{Process, RoleChange};
use crate::fence::guard::frame::{FromGuard, Spec, State, Status, ToGuard};
use crate::probe::{self, Verdict};

/// How long a guard may be silent where it must answer. It answers in microseconds; one that does not is frozen.
const GUARD_TIMEOUT: Duration = Duration::from_secs(5);
/// The same from its start on: its program may have to come from a slow disk.
const BIRTH_TIMEOUT: Duration = Duration::from_secs(15);
/// After so many rounds in which a guard that lives is not met, that is said.
const MEETINGS_QUIET: u32 = 250;
/// How often a guard that lives and cannot be met is tried again.
const MEET_AGAIN: Duration = Duration::from_millis(20);
/// Orders that wait while the member is between two lives.
const ORDERS_MAX: usize = 16;
/// How a life ends whose guard was killed: its program dies with it by the death signal.
const KILLED_WITH_ITS_GUARD: StopCause = StopCause::Signal(9);

pub(super) struct Task {
    spec: SpawnSpec,
    process: Process,
    place: Place,
    wires: Wires,
    stage: Stage,
    orders: VecDeque<EngineAction>,
    newest: Newest,
    /// The latest deadline the agent gave; a new life starts under it.
    deadline: Option<Mono>,
    /// The latest life and how it ended: what an order to end a member that does not run is answered with.
    last: (Incarnation, StopCause),
    /// The newest life that was told to have ended.
    gone: Option<Incarnation>,
    numbering: Arc<Mutex<()>>,
}

impl Task {
    pub(super) fn new(spec: SpawnSpec, process: Process, wires: Wires) -> Self {
        let place = Place::of(&spec.data, &spec.member);
        let last = (place::last_incarnation(&place), StopCause::Absent);
        Self {
            spec,
            process,
            place,
            wires,
            stage: Stage::Absent,
            orders: VecDeque::new(),
            newest: Newest::default(),
            deadline: None,
            last,
            gone: None,
            numbering: Arc::default(),
        }
    }

    /// Until the agent drops its handle. The member and its guard live on.
    pub(super) async fn run(mut self) {
        let _kept = self.spec.outputs.keep(&self.place);
        self.seek(None);
        loop {
            let wake = if let Stage::Living(living) = &self.stage { living.wake_at() } else { None };
            let overdue = async {
                match wake {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                action = self.wires.actions.recv() => match action {
                    Some(action) => self.on_action(action),
                    None => return self.hand_over().await,
                },
                happening = self.stage.next() => self.on_happening(happening),
                () = self.wires.outbox.deliver() => {}
                () = overdue => self.on_time(),
            }
            self.work();
            self.show();
        }
    }

    /// The agent has let go of the member. A life that is being born is waited for, so that whoever comes next finds all of it or nothing.
    async fn hand_over(mut self) {
        let settled = async {
            loop {
                match &mut self.stage {
                    Stage::Numbering { job, .. } => return drop(job.done().await),
                    Stage::Living(living) if !living.told_running => match living.link.heard().await {
                        Some(FromGuard::Status(_)) | None => return,
                        Some(FromGuard::Told { .. }) => {}
                    },
                    _ => return,
                }
            }
        };
        if tokio::time::timeout(BIRTH_TIMEOUT, settled).await.is_err()
            && let Stage::Living(living) = &self.stage
        {
            living.link.kill_guard();
        }
    }

    fn on_action(&mut self, action: EngineAction) {
        if let EngineAction::Deadline { until } = action {
            self.deadline = until;
            if let Stage::Living(living) = &self.stage {
                living.link.set_deadline(until);
            }
            return;
        }
        if self.is_refused(&action) {
            return;
        }
        if let Some(epoch) = epoch_of(&action) {
            self.newest.see(epoch);
        }
        let ends = |action: &EngineAction| matches!(action, EngineAction::Stop { .. } | EngineAction::Fence { .. });
        if ends(&action) {
            // What was to come before it has lost its meaning.
            self.orders.retain(ends);
        }
        if self.orders.back() != Some(&action) {
            self.orders.push_back(action);
        }
        if self.orders.len() > ORDERS_MAX {
            self.orders.pop_front();
        }
    }

    /// Refuses what is older than an epoch already seen.
    fn is_refused(&mut self, action: &EngineAction) -> bool {
        let refusal = self.newest.refusal(action, self.incarnation());
        refusal.map(|event| self.wires.outbox.put(event)).is_some()
    }

    fn incarnation(&self) -> Incarnation {
        if let Stage::Living(living) = &self.stage { living.incarnation } else { self.last.0 }
    }

    /// Carries out the orders that can be carried out now, in their order.
    fn work(&mut self) {
        while let Some(order) = self.orders.front() {
            let takes = match &self.stage {
                Stage::Seeking { .. } | Stage::Reading { .. } => false,
                Stage::Absent => true,
                Stage::Numbering { .. } => matches!(order, EngineAction::Stop { .. } | EngineAction::Fence { .. }),
                Stage::Living(living) => living.takes(order),
            };
            if !takes {
                return;
            }
            let Some(order) = self.orders.pop_front() else { return };
            // Seen again, for an adopted member may have brought a newer epoch.
            if !self.is_refused(&order) {
                self.carry_out(&order);
            }
        }
    }

    fn carry_out(&mut self, order: &EngineAction) {
        match order {
            EngineAction::Start { epoch } => self.start(*epoch),
            EngineAction::Stop { graceful } => {
                if !graceful {
                    self.note_hung();
                }
                self.stop(*graceful);
            }
            EngineAction::Promote { epoch, .. } => self.change(Role::Hot, *epoch),
            EngineAction::Demote { epoch } => self.change(Role::Warm, *epoch),
            EngineAction::Fence { epoch } => self.fence(*epoch),
            EngineAction::Detach { attempt, .. } => {
                // A process keeps no data that hotwarm knows: every member is equally far.
                let (incarnation, attempt) = (self.incarnation(), *attempt);
                self.wires.outbox.put(MemberEvent::Position { incarnation, attempt, position: Position(0) });
            }
            EngineAction::Follow { .. } | EngineAction::Deadline { .. } => {}
        }
    }

    fn start(&mut self, epoch: Epoch) {
        match &self.stage {
            Stage::Living(living) => {
                let (incarnation, role, epoch) = (living.incarnation, living.role, living.epoch);
                self.wires.outbox.put(MemberEvent::Started { incarnation, role, epoch });
                self.tell_verdict();
            }
            Stage::Absent => self.begin_birth(Birth { role: Role::Warm, epoch, by_change: false }),
            Stage::Seeking { .. } | Stage::Numbering { .. } | Stage::Reading { .. } => {}
        }
    }

    fn stop(&mut self, graceful: bool) {
        match &mut self.stage {
            Stage::Living(living) => {
                living.then = None;
                self.end_change(Err("the member was told to end".to_owned()));
                self.end_life(graceful);
            }
            Stage::Absent | Stage::Numbering { .. } => {
                // A life that has no number yet has not begun.
                self.stage = Stage::Absent;
                let (incarnation, cause) = self.last.clone();
                self.wires.outbox.put(MemberEvent::Stopped { incarnation, cause });
            }
            Stage::Seeking { .. } | Stage::Reading { .. } => {}
        }
    }

    /// S5: the whole tree, at once, and confirmed when it is empty. A life that began under this epoch or a later one never served for an
    /// earlier one: an order that is merely told again does not end it.
    fn fence(&mut self, epoch: Epoch) {
        match &self.stage {
            Stage::Living(living) if living.epoch_started >= epoch && living.told_running && !living.ending => {
                let incarnation = living.incarnation;
                self.wires.outbox.put(MemberEvent::Fenced { incarnation, epoch });
            }
            _ => self.stop(false),
        }
    }

    fn change(&mut self, role: Role, epoch: Epoch) {
        if matches!(self.stage, Stage::Living(_)) {
            return self.begin_change(role, epoch);
        }
        let incarnation = self.last.0;
        let why = "a member that does not run: start it first".to_owned();
        self.wires.outbox.put(MemberEvent::RoleFailed { incarnation, role, epoch, why });
    }

    fn end_life(&mut self, graceful: bool) {
        let grace = if graceful { self.process.grace } else { Duration::ZERO };
        let Stage::Living(living) = &mut self.stage else { return };
        living.link.send(ToGuard::Stop { grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX) });
        living.ending = true;
        living.probe = None;
        living.ready_by = None;
        living.answer_by.get_or_insert_with(|| Instant::now() + GUARD_TIMEOUT);
    }

    fn begin_birth(&mut self, birth: Birth) {
        let (place, lives, one) = (self.place.clone(), self.spec.lives, Arc::clone(&self.numbering));
        let work = move || {
            // One at a time: a write that was given up by an order to stop may still hang at the disk.
            let _one = one.lock().unwrap_or_else(PoisonError::into_inner);
            place::next_incarnation(&place, lives)
        };
        let job = Job::spawn(async move { tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(io::Error::other(e))) });
        self.stage = Stage::Numbering { job, birth };
    }

    fn seek(&mut self, lost: Option<Lost>) {
        let (place, member, incarnation) = (self.place.clone(), self.spec.member.clone(), self.incarnation());
        let address = self.spec.config.address;
        self.last.0 = incarnation;
        let job = Job::spawn(async move {
            for round in 0_u32.. {
                if let Ok(link) = Link::meet(&place.dir).await {
                    return Some(link);
                }
                if leftover::guard_is_dead(&place.dir).await {
                    leftover::clear(&place, &Mark::new(&member, incarnation, Some(address))).await;
                    return None;
                }
                if round == MEETINGS_QUIET {
                    let dir = place.dir.display();
                    tracing::warn!(%member, "a guard lives that does not answer at {dir}/guard.sock; the member waits for it to answer or end");
                }
                tokio::time::sleep(MEET_AGAIN).await;
            }
            None
        });
        self.stage = Stage::Seeking { job, lost };
    }

    fn on_happening(&mut self, happening: Happening) {
        match happening {
            Happening::Sought(found) => self.on_sought(found),
            Happening::Numbered(number) => self.on_numbered(number),
            Happening::Heard(Some(FromGuard::Status(status))) => self.on_status(&status),
            Happening::Heard(Some(FromGuard::Told { role, epoch, error })) => self.on_told(role, epoch, error),
            Happening::Heard(None) => self.on_lost(),
            Happening::Judged(verdict) => self.on_verdict(verdict),
            Happening::Read(line) => self.on_read(line),
            Happening::Hooked(result) => self.on_hooked(result),
        }
    }

    fn on_sought(&mut self, found: Option<Link>) {
        let Stage::Seeking { lost, .. } = std::mem::replace(&mut self.stage, Stage::Absent) else { return };
        let Some(link) = found else {
            let (cause, then) = lost.map_or((StopCause::Absent, None), |lost| (lost.cause, lost.then));
            return self.on_gone(self.last.0, cause, then);
        };
        let role = Role::Warm;
        let mut living = Living::new(link, self.last.0, Birth { role, epoch: Epoch(0), by_change: false });
        // Its role comes from its guard. Whether the program followed the last change is not known: it is told again when it matters.
        living.settled = matches!(self.process.on_role_change, RoleChange::Gate | RoleChange::Restart);
        living.then = lost.and_then(|lost| lost.then);
        living.answered = true;
        if self.deadline.is_some() {
            // Given while the guard was sought. None given does not lift the one that the guard has.
            living.link.set_deadline(self.deadline);
        }
        self.stage = Stage::Living(Box::new(living));
    }

    fn on_numbered(&mut self, number: io::Result<Incarnation>) {
        let Stage::Numbering { birth, .. } = std::mem::replace(&mut self.stage, Stage::Absent) else { return };
        let refused = |why: String| StopCause::NotStarted(why);
        let incarnation = match number {
            Ok(incarnation) => incarnation,
            Err(error) => {
                let dir = self.place.dir.display();
                let why =
                    format!("the number of the next life could not be stored in {dir}: {error}; check the disk of the data directory");
                return self.on_gone(self.last.0, refused(why), None);
            }
        };
        match Link::launch(&self.spec.exe, self.guard_spec(incarnation, birth)) {
            Ok(link) => {
                let mut living = Living::new(link, incarnation, birth);
                living.ready_by = Some(Instant::now() + self.process.start_timeout);
                if birth.by_change {
                    let until = Instant::now() + self.process.start_timeout;
                    living.change = Some(Change { role: birth.role, epoch: birth.epoch, until, step: Step::Answering });
                }
                self.stage = Stage::Living(Box::new(living));
            }
            Err(error) => {
                let why = format!("the guard {} could not be started: {error}; reinstall hotwarm", self.spec.exe.display());
                self.on_gone(incarnation, refused(why), None);
            }
        }
    }

    fn guard_spec(&self, incarnation: Incarnation, birth: Birth) -> Spec {
        let life = Life { incarnation, role: birth.role, epoch: birth.epoch };
        Spec {
            member: self.spec.member.to_string(),
            incarnation,
            role: birth.role,
            epoch: birth.epoch,
            deadline: self.deadline,
            argv: self.process.argv.clone(),
            env: place::environment(&self.spec.member, self.spec.config.address, life, &self.process.env),
            directory: self.process.directory.clone(),
            user: self.process.user.clone(),
            open_files: self.process.limits.open_files,
            memory_bytes: self.process.limits.memory_bytes,
            processes: self.process.limits.processes,
            grace_ms: u64::try_from(self.process.grace.as_millis()).unwrap_or(u64::MAX),
            run_dir: self.place.dir.clone(),
        }
    }

    fn on_status(&mut self, status: &Status) {
        let Stage::Living(living) = &mut self.stage else { return };
        living.answer_by = None;
        living.incarnation = status.incarnation;
        living.pid = status.pid;
        match &status.state {
            State::Running if living.told_running => {}
            // S4: what was told to have ended must not go on under the same number. The rest of it is ended, and told once more.
            State::Running if self.gone.is_some_and(|gone| status.incarnation <= gone) => self.end_life(false),
            State::Running => {
                (living.role, living.epoch, living.epoch_started) = (status.role, status.epoch, status.epoch_started);
                living.told_running = true;
                self.newest.see(status.epoch);
                self.on_running();
            }
            State::Stopping => {
                living.told_running = true;
                living.ending = true;
                living.probe = None;
                living.ready_by = None;
                let incarnation = living.incarnation;
                // One that ends in order to begin anew in another role does not hang: that has its own limits, and must not be cut short.
                let renews = living.then.is_some_and(|birth| birth.by_change);
                if living.is_ready() && !renews {
                    let why = "the member is ending".to_owned();
                    living.ready = Some(Verdict::Unready(why.clone()));
                    self.wires.outbox.put(MemberEvent::Unready { incarnation, why });
                }
            }
            State::Gone(cause) => {
                living.link.send(ToGuard::Acknowledge);
                // S5: it may not have started because an earlier life is still guarded: that is looked for before anything is said.
                if status.pid == 0 {
                    let lost = Lost { cause: cause.clone(), then: living.then };
                    self.end_change(Err("the member did not start".to_owned()));
                    return self.seek(Some(lost));
                }
                let cause = living.cause.take().unwrap_or_else(|| cause.clone());
                let (incarnation, then) = (living.incarnation, living.then);
                let failed = matches!(cause, StopCause::Exit(_) | StopCause::Signal(_));
                if failed && !living.answered && then.is_none() {
                    return self.read_last_line(incarnation, cause);
                }
                self.on_gone(incarnation, cause, then);
            }
        }
    }

    fn on_running(&mut self) {
        let Stage::Living(living) = &mut self.stage else { return };
        let (incarnation, role, epoch) = (living.incarnation, living.role, living.epoch);
        if !living.ending {
            let life = Life { incarnation, role, epoch };
            let address = self.spec.config.address;
            let spec = probe::Spec {
                check: self.spec.group.check.clone(),
                address,
                env: place::environment(&self.spec.member, address, life, &self.process.env),
                user: self.process.user.clone(),
                local: true,
                seed: incarnation.0 ^ u64::from(address.port()).rotate_left(32),
            };
            living.probe = Some(probe::spawn(spec, self.wires.control.clone()));
        }
        self.wires.outbox.put(MemberEvent::Started { incarnation, role, epoch });
    }

    fn on_verdict(&mut self, verdict: Verdict) {
        let Stage::Living(living) = &mut self.stage else { return };
        let answers = verdict == Verdict::Ready && matches!(&living.change, Some(Change { step: Step::Answering, .. }));
        if verdict == Verdict::Ready {
            living.ready_by = None;
            living.answered = true;
        }
        living.ready = Some(verdict);
        self.tell_verdict();
        if answers {
            self.end_change(Ok(()));
        }
    }

    fn tell_verdict(&mut self) {
        let Stage::Living(living) = &self.stage else { return };
        let (incarnation, Some(verdict)) = (living.incarnation, &living.ready) else { return };
        self.wires.outbox.put(match verdict.clone() {
            Verdict::Ready => MemberEvent::Ready { incarnation },
            Verdict::Unready(why) => MemberEvent::Unready { incarnation, why },
        });
    }

    /// The line to the guard is cut: it was killed, or another agent took over. Nothing is said before it is known which (S5).
    fn on_lost(&mut self) {
        self.end_change(Err("the member's guard was lost".to_owned()));
        let Stage::Living(living) = &mut self.stage else { return };
        let ended_by_us = if living.ending { StopCause::Asked } else { KILLED_WITH_ITS_GUARD };
        let lost = Lost { cause: living.cause.take().unwrap_or(ended_by_us), then: living.then };
        self.seek(Some(lost));
    }

    /// Nothing of the life is left.
    fn on_gone(&mut self, incarnation: Incarnation, cause: StopCause, then: Option<Birth>) {
        if let StopCause::NotStarted(why) = &cause {
            tracing::warn!(member = %self.spec.member, "not started: {why}");
        }
        self.end_change(Err("the member ended".to_owned()));
        self.tell_gone(incarnation, cause, then);
    }

    fn tell_gone(&mut self, incarnation: Incarnation, cause: StopCause, then: Option<Birth>) {
        self.last = (incarnation, cause.clone());
        self.gone = self.gone.max(Some(incarnation));
        self.stage = Stage::Absent;
        // S6: who counts ends must know that another life follows, whatever ended this one.
        let cause = match &then {
            Some(Birth { role, by_change: true, .. }) => StopCause::Renewed { role: *role },
            _ => cause,
        };
        self.wires.outbox.put(MemberEvent::Stopped { incarnation, cause });
        match then {
            Some(birth) => self.begin_birth(birth),
            // The deadline was of the life that is over.
            None => self.deadline = None,
        }
    }

    fn on_time(&mut self) {
        let now = Instant::now();
        let overdue = |at: Option<Instant>| at.is_some_and(|at| now >= at);
        let Stage::Living(living) = &mut self.stage else { return };
        if overdue(living.answer_by) {
            living.answer_by = None;
            tracing::warn!(member = %self.spec.member, "the guard does not answer; it is killed, and the member with it");
            living.link.kill_guard();
        }
        if overdue(living.ready_by) {
            living.cause = Some(StopCause::NotStarted(living.never_answered(self.process.start_timeout)));
            self.end_life(false);
        }
        let Stage::Living(living) = &self.stage else { return };
        if overdue(living.change.as_ref().map(|change| change.until)) {
            let limit_ms = self.process.start_timeout.as_millis();
            self.end_change(Err(format!("a change of role that did not end within {limit_ms} ms")));
        }
    }

    fn show(&self) {
        let view = match &self.stage {
            // Whether it runs is not known before it was sought and its guard has said so.
            Stage::Seeking { lost: None, .. } => return,
            Stage::Living(living) if living.answered && !living.told_running => return,
            Stage::Living(living) => View {
                incarnation: living.incarnation,
                running: living.told_running,
                pid: (living.pid != 0).then_some(living.pid),
                role: living.role,
                epoch: living.epoch,
                ready: living.ready.as_ref().map(|verdict| *verdict == Verdict::Ready),
            },
            _ => View { incarnation: self.last.0, epoch: self.newest.0, ..View::default() },
        };
        self.wires.view.send_if_modified(|known| std::mem::replace(known, view.clone()) != view);
    }
}

impl Living {
    fn new(link: Link, incarnation: Incarnation, birth: Birth) -> Self {
        Self {
            incarnation,
            role: birth.role,
            epoch: birth.epoch,
            epoch_started: birth.epoch,
            settled: true,
            link,
            pid: 0,
            told_running: false,
            answer_by: Some(Instant::now() + BIRTH_TIMEOUT),
            probe: None,
            ready: None,
            answered: false,
            began: SystemTime::now(),
            ready_by: None,
            ending: false,
            cause: None,
            then: None,
            change: None,
        }
    }

    /// Whether `order` can be carried out now: an end always, a start or a change when nothing else is under way.
    fn takes(&self, order: &EngineAction) -> bool {
        match order {
            EngineAction::Stop { .. } | EngineAction::Fence { .. } | EngineAction::Detach { .. } | EngineAction::Follow { .. } => true,
            EngineAction::Start { .. } => self.told_running && !self.ending,
            EngineAction::Promote { .. } | EngineAction::Demote { .. } => self.told_running && !self.ending && self.change.is_none(),
            EngineAction::Deadline { .. } => true,
        }
    }
}
