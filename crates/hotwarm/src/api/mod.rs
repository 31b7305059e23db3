//! The operator's API: HTTP and JSON on the address `[node] api`, metrics and health beside it. Beyond loopback it speaks TLS and asks for a
//! token, or it does not listen.
//!
//! It shows what the agent knows and hands commands to it; it decides nothing, and a node works the same without it. Main path: [`serve`]
//! -> `gate` (who may ask) -> `routes` (the one table) -> `read`, `write`, `stream`. [`client`] is the other end, for commands.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, ORIGIN, TRANSFER_ENCODING};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tracing::{error, info};

use crate::agent::Handle;
use crate::codes::Code;
use crate::config::is_exposed;
use crate::config::token::Unfit;
use error::Refused;
use gate::{Gate, Peer};

pub mod client;
mod error;
mod extract;
mod gate;
mod metrics;
mod openapi;
mod picture;
mod problem;
mod read;
mod routes;
mod stream;
pub mod types;
mod write;

/// A configuration of the longest length, escaped.
const BODY_BYTES_MAX: usize = 4 << 20;
/// From a request's head to its answer's head; a command takes 5 s at most.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// From a connection's beginning to its TLS, and from there or the last answer to the next request's head.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
const CONNECTIONS_MAX: usize = 64;
/// Of those, how many are only for programs on this machine: who sits at it has a way in, whoever else asks.
const CONNECTIONS_FROM_HERE: usize = 16;
/// A client that takes nothing of its answer for so long is cut off.
const UNREAD_FOR: Duration = Duration::from_secs(30);
/// An API that could not be secured is tried again so often, and told of so often while its cause is the same.
const OPEN_EVERY: Duration = Duration::from_secs(1);
const SHUT_TOLD_EVERY: Duration = Duration::from_secs(600);

/// Why there is no API.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error(
        "API address {0} open to other machines: name a token's file in [node] api_token, or give [node] api a loopback address and reach it \
         from elsewhere through ssh"
    )]
    Exposed(SocketAddr),
    #[error(
        "API address {0} open to other machines, and this node has no certificate: install its join file with `hotwarm join`, and restart it"
    )]
    NoCertificate(SocketAddr),
    #[error("the API's token cannot be used ({0}): {hint}", hint = .0.hint())]
    Token(#[from] Unfit),
    #[error("no API at {address} ({source}): free the address or change [node] api")]
    Listen { address: SocketAddr, source: io::Error },
}

impl ApiError {
    /// Where to read on.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Exposed(_) | Self::NoCertificate(_) => Code::API_EXPOSED,
            Self::Token(_) => Code::API_TOKEN,
            Self::Listen { .. } => Code::API_ADDRESS,
        }
    }

    /// It can be mended while the node runs, and is no reason to leave groups, routers and the quorum without this node.
    const fn may_pass(&self) -> bool {
        matches!(self, Self::NoCertificate(_) | Self::Token(_))
    }
}

/// What every handler has.
#[derive(Clone, Debug)]
struct App {
    agent: Handle,
    gate: Arc<Gate>,
    /// Other machines reach it: TLS, and nothing without it.
    exposed: bool,
    stop: watch::Receiver<bool>,
}

impl App {
    /// Returns when the API ends.
    async fn stopping(&self) {
        // A sender that is gone has ended it.
        let _ = self.stop.clone().wait_for(|stop| *stop).await;
    }
}

/// A running API; it ends when this is dropped.
#[derive(Debug)]
pub struct Api {
    address: Option<SocketAddr>,
    stop: watch::Sender<bool>,
}

