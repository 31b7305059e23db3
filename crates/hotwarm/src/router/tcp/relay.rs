//! Bytes both ways between a client and a member: copied while they are few, spliced when they are many.
//!
//! Every release asks the gate first (S8); an end of one side is passed on, the other direction goes on. The main path: [`run`] ->
//! `Lane::poll` for each direction.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncWrite, Interest};
use tokio::net::TcpStream;

use super::pipe::Pipe;
use crate::clock;
use crate::router::alarm::Alarm;
use crate::router::local::Flight;
use crate::router::pool::{BUFFER, Buf};
use crate::router::stats::Failure;

/// Bytes in reads that filled the buffer, after which a direction is spliced.
const BULK: usize = 64 * 1024;
/// A spliced piece smaller than this is not worth it; this many in a row and the direction is copied again.
const SMALL: usize = 4 * 1024;
const SMALL_IN_A_ROW: u32 = 8;

/// How a relay ended.
#[derive(Debug)]
pub(in crate::router) enum Ended {
    /// Both sides said all they had to say.
    Done,
    /// The epoch or the lease ended.
    Cut,
    Idle,
    Client,
    /// The member's connection broke; `silent`: before a byte of it came.
    Member {
        silent: bool,
    },
}

impl Ended {
    /// As what an end other than `Done` is counted.
    pub(in crate::router) const fn failure(&self) -> Failure {
        match self {
            Self::Cut => Failure::Cut,
            Self::Idle => Failure::Timeout,
            Self::Done | Self::Client => Failure::Client,
            Self::Member { .. } => Failure::Truncated,
        }
    }
}

/// Which side an error came from.
#[derive(Debug)]
enum Side {
    From,
    To,
}

struct Lane {
    buf: Buf,
    pipe: Option<Pipe>,
    full_bytes: usize,
    small: u32,
    ended: bool,
    closed: bool,
    bytes: u64,
}

impl Lane {
    const fn new(buf: Buf) -> Self {
        Self { buf, pipe: None, full_bytes: 0, small: 0, ended: false, closed: false, bytes: 0 }
    }

    /// Moves one piece; pending when neither side can go on.
    fn poll(&mut self, cx: &mut Context<'_>, from: &mut TcpStream, to: &mut TcpStream) -> Poll<Result<(), Side>> {
        if !self.buf.is_empty() {
            let n = ready!(Pin::new(to).poll_write(cx, self.buf.bytes())).map_err(|_| Side::To)?;
            self.buf.consume(n);
            self.buf.relax();
            return Poll::Ready(Ok(()));
        }
        if let Some(pipe) = self.pipe.as_mut().filter(|pipe| !pipe.is_empty()) {
            return poll_io(cx, to, Interest::WRITABLE, |socket| pipe.splice_out(socket)).map_ok(|_| ()).map_err(|_| Side::To);
        }
        if self.ended {
            if self.closed {
                return Poll::Pending;
            }
            ready!(Pin::new(to).poll_shutdown(cx)).map_err(|_| Side::To)?;
            self.closed = true;
            return Poll::Ready(Ok(()));
        }
        self.poll_read(cx, from)
    }

    /// Reads more; the pipe, if there is one, is empty.
    fn poll_read(&mut self, cx: &mut Context<'_>, from: &mut TcpStream) -> Poll<Result<(), Side>> {
        if self.small >= SMALL_IN_A_ROW {
            (self.pipe, self.small, self.full_bytes) = (None, 0, 0);
        }
        let n = match &mut self.pipe {
            Some(pipe) => ready!(poll_io(cx, from, Interest::READABLE, |socket| pipe.splice_in(socket))),
            None => ready!(self.buf.fill(cx, from, BUFFER)),
        }
        .map_err(|_| Side::From)?;
        self.bytes += n as u64;
        self.ended = n == 0;
        if self.pipe.is_some() {
            self.small = if n < SMALL { self.small + 1 } else { 0 };
        } else {
            self.full_bytes = if n == BUFFER { self.full_bytes + n } else { 0 };
            if self.full_bytes >= BULK {
                self.pipe = Pipe::take();
                self.full_bytes = 0;
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Runs `call` on the socket when it is ready.
fn poll_io(
    cx: &mut Context<'_>,
    socket: &TcpStream,
    interest: Interest,
    mut call: impl FnMut(&TcpStream) -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(if interest.is_readable() { socket.poll_read_ready(cx) } else { socket.poll_write_ready(cx) })?;
        match socket.try_io(interest, || call(socket)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return Poll::Ready(done),
        }
    }
}

/// Passes bytes until both sides are done. `read` is what was read already: from the client, from the member.
pub(in crate::router) async fn run(
    client: &mut TcpStream,
    member: &mut TcpStream,
    read: [Buf; 2],
    flight: &Flight,
    idle: Duration,
    alarm: &mut Alarm,
) -> Ended {
    let [mut up, mut down] = read.map(Lane::new);
    let now = clock::now();
    alarm.set(now, now.plus(idle));
    let mut moved = false;
    let ended = poll_fn(|cx| {
        loop {
            if flight.is_over() {
                return Poll::Ready(Ended::Cut);
            }
            let sent = up.poll(cx, client, member);
            // Asked again: this thread may have stood still between the two.
            if flight.is_over() {
                return Poll::Ready(Ended::Cut);
            }
            let received = down.poll(cx, member, client);
            let silent = down.bytes == 0;
            match (&sent, &received) {
                (Poll::Pending, Poll::Pending) => break,
                _ => moved = true,
            }
            match (sent, received) {
                (Poll::Ready(Err(Side::From)), _) | (_, Poll::Ready(Err(Side::To))) => return Poll::Ready(Ended::Client),
                (Poll::Ready(Err(Side::To)), _) | (_, Poll::Ready(Err(Side::From))) => return Poll::Ready(Ended::Member { silent }),
                _ => {}
            }
            if up.closed && down.closed {
                return Poll::Ready(Ended::Done);
            }
        }
        while let Poll::Ready(now) = alarm.poll(cx) {
            if !std::mem::take(&mut moved) {
                return Poll::Ready(Ended::Idle);
            }
            alarm.set(now, now.plus(idle));
        }
        Poll::Pending
    })
    .await;
    flight.target.counters.bytes_sent.add(up.bytes);
    flight.target.counters.bytes_received.add(down.bytes);
    ended
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::router::pool::Buffers;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    /// Pipes are few: a connection that has gone quiet gives its own back.
    #[tokio::test]
    async fn a_direction_is_spliced_while_much_passes_and_copied_again_after() {
        let ((mut source, mut from), (mut to, mut sink)) = (pair().await, pair().await);
        let mut lane = Lane::new(Buf::new(&Rc::<Buffers>::default()));
        let mut pass = async |lane: &mut Lane, bytes: usize| {
            let data = vec![b'x'; bytes];
            let mut read = vec![0; bytes];
            let moving = poll_fn(|cx| {
                while let Poll::Ready(moved) = lane.poll(cx, &mut from, &mut to) {
                    moved.expect("both sockets live");
                }
                Poll::<()>::Pending
            });
            tokio::select! {
                () = moving => {}
                (sent, received) = async { tokio::join!(source.write_all(&data), sink.read_exact(&mut read)) } => {
                    sent.unwrap();
                    received.unwrap();
                }
            }
        };
        pass(&mut lane, 4 << 20).await;
        assert!(lane.pipe.is_some());
        for _ in 0..=SMALL_IN_A_ROW {
            pass(&mut lane, 10).await;
        }
        assert!(lane.pipe.is_none());
        pass(&mut lane, 4 << 20).await;
        assert!(lane.pipe.is_some());
    }
}
