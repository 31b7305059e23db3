//! Members that die, freeze and come back; epochs and leases that end; what is repeated and what must not be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use hotwarm_core::ids::{Epoch, GroupName};
use hotwarm_core::route::{RouteState, Routes, Target};
use tokio::io::AsyncWriteExt;

use super::client::{Client, ask, get};
use super::member::Member;
use super::stage::{Stage, config, until};
use crate::clock;
use crate::config::{Balance, CheckKind, Group, Mark, Protocol};
use crate::router::{Event, Failure, Kind, RouterError};

const KEYED: &str = "POST / HTTP/1.1\r\nHost: h\r\nIdempotency-Key: k\r\nContent-Length: 5\r\n\r\nhello";

/// Clients that ask without pause until told to stop; how many got 200, and what else came.
struct Load {
    stop: Arc<AtomicBool>,
    good: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(stage: &Stage, clients: usize, request: &'static str) -> Self {
        let (stop, good): (Arc<AtomicBool>, Arc<AtomicUsize>) = Default::default();
        let address = stage.address;
        let one = |_| {
            let (stop, good) = (Arc::clone(&stop), Arc::clone(&good));
            tokio::spawn(async move {
                let (mut client, mut bad) = (Client::to(address).await, Vec::new());
                while !stop.load(Ordering::SeqCst) {
                    client.send(request.as_bytes()).await;
                    match client.reply().await {
                        Some(reply) if reply.status == 200 => _ = good.fetch_add(1, Ordering::SeqCst),
                        other => {
                            bad.push(format!("{other:?}"));
                            client = Client::to(address).await;
                        }
                    }
                }
                bad
            })
        };
        let tasks = (0..clients).map(one).collect();
        Self { stop, good, tasks }
    }

    async fn more(&self, count: usize) {
        let goal = self.good.load(Ordering::SeqCst) + count;
        until("replies under load", || async { self.good.load(Ordering::SeqCst) >= goal }).await;
    }

