//! The hard cases of HTTP: bodies larger than memory should be, interim replies, upgrades, bad members, slow clients.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{Client, ask, get};
use super::member::Member;
use super::stage::{Stage, config, until};
use crate::config::Protocol;
use crate::router::Failure;

const MIB: usize = 1 << 20;

/// Waits until the router takes nothing more from its member, whose client does not read; how much it took.
async fn stops_reading(stage: &Stage) -> u64 {
    let mut before = 0;
    for _ in 0..400 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let after = stage.stats().members[0].bytes_received;
        if after > 0 && after == before {
            return after;
        }
        before = after;
    }
    panic!("it reads on and on");
}

#[tokio::test]
async fn a_large_body_comes_down_and_waits_for_a_client_that_does_not_read() {
    const SIZE: usize = 32 * MIB;
    let member = Member::raw("a", |mut stream, _| async move {
        let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes()).await;
        let piece: Vec<u8> = (0..251).cycle().take(251 * 1024).collect();
        let mut left = SIZE;
        while left > 0 {
            let n = left.min(piece.len());
            stream.write_all(&piece[..n]).await.unwrap();
            left -= n;
        }
    })
    .await;
    let stage = Stage::http();
    stage.open(1, &[&member]);
    let mut client = Client::to(stage.address).await;
    client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    // What it takes in without a reader is bounded by the sockets' buffers, not by the body.
    let received = stops_reading(&stage).await;
    assert!(received < (SIZE / 2) as u64, "{received}");
    let reply = client.reply().await.unwrap();
    assert_eq!(reply.body.len(), SIZE);
    assert!(reply.body.iter().zip((0..251).cycle()).all(|(a, b)| *a == b));
}

#[tokio::test]
async fn a_large_body_goes_up_in_chunks_and_comes_back() {
    let member = Member::good("a").await;
    let stage = Stage::http();
    stage.open(1, &[&member]);
    let mut client = Client::to(stage.address).await;
    let piece = vec![b'z'; 100_000];
    client.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    for _ in 0..100 {
        client.send(format!("{:x}\r\n", piece.len()).as_bytes()).await;
        client.send(&piece).await;
        client.send(b"\r\n").await;
    }
    client.send(b"0\r\n\r\n").await;
    let reply = client.reply().await.unwrap();
    assert_eq!(reply.body.iter().filter(|byte| **byte == b'z').count(), 10_000_000);
}

#[tokio::test]
async fn both_ways_at_once() {
    let member = Member::raw("a", |mut stream, _| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
        let mut buf = vec![0; 4096];
        loop {
            let n = stream.read(&mut buf).await.unwrap_or(0);
            let last = n == 0 || buf[..n].ends_with(b"0\r\n\r\n");
            stream.write_all(&buf[..n]).await.unwrap();
            if last {
                break;
            }
        }
    })
    .await;
    let stage = Stage::http();
    stage.open(1, &[&member]);
    let mut client = Client::to(stage.address).await;
    client.send(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.head().await.unwrap();
    for n in 0..100 {
        let chunk = format!("4\r\n{n:04}\r\n");
        client.send(chunk.as_bytes()).await;
        while !client.rest.ends_with(chunk.as_bytes()) {
            assert!(client.more().await);
        }
    }
}

#[tokio::test]
async fn the_client_is_told_to_go_on_and_hears_early_hints() {
    let member = Member::raw("a", |mut stream, head| async move {
        assert!(String::from_utf8_lossy(&head).to_lowercase().contains("expect: 100-continue"));
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
        let mut body = [0; 5];
        stream.read_exact(&mut body).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await.unwrap();
        stream.write_all(&body).await.unwrap();
        stream.read_u8().await.unwrap_err();
    })
    .await;
    let stage = Stage::http();
    stage.open(1, &[&member]);
    let mut client = Client::to(stage.address).await;
    client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    let hints = client.head().await.unwrap();
    assert!(hints.starts_with("HTTP/1.1 103 ") && hints.contains("Link: </a>\r\n"), "{hints}");
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 100 "));
    client.send(b"hello").await;
    assert_eq!(client.reply().await.unwrap().text(), "hello");
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel_that_ends_with_its_epoch() {
    let member = Member::good("a").await;
    let stage = Stage::http();
    stage.open(1, &[&member]);
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = Client::to(stage.address).await;
        // The first words come together with the request.
        client.send(b"GET /upgrade HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\nhello").await;
        let head = client.head().await.unwrap().to_lowercase();
        assert!(head.starts_with("http/1.1 101 ") && head.contains("connection: upgrade\r\n") && head.contains("upgrade: websocket\r\n"));
        for word in ["", "a", "bcd"] {
            client.send(word.as_bytes()).await;
        }
        while client.rest.len() < 9 {
            assert!(client.more().await);
        }
        assert_eq!(std::mem::take(&mut client.rest), b"helloabcd");
        clients.push(client);
    }
    let mut done = clients.pop().unwrap();
    done.stream.shutdown().await.unwrap();
    assert!(done.ends().await);
    stage.held(1);
    assert!(clients.pop().unwrap().ends().await);
    assert_eq!(stage.failed(Failure::Cut), 1);
}

