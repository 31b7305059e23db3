//! The rules of choosing, one each.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::ids::MemberId;
use crate::rng::Rng;

const NONE: SlotSet = SlotSet::EMPTY;
const MS: Duration = Duration::from_millis(1);

fn target(k: usize, weight: u32, zone: &str) -> Target {
    let address = format!("127.0.0.1:{}", 9000 + k).parse().unwrap();
    Target { member: MemberId::new(format!("web/m{k}")), address, weight, zone: zone.to_owned() }
}

fn chooser(policy: Policy, weights: &[u32]) -> Chooser {
    let mut chooser = Chooser::new(policy, "", Rng::new(42));
    let targets: Vec<Target> = weights.iter().enumerate().map(|(k, weight)| target(k, *weight, "")).collect();
    chooser.update(Mono(0), &targets);
    chooser
}

/// `draws` requests one after another, each answered in `latency(slot)`; how many each slot got.
fn shares(chooser: &mut Chooser, draws: usize, mut latency: impl FnMut(usize) -> Duration) -> Vec<usize> {
    let mut got = vec![0; chooser.slots.len()];
    let mut now = Mono(1);
    for _ in 0..draws {
        let slot = chooser.choose(now, None, &NONE).unwrap();
        chooser.started(slot);
        now = now.plus(latency(slot));
        chooser.finished(slot, now, latency(slot), true);
        got[slot] += 1;
    }
    got
}

/// Keeps `concurrency` requests in flight, each answered after `latency(slot)`; how many each slot got.
fn shares_in_parallel(chooser: &mut Chooser, draws: usize, concurrency: usize, mut latency: impl FnMut(usize) -> Duration) -> Vec<usize> {
    let mut got = vec![0; chooser.slots.len()];
    let mut ends: BTreeMap<(Mono, usize), (usize, Duration)> = BTreeMap::new();
    let mut now = Mono(1);
    for k in 0..draws {
        if ends.len() == concurrency {
            let ((end, _), (slot, took)) = ends.pop_first().unwrap();
            now = end;
            chooser.finished(slot, now, took, true);
        }
        let slot = chooser.choose(now, None, &NONE).unwrap();
        chooser.started(slot);
        let took = latency(slot);
        ends.insert((now.plus(took), k), (slot, took));
        got[slot] += 1;
    }
    got
}

#[track_caller]
fn assert_shares(got: &[usize], want: &[f64], tolerance: f64) {
    let total: usize = got.iter().sum();
    for (got, want) in got.iter().zip(want) {
        let share = *got as f64 / total as f64;
        assert!((share - want).abs() <= tolerance, "{share:.3} instead of {want:.3}");
    }
}

#[test]
fn equal_latency_gives_equal_shares() {
    assert_shares(&shares(&mut chooser(Policy::LeastLoaded, &[100; 4]), 10_000, |_| 5 * MS), &[0.25; 4], 0.02);
    assert_shares(&shares_in_parallel(&mut chooser(Policy::LeastLoaded, &[100; 4]), 10_000, 64, |_| 5 * MS), &[0.25; 4], 0.02);
    let mut rng = Rng::new(1);
    let noisy = |_| Duration::from_micros(rng.between(200, 600));
    assert_shares(&shares_in_parallel(&mut chooser(Policy::LeastLoaded, &[100; 3]), 10_000, 16, noisy), &[1.0 / 3.0; 3], 0.04);
}

#[test]
fn shares_follow_weights_idle_and_busy() {
    let want = [0.5, 0.3, 0.2];
    assert_shares(&shares(&mut chooser(Policy::RoundRobin, &[50, 30, 20]), 10_000, |_| MS), &want, 0.001);
    assert_shares(&shares_in_parallel(&mut chooser(Policy::LeastLoaded, &[50, 30, 20]), 10_000, 100, |_| 5 * MS), &want, 0.05);
    assert_shares(&shares(&mut chooser(Policy::LeastLoaded, &[50, 30, 20]), 10_000, |_| 5 * MS), &want, 0.02);
}

