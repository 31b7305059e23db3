//! Certificates that end soon: which, how soon, and a line in the log each day until they are renewed.
//!
//! It must never flood the log, and it renews nothing: the authority's key is not on a node. Main path: [`watch`].

use std::fmt;
use std::sync::Weak;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hotwarm_core::ids::NodeId;
use tracing::{error, warn};

use super::handle::Shared;
use crate::codes::Code;

/// From so many days before its end on it is told.
const DAYS_TOLD: i64 = 30;
/// From so many on it presses.
const DAYS_PRESSING: i64 = 7;
const DAY_S: i64 = 86_400;
const LOOKED_AT_EVERY: Duration = Duration::from_secs(600);
const TOLD_EVERY: Duration = Duration::from_secs(86_400);

/// What is left of a certificate that is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Left {
    days: i64,
}

impl Left {
    /// The last days, and after the end.
    #[must_use]
    pub const fn is_pressing(self) -> bool {
        self.days < DAYS_PRESSING
    }

    /// Grows as the end comes near.
    const fn level(self) -> u8 {
        match self.days {
            ..0 => 2,
            0..DAYS_PRESSING => 1,
            _ => 0,
        }
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.days {
            ..0 => f.write_str("has expired"),
            0 => f.write_str("ends within a day"),
            1 => f.write_str("ends in 1 day"),
            days => write!(f, "ends in {days} days"),
        }
    }
}

/// Those that end soon, the first to end first, of nodes and the last second (since 1970) at which their certificates are valid.
#[must_use]
pub fn ending(certificates: impl IntoIterator<Item = (NodeId, i64)>, now: SystemTime) -> Vec<(NodeId, Left)> {
    let now_s = now.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    let left = |not_after: i64| Left { days: not_after.saturating_sub(now_s).div_euclid(DAY_S) };
    let all = certificates.into_iter().map(|(node, not_after)| (node, left(not_after)));
    let mut soon: Vec<_> = all.filter(|(_, left)| left.days < DAYS_TOLD).collect();
    soon.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
    soon
}

/// In a sentence.
#[must_use]
pub fn told(ending: &[(NodeId, Left)]) -> String {
    let each: Vec<String> = ending.iter().map(|(node, left)| format!("the certificate of node {node} {left}")).collect();
    each.join(", ")
}

/// When there is a line, and how loud.
#[derive(Debug, Default)]
struct Lines {
    /// How pressing it was when it was told last, and when.
    last: Option<(u8, SystemTime)>,
}

impl Lines {
    fn is_due(&mut self, ending: &[(NodeId, Left)], now: SystemTime) -> bool {
        let Some((_, worst)) = ending.first() else {
            self.last = None;
            return false;
        };
        // A wall clock that went back is a reason to tell, not to be silent.
        let due = self.last.is_none_or(|(level, at)| worst.level() > level || now.duration_since(at).map_or(true, |ago| ago >= TOLD_EVERY));
        if due {
            self.last = Some((worst.level(), now));
        }
        due
    }
}

/// Looks at the certificates of this node and of those that it is connected to, as long as the agent is there.
pub(super) async fn watch(shared: Weak<Shared>) {
    let mut lines = Lines::default();
    loop {
        let Some(shared) = shared.upgrade() else { return };
        let now = SystemTime::now();
        let ending = ending(shared.certificates(), now);
        drop(shared);
        if lines.is_due(&ending, now) {
            let (code, text) = (Code::CERTIFICATE_ENDS, told(&ending));
            let then = "a node whose certificate has expired is let in by no other: `hotwarm certs renew`";
            match ending.first().is_some_and(|(_, worst)| worst.is_pressing()) {
                true => error!(%code, "{text}; {then}"),
                false => warn!(%code, "{text}; {then}"),
            }
        }
        tokio::time::sleep(LOOKED_AT_EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn of(days: &[(&str, i64)]) -> Vec<(NodeId, Left)> {
        let all = days.iter().map(|(node, days)| (NodeId::from(*node), 1_800_000_000 + days * DAY_S + 5));
        ending(all, UNIX_EPOCH + NOW)
    }

    #[test]
    fn what_ends_soon_is_told_the_first_to_end_first() {
        assert_eq!(of(&[("a", 30), ("b", 400)]), []);
        let soon = of(&[("a", 29), ("b", 40), ("c", -1), ("d", 0), ("e", 1)]);
        assert_eq!(
            told(&soon),
            "the certificate of node c has expired, the certificate of node d ends within a day, \
             the certificate of node e ends in 1 day, the certificate of node a ends in 29 days"
        );
        let pressing = |days| of(&[("a", days)])[0].1.is_pressing();
        assert!(!pressing(7) && pressing(6) && pressing(-3));
    }

    #[test]
    fn a_line_a_day_and_one_when_it_grows_worse() {
        let mut lines = Lines::default();
        let day = |days: u64| UNIX_EPOCH + NOW + TOLD_EVERY * u32::try_from(days).unwrap();
        assert!(!lines.is_due(&of(&[("a", 90)]), day(0)));
        assert!(lines.is_due(&of(&[("a", 20)]), day(0)));
        assert!(!lines.is_due(&of(&[("a", 20)]), day(0) + Duration::from_secs(3_600)), "once a day");
        assert!(lines.is_due(&of(&[("a", 19)]), day(1)));
        assert!(lines.is_due(&of(&[("a", 6)]), day(1) + Duration::from_secs(1)), "it presses now");
        assert!(lines.is_due(&of(&[("a", -1)]), day(1) + Duration::from_secs(2)), "it has ended");
        assert!(!lines.is_due(&of(&[("a", -1)]), day(1) + Duration::from_secs(3)));
        assert!(lines.is_due(&of(&[("a", -1)]), day(0)), "the wall clock went back");
        assert!(!lines.is_due(&of(&[]), day(9)) && lines.is_due(&of(&[("a", 29)]), day(9)), "renewed, and then the next one");
    }
}
