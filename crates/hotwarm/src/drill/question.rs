//! What a group is asked, and which answer shows that a member serves it.
//!
//! HTTP: a GET, and a status. TCP: a connection, into which nothing is ever sent, for nobody knows what the service would make of it. That it
//! is accepted says nothing: a router accepts, and lets it wait, where there is no member. What tells is the end of the client's part (a FIN):
//! a router with a member passes it on, one without resets the connection at once. Main path: [`ask`] -> [`http`] or [`tcp`] -> [`connect`].

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes of a reply that are read, at most.
const REPLY_MAX: usize = 64 * 1024;
/// How long a connection is left alone before its end is said; doubled each time that it was too early or in vain.
const QUIET: Duration = Duration::from_millis(5);
const QUIET_MAX: Duration = Duration::from_millis(250);
/// A router without a member resets within this; a member that reacts to the end at all does so within this.
const MOMENT: Duration = Duration::from_millis(500);
/// A router far from its member may need that long to connect, also where it lets nothing wait.
const PARK_MIN: Duration = Duration::from_millis(100);

/// What a group is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// `GET path`, answered with one of `good`.
    Http { path: String, good: Vec<u16> },
    /// A connection with a member behind it; `park`: how long the group's routers let one wait.
    Tcp { park: Duration },
}

/// What shows that a member is there. Of those without a status the later are the stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    Status(u16),
    /// The connection stayed open after the end of the client's part.
    Stayed,
    /// The member ended its part too.
    Closed,
    /// The member said something.
    Spoke,
}

impl Answer {
    const fn rank(self) -> u8 {
        match self {
            Self::Status(_) | Self::Stayed => 0,
            Self::Closed => 1,
            Self::Spoke => 2,
        }
    }
}

/// The least that counts as an answer: raised once it is known what the group gives, so that a member that hangs is not taken for one that
/// serves because the kernel still accepts for it.
#[derive(Debug, Default)]
pub(super) struct Demand(AtomicU8);

impl Demand {
    pub(super) fn raise(&self, answer: Answer) {
        self.0.store(answer.rank(), Ordering::Relaxed);
    }

    fn met_by(&self, answer: Answer) -> bool {
        answer.rank() >= self.0.load(Ordering::Relaxed)
    }
}

/// Why nothing shows that a member answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// What a client would have met.
    Client(String),
    /// The drill itself could not ask, and knows nothing of the group.
    Own(String),
}

impl From<String> for Miss {
    fn from(why: String) -> Self {
        Self::Client(why)
    }
}

/// An answer, and when it was there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply {
    pub(super) answer: Answer,
    pub(super) at: Instant,
    /// It was not the first connection: those before were reset.
    pub(super) again: bool,
}

impl Question {
    /// The page at the root, good as a browser sees it.
    #[must_use]
    pub fn root() -> Self {
        Self::Http { path: "/".to_owned(), good: (200..400).collect() }
    }

    /// A page that need not be there: whatever a member says but that it failed, or what the check calls good.
    #[must_use]
    pub fn page(path: &str, also: &[u16]) -> Self {
        Self::Http { path: path.to_owned(), good: (200..500).chain(also.iter().copied().filter(|status| *status >= 500)).collect() }
    }

    /// What was taken as an answer, for the report.
    #[must_use]
    pub(super) fn evidence(&self, demand: &Demand) -> String {
        match self {
            Self::Http { path, good } => {
                let also: Vec<String> = good.iter().filter(|status| **status >= 500).map(ToString::to_string).collect();
                let also =
                    if also.is_empty() { String::new() } else { format!(", or with {}, which the check calls good", also.join(", ")) };
                format!("GET {path}, answered with a status below 500{also}")
            }
            Self::Tcp { .. } if !demand.met_by(Answer::Closed) => {
                "connections, on which the member speaks first; nothing is sent".to_owned()
            }
            Self::Tcp { .. } if !demand.met_by(Answer::Stayed) => {
                "connections, which the member ends when the client does; nothing is sent".to_owned()
            }
            Self::Tcp { .. } => format!(
                "connections, which stay open for {} ms after the client ended its part; nothing is sent, and a member that accepts and \
                 hangs is not told from one that serves",
                MOMENT.as_millis()
            ),
        }
    }

