//! The members of the demo and of the tests: small HTTP programs in the same binary, so that nothing else need be installed.
//!
//! They are ordinary programs that know nothing of hotwarm but their environment, and keep nothing on disk. One thread. The main path:
//! [`main`] -> `web::answer` or `clock::answer`.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

mod clock;
mod web;

/// What a component answers with: whole bodies, or the request's own body as it comes (echo).
type Body = BoxBody<Bytes, hyper::Error>;

const USAGE: &str = "usage: hotwarm component web|clock [--listen ADDRESS] [--name NAME]
ADDRESS defaults to HOTWARM_LISTEN, NAME to HOTWARM_MEMBER.";

/// The hidden subcommand `hotwarm component KIND`.
#[must_use]
pub fn main(arguments: &[String]) -> ExitCode {
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("hotwarm component: {problem}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("hotwarm component: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(serve(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hotwarm component: {error}");
            ExitCode::FAILURE
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Web,
    Clock,
}

#[derive(Debug, PartialEq, Eq)]
struct Options {
    kind: Kind,
    listen: SocketAddr,
    name: String,
    role: String,
    epoch: String,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let variable = |key: &str| std::env::var(key).ok();
        let mut words = arguments.iter();
        let kind = match words.next().map(String::as_str) {
            Some("web") => Kind::Web,
            Some("clock") => Kind::Clock,
            Some(other) => return Err(format!("no component {other:?}")),
            None => return Err("no component given".to_owned()),
        };
        let (mut listen, mut name) = (variable("HOTWARM_LISTEN"), variable("HOTWARM_MEMBER"));
        while let Some(word) = words.next() {
            let value = words.next().ok_or_else(|| format!("no value after {word}"))?;
            match word.as_str() {
                "--listen" => listen = Some(value.clone()),
                "--name" => name = Some(value.clone()),
                _ => return Err(format!("no option {word}")),
            }
        }
        let listen = listen.ok_or("no address to listen on")?;
        let listen = listen.parse().map_err(|_| format!("no socket address: {listen}"))?;
        let (role, epoch) = (variable("HOTWARM_ROLE").unwrap_or_default(), variable("HOTWARM_EPOCH").unwrap_or_default());
        Ok(Self { kind, listen, name: name.unwrap_or_default(), role, epoch })
    }
}

/// Until SIGTERM: then no new connection is taken and the process ends; requests in flight are the router's care.
async fn serve(options: Options) -> std::io::Result<()> {
    let listener = TcpListener::bind(options.listen).await?;
    println!("{:?} {} listens on {}", options.kind, options.name, listener.local_addr()?);
    let mut ended = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let program = Arc::new(Program::new(options));
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tokio::spawn(connection(stream, Arc::clone(&program)))),
                // Out of descriptors: those in use come back.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            },
            _ = ended.recv() => return Ok(()),
        }
    }
}

async fn connection(stream: TcpStream, program: Arc<Program>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let program = Arc::clone(&program);
        async move { Ok::<_, std::convert::Infallible>(program.answer(request).await) }
    });
    // A client's errors are the client's.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .pipeline_flush(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
}

enum Program {
    Web(web::Web),
    Clock(clock::Clock),
}

impl Program {
    fn new(options: Options) -> Self {
        match options.kind {
            Kind::Web => Self::Web(web::Web::new(options)),
            Kind::Clock => Self::Clock(clock::Clock::new(options)),
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        match self {
            Self::Web(web) => web.answer(request).await,
            Self::Clock(clock) => clock.answer(request).await,
        }
    }
}

fn json(status: u16, text: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text + "\n")).map_err(|never| match never {}).boxed());
    *response.status_mut() = hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_refused_with_a_reason() {
        let parse = |words: &str| Options::parse(&words.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        let options = parse("web --listen 127.0.0.1:1 --name a").unwrap();
        assert_eq!((options.kind, options.name.as_str()), (Kind::Web, "a"));
        assert_eq!(options.listen, "127.0.0.1:1".parse().unwrap());
        for (words, reason) in [
            ("", "no component given"),
            ("tea", "no component \"tea\""),
            ("web --listen here", "no socket address: here"),
            ("web --listen", "no value after --listen"),
            ("clock --colour red", "no option --colour"),
        ] {
            assert_eq!(parse(words).unwrap_err(), reason);
        }
    }
}
