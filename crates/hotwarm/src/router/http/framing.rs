//! Where a body ends: by length, by chunks, or with the connection. Strict: what a member might read differently is refused.
//!
//! It looks at bytes and must never change or hold them, so bodies stream through as they came. The main path: [`Body::step`].

use std::ops::Range;

/// Bytes of chunk extensions that one body may have: they carry nothing that anybody uses.
const EXTENSIONS: usize = 1024;
/// Bytes of trailers that one body may have.
const TRAILERS: usize = 8 * 1024;
/// Hexadecimal digits of a chunk's size: 2^60 at most, which nobody's arithmetic wraps on.
const SIZE_DIGITS: u8 = 15;
/// The longest trailer name that is looked at; a longer one is none of the forbidden ones.
const NAME: usize = 32;

/// The body is not framed as HTTP demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("body framed wrongly: {0}")]
pub(in crate::router) struct BadBody(pub &'static str);

/// How a body's end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::router) enum Framing {
    None,
    Length(u64),
    Chunked,
    /// Of replies only.
    UntilClose,
}

/// A body on its way.
#[derive(Debug)]
pub(in crate::router) enum Body {
    Length(u64),
    Chunked(Chunked),
    UntilClose,
}

/// One piece of a body.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::router) struct Step {
    /// Bytes from the front that belong to the body, framing included.
    pub used: usize,
    /// Which of them are content.
    pub content: Range<usize>,
}

impl Body {
    pub(in crate::router) fn new(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Length(0),
            Framing::Length(n) => Self::Length(n),
            Framing::Chunked => Self::Chunked(Chunked::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    pub(in crate::router) fn is_done(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunked) => chunked.state == State::Done,
            Self::UntilClose => false,
        }
    }

    /// Takes the next piece from the front of `bytes`; `used` is 0 only when the body is done or `bytes` is empty.
    pub(in crate::router) fn step(&mut self, bytes: &[u8]) -> Result<Step, BadBody> {
        match self {
            Self::Length(left) => {
                let used = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
                *left -= used as u64;
                Ok(Step { used, content: 0..used })
            }
            Self::Chunked(chunked) => chunked.step(bytes),
            Self::UntilClose => Ok(Step { used: bytes.len(), content: 0..bytes.len() }),
        }
    }

    /// How many bytes from the front of `bytes` belong to the body.
    pub(in crate::router) fn measure(&mut self, bytes: &[u8]) -> Result<usize, BadBody> {
        let mut used = 0;
        while used < bytes.len() && !self.is_done() {
            used += self.step(&bytes[used..])?.used;
        }
        Ok(used)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Extension,
    SizeEnd,
    Content,
    ContentCr,
    ContentLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    LastLf,
    Done,
}

/// The chunked coding, byte by byte except for content.
#[derive(Debug, Default)]
pub(in crate::router) struct Chunked {
    state: State,
    left: u64,
    digits: u8,
    extensions: usize,
    trailers: usize,
    name: Vec<u8>,
}

impl Chunked {
    fn step(&mut self, bytes: &[u8]) -> Result<Step, BadBody> {
        for (at, &byte) in bytes.iter().enumerate() {
            if self.state == State::Content {
                let n = usize::try_from(self.left).map_or(bytes.len() - at, |left| left.min(bytes.len() - at));
                self.left -= n as u64;
                if self.left == 0 {
                    self.state = State::ContentCr;
                }
                return Ok(Step { used: at + n, content: at..at + n });
            }
            self.take(byte)?;
            if self.state == State::Done {
                return Ok(Step { used: at + 1, content: 0..0 });
            }
        }
        Ok(Step { used: bytes.len(), content: 0..0 })
    }

