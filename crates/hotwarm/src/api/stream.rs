//! Answers that go on: one JSON object a line (`application/x-ndjson`) until the client leaves. An empty line now and then shows that both
//! sides are there.
//!
//! Each stream has one task and a bounded channel; a client that does not read holds up nobody else.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::body::Frame;
use hyper::header::CONTENT_TYPE;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::error::Refused;
use super::types::{Event, LogLine};
use super::{App, picture};
use crate::agent::seen::{Follower, Place, tail};
use crate::agent::{Recorded, Records};

/// Lines that wait for the client.
const LINES_WAIT: usize = 64;
const ALIVE_EVERY: Duration = Duration::from_secs(5);
/// Between looks at a member's output.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const EVENTS_AT_ONCE: usize = 256;

/// Which events a client wants.
#[derive(Clone, Debug)]
pub(super) struct Wanted(Option<String>);

impl Wanted {
    pub(super) fn group(name: Option<String>) -> Self {
        Self(name)
    }

    pub(super) fn takes(&self, record: &Recorded) -> bool {
        self.0.as_deref().is_none_or(|wanted| record.group.as_ref().is_some_and(|group| group.as_str() == wanted))
    }
}

/// A body whose frames come from a task.
struct Lines(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

/// The task's end; false from a method means that the client has gone.
struct Out(mpsc::Sender<Bytes>);

impl Out {
    fn new() -> (Self, Response) {
        let (sender, receiver) = mpsc::channel(LINES_WAIT);
        let body = axum::body::Body::new(Lines(receiver));
        (Self(sender), ([(CONTENT_TYPE, "application/x-ndjson")], body).into_response())
    }

    async fn line(&self, value: &impl Serialize) -> bool {
        let mut line = serde_json::to_vec(value).expect("wire types have only what JSON can say");
        line.push(b'\n');
        self.0.send(line.into()).await.is_ok()
    }

    async fn alive(&self) -> bool {
        self.0.send(Bytes::from_static(b"\n")).await.is_ok()
    }
}

pub(super) fn events(app: App, first: Vec<Event>, after: u64, wanted: Wanted) -> Result<Response, Refused> {
    let (out, response) = Out::new();
    tokio::spawn(follow_events(app, out, first, after, wanted));
    Ok(response)
}

async fn follow_events(app: App, out: Out, first: Vec<Event>, after: u64, wanted: Wanted) {
    tokio::select! {
        () = tell_events(app.agent.records(), &out, &first, after, &wanted, ALIVE_EVERY) => {}
        () = app.stopping() => {}
    }
}

/// Until the client goes. An empty line follows each silence of `alive_every`: what happens and is not for this client breaks none.
async fn tell_events(records: &Records, out: &Out, first: &[Event], mut after: u64, wanted: &Wanted, alive_every: Duration) {
    let mut newest = records.watch();
    for event in first {
        if !out.line(event).await {
            return;
        }
    }
    let mut told = Instant::now();
    loop {
        newest.mark_unchanged();
        let found = records.after(after, EVENTS_AT_ONCE);
        for record in &found {
            after = record.number;
            if wanted.takes(record) {
                if !out.line(&picture::recorded(record)).await {
                    return;
                }
                told = Instant::now();
            }
        }
        if told.elapsed() >= alive_every {
            if !out.alive().await {
                return;
            }
            told = Instant::now();
        }
        if !found.is_empty() {
            continue;
        }
        tokio::select! {
            changed = newest.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(told + alive_every) => {}
            () = out.0.closed() => return,
        }
    }
}

pub(super) async fn logs(app: &App, place: Place, lines: usize) -> Result<Response, Refused> {
    let (out, response) = Out::new();
    let app = app.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = follow_output(&out, place, lines) => {}
            () = out.0.closed() => {}
            () = app.stopping() => {}
        }
    });
    Ok(response)
}

async fn follow_output(out: &Out, place: Place, lines: usize) {
    // From its end first, then its past: a line in between would come twice rather than not at all.
    let begin = tokio::task::spawn_blocking(move || {
        let follower = Follower::new(&place);
        tail(&place, lines).map(|past| (follower, past))
    });
    let Ok(Ok((mut follower, mut found))) = begin.await else { return };
    let mut quiet = Duration::ZERO;
    loop {
        for line in std::mem::take(&mut found) {
            quiet = Duration::ZERO;
            if !out.line(&LogLine { line }).await {
                return;
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
        quiet += LOOK_EVERY;
        if quiet >= ALIVE_EVERY {
            quiet = Duration::ZERO;
            if !out.alive().await {
                return;
            }
        }
        let next = tokio::task::spawn_blocking(move || follower.next_lines(LINES_WAIT).map(|lines| (follower, lines)));
        let Ok(Ok((back, lines))) = next.await else { return };
        (follower, found) = (back, lines);
    }
}

#[cfg(test)]
mod tests {
    use hotwarm_core::ids::{GroupName, Millis};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// Else a client takes a node for gone where another group's events are many.
    #[tokio::test]
    async fn who_waits_for_a_quiet_group_beside_a_busy_one_hears_that_the_node_lives() {
        let (records, (out, body)) = (Records::default(), Out::new());
        let mut lines = body.into_body();
        let wanted = Wanted::group(Some("quiet".to_owned()));
        let busy = async {
            loop {
                records.note(Millis(1), Some(GroupName::new("busy")), "test", "something".to_owned());
                tokio::task::yield_now().await;
            }
        };
        let heard = tokio::time::timeout(PATIENCE, http_body_util::BodyExt::frame(&mut lines));
        let line = tokio::select! {
            () = busy => None,
            () = tell_events(&records, &out, &[], 0, &wanted, Duration::from_millis(50)) => None,
            line = heard => line.expect("a sign of life").and_then(|frame| frame.ok()?.into_data().ok()),
        };
        assert_eq!(line.as_deref(), Some(&b"\n"[..]));
    }
}
