//! Why: the reason of every decision and every refusal, for people. Each has a code, a page in docs/reference/reasons and a transcript.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::restart::names;
use crate::action::StopCause;
use crate::ids::{Epoch, MemberId, NodeId, Position};

/// What a witness saw of a member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Evidence {
    /// Connections are refused.
    Refused,
    /// Connections are reset.
    Reset,
    /// Requests are accepted and not answered, and neither is a probe.
    Silent,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Refused => "connections refused",
            Self::Reset => "connections reset",
            Self::Silent => "no answer",
        })
    }
}

/// Why a node doubts itself, as it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SelfDoubt {
    /// Little room is left on the disk of its data directory (HW0508).
    LittleRoom,
    /// Its disk or its timers stall: it asks for no lease.
    Stalled,
    /// Its agent is ended in an orderly way, for an upgrade say; its members live on. It says so no more once it is back.
    Stopping,
}

impl fmt::Display for SelfDoubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::LittleRoom => "little room is left on its disk",
            Self::Stalled => "its disk or its timers stall",
            Self::Stopping => "its agent is being stopped",
        })
    }
}

/// What ended an old hot member's right to serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FencedBy {
    Stopped(StopCause),
    Demoted,
    LeaseOut,
    Hook,
    /// Its routers closed; nothing else can be known of it.
    RoutersClosed,
    /// The operator who forced the end of a pause says so.
    Vouched,
}

impl fmt::Display for FencedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped(cause) => write!(f, "it stopped ({cause})"),
            Self::Demoted => f.write_str("it confirmed its demotion"),
            Self::LeaseOut => f.write_str("its node's lease was waited out"),
            Self::Hook => f.write_str("its fence confirmed"),
            Self::RoutersClosed => f.write_str("all routers closed (router-only fence)"),
            Self::Vouched => f.write_str("its node holds no lease, and the operator vouched for it by `resume --force`"),
        }
    }
}

impl fmt::Display for StopCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Asked => f.write_str("it was asked to"),
            Self::Deadline => f.write_str("its guard's deadline passed"),
            Self::NotStarted(why) => write!(f, "not started: {why}"),
            Self::Absent => f.write_str("not running"),
            Self::Renewed { role } => write!(f, "it begins anew as {role}"),
            Self::Hung(why) => write!(f, "ended, because it no longer answered: {why}"),
        }
    }
}

/// Why one member cannot become hot now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    NodeLost,
    Drained,
    Spare,
    /// The text says how it ended; empty if that is not known.
    NotRunning {
        why: String,
    },
    /// It was hot and is not started before all routers have closed (S8).
    KeptDown,
    NotReady {
        why: String,
    },
    Suspected,
    /// It failed lately and is held down; the milliseconds left.
    Unstable {
        left_ms: u64,
    },
    FailedThisTime,
    NoPosition,
    /// It was hot in an older epoch and has followed nobody since.
    OldData,
    Behind {
        position: Position,
        best: Position,
    },
    Outranked,
    /// Its present life ends, because a restart was asked for.
    Restarting,
    /// It could, and another is there whose node does not doubt itself.
    NodeDoubtsItself {
        why: SelfDoubt,
    },
}

impl Refusal {
    /// It could become hot; another is only the better choice.
    #[must_use]
    pub const fn is_preference(&self) -> bool {
        matches!(self, Self::Outranked | Self::NodeDoubtsItself { .. })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeLost => f.write_str("its node is not heard or holds no lease"),
            Self::Drained => f.write_str("it is drained"),
            Self::Spare => f.write_str("it is a spare and does not run yet"),
            Self::NotRunning { why } => with(f, "it does not run", why),
            Self::KeptDown => f.write_str("it is kept down until all routers have closed"),
            Self::NotReady { why } => with(f, "its check fails", why),
            Self::Suspected => f.write_str("routers cannot reach it"),
            Self::Unstable { left_ms } => write!(f, "it failed lately and is held down for {:.1} s more", *left_ms as f64 / 1000.0),
            Self::FailedThisTime => f.write_str("its promotion failed in this attempt"),
            Self::OldData => f.write_str("its data ends in an older epoch, in which it was hot"),
            Self::NoPosition => f.write_str("it has not reported its position"),
            Self::Behind { position, best } => write!(f, "its data is behind ({position} of {best})"),
            Self::Outranked => f.write_str("another is preferred"),
            Self::Restarting => f.write_str("it is being restarted"),
            Self::NodeDoubtsItself { why } => write!(f, "its node doubts itself: {why}"),
        }
    }
}

