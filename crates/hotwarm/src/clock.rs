//! The node's monotonic clock, which goes on while the machine is suspended (CLOCK_BOOTTIME): what leases are counted in (S2).

use hotwarm_core::ids::Mono;
use rustix::time::{ClockId, clock_gettime};

/// Now, in microseconds since the machine started.
#[must_use]
pub fn now() -> Mono {
    let t = clock_gettime(ClockId::Boottime);
    Mono(t.tv_sec.unsigned_abs() * 1_000_000 + t.tv_nsec.unsigned_abs() / 1_000)
}
