//! Open-loop load over HTTP/1.1: each request goes out at its own time, whatever became of those before it, and has its own time limit.
//!
//! It must never wait for an answer before it sends the next request: a stall would hide itself (coordinated omission), so latencies count
//! from when a request was due. One thread, one epoll instance, nanosecond time limits. Main path: [`main`] -> `Load::run`.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::time::{ClockId, clock_gettime};
use slab::Slab;
use socket2::{Domain, Socket, Type};

use crate::args::Args;
use crate::reply::{Reply, parse};

/// Connections that may be open at once.
const OPEN_MAX: usize = 8192;

/// Nanoseconds of CLOCK_MONOTONIC: the clock that the script reads too.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// Prints `{"start_ns", "late_ms_max", "requests": [[due_us, latency_us, outcome], ...]}`; an outcome is `ok` or why there is none.
pub(crate) fn main(args: &Args) -> anyhow::Result<()> {
    let mut load = Load::new(args)?;
    load.run()?;
    let requests: Vec<_> = load.done.iter().map(|d| (d.due_us, d.latency_us, d.outcome.as_str())).collect();
    let line = serde_json::json!({ "start_ns": load.start, "late_ms_max": load.late as f64 / 1e6, "requests": requests });
    println!("{line}");
    Ok(())
}

struct Done {
    due_us: u64,
    latency_us: u64,
    outcome: String,
}

/// A request under way.
struct Flight {
    due: u64,
    written: usize,
    read: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    flight: Option<Flight>,
}

struct Load {
    to: SocketAddr,
    interval: f64,
    count: u64,
    time_limit: u64,
    keep_alive: bool,
    request: Vec<u8>,
    epoll: OwnedFd,
    connections: Slab<Connection>,
    idle: Vec<usize>,
    start: u64,
    /// The latest that a request ever went out after it was due.
    late: u64,
    done: Vec<Done>,
}

impl Load {
    fn new(args: &Args) -> anyhow::Result<Self> {
        let (to, rate, seconds) = (args.need::<SocketAddr>("to")?, args.need::<f64>("rate")?, args.need::<f64>("seconds")?);
        let keep_alive = args.get("keep-alive", 0u8)? == 1;
        let (method, path) = (args.get("method", "GET".to_owned())?, args.get("path", "/".to_owned())?);
        let body: String = args.get("body", String::new())?;
        let connection = if keep_alive { "keep-alive" } else { "close" };
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()) };
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {to}\r\nConnection: {connection}\r\n{length}\r\n{body}").into_bytes();
        Ok(Self {
            to,
            interval: 1e9 / rate,
            count: (rate * seconds) as u64,
            time_limit: args.get("timeout-ms", 1000u64)? * 1_000_000,
            keep_alive,
            request,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            connections: Slab::new(),
            idle: Vec::new(),
            start: now(),
            late: 0,
            done: Vec::new(),
        })
    }

    fn due(&self, number: u64) -> u64 {
        self.start + (number as f64 * self.interval) as u64
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let (mut next, mut events) = (0, Vec::with_capacity(1024));
        loop {
            while next < self.count && self.due(next) <= now() {
                let due = self.due(next);
                self.late = self.late.max(now().saturating_sub(due));
                self.launch(due);
                next += 1;
            }
            let oldest = self.connections.iter().filter_map(|(_, c)| c.flight.as_ref()).map(|f| f.due + self.time_limit).min();
            let upcoming = (next < self.count).then(|| self.due(next));
            let Some(wake) = [oldest, upcoming].into_iter().flatten().min() else { return Ok(()) };
            let wait = Timespec::try_from(Duration::from_nanos(wake.saturating_sub(now())))?;
            events.clear();
            epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&wait))?;
            for event in &events {
                self.advance(event.data.u64() as usize);
            }
            self.expire();
        }
    }

    fn launch(&mut self, due: u64) {
        let flight = Flight { due, written: 0, read: Vec::new() };
        if let Some(at) = self.idle.pop() {
            self.connections[at].flight = Some(flight);
            return self.advance(at);
        }
        if self.connections.len() >= OPEN_MAX {
            return self.note(due, "no-room");
        }
        match self.connect() {
            Ok(at) => {
                self.connections[at].flight = Some(flight);
                self.advance(at);
            }
            Err(error) => self.note(due, &name(&error)),
        }
    }

    fn connect(&mut self) -> std::io::Result<usize> {
        let socket = Socket::new(Domain::for_address(self.to), Type::STREAM.nonblocking().cloexec(), None)?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&self.to.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => return Err(error),
            _ => {}
        }
        let at = self.connections.insert(Connection { stream: socket.into(), flight: None });
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET | epoll::EventFlags::RDHUP;
        epoll::add(&self.epoll, &self.connections[at].stream, epoll::EventData::new_u64(at as u64), flags)?;
        Ok(at)
    }

    /// Writes and reads what the socket takes and has.
    fn advance(&mut self, at: usize) {
        let Some(connection) = self.connections.get_mut(at) else { return };
        let Some(flight) = &mut connection.flight else {
            // An idle connection woke: the other side ended it.
            let mut byte = [0];
            if !matches!(connection.stream.peek(&mut byte), Err(e) if e.kind() == ErrorKind::WouldBlock) {
                self.idle.retain(|idle| *idle != at);
                self.connections.remove(at);
            }
            return;
        };
        match exchange(&mut connection.stream, flight, &self.request) {
            Ok(Reply::Partial) => {}
            Ok(Reply::Whole { status, keep, .. }) => {
                let outcome = if (200..300).contains(&status) { "ok".to_owned() } else { format!("status-{status}") };
                self.end(at, &outcome, keep && self.keep_alive);
            }
            Ok(Reply::Malformed) => self.end(at, "malformed", false),
            Err(error) => self.end(at, &name(&error), false),
        }
    }

    fn end(&mut self, at: usize, outcome: &str, keep: bool) {
        if let Some(flight) = self.connections[at].flight.take() {
            self.note(flight.due, outcome);
        }
        if keep {
            self.idle.push(at);
        } else {
            self.connections.remove(at);
        }
    }

    fn expire(&mut self) {
        let now = now();
        let late = |c: &Connection| c.flight.as_ref().is_some_and(|f| f.due + self.time_limit <= now);
        let expired: Vec<usize> = self.connections.iter().filter(|(_, c)| late(c)).map(|(at, _)| at).collect();
        for at in expired {
            self.end(at, "timeout", false);
        }
    }

    fn note(&mut self, due: u64, outcome: &str) {
        let done = Done { due_us: (due - self.start) / 1000, latency_us: now().saturating_sub(due) / 1000, outcome: outcome.to_owned() };
        self.done.push(done);
    }
}

fn exchange(stream: &mut TcpStream, flight: &mut Flight, request: &[u8]) -> std::io::Result<Reply> {
    while flight.written < request.len() {
        match stream.write(&request[flight.written..]) {
            Ok(bytes) => flight.written += bytes,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
            Err(error) => return Err(error),
        }
    }
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => flight.read.extend_from_slice(&buffer[..bytes]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => break,
            Err(error) => return Err(error),
        }
        let reply = parse(&flight.read);
        if reply != Reply::Partial {
            return Ok(reply);
        }
    }
    Ok(Reply::Partial)
}

fn name(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "refused".to_owned(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => "reset".to_owned(),
        ErrorKind::UnexpectedEof => "closed".to_owned(),
        other => format!("{other:?}"),
    }
}