fn with(f: &mut fmt::Formatter<'_>, what: &str, why: &str) -> fmt::Result {
    if why.is_empty() { f.write_str(what) } else { write!(f, "{what}: {why}") }
}

/// Why something was decided or refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The hot member is known to have stopped.
    HotStopped {
        member: MemberId,
        cause: StopCause,
    },
    /// The hot member's own check fails.
    HotUnready {
        member: MemberId,
        why: String,
    },
    /// Several routers cannot reach the hot member.
    HotUnreachable {
        member: MemberId,
        witnesses: Vec<(NodeId, Evidence)>,
    },
    /// The hot member's node is silent.
    NodeSilent {
        member: MemberId,
        node: NodeId,
    },
    /// The hot member's node has let its lease run out.
    NodeLapsed {
        member: MemberId,
        node: NodeId,
    },
    /// Nobody is hot and somebody can be.
    Vacant,
    /// A person or a program asked for it.
    SwitchoverAsked {
        from: MemberId,
        to: MemberId,
    },
    /// The hot member or its node is drained.
    HotDrained {
        member: MemberId,
    },
    Fenced {
        member: MemberId,
        epoch: Epoch,
        by: FencedBy,
    },
    Chosen {
        member: MemberId,
        others: Vec<(MemberId, Refusal)>,
    },
    PromoteFailed {
        member: MemberId,
        why: String,
    },
    PromoteTimedOut {
        member: MemberId,
        after_ms: u64,
    },
    /// The candidate was lost while it was being promoted.
    CandidateLost {
        member: MemberId,
    },
    Opened {
        member: MemberId,
        epoch: Epoch,
        pause_ms: u64,
        detect_ms: u64,
        fence_ms: u64,
        choose_ms: u64,
        promote_ms: u64,
    },
    /// A member that was away runs and is warm.
    ReturnedWarm {
        member: MemberId,
    },
    /// A member of a group with several hot members was left out.
    Ejected {
        member: MemberId,
        why: Refusal,
    },
    /// A member of a group with several hot members serves again.
    Admitted {
        member: MemberId,
        epoch: Epoch,
    },
    /// A spare is started because a member is missing.
    SpareStarted {
        member: MemberId,
    },
    /// A member that is not needed rests again as a spare.
    SpareRests {
        member: MemberId,
    },
    /// Requests in flight did not finish in time and are cut.
    DrainTimedOut {
        routers: Vec<NodeId>,
        after_ms: u64,
    },
    /// A switchover or drain was given up; the old hot member goes on.
    SwitchoverAborted {
        why: String,
    },
    /// The old hot member did not confirm that it stepped down; it is fenced by force.
    DemoteTimedOut {
        member: MemberId,
        after_ms: u64,
    },
    Paused,
    Resumed,
    /// Refused: nobody is promoted while a member may still serve, or a router may still send to it.
    FenceWaits {
        members: Vec<MemberId>,
        routers: Vec<NodeId>,
    },
    /// Refused: no other member can take over, and a live member is not fenced for nothing (S9).
    NoSuccessor {
        member: Option<MemberId>,
        others: Vec<(MemberId, Refusal)>,
    },
    /// Refused: automation is paused.
    AutomationPaused,
    /// Refused: too many failovers of live members in the last hour.
    BudgetSpent {
        failovers: u32,
        per_hour: u32,
    },
    /// Refused: too few members report their position for R + W > N.
    TooFewReports {
        reports: u16,
        needed: u16,
    },
    /// Refused: leaving out this member would leave none.
    LastOne {
        member: MemberId,
        why: Refusal,
    },
    /// Refused: the switchover cannot be.
    SwitchoverRefused {
        why: String,
    },
    /// The pause's end waits for these nodes to count their lease again.
    ResumeWaits {
        nodes: Vec<NodeId>,
    },
    /// It failed lately and was to rest so much longer, but no other can serve (S9).
    HoldDownWaived {
        member: MemberId,
        left_ms: u64,
    },
    /// It was started and ended before it answered its check, for the first time since it last did.
    NotStarted {
        member: MemberId,
        why: String,
    },
    /// The configuration wants no hot member any more (`hot = 0`): the one there is hands over to nobody.
    NoneWanted {
        member: MemberId,
    },
    /// A person asked for these members to be restarted, in this order.
    RestartAsked {
        members: Vec<MemberId>,
    },
    /// It is this member's turn.
    Restarting {
        member: MemberId,
    },
    /// It runs in a new life and answers; so many others are still to be restarted.
    Restarted {
        member: MemberId,
        left: u16,
    },
    /// Refused for now: taking out this member would leave less than the group can do with.
    RestartWaits {
        member: MemberId,
        why: String,
    },
    /// The restart ended before all were restarted; `left` run on as they are.
    RestartStopped {
        member: Option<MemberId>,
        why: String,
        left: Vec<MemberId>,
    },
    /// Refused: the restart cannot be.
    RestartRefused {
        why: String,
    },
}

