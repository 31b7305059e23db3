//! Without a fault nothing fails over: what was opened stays open.

use hotwarm_core::cluster::{Event, What};
use hotwarm_core::group::{Effect, Reason};

#[derive(Debug)]
pub(super) struct Quiet {
    quiet: bool,
    opened: bool,
}

impl Quiet {
    pub(super) const fn new(quiet: bool) -> Self {
        Self { quiet, opened: false }
    }

    pub(super) fn events(&mut self, events: &[Event]) -> Option<String> {
        if !self.quiet {
            return None;
        }
        for event in events {
            match &event.what {
                What::Group(Effect::Open { .. }) => self.opened = true,
                What::Group(Effect::Close { .. } | Effect::Because(Reason::Ejected { .. })) if self.opened => {
                    return Some(format!("{:?}", event.what));
                }
                What::Lapsed { .. } | What::Silent { .. } => return Some(format!("{:?}", event.what)),
                _ => {}
            }
        }
        None
    }
}
