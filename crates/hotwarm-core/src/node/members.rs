//! This node's own members: what is observed of them, when they are started again, what their engines are told.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::lead::AGAIN;
use super::{Action, Node};
use crate::action::{EngineAction, MemberEvent, StopCause};
use crate::cluster::Body;
use crate::ids::{Epoch, GroupName, MemberId, Mono, Role};
use crate::reconcile::{self, Local, LocalLife};

/// An action that was told and had no effect yet is told again after this.
const TELL_AGAIN: Duration = Duration::from_secs(1);
/// A guard's deadline lies so much before the lease's end: killing takes time too.
const GUARD_MARGIN: Duration = Duration::from_millis(20);

/// How the members of a group are kept running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supervision {
    /// Pause before a failed member is started again; doubles up to `restart_max`, and is forgotten after it ran well for that long.
    pub restart: Duration,
    pub restart_max: Duration,
    /// A member that was started must answer within this.
    pub start_timeout: Duration,
    /// One that answered and does so no more is ended after this.
    pub hung_after: Duration,
}

impl Default for Supervision {
    fn default() -> Self {
        Self {
            restart: Duration::from_millis(100),
            restart_max: Duration::from_secs(10),
            start_timeout: Duration::from_secs(30),
            hung_after: Duration::from_secs(3),
        }
    }
}

/// What this node keeps about its members beside what reconciliation sees.
#[derive(Debug, Default)]
pub(crate) struct Members {
    supervision: BTreeMap<GroupName, Supervision>,
    lives: BTreeMap<MemberId, LifeLine>,
    asked: BTreeMap<MemberId, (EngineAction, Mono)>,
    deadlines: BTreeMap<MemberId, Option<Mono>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct LifeLine {
    /// Start again not before.
    start_at: Mono,
    pause: Duration,
    /// It has answered in this life.
    answered: bool,
    ready_since: Option<Mono>,
    unready_since: Option<Mono>,
}

impl Members {
    pub(crate) fn set_supervision(&mut self, supervision: BTreeMap<GroupName, Supervision>) {
        self.supervision = supervision;
    }

    fn supervision(&self, member: &MemberId) -> Supervision {
        self.supervision.get(&member.group()).copied().unwrap_or_default()
    }
}

impl Node {
    pub(super) fn on_member(&mut self, id: &MemberId, event: MemberEvent) {
        self.dirty = true;
        let now = self.now;
        let supervision = self.members.supervision(id);
        let local = self.observed.members.entry(id.clone()).or_default();
        if event.incarnation() < local.incarnation {
            return;
        }
        let line = self.members.lives.entry(id.clone()).or_default();
        match event {
            MemberEvent::Started { incarnation, role, epoch } => {
                self.members.deadlines.remove(id);
                let (fenced, detached) = (local.fenced, None);
                *local = Local { incarnation, life: LocalLife::Running, role: Some(role), epoch, fenced, detached, ..Local::default() };
                *line = LifeLine { pause: line.pause, unready_since: Some(now), ..LifeLine::default() };
            }
            MemberEvent::Stopped { incarnation, cause } => {
                line.ended(now, &cause, supervision);
                local.incarnation = incarnation;
                local.stopped(cause);
            }
            MemberEvent::Ready { .. } => {
                local.ready = true;
                local.judged = true;
                local.hung = false;
                local.why_unready.clear();
                line.answered = true;
                line.ready_since.get_or_insert(now);
                line.unready_since = None;
            }
            MemberEvent::Unready { why, .. } => {
                local.ready = false;
                local.judged = true;
                local.why_unready = why;
                line.ready_since = None;
                line.unready_since.get_or_insert(now);
            }
            MemberEvent::RoleChanged { role, epoch, .. } => local.took_role(role, epoch),
            MemberEvent::RoleFailed { role, epoch, why, .. } => {
                match role {
                    Role::Hot => local.promote_failed = Some((epoch, why)),
                    Role::Warm | Role::Spare => local.demote_failed = Some(epoch),
                }
                // What failed is asked again after a pause, counted from the failure: a hook that fails at once must not run in a loop.
                if let Some((_, at)) = self.members.asked.get_mut(id) {
                    *at = now;
                }
                return;
            }
            MemberEvent::Fenced { epoch, .. } => local.fenced = local.fenced.max(epoch),
            MemberEvent::Position { attempt, position, .. } => {
                local.position = Some((attempt, position));
                local.detached = Some(attempt);
            }
        }
        self.members.asked.remove(id);
    }

    /// Who may start again, who hangs.
    pub(super) fn tend_members(&mut self) {
        let now = self.now;
        for (id, local) in &mut self.observed.members {
            let Some(line) = self.members.lives.get(id) else { continue };
            let hung = line.hangs_at(local, || self.members.supervision(id)).is_some_and(|at| now >= at);
            let may_start = now >= line.start_at;
            self.dirty |= hung != local.hung || may_start != local.may_start;
            local.hung = hung;
            local.may_start = may_start;
        }
    }

    /// When [`Self::tend_members`] will next find something.
    pub(super) fn members_due(&self) -> Option<Mono> {
        let due = |(id, local): (&MemberId, &Local)| {
            let line = self.members.lives.get(id)?;
            let start = (!local.may_start).then_some(line.start_at);
            let hang = line.hangs_at(local, || self.members.supervision(id)).filter(|_| !local.hung);
            // What is no longer so is found at the next tick.
            let over = local.hung && line.unready_since.is_none() || local.may_start && self.now < line.start_at;
            let over = over.then_some(self.now);
            start.into_iter().chain(hang).chain(over).min()
        };
        self.observed.members.iter().filter_map(due).min()
    }

