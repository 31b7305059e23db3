//! The component `clock`: tells a count that only grows while it lives, and remembers nothing.
//!
//! A client that sees the count fall has met another life of it. It tells its role and epoch too: those it was started with, until a POST
//! to `/role` brings others. Main path: [`Clock::answer`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use serde::Deserialize;

use super::{Body, Options, json};

/// Bytes of a change of role that are read, at most.
const CHANGE_MAX: usize = 4096;

pub(super) struct Clock {
    name: String,
    part: Mutex<Part>,
    started: Instant,
    ticks: AtomicU64,
}

/// The part it plays.
#[derive(Clone, Deserialize)]
struct Part {
    role: String,
    epoch: u64,
}

impl Clock {
    pub(super) fn new(options: Options) -> Self {
        let Options { name, role, epoch, .. } = options;
        let part = Part { role, epoch: epoch.parse().unwrap_or(0) };
        Self { name, part: Mutex::new(part), started: Instant::now(), ticks: AtomicU64::new(0) }
    }

    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        match request.uri().path() {
            "/healthz" => json(200, "{\"ok\":true}".to_owned()),
            "/" => {
                let tick = self.ticks.fetch_add(1, Ordering::Relaxed) + 1;
                let up_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
                let Part { role, epoch } = self.part.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let (name, pid) = (&self.name, std::process::id());
                let text = serde_json::json!({ "name": name, "pid": pid, "tick": tick, "up_ms": up_ms, "role": role, "epoch": epoch });
                json(200, text.to_string())
            }
            "/role" if request.method() == Method::POST => self.change(request).await,
            _ => json(404, "{\"error\":\"no such page: / /healthz, or POST /role\"}".to_owned()),
        }
    }

    async fn change(&self, request: Request<Incoming>) -> Response<Body> {
        let body = Limited::new(request.into_body(), CHANGE_MAX).collect().await.map(http_body_util::Collected::to_bytes);
        let Some(told) = body.ok().and_then(|bytes| serde_json::from_slice::<Part>(&bytes).ok()) else {
            return json(400, r#"{"error":"no change of role: {\"role\":\"hot\",\"epoch\":7}"}"#.to_owned());
        };
        let mut part = self.part.lock().unwrap_or_else(PoisonError::into_inner);
        if told.epoch < part.epoch {
            return json(409, "{\"error\":\"an older epoch\"}".to_owned());
        }
        *part = told;
        json(200, "{\"ok\":true}".to_owned())
    }
}
