//! `hotwarm-sim`: runs seeds and tells what broke.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use clap::Parser;
use hotwarm_sim::coverage::Coverage;
use hotwarm_sim::plan::Plan;
use hotwarm_sim::shrink;
use hotwarm_sim::world::Outcome;

/// Lines of the trace that are printed of a seed that broke a rule.
const LINES: usize = 40;

/// Many nodes under a simulated clock, network and disk, with faults; every run follows from its seed.
#[derive(Debug, Parser)]
#[command(name = "hotwarm-sim")]
struct Args {
    /// How many seeds to run.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    start: u64,
    /// Runs this one and prints all that happens.
    #[arg(long)]
    seed: Option<u64>,
    /// With `--seed`: only these of its faults, by their numbers.
    #[arg(long, value_delimiter = ',', requires = "seed")]
    faults: Option<Vec<usize>>,
    /// With `--seed`: looks for fewer faults that break the same rule, and prints them.
    #[arg(long, requires = "seed")]
    shrink: bool,
    /// One JSON object a seed, and one for the whole.
    #[arg(long)]
    json: bool,
    /// Stops at the first failure.
    #[arg(long)]
    fail_fast: bool,
    /// Plants one bug after another and requires that each is caught within so many seeds.
    #[cfg(feature = "plant")]
    #[arg(long)]
    planted: Option<u64>,
    /// Only this bug.
    #[cfg(feature = "plant")]
    #[arg(long)]
    bug: Option<String>,
    /// Threads; as many as there are cores if not given.
    #[arg(long)]
    threads: Option<usize>,
}

fn main() -> std::process::ExitCode {
    let args = Args::parse();
    #[cfg(feature = "plant")]
    if let (Some(_), Some(name)) = (args.seed, &args.bug) {
        hotwarm_core::plant::choose(hotwarm_core::plant::Bug::ALL.iter().copied().find(|bug| bug.name() == name));
    }
    if let Some(seed) = args.seed {
        return one(seed, &args);
    }
    #[cfg(feature = "plant")]
    if let Some(seeds) = args.planted {
        return planted(seeds, args.bug.as_deref());
    }
    many(&args)
}

/// The table: which bug was caught by which rule, after how many seeds.
#[cfg(feature = "plant")]
fn planted(seeds: u64, only: Option<&str>) -> std::process::ExitCode {
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = 0;
    println!("{:<20} {:<64} {:>6}  caught by", "bug", "what is broken", "seeds");
    for bug in hotwarm_core::plant::Bug::ALL.iter().filter(|bug| only.is_none_or(|only| bug.name() == only)) {
        let (needed, by) = hotwarm_sim::planted::caught(*bug, seeds).map_or_else(
            || {
                missed += 1;
                (seeds, "NOT CAUGHT".to_owned())
            },
            |(needed, violation)| (needed, format!("{}: {}", violation.rule, violation.text.chars().take(90).collect::<String>())),
        );
        println!("{:<20} {:<64} {needed:>6}  {by}", bug.name(), bug.what());
    }
    exit(missed == 0)
}

fn one(seed: u64, args: &Args) -> std::process::ExitCode {
    let plan = Plan::draw(seed);
    if args.shrink {
        return shrink(plan);
    }
    let plan = args.faults.as_deref().map_or_else(|| plan.clone(), |keep| shrink::only(plan.clone(), keep));
    if !args.json {
        let drawn = plan.groups.iter().map(|g| format!("{} {} hot + {} warm of {}", g.name, g.hot, g.warm, g.members.len()));
        println!("{} nodes; {}; faults:", plan.names.len(), drawn.collect::<Vec<_>>().join("; "));
        shrink::faults(&plan).iter().for_each(|line| println!("{line}"));
    }
    let outcome = shrink::show(plan, !args.json);
    print_one(&outcome, args.json);
    exit(outcome.violation.is_none())
}

fn shrink(plan: Plan) -> std::process::ExitCode {
    let Some(violation) = hotwarm_sim::run_plan(plan.clone(), 0).violation else {
        println!("seed {} breaks no rule", plan.seed);
        return exit(true);
    };
    let kept = shrink::shrink(&plan, &violation);
    println!("\"{}\" is broken with {} of {} faults: {}", violation.rule, kept.len(), plan.faults.len(), violation.text);
    let lines = shrink::faults(&plan);
    kept.iter().for_each(|i| println!("{}", lines[*i]));
    let numbers: Vec<String> = kept.iter().map(ToString::to_string).collect();
    println!("see it: hotwarm-sim --seed {} --faults {}", plan.seed, numbers.join(","));
    exit(false)
}

