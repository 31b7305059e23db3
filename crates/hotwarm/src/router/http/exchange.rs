//! One request from head to reply, over as many members as it takes: admission, parking, repeating.
//!
//! A request that a member may have seen must never be sent again unless it is safe to repeat (S20). The main path: [`run`] ->
//! admission or park -> [`Attempt`] -> done, or once more elsewhere.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use hotwarm_core::ids::Mono;
use hotwarm_core::route::slots::SlotSet;

use super::attempt::{Attempt, End, Why};
use super::framing::Body;
use super::head::Request;
use super::problem::Problem;
use super::{After, Client};
use crate::clock;
use crate::plant::{self, Bug};
use crate::router::evidence;
use crate::router::local::{Admission, Flight, LocalGroup, LocalTarget};
use crate::router::park::Ticket;
use crate::router::stats::Failure;

/// The largest body that is kept to be sent again (S20).
const REPLAY: usize = 64 * 1024;
/// How often one request may be sent; a request that kills members must not kill them all.
const SENDS: u32 = 3;

/// What outlives one attempt.
pub(super) struct Course {
    /// The request's body, as far as it was checked.
    pub body: Body,
    /// Bytes at the front of the client's input that were checked and not sent yet.
    pub checked: usize,
    /// Body bytes that were sent, kept for another attempt.
    pub replay: Vec<u8>,
    pub repeatable: bool,
    /// A connection from the pool broke: the next attempt uses a new one.
    pub fresh: bool,
    /// Its body is kept, as long as it is small.
    kept: bool,
    tried: SlotSet,
    sends: u32,
    ticket: Option<Ticket>,
    /// Until when it may wait; counted from when it first waited.
    until: Option<Mono>,
}

impl Course {
    /// What is safe to repeat is decided here and, of its body's size, in [`Course::keep`] (S20).
    fn new(request: &Request) -> Self {
        let kept = request.keyed || request.marked || plant::is(Bug::S20AnyRequest);
        Self {
            body: Body::new(request.framing),
            checked: 0,
            replay: Vec::new(),
            repeatable: request.safe || kept,
            fresh: false,
            kept,
            tried: SlotSet::EMPTY,
            sends: 0,
            ticket: None,
            until: None,
        }
    }

    /// There is a connection: the request waits no more. Until then it keeps its place, for a member that cannot be reached is no member.
    pub(super) fn connected(&mut self) {
        self.ticket = None;
    }

    /// Body bytes were handed to the kernel: kept, as long as they are few.
    pub(super) fn keep(&mut self, bytes: &[u8]) {
        if !self.repeatable {
            return;
        }
        if self.kept && (self.replay.len() + bytes.len() <= REPLAY || plant::is(Bug::S20AnySize)) {
            self.replay.extend_from_slice(bytes);
        } else {
            self.repeatable = false;
            self.replay = Vec::new();
        }
    }
}

/// Carries out one request.
pub(super) async fn run(client: &mut Client, request: Request) -> After {
    let mut course = Course::new(&request);
    client.group().arrived(client.now);
    let after = drive(client, &request, &mut course).await;
    let group = Rc::clone(client.group());
    client.seated.seat.settle(&group);
    after
}

async fn drive(client: &mut Client, request: &Request, course: &mut Course) -> After {
    loop {
        let flight = match admit(client, request, course).await {
            Ok(flight) => flight,
            Err(Stop::Gone) => return client.gone(),
            Err(Stop::Problem(problem)) => return answer(client, request, course, problem).await,
        };
        flight.target.counters.requests.add(1);
        let end = match Attempt::start(client, request, course, &flight).await {
            Ok(mut attempt) => {
                let end = poll_fn(|cx| attempt.poll(cx)).await;
                attempt.finish(end)
            }
            Err(end) => end,
        };
        match end {
            End::Complete { keep } => return if keep { After::Keep } else { After::Close },
            End::Tunnel { up, input } => {
                flight.never_ends();
                return client.tunnel(up, input, &flight).await;
            }
            End::Truncated(why) => {
                client.group().counters.fail(why);
                flight.target.counters.failed.add(1);
                if why == Failure::Truncated {
                    evidence::torn(client.group(), &flight.target);
                }
                return After::Reset;
            }
            End::ClientGone => return client.gone(),
            End::BadRequest(problem) => return client.refuse(problem, request.head, After::Close).await,
            End::Failed { sent, why } => {
                client.now = clock::now();
                let look = testify(client, course, &flight, sent, &why);
                let target = Rc::clone(&flight.target);
                drop(flight);
                if let Some(number) = look.filter(|_| course.repeatable) {
                    evidence::looked_at(&target, number).await;
                    client.now = clock::now();
                }
                let free = is_failover(&target, &why);
                if let Err(problem) = course.may_go_on(client.group(), client.now, sent, &why, free) {
                    return answer(client, request, course, problem).await;
                }
                client.group().counters.retried.add(1);
            }
        }
    }
}

