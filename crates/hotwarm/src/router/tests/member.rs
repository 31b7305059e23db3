//! Members: a good one (hyper's server, so that another reader of HTTP checks what the router writes), and raw ones that do as told.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A connection on this machine that is not made in this time waits for a place in the queue.
const FULL_AFTER: std::time::Duration = std::time::Duration::from_millis(500);

pub(super) struct Member {
    pub name: String,
    pub address: SocketAddr,
    /// Requests (or connections, of raw ones) that came, probes left out.
    pub seen: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
    pub frozen: Arc<AtomicBool>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Member {
    async fn run<F: Future<Output = ()> + Send + 'static>(
        name: &str,
        address: &str,
        each: impl Fn(TcpStream, Arc<AtomicUsize>, Arc<AtomicBool>) -> F + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, frozen): (Arc<AtomicUsize>, Arc<AtomicBool>) = Default::default();
        let connections: Arc<Mutex<Vec<JoinHandle<()>>>> = Arc::default();
        let (s, f, c) = (Arc::clone(&seen), Arc::clone(&frozen), Arc::clone(&connections));
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                c.lock().unwrap().push(tokio::spawn(each(stream, Arc::clone(&s), Arc::clone(&f))));
            }
        });
        Self { name: name.into(), address, seen, accepting, connections, frozen }
    }

    /// A good one: answers its name; what it read is told in headers and body, see [`answer`].
    pub(super) async fn good(name: &str) -> Self {
        Self::good_at(name, "127.0.0.1:0").await
    }

    pub(super) async fn good_at(name: &str, address: &str) -> Self {
        let own: Arc<str> = name.into();
        Self::run(name, address, move |stream, seen, frozen| {
            let own = Arc::clone(&own);
            async move {
                let service = service_fn(move |request| answer(Arc::clone(&own), request, Arc::clone(&seen), Arc::clone(&frozen)));
                let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
            }
        })
        .await
    }

    /// A raw one: `each` gets every connection with what was read of it up to the end of the first head. Probes are answered well.
    pub(super) async fn raw<F: Future<Output = ()> + Send + 'static>(
        name: &str,
        each: impl Fn(TcpStream, Vec<u8>) -> F + Send + Sync + 'static,
    ) -> Self {
        let each = Arc::new(each);
        Self::run(name, "127.0.0.1:0", move |mut stream, seen, _| {
            let each = Arc::clone(&each);
            async move {
                let mut head = Vec::new();
                while !head.windows(4).any(|w| w == b"\r\n\r\n") {
                    if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                if head.starts_with(b"GET /healthz") {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                    return;
                }
                seen.fetch_add(1, Ordering::SeqCst);
                each(stream, head).await;
            }
        })
        .await
    }

    /// A raw one that always writes `reply` and closes.
    pub(super) async fn says(name: &str, reply: &'static [u8]) -> Self {
        Self::raw(name, move |mut stream, _| async move {
            let _ = stream.write_all(reply).await;
            let _ = stream.shutdown().await;
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
        })
        .await
    }

    /// One whose kernel takes no more connections, and does not say so.
    pub(super) async fn full(name: &str) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) = tokio::time::timeout(FULL_AFTER, TcpStream::connect(address)).await {
            queued.push(stream.unwrap());
        }
        let accepting = tokio::spawn(async move {
            let _kept = (socket, queued);
            std::future::pending::<()>().await;
        });
        Self { name: name.into(), address, seen: Arc::default(), accepting, connections: Arc::default(), frozen: Arc::default() }
    }

    /// Of TCP: passes every connection to `each` at once.
    pub(super) async fn tcp<F: Future<Output = ()> + Send + 'static>(name: &str, each: impl Fn(TcpStream) -> F + Send + 'static) -> Self {
        Self::run(name, "127.0.0.1:0", move |stream, seen, _| {
            seen.fetch_add(1, Ordering::SeqCst);
            each(stream)
        })
        .await
    }

    pub(super) fn count(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }

    /// Answers its name to each first request of a connection, when it is released.
    pub(super) async fn released(name: &'static str, release: &Arc<tokio::sync::Notify>) -> Self {
        let told = Arc::clone(release);
        Self::raw(name, move |mut stream, _| {
            let told = Arc::clone(&told);
            async move {
                told.notified().await;
                stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()).as_bytes()).await.unwrap();
            }
        })
        .await
    }

    /// Waits until so many requests have come.
    pub(super) async fn hangs(&self, count: usize) {
        super::stage::until("requests at the member", || async { self.count() == count }).await;
    }

    /// As by SIGKILL: the listener is closed, and every connection.
    pub(super) fn kill(&self) {
        self.accepting.abort();
        self.connections.lock().unwrap().drain(..).for_each(|task| task.abort());
    }
}

/// `/hang` never answers; `/slow-body` answers forever; `/size/N` answers N bytes; `/upgrade` switches and echoes; anything else tells
/// the request: method, target, each header as `name: value`, an empty line, the body, its trailers.
async fn answer(
    name: Arc<str>,
    mut request: Request<Incoming>,
    seen: Arc<AtomicUsize>,
    frozen: Arc<AtomicBool>,
) -> Result<Response<http_body_util::combinators::BoxBody<Bytes, Infallible>>, Infallible> {
    let path = request.uri().path().to_owned();
    while frozen.load(Ordering::SeqCst) {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    if path == "/healthz" {
        return Ok(Response::new(Full::default().boxed()));
    }
    seen.fetch_add(1, Ordering::SeqCst);
    if path == "/hang" {
        std::future::pending::<()>().await;
    }
    if path == "/upgrade" {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.unwrap());
            let mut buf = [0; 1024];
            while let Ok(n @ 1..) = io.read(&mut buf).await {
                io.write_all(&buf[..n]).await.unwrap();
            }
            let _ = io.shutdown().await;
        });
        let reply = Response::builder().status(101).header("upgrade", "websocket").header("connection", "upgrade");
        return Ok(reply.body(Full::default().boxed()).unwrap());
    }
    let builder = Response::builder().header("x-member", &*name);
    if let Some(size) = path.strip_prefix("/size/") {
        return Ok(builder.body(Full::from(vec![b'x'; size.parse().unwrap()]).boxed()).unwrap());
    }
    let mut text = format!("{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        text += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
    }
    text.push('\n');
    let mut body = Vec::from(text);
    match request.into_body().collect().await {
        Ok(collected) => {
            let trailers = collected.trailers().cloned().unwrap_or_default();
            body.extend_from_slice(&collected.to_bytes());
            for (name, value) in &trailers {
                body.extend_from_slice(format!("\n{name}={}", value.to_str().unwrap()).as_bytes());
            }
        }
        Err(error) => body.extend_from_slice(format!("body broke: {error}").as_bytes()),
    }
    Ok(builder.body(Full::from(body).boxed()).unwrap())
}
