//! What this node must do now, and what it must tell the log: both derived from the applied state and from what is observed, never
//! from what was meant before (level-triggered, idempotent).
//!
//! [`actions`] looks from the state to the engines, [`reports`] from the engines and the router back to the state. Both are pure; the
//! node repeats them after each applied entry, each observation and each deadline, and drops what it has just asked for.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::action::{EngineAction, StopCause};
use crate::cluster::Cluster;
use crate::group::input::{Answer, Body, Life as Told, Testimony};
use crate::group::reason::Evidence;
use crate::group::spec::Fence;
use crate::group::state::{Group, Life, Member, Pause, Phase};
use crate::ids::{Attempt, Epoch, GroupName, Incarnation, MemberId, Millis, NodeId, Position, Role};
use crate::plant::{self, Bug};

/// What this node sees of one of its own members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    pub incarnation: Incarnation,
    pub life: LocalLife,
    pub ready: bool,
    /// Its probe has come to a verdict in this life, as far as this agent knows: of one that was adopted, not having looked yet is no failure.
    pub judged: bool,
    pub why_unready: String,
    /// The role it last confirmed, or was found with when it was adopted, and for which epoch.
    pub role: Option<Role>,
    pub epoch: Epoch,
    /// It said itself that it took that role: of one that was adopted it is not known whether it followed what it was told.
    pub confirmed: bool,
    /// A fence hook confirmed that it serves nothing before this epoch.
    pub fenced: Epoch,
    pub promote_failed: Option<(Epoch, String)>,
    /// It was asked to step down from this epoch and could not.
    pub demote_failed: Option<Epoch>,
    pub position: Option<(Attempt, Position)>,
    /// The attempt for which it is cut from the data of the others.
    pub detached: Option<Attempt>,
    /// It may be started (again): its pause after a failure is over.
    pub may_start: bool,
    /// It has not answered for longer than a member may.
    pub hung: bool,
    /// Its guard was told in this life when to end it.
    pub under_deadline: bool,
}

/// See [`Local`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LocalLife {
    /// Its engine has not said yet.
    #[default]
    Unknown,
    Running,
    Stopped(StopCause),
}

/// What this node sees of its own router for one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalRouter {
    /// It admits and releases nothing for this epoch nor any before.
    pub closed: Option<Epoch>,
    /// Nothing of this epoch is in flight and new requests park.
    pub drained: Option<Epoch>,
    /// Members that its live traffic cannot reach.
    pub suspects: BTreeMap<MemberId, Evidence>,
}

/// All that is observed on one node.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub members: BTreeMap<MemberId, Local>,
    pub routers: BTreeMap<GroupName, LocalRouter>,
    /// This node's lease is valid, and the state is as new as its last grant (S1).
    pub leased: bool,
    /// The log's time as far as this node can tell: that of the last entry and what has passed since.
    pub log_now: Millis,
}

/// What the engines of this node's members are to be told.
#[must_use]
pub fn actions(cluster: &Cluster, observed: &Observed, me: &NodeId) -> Vec<(MemberId, EngineAction)> {
    let mut actions = Vec::new();
    for group in cluster.groups.values() {
        for (id, local) in local_members(group, observed, me) {
            if let Some(member) = group.members.get(id) {
                let context = Context { group, member, id, local, leased: observed.leased };
                actions.extend(context.action().map(|action| (id.clone(), action)));
            }
        }
        actions.extend(fence_for_others(group, observed, me));
    }
    actions.extend(orphans(cluster, observed, me));
    actions
}

fn local_members<'a>(group: &'a Group, observed: &'a Observed, me: &'a NodeId) -> impl Iterator<Item = (&'a MemberId, &'a Local)> {
    let mine = group.spec.members.iter().filter(move |(_, spec)| spec.node == *me);
    mine.filter_map(|(id, _)| observed.members.get(id).map(|local| (id, local)))
}

