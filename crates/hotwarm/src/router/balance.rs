//! Which member a request gets: the chooser of the core, fed with what this thread sees.
//!
//! It never names a member that the table does not, and never leaves everybody out of several. The main path: [`Balancer::update`] on new
//! routes, [`Balancer::choose`] per request, [`Balancer::ended`] when its flight is over.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hotwarm_core::ids::Mono;
use hotwarm_core::rng::Rng;
use hotwarm_core::route;
use hotwarm_core::route::balance::{Chooser, Policy};
use hotwarm_core::route::budget::RetryBudget;
use hotwarm_core::route::outlier::{Evidence, Outlier, OutlierLimits};
use hotwarm_core::route::slots::SlotSet;

use super::group::Settings;
use super::local::LocalTarget;
use crate::config::Balance;

/// What one request showed of its member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub at: Mono,
    /// To the first byte.
    pub latency: Duration,
    pub status: u16,
}

pub(super) struct Balancer {
    chooser: Chooser,
    /// Of answers that say "error" only: what is certain (refused, silent) is known to all threads, in the targets' health.
    errors: Outlier,
    budget: RetryBudget,
    by_slot: Vec<Option<Rc<LocalTarget>>>,
    /// Whom this thread leaves out for answers that say "error", as it told last.
    told: SlotSet,
}

const fn policy(balance: &Balance) -> Policy {
    match balance {
        Balance::LeastLoaded => Policy::LeastLoaded,
        Balance::RoundRobin => Policy::RoundRobin,
        Balance::HashHeader(_) | Balance::HashClientIp => Policy::Hash,
    }
}

impl Balancer {
    pub(super) fn new(settings: &Settings, seed: u64) -> Self {
        Self {
            chooser: Chooser::new(policy(&settings.balance), &*settings.zone, Rng::new(seed)),
            errors: Outlier::new(OutlierLimits::default()),
            budget: RetryBudget::new(),
            by_slot: Vec::new(),
            told: SlotSet::EMPTY,
        }
    }

    /// Takes over the targets of new routes, in the order of `local`.
    pub(super) fn update(&mut self, now: Mono, settings: &Settings, named: &[route::Target], local: &[Rc<LocalTarget>]) {
        self.chooser.set_policy(policy(&settings.balance));
        self.chooser.set_zone(&settings.zone);
        let fresh = self.chooser.update(now, named);
        self.errors.update(now, self.chooser.live(), fresh);
        self.by_slot.clear();
        for slot in self.chooser.live().iter() {
            let found = self.chooser.get(slot).and_then(|(target, _)| {
                local.iter().find(|local| local.shared.member == target.member && local.shared.address == target.address)
            });
            self.by_slot.resize_with(slot + 1, || None);
            if let Some(target) = found {
                target.slot.set(slot);
                self.by_slot[slot] = Some(Rc::clone(target));
            }
        }
        self.tell(now);
    }

    /// Says until when this thread leaves out whom, for people to see. An end that passes needs no word.
    fn tell(&mut self, now: Mono) {
        self.told = self.errors.ejected(now);
        for target in self.present() {
            let slot = target.slot.get();
            let until = self.errors.reason(slot, now).filter(|_| self.told.contains(slot)).map_or(Mono(0), |ejection| ejection.until);
            target.counters.left_out_until_us.store(until.0, Ordering::Relaxed);
        }
    }

    /// A member for one request, counted as given to it. Those in `tried` are left out; those that are down or fail too, unless that
    /// leaves nobody of several (panic mode). A single hot member that is down is nobody: its requests park.
    pub(super) fn choose(&mut self, now: Mono, key: Option<u64>, tried: &SlotSet, exclusive: bool) -> Option<Rc<LocalTarget>> {
        let down: SlotSet = self.present().filter(|target| target.shared.health.is_ejected()).map(|target| target.slot.get()).collect();
        let errors = self.errors.ejected(now);
        if errors != self.told {
            self.tell(now);
        }
        let without_errors = down | *tried | errors;
        let slot = self
            .chooser
            .choose(now, key, &without_errors)
            .or_else(|| self.chooser.choose(now, key, &(down | *tried)))
            .or_else(|| if exclusive { None } else { self.chooser.choose(now, key, tried) })?;
        let target = self.by_slot.get(slot)?.clone()?;
        self.chooser.started(slot);
        Some(target)
    }

    fn present(&self) -> impl Iterator<Item = &Rc<LocalTarget>> {
        self.by_slot.iter().flatten()
    }

    /// A request given to `slot` is over.
    pub(super) fn ended(&mut self, slot: usize, answer: Option<Answer>) {
        let Some(Answer { at, latency, status }) = answer else { return self.chooser.cancelled(slot) };
        let ok = status < 500;
        self.chooser.finished(slot, at, latency, ok);
        if ok {
            self.errors.succeeded(slot);
        } else if self.errors.failed(slot, at, Evidence::ServerError).is_some() {
            self.tell(at);
        }
    }

    pub(super) fn arrived(&mut self, now: Mono) {
        self.budget.arrived(now);
    }

    /// True if one more request may be repeated.
    pub(super) fn may_repeat(&mut self, now: Mono) -> bool {
        self.budget.take(now)
    }

    /// The member at `slot` was down and is back: it starts slowly.
    pub(super) fn readmitted(&mut self, slot: usize, now: Mono) {
        self.chooser.readmitted(slot, now);
    }
}
