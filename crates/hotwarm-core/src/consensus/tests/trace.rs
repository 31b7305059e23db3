//! One seed, one trace, in any process (S16): this test runs itself in other processes and compares.

use super::cluster::{Cluster, encode_state};
use crate::consensus::{Change, ConfChange};
use crate::ids::RaftId;
use crate::rng::Rng;

/// A script full of elections, cuts, crashes, changes of voters and snapshots.
fn trace(seed: u64) -> u64 {
    let mut cluster = Cluster::three(seed);
    for id in [4, 5] {
        cluster.nodes.insert(id, super::cluster::Node::default());
        cluster.start(id);
    }
    let mut rng = Rng::new(seed);
    for step in 0..400 {
        let id = rng.between(1, 5);
        match rng.below(8) {
            0 => cluster.isolate(id),
            1 | 2 => cluster.heal(),
            3 => cluster.start(id),
            4 => {
                let change = match rng.below(3) {
                    0 => ConfChange::Simple(Change::AddVoter(RaftId(id))),
                    1 => ConfChange::Joint(vec![Change::AddLearner(RaftId(id)), Change::AddVoter(RaftId(id % 5 + 1))]),
                    _ => ConfChange::Simple(Change::AddLearner(RaftId(id))),
                };
                if let Some(leader) = cluster.leader() {
                    let _ = cluster.at(leader).propose_conf_change(&change, b"");
                }
            }
            5 => {
                let (applied, state) = (cluster.at(id).status().applied, encode_state(&cluster.nodes[&id].applied));
                if cluster.at(id).take_snapshot(applied, state).is_ok() {
                    cluster.at(id).compact(applied);
                }
            }
            6 => {
                let (now, node) = (cluster.now, cluster.at(id));
                let _ = node.read_index(step);
                node.campaign(now);
            }
            _ => {
                if let Some(leader) = cluster.leader() {
                    let _ = cluster.at(leader).propose(step.to_string().into_bytes(), Vec::new());
                }
            }
        }
        cluster.tick(usize::try_from(rng.between(1, 30)).unwrap());
    }
    assert!(cluster.said.len() > 1000);
    // All that happened was safe as well: one log.
    cluster.heal();
    cluster.tick(200);
    let longest = cluster.nodes.values().map(|node| node.applied.iter().map(|(_, data)| data.clone()).collect::<Vec<_>>());
    let longest = longest.max_by_key(Vec::len).unwrap();
    for node in cluster.nodes.values() {
        let prefix: Vec<_> = node.applied.iter().map(|(_, data)| data.clone()).collect();
        assert_eq!(prefix, longest[..prefix.len()]);
    }
    cluster.trace
}

fn hash() -> u64 {
    (1..=12).fold(0, |hash, seed| hash ^ trace(seed).rotate_left(u32::try_from(seed).unwrap()))
}

const MARK: &str = "trace hash ";

#[test]
fn print_trace_hash() {
    println!("{MARK}{:016x}", hash());
}

#[test]
fn same_seed_same_trace_in_other_processes() {
    assert_ne!(trace(1), trace(2));
    let other = || {
        std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "consensus::tests::trace::print_trace_hash", "--nocapture"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let others = [other(), other()];
    let ours = format!("{:016x}", hash());
    for other in others {
        let text = String::from_utf8(other.wait_with_output().unwrap().stdout).unwrap();
        let theirs = text.lines().find_map(|line| line.split_once(MARK).map(|(_, hash)| hash[..16].to_owned()));
        assert_eq!(theirs.as_deref(), Some(ours.as_str()), "{text}");
    }
}
