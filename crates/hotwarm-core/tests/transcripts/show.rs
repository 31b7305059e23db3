//! How stories print what was decided and what holds: one line each, in the words an operator sees.

use hotwarm_core::group::explain::Explanation;
use hotwarm_core::group::state::{Life, Member, Pause, Phase};
use hotwarm_core::group::{Effect, Group};
use hotwarm_core::route::RouteState;

pub(crate) fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Close { epoch } => format!("close epoch {epoch}"),
        Effect::Fence { member, epoch } => format!("fence {member}: nothing before epoch {epoch}"),
        Effect::Drain { epoch } => format!("drain epoch {epoch}"),
        Effect::Detach { attempt } => format!("detach candidates, attempt {attempt}"),
        Effect::Promote { member, epoch, attempt } => format!("promote {member} for epoch {epoch}, attempt {attempt}"),
        Effect::Demote { member, .. } => format!("demote {member}"),
        Effect::Open { epoch, hot } => format!("open epoch {epoch} to {}", names(hot)),
        Effect::Start { member } => format!("start {member}"),
        Effect::Stop { member } => format!("stop {member}"),
        Effect::Because(reason) => format!("[{}] {reason}", reason.code()),
    }
}

pub(crate) fn group(group: &Group) -> String {
    let mut lines = vec![format!("epoch {}, {}", group.epoch, routes(group))];
    lines.extend(group.members.iter().map(|(id, m)| format!("{id} {}", member(m))));
    if group.spec.exclusive {
        lines.push(format!("routers open: {}", names(&group.open_routers)));
    }
    if !group.stale_routers.is_empty() {
        let reach = if group.stale_reach_nobody { " (reach nobody)" } else { "" };
        lines.push(format!("routers stale: {}{reach}", names(&group.stale_routers)));
    }
    if let Some(t) = &group.transition {
        let planned = if t.planned { "planned, " } else { "" };
        lines.push(format!("attempt {}: {planned}{}", t.attempt, phase(&t.phase)));
    }
    match &group.pause {
        Pause::No => {}
        Pause::Paused => lines.push("paused".to_owned()),
        Pause::Resuming { waiting } => lines.push(format!("resuming, waits for {}", names(waiting))),
    }
    lines.extend(group.restart_told().map(|told| format!("restart: {told}")));
    lines.extend(group.refusal.iter().map(|why| format!("refusal: [{}] {why}", why.code())));
    lines.join("\n")
}

fn routes(group: &Group) -> String {
    let targets = |targets: &[hotwarm_core::route::Target]| names(targets.iter().map(|t| format!("{} ({})", t.member, t.weight)));
    match group.routes().state {
        RouteState::Open(to) => format!("open to {}", targets(&to)),
        RouteState::Draining(to) => format!("draining {}", targets(&to)),
        RouteState::Held => "held".to_owned(),
    }
}

fn member(m: &Member) -> String {
    let life = match &m.life {
        Life::Unknown => "not heard of".to_owned(),
        Life::Running if m.ready => format!("runs (life {}) and is ready", m.incarnation),
        Life::Running => format!("runs (life {}), not ready: {}", m.incarnation, m.why_unready),
        Life::Stopped(cause) => format!("stopped (life {}): {cause}", m.incarnation),
    };
    let marks = [(m.serving, "serves"), (m.may_serve.is_some() && !m.serving, "may serve"), (m.drained, "drained"), (m.away, "away")];
    let marks = marks.iter().filter(|(holds, _)| *holds).map(|(_, mark)| format!(", {mark}"));
    format!("{:5} {life}{}", m.role, marks.collect::<String>())
}

fn phase(phase: &Phase) -> String {
    match phase {
        Phase::Draining { until } => format!("draining until {}", until.0),
        Phase::Fencing { until } => format!("fencing, insists at {}", until.0),
        Phase::Choosing { until } => format!("choosing, in haste from {}", until.0),
        Phase::Promoting { to, until } => format!("promoting {to} until {}", until.0),
    }
}

fn names<T: ToString>(all: impl IntoIterator<Item = T>) -> String {
    let all: Vec<_> = all.into_iter().map(|one| one.to_string()).collect();
    if all.is_empty() { "nobody".to_owned() } else { all.join(", ") }
}

pub(crate) fn explanation(explained: &Explanation) -> String {
    let mut lines = vec![explained.now.clone()];
    lines.extend(explained.transition.clone());
    lines.extend(explained.restart.iter().map(|told| format!("restart: {told}")));
    lines.extend(explained.refusal.iter().map(|why| format!("refused: {why}")));
    for (id, role, why) in &explained.members {
        lines.push(format!("{id} {role}{}", why.as_ref().map(|why| format!(": {why}")).unwrap_or_default()));
    }
    lines.extend(explained.if_died.iter().map(|what| format!("if {}: {}", what.event, what.outcome)));
    lines.join("\n")
}
