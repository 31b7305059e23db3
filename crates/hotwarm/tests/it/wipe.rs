//! A node that comes back with an empty directory: it joins as somebody new, and nothing of the cluster's state is lost (S11).

use std::fs;
use std::process::Command;

use hotwarm::api::types::{Done, Status};
use rustix::process::Signal;
use serde_json::json;

use crate::cluster::{Site, alone, members, private};
use crate::faults::EXPECTED as OF_FAULTS;
use crate::members::{is_alive, signal};
use crate::netns::join_all;

const EXPECTED: &[(&str, &str)] = &[OF_FAULTS[0]];

fn drained(status: &Status) -> Vec<String> {
    members(status).filter(|m| m.drained).map(|m| m.name.clone()).collect()
}

/// Each node in turn, the first included, which is even given the right to found a cluster again, as its join file would.
#[test]
fn each_node_in_turn_comes_back_from_an_empty_directory() {
    let _alone = alone();
    let mut cluster = Site::new(3).web_and_clock().start_whole();
    let before = cluster.status_of("a").unwrap();
    // Something that only the log holds.
    let _: Done = cluster.client("b").post("/api/v1/members/web/c/drain", &json!({})).unwrap();
    cluster.wait_until("the drain", || drained(&cluster.status_of("b").unwrap()) == ["web/c"]);
    for name in cluster.names() {
        let epoch = |status: &Status| status.groups.iter().map(|g| g.epoch).collect::<Vec<_>>();
        let known = cluster.status_of(name).unwrap();
        cluster.kill_node(name);
        let data = cluster.machine(name).data.clone();
        fs::remove_dir_all(&data).unwrap();
        private(&data);
        if name == "a" {
            fs::write(data.join("bootstrap"), "the first node's right\n").unwrap();
        }
        cluster.start(name);
        cluster.wait_for("the wiped node to vote again", || {
            let status = cluster.status_of(name).map_err(|error| error.to_string());
            let whole = |s: &Status| {
                s.cluster.id == before.cluster.id && s.cluster.quorum.voters.len() == 3 && s.nodes.iter().all(|n| n.leased && n.votes)
            };
            status.as_ref().is_ok_and(whole).then_some(()).map_or_else(|| Some(format!("{name}: {status:?}")), |()| None)
        });
        cluster.wait_until("its members", || {
            let status = cluster.status_of(name).unwrap();
            members(&status).all(|m| m.ready) && status.groups.iter().all(|g| g.state == "serving")
        });
        let now = cluster.status_of(name).unwrap();
        assert_eq!(drained(&now), ["web/c"], "what an operator ordered is still known");
        assert_eq!(now.cluster.revision, before.cluster.revision);
        assert!(epoch(&now).iter().zip(epoch(&known)).all(|(now, known)| *now >= known), "epochs only grow");
        println!("{name} is back");
    }
    cluster.finish(EXPECTED);
}

/// What members leave in `run` is deleted while the log stays: their next lives are new to the log all the same (S4).
#[test]
fn a_node_whose_members_have_forgotten_their_lives_gets_them_back() {
    let mut cluster = Site::new(3).web_and_clock().start_whole();
    let node = "b";
    // Lives after the first: the numbers to come would be lower.
    for _ in 0..2 {
        let first = ["web/b", "clock/b"].map(|member| cluster.member_pid(member).unwrap());
        first.iter().for_each(|pid| signal(*pid, Signal::KILL));
        cluster.wait_until("new lives", || {
            ["web/b", "clock/b"].iter().zip(first).all(|(member, before)| cluster.member_pid(member).is_some_and(|pid| pid != before))
        });
        cluster.wait_whole();
    }
    cluster.kill_node(node);
    fs::remove_dir_all(cluster.machine(node).data.join("run")).unwrap();
    cluster.start(node);
    cluster.wait_whole();
    cluster.finish(EXPECTED);
}

/// All but `tls` is moved away while members live on, by the very commands of the manual: the node keeps its name and keys, is another
/// replica, and its members begin new lives where the former ones have ended.
#[test]
fn a_node_joins_anew_as_the_manual_says() {
    let _alone = alone();
    let mut cluster = join_all(Site::in_namespaces(3).web_and_clock());
    let hot = cluster.hot("clock", &[]).expect("one that serves");
    let node = cluster.names().into_iter().find(|name| !hot.ends_with(&format!("/{name}"))).unwrap();
    let data = cluster.machine(node).data.clone();
    let members = ["web", "clock"].map(|group| format!("{group}/{node}"));
    let before = members.clone().map(|member| cluster.member_pid(&member).unwrap());
    let incarnation = fs::read_to_string(data.join("incarnation")).unwrap();
    cluster.stop_agent(node);
    let page = include_str!("../../../../docs/operating/day-two.md");
    let moves = page.lines().filter_map(|line| line.strip_prefix("sudo ")).filter(|line| line.contains("/var/lib/hotwarm.old"));
    let moves: Vec<String> = moves.map(|line| line.replace("/var/lib/hotwarm", data.to_str().unwrap())).collect();
    assert_eq!(moves.len(), 2, "{moves:?}");
    for command in moves {
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success(), "{command}");
    }
    let left: Vec<_> = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["tls"]);
    assert!(before.iter().all(|pid| is_alive(*pid)), "members live on");
    cluster.start(node);
    // What the others know of them holds until the new agent has looked.
    cluster.wait_until("new lives", || {
        members.iter().zip(before).all(|(member, before)| cluster.member_pid(member).is_some_and(|pid| pid != before && !is_alive(before)))
    });
    cluster.wait_whole();
    assert_ne!(fs::read_to_string(data.join("incarnation")).unwrap(), incarnation, "another replica");
    cluster.finish(EXPECTED);
}
