//! What a person or a program asks for: switchover, drain, pause.

use std::collections::BTreeSet;

use super::candidate::Need;
use super::input::Operator;
use super::reason::FencedBy;
use super::spec::Fence;
use super::state::Pause;
use super::{Reason, Refusal, Step};
use crate::ids::{MemberId, NodeId, Role};

impl Step {
    pub(super) fn on_operator(&mut self, asked: &Operator) {
        match asked {
            Operator::Switchover { to } => self.on_switchover(to.as_ref()),
            Operator::Drain { member } => self.on_drain(member, true),
            Operator::Undrain { member } => self.on_drain(member, false),
            Operator::Pause => self.on_pause(),
            Operator::Resume { force } => self.on_resume(*force),
            Operator::Restart { lives } => self.on_restart(lives),
            Operator::EndRestart => self.on_end_restart(),
        }
    }

    fn on_switchover(&mut self, to: Option<&MemberId>) {
        match self.group.switchover_target(to) {
            Ok((from, to)) => self.begin_planned(Reason::SwitchoverAsked { from: from.clone(), to: to.clone() }, from, Some(to)),
            Err(why) => self.because(Reason::SwitchoverRefused { why }),
        }
    }

    fn on_drain(&mut self, id: &MemberId, drained: bool) {
        let Some(member) = self.group.members.get_mut(id) else { return };
        member.drained = drained;
        self.note_drain(id);
    }

    fn on_pause(&mut self) {
        if self.group.pause != Pause::Paused {
            self.group.pause = Pause::Paused;
            self.group.refusal = None;
            self.because(Reason::Paused);
        }
    }

    /// Holders did not count their lease during the pause: promotion stays suspended until each counts again (S10).
    fn on_resume(&mut self, force: bool) {
        match self.group.pause {
            Pause::No => return,
            Pause::Resuming { .. } if !force => return,
            Pause::Paused | Pause::Resuming { .. } => {}
        }
        self.group.resumes += 1;
        let waiting = if force { BTreeSet::new() } else { self.group.lease_holders() };
        self.group.pause = Pause::Resuming { waiting };
        self.end_pause_when_seen();
        if force {
            let lapsed: Vec<NodeId> = self.group.nodes.iter().filter(|(_, view)| view.lapsed).map(|(node, _)| node.clone()).collect();
            lapsed.iter().for_each(|node| self.lease_over(node, &FencedBy::Vouched));
        }
    }

    /// A node without a lease has none to count: it must be back first.
    pub(super) fn on_resume_seen(&mut self, node: &NodeId, resume: u64) {
        if resume != self.group.resumes || self.group.node(node).lapsed {
            return;
        }
        if let Pause::Resuming { waiting } = &mut self.group.pause
            && waiting.remove(node)
        {
            self.end_pause_when_seen();
        }
    }

    fn end_pause_when_seen(&mut self) {
        match &self.group.pause {
            Pause::Resuming { waiting } if waiting.is_empty() => {
                self.group.pause = Pause::No;
                self.group.refusal = None;
                self.because(Reason::Resumed);
            }
            Pause::Resuming { waiting } => {
                let nodes = waiting.iter().cloned().collect();
                self.refuse(Reason::ResumeWaits { nodes });
            }
            Pause::No | Pause::Paused => {}
        }
    }
}

impl super::Group {
    /// Nodes whose lease is what keeps two members from serving: those of members that may serve, and of routers that may admit.
    fn lease_holders(&self) -> BTreeSet<NodeId> {
        let mut nodes = BTreeSet::new();
        if self.spec.exclusive {
            nodes.extend(self.open_routers.iter().chain(&self.stale_routers).cloned());
        }
        if self.spec.exclusive && self.spec.fence == Fence::Supervisor {
            nodes.extend(self.may_serve().filter_map(|(id, _)| self.node_of(id)).cloned());
        }
        nodes
    }

    /// From whom to whom a switchover would go now, or why it cannot.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn switchover_target(&self, to: Option<&MemberId>) -> Result<(MemberId, MemberId), String> {
        if !self.spec.exclusive {
            return Err("this group has several hot members; use `hotwarm drain MEMBER`".to_owned());
        }
        if self.paused() {
            return Err("automation is paused; `hotwarm resume` first".to_owned());
        }
        if self.transition.is_some() {
            return Err("a change of the hot member is under way; see `hotwarm why`".to_owned());
        }
        let Some(from) = self.hot().cloned() else { return Err("no member is hot".to_owned()) };
        let (best, others) = self.candidate(Need::Dead, Some(&from), &BTreeSet::new());
        let (reports, needed) = (self.could_report(&from), self.reports_needed());
        if self.spec.positions && reports < needed {
            return Err(Reason::TooFewReports { reports, needed }.to_string());
        }
        let Some(wanted) = to else {
            return best.map(|to| (from.clone(), to)).ok_or_else(|| {
                let others: Vec<_> = others.iter().map(|(id, why)| format!("{id}: {why}")).collect();
                format!("no other member can take over ({})", others.join("; "))
            });
        };
        let Some(member) = self.members.get(wanted) else { return Err(format!("{wanted} is no member of this group")) };
        if *wanted == from || member.role == Role::Hot {
            return Err(format!("{wanted} is hot already"));
        }
        match self.unfit(wanted) {
            None => Ok((from, wanted.clone())),
            Some(Refusal::Drained) => Err(format!("{wanted} is drained; `hotwarm undrain {wanted}` first")),
            Some(why) => Err(format!("{wanted} cannot take over: {why}")),
        }
    }
}
