//! Drills test what they say, or say that they did not: each on the machine of what it strikes.

use std::process::Stdio;

use hotwarm::api::types::Status;

use crate::cluster::{Cluster, PATIENCE, Site, alone};
use crate::command::hotwarm;
use crate::faults::EXPECTED as OF_FAULTS;
use crate::netns::join_all;

/// Machines with certificates, and an API on loopback each.
fn machines() -> Cluster {
    join_all(Site::in_namespaces(3).web_and_clock())
}

fn node_of(cluster: &Cluster) -> &'static str {
    let hot = cluster.hot("clock", &[]).expect("one that serves");
    cluster.node_of(&hot)
}

/// On another machine it is refused; on its own, the node really hears nobody, says so itself, and is back afterwards.
#[test]
fn a_cut_node_is_cut_and_says_so() {
    let _alone = alone();
    let cluster = machines();
    let node = node_of(&cluster);
    let other = cluster.names().into_iter().find(|name| *name != node).unwrap();
    let refused = cluster.refused(other, &["drill", "cut", node, "--yes"]);
    assert!(refused.contains(&format!("run it on the machine of node {node}")), "{refused}");
    let patience = format!("{}s", PATIENCE.as_secs());
    let drill = ["drill", "cut", node, "--yes", "--for", "6s", "--objective", &patience];
    let cut_off = |status: &Status| status.node.cut_off_ms.is_some() && status.groups.iter().any(|g| g.name == "clock");
    let (told, seen, why) = std::thread::scope(|scope| {
        let told = scope.spawn(|| cluster.run(node, &drill));
        cluster.wait_status(node, "the node to know that it is cut off", cut_off);
        let seen = cluster.run(node, &["status"]).out;
        let why = cluster.run(node, &["why", "clock"]).out;
        (told.join().unwrap(), seen, why)
    });
    assert!(
        told.exit == 0 && told.err.contains("hears none of its peers") && told.err.contains("everything is back"),
        "{}{}",
        told.out,
        told.err
    );
    assert!(told.out.contains("clock (hot-warm)") && told.out.contains(": met"), "{}", told.out);
    for text in [&seen, &why] {
        assert!(text.starts_with(&format!("node {node} is cut off: ")), "{text}");
    }
    assert!(!why.contains("IF"), "{why}");
    // Not one word that here anything of `clock` is served, which here is not so.
    let line = |text: &str, first: &str| text.lines().find(|line| line.starts_with(first)).unwrap_or_default().to_owned();
    let (clock, web) = (line(&seen, "clock "), line(&seen, "web "));
    assert!(clock.contains("not served here, was serving") && clock.contains("was 1/1"), "{seen}");
    assert!(web.contains("was serving, goes on here"), "{seen}");
    assert!(seen.contains(&format!("clock: node {node} holds no lease: it serves nothing of this group")), "{seen}");
    let now = line(&why, "clock: ");
    assert!(now.starts_with(&format!("clock: nothing of it is served by node {node}, which holds no lease; when it last knew: ")), "{why}");
    assert!(line(&why, &format!("clock/{node} ")).contains("it was") && !why.contains("it is\n"), "{why}");
    cluster.wait_whole();
    assert_ne!(node_of(&cluster), node, "another took over");
    cluster.finish(OF_FAULTS);
}

/// Nobody who ends a drill, or loses the terminal that it runs in, leaves a node cut off.
#[test]
fn a_cut_ends_with_its_drill_however_that_ends() {
    let _alone = alone();
    let cluster = machines();
    let node = node_of(&cluster);
    let mut drill = hotwarm();
    drill.arg("--config").arg(cluster.config(node)).args(["drill", "cut", node, "--yes", "--for", "1h"]);
    let mut drill = cluster.on(node, move || drill.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    cluster.wait_status(node, "the node to know that it is cut off", |status| status.node.cut_off_ms.is_some());
    drill.kill().unwrap();
    drill.wait().unwrap();
    cluster.wait_settled();
    cluster.finish(OF_FAULTS);
}

/// What is said of a death is said of the process that died, and not of a node that goes on.
#[test]
fn a_drill_of_a_killed_node_ends_where_nobody_is_left_to_ask() {
    let _alone = alone();
    let mut cluster = machines();
    let node = node_of(&cluster);
    let patience = format!("{}s", PATIENCE.as_secs());
    let told = cluster.run(node, &["drill", "node-kill", node, "--yes", "--for", "4s", "--objective", &patience]);
    assert!(told.exit == 0 && told.err.contains(&format!("start node {node} again")), "{}{}", told.out, told.err);
    assert!(told.out.contains("clock (hot-warm)"), "{}", told.out);
    cluster.forget_agent(node);
    cluster.start(node);
    cluster.wait_whole();
    let missing = cluster.run(node, &["drill", "kill", "web/nobody", "--yes"]);
    assert!(missing.exit == 1 && missing.err.contains("HW0401"), "{}", missing.err);
    cluster.finish(OF_FAULTS);
}
