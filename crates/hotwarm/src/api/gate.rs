//! Who may ask: whoever has the token, where the configuration names one. `GET /health` tells whether the node is well without it.
//!
//! The token must never be told, nor how much of a wrong one was right, and those who try must not fill the log. Main path: [`Gate::open`]
//! reads the token, [`Gate::judge`] compares, [`Gate::follow`] reads it again while the API is there.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use axum::extract::Request;
use hyper::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use hyper::{Method, StatusCode};
use tracing::{info, warn};

use super::error::Refused;
use crate::codes::Code;
use crate::config::token::{Token, Unfit};

/// Load balancers and service managers have no token; they hear whether the node is well, as they must.
pub(super) const OPEN: &str = "/health";
/// A token counts at most this long after its file was replaced.
const READ_EVERY: Duration = Duration::from_secs(1);
/// Whoever tries tokens fills the log no faster than one line in this time.
const COMPLAIN_EVERY: Duration = Duration::from_secs(10);

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

#[derive(Debug, Default)]
pub(super) struct Gate {
    key: Option<Key>,
    /// Requests that were refused, without a token and with a wrong one.
    pub(super) without: AtomicU64,
    pub(super) wrong: AtomicU64,
    complaint: Mutex<Complaint>,
    /// Why the token's file cannot be used now; the former token counts.
    unfit: ArcSwapOption<String>,
}

#[derive(Debug)]
struct Key {
    path: PathBuf,
    token: ArcSwap<Token>,
}

#[derive(Debug, Default)]
struct Complaint {
    last: Option<Instant>,
    unsaid: u64,
}

impl Gate {
    /// Asks for the token in the file at `path`; without one, for none.
    ///
    /// # Errors
    /// The file holds no token that counts.
    pub(super) fn open(path: Option<PathBuf>) -> Result<Self, Unfit> {
        let read = |path: PathBuf| Ok(Key { token: ArcSwap::from_pointee(Token::read(&path)?), path });
        Ok(Self { key: path.map(read).transpose()?, ..Self::default() })
    }

    /// Lets a request pass, or says what it lacks.
    pub(super) fn judge(&self, request: &Request) -> Result<(), Refused> {
        let Some(key) = &self.key else { return Ok(()) };
        if request.uri().path() == OPEN && [Method::GET, Method::HEAD].contains(request.method()) {
            return Ok(());
        }
        let Some(said) = request.headers().get(AUTHORIZATION) else {
            self.without.fetch_add(1, Ordering::Relaxed);
            return Err(refused("the API asks for its token, and the request brought none"));
        };
        if bearer(said.as_bytes()).is_some_and(|said| key.token.load().is(said)) {
            return Ok(());
        }
        self.wrong.fetch_add(1, Ordering::Relaxed);
        self.complain(request.extensions().get::<Peer>().copied());
        Err(refused("the token is not the one of this node's API"))
    }

    fn complain(&self, from: Option<Peer>) {
        let mut complaint = self.complaint.lock().unwrap_or_else(PoisonError::into_inner);
        if complaint.last.is_some_and(|last| last.elapsed() < COMPLAIN_EVERY) {
            complaint.unsaid += 1;
            return;
        }
        complaint.last = Some(Instant::now());
        let unsaid = std::mem::take(&mut complaint.unsaid);
        let from = from.map(|Peer(address)| address.to_string()).unwrap_or_default();
        warn!(code = %Code::TOKEN_ASKED, from, unsaid, "a request to the API with a wrong token was refused");
    }

    /// Takes up what the file holds from now on, for ever. One that holds nothing usable leaves the former token in force: it may be half
    /// written.
    pub(super) async fn follow(self: Arc<Self>) {
        let mut told = String::new();
        while self.key.is_some() {
            tokio::time::sleep(READ_EVERY).await;
            let gate = Arc::clone(&self);
            // A disk may hang; the API must not.
            let read = tokio::task::spawn_blocking(move || gate.key.as_ref().map(Key::read_again)).await;
            let unfit = match read {
                Ok(Some(Err(unfit))) => unfit.to_string(),
                _ => String::new(),
            };
            if unfit != told && !unfit.is_empty() {
                warn!(code = %Code::API_TOKEN, "the API's token was not read again, the former one counts: {unfit}");
            }
            self.unfit.store(Some(unfit.clone()).filter(|unfit| !unfit.is_empty()).map(Arc::new));
            told = unfit;
        }
    }

