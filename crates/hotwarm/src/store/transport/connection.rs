//! One connection between two nodes, either side: socket options, TLS, and frames in and out.
//!
//! Must never wait without a bound. The main path enters at [`Connection::connect`] (dialer) and [`Connection::accept`] (acceptor).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hotwarm_core::ids::NodeId;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::frame::{self, FrameError, Kind, Reader};
use super::hello::{Hello, HelloError};
use super::tls::{Identity, TlsError};
use super::{Channel, Shared};

/// How long a TCP connection may take to open.
const CONNECT_WITHIN: Duration = Duration::from_millis(500);
/// How long TLS and the greeting may take together; generous, since a busy peer's handshake is slow.
pub(super) const GREET_WITHIN: Duration = Duration::from_secs(2);
/// How long sent bytes may stay unacknowledged by the other kernel, and a write may make no progress.
const DEAD_AFTER: Duration = Duration::from_secs(2);
/// How much is handed to the socket at a time: progress is looked for between the pieces.
const WRITE_PIECE: usize = 64 * 1024;

/// What a node that was removed is told, by the others' words: its own log knows nothing of it.
pub(super) const REMOVED: &str = "is not in the configuration any more: it was removed";

/// Why a connection ended, or was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("no connection to {address} within {} ms: check that the node runs and that a firewall lets its port through", CONNECT_WITHIN.as_millis())]
    ConnectTimeout { address: SocketAddr },
    #[error("no connection to {address} ({source}): check that the node runs and its address is right")]
    Connect { address: SocketAddr, source: io::Error },
    #[error("no greeting within {} ms: the other side hangs, or is not a hotwarm node", GREET_WITHIN.as_millis())]
    GreetTimeout,
    #[error("TLS failed ({0}): check that both nodes have certificates of this cluster's authority that have not expired")]
    Handshake(io::Error),
    #[error(transparent)]
    Certificate(#[from] TlsError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Hello(#[from] HelloError),
    #[error("refused by the other node: {0}")]
    Refused(String),
    #[error("frame of kind {0:?} that has no place here: upgrade hotwarm on the older node")]
    Unexpected(Kind),
    #[error("closed by the other node")]
    Closed,
    #[error("write without progress for {} ms: the other node hangs", DEAD_AFTER.as_millis())]
    Stalled,
    #[error("connection broken ({0})")]
    Broken(#[from] io::Error),
    #[error("node {0} {REMOVED}; add it by `hotwarm apply`, then let it join anew")]
    Removed(NodeId),
    #[error("replaced by a newer connection of the same node")]
    Replaced,
}

impl ConnectionError {
    /// Nobody listens there, and the machine is up to say so.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Connect { source, .. } if source.kind() == io::ErrorKind::ConnectionRefused)
    }
}

/// A stream of either kind.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection over which frames go; `identity` is what the other side's certificate says.
pub(super) struct Connection {
    stream: Box<dyn Stream>,
    reader: Reader,
    pub(super) identity: Option<Identity>,
}

impl Connection {
    /// Dials `peer` and greets it. When this returns, the peer has agreed to take messages.
    pub(super) async fn connect(shared: &Shared, channel: &Channel) -> Result<Self, ConnectionError> {
        let address = channel.address;
        let socket = timeout(CONNECT_WITHIN, TcpStream::connect(address))
            .await
            .map_err(|_| ConnectionError::ConnectTimeout { address })?
            .map_err(|source| ConnectionError::Connect { address, source })?;
        tune(&socket)?;
        timeout(GREET_WITHIN, Self::greet(shared, channel, socket)).await.map_err(|_| ConnectionError::GreetTimeout)?
    }

    async fn greet(shared: &Shared, channel: &Channel, socket: TcpStream) -> Result<Self, ConnectionError> {
        let mut connection = match shared.tls() {
            None => Self::over(Box::new(socket), None),
            Some(tls) => {
                // The name is not sent and not checked: nodes are named by URI (see tls.rs).
                let name = ServerName::try_from("hotwarm.invalid").expect("a constant that is a valid DNS name");
                let stream = TlsConnector::from(tls.client.clone()).connect(name, socket).await.map_err(ConnectionError::Handshake)?;
                let identity = peer_identity(stream.get_ref().1.peer_certificates())?;
                let connection = Self::over(Box::new(stream), Some(identity.clone()));
                if let Err(e) = identity.check(&shared.cluster, &channel.peer, &shared.revoked.load()) {
                    // Its own log is where somebody looks who wonders why the node is alone.
                    connection.refuse(&e.to_string()).await;
                    return Err(e.into());
                }
                connection
            }
        };
        let hello = Hello::new(&shared.cluster, &shared.me, &channel.peer, channel.queue.lane);
        connection.send(Kind::Hello, &hello.to_bytes()).await?;
        match connection.receive().await {
            // In TLS 1.3 the acceptor judges our certificate after our side of the handshake is done: its alert arrives here.
            Err(ConnectionError::Broken(e)) if e.kind() == io::ErrorKind::InvalidData => Err(ConnectionError::Handshake(e)),
            Err(e) => Err(e),
            Ok((Kind::Welcome, _)) => Ok(connection),
            Ok((kind, _)) => Err(ConnectionError::Unexpected(kind)),
        }
    }

