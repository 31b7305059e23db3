//! What closed-loop clients count: answers and how long each took.
//!
//! Main path: [`Tally::add`], then [`Tally::print`].

use std::time::Duration;

#[derive(Default)]
pub(crate) struct Tally {
    latencies_us: Vec<u32>,
    pub(crate) failed: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, latency: Duration) {
        self.latencies_us.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.latencies_us.extend(other.latencies_us);
        self.failed += other.failed;
    }

    /// One line of JSON: answers per second over `seconds`, and percentiles in milliseconds.
    pub(crate) fn print(mut self, seconds: f64) {
        self.latencies_us.sort_unstable();
        let ms = |share: f64| {
            let last = self.latencies_us.len().saturating_sub(1);
            let at = (last as f64 * share).round() as usize;
            self.latencies_us.get(at).map_or(0.0, |us| f64::from(*us) / 1e3)
        };
        let done = self.latencies_us.len();
        let line = serde_json::json!({
            "done": done, "failed": self.failed, "seconds": seconds, "per_second": done as f64 / seconds,
            "p50_ms": ms(0.5), "p99_ms": ms(0.99), "max_ms": ms(1.0),
        });
        println!("{line}");
    }
}
