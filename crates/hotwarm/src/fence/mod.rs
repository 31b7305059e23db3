//! Keeping an old hot member from serving: the guard process that is a member's parent and kills its whole tree when its deadline passes.
//!
//! Nothing here decides who may serve. The main path enters at [`guard::main`], in a process of its own.

pub mod guard;
