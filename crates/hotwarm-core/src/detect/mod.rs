//! Detection as arithmetic: arrivals and probe results go in with their moment, a grade of suspicion comes out. Detectors only
//! testify; the group decides.
//!
//! Nothing here reads a clock, waits or sends. The main path: a heartbeat -> [`PhiAccrual::arrived`], whose
//! [`suspect_at`](PhiAccrual::suspect_at) is the node's next deadline; a probe's result -> [`Hysteresis::observe`], after which
//! [`Pacer::next`] says when to probe again; every wake of the decision thread -> [`SelfHealth::woke`], which makes a slow node doubt
//! itself before it doubts others. The router keeps a [`LatencyTracker`] per target. Who gave up on
//! an answer asks [`Silence::is_theirs`] first.

mod deadline;
mod health;
mod hysteresis;
mod latency;
mod normal;
mod pacer;
mod phi;
mod silence;

pub use deadline::Deadline;
pub use health::{Ailment, Grade, HealthLimits, SelfHealth};
pub use hysteresis::{Hysteresis, Verdict};
pub use latency::LatencyTracker;
pub use pacer::{Pace, Pacer};
pub use phi::{PhiAccrual, deviations};
pub use silence::Silence;
