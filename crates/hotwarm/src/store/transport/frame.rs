//! Frames between nodes (S13): length u32, crc32c u32, kind u8, version u8, body; little-endian; 16 MiB at most.
//!
//! Must never trust a length before it is checked, nor skip over a bad frame: after one, nothing on the connection means anything.
//! The main path enters at [`encode`] (sender) and [`Reader::next`] (receiver).

use bytes::{Buf, BytesMut};

/// Bytes before the body: length, checksum, kind, version.
pub(super) const HEADER: usize = 10;
/// The longest body.
pub const MAX_BODY: usize = 16 * 1024 * 1024;
/// The longest body before the sender is known: a stranger cannot make us hold more.
pub(super) const MAX_GREETING: usize = 4 * 1024;
/// The only version of each kind that is spoken so far.
pub(super) const VERSION: u8 = 1;
/// A read buffer that grew over this for one large frame is given back after it.
const KEEP_BUFFER: usize = 1024 * 1024;
/// How much is made free for one read from the socket.
const READ_CHUNK: usize = 64 * 1024;

/// What a frame's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// First frame of the dialer: who it is and whom it wants.
    Hello = 1,
    /// The acceptor's answer: go on.
    Welcome = 2,
    /// The acceptor's last frame: why it closes the connection, for people.
    Refused = 3,
    /// One message of the core.
    Message = 4,
}

impl Kind {
    const fn of(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Hello),
            2 => Some(Self::Welcome),
            3 => Some(Self::Refused),
            4 => Some(Self::Message),
            _ => None,
        }
    }
}

/// Why the bytes of a connection are no frames. The connection is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("frame of {length} bytes where at most {max} are allowed: the other side is not a hotwarm node of this version")]
    TooLong { length: usize, max: usize },
    #[error("frame with a wrong checksum: bytes were changed on the way, or the other side is not hotwarm")]
    Checksum,
    #[error("frame of unknown kind {0}: upgrade hotwarm on this node")]
    UnknownKind(u8),
    #[error("{kind} frame has version {version}, this hotwarm reads {VERSION}: upgrade hotwarm on the older node")]
    UnknownVersion { kind: String, version: u8 },
}

/// Appends one frame to `out`. The caller has checked that the body is at most [`MAX_BODY`].
pub(super) fn encode(out: &mut Vec<u8>, kind: Kind, body: &[u8]) {
    debug_assert!(body.len() <= MAX_BODY, "frame body over the limit");
    let tail = [kind as u8, VERSION];
    let crc = crc32c::crc32c_append(crc32c::crc32c(&tail), body);
    out.reserve(HEADER + body.len());
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&tail);
    out.extend_from_slice(body);
}

/// Turns the bytes of one connection back into frames.
#[derive(Debug)]
pub(super) struct Reader {
    buffer: BytesMut,
    max_body: usize,
}

impl Reader {
    /// A reader for a connection whose other side is not known yet.
    pub(super) fn new() -> Self {
        Self { buffer: BytesMut::new(), max_body: MAX_GREETING }
    }

    /// The other side is known: full-size frames are allowed from here on.
    pub(super) const fn trust(&mut self) {
        self.max_body = MAX_BODY;
    }

    /// Where the next bytes from the socket go. It grows with what arrives, not with what a header claims.
    pub(super) fn space(&mut self) -> &mut BytesMut {
        if self.buffer.is_empty() && self.buffer.capacity() > KEEP_BUFFER {
            self.buffer = BytesMut::new();
        }
        self.buffer.reserve(READ_CHUNK);
        &mut self.buffer
    }

    /// The next whole frame, or `None` until more bytes arrive.
    ///
    /// # Errors
    /// When the bytes are no frame; the connection must be closed.
    pub(super) fn next(&mut self) -> Result<Option<(Kind, Vec<u8>)>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let [l0, l1, l2, l3, c0, c1, c2, c3, kind, version] = *header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if length > self.max_body {
            return Err(FrameError::TooLong { length, max: self.max_body });
        }
        let Some(tail) = self.buffer.get(8..HEADER + length) else { return Ok(None) };
        if crc32c::crc32c(tail) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(FrameError::Checksum);
        }
        let kind_known = Kind::of(kind).ok_or(FrameError::UnknownKind(kind))?;
        if version != VERSION {
            return Err(FrameError::UnknownVersion { kind: format!("{kind_known:?}").to_lowercase(), version });
        }
        let body = tail[2..].to_vec();
        self.buffer.advance(HEADER + length);
        Ok(Some((kind_known, body)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Option<(Kind, Vec<u8>)>, FrameError> {
        let mut reader = Reader::new();
        reader.space().extend_from_slice(bytes);
        reader.next()
    }

    fn hello(body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out, Kind::Hello, body);
        out
    }

    #[test]
    fn golden_bytes() {
        // The format is on the wire between versions: these bytes do not change.
        assert_eq!(hello(b"hotwarm"), [7, 0, 0, 0, 0xe6, 0x83, 0x72, 0x68, 1, 1, b'h', b'o', b't', b'w', b'a', b'r', b'm']);
    }

    #[test]
    fn whole_only_when_the_last_byte_is_there() {
        let mut bytes = hello(b"one");
        encode(&mut bytes, Kind::Message, b"two");
        let mut reader = Reader::new();
        let mut seen = Vec::new();
        for byte in bytes {
            reader.space().extend_from_slice(&[byte]);
            seen.extend(reader.next().unwrap());
        }
        assert_eq!(seen, [(Kind::Hello, b"one".to_vec()), (Kind::Message, b"two".to_vec())]);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let good = hello(b"some body");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // A longer length waits for bytes that never come; everything else is an error.
            assert!(!matches!(read(&bad), Ok(Some(_))), "bit {bit}");
        }
    }

    #[test]
    fn a_stranger_may_not_send_much() {
        let bytes = hello(&vec![0; MAX_GREETING + 1]);
        assert_eq!(read(&bytes), Err(FrameError::TooLong { length: MAX_GREETING + 1, max: MAX_GREETING }));
        let mut reader = Reader::new();
        reader.trust();
        reader.space().extend_from_slice(&bytes);
        assert!(matches!(reader.next(), Ok(Some((Kind::Hello, body))) if body.len() == MAX_GREETING + 1));
        reader.space().extend_from_slice(&(MAX_BODY as u32 + 1).to_le_bytes());
        reader.space().extend_from_slice(&[0; 6]);
        assert_eq!(reader.next(), Err(FrameError::TooLong { length: MAX_BODY + 1, max: MAX_BODY }));
    }

    #[test]
    fn unknown_kind_and_version_are_named() {
        let mut bytes = hello(b"x");
        let refresh = |bytes: &mut Vec<u8>| {
            let crc = crc32c::crc32c(&bytes[8..]);
            bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        };
        bytes[9] = 9;
        refresh(&mut bytes);
        let error = read(&bytes).unwrap_err();
        assert_eq!(error.to_string(), "hello frame has version 9, this hotwarm reads 1: upgrade hotwarm on the older node");
        bytes[8] = 77;
        refresh(&mut bytes);
        assert_eq!(read(&bytes), Err(FrameError::UnknownKind(77)));
    }
}