/// Members that run here and are configured no more, or on another node. S1: only under a lease, for a state that is replayed may be
/// older than the one in which they were given to this node.
fn orphans<'a>(cluster: &'a Cluster, observed: &'a Observed, me: &'a NodeId) -> impl Iterator<Item = (MemberId, EngineAction)> + 'a {
    let mine = |id: &MemberId| cluster.groups.get(&id.group()).is_some_and(|g| g.node_of(id) == Some(me));
    let running = observed.members.iter().filter(|(_, local)| local.life == LocalLife::Running);
    let sure = cluster.founded() && observed.leased;
    running.filter(move |(id, _)| sure && !mine(id)).map(|(id, _)| (id.clone(), EngineAction::Stop { graceful: true }))
}

/// A member whose node is lost and which only its hook can fence is fenced from another: one at a time, the next one each time that the
/// group insists, for a hook may work here and not there.
fn fence_for_others(group: &Group, observed: &Observed, me: &NodeId) -> Vec<(MemberId, EngineAction)> {
    if group.spec.fence != Fence::Hook || !observed.leased {
        return Vec::new();
    }
    let epoch = group.epoch.next();
    let lost = group.may_serve().filter(|(id, _)| group.node_of(id).is_some_and(|node| !is_up(group, node)));
    lost.filter(|(id, _)| group.fence_runs_on(id) == Some(me)).map(|(id, _)| (id.clone(), EngineAction::Fence { epoch })).collect()
}

fn is_up(group: &Group, node: &NodeId) -> bool {
    let view = group.node(node);
    !view.lapsed && !view.silent
}

impl Group {
    /// The node whose turn it is to run the member's fence command while the group is fencing: the member's own, or another if that is lost.
    #[must_use]
    pub fn fence_runs_on(&self, member: &MemberId) -> Option<&NodeId> {
        let Some(Phase::Fencing { until }) = self.transition.as_ref().map(|t| &t.phase) else { return None };
        if let Some(own) = self.node_of(member).filter(|node| is_up(self, node)) {
            return Some(own);
        }
        let able: BTreeSet<&NodeId> = self.spec.members.values().map(|m| &m.node).filter(|node| is_up(self, node)).collect();
        let turn = usize::try_from(until.0 / self.spec.bounds.promote_ms.max(1)).unwrap_or(0);
        able.iter().nth(turn % able.len().max(1)).copied()
    }
}

/// It is hot for `epoch`. That it was found so when it was adopted suffices only if it served before: whoever adopts it does not know
/// whether the promotion came to its end.
fn took_hot(member: &Member, local: &Local, epoch: Epoch) -> bool {
    local.role == Some(Role::Hot) && local.epoch == epoch && (local.confirmed || member.serving)
}

struct Context<'a> {
    group: &'a Group,
    member: &'a Member,
    id: &'a MemberId,
    local: &'a Local,
    leased: bool,
}

