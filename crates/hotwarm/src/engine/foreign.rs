//! The fence hook of a member of another node, which is lost: run from here, because nobody else can (S8).
//!
//! It decides nothing: the core says when, from one node at a time. One run at a time, within the hook's limit; a failure is told to
//! people, and the core asks again. Main path: [`fence`].

use std::time::Duration;

use hotwarm_core::action::MemberEvent;
use hotwarm_core::ids::{Epoch, Incarnation, Role};

use super::job::Job;
use super::place::{self, Life, Place};
use super::{Events, SpawnSpec, command, external};
use crate::child::hook::{self, Hook};
use crate::config::{Engine, Hooks};

/// After a run, before the next: a failure is tried again, and what confirmed is told to the others first.
const PAUSE: Duration = Duration::from_secs(2);

const FENCE: &str = "fence";

/// A fence that runs, or has run. Dropping it ends a hook that still runs.
#[derive(Debug)]
pub struct Fencing {
    epoch: Epoch,
    job: Job<()>,
}

impl Fencing {
    /// It runs for `epoch`, or has ended a moment ago.
    #[must_use]
    pub fn is_under_way(&self, epoch: Epoch) -> bool {
        self.epoch == epoch && !self.job.is_finished()
    }
}

/// Runs the fence hook of the member, whose latest known life is `incarnation`; its success is told as the member's `Fenced`. `None` if
/// its group has none.
#[must_use]
pub fn fence(spec: &SpawnSpec, epoch: Epoch, incarnation: Incarnation, events: Events) -> Option<Fencing> {
    let hooks = hooks(&spec.group.engine)?;
    let argv = command::fence_command(spec, &hooks)?;
    let place = Place::of(&spec.data, &spec.member);
    let life = Life { incarnation, role: Role::Hot, epoch };
    let env = place::environment(&spec.member, spec.config.address, life, &std::collections::BTreeMap::new());
    let (member, failures) = (spec.member.clone(), spec.failures.clone());
    let job = Job::spawn(async move {
        // Without its directory there is no log; the hook matters more than its output.
        let output = place.make().is_ok().then(|| place.output());
        let hook = Hook { argv, env, user: hooks.user, timeout: hooks.timeout, output, answers: false };
        tracing::info!(%member, %epoch, "node lost: its member's fence is run from here");
        match hook::run(&hook).await {
            Ok(_) => {
                failures.worked(&member, FENCE);
                // An agent that has ended needs no answer.
                let _ = events.send((member, MemberEvent::Fenced { incarnation, epoch })).await;
            }
            Err(error) => {
                failures.failed(&member, FENCE, &format!("{}; run from here, for its node is lost", error.of(FENCE)));
            }
        }
        tokio::time::sleep(PAUSE).await;
    });
    Some(Fencing { epoch, job })
}

fn hooks(engine: &Engine) -> Option<Hooks> {
    match engine {
        Engine::Command(hooks) => Some(hooks.clone()),
        Engine::External => Some(external::hooks()),
        Engine::Process(_) => None,
    }
}
