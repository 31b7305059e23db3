//! Anti-flap (S9): hold-downs that grow, a budget of failovers an hour. Neither delays the replacement of a member confirmed dead.

use super::reason::Reason;
use super::state::{Group, Member};
use crate::ids::{MemberId, Millis};

pub(crate) const HOUR_MS: u64 = 3_600_000;

impl Group {
    /// Counts a failure of `member`: the first costs nothing, each further one holds it down twice as long as the last.
    pub(crate) fn note_failure(&mut self, member: &MemberId) {
        let (at, bounds) = (self.at, self.spec.bounds);
        let Some(m) = self.members.get_mut(member) else { return };
        forget_old_failures(m, at, bounds.hold_down_max_ms);
        m.unstable_for_ms = match m.failed_at {
            None => 0,
            Some(_) if m.unstable_for_ms == 0 => bounds.hold_down_ms,
            Some(_) => (m.unstable_for_ms * 2).min(bounds.hold_down_max_ms),
        };
        m.failed_at = Some(at);
        m.unstable_until = at.plus(m.unstable_for_ms);
    }

    /// Counts a doubt on which `member` was replaced, unless it is about its node.
    pub(crate) fn note_doubted(&mut self, member: &MemberId, doubt: &Reason) {
        if !matches!(doubt, Reason::NodeSilent { .. } | Reason::NodeLapsed { .. }) {
            self.note_failure(member);
        }
    }

    /// Counts a failover of a live member.
    pub(crate) fn note_failover(&mut self) {
        self.forget_old_failovers();
        self.failovers.push_back(self.at);
    }

    pub(crate) fn forget_old_failovers(&mut self) {
        while self.failovers.front().is_some_and(|at| self.at.since(*at) >= HOUR_MS) {
            self.failovers.pop_front();
        }
    }

    /// True when another failover of a live member needs a person.
    pub(crate) fn budget_spent(&self) -> bool {
        let recent = self.failovers.iter().filter(|at| self.at.since(**at) < HOUR_MS).count();
        recent >= self.spec.bounds.failovers_per_hour as usize
    }
}

/// A member that was well for as long as the longest hold-down starts afresh.
const fn forget_old_failures(member: &mut Member, at: Millis, after_ms: u64) {
    if let Some(failed) = member.failed_at
        && at.since(failed) > after_ms
    {
        member.failed_at = None;
        member.unstable_for_ms = 0;
    }
}