    /// Why the file of the token in force holds none that counts: with it, the node's next start is without its API.
    pub(super) fn unfit(&self) -> Option<Arc<String>> {
        self.unfit.load_full()
    }
}

impl Key {
    fn read_again(&self) -> Result<(), Unfit> {
        let token = Token::read(&self.path)?;
        if **self.token.load() != token {
            self.token.store(Arc::new(token));
            info!("the API's token was read again: another one counts now");
        }
        Ok(())
    }
}

/// What follows the scheme, whose case does not matter (RFC 9110, 11.1).
fn bearer(said: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = said.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| rest.trim_ascii())
}

fn refused(why: &str) -> Refused {
    let hint = "give --api-token FILE (or HOTWARM_API_TOKEN_FILE) the file that `api_token` names on the node, or the header `Authorization: Bearer TOKEN`";
    Refused::new(StatusCode::UNAUTHORIZED, Code::TOKEN_ASKED, why).hint(hint).header(WWW_AUTHENTICATE, "Bearer")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;

    use axum::response::IntoResponse;

    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn gate() -> (tempfile::TempDir, Gate) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let file = std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&path);
        std::io::Write::write_all(&mut file.unwrap(), TOKEN.as_bytes()).unwrap();
        (dir, Gate::open(Some(path)).unwrap())
    }

    fn asks(gate: &Gate, method: Method, path: &str, said: Option<&str>) -> bool {
        let request = Request::builder().method(method).uri(path);
        let request = said.into_iter().fold(request, |request, said| request.header(AUTHORIZATION, said));
        let Err(refused) = gate.judge(&request.body(axum::body::Body::empty()).unwrap()) else { return true };
        let response = refused.into_response();
        assert_eq!((response.status(), &response.headers()[WWW_AUTHENTICATE]), (StatusCode::UNAUTHORIZED, &"Bearer".parse().unwrap()));
        false
    }

    #[test]
    fn only_the_token_opens() {
        let (_dir, gate) = gate();
        let status = |said: Option<&str>| asks(&gate, Method::GET, "/api/v1/status", said);
        for good in [format!("Bearer {TOKEN}"), format!("bearer {TOKEN}"), format!("BEARER  {TOKEN} ")] {
            assert!(status(Some(&good)), "{good}");
        }
        let wrong = [
            "",
            "Bearer",
            "Bearer ",
            TOKEN,
            "Bearer 0123456789abcdef0123456789abcdee",
            &format!("Basic {TOKEN}"),
            &format!("Bearer {TOKEN}0"),
        ];
        for wrong in wrong {
            assert!(!status(Some(wrong)), "{wrong}");
        }
        assert!(!status(None));
        assert_eq!((gate.without.load(Ordering::Relaxed), gate.wrong.load(Ordering::Relaxed)), (1, wrong.len() as u64));
        assert_eq!(gate.complaint.lock().unwrap().unsaid, wrong.len() as u64 - 1, "one line");
        assert!(!format!("{gate:?}").contains("abcdef"));
    }

    #[test]
    fn health_alone_is_told_without() {
        let (_dir, gate) = gate();
        assert!(asks(&gate, Method::GET, "/health", None) && asks(&gate, Method::HEAD, "/health", None));
        for (method, path) in [(Method::POST, "/health"), (Method::GET, "/metrics"), (Method::GET, "/health/"), (Method::GET, "/nothing")] {
            assert!(!asks(&gate, method.clone(), path, None), "{method} {path}");
        }
        assert!(asks(&Gate::default(), Method::POST, "/api/v1/config", None), "where no token is configured none is asked for");
    }
}
