//! The head of a request: read strictly, written anew for the member.
//!
//! A head that two readers could read differently must never reach a member: it is refused, and the connection closed. The main path:
//! [`find_end`] until the head is whole, then [`read`], which also writes the head that goes to the member.

use std::mem::MaybeUninit;
use std::net::SocketAddr;

use hotwarm_core::route::balance::hash_key;

use super::framing::{Framing, is_token};
use super::problem::Problem;
use crate::config::{HttpLimits, Mark};

/// More headers than any configuration allows.
pub(super) const HEADERS: usize = 256;
/// The longest method: WebDAV's longest has 17 letters.
const METHOD: usize = 32;

/// A request as the router needs it; its head, as the member gets it, is kept beside it.
#[derive(Debug)]
pub(super) struct Request {
    pub head: bool,
    pub http_10: bool,
    pub keep_alive: bool,
    pub framing: Framing,
    /// GET, HEAD and OPTIONS without a body (S20).
    pub safe: bool,
    /// Has an `Idempotency-Key` (S20).
    pub keyed: bool,
    /// The user marks it as safe to repeat (S20).
    pub marked: bool,
    pub upgrade: bool,
    /// What the balance hashes, if it hashes.
    pub hash: Option<u64>,
}

/// What of the connection enters each head.
#[derive(Debug)]
pub(super) struct Origin {
    address: String,
    /// The client as an element of `Forwarded` (RFC 7239).
    forwarded: String,
    /// The three lines of a client that no earlier proxy speaks for.
    lines: Vec<u8>,
    hash: u64,
}

impl Origin {
    pub(super) fn new(peer: SocketAddr) -> Self {
        let ip = peer.ip().to_canonical();
        let address = ip.to_string();
        let forwarded = if ip.is_ipv6() { format!("for=\"[{ip}]\";proto=http") } else { format!("for={ip};proto=http") };
        let lines = format!("X-Forwarded-For: {address}\r\nForwarded: {forwarded}\r\nX-Forwarded-Proto: http\r\n").into_bytes();
        let hash = hash_key(address.as_bytes());
        Self { address, forwarded, lines, hash }
    }
}

/// Which header the balance hashes, if any.
#[derive(Clone, Copy, Debug)]
pub(super) enum HashOf<'a> {
    Nothing,
    Client,
    Header(&'a str),
}

/// What of the group's configuration a head is read by.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    pub limits: &'a HttpLimits,
    pub repeat: &'a [Mark],
    pub hash: HashOf<'a>,
}

/// The length of the head at the front of `bytes`, if it is whole. `scanned` remembers how far earlier calls came.
pub(super) fn find_end(bytes: &[u8], scanned: &mut usize) -> Result<Option<usize>, Problem> {
    for at in memchr::memchr_iter(b'\n', &bytes[*scanned..]).map(|at| *scanned + at) {
        match bytes[..at] {
            // An empty line: the end, except as the very first (RFC 9112, section 2.2).
            [.., b'\n', b'\r'] if at > 2 => return Ok(Some(at + 1)),
            [.., b'\r'] => {}
            _ => return Err(Problem::malformed("line feed without carriage return")),
        }
    }
    *scanned = bytes.len();
    Ok(None)
}

/// The headers that steer the router, as found in one head.
#[derive(Default)]
struct Found<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
    connection: Vec<&'a [u8]>,
    upgrade: Option<&'a [u8]>,
    expect: bool,
    keyed: bool,
    te_trailers: bool,
    forwarded_for: Vec<&'a [u8]>,
    forwarded: Vec<&'a [u8]>,
    forwarded_host: bool,
    forwarded_proto: bool,
    hash: Option<u64>,
}

