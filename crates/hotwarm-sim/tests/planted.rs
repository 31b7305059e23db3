//! Every bug that is planted is caught: else the rule it breaks is not watched. One test, because a process has one bug at a time.
//!
//! Each is looked for first where `scripts/planted-bugs` found it last; where the simulator has changed since, in all seeds from 0 on.

use hotwarm_core::plant::Bug;
use hotwarm_sim::planted;

/// Seeds tried for each.
const SEEDS: u64 = 300;
#[test]
fn every_planted_bug_is_caught() {
    std::panic::set_hook(Box::new(|_| {}));
    let known = |bug: Bug| planted::KNOWN.iter().find(|(b, _)| *b == bug).map(|(_, seed)| *seed);
    let caught = |bug: Bug| known(bug).is_some_and(|seed| planted::shows(bug, seed).is_some()) || planted::caught(bug, SEEDS).is_some();
    let missed: Vec<&str> = Bug::ALL.iter().filter(|bug| !caught(**bug)).map(|bug| bug.name()).collect();
    assert!(missed.is_empty(), "not caught within {SEEDS} seeds: {missed:?}");
}
