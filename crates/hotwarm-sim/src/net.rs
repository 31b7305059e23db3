//! The network between nodes: latency, loss, duplication, reordering, and cuts of each direction of each link.
//!
//! It decides what becomes of a message and keeps none.

use hotwarm_core::rng::Rng;

use crate::event::N;

/// What the network does now.
#[derive(Clone, Debug)]
pub struct Net {
    nodes: usize,
    /// How many faults cut the direction from one node to another.
    cut: Vec<u16>,
    pub latency_us: u64,
    pub jitter_us: u64,
    /// Messages in a thousand that are lost, doubled, or come much later.
    pub lost: u64,
    pub doubled: u64,
    pub late: u64,
    pub late_us: u64,
}

impl Net {
    #[must_use]
    pub fn new(nodes: usize, latency_us: u64) -> Self {
        let cut = vec![0; nodes * nodes];
        Self { nodes, cut, latency_us, jitter_us: latency_us, lost: 0, doubled: 0, late: 0, late_us: 0 }
    }

    pub fn cut(&mut self, from: N, to: N) {
        self.cut[from * self.nodes + to] += 1;
    }

    pub fn mend(&mut self, from: N, to: N) {
        let link = &mut self.cut[from * self.nodes + to];
        *link = link.saturating_sub(1);
    }

    pub fn mend_all(&mut self) {
        self.cut.fill(0);
        (self.lost, self.doubled, self.late) = (0, 0, 0);
    }

    #[must_use]
    pub fn passes(&self, from: N, to: N) -> bool {
        self.cut[from * self.nodes + to] == 0
    }

    /// The time that a message takes, a connection's bytes included, which are not lost.
    pub fn takes(&self, from: N, to: N, rng: &mut Rng) -> u64 {
        if from == to { 20 + rng.below(60) } else { self.latency_us + rng.below(self.jitter_us + 1) }
    }

    /// The times after which copies of a message arrive: none, one or two.
    pub fn fate(&self, from: N, to: N, rng: &mut Rng) -> [Option<u64>; 2] {
        if !self.passes(from, to) || (self.lost > 0 && rng.below(1000) < self.lost) {
            return [None, None];
        }
        let mut first = self.takes(from, to, rng);
        if self.late > 0 && rng.below(1000) < self.late {
            first += rng.below(self.late_us);
        }
        let second = (self.doubled > 0 && rng.below(1000) < self.doubled).then(|| first + rng.below(self.late_us.max(1)));
        [Some(first), second]
    }
}
