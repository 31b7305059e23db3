//! A restart that a person asked for: the lives that are named end, one member after the other, and the next goes only when all is whole again.
//!
//! It is the least of all that a group does. Whatever else happens comes first: before anything is decided [`Step::mind_restart`] gives back
//! what a failure may need, and [`Step::advance_restart`] goes on only when nothing else is under way. It must never leave the service
//! without a hot member: one that is hot hands over first, and where nobody can take over it waits. A life that has ended is not ended
//! again (S4), so a command that comes twice or late does nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::candidate::Need;
use super::effect::Effect;
use super::state::{Group, Life};
use super::{Reason, Step};
use crate::action::StopCause;
use crate::ids::{Incarnation, MemberId, Millis, Role};

/// How long a restart may go without another member being done: longer is left to a person.
pub const PATIENCE_MS: u64 = 600_000;

/// Members that are to be restarted, and how far that is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// Whose lives are to end, and which (S4); the one under way is among them.
    pub left: BTreeMap<MemberId, Incarnation>,
    pub turn: Option<Turn>,
    /// Why it does not go on now, told once.
    pub waits: Option<Reason>,
    /// Why it ended before all were restarted; nothing is done any more.
    pub stopped: Option<Reason>,
    /// It is stopped if no member is done until then.
    pub until: Millis,
}

/// The member whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    pub member: MemberId,
    /// The life that is to end.
    pub life: Incarnation,
    pub stage: Stage,
}

/// How far a member's turn has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// It is the only one that runs: a spare is started that can take over.
    Relieved,
    /// A planned switchover from it is under way.
    HandingOver,
    /// One of several hot members: it finishes what it has.
    Draining,
    /// It is told to end.
    Ending,
    /// It has ended: its next life is to begin and answer.
    Starting,
}

impl Group {
    /// The turn that is under way.
    #[must_use]
    pub fn restart_turn(&self) -> Option<&Turn> {
        self.restart.as_ref().and_then(|restart| restart.turn.as_ref())
    }

    /// This life is to end now. Told only of members that may not serve.
    #[must_use]
    pub fn is_to_end(&self, id: &MemberId, life: Incarnation) -> bool {
        let turn = self.restart_turn().filter(|turn| turn.stage == Stage::Ending && turn.member == *id && turn.life == life);
        turn.is_some() && self.members.get(id).is_some_and(|m| m.may_serve.is_none())
    }

    /// It is on its way out of this life: nobody gives it another task.
    pub(super) fn leaves_for_restart(&self, id: &MemberId) -> bool {
        let turn = self.restart_turn().filter(|turn| turn.member == *id && matches!(turn.stage, Stage::Draining | Stage::Ending));
        turn.is_some_and(|turn| !self.life_is_over(id, turn.life))
    }

    /// It serves and another is to: a spare, since nobody else runs.
    pub(super) fn is_relieved(&self, id: &MemberId) -> bool {
        self.restart_turn().is_some_and(|turn| turn.member == *id && turn.stage == Stage::Relieved)
    }

    fn life_is_over(&self, id: &MemberId, life: Incarnation) -> bool {
        self.members.get(id).is_none_or(|m| m.incarnation != life || m.stopped())
    }

