//! The integration tests: one binary, real processes, sockets and files.
#![allow(clippy::unwrap_used)] // The lint's exception for tests does not reach the helpers of an integration test.

mod api;
mod cluster;
mod command;
mod demo;
mod disk;
mod drills;
mod engine;
mod faults;
mod first_hour;
mod grow;
mod guard;
mod hooks;
mod lan;
mod leader;
mod listeners;
mod members;
mod netns;
mod nginx;
mod operator;
mod recorder;
mod restart;
mod schema;
mod switchover;
mod told;
mod upgrade;
mod warned;
mod wipe;
