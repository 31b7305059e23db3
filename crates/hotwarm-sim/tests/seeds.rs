//! The simulator in short: seeds that must keep every rule, the same trace in any process, quiet runs without a failover.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use hotwarm_core::group::GroupSpec;
use hotwarm_sim::plan::{CLOCK, Plan, SECOND, Shape, WEB};
use hotwarm_sim::trace::Trace;
use hotwarm_sim::world::World;

fn keep_every_rule(seeds: std::ops::Range<u64>) {
    let next = AtomicU64::new(seeds.start);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let broken: Vec<String> = std::thread::scope(|scope| {
        let worker = || {
            let mut broken = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end {
                    return broken;
                }
                if let Some(violation) = hotwarm_sim::run(seed, 0).violation {
                    broken.push(format!("seed {seed}: {}: {}", violation.rule, violation.text));
                }
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("panics are caught and told")).collect()
    });
    assert!(broken.is_empty(), "`hotwarm-sim --seed N` shows what happened:\n{}", broken.join("\n"));
}

#[test]
fn sixty_seeds_keep_every_rule() {
    keep_every_rule(0..60);
}

/// Seeds that broke a rule once.
#[test]
fn seeds_of_old_bugs_keep_every_rule() {
    for seed in [113, 149, 243, 276, 595, 967, 1994, 2169, 20160, 100_843] {
        keep_every_rule(seed..seed + 1);
    }
}

#[test]
fn nothing_fails_over_without_a_fault() {
    for seed in 0..6 {
        let outcome = World::new(Plan::draw_shape(seed, Shape::Quiet), Trace::new(false, 0)).run();
        assert_eq!(outcome.violation, None, "seed {seed}");
        assert!(outcome.counts.answered * 100 >= outcome.counts.asked * 97, "seed {seed}: {:?}", outcome.counts);
    }
}

/// Of both groups, member by member, and no router or leader notices more than switchovers and drains.
#[test]
fn a_restart_without_a_fault_disturbs_nobody() {
    for seed in 0..6 {
        let mut plan = Plan::draw_shape(seed, Shape::Quiet);
        // Where every warm member must acknowledge each write none may be taken out.
        plan.groups[CLOCK].acks = plan.groups[CLOCK].acks.min(1);
        plan.spec.groups.insert(plan.groups[CLOCK].name.clone(), plan.groups[CLOCK].clone());
        plan.restarts = vec![(6 * SECOND, WEB), (20 * SECOND, CLOCK)];
        let running = |group: &GroupSpec| u64::from(group.hot + group.warm).min(group.members.len() as u64);
        let (members, nodes) = (plan.groups.iter().map(running).sum::<u64>(), plan.names.len() as u64);
        let outcome = World::new(plan, Trace::new(false, 0)).run();
        assert_eq!(outcome.violation, None, "seed {seed}");
        let (counts, members) = (outcome.counts, members * nodes);
        assert_eq!(counts.restarted, members, "seed {seed}: by each node");
        assert!(counts.answered * 100 >= counts.asked * 97, "seed {seed}: {counts:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_in_two_processes() {
    let trace = |seed: &str| {
        let ran = Command::new(env!("CARGO_BIN_EXE_hotwarm-sim")).args(["--seed", seed, "--json"]).output().expect("the simulator runs");
        String::from_utf8(ran.stdout).expect("text")
    };
    for seed in ["3", "20"] {
        let first = trace(seed);
        assert!(first.contains("\"trace\":\"") && first == trace(seed), "{first}");
    }
    assert_ne!(trace("3"), trace("4"));
}