impl Context<'_> {
    fn action(&self) -> Option<EngineAction> {
        match self.local.life {
            LocalLife::Unknown => None,
            LocalLife::Stopped(_) => self.fence_absent().or_else(|| self.start()),
            LocalLife::Running => self.fence().or_else(|| self.rest()).or_else(|| self.role()).or_else(|| self.data()),
        }
    }

    fn start(&self) -> Option<EngineAction> {
        if self.member.role == Role::Spare || !self.local.may_start {
            return None;
        }
        // Its end must be in the log before it lives again, or the log could take the new life for the old one.
        let told = self.member.stopped() && self.member.incarnation == self.local.incarnation;
        if !told && self.local.incarnation > Incarnation(0) {
            return None;
        }
        // S8: a router that has not closed an older epoch could reach it at its address.
        let reachable = !self.group.stale_routers.is_empty();
        if self.group.spec.exclusive && (reachable || !self.leased) {
            return None;
        }
        // S6: a candidate that begins a new life has not stepped down from the epoch it was told.
        let before = |told: Epoch| Epoch(told.0.saturating_sub(1));
        Some(EngineAction::Start { epoch: self.member.may_serve.map_or(self.group.epoch, before) })
    }

    /// It may serve an epoch that is over, and is not the one that is being made hot.
    fn fence(&self) -> Option<EngineAction> {
        let told = self.member.may_serve?;
        let t = self.group.transition.as_ref()?;
        if !self.group.spec.exclusive || !matches!(t.phase, Phase::Fencing { .. }) {
            return None;
        }
        let stepped_down = self.local.role == Some(Role::Warm) && self.local.epoch >= told;
        // What a hook confirmed is on its way to the log: it is not run again for that.
        if stepped_down || self.local.fenced > told {
            return None;
        }
        // One that answers can be asked; one that does not is ended.
        if t.planned
            || (self.local.ready
                && t.from.as_ref() == Some(self.id)
                && matches!(t.phase, Phase::Fencing { until } if self.group.at < until))
        {
            return Some(EngineAction::Demote { epoch: self.group.epoch });
        }
        Some(EngineAction::Fence { epoch: self.group.epoch.next() })
    }

    /// Where only a hook can tell, it is asked also for a member that is not seen to run: not being seen is no end (S5).
    fn fence_absent(&self) -> Option<EngineAction> {
        let by_hook = self.group.spec.exclusive && self.group.spec.fence == Fence::Hook;
        let fencing = self.group.transition.as_ref().is_some_and(|t| matches!(t.phase, Phase::Fencing { .. }));
        let wanted = self.member.may_serve.is_some_and(|told| self.local.fenced <= told);
        (by_hook && fencing && wanted).then(|| EngineAction::Fence { epoch: self.group.epoch.next() })
    }

    fn rest(&self) -> Option<EngineAction> {
        if self.member.role == Role::Spare && self.member.may_serve.is_none() {
            return Some(EngineAction::Stop { graceful: true });
        }
        // S1: a state that is replayed may be older than what became of that restart.
        if self.leased && self.group.is_to_end(self.id, self.local.incarnation) {
            return Some(EngineAction::Stop { graceful: true });
        }
        // A member that hangs is ended, so that it can start anew; a doubted hot one of an exclusive group only by its fence (S9).
        let kept = self.group.spec.exclusive && self.member.role == Role::Hot;
        (self.local.hung && !kept).then_some(EngineAction::Stop { graceful: false })
    }

    fn role(&self) -> Option<EngineAction> {
        let hot = |epoch| self.is_hot(epoch);
        match self.member.may_serve {
            Some(epoch) if self.wanted_hot() => {
                let may = self.leased || !self.group.spec.exclusive;
                let failed = self.local.promote_failed.as_ref().is_some_and(|(e, _)| *e == epoch);
                let attempt = self.group.transition.as_ref().map_or(self.group.attempt, |t| t.attempt);
                (!hot(epoch) && may && !failed).then_some(EngineAction::Promote { epoch, attempt })
            }
            Some(_) => None,
            None => (self.local.role == Some(Role::Hot)).then_some(EngineAction::Demote { epoch: self.group.epoch }),
        }
    }

    fn is_hot(&self, epoch: Epoch) -> bool {
        took_hot(self.member, self.local, epoch)
    }

    /// One whose epoch is closed is on its way out: once it has stepped down, it must not be told to be hot again.
    fn wanted_hot(&self) -> bool {
        let closed = self.group.spec.exclusive && self.group.closed;
        (self.member.role == Role::Hot && !closed) || self.group.promoting() == Some(self.id)
    }

    /// Cut from the old data while candidates are compared; following the hot member otherwise.
    ///
    /// S7: a cut is undone only from a state in which its attempt has ended and a newer epoch is open: what ended it is committed.
    fn data(&self) -> Option<EngineAction> {
        if !self.group.spec.positions {
            return None;
        }
        match self.group.transition.as_ref() {
            Some(t) if matches!(t.phase, Phase::Choosing { .. }) => {
                let reported = self.local.position.is_some_and(|(attempt, _)| attempt == t.attempt || plant::is(Bug::S7AnyAttempt));
                (!reported).then_some(EngineAction::Detach { epoch: self.group.epoch, attempt: t.attempt })
            }
            None if self.local.detached.is_some() && !self.group.closed && self.member.role != Role::Hot => {
                Some(EngineAction::Follow { epoch: self.group.epoch })
            }
            _ => None,
        }
    }
}

