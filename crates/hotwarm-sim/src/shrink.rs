//! Fewer faults that break the same rule, so that a person has less to follow.

use crate::fault::Fault;
use crate::invariants::Violation;
use crate::plan::Plan;
use crate::trace::Trace;
use crate::world::{Outcome, World};

/// Runs of one search, at most.
const RUNS_MAX: usize = 200;

/// The numbers of the faults that its violation needs, found by leaving out one at a time. Another chance follows from another plan, so
/// a fault that matters by chance alone may stay.
#[must_use]
pub fn shrink(plan: &Plan, violation: &Violation) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..plan.faults.len()).collect();
    let (mut runs, mut i) = (0, kept.len());
    while i > 0 && runs < RUNS_MAX {
        i -= 1;
        let mut fewer = kept.clone();
        fewer.remove(i);
        runs += 1;
        if crate::run_plan(only(plan.clone(), &fewer), 0).violation.is_some_and(|v| v.rule == violation.rule) {
            kept = fewer;
            i = kept.len();
        }
    }
    kept
}

/// The faults of a plan, one a line, with their numbers.
#[must_use]
pub fn faults(plan: &Plan) -> Vec<String> {
    plan.faults.iter().enumerate().map(|(i, fault)| format!("  {i:>2}  {}", line(fault))).collect()
}

fn line(fault: &Fault) -> String {
    let stage = fault.stage.map_or_else(String::new, |stage| format!(", once the group is {}", stage.text()));
    let begin = fault.begin.map_or_else(String::new, |begin| format!(" (brought about by {begin:?})"));
    let (at, lasts) = (fault.at as f64 / 1e6, fault.lasts_us as f64 / 1e6);
    format!("{at:>6.3} s  {} at {:?}, for {lasts:.3} s{stage}{begin}", fault.kind.text(), fault.target)
}

/// The plan with only those faults, by their numbers.
#[must_use]
pub fn only(mut plan: Plan, keep: &[usize]) -> Plan {
    plan.faults = plan.faults.into_iter().enumerate().filter(|(i, _)| keep.contains(i)).map(|(_, fault)| fault).collect();
    plan
}

/// Runs a plan and prints all that happens.
#[must_use]
pub fn show(plan: Plan, verbose: bool) -> Outcome {
    World::new(plan, Trace::new(verbose, 0)).run()
}
