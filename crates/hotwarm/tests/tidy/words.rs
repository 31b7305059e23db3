//! Words that the tree does without, and the few places that may say them.

use std::collections::BTreeSet;

use super::none;
use super::tree::{File, Tree, has_word, indent};

/// Files that may be `unsafe`, and why.
const UNSAFE: [(&str, &str); 1] = [(
    "crates/hotwarm/src/child/sys.rs",
    "pre_exec, getpwnam_r, getgrouplist, signalfd and close_range have no safe form in std or rustix",
)];

#[test]
fn unsafe_stays_in_its_files() {
    let (tree, mut wrong, mut used) = (Tree::read(), Vec::new(), BTreeSet::new());
    for file in tree.rust() {
        for line in file.lines().iter().filter(|line| has_word(&line.code, "unsafe") || line.code.contains("(unsafe_code)")) {
            // The roots of the crates forbid it.
            if line.code.contains("deny(unsafe_code)") || line.code.contains("forbid(unsafe_code)") {
                continue;
            }
            match UNSAFE.iter().find(|(path, _)| *path == file.path) {
                Some((path, _)) => {
                    used.insert(*path);
                }
                None => wrong.push(format!("{}:{}", file.path, line.number)),
            }
        }
    }
    wrong.extend(UNSAFE.iter().filter(|(path, _)| !used.contains(path)).map(|(path, _)| format!("{path} needs no exception any more")));
    none("unsafe outside its files", &wrong);
}

#[test]
fn nothing_is_unwrapped_outside_tests() {
    let tree = Tree::read();
    let mut wrong = Vec::new();
    for file in tree.rust() {
        let lines = file.lines();
        let unwraps = lines.iter().filter(|line| !line.test && (line.code.contains(".unwrap()") || line.code.contains(".unwrap_err()")));
        wrong.extend(unwraps.map(|line| format!("{}:{}", file.path, line.number)));
    }
    none("unwrap outside tests (expect(\"why this holds\") says more)", &wrong);
}

#[test]
fn nothing_is_left_undone_or_ignored() {
    let tree = Tree::read();
    let mut wrong = Vec::new();
    for file in tree.rust() {
        for line in file.lines() {
            let macros = ["todo!", "unimplemented!", "dbg!", "#[ignore"];
            let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
            let found = macros.iter().any(|word| line.code.contains(word)) || marks.iter().any(|word| has_word(line.raw, word));
            wrong.extend(found.then(|| format!("{}:{}: {}", file.path, line.number, line.raw.trim())));
        }
    }
    none("work left undone, or tests not run", &wrong);
}

/// Sleeps in tests that are no poll: (file, function, why).
const SLEEPS: [(&str, &str, &str); 5] = [
    ("crates/hotwarm/tests/it/faults.rs", "moment", "a fault is to meet the cluster at some moment, not at one that a condition chose"),
    (
        "crates/hotwarm/src/router/tests/streams.rs",
        "an_early_answer_to_a_large_request_arrives",
        "the member keeps its socket a moment, so that the reset does not overtake its answer",
    ),
    (
        "crates/hotwarm/src/router/tests/streams.rs",
        "a_reply_that_breaks_off_is_seen_as_broken",
        "a member that writes in two pieces; the test holds whether or not they arrive as two",
    ),
    (
        "crates/hotwarm/src/router/tests/streams.rs",
        "bytes_that_nobody_asked_for_answer_nobody",
        "what nobody asked for has to arrive before the next request, and nobody can be asked whether it has",
    ),
    (
        "crates/hotwarm/src/router/tests/failover.rs",
        "a_kept_connection_that_the_member_closed_is_not_used",
        "the kernel tells nobody but the router when the end of a stream has arrived",
    ),
];

