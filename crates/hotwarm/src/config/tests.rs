//! Tests of the configuration: what must parse, the exact text of every error, and that no input makes the parser panic.
//!
//! `testdata/bad/NAME.toml` is read and what is found must equal `NAME.txt`; with `HOTWARM_REGENERATE=1` the texts are written instead
//! (`scripts/fix` does it). Commit a changed text only when you know what changed it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hotwarm_core::ids::{GroupName, MemberId, NodeId};
use proptest::prelude::*;

use super::*;
use crate::codes::Code;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Compares `text` with the file, or writes the file where that is asked for.
fn same_as_file(path: &Path, text: &str) {
    if std::env::var_os("HOTWARM_REGENERATE").is_some_and(|value| value == "1") {
        std::fs::write(path, text).unwrap();
    }
    let file = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}; run scripts/fix", path.display()));
    assert!(file == text, "{} differs from what the code says; run scripts/fix and look at the difference\n{text}", path.display());
}

fn full() -> String {
    include_str!("testdata/full.toml").to_owned()
}

#[test]
fn a_file_with_every_key_parses_without_a_word() {
    let parsed = examine(&full(), "full.toml", Some(&NodeId::new("b")));
    assert_eq!(parsed.found.to_string(), "full.toml: 0 errors");
    let config = parsed.config.unwrap();
    assert_eq!(config.node.api.to_string(), "127.0.0.1:7411");
    assert_eq!(config.node.name, Some(NodeId::new("b")));
    let jobs = &config.groups[&GroupName::new("jobs")];
    assert_eq!(jobs.mode, Mode { hot: 2, warm: 1, spare: 1, exclusive: false });
    assert_eq!(jobs.members[&MemberId::from("jobs/a1")].weight, 50);
    assert_eq!(jobs.balance, Balance::HashHeader("x-user".into()));
    assert_eq!(jobs.repeat, ["POST /search", "PUT /items/"].map(|text| Mark::read(text).unwrap()));
    let old = &config.groups[&GroupName::new("old")];
    assert_eq!(old.fence, Fence::Command(vec!["/opt/old/fence".into()]));
    assert!(old.stateful && old.mode.exclusive);
}

/// Every key of the schema is given in `full.toml`, so that no key is forgotten by the model or by a test.
#[test]
fn the_full_file_is_full() {
    let text = full();
    for line in reference::page().lines().filter(|line| line.starts_with("| `")) {
        let key = line.split('`').nth(1).unwrap();
        // No engine of today keeps data that an rpo could be promised for.
        if key == "rpo" {
            continue;
        }
        let given = text.contains(&format!("{key} = ")) || text.contains(&format!("[{key}")) || text.contains(&format!(".{key}]"));
        assert!(given, "testdata/full.toml does not give `{key}`");
    }
}

#[test]
fn defaults_are_what_the_manual_says() {
    let config = parse(&small("hot-hot"), "small.toml", None).unwrap();
    assert_eq!((config.cluster.lease, config.cluster.heartbeat), (Duration::from_secs(1), Duration::from_millis(100)));
    assert_eq!(config.node.data, PathBuf::from("/var/lib/hotwarm"));
    let web = &config.groups[&GroupName::new("web")];
    assert_eq!(
        web.check,
        Check { kind: CheckKind::Tcp, every: Duration::from_secs(1), timeout: Duration::from_millis(500), fall: 2, rise: 1 }
    );
    assert_eq!(web.park, Park { time: Duration::from_secs(10), requests: 1_000, bytes: 16 << 20 });
    assert_eq!(web.http, HttpLimits { head_bytes: 16 << 10, headers: 100, connections: 10_000 });
    assert_eq!(web.repeat, []);
    assert_eq!((web.drain, web.failovers_per_hour, web.stateful), (Duration::from_secs(5), 6, false));
    let Engine::Process(process) = &web.engine else { panic!("{:?}", web.engine) };
    assert_eq!((process.grace, process.start_timeout), (Duration::from_secs(5), Duration::from_secs(30)));
    assert_eq!(process.restart, Restart { delay: Duration::from_millis(100), delay_max: Duration::from_secs(10) });
    assert_eq!(process.on_role_change, RoleChange::Gate);
}

/// The smallest file with three nodes and one group of the given mode.
fn small(mode: &str) -> String {
    format!(
        r#"
        [cluster]
        name = "shop"
        nodes = {{ a = "10.0.0.1:7400", b = "10.0.0.2:7400", c = "10.0.0.3:7400" }}
        witness = ["c"]
        zones = {{ a = "room-1", b = "room-2", c = "room-2" }}

        [group.web]
        mode = "{mode}"
        listen = "0.0.0.0:8080"
        protocol = "http"
        engine = {{ process = ["/bin/web"] }}
        members = {{ a = "10.0.0.1:9080", b = "10.0.0.2:9080" }}
        "#
    )
}

