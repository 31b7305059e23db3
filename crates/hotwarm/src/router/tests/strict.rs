//! Requests that two readers could read differently: each is refused, the connection closed, and no member ever sees one.

use super::client::{Client, get};
use super::member::Member;
use super::stage::{Stage, config};
use crate::config::Protocol;

/// A request that somebody would like to smuggle past, if the router ended its own at the wrong place.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n";

/// What is sent, and the status it must get.
const REFUSED: &[(&str, u16)] = &[
    // Two ways to tell the length.
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\ncontent-length: 0\r\n\r\nhello", 400),
    // A length that is no plain number.
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -5\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5,5\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 6\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5 5\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x5\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5.0\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5e0\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: \"5\"\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: five\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length:\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 18446744073709551617\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999999\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\x0b\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nContent_Length: 5\r\n\r\nhello", 400),
    // A coding that is not exactly `chunked`, once, in HTTP/1.1.
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: identity\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer_Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.0\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    // Lines that end, or go on, otherwise than by CR LF.
    ("GET / HTTP/1.1\nHost: h\n\n", 400),
    ("GET / HTTP/1.1\r\nHost: h\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: h\r\nA: b\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: h\r\nA: b\rTransfer-Encoding: chunked\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n folded\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n\tfolded\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400),
    ("\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\r\nHost: h\r\n\r\n", 400),
    // Headers that are none.
    ("GET / HTTP/1.1\r\nHost: h\r\nno colon\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: h\r\n: no name\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: h\r\nA b: c\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: h\r\nA : c\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: h\r\nA\x00: c\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: h\r\nA: b\x00c\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: h\r\nA: b\x7fc\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: h\r\nA: b\x01c\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: h\r\nA(b): c\r\n\r\n", 400),
    // Hosts.
    ("GET / HTTP/1.1\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    ("GET http://other/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("GET http://u@h/ HTTP/1.1\r\nHost: u@h\r\n\r\n", 400),
    // Request lines.
    ("GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("GET /  HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("GET\t/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    (" GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("GET / HTTP/1.1 \r\nHost: h\r\n\r\n", 400),
    ("GET /\x00 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("GET /\x7f HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("GET /\u{e9} HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("GET /#fragment HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("GET a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("GET http://h?q HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("G(T / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("GE\x00T / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("GETTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTT / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
    ("GET /\r\nHost: h\r\n\r\n", 400),
    ("GET / http/1.1\r\nHost: h\r\n\r\n", 400),
    ("GET / HTTP/1.10\r\nHost: h\r\n\r\n", 400),
    ("GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
    ("GET / HTTP/0.9\r\nHost: h\r\n\r\n", 505),
    ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n", 501),
    ("\x16\x03\x01\x02\x00\x01\x00", 400),
    // Chunks.
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\n\r\n", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n A: b\r\n\r\n", 400),
    // Headers of this hop that would change what the member reads.
    ("POST / HTTP/1.1\r\nHost: h\r\nConnection: content-length\r\nContent-Length: 5\r\n\r\nhello", 400),
    ("POST / HTTP/1.1\r\nHost: h\r\nConnection: close, Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: h\r\nConnection: Host\r\n\r\n", 400),
    ("GET / HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\n\r\n", 417),
    ("POST / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello", 400),
];

#[tokio::test]
async fn what_may_be_read_two_ways_is_refused_and_no_member_sees_it() {
    let member = Member::good("a").await;
    let stage = Stage::http();
    stage.open(1, &[&member]);
    assert!(REFUSED.len() >= 60);
    for (request, status) in REFUSED {
        let mut client = Client::to(stage.address).await;
        client.send(format!("{request}{SMUGGLED}").as_bytes()).await;
        let reply = client.reply().await.unwrap_or_else(|| panic!("no reply to {request:?}"));
        assert_eq!((reply.status, reply.header("connection")), (*status, Some("close")), "{request:?}");
        assert!(client.ends().await, "{request:?}");
        assert_eq!(member.count(), 0, "{request:?}");
    }
    // The same, byte by byte: nothing may hang on how the bytes arrive.
    for (request, status) in REFUSED {
        let mut client = Client::to(stage.address).await;
        for byte in request.as_bytes() {
            client.send(&[*byte]).await;
            tokio::task::yield_now().await;
        }
        client.send(SMUGGLED.as_bytes()).await;
        let reply = client.reply().await.unwrap_or_else(|| panic!("no reply to {request:?}"));
        assert_eq!(reply.status, *status, "{request:?}");
        assert!(client.ends().await, "{request:?}");
    }
    assert_eq!(get(stage.address, "/").await.unwrap().status, 200);
}

#[tokio::test]
async fn what_is_odd_but_clear_is_accepted() {
    let member = Member::good("a").await;
    let stage = Stage::http();
    stage.open(1, &[&member]);
    for request in [
        "\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET http://h:80/x HTTP/1.1\r\nHost: h:80\r\n\r\n",
        "GET HTTP://h HTTP/1.1\r\nHost: H\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
        "GET / HTTP/1.1\r\nhOsT:h\r\nA:\t b \t\r\nEmpty:\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 005\r\n\r\nhello",
        "GET /?q=%20{}|\"<> HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "M-SEARCH / HTTP/1.1\r\nHost: h\r\nX: \u{fc}\r\n\r\n",
    ] {
        let mut client = Client::to(stage.address).await;
        client.send(format!("{request}GET /next HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).await;
        let reply = client.reply().await.unwrap();
        assert!(reply.status < 500 && reply.code().is_empty(), "{request:?}: {reply:?}");
        assert!(client.reply().await.unwrap().text().starts_with("GET /next\n"), "{request:?}");
    }
}

#[tokio::test]
async fn heads_have_limits() {
    let member = Member::good("a").await;
    let mut config = config(false, Protocol::Http);
    (config.http.head_bytes, config.http.headers) = (2000, 10);
    let stage = Stage::new(config, 1);
    stage.open(1, &[&member]);
    let many = "A: b\r\n".repeat(10);
    let long = format!("A: {}\r\n", "b".repeat(2000));
    let endless = "b".repeat(100_000);
    for head in [&many, &long, &endless] {
        let mut client = Client::to(stage.address).await;
        client.send(format!("GET / HTTP/1.1\r\nHost: h\r\n{head}\r\n").as_bytes()).await;
        let reply = client.reply().await.unwrap();
        assert_eq!((reply.status, reply.code()), (431, "HW0805"));
    }
    let mut client = Client::to(stage.address).await;
    client.send(format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "A: b\r\n".repeat(9)).as_bytes()).await;
    assert_eq!(client.reply().await.unwrap().status, 200);
    assert_eq!(member.count(), 1);
}