#[tokio::test]
async fn hop_by_hop_headers_stay_here_and_lists_grow() {
    let member = Member::good("a").await;
    let stage = Stage::http();
    stage.open(1, &[&member]);
    let head = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close, X-Gone-Not, Gone, Cookie\r\nGone: 1\r\nX-Gone-Not: 1\r\nCookie: c\r\n\
                Keep-Alive: 5\r\n\
                Proxy: evil\r\nProxy-Connection: x\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nTE: gzip\r\nX-Forwarded-For: 1.2.3.4\r\n\
                X-Forwarded-Proto: https\r\nForwarded: for=1.2.3.4\r\nLast: 1\r\n\r\n";
    let text = ask(stage.address, head).await.unwrap().text();
    for line in [
        "x-gone-not: 1",
        "cookie: c",
        "x-forwarded-for: 1.2.3.4, 127.0.0.1",
        "x-forwarded-proto: https",
        "forwarded: for=1.2.3.4, for=127.0.0.1;proto=http",
        "last: 1",
    ] {
        assert!(text.contains(&format!("\n{line}\n")), "{line} in {text}");
    }
    for name in ["gone", "keep-alive", "proxy", "proxy-connection", "upgrade", "http2-settings", "te", "connection"] {
        assert!(!text.contains(&format!("\n{name}: ")), "{name} in {text}");
    }
}

