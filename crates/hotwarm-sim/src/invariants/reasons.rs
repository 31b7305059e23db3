//! Promise 5: whatever is decided says why: no promotion, fencing or closing without a reason beside it.

use hotwarm_core::cluster::{Event, What};
use hotwarm_core::group::Effect;
use hotwarm_core::ids::GroupName;

/// The events of one entry. What follows inside a transition (close, fence, cut) has the reason that it began with; where several
/// members are hot, a promotion's reason is told when the member serves.
pub(super) fn check(events: &[Event], exclusive: impl Fn(&GroupName) -> bool) -> Option<String> {
    for event in events {
        let What::Group(effect) = &event.what else { continue };
        let one = event.group.as_ref().is_some_and(&exclusive);
        let decides = match effect {
            Effect::Promote { .. } => one,
            Effect::Open { .. } | Effect::Start { .. } => true,
            _ => false,
        };
        let reasoned = || events.iter().any(|e| e.group == event.group && matches!(&e.what, What::Group(Effect::Because(_))));
        if decides && !reasoned() {
            return Some(format!("{:?}: {effect:?}", event.group));
        }
    }
    None
}
