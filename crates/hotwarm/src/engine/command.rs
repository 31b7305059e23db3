//! The command engine: the user's own programs start, stop, promote, demote, fence and locate a member.
//!
//! One hook at a time, each within its time limit; an order to fence does not wait for another hook, it ends it. Whether such a member
//! runs is known by its probe alone, so its end is never reported before its stop hook has confirmed it (S5), and a fence is confirmed
//! only by the hook that the user gave for it (S8). What it was told to be is on disk before it is told (S6). Main path: [`Task::run`] ->
//! `on_action` -> `work` -> `carry_out`, then `on_done`.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;

use hotwarm_core::action::{EngineAction, MemberEvent, StopCause};
use hotwarm_core::ids::{Attempt, Epoch, Incarnation, Position, Role};

use super::job::Job;
use super::place::{self, Life, Place};
use super::{Newest, SpawnSpec, View, Wires, epoch_of};
use crate::child::hook::{self, Hook};
use crate::config::{Fence, Hooks};
use crate::probe::{self, Failure, Probe, Verdict};

/// Orders that wait for the hook that runs.
const ORDERS_MAX: usize = 16;

const NO_NUMBER: &str = "position hook: it does not print one whole number";

/// How it is known whether the member is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// Its probe is asked when the agent starts; afterwards its hooks say.
    Asked,
    /// It is somebody else's, and always taken to be there.
    Assumed,
}

pub(super) struct Task {
    spec: SpawnSpec,
    hooks: Hooks,
    presence: Presence,
    place: Place,
    wires: Wires,
    life: Life,
    running: bool,
    /// How the latest life ended.
    cause: StopCause,
    newest: Newest,
    /// Its fence has confirmed since it was last told to be hot.
    fenced: bool,
    orders: VecDeque<EngineAction>,
    doing: Option<(Doing, Job<Result<String, String>>)>,
    probe: Option<Probe>,
    ready: Option<Verdict>,
}

/// What the job that runs is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Doing {
    /// Finding out whether it runs.
    Looking,
    /// Making the number of the next life durable, then running the start hook.
    Starting(Epoch),
    Stopping,
    /// Running the stop hook of one that was hot and does not answer a new agent.
    Ending,
    /// Running the stop hook after a start hook failed, for this reason.
    Clearing(String),
    Changing(Role, Epoch),
    /// Running the fence hook in the place of a hook that steps down.
    Yielding(Role, Epoch),
    Fencing(Epoch),
    Positioning(Attempt),
}

impl Doing {
    /// The name of the hook that it runs, as the configuration has it.
    const fn hook(&self) -> &'static str {
        match self {
            Self::Looking => "check",
            Self::Starting(_) => "start",
            Self::Stopping | Self::Ending | Self::Clearing(_) => "stop",
            Self::Changing(Role::Hot, _) => "promote",
            Self::Changing(..) => "demote",
            Self::Yielding(..) | Self::Fencing(_) => "fence",
            Self::Positioning(_) => "position",
        }
    }
}

impl Task {
    pub(super) fn new(spec: SpawnSpec, hooks: Hooks, presence: Presence, wires: Wires) -> Self {
        let place = Place::of(&spec.data, &spec.member);
        let (role, epoch) = place::told_role(&place);
        let life = Life { incarnation: place::last_incarnation(&place), role, epoch };
        Self {
            spec,
            hooks,
            presence,
            place,
            wires,
            life,
            running: false,
            cause: StopCause::Absent,
            newest: Newest(epoch),
            fenced: false,
            orders: VecDeque::new(),
            doing: None,
            probe: None,
            ready: None,
        }
    }

