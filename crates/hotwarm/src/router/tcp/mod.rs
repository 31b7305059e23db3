//! TCP: a connection is accepted, gets a member, and bytes are passed both ways until either side is done or the epoch is over.
//!
//! Nothing is read from a client before a member is connected: until then every member may still be tried. The main path: [`serve`] ->
//! admission or park -> connect -> [`relay::run`].

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use hotwarm_core::ids::Mono;
use hotwarm_core::route::slots::SlotSet;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use super::alarm::Alarm;
use super::evidence;
use super::http::reset;
use super::local::{Admission, Flight, Place, Seated};
use super::park::Ticket;
use super::pool::Buf;
use super::stats::Failure;
use crate::config::Balance;
use crate::{clock, net};

mod pipe;
pub(super) mod relay;

use relay::Ended;

const LOOK_EVERY: Duration = Duration::from_millis(25);

/// A client that has no member yet.
struct Guest {
    stream: TcpStream,
    seated: Seated,
    alarm: Alarm,
    tried: SlotSet,
    ticket: Option<Ticket>,
    until: Option<Mono>,
    /// It has sent something: no longer watched for its end, for that would mean to read.
    speaks: bool,
}

/// Serves one connection until it ends.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, place: Place) {
    let seated = place.sit(peer).await;
    let group = Rc::clone(seated.group());
    group.arrived(clock::now());
    let mut guest =
        Guest { stream, seated, alarm: Alarm::new(clock::now()), tried: SlotSet::EMPTY, ticket: None, until: None, speaks: false };
    let (flight, up) = match guest.find_member().await {
        Ok(found) => found,
        Err(why) => {
            group.counters.fail(why);
            return reset(guest.stream);
        }
    };
    guest.seated.seat.settle(&group);
    // Not before: who cannot be connected waits on, in its place.
    guest.ticket = None;
    let buffers = [Buf::new(&group.buffers), Buf::new(&group.buffers)];
    let idle = group.settings().timeouts.idle;
    let mut up = up;
    let ended = relay::run(&mut guest.stream, &mut up, buffers, &flight, idle, &mut guest.alarm).await;
    if let Ended::Member { silent } = &ended {
        flight.target.counters.failed.add(1);
        if *silent {
            evidence::torn(&group, &flight.target);
        } else {
            evidence::suspect(&group, &flight.target, clock::now(), false);
        }
    }
    if !matches!(ended, Ended::Done) {
        group.counters.fail(ended.failure());
        reset(up);
        reset(guest.stream);
    }
}

impl Guest {
    /// A connected member, after as many attempts and as long a wait as it takes.
    async fn find_member(&mut self) -> Result<(Flight, TcpStream), Failure> {
        let group = Rc::clone(self.seated.group());
        let hash = match group.settings().balance {
            Balance::HashClientIp | Balance::HashHeader(_) => Some(super::http::hash_of(self.seated.seat.peer)),
            Balance::LeastLoaded | Balance::RoundRobin => None,
        };
        loop {
            match group.admit(&self.seated.seat, clock::now(), hash, &self.tried) {
                Admission::Go(flight) => {
                    flight.target.counters.requests.add(1);
                    match self.connect(&flight).await? {
                        Ok(up) => return Ok((flight, up)),
                        Err(None) => self.tried = SlotSet::EMPTY,
                        Err(Some(error)) => {
                            flight.target.counters.failed.add(1);
                            evidence::refused(&group, &flight.target, &error);
                            self.tried.insert(flight.target.slot.get());
                        }
                    }
                    group.counters.retried.add(1);
                }
                Admission::Wait => self.wait().await?,
                Admission::Stopped => return Err(Failure::Stopped),
            }
        }
    }

    /// A connection to the member; inside, `None` means that the member is no longer the one.
    async fn connect(&mut self, flight: &Flight) -> Result<Result<TcpStream, Option<io::Error>>, Failure> {
        let target = &flight.target;
        target.counters.connects.add(1);
        let started = clock::now();
        let limit = self.seated.group().settings().timeouts.connect;
        self.alarm.set(started, started.plus(target.suspect_after()));
        let mut connecting = pin!(net::connect(target.shared.address));
        poll_fn(|cx| {
            if flight.is_over() {
                return Poll::Ready(Ok(Err(None)));
            }
            if let Poll::Ready(result) = connecting.as_mut().poll(cx) {
                return Poll::Ready(Ok(result.map_err(Some).inspect(|stream| {
                    // Fails only on a dead socket.
                    let _ = stream.set_nodelay(true);
                })));
            }
            if self.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Failure::Client));
            }
            while let Poll::Ready(now) = self.alarm.poll(cx) {
                let silent = target.shared.health.is_silent() && self.seated.group().has_other(target);
                if silent || now.since(started) >= limit {
                    return Poll::Ready(Ok(Err(Some(io::ErrorKind::TimedOut.into()))));
                }
                evidence::suspect(self.seated.group(), target, now, true);
                self.alarm.set(now, now.plus(LOOK_EVERY));
            }
            Poll::Pending
        })
        .await
    }

    /// Parks until released.
    async fn wait(&mut self) -> Result<(), Failure> {
        let group = Rc::clone(self.seated.group());
        let seat = Rc::clone(&self.seated.seat);
        match &self.ticket {
            // Not started here: let go at once and again in vain, it would keep this thread from ever doing anything else.
            Some(ticket) => ticket.wait_again(),
            None => {
                self.ticket = Some(group.queue.join(&group, &seat, 0).ok_or(Failure::ParkFull)?);
                group.queue.start(&group);
            }
        }
        self.tried = SlotSet::EMPTY;
        let now = clock::now();
        let until = *self.until.get_or_insert_with(|| now.plus(group.settings().park.time));
        self.alarm.set(now, until);
        poll_fn(|cx| {
            if seat.released.get() {
                return Poll::Ready(Ok(()));
            }
            if group.is_closing() {
                return Poll::Ready(Err(Failure::Stopped));
            }
            if self.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Failure::Client));
            }
            self.alarm.poll(cx).map(|_| Err(Failure::ParkTime))
        })
        .await
    }

    /// Ready when the client went away before it said anything.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.speaks {
            return Poll::Pending;
        }
        let mut byte = [0];
        match self.stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Ok(0) | Err(_)) => Poll::Ready(()),
            Poll::Ready(Ok(_)) => {
                self.speaks = true;
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    }
}
