//! The head of a member's reply: how its body is framed, and the head that the client gets.
//!
//! A reply that a client might read differently from the router must never be released: it would let one member's reply answer another
//! request. The main path: [`read`].

use std::mem::MaybeUninit;

use super::framing::Framing;
use super::head::{HEADERS, Request, Run, length, list};
use crate::router::pool::BUFFER;

/// The largest head of a reply.
pub(super) const HEAD_LIMIT: usize = 4 * BUFFER;

/// The member's reply is not acceptable HTTP.
#[derive(Debug, thiserror::Error)]
#[error("reply not acceptable: {0}")]
pub(super) struct BadReply(pub &'static str);

/// A reply as the router needs it.
#[derive(Debug)]
pub(super) struct Reply {
    pub framing: Framing,
    /// The member keeps its connection.
    pub member_keeps: bool,
    /// The client's connection is kept after this reply.
    pub client_keeps: bool,
    /// Chunks are taken apart for a client of HTTP/1.0.
    pub unchunk: bool,
    pub status: u16,
    pub kind: ReplyKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyKind {
    /// 1xx: another reply follows.
    Interim,
    /// 101: from here on the connection is a tunnel.
    Switched,
    Final,
}

#[derive(Default)]
struct Found<'a> {
    length: Option<u64>,
    chunked: bool,
    connection: Vec<&'a [u8]>,
    upgrade: Option<&'a [u8]>,
}

/// Reads the head at the front of `bytes`, if it is whole, and appends the client's to `out`. Returns its length with it.
/// `keep` says whether the client's connection may be kept as far as the router is concerned.
pub(super) fn read(bytes: &[u8], request: &Request, keep: bool, out: &mut Vec<u8>) -> Result<Option<(usize, Reply)>, BadReply> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let used = match config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut headers) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_LIMIT => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(BadReply("head too large")),
        Err(_) => return Err(BadReply("head malformed")),
    };
    let (code, member_10) = (parsed.code.unwrap_or(0), parsed.version == Some(0));
    let mut found = Found::default();
    let start = out.len();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&[b'0' + (code / 100) as u8, b'0' + (code / 10 % 10) as u8, b'0' + (code % 10) as u8, b' ']);
    out.extend_from_slice(parsed.reason.unwrap_or("").as_bytes());
    out.extend_from_slice(b"\r\n");
    let named: Vec<&[u8]> =
        parsed.headers.iter().filter(|h| h.name.eq_ignore_ascii_case("connection")).flat_map(|h| list(h.value)).collect();
    let mut run = Run::default();
    for header in parsed.headers.iter() {
        let keep = found.take(header)? && !named.iter().any(|name| name.eq_ignore_ascii_case(header.name.as_bytes()));
        run.push(bytes, header, keep, out);
    }
    // The empty line is not copied, however it was written.
    let end = if bytes[..used].ends_with(b"\r\n") { used - 2 } else { used - 1 };
    run.end(bytes, end, out);
    let reply = found.reply(code, member_10, request, keep)?;
    if reply.kind == ReplyKind::Interim && request.http_10 {
        // A client of HTTP/1.0 knows no interim replies.
        out.truncate(start);
    } else {
        found.write(code, &reply, request, out);
    }
    Ok(Some((used, reply)))
}

impl<'a> Found<'a> {
    /// Looks at one header; true if the client gets it as it is.
    fn take(&mut self, header: &httparse::Header<'a>) -> Result<bool, BadReply> {
        let (name, value) = (header.name, header.value);
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
        match name.len() {
            7 if is("upgrade") => {
                self.upgrade = Some(value);
                Ok(false)
            }
            10 if is("connection") => {
                self.connection.push(value);
                Ok(false)
            }
            10 if is("keep-alive") => Ok(false),
            14 if is("content-length") => {
                let length = length(value).ok_or(BadReply("Content-Length is not one plain number"))?;
                match self.length.replace(length) {
                    Some(before) if before != length => Err(BadReply("two lengths")),
                    _ => Ok(false),
                }
            }
            16 if is("proxy-connection") => Ok(false),
            17 if is("transfer-encoding") => {
                if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(BadReply("Transfer-Encoding is not exactly `chunked`, once"));
                }
                self.chunked = true;
                Ok(false)
            }
            _ => Ok(true),
        }
    }

    fn reply(&self, code: u16, member_10: bool, request: &Request, keep: bool) -> Result<Reply, BadReply> {
        if self.chunked && (self.length.is_some() || member_10) {
            return Err(BadReply("Transfer-Encoding with Content-Length or in HTTP/1.0"));
        }
        let kind = match code {
            101 if request.upgrade => ReplyKind::Switched,
            101 => return Err(BadReply("101 without a request to switch")),
            100..=199 => ReplyKind::Interim,
            200..=599 => ReplyKind::Final,
            _ => return Err(BadReply("status out of range")),
        };
        let framing = if request.head || matches!(code, 100..=199 | 204 | 304) {
            Framing::None
        } else if self.chunked {
            Framing::Chunked
        } else {
            self.length.map_or(Framing::UntilClose, Framing::Length)
        };
        let says = |option: &[u8]| self.connection.iter().flat_map(|v| list(v)).any(|o| o.eq_ignore_ascii_case(option));
        let unchunk = framing == Framing::Chunked && request.http_10;
        Ok(Reply {
            framing,
            member_keeps: framing != Framing::UntilClose && if member_10 { says(b"keep-alive") } else { !says(b"close") },
            client_keeps: keep && framing != Framing::UntilClose && !unchunk,
            unchunk,
            status: code,
            kind,
        })
    }

    /// Writes what this hop says for itself, and the end of the head.
    fn write(&self, code: u16, reply: &Reply, request: &Request, out: &mut Vec<u8>) {
        let bodiless = matches!(code, 100..=199 | 204);
        if let Some(length) = self.length.filter(|_| !bodiless) {
            out.extend_from_slice(b"Content-Length: ");
            out.extend_from_slice(length.to_string().as_bytes());
            out.extend_from_slice(b"\r\n");
        } else if self.chunked && !bodiless && !request.http_10 {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        if let (Some(to), true) = (self.upgrade, reply.kind == ReplyKind::Switched || code == 426) {
            out.extend_from_slice(b"Upgrade: ");
            out.extend_from_slice(to);
            out.extend_from_slice(b"\r\n");
        }
        match reply.kind {
            ReplyKind::Interim => {}
            ReplyKind::Switched => out.extend_from_slice(b"Connection: upgrade\r\n"),
            ReplyKind::Final if !reply.client_keeps => out.extend_from_slice(b"Connection: close\r\n"),
            ReplyKind::Final if request.http_10 => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            ReplyKind::Final => {}
        }
        out.extend_from_slice(b"\r\n");
    }
}
