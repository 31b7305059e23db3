//! The decisions of hotwarm, and nothing else.
//!
//! This crate reads no clock, opens no file, knows no socket and takes randomness only from a seed it is given. Whatever decides
//! (consensus, the state of groups, leases, detection, routing) lives here, so that the simulator runs the very code that ships.
//! The main path enters at [`node`]: inputs arrive by `handle_*`, work leaves by `poll_*`.
#![forbid(unsafe_code)]

pub mod action;
pub mod cluster;
pub mod consensus;
pub mod detect;
pub mod group;
pub mod ids;
pub mod node;
pub mod plant;
pub mod reconcile;
pub mod rng;
pub mod route;
pub mod wal;