    /// True if a connection of this load that waits is not the same that is answered, so that the routers' counts say nothing.
    pub(super) fn connects_again(&self, demand: &Demand) -> bool {
        matches!(self, Self::Tcp { .. }) && demand.met_by(Answer::Closed)
    }
}

/// Asks once; the caller bounds the time.
pub(super) async fn ask(question: &Question, address: SocketAddr, demand: &Demand) -> Result<Reply, Miss> {
    match question {
        Question::Http { path, good } => http(address, path, good).await,
        Question::Tcp { park } => tcp(address, (*park).max(PARK_MIN), demand).await,
    }
}

async fn open(address: SocketAddr) -> Result<TcpStream, Miss> {
    TcpStream::connect(address).await.map_err(|error| match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::MFILE | Errno::NFILE) => Miss::Own(error.to_string()),
        _ => Miss::Client(format!("no connection: {error}")),
    })
}

async fn http(address: SocketAddr, path: &str, good: &[u16]) -> Result<Reply, Miss> {
    let mut stream = open(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| format!("not sent: {error}"))?;
    let mut reply = Vec::new();
    let read = stream.take(REPLY_MAX as u64).read_to_end(&mut reply).await;
    read.map_err(|error| format!("connection broke: {error}"))?;
    let status = reply.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|digits| digits.parse().ok());
    let status: u16 = status.ok_or_else(|| "connection closed without a reply".to_owned())?;
    if !good.contains(&status) {
        return Err(Miss::Client(format!("status {status}")));
    }
    Ok(Reply { answer: Answer::Status(status), at: Instant::now(), again: false })
}

/// As a client that connects again when it is reset, for as long as a router would have let it wait.
async fn tcp(address: SocketAddr, park: Duration, demand: &Demand) -> Result<Reply, Miss> {
    let begun = Instant::now();
    let mut quiet = QUIET;
    loop {
        let started = Instant::now();
        if let Some((answer, at)) = connect(address, quiet, demand).await? {
            return Ok(Reply { answer, at, again: quiet > QUIET });
        }
        if begun.elapsed() >= park {
            return Err(Miss::Client(format!("no member behind the connection within {} ms", park.as_millis())));
        }
        tokio::time::sleep_until((started + quiet).into()).await;
        quiet = (quiet * 2).min(QUIET_MAX);
    }
}

/// One connection: what shows that a member is behind it, and since when; `None` if it was reset, or ended without what is asked for.
async fn connect(address: SocketAddr, quiet: Duration, demand: &Demand) -> Result<Option<(Answer, Instant)>, Miss> {
    let mut stream = open(address).await?;
    let mut byte = [0];
    // Where members speak first, a client simply waits.
    let first = if demand.met_by(Answer::Closed) {
        tokio::time::timeout(quiet, stream.read(&mut byte)).await.ok()
    } else {
        Some(stream.read(&mut byte).await)
    };
    if let Some(first) = first {
        // An end without a word is that of a router which died as much as a member's.
        return Ok(first.is_ok_and(|bytes| bytes > 0).then(|| spoke(stream)));
    }
    let ended = Instant::now();
    if stream.shutdown().await.is_err() {
        return Ok(None);
    }
    loop {
        match tokio::time::timeout(MOMENT, stream.read(&mut byte)).await {
            Ok(Ok(1..)) => return Ok(Some(spoke(stream))),
            Ok(Ok(0)) => return Ok(demand.met_by(Answer::Closed).then(|| (Answer::Closed, Instant::now()))),
            Ok(Err(_)) => return Ok(None),
            Err(_) if demand.met_by(Answer::Stayed) => return Ok(Some((Answer::Stayed, ended))),
            Err(_) => {}
        }
    }
}

/// Leaves in peace: a connection closed with something unread would be reset.
fn spoke(mut stream: TcpStream) -> (Answer, Instant) {
    let now = Instant::now();
    tokio::spawn(async move {
        let leave = async {
            stream.shutdown().await?;
            stream.take(REPLY_MAX as u64).read_to_end(&mut Vec::new()).await
        };
        // It has answered, whatever becomes of this.
        let _ = tokio::time::timeout(MOMENT, leave).await;
    });
    (Answer::Spoke, now)
}

#[cfg(test)]
mod tests;
