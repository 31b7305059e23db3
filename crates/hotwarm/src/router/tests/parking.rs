//! Requests that wait: in order, within bounds, and only as long as somebody waits for the answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;

use super::client::{Client, ask, get};
use super::member::Member;
use super::stage::{Stage, config, until};
use crate::config::Protocol;
use crate::router::{Event, Failure};
use hotwarm_core::ids::Epoch;

#[tokio::test]
async fn past_the_bounds_a_request_is_refused_at_once() {
    let mut config = config(false, Protocol::Http);
    config.park.requests = 2;
    config.park.bytes = 1000;
    let stage = Stage::new(config, 2);
    let mut large = Client::to(stage.address).await;
    large.send(format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(1000)).as_bytes()).await;
    let reply = large.reply().await.unwrap();
    assert_eq!((reply.status, reply.code(), reply.header("retry-after")), (503, "HW0808", Some("1")));
    let mut waiting = Vec::new();
    for n in 1..=2 {
        let mut client = Client::to(stage.address).await;
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        waiting.push(client);
        stage.parked(n).await;
    }
    assert_eq!(get(stage.address, "/").await.unwrap().code(), "HW0808");
    assert_eq!((stage.failed(Failure::ParkFull), stage.stats().parked), (2, 2));
    // The connection of a refused request that was read whole goes on.
    large.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
    assert_eq!(large.reply().await.unwrap().status, 503);
    drop(waiting);
    stage.parked(0).await;
    assert_eq!(stage.stats().parked_bytes_now, 0);
}

#[tokio::test]
async fn what_comes_in_while_a_request_waits_counts_too() {
    let mut config = config(false, Protocol::Http);
    config.park.bytes = 12_000;
    let stage = Stage::new(config, 1);
    let mut waiting = Client::to(stage.address).await;
    waiting.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n").await;
    stage.parked(1).await;
    assert!(stage.stats().parked_bytes_now < 1000);
    waiting.send(&[b'x'; 8000]).await;
    until("the body counts", || async { stage.stats().parked_bytes_now > 8000 }).await;
    waiting.send(&[b'x'; 8000]).await;
    assert_eq!(waiting.reply().await.unwrap().code(), "HW0808");
    stage.parked(0).await;
    assert_eq!(stage.stats().parked_bytes_now, 0);
}

