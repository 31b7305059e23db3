//! Lives that fail: what is told of one that ended before it answered its check, or that hangs, so that a person need not guess.
//!
//! It must not delay what others wait for: a life that has answered, or that another follows, is told gone at once by the parent. The
//! main path: [`Task::read_last_line`] -> [`Task::on_read`].

use std::time::{Duration, SystemTime};

use hotwarm_core::action::StopCause;
use hotwarm_core::ids::Incarnation;

use super::super::job::Job;
use super::super::{Place, logs};
use super::stage::Stage;
use super::{Task, Verdict};

/// Looking up a line must not take longer; without it the cause is told alone.
const READ_TIMEOUT: Duration = Duration::from_millis(200);
/// The line is cut here, in characters.
const LINE_MAX: usize = 200;

impl Task {
    /// The life is over and never answered.
    pub(super) fn read_last_line(&mut self, incarnation: Incarnation, cause: StopCause) {
        self.end_change(Err("the member ended".to_owned()));
        let Stage::Living(living) = &self.stage else { return };
        let (place, began) = (self.place.clone(), living.began);
        self.last = (incarnation, cause.clone());
        let read = tokio::task::spawn_blocking(move || last_line(&place, began));
        let job = Job::spawn(async move { tokio::time::timeout(READ_TIMEOUT, read).await.ok()?.ok()? });
        self.stage = Stage::Reading { job, incarnation, cause };
    }

    pub(super) fn on_read(&mut self, line: Option<String>) {
        let Stage::Reading { incarnation, cause, .. } = std::mem::replace(&mut self.stage, Stage::Absent) else { return };
        let said = line.map_or_else(|| "it printed nothing".to_owned(), |line| format!("it last printed: {line}"));
        let why = format!("{cause} before it answered its check; {said}");
        tracing::info!(member = %self.spec.member, "not started: {why}");
        self.tell_gone(incarnation, StopCause::NotStarted(why), None);
    }

    /// It is ended because it does not answer: that is the cause, not that it was asked to.
    pub(super) fn note_hung(&mut self) {
        let limit = self.process.start_timeout;
        let Stage::Living(living) = &mut self.stage else { return };
        if living.ending || living.cause.is_some() {
            return;
        }
        living.cause = match &living.ready {
            _ if !living.answered => Some(StopCause::NotStarted(living.never_answered(limit))),
            Some(Verdict::Unready(why)) => Some(StopCause::Hung(why.clone())),
            Some(Verdict::Ready) | None => None,
        };
    }
}

/// The last line that it printed since it began, made fit to be shown.
fn last_line(place: &Place, began: SystemTime) -> Option<String> {
    let written = place.output().metadata().and_then(|output| output.modified()).ok()?;
    // The output is of all lives; files' times are as coarse as the kernel's tick.
    if written + Duration::from_millis(20) < began {
        return None;
    }
    let line = logs::tail(place, 1).ok()?.pop()?;
    let shown: String = line.chars().filter(|c| !c.is_control()).take(LINE_MAX).collect();
    (!shown.trim().is_empty()).then_some(shown)
}