    /// Which of the named lives a restart would end now.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn restartable(&self, lives: &BTreeMap<MemberId, Incarnation>) -> Result<BTreeMap<MemberId, Incarnation>, String> {
        if self.paused() {
            return Err("automation is paused; `hotwarm resume` first".to_owned());
        }
        let ends = |id: &MemberId, life: Incarnation| {
            self.members.get(id).is_some_and(|m| m.running() && m.incarnation == life && m.role != Role::Spare)
        };
        let named: BTreeMap<_, _> = lives.iter().filter(|(id, life)| ends(id, **life)).map(|(id, life)| (id.clone(), *life)).collect();
        if named.is_empty() {
            return Err("nothing runs of what was named: a member that starts takes its engine as it is configured by then".to_owned());
        }
        let alone = named.keys().find(|id| self.members.len() == 1 && self.members[*id].role == Role::Hot);
        let others = self.members.len().saturating_sub(1);
        if self.spec.exclusive && self.spec.acks > 0 && others <= usize::from(self.spec.acks) {
            return Err(format!("{} members are to acknowledge each write: none may be taken out", self.spec.acks));
        }
        match alone {
            Some(id) => Err(format!(
                "{id} is the only member, and nobody would serve while it starts; when that may be, end its process on its node (`kill PID`): it is \
                 started again, with the engine as it is configured by then"
            )),
            None => Ok(named),
        }
    }

    /// In which order members are restarted: those that are not hot first, then the least preferred.
    #[must_use]
    pub fn restart_order<'a>(&self, ids: impl Iterator<Item = &'a MemberId>) -> Vec<MemberId> {
        let wanted: BTreeSet<&MemberId> = ids.collect();
        let mut order: Vec<MemberId> = self.by_priority().into_iter().rev().filter(|id| wanted.contains(id)).collect();
        order.sort_by_key(|id| self.members.get(id).is_some_and(|m| m.role == Role::Hot));
        order
    }

    /// Why no member may be taken out beside what is out already; `id` itself may be as it is.
    fn disturbed(&self, id: &MemberId) -> Option<String> {
        if self.paused() {
            return Some("automation is paused; `hotwarm resume` ends it".to_owned());
        }
        if self.transition.is_some() {
            return Some("a change of the hot member is under way".to_owned());
        }
        if self.spec.exclusive && self.closed && self.spec.hot > 0 {
            return Some("nobody serves".to_owned());
        }
        let others = || self.members.iter().filter(|(other, m)| *other != id && m.role != Role::Spare);
        if let Some((other, why)) = others().find_map(|(other, _)| self.unfit(other).map(|why| (other, why))) {
            return Some(format!("{other}: {why}"));
        }
        if self.spec.exclusive && others().count() < usize::from(self.spec.acks) + usize::from(self.hot() != Some(id)) {
            return Some(format!("{} members are to acknowledge each write", self.spec.acks));
        }
        if let Some((other, _)) = others().find(|(_, m)| m.role == Role::Hot && !m.serving) {
            return Some(format!("{other} is becoming hot"));
        }
        let hot = self.members.values().filter(|m| m.role == Role::Hot).count();
        let wanted = usize::from(self.spec.hot).min(self.members.len());
        (hot < wanted).then(|| format!("{hot} of {wanted} members are hot"))
    }

    /// It has handed over, and does not rest as a spare.
    fn may_end_now(&self, id: &MemberId) -> bool {
        self.members.get(id).is_some_and(|m| m.role == Role::Warm && m.may_serve.is_none()) && self.disturbed(id).is_none()
    }

    pub(super) fn others_fit(&self, id: &MemberId) -> bool {
        self.members.keys().any(|other| other != id && self.unfit(other).is_none())
    }

    /// What a restart is doing, in a sentence.
    #[must_use]
    pub fn restart_told(&self) -> Option<String> {
        let restart = self.restart.as_ref()?;
        let later = self.restart_order(restart.left.keys().filter(|id| restart.turn.as_ref().is_none_or(|turn| turn.member != **id)));
        let then = if later.is_empty() { String::new() } else { format!("; then {}", names(&later)) };
        let Some(turn) = &restart.turn else {
            return restart.stopped.as_ref().or(restart.waits.as_ref()).map(ToString::to_string);
        };
        let does = match turn.stage {
            Stage::Relieved => "a spare is started that can take over from it",
            Stage::HandingOver => "it hands over",
            Stage::Draining => "it finishes what it has",
            Stage::Ending => "it ends",
            Stage::Starting if !self.life_is_over(&turn.member, turn.life) => "it ends, and rests as a spare",
            Stage::Starting => "it has ended, and is to answer its check in its next life",
        };
        Some(format!("{} is being restarted: {does}{then}", turn.member))
    }
}

/// As a list for people.
pub(super) fn names(ids: &[MemberId]) -> String {
    ids.iter().map(MemberId::as_str).collect::<Vec<_>>().join(", ")
}

impl Step {
    pub(super) fn on_restart(&mut self, lives: &BTreeMap<MemberId, Incarnation>) {
        let lives = match self.group.restartable(lives) {
            Ok(lives) => lives,
            Err(why) => return self.because(Reason::RestartRefused { why }),
        };
        let until = self.group.at.plus(PATIENCE_MS);
        let mut restart = self.group.restart.take().filter(|restart| restart.stopped.is_none()).unwrap_or_default();
        let known = restart.left.clone();
        restart.left.extend(lives);
        let more = restart.left != known;
        if more {
            restart.until = until;
        }
        self.group.restart = Some(restart);
        if more {
            let members = self.group.restart.iter().flat_map(|restart| restart.left.keys());
            let members = self.group.restart_order(members);
            self.because(Reason::RestartAsked { members });
        }
    }

    pub(super) fn on_end_restart(&mut self) {
        let goes_on = self.group.restart.as_ref().is_some_and(|restart| restart.stopped.is_none());
        if goes_on {
            let over =
                |turn: &Turn| matches!(turn.stage, Stage::Ending | Stage::Starting) || self.group.life_is_over(&turn.member, turn.life);
            let begun = self.group.restart_turn().filter(|turn| over(turn)).map(|turn| turn.member.clone());
            let then = if begun.is_some() { "; that one had been told to end, and may yet" } else { "" };
            self.stop_restart(begun, format!("it was called off{then}"));
        }
        self.group.restart = None;
    }

