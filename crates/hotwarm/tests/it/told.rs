//! What operators are told, on real clusters, of members that fail without ending: they answer errors, or are dead in a group that is paused.
//!
//! Nothing here may change who is hot. Main path: [`breaks`] makes a member answer 500 to requests and 200 to its check.

use std::fs;
use std::net::SocketAddr;

use hotwarm::api::types::{GroupStatus, MemberTraffic, Status, Traffic};

use crate::cluster::{Cluster, Site, engine};
use crate::faults::EXPECTED;
use crate::listeners::status_of;

const ERRS: (&str, &str) = ("HW0511", "the member was made to answer 500");

fn nginx(mode: &str, more: &str) -> Cluster {
    let site = Site::new(3);
    let work = site.dir.path().join("nginx");
    let member = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/web-nginx/member");
    let engine = engine(&[member, work.to_str().unwrap()], "");
    let cluster = site.group("web", mode, &format!("protocol = \"http\"\ncheck = {{ http = \"/healthz\" }}\n{more}{engine}")).start();
    cluster.wait_whole();
    cluster
}

/// From now on it answers 500 at `/broken`; the others have no such page.
fn breaks(cluster: &Cluster, member: &str) {
    let file = cluster.file("nginx").join(member).join("nginx.conf");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("server {", "server { location = /broken { return 500; }", 1)).unwrap();
    rustix::process::kill_process(cluster.member_pid(member).unwrap(), rustix::process::Signal::HUP).unwrap();
}

fn group<'a>(status: &'a Status, name: &str) -> &'a GroupStatus {
    status.groups.iter().find(|group| group.name == name).unwrap()
}

fn errs(status: &Status) -> Option<&str> {
    group(status, "web").problems.iter().find(|problem| problem.code == "HW0511").map(|problem| problem.title.as_str())
}

fn traffic(cluster: &Cluster, node: &str, member: &str) -> MemberTraffic {
    let all: Traffic = cluster.client(node).get("/api/v1/traffic").unwrap();
    all.groups.into_iter().flat_map(|group| group.members).find(|traffic| traffic.member == member).unwrap()
}

/// Asks at `router` for `path` again and again until node a says so.
fn ask_until(cluster: &Cluster, router: SocketAddr, path: &str, what: &str, condition: impl Fn(&Status) -> bool) -> Status {
    let mut found = None;
    cluster.wait_until(what, || {
        status_of(router, path);
        found = cluster.status_of("a").ok().filter(&condition);
        found.is_some()
    });
    found.expect("the wait ended when it was found")
}

#[test]
fn a_hot_member_that_answers_errors_is_told_of_and_not_replaced() {
    let cluster = nginx("hot-warm", "");
    let (hot, epoch, router) = (cluster.hot("web", &[]).unwrap(), cluster.group("web").epoch, cluster.listen("web")["a"]);
    breaks(&cluster, &hot);
    let status = ask_until(&cluster, router, "/broken", "the errors to be told", |status| errs(status).is_some());
    let title = errs(&status).unwrap();
    assert!(title.starts_with(&format!("the hot member {hot} answers most requests with 5xx (")), "{title}");
    assert!(title.ends_with(" in the last 10 s, by the router of a): its check passes, so it is not replaced"), "{title}");
    assert!(traffic(&cluster, "a", &hot).replies["5xx"] >= 11 && traffic(&cluster, "a", &hot).failed == 0);
    let metrics = cluster.client("a").get_text("/metrics").unwrap().1;
    let errors = format!("hotwarm_router_replies_total{{group=\"web\",member=\"{hot}\",class=\"5xx\"}} ");
    let counted = metrics.lines().find_map(|line| line.strip_prefix(errors.as_str())).unwrap();
    assert!(counted.parse::<u64>().unwrap() >= 11, "{counted}");
    let (code, health) = cluster.client("a").get_text("/health").unwrap();
    assert!(code == 200 && health.contains("\"UP\"") && health.contains("answers most requests with 5xx"), "{health}");
    assert!(cluster.done("a", &["status", "--check"]).contains(&format!("see its log: `hotwarm logs {hot}` on node ")));
    assert!(cluster.done("a", &["why", "web"]).contains("answers most requests with 5xx"));
    // Only whose router sees it tells of it.
    assert!(errs(&cluster.status_of("b").unwrap()).is_none());
    ask_until(&cluster, router, "/no-such-page", "the errors to be over", |status| errs(status).is_none());
    let events = cluster.done("a", &["events", "web"]);
    assert!(
        events.contains("answers most requests with 5xx (") && events.contains("answers most requests without 5xx again ("),
        "{events}"
    );
    assert_eq!((cluster.group("web").epoch, cluster.hot("web", &[])), (epoch, Some(hot)));
    cluster.finish(&[EXPECTED[0], ERRS]);
}

