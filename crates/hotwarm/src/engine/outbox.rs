//! What a member's task has to say, until the agent has room for it.
//!
//! It never makes the task wait: a deadline must go through while an agent is slow to listen. Bounded: what is repeated is said once, of
//! two verdicts the later one counts. Main path: [`Outbox::put`], [`Outbox::deliver`].

use std::collections::VecDeque;

use hotwarm_core::action::MemberEvent;
use hotwarm_core::ids::MemberId;

use super::Events;

/// More than a member can have to say while an agent is alive.
const EVENTS_MAX: usize = 256;

#[derive(Debug)]
pub(super) struct Outbox {
    member: MemberId,
    events: Events,
    waiting: VecDeque<MemberEvent>,
}

impl Outbox {
    pub(super) const fn new(member: MemberId, events: Events) -> Self {
        Self { member, events, waiting: VecDeque::new() }
    }

    pub(super) fn put(&mut self, event: MemberEvent) {
        let is_verdict = |event: &MemberEvent| matches!(event, MemberEvent::Ready { .. } | MemberEvent::Unready { .. });
        if is_verdict(&event) && self.waiting.back().is_some_and(|last| is_verdict(last) && last.incarnation() == event.incarnation()) {
            self.waiting.pop_back();
        }
        if self.waiting.back() != Some(&event) {
            self.waiting.push_back(event);
        }
        if self.waiting.len() > EVENTS_MAX {
            // The oldest that is told again when it is asked for again; an end is told once.
            let droppable = self.waiting.iter().position(|event| !matches!(event, MemberEvent::Stopped { .. })).unwrap_or(0);
            self.waiting.remove(droppable);
        }
    }

    /// Hands over the oldest event; waits for ever if there is none or nobody listens any more. Cancel-safe.
    pub(super) async fn deliver(&mut self) {
        if !self.waiting.is_empty()
            && let Ok(permit) = self.events.reserve().await
            && let Some(event) = self.waiting.pop_front()
        {
            return permit.send((self.member.clone(), event));
        }
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use hotwarm_core::action::StopCause;
    use hotwarm_core::ids::Incarnation;
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn the_later_verdict_counts_and_ends_are_kept() {
        let (events, _listener) = mpsc::channel(1);
        let mut outbox = Outbox::new(MemberId::new("web/a"), events);
        let incarnation = Incarnation(1);
        outbox.put(MemberEvent::Ready { incarnation });
        outbox.put(MemberEvent::Unready { incarnation, why: "silent".into() });
        assert_eq!(outbox.waiting.len(), 1);
        outbox.put(MemberEvent::Stopped { incarnation, cause: StopCause::Asked });
        for n in 0..600 {
            outbox.put(MemberEvent::Ready { incarnation: Incarnation(n) });
        }
        assert_eq!(outbox.waiting.len(), EVENTS_MAX);
        assert!(outbox.waiting.iter().any(|event| matches!(event, MemberEvent::Stopped { .. })));
    }
}
