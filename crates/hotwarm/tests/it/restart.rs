//! A changed engine is brought to every member, under load, and nobody notices; one that does not start ends the restart there.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use hotwarm::api::types::{Configuration, Done, GroupStatus, MemberStatus, Traffic};
use hotwarm_core::cluster::BEHAVIOUR;
use serde_json::json;

use crate::cluster::{Cluster, Site, all_answered, is_whole};
use crate::faults::EXPECTED as OF_FAULTS;

/// Puts `changed` of the configuration in force into force.
fn apply(cluster: &Cluster, changed: impl Fn(&str) -> String) -> String {
    let now: Configuration = cluster.client("a").get("/api/v1/config").unwrap();
    let file = cluster.file("new.toml");
    std::fs::write(&file, changed(&now.text)).unwrap();
    cluster.done("a", &["apply", file.to_str().unwrap(), "--yes"])
}

/// What is answered there.
fn answer_of(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn lives(group: &GroupStatus) -> BTreeMap<String, u64> {
    group.members.iter().map(|member| (member.name.clone(), member.incarnation)).collect()
}

/// Each member runs the program that calls itself `new`, in the life after the one it had `before`.
fn all_new(group: &GroupStatus, before: &BTreeMap<String, u64>) {
    let is_new = |member: &MemberStatus| {
        member.incarnation == before[&member.name] + 1 && answer_of(member.address, "/").contains("\"name\":\"new\"")
    };
    let old: Vec<_> = group.members.iter().filter(|member| !is_new(member)).collect();
    assert!(old.is_empty(), "{old:?}");
}

/// S17: nobody is restarted before every node is known to have a program that can.
fn started() -> Cluster {
    let cluster = Site::new(3).web_and_clock().start_whole();
    cluster.wait_all("the newest behaviour", |status| status.cluster.behaviour == BEHAVIOUR);
    cluster
}

#[test]
fn a_changed_engine_reaches_every_member_and_no_request_fails() {
    let cluster = started();
    let new = |text: &str| {
        let web = text.replace("\"component\", \"web\"", "\"component\", \"web\", \"--name\", \"new\"");
        web.replace("\"component\", \"clock\"", "\"component\", \"clock\", \"--name\", \"new\"")
    };
    let told = apply(&cluster, new);
    assert!(told.contains("one after the other: `hotwarm restart clock`, `hotwarm restart web`"), "{told}");
    cluster.wait_until("b to name its members", || cluster.done("b", &["status"]).contains("run the former engine: web/b"));
    let first = cluster.hot("clock", &[]).unwrap();
    let before = ["web", "clock"].map(|name| lives(&cluster.group(name)));
    assert!(cluster.run("b", &["restart", "web"]).err.contains("HW0411"), "it asks first");
    let loads = cluster.load_but("");
    let web = cluster.done("b", &["restart", "web", "--yes"]);
    assert!(web.ends_with("web restarted: web/a, web/b, web/c\n"), "{web}");
    // Of a group, one at a time too: the hot one last, and another serves then.
    let clock = cluster.run("c", &["restart", "clock", "--yes"]);
    assert_eq!(clock.exit, 0, "{}", clock.err);
    let asked = clock.err.lines().find(|line| line.starts_with("a restart of ")).expect("the order");
    assert!(asked.contains(&format!(", then {first} was asked for")), "{asked}");
    cluster.wait_all("all whole", |status| status.groups.iter().all(is_whole));
    all_answered(loads);
    for (name, before) in ["web", "clock"].iter().zip(&before) {
        let group = cluster.group(name);
        all_new(&group, before);
        assert_eq!((group.failovers_last_hour, &group.restart), (0, &None));
        assert!(group.members.iter().all(|member| member.held_down_ms.is_none()), "nobody failed: {:?}", group.members);
    }
    assert_ne!(cluster.hot("clock", &[]).unwrap(), first);
    assert!(!cluster.done("b", &["status"]).contains("former engine"));
    // S4: the same command, heard late, names lives that are over.
    let late = cluster.client("c").post::<serde_json::Value>("/api/v1/groups/web/restart", &json!({ "incarnations": before[0] }));
    assert!(late.unwrap_err().to_string().contains("nothing runs of what was named"));
    // One member by itself.
    cluster.done("a", &["restart", "web/b", "--yes"]);
    let since = lives(&cluster.group("web")).into_iter().map(|(name, life)| life - before[0][&name]).collect::<Vec<_>>();
    assert_eq!(since, [1, 2, 1]);
    cluster.finish(&[OF_FAULTS[0], ("restart refused", "refused above")]);
}

#[test]
fn a_member_that_does_not_come_back_ends_the_restart() {
    let cluster = started();
    let broken = |text: &str| text.replace("\"component\", \"web\"", "\"component\", \"nothing\"");
    apply(&cluster, broken);
    let (loads, before) = (cluster.load_but(""), lives(&cluster.group("web")));
    let stopped = cluster.run("a", &["restart", "web", "--yes"]);
    assert!(stopped.exit == 1 && stopped.err.contains("HW0424"), "{} {}", stopped.exit, stopped.err);
    assert!(stopped.err.contains("not restarted: web/b, web/a"), "{}", stopped.err);
    let group = cluster.group("web");
    assert!(group.restart.as_ref().is_some_and(|restart| restart.stopped), "{:?}", group.restart);
    let goes_on = |member: &MemberStatus| member.serving && member.incarnation == before[&member.name];
    assert_eq!(group.members.iter().map(goes_on).collect::<Vec<_>>(), [true, true, false]);
    for command in [&["status"][..], &["why", "web"], &["events", "web"]] {
        assert!(cluster.done("b", command).contains("restart"), "{command:?}");
    }
    // The former engine again: the one that is missing takes it up by itself, and nobody else is disturbed.
    apply(&cluster, |text| text.replace("\"component\", \"nothing\"", "\"component\", \"web\""));
    cluster.wait_all("c back", |status| status.groups.iter().all(|group| group.have.hot == group.want.hot));
    assert!(cluster.done("b", &["status"]).contains("a restart of members stopped"));
    let called_off = cluster.done("c", &["restart", "web", "--cancel"]);
    assert!(called_off.contains("nothing more of group web is restarted"), "{called_off}");
    cluster.wait_all("all whole", |status| status.groups.iter().all(is_whole));
    all_answered(loads);
    cluster.done("a", &["pause", "web", "--yes"]);
    assert!(cluster.refused("b", &["restart", "web", "--yes"]).contains("HW0423"));
    cluster.done("a", &["resume", "web"]);
    cluster.finish(&[OF_FAULTS[0], ("web/c", "its engine does not start"), ("automation is paused", "paused above")]);
}

#[test]
fn what_is_in_flight_at_a_member_finishes_before_it_ends() {
    let cluster = started();
    let (listen, before) = (cluster.listen("web")["a"], lives(&cluster.group("web")));
    // More than members, so that each has some.
    let slow = |_| std::thread::spawn(move || answer_of(listen, "/slow?ms=3000"));
    let in_flight: Vec<_> = (0..9).map(slow).collect();
    let busy = |name: &str| {
        let traffic: Traffic = cluster.client("a").get("/api/v1/traffic").unwrap();
        let group = traffic.groups.into_iter().find(|group| group.group == "web").unwrap();
        group.members.iter().any(|member| member.member == name && member.in_flight > 0)
    };
    cluster.wait_until("each member to have some", || ["web/a", "web/b", "web/c"].into_iter().all(busy));
    let client = cluster.client("b");
    client.post::<Done>("/api/v1/members/web/c/restart", &json!({})).unwrap();
    cluster.wait_until("c to drain", || cluster.done("a", &["status"]).contains("web/c is being restarted: it finishes what it has"));
    assert_eq!(lives(&cluster.group("web")), before, "it has not ended");
    let answers: Vec<String> = in_flight.into_iter().map(|asked| asked.join().unwrap()).collect();
    assert!(answers.iter().all(|answer| answer.starts_with("HTTP/1.1 200") && answer.contains("\"pid\"")), "{answers:?}");
    cluster.wait_all("it to be over", |status| status.groups.iter().all(|group| group.restart.is_none() && is_whole(group)));
    let since = lives(&cluster.group("web")).into_iter().map(|(name, life)| life - before[&name]).collect::<Vec<_>>();
    assert_eq!(since, [0, 0, 1]);
    // One answer a request: none was asked again of another member.
    assert!(answers.iter().any(|answer| answer.contains("\"name\":\"web/c\"")), "{answers:?}");
    cluster.finish(&OF_FAULTS[..1]);
}
