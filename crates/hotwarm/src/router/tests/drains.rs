//! What a switchover waits for: requests, which end; not what has no end of its own, nor for longer than the others' waiting room lasts.

use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::client::{Client, get};
use super::member::Member;
use super::stage::{PATIENCE, Stage, config, until};
use crate::config::Protocol;
use crate::router::{Event, Failure};
use hotwarm_core::ids::{Epoch, GroupName};
use hotwarm_core::route::{RouteState, Target};

const UPGRADE: &[u8] = b"GET /upgrade HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// What ends by itself in it ends after the test has waited in vain.
fn exclusive(threads: usize) -> Stage {
    let mut config = config(true, Protocol::Http);
    (config.park.time, config.timeouts.idle, config.timeouts.first_byte) = (2 * PATIENCE, 2 * PATIENCE, 2 * PATIENCE);
    Stage::new(config, threads).leased()
}

fn drained(epoch: u64) -> impl Fn(&Event) -> bool {
    move |event| *event == Event::Drained { group: GroupName::new("web"), epoch: Epoch(epoch) }
}

/// An upgraded connection that echoes.
async fn tunnel(stage: &Stage) -> Client {
    let mut client = Client::to(stage.address).await;
    client.send(UPGRADE).await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 101 "));
    echoes(&mut client).await;
    client
}

async fn echoes(client: &mut Client) {
    client.send(b"word").await;
    while client.rest.len() < 4 {
        assert!(client.more().await);
    }
    assert_eq!(std::mem::take(&mut client.rest), b"word");
}

#[tokio::test]
async fn an_open_tunnel_does_not_hold_a_switchover_and_is_cut_with_its_epoch() {
    let (old, new) = (Member::good("old").await, Member::good("new").await);
    let stage = exclusive(2);
    stage.open(1, &[&old]);
    let mut open = tunnel(&stage).await;
    stage.routes(1, RouteState::Draining, &[&old]);
    stage.heard(drained(1)).await;
    assert!(stage.handle.drained(&stage.config.name).unwrap());
    // Until its epoch ends it goes on: the switchover may yet be given up.
    echoes(&mut open).await;
    let address = stage.address;
    let waits = tokio::spawn(async move { get(address, "/").await });
    stage.parked(1).await;
    stage.open(2, &[&new]);
    assert_eq!(waits.await.unwrap().unwrap().header("x-member"), Some("new"));
    assert!(open.ends().await && stage.failed(Failure::Cut) == 1);
}

#[tokio::test]
async fn a_request_beside_a_tunnel_holds_a_switchover() {
    let member = Member::good("a").await;
    let stage = exclusive(1);
    stage.open(1, &[&member]);
    let _open = tunnel(&stage).await;
    let mut slow = Client::to(stage.address).await;
    slow.send(b"GET /hang HTTP/1.1\r\nHost: h\r\n\r\n").await;
    member.hangs(2).await;
    stage.routes(1, RouteState::Draining, &[&member]);
    let mut late = Client::to(stage.address).await;
    late.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    // It waits: the thread works by the new routes, and would have said so with them.
    stage.parked(1).await;
    assert!(!stage.seen(drained(1)) && !stage.handle.drained(&stage.config.name).unwrap());
    drop(slow);
    stage.heard(drained(1)).await;
}

/// A member that switches protocols when it is told to.
async fn switches(told: &Arc<Notify>) -> Member {
    let told = Arc::clone(told);
    Member::raw("a", move |mut stream, _| {
        let told = Arc::clone(&told);
        async move {
            told.notified().await;
            stream.write_all(b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n").await.unwrap();
            let _ = stream.read(&mut [0]).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_request_that_becomes_a_tunnel_holds_a_switchover_until_then() {
    let told = Arc::default();
    let member = switches(&told).await;
    let stage = exclusive(1);
    stage.open(1, &[&member]);
    let mut client = Client::to(stage.address).await;
    client.send(UPGRADE).await;
    member.hangs(1).await;
    stage.routes(1, RouteState::Draining, &[&member]);
    let mut late = Client::to(stage.address).await;
    late.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    stage.parked(1).await;
    assert!(!stage.seen(drained(1)));
    told.notify_one();
    stage.heard(drained(1)).await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 101 "));
}

/// There nobody waits meanwhile.
#[tokio::test]
async fn a_tunnel_at_a_drained_member_of_several_is_waited_for() {
    let (old, new) = (Member::good("old").await, Member::good("new").await);
    let stage = Stage::http();
    stage.open(1, &[&old]);
    let open = tunnel(&stage).await;
    let none_to_old = |targets: Vec<Target>| {
        let weigh = |target: Target| Target { weight: if target.member.name() == "old" { 0 } else { 100 }, ..target };
        RouteState::Open(targets.into_iter().map(weigh).collect())
    };
    stage.routes(2, none_to_old, &[&old, &new]);
    assert_eq!(get(stage.address, "/").await.unwrap().header("x-member"), Some("new"));
    assert!(!stage.seen(drained(2)));
    drop(open);
    stage.heard(drained(2)).await;
}

/// One slow request is cut rather than that many others find no room to wait.
#[tokio::test]
async fn a_slow_request_holds_a_switchover_no_longer_than_the_others_have_room_to_wait() {
    let member = Member::good("a").await;
    let mut config = config(true, Protocol::Http);
    config.park.requests = 4;
    let stage = Stage::new(config, 1).leased();
    stage.open(1, &[&member]);
    let mut slow = Client::to(stage.address).await;
    slow.send(b"POST /hang HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").await;
    member.hangs(1).await;
    stage.routes(1, RouteState::Draining, &[&member]);
    let mut waiting = Vec::new();
    for n in 1..=2 {
        assert!(!stage.seen(drained(1)), "{n}");
        let mut client = Client::to(stage.address).await;
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        stage.parked(n).await;
        waiting.push(client);
    }
    stage.heard(drained(1)).await;
    until("the slow one goes on until its epoch ends", || async { stage.stats().members[0].in_flight == 1 }).await;
    stage.held(1);
    assert_eq!(slow.reply().await.unwrap().code(), "HW0811");
}