#[tokio::test]
async fn a_client_of_http_1_0_is_understood() {
    let member = Member::says(
        "a",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
          5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
    )
    .await;
    let stage = Stage::http();
    stage.open(1, &[&member]);
    let mut client = Client::to(stage.address).await;
    client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    let mut all = Vec::new();
    client.stream.read_to_end(&mut all).await.unwrap();
    let text = String::from_utf8(all).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nhello!"), "{text}");
    assert!(text.contains("Connection: close\r\n") && !text.to_lowercase().contains("transfer-encoding"), "{text}");
    let good = Member::good("b").await;
    stage.open(2, &[&good]);
    let mut client = Client::to(stage.address).await;
    for _ in 0..2 {
        client.send(b"GET /size/3 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        let reply = client.reply().await.unwrap();
        assert_eq!((reply.text().as_str(), reply.header("connection")), ("xxx", Some("keep-alive")));
    }
}

#[tokio::test]
async fn a_reply_ends_where_its_member_says() {
    for (reply, text) in [
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end".as_slice(), "until the end"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "hello"),
        (b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nhello\r\n0\r\nA: b\r\n\r\n", "hello\nA: b"),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", ""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", ""),
        // More than was said is not for this client, and not for the next one.
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", "hello"),
    ] {
        let member = Member::says("a", reply).await;
        let stage = Stage::http();
        stage.open(1, &[&member]);
        let mut client = Client::to(stage.address).await;
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let got = client.reply().await.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(reply)));
        assert_eq!(got.text(), text, "{}", String::from_utf8_lossy(reply));
        let again = get(stage.address, "/").await.unwrap();
        assert_eq!(again.text(), text);
        assert_eq!(member.count(), 2);
    }
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_answer_nobody() {
    let member = Member::raw("a", |mut stream, _| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood").await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil").await;
        // Kept open: only what it said tells that the connection must not be used.
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert_eq!(rest, b"", "a request came on a connection that had said too much");
    })
    .await;
    let stage = Stage::http();
    stage.open(1, &[&member]);
    let mut client = Client::to(stage.address).await;
    for n in 1..=5 {
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert_eq!(client.reply().await.unwrap().text(), "good");
        assert_eq!(member.count(), n);
        // Those bytes have to arrive before the next request.
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

#[tokio::test]
async fn a_bad_reply_is_not_passed_on() {
    for reply in [
        b"nonsense\r\n\r\n".as_slice(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5,5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\nSet-Cookie: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
        b"HTTP/1.1 999 No\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
    ] {
        let member = Member::says("a", reply).await;
        let stage = Stage::http();
        stage.open(1, &[&member]);
        let got = get(stage.address, "/").await.unwrap();
        assert_eq!((got.status, got.code(), member.count()), (502, "HW0813", 1), "{}", String::from_utf8_lossy(reply));
    }
}

#[tokio::test]
async fn a_reply_that_breaks_off_is_seen_as_broken() {
    for reply in [
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello".as_slice(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx\r\n",
    ] {
        let member = Member::raw("a", move |mut stream, _| async move {
            stream.write_all(&reply[..reply.len() - 3]).await.unwrap();
            // In two pieces, so that the first is released before the second is known to be bad.
            tokio::time::sleep(Duration::from_millis(20)).await;
            stream.write_all(&reply[reply.len() - 3..]).await.unwrap();
        })
        .await;
        let stage = Stage::http();
        stage.open(1, &[&member]);
        let mut client = Client::to(stage.address).await;
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        assert!(client.reply().await.is_none());
        assert_eq!(member.count(), 1);
        assert_eq!(stage.failed(Failure::Truncated) + stage.failed(Failure::BadReply), 1);
    }
}

#[tokio::test]
async fn an_early_answer_to_a_large_request_arrives() {
    let member = Member::raw("a", |mut stream, _| async move {
        stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!").await.unwrap();
        stream.shutdown().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    })
    .await;
    let stage = Stage::http();
    stage.open(1, &[&member]);
    let mut client = Client::to(stage.address).await;
    client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 400000\r\n\r\n").await;
    client.send(&[b'x'; 1000]).await;
    let reply = client.reply().await.unwrap();
    assert_eq!((reply.status, reply.text().as_str(), reply.header("connection")), (413, "no!", Some("close")));
    assert!(client.ends().await);
}

#[tokio::test]
async fn a_client_that_drips_is_not_waited_for() {
    let member = Member::good("a").await;
    let mut config = config(false, Protocol::Http);
    config.timeouts.idle = Duration::from_millis(60);
    let stage = Stage::new(config, 1);
    stage.open(1, &[&member]);
    let mut silent = Client::to(stage.address).await;
    assert!(silent.ends().await);
    let mut slow = Client::to(stage.address).await;
    let dripping = async {
        loop {
            slow.stream.write_all(b"G").await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
            if slow.stream.try_read_buf(&mut slow.rest).is_ok() {
                break;
            }
        }
    };
    dripping.await;
    assert_eq!(slow.reply().await.unwrap().code(), "HW0806");
    let mut body = Client::to(stage.address).await;
    body.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe").await;
    assert!(body.ends().await);
    assert_eq!(get(stage.address, "/").await.unwrap().status, 200);
}

/// Half an interim reply is a promise that another one may not be put into.
#[tokio::test]
async fn nothing_is_put_into_a_half_written_interim_reply() {
    let member = Member::raw("a", |mut stream, _| async move {
        let hint = format!("HTTP/1.1 103 Early Hints\r\nLink: <{}>\r\n\r\n", "x".repeat(15_000));
        while stream.write_all(hint.as_bytes()).await.is_ok() {}
    })
    .await;
    let stage = Stage::new(config(true, Protocol::Http), 1).leased();
    stage.open(1, &[&member]);
    let mut client = Client::to(stage.address).await;
    client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").await;
    stops_reading(&stage).await;
    stage.held(1);
    stage.heard(|event| matches!(event, crate::router::Event::Closed { .. })).await;
    while client.more().await {}
    let text = String::from_utf8_lossy(&client.rest);
    let last = text.match_indices("HTTP/1.1 5").next().map(|(at, _)| text[..at].ends_with("\r\n\r\n"));
    assert!(last.unwrap_or(true), "{}", &text[text.len() - 600..]);
    until("counted as cut", || async { stage.failed(Failure::Cut) == 1 }).await;
}

/// However long the reply took.
#[tokio::test]
async fn a_kept_connection_is_idle_from_the_end_of_its_reply() {
    const IDLE: Duration = Duration::from_secs(2);
    let member = Member::raw("a", |mut stream, _| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n").await.unwrap();
        for _ in 0..40 {
            stream.write_all(b"x").await.unwrap();
            tokio::time::sleep(IDLE / 50).await;
        }
    })
    .await;
    let mut config = config(false, Protocol::Http);
    config.timeouts.idle = IDLE;
    let stage = Stage::new(config, 1);
    stage.open(1, &[&member]);
    let mut client = Client::to(stage.address).await;
    client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(client.reply().await.unwrap().status, 200);
    let closed = tokio::time::timeout(IDLE * 3 / 10, client.more()).await;
    assert!(closed.is_err(), "closed too early");
    assert!(client.ends().await);
}

#[tokio::test]
async fn a_reply_that_never_begins_is_given_up() {
    let member = Member::good("a").await;
    let mut config = config(false, Protocol::Http);
    config.timeouts.first_byte = Duration::from_millis(80);
    let stage = Stage::new(config, 1);
    stage.open(1, &[&member]);
    let reply = get(stage.address, "/hang").await.unwrap();
    assert_eq!((reply.status, reply.code(), member.count()), (504, "HW0812", 1));
}

#[tokio::test]
async fn slow_but_healthy_requests_are_left_alone() {
    let (a, b) = (Member::good("a").await, Member::good("b").await);
    let stage = Stage::http();
    stage.open(1, &[&a, &b]);
    let address = stage.address;
    let hanging = tokio::spawn(async move { get(address, "/hang").await });
    stage.heard(|event| matches!(event, crate::router::Event::Evidence { kind: crate::router::Kind::Slow, .. })).await;
    assert_eq!(a.count() + b.count(), 1);
    assert!(stage.stats().members.iter().all(|member| !member.ejected));
    hanging.abort();
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let mut config = config(false, Protocol::Http);
    config.http.connections = 2;
    let stage = Stage::new(config, 1);
    let first = Client::to(stage.address).await;
    let second = Client::to(stage.address).await;
    until("two connections", || async { stage.stats().connections_now == 2 }).await;
    let mut third = Client::to(stage.address).await;
    assert_eq!(third.reply().await.unwrap().code(), "HW0809");
    drop((first, second, third));
    until("places are given back", || async { stage.stats().connections_now == 0 }).await;
}
