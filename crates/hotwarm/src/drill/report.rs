//! What a drill found, for people and for programs: what clients saw, and when each phase was over.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::load::Seen;
use crate::api::types::{Event, GroupStatus};

/// A finished drill.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub what: String,
    pub groups: Vec<GroupReport>,
}

/// One group in it.
#[derive(Clone, Debug, Serialize)]
pub struct GroupReport {
    pub group: String,
    pub mode: String,
    pub requests: usize,
    pub failed: usize,
    pub first_failure: Option<String>,
    /// What counts as an answer.
    pub evidence: String,
    /// Those that no member could take at once.
    pub parked: u64,
    /// The longest time without an answer.
    pub outage_ms: u64,
    pub slowest_ms: u64,
    pub objective_ms: u64,
    pub met: bool,
    pub timeline: Vec<Moment>,
}

/// When something was over, counted from the fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Moment {
    pub after_ms: u64,
    pub phase: &'static str,
    pub text: String,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What was measured of a group.
pub(super) struct Measured {
    pub(super) seen: Seen,
    pub(super) parked: u64,
    pub(super) evidence: String,
    /// When the fault began.
    pub(super) fault: SystemTime,
}

impl GroupReport {
    pub(super) fn new(group: &GroupStatus, measured: Measured, events: &[Event], objective: Duration) -> Self {
        let Measured { seen, parked, evidence, fault } = measured;
        let outage_ms = millis(seen.outage);
        Self {
            group: group.name.clone(),
            mode: group.mode.clone(),
            requests: seen.requests,
            failed: seen.failed,
            evidence,
            parked,
            outage_ms,
            slowest_ms: millis(seen.slowest),
            objective_ms: millis(objective),
            met: seen.failed == 0 && seen.outage <= objective && seen.requests > 0,
            timeline: timeline(&group.name, &seen, events, fault),
            first_failure: seen.first_failure,
        }
    }
}

/// Which phase an event ends. `None` for what a person does not miss.
fn phase(event: &Event) -> Option<&'static str> {
    match event.reason.as_ref().map(|reason| reason.code.as_str()) {
        Some("hot-stopped" | "hot-unready" | "hot-unreachable" | "node-lapsed" | "ejected") => Some("detected"),
        Some("fenced") => Some("fenced"),
        Some("opened" | "admitted") => Some("serves"),
        Some("returned-warm") => Some("back as warm"),
        Some("promote-failed" | "promote-timed-out" | "candidate-lost" | "no-successor") => Some("trouble"),
        _ if event.kind == "promote" => Some("promoted"),
        _ => None,
    }
}

fn timeline(group: &str, seen: &Seen, events: &[Event], fault: SystemTime) -> Vec<Moment> {
    let mut moments = Vec::new();
    for event in events.iter().filter(|e| e.group.as_deref() == Some(group)) {
        let Some(phase) = phase(event) else { continue };
        moments.push(Moment { after_ms: since(&event.time, fault), phase, text: event.text.clone() });
    }
    if let Some(first) = seen.first_answer.filter(|_| seen.outage >= Duration::from_millis(20)) {
        let text = format!("the first client after the pause is answered ({} ms without an answer)", millis(seen.outage));
        moments.push(Moment { after_ms: millis(first), phase: "first answer", text });
    }
    moments.sort_by_key(|moment| moment.after_ms);
    moments
}

/// Milliseconds from the fault to a moment of the same day or the next, as in `2026-01-02T03:04:05.678901Z`.
fn since(time: &str, fault: SystemTime) -> u64 {
    const DAY_MS: u64 = 86_400_000;
    let fault_ms = fault.duration_since(UNIX_EPOCH).map_or(0, millis) % DAY_MS;
    let part = |from: usize, to: usize| time.get(from..to).and_then(|digits| digits.parse::<u64>().ok()).unwrap_or(0);
    let fraction = time.get(20..).unwrap_or("").trim_end_matches('Z');
    let fraction_ms = format!("{fraction:0<3}").get(..3).and_then(|digits| digits.parse::<u64>().ok()).unwrap_or(0);
    let at_ms = part(11, 13) * 3_600_000 + part(14, 16) * 60_000 + part(17, 19) * 1_000 + fraction_ms;
    let passed = (at_ms + DAY_MS - fault_ms) % DAY_MS;
    // Just before the fault is the rounding of two clocks' reading, not the next day.
    if passed > DAY_MS / 2 { 0 } else { passed }
}

impl Report {
    /// True if no client saw worse than the objective.
    #[must_use]
    pub fn met(&self) -> bool {
        self.groups.iter().all(|group| group.met)
    }

    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.what);
        for group in &self.groups {
            let _ = writeln!(text, "  {} ({})", group.group, group.mode);
            let _ = writeln!(text, "     +0 ms  fault");
            for moment in &group.timeline {
                let _ = writeln!(text, "{:>7} ms  {:<13} {}", format!("+{}", moment.after_ms), moment.phase, moment.text);
            }
            let _ = writeln!(text, "    answers: {}", group.evidence);
            let failure = group.first_failure.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
            let _ = writeln!(
                text,
                "    clients: {} requests, {} failed{failure}, {} parked; outage {} ms, slowest answer {} ms; objective 0 failed and {} ms: {}",
                group.requests,
                group.failed,
                group.parked,
                group.outage_ms,
                group.slowest_ms,
                group.objective_ms,
                if group.met { "met" } else { "MISSED" }
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_counted_from_the_fault_over_midnight_too() {
        let fault = UNIX_EPOCH + Duration::from_millis(86_399_900);
        assert_eq!(since("1970-01-02T00:00:00.250Z", fault), 350);
        assert_eq!(since("1970-01-01T23:59:59.950123Z", fault), 50);
        assert_eq!(since("1970-01-01T23:59:59.899Z", fault), 0);
    }
}
