//! What the group is now: everything that `step` decides from, and nothing that can be derived.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::reason::{Evidence, Reason, Refusal, SelfDoubt};
use super::restart::Restart;
use super::spec::GroupSpec;
use crate::action::StopCause;
use crate::ids::{Attempt, Epoch, Incarnation, MemberId, Millis, NodeId, Position, Role};
use crate::plant::{self, Bug};
use crate::route::{RouteState, Routes, Target};

/// The state of one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub spec: GroupSpec,
    /// Log time of the last input.
    pub at: Millis,
    /// The newest epoch that was opened or promised to a candidate.
    pub epoch: Epoch,
    /// Nobody may be sent requests of `epoch` (exclusive groups).
    pub closed: bool,
    pub members: BTreeMap<MemberId, Member>,
    pub nodes: BTreeMap<NodeId, NodeView>,
    /// Routers that may admit requests for `epoch`.
    pub open_routers: BTreeSet<NodeId>,
    /// Routers not yet known to have closed the epochs before (S8).
    pub stale_routers: BTreeSet<NodeId>,
    /// The member that served last was confirmed stopped, so a stale router reaches nobody; it is not started again before
    /// `stale_routers` is empty.
    pub stale_reach_nobody: bool,
    pub transition: Option<Transition>,
    pub attempt: Attempt,
    pub pause: Pause,
    /// The number of the last `resume`, so that an acknowledgement of an earlier one does not count (S10).
    pub resumes: u64,
    /// Failovers of live members, for the budget (S9); at most the budget's size is kept.
    pub failovers: VecDeque<Millis>,
    /// When the first doubt about the hot member was logged.
    pub doubt_since: Option<Millis>,
    /// The newest epoch that routers were told to close.
    pub closed_epoch: Epoch,
    /// Who served last and why it does no more, while nobody is hot.
    pub lost: Option<(MemberId, Reason)>,
    /// The refusal that holds now, told once.
    pub refusal: Option<Reason>,
    /// In a group of several hot members: the newest epoch for which a router said that nothing is in flight at drained members.
    pub drained_routers: BTreeMap<NodeId, Epoch>,
    /// Members that are to be restarted.
    pub restart: Option<Restart>,
}

/// One member's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub role: Role,
    pub incarnation: Incarnation,
    pub life: Life,
    /// Its own node's probe says that it answers.
    pub ready: bool,
    pub why_unready: String,
    /// It confirmed its hot role and takes requests.
    pub serving: bool,
    /// It confirmed its hot role and has yet to answer its check: an engine may change the role by a restart.
    pub confirmed: bool,
    /// In a group of several hot members: until when it may take to become hot.
    pub confirm_until: Option<Millis>,
    /// In a group of several hot members: its promotion failed, and is not tried again before.
    pub retry_at: Millis,
    /// From when on it counts as missing though it runs: its check fails, or will not have succeeded in time since its start.
    pub failing_from: Option<Millis>,
    /// The epoch for which it was told to be hot, until it is known to be fenced (S6).
    pub may_serve: Option<Epoch>,
    pub testimony: BTreeMap<NodeId, (Evidence, Millis)>,
    pub drained: bool,
    /// Drained while hot in a group of several: until when it finishes what it has.
    pub draining_until: Option<Millis>,
    /// It failed lately: not preferred until then.
    pub unstable_until: Millis,
    pub unstable_for_ms: u64,
    pub failed_at: Option<Millis>,
    /// It has failed to start since it last answered, and that was told.
    pub failed_start: bool,
    /// Position reported in an attempt.
    pub position: Option<(Attempt, Position)>,
    /// It was hot and has not been seen warm since, beside a hot member whose data it could follow.
    pub away: bool,
}

/// Whether the member runs, as its supervisor tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Life {
    Unknown,
    Running,
    Stopped(StopCause),
}

/// What the group uses of a node's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    pub silent: bool,
    /// It holds no lease.
    pub lapsed: bool,
    pub drained: bool,
    /// Its members are chosen only where no others can be.
    pub doubts_itself: Option<SelfDoubt>,
}

/// A change of the hot member that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    pub attempt: Attempt,
    pub why: Reason,
    pub from: Option<MemberId>,
    /// Whom the operator wants.
    pub to: Option<MemberId>,
    /// The old hot member is asked, not killed.
    pub planned: bool,
    pub phase: Phase,
    pub refused: BTreeSet<MemberId>,
    pub drained_routers: BTreeSet<NodeId>,
    pub stamps: Stamps,
}