    /// Takes an accepted socket through TLS and the hello. The caller answers with Welcome or Refused.
    pub(super) async fn accept(shared: &Shared, socket: TcpStream) -> Result<Self, ConnectionError> {
        tune(&socket)?;
        match shared.tls() {
            None => Ok(Self::over(Box::new(socket), None)),
            Some(tls) => {
                let stream = TlsAcceptor::from(tls.server.clone()).accept(socket).await.map_err(ConnectionError::Handshake)?;
                let identity = peer_identity(stream.get_ref().1.peer_certificates())?;
                Ok(Self::over(Box::new(stream), Some(identity)))
            }
        }
    }

    /// Reads the hello of an accepted connection and checks it against this node and the certificate.
    pub(super) async fn hello(&mut self, shared: &Shared) -> Result<Hello, ConnectionError> {
        let (kind, body) = self.receive().await?;
        if kind != Kind::Hello {
            return Err(ConnectionError::Unexpected(kind));
        }
        let hello = Hello::check(&body, &shared.cluster, &shared.me)?;
        if let Some(identity) = &self.identity {
            identity.check(&shared.cluster, &hello.from, &shared.revoked.load())?;
        }
        shared.still_trusted(self, &hello.from)?;
        self.reader.trust();
        Ok(hello)
    }

    fn over(stream: Box<dyn Stream>, identity: Option<Identity>) -> Self {
        Self { stream, reader: Reader::new(), identity }
    }

    /// Sends one small frame.
    pub(super) async fn send(&mut self, kind: Kind, body: &[u8]) -> Result<(), ConnectionError> {
        let mut bytes = Vec::new();
        frame::encode(&mut bytes, kind, body);
        self.write(&bytes).await
    }

    /// Tells the other side why, and closes. Best effort: the connection is lost anyway.
    pub(super) async fn refuse(mut self, why: &str) {
        let told = async {
            let why: String = why.chars().take(frame::MAX_GREETING / 4).collect();
            self.send(Kind::Refused, why.as_bytes()).await?;
            self.stream.shutdown().await.map_err(ConnectionError::from)
        };
        let _lost_anyway = timeout(DEAD_AFTER, told).await;
    }

    /// Writes all of `bytes`; fails when there is no progress for [`DEAD_AFTER`].
    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), ConnectionError> {
        for piece in bytes.chunks(WRITE_PIECE) {
            timeout(DEAD_AFTER, self.stream.write_all(piece)).await.map_err(|_| ConnectionError::Stalled)??;
        }
        timeout(DEAD_AFTER, self.stream.flush()).await.map_err(|_| ConnectionError::Stalled)??;
        Ok(())
    }

    /// The next frame. Cancel safe. A Refused frame comes out as the error it tells.
    pub(super) async fn receive(&mut self) -> Result<(Kind, Vec<u8>), ConnectionError> {
        loop {
            if let Some((kind, body)) = self.reader.next()? {
                if kind == Kind::Refused {
                    return Err(ConnectionError::Refused(printable(&body)));
                }
                return Ok((kind, body));
            }
            let read = match self.stream.read_buf(self.reader.space()).await {
                // rustls asks for a farewell before the end; a killed process sends none.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => 0,
                other => other?,
            };
            if read == 0 {
                return Err(ConnectionError::Closed);
            }
        }
    }
}

/// What another node told us, fit for a log line.
fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn peer_identity(certificates: Option<&[rustls::pki_types::CertificateDer<'_>]>) -> Result<Identity, TlsError> {
    Identity::of(certificates.and_then(<[_]>::first).ok_or(TlsError::NoName)?)
}

/// Latency before throughput, and a dead peer noticed even when nothing is sent.
fn tune(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    socket.set_tcp_user_timeout(Some(DEAD_AFTER))?;
    let probe_every = Duration::from_secs(1);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(DEAD_AFTER).with_interval(probe_every).with_retries(3))
}