#[test]
fn tests_wait_for_conditions() {
    let (tree, mut wrong, mut used) = (Tree::read(), Vec::new(), BTreeSet::new());
    for file in tree.rust() {
        let lines = file.lines();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.test && calls_sleep(&line.code)) {
            let blocks = blocks_around(&lines, at);
            // A sleep between two looks at a condition.
            let polls = blocks.iter().any(|head| has_word(head, "loop") || has_word(head, "while") || head.contains("for _ in 0.."));
            if polls {
                continue;
            }
            let allowed = SLEEPS.iter().find(|(path, name, _)| *path == file.path && blocks.iter().any(|head| has_word(head, name)));
            match allowed {
                Some(entry) => {
                    used.insert(entry);
                }
                None => wrong.push(format!("{}:{}", file.path, line.number)),
            }
        }
    }
    wrong.extend(SLEEPS.iter().filter(|entry| !used.contains(entry)).map(|(path, name, _)| format!("{path}: {name} sleeps no more")));
    none("tests that sleep for a time", &wrong);
}

fn calls_sleep(code: &str) -> bool {
    code.contains("::sleep(") || code.trim_start().starts_with("sleep(")
}

/// The first lines of the blocks around a line, innermost first.
fn blocks_around<'a>(lines: &'a [super::tree::Line<'_>], at: usize) -> Vec<&'a str> {
    let (mut depth, mut heads) = (indent(lines[at].raw), Vec::new());
    for line in lines[..at].iter().rev().filter(|line| !line.code.trim().is_empty()) {
        if indent(line.raw) < depth {
            depth = indent(line.raw);
            heads.push(line.code.as_str());
        }
    }
    heads
}

/// What tells of one machine, of a registry, or of how the work is organised. In pieces, so that this file does not say it.
const NEVER: [&str; 12] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/home", "/"),
    concat!("work", "tree"),
    concat!("BRIEF", ".md"),
    concat!("INTERFACE", ".md"),
    concat!("SAFETY", ".md"),
    concat!("PROCEDURES", ".md"),
    concat!("FIELD", ".md"),
    concat!("STYLES", ".md"),
    concat!("DESIGN", ".md"),
    concat!("sub", "agent"),
];

/// Hosts that an address may name.
const HOSTS: [&str; 8] =
    ["github.com", "keepachangelog.com", "semver.org", "www.apache.org", "127.0.0.1", "localhost", "prometheus.io", "spec.openapis.org"];

#[test]
fn the_tree_names_no_machine_and_no_registry() {
    let (tree, mut wrong) = (Tree::read(), Vec::new());
    for file in tree.files.iter().filter(|file| file.path != "LICENSE") {
        for (number, line) in (1..).zip(file.text.lines()) {
            let words = NEVER.iter().filter(|word| line.contains(**word)).map(|word| (*word).to_owned());
            let hosts = hosts(line).into_iter().filter(|host| !is_allowed(host));
            wrong.extend(words.chain(hosts).map(|what| format!("{}:{number}: {what}", file.path)));
        }
    }
    none("names that do not belong into the tree", &wrong);
}

fn hosts(line: &str) -> Vec<String> {
    let ends = |c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '-');
    let after = ["https://", "http://"].iter().flat_map(|scheme| line.split(scheme).skip(1));
    after.map(|rest| rest.split(ends).next().unwrap().trim_end_matches('.').to_owned()).collect()
}

fn is_allowed(host: &str) -> bool {
    let private = host.starts_with("10.") || host.starts_with("192.168.");
    !host.contains('.')
        || private
        || HOSTS.contains(&host)
        // The names in nodes' certificates; the domain is for private use, and nobody's.
        || host.ends_with(".hotwarm.internal")
        || host.ends_with(".example")
        || host.ends_with("example.com")
        || host.ends_with("example.org")
}

/// The rules that code must name, beside those that nothing here touches yet (docs/internals/safety.md says which).
#[test]
fn every_rule_is_named_where_it_is_kept() {
    let tree = Tree::read();
    let of_code = |file: &&File| file.path.starts_with("crates/") && !file.path.starts_with("crates/hotwarm/tests/tidy");
    let mut missing = Vec::new();
    for number in 1..=22 {
        let rule = format!("S{number}");
        let named = tree.rust().filter(of_code).any(|file| has_word(&file.text, &rule));
        if named == super::pages::UNTOUCHED.contains(&rule.as_str()) {
            missing.push(format!("{rule} is {} in the code", if named { "called untouched but named" } else { "not named" }));
        }
    }
    none("rules and code that do not agree", &missing);
}
