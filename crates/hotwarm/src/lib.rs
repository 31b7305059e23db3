//! All I/O of hotwarm: sockets, files, processes, clocks. What is decided lives in `hotwarm-core`.
//!
//! The modules and who may use whom are listed in ARCHITECTURE.md; `tests/tidy.rs` checks it.
#![deny(unsafe_code)]

pub mod agent;
pub mod api;
pub mod child;
pub mod cli;
pub mod clock;
pub mod codes;
pub mod component;
pub mod config;
pub mod drill;
pub mod engine;
pub mod fence;
pub mod net;
pub mod plant;
pub mod probe;
pub mod router;
pub mod store;
pub mod telemetry;
