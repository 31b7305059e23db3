//! The router's lease: until when this node may admit requests and release replies of groups with one hot member (S8).
//!
//! The agent writes it, router threads read it before every release. It must never be extended by the router itself.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hotwarm_core::ids::Mono;

use super::thread::Port;
use crate::clock;

/// "Valid until", on this node's monotonic clock. A new one is not valid.
pub struct Lease {
    until_us: AtomicU64,
    ports: Arc<[Port]>,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("until", &self.until()).finish_non_exhaustive()
    }
}

impl Lease {
    pub(super) fn new(ports: Arc<[Port]>) -> Self {
        Self { until_us: AtomicU64::new(0), ports }
    }

    /// The lease now ends at `until`; earlier than before is allowed (it is then given up early). Routes of a newer epoch must be set
    /// before the lease is extended for it: the order is what keeps an old epoch's replies from being released under a new lease.
    pub fn set(&self, until: Mono) {
        let before = self.until_us.swap(until.0, Ordering::AcqRel);
        let now = clock::now().0;
        // Threads keep time themselves while the lease is extended in time; they must hear of a return and of an early end.
        if before <= now || until.0 < before {
            self.ports.iter().for_each(Port::wake);
        }
    }

    /// Until when it is valid.
    #[must_use]
    pub fn until(&self) -> Mono {
        Mono(self.until_us.load(Ordering::Acquire))
    }

    /// True when it is valid at this moment.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        clock::now() < self.until()
    }
}