impl Api {
    /// Where it listens, with its real port; `None` where it waits for what secures it.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// Listens on `address` and answers whoever has the token in the file `token` (without one, everybody who reaches it) on the current runtime
/// until the returned [`Api`] is dropped. Where what is to secure it is missing, it does not listen, on loopback neither: it says so, and
/// opens as soon as that is there.
///
/// # Errors
/// The address is not loopback and no token is named, or the address cannot be listened on.
pub async fn serve(address: SocketAddr, token: Option<PathBuf>, agent: Handle) -> Result<Api, ApiError> {
    let (stop, stopped) = watch::channel(false);
    let wanted = Wanted { address, token, agent, stop: stopped };
    match wanted.open().await {
        Ok(address) => Ok(Api { address: Some(address), stop }),
        Err(error) if error.may_pass() => {
            tokio::spawn(wanted.open_later(error));
            Ok(Api { address: None, stop })
        }
        Err(error) => Err(error),
    }
}

/// An API that is to be.
#[derive(Debug)]
struct Wanted {
    address: SocketAddr,
    token: Option<PathBuf>,
    agent: Handle,
    stop: watch::Receiver<bool>,
}

impl Wanted {
    async fn open(&self) -> Result<SocketAddr, ApiError> {
        let exposed = is_exposed(self.address);
        // Without both nobody from outside may ask; the configuration refuses this too.
        if exposed && self.token.is_none() {
            return Err(ApiError::Exposed(self.address));
        }
        if exposed && self.agent.api_tls().is_none() {
            return Err(ApiError::NoCertificate(self.address));
        }
        let token = self.token.clone();
        // A disk may hang; the signal that ends the node must not wait for it.
        let gate = tokio::task::spawn_blocking(move || Gate::open(token)).await;
        let gate = Arc::new(gate.unwrap_or_else(|ended| std::panic::resume_unwind(ended.into_panic()))?);
        let failed = |source| ApiError::Listen { address: self.address, source };
        let listener = TcpListener::bind(self.address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let app = App { agent: self.agent.clone(), gate, exposed, stop: self.stop.clone() };
        tokio::spawn(accept(listener, app.clone()));
        tokio::spawn(async move {
            tokio::select! {
                () = Arc::clone(&app.gate).follow() => {}
                () = app.stopping() => {}
            }
        });
        Ok(address)
    }

    /// Tries again until it is open, and says each other reason why it is not; the same one now and then, for nobody can ask.
    async fn open_later(mut self, mut why: ApiError) {
        let mut told: Option<(String, Instant)> = None;
        loop {
            let text = why.to_string();
            if told.as_ref().is_none_or(|(last, at)| *last != text || at.elapsed() >= SHUT_TOLD_EVERY) {
                error!(code = %why.code(), "this node runs without its API, no command and no metrics reach it: {text}");
                told = Some((text, Instant::now()));
            }
            tokio::select! {
                () = tokio::time::sleep(OPEN_EVERY) => {}
                _ = self.stop.wait_for(|stop| *stop) => return,
            }
            match self.open().await {
                Ok(address) => return info!(api = %address, "the API is open"),
                Err(error) => why = error,
            }
        }
    }
}

fn router(app: App) -> axum::Router {
    let router = routes::TABLE.iter().fold(axum::Router::new(), |router, route| router.route(route.path, (route.handler)()));
    let unknown = |request: Request| async move {
        Refused::not_there(format!("no {} {}", request.method(), request.uri().path()))
            .hint("GET /api/v1/openapi.json describes every request")
    };
    let not_allowed = |request: Request| async move {
        let allowed = request.extensions().get::<MatchedPath>().map(|path| routes::allowed(path.as_str())).unwrap_or_default();
        let text = format!("no {} {}", request.method(), request.uri().path());
        let refused = Refused::new(StatusCode::METHOD_NOT_ALLOWED, Code::BAD_REQUEST, text).hint(format!("it takes {allowed}"));
        ([(ALLOW, allowed)], refused)
    };
    router
        .fallback(unknown)
        .method_not_allowed_fallback(not_allowed)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(app.clone(), guard))
        .with_state(app)
}

/// Every answer comes within a bound. A page open in a browser on this machine cannot ask, whether it is of another site or of another
/// program here: it may send requests, but not with a host name of ours (DNS rebinding), nor without telling its origin, nor a body that
/// says it is JSON without asking first. From elsewhere no page can: it has no token, and beyond loopback the host may have any name.
async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    if is_foreign(&request, app.exposed) {
        let text = "a request for another host, or from a page of another site or port";
        return Refused::new(StatusCode::FORBIDDEN, Code::BAD_REQUEST, text).hint("ask for 127.0.0.1, [::1] or localhost").into_response();
    }
    if let Err(refused) = app.gate.judge(&request) {
        return refused.into_response();
    }
    if has_other_body(&request) {
        let text = "a body that does not say it is JSON";
        let refused = Refused::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::BAD_REQUEST, text);
        return refused.hint("add the header `Content-Type: application/json`").into_response();
    }
    let late = || Refused::new(StatusCode::GATEWAY_TIMEOUT, Code::UNCONFIRMED, format!("no answer within {} s", ANSWER_WITHIN.as_secs()));
    tokio::time::timeout(ANSWER_WITHIN, next.run(request)).await.unwrap_or_else(|_| late().into_response())
}

fn header<'a>(request: &'a Request, name: &HeaderName) -> Option<&'a str> {
    request.headers().get(name).map(|value| value.to_str().unwrap_or("?"))
}

fn is_foreign(request: &Request, exposed: bool) -> bool {
    let host = header(request, &HOST).or_else(|| request.uri().host()).unwrap_or_default();
    let origin = header(request, &ORIGIN).map(|origin| origin.split_once("://").map_or("", |(_, host)| host));
    let site = header(request, &HeaderName::from_static("sec-fetch-site"));
    !(exposed || is_local(host))
        || origin.is_some_and(|origin| !origin.eq_ignore_ascii_case(host))
        || !matches!(site, None | Some("same-origin" | "none"))
}

