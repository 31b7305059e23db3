//! Running programs that are not ours: as another user, under limits, with a bound on their time. Used by all of the shell, like `clock`.
//!
//! Nothing here knows members or roles. The main path enters at [`hook::run`]; [`sys`] holds the system calls that need `unsafe`.

pub mod hook;
pub mod sys;
