//! Every process of a cluster killed in turn, and any killed or stopped, at random moments, under load, the promises checked all the while.
//!
//! The promises: never two that serve for the group that allows one (the recorder), no request failed that is safe to repeat and came to a
//! router that lives (the load), and afterwards everything whole again, by itself.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hotwarm::drill::Load;
use hotwarm_core::rng::Rng;
use rustix::process::Signal;

use crate::cluster::{Cluster, Site, alone, long, seed};
use crate::members::is_alive;
use crate::recorder::Recorder;

/// What is said while faults are done, and why that is right.
pub(crate) const EXPECTED: &[(&str, &str)] = &[
    ("not connected:", "the peer was killed or stopped"),
    ("reason=\"last-one\"", "as the next, in a group of several: the only one that is not held down is stopped for a moment"),
    (
        "reason=\"no-successor\"",
        "the hot one is stopped for a moment while the others, struck before, are held down: kept, and the reason told",
    ),
    ("HW0509", "an agent that was stopped, or lost its leader, holds no lease"),
    ("was ended here by its guard", "it was hot where the agent was stopped"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Strike {
    KillAgent,
    KillGuard,
    KillMember,
    KillNode,
    StopAgent,
    StopGuard,
    StopMember,
}

const STRIKES: [Strike; 7] =
    [Strike::KillAgent, Strike::KillGuard, Strike::KillMember, Strike::KillNode, Strike::StopAgent, Strike::StopGuard, Strike::StopMember];

/// A cluster under load, watched.
struct Trial {
    cluster: Cluster,
    rng: Rng,
    recorder: Recorder,
    loads: [Load; 2],
    /// When the router of which address was not to be counted on.
    struck: Vec<(SocketAddr, Instant, Instant)>,
}

impl Trial {
    fn begin(nodes: usize) -> Self {
        let rng = Rng::new(seed());
        let cluster = Site::new(nodes).web_and_clock().start_whole();
        let (recorder, loads) = (Recorder::watch(&cluster), cluster.load_but(""));
        Self { cluster, rng, recorder, loads, struck: Vec::new() }
    }

    /// Some node.
    fn node(&mut self) -> &'static str {
        let names = self.cluster.names();
        names[usize::try_from(self.rng.below(names.len() as u64)).unwrap()]
    }

    /// Some moment: the fault is to meet the cluster in whatever state it is.
    fn moment(&mut self, most_ms: u64) {
        std::thread::sleep(Duration::from_millis(self.rng.below(most_ms)));
    }

    /// Some member; half of the time the hot one of the group that has one.
    fn member(&mut self) -> String {
        let hot = self.cluster.hot("clock", &[]);
        match (self.rng.below(4), hot) {
            (0, _) => format!("clock/{}", self.node()),
            (1, _) | (_, None) => format!("web/{}", self.node()),
            (_, Some(hot)) => hot,
        }
    }

    fn strike(&mut self, strike: Strike) {
        self.moment(700);
        match strike {
            Strike::KillAgent | Strike::KillNode | Strike::StopAgent => {
                let node = self.node();
                self.hit_node(strike, node);
            }
            Strike::KillGuard | Strike::KillMember | Strike::StopGuard | Strike::StopMember => {
                let member = self.member();
                self.hit_member(strike, &member);
            }
        }
    }

    fn hit_node(&mut self, strike: Strike, node: &'static str) {
        let now = Instant::now();
        println!("{strike:?} of {node}; hot is {:?}", self.cluster.hot("clock", &[]));
        let listens: Vec<SocketAddr> = ["web", "clock"].map(|group| self.cluster.listen(group)[node]).to_vec();
        self.strike_node(strike, node);
        self.cluster.wait_settled();
        // What was under way when it struck was lost with the router.
        let from = now.checked_sub(Duration::from_secs(1)).unwrap();
        self.struck.extend(listens.into_iter().map(|address| (address, from, Instant::now())));
        self.serves_again(now);
    }

    fn hit_member(&mut self, strike: Strike, member: &str) {
        let now = Instant::now();
        println!("{strike:?} of {member}; hot is {:?}", self.cluster.hot("clock", &[]));
        self.strike_member(strike, member);
        self.cluster.wait_settled();
        self.serves_again(now);
    }

    /// Served to everybody again: the recorder and the load will tell.
    fn serves_again(&self, since: Instant) {
        let now = Instant::now();
        self.cluster.wait_until("answers through routers", || self.recorder.answered_since(now) > 0);
        println!("  settled after {} ms", since.elapsed().as_millis());
    }

    fn strike_node(&mut self, strike: Strike, node: &'static str) {
        match strike {
            Strike::KillAgent => self.cluster.kill_agent(node),
            Strike::KillNode => self.cluster.kill_node(node),
            _ => return self.stop_agent(node),
        }
        self.moment(3_000);
        self.cluster.start(node);
    }

    /// The agent hangs: what it may not keep must have ended before another serves.
    fn stop_agent(&mut self, node: &'static str) {
        let hot = self.cluster.hot("clock", &[]).filter(|hot| hot.ends_with(&format!("/{node}")));
        let pid = hot.as_ref().map(|hot| self.cluster.member_pid(hot).unwrap());
        let agent = self.cluster.agent(node);
        self.cluster.signal(agent, Signal::STOP);
        if let (Some(hot), Some(pid)) = (hot, pid) {
            self.cluster.wait_until("another member to serve for the frozen node's", || {
                let other = self.cluster.hot("clock", &[node]).is_some_and(|now| now != hot);
                let answers = self.recorder.newest().is_some_and(|reply| reply.said.name != hot);
                // Read in this order: at the latest then it must have been dead.
                assert!(!((other || answers) && is_alive(pid)), "{hot} lives while another serves");
                other && answers
            });
        }
        self.moment(2_000);
        self.cluster.signal(agent, Signal::CONT);
    }

    fn strike_member(&mut self, strike: Strike, member: &str) {
        // A guard that was stopped for long may have ended its member in this very moment.
        self.cluster
            .wait_until("the member to run", || self.cluster.member_pid(member).is_some() && self.cluster.guard_pid(member).is_some());
        let member_pid = self.cluster.member_pid(member).unwrap();
        let guard_pid = self.cluster.guard_pid(member).unwrap();
        match strike {
            Strike::KillMember | Strike::KillGuard => {
                let pid = if strike == Strike::KillMember { member_pid } else { guard_pid };
                self.cluster.signal(pid, Signal::KILL);
                self.cluster.wait_until("the member to die, with its guard too", || !is_alive(member_pid));
                self.cluster
                    .wait_until("another life of the member", || self.cluster.member_pid(member).is_some_and(|now| now != member_pid));
            }
            _ => {
                let pid = if strike == Strike::StopGuard { guard_pid } else { member_pid };
                self.cluster.signal(pid, Signal::STOP);
                self.moment(4_000);
                if is_alive(pid) {
                    self.cluster.signal(pid, Signal::CONT);
                }
            }
        }
    }

    /// Two machines of five at once, and back again.
    fn strike_two(&mut self) {
        self.moment(700);
        let from = Instant::now().checked_sub(Duration::from_secs(1)).unwrap();
        let first = self.node();
        let second = std::iter::repeat_with(|| self.node()).find(|node| *node != first).unwrap();
        println!("{first} and {second} die; hot is {:?}", self.cluster.hot("clock", &[]));
        let listens: Vec<SocketAddr> =
            ["web", "clock"].into_iter().flat_map(|group| [first, second].map(|node| self.cluster.listen(group)[node])).collect();
        self.cluster.kill_node(first);
        self.cluster.kill_node(second);
        let since = Instant::now();
        self.cluster.wait_until("the other three to serve", || {
            self.cluster.hot("clock", &[first, second]).is_some() && self.recorder.answered_since(since) > 0
        });
        self.moment(2_000);
        self.cluster.start(first);
        self.moment(1_000);
        self.cluster.start(second);
        self.cluster.wait_settled();
        self.struck.extend(listens.into_iter().map(|address| (address, from, Instant::now())));
    }

    fn end(self) {
        let Self { cluster, recorder, loads, struck, .. } = self;
        let mut count = 0;
        for shot in loads.into_iter().flat_map(Load::finish) {
            count += 1;
            let excused = struck.iter().any(|(address, from, to)| shot.to == *address && shot.at >= *from && shot.at <= *to);
            assert!(shot.answered() || excused, "failed: {shot:?}");
        }
        println!("{count} requests, {} replies recorded", recorder.judge());
        cluster.finish(EXPECTED);
    }
}

#[test]
fn every_process_killed_and_stopped_at_random_moments() {
    let _alone = alone();
    let mut trial = Trial::begin(3);
    for round in 0..if long() { 20 } else { 2 } {
        println!("round {round}");
        let mut strikes = STRIKES;
        for at in (1..strikes.len()).rev() {
            strikes.swap(at, usize::try_from(trial.rng.below(at as u64 + 1)).unwrap());
        }
        strikes.into_iter().for_each(|strike| trial.strike(strike));
    }
    trial.end();
}

/// None is left out: each agent, each member's program, each guard.
#[test]
fn every_process_is_killed_in_turn() {
    let _alone = alone();
    let mut trial = Trial::begin(3);
    for node in trial.cluster.names() {
        trial.moment(300);
        trial.hit_node(Strike::KillAgent, node);
        for (group, strike) in
            ["web", "clock"].iter().flat_map(|group| [Strike::KillMember, Strike::KillGuard].map(|strike| (group, strike)))
        {
            trial.moment(300);
            trial.hit_member(strike, &format!("{group}/{node}"));
        }
    }
    trial.end();
}

#[test]
fn two_of_five_die_at_once() {
    let _alone = alone();
    let mut trial = Trial::begin(5);
    for _ in 0..if long() { 10 } else { 2 } {
        trial.strike_two();
    }
    trial.strike(Strike::StopAgent);
    trial.end();
}
