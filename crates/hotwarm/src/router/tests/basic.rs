//! What an ordinary day asks of the router: requests, replies, bodies, connections kept.

use std::cell::Cell;

use super::client::{Client, ask, get};
use super::member::Member;
use super::stage::{Stage, config, until};
use crate::config::{Balance, Protocol};
use hotwarm_core::ids::{Epoch, MemberId};
use hotwarm_core::route::{RouteState, Routes, Target};

#[tokio::test]
async fn a_request_reaches_a_member_and_the_reply_the_client() {
    let member = Member::good("a").await;
    let stage = Stage::http();
    stage.open(1, &[&member]);
    let reply = get(stage.address, "/x?y=1").await.unwrap();
    assert_eq!((reply.status, reply.header("x-member")), (200, Some("a")));
    let text = reply.text();
    assert!(text.starts_with("GET /x?y=1\n"), "{text}");
    for line in
        ["host: h", "x-forwarded-for: 127.0.0.1", "x-forwarded-proto: http", "x-forwarded-host: h", "forwarded: for=127.0.0.1;proto=http"]
    {
        assert!(text.contains(&format!("\n{line}\n")), "{line} in {text}");
    }
    assert!(!text.contains("connection:"), "{text}");
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let member = Member::good("a").await;
    let stage = Stage::http();
    stage.open(1, &[&member]);
    let mut client = Client::to(stage.address).await;
    for n in 0..20 {
        client.send(format!("GET /{n} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).await;
        assert!(client.reply().await.unwrap().text().starts_with(&format!("GET /{n}\n")));
    }
    let stats = stage.stats();
    assert_eq!((stats.connections, stats.requests, stats.members[0].connects), (1, 20, 1));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let member = Member::good("a").await;
    let stage = Stage::http();
    stage.open(1, &[&member]);
    let mut client = Client::to(stage.address).await;
    let all: String = (0..30).map(|n| format!("POST /{n} HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")).collect();
    client.send(all.as_bytes()).await;
    for n in 0..30 {
        let text = client.reply().await.unwrap().text();
        assert!(text.starts_with(&format!("POST /{n}\n")) && text.ends_with("\n\nabc"), "{text}");
    }
}

#[tokio::test]
async fn bodies_pass_by_length_and_by_chunk_with_trailers() {
    let member = Member::good("a").await;
    let stage = Stage::http();
    stage.open(1, &[&member]);
    let reply = ask(stage.address, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello").await.unwrap();
    assert!(reply.text().ends_with("\n\nhello"), "{}", reply.text());
    let chunked = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\nTE: trailers\r\n\r\n\
                   5;a=b\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 7\r\n\r\n";
    let reply = ask(stage.address, chunked).await.unwrap();
    assert!(reply.text().ends_with("\n\nhello world\nx-sum=7"), "{}", reply.text());
}

#[tokio::test]
async fn a_head_is_answered_without_a_body() {
    let member = Member::good("a").await;
    let stage = Stage::http();
    stage.open(1, &[&member]);
    let mut client = Client::to(stage.address).await;
    for _ in 0..3 {
        client.send(b"HEAD /size/1000 HTTP/1.1\r\nHost: h\r\n\r\n").await;
        let reply = client.reply_to(true).await.unwrap();
        assert_eq!((reply.status, reply.header("content-length")), (200, Some("1000")));
    }
}

#[tokio::test]
async fn the_same_key_goes_to_the_same_member() {
    let members = [Member::good("a").await, Member::good("b").await, Member::good("c").await];
    let mut config = config(false, Protocol::Http);
    config.balance = Balance::HashHeader("x-user".into());
    let stage = Stage::new(config, 2);
    stage.open(1, &members.iter().collect::<Vec<_>>());
    let mut used = std::collections::BTreeSet::new();
    for user in 0..20 {
        let request = format!("GET / HTTP/1.1\r\nHost: h\r\nX-User: {user}\r\nConnection: close\r\n\r\n");
        let first = ask(stage.address, &request).await.unwrap().header("x-member").unwrap().to_owned();
        for _ in 0..3 {
            assert_eq!(ask(stage.address, &request).await.unwrap().header("x-member"), Some(&*first));
        }
        used.insert(first);
    }
    assert_eq!(used.len(), 3);
}

#[tokio::test]
async fn in_turn_each_gets_its_share_and_a_drained_one_gets_none() {
    let members = [Member::good("a").await, Member::good("b").await, Member::good("c").await];
    let mut config = config(false, Protocol::Http);
    config.balance = Balance::RoundRobin;
    let stage = Stage::new(config, 1);
    let drained = |targets: Vec<Target>| {
        let weigh = |target: Target| Target { weight: if target.member.name() == "c" { 0 } else { 100 }, ..target };
        RouteState::Open(targets.into_iter().map(weigh).collect())
    };
    stage.routes(1, drained, &members.iter().collect::<Vec<_>>());
    for _ in 0..20 {
        assert_eq!(get(stage.address, "/").await.unwrap().status, 200);
    }
    assert_eq!(members.each_ref().map(Member::count), [10, 10, 0]);
}

#[tokio::test]
async fn a_router_prefers_the_zone_that_it_is_in_by_now() {
    let (a, b) = (Member::good("a").await, Member::good("b").await);
    let stage = Stage::http();
    let target = |member: &Member, zone: &str| Target {
        member: MemberId::of(&stage.config.name, &member.name),
        address: member.address,
        weight: 100,
        zone: zone.to_owned(),
    };
    let state = RouteState::Open(vec![target(&a, "north"), target(&b, "south")]);
    let routes = Routes { group: stage.config.name.clone(), epoch: Epoch(1), exclusive: false, state };
    stage.handle.set_routes(&routes).unwrap();
    let who = || async { get(stage.address, "/").await.unwrap().header("x-member").unwrap().to_owned() };
    for (zone, near) in [("north", "a"), ("south", "b"), ("north", "a")] {
        stage.handle.open(&stage.config, zone, "127.0.0.1:0".parse().unwrap()).unwrap();
        // It chooses by two drawn at random: so many in a row are no accident.
        let row = Cell::new(0);
        until("the near member gets all requests", || async {
            row.set(if who().await == near { row.get() + 1 } else { 0 });
            row.get() == 40
        })
        .await;
    }
}
