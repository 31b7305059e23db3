//! HTTP/1.1 from clients: one task per connection, one request at a time, in the order they came.
//!
//! It must never read a request in a way a member could read differently, nor hold a body whole. The main path: [`serve`] ->
//! `Client::next` (a head) -> [`exchange::run`] (a member, a reply) -> the next head.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hotwarm_core::ids::Mono;
use hotwarm_core::route::balance::hash_key;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::alarm::Alarm;
use super::local::{Flight, LocalGroup, Place, Seated};
use super::pool::{BUFFER, Buf};
use super::stats::Failure;
use super::tcp::relay::{self, Ended};
use crate::clock;
use crate::config::Balance;

mod attempt;
mod exchange;
pub(super) mod framing;
mod head;
mod problem;
mod reply;

use head::{HashOf, Origin, Request, Rules};
use problem::Problem;

/// How long a connection that is closed with an answer is read on, so that the answer is not destroyed by a reset.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_READS: usize = 64;
/// A head buffer larger than this is not kept between requests.
const HEAD_KEPT: usize = 4 * 1024;

/// What becomes of the client's connection after an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Keep,
    Close,
    /// The reply broke off: the client must see an error, not an end.
    Reset,
}

/// One client's connection.
struct Client {
    stream: TcpStream,
    seated: Seated,
    input: Buf,
    /// The head of the request under way, as a member gets it.
    head: Vec<u8>,
    /// What is to be written to the client before anything else; written up to `written`.
    output: Vec<u8>,
    written: usize,
    alarm: Alarm,
    /// The last time that was looked at.
    now: Mono,
    origin: Origin,
}

/// Serves one connection until it ends.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, place: Place) {
    let seated = place.sit(peer).await;
    let now = clock::now();
    let mut client = Client {
        input: Buf::new(&seated.group().buffers),
        seated,
        stream,
        head: Vec::new(),
        output: Vec::new(),
        written: 0,
        alarm: Alarm::new(now),
        now,
        origin: Origin::new(peer),
    };
    loop {
        let after = match client.next().await {
            Ok(Some(request)) => exchange::run(&mut client, request).await,
            Ok(None) => return,
            Err(problem) => client.refuse(problem, false, After::Close).await,
        };
        match after {
            After::Keep => client.relax(),
            After::Close => return client.linger().await,
            After::Reset => return reset(client.stream),
        }
    }
}

/// What the balance hashes of a client.
pub(super) fn hash_of(peer: SocketAddr) -> u64 {
    hash_key(peer.ip().to_canonical().to_string().as_bytes())
}

/// Closes so that the other side sees a reset. What the kernel still holds for it is discarded.
pub(super) fn reset(stream: TcpStream) {
    // Fails only on a socket that is gone already.
    let _ = stream.set_zero_linger();
    drop(stream);
}

/// Answers a connection that is one too many.
pub(super) async fn turn_away(mut stream: TcpStream, place: Place) {
    let mut reply = Vec::new();
    Problem::Connections.write(false, true, &mut reply);
    // The reply fits the socket's buffer; a client that does not take it loses it.
    let _ = tokio::time::timeout(LINGER, async {
        stream.write_all(&reply).await?;
        stream.shutdown().await?;
        let mut waste = [0; 1024];
        while stream.read(&mut waste).await? > 0 {}
        io::Result::Ok(())
    })
    .await;
    drop(place);
}

impl Client {
    fn group(&self) -> &Rc<LocalGroup> {
        self.seated.group()
    }

    /// The next request; `None` when the connection is over.
    async fn next(&mut self) -> Result<Option<Request>, Problem> {
        let settings = self.group().settings();
        let limits = settings.http;
        let mut scanned = 0;
        self.alarm.set(self.now, self.now.plus(settings.timeouts.idle));
        loop {
            if let Some(end) = head::find_end(self.input.bytes(), &mut scanned)? {
                if end > limits.head_bytes {
                    return Err(Problem::TooLarge);
                }
                self.now = clock::now();
                let hash = match &settings.balance {
                    Balance::LeastLoaded | Balance::RoundRobin => HashOf::Nothing,
                    Balance::HashClientIp => HashOf::Client,
                    Balance::HashHeader(name) => HashOf::Header(name),
                };
                let rules = Rules { limits: &limits, repeat: &settings.repeat, hash };
                let request = head::read(&self.input.bytes()[..end], &rules, &self.origin, &mut self.head)?;
                self.input.consume(end);
                return Ok(Some(request));
            }
            if self.input.len() >= limits.head_bytes {
                return Err(Problem::TooLarge);
            }
            let nothing_yet = self.input.is_empty();
            match poll_fn(|cx| self.poll_next(cx, limits.head_bytes)).await {
                Some(Ok(0) | Err(_)) => return Ok(None),
                Some(Ok(_)) if nothing_yet => {
                    self.check_first()?;
                    // From its first byte on, the whole head must come in time, however slowly it drips.
                    self.now = clock::now();
                    self.alarm.set(self.now, self.now.plus(settings.timeouts.idle));
                }
                Some(Ok(_)) => {}
                None if nothing_yet => return Ok(None),
                None => return Err(Problem::SlowHead),
            }
        }
    }