#[tokio::test]
async fn a_wait_ends_with_its_time() {
    let mut config = config(false, Protocol::Http);
    config.park.time = Duration::from_millis(30);
    let stage = Stage::new(config, 1);
    let reply = ask(stage.address, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello").await.unwrap();
    assert_eq!((reply.status, reply.code()), (503, "HW0807"));
    assert_eq!(stage.failed(Failure::ParkTime), 1);
}

#[tokio::test]
async fn a_router_that_cannot_reach_the_hot_member_says_so_after_the_wait() {
    let mut config = config(true, Protocol::Http);
    config.park.time = Duration::from_millis(30);
    let stage = Stage::new(config, 1).leased();
    let member = Member::good("a").await;
    member.kill();
    stage.open(1, &[&member]);
    let reply = get(stage.address, "/").await.unwrap();
    assert_eq!((reply.status, reply.code(), reply.header("retry-after")), (503, "HW0815", Some("1")));
    assert!(reply.text().contains("another node's address"), "{}", reply.text());
    // Nobody is hot: it is not this router's way that is to blame.
    stage.held(2);
    assert_eq!(get(stage.address, "/").await.unwrap().code(), "HW0807");
}

#[tokio::test]
async fn a_parked_request_dies_with_its_client() {
    let member = Member::good("a").await;
    let stage = Stage::http();
    let mut client = Client::to(stage.address).await;
    client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").await;
    stage.parked(1).await;
    drop(client);
    stage.parked(0).await;
    stage.open(1, &[&member]);
    assert_eq!(get(stage.address, "/").await.unwrap().status, 200);
    assert_eq!((member.count(), stage.failed(Failure::Client)), (1, 1));
}

#[tokio::test]
async fn the_oldest_go_first_and_not_all_at_once() {
    let (now, most): (Arc<AtomicUsize>, Arc<AtomicUsize>) = Default::default();
    let go = Arc::new(tokio::sync::Semaphore::new(0));
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let (n, m, g, o) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&go), Arc::clone(&order));
    let member = Member::raw("a", move |mut stream, head| {
        let (n, m, g, o) = (Arc::clone(&n), Arc::clone(&m), Arc::clone(&g), Arc::clone(&o));
        async move {
            let text = String::from_utf8(head).unwrap();
            o.lock().unwrap().push(text[6..].split(' ').next().unwrap().parse::<usize>().unwrap());
            m.fetch_max(n.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            g.acquire().await.unwrap().forget();
            n.fetch_sub(1, Ordering::SeqCst);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
        }
    })
    .await;
    let stage = Stage::http();
    let mut clients = Vec::new();
    for k in 0..90 {
        let mut client = Client::to(stage.address).await;
        client.send(format!("POST /{k} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes()).await;
        stage.parked(k + 1).await;
        clients.push(client);
    }
    stage.open(1, &[&member]);
    member.hangs(16).await;
    // A newcomer does not overtake.
    let mut late = Client::to(stage.address).await;
    late.send(b"POST /90 HTTP/1.1\r\nHost: h\r\n\r\n").await;
    until("the newcomer parks", || async { stage.stats().parked == 91 }).await;
    assert_eq!(most.load(Ordering::SeqCst), 16);
    go.add_permits(91);
    for client in clients.iter_mut().chain([&mut late]) {
        assert_eq!(client.reply().await.unwrap().status, 200);
    }
    let order = order.lock().unwrap();
    let mut first = order[..16].to_vec();
    first.sort_unstable();
    assert_eq!(first, (0..16).collect::<Vec<_>>());
    assert!(order.iter().enumerate().all(|(at, k)| at.abs_diff(*k) <= 32), "{order:?}");
}

#[tokio::test]
async fn closing_the_group_refuses_what_waits() {
    let stage = Stage::http();
    let address = stage.address;
    let waiting = tokio::spawn(async move { get(address, "/").await });
    stage.parked(1).await;
    stage.handle.close(&stage.config.name);
    assert_eq!(waiting.await.unwrap().unwrap().code(), "HW0814");
    until("the listener is closed", || async { tokio::net::TcpStream::connect(address).await.is_err() }).await;
    // It can be opened again, also at the same address.
    assert_eq!(stage.handle.open(&stage.config, "", address).unwrap(), address);
    let member = Member::good("a").await;
    stage.open(1, &[&member]);
    assert_eq!(get(address, "/").await.unwrap().status, 200);
}

/// Whoever waits for this router to have closed must not wait for the drain time of a listener that is gone (S8).
#[tokio::test]
async fn closing_a_group_with_one_hot_member_cuts_and_says_so() {
    let member = Member::good("a").await;
    let stage = Stage::new(config(true, Protocol::Http), 2).leased();
    stage.open(3, &[&member]);
    let mut client = Client::to(stage.address).await;
    client.send(b"POST /hang HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").await;
    member.hangs(1).await;
    stage.handle.close(&stage.config.name);
    stage.heard(|event| matches!(event, Event::Closed { epoch: Epoch(3), .. })).await;
    assert_eq!(client.reply().await.unwrap().code(), "HW0811");
    until("every thread has let go", || async { stage.handle.is_closed(&stage.config.name) }).await;
}

#[tokio::test]
async fn a_group_that_closes_before_its_threads_know_of_it_is_closed_all_the_same() {
    let stage = Stage::new(config(true, Protocol::Http), 4);
    let name = &stage.config.name;
    for _ in 0..100 {
        stage.handle.close(name);
        until("closed", || async { stage.handle.is_closed(name) }).await;
        stage.handle.open(&stage.config, "", "127.0.0.1:0".parse().unwrap()).unwrap();
    }
}

/// The body of `without_descriptors_a_request_waits_its_time_and_no_longer`, in a process of its own: their limit is a process's.
#[tokio::test]
async fn in_a_process_of_its_own() {
    if std::env::var_os("HOTWARM_TEST_PROCESS").is_none() {
        return;
    }
    for protocol in [Protocol::Http, Protocol::Tcp] {
        let member = Member::good("a").await;
        let mut config = config(true, protocol);
        config.park.time = Duration::from_secs(1);
        let stage = Stage::new(config, 1).leased();
        let mut client = Client::to(stage.address).await;
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await;
        stage.parked(1).await;
        let before = getrlimit(Resource::Nofile);
        let used = std::fs::read_dir("/proc/self/fd").unwrap();
        let highest = used.map(|fd| fd.unwrap().file_name().to_str().unwrap().parse::<u64>().unwrap()).max();
        setrlimit(Resource::Nofile, Rlimit { current: highest.map(|fd| fd + 1), ..before }).unwrap();
        let all: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
        stage.open(1, &[&member]);
        match protocol {
            Protocol::Http => assert_eq!(client.reply().await.unwrap().code(), "HW0807"),
            Protocol::Tcp => assert!(client.ends().await),
        }
        let tries = stage.stats().members[0].connects;
        assert!((1..500).contains(&tries), "{tries} tries: did it rest between them?");
        drop(all);
        setrlimit(Resource::Nofile, before).unwrap();
    }
}

#[test]
fn without_descriptors_a_request_waits_its_time_and_no_longer() {
    let mut inside = std::process::Command::new(std::env::current_exe().unwrap());
    inside.args(["--exact", "router::tests::parking::in_a_process_of_its_own", "--nocapture"]).env("HOTWARM_TEST_PROCESS", "1");
    assert!(inside.status().unwrap().success());
}

#[tokio::test]
async fn limits_change_while_running() {
    let mut stage = Stage::http();
    let address = stage.address;
    stage.config.park.time = Duration::from_millis(20);
    let asked = "127.0.0.1:0".parse().unwrap();
    assert_eq!(stage.handle.open(&stage.config, "", asked).unwrap(), address);
    assert_eq!(get(address, "/").await.unwrap().code(), "HW0807");
}
