//! What comes from outside: every dependency with its reason and licence, and the licences, sources and versions that deny.toml allows.
//!
//! deny.toml is cargo-deny's; this test keeps its lists without that program, so that nothing has to be built or fetched for it.

use std::collections::{BTreeMap, BTreeSet};

use super::none;
use super::tree::{Tree, root};

const PAGE: &str = "docs/decisions/dependencies.md";

#[test]
fn every_dependency_has_its_reason() {
    let tree = Tree::read();
    let manifest: toml::Table = tree.text("Cargo.toml").parse().unwrap();
    let declared = manifest["workspace"]["dependencies"].as_table().unwrap();
    let declared: BTreeSet<&str> = declared.keys().map(String::as_str).filter(|name| *name != "hotwarm-core").collect();
    let rows = tree.text(PAGE).lines().filter(|line| line.starts_with("| `"));
    let cells: Vec<Vec<&str>> =
        rows.map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`')).collect()).collect();
    assert!(cells.iter().all(|cells| cells.len() == 3 && !cells[1].is_empty()), "{PAGE}: name, why, licence");
    let told: BTreeSet<&str> = cells.iter().map(|cells| cells[0]).collect();
    assert_eq!(told, declared, "{PAGE} and [workspace.dependencies]");
    let licences: BTreeMap<String, String> = packages().into_iter().map(|p| (p.name, p.licence)).collect();
    let wrong = cells.iter().filter(|cells| licences.get(cells[0]).is_some_and(|licence| licence != cells[2]));
    none("licences told otherwise than they are", &wrong.map(|cells| format!("{}: {}", cells[0], licences[cells[0]])).collect::<Vec<_>>());
    // Used by somebody.
    let manifests: Vec<&str> = tree.files.iter().filter(|file| file.path.ends_with("/Cargo.toml")).map(|file| file.text.as_str()).collect();
    let unused =
        declared.iter().filter(|name| !manifests.iter().any(|text| text.lines().any(|line| line.split(['.', ' ']).next() == Some(name))));
    none("dependencies that no crate uses", &unused.map(|name| (*name).to_owned()).collect::<Vec<_>>());
}

/// The README's `cargo run`, without more, has to know which program is meant.
#[test]
fn cargo_run_means_the_program() {
    let tree = Tree::read();
    let manifest: toml::Table = tree.text("Cargo.toml").parse().unwrap();
    let told: Vec<&str> =
        manifest["workspace"]["default-members"].as_array().unwrap().iter().map(|member| member.as_str().unwrap()).collect();
    assert_eq!(told, ["crates/hotwarm"]);
    assert!(tree.text("README.md").contains("cargo run --release -- demo"));
}

struct Package {
    name: String,
    version: String,
    licence: String,
    source: String,
}

fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = std::process::Command::new(cargo).args(arguments).args(["--offline", "--locked"]).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What is built for Linux, without asking the network. (The metadata alone also names what a dependency could use and nobody has it use.)
fn packages() -> Vec<Package> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let tree = ["tree", "--workspace", "--target", TARGET, "--edges", "normal,build,dev", "--prefix", "none", "--format", "{p}"];
    let tree = cargo(&tree);
    let named = tree.lines().filter_map(|line| line.split_once(" v"));
    let built: BTreeSet<(&str, &str)> = named.map(|(name, rest)| (name, rest.split(' ').next().unwrap_or(rest))).collect();
    let metadata = cargo(&["metadata", "--format-version", "1", "--filter-platform", TARGET]);
    let data: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let text = |package: &serde_json::Value, key: &str| package[key].as_str().unwrap_or_default().to_owned();
    let all = data["packages"].as_array().unwrap().iter();
    all.map(|p| Package { name: text(p, "name"), version: text(p, "version"), licence: text(p, "license"), source: text(p, "source") })
        .filter(|package| built.contains(&(package.name.as_str(), package.version.as_str())))
        .collect()
}

fn strings(value: Option<&toml::Value>) -> BTreeSet<String> {
    let list = value.and_then(toml::Value::as_array).cloned().unwrap_or_default();
    list.iter().map(|value| value.as_str().unwrap().to_owned()).collect()
}

#[test]
fn licences_sources_and_versions_are_those_that_are_allowed() {
    let tree = Tree::read();
    let deny: toml::Table = tree.text("deny.toml").parse().unwrap();
    let allowed = strings(deny["licenses"].get("allow"));
    let registries = strings(deny["sources"].get("allow-registry"));
    let banned: BTreeSet<String> = names(deny["bans"].get("deny"));
    let skipped: BTreeSet<String> = names(deny["bans"].get("skip"));
    let (mut wrong, mut versions): (Vec<String>, BTreeMap<String, BTreeSet<String>>) = (Vec::new(), BTreeMap::new());
    let (mut used, mut doubled) = (BTreeSet::new(), BTreeSet::new());
    for package in packages() {
        let Package { name, version, licence, source } = &package;
        match permitted(licence, &allowed) {
            Some(parts) => used.extend(parts),
            None => wrong.push(format!("{name} {version}: licence {licence}")),
        }
        let from = source.trim_start_matches("registry+");
        wrong.extend((!source.is_empty() && !registries.contains(from)).then(|| format!("{name} {version}: from {source}")));
        wrong.extend(banned.contains(name).then(|| format!("{name} {version}: banned")));
        versions.entry(package.name).or_default().insert(package.version);
    }
    for (name, versions) in versions.into_iter().filter(|(_, versions)| versions.len() > 1) {
        let open: Vec<String> = versions.iter().map(|version| format!("{name}@{version}")).filter(|spec| !skipped.contains(spec)).collect();
        doubled.extend(versions.iter().map(|version| format!("{name}@{version}")));
        wrong.extend((open.len() > 1).then(|| format!("{} versions: {}", open.len(), open.join(", "))));
    }
    wrong.extend(skipped.difference(&doubled).map(|spec| format!("skip of {spec} is needed no more")));
    wrong.extend(allowed.difference(&used).map(|licence| format!("nothing needs the licence {licence}")));
    none("dependencies against deny.toml", &wrong);
}

/// `{ crate = "name", reason = "..." }`, each with a reason.
fn names(value: Option<&toml::Value>) -> BTreeSet<String> {
    let list = value.and_then(toml::Value::as_array).cloned().unwrap_or_default();
    list.iter()
        .map(|entry| {
            assert!(entry.get("reason").is_some(), "deny.toml: {entry} without a reason");
            entry["crate"].as_str().unwrap().to_owned()
        })
        .collect()
}

/// The licences of an expression that are taken up, if they suffice: one side of an OR, both sides of an AND.
fn permitted(expression: &str, allowed: &BTreeSet<String>) -> Option<Vec<String>> {
    let expression = expression.replace('/', " OR ");
    let expression = expression.trim();
    for (at, _) in expression.match_indices(" AND ").chain(expression.match_indices(" OR ")) {
        let depth = expression[..at].matches('(').count() - expression[..at].matches(')').count();
        let and = expression[at..].starts_with(" AND ");
        // OR binds least.
        if depth > 0 || (and && outside(expression).contains(" OR ")) {
            continue;
        }
        let (left, right) = (&expression[..at], &expression[at + if and { 5 } else { 4 }..]);
        let (left, right) = (permitted(left, allowed), permitted(right, allowed));
        return if and { Some([left?, right?].concat()) } else { left.or(right) };
    }
    let inner = expression.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    match inner {
        Some(inner) => permitted(inner, allowed),
        None => allowed.contains(expression).then(|| vec![expression.to_owned()]),
    }
}

/// What is outside of brackets.
fn outside(expression: &str) -> String {
    let mut depth = 0;
    let mut out = String::new();
    for c in expression.chars() {
        depth += i32::from(c == '(');
        if depth == 0 {
            out.push(c);
        }
        depth -= i32::from(c == ')');
    }
    out
}

#[test]
fn expressions_of_licences_are_read() {
    let allowed: BTreeSet<String> = ["MIT", "Apache-2.0", "Unicode-3.0"].map(str::to_owned).into();
    let reads = |expression: &str| permitted(expression, &allowed).map(|parts| parts.join("+"));
    assert_eq!(reads("MIT").as_deref(), Some("MIT"));
    assert_eq!(reads("GPL-3.0 OR MIT").as_deref(), Some("MIT"));
    assert_eq!(reads("Apache-2.0/MIT").as_deref(), Some("Apache-2.0"));
    assert_eq!(reads("(MIT OR Apache-2.0) AND Unicode-3.0").as_deref(), Some("MIT+Unicode-3.0"));
    assert_eq!(reads("MIT AND GPL-3.0"), None);
    assert_eq!(reads("GPL-3.0 OR MIT AND ISC"), None);
}