/// What a failed attempt shows of the member, and where the next one must not go. Returns the probe that will show more.
fn testify(client: &Client, course: &mut Course, flight: &Flight, sent: bool, why: &Why) -> Option<u64> {
    let (group, target) = (client.group(), &flight.target);
    target.counters.failed.add(1);
    let mut look = None;
    match why {
        Why::Cut => course.tried = SlotSet::EMPTY,
        Why::Connect(error) => {
            evidence::refused(group, target, error);
            course.tried.insert(target.slot.get());
        }
        // An idle connection may close at any time: that is no fault, but worth a look.
        Why::Broke { reused: true } => {
            target.idle.clear();
            evidence::suspect(group, target, client.now, false);
            course.fresh = true;
        }
        Why::Broke { reused: false } => {
            look = Some(evidence::torn(group, target));
            course.tried.insert(target.slot.get());
        }
        Why::Silent => course.tried.insert(target.slot.get()),
        Why::Timeout | Why::BadReply => {}
    }
    if sent {
        course.sends += 1;
        target.counters.retried.add(1);
    }
    look
}

/// The member is gone, or its idle connections are: what was in flight there has to go elsewhere, all at once.
fn is_failover(target: &LocalTarget, why: &Why) -> bool {
    target.shared.health.is_ejected() || target.shared.is_fenced() || matches!(why, Why::Cut | Why::Broke { reused: true })
}

impl Course {
    /// Whether another attempt may follow, and what the client is told if not.
    /// The first repeat after a failover is free: each request is repeated once, on a member that lives, so it is no storm. Any other
    /// repeat needs the budget.
    fn may_go_on(&self, group: &LocalGroup, now: Mono, sent: bool, why: &Why, free: bool) -> Result<(), Problem> {
        match why {
            Why::Timeout => Err(Problem::Timeout),
            Why::BadReply => Err(Problem::BadReply),
            _ if !sent => Ok(()),
            _ if self.repeatable && self.sends < SENDS && ((free && self.sends == 1) || group.may_repeat(now)) => Ok(()),
            Why::Cut => Err(Problem::Cut),
            Why::Connect(_) | Why::Broke { .. } | Why::Silent => Err(Problem::Broken),
        }
    }
}

/// Tells the client; its connection is kept if the request was read whole.
async fn answer(client: &mut Client, request: &Request, course: &Course, problem: Problem) -> After {
    let whole = course.body.is_done() && course.checked == 0;
    let after = if whole && request.keep_alive && !request.http_10 && !client.group().is_closing() { After::Keep } else { After::Close };
    client.refuse(problem, request.head, after).await
}

/// Why a request never got to a member.
enum Stop {
    Gone,
    Problem(Problem),
}

/// A place at a member, after waiting if need be.
async fn admit(client: &mut Client, request: &Request, course: &mut Course) -> Result<Flight, Stop> {
    loop {
        let group = Rc::clone(client.group());
        match group.admit(&client.seated.seat, client.now, request.hash, &course.tried) {
            Admission::Go(flight) => return Ok(flight),
            Admission::Stopped => return Err(Stop::Problem(Problem::Stopped)),
            Admission::Wait => wait(client, course).await?,
        }
    }
}

/// What a request that waits holds in memory.
fn held(client: &Client, course: &Course) -> usize {
    client.head.len() + client.input.len() + course.replay.len()
}

/// Parks until released. Members that were tried may be tried again after it.
async fn wait(client: &mut Client, course: &mut Course) -> Result<(), Stop> {
    let group = Rc::clone(client.group());
    let seat = Rc::clone(&client.seated.seat);
    match &course.ticket {
        // Not started here: let go at once and again in vain, it would keep this thread from ever doing anything else.
        Some(ticket) => ticket.wait_again(),
        None => {
            let bytes = held(client, course);
            course.ticket = Some(group.queue.join(&group, &seat, bytes).ok_or(Stop::Problem(Problem::ParkFull))?);
            group.queue.start(&group);
        }
    }
    course.tried = SlotSet::EMPTY;
    let now = clock::now();
    let until = *course.until.get_or_insert_with(|| now.plus(group.settings().park.time));
    client.alarm.set(now, until);
    poll_fn(|cx| {
        if seat.released.get() {
            return Poll::Ready(Ok(()));
        }
        if group.is_closing() {
            return Poll::Ready(Err(Stop::Problem(Problem::Stopped)));
        }
        if client.poll_gone(cx).is_ready() {
            return Poll::Ready(Err(Stop::Gone));
        }
        let bytes = held(client, course);
        if course.ticket.as_mut().is_some_and(|ticket| !ticket.holds(bytes)) {
            return Poll::Ready(Err(Stop::Problem(Problem::ParkFull)));
        }
        let why = || if group.is_cut_off() { Problem::Unreached } else { Problem::ParkTime };
        client.alarm.poll(cx).map(|_| Err(Stop::Problem(why())))
    })
    .await?;
    client.now = clock::now();
    Ok(())
}
