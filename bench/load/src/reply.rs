//! The replies of HTTP as far as a load generator must understand them: where one ends, and whether it was a success.
//!
//! Main path: [`parse`] over what has arrived so far.

/// How much of a reply is there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Partial,
    /// Its status, its length, and whether the connection may carry another request.
    Whole {
        status: u16,
        bytes: usize,
        keep: bool,
    },
    Malformed,
}

/// Reads one reply from the beginning of `bytes`; chunked bodies are not expected from the members used here.
pub(crate) fn parse(bytes: &[u8]) -> Reply {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let Ok(parsed) = head.parse(bytes) else { return Reply::Malformed };
    let httparse::Status::Complete(head_bytes) = parsed else { return Reply::Partial };
    let (mut length, mut keep) = (0, true);
    for header in head.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
        if header.name.eq_ignore_ascii_case("content-length") {
            let Ok(number) = value.parse() else { return Reply::Malformed };
            length = number;
        } else if header.name.eq_ignore_ascii_case("connection") {
            keep = !value.eq_ignore_ascii_case("close");
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Reply::Malformed;
        }
    }
    let Some(status) = head.code else { return Reply::Malformed };
    if bytes.len() < head_bytes + length { Reply::Partial } else { Reply::Whole { status, bytes: head_bytes + length, keep } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_whole_when_its_body_is() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        assert_eq!(parse(text), Reply::Whole { status: 200, bytes: text.len(), keep: true });
        for cut in 1..text.len() {
            assert_eq!(parse(&text[..cut]), Reply::Partial, "{cut}");
        }
        let closing = b"HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(parse(closing), Reply::Whole { status: 503, bytes: closing.len(), keep: false });
        assert_eq!(parse(b"SSH-2.0\r\n"), Reply::Malformed);
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), Reply::Malformed);
    }
}
