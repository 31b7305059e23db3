//! The leader of the log: killed again and again it is replaced, and clients notice nothing; under load nobody replaces it without cause.

use std::time::Instant;

use crate::cluster::{Cluster, Site, all_answered, alone, long};
use crate::faults::EXPECTED;

/// The leader and its term, as a node other than `not` sees it.
fn leader(cluster: &Cluster, not: &[&str]) -> Option<(&'static str, u64)> {
    let status = cluster.status_but(not)?;
    let name = status.cluster.leader?;
    Some((cluster.machine(&name).name, status.cluster.term))
}

/// Only the agent is killed: the group in which all serve goes on on every node, and the other nodes' routers answer everybody.
#[test]
fn a_killed_leader_is_replaced_and_clients_notice_nothing() {
    let _alone = alone();
    let mut cluster = Site::new(3).web_and_clock().start_whole();
    let mut times = Vec::new();
    for _ in 0..if long() { 20 } else { 5 } {
        let (old, term) = leader(&cluster, &[]).expect("a leader");
        let loads = cluster.load_but(old);
        let killed = Instant::now();
        cluster.kill_agent(old);
        cluster.wait_until("another leader", || leader(&cluster, &[old]).is_some_and(|(now, later)| now != old && later > term));
        times.push(killed.elapsed().as_millis());
        cluster.start(old);
        cluster.wait_settled();
        all_answered(loads);
    }
    times.sort_unstable();
    println!("leaders replaced, as seen through the API, after (ms) {times:?}; median {}", times[times.len() / 2]);
    cluster.finish(EXPECTED);
}

/// Both cores busy: the leader keeps its term. `HOTWARM_TEST_LONG=1`: for ten minutes.
#[test]
fn a_busy_machine_is_no_reason_for_an_election() {
    let _alone = alone();
    let cluster = Site::new(3).web_and_clock().start_whole();
    let before = leader(&cluster, &[]);
    let moves = |cluster: &Cluster| cluster.status_but(&[]).unwrap().groups.iter().map(|g| g.epoch).collect::<Vec<_>>();
    let epochs = moves(&cluster);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let lasts = Instant::now() + std::time::Duration::from_secs(if long() { 600 } else { 10 });
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        while Instant::now() < lasts {
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(leader(&cluster, &[]), before, "an election without cause");
    assert_eq!(moves(&cluster), epochs, "a failover without cause");
    cluster.finish(EXPECTED);
}
