//! Changing the role of a running member, in the way its group's `on_role_change` says.
//!
//! The guard hears of a promotion before the program does and of a demotion after it, so that whoever adopts the member takes it for hot
//! whenever it may be (S6). One change at a time; a newer one waits for the end or the time limit of the older. Main path:
//! [`Task::begin_change`] -> `on_told` / `on_hooked` -> `end_change`.

use hotwarm_core::action::MemberEvent;
use hotwarm_core::ids::{Epoch, Role};
use hyper::Method;
use tokio::time::Instant;

use super::super::job::Job;
use super::super::place::{self, Life};
use super::Task;
use super::stage::{Birth, Change, HookFailure, Living, Stage, Step};
use crate::child::hook::{self, Hook};
use crate::config::RoleChange;
use crate::fence::guard::frame::ToGuard;
use crate::probe::http;

impl Task {
    /// The member runs and no change is under way.
    pub(super) fn begin_change(&mut self, role: Role, epoch: Epoch) {
        let until = Instant::now() + self.process.start_timeout;
        let Stage::Living(living) = &mut self.stage else { return };
        if living.settled && (living.role, living.epoch) == (role, epoch) {
            return self.wires.outbox.put(MemberEvent::RoleChanged { incarnation: living.incarnation, role, epoch });
        }
        let promotes = role == Role::Hot;
        let step = match &self.process.on_role_change {
            RoleChange::Restart if living.role != role => {
                living.then = Some(Birth { role, epoch, by_change: true });
                return self.end_life(true);
            }
            RoleChange::Gate | RoleChange::Restart => tell(living, role, epoch, None, false),
            RoleChange::Signal(number) => tell(living, role, epoch, Some(*number), false),
            RoleChange::Http(_) | RoleChange::Command(_) if promotes => tell(living, role, epoch, None, true),
            RoleChange::Http(_) | RoleChange::Command(_) => return self.begin_hook(role, epoch, until),
        };
        living.settled = false;
        living.change = Some(Change { role, epoch, until, step });
    }

    fn begin_hook(&mut self, role: Role, epoch: Epoch, until: Instant) {
        let Stage::Living(living) = &mut self.stage else { return };
        let life = Life { incarnation: living.incarnation, role, epoch };
        let address = self.spec.config.address;
        let job = match &self.process.on_role_change {
            RoleChange::Command(argv) => {
                let env = place::environment(&self.spec.member, address, life, &self.process.env);
                let (argv, user, output) = (argv.clone(), self.process.user.clone(), Some(self.place.output()));
                let hook = Hook { argv, env, user, timeout: until.saturating_duration_since(Instant::now()), output, answers: false };
                Job::spawn(async move { Ok(hook::run(&hook).await.map(drop)?) })
            }
            RoleChange::Http(path) => {
                let path = path.clone();
                let body = format!("{{\"role\":\"{role}\",\"epoch\":{epoch}}}");
                Job::spawn(async move {
                    let answer = http::request(address, Method::POST, &path, Some(body)).await?;
                    if (200..300).contains(&answer.status) { Ok(()) } else { Err(HookFailure::Status(answer.status)) }
                })
            }
            RoleChange::Gate | RoleChange::Signal(_) | RoleChange::Restart => return,
        };
        living.settled = false;
        living.change = Some(Change { role, epoch, until, step: Step::Hooking(job) });
    }

    pub(super) fn on_told(&mut self, role: Role, epoch: Epoch, error: Option<String>) {
        let Stage::Living(living) = &mut self.stage else { return };
        living.answer_by = None;
        if error.is_none() {
            (living.role, living.epoch) = (role, epoch);
        }
        self.show();
        let Stage::Living(living) = &mut self.stage else { return };
        let Some(change) = living.change.as_ref().filter(|change| (change.role, change.epoch) == (role, epoch)) else { return };
        match (&change.step, error) {
            (_, Some(why)) => self.end_change(Err(why)),
            (Step::Telling { hook_next: true }, None) => {
                let until = change.until;
                self.begin_hook(role, epoch, until);
            }
            (_, None) => self.end_change(Ok(())),
        }
    }

    pub(super) fn on_hooked(&mut self, result: Result<(), HookFailure>) {
        let Stage::Living(living) = &mut self.stage else { return };
        let Some(change) = &mut living.change else { return };
        match result {
            Err(failure) => self.end_change(Err(failure.to_string())),
            Ok(()) if change.role == Role::Hot => self.end_change(Ok(())),
            Ok(()) => {
                let (role, epoch, until) = (change.role, change.epoch, change.until);
                let step = tell(living, role, epoch, None, false);
                living.change = Some(Change { role, epoch, until, step });
            }
        }
    }

    /// Says how the change ended, if one is under way. Dropping it ends a hook that still runs.
    pub(super) fn end_change(&mut self, result: Result<(), String>) {
        let Stage::Living(living) = &mut self.stage else { return };
        let Some(Change { role, epoch, .. }) = living.change.take() else { return };
        let incarnation = living.incarnation;
        living.settled = result.is_ok();
        self.wires.outbox.put(match result {
            Ok(()) => MemberEvent::RoleChanged { incarnation, role, epoch },
            Err(why) => MemberEvent::RoleFailed { incarnation, role, epoch, why },
        });
    }
}

fn tell(living: &Living, role: Role, epoch: Epoch, signal: Option<i32>, hook_next: bool) -> Step {
    living.link.send(ToGuard::Role { role, epoch, signal });
    Step::Telling { hook_next }
}