fn has_other_body(request: &Request) -> bool {
    let is_empty = header(request, &CONTENT_LENGTH).is_none_or(|length| length == "0") && header(request, &TRANSFER_ENCODING).is_none();
    let media = header(request, &CONTENT_TYPE).and_then(|media| media.split(';').next()).unwrap_or_default();
    !is_empty && !media.trim().eq_ignore_ascii_case("application/json")
}

/// True for a host, with or without a port, that can only be this machine.
fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

async fn accept(listener: TcpListener, app: App) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let router = router(app.clone());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = app.stopping() => return,
        };
        let Ok((stream, peer)) = accepted else {
            // Out of descriptors: those in use come back.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        // Too many: this one is closed, and those that are open go on.
        if connections.available_permits() <= CONNECTIONS_FROM_HERE && !is_from_here(&stream, peer) {
            continue;
        }
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else { continue };
        let (router, app) = (router.clone(), app.clone());
        drop(tokio::spawn(async move {
            tokio::select! {
                () = connection(stream, peer, &app, router) => {}
                () = app.stopping() => {}
            }
            drop(permit);
        }));
    }
}

/// True for a client on this machine, by whichever of its addresses.
fn is_from_here(stream: &TcpStream, peer: SocketAddr) -> bool {
    peer.ip().to_canonical().is_loopback() || stream.local_addr().is_ok_and(|own| own.ip() == peer.ip())
}

async fn connection(stream: TcpStream, peer: SocketAddr, app: &App, router: axum::Router) {
    // Answers are small; a delay is worse than a packet.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD_FOR));
    if !app.exposed {
        return answer(stream, peer, router).await;
    }
    // The certificate as it is now: a renewal needs no restart.
    let Some(tls) = app.agent.api_tls() else { return };
    // Whoever speaks no TLS hears nothing but that.
    if let Ok(Ok(stream)) = tokio::time::timeout(HEAD_WITHIN, TlsAcceptor::from(tls).accept(stream)).await {
        answer(stream, peer, router).await;
    }
}

async fn answer(stream: impl AsyncRead + AsyncWrite + Unpin, peer: SocketAddr, router: axum::Router) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        router.call(request)
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(64 << 10);
    // A client's errors are the client's.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request {
        let built = headers.iter().fold(Request::post("/api/v1/config"), |request, (name, value)| request.header(*name, *value));
        built.body(axum::body::Body::empty()).unwrap()
    }

    #[test]
    fn pages_ask_nothing_wherever_they_are_from() {
        let host = ("host", "127.0.0.1:7401");
        for own in [&[host][..], &[host, ("origin", "http://127.0.0.1:7401")], &[host, ("sec-fetch-site", "same-origin")]] {
            assert!(!is_foreign(&request(own), false), "{own:?}");
        }
        for origin in
            ["http://localhost:9999", "http://127.0.0.1:9999", "http://127.0.0.1", "http://localhost:7401", "null", "https://example.org"]
        {
            assert!(is_foreign(&request(&[host, ("origin", origin)]), false), "{origin}");
        }
        assert!(is_foreign(&request(&[host, ("sec-fetch-site", "same-site")]), false));
        let rebound = request(&[("host", "example.org:7401"), ("origin", "http://example.org:7401")]);
        assert!(is_foreign(&rebound, false), "DNS rebinding");
        assert!(!is_foreign(&rebound, true), "beyond loopback any name may be a node's, and the token is asked for");
        assert!(is_foreign(&request(&[("host", "10.0.0.1:7401"), ("origin", "https://example.org")]), true));
    }

    #[test]
    fn a_body_says_that_it_is_json() {
        let json = ("content-type", "application/json; charset=utf-8");
        for good in [&[][..], &[("content-length", "0")], &[json, ("content-length", "5")], &[json, ("transfer-encoding", "chunked")]] {
            assert!(!has_other_body(&request(good)), "{good:?}");
        }
        let plain = ("content-type", "text/plain");
        for bad in [&[("content-length", "5")][..], &[plain, ("content-length", "5")], &[plain, ("transfer-encoding", "chunked")]] {
            assert!(has_other_body(&request(bad)), "{bad:?}");
        }
    }

    #[test]
    fn only_this_machine_is_local() {
        for host in ["127.0.0.1", "127.0.0.1:7401", "localhost", "localhost:7401", "[::1]", "[::1]:7401", "127.8.9.1:1"] {
            assert!(is_local(host), "{host}");
        }
        for host in ["", "example.org", "example.org:7401", "10.0.0.1:7401", "localhost.example.org", "127.0.0.1.example.org", "null"] {
            assert!(!is_local(host), "{host}");
        }
    }
}
