//! The table of problems: what is wrong with a group now, worst first, each with a code, what it means and what to do.

use super::reason::{Reason, Refusal};
use super::state::{Group, Pause, Phase};
use crate::ids::{MemberId, Role};

/// One kind of problem.
#[derive(Clone, Copy, Debug)]
pub struct Problem {
    pub code: &'static str,
    pub severity: Severity,
    pub title: &'static str,
    /// What to do; empty where only what `why` names tells.
    advice: &'static str,
    /// What `hotwarm why GROUP` names of it; empty: nothing more than this.
    explained: &'static str,
    applies: fn(&Group) -> bool,
}

/// How bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Requests are not served.
    Down,
    /// The next loss is not survived.
    Bare,
    /// A person should look, without haste.
    Notice,
}

/// Those that could take over: warm and well, or a spare that is started first.
fn able(group: &Group) -> usize {
    let warm = |id: &MemberId| group.members.get(id).is_some_and(|m| m.role == Role::Warm && group.unfit(id).is_none());
    group.members.keys().filter(|id| warm(id) || group.startable(id)).count()
}

fn hot_serving(group: &Group) -> usize {
    group.members.keys().filter(|id| group.is_admitted(id) && group.unfit(id).is_none()).count()
}

fn is_closed_transition(group: &Group) -> bool {
    group.transition.as_ref().is_some_and(|t| !matches!(t.phase, Phase::Draining { .. }))
}

/// A hot member that is doubted and kept, and not only because it is drained.
fn doubted(group: &Group) -> Option<&MemberId> {
    match (&group.refusal, group.spec.exclusive) {
        (Some(Reason::LastOne { member, why }), false) if !matches!(why, Refusal::Drained | Refusal::Restarting) => Some(member),
        (_, true) if group.transition.is_none() => group.hot().filter(|id| group.doubt(id).is_some()),
        _ => None,
    }
}

impl Problem {
    /// What to do about it, for who sees it beside what `why` shows; may be empty.
    #[must_use]
    pub fn advice(&self, group: &Group) -> String {
        let resumes = group.paused() && matches!(self.code, "no-hot" | "stuck" | "hot-in-doubt" | "hot-doubted");
        let advice = if resumes { "`hotwarm resume GROUP`" } else { self.advice };
        advice.replace("GROUP", group.spec.name.as_str())
    }

    /// The same for who sees nothing else of the group. Where nobody lacks anything but the end of a pause, `why` would only say it again.
    #[must_use]
    pub fn advice_from_afar(&self, group: &Group) -> String {
        let advice = self.advice(group);
        let only_paused = group.paused() && group.members.keys().all(|id| group.unfit(id).is_none());
        if self.explained.is_empty() || (self.code == "no-hot" && only_paused) {
            return advice;
        }
        let why = format!("`hotwarm why {}` names {}", group.spec.name, self.explained);
        if advice.is_empty() { why } else { format!("{advice}; {why}") }
    }

    /// True if it says what to do, or where that is said.
    #[cfg(test)]
    pub(super) const fn is_answered(&self) -> bool {
        !self.advice.is_empty() || !self.explained.is_empty()
    }
}