#[test]
fn a_member_of_several_that_is_left_out_for_its_errors_is_told_of_as_long_as_that() {
    let cluster = nginx("hot-hot", "balance = \"round-robin\"\n");
    let (epoch, router) = (cluster.group("web").epoch, cluster.listen("web")["a"]);
    breaks(&cluster, "web/b");
    let status =
        ask_until(&cluster, router, "/broken", "b to be left out", |status| errs(status).is_some_and(|title| title.contains("out web/b")));
    let title = errs(&status).unwrap();
    assert!(title.starts_with("the router of a leaves out web/b: ") || title.starts_with("the router of a left out web/b, "), "{title}");
    // It is tried again, in vain, and left out for longer each time.
    ask_until(&cluster, router, "/broken", "it to be shown", |_| {
        let metrics = || cluster.client("a").get_text("/metrics").unwrap().1;
        traffic(&cluster, "a", "web/b").ejected && metrics().contains("hotwarm_router_ejected{group=\"web\",member=\"web/b\"} 1\n")
    });
    assert!(cluster.done("a", &["why", "web"]).contains("web/b"));
    assert_eq!(cluster.client("a").get_text("/health").unwrap().0, 200);
    cluster.wait_until("it to be over without requests", || errs(&cluster.status_of("a").unwrap()).is_none());
    assert!(!traffic(&cluster, "a", "web/b").ejected);
    let events = cluster.done("a", &["events", "web"]);
    assert!(events.contains("leaves out web/b: it answers 5xx") && events.contains("leaves out web/b no more"), "{events}");
    assert_eq!((cluster.group("web").epoch, cluster.group("web").have.hot), (epoch, 3));
    cluster.finish(&[EXPECTED[0], ERRS]);
}

/// The balance keeps away from it by itself, so that it seldom errs often enough in a row to be left out.
#[test]
fn a_member_of_several_to_which_others_are_preferred_for_its_errors_is_told_of() {
    let cluster = nginx("hot-hot", "");
    breaks(&cluster, "web/b");
    ask_until(&cluster, cluster.listen("web")["a"], "/broken", "b to be told of", |status| errs(status).is_some());
    assert!(cluster.done("a", &["events", "web"]).contains("web/b"));
    assert!(cluster.group("web").have.hot == 3 && errs(&cluster.status_of("c").unwrap()).is_none());
    cluster.finish(&[EXPECTED[0], ERRS]);
}

/// Nobody answers its failure, and no line may say that it serves.
#[test]
fn a_hot_member_that_died_in_a_paused_group_serves_in_no_line() {
    let mut cluster = Site::new(3).web_and_clock().start_whole();
    let hot = cluster.hot("clock", &[]).unwrap();
    let node = cluster.names().into_iter().find(|name| hot.ends_with(&format!("/{name}"))).unwrap();
    let asked = cluster.names().into_iter().find(|name| *name != node).unwrap();
    cluster.done(asked, &["pause", "clock", "--yes"]);
    cluster.wait_all("the pause", |status| group(status, "clock").pause == "paused");
    cluster.kill_node(node);
    let status =
        cluster.wait_status(asked, "the loss told", |status| group(status, "clock").problems.iter().any(|p| p.code == "hot-in-doubt"));
    let clock = group(&status, "clock");
    assert_eq!((clock.state.as_str(), clock.have.hot), ("parked", 0));
    assert!(clock.members.iter().all(|member| !member.serving), "{clock:#?}");
    let shown = cluster.done(asked, &["status"]);
    assert!(shown.contains("parked, paused") && shown.contains("`hotwarm resume clock`; `hotwarm why clock` names the doubt"), "{shown}");
    let why = cluster.done(asked, &["why", "clock"]);
    assert!(
        why.starts_with(&format!("clock: {hot} is hot: its node is not heard or holds no lease; whether it serves is not known, ")),
        "{why}"
    );
    let now = why.lines().next().unwrap();
    assert!(!now.contains("nobody serves"), "of a member that a pause lets live on nobody knows: {why}");
    assert!(!why.contains("hotwarm why"), "{why}");
    cluster.finish(&[EXPECTED[0], ("reason=\"automation-paused\"", "the group is paused, and its hot member was killed")]);
}

/// One request that had to wait for the next hot member, and no other: the node that it waited at tells of it, and that node alone.
#[test]
fn what_a_failover_cost_is_told_by_the_node_whose_clients_paid() {
    let mut cluster = Site::new(3).web_and_clock().start_whole();
    let hot = cluster.hot("clock", &[]).unwrap();
    let node = cluster.node_of(&hot);
    let others: Vec<_> = cluster.names().into_iter().filter(|name| *name != node).collect();
    let (router, epoch) = (cluster.listen("clock")[others[0]], cluster.group("clock").epoch);
    cluster.kill_node(node);
    assert_eq!(status_of(router, "/"), "200", "it waits and is answered");
    let events_of = |name: &str| cluster.done(name, &["events", "clock"]);
    let told = |name: &str| events_of(name).lines().filter(|line| line.contains("here-parked")).count();
    cluster.wait_until("both to know of the next hot member", || {
        others.iter().all(|name| events_of(name).contains(&format!("serves epoch {}", epoch + 1)))
    });
    let events = events_of(others[0]);
    let line = events.lines().find(|line| line.contains("here-parked")).unwrap_or_else(|| panic!("{events}"));
    assert!(
        line.contains(&format!("the router of {}: 1 requests parked and 0 failed between the end of epoch {epoch}", others[0])),
        "{line}"
    );
    assert_eq!(others.iter().map(|name| told(name)).collect::<Vec<_>>(), [1, 0]);
    cluster.finish(&[EXPECTED[0]]);
}
