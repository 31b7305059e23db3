//! Members that ran here and were given to another node, or removed, while no agent was there to hear of it: their guards live on.
//!
//! It ends only what lies in this node's own directory and what the caller does not name as its own. What hooks started is not known
//! here and is left to whoever removed it. Main path: [`find`], [`end`].

use std::fs;
use std::path::Path;
use std::time::Duration;

use hotwarm_core::ids::MemberId;
use tokio::time::timeout;

use super::job::Job;
use super::leftover::{self, Mark};
use super::link::Link;
use super::place::{self, Place};
use crate::fence::guard::LOCK_FILE;
use crate::fence::guard::frame::{FromGuard, State, Status, ToGuard};

/// How long its program may take to end by itself.
const GRACE: Duration = Duration::from_secs(5);
/// A guard that lives answers within microseconds; one that says nothing for so long is frozen.
const GUARD_TIMEOUT: Duration = Duration::from_secs(5);
const MEET_AGAIN: Duration = Duration::from_millis(100);

/// A member that is being ended. Dropping it leaves the rest to whoever takes the member over.
#[derive(Debug)]
pub struct Ending {
    _job: Job<()>,
}

/// Members that had a guard here. Reads directories.
#[must_use]
pub fn find(data: &Path) -> Vec<MemberId> {
    let names = |dir: &Path| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>()
    };
    let run = data.join("run");
    let members = names(&run).into_iter().flat_map(|group| {
        let members = names(&run.join(&group));
        members.into_iter().map(move |member| MemberId::new(format!("{group}/{member}")))
    });
    members.filter(|member| Place::of(data, member).dir.join(LOCK_FILE).exists()).collect()
}

/// Ends the member and whatever is left of it, in its own time.
#[must_use]
pub fn end(data: &Path, member: MemberId) -> Ending {
    let place = Place::of(data, &member);
    Ending { _job: Job::spawn(run(place, member)) }
}

async fn run(place: Place, member: MemberId) {
    loop {
        if let Ok(mut link) = Link::meet(&place.dir).await {
            tracing::info!(%member, "a member that this node does not run any more is ended");
            link.send(ToGuard::Stop { grace_ms: GRACE.as_millis() as u64 });
            let mut limit = GUARD_TIMEOUT;
            loop {
                let Ok(heard) = timeout(limit, link.heard()).await else {
                    tracing::warn!(%member, "the guard does not answer; it is killed, and the member with it");
                    link.kill_guard();
                    break;
                };
                let Some(heard) = heard else { break };
                // It says when the member is gone, however long that takes.
                limit = Duration::MAX;
                if matches!(heard, FromGuard::Status(Status { state: State::Gone(_), .. })) {
                    link.send(ToGuard::Acknowledge);
                }
            }
        }
        if leftover::guard_is_dead(&place.dir).await {
            let last = place::last_incarnation(&place);
            return leftover::clear(&place, &Mark::new(&member, last, None)).await;
        }
        tokio::time::sleep(MEET_AGAIN).await;
    }
}
