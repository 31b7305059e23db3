//! Choosing one of several targets: least requests of two random choices, round robin, consistent hashing with bounded load.
//!
//! One [`Chooser`] per group and router thread, owned by that thread: no lock, no clock, and no allocation per request. It never
//! decides who may serve (the group did, in the Routes) and never ejects ([`outlier`](super::outlier) does).
//!
//! The main path: [`Chooser::choose`] -> `started` -> the request -> `finished` or `cancelled`, exactly one of them for each `started`.
//! Targets are named by slot: a number that stays the same over [`Chooser::update`] for as long as the target is there or has requests
//! in flight, so that what is kept beside the chooser (connections, [`Outlier`](super::outlier::Outlier)) can be indexed by it.

use std::time::Duration;

use super::Target;
use super::slots::{SLOTS_MAX, SlotSet};
use crate::ids::Mono;
use crate::rng::Rng;

mod hash;
mod load;
#[cfg(test)]
mod tests;

pub use hash::hash_key;
use load::{FULL, Load};

/// Requests in flight, per target of mean weight and router thread, below which nobody counts as loaded: a bound relative to almost
/// nothing would scatter keys and zones for no gain.
const EASE: u32 = 8;

/// No target takes more than this (5/4) times its share of what is in flight when chosen by hash.
const HASH_BOUND: (u64, u64) = (5, 4);

/// The own zone is left when its load per weight is over this times the others'.
const ZONE_BOUND: f64 = 1.3;

/// The second choice must be better by this factor: between equals the draw decides, which is by weight.
const CLEARLY: f64 = 1.1;

/// A slot is given to another target only so long after it was vacated, that what still remembers its number is gone.
const VACANCY: Duration = Duration::from_secs(60);

/// How a target is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Of two random choices the one with the lower (requests in flight + 1) x latency. Source: Mitzenmacher, "The power of two choices".
    LeastLoaded,
    /// In turn, by weight, smoothly interleaved.
    RoundRobin,
    /// The same key goes to the same target while that is there and not overloaded; without a key as `LeastLoaded`.
    Hash,
}

/// The targets of one group and their load, as one router thread sees them.
#[derive(Clone, Debug)]
pub struct Chooser {
    policy: Policy,
    zone: String,
    rng: Rng,
    slots: Vec<Slot>,
    /// Slots of present targets.
    live: SlotSet,
    /// Of these, those with a weight.
    eligible: SlotSet,
    /// Of these, those in the router's own zone.
    near: SlotSet,
    ramping: SlotSet,
    /// All eligible targets have the same weight.
    uniform: bool,
}

#[derive(Clone, Debug)]
struct Slot {
    target: Target,
    name: u64,
    load: Load,
    /// Weight relative to the mean weight of the eligible.
    share: f64,
    /// Round robin: how much it is owed.
    turn: i64,
    vacated: Option<Mono>,
}

impl Chooser {
    /// With no targets yet. `zone`: where this router is; empty for no preference.
    #[must_use]
    pub fn new(policy: Policy, zone: impl Into<String>, rng: Rng) -> Self {
        let none = SlotSet::EMPTY;
        Self { policy, zone: zone.into(), rng, slots: Vec::new(), live: none, eligible: none, near: none, ramping: none, uniform: true }
    }

    pub const fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// Where this router is, from the next [`Self::update`] on.
    pub fn set_zone(&mut self, zone: &str) {
        if self.zone != zone {
            zone.clone_into(&mut self.zone);
        }
    }

    /// Takes over the targets of new Routes. A target is the same if member and address are; it keeps its slot, load and latency.
    /// Returns the slots whose target is new or came back: forget what was kept for them (connections, outlier). New targets start
    /// slowly if there were others before. Beyond [`SLOTS_MAX`] slots in use, targets are left out.
    pub fn update(&mut self, now: Mono, targets: &[Target]) -> SlotSet {
        let before = self.live;
        let (mut kept, mut fresh) = (SlotSet::EMPTY, SlotSet::EMPTY);
        for target in targets {
            if let Some(slot) = before.iter().find(|slot| self.slots[*slot].is(target)) {
                self.slots[slot].target.clone_from(target);
                kept.insert(slot);
            }
        }
        for slot in (before & !kept).iter() {
            self.slots[slot].vacated = Some(now);
        }
        self.live = kept;
        for target in targets {
            if self.live.iter().any(|slot| self.slots[slot].is(target)) {
                continue;
            }
            if let Some(slot) = self.place(now, target, !before.is_empty()) {
                self.live.insert(slot);
                fresh.insert(slot);
            }
        }
        self.weigh();
        fresh
    }