#[test]
fn every_bad_file_is_told_all_that_is_wrong_with_it() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/config/testdata/bad");
    let mut seen: Vec<Code> = Vec::new();
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    assert!(!files.is_empty());
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let Parsed { config, found } = examine(&text, name, None);
        seen.extend(found.errors.iter().chain(&found.warnings).map(|diagnostic| diagnostic.code));
        assert_eq!(config.is_none(), !found.errors.is_empty());
        same_as_file(&path.with_extension("txt"), &format!("{found}\n"));
    }
    for code in Code::ALL.iter().filter(|code| (101..200).contains(&code.to_string()[2..].parse::<u16>().unwrap())) {
        assert!(seen.contains(code), "no file in testdata/bad shows {code}");
    }
}

#[test]
fn the_manual_is_the_schema() {
    same_as_file(&root().join("docs/reference/configuration.md"), &reference::page());
}

#[test]
fn the_examples_are_valid() {
    let mut count = 0;
    for entry in std::fs::read_dir(root().join("examples")).unwrap() {
        let path = entry.unwrap().path().join("hotwarm.toml");
        if let Ok(text) = std::fs::read_to_string(&path) {
            count += 1;
            let parsed = examine(&text, path.to_str().unwrap(), None);
            assert!(parsed.config.is_some() && parsed.found.warnings.is_empty(), "{}", parsed.found);
        }
    }
    assert!(count >= 2);
}

/// What the pages show as a whole configuration is one.
#[test]
fn the_configurations_in_the_pages_are_valid() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap_or_default();
    for block in readme.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).filter(|block| block.contains("[cluster]")) {
        let parsed = examine(block, "README.md", None);
        assert!(parsed.config.is_some() && parsed.found.warnings.is_empty(), "{}", parsed.found);
    }
}

#[test]
fn a_file_made_to_hurt_is_refused_in_peace() {
    let deep = [
        format!("x = {}", "[".repeat(200_000)),
        format!("x = {}", "{a=".repeat(100_000)),
        format!("[group.web{}]", ".a".repeat(100_000)),
        format!("group.web{} = 1", ".a".repeat(100_000)),
        "[[group]]\n".repeat(10_000),
        "x".repeat(TEXT_BYTES_MAX + 1),
    ];
    for text in deep {
        assert!(parse(&text, "f", None).is_err());
    }
}

#[test]
fn losses_are_told_for_nodes_and_zones() {
    let report = losses(&parse(&small("hot-warm"), "small.toml", None).unwrap());
    let of = |lost: Lost| report.losses.iter().find(|loss| loss.lost == lost).unwrap();
    assert!(of(Lost::Node("a".into())).survived);
    assert!(of(Lost::Node("c".into())).survived);
    assert_eq!(report.losses.len(), 4, "a zone of one node is told of as that node");
    let room = of(Lost::Zone("room-2".into()));
    assert!(!room.survived && !room.quorum);
    assert!(room.groups[0].what.contains("lease"));
    // Members that need no lease go on without a majority.
    let report = losses(&parse(&small("hot-hot"), "small.toml", None).unwrap());
    let room = report.losses.iter().find(|loss| loss.lost == Lost::Zone("room-2".into())).unwrap();
    assert!(room.survived && !room.quorum, "{report}");
}

#[test]
fn the_smallest_rto_is_accepted_and_less_is_not() {
    let with = |rto: &str| format!("{}\nobjective = {{ rto = \"{rto}\" }}\n", small("hot-warm"));
    let smallest = smallest_rto(Duration::from_secs(1), Duration::from_millis(100), true);
    assert!(parse(&with(&units::show_duration(smallest)), "f", None).is_ok());
    let errors = parse(&with(&units::show_duration(smallest - Duration::from_millis(1))), "f", None).unwrap_err();
    assert_eq!(errors.errors[0].code, Code::RTO_TOO_SMALL);
    // The lease that the hint offers is one that check accepts.
    let hint = errors.errors[0].hint.clone().unwrap();
    let lease = hint.split('"').nth(1).unwrap();
    let text = with(&units::show_duration(smallest - Duration::from_millis(1)));
    let text = text.replace("witness = [\"c\"]", &format!("witness = [\"c\"]\nlease = \"{lease}\""));
    parse(&text, "f", None).unwrap();
}