    async fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        let mut bad = Vec::new();
        for task in self.tasks {
            bad.extend(task.await.unwrap());
        }
        bad
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_killed_under_load_costs_nothing_that_may_be_repeated() {
    for request in ["GET / HTTP/1.1\r\nHost: h\r\n\r\n", KEYED] {
        let (a, b) = (Member::good("a").await, Member::good("b").await);
        let stage = Stage::new(config(false, Protocol::Http), 2);
        stage.open(1, &[&a, &b]);
        let load = Load::start(&stage, 16, request);
        load.more(300).await;
        a.kill();
        load.more(300).await;
        stage.heard(|event| matches!(event, Event::Evidence { kind: Kind::Refused | Kind::Reset, .. })).await;
        assert_eq!(load.end().await, Vec::<String>::new());
        assert!(a.count() > 0 && b.count() > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_member_is_left_out_and_taken_back() {
    freeze(config(false, Protocol::Http).check.kind).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_member_is_found_out_without_a_path_to_ask_for() {
    freeze(CheckKind::Tcp).await;
}

async fn freeze(check: CheckKind) {
    let (a, b) = (Member::good("a").await, Member::good("b").await);
    let mut config = config(false, Protocol::Http);
    config.check.kind = check;
    let stage = Stage::new(config, 2);
    stage.open(1, &[&a, &b]);
    let load = Load::start(&stage, 8, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    load.more(100).await;
    a.frozen.store(true, Ordering::SeqCst);
    let is = |event: &Event, wanted: Kind| matches!(event, Event::Evidence { member, kind, .. } if member.name() == "a" && *kind == wanted);
    stage.heard(|event| is(event, Kind::Silent)).await;
    load.more(100).await;
    a.frozen.store(false, Ordering::SeqCst);
    stage.heard(|event| is(event, Kind::Ok)).await;
    let before = a.count();
    until("the member gets requests again", || async { a.count() > before }).await;
    assert_eq!(load.end().await, Vec::<String>::new());
}

#[tokio::test]
async fn what_waits_at_a_frozen_member_is_repeated_elsewhere() {
    let (a, b) = (Member::good("a").await, Member::good("b").await);
    a.frozen.store(true, Ordering::SeqCst);
    let stage = Stage::http();
    stage.open(1, &[&a, &b]);
    // All at once, so that some wait at the frozen one before anybody knows.
    let waiting: Vec<_> = (0..32).map(|_| tokio::spawn(get(stage.address, "/"))).collect();
    for reply in waiting {
        assert_eq!(reply.await.unwrap().unwrap().header("x-member"), Some("b"));
    }
    stage.heard(|event| matches!(event, Event::Evidence { kind: Kind::Silent, .. })).await;
    assert!(stage.stats().retried > 0);
}

#[tokio::test]
async fn requests_park_while_every_member_is_down_and_go_when_one_is_back() {
    let a = Member::good("a").await;
    let stage = Stage::http();
    a.kill();
    let place = a.address.to_string();
    stage.open(1, &[&a]);
    let address = stage.address;
    let waiting = tokio::spawn(async move { ask(address, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi").await });
    stage.heard(|event| matches!(event, Event::Evidence { kind: Kind::Refused, .. })).await;
    stage.parked(1).await;
    let again = Member::good_at("a", &place).await;
    assert!(waiting.await.unwrap().unwrap().text().ends_with("\n\nhi"));
    assert_eq!(again.count(), 1);
    stage.heard(|event| matches!(event, Event::Evidence { kind: Kind::Ok, .. })).await;
}

/// The kernel would try for minutes.
#[tokio::test]
async fn who_accepts_nothing_is_not_waited_for_longer_than_the_time_for_connecting() {
    for protocol in [Protocol::Http, Protocol::Tcp] {
        let full = Member::full("a").await;
        let mut config = config(false, protocol);
        (config.timeouts.connect, config.park.time) = (Duration::from_millis(100), Duration::from_millis(200));
        let stage = Stage::new(config, 1);
        stage.open(1, &[&full]);
        let mut client = Client::to(stage.address).await;
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        until("the wait to end", || async { stage.failed(Failure::ParkTime) == 1 }).await;
        assert!(stage.stats().members[0].connects > 0 && stage.stats().parked > 0);
    }
}

#[tokio::test]
async fn a_post_is_sent_once_and_its_fate_told() {
    let breaks = Member::says("a", b"").await;
    let stage = Stage::http();
    stage.open(1, &[&breaks]);
    let reply = ask(stage.address, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi").await.unwrap();
    assert_eq!((reply.status, reply.code(), breaks.count()), (502, "HW0810", 1));
    assert!(reply.text().contains("sent, outcome unknown"));
    // A GET with a body is not safe either: who knows what the body asks for.
    let reply = ask(stage.address, "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi").await.unwrap();
    assert_eq!((reply.status, breaks.count()), (502, 2));
    assert_eq!(stage.failed(Failure::Broken), 2);
}

const BAD: [Kind; 3] = [Kind::Refused, Kind::Reset, Kind::Silent];

/// One request must not be able to bring a healthy member down, in this router or, by its testimony, in all.
#[tokio::test]
async fn a_member_that_closes_instead_of_replying_stays_in_and_nothing_is_told_of_it() {
    for (exclusive, check) in [(true, config(true, Protocol::Http).check.kind), (false, CheckKind::Tcp)] {
        let closes = Member::says("a", b"").await;
        let mut config = config(exclusive, Protocol::Http);
        config.check.kind = check;
        let stage = Stage::new(config, 2).leased();
        stage.open(1, &[&closes]);
        for request in ["GET / HTTP/1.1\r\nHost: h\r\n\r\n", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi", KEYED] {
            let before = closes.count();
            assert_eq!(ask(stage.address, request).await.unwrap().code(), "HW0810");
            assert!(closes.count() > before);
            assert!(!stage.stats().members[0].ejected);
        }
        assert!(!stage.seen(|event| matches!(event, Event::Evidence { kind, .. } if BAD.contains(kind))), "{:?}", stage.events);
    }
}

/// What may not be repeated cannot find out by itself that nobody listens any more.
#[tokio::test]
async fn a_member_that_dies_with_its_only_request_is_found_out() {
    let a = Member::good("a").await;
    let stage = Stage::new(config(true, Protocol::Http), 2).leased();
    stage.open(1, &[&a]);
    let mut client = Client::to(stage.address).await;
    client.send(b"POST /hang HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx").await;
    a.hangs(1).await;
    a.kill();
    assert_eq!(client.reply().await.unwrap().code(), "HW0810");
    stage.heard(|event| matches!(event, Event::Evidence { kind: Kind::Refused, .. })).await;
    assert!(stage.stats().members[0].ejected);
}

#[tokio::test]
async fn what_was_told_of_the_only_member_is_withdrawn() {
    let a = Member::good("a").await;
    let stage = Stage::http();
    stage.open(1, &[&a]);
    a.frozen.store(true, Ordering::SeqCst);
    let address = stage.address;
    let waiting = tokio::spawn(async move { get(address, "/").await });
    stage.heard(|event| matches!(event, Event::Evidence { kind: Kind::Silent, .. })).await;
    a.frozen.store(false, Ordering::SeqCst);
    assert_eq!(waiting.await.unwrap().unwrap().status, 200);
    stage.heard(|event| matches!(event, Event::Evidence { kind: Kind::Ok, .. })).await;
    let told = |event: &&Event| matches!(event, Event::Evidence { kind, .. } if *kind != Kind::Slow);
    let last = stage.events.lock().unwrap().iter().rev().find(told).cloned();
    assert!(matches!(last, Some(Event::Evidence { kind: Kind::Ok, .. })), "{last:?}");
}

#[tokio::test]
async fn what_is_safe_is_repeated_elsewhere_with_its_body() {
    let (breaks, good) = (Member::says("a", b"").await, Member::good("b").await);
    let stage = Stage::http();
    stage.open(1, &[&breaks, &good]);
    let chunked = "PUT / HTTP/1.1\r\nHost: h\r\nIdempotency-Key: k\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    for _ in 0..20 {
        for request in [KEYED, chunked] {
            let reply = ask(stage.address, request).await.unwrap();
            assert_eq!(reply.status, 200, "{}", reply.text());
            assert!(reply.text().ends_with("\n\nhello"));
        }
        assert_eq!(get(stage.address, "/").await.unwrap().status, 200);
    }
    assert!(breaks.count() > 0 && stage.stats().retried >= breaks.count() as u64);
}

#[tokio::test]
async fn a_body_too_large_to_keep_is_not_repeated() {
    let breaks = Member::raw("a", |mut stream, mut read| async move {
        while read.len() < 100_000 {
            tokio::io::AsyncReadExt::read_buf(&mut stream, &mut read).await.unwrap();
        }
    })
    .await;
    let stage = Stage::new(marked(false), 1);
    stage.open(1, &[&breaks]);
    for (n, head) in [(1, "POST / HTTP/1.1\r\nIdempotency-Key: k"), (2, "POST /search HTTP/1.1")] {
        let mut client = Client::to(stage.address).await;
        client.send(format!("{head}\r\nHost: h\r\nContent-Length: 100000\r\n\r\n").as_bytes()).await;
        client.send(&[b'x'; 100_000]).await;
        assert_eq!((client.reply().await.unwrap().status, breaks.count()), (502, n), "{head}");
    }
}

/// A group in which the user marks the search and all items.
fn marked(exclusive: bool) -> Group {
    let repeat = ["POST /search", "PUT /items/"].map(|text| Mark::read(text).unwrap()).to_vec();
    Group { repeat, ..config(exclusive, Protocol::Http) }
}

#[tokio::test]
async fn what_the_user_marks_is_repeated_when_its_member_is_killed_and_nothing_else_is() {
    let old = Member::raw("old", |stream, _| async move {
        let _open = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let new = Member::good("new").await;
    let stage = Stage::new(marked(true), 2).leased();
    stage.open(1, &[&old]);
    let is_marked = ["POST /search", "POST /search?q=%2e", "PUT /items/7"];
    let is_not =
        ["POST /", "PUT /search", "POST /search/", "POST /%73earch", "POST /x/../search", "PUT /items/../orders", "PUT /items/..;/orders"];
    let mut clients = Vec::new();
    for line in is_marked.into_iter().chain(is_not) {
        let mut client = Client::to(stage.address).await;
        client.send(format!("{line} HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello").as_bytes()).await;
        clients.push((line, client));
    }
    old.hangs(clients.len()).await;
    old.kill();
    for (line, client) in &mut clients[is_marked.len()..] {
        let reply = client.reply().await.unwrap();
        assert_eq!((reply.status, reply.code()), (502, "HW0810"), "{line}");
    }
    stage.parked(is_marked.len()).await;
    stage.open(2, &[&new]);
    for (line, client) in &mut clients[..is_marked.len()] {
        let reply = client.reply().await.unwrap();
        assert_eq!((reply.status, reply.header("x-member")), (200, Some("new")), "{line}");
        assert!(reply.text().starts_with(&format!("{line}\n")) && reply.text().ends_with("\n\nhello"), "{}", reply.text());
    }
    assert_eq!((old.count(), new.count()), (clients.len(), is_marked.len()));
}

#[tokio::test]
async fn a_kept_connection_that_the_member_closed_is_not_used() {
    let once = Member::raw("a", |mut stream, _| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    })
    .await;
    let stage = Stage::http();
    stage.open(1, &[&once]);
    let mut client = Client::to(stage.address).await;
    for n in 1..=20 {
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi").await;
        assert_eq!(client.reply().await.unwrap().status, 200);
        assert_eq!(once.count(), n);
        // The end of the stream has to arrive first; until then nobody can know.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_new_epoch_cuts_what_is_under_way_and_repeats_what_is_safe() {
    let (old, new) = (Member::good("old").await, Member::good("new").await);
    let stage = Stage::http();
    stage.open(1, &[&old]);
    let mut unsafe_one = Client::to(stage.address).await;
    unsafe_one.send(b"POST /hang HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx").await;
    old.hangs(1).await;
    let mut safe = Client::to(stage.address).await;
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

/// A request that meets a target which is fenced already, on a thread that has not switched yet, waits: it must not keep the thread from
/// switching.
#[tokio::test]
async fn epochs_that_follow_one_another_under_load_stop_no_thread() {
    let member = Member::good("a").await;
    let stage = Stage::new(config(true, Protocol::Http), 2).leased();
    stage.open(1, &[&member]);
    let address = stage.address;
    let clients: Vec<_> = (0..8).map(|_| tokio::spawn(async move { while get(address, "/").await.is_some() {} })).collect();
    const LAST: u64 = 1000;
    for epoch in 2..=LAST {
        stage.open(epoch, &[&member]);
        let before = stage.stats().requests;
        until("requests to come", || async { stage.stats().requests > before }).await;
    }
    stage.held(LAST);
    stage.heard(|event| matches!(event, Event::Closed { epoch: Epoch(LAST), .. })).await;
    clients.into_iter().for_each(|client| client.abort());
}

#[tokio::test]
async fn a_reply_is_cut_in_the_middle_when_its_epoch_ends() {
    for exclusive in [false, true] {
        let old = Member::raw("old", |mut stream, _| async move {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf").await.unwrap();
            std::future::pending::<()>().await;
        })
        .await;
        let new = Member::good("new").await;
        let stage = Stage::new(config(exclusive, Protocol::Http), 2).leased();
        stage.open(1, &[&old]);
        let mut client = Client::to(stage.address).await;
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        while !client.rest.ends_with(b"half") {
            assert!(client.more().await);
        }
        stage.open(2, &[&new]);
        stage.heard(|event| matches!(event, Event::Closed { epoch: Epoch(1), .. })).await;
        client.rest.clear();
        assert!(client.ends().await);
        assert_eq!(stage.failed(Failure::Cut), 1);
        assert_eq!(get(stage.address, "/").await.unwrap().header("x-member"), Some("new"));
    }
}

#[tokio::test]
async fn the_same_member_in_a_new_epoch_of_a_single_hot_group_is_another() {
    let member = Member::good("a").await;
    let stage = Stage::new(config(true, Protocol::Http), 1).leased();
    stage.open(1, &[&member]);
    let mut client = Client::to(stage.address).await;
    client.send(b"POST /hang HTTP/1.1\r\nHost: h\r\n\r\n").await;
    member.hangs(1).await;
    stage.open(2, &[&member]);
    assert_eq!(client.reply().await.unwrap().code(), "HW0811");
}

#[tokio::test]
async fn without_a_lease_nothing_is_admitted_or_released() {
    let member = Member::good("a").await;
    let stage = Stage::new(config(true, Protocol::Http), 2);
    stage.open(1, &[&member]);
    let address = stage.address;
    let waiting = tokio::spawn(async move { get(address, "/").await });
    stage.parked(1).await;
    assert_eq!(member.count(), 0);
    let lease = stage.handle.lease();
    lease.set(clock::now().plus(Duration::from_secs(3600)));
    assert_eq!(waiting.await.unwrap().unwrap().status, 200);

    let mut unsafe_one = Client::to(address).await;
    unsafe_one.send(b"POST /hang HTTP/1.1\r\nHost: h\r\n\r\n").await;
    member.hangs(2).await;
    // It runs out by itself: nobody wakes the router but its own clock.
    lease.set(clock::now().plus(Duration::from_millis(50)));
    assert_eq!(unsafe_one.reply().await.unwrap().code(), "HW0811");
    let waiting = tokio::spawn(async move { get(address, "/").await });
    stage.parked(1).await;
    assert_eq!(member.count(), 2);
    lease.set(clock::now().plus(Duration::from_secs(3600)));
    assert_eq!(waiting.await.unwrap().unwrap().status, 200);
}

#[tokio::test]
async fn a_body_under_way_stops_when_the_lease_ends() {
    let endless = Member::raw("a", |mut stream, _| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
        while stream.write_all(b"5\r\nhello\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let stage = Stage::new(config(true, Protocol::Http), 1).leased();
    stage.open(1, &[&endless]);
    let mut client = Client::to(stage.address).await;
    client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    while client.rest.len() < 200 {
        assert!(client.more().await);
    }
    stage.handle.lease().set(clock::now().plus(Duration::from_millis(20)));
    while client.more().await {}
    assert!(!stage.handle.lease().is_valid() && stage.failed(Failure::Cut) == 1);
}

#[tokio::test]
async fn draining_lets_finish_and_says_when_it_is_done() {
    let release = Arc::default();
    let old = Member::released("old", &release).await;
    let new = Member::good("new").await;
    let stage = Stage::new(config(true, Protocol::Http), 2).leased();
    stage.open(1, &[&old]);
    let mut first = Client::to(stage.address).await;
    first.send(b"POST / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    old.hangs(1).await;
    stage.routes(1, RouteState::Draining, &[&old]);
    let address = stage.address;
    let second = tokio::spawn(async move { get(address, "/").await });
    stage.parked(1).await;
    let name = GroupName::new("web");
    let said = |event: &Event| *event == Event::Drained { group: GroupName::new("web"), epoch: Epoch(1) };
    assert!(!stage.handle.drained(&name).unwrap() && !stage.seen(said));
    release.notify_one();
    assert_eq!(first.reply().await.unwrap().text(), "old");
    stage.heard(said).await;
    assert!(stage.handle.drained(&name).unwrap());
    stage.open(2, &[&new]);
    assert_eq!(second.await.unwrap().unwrap().header("x-member"), Some("new"));
}

#[tokio::test]
async fn a_drained_member_of_several_finishes_and_it_is_said_when() {
    let release = Arc::default();
    let old = Member::released("old", &release).await;
    let (idle, new) = (Member::good("idle").await, Member::good("new").await);
    let stage = Stage::new(config(false, Protocol::Http), 2);
    stage.open(1, &[&old]);
    let mut first = Client::to(stage.address).await;
    first.send(b"POST / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    old.hangs(1).await;
    let drained = |name: &'static str| {
        move |targets: Vec<Target>| {
            let weigh = |target: Target| Target { weight: if target.member.name() == name { 0 } else { 100 }, ..target };
            RouteState::Open(targets.into_iter().map(weigh).collect())
        }
    };
    stage.routes(2, drained("old"), &[&old, &new]);
    assert_eq!(get(stage.address, "/").await.unwrap().header("x-member"), Some("new"));
    let said = |epoch| move |event: &Event| *event == Event::Drained { group: GroupName::new("web"), epoch: Epoch(epoch) };
    assert!(!stage.seen(said(2)));
    release.notify_one();
    assert_eq!(first.reply().await.unwrap().text(), "old");
    stage.heard(said(2)).await;
    // One that is idle has finished as soon as every thread knows of it.
    stage.routes(3, drained("idle"), &[&idle, &new]);
    stage.heard(said(3)).await;
}

/// Whoever opens the new member waits for each router to have closed what was before, also for one that never knew of it (S8).
#[tokio::test]
async fn a_router_that_begins_anew_or_skips_an_epoch_has_closed_all_before() {
    let member = Member::good("a").await;
    let stage = Stage::new(config(true, Protocol::Http), 2).leased();
    for epoch in [5, 8] {
        stage.open(epoch, &[&member]);
        stage.heard(|event| matches!(event, Event::Closed { epoch: Epoch(closed), .. } if closed + 1 == epoch)).await;
        assert!(!stage.seen(|event| matches!(event, Event::Closed { epoch: Epoch(closed), .. } if *closed >= epoch)));
    }
}

#[tokio::test]
async fn routes_of_an_older_epoch_are_refused() {
    let stage = Stage::http();
    stage.held(5);
    let old = Routes { group: GroupName::new("web"), epoch: Epoch(4), exclusive: false, state: RouteState::Held };
    assert!(matches!(stage.handle.set_routes(&old), Err(RouterError::OldEpoch { .. })));
    let other = Routes { group: GroupName::new("other"), ..old };
    assert!(matches!(stage.handle.set_routes(&other), Err(RouterError::UnknownGroup(_))));
}

const FAILS: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";

/// It was left out well, and neither the traffic page nor a metric said so.
#[tokio::test]
async fn a_member_that_answers_errors_is_seen_to_be_left_out() {
    let (fails, good, better) = (Member::says("a", FAILS).await, Member::good("b").await, Member::good("c").await);
    // Each in its turn: the load alone would keep requests away from it.
    let stage = Stage::new(Group { balance: Balance::RoundRobin, ..config(false, Protocol::Http) }, 2);
    stage.open(1, &[&fails, &good, &better]);
    let address = stage.address;
    until("a left out", || async {
        get(address, "/").await.unwrap();
        stage.stats().members[0].ejected
    })
    .await;
    let members = stage.stats().members;
    assert!(members[0].replies[4] >= 5 && members[0].replies[4] == members[0].replies.iter().sum::<u64>(), "{:?}", members[0]);
    assert!(members[1..].iter().all(|member| !member.ejected && member.replies[4] == 0 && member.failed == 0), "{members:?}");
    let answers = stage.handle.answers();
    assert_eq!((answers[0].errors, answers[0].replies, answers[0].exclusive), (members[0].replies[4], members[0].replies[4], false));
    assert!(answers[0].left_out_until.is_some() && answers[1].left_out_until.is_none(), "{answers:?}");
    until("its time over", || async { !stage.stats().members[0].ejected }).await;
    // Where all fail, that is no outlier: they are used, and are not said to be left out.
    stage.open(2, &[&fails]);
    until("many errors", || async { get(address, "/").await.unwrap().status == 500 && fails.count() > 40 }).await;
    assert!(!stage.stats().members[0].ejected);
}

#[tokio::test]
async fn the_only_hot_member_that_answers_errors_is_counted_and_used() {
    let fails = Member::says("a", FAILS).await;
    let stage = Stage::new(config(true, Protocol::Http), 2).leased();
    stage.open(1, &[&fails]);
    for _ in 0..30 {
        assert_eq!(get(stage.address, "/").await.unwrap().status, 500);
    }
    let member = stage.stats().members.remove(0);
    assert_eq!((member.replies, member.failed, member.ejected), ([0, 0, 0, 0, 30], 0, false));
    let answers = stage.handle.answers();
    assert_eq!((answers[0].errors, answers[0].exclusive, answers[0].left_out_until), (30, true, None));
}
