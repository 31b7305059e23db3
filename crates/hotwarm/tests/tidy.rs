//! The shape of the tree, as a test: sizes, imports, words, pages that name what exists, dependencies and their licences.
//!
//! It reads files and changes none. What a rule must allow stands in a table with its reason, and an entry that nothing needs any more
//! is an error too. Code is looked at as `cargo fmt` leaves it. The main path: [`tree::Tree::read`], then one test a rule.
#![allow(clippy::unwrap_used)] // The lint's exception for tests does not reach the helpers of an integration test.

#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/pages.rs"]
mod pages;
#[path = "tidy/shape.rs"]
mod shape;
#[path = "tidy/supply.rs"]
mod supply;
#[path = "tidy/tree.rs"]
mod tree;
#[path = "tidy/words.rs"]
mod words;

/// Fails with one line a violation.
#[track_caller]
fn none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}: {}\n  {}", found.len(), found.join("\n  "));
}
