//! Every answer that the router gives itself: status, code, and what to do.
//!
//! Its texts say nothing of addresses or members. The main path: [`Problem::write`].

use crate::router::stats::Failure;

/// Why the client gets an answer of the router and not of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    Malformed(&'static str),
    Method,
    Version,
    Expectation,
    TooLarge,
    SlowHead,
    ParkTime,
    Unreached,
    ParkFull,
    Connections,
    Broken,
    Cut,
    Timeout,
    BadReply,
    Stopped,
}

impl Problem {
    pub(super) const fn malformed(what: &'static str) -> Self {
        Self::Malformed(what)
    }

    pub(super) const fn failure(self) -> Failure {
        match self {
            Self::Malformed(_) | Self::Method | Self::Version | Self::Expectation | Self::TooLarge | Self::SlowHead => Failure::Malformed,
            Self::ParkTime | Self::Unreached => Failure::ParkTime,
            Self::ParkFull => Failure::ParkFull,
            Self::Connections => Failure::Connections,
            Self::Broken => Failure::Broken,
            Self::Cut => Failure::Cut,
            Self::Timeout => Failure::Timeout,
            Self::BadReply => Failure::BadReply,
            Self::Stopped => Failure::Stopped,
        }
    }

    /// Status line, code, what happened, what to do.
    const fn parts(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::Malformed(what) => ("400 Bad Request", "HW0801", what, "send HTTP/1.1 as RFC 9112 writes it"),
            Self::Method => ("501 Not Implemented", "HW0802", "CONNECT is not offered here", "use another method"),
            Self::Version => ("505 HTTP Version Not Supported", "HW0803", "HTTP version is neither 1.0 nor 1.1", "speak HTTP/1.1"),
            Self::Expectation => ("417 Expectation Failed", "HW0804", "expectation is not 100-continue", "leave out Expect"),
            Self::TooLarge => (
                "431 Request Header Fields Too Large",
                "HW0805",
                "request head too large or with too many headers",
                "send less, or raise the group's limits",
            ),
            Self::SlowHead => ("408 Request Timeout", "HW0806", "request head did not come in time", "send it at once"),
            Self::ParkTime => (
                "503 Service Unavailable",
                "HW0807",
                "no hot member came while the request waited; it was not carried out or may be repeated",
                "try again",
            ),
            Self::Unreached => (
                "503 Service Unavailable",
                "HW0815",
                "this router cannot reach the hot member; the request was not carried out or may be repeated",
                "try another node's address",
            ),
            Self::ParkFull => {
                ("503 Service Unavailable", "HW0808", "no hot member, and too many requests wait already; it was not sent", "try again")
            }
            Self::Connections => ("503 Service Unavailable", "HW0809", "too many connections", "try again, or raise the group's limit"),
            Self::Broken => (
                "502 Bad Gateway",
                "HW0810",
                "sent, outcome unknown: the connection to the member broke",
                "find out whether it was carried out before repeating it; an Idempotency-Key lets hotwarm repeat it",
            ),
            Self::Cut => (
                "502 Bad Gateway",
                "HW0811",
                "sent, outcome unknown: the member was replaced meanwhile",
                "find out whether it was carried out before repeating it; an Idempotency-Key lets hotwarm repeat it",
            ),
            Self::Timeout => (
                "504 Gateway Timeout",
                "HW0812",
                "sent, outcome unknown: no reply came in time",
                "find out whether it was carried out before repeating it",
            ),
            Self::BadReply => ("502 Bad Gateway", "HW0813", "the member's reply is not acceptable HTTP", "look at the member"),
            Self::Stopped => ("503 Service Unavailable", "HW0814", "the group's listener is closed", "use another node's address"),
        }
    }

    const fn is_retryable(self) -> bool {
        matches!(self, Self::ParkTime | Self::Unreached | Self::ParkFull | Self::Connections | Self::Stopped)
    }

    /// The whole reply.
    pub(super) fn write(self, head_only: bool, close: bool, out: &mut Vec<u8>) {
        let (status, code, error, hint) = self.parts();
        let body = format!("{{\"code\":\"{code}\",\"error\":\"{error}\",\"hint\":\"{hint}\"}}\n");
        let retry = if self.is_retryable() { "Retry-After: 1\r\n" } else { "" };
        let connection = if close { "Connection: close\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             X-Hotwarm-Code: {code}\r\n{retry}{connection}\r\n",
            body.len()
        );
        out.extend_from_slice(head.as_bytes());
        if !head_only {
            out.extend_from_slice(body.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_json_and_as_long_as_said() {
        for problem in [Problem::malformed("x `y`"), Problem::ParkTime, Problem::Unreached, Problem::Broken, Problem::TooLarge] {
            let mut out = Vec::new();
            problem.write(false, true, &mut out);
            let text = String::from_utf8(out).expect("text");
            let (head, body) = text.split_once("\r\n\r\n").expect("a head");
            let value: serde_json::Value = serde_json::from_str(body).expect("JSON");
            assert!(value["code"].as_str().is_some_and(|code| code.starts_with("HW08")));
            assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
        }
    }
}