/// Reads the whole head `bytes` and writes the member's into `out`.
pub(super) fn read(bytes: &[u8], rules: &Rules<'_>, origin: &Origin, out: &mut Vec<u8>) -> Result<Request, Problem> {
    let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(bytes, &mut headers[..rules.limits.headers.min(HEADERS)]) {
        Ok(httparse::Status::Complete(n)) if n == bytes.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Problem::TooLarge),
        Err(httparse::Error::Version) if is_other_version(bytes) => return Err(Problem::Version),
        Ok(_) | Err(_) => return Err(Problem::malformed("not an HTTP/1.1 request")),
    }
    let (method, target) = (parsed.method.unwrap_or(""), parsed.path.unwrap_or(""));
    let http_10 = parsed.version == Some(0);
    let (authority, path) = split_target(method, target)?;

    let mut found = Found::default();
    out.clear();
    for part in [method.as_bytes(), b" ", path.as_bytes(), b" HTTP/1.1\r\n"] {
        out.extend_from_slice(part);
    }
    let dropped_by_name = named_by_connection(parsed.headers);
    let mut run = Run::default();
    for header in parsed.headers.iter() {
        let keep = found.take(header, rules.hash)? && !dropped_by_name.iter().any(|name| name.eq_ignore_ascii_case(header.name.as_bytes()));
        run.push(bytes, header, keep, out);
    }
    run.end(bytes, bytes.len() - 2, out);

    let host = found.check(http_10, authority)?;
    let request = found.request(method, path, http_10, rules, origin)?;
    found.write(&request, host, origin, out);
    Ok(request)
}

/// A well-formed request line of another version.
fn is_other_version(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or(bytes);
    let parts: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let digits = parts.get(2).and_then(|version| version.strip_prefix(b"HTTP/"));
    parts.len() == 3 && matches!(digits, Some([major, b'.', minor]) if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// The authority, if the target names one, and the path that goes to the member.
fn split_target<'a>(method: &str, target: &'a str) -> Result<(Option<&'a str>, &'a str), Problem> {
    if method.len() > METHOD || !method.bytes().all(is_token) {
        return Err(Problem::malformed("method is not a token"));
    }
    if method == "CONNECT" {
        return Err(Problem::Method);
    }
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(Problem::malformed("character that a request target must not have"));
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok((None, target));
    }
    let scheme = ["http://", "https://"].iter().find(|s| target.get(..s.len()).is_some_and(|t| t.eq_ignore_ascii_case(s)));
    let Some(scheme) = scheme else { return Err(Problem::malformed("request target is no path")) };
    let rest = &target[scheme.len()..];
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    match rest[at..].chars().next() {
        Some('/') => Ok((Some(&rest[..at]), &rest[at..])),
        None => Ok((Some(rest), "/")),
        Some(_) => Err(Problem::malformed("request target without a path")),
    }
}

/// Names in `Connection` that concern this hop only. Fields that are always meant for the member are not dropped on a client's word.
fn named_by_connection<'a>(headers: &[httparse::Header<'a>]) -> Vec<&'a [u8]> {
    let options = headers.iter().filter(|h| h.name.eq_ignore_ascii_case("connection")).flat_map(|h| list(h.value));
    let of_every_hop = |option: &&[u8]| {
        let kept = ["close", "keep-alive", "upgrade", "te", "authorization", "cookie", "cache-control", "idempotency-key", "forwarded"];
        !kept.iter().any(|k| option.eq_ignore_ascii_case(k.as_bytes()))
            && !option.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(b"x-"))
    };
    options.filter(of_every_hop).collect()
}

/// The elements of a comma-separated list.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

/// Copies headers that are kept as they came, in runs.
#[derive(Default)]
pub(super) struct Run {
    from: Option<usize>,
}

impl Run {
    pub(super) fn push(&mut self, bytes: &[u8], header: &httparse::Header<'_>, keep: bool, out: &mut Vec<u8>) {
        // The name lies within `bytes`: it was parsed from it.
        let at = header.name.as_ptr() as usize - bytes.as_ptr() as usize;
        if !keep {
            self.end(bytes, at, out);
        } else if self.from.is_none() {
            self.from = Some(at);
        }
    }

    /// The run, if there is one, ends before `at`.
    pub(super) fn end(&mut self, bytes: &[u8], at: usize, out: &mut Vec<u8>) {
        if let Some(from) = self.from.take() {
            out.extend_from_slice(&bytes[from..at]);
        }
    }
}

