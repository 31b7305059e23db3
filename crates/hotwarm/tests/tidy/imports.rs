//! Who may import whom. The table is ARCHITECTURE.md's; what goes beyond it is an exception with its reason.

use std::collections::BTreeSet;

use super::none;
use super::tree::{File, Tree, has_word, is_word};

/// A module of `crates/hotwarm/src`, and the beginnings of what it may name of the others.
const MAY: [(&str, &[&str]); 20] = [
    ("main", &["cli", "agent", "api", "fence::guard::main", "component::main", "drill::hold::main", "telemetry", "codes"]),
    ("cli", &["config", "api::client", "api::types", "drill", "clock", "codes"]),
    ("agent", &["store", "probe", "engine", "fence", "router", "backup", "config", "clock", "codes"]),
    ("api", &["agent", "config", "clock", "codes"]),
    ("drill", &["api::client", "api::types", "clock", "codes"]),
    ("dashboard", &[]),
    ("backup", &["engine", "config", "clock", "codes"]),
    ("router", &["config", "clock", "codes", "net", "plant"]),
    ("store", &["config", "clock", "codes"]),
    ("probe", &["config", "child", "clock", "codes", "net"]),
    ("engine", &["config", "child", "clock", "codes"]),
    ("fence", &["config", "child", "clock", "codes"]),
    ("config", &["codes"]),
    // How programs are started, for whoever starts some.
    ("child", &[]),
    ("component", &[]),
    ("clock", &[]),
    // How connections to members are made, for whoever makes some.
    ("net", &[]),
    ("codes", &[]),
    // Bugs for tests to catch, for whoever keeps the rules they break.
    ("plant", &[]),
    ("telemetry", &[]),
];

/// (who, whom, why)
const EXCEPTIONS: [(&str, &str, &str); 4] = [
    ("engine", "fence::guard", "a process engine starts its member's guard and speaks its frames; the guard knows nothing of engines"),
    ("engine", "probe", "a member's task runs its probe, so that a verdict is always about the life that the task knows (S4)"),
    ("api", "router::GroupStats", "agent::Handle hands out what the router counted, as it is; the API only prints it"),
    ("api", "router::MemberStats", "as GroupStats, of which it is a part"),
];

#[test]
fn imports_go_one_way() {
    let (tree, mut wrong, mut used) = (Tree::read(), Vec::new(), BTreeSet::new());
    for file in tree.rust().filter(|file| file.path.starts_with("crates/hotwarm/src/") && !file.path.ends_with("src/lib.rs")) {
        let inside = file.path.trim_start_matches("crates/hotwarm/src/").trim_end_matches(".rs");
        let module = inside.split('/').next().unwrap();
        let Some((_, may)) = MAY.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{}: module {module} is not in the table", file.path));
            continue;
        };
        for (line, path) in named(file, inside) {
            let of = |beginning: &str| path == beginning || path.strip_prefix(beginning).is_some_and(|rest| rest.starts_with("::"));
            if of(module) || may.iter().any(|beginning| of(beginning)) {
                continue;
            }
            match EXCEPTIONS.iter().find(|(who, whom, _)| *who == module && of(whom)) {
                Some(exception) => {
                    used.insert(exception);
                }
                None => wrong.push(format!("{}:{line}: {module} names {path}", file.path)),
            }
        }
    }
    wrong.extend(
        EXCEPTIONS.iter().filter(|e| !used.contains(e)).map(|(who, whom, _)| format!("nothing needs the exception {who} -> {whom}")),
    );
    none("imports against the table", &wrong);
}

