//! TCP groups: connections in place of requests, under the same epochs and leases.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::Client;
use super::member::Member;
use super::stage::{PATIENCE, Stage, config, until};
use crate::clock;
use crate::config::Protocol;
use crate::router::{Event, Failure, Kind};
use hotwarm_core::ids::Epoch;
use hotwarm_core::route::RouteState;

const MIB: usize = 1 << 20;

async fn echo(mut stream: TcpStream) {
    let (mut read, mut write) = stream.split();
    if tokio::io::copy(&mut read, &mut write).await.is_ok() {
        let _ = write.shutdown().await;
    }
}

async fn word(client: &mut Client, word: &str) -> bool {
    client.send(word.as_bytes()).await;
    while client.rest.len() < word.len() {
        if !client.more().await {
            return false;
        }
    }
    std::mem::take(&mut client.rest) == word.as_bytes()
}

fn stage(exclusive: bool, threads: usize) -> Stage {
    Stage::new(config(exclusive, Protocol::Tcp), threads)
}

#[tokio::test]
async fn bytes_pass_and_ends_are_passed_on() {
    let member = Member::tcp("a", echo).await;
    let stage = stage(false, 2);
    stage.open(1, &[&member]);
    let mut client = Client::to(stage.address).await;
    assert!(word(&mut client, "hello").await && word(&mut client, "again").await);
    client.send(b"last").await;
    client.stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    client.stream.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"last");
    until("counted", || async { stage.stats().members[0].bytes_received == 14 }).await;
    assert!(stage.stats().failed.iter().all(|(_, count)| *count == 0));
}

#[tokio::test]
async fn a_member_that_resets_one_connection_stays_in_and_nothing_is_told_of_it() {
    let resets = Member::tcp("a", |mut stream| async move {
        let _ = stream.read(&mut [0; 16]).await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    let stage = Stage::new(config(true, Protocol::Tcp), 1).leased();
    stage.open(1, &[&resets]);
    for n in 1..=5 {
        let mut client = Client::to(stage.address).await;
        client.send(b"what it does not like").await;
        assert!(client.ends().await);
        until("counted", || async { stage.failed(Failure::Truncated) == n }).await;
    }
    assert!(!stage.seen(|event| matches!(event, Event::Evidence { .. })), "{:?}", stage.events);
}

#[tokio::test]
async fn much_passes_both_ways_unchanged() {
    const SIZE: usize = 16 * MIB;
    let member = Member::tcp("a", echo).await;
    let stage = stage(false, 1);
    stage.open(1, &[&member]);
    let client = Client::to(stage.address).await;
    let (mut read, mut write) = client.stream.into_split();
    let sending = tokio::spawn(async move {
        let piece: Vec<u8> = (0..251).cycle().take(251 * 512).collect();
        let mut left = SIZE;
        while left > 0 {
            let n = left.min(piece.len());
            write.write_all(&piece[..n]).await.unwrap();
            left -= n;
        }
        write.shutdown().await.unwrap();
        write
    });
    let mut all = Vec::new();
    tokio::time::timeout(PATIENCE, read.read_to_end(&mut all)).await.unwrap().unwrap();
    assert_eq!(all.len(), SIZE);
    assert!(all.iter().zip((0..251).cycle()).all(|(a, b)| *a == b));
    drop(sending.await.unwrap());
}

#[tokio::test]
async fn a_connection_parks_and_finds_a_member_that_lives() {
    let (dead, member) = (Member::tcp("a", echo).await, Member::tcp("b", echo).await);
    dead.kill();
    let stage = stage(false, 2);
    let address = stage.address;
    let waiting = tokio::spawn(async move {
        let mut client = Client::to(address).await;
        word(&mut client, "hello").await
    });
    stage.parked(1).await;
    stage.open(1, &[&dead, &member]);
    assert!(waiting.await.unwrap());
    for _ in 0..10 {
        assert!(word(&mut Client::to(address).await, "hello").await);
    }
    stage.heard(|event| matches!(event, Event::Evidence { kind: Kind::Refused, member, .. } if member.name() == "a")).await;
}

#[tokio::test]
async fn a_parked_connection_dies_with_its_client() {
    let stage = stage(false, 1);
    let client = Client::to(stage.address).await;
    stage.parked(1).await;
    drop(client);
    stage.parked(0).await;
    assert_eq!(stage.failed(Failure::Client), 1);
}

/// The client sees a reset, not an end that could pass for one.
async fn is_reset(mut client: Client) -> bool {
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, client.stream.read_to_end(&mut rest)).await.unwrap();
    matches!(read, Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn connections_are_cut_when_their_epoch_ends() {
    let (old, new) = (Member::tcp("old", echo).await, Member::tcp("new", echo).await);
    let stage = stage(true, 2).leased();
    stage.open(1, &[&old]);
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = Client::to(stage.address).await;
        assert!(word(&mut client, "hello").await);
        clients.push(client);
    }
    // Draining keeps them, and parks newcomers.
    stage.routes(1, RouteState::Draining, &[&old]);
    assert!(word(&mut clients[0], "still").await);
    let mut late = Client::to(stage.address).await;
    late.send(b"late").await;
    stage.parked(1).await;
    stage.open(2, &[&new]);
    stage.heard(|event| matches!(event, Event::Closed { epoch: Epoch(1), .. })).await;
    for client in clients {
        assert!(is_reset(client).await);
    }
    assert!(late.more().await && late.rest == b"late");
    assert_eq!((stage.failed(Failure::Cut), new.count()), (10, 1));
}

#[tokio::test]
async fn a_connection_ends_with_the_lease() {
    let member = Member::tcp("a", |mut stream| async move { while stream.write_all(&[b'x'; 10_000]).await.is_ok() {} }).await;
    let stage = stage(true, 1).leased();
    stage.open(1, &[&member]);
    let mut client = Client::to(stage.address).await;
    while client.rest.len() < MIB {
        assert!(client.more().await);
    }
    client.rest.clear();
    stage.handle.lease().set(clock::now().plus(Duration::from_millis(20)));
    while client.more().await {
        client.rest.clear();
    }
    assert!(!stage.handle.lease().is_valid() && stage.failed(Failure::Cut) == 1);
    let _parks = Client::to(stage.address).await;
    stage.parked(1).await;
}

#[tokio::test]
async fn a_member_that_resets_at_once_is_testified_against() {
    let member = Member::tcp("a", |stream| async move {
        stream.set_zero_linger().unwrap();
    })
    .await;
    let stage = stage(false, 1);
    stage.open(1, &[&member]);
    // A probe looks only for a moment whether it is reset, and may miss it: then the next client's connection makes it look again. A
    // connection that is reset before it stands counts as refused, and its client waits.
    until("it is told", || async {
        drop(tokio::time::timeout(Duration::from_millis(100), is_reset(Client::to(stage.address).await)).await);
        stage.seen(|event| matches!(event, Event::Evidence { kind: Kind::Reset | Kind::Refused, .. }))
    })
    .await;
}
