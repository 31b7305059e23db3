//! The component `clock`: tells a count that only grows while it lives, and remembers nothing.
//!
//! A client that sees the count fall has met another life of it. Main path: [`Clock::answer`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use hyper::body::Incoming;
use hyper::{Request, Response};

use super::{Body, Options, json};

pub(super) struct Clock {
    options: Options,
    started: Instant,
    ticks: AtomicU64,
}

impl Clock {
    pub(super) fn new(options: Options) -> Self {
        Self { options, started: Instant::now(), ticks: AtomicU64::new(0) }
    }

    pub(super) fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        match request.uri().path() {
            "/healthz" => json(200, "{\"ok\":true}".to_owned()),
            "/" => {
                let tick = self.ticks.fetch_add(1, Ordering::Relaxed) + 1;
                let up_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
                let Options { name, role, epoch, .. } = &self.options;
                let pid = std::process::id();
                let text = serde_json::json!({ "name": name, "pid": pid, "tick": tick, "up_ms": up_ms, "role": role, "epoch": epoch });
                json(200, text.to_string())
            }
            _ => json(404, "{\"error\":\"no such page: / /healthz\"}".to_owned()),
        }
    }
}
