//! One request at one member: the request goes out, the reply comes back, both stream at once.
//!
//! Nothing is sent or released without asking [`Flight::is_over`] in the same breath (S8). The main path: [`Attempt::start`] (a connection)
//! -> [`Attempt::poll`] -> [`Attempt::finish`] (the connection goes back to the pool, or is closed).

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use hotwarm_core::ids::Mono;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use super::Client;
use super::exchange::Course;
use super::framing::{BadBody, Body, Framing};
use super::head::{self, Request};
use super::problem::Problem;
use super::reply::{self, HEAD_LIMIT, Reply, ReplyKind};
use crate::plant::{self, Bug};
use crate::router::balance::Answer;
use crate::router::evidence;
use crate::router::group::Settings;
use crate::router::local::Flight;
use crate::router::pool::{BUFFER, Buf};
use crate::router::stats::Failure;
use crate::{clock, net};

/// How often a late reply's member is looked at again.
const LOOK_EVERY: Duration = Duration::from_millis(25);
const LOOK_CLOSELY: Duration = Duration::from_millis(500);

/// How an attempt ended.
pub(super) enum End {
    /// The whole reply was released; `keep` says whether the client's connection goes on.
    Complete {
        keep: bool,
    },
    /// The member switched protocols: what follows is a tunnel.
    Tunnel {
        up: TcpStream,
        input: Buf,
    },
    /// The reply broke off after bytes of it were released.
    Truncated(Failure),
    ClientGone,
    /// The request's body is malformed.
    BadRequest(Problem),
    /// No byte of the reply was released. `sent`: a byte of the request was handed to the kernel (S20).
    Failed {
        sent: bool,
        why: Why,
    },
}

/// Why an attempt failed.
pub(super) enum Why {
    Cut,
    Connect(io::Error),
    Broke { reused: bool },
    Silent,
    Timeout,
    BadReply,
}

pub(super) struct Attempt<'a> {
    client: &'a mut Client,
    request: &'a Request,
    course: &'a mut Course,
    flight: &'a Flight,
    settings: std::sync::Arc<Settings>,
    up: TcpStream,
    reused: bool,
    started: Mono,
    /// How much of the head, and of the bytes kept from an earlier attempt, was handed to the kernel.
    head_at: usize,
    replay_at: usize,
    sent: bool,
    /// The member takes no more of the request; its reply may still come.
    deaf: bool,
    input: Buf,
    scanned: usize,
    /// A byte of the reply has arrived.
    answered: bool,
    reply: Option<Reply>,
    body: Body,
    checked: usize,
    /// A byte of the reply was handed to the kernel.
    released: bool,
    /// Bytes moved since the alarm was last looked at.
    moved: bool,
    /// The alarm watches for the first byte.
    armed: bool,
}

impl<'a> Attempt<'a> {
    /// Gets a connection: an idle one, or a new one.
    pub(super) async fn start(
        client: &'a mut Client,
        request: &'a Request,
        course: &'a mut Course,
        flight: &'a Flight,
    ) -> Result<Self, End> {
        let settings = client.group().settings();
        let started = client.now;
        client.alarm.set(started, started.plus(flight.target.suspect_after()));
        let pooled = if course.fresh {
            None
        } else {
            let must_be_fresh = !course.repeatable;
            poll_fn(|cx| Poll::Ready(flight.target.idle.take(cx, started, must_be_fresh))).await
        };
        let reused = pooled.is_some();
        let up = match pooled {
            Some(up) => up,
            None => connect(client, flight, &settings).await?,
        };
        course.connected();
        let input = Buf::new(&client.group().buffers);
        client.output.clear();
        client.written = 0;
        Ok(Self {
            client,
            request,
            course,
            flight,
            settings,
            up,
            reused,
            started,
            head_at: 0,
            replay_at: 0,
            sent: false,
            deaf: false,
            input,
            scanned: 0,
            answered: false,
            reply: None,
            body: Body::new(Framing::None),
            checked: 0,
            released: false,
            moved: false,
            armed: request.framing == Framing::None,
        })
    }