    /// Chooses a target for one request: `key` for [`Policy::Hash`], `exclude` what is ejected or was tried. `None` if nothing is left.
    /// A request that waited over an [`update`](Self::update) starts with nothing tried: the same slot may be a new life of the target.
    pub fn choose(&mut self, now: Mono, key: Option<u64>, exclude: &SlotSet) -> Option<usize> {
        if !self.ramping.is_empty() {
            self.grow(now);
        }
        let candidates = self.eligible & !*exclude;
        match (self.policy, key) {
            (Policy::Hash, Some(key)) => self.by_hash(key, candidates),
            (Policy::RoundRobin, _) => self.by_turn(self.prefer_near(candidates)),
            (Policy::LeastLoaded | Policy::Hash, _) => self.by_load(now, self.prefer_near(candidates)),
        }
    }

    /// A request was given to `slot`.
    pub fn started(&mut self, slot: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.load.in_flight = slot.load.in_flight.saturating_add(1);
        }
    }

    /// The target answered, or failed, after `latency`: to the first byte of the reply where there are bytes to wait for.
    pub fn finished(&mut self, slot: usize, now: Mono, latency: Duration, ok: bool) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.load.ended();
            if slot.vacated.is_none() {
                slot.load.observe(now, latency, ok);
            }
        }
    }

    /// The request ended in a way that tells nothing about the target: the client went away.
    pub fn cancelled(&mut self, slot: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.load.ended();
        }
    }

    /// The target was ejected and is taken back: its latency is forgotten and it starts slowly.
    pub fn readmitted(&mut self, slot: usize, now: Mono) {
        if self.live.contains(slot) {
            self.slots[slot].load.ease(now);
            self.ramping.insert(slot);
        }
    }

    /// The target at `slot` and its requests in flight, also of one that is gone but has some left.
    #[must_use]
    pub fn get(&self, slot: usize) -> Option<(&Target, u32)> {
        self.slots.get(slot).map(|slot| (&slot.target, slot.load.in_flight))
    }

    /// The slots of the present targets, those without weight included.
    #[must_use]
    pub const fn live(&self) -> SlotSet {
        self.live
    }

    /// Requests in flight at all targets, those that are gone included.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.slots.iter().map(|slot| u64::from(slot.load.in_flight)).sum()
    }

    /// Finds a slot: the target's own if it comes back, a new one, or one that was left long ago (any that is left, if there are no more).
    fn place(&mut self, now: Mono, target: &Target, slow: bool) -> Option<usize> {
        let vacant = |k: &usize| self.slots[*k].vacated.is_some();
        let empty = |k: &usize| vacant(k) && self.slots[*k].load.in_flight == 0;
        let old = |k: &usize| empty(k) && self.slots[*k].vacated.is_some_and(|since| now.since(since) >= VACANCY);
        let slots = 0..self.slots.len();
        let own = slots.clone().filter(vacant).find(|k| self.slots[*k].is(target));
        let place = own.or_else(|| slots.clone().find(old));
        let place = place.or_else(|| (self.slots.len() < SLOTS_MAX).then_some(self.slots.len())).or_else(|| slots.clone().find(empty))?;

        let mut load = Load::new(now, slow);
        load.in_flight = self.slots.get(place).map_or(0, |slot| slot.load.in_flight);
        let name = hash_key(target.member.as_str().as_bytes());
        let slot = Slot { target: target.clone(), name, load, share: 0.0, turn: 0, vacated: None };
        if place == self.slots.len() {
            self.slots.push(slot);
        } else {
            self.slots[place] = slot;
        }
        if slow {
            self.ramping.insert(place);
        }
        Some(place)
    }

    /// Derives from the targets what choosing needs, so that it is not done per request.
    fn weigh(&mut self) {
        self.eligible = self.live.iter().filter(|slot| self.slots[*slot].target.weight > 0).collect();
        self.near = SlotSet::EMPTY;
        if !self.zone.is_empty() {
            self.near = self.eligible.iter().filter(|slot| self.slots[*slot].target.zone == self.zone).collect();
        }
        self.ramping = self.ramping & self.live;
        let weight = |slot: usize| self.slots[slot].target.weight;
        let total: u64 = self.eligible.iter().map(|slot| u64::from(weight(slot))).sum();
        let first = self.eligible.iter().next().map(weight);
        self.uniform = self.eligible.iter().all(|slot| Some(weight(slot)) == first);
        let mean = total as f64 / self.eligible.len().max(1) as f64;
        for slot in self.eligible.iter() {
            self.slots[slot].share = f64::from(self.slots[slot].target.weight) / mean;
        }
    }

    fn grow(&mut self, now: Mono) {
        for slot in self.ramping.iter() {
            if !self.slots[slot].load.grow(now) {
                self.ramping.remove(slot);
            }
        }
    }

    /// The candidates of the own zone, unless there are none or they have clearly more to do than the others.
    fn prefer_near(&self, candidates: SlotSet) -> SlotSet {
        let near = candidates & self.near;
        if near.is_empty() || near == candidates {
            return candidates;
        }
        let load = |set: SlotSet| {
            let (in_flight, share) = set
                .iter()
                .fold((0, 0.0), |(sum, share), slot| (sum + u64::from(self.slots[slot].load.in_flight), share + self.slots[slot].share));
            in_flight as f64 / share
        };
        let near_load = load(near);
        if near_load < f64::from(EASE) || near_load <= ZONE_BOUND * load(candidates & !near) { near } else { candidates }
    }

    fn by_load(&mut self, now: Mono, candidates: SlotSet) -> Option<usize> {
        let first = self.draw(candidates)?;
        let mut others = candidates;
        others.remove(first);
        let Some(second) = self.draw(others) else { return Some(first) };
        let cost = |slot: usize| self.slots[slot].load.cost(now, self.slots[slot].share);
        Some(if cost(second) * CLEARLY < cost(first) { second } else { first })
    }

    /// One of the candidates at random, by weight.
    fn draw(&mut self, candidates: SlotSet) -> Option<usize> {
        let total = candidates.iter().map(|slot| self.slots[slot].weight_now()).sum();
        let mut left = self.rng.below(total);
        candidates.iter().find(|slot| {
            let weight = self.slots[*slot].weight_now();
            let found = left < weight;
            left = left.saturating_sub(weight);
            found
        })
    }

    /// Smooth weighted round robin: each is owed its weight per turn, who is owed most pays for all.
    fn by_turn(&mut self, candidates: SlotSet) -> Option<usize> {
        let (mut total, mut best) = (0, None);
        for slot in candidates.iter() {
            let weight = self.slots[slot].weight_now() as i64;
            total += weight;
            self.slots[slot].turn += weight;
            let turn = self.slots[slot].turn;
            if best.is_none_or(|(_, most)| turn > most) {
                best = Some((slot, turn));
            }
        }
        let (slot, _) = best?;
        self.slots[slot].turn -= total;
        Some(slot)
    }

    /// The first in the key's order that is below its bound. The bounds sum up to more than what is in flight, so there is always one.
    /// Source: Mirrokni, Thorup, Zadimoghaddam, "Consistent hashing with bounded loads", 2018.
    fn by_hash(&self, key: u64, candidates: SlotSet) -> Option<usize> {
        let (in_flight, weight) = candidates
            .iter()
            .map(|slot| &self.slots[slot])
            .fold((0, 0), |(in_flight, weight), slot| (in_flight + u64::from(slot.load.in_flight), weight + u64::from(slot.target.weight)));
        let mut best: Option<(usize, u64, f64)> = None;
        for slot in candidates.iter() {
            let Slot { name, load, target, .. } = &self.slots[slot];
            if u64::from(load.in_flight) >= hash_bound(in_flight + 1, u64::from(target.weight), weight) {
                continue;
            }
            let rank = hash::rank(key, *name);
            // Equal weights: ranks alone give the same order, and without a logarithm.
            let score = if self.uniform { 0.0 } else { hash::score(rank, f64::from(target.weight)) };
            if best.is_none_or(|(_, most_rank, most)| score > most || (self.uniform && rank > most_rank)) {
                best = Some((slot, rank, score));
            }
        }
        best.map(|(slot, ..)| slot)
    }
}

/// How many requests a target with `weight` of `weights` may have when chosen by hash and `in_flight` are spread over all.
fn hash_bound(in_flight: u64, weight: u64, weights: u64) -> u64 {
    let (over, under) = HASH_BOUND;
    (in_flight * weight * over).div_ceil(weights * under).max(u64::from(EASE))
}

impl Slot {
    fn is(&self, target: &Target) -> bool {
        self.target.member == target.member && self.target.address == target.address
    }

    fn weight_now(&self) -> u64 {
        (u64::from(self.target.weight) * self.load.ramp).max(FULL / 10)
    }
}
