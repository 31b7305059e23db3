//! Rules about one group: counts, roles, fencing, objectives.

use std::time::Duration;

use hotwarm_core::route::slots::MEMBERS_MAX;

use super::super::diagnostic::{Findings, Span};
use super::super::draft::{Draft, DraftGroup};
use super::super::mark::MARKS_MAX;
use super::super::model::{Engine, Fence, Hooks, Process, Protocol, RoleChange};
use super::super::read::Table;
use super::super::units::{millis, show_duration, show_duration_ms};
use super::{HEARTBEATS_PER_LEASE, lease_wait};
use crate::codes::Code;

/// Heartbeats missed until a node is suspected.
const MISSED_HEARTBEATS: u32 = 3;
/// From the decision to the first answer: a commit, a promotion, routes.
const PROMOTION: Duration = Duration::from_millis(190);
/// Syncs that wait for one another when the node that is lost led the log: a vote asked for, a vote given, the new leader's first entry, the
/// lapse, the new role at its member, that it was taken, and that the routers know.
const SYNCS: u32 = 7;

pub(super) fn judge(draft: &Draft<'_>, group: &DraftGroup<'_>, findings: &mut Findings) {
    counts(group, findings);
    role_change(group, findings);
    hooks(group, findings);
    fence(group, findings);
    objective(draft, group, findings);
    protocol(group, findings);
    drain(group, findings);
    if group.listen.is_empty() && group.table.lacks("listen") {
        findings
            .warn(Code::NO_LISTENER, &group.span, format!("group {} has no listener", group.name))
            .hint("hotwarm then keeps the members' roles and routes nothing; set listen = \"0.0.0.0:PORT\" to route");
    }
    if group.exclusive() && !group.stateful() {
        findings
            .warn(
                Code::NOT_STATEFUL,
                &group.table.field("stateful").span,
                "an old hot member may outlive its node's lease if hotwarm hangs",
            )
            .hint("requests through routers stay safe; leave stateful out if the member writes anything of its own");
    }
}

fn counts(group: &DraftGroup<'_>, findings: &mut Findings) {
    let span = &group.table.field("members").span;
    let (name, members) = (&group.name, group.member_count);
    if members == 0 {
        if group.table.given("members") {
            findings.error(Code::ROLE_COUNTS, span, format!("group {name} has no member")).expected("at least one");
        }
        return;
    }
    if members > MEMBERS_MAX {
        findings
            .error(Code::ROLE_COUNTS, span, format!("group {name} has {members} members; a router can hold {MEMBERS_MAX} of one group"))
            .expected(format!("{MEMBERS_MAX} members or fewer"))
            .hint("make several groups");
    }
    if let Some(Engine::Command(Hooks { position: Some(_), .. })) = &group.engine
        && group.exclusive()
        && let Some(spare) = group.mode.map(|mode| mode.spare).filter(|spare| *spare > 0)
    {
        findings
            .error(
                Code::ROLE_COUNTS,
                &group.table.field("mode").span,
                format!("{spare} of the members of {name} are spares, and a spare has no position to be compared by"),
            )
            .expected("warm members instead, or no position hook")
            .hint("with a position hook the member whose data reaches farthest is promoted; data is only in members that run");
    }
    if let Some(mode @ ("hot-warm" | "hot-spare")) = group.table.text("mode")
        && members < 2
    {
        findings
            .error(Code::ROLE_COUNTS, span, format!("{mode} with one member: nobody could take over"))
            .expected("two members or more")
            .hint("add a member on another node, or say mode = \"hot-hot\"");
    }
    if let (Some(counts), Some(mode)) = (group.table.table("mode"), group.mode) {
        if mode.hot == 0 && members < 2 {
            findings
                .error(
                    Code::ROLE_COUNTS,
                    &counts.field("hot").span,
                    format!("nobody is to serve in {}, and its one member has no role then", group.name),
                )
                .expected("hot = 1")
                .hint("to end the group, remove it; hot = 0 is for groups in which one of several serves");
        }
        let sum = usize::from(mode.hot) + usize::from(mode.warm) + usize::from(mode.spare);
        if sum != members {
            findings
                .error(Code::ROLE_COUNTS, &counts.span, format!("mode counts {sum} roles for {members} members"))
                .expected(format!("hot + warm + spare = {members}"))
                .hint("every member has a role; count those that only wait as warm or spare");
        }
    }
}

