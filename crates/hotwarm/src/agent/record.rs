//! What the node decided, and what it saw of itself, kept for people: a bounded ring that the API reads and follows.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hotwarm_core::cluster::{Event, What};
use hotwarm_core::group::{Effect, Reason};
use hotwarm_core::ids::{GroupName, Millis};
use tokio::sync::watch;

/// Events kept, at most.
const KEPT_MAX: usize = 10_000;

/// One event as this node recorded it.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Counts this node's records from its start.
    pub number: u64,
    /// When it was decided, by the wall clock of the node that led then; what is this node's own, by its own: for people.
    pub time: SystemTime,
    pub group: Option<GroupName>,
    pub what: Noted,
}

/// See [`Recorded`].
#[derive(Clone, Debug)]
pub enum Noted {
    /// On every node alike.
    Decided(Event),
    /// Of this node alone.
    Here { at: Millis, kind: &'static str, text: String },
}

/// What happened since this node started, counted. What it only read again counts for nothing.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Reasons by group and code.
    pub reasons: BTreeMap<(GroupName, &'static str), u64>,
    /// The last `Opened` of each group, read again or not.
    pub opened: BTreeMap<GroupName, Reason>,
    /// Changes of the hot member that nobody asked for, by group and the code of what began them: one of [`UNPLANNED`].
    pub failovers: BTreeMap<(GroupName, &'static str), u64>,
    /// What began the change that comes to its end next, if one comes: a hot member in doubt may be kept.
    began: BTreeMap<GroupName, &'static str>,
}

/// Reasons that begin a change of the hot member that nobody asked for.
pub const UNPLANNED: [&str; 5] = ["hot-stopped", "hot-unready", "hot-unreachable", "node-silent", "node-lapsed"];
/// Reasons that begin one that somebody did ask for.
const PLANNED: [&str; 4] = ["switchover-asked", "hot-drained", "none-wanted", "restarting"];

impl Tally {
    fn count(&mut self, event: &Event, fresh: bool) {
        let (Some(group), What::Group(Effect::Because(reason))) = (&event.group, &event.what) else { return };
        if fresh {
            *self.reasons.entry((group.clone(), reason.code())).or_default() += 1;
        }
        let code = reason.code();
        if UNPLANNED.contains(&code) {
            self.began.insert(group.clone(), code);
        }
        if PLANNED.contains(&code) {
            self.began.remove(group);
        }
        if matches!(reason, Reason::Opened { .. }) {
            self.opened.insert(group.clone(), reason.clone());
            if let Some(began) = self.began.remove(group).filter(|_| fresh) {
                *self.failovers.entry((group.clone(), began)).or_default() += 1;
            }
        }
    }
}

/// The ring. Clones are the same ring.
#[derive(Clone, Debug)]
pub struct Records {
    ring: Arc<Mutex<VecDeque<Recorded>>>,
    tally: Arc<Mutex<Tally>>,
    newest: watch::Sender<u64>,
}

impl Default for Records {
    fn default() -> Self {
        Self { ring: Arc::default(), tally: Arc::default(), newest: watch::Sender::new(0) }
    }
}

impl Records {
    pub(super) fn add(&self, events: Vec<Event>, wall_ms: u64, fresh: bool) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        events.iter().for_each(|event| tally.count(event, fresh));
        drop(tally);
        let time = if wall_ms == 0 { SystemTime::now() } else { UNIX_EPOCH + Duration::from_millis(wall_ms) };
        self.push(time, events.into_iter().map(|event| (event.group.clone(), Noted::Decided(event))));
    }

    /// What this node saw of itself.
    pub(crate) fn note(&self, at: Millis, group: Option<GroupName>, kind: &'static str, text: String) {
        self.note_of(Duration::ZERO, at, group, kind, text);
    }

    /// The same, of what was so long ago; `at` is now.
    pub(super) fn note_of(&self, ago: Duration, at: Millis, group: Option<GroupName>, kind: &'static str, text: String) {
        let now = SystemTime::now();
        let at = Millis(at.0.saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)));
        self.push(now.checked_sub(ago).unwrap_or(now), [(group, Noted::Here { at, kind, text })]);
    }

    fn push(&self, time: SystemTime, all: impl IntoIterator<Item = (Option<GroupName>, Noted)>) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let mut number = *self.newest.borrow();
        for (group, what) in all {
            number += 1;
            ring.push_back(Recorded { number, time, group, what });
        }
        while ring.len() > KEPT_MAX {
            ring.pop_front();
        }
        // Before another takes the ring: the next number is counted from this one.
        self.newest.send_replace(number);
    }

    /// Records after `number`, oldest first, at most `limit`.
    #[must_use]
    pub fn after(&self, number: u64, limit: usize) -> Vec<Recorded> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let first = ring.partition_point(|r| r.number <= number);
        ring.iter().skip(first).take(limit).cloned().collect()
    }

    /// Every record after `number` that is kept, oldest first, and the number of the newest there is at that moment.
    #[must_use]
    pub fn all_after(&self, number: u64) -> (Vec<Recorded>, u64) {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let first = ring.partition_point(|r| r.number <= number);
        (ring.iter().skip(first).cloned().collect(), *self.newest.borrow())
    }

    /// The newest `limit` records, oldest first.
    #[must_use]
    pub fn newest(&self, limit: usize) -> Vec<Recorded> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.iter().skip(ring.len().saturating_sub(limit)).cloned().collect()
    }

    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes whenever something was recorded.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use hotwarm_core::action::StopCause;
    use hotwarm_core::ids::{Epoch, MemberId};

    use super::*;

    /// Else who follows is told something twice.
    #[test]
    fn what_is_read_while_others_write_ends_at_the_newest_and_no_number_is_given_twice() {
        let (records, begin) = (Records::default(), std::sync::Barrier::new(4));
        // All is read each time: who writes meets who reads.
        let work = || {
            begin.wait();
            for _ in 0..500 {
                records.note(Millis(1), None, "test", String::new());
                let (found, newest) = records.all_after(0);
                assert!(found.iter().map(|record| record.number).eq(1..=found.len() as u64), "one after the other");
                assert_eq!(found.last().map(|record| record.number), Some(newest), "the newest there is was read");
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(work))));
        assert_eq!(records.all_after(0).1, 2_000);
    }

    /// A hot member that is doubted and kept is no failover, nor is a change that somebody asked for.
    #[test]
    fn a_failover_is_counted_when_another_serves_by_what_began_it() {
        let records = Records::default();
        let tell = |reason: Reason, fresh: bool| {
            let event = Event { at: Millis(1), group: Some(GroupName::new("db")), what: What::Group(Effect::Because(reason)) };
            records.add(vec![event], 1, fresh);
        };
        let (a, b) = (MemberId::new("db/a"), MemberId::new("db/b"));
        let stopped = || Reason::HotStopped { member: a.clone(), cause: StopCause::Exit(1) };
        let unready = || Reason::HotUnready { member: a.clone(), why: "silent".into() };
        let opened = || {
            let (pause_ms, detect_ms, fence_ms, choose_ms, promote_ms) = (5, 1, 1, 1, 2);
            Reason::Opened { member: b.clone(), epoch: Epoch(2), pause_ms, detect_ms, fence_ms, choose_ms, promote_ms }
        };
        let counted = || records.tally().failovers.into_iter().map(|((_, code), count)| (code, count)).collect::<Vec<_>>();
        tell(unready(), true);
        assert!(counted().is_empty(), "it is kept");
        tell(Reason::SwitchoverAsked { from: a.clone(), to: b.clone() }, true);
        tell(opened(), true);
        assert!(counted().is_empty(), "somebody asked for that");
        tell(Reason::Vacant, true);
        tell(opened(), true);
        assert!(counted().is_empty(), "nobody was replaced");
        tell(unready(), true);
        tell(stopped(), true);
        tell(opened(), true);
        tell(opened(), true);
        assert_eq!(counted(), [("hot-stopped", 1)]);
        tell(stopped(), false);
        tell(opened(), false);
        assert_eq!(counted(), [("hot-stopped", 1)], "read again after a start");
        tell(stopped(), false);
        tell(opened(), true);
        assert_eq!(counted(), [("hot-stopped", 2)], "begun before the start, over after it");
    }
}