fn list(others: &[(MemberId, Refusal)]) -> String {
    if others.is_empty() {
        return String::new();
    }
    format!(" ({})", others.iter().map(|(member, why)| format!("{member}: {why}")).collect::<Vec<_>>().join("; "))
}

fn nodes(all: &[NodeId]) -> String {
    all.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ")
}

fn seen(witnesses: &[(NodeId, Evidence)]) -> String {
    witnesses.iter().map(|(node, evidence)| format!("{node}: {evidence}")).collect::<Vec<_>>().join("; ")
}

fn waits_for(members: &[MemberId], routers: &[NodeId]) -> String {
    let members = members.iter().map(|id| format!("{id} may still serve"));
    members.chain(routers.iter().map(|node| format!("the router of {node} has not closed"))).collect::<Vec<_>>().join("; ")
}

impl Reason {
    /// The page's name in docs/reference/reasons, and what programs compare.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.row().0
    }

    /// The safety rules (docs/internals/safety.md) by which it is as it is; empty where none of them governs it.
    #[must_use]
    pub const fn rules(&self) -> &'static [&'static str] {
        self.row().1
    }

    /// One for each: its code and its rules.
    const fn row(&self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::HotStopped { .. } => ("hot-stopped", &["S5"]),
            Self::HotUnready { .. } => ("hot-unready", &["S9"]),
            Self::HotUnreachable { .. } => ("hot-unreachable", &["S4", "S9"]),
            Self::NodeSilent { .. } => ("node-silent", &["S9"]),
            Self::NodeLapsed { .. } => ("node-lapsed", &["S2", "S9"]),
            Self::Vacant => ("vacant", &[]),
            Self::SwitchoverAsked { .. } => ("switchover-asked", &[]),
            Self::HotDrained { .. } => ("hot-drained", &["S9"]),
            Self::Fenced { .. } => ("fenced", &["S6"]),
            Self::Chosen { .. } => ("chosen", &["S6", "S8"]),
            Self::PromoteFailed { .. } => ("promote-failed", &["S6"]),
            Self::PromoteTimedOut { .. } => ("promote-timed-out", &["S6"]),
            Self::CandidateLost { .. } => ("candidate-lost", &["S6"]),
            Self::Opened { .. } => ("opened", &["S8"]),
            Self::ReturnedWarm { .. } => ("returned-warm", &[]),
            Self::Ejected { .. } => ("ejected", &[]),
            Self::Admitted { .. } => ("admitted", &[]),
            Self::SpareStarted { .. } => ("spare-started", &[]),
            Self::SpareRests { .. } => ("spare-rests", &[]),
            Self::DrainTimedOut { .. } => ("drain-timed-out", &[]),
            Self::SwitchoverAborted { .. } => ("switchover-aborted", &["S7"]),
            Self::DemoteTimedOut { .. } => ("demote-timed-out", &["S6"]),
            Self::Paused => ("paused", &["S10"]),
            Self::Resumed => ("resumed", &["S10"]),
            Self::FenceWaits { .. } => ("fence-waits", &["S6", "S8"]),
            Self::NoSuccessor { .. } => ("no-successor", &["S9"]),
            Self::AutomationPaused => ("automation-paused", &["S10"]),
            Self::BudgetSpent { .. } => ("budget-spent", &["S9"]),
            Self::TooFewReports { .. } => ("too-few-reports", &[]),
            Self::LastOne { .. } => ("last-one", &[]),
            Self::SwitchoverRefused { .. } => ("switchover-refused", &[]),
            Self::ResumeWaits { .. } => ("resume-waits", &["S10"]),
            Self::HoldDownWaived { .. } => ("hold-down-waived", &["S9"]),
            Self::NotStarted { .. } => ("not-started", &[]),
            Self::NoneWanted { .. } => ("none-wanted", &[]),
            Self::RestartAsked { .. } => ("restart-asked", &["S4"]),
            Self::Restarting { .. } => ("restarting", &["S4"]),
            Self::Restarted { .. } => ("restarted", &["S4"]),
            Self::RestartWaits { .. } => ("restart-waits", &[]),
            Self::RestartStopped { .. } => ("restart-stopped", &[]),
            Self::RestartRefused { .. } => ("restart-refused", &[]),
        }
    }

    /// True for what a rule forbade.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::FenceWaits { .. }
                | Self::NoSuccessor { .. }
                | Self::AutomationPaused
                | Self::BudgetSpent { .. }
                | Self::TooFewReports { .. }
                | Self::LastOne { .. }
                | Self::SwitchoverRefused { .. }
                | Self::ResumeWaits { .. }
                | Self::RestartWaits { .. }
                | Self::RestartRefused { .. }
        )
    }

    /// All codes, for the test that each has its page and its transcript.
    pub const CODES: [&'static str; 41] = [
        "hot-stopped",
        "hot-unready",
        "hot-unreachable",
        "node-silent",
        "node-lapsed",
        "vacant",
        "switchover-asked",
        "hot-drained",
        "fenced",
        "chosen",
        "promote-failed",
        "promote-timed-out",
        "candidate-lost",
        "opened",
        "returned-warm",
        "ejected",
        "admitted",
        "spare-started",
        "spare-rests",
        "drain-timed-out",
        "switchover-aborted",
        "demote-timed-out",
        "paused",
        "resumed",
        "fence-waits",
        "no-successor",
        "automation-paused",
        "budget-spent",
        "too-few-reports",
        "last-one",
        "switchover-refused",
        "resume-waits",
        "hold-down-waived",
        "not-started",
        "none-wanted",
        "restart-asked",
        "restarting",
        "restarted",
        "restart-waits",
        "restart-stopped",
        "restart-refused",
    ];
}