#[test]
fn the_slow_one_gets_less() {
    let slow_third = |slot| if slot == 2 { 100 * MS } else { 5 * MS };
    let got = shares_in_parallel(&mut chooser(Policy::LeastLoaded, &[100; 3]), 10_000, 32, slow_third);
    assert!(got[2] > 0 && got[2] * 5 < got[0], "{got:?}");
}

#[test]
fn round_robin_interleaves() {
    let mut chooser = chooser(Policy::RoundRobin, &[200, 100, 100]);
    let order: Vec<usize> = (0..8).filter_map(|_| chooser.choose(Mono(0), None, &NONE)).collect();
    assert_eq!(order, [0, 1, 2, 0, 0, 1, 2, 0]);
}

#[test]
fn a_new_target_starts_slowly_and_then_has_its_share() {
    for policy in [Policy::LeastLoaded, Policy::RoundRobin] {
        let mut chooser = chooser(policy, &[100, 100]);
        let targets: Vec<Target> = (0..3).map(|k| target(k, 100, "")).collect();
        assert_eq!(chooser.update(Mono(0), &targets), [2].into_iter().collect());
        let share = |chooser: &mut Chooser, now: Mono| (0..3000).filter(|_| chooser.choose(now, None, &NONE) == Some(2)).count();
        let begin = share(&mut chooser, Mono(0));
        let middle = share(&mut chooser, Mono(5_000_000));
        let full = share(&mut chooser, Mono(10_000_000));
        assert!(begin < 300 && (500..900).contains(&middle) && (900..1100).contains(&full), "{policy:?}: {begin}, {middle}, {full}");
    }
}

#[test]
fn the_own_zone_first_until_it_is_overloaded() {
    let mut chooser = Chooser::new(Policy::LeastLoaded, "here", Rng::new(7));
    chooser.update(Mono(0), &[target(0, 100, "here"), target(1, 100, "there"), target(2, 100, "there")]);
    for _ in 0..EASE {
        assert_eq!(chooser.choose(Mono(0), None, &NONE), Some(0));
        chooser.started(0);
    }
    let mut got = [0u32; 3];
    for _ in 0..300 {
        let slot = chooser.choose(Mono(0), None, &NONE).unwrap();
        chooser.started(slot);
        got[slot] += 1;
    }
    let others = f64::from(got[1] + got[2]) / 2.0;
    assert!(f64::from(got[0] + EASE) <= ZONE_BOUND * others + f64::from(EASE), "{got:?}");
    assert!(got[0] >= got[1].max(got[2]), "{got:?}");
    let not_here = [0].into_iter().collect();
    assert!(chooser.choose(Mono(0), None, &not_here).is_some(), "another zone rather than none");
}

#[test]
fn slots_stay_while_requests_are_in_flight() {
    let mut chooser = chooser(Policy::LeastLoaded, &[100, 100]);
    chooser.started(0);
    assert!(chooser.update(Mono(1), &[target(1, 50, "")]).is_empty());
    assert_eq!((chooser.live(), chooser.get(1).unwrap().0.weight), ([1].into_iter().collect(), 50));
    // A newcomer gets a slot of its own, also long after: the old one is still in use.
    let long_after = Mono(1).plus(VACANCY * 2);
    assert_eq!(chooser.update(long_after, &[target(1, 50, ""), target(5, 50, "")]), [2].into_iter().collect());
    chooser.finished(0, long_after, MS, true);
    assert_eq!((chooser.get(0).unwrap().1, chooser.in_flight()), (0, 0));
    assert_eq!(chooser.update(long_after, &[target(1, 50, ""), target(6, 50, "")]), [0].into_iter().collect());
    // What comes back has its slot back, as new.
    assert_eq!(chooser.update(long_after, &[target(1, 50, ""), target(5, 50, "")]), [2].into_iter().collect());
}