    /// Until the agent drops its handle. The member lives on.
    pub(super) async fn run(mut self) {
        let _kept = self.spec.outputs.keep(&self.place);
        self.look();
        loop {
            let Self { wires, doing, probe, .. } = &mut self;
            let done = async {
                match doing {
                    Some((_, job)) => job.done().await,
                    None => std::future::pending().await,
                }
            };
            let judged = async {
                match probe {
                    Some(probe) => probe.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                action = wires.actions.recv() => match action {
                    Some(action) => self.on_action(action),
                    None => return,
                },
                result = done => self.on_done(result),
                verdict = judged => {
                    self.ready = Some(verdict);
                    self.tell_verdict();
                }
                () = wires.outbox.deliver() => {}
            }
            self.work();
            self.show();
        }
    }

    fn look(&mut self) {
        let presence = self.presence;
        let (place, lives, probe) = (self.place.clone(), self.spec.lives, self.probe_spec());
        let known = self.life.incarnation != Incarnation(0);
        // One failed check is no verdict, and what follows from it ends a member that was hot.
        let times = if self.was_hot() { probe.check.fall } else { 1 };
        let job = Job::spawn(async move {
            let answers = match presence {
                Presence::Assumed => true,
                Presence::Asked => is_there(&probe, times).await,
            };
            match (answers, known) {
                (false, _) => Err("not found running".to_owned()),
                // S4: as far as anybody knows it is the same life.
                (true, true) => Ok(String::new()),
                (true, false) => number(place, lives).await,
            }
        });
        self.doing = Some((Doing::Looking, job));
    }

    fn was_hot(&self) -> bool {
        self.life.incarnation != Incarnation(0) && self.life.role == Role::Hot
    }

    fn on_action(&mut self, action: EngineAction) {
        // Nobody here could keep a deadline: there is no guard, and the router's own lease gates the member (S8).
        if matches!(action, EngineAction::Deadline { .. }) || self.is_refused(&action) {
            return;
        }
        if let Some(epoch) = epoch_of(&action) {
            self.newest.see(epoch);
        }
        if self.orders.is_empty() && self.is_doing(&action) {
            return;
        }
        let fences = |action: &EngineAction| matches!(action, EngineAction::Fence { .. });
        if fences(&action) || matches!(action, EngineAction::Stop { .. }) {
            self.orders.retain(fences);
        }
        let now = self.doing.as_ref().map(|(doing, _)| doing);
        let lets = matches!(now, None | Some(Doing::Looking | Doing::Fencing(_) | Doing::Yielding(..) | Doing::Stopping | Doing::Ending));
        if fences(&action) && !lets {
            // Ends the hook that runs, with its process group.
            if let Some((doing, _)) = self.doing.take() {
                self.on_cut(&doing);
            }
        }
        if self.orders.back() != Some(&action) {
            self.orders.push_back(action);
        }
        if self.orders.len() > ORDERS_MAX {
            self.orders.pop_front();
        }
    }

    /// What is told again while it is done is answered when it is done; a hook is not run twice for it.
    fn is_doing(&self, action: &EngineAction) -> bool {
        match (self.doing.as_ref().map(|(doing, _)| doing), action) {
            (Some(Doing::Starting(doing)), EngineAction::Start { epoch })
            | (Some(Doing::Changing(Role::Hot, doing)), EngineAction::Promote { epoch, .. })
            | (Some(Doing::Changing(Role::Warm, doing) | Doing::Yielding(_, doing)), EngineAction::Demote { epoch })
            | (Some(Doing::Fencing(doing)), EngineAction::Fence { epoch }) => doing == epoch,
            (Some(Doing::Positioning(doing)), EngineAction::Detach { attempt, .. }) => doing == attempt,
            (Some(Doing::Stopping | Doing::Ending), EngineAction::Stop { .. }) => true,
            _ => false,
        }
    }

    fn is_refused(&mut self, action: &EngineAction) -> bool {
        let refusal = self.newest.refusal(action, self.life.incarnation);
        refusal.map(|event| self.wires.outbox.put(event)).is_some()
    }

    fn on_cut(&mut self, doing: &Doing) {
        match doing {
            Doing::Changing(role, epoch) => self.fail(*role, *epoch, "the member was told to be fenced".to_owned()),
            // It may have started already: it is treated as running, so that the fence is asked for.
            Doing::Starting(epoch) => self.left(*epoch, "it was told to be fenced while it started".to_owned()),
            Doing::Clearing(why) => self.left(self.life.epoch, format!("{why}; it was told to be fenced while its stop hook ran")),
            _ => {}
        }
    }

    fn work(&mut self) {
        while self.doing.is_none() {
            let Some(order) = self.orders.pop_front() else { return };
            if !self.is_refused(&order) {
                self.carry_out(&order);
            }
        }
    }

    fn carry_out(&mut self, order: &EngineAction) {
        let incarnation = self.life.incarnation;
        match order {
            EngineAction::Start { .. } if self.running => {
                self.tell_started();
                self.tell_verdict();
            }
            EngineAction::Start { epoch } => self.start(*epoch),
            EngineAction::Stop { .. } => self.stop(),
            EngineAction::Fence { epoch } => self.fence(*epoch),
            EngineAction::Promote { epoch, .. } => self.change(Role::Hot, *epoch),
            EngineAction::Demote { epoch } => self.change(Role::Warm, *epoch),
            EngineAction::Detach { attempt, .. } => match self.hooks.position.clone() {
                Some(argv) => self.begin(Doing::Positioning(*attempt), argv, self.life, true),
                None => self.wires.outbox.put(MemberEvent::Position { incarnation, attempt: *attempt, position: Position(0) }),
            },
            EngineAction::Follow { .. } | EngineAction::Deadline { .. } => {}
        }
    }

    fn start(&mut self, epoch: Epoch) {
        let (place, lives, argv) = (self.place.clone(), self.spec.lives, self.hooks.start.clone());
        let life = Life { incarnation: self.life.incarnation, role: Role::Warm, epoch };
        let mut hook = self.hook(argv.clone().unwrap_or_default(), life, false);
        let (spec, env) = (self.spec.clone(), BTreeMap::new());
        let job = Job::spawn(async move {
            store_role(place.clone(), Role::Warm, epoch).await?;
            let number = number(place, lives).await?;
            if argv.is_some() {
                let incarnation = Incarnation(number.parse().unwrap_or(0));
                hook.env = place::environment(&spec.member, spec.config.address, Life { incarnation, ..life }, &env);
                // The number is on disk even if the hook fails: the next life has another.
                hook::run(&hook).await.map_err(|e| e.of("start"))?;
            }
            Ok(number)
        });
        self.doing = Some((Doing::Starting(epoch), job));
    }

    fn stop(&mut self) {
        match self.hooks.stop.clone() {
            // Run also when it is not known to run: what the probe did not see may be there.
            Some(argv) => self.begin(Doing::Stopping, argv, self.life, false),
            None if !self.running => self.tell_stopped(),
            None => {
                let why = "no way to stop this member: give its group a `stop` hook, or stop it by hand".to_owned();
                self.fail(self.life.role, self.newest.0, why);
            }
        }
    }

    /// S8: only what the user gave for it can confirm that the member serves no more.
    fn fence(&mut self, epoch: Epoch) {
        match fence_command(&self.spec, &self.hooks) {
            Some(argv) => self.begin(Doing::Fencing(epoch), argv, Life { epoch, ..self.life }, false),
            None if self.spec.group.fence == Fence::Supervisor => self.stop(),
            None => {
                let incarnation = self.life.incarnation;
                self.wires.outbox.put(MemberEvent::Fenced { incarnation, epoch });
            }
        }
    }

    fn change(&mut self, role: Role, epoch: Epoch) {
        if !self.running {
            return self.fail(role, epoch, "a member that does not run: start it first".to_owned());
        }
        if role == Role::Hot && self.is_left() {
            return self.fail(role, epoch, "a member that did not start, and could not be stopped: stop it first".to_owned());
        }
        let hook = if role == Role::Hot { &self.hooks.promote } else { &self.hooks.demote };
        // S8: without a hook that steps down, only its fence confirms that it serves no more what it was told. An order of a later epoch
        // says that the group has that proof already, for nobody is promised an epoch before (S6).
        let serves = self.life.role == Role::Hot && !self.fenced && epoch <= self.life.epoch;
        if role != Role::Hot
            && hook.is_none()
            && serves
            && let Some(argv) = fence_command(&self.spec, &self.hooks)
        {
            return self.begin(Doing::Yielding(role, epoch), argv, Life { epoch: epoch.next(), ..self.life }, false);
        }
        let life = Life { role, epoch, ..self.life };
        let (place, hook) = (self.place.clone(), hook.clone().map(|argv| self.hook(argv, life, false)));
        if role == Role::Hot {
            // S6: from here on it may be hot, whatever becomes of the hook.
            self.life = life;
            self.fenced = false;
        }
        let job = Job::spawn(async move {
            if role == Role::Hot {
                store_role(place.clone(), role, epoch).await?;
            }
            if let Some(hook) = hook {
                hook::run(&hook).await.map_err(|e| e.of(Doing::Changing(role, epoch).hook()))?;
            }
            if role != Role::Hot {
                store_role(place, role, epoch).await?;
            }
            Ok(String::new())
        });
        self.doing = Some((Doing::Changing(role, epoch), job));
    }

    fn begin(&mut self, doing: Doing, argv: Vec<String>, life: Life, answers: bool) {
        let hook = self.hook(argv, life, answers);
        let name = doing.hook();
        let job = Job::spawn(async move { hook::run(&hook).await.map_err(|e| e.of(name)) });
        self.doing = Some((doing, job));
    }

    fn hook(&self, argv: Vec<String>, life: Life, answers: bool) -> Hook {
        let env = place::environment(&self.spec.member, self.spec.config.address, life, &BTreeMap::new());
        let (user, timeout) = (self.hooks.user.clone(), self.hooks.timeout);
        // Without its directory there is no log; the hook matters more than its output.
        let output = self.place.make().is_ok().then(|| self.place.output());
        Hook { argv, env, user, timeout, output, answers }
    }

    fn on_done(&mut self, result: Result<String, String>) {
        let Some((doing, _)) = self.doing.take() else { return };
        let incarnation = self.life.incarnation;
        self.note(&doing, &result);
        match (doing, result) {
            (Doing::Looking, Ok(number)) => {
                self.life.incarnation = number.parse().map_or(incarnation, Incarnation);
                self.begin_life();
            }
            (Doing::Looking, Err(why)) if self.presence == Presence::Assumed => {
                tracing::warn!(member = %self.spec.member, why, "an external member has no number for this life of the agent yet");
                self.retry_looking();
            }
            (Doing::Looking, Err(_)) if self.was_hot() => self.end_silent(),
            (Doing::Looking, Err(_)) => self.tell_stopped(),
            (Doing::Ending, Err(why)) => {
                tracing::warn!(member = %self.spec.member, why, "a member that was hot does not answer and cannot be stopped; its fence decides");
                self.begin_life();
            }
            (Doing::Starting(epoch), Ok(number)) => {
                let incarnation = number.parse().map_or(incarnation, Incarnation);
                self.life = Life { incarnation, role: Role::Warm, epoch };
                self.begin_life();
            }
            (Doing::Starting(epoch), Err(why)) => {
                let last = place::last_incarnation(&self.place);
                // Without a number of its own it was not begun.
                let begun = last != incarnation;
                self.life = Life { incarnation: last, role: Role::Warm, epoch };
                match self.hooks.stop.clone().filter(|_| begun) {
                    // S5: what failed may have left something running.
                    Some(argv) => self.begin(Doing::Clearing(why), argv, self.life, false),
                    None => self.tell_not_started(why),
                }
            }
            (Doing::Clearing(why), Ok(_)) => self.tell_not_started(why),
            (Doing::Clearing(start), Err(why)) => {
                self.left(self.life.epoch, format!("{start}; and what it may have left could not be stopped: {why}"));
            }
            (Doing::Stopping | Doing::Ending, Ok(_)) => {
                self.cause = StopCause::Asked;
                self.tell_stopped();
            }
            (Doing::Stopping, Err(why)) => self.fail(self.life.role, self.newest.0, why),
            (Doing::Changing(role, epoch), Ok(_)) => {
                (self.life.role, self.life.epoch) = (role, epoch);
                self.wires.outbox.put(MemberEvent::RoleChanged { incarnation, role, epoch });
            }
            (Doing::Changing(role, epoch) | Doing::Yielding(role, epoch), Err(why)) => self.fail(role, epoch, why),
            (Doing::Yielding(role, epoch), Ok(_)) => {
                self.fenced = true;
                self.wires.outbox.put(MemberEvent::Fenced { incarnation, epoch: epoch.next() });
                // What is left of the change: to remember it, and to say so.
                self.change(role, epoch);
            }
            (Doing::Fencing(epoch), Ok(_)) => {
                self.fenced = true;
                self.wires.outbox.put(MemberEvent::Fenced { incarnation, epoch });
            }
            (Doing::Fencing(epoch), Err(why)) => self.fail(self.life.role, epoch, why),
            (Doing::Positioning(attempt), Ok(text)) => match text.trim().parse() {
                Ok(position) => {
                    self.wires.outbox.put(MemberEvent::Position { incarnation, attempt, position: Position(position) });
                }
                Err(_) => self.fail(self.life.role, self.newest.0, NO_NUMBER.to_owned()),
            },
            (Doing::Positioning(_), Err(why)) => self.fail(self.life.role, self.newest.0, why),
        }
    }

    /// People are to know which hook fails, and how.
    fn note(&self, doing: &Doing, result: &Result<String, String>) {
        let (failures, member) = (&self.spec.failures, &self.spec.member);
        match result {
            _ if *doing == Doing::Looking => {}
            Ok(text) if matches!(doing, Doing::Positioning(_)) && text.trim().parse::<u64>().is_err() => {
                failures.failed(member, doing.hook(), NO_NUMBER);
            }
            Ok(_) => failures.worked(member, doing.hook()),
            Err(why) => failures.failed(member, doing.hook(), why),
        }
    }

    /// S5: it was told to be hot, and its check fails: it may be there all the same. Its stop hook says that it is not, or it counts as
    /// one that runs and does not answer.
    fn end_silent(&mut self) {
        match self.hooks.stop.clone() {
            Some(argv) => self.begin(Doing::Ending, argv, self.life, false),
            None => self.begin_life(),
        }
    }

    /// S5: a start that failed may have left something, and no hook has stopped that. It runs as far as is known, as the life that was
    /// begun, and is not ready, whatever answers at its address: no probe asks. It is stopped like one that hangs.
    fn left(&mut self, epoch: Epoch, why: String) {
        self.life = Life { incarnation: place::last_incarnation(&self.place), role: Role::Warm, epoch };
        self.running = true;
        self.probe = None;
        self.ready = Some(Verdict::Unready(why));
        self.tell_started();
        self.tell_verdict();
    }

    /// See [`Self::left`].
    const fn is_left(&self) -> bool {
        self.running && self.probe.is_none()
    }

    fn retry_looking(&mut self) {
        let (place, lives) = (self.place.clone(), self.spec.lives);
        let job = Job::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            number(place, lives).await
        });
        self.doing = Some((Doing::Looking, job));
    }

    fn begin_life(&mut self) {
        self.running = true;
        self.ready = None;
        self.probe = Some(probe::spawn(self.probe_spec(), self.wires.control.clone()));
        self.tell_started();
    }

    fn probe_spec(&self) -> probe::Spec {
        let address = self.spec.config.address;
        probe::Spec {
            check: self.spec.group.check.clone(),
            address,
            env: place::environment(&self.spec.member, address, self.life, &BTreeMap::new()),
            user: self.hooks.user.clone(),
            local: self.presence == Presence::Asked || address.ip().is_loopback(),
            seed: self.life.incarnation.0 ^ u64::from(address.port()).rotate_left(32),
        }
    }

    fn tell_started(&mut self) {
        let Life { incarnation, role, epoch } = self.life;
        self.wires.outbox.put(MemberEvent::Started { incarnation, role, epoch });
    }

    fn tell_stopped(&mut self) {
        self.running = false;
        self.probe = None;
        self.ready = None;
        let (incarnation, cause) = (self.life.incarnation, self.cause.clone());
        self.wires.outbox.put(MemberEvent::Stopped { incarnation, cause });
    }

    fn tell_not_started(&mut self, why: String) {
        self.cause = StopCause::NotStarted(why);
        self.tell_stopped();
    }

    fn tell_verdict(&mut self) {
        let incarnation = self.life.incarnation;
        match self.ready.clone() {
            Some(Verdict::Ready) => self.wires.outbox.put(MemberEvent::Ready { incarnation }),
            Some(Verdict::Unready(why)) => self.wires.outbox.put(MemberEvent::Unready { incarnation, why }),
            None => {}
        }
    }

    fn fail(&mut self, role: Role, epoch: Epoch, why: String) {
        let incarnation = self.life.incarnation;
        self.wires.outbox.put(MemberEvent::RoleFailed { incarnation, role, epoch, why });
    }

    fn show(&self) {
        if matches!(self.doing, Some((Doing::Looking, _))) {
            // Not known yet.
            return;
        }
        let Life { incarnation, role, epoch } = self.life;
        let role = if self.running { role } else { Role::Spare };
        let ready = self.ready.as_ref().map(|verdict| *verdict == Verdict::Ready);
        let view = View { incarnation, running: self.running, pid: None, role, epoch, ready };
        self.wires.view.send_if_modified(|known| std::mem::replace(known, view.clone()) != view);
    }
}