fn role_change(group: &DraftGroup<'_>, findings: &mut Findings) {
    if let Some(Engine::Process(Process { on_role_change: RoleChange::Gate, .. })) = &group.engine
        && group.exclusive()
        && group.protocol == Some(Protocol::Tcp)
    {
        findings
            .error(
                Code::ROLE_CHANGE_UNHEARD,
                &group.table.field("engine").span,
                format!("the members of {} would not learn which of them is hot", group.name),
            )
            .expected("on_role_change = { signal = \"SIGUSR1\" }, or http, command, restart")
            .hint("with protocol = \"http\" the router gates them and none is needed");
    }
}

fn hooks(group: &DraftGroup<'_>, findings: &mut Findings) {
    let all = ["start", "stop", "promote", "demote", "fence", "position"];
    if let Some(hooks) = group.table.table("engine").and_then(|engine| engine.table("command"))
        && all.iter().all(|hook| hooks.lacks(hook))
    {
        findings
            .error(Code::MISSING_KEY, &hooks.span, format!("the engine of {} has no hook, so it would do nothing", group.name))
            .expected(format!("one or more of {}", all.join(", ")))
            .hint("engine = \"external\" is for members that hotwarm only probes");
    }
}

fn fence(group: &DraftGroup<'_>, findings: &mut Findings) {
    let own_hook = match &group.engine {
        Some(Engine::Command(Hooks { fence, .. })) => fence.is_some(),
        Some(Engine::External) => false,
        Some(Engine::Process(_)) => {
            if group.fence == Some(Fence::RouterOnly) {
                findings
                    .error(Code::FENCE_WRONG, &group.table.field("fence").span, "router-only is weaker than what a process has anyway")
                    .expected("no fence, or { command = [...] }")
                    .hint("hotwarm started the program and can stop it");
            }
            return;
        }
        None => return,
    };
    let span: &Span = &group.table.field("fence").span;
    match &group.fence {
        Some(_) if own_hook => {
            findings.error(Code::FENCE_WRONG, span, "the fence is said twice").expected("one of fence and engine.command.fence");
        }
        Some(Fence::RouterOnly) if group.listen.is_empty() => {
            findings
                .error(Code::FENCE_WRONG, span, "router-only without a listener fences nothing")
                .expected("a listener, or { command = [...] }");
        }
        Some(Fence::RouterOnly) if group.exclusive() => {
            findings
                .warn(Code::ROUTER_ONLY, span, "clients that connect to a member directly may reach an old hot member")
                .hint("promise 1 then covers traffic through routers only; let nothing but the routers reach the members");
        }
        None if group.exclusive() && !own_hook && group.table.lacks("fence") => {
            findings
                .error(
                    Code::FENCE_MISSING,
                    &group.table.field("engine").span,
                    format!("hotwarm cannot stop the old hot member of {}: it did not start it", group.name),
                )
                .expected("fence = { command = [...] } or fence = \"router-only\" in the group")
                .hint("the command must exit 0 only when the member certainly no longer serves");
        }
        _ => {}
    }
}

