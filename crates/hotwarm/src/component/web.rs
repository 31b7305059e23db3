//! The component `web`: says who answered, can be slow, echoes what it is sent, also after an upgrade.
//!
//! It keeps nothing but a counter. Main path: [`Web::answer`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

use super::{Body, Options, json};

/// The longest it can be asked to be slow.
const SLOW_MS_MAX: u64 = 600_000;

pub(super) struct Web {
    options: Options,
    requests: AtomicU64,
}

impl Web {
    pub(super) const fn new(options: Options) -> Self {
        Self { options, requests: AtomicU64::new(0) }
    }

    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        if path == "/healthz" {
            return json(200, "{\"ok\":true}".to_owned());
        }
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if request.headers().contains_key(UPGRADE) {
            return echo(request);
        }
        if request.method() == Method::POST {
            return Response::new(request.into_body().boxed());
        }
        match path {
            "/slow" => tokio::time::sleep(slow(request.uri().query())).await,
            "/" => {}
            _ => return json(404, "{\"error\":\"no such page: / /healthz /slow?ms=N, or POST\"}".to_owned()),
        }
        // Which part it plays is the router's affair: it is told nothing of a change, and so says nothing of it.
        let Options { name, .. } = &self.options;
        let pid = std::process::id();
        json(200, serde_json::json!({ "name": name, "pid": pid, "requests": number }).to_string())
    }
}

/// Switches to whatever protocol is wished, and sends back what comes.
fn echo(mut request: Request<Incoming>) -> Response<Body> {
    let wished = request.headers()[UPGRADE].clone();
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
        // A client's errors are the client's.
        let _ = tokio::io::copy(&mut from, &mut to).await;
    });
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(UPGRADE, wished);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response
}

fn slow(query: Option<&str>) -> Duration {
    let ms = query.and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("ms=")?.parse().ok()));
    Duration::from_millis(ms.unwrap_or(1000).min(SLOW_MS_MAX))
}