/// What the log does not know yet of what is observed here.
#[must_use]
pub fn reports(cluster: &Cluster, observed: &Observed, me: &NodeId) -> Vec<(GroupName, Body)> {
    let mut reports = Vec::new();
    for (name, group) in &cluster.groups {
        let mut bodies = Vec::new();
        for (id, local) in local_members(group, observed, me) {
            if let Some(member) = group.members.get(id) {
                bodies.extend(life(id, member, local));
                bodies.extend(answers(group, id, member, local));
            }
        }
        if let Some(router) = observed.routers.get(name) {
            bodies.extend(router_answers(group, router, me, observed.leased && under_deadlines(group, observed, me)));
            bodies.extend(testimony(group, router, me, observed.log_now));
        }
        bodies.extend(hook_answers(group, observed));
        reports.extend(bodies.into_iter().map(|body| (name.clone(), body)));
    }
    reports
}

fn life(id: &MemberId, member: &Member, local: &Local) -> Option<Body> {
    let (member_id, incarnation) = (id.clone(), local.incarnation);
    let newer = local.incarnation > member.incarnation;
    let told = match &local.life {
        LocalLife::Unknown => return None,
        LocalLife::Stopped(cause) if newer || !member.stopped() || failed_again(member, local, cause) => {
            Told::Stopped { member: member_id, incarnation, cause: cause.clone() }
        }
        LocalLife::Running if newer || (!member.running() && local.incarnation == member.incarnation) => {
            Told::Started { member: member_id, incarnation }
        }
        LocalLife::Running if local.incarnation == member.incarnation && local.ready && !member.ready => {
            Told::Ready { member: member_id, incarnation }
        }
        LocalLife::Running if local.incarnation == member.incarnation && local.judged && !local.ready && member.ready => {
            Told::Unready { member: member_id, incarnation, why: local.why_unready.clone() }
        }
        LocalLife::Stopped(_) | LocalLife::Running => return None,
    };
    Some(Body::Life(told))
}

/// The end of the same life is seen with another cause: what was tried since failed before it had a number of its own.
fn failed_again(member: &Member, local: &Local, cause: &StopCause) -> bool {
    let known = matches!(&member.life, Life::Stopped(known) if known == cause);
    local.incarnation == member.incarnation && cause.is_failure() && !known
}

fn answers(group: &Group, id: &MemberId, member: &Member, local: &Local) -> Vec<Body> {
    let mut answers: Vec<Answer> = Vec::new();
    let attempt = group.transition.as_ref().map_or(group.attempt, |t| t.attempt);
    let same_life = local.incarnation == member.incarnation && member.life == Life::Running && local.life == LocalLife::Running;
    if !same_life {
        return Vec::new();
    }
    let (member_id, incarnation) = (id.clone(), local.incarnation);
    if let Some(epoch) = member.may_serve {
        let stepped_down = local.role == Some(Role::Warm) && local.epoch >= epoch;
        let fencing = matches!(group.transition.as_ref().map(|t| &t.phase), Some(Phase::Fencing { .. }));
        // A failed promotion is told until the group fences; from then on only the end of its right to serve matters.
        if stepped_down && fencing {
            answers.push(Answer::Demoted { member: member_id.clone(), incarnation, epoch: local.epoch });
        } else if !member.serving && took_hot(member, local, epoch) {
            answers.push(Answer::Promoted { member: member_id.clone(), incarnation, epoch, attempt });
        } else if let Some((_, why)) = local.promote_failed.as_ref().filter(|(e, _)| *e == epoch && !member.serving) {
            answers.push(Answer::PromoteFailed { member: member_id.clone(), incarnation, epoch, attempt, why: why.clone() });
        }
    }
    // S7: a position is that of its attempt.
    let now = |of: Attempt| if plant::is(Bug::S7AnyAttempt) { attempt } else { of };
    if let Some((attempt, position)) = local.position.map(|(of, position)| (now(of), position))
        && member.position != Some((attempt, position))
        && group.transition.as_ref().is_some_and(|t| t.attempt == attempt)
    {
        answers.push(Answer::Position { member: member_id, incarnation, attempt, position });
    }
    answers.into_iter().map(Body::Answer).collect()
}

