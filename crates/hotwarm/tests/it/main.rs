//! The integration tests: one binary, real processes, sockets and files.

mod engine;
mod guard;
mod members;
