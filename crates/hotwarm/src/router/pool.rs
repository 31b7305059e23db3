//! What a thread keeps for reuse: buffers, and idle connections to members.
//!
//! Both are bounded; nothing here is shared between threads. A connection that saw a cut, an excess byte or an error must never be put
//! back. The main path: [`Buf::fill`] borrows a buffer when bytes are there to read, [`Buf::relax`] gives it back when it is empty.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hotwarm_core::ids::Mono;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

pub(super) const BUFFER: usize = 16 * 1024;
const BUFFERS_KEPT: usize = 256;

/// Empty buffers of one thread.
#[derive(Default)]
pub(super) struct Buffers {
    free: RefCell<Vec<Vec<u8>>>,
}

impl Buffers {
    fn take(&self) -> Vec<u8> {
        self.free.borrow_mut().pop().unwrap_or_else(|| vec![0; BUFFER])
    }

    fn put(&self, data: Vec<u8>) {
        let mut free = self.free.borrow_mut();
        if data.len() == BUFFER && free.len() < BUFFERS_KEPT {
            free.push(data);
        }
    }
}

/// Bytes read and not yet used. Holds memory only while it holds bytes.
pub(super) struct Buf {
    pool: Rc<Buffers>,
    data: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buf {
    pub(super) fn new(pool: &Rc<Buffers>) -> Self {
        Self { pool: Rc::clone(pool), data: Vec::new(), start: 0, end: 0 }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(super) fn consume(&mut self, n: usize) {
        self.start += n;
        debug_assert!(self.start <= self.end);
    }

    /// Gives the memory back if no byte is held.
    pub(super) fn relax(&mut self) {
        if self.is_empty() && !self.data.is_empty() {
            (self.start, self.end) = (0, 0);
            self.pool.put(std::mem::take(&mut self.data));
        }
    }

    /// Makes room for more, up to `limit` bytes in all; false if it is full.
    fn make_room(&mut self, limit: usize) -> bool {
        if self.data.is_empty() {
            self.data = self.pool.take();
        }
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
        if self.end == self.data.len() {
            if self.start > 0 {
                self.data.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else if self.data.len() < limit {
                self.data.resize(limit.min(self.data.len() * 2), 0);
            }
        }
        self.end < self.data.len()
    }

    /// Reads what is there. Ready with 0 at the end of the stream; pending also when it holds `limit` bytes already.
    pub(super) fn fill(&mut self, cx: &mut Context<'_>, stream: &mut TcpStream, limit: usize) -> Poll<io::Result<usize>> {
        if self.data.is_empty() {
            // Asked before memory is taken: most waiting connections hold none.
            ready!(stream.poll_read_ready(cx))?;
        }
        if !self.make_room(limit) {
            return Poll::Pending;
        }
        let mut space = ReadBuf::new(&mut self.data[self.end..]);
        let read = Pin::new(stream).poll_read(cx, &mut space);
        let n = space.filled().len();
        self.end += n;
        match read {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(n)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                self.relax();
                Poll::Pending
            }
        }
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        self.start = self.end;
        self.relax();
    }
}

/// Idle connections to one member, newest last.
#[derive(Default)]
pub(super) struct Idle {
    connections: RefCell<Vec<(TcpStream, Mono)>>,
}

/// Asks the system: nothing to read, and no end.
fn is_quiet(stream: &TcpStream) -> bool {
    let mut byte = [0];
    matches!(recv(stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT), Err(Errno::AGAIN))
}

const IDLE_KEPT: usize = 128;
/// Shorter than the keep-alive time of common servers (5 s), so that they rarely close one just as it is used.
const IDLE_TIME: Duration = Duration::from_secs(4);
/// A request that must not be repeated goes only out on a connection used this recently, or on a new one.
const FRESH_TIME: Duration = Duration::from_millis(1_000);

impl Idle {
    /// The connection used last, unless the member has closed it.
    pub(super) fn take(&self, cx: &mut Context<'_>, now: Mono, must_be_fresh: bool) -> Option<TcpStream> {
        let mut connections = self.connections.borrow_mut();
        while let Some((mut stream, since)) = connections.pop() {
            if now.since(since) > IDLE_TIME {
                connections.clear();
                return None;
            }
            if must_be_fresh && now.since(since) > FRESH_TIME {
                connections.push((stream, since));
                return None;
            }
            // What arrived since the last look at the sockets is not known yet; for a request that cannot be taken back it is asked.
            if must_be_fresh && !is_quiet(&stream) {
                continue;
            }
            // Costs no system call unless something arrived: the end of the stream, or bytes nobody asked for. Neither may be used.
            let mut byte = [0];
            if Pin::new(&mut stream).poll_read(cx, &mut ReadBuf::new(&mut byte)).is_pending() {
                return Some(stream);
            }
        }
        None
    }

    pub(super) fn put(&self, stream: TcpStream, now: Mono) {
        let mut connections = self.connections.borrow_mut();
        if connections.len() < IDLE_KEPT {
            connections.push((stream, now));
        }
    }

    pub(super) fn expire(&self, now: Mono) {
        self.connections.borrow_mut().retain(|(_, since)| now.since(*since) <= IDLE_TIME);
    }

    pub(super) fn clear(&self) {
        self.connections.borrow_mut().clear();
    }
}