/// S10: the leases of this node bind its members again, so that a lapse of it proves again that they have ended.
fn under_deadlines(group: &Group, observed: &Observed, me: &NodeId) -> bool {
    let bound = |local: &Local| match local.life {
        LocalLife::Stopped(_) => true,
        LocalLife::Running => local.under_deadline,
        LocalLife::Unknown => false,
    };
    let may_serve = |id: &MemberId| group.members.get(id).is_some_and(|m| m.may_serve.is_some());
    let mine = group.spec.members.iter().filter(|(id, spec)| spec.node == *me && may_serve(id));
    let stateful = group.spec.exclusive && group.spec.stateful;
    !stateful || mine.map(|(id, _)| observed.members.get(id)).all(|local| local.is_some_and(bound))
}

fn router_answers(group: &Group, router: &LocalRouter, me: &NodeId, may_resume: bool) -> Vec<Body> {
    let mut answers = Vec::new();
    let node = me.clone();
    if group.stale_routers.contains(me) && router.closed.is_some_and(|epoch| epoch >= group.closed_epoch) {
        answers.push(Answer::RouterClosed { node: node.clone(), epoch: group.closed_epoch });
    }
    let wanted = match &group.transition {
        Some(t) => matches!(t.phase, Phase::Draining { .. }) && !t.drained_routers.contains(me),
        None => group.members.values().any(|m| m.draining_until.is_some()) && group.drained_routers.get(me) != Some(&group.epoch),
    };
    if wanted && router.drained == Some(group.epoch) {
        answers.push(Answer::RouterDrained { node: node.clone(), epoch: group.epoch });
    }
    if let Pause::Resuming { waiting } = &group.pause
        && waiting.contains(me)
        && may_resume
    {
        answers.push(Answer::ResumeSeen { node, resume: group.resumes });
    }
    answers.into_iter().map(Body::Answer).collect()
}

/// Testimony is repeated before it expires, and withdrawn when the evidence is gone.
fn testimony(group: &Group, router: &LocalRouter, me: &NodeId, now: Millis) -> Vec<Body> {
    let mut told = Vec::new();
    for (id, member) in &group.members {
        let logged = member.testimony.get(me);
        let told_lately = logged.is_some_and(|(_, at)| now.since(*at) < group.spec.bounds.testimony_ms / 3);
        match router.suspects.get(id) {
            Some(evidence) if !told_lately && member.running() => told.push(Testimony::Suspect {
                member: id.clone(),
                incarnation: member.incarnation,
                epoch: group.epoch,
                witness: me.clone(),
                evidence: evidence.clone(),
            }),
            None if logged.is_some() => told.push(Testimony::Clear { member: id.clone(), witness: me.clone() }),
            _ => {}
        }
    }
    told.into_iter().map(Body::Testimony).collect()
}

/// What a fence hook confirmed, of a member here or of one whose node is lost.
fn hook_answers(group: &Group, observed: &Observed) -> Vec<Body> {
    let fenced = |id: &MemberId| observed.members.get(id).map(|local| local.fenced).unwrap_or_default();
    let confirmed = group.may_serve().filter(|(id, told)| fenced(id) > *told);
    confirmed.map(|(id, _)| Body::Answer(Answer::Fenced { member: id.clone(), epoch: fenced(id) })).collect()
}