fn objective(draft: &Draft<'_>, group: &DraftGroup<'_>, findings: &mut Findings) {
    let objective = group.objective();
    let Some(table) = group.table.table("objective") else { return };
    // None of today's engines replicates data under hotwarm's eyes.
    if objective.rpo.is_some() {
        findings
            .error(Code::RPO_WITHOUT_DATA, &table.field("rpo").span, format!("hotwarm does not keep the data of group {}", group.name))
            .expected("no rpo")
            .hint("process, external and command members keep their data themselves, so hotwarm can promise nothing about it");
    }
    let smallest = smallest_rto(draft.lease.value, draft.heartbeat.value, group.exclusive());
    if let Some(rto) = objective.rto {
        if rto < smallest {
            let message = format!(
                "an rto of {} cannot be kept: the smallest with lease {} and heartbeat {} is {}",
                show_duration(rto),
                show_duration(draft.lease.value),
                show_duration(draft.heartbeat.value),
                show_duration(smallest)
            );
            let finding = findings.error(Code::RTO_TOO_SMALL, &table.field("rto").span, message);
            finding.expected(format!("\"{}\" or more", show_duration(smallest)));
            if let Some(lease) = lease_for(rto, draft.heartbeat.value).filter(|_| group.exclusive()) {
                finding.hint(format!("or set lease = \"{}\" in [cluster]", show_duration_ms(lease)));
            }
        }
        park(group, rto, findings);
    }
    if objective.false_failovers == Some(0.0) {
        findings
            .error(Code::BAD_VALUE, &table.field("false_failovers").span, "no failover without cause, ever, cannot be promised")
            .expected("more than 0")
            .hint("who is silent may be alive: nobody can tell that from outside; leave the key out, hotwarm derives nothing from it");
    }
}

/// Judges the objective by this machine's disk too: `sync` is what 4 KiB took.
pub(super) fn judge_disk(draft: &Draft<'_>, group: &DraftGroup<'_>, sync: Duration, findings: &mut Findings) {
    let Some((rto, table)) = group.objective().rto.zip(group.table.table("objective")).filter(|_| group.exclusive()) else { return };
    let configured = smallest_rto(draft.lease.value, draft.heartbeat.value, true);
    let here = smallest_rto_here(configured, sync);
    // What no machine keeps was said.
    if rto < configured || rto >= here {
        return;
    }
    let message = format!(
        "an rto of {} cannot be kept on this machine: {} with lease {} and heartbeat {}, and {} for {SYNCS} syncs of its disk, {} each as measured",
        show_duration(rto),
        show_duration(configured),
        show_duration(draft.lease.value),
        show_duration(draft.heartbeat.value),
        show_duration(here.saturating_sub(configured)),
        show_sync(sync),
    );
    findings
        .error(Code::RTO_TOO_SMALL, &table.field("rto").span, message)
        .expected(format!("\"{}\" or more", show_duration(here)))
        .hint("or a data directory on a faster disk, or one that nothing else keeps busy; a shorter lease makes up for it too");
}

/// With one hot member at a time: what lease and heartbeat give, and the syncs that a failover waits for. Rounded up to 10 ms.
pub(super) fn smallest_rto_here(configured: Duration, sync: Duration) -> Duration {
    Duration::from_millis((configured + sync * SYNCS).as_micros().div_ceil(10_000).try_into().unwrap_or(u64::MAX / 10) * 10)
}

/// A sync may take less than a millisecond.
pub(super) fn show_sync(sync: Duration) -> String {
    format!("{:.1} ms", sync.as_secs_f64() * 1_000.0)
}

fn park(group: &DraftGroup<'_>, rto: Duration, findings: &mut Findings) {
    let Some(park) = group.table.table("park") else { return };
    if let Some(time) = park.duration("time")
        && *time < rto
        && group.protocol == Some(Protocol::Http)
    {
        findings
            .warn(
                Code::PARK_TOO_SHORT,
                &park.field("time").span,
                format!("requests wait {}, less than the rto of {}", show_duration(*time), show_duration(rto)),
            )
            .hint("those that come early in a failover get an error instead of an answer");
    }
}

