//! From single probe results to a verdict that does not flap: so many in a row before it changes.
//!
//! It never acts on one result unless told that one is enough (`fall` or `rise` of 1, or [`Hysteresis::settle`]). The main path
//! enters at [`Hysteresis::observe`].

/// What a probe's results so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Healthy,
    Unhealthy,
}

/// Consecutive counts in both directions. Undecided until the first verdict.
#[derive(Clone, Debug)]
pub struct Hysteresis {
    fall: u32,
    rise: u32,
    verdict: Option<Verdict>,
    last_ok: bool,
    in_a_row: u32,
}

impl Hysteresis {
    /// Unhealthy after `fall` failures in a row, healthy after `rise` successes in a row; a count of 0 is taken as 1.
    #[must_use]
    pub const fn new(fall: u32, rise: u32) -> Self {
        let (fall, rise) = (if fall == 0 { 1 } else { fall }, if rise == 0 { 1 } else { rise });
        Self { fall, rise, verdict: None, last_ok: false, in_a_row: 0 }
    }

    /// Counts one result; returns the new verdict if this result changed it.
    pub fn observe(&mut self, ok: bool) -> Option<Verdict> {
        self.in_a_row = if ok == self.last_ok { self.in_a_row.saturating_add(1) } else { 1 };
        self.last_ok = ok;
        let (verdict, enough) = if ok { (Verdict::Healthy, self.rise) } else { (Verdict::Unhealthy, self.fall) };
        if self.in_a_row < enough || self.verdict == Some(verdict) {
            return None;
        }
        self.verdict = Some(verdict);
        Some(verdict)
    }

    /// Takes what is known for certain (the process exited) without counting; returns the verdict if that changed it.
    pub fn settle(&mut self, verdict: Verdict) -> Option<Verdict> {
        self.in_a_row = 0;
        if self.verdict == Some(verdict) {
            return None;
        }
        self.verdict = Some(verdict);
        Some(verdict)
    }

    /// `None` until the first verdict.
    #[must_use]
    pub const fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }

    /// True while the latest result speaks against the verdict, or there is none yet: the time to probe fast.
    #[must_use]
    pub const fn in_doubt(&self) -> bool {
        match self.verdict {
            None => true,
            Some(Verdict::Healthy) => self.in_a_row > 0 && !self.last_ok,
            Some(Verdict::Unhealthy) => self.in_a_row > 0 && self.last_ok,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(hysteresis: &mut Hysteresis, results: &str) -> Vec<Option<Verdict>> {
        results.chars().map(|c| hysteresis.observe(c == '+')).collect()
    }

    #[test]
    fn changes_after_so_many_in_a_row() {
        let mut h = Hysteresis::new(3, 2);
        assert_eq!(run(&mut h, "++"), [None, Some(Verdict::Healthy)]);
        assert_eq!(run(&mut h, "--+--"), [None; 5], "a success in between starts the count again");
        assert_eq!(run(&mut h, "-"), [Some(Verdict::Unhealthy)]);
        assert_eq!(run(&mut h, "--+-++"), [None, None, None, None, None, Some(Verdict::Healthy)]);
    }

    #[test]
    fn is_undecided_until_the_first_verdict_and_in_doubt_when_results_disagree() {
        let mut h = Hysteresis::new(2, 2);
        assert!(h.in_doubt() && h.verdict().is_none());
        assert_eq!(run(&mut h, "--"), [None, Some(Verdict::Unhealthy)]);
        assert!(!h.in_doubt());
        h.observe(true);
        assert!(h.in_doubt());
        assert_eq!(h.observe(true), Some(Verdict::Healthy));
        assert!(!h.in_doubt());
    }

    #[test]
    fn what_is_certain_is_not_counted() {
        let mut h = Hysteresis::new(3, 3);
        assert_eq!(h.settle(Verdict::Unhealthy), Some(Verdict::Unhealthy));
        assert_eq!(h.settle(Verdict::Unhealthy), None);
        assert_eq!(run(&mut h, "+++"), [None, None, Some(Verdict::Healthy)]);
        assert_eq!(Hysteresis::new(0, 0).observe(false), Some(Verdict::Unhealthy));
    }
}
