//! The other end of the API, for commands and drills: blocking, one connection a request, every wait bounded.
//!
//! It must never wait without an end but in a stream, where the node's empty lines prove that it lives, and never give the token to whom it
//! is not for: over TLS to a node of the cluster, in plain text to this machine alone. Main path: [`Client::get`], [`Client::post`],
//! [`Client::stream`].

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, ClientConnection, StreamOwned};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::types;
use crate::config::is_exposed;
use crate::config::pki::{self, trust};
use crate::config::token::Token;

const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Longer than the server takes at most.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
const WAITING_AFTER: Duration = Duration::from_secs(2);
const HEAD_BYTES_MAX: usize = 64 << 10;
const BODY_BYTES_MAX: u64 = 64 << 20;
const LINE_BYTES_MAX: u64 = 1 << 20;
const HEADERS_MAX: usize = 64;

/// Why there is no answer, or not the one that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("not an API's address: {0}; write http://127.0.0.1:7401, or https://10.0.0.1:7401")]
    Url(String),
    #[error("no authority to know the node at {url} by: give --api-ca FILE, a copy of tls/ca.pem in the data directory of any node")]
    NoAuthority { url: String },
    #[error("{url} is not shown to be a node of the cluster ({why})")]
    NotTrusted { url: String, why: String },
    #[error("the API's token is not sent to {url} in plain text: write https://")]
    PlainToken { url: String },
    #[error("{url} does not answer: {source}")]
    Unreachable { url: String, source: io::Error },
    /// The node answered that it did not do it.
    #[error("{}", .error.error)]
    Refused { status: u16, error: Box<types::Error> },
    #[error("what answers at {url} speaks no TLS")]
    NoTls { url: String },
    #[error("answer of {url} not understood ({why}): is it the API of a hotwarm of this version?")]
    Malformed { url: String, why: String },
}

/// By what a node beyond loopback is known: the certificate of its cluster's authority.
#[derive(Clone, Debug)]
pub struct Authority(Arc<ClientConfig>);

impl Authority {
    /// From PEM text.
    ///
    /// # Errors
    /// It is no authority's certificate.
    pub fn new(pem: &str) -> Result<Self, pki::Error> {
        trust::client(pem).map(|config| Self(Arc::new(config)))
    }
}

/// One node's API.
#[derive(Clone, Debug)]
pub struct Client {
    url: String,
    host: String,
    /// It speaks TLS.
    tls: bool,
    authority: Option<Authority>,
    token: Option<Token>,
    /// Called once for a request that is not answered within [`WAITING_AFTER`].
    waiting: Option<fn(&str)>,
}

/// An answer whose body is still to be read.
struct Answer {
    status: u16,
    body: Box<dyn BufRead + Send>,
}

