//! A node that comes back with an empty directory: it joins as somebody new, and nothing of the cluster's state is lost (S11).

use std::fs;

use hotwarm::api::types::{Done, Status};
use rustix::process::Signal;
use serde_json::json;

use crate::cluster::{Site, alone, members, private};
use crate::faults::EXPECTED as OF_FAULTS;
use crate::members::signal;

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