    /// Moves what can be moved, both ways.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        loop {
            if self.flight.is_over() {
                return Poll::Ready(self.failed(Why::Cut, Failure::Cut));
            }
            let sent = match self.poll_send(cx) {
                Ok(moved) => moved,
                Err(end) => return Poll::Ready(end),
            };
            let received = match self.poll_receive(cx) {
                Ok(moved) => moved,
                Err(end) => return Poll::Ready(end),
            };
            if !sent && !received {
                break;
            }
            self.moved = true;
        }
        if !self.armed && self.request_is_sent() {
            // With a body, the wait for the first byte begins when the body is out.
            self.armed = true;
            self.started = clock::now();
            self.client.alarm.set(self.started, self.started.plus(self.flight.target.suspect_after()));
        }
        if self.request_is_read() && self.client.poll_gone(cx).is_ready() {
            return Poll::Ready(End::ClientGone);
        }
        self.poll_alarm(cx)
    }

    /// Of the request: everything was read from the client, and handed to the kernel unless the member is deaf.
    fn request_is_read(&self) -> bool {
        self.course.body.is_done() && self.course.checked == 0
    }

    fn request_is_sent(&self) -> bool {
        !self.deaf && self.head_at == self.client.head.len() && self.replay_at == self.course.replay.len() && self.request_is_read()
    }

    /// No reply byte released: another attempt may follow. Else the reply is truncated.
    fn failed(&self, why: Why, truncated: Failure) -> End {
        if self.has_begun() && !plant::is(Bug::S20AfterRelease) { End::Truncated(truncated) } else { End::Failed { sent: self.sent, why } }
    }

    /// Of this reply, or of an interim one that is half written, bytes were released: nothing else may come after them.
    fn has_begun(&self) -> bool {
        self.released || self.client.written > 0
    }

    fn broke(&self) -> End {
        self.failed(Why::Broke { reused: self.reused && !self.answered }, Failure::Truncated)
    }

    /// Sends more of the request. True if anything moved.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if self.deaf || self.request_is_sent() {
            return Ok(false);
        }
        let replay_left = self.course.replay.len() - self.replay_at;
        if self.course.checked == 0 && !self.course.body.is_done() {
            if self.client.input.is_empty() && self.head_at == self.client.head.len() && replay_left == 0 {
                return self.poll_body(cx);
            }
            self.check_body()?;
        }
        let fresh = if replay_left == 0 { self.course.checked } else { 0 };
        let parts = [
            IoSlice::new(&self.client.head[self.head_at..]),
            IoSlice::new(&self.course.replay[self.replay_at..]),
            IoSlice::new(&self.client.input.bytes()[..fresh]),
        ];
        let written = if parts[1].is_empty() && parts[2].is_empty() {
            Pin::new(&mut self.up).poll_write(cx, &parts[0])
        } else {
            Pin::new(&mut self.up).poll_write_vectored(cx, &parts)
        };
        match written {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(n)) if n > 0 => {
                self.sent = true;
                self.count_sent(n);
                Ok(true)
            }
            Poll::Ready(Ok(_)) => Err(self.broke()),
            Poll::Ready(Err(_)) if !self.sent => Err(self.broke()),
            // The member may have answered before it closed: what it said is read first.
            Poll::Ready(Err(_)) => {
                self.deaf = true;
                Ok(true)
            }
        }
    }

    fn count_sent(&mut self, n: usize) {
        self.flight.target.counters.bytes_sent.add(n as u64);
        let of_head = n.min(self.client.head.len() - self.head_at);
        self.head_at += of_head;
        let of_replay = (n - of_head).min(self.course.replay.len() - self.replay_at);
        self.replay_at += of_replay;
        let of_body = n - of_head - of_replay;
        if of_body > 0 {
            self.course.keep(&self.client.input.bytes()[..of_body]);
            self.replay_at = self.course.replay.len();
            self.client.input.consume(of_body);
            self.course.checked -= of_body;
        }
    }

    fn check_body(&mut self) -> Result<(), End> {
        match self.course.body.measure(self.client.input.bytes()) {
            Ok(n) => {
                self.course.checked = n;
                Ok(())
            }
            Err(BadBody(what)) if self.has_begun() => {
                tracing::debug!(what, "request body malformed after its reply began");
                Err(End::Truncated(Failure::Malformed))
            }
            Err(BadBody(what)) => Err(End::BadRequest(Problem::malformed(what))),
        }
    }

    /// Reads more of the request's body from the client.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        match self.client.input.fill(cx, &mut self.client.stream, BUFFER) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(n)) if n > 0 => Ok(true),
            Poll::Ready(_) => Err(End::ClientGone),
        }
    }

    /// Receives and releases more of the reply. True if anything moved.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if self.client.written < self.client.output.len() || self.checked > 0 {
            return self.poll_release(cx);
        }
        match &self.reply {
            Some(reply) if reply.kind == ReplyKind::Switched => Err(End::Complete { keep: false }),
            Some(reply) if self.body.is_done() => Err(End::Complete { keep: reply.client_keeps }),
            Some(_) if !self.input.is_empty() => self.check_reply(),
            Some(_) => self.poll_fill(cx, BUFFER),
            None => {
                if !self.input.is_empty() && self.read_head()? {
                    return Ok(true);
                }
                self.poll_fill(cx, HEAD_LIMIT)
            }
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, limit: usize) -> Result<bool, End> {
        match self.input.fill(cx, &mut self.up, limit) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(n)) if n > 0 => {
                self.flight.target.counters.bytes_received.add(n as u64);
                if !self.answered {
                    self.answered = true;
                    self.client.now = clock::now();
                    let us = u64::try_from(self.client.now.since(self.started).as_micros()).unwrap_or(u64::MAX);
                    self.flight.target.counters.first_byte.record(us);
                }
                Ok(true)
            }
            Poll::Ready(Ok(_)) => match &self.reply {
                Some(reply) if reply.framing == Framing::UntilClose => Err(End::Complete { keep: false }),
                _ => Err(self.broke()),
            },
            Poll::Ready(Err(_)) => Err(self.broke()),
        }
    }

    /// Reads a reply's head from what has arrived; false if it is not whole yet.
    fn read_head(&mut self) -> Result<bool, End> {
        let found = head::find_end(self.input.bytes(), &mut self.scanned);
        let Some(end) = found.map_err(|_| self.bad_reply("line feed without carriage return in the head"))? else {
            return if self.input.len() < HEAD_LIMIT { Ok(false) } else { Err(self.bad_reply("head too large")) };
        };
        let keep = self.request.keep_alive && self.request_is_read() && !self.client.group().is_closing();
        match reply::read(&self.input.bytes()[..end], self.request, keep, &mut self.client.output) {
            Ok(Some((used, reply))) => {
                self.input.consume(used);
                self.scanned = 0;
                if reply.kind != ReplyKind::Interim {
                    self.body = Body::new(reply.framing);
                    let (at, latency) = (self.client.now, self.client.now.since(self.started));
                    self.flight.answered(Answer { at, latency, status: reply.status });
                    self.reply = Some(reply);
                    self.check_reply()?;
                }
                Ok(true)
            }
            Ok(None) => Err(self.bad_reply("head malformed")),
            Err(reply::BadReply(what)) => Err(self.bad_reply(what)),
        }
    }

    fn bad_reply(&self, what: &'static str) -> End {
        tracing::warn!(member = %self.flight.target.shared.member, what, "reply not acceptable: look at the member");
        self.failed(Why::BadReply, Failure::BadReply)
    }

    /// Checks what has arrived of the reply's body; it may then be released.
    fn check_reply(&mut self) -> Result<bool, End> {
        if self.reply.as_ref().is_some_and(|reply| reply.unchunk) {
            while !self.input.is_empty() && !self.body.is_done() {
                let step = self.body.step(self.input.bytes()).map_err(|bad| self.bad_reply(bad.0))?;
                self.client.output.extend_from_slice(&self.input.bytes()[step.content]);
                self.input.consume(step.used);
            }
        } else {
            self.checked = self.body.measure(self.input.bytes()).map_err(|bad| self.bad_reply(bad.0))?;
        }
        Ok(true)
    }

    /// Writes to the client. The gate was asked in this same turn of `poll`, and nothing was awaited since.
    fn poll_release(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if self.flight.is_over() {
            return Err(self.failed(Why::Cut, Failure::Cut));
        }
        let client = &mut *self.client;
        let head = client.output.len() - client.written;
        let written = if self.checked == 0 {
            Pin::new(&mut client.stream).poll_write(cx, &client.output[client.written..])
        } else if head > 0 && self.checked <= 1024 {
            // A small reply is cheaper copied into one piece than described in two.
            client.output.extend_from_slice(&self.input.bytes()[..self.checked]);
            self.input.consume(self.checked);
            self.checked = 0;
            Pin::new(&mut client.stream).poll_write(cx, &client.output[client.written..])
        } else {
            let parts = [IoSlice::new(&client.output[client.written..]), IoSlice::new(&self.input.bytes()[..self.checked])];
            Pin::new(&mut client.stream).poll_write_vectored(cx, &parts)
        };
        match written {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(n)) if n > 0 => {
                // An interim reply is not the reply: after it the request may still be repeated.
                self.released |= self.reply.is_some();
                let of_output = n.min(client.output.len() - client.written);
                client.written += of_output;
                if client.written == client.output.len() {
                    client.output.clear();
                    client.written = 0;
                }
                self.input.consume(n - of_output);
                self.checked -= n - of_output;
                Ok(true)
            }
            Poll::Ready(_) => Err(End::ClientGone),
        }
    }

    /// What the passing of time means: a late first byte, or a stream that stands still.
    fn poll_alarm(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let health = &self.flight.target.shared.health;
        if !self.answered && self.course.repeatable && health.is_silent() && self.client.group().has_other(&self.flight.target) {
            return Poll::Ready(self.failed(Why::Silent, Failure::Timeout));
        }
        while let Poll::Ready(now) = self.client.alarm.poll(cx) {
            self.client.now = now;
            let late = now.since(self.started);
            let moved = std::mem::take(&mut self.moved);
            if self.answered || !self.request_is_sent() {
                if !moved && late >= self.settings.timeouts.idle {
                    return Poll::Ready(self.stalled());
                }
                self.client.alarm.set(now, now.plus(self.settings.timeouts.idle));
            } else if late >= self.settings.timeouts.first_byte {
                return Poll::Ready(self.failed(Why::Timeout, Failure::Timeout));
            } else {
                if late >= self.flight.target.suspect_after() {
                    evidence::suspect(self.client.group(), &self.flight.target, now, true);
                }
                // One that only takes long costs little; one that froze is found out within the first looks.
                self.client.alarm.set(now, now.plus(if late < LOOK_CLOSELY { LOOK_EVERY } else { LOOK_CLOSELY }));
            }
        }
        Poll::Pending
    }

    /// Nothing moved for the idle time: whose fault is it?
    fn stalled(&self) -> End {
        let client_owes = !self.request_is_read() || self.client.written < self.client.output.len() || self.checked > 0;
        if client_owes { End::ClientGone } else { self.failed(Why::Timeout, Failure::Timeout) }
    }

    /// Puts the connection back, or hands it on, or closes it.
    pub(super) fn finish(self, end: End) -> End {
        if self.answered {
            let group = std::rc::Rc::clone(self.client.group());
            self.client.seated.seat.settle(&group);
        }
        match end {
            End::Complete { keep } => {
                let Some(reply) = &self.reply else { return End::Complete { keep } };
                if reply.kind == ReplyKind::Switched {
                    return End::Tunnel { up: self.up, input: self.input };
                }
                // Bytes after the reply belong to nothing: such a connection would answer the next request with them.
                if reply.member_keeps && self.request_is_sent() && self.input.is_empty() && !self.flight.is_over() {
                    self.flight.target.idle.put(self.up, self.client.now);
                }
                End::Complete { keep }
            }
            other => {
                // What the kernel has not sent yet must not reach a member that is no longer meant.
                super::reset(self.up);
                other
            }
        }
    }
}

