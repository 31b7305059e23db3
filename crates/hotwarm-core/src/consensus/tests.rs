//! A little cluster of replicas without clock or network: messages move when a test says so, records survive a crash, links break.

mod cluster;
mod garbage;
mod stories;
mod trace;