/// Every kind there is, worst first.
pub const TABLE: [Problem; 16] = [
    Problem {
        code: "no-hot",
        severity: Severity::Down,
        title: "no member serves; requests are parked",
        advice: "",
        explained: "what each member lacks",
        applies: |g| g.spec.hot > 0 && (g.closed || !g.members.values().any(|m| m.serving)) && g.transition.is_none(),
    },
    Problem {
        code: "stuck",
        severity: Severity::Down,
        title: "the hot member cannot be replaced yet; requests are parked",
        advice: "",
        explained: "what it waits for",
        applies: |g| is_closed_transition(g) && g.refusal.is_some(),
    },
    Problem {
        code: "changing",
        severity: Severity::Down,
        title: "the hot member is being replaced; requests are parked",
        advice: "nothing",
        explained: "how far it is",
        applies: |g| is_closed_transition(g) && g.refusal.is_none(),
    },
    Problem {
        code: "hot-in-doubt",
        severity: Severity::Down,
        title: "the hot member cannot serve, or cannot be reached, and is kept all the same",
        advice: "",
        explained: "the doubt, the rule that keeps it, and what each other member lacks",
        applies: |g| doubted(g).is_some_and(|id| g.gone(id).is_some()),
    },
    Problem {
        code: "router-cut",
        severity: Severity::Down,
        title: "a router cannot reach the hot member; its requests park, then fail",
        advice: "let clients use another node; mend the path, or `hotwarm switchover GROUP --to` a member that every router reaches",
        explained: "",
        applies: |g| g.spec.exclusive && g.transition.is_none() && !g.doubts().is_empty(),
    },
    Problem {
        code: "hot-doubted",
        severity: Severity::Bare,
        title: "a hot member is doubted and kept; it may serve all the same",
        advice: "",
        explained: "the doubt, the rule that keeps it, and what each other member lacks",
        applies: |g| doubted(g).is_some_and(|id| g.gone(id).is_none()),
    },
    Problem {
        code: "no-warm",
        severity: Severity::Bare,
        title: "no member could take over",
        advice: "bring a warm member or a spare back",
        explained: "what each lacks",
        applies: |g| g.spec.exclusive && g.spec.hot > 0 && g.spec.members.len() > 1 && able(g) == 0,
    },
    Problem {
        code: "last-hot",
        severity: Severity::Bare,
        title: "a single member serves",
        advice: "bring another member back",
        explained: "what each lacks",
        applies: |g| !g.spec.exclusive && g.spec.members.len() > 1 && hot_serving(g) == 1 && able(g) == 0,
    },
    Problem {
        code: "paused",
        severity: Severity::Bare,
        title: "automation is paused; no failure is answered",
        advice: "`hotwarm resume GROUP`",
        explained: "",
        applies: |g| g.pause != Pause::No,
    },
    Problem {
        code: "budget-spent",
        severity: Severity::Bare,
        title: "too many failovers within an hour; the next doubt about a live member is left to a person",
        advice: "find out why it fails over: `hotwarm events GROUP`",
        explained: "",
        applies: Group::budget_spent,
    },
    Problem {
        code: "member-missing",
        severity: Severity::Notice,
        title: "a member that should run does not, or fails its check",
        advice: "`hotwarm logs MEMBER` on node NODE",
        explained: "",
        applies: |g| {
            let restarts = |id: &MemberId| g.restart_turn().is_some_and(|turn| turn.member == *id);
            let missing = |id: &MemberId| g.unfit(id).is_some_and(|why| why != Refusal::Drained) && !restarts(id);
            g.members.iter().any(|(id, m)| m.role != Role::Spare && missing(id))
        },
    },
    Problem {
        code: "restart-stopped",
        severity: Severity::Notice,
        title: "a restart of members stopped before all were restarted; the rest run on as they are",
        advice: "mend what stopped it and `hotwarm restart GROUP`, or `hotwarm restart GROUP --cancel`",
        explained: "where it stopped and why",
        applies: |g| g.restart.as_ref().is_some_and(|restart| restart.stopped.is_some()),
    },
    Problem {
        code: "restart-waits",
        severity: Severity::Notice,
        title: "a restart of members waits until all others are well",
        advice: "`hotwarm restart GROUP --cancel` calls it off",
        explained: "what it waits for",
        applies: |g| g.restart.as_ref().is_some_and(|restart| restart.stopped.is_none() && restart.waits.is_some()),
    },
    Problem {
        code: "none-wanted",
        severity: Severity::Notice,
        title: "nobody serves, because the configuration wants nobody hot (hot = 0); requests are parked",
        advice: "`hotwarm apply` a file with hot = 1, or without the group",
        explained: "",
        applies: |g| g.spec.hot == 0 && g.transition.is_none(),
    },
    Problem {
        code: "kept-drained",
        severity: Severity::Notice,
        title: "a member is drained and goes on serving: no other can take over",
        advice: "bring another member back, and it stops; `hotwarm undrain MEMBER` (or the node) takes the drain back",
        explained: "",
        applies: |g| g.members.iter().any(|(id, m)| m.serving && g.unfit(id) == Some(Refusal::Drained)),
    },
    Problem {
        code: "drained",
        severity: Severity::Notice,
        title: "a member is drained and takes over from nobody",
        advice: "`hotwarm undrain MEMBER` (or the node) when the work on it is done",
        explained: "",
        applies: |g| g.members.iter().any(|(id, m)| !m.serving && g.unfit(id) == Some(Refusal::Drained)),
    },
];

/// The problems a group has now, worst first.
pub fn of(group: &Group) -> impl Iterator<Item = &'static Problem> + '_ {
    TABLE.iter().filter(|problem| (problem.applies)(group))
}