    fn take(&mut self, byte: u8) -> Result<(), BadBody> {
        self.state = match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => self.digit(byte)?,
            (State::Size, b';') if self.digits > 0 => State::Extension,
            (State::Size, b'\r') if self.digits > 0 => State::SizeEnd,
            (State::Size, _) => return Err(BadBody("chunk size is not hexadecimal")),
            (State::Extension, b'\r') => State::SizeEnd,
            (State::Extension, b'\t' | b' '..=b'~') => self.extension()?,
            (State::Extension, _) => return Err(BadBody("control character in a chunk extension")),
            (State::SizeEnd, b'\n') => self.size_ends(),
            (State::ContentCr, b'\r') => State::ContentLf,
            (State::ContentLf, b'\n') => State::Size,
            (State::ContentCr | State::ContentLf, _) => return Err(BadBody("chunk longer than its size")),
            (State::TrailerStart, b'\r') => State::LastLf,
            (State::TrailerStart | State::TrailerName, _) => self.trailer_name(byte)?,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => self.trailer(State::TrailerValue)?,
            (State::TrailerValue, _) => return Err(BadBody("control character in a trailer")),
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::LastLf, b'\n') => State::Done,
            (State::SizeEnd | State::TrailerLf | State::LastLf, _) => return Err(BadBody("carriage return without line feed")),
            (State::Content | State::Done, _) => return Err(BadBody("byte out of place")),
        };
        Ok(())
    }

    fn digit(&mut self, byte: u8) -> Result<State, BadBody> {
        if self.digits == SIZE_DIGITS {
            return Err(BadBody("chunk size too large"));
        }
        self.digits += 1;
        self.left = self.left << 4 | u64::from((byte as char).to_digit(16).unwrap_or(0));
        Ok(State::Size)
    }

    fn extension(&mut self) -> Result<State, BadBody> {
        self.extensions += 1;
        if self.extensions > EXTENSIONS { Err(BadBody("chunk extensions too long")) } else { Ok(State::Extension) }
    }

    fn size_ends(&mut self) -> State {
        self.digits = 0;
        if self.left == 0 { State::TrailerStart } else { State::Content }
    }

    fn trailer(&mut self, next: State) -> Result<State, BadBody> {
        self.trailers += 1;
        if self.trailers > TRAILERS { Err(BadBody("trailers too long")) } else { Ok(next) }
    }

    fn trailer_name(&mut self, byte: u8) -> Result<State, BadBody> {
        if byte == b':' && !self.name.is_empty() {
            let forbidden = is_framing(&self.name);
            self.name.clear();
            return if forbidden { Err(BadBody("trailer that only a head may have")) } else { self.trailer(State::TrailerValue) };
        }
        if !is_token(byte) {
            return Err(BadBody("trailer name is not a token"));
        }
        if self.name.len() < NAME {
            self.name.push(byte.to_ascii_lowercase());
        }
        self.trailer(State::TrailerName)
    }
}

/// Fields that say how a message is framed or where it goes: in a trailer they could only mislead.
fn is_framing(name: &[u8]) -> bool {
    matches!(
        name,
        b"content-length" | b"transfer-encoding" | b"host" | b"connection" | b"trailer" | b"te" | b"upgrade" | b"expect" | b"authorization"
    )
}

/// A character of a token (RFC 9110, section 5.6.2).
pub(in crate::router) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8]) -> Result<(usize, bool), BadBody> {
        let mut body = Body::new(Framing::Chunked);
        let used = body.measure(text)?;
        Ok((used, body.is_done()))
    }

    #[test]
    fn chunks_end_where_they_end() {
        assert_eq!(all(b"5\r\nhello\r\n0\r\n\r\nGET"), Ok((15, true)));
        assert_eq!(all(b"5;a=b\r\nhello\r\n0\r\nA: b\r\n\r\n"), Ok((25, true)));
        assert_eq!(all(b"A\r\n01234"), Ok((8, false)));
    }

    #[test]
    fn the_same_byte_by_byte() {
        let text = b"3\r\nabc\r\nb;x\r\n01234567890\r\n0\r\nX-Sum: 1\r\n\r\n";
        let (mut body, mut content) = (Body::new(Framing::Chunked), Vec::new());
        for byte in text {
            let step = body.step(std::slice::from_ref(byte)).expect("well framed");
            content.extend_from_slice(&[*byte][step.content]);
        }
        assert!(body.is_done());
        assert_eq!(content, b"abc01234567890");
    }

    #[test]
    fn what_may_be_read_two_ways_is_refused() {
        let bad: &[&[u8]] = &[
            b"5\nhello\r\n",
            b"5\r\nhello\n",
            b"5\r\nhelloX",
            b" 5\r\n",
            b"5 \r\n",
            b"+5\r\n",
            b"0x5\r\n",
            b"\r\n",
            b";a\r\n",
            b"5;a\nb\r\n",
            b"5;a\rb\r\n",
            b"5;\0\r\n",
            b"1000000000000000\r\n",
            b"0\r\nContent-Length: 5\r\n\r\n",
            b"0\r\n folded\r\n\r\n",
            b"0\r\nname : x\r\n\r\n",
            b"0\r\nA: b\n\r\n",
            b"0\r\n\rX",
            b"-1\r\n",
        ];
        for text in bad {
            assert!(all(text).is_err(), "{:?}", String::from_utf8_lossy(text));
        }
        assert!(all(&[b"1;".as_slice(), &[b'a'; EXTENSIONS + 1], b"\r\nx\r\n"].concat()).is_err());
        assert!(all(&[b"0\r\n".as_slice(), &[b'a'; TRAILERS + 1], b": b\r\n\r\n"].concat()).is_err());
    }
}
