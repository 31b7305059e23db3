//! The external engine: a member that hotwarm probes and routes to, but neither starts nor stops.
//!
//! It is the command engine without hooks but the group's fence, and its member is taken to be there for as long as the agent is: only
//! the probe says whether it answers. It never claims that such a member has stopped (S5). Main path: [`task`].

use std::time::Duration;

use super::command::{Presence, Task};
use super::{SpawnSpec, Wires};
use crate::config::Hooks;

/// How long the group's fence command may take.
const FENCE_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn task(spec: SpawnSpec, wires: Wires) -> Task {
    Task::new(spec, hooks(), Presence::Assumed, wires)
}

/// None: the group's fence is all there is.
pub(super) const fn hooks() -> Hooks {
    let (start, stop, promote, demote) = (None, None, None, None);
    Hooks { start, stop, promote, demote, fence: None, position: None, user: None, timeout: FENCE_TIMEOUT }
}