/// A `Content-Length` of digits only, at most 2^63.
pub(super) fn length(value: &[u8]) -> Option<u64> {
    let plain = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
    plain.then(|| value.iter().fold(0, |n, digit| n * 10 + u64::from(digit - b'0')))
}

impl<'a> Found<'a> {
    /// Looks at one header; true if it goes to the member as it is.
    fn take(&mut self, header: &httparse::Header<'a>, hashed: HashOf<'_>) -> Result<bool, Problem> {
        let (name, value) = (header.name, header.value);
        if let HashOf::Header(wanted) = hashed
            && name.eq_ignore_ascii_case(wanted)
        {
            self.hash = Some(hash_key(value));
        }
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
        match name.len() {
            2 if is("te") => {
                self.te_trailers |= list(value).any(|coding| coding.eq_ignore_ascii_case(b"trailers"));
                Ok(false)
            }
            4 if is("host") => once(&mut self.host, value, "two Host headers").map(|()| false),
            // A server that hands headers to programs as HTTP_NAME would set its own proxy by this one.
            5 if is("proxy") => Ok(false),
            6 if is("expect") => {
                self.expect = value.eq_ignore_ascii_case(b"100-continue");
                if self.expect { Ok(true) } else { Err(Problem::Expectation) }
            }
            7 if is("upgrade") => once(&mut self.upgrade, value, "two Upgrade headers").map(|()| false),
            9 if is("forwarded") => Ok(drop_into(&mut self.forwarded, value)),
            10 if is("connection") => Ok(drop_into(&mut self.connection, value)),
            10 if is("keep-alive") => Ok(false),
            14 if is("content-length") => {
                let length = length(value).ok_or(Problem::malformed("Content-Length is not one plain number"))?;
                once(&mut self.length, length, "two Content-Length headers").map(|()| false)
            }
            14 if is("http2-settings") => Ok(false),
            14 if is("content_length") => Err(Problem::malformed("Content_Length, which some read as Content-Length")),
            15 if is("x-forwarded-for") => Ok(drop_into(&mut self.forwarded_for, value)),
            15 if is("idempotency-key") => {
                self.keyed = !value.is_empty();
                Ok(true)
            }
            16 if is("x-forwarded-host") => Ok(seen(&mut self.forwarded_host)),
            16 if is("proxy-connection") => Ok(false),
            17 if is("x-forwarded-proto") => Ok(seen(&mut self.forwarded_proto)),
            17 if is("transfer-encoding") => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Problem::malformed("Transfer-Encoding is not exactly `chunked`, once"));
                }
                Ok(!seen(&mut self.chunked))
            }
            17 if is("transfer_encoding") => Err(Problem::malformed("Transfer_Encoding, which some read as Transfer-Encoding")),
            _ => Ok(true),
        }
    }

    /// Checks what only the whole head shows; the host that the member is told.
    fn check(&self, http_10: bool, authority: Option<&'a str>) -> Result<Option<&'a [u8]>, Problem> {
        if self.chunked && (self.length.is_some() || http_10) {
            return Err(Problem::malformed("Transfer-Encoding with Content-Length or in HTTP/1.0"));
        }
        if self.host.is_none() && !http_10 {
            return Err(Problem::malformed("no Host header"));
        }
        if let (Some(host), Some(authority)) = (self.host, authority)
            && !host.eq_ignore_ascii_case(authority.as_bytes())
        {
            return Err(Problem::malformed("Host differs from the request target"));
        }
        let host = authority.map(str::as_bytes).or(self.host);
        let good = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(byte);
        if host.is_some_and(|host| host.is_empty() || !host.iter().all(good)) {
            return Err(Problem::malformed("Host is no host name"));
        }
        let steering: [&[u8]; 3] = [b"host", b"content-length", b"transfer-encoding"];
        let mut options = self.connection.iter().flat_map(|value| list(value));
        if options.any(|option| steering.iter().any(|name| option.eq_ignore_ascii_case(name))) {
            return Err(Problem::malformed("Connection names a header that frames the message"));
        }
        Ok(host)
    }

    fn request(&self, method: &str, path: &str, http_10: bool, rules: &Rules<'_>, origin: &Origin) -> Result<Request, Problem> {
        let framing = match (self.chunked, self.length) {
            (true, _) => Framing::Chunked,
            (false, None | Some(0)) => Framing::None,
            (false, Some(length)) => Framing::Length(length),
        };
        let says = |option: &str| self.connection.iter().flat_map(|v| list(v)).any(|o| o.eq_ignore_ascii_case(option.as_bytes()));
        // HTTP/2 by upgrade would tunnel requests past every check made here.
        let upgrade =
            self.upgrade.is_some_and(|to| says("upgrade") && list(to).all(|p| p.get(..2).is_none_or(|p| !p.eq_ignore_ascii_case(b"h2"))));
        if upgrade && framing != Framing::None {
            return Err(Problem::malformed("Upgrade of a request with a body"));
        }
        Ok(Request {
            head: method == "HEAD",
            http_10,
            keep_alive: if http_10 { says("keep-alive") && !says("close") } else { !says("close") },
            framing,
            safe: framing == Framing::None && matches!(method, "GET" | "HEAD" | "OPTIONS") && !upgrade,
            keyed: self.keyed && !upgrade,
            marked: !upgrade && rules.repeat.iter().any(|mark| mark.means(method, path)),
            upgrade: upgrade && !http_10,
            hash: match rules.hash {
                HashOf::Nothing => None,
                HashOf::Client => Some(origin.hash),
                HashOf::Header(_) => self.hash.or(Some(origin.hash)),
            },
        })
    }

    /// The client's address at the end of lists that earlier proxies began.
    fn append_forwarded(&self, origin: &Origin, out: &mut Vec<u8>) {
        let lists = [("X-Forwarded-For: ", &self.forwarded_for, &origin.address), ("Forwarded: ", &self.forwarded, &origin.forwarded)];
        for (name, values, own) in lists {
            let mut parts: Vec<&[u8]> = values.iter().flat_map(|value| [*value, b", "]).collect();
            parts.push(own.as_bytes());
            line(out, name, &parts);
        }
        if !self.forwarded_proto {
            line(out, "X-Forwarded-Proto: http", &[]);
        }
    }

    /// Writes what this hop says for itself, and the end of the head.
    fn write(&self, request: &Request, host: Option<&[u8]>, origin: &Origin, out: &mut Vec<u8>) {
        if let Some(host) = host {
            line(out, "Host: ", &[host]);
            if !self.forwarded_host {
                line(out, "X-Forwarded-Host: ", &[host]);
            }
        } else {
            line(out, "Host: ", &[b"localhost"]);
        }
        match (self.chunked, self.length) {
            (true, _) => line(out, "Transfer-Encoding: chunked", &[]),
            (false, Some(length)) => line(out, "Content-Length: ", &[length.to_string().as_bytes()]),
            (false, None) => {}
        }
        if self.forwarded_for.is_empty() && self.forwarded.is_empty() && !self.forwarded_proto {
            out.extend_from_slice(&origin.lines);
        } else {
            self.append_forwarded(origin, out);
        }
        match (request.upgrade, self.te_trailers) {
            (true, _) => {
                line(out, "Upgrade: ", &[self.upgrade.unwrap_or_default()]);
                line(out, "Connection: upgrade", &[]);
            }
            (false, true) => line(out, "TE: trailers\r\nConnection: te", &[]),
            (false, false) => {}
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes one header line: its name with colon and space, then the parts of its value.
fn line(out: &mut Vec<u8>, name: &str, parts: &[&[u8]]) {
    out.extend_from_slice(name.as_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.extend_from_slice(b"\r\n");
}

fn once<T>(place: &mut Option<T>, value: T, twice: &'static str) -> Result<(), Problem> {
    if place.replace(value).is_some() { Err(Problem::malformed(twice)) } else { Ok(()) }
}

/// Keeps the value for later; the header itself is not copied.
fn drop_into<'a>(values: &mut Vec<&'a [u8]>, value: &'a [u8]) -> bool {
    values.push(value);
    false
}

/// Notes that the header is there; it is copied.
const fn seen(flag: &mut bool) -> bool {
    *flag = true;
    true
}