    /// Reads more of a head; `None` when it took too long, or the group closes and no request has begun.
    fn poll_next(&mut self, cx: &mut Context<'_>, limit: usize) -> Poll<Option<io::Result<usize>>> {
        if let Poll::Ready(read) = self.input.fill(cx, &mut self.stream, limit.max(BUFFER)) {
            return Poll::Ready(Some(read));
        }
        if self.input.is_empty() && self.group().is_closing() {
            return Poll::Ready(None);
        }
        self.now = ready!(self.alarm.poll(cx));
        Poll::Ready(None)
    }

    /// What cannot become a request is refused at its first byte: it might never send a line's end (TLS, say).
    fn check_first(&self) -> Result<(), Problem> {
        match self.input.bytes().first() {
            Some(byte) if framing::is_token(*byte) || *byte == b'\r' => Ok(()),
            _ => Err(Problem::malformed("not an HTTP/1.1 request")),
        }
    }

    /// Looks whether the client is still there, and reads ahead, bounded. Ready when it is gone.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match ready!(self.input.fill(cx, &mut self.stream, BUFFER)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
    }

    /// Writes the router's own answer.
    async fn refuse(&mut self, problem: Problem, head_only: bool, after: After) -> After {
        self.group().counters.fail(problem.failure());
        self.output.clear();
        self.written = 0;
        problem.write(head_only, after == After::Close, &mut self.output);
        self.now = clock::now();
        self.alarm.set(self.now, self.now.plus(LINGER));
        let done = poll_fn(|cx| {
            while self.written < self.output.len() {
                match Pin::new(&mut self.stream).poll_write(cx, &self.output[self.written..]) {
                    Poll::Ready(Ok(n)) if n > 0 => self.written += n,
                    Poll::Ready(_) => return Poll::Ready(false),
                    Poll::Pending => return self.alarm.poll(cx).map(|_| false),
                }
            }
            Poll::Ready(true)
        })
        .await;
        if done { after } else { After::Reset }
    }

    /// Counts a request whose client went away.
    fn gone(&self) -> After {
        self.group().counters.fail(Failure::Client);
        After::Reset
    }

    /// After a switch of protocols: bytes both ways until either side is done or the epoch is over.
    async fn tunnel(&mut self, up: TcpStream, from_member: Buf, flight: &Flight) -> After {
        let idle = self.group().settings().timeouts.idle;
        let empty = Buf::new(&self.group().buffers);
        let from_client = std::mem::replace(&mut self.input, empty);
        let mut up = up;
        let ended = relay::run(&mut self.stream, &mut up, [from_client, from_member], flight, idle, &mut self.alarm).await;
        if matches!(ended, Ended::Done) {
            return After::Close;
        }
        self.group().counters.fail(ended.failure());
        reset(up);
        After::Reset
    }

    /// Between two requests: gives memory back, and is idle from now on, however long the reply took.
    fn relax(&mut self) {
        self.now = clock::now();
        self.input.relax();
        for buffer in [&mut self.head, &mut self.output] {
            buffer.clear();
            buffer.shrink_to(HEAD_KEPT);
        }
        self.written = 0;
    }

    /// Closes after an answer: the rest of what the client sends is read and thrown away for a while.
    async fn linger(mut self) {
        let _ = tokio::time::timeout(LINGER, async {
            self.stream.shutdown().await?;
            let mut waste = vec![0; BUFFER];
            for _ in 0..LINGER_READS {
                if self.stream.read(&mut waste).await? == 0 {
                    break;
                }
            }
            io::Result::Ok(())
        })
        .await;
    }
}