/// While a switchover waits for a slow request, all others wait with it.
fn drain(group: &DraftGroup<'_>, findings: &mut Findings) {
    let Some((drain, park)) = group.table.duration("drain").zip(group.table.table("park")) else { return };
    if let Some(time) = park.duration("time")
        && drain >= time
        && !drain.is_zero()
        && group.exclusive()
        && group.protocol == Some(Protocol::Http)
        && !group.listen.is_empty()
    {
        let said = if group.table.given("drain") { &group.table.field("drain").span } else { &park.field("time").span };
        let (drain, time) = (show_duration(*drain), show_duration(*time));
        findings
            .warn(
                Code::PARK_TOO_SHORT,
                said,
                format!("a switchover waits up to {drain} for a slow request, and all others wait {time} at most"),
            )
            .hint("those get an error then, at the first slow one; set drain to less than time in park");
    }
}

/// The shortest pause that can be promised when a whole node is lost: with one hot member at a time its lease is waited out (S2, S3),
/// otherwise the others serve on and only have to notice. Rounded up to 10 ms.
#[must_use]
pub fn smallest_rto(lease: Duration, heartbeat: Duration, exclusive: bool) -> Duration {
    let noticed = heartbeat * MISSED_HEARTBEATS;
    let raw = if exclusive { noticed + lease_wait(lease) + PROMOTION } else { noticed };
    Duration::from_millis(millis(raw).div_ceil(10) * 10)
}

/// The longest lease, in milliseconds and rounded down, that allows `rto`; `None` where no lease that `check` accepts does.
fn lease_for(rto: Duration, heartbeat: Duration) -> Option<u64> {
    let rest = millis(rto).checked_sub(millis(heartbeat * MISSED_HEARTBEATS + PROMOTION) + 10)?;
    let lease = rest * 100 / 101 / 10 * 10;
    let least = millis(heartbeat * HEARTBEATS_PER_LEASE).max(200);
    (lease >= least).then_some(lease)
}

/// Each request is compared with all of them.
fn marks(group: &DraftGroup<'_>, findings: &mut Findings) {
    let Some(http) = group.table.table("http") else { return };
    let count = http.entries("repeat").map_or(0, <[_]>::len);
    if count > MARKS_MAX {
        findings
            .error(Code::BAD_VALUE, &http.field("repeat").span, format!("`repeat` marks {count} requests"))
            .expected(format!("{MARKS_MAX} or fewer"))
            .hint("a path that ends with / means all below it");
    }
}

fn protocol(group: &DraftGroup<'_>, findings: &mut Findings) {
    let checked = |table: &Table| ["status", "body"].into_iter().filter(|key| table.given(key) && !table.given("http")).collect::<Vec<_>>();
    if let Some(check) = group.table.table("check") {
        for key in checked(check) {
            findings
                .error(Code::CHOOSE_ONE, &check.field(key).span, format!("`{key}` without `http` checks nothing"))
                .expected("http = \"/path\" beside it");
        }
        if check.entries("status").is_some_and(<[_]>::is_empty) {
            findings
                .error(Code::BAD_VALUE, &check.field("status").span, "no code would be a healthy answer")
                .expected("one code or more, such as [200]")
                .hint("without status, 200 to 399 are");
        }
        for key in ["tcp"].into_iter().filter(|key| check.flag(key) == Some(&false)) {
            findings
                .error(Code::BAD_VALUE, &check.field(key).span, "`tcp = false` says nothing")
                .expected("true")
                .hint("leave the key out");
        }
    }
    marks(group, findings);
    if group.protocol != Some(Protocol::Tcp) {
        return;
    }
    if let Some(balance) = group.table.table("balance")
        && balance.text("hash").is_some_and(|key| key.starts_with("header:"))
    {
        findings
            .error(Code::NOT_FOR_PROTOCOL, &balance.field("hash").span, "tcp has no headers to hash by")
            .expected("\"client-ip\"")
            .hint("or set protocol = \"http\"");
    }
    if let Some(http) = group.table.table("http") {
        for (key, does) in [("head", "bounds"), ("headers", "bounds"), ("repeat", "marks")].into_iter().filter(|(key, _)| http.given(key)) {
            findings.error(
                Code::NOT_FOR_PROTOCOL,
                &http.field(key).span,
                format!("`{key}` {does} HTTP requests, and {} speaks tcp", group.name),
            );
        }
    }
}