/// When each phase began, in log time: what the report of an incident is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamps {
    pub doubt: Millis,
    pub began: Millis,
    pub fenced: Millis,
    pub chosen: Millis,
}

/// How far a transition has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Planned: routers park new requests and finish those in flight.
    Draining {
        until: Millis,
    },
    /// The epoch is closed; waiting until nobody may serve it.
    Fencing {
        until: Millis,
    },
    /// Candidates report their positions.
    Choosing {
        until: Millis,
    },
    Promoting {
        to: MemberId,
        until: Millis,
    },
}

/// Automation suspended by a person (S10).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pause {
    No,
    Paused,
    /// These nodes must count their lease again first.
    Resuming {
        waiting: BTreeSet<NodeId>,
    },
}

impl Member {
    #[must_use]
    pub const fn new(role: Role) -> Self {
        Self {
            role,
            incarnation: Incarnation(0),
            life: Life::Unknown,
            ready: false,
            why_unready: String::new(),
            serving: false,
            confirmed: false,
            confirm_until: None,
            retry_at: Millis(0),
            failing_from: None,
            may_serve: None,
            testimony: BTreeMap::new(),
            drained: false,
            draining_until: None,
            unstable_until: Millis(0),
            unstable_for_ms: 0,
            failed_at: None,
            failed_start: false,
            position: None,
            away: false,
        }
    }

    #[must_use]
    pub const fn running(&self) -> bool {
        matches!(self.life, Life::Running)
    }

    #[must_use]
    pub const fn stopped(&self) -> bool {
        matches!(self.life, Life::Stopped(_))
    }

    /// How it ended; empty if it was not seen to end.
    pub(crate) fn why_stopped(&self) -> String {
        match &self.life {
            Life::Stopped(StopCause::Absent) | Life::Running => String::new(),
            Life::Stopped(cause) => cause.to_string(),
            Life::Unknown => self.why_unready.clone(),
        }
    }

    /// It no longer is, nor was told to be, hot.
    pub(crate) fn dethrone(&mut self) {
        if self.role == Role::Hot {
            self.role = Role::Warm;
            self.away = true;
        }
        self.serving = false;
        self.confirmed = false;
        self.confirm_until = None;
        self.draining_until = None;
    }
}

impl Group {
    /// The group as it is before anything was heard: running members warm, the rest spare, nobody hot.
    #[must_use]
    pub fn new(spec: GroupSpec, nodes: BTreeMap<NodeId, NodeView>, epoch: Epoch) -> Self {
        let mut group = Self {
            at: Millis(0),
            epoch,
            closed: true,
            members: BTreeMap::new(),
            nodes,
            open_routers: BTreeSet::new(),
            stale_routers: BTreeSet::new(),
            stale_reach_nobody: false,
            transition: None,
            attempt: Attempt(0),
            pause: Pause::No,
            resumes: 0,
            failovers: VecDeque::new(),
            doubt_since: None,
            closed_epoch: epoch,
            lost: None,
            refusal: None,
            drained_routers: BTreeMap::new(),
            restart: None,
            spec,
        };
        let running = usize::from(group.spec.hot) + usize::from(group.spec.warm);
        for (rank, id) in group.by_priority().into_iter().enumerate() {
            let role = if rank < running { Role::Warm } else { Role::Spare };
            group.members.insert(id, Member::new(role));
        }
        group
    }

    /// Leaves out so many epochs. Where one member serves at a time, who may serve this one may serve the one that takes its place.
    pub(crate) fn skip_epochs(&mut self, count: u64) {
        self.epoch = Epoch(self.epoch.0 + count);
        let may_serve = self.members.values_mut().filter_map(|m| m.may_serve.as_mut());
        if self.spec.exclusive {
            may_serve.for_each(|told| *told = self.epoch);
        }
    }

    /// Configured members, the most preferred first.
    #[must_use]
    pub fn by_priority(&self) -> Vec<MemberId> {
        let mut ids: Vec<_> = self.spec.members.keys().cloned().collect();
        ids.sort_by_key(|id| (std::cmp::Reverse(self.spec.members[id].priority), id.clone()));
        ids
    }

