//! The router on real sockets: real small members, good ones and bad ones, and clients that look at every byte.
//!
//! Nothing here measures time; waits are for conditions, with a generous bound. The main path: [`stage::Stage`] opens a router with one
//! group, [`member::Member`] is what stands behind it, [`client::Client`] in front.

mod client;
mod member;
mod stage;

mod basic;
mod drains;
mod failover;
mod parking;
mod streams;
mod strict;
mod tunnels;