    /// True if there was anything to tell.
    pub(super) fn tell_engines(&mut self) -> bool {
        let me = self.options.me.clone();
        let actions = reconcile::actions(&self.cluster, &self.observed, &me);
        let wanted: std::collections::BTreeSet<&MemberId> = actions.iter().map(|(id, _)| id).collect();
        self.members.asked.retain(|id, _| wanted.contains(id));
        let any = !actions.is_empty();
        for (member, action) in actions {
            let told = self.members.asked.get(&member).is_some_and(|(a, at)| *a == action && self.now.since(*at) < TELL_AGAIN);
            if !told {
                if let (EngineAction::Follow { .. }, Some(local)) = (&action, self.observed.members.get_mut(&member)) {
                    // It is not answered: told once, or it would be told for as long as the member lives.
                    local.detached = None;
                }
                self.members.asked.insert(member.clone(), (action.clone(), self.now));
                self.actions.push_back(Action::Engine { member, action });
            }
        }
        any
    }

    /// Guards kill at the lease's end what must not outlive it. A group that is closed extends nothing: its member dies at the deadline
    /// it was given last (S1). A paused one has no deadline (S10).
    pub(super) fn feed_deadlines(&mut self) {
        let until = self.holder.until().minus(GUARD_MARGIN);
        let most = (self.options.heartbeat * 3 / 2).min(Duration::from_millis(self.cluster.lease.length_ms) / 5);
        let mut fed = Vec::new();
        for group in self.cluster.groups.values().filter(|g| g.spec.exclusive && g.spec.stateful) {
            let mine = group.spec.members.iter().filter(|(_, spec)| spec.node == self.options.me);
            for (id, _) in mine {
                let (Some(member), Some(local)) = (group.members.get(id), self.observed.members.get_mut(id)) else { continue };
                if local.life != LocalLife::Running {
                    self.members.deadlines.remove(id);
                    continue;
                }
                let to_be_hot = member.may_serve.is_some() && (member.role == Role::Hot && !group.closed || group.promoting() == Some(id));
                let wanted = match (to_be_hot, local.role) {
                    _ if group.pause == crate::group::state::Pause::Paused => None,
                    // A new process has no grant yet, and nothing that shortens what its predecessor's leases gave.
                    (true, _) if self.holder.until() == Mono(0) => continue,
                    (true, _) => Some(until),
                    // Not wanted hot and not known to be anything else: whatever deadline it has stays.
                    (false, Some(Role::Hot) | None) => continue,
                    (false, Some(_)) => None,
                };
                local.under_deadline = wanted.is_some();
                // Who was told nothing in this life may have a deadline from an earlier agent: it is told, also that it has none.
                let told = self.members.deadlines.get(id).copied();
                // One that moves by a single renewal waits for the next: a guard is woken half as often, and always early enough.
                let little = matches!((told.flatten(), wanted), (Some(given), Some(wanted))
                    if wanted >= given && wanted.since(given) < most);
                if told != Some(wanted) && !little {
                    self.members.deadlines.insert(id.clone(), wanted);
                    fed.push((id.clone(), wanted));
                }
            }
        }
        for (member, until) in fed {
            self.actions.push_back(Action::Engine { member, action: EngineAction::Deadline { until } });
        }
    }

    /// True if there was anything to report.
    pub(super) fn report(&mut self) -> bool {
        let me = self.options.me.clone();
        let reports = reconcile::reports(&self.cluster, &self.observed, &me);
        let any = !reports.is_empty();
        for (group, body) in reports {
            self.propose_once(Body::Group { group, body }, AGAIN);
        }
        any
    }
}

impl LifeLine {
    /// When it counts as hung, if it does not answer until then.
    fn hangs_at(&self, local: &Local, supervision: impl FnOnce() -> Supervision) -> Option<Mono> {
        let since = self.unready_since.filter(|_| local.life == LocalLife::Running)?;
        let supervision = supervision();
        Some(since.plus(if self.answered { supervision.hung_after } else { supervision.start_timeout }))
    }

    /// When it may start again: at once if it was asked to stop, after a growing pause if it failed.
    fn ended(&mut self, now: Mono, cause: &StopCause, supervision: Supervision) {
        if matches!(cause, StopCause::Asked | StopCause::Absent | StopCause::Renewed { .. }) {
            self.start_at = now;
            return;
        }
        let ran_well = self.ready_since.is_some_and(|since| now.since(since) >= supervision.restart_max);
        self.pause = if ran_well || self.pause.is_zero() { supervision.restart } else { (self.pause * 2).min(supervision.restart_max) };
        self.start_at = now.plus(self.pause);
        self.ready_since = None;
        self.unready_since = None;
    }
}

impl Local {
    fn stopped(&mut self, cause: StopCause) {
        self.life = LocalLife::Stopped(cause);
        self.ready = false;
        self.judged = false;
        self.role = None;
        self.epoch = Epoch(0);
        self.confirmed = false;
        self.promote_failed = None;
        self.demote_failed = None;
        self.position = None;
        self.detached = None;
        self.hung = false;
        self.may_start = false;
    }

    fn took_role(&mut self, role: Role, epoch: Epoch) {
        self.role = Some(role);
        self.epoch = epoch;
        self.confirmed = true;
        if role == Role::Hot {
            self.promote_failed = None;
            self.detached = None;
        } else {
            self.demote_failed = None;
        }
    }
}
