//! Without a fault nothing fails over: what was opened stays open, but for a restart that was asked for.

use std::collections::BTreeSet;

use hotwarm_core::cluster::{Event, What};
use hotwarm_core::group::{Effect, Reason};
use hotwarm_core::ids::GroupName;

#[derive(Debug)]
pub(super) struct Quiet {
    quiet: bool,
    opened: bool,
    /// Members of this group hand over or are left out for a restart.
    restarting: BTreeSet<GroupName>,
}

impl Quiet {
    pub(super) const fn new(quiet: bool) -> Self {
        Self { quiet, opened: false, restarting: BTreeSet::new() }
    }

    pub(super) fn events(&mut self, events: &[Event]) -> Option<String> {
        if !self.quiet {
            return None;
        }
        for event in events {
            match &event.what {
                What::Group(Effect::Open { .. }) => self.opened = true,
                What::Group(Effect::Because(Reason::Restarting { member })) => drop(self.restarting.insert(member.group())),
                What::Group(Effect::Because(Reason::RestartStopped { .. } | Reason::RestartRefused { .. })) => {
                    return Some(format!("{:?}", event.what));
                }
                What::Group(Effect::Close { .. } | Effect::Because(Reason::Ejected { .. })) if self.opened && !self.restarts(event) => {
                    return Some(format!("{:?}", event.what));
                }
                What::Lapsed { .. } | What::Silent { .. } => return Some(format!("{:?}", event.what)),
                _ => {}
            }
        }
        None
    }

    fn restarts(&self, event: &Event) -> bool {
        event.group.as_ref().is_some_and(|group| self.restarting.contains(group))
    }
}