/// What confirms that a member of the group serves no more, if the user gave a command for it.
pub(super) fn fence_command(spec: &SpawnSpec, hooks: &Hooks) -> Option<Vec<String>> {
    match (&hooks.fence, &spec.group.fence) {
        (Some(argv), _) | (None, Fence::Command(argv)) => Some(argv.clone()),
        (None, Fence::RouterOnly | Fence::Supervisor) => None,
    }
}

/// False if that many looks in a row say that there is nobody; whoever is silent is there, and hangs.
async fn is_there(probe: &probe::Spec, times: u32) -> bool {
    for look in 0..times.max(1) {
        if look > 0 {
            tokio::time::sleep(probe.check.every).await;
        }
        if !matches!(probe::once(probe).await, Err(Failure::Refused | Failure::Connect(_) | Failure::Command(_))) {
            return true;
        }
    }
    false
}

/// The number of a new life, durable (S4), as text: what every job answers with.
async fn number(place: Place, lives: place::Lives) -> Result<String, String> {
    let dir: PathBuf = place.dir.clone();
    let stored = blocking(move || place::next_incarnation(&place, lives)).await;
    stored.map(|incarnation| incarnation.to_string()).map_err(|e| {
        format!("the number of the next life could not be stored in {}: {e}; check the disk of the data directory", dir.display())
    })
}

async fn store_role(place: Place, role: Role, epoch: Epoch) -> Result<(), String> {
    let dir: PathBuf = place.dir.clone();
    let stored = blocking(move || place::store_told_role(&place, role, epoch)).await;
    stored.map_err(|e| format!("the member's role could not be stored in {}: {e}; check the disk of the data directory", dir.display()))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(io::Error::other(e)))
}
