//! An agent that is replaced while its members run, as an upgrade does: killed without a word and started again.

use std::fs;
use std::time::{Duration, Instant};

use hotwarm::api::types::Configuration;
use rustix::process::{Pid, Signal};

use crate::cluster::{Cluster, Site, all_answered, alone};
use crate::faults::EXPECTED;
use crate::members::is_alive;
use crate::recorder::Recorder;

/// What is left of a guard's deadline, at any moment, on a machine that keeps up: a lease of a second that is renewed four times in it.
const LEFT_AT_LEAST: Duration = Duration::from_millis(600);

fn pid_of(cluster: &Cluster, member: &str) -> Pid {
    cluster.member_pid(member).expect("a member that runs")
}

/// Kills the agent of each node in turn and starts it again at once. The routers of the two others are asked all the while.
#[test]
fn members_live_through_the_upgrade_of_their_agent() {
    let _alone = alone();
    let mut cluster = Site::new(3).web_and_clock().start_whole();
    let recorder = Recorder::watch(&cluster);
    for node in cluster.names() {
        let (web, clock) = (format!("web/{node}"), format!("clock/{node}"));
        let hot = cluster.hot("clock", &[]).expect("one that serves");
        let before = (pid_of(&cluster, &web), pid_of(&cluster, &clock));
        let loads = cluster.load_but(node);
        let killed = Instant::now();
        cluster.kill_agent(node);
        cluster.start(node);
        cluster.wait_until("a lease of the new agent", || cluster.status_of(node).is_ok_and(|status| status.node.lease_left_ms > 0));
        let away = killed.elapsed();
        // A member that could not be kept has ended by now, at its deadline.
        cluster.wait_settled();
        println!("{node} upgraded in {} ms; hot was {hot}, is {:?}", away.as_millis(), cluster.hot("clock", &[]));
        assert!(is_alive(before.0), "{web} has several hot members: it lives on whatever its agent does");
        assert_eq!(pid_of(&cluster, &web), before.0, "adopted, not started anew");
        if hot == clock {
            // Back within the lease it is adopted and still hot; later, its guard has ended it. The recorder judges either.
            let same = cluster.hot("clock", &[]) == Some(hot) && is_alive(before.1);
            println!("{clock} was hot: {}", if same { "adopted" } else { "ended at its deadline" });
            assert!(same || away > LEFT_AT_LEAST, "an agent that was away for {away:?} cost its hot member");
        } else {
            assert_eq!(pid_of(&cluster, &clock), before.1, "a warm member is adopted");
            assert_eq!(cluster.hot("clock", &[]), Some(hot), "the upgrade of another node's agent moves nothing");
        }
        all_answered(loads);
    }
    println!("{} replies recorded", recorder.judge());
    cluster.finish(EXPECTED);
}

/// An agent that stays away longer than its lease: what is stateful and hot ends by its deadline and only then serves elsewhere; what is
/// not lives on, and is adopted by the next agent.
#[test]
fn without_an_agent_a_stateful_hot_member_ends_and_the_others_live_on() {
    let _alone = alone();
    let mut cluster = Site::new(3).web_and_clock().start_whole();
    let recorder = Recorder::watch(&cluster);
    let hot = cluster.hot("clock", &[]).expect("one that serves");
    let node = cluster.node_of(&hot);
    let (web, pid) = (pid_of(&cluster, &format!("web/{node}")), pid_of(&cluster, &hot));
    cluster.kill_agent(node);
    cluster.wait_until("another to serve", || {
        let now = cluster.hot("clock", &[node]).filter(|now| *now != hot);
        // Read in this order: at the latest then it must have been dead.
        assert!(now.is_none() || !is_alive(pid), "{hot} lives while {now:?} serves");
        now.is_some()
    });
    assert!(is_alive(web), "a member of a group with several hot ones needs no lease");
    cluster.start(node);
    cluster.wait_settled();
    assert_eq!(pid_of(&cluster, &format!("web/{node}")), web, "adopted, not started anew");
    assert_ne!(pid_of(&cluster, &hot), pid);
    recorder.judge();
    cluster.finish(EXPECTED);
}

/// An agent that hangs ends nothing and hands nothing over: its guard alone ends what is stateful and hot, before the node's lease may be
/// called over and another serves (S2).
#[test]
fn with_its_agent_frozen_a_stateful_hot_member_is_dead_before_the_lease_ends() {
    let _alone = alone();
    let mut cluster = Site::new(3).web_and_clock().start_whole();
    let recorder = Recorder::watch(&cluster);
    let hot = cluster.hot("clock", &[]).expect("one that serves");
    let node = cluster.node_of(&hot);
    let (agent, web, pid) = (cluster.agent(node), pid_of(&cluster, &format!("web/{node}")), pid_of(&cluster, &hot));
    let loads = cluster.load_but(node);
    cluster.signal(agent, Signal::STOP);
    cluster.wait_until("its lease to be called over, and another to serve", || {
        let Some(status) = cluster.status_but(&[]) else { return false };
        let over = status.nodes.iter().any(|other| other.name == node && !other.leased);
        let now = cluster.hot("clock", &[]).filter(|now| *now != hot);
        // Read in this order: at the latest then it must have been dead.
        assert!(!(over || now.is_some()) || !is_alive(pid), "{hot} lives, and the lease of {node} is over; {now:?} serves");
        over && now.is_some()
    });
    assert!(is_alive(web), "a member of a group with several hot ones needs no lease");
    cluster.signal(agent, Signal::CONT);
    cluster.wait_settled();
    assert_eq!(pid_of(&cluster, &format!("web/{node}")), web);
    all_answered(loads);
    recorder.judge();
    cluster.finish(EXPECTED);
}

/// A member is taken from a node whose agent is away. Nobody told its guard, and in a group of several hot ones no deadline ends it.
#[test]
fn what_was_taken_from_a_node_while_its_agent_was_away_is_ended_by_the_next_agent() {
    let _alone = alone();
    let mut cluster = Site::new(3).web_and_clock().start_whole();
    let pid = pid_of(&cluster, "web/c");
    cluster.kill_agent("c");
    let now: Configuration = cluster.client("a").get("/api/v1/config").unwrap();
    let member = format!(", c = \"{}\"", cluster.group("web").members.iter().find(|member| member.name == "web/c").unwrap().address);
    assert_eq!(now.text.matches(&member).count(), 1);
    let file = cluster.file("without.toml");
    fs::write(&file, now.text.replace(&member, "")).unwrap();
    cluster.done("a", &["apply", file.to_str().unwrap(), "--yes"]);
    assert!(is_alive(pid));
    cluster.start("c");
    cluster.wait_until("the old copy's end", || !is_alive(pid));
    cluster.wait_settled();
    cluster.finish(EXPECTED);
}