impl Client {
    /// A client of the API at `url`, as in `http://127.0.0.1:7401` or `https://10.0.0.1:7401`. Nothing is sent yet.
    ///
    /// # Errors
    /// The URL is not one that it can use.
    pub fn new(url: &str) -> Result<Self, ClientError> {
        let wrong = || ClientError::Url(url.to_owned());
        let (tls, host) = match url.split_once("://") {
            None => (false, url),
            Some(("http", host)) => (false, host),
            Some(("https", host)) => (true, host),
            Some(_) => return Err(wrong()),
        };
        let host = host.strip_suffix('/').unwrap_or(host);
        let port = host.rsplit_once(':').map(|(_, port)| port);
        let has_port = port.is_some_and(|port| port.parse::<u16>().is_ok());
        if !has_port || host.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control()) {
            return Err(wrong());
        }
        Ok(Self::of(tls, host.to_owned()))
    }

    fn of(tls: bool, host: String) -> Self {
        let scheme = if tls { "https" } else { "http" };
        Self { url: format!("{scheme}://{host}"), host, tls, authority: None, token: None, waiting: None }
    }

    /// The API that a configuration puts at an address: over TLS beyond loopback, and on this machine where it is every address.
    #[must_use]
    pub fn at(address: SocketAddr) -> Self {
        let mut reached = address;
        match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => reached.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => reached.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        Self::of(is_exposed(address), reached.to_string())
    }

    /// The API of another node, asked as this one is.
    #[must_use]
    pub fn beside(&self, address: SocketAddr) -> Self {
        Self { authority: self.authority.clone(), token: self.token.clone(), ..Self::at(address) }
    }

    /// True if it asks over TLS, and needs an authority.
    #[must_use]
    pub const fn is_tls(&self) -> bool {
        self.tls
    }

    /// The same, which knows nodes by `authority`.
    #[must_use]
    pub fn trusting(self, authority: Authority) -> Self {
        Self { authority: Some(authority), ..self }
    }

    /// The same, with the API's token, where there is one.
    #[must_use]
    pub fn with_token(self, token: Option<Token>) -> Self {
        Self { token, ..self }
    }

    /// The same, which has a person know that a request takes long: `tell` gets the URL.
    #[must_use]
    pub fn telling(self, tell: fn(&str)) -> Self {
        Self { waiting: Some(tell), ..self }
    }

    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Reads `path`, as in `/api/v1/status`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let answer = self.ask("GET", path, &[])?;
        self.json(answer)
    }

    /// Reads `path` whatever its status, as text: for `/health` and `/metrics`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn get_text(&self, path: &str) -> Result<(u16, String), ClientError> {
        let answer = self.ask("GET", path, &[])?;
        let mut text = String::new();
        answer.body.take(BODY_BYTES_MAX).read_to_string(&mut text).map_err(|source| self.unreachable(source))?;
        Ok((answer.status, text))
    }

    /// Asks `path` to do something.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.malformed(error.to_string()))?;
        let answer = self.ask("POST", path, &body)?;
        self.json(answer)
    }

    /// Follows `path`: one object a line, until the node or the caller ends it.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn stream(&self, path: &str) -> Result<Lines, ClientError> {
        let answer = self.ask("GET", path, &[])?;
        if answer.status == 200 {
            return Ok(Lines { client: self.clone(), body: answer.body });
        }
        self.json::<types::Error>(answer).and_then(|_| Err(self.malformed("no stream".to_owned())))
    }

    fn ask(&self, method: &str, path: &str, body: &[u8]) -> Result<Answer, ClientError> {
        let (_answered, waits) = mpsc::channel::<()>();
        if let Some(tell) = self.waiting {
            let url = self.url.clone();
            let wait = move || {
                if waits.recv_timeout(WAITING_AFTER) == Err(mpsc::RecvTimeoutError::Timeout) {
                    tell(&url);
                }
            };
            // Without it nobody is told; the answer comes all the same.
            let _ = std::thread::Builder::new().name("waiting".into()).spawn(wait);
        }
        let stream = self.connect().map_err(|source| self.unreachable(source))?;
        let from_elsewhere = stream.peer_addr().map_or(true, is_exposed);
        let token = match &self.token {
            Some(_) if from_elsewhere && !self.tls => return Err(ClientError::PlainToken { url: self.url.clone() }),
            Some(token) => format!("Authorization: {}\r\n", token.header()),
            None => String::new(),
        };
        let mut stream = self.secured(stream)?;
        let length =
            if method == "POST" { format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()) } else { String::new() };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{token}{length}\r\n", self.host);
        let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).and_then(|()| stream.flush());
        sent.map_err(|source| self.unreachable(source))?;
        self.read_head(BufReader::new(stream))
    }

    /// The connection, over TLS where the API speaks it: whoever answers has shown by then that it is a node of the cluster.
    fn secured(&self, mut stream: TcpStream) -> Result<Box<dyn Stream>, ClientError> {
        if !self.tls {
            return Ok(Box::new(stream));
        }
        let Some(Authority(config)) = &self.authority else { return Err(ClientError::NoAuthority { url: self.url.clone() }) };
        let peer = stream.peer_addr().map_err(|source| self.unreachable(source))?;
        // Not looked at: nodes are known by another name.
        let name = ServerName::IpAddress(peer.ip().into());
        let begun = ClientConnection::new(Arc::clone(config), name).map_err(|error| self.unreachable(io::Error::other(error)))?;
        let mut tls = begun;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream).map_err(|source| self.not_secured(source))?;
        }
        Ok(Box::new(StreamOwned::new(tls, stream)))
    }

    fn not_secured(&self, source: io::Error) -> ClientError {
        let why = match source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(why)) => untrusted(why),
            Some(rustls::Error::InvalidMessage(_)) => return ClientError::NoTls { url: self.url.clone() },
            _ => return self.unreachable(source),
        };
        ClientError::NotTrusted { url: self.url.clone(), why }
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in self.host.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_WITHIN) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
                    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn read_head(&self, mut stream: BufReader<Box<dyn Stream>>) -> Result<Answer, ClientError> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let room = (HEAD_BYTES_MAX - head.len().min(HEAD_BYTES_MAX)) as u64;
            let read = stream.by_ref().take(room).read_until(b'\n', &mut head).map_err(|source| self.unreachable(source))?;
            if read == 0 {
                return Err(self.unreachable(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed")));
            }
        }
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        response.parse(&head).map_err(|error| self.malformed(error.to_string()))?;
        let header = |name: &str| response.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value);
        let status = response.code.unwrap_or_default();
        let chunked = header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case(b"chunked"));
        let body: Box<dyn BufRead + Send> = match header("content-length") {
            _ if chunked => Box::new(BufReader::new(Chunks { inner: stream, left: 0, ended: false })),
            Some(length) => {
                let length = std::str::from_utf8(length).ok().and_then(|text| text.parse().ok());
                Box::new(stream.take(length.ok_or_else(|| self.malformed("no length".to_owned()))?))
            }
            None => Box::new(stream),
        };
        Ok(Answer { status, body })
    }

    fn json<T: DeserializeOwned>(&self, answer: Answer) -> Result<T, ClientError> {
        let mut bytes = Vec::new();
        answer.body.take(BODY_BYTES_MAX).read_to_end(&mut bytes).map_err(|source| self.unreachable(source))?;
        if (200..300).contains(&answer.status) {
            return serde_json::from_slice(&bytes).map_err(|error| self.malformed(error.to_string()));
        }
        match serde_json::from_slice(&bytes) {
            Ok(error) => Err(ClientError::Refused { status: answer.status, error: Box::new(error) }),
            Err(_) => Err(self.malformed(format!("status {}", answer.status))),
        }
    }

    fn unreachable(&self, source: io::Error) -> ClientError {
        let source = match source.kind() {
            // What rustls says of it leads to its own manual.
            io::ErrorKind::UnexpectedEof => io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed"),
            io::ErrorKind::WouldBlock => io::Error::new(io::ErrorKind::TimedOut, "no answer in time"),
            _ => source,
        };
        ClientError::Unreachable { url: self.url.clone(), source }
    }

    fn malformed(&self, why: String) -> ClientError {
        ClientError::Malformed { url: self.url.clone(), why }
    }
}

