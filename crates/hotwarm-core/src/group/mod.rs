//! A group's state machine: the one pure function that decides who serves.
//!
//! `S(t+1), effects = f(S(t), I(t))`. [`step`] reads no clock and does nothing; it is given inputs in the order of the replicated log, so
//! every node comes to the same state. One file for each family of inputs (`on_*`), then [`exclusive`] or [`many`] looks at the
//! state and decides what follows. What is to be done about it is derived from the state by [`crate::reconcile`].

mod candidate;
pub mod effect;
mod exclusive;
pub mod explain;
pub mod input;
pub mod invariants;
mod many;
mod on_answer;
mod on_configure;
mod on_life;
mod on_node;
mod on_operator;
mod on_testimony;
mod policy;
pub mod problem;
pub mod quorum;
pub mod reason;
pub mod restart;
pub mod spec;
pub mod state;
#[cfg(test)]
mod tests;

pub use effect::Effect;
pub use input::{Body, Input};
pub use reason::{Reason, Refusal};
pub use spec::GroupSpec;
pub use state::Group;

use crate::ids::{MemberId, Role};

/// What a step's handlers share: the state they change and the effects they decide.
pub(crate) struct Step {
    pub(crate) group: Group,
    pub(crate) effects: Vec<Effect>,
}

impl Step {
    pub(crate) fn because(&mut self, reason: Reason) {
        self.effects.push(Effect::Because(reason));
    }

    /// Tells a refusal once, until it changes or ends.
    pub(crate) fn refuse(&mut self, reason: Reason) {
        if self.group.refusal.as_ref().map(Reason::code) != Some(reason.code()) {
            self.because(reason.clone());
        }
        self.group.refusal = Some(reason);
    }

    /// While the pause ends, whom that waits for says more.
    pub(crate) fn refuse_paused(&mut self) {
        if !matches!(self.group.refusal, Some(Reason::ResumeWaits { .. })) {
            self.refuse(Reason::AutomationPaused);
        }
    }

    /// What was refused before no longer is.
    pub(crate) fn forget_refusal(&mut self) {
        if !matches!(self.group.refusal, Some(Reason::ResumeWaits { .. })) {
            self.group.refusal = None;
        }
    }

    /// The first doubt about the hot member: from here the pause is counted.
    pub(crate) fn doubt_begins(&mut self, id: &MemberId) {
        let hot = self.group.members.get(id).is_some_and(|m| m.role == Role::Hot);
        if self.group.spec.exclusive && hot && self.group.doubt_since.is_none() {
            self.group.doubt_since = Some(self.group.at);
        }
    }
}

/// The group after `input`, and what was decided. An input that is late, about another life or about nobody changes nothing but the
/// time.
#[must_use]
pub fn step(group: Group, input: &Input) -> (Group, Vec<Effect>) {
    let mut step = Step { group, effects: Vec::new() };
    // The leader stamps inputs and never goes back (S18); an old state machine version might have: time never decreases here.
    step.group.at = step.group.at.max(input.at);
    match &input.body {
        Body::Life(life) => step.on_life(life),
        Body::Testimony(testimony) => step.on_testimony(testimony),
        Body::Answer(answer) => step.on_answer(answer),
        Body::Node(node) => step.on_node(node),
        Body::Operator(operator) => step.on_operator(operator),
        Body::Configure(spec) => step.on_configure(spec),
        Body::Timer => step.on_timer(),
    }
    step.advance();
    (step.group, step.effects)
}

impl Step {
    fn on_timer(&mut self) {
        let (at, age_ms) = (self.group.at, self.group.spec.bounds.testimony_ms);
        for member in self.group.members.values_mut() {
            member.testimony.retain(|_, (_, told)| at.since(*told) < age_ms);
        }
        self.group.forget_old_failovers();
    }

    /// Looks at the state and decides what follows, whatever the input was.
    fn advance(&mut self) {
        self.mind_restart();
        self.advance_once();
        // A spare that still runs has nothing more to tell once it is wanted: it is looked at again at once.
        if self.assign_spares() {
            self.advance_once();
        }
        // Before restarts go on: who is back counts for them, and tells nothing more.
        self.welcome_back();
        if self.advance_restart() {
            self.advance_once();
        }
    }

    fn advance_once(&mut self) {
        if self.group.spec.exclusive {
            self.advance_exclusive();
        } else {
            self.advance_many();
        }
    }

    /// A member that was hot is warm again once it is well and another is hot beside it. In a pause one of several still has its place.
    fn welcome_back(&mut self) {
        if self.group.closed || !self.group.spec.exclusive && self.group.paused() {
            return;
        }
        let away = self.group.members.iter().filter(|(_, m)| m.away && m.role == Role::Warm);
        let back: Vec<MemberId> = away.filter(|(id, _)| self.group.unfit(id).is_none()).map(|(id, _)| id.clone()).collect();
        for id in back {
            if let Some(member) = self.group.members.get_mut(&id) {
                member.away = false;
            }
            self.because(Reason::ReturnedWarm { member: id });
        }
    }
}
