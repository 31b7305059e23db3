//! Failover stories as text: every file in `stories` is run and compared with what it says was decided.
//!
//! `HOTWARM_REWRITE=1 cargo test -p hotwarm-core --test transcripts` writes what is decided now; keep only changes that you understand.
//! Beside them: the same stories interrupted at every line, and random inputs against a little world in which it is seen who serves.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod cuts;
mod good;
mod interrupted;
mod random;
mod show;
mod story;
mod world;
mod world_random;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use hotwarm_core::group::Reason;
use story::Story;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts/stories")
}

/// Every story, by name.
fn stories() -> Vec<(String, String)> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "txt"));
    files.sort();
    let read = |path: &PathBuf| (path.file_stem().unwrap().to_string_lossy().into_owned(), std::fs::read_to_string(path).unwrap());
    files.iter().map(read).collect()
}

/// Runs a story and returns its text with what is decided now.
fn retell(name: &str, text: &str) -> (String, Story) {
    let mut story = Story::new();
    let mut out = String::new();
    for (number, block) in text.trim_end().split("\n\n").enumerate() {
        if block.trim_start().starts_with('#') && !block.contains("----") {
            let _ = write!(out, "{}\n\n", block.trim());
            continue;
        }
        let commands = block.split("\n----").next().unwrap().trim_matches('\n');
        let mut printed = Vec::new();
        for line in commands.lines().filter(|line| !line.starts_with('#')) {
            let lines = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| story.run(line)));
            let lines = lines.unwrap_or_else(|_| panic!("{name}: block {}: {line}", number + 1));
            printed.extend((!lines.is_empty()).then_some(lines));
        }
        let printed = if printed.is_empty() { "-".to_owned() } else { printed.join("\n") };
        let _ = write!(out, "{commands}\n----\n{}\n\n", printed.trim_end());
    }
    (format!("{}\n", out.trim_end()), story)
}

fn first_difference(told: &str, is: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (told.lines().collect(), is.lines().collect());
    let at = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let part = |lines: &[&str], mark: char| lines.iter().skip(at).take(12).map(|line| format!("{mark} {line}\n")).collect::<String>();
    let before: String = old.iter().take(at).skip(at.saturating_sub(6)).map(|line| format!("  {line}\n")).collect();
    format!("line {}:\n{before}{}{}", at + 1, part(&old, '-'), part(&new, '+'))
}

#[test]
fn every_story_is_decided_as_it_is_told() {
    let rewrite = std::env::var_os("HOTWARM_REWRITE").is_some();
    let mut wrong = String::new();
    for (name, text) in stories() {
        let (now, _) = retell(&name, &text);
        if now != text && rewrite {
            std::fs::write(folder().join(format!("{name}.txt")), now).unwrap();
        } else if now != text {
            let _ = write!(wrong, "\n{name}.txt, {}", first_difference(&text, &now));
        }
    }
    assert!(wrong.is_empty(), "decided otherwise than told (HOTWARM_REWRITE=1 rewrites):\n{wrong}");
}

#[test]
fn every_reason_has_a_story_and_a_page() {
    let told: BTreeMap<&str, &[&str]> = stories().iter().flat_map(|(name, text)| retell(name, text).1.codes).collect();
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/reasons");
    let index = std::fs::read_to_string(pages.join("README.md")).unwrap();
    let safety = std::fs::read_to_string(pages.join("../../internals/safety.md")).unwrap();
    // None is left out of the list by which the rest is judged.
    let source = include_str!("../../src/group/reason.rs");
    let code = source.split("const fn row(").nth(1).and_then(|rest| rest.split("\n    }\n").next()).unwrap();
    assert_eq!(code.matches("=> (\"").count(), Reason::CODES.len());
    for code in Reason::CODES {
        let rules = *told.get(code).unwrap_or_else(|| panic!("no story tells {code}"));
        let page = std::fs::read_to_string(pages.join(format!("{code}.md"))).unwrap_or_default();
        assert!(page.starts_with(&format!("# {code}\n")), "docs/reference/reasons/{code}.md is missing or has another title");
        let named: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("**Rules.** ")).collect();
        assert_eq!(named.len(), 1, "docs/reference/reasons/{code}.md names its rules once");
        let in_brackets: Vec<&str> = named[0].split('[').skip(1).filter_map(|rest| rest.split(']').next()).collect();
        assert_eq!(in_brackets, rules, "docs/reference/reasons/{code}.md names other rules than the code");
        assert!(rules.iter().all(|rule| safety.contains(&format!("| {rule} |"))), "no such rule: {rules:?}");
        assert!(!rules.is_empty() || named[0] == "None.", "docs/reference/reasons/{code}.md says that no rule governs it");
        assert!(index.contains(&format!("]({code}.md)")), "the index does not name {code}");
    }
    assert_eq!(std::fs::read_dir(pages).unwrap().count(), Reason::CODES.len() + 1, "a page without a reason");
}

#[test]
fn every_story_says_what_it_tells() {
    for (name, text) in stories() {
        assert!(text.starts_with("# "), "{name} begins with a comment");
    }
}