    /// Members that are configured away, or moved to another node, have no life there that could end.
    pub(super) fn forget_restart_of(&mut self, gone: &[MemberId]) {
        let Some(restart) = &mut self.group.restart else { return };
        restart.left.retain(|id, _| !gone.contains(id));
        restart.turn.take_if(|turn| gone.contains(&turn.member));
    }

    /// First of all: a member that may be needed for what happened is not taken out for a restart.
    pub(super) fn mind_restart(&mut self) {
        self.mind_patience();
        let Some(turn) = self.group.restart_turn().cloned() else { return };
        let group = &self.group;
        let needed = match turn.stage {
            Stage::Relieved => group.paused() || group.closed || group.transition.is_some(),
            Stage::Draining => group.disturbed(&turn.member).is_some(),
            // With others to choose from, it ends all the same: it would be lost in the middle of its promotion.
            Stage::Ending => !group.others_fit(&turn.member) && !group.life_is_over(&turn.member, turn.life),
            Stage::HandingOver | Stage::Starting => false,
        };
        if needed {
            self.end_turn();
        }
    }

    fn mind_patience(&mut self) {
        let Some(restart) = self.group.restart.as_ref().filter(|restart| restart.stopped.is_none()) else { return };
        if self.group.at < restart.until {
            return;
        }
        let within = format!("nothing was done for {} s", PATIENCE_MS / 1000);
        let why = restart.waits.as_ref().map_or_else(|| within.clone(), |why| format!("{within}: {why}"));
        let member = restart.turn.as_ref().map(|turn| turn.member.clone());
        self.stop_restart(member, why);
    }

    /// The member goes on as it was.
    fn end_turn(&mut self) {
        let Some(turn) = self.group.restart.as_mut().and_then(|restart| restart.turn.take()) else { return };
        if turn.stage == Stage::Draining {
            self.note_drain(&turn.member);
        }
    }

    fn begin_anew(&mut self) -> bool {
        self.end_turn();
        true
    }

    /// Last of all: goes as far as it can now. True if a member was given back.
    pub(super) fn advance_restart(&mut self) -> bool {
        let leaves = self.group.restart_turn().map(|turn| turn.member.clone()).filter(|id| self.group.leaves_for_restart(id));
        // Each member's turn begins and is over, and each of its stages is come to, at most once.
        for _ in 0..(self.group.members.len() + 1) * 4 {
            if !self.advance_restart_once() {
                break;
            }
        }
        leaves.is_some_and(|id| !self.group.leaves_for_restart(&id))
    }

    /// True if there is more to look at.
    fn advance_restart_once(&mut self) -> bool {
        let Some(restart) = &self.group.restart else { return false };
        if restart.stopped.is_some() {
            let done = |id: &MemberId, life| self.group.life_is_over(id, life) && self.group.unfit(id).is_none();
            if restart.left.iter().all(|(id, life)| done(id, *life)) {
                self.group.restart = None;
            }
            return false;
        }
        if restart.left.is_empty() {
            self.group.restart = None;
            return false;
        }
        match restart.turn.clone() {
            Some(turn) => self.take_turn(&turn),
            None => self.next_turn(),
        }
    }

    fn set_stage(&mut self, turn: &Turn, stage: Stage) {
        if let Some(restart) = &mut self.group.restart {
            restart.turn = Some(Turn { stage, ..turn.clone() });
            restart.waits = None;
        }
        if stage == Stage::Ending {
            self.effects.push(Effect::Stop { member: turn.member.clone() });
        }
    }

    fn take_turn(&mut self, turn: &Turn) -> bool {
        let id = &turn.member;
        if self.group.life_is_over(id, turn.life) {
            if turn.stage == Stage::Starting {
                return self.await_next_life(turn);
            }
            self.set_stage(turn, Stage::Starting);
            return true;
        }
        let is_hot = self.group.members.get(id).is_some_and(|m| m.role == Role::Hot);
        match turn.stage {
            Stage::Relieved => self.hand_over(turn),
            Stage::HandingOver if self.group.transition.is_some() => false,
            Stage::HandingOver if is_hot => {
                self.stop_restart(Some(id.clone()), "the switchover away from it did not come about".to_owned());
                false
            }
            Stage::HandingOver if self.group.may_end_now(id) => {
                self.set_stage(turn, Stage::Ending);
                false
            }
            Stage::HandingOver => self.begin_anew(),
            Stage::Draining if !is_hot && self.group.others_fit(id) => {
                self.set_stage(turn, Stage::Ending);
                false
            }
            // Left out for another cause, or it rested as a spare and is wanted again: all is looked at anew.
            Stage::Draining if !is_hot => self.begin_anew(),
            Stage::Starting if self.group.members.get(id).is_some_and(|m| m.role != Role::Spare) => self.begin_anew(),
            Stage::Draining | Stage::Ending | Stage::Starting => false,
        }
    }