/// A new connection to the member.
async fn connect(client: &mut Client, flight: &Flight, settings: &Settings) -> Result<TcpStream, End> {
    let target = &flight.target;
    target.counters.connects.add(1);
    let started = client.now;
    let mut connecting = pin!(net::connect(target.shared.address));
    let failed = |why| Poll::Ready(Err(End::Failed { sent: false, why }));
    let stream = poll_fn(|cx| {
        if flight.is_over() {
            return failed(Why::Cut);
        }
        match connecting.as_mut().poll(cx) {
            Poll::Ready(Ok(stream)) => return Poll::Ready(Ok(stream)),
            Poll::Ready(Err(error)) => return failed(Why::Connect(error)),
            Poll::Pending => {}
        }
        if client.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(End::ClientGone));
        }
        if target.shared.health.is_silent() && client.group().has_other(target) {
            return failed(Why::Silent);
        }
        while let Poll::Ready(now) = client.alarm.poll(cx) {
            if now.since(started) >= settings.timeouts.connect {
                return failed(Why::Connect(io::ErrorKind::TimedOut.into()));
            }
            evidence::suspect(client.group(), target, now, true);
            client.alarm.set(now, now.plus(LOOK_EVERY));
        }
        Poll::Pending
    })
    .await?;
    // Without it a request in two pieces would wait for the member's delayed acknowledgement. Fails only on a dead socket.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}
