//! Where clients come, on real clusters: listeners that are taken away, that find their port taken, and requests that a member answers by
//! hanging up.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use hotwarm::api::types::{Configuration, GroupStatus, Status};

use crate::cluster::{Cluster, Site, engine};
use crate::faults::EXPECTED;

pub(crate) fn status_of(address: SocketAddr, path: &str) -> String {
    let mut curl = Command::new("curl");
    curl.args(["-s", "-o", "/dev/null", "-m", "20", "-w", "%{http_code}", &format!("http://{address}{path}")]);
    String::from_utf8(curl.output().unwrap().stdout).unwrap()
}

fn listens(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_ok_and(|stream| stream.local_addr().unwrap() != stream.peer_addr().unwrap())
}

/// Puts the configuration in force, as `change` makes it, into force.
fn apply(cluster: &Cluster, change: impl FnOnce(&str) -> String) {
    let now: Configuration = cluster.client("a").get("/api/v1/config").unwrap();
    let file = cluster.file("new.toml");
    fs::write(&file, change(&now.text)).unwrap();
    cluster.done("a", &["apply", file.to_str().unwrap(), "--yes"]);
}

fn clock(status: &Status) -> &GroupStatus {
    status.groups.iter().find(|group| group.name == "clock").unwrap()
}

#[test]
fn a_listener_is_taken_away_and_one_whose_port_is_taken_is_told_and_tried_again() {
    let cluster = Site::new(3).web_and_clock().start();
    cluster.wait_whole();
    let address = cluster.listen("clock")["c"];
    assert_eq!(status_of(address, "/"), "200");
    let entry = format!(", c = \"{address}\"");
    let mut whole = String::new();
    apply(&cluster, |text| {
        text.clone_into(&mut whole);
        text.replace(&entry, "")
    });
    cluster.wait_until("c's listener closed", || !listens(address));
    // A router that is gone is waited for by nobody.
    cluster.done("a", &["switchover", "clock", "--yes"]);
    cluster.wait_settled();

    let taken = TcpListener::bind(address).unwrap();
    apply(&cluster, |_| whole);
    let status = cluster.wait_status("c", "the problem is told", |status| clock(status).problems.iter().any(|p| p.code == "HW0506"));
    assert!(!clock(&status).listen.contains_key("c"), "{:?}", clock(&status).listen);
    let (code, health) = cluster.client("c").get_text("/health").unwrap();
    assert!(code == 503 && health.contains("node c does not serve its clients"), "{health}");
    assert!(cluster.done("c", &["why", "clock"]).contains("no address to listen on"));
    // One that cannot listen is waited for by nobody either: it has admitted nothing (S8).
    cluster.done("a", &["switchover", "clock", "--yes"]);
    cluster.wait_settled();
    assert_eq!(cluster.client("a").get_text("/health").unwrap().0, 200, "only c's clients suffer");
    assert_eq!(["a", "c"].map(|node| cluster.run(node, &["status", "--check"]).exit), [0, 1]);
    drop(taken);
    cluster.wait_until("c listens again", || listens(address));
    assert_eq!(status_of(address, "/"), "200", "with the routes in force");
    cluster.wait_status("c", "the problem is over", |status| clock(status).problems.is_empty());
    assert_eq!(cluster.client("c").get_text("/health").unwrap().0, 200);
    cluster.finish(&[EXPECTED[0], ("HW0506", "the port was taken above")]);
}

/// Nobody who may send a request may move the service by it.
#[test]
fn requests_that_the_hot_member_hangs_up_on_move_nothing() {
    let site = Site::new(3);
    let work = site.dir.path().join("nginx");
    let member = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/web-nginx/member");
    let engine = engine(&[member, work.to_str().unwrap()], "");
    let cluster = site.group("web", "hot-warm", &format!("protocol = \"http\"\ncheck = {{ http = \"/healthz\" }}\n{engine}")).start();
    cluster.wait_whole();
    // What `return 444` is for: nginx closes without a word.
    let hot = cluster.hot("web", &[]).unwrap();
    let file = work.join(&hot).join("nginx.conf");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("server {", "server { location = /hangup { return 444; }", 1)).unwrap();
    let master = cluster.member_pid(&hot).unwrap();
    rustix::process::kill_process(master, rustix::process::Signal::HUP).unwrap();
    let routers: Vec<_> = cluster.listen("web").into_values().collect();
    cluster.wait_until("the member hangs up", || status_of(routers[0], "/hangup") == "502");
    let before = cluster.group("web").epoch;
    std::thread::scope(|all| {
        for router in &routers {
            // Workers of before the reload may answer a few of them still.
            all.spawn(|| {
                let hung_up = std::iter::repeat_with(|| status_of(*router, "/hangup")).take(1000).filter(|status| status == "502");
                assert_eq!(hung_up.take(20).count(), 20);
            });
        }
    });
    let after = cluster.group("web");
    assert_eq!((after.epoch, cluster.hot("web", &[])), (before, Some(hot)));
    assert!(after.members.iter().all(|member| member.unfit.is_none()), "{:?}", after.members);
    assert!(!cluster.done("a", &["events", "web"]).contains("hot-unreachable"));
    cluster.finish(&[EXPECTED[0]]);
}
