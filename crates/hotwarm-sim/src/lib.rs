//! The simulator: many nodes' [`hotwarm_core::node::Node`], the very type that ships, under one simulated clock, network and disk.
//!
//! Everything that happens follows from a seed: the same seed gives the same trace, in any process. The main path: [`plan::Plan::draw`]
//! -> [`world::World::run`] -> [`world::Outcome`]. Safety is watched all the time by [`invariants`], one file each; after the faults
//! everything is healed and must serve again ([`liveness`]).

pub mod clock;
pub mod coverage;
pub mod disk;
pub mod event;
pub mod fault;
pub mod invariants;
pub mod liveness;
pub mod machine;
pub mod member;
pub mod net;
pub mod plan;
#[cfg(feature = "plant")]
pub mod planted;
pub mod router;
pub mod shrink;
pub mod trace;
pub mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use invariants::Violation;
use world::{Counts, Outcome, World};

/// Runs one seed; a panic in it is a broken rule. `lines` of the trace are kept.
#[must_use]
pub fn run(seed: u64, lines: usize) -> Outcome {
    run_plan(plan::Plan::draw(seed), lines)
}

/// Runs one plan; a panic in it is a broken rule. `lines` of the trace are kept.
#[must_use]
pub fn run_plan(plan: plan::Plan, lines: usize) -> Outcome {
    let seed = plan.seed;
    let run = || World::new(plan, trace::Trace::new(false, lines)).run();
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Outcome {
            seed,
            hash: 0,
            violation: Some(Violation { rule: "no panic", text: text.unwrap_or_default() }),
            healed_in: None,
            coverage: coverage::Coverage::default(),
            counts: Counts::default(),
            lines: Vec::new(),
        }
    })
}