const fn exit(well: bool) -> std::process::ExitCode {
    if well { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
}

fn print_one(outcome: &Outcome, json: bool) {
    let healed_ms = outcome.healed_in.map(|us| us / 1000);
    let rule = outcome.violation.as_ref().map(|v| format!("{}: {}", v.rule, v.text));
    if json {
        let hash = format!("{:016x}", outcome.hash);
        let counts = outcome.counts;
        println!(
            "{}",
            serde_json::json!({"seed": outcome.seed, "trace": hash, "violation": rule, "healed_ms": healed_ms, "events": counts.events,
                "asked": counts.asked, "answered": counts.answered, "promotions": counts.promotions, "segments": counts.segments, "faults": counts.faults})
        );
    } else {
        let verdict = rule.unwrap_or_else(|| "well".to_owned());
        println!("seed {} trace {:016x} {:?} healed in {healed_ms:?} ms: {verdict}", outcome.seed, outcome.hash, outcome.counts);
    }
}

fn many(args: &Args) -> std::process::ExitCode {
    let begun = Instant::now();
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, usize::from));
    let next = AtomicU64::new(args.start);
    let end = args.start + args.seeds;
    let (send, receive) = mpsc::sync_channel::<Outcome>(64);
    let mut total = Total::default();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (send, next) = (send.clone(), &next);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || send.send(run(seed)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(send);
        while let Ok(outcome) = receive.recv() {
            let failed = outcome.violation.is_some();
            total.add(outcome, args.json);
            if failed && args.fail_fast {
                break;
            }
        }
        drop(receive);
        next.store(end, Ordering::Relaxed);
    });
    total.print(begun.elapsed().as_secs_f64(), args.json);
    exit(total.failed.is_empty() && !total.lacks_coverage())
}

/// A panic anywhere under a seed is that seed's failure.
fn run(seed: u64) -> Outcome {
    let outcome = hotwarm_sim::run(seed, 0);
    // Text is made only where somebody will read it: the run is the same.
    if outcome.violation.is_some() { hotwarm_sim::run(seed, LINES) } else { outcome }
}

#[derive(Debug, Default)]
struct Total {
    seeds: u64,
    events: u64,
    asked: u64,
    answered: u64,
    promotions: u64,
    faults: u64,
    healed: Vec<u64>,
    failed: BTreeMap<u64, String>,
    coverage: Coverage,
}

impl Total {
    fn add(&mut self, outcome: Outcome, json: bool) {
        self.seeds += 1;
        self.events += outcome.counts.events;
        self.asked += outcome.counts.asked;
        self.answered += outcome.counts.answered;
        self.promotions += outcome.counts.promotions;
        self.faults += outcome.counts.faults;
        self.healed.extend(outcome.healed_in);
        self.coverage.add(&outcome.coverage);
        if json {
            print_one(&outcome, true);
        }
        let Some(violation) = outcome.violation else { return };
        if !json {
            println!("seed {} broke \"{}\": {}", outcome.seed, violation.rule, violation.text);
            println!("its faults:");
            shrink::faults(&Plan::draw(outcome.seed)).iter().for_each(|line| println!("{line}"));
            println!("its end:");
            outcome.lines.iter().for_each(|line| println!("{}", line.chars().take(400).collect::<String>()));
            println!("all of it: hotwarm-sim --seed {0}; fewer faults: hotwarm-sim --seed {0} --shrink", outcome.seed);
        }
        self.failed.insert(outcome.seed, violation.rule.to_owned());
    }

    /// In so many seeds every fault must have struck in every stage.
    fn lacks_coverage(&self) -> bool {
        self.seeds >= 2000 && !self.coverage.empty().is_empty()
    }

    fn print(&mut self, seconds: f64, json: bool) {
        self.healed.sort_unstable();
        let at = |share: usize| self.healed.get(self.healed.len().saturating_sub(1) * share / 100).map_or(0, |us| us / 1000);
        let empty = self.coverage.empty().len();
        if json {
            println!(
                "{}",
                serde_json::json!({"seeds": self.seeds, "failed": self.failed, "seconds": seconds, "events": self.events,
                    "empty_cells": empty, "promotions": self.promotions})
            );
            return;
        }
        println!("{}", self.coverage);
        println!("cells never reached: {empty}");
        println!("{} requests, {} answered; {} promotions; {} faults", self.asked, self.answered, self.promotions, self.faults);
        println!("all served again after the faults in {} ms (median), {} ms (99 %), {} ms (worst)", at(50), at(99), at(100));
        let rate = self.seeds as f64 / seconds;
        println!("{} seeds, {} events in {seconds:.1} s: {rate:.1} seeds/s; {} failed", self.seeds, self.events, self.failed.len());
    }
}
