//! Which hooks failed on this node, and how: told in the log at a bounded rate, and kept for those who ask why a group waits.
//!
//! It decides nothing, and forgets a failure when the same hook of the same member works. Main path: [`Failures::failed`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hotwarm_core::ids::{GroupName, MemberId, Mono};

use crate::clock;

/// The same failure is told again after this, while it goes on.
const AGAIN: Duration = Duration::from_secs(60);
/// Nobody asks for older ones.
const KEPT: Duration = Duration::from_secs(3600);

/// How a hook failed last.
#[derive(Clone, Debug)]
pub struct Failure {
    pub member: MemberId,
    /// `start`, `stop`, `promote`, `demote`, `fence` or `position`.
    pub hook: &'static str,
    /// Names the hook, and how it ended.
    pub text: String,
    pub at: Mono,
    /// In a row.
    pub times: u32,
    told: Mono,
}

/// Clones are the same list.
#[derive(Clone, Debug, Default)]
pub struct Failures(Arc<Mutex<BTreeMap<(MemberId, &'static str), Failure>>>);

impl Failures {
    pub(super) fn failed(&self, member: &MemberId, hook: &'static str, text: &str) {
        if let Some(times) = self.note(clock::now(), member, hook, text) {
            tracing::warn!(%member, hook, times, "{text}; it is tried again while it is needed");
        }
    }

    /// How often it has failed in a row, if that is to be told now.
    fn note(&self, at: Mono, member: &MemberId, hook: &'static str, text: &str) -> Option<u32> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, failure| at.since(failure.at) < KEPT);
        let before = all.get(&(member.clone(), hook));
        let times = before.map_or(1, |before| before.times.saturating_add(1));
        let told = before.filter(|before| before.text == text && at.since(before.told) < AGAIN).map(|before| before.told);
        let failure = Failure { member: member.clone(), hook, text: text.to_owned(), at, times, told: told.unwrap_or(at) };
        all.insert((member.clone(), hook), failure);
        told.is_none().then_some(times)
    }

    pub(super) fn worked(&self, member: &MemberId, hook: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&(member.clone(), hook));
    }

    /// Those of a group's members.
    #[must_use]
    pub fn of(&self, group: &GroupName) -> Vec<Failure> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().filter(|failure| failure.member.group() == *group).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_at_once_when_it_changes_and_once_a_minute_and_is_over_when_the_hook_works() {
        let (failures, member) = (Failures::default(), MemberId::new("db/a"));
        let at = |seconds: u64| Mono(seconds * 1_000_000);
        let note = |seconds, text| failures.note(at(seconds), &member, "fence", text);
        assert_eq!(note(1, "exit code 1"), Some(1));
        assert_eq!((2..61).filter_map(|second| note(second, "exit code 1")).collect::<Vec<_>>(), [0; 0]);
        assert_eq!(note(61, "exit code 1"), Some(61));
        assert_eq!(note(62, "exit code 2"), Some(62));
        let of = |group: &str| failures.of(&GroupName::new(group)).len();
        assert_eq!((of("db"), of("web")), (1, 0));
        failures.worked(&member, "fence");
        assert_eq!(of("db"), 0);
        assert_eq!(note(63, "exit code 2"), Some(1));
    }
}