    /// It has ended; if it does not come back the others stay as they are.
    fn await_next_life(&mut self, turn: &Turn) -> bool {
        let id = &turn.member;
        let Some(member) = self.group.members.get(id) else { return false };
        let rests = member.role == Role::Spare && !member.running();
        // In a group of several it serves again before the next one goes.
        let back = member.running() && member.ready && (member.role != Role::Hot || member.serving);
        if rests || back {
            let Some(restart) = &mut self.group.restart else { return false };
            restart.left.remove(id);
            restart.turn = None;
            restart.until = self.group.at.plus(PATIENCE_MS);
            let left = u16::try_from(restart.left.len()).unwrap_or(u16::MAX);
            self.because(Reason::Restarted { member: id.clone(), left });
            return true;
        }
        // How the life ended that was to end is no matter: a start that failed says so, or a life after it.
        let failed = match &member.life {
            Life::Stopped(cause @ StopCause::NotStarted(_)) => Some(cause),
            Life::Stopped(cause) if cause.is_failure() && member.incarnation > turn.life => Some(cause),
            _ => None,
        };
        if let Some(cause) = failed {
            let why = format!("it did not come back ({cause})");
            self.stop_restart(Some(id.clone()), why);
        }
        false
    }

    /// Nothing more is restarted. What is left runs on in its present life.
    fn stop_restart(&mut self, member: Option<MemberId>, why: String) {
        self.end_turn();
        let Some(restart) = &self.group.restart else { return };
        let left = self.group.restart_order(restart.left.keys().filter(|id| Some(*id) != member.as_ref()));
        let reason = Reason::RestartStopped { member, why, left };
        if let Some(restart) = &mut self.group.restart {
            restart.waits = None;
            restart.stopped = Some(reason.clone());
        }
        self.because(reason);
    }

    fn wait_to_restart(&mut self, member: &MemberId, why: String) -> bool {
        let Some(restart) = &mut self.group.restart else { return false };
        let told = restart.waits.is_some();
        let reason = Reason::RestartWaits { member: member.clone(), why };
        restart.waits = Some(reason.clone());
        if !told {
            self.because(reason);
        }
        false
    }

    fn next_turn(&mut self) -> bool {
        let Some(restart) = &self.group.restart else { return false };
        let left = restart.left.clone();
        let turn = |id: &MemberId, stage| Turn { member: id.clone(), life: left[id], stage };
        // One that ended by itself, or ends to rest as a spare, is only to come back.
        let resting = |id: &MemberId| self.group.members.get(id).is_some_and(|m| m.role == Role::Spare);
        if let Some((id, _)) = left.iter().find(|(id, life)| self.group.life_is_over(id, **life) || resting(id)) {
            self.set_stage(&turn(id, Stage::Starting), Stage::Starting);
            return self.group.life_is_over(id, left[id]);
        }
        let Some(id) = self.group.restart_order(left.keys()).into_iter().next() else { return false };
        if let Some(why) = self.group.disturbed(&id) {
            return self.wait_to_restart(&id, why);
        }
        let is_hot = self.group.members.get(&id).is_some_and(|m| m.role == Role::Hot);
        if is_hot && self.group.spec.exclusive {
            return self.hand_over(&turn(&id, Stage::HandingOver));
        }
        let begun = turn(&id, if is_hot { Stage::Draining } else { Stage::Ending });
        if is_hot && !self.group.members.iter().any(|(other, m)| *other != id && m.serving) {
            return self.wait_to_restart(&id, "no other member serves".to_owned());
        }
        self.because(Reason::Restarting { member: id.clone() });
        self.set_stage(&begun, begun.stage);
        if is_hot {
            self.note_drain(&id);
        }
        false
    }

    /// The hot member of an exclusive group leaves its role before its life ends.
    fn hand_over(&mut self, turn: &Turn) -> bool {
        let id = &turn.member;
        let (to, others) = self.group.candidate(Need::Live, Some(id), &BTreeSet::new());
        let Some(to) = to else {
            if turn.stage == Stage::Relieved {
                return false;
            }
            if self.group.members.keys().any(|other| self.group.startable(other)) {
                self.because(Reason::Restarting { member: id.clone() });
                self.set_stage(turn, Stage::Relieved);
                self.assign_spares();
                return false;
            }
            let others: Vec<_> = others.iter().map(|(id, why)| format!("{id}: {why}")).collect();
            return self.wait_to_restart(id, format!("no other member can take over ({})", others.join("; ")));
        };
        match self.group.switchover_target(Some(&to)) {
            Ok((from, to)) => {
                self.set_stage(turn, Stage::HandingOver);
                self.begin_planned(Reason::Restarting { member: from.clone() }, from, Some(to));
                false
            }
            Err(why) => self.wait_to_restart(id, why),
        }
    }
}