/// What a file names by `crate::`, `hotwarm::` (the program) or enough `super::`, with the line. Tests may reach where they like.
fn named(file: &File, inside: &str) -> Vec<(usize, String)> {
    let lines: Vec<_> = file.lines().into_iter().filter(|line| !line.test).collect();
    let mut text = String::new();
    let mut starts = Vec::new();
    for line in &lines {
        starts.push((text.len(), line.number));
        text.push_str(&line.code);
        text.push('\n');
    }
    // `a/mod.rs` and `a.rs` are module a, `a/b.rs` is a::b.
    let depth = inside.trim_end_matches("/mod").split('/').count();
    let roots = if inside == "main" { vec!["hotwarm::".to_owned()] } else { vec!["crate::".to_owned(), "super::".repeat(depth)] };
    let mut found = Vec::new();
    for root in roots {
        for (at, _) in text.match_indices(&root) {
            if text[..at].chars().next_back().is_some_and(|c| is_word(c) || c == ':') {
                continue;
            }
            let line = starts.iter().rev().find(|(start, _)| *start <= at).map_or(0, |(_, number)| *number);
            let mut paths = Vec::new();
            expand(&text[at + root.len()..], String::new(), &mut paths);
            found.extend(paths.into_iter().map(|path| (line, path)));
        }
    }
    found
}

/// The leaves of a `use` tree, or the one path; returns what follows.
fn expand<'a>(text: &'a str, before: String, found: &mut Vec<String>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start();
            match rest.chars().next() {
                Some('}') | None => return rest.get(1..).unwrap_or_default(),
                Some(',') => rest = &rest[1..],
                // A new name: the path is known.
                Some('a') if rest.starts_with("as ") => rest = &rest[rest.find([',', '}']).unwrap_or(rest.len())..],
                Some(c) if is_word(c) || c == '{' => rest = expand(rest, before.clone(), found),
                // A star.
                Some(c) => rest = &rest[c.len_utf8()..],
            }
        }
    }
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    let path = if before.is_empty() { text[..end].to_owned() } else { format!("{before}::{}", &text[..end]) };
    let path = path.strip_suffix("::self").map(str::to_owned).unwrap_or(path);
    match text[end..].strip_prefix("::") {
        Some(rest) if rest.starts_with(|c| is_word(c) || c == '{') => expand(rest, path, found),
        Some(rest) => {
            found.push(path);
            rest
        }
        None => {
            found.push(path);
            &text[end..]
        }
    }
}

/// No clock, no I/O, no thread, no order that differs between two processes.
const NOT_IN_CORE: [&str; 17] = [
    "Instant",
    "SystemTime",
    "tokio",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "std::fs",
    "std::io",
    "std::thread",
    "std::process",
    "std::env",
    "HashMap",
    "HashSet",
    "RandomState",
    "Mutex",
    "thread_rng",
];

#[test]
fn the_core_has_no_clock_and_no_io() {
    let (tree, mut wrong) = (Tree::read(), Vec::new());
    for file in tree.rust().filter(|file| file.path.starts_with("crates/hotwarm-core/src/")) {
        for line in file.lines().iter().filter(|line| !line.test) {
            let words = NOT_IN_CORE.iter().filter(|word| has_word(&line.code, word));
            wrong.extend(words.map(|word| format!("{}:{}: {word}", file.path, line.number)));
        }
    }
    none("words that the core does without", &wrong);
}

#[test]
fn crates_depend_one_way() {
    let tree = Tree::read();
    let depends = |name: &str| -> Vec<String> {
        let manifest: toml::Table = tree.text(&format!("crates/{name}/Cargo.toml")).parse().unwrap();
        manifest["dependencies"].as_table().unwrap().keys().cloned().collect()
    };
    let core = ["crc32c", "postcard", "raft", "serde", "slog", "thiserror"];
    assert_eq!(depends("hotwarm-core"), core, "another dependency of the core is a decision: write it down first");
    let sim = depends("hotwarm-sim");
    assert!(sim.contains(&"hotwarm-core".to_owned()));
    for never in ["hotwarm", "tokio", "rustix", "libc"] {
        assert!(!sim.contains(&never.to_owned()), "the simulator runs the core, on no real clock, disk or network");
    }
}

#[test]
fn use_trees_are_read() {
    let leaves = |text: &str| {
        let mut found = Vec::new();
        expand(text, String::new(), &mut found);
        found
    };
    assert_eq!(leaves("a::{b, c::{self, d as e}, f::*};"), ["a::b", "a::c", "a::c::d", "a::f"]);
    assert_eq!(leaves("{a, b::c};"), ["a", "b::c"]);
    assert_eq!(leaves("store::wal::end_process)"), ["store::wal::end_process"]);
}