/// A connection, plain or over TLS.
trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// What is wrong with a certificate, for people.
fn untrusted(why: &CertificateError) -> String {
    match why {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is of another authority than the one that it is to be known by".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired: `hotwarm certs renew`, or this machine's clock is wrong".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet: this machine's clock is behind".to_owned()
        }
        other => other.to_string(),
    }
}

/// A stream of objects; ends when the node ends it.
pub struct Lines {
    client: Client,
    body: Box<dyn BufRead + Send>,
}

impl std::fmt::Debug for Lines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lines").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Lines {
    /// The next object; `None` at the end.
    ///
    /// # Errors
    /// The connection broke, or the node is silent for longer than its empty lines allow.
    pub fn next_object<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            let mut line = Vec::new();
            let read = self.body.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
            match read.map_err(|source| self.client.unreachable(source))? {
                0 => return Ok(None),
                _ if line.trim_ascii().is_empty() => {}
                _ => return serde_json::from_slice(&line).map(Some).map_err(|error| self.client.malformed(error.to_string())),
            }
        }
    }
}

/// A chunked body without its framing.
struct Chunks<R> {
    inner: R,
    /// Bytes of the present chunk that are still to come.
    left: u64,
    ended: bool,
}

impl<R: BufRead> Chunks<R> {
    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.inner.by_ref().take(1024).read_line(&mut line)?;
        if line.ends_with('\n') { Ok(line) } else { Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer broke off")) }
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        let line = self.line()?;
        let size = line.split(';').next().unwrap_or_default().trim();
        self.left = u64::from_str_radix(size, 16).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "no size of a chunk"))?;
        if self.left == 0 {
            self.ended = true;
            // Trailers, and the empty line that ends them.
            while !self.line()?.trim().is_empty() {}
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Chunks<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.ended {
            self.next_chunk()?;
        }
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        let room = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.inner.read(&mut buffer[..room])?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer broke off"));
        }
        self.left -= read as u64;
        if self.left == 0 {
            self.line()?;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_refused() {
        for (url, host, tls) in [
            ("http://127.0.0.1:7401", "127.0.0.1:7401", false),
            ("localhost:1/", "localhost:1", false),
            ("http://[::1]:7401/", "[::1]:7401", false),
            ("https://10.0.0.1:7401/", "10.0.0.1:7401", true),
        ] {
            let client = Client::new(url).unwrap();
            assert_eq!((client.host.as_str(), client.tls), (host, tls));
        }
        for (address, url) in [
            ("127.0.0.1:1", "http://127.0.0.1:1"),
            ("10.0.0.1:1", "https://10.0.0.1:1"),
            ("0.0.0.0:1", "https://127.0.0.1:1"),
            ("[::]:1", "https://[::1]:1"),
            ("[::ffff:127.0.0.1]:1", "http://[::ffff:127.0.0.1]:1"),
        ] {
            assert_eq!(Client::at(address.parse().unwrap()).url(), url);
        }
        for url in ["", "127.0.0.1", "https://127.0.0.1", "https://a:1/x", "http://a:1/x", "http://a:99999", "http://a b:1", "ftp://a:1"] {
            assert!(Client::new(url).is_err(), "{url}");
        }
    }

    #[test]
    fn chunks_are_joined_and_what_breaks_off_is_an_error() {
        let read = |bytes: &'static [u8]| {
            let mut text = String::new();
            Chunks { inner: bytes, left: 0, ended: false }.read_to_string(&mut text).map(|_| text)
        };
        assert_eq!(read(b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nT: x\r\n\r\n").unwrap(), "hello world");
        assert_eq!(read(b"0\r\n\r\n").unwrap(), "");
        for broken in [&b"5\r\nhel"[..], b"5\r\nhello", b"5\r\nhello\r\n", b"x\r\n", b"", b"0\r\n"] {
            assert!(read(broken).is_err(), "{broken:?}");
        }
    }

    /// As after `api` was changed in the file of a node that runs, or an end of a stream that TLS did not announce.
    #[test]
    fn what_speaks_no_tls_and_what_ends_is_told_in_our_words() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let plain = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
            let _ = stream.read(&mut [0; 1]);
        });
        let ca = pki::Ca::create("x", std::time::SystemTime::now()).unwrap();
        let client = Client::new(&url).unwrap().trusting(Authority::new(ca.certificate()).unwrap());
        assert!(matches!(client.get_text("/health"), Err(ClientError::NoTls { .. })));
        plain.join().unwrap();
        let ended = io::Error::new(io::ErrorKind::UnexpectedEof, "see the manual elsewhere");
        assert!(!client.unreachable(ended).to_string().contains("elsewhere"));
    }
}
