//! Probes: I/O that feeds `hotwarm_core::detect`.