#[test]
fn duplicates_and_too_many_targets_are_left_out() {
    let mut chooser = Chooser::new(Policy::RoundRobin, "", Rng::new(1));
    let many: Vec<Target> = (0..SLOTS_MAX + 10).flat_map(|k| [target(k, 1, ""), target(k, 1, "")]).collect();
    assert_eq!(chooser.update(Mono(0), &many).len(), SLOTS_MAX);
    assert_eq!(chooser.update(Mono(1), &[]), NONE);
    assert_eq!(chooser.choose(Mono(1), None, &NONE), None);
    assert_eq!(chooser.update(Mono(2), &[target(9999, 1, "")]).len(), 1, "slots that were just left are taken when there are no others");
}

#[test]
fn keys_are_spread_by_weight() {
    let mut chooser = chooser(Policy::Hash, &[300, 100]);
    let mut got = [0; 2];
    for key in 0..10_000u64 {
        got[chooser.choose(Mono(0), Some(hash_key(&key.to_le_bytes())), &NONE).unwrap()] += 1;
    }
    assert_shares(&got, &[0.75, 0.25], 0.02);
}

proptest! {
    #[test]
    fn never_what_is_excluded_or_has_no_weight(
        weights in proptest::collection::vec(0u32..4, 0..12), excluded in proptest::collection::btree_set(0usize..12, 0..12),
        policy in prop_oneof![Just(Policy::LeastLoaded), Just(Policy::RoundRobin), Just(Policy::Hash)], seed: u64, keyed: bool,
    ) {
        let mut chooser = chooser(policy, &weights);
        chooser.rng = Rng::new(seed);
        let exclude: SlotSet = excluded.iter().copied().collect();
        let allowed: Vec<usize> = (0..weights.len()).filter(|k| weights[*k] > 0 && !excluded.contains(k)).collect();
        for k in 0..50 {
            match chooser.choose(Mono(k), keyed.then_some(seed ^ k), &exclude) {
                Some(slot) => {
                    prop_assert!(allowed.contains(&slot));
                    chooser.started(slot);
                }
                None => prop_assert!(allowed.is_empty()),
            }
        }
    }

    #[test]
    fn a_target_that_leaves_takes_only_its_own_keys(weights in proptest::collection::vec(1u32..4, 2..10), leaves: prop::sample::Index) {
        let mut chooser = chooser(Policy::Hash, &weights);
        let gone = leaves.index(weights.len());
        let home = |chooser: &mut Chooser| -> Vec<usize> { (0..500).map(|key| chooser.choose(Mono(0), Some(hash_key(&[key as u8, (key >> 8) as u8])), &NONE).unwrap()).collect() };
        let before = home(&mut chooser);
        let ejected = [gone].into_iter().collect();
        let without: Vec<Target> = (0..weights.len()).filter(|k| *k != gone).map(|k| target(k, weights[k], "")).collect();
        for key in 0..500u64 {
            let slot = chooser.choose(Mono(0), Some(hash_key(&[key as u8, (key >> 8) as u8])), &ejected).unwrap();
            prop_assert!(slot == before[key as usize] || before[key as usize] == gone);
        }
        chooser.update(Mono(0), &without);
        for (old, new) in before.iter().zip(home(&mut chooser)) {
            prop_assert!(*old == new || *old == gone);
            prop_assert!(new != gone);
        }
    }

    #[test]
    fn the_bound_on_load_holds(weights in proptest::collection::vec(1u32..4, 1..10), keys in proptest::collection::vec(0u64..3, 1..400)) {
        let mut chooser = chooser(Policy::Hash, &weights);
        let total: u32 = weights.iter().sum();
        for (k, key) in keys.iter().enumerate() {
            let slot = chooser.choose(Mono(0), Some(*key), &NONE).expect("the bounds sum up to more than what is in flight");
            chooser.started(slot);
            // Without rounding: in_flight - 1 < 1.25 x share of k + 1.
            let in_flight = chooser.get(slot).unwrap().1;
            let within = u64::from((in_flight - 1) * total * 4) < (k as u64 + 1) * u64::from(weights[slot] * 5);
            prop_assert!(in_flight <= EASE || within, "{} of {} in flight with weight {} of {}", in_flight, k + 1, weights[slot], total);
        }
    }
}