impl Reason {
    fn fmt_restart(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RestartAsked { members } => {
                write!(f, "a restart of {} was asked for", members.iter().map(MemberId::as_str).collect::<Vec<_>>().join(", then "))
            }
            Self::Restarting { member } => write!(f, "{member} is restarted: it is its turn, and all others are well"),
            Self::Restarted { member, left: 0 } => write!(f, "{member} is restarted; it was the last"),
            Self::Restarted { member, left } => write!(f, "{member} is restarted; {left} to go"),
            Self::RestartWaits { member, why } => write!(f, "{member} is not restarted yet: {why}"),
            Self::RestartStopped { member, why, left } => {
                let of = member.as_ref().map(|id| format!(" at {id}")).unwrap_or_default();
                let left = if left.is_empty() { String::new() } else { format!("; not restarted: {}", names(left)) };
                write!(f, "the restart stopped{of}: {why}{left}")
            }
            Self::RestartRefused { why } => write!(f, "restart refused: {why}"),
            // Never: every other reason is written out by the caller.
            other => f.write_str(other.code()),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HotStopped { member, cause } => write!(f, "{member}, hot, has stopped: {cause}"),
            Self::HotUnready { member, why } => write!(f, "{member}, hot, fails its check: {why}"),
            Self::HotUnreachable { member, witnesses } => write!(f, "{member}, hot, cannot be reached ({})", seen(witnesses)),
            Self::NodeSilent { member, node } => write!(f, "node {node} is silent; {member} is hot there"),
            Self::NodeLapsed { member, node } => write!(f, "the lease of node {node} ran out; {member} was hot there"),
            Self::Vacant => f.write_str("no member is hot and one can be"),
            Self::SwitchoverAsked { from, to } => write!(f, "switchover from {from} to {to} was asked for"),
            Self::HotDrained { member } => write!(f, "{member}, hot, is drained"),
            Self::Fenced { member, epoch, by } => write!(f, "{member} can no longer serve epoch {epoch}: {by}"),
            Self::Chosen { member, others } => write!(f, "{member} is chosen{}", list(others)),
            Self::PromoteFailed { member, why } => write!(f, "promotion of {member} failed: {why}"),
            Self::PromoteTimedOut { member, after_ms } => write!(f, "promotion of {member} was not confirmed within {after_ms} ms"),
            Self::CandidateLost { member } => write!(f, "{member} was lost while it was being promoted"),
            Self::Opened { member, epoch, pause_ms, detect_ms, fence_ms, choose_ms, promote_ms } => write!(
                f,
                "{member} serves epoch {epoch} after {pause_ms} ms (detect {detect_ms}, fence {fence_ms}, choose {choose_ms}, promote {promote_ms})"
            ),
            Self::ReturnedWarm { member } => write!(f, "{member} is back as warm"),
            Self::Ejected { member, why } => write!(f, "{member} takes no more requests: {why}"),
            Self::Admitted { member, epoch } => write!(f, "{member} serves (epoch {epoch})"),
            Self::SpareStarted { member } => write!(f, "spare {member} is started: fewer members run than are wanted"),
            Self::SpareRests { member } => write!(f, "{member} rests as a spare: enough others run"),
            Self::DrainTimedOut { routers, after_ms } => {
                write!(f, "requests in flight did not finish within {after_ms} ms and are cut (routers of {})", nodes(routers))
            }
            Self::SwitchoverAborted { why } => write!(f, "switchover given up: {why}"),
            Self::DemoteTimedOut { member, after_ms } => {
                write!(f, "{member} did not confirm its demotion within {after_ms} ms: it is fenced by force")
            }
            Self::FenceWaits { members, routers } => write!(f, "nobody is promoted yet: {}", waits_for(members, routers)),
            Self::Paused => f.write_str("automation is paused: nothing is promoted and no lease expires until `resume`"),
            Self::Resumed => f.write_str("automation is resumed"),
            Self::NoSuccessor { member: Some(member), others } => {
                write!(f, "{member} is kept: no other can take over{}", list(others))
            }
            Self::NoSuccessor { member: None, others } => write!(f, "nobody can become hot{}", list(others)),
            Self::AutomationPaused => f.write_str("nothing is promoted: automation is paused; `hotwarm resume` ends it"),
            Self::BudgetSpent { failovers, per_hour } => write!(
                f,
                "{failovers} failovers of live members within an hour, {per_hour} are allowed: a person must look; `hotwarm switchover` still works"
            ),
            Self::TooFewReports { reports, needed } => {
                write!(f, "{reports} members can tell how far their data reaches, {needed} must, so that no acknowledged write is lost")
            }
            Self::LastOne { member, why } => write!(f, "{member} is kept although {why}: leaving it out would leave none"),
            Self::SwitchoverRefused { why } => write!(f, "switchover refused: {why}"),
            Self::ResumeWaits { nodes: waiting } => write!(
                f,
                "the pause ends when these nodes count their lease again: {}; if one is gone for good, make sure that it is, and `resume --force`",
                nodes(waiting)
            ),
            Self::HoldDownWaived { member, left_ms } => write!(
                f,
                "{member} failed lately and would be held down for {:.1} s more, but nobody who can serve would be for less, unless on a node that stalls or stops; find out why it failed: `hotwarm logs {member}`",
                *left_ms as f64 / 1000.0
            ),
            Self::NoneWanted { member } => write!(f, "{member}, hot, stops serving: the configuration wants nobody hot (hot = 0)"),
            Self::NotStarted { member, why } => write!(f, "{member} does not start: {why}; it is tried again; see `hotwarm logs {member}`"),
            Self::RestartAsked { .. }
            | Self::Restarting { .. }
            | Self::Restarted { .. }
            | Self::RestartWaits { .. }
            | Self::RestartStopped { .. }
            | Self::RestartRefused { .. } => self.fmt_restart(f),
        }
    }
}
