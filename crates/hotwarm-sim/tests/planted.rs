//! Every bug that is planted is caught: else the rule it breaks is not watched. One test, because a process has one bug at a time.

use hotwarm_core::plant::Bug;

/// Seeds tried for each.
const SEEDS: u64 = 120;

#[test]
fn every_planted_bug_is_caught() {
    std::panic::set_hook(Box::new(|_| {}));
    let missed: Vec<&str> =
        Bug::ALL.iter().filter(|bug| hotwarm_sim::planted::caught(**bug, SEEDS).is_none()).map(|bug| bug.name()).collect();
    assert!(missed.is_empty(), "not caught within {SEEDS} seeds: {missed:?}");
}