/// What is configured is judged everywhere, and what is measured on top of it on the machine that is the node.
#[test]
fn an_objective_that_the_measured_disk_cannot_keep_is_refused_with_the_figures() {
    let with = |mode: &str| format!("{}\nobjective = {{ rto = \"2s\" }}\n", small(mode));
    let judged = |mode: &str, sync_ms| examine_disk(&with(mode), "f", None, Duration::from_millis(sync_ms)).found.errors;
    assert_eq!(judged("hot-warm", 71), []);
    let errors = judged("hot-warm", 72);
    assert_eq!((errors.len(), errors[0].code, errors[0].expected.as_str()), (1, Code::RTO_TOO_SMALL, "\"2010ms\" or more"));
    for part in
        ["2s", "on this machine", "1500ms with lease 1s and heartbeat 100ms", "510ms for 7 syncs of its disk, 72.0 ms each as measured"]
    {
        assert!(errors[0].message.contains(part), "{part}: {}", errors[0].message);
    }
    assert_eq!(judged("hot-hot", 10_000), [], "nobody waits for a disk there");
}

#[test]
fn no_false_failover_ever_cannot_be_promised() {
    let with = |rate: &str| format!("{}\nobjective = {{ false_failovers = \"{rate}\" }}\n", small("hot-warm"));
    let errors = parse(&with("0 per month"), "f", None).unwrap_err().errors;
    assert_eq!((errors[0].code, errors[0].expected.as_str()), (Code::BAD_VALUE, "more than 0"));
    // What decides nothing says so.
    let notes = objectives(&parse(&with("1 per month"), "f", None).unwrap(), &Err("why not".to_owned()));
    assert!(notes.len() == 1 && notes[0].contains("nothing is derived from false_failovers") && notes[0].contains("here 6"), "{notes:?}");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,400}") {
        let _ = examine(&text, "any.toml", None).found.to_string();
    }

    /// Damage to a good file: bytes replaced, cut, repeated.
    #[test]
    fn no_damage_makes_it_panic(cuts in prop::collection::vec((0usize..4_000, 0usize..60, "[\\[\\]{}=\",.\\n a-z0-9é]{0,6}"), 1..6)) {
        let mut text = full();
        for (at, length, with) in cuts {
            let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap();
            let end = ((at + length).min(text.len())..=text.len()).find(|end| text.is_char_boundary(*end)).unwrap();
            text.replace_range(at..end, &with);
        }
        let parsed = examine(&text, "any.toml", Some(&NodeId::new("b")));
        prop_assert_eq!(parsed.config.is_none(), !parsed.found.errors.is_empty());
        prop_assert!(!parsed.found.to_string().contains("failed to name"), "{}\n{}", parsed.found, text);
    }

    /// Keys and values of the schema thrown together: deeper than random damage reaches.
    #[test]
    fn no_mixture_makes_it_panic(picks in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..30)) {
        let page = reference::page();
        let rows: Vec<Vec<&str>> = page.lines().filter(|line| line.starts_with("| `")).map(|line| line.split('`').collect()).collect();
        let mut text = String::from("[cluster]\nname = \"x\"\nnodes = { a = \"10.0.0.1:1\" }\n[group.web]\n");
        for (key, value) in picks {
            let (key, value) = (key.get(&rows)[1], value.get(&rows));
            text.push_str(&format!("{key} = {}\n", value[value.len() - 2]));
        }
        let parsed = examine(&text, "any.toml", None);
        prop_assert!(!parsed.found.to_string().contains("failed to name"), "{}\n{}", parsed.found, text);
    }
}

#[test]
fn a_variable_of_a_member_may_be_empty() {
    let line = |value: &str| full().replacen("env = { ", &format!("env = {{ EMPTY = {value}, "), 1);
    assert!(full().contains("env = { "), "the file has one");
    assert!(parse(&line("\"\""), "f", None).is_ok());
    assert!(parse(&line("1"), "f", None).is_err());
}

#[test]
fn what_a_file_holds_commands_no_terminal() {
    let told = parse("[cluster]\nname = \"\u{1b}[31mx\u{7}\"", "f", None).unwrap_err().to_string();
    assert!(told.contains("[31mx") && !told.contains(['\u{1b}', '\u{7}']), "{told:?}");
    let told = parse("[cluster]\n\"\\u001b[31mx\" = 1", "f", None).unwrap_err().to_string();
    assert!(told.contains("[31mx` in") && !told.contains('\u{1b}'), "of a key that is written with an escape: {told:?}");
    let told = text_of(b"a = \"\x1b[2J\xff\"".to_vec(), "f").unwrap_err().to_string();
    assert!(told.contains("[2J") && !told.contains('\u{1b}'), "{told:?}");
}

#[test]
fn a_word_of_which_nothing_is_left_means_no_other() {
    assert_eq!(read::nearest("z", ["a", "b"]), None);
    assert_eq!(read::nearest("nod", ["node", "data"]), Some("node"));
}