    /// The member that is hot, in a group that allows one.
    #[must_use]
    pub fn hot(&self) -> Option<&MemberId> {
        self.members.iter().find(|(_, m)| m.role == Role::Hot).map(|(id, _)| id)
    }

    /// Members that were told to be hot and are not known to be fenced.
    pub fn may_serve(&self) -> impl Iterator<Item = (&MemberId, Epoch)> {
        self.members.iter().filter_map(|(id, m)| m.may_serve.map(|epoch| (id, epoch)))
    }

    #[must_use]
    pub fn node_of(&self, member: &MemberId) -> Option<&NodeId> {
        self.spec.members.get(member).map(|m| &m.node)
    }

    /// The node's state; a node nobody told of counts as well.
    #[must_use]
    pub fn node(&self, node: &NodeId) -> NodeView {
        self.nodes.get(node).copied().unwrap_or_default()
    }

    #[must_use]
    pub fn paused(&self) -> bool {
        self.pause != Pause::No && !plant::is(Bug::S10PauseIgnored)
    }

    /// Its end must be known to all routers before it may live again: one with an old view reaches whoever answers at its address (S8).
    #[must_use]
    pub fn stays_down(&self, member: &MemberId) -> bool {
        self.spec.exclusive && !self.stale_routers.is_empty() && self.members.get(member).is_some_and(|m| m.away && !m.running())
    }

    /// The node's members and router do not count its lease now: it has not seen the end of a pause (S10).
    #[must_use]
    pub fn lease_suspended(&self, node: &NodeId) -> bool {
        match &self.pause {
            Pause::No => false,
            Pause::Paused => true,
            Pause::Resuming { waiting } => waiting.contains(node),
        }
    }

    /// What routers do now.
    #[must_use]
    pub fn routes(&self) -> Routes {
        // A router answers that it holds nothing up to the epoch it is told. While a promotion is under way that is the last one that was
        // closed: said of the coming one, it would still be there when that is closed in its turn (S8).
        let held = if self.spec.exclusive { self.closed_epoch } else { self.epoch };
        let draining = matches!(self.transition, Some(Transition { phase: Phase::Draining { .. }, .. }));
        let state = if self.closed {
            RouteState::Held
        } else if draining {
            RouteState::Draining(self.targets())
        } else {
            match self.targets() {
                targets if targets.is_empty() => RouteState::Held,
                targets => RouteState::Open(targets),
            }
        };
        let epoch = if state == RouteState::Held { held } else { self.epoch };
        Routes { group: self.spec.name.clone(), epoch, exclusive: self.spec.exclusive, state }
    }

    fn targets(&self) -> Vec<Target> {
        let serving = || self.members.iter().filter(|(_, m)| m.role == Role::Hot && m.serving);
        // Where all that could take requests are drained, somebody still has to.
        let well = |id| self.unfit(id).is_none_or(|why| why == Refusal::Suspected);
        let all_drain = serving().all(|(id, m)| m.draining_until.is_some() || !well(id));
        let target = |(id, m): (&MemberId, &Member)| {
            let spec = self.spec.members.get(id)?;
            let weight = if m.draining_until.is_some() && !all_drain { 0 } else { spec.weight };
            Some(Target { member: id.clone(), address: spec.address, weight, zone: spec.zone.clone() })
        };
        serving().filter_map(target).collect()
    }

    /// The next moment of log time at which something is to be decided though nothing happens.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Millis> {
        let phase = self.transition.as_ref().map(|t| match t.phase {
            Phase::Draining { until } | Phase::Fencing { until } | Phase::Choosing { until } | Phase::Promoting { until, .. } => until,
        });
        let drains = self.members.values().flat_map(|m| [m.draining_until, m.confirm_until, m.failing_from, Some(m.retry_at)]).flatten();
        let holds = self.members.values().filter(|m| m.role != Role::Hot && m.unstable_until > self.at).map(|m| m.unstable_until);
        let testimony = self.members.values().flat_map(|m| m.testimony.values()).map(|(_, at)| at.plus(self.spec.bounds.testimony_ms));
        let budget = self.failovers.front().map(|at| at.plus(super::policy::HOUR_MS));
        let restart = self.restart.as_ref().filter(|restart| restart.stopped.is_none()).map(|restart| restart.until);
        phase.into_iter().chain(restart).chain(drains).chain(holds).chain(testimony).chain(budget).filter(|at| *at > self.at).min()
    }
}
