//! Members that die, freeze and come back; epochs that end; what is repeated and what must not be.

use super::client::{Client, get};
use super::member::Member;
use super::stage::Stage;
use crate::router::Event;
use hotwarm_core::ids::Epoch;

#[tokio::test]
async fn a_request_parks_until_a_member_is_hot() {
    let member = Member::good("a").await;
    let stage = Stage::http();
    let address = stage.address;
    let early = tokio::spawn(async move { get(address, "/").await });
    stage.parked(1).await;
    stage.open(1, &[&member]);
    assert_eq!(early.await.unwrap().unwrap().status, 200);
    stage.parked(0).await;
}

#[tokio::test]
async fn a_new_epoch_cuts_what_is_under_way_and_repeats_what_is_safe() {
    let (old, new) = (Member::good("old").await, Member::good("new").await);
    let stage = Stage::http();
    stage.open(1, &[&old]);
    let address = stage.address;
    let mut unsafe_one = Client::to(address).await;
    unsafe_one.send(b"POST /hang HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx").await;
    old.hangs(1).await;
    let mut safe = Client::to(address).await;
    safe.send(b"OPTIONS /hang HTTP/1.1\r\nHost: h\r\n\r\n").await;
    old.hangs(2).await;
    stage.held(1);
    stage.heard(|event| matches!(event, Event::Closed { epoch: Epoch(1), .. })).await;
    let reply = unsafe_one.reply().await.unwrap();
    assert_eq!((reply.status, reply.code()), (502, "HW0811"));
    stage.parked(1).await;
    stage.open(2, &[&new]);
    new.hangs(1).await;
    assert_eq!(old.count(), 2);
}
