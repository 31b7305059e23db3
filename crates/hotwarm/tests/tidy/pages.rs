//! Pages that name what exists: files, functions, tests, commands, links.
//!
//! In a page `name.rs` in backquotes is a file, `name()` a function of the file named before it, and `hotwarm COMMAND` a command of the
//! manual. docs/internals/safety.md has a row for each promise and rule, whose last two cells are read the same way.

use std::collections::{BTreeMap, BTreeSet};

use super::none;
use super::shape::functions;
use super::tree::{File, Tree, has_word};

/// Rules about what is not built yet: the built-in store.
pub(crate) const UNTOUCHED: [&str; 1] = ["S21"];

const SAFETY: &str = "docs/internals/safety.md";

/// What a page names in backquotes, line by line, outside blocks of code.
fn quoted(text: &str) -> Vec<(usize, Vec<&str>)> {
    let (mut lines, mut code) = (Vec::new(), false);
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            code = !code;
        } else if !code {
            lines.push((number, line.split('`').skip(1).step_by(2).collect()));
        }
    }
    lines
}

/// The file that a page means: from the root, from crates/, or from src of the one crate that has it.
fn resolve<'a>(tree: &'a Tree, path: &str) -> Option<&'a File> {
    let places = [
        "",
        "crates/",
        "crates/hotwarm/src/",
        "crates/hotwarm-core/src/",
        "crates/hotwarm/",
        "crates/hotwarm-core/",
        "crates/hotwarm-sim/src/",
    ];
    places.iter().find_map(|place| tree.file(&format!("{place}{path}")))
}

fn is_file(word: &str) -> bool {
    let ends = [".rs", ".txt", ".toml", ".md", ".hex"];
    !word.contains([' ', '*', '<', '{']) && !word.starts_with('/') && ends.iter().any(|end| word.ends_with(end)) && word.len() > 5
}

#[test]
fn pages_name_files_and_functions_that_exist() {
    let (tree, mut wrong) = (Tree::read(), Vec::new());
    // Files that a user has and the repository has not.
    let users = ["hotwarm.toml"];
    for page in tree.pages().filter(|page| !page.path.starts_with("docs/reference/")) {
        let mut file: Option<&File> = None;
        for (number, words) in quoted(&page.text) {
            for word in words {
                if is_file(word) && !users.iter().any(|end| word.ends_with(end)) {
                    file = resolve(&tree, word);
                    let beside = page.path.rsplit_once('/').is_some_and(|(folder, _)| tree.has(&format!("{folder}/{word}")));
                    wrong.extend((file.is_none() && !beside).then(|| format!("{}:{number}: no file {word}", page.path)));
                } else if let Some(name) = word.strip_suffix("()").filter(|_| word.ends_with(".rs") || !word.contains(' ')) {
                    let name = name.rsplit("::").next().unwrap();
                    let there = file.is_some_and(|file| functions(file).iter().any(|(_, function, _)| function == name));
                    let in_file = file.map_or("no file", |file| &file.path);
                    wrong.extend((!there).then(|| format!("{}:{number}: no function {word} in {in_file}", page.path)));
                }
            }
        }
    }
    none("pages that name what is not there", &wrong);
}

#[test]
fn links_lead_somewhere() {
    let (tree, mut wrong) = (Tree::read(), Vec::new());
    for page in tree.pages() {
        let folder = page.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (number, line) in (1..).zip(page.text.lines()) {
            for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let target = target.split('#').next().unwrap();
                if target.is_empty() || target.contains("://") {
                    continue;
                }
                let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
                for part in target.split('/') {
                    match part {
                        ".." => drop(parts.pop()),
                        "." | "" => {}
                        part => parts.push(part),
                    }
                }
                let path = parts.join("/");
                wrong.extend((!tree.has(&path)).then(|| format!("{}:{number}: {target}", page.path)));
            }
        }
    }
    none("links to nothing", &wrong);
}

/// Commands of the manual, each with the text of its section.
fn manual(tree: &Tree) -> BTreeMap<String, &str> {
    let sections = tree.text("docs/reference/cli.md").split("\n## hotwarm").skip(1);
    let named = sections.filter_map(|section| section.split_once('\n'));
    named.map(|(name, text)| (name.trim().to_owned(), text)).collect()
}

#[test]
fn pages_show_commands_that_exist() {
    let (tree, mut wrong) = (Tree::read(), Vec::new());
    let manual = manual(&tree);
    let mut seen = BTreeSet::new();
    // The manual itself, and what was so once.
    let others = ["docs/reference/cli.md", "CHANGELOG.md"];
    for page in tree.pages().filter(|page| !others.contains(&page.path.as_str())) {
        for (number, command) in commands(&page.text) {
            let mut words = command.split_whitespace();
            let name = words.next().unwrap_or_default();
            // A word in capitals stands for any; hidden entry points are not for people.
            if name.is_empty()
                || name.starts_with('-')
                || name.chars().all(char::is_uppercase)
                || ["guard", "component", "hold"].contains(&name)
            {
                continue;
            }
            let Some(section) = manual.get(name) else {
                wrong.push(format!("{}:{number}: no command {name}", page.path));
                continue;
            };
            seen.insert(name.to_owned());
            // A command of its own below it has a section of its own.
            let deeper = words.clone().next().and_then(|second| manual.get(&format!("{name} {second}")));
            for flag in words.filter(|word| word.starts_with("--")) {
                let flag = flag.trim_start_matches('[').split('=').next().unwrap().trim_end_matches([']', ',', '.', ')']);
                let there = has_word(section, flag) || deeper.is_some_and(|section| has_word(section, flag));
                wrong.extend((!there).then(|| format!("{}:{number}: hotwarm {name} has no {flag}", page.path)));
            }
        }
    }
    assert!(["init", "join", "run", "status", "demo"].iter().all(|name| seen.contains(*name)), "the README shows the first hour: {seen:?}");
    none("commands that the manual does not have", &wrong);
}

/// What follows `hotwarm ` in backquotes and at the beginning of a command in blocks of code.
fn commands(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut shell = None;
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(kind) = line.trim_start().strip_prefix("```") {
            shell = if shell.is_some() { None } else { Some(["sh", "console"].contains(&kind)) };
            continue;
        }
        let parts: Vec<&str> = match shell {
            None => line.split('`').skip(1).step_by(2).filter(|part| part.starts_with("hotwarm ")).collect(),
            Some(true) => line.split("&&").collect(),
            Some(false) => continue,
        };
        for part in parts {
            let part = part.split(" #").next().unwrap().trim().trim_start_matches("$ ").trim_start_matches("sudo ");
            let rest = part.strip_prefix("hotwarm ").or_else(|| part.strip_prefix("cargo run --release -- "));
            found.extend(rest.map(|rest| (number, rest.to_owned())));
        }
    }
    found
}

#[test]
fn scripts_that_pages_run_are_there() {
    let (tree, mut wrong) = (Tree::read(), Vec::new());
    for page in tree.pages() {
        for (number, line) in (1..).zip(page.text.lines()) {
            let words = line.split(|c: char| c.is_whitespace() || c == '`');
            let scripts =
                words.filter(|word| ["./test", "scripts/", "bench/", "examples/", ".ci/"].iter().any(|head| word.starts_with(head)));
            for script in scripts.map(|word| word.trim_start_matches("./").trim_end_matches(['.', ',', ';', ':', ')'])) {
                let script = script.split("](").next().unwrap();
                wrong.extend((!script.contains('*') && !tree.has(script)).then(|| format!("{}:{number}: {script}", page.path)));
            }
        }
    }
    none("scripts that are not there", &wrong);
}

#[test]
fn the_readme_says_what_is_not_built_yet() {
    let tree = Tree::read();
    let mut declared = BTreeSet::new();
    for file in tree.rust().filter(|file| file.path.starts_with("crates/hotwarm/src/cli/")) {
        declared.extend(file.text.split("not_built_yet(\"").skip(1).filter_map(|rest| rest.split('"').next()));
    }
    let readme = tree.text("README.md");
    let list = readme.split("<!-- NOT YET").nth(1).and_then(|rest| rest.split("<!-- END OF NOT YET").next()).unwrap_or_default();
    let told: BTreeSet<&str> = list.split('`').skip(1).step_by(2).collect();
    assert_eq!(told, declared, "README.md, between the marks, and the commands that answer \"not built yet\"");
}

#[test]
fn every_problem_has_its_advice() {
    let tree = Tree::read();
    let table = tree.text("crates/hotwarm-core/src/group/problem.rs").split("TABLE").nth(1).unwrap();
    let problem = |entry: &str| {
        let code = entry.split('"').next().unwrap().to_owned();
        let severity = entry.split("Severity::").nth(1).unwrap().split(',').next().unwrap().to_lowercase();
        format!("### {code} ({severity})")
    };
    let expected: Vec<String> = table.split("code: \"").skip(1).map(problem).collect();
    let page = tree.text("docs/operating/problems.md");
    let told: Vec<&str> = page.lines().filter(|line| line.starts_with("### ")).collect();
    assert_eq!(told, expected, "docs/operating/problems.md tells every problem of group/problem.rs, in its order");
}

/// A row of the safety page: the rule, where it is kept, what shows it.
struct Row<'a> {
    rule: &'a str,
    kept: &'a str,
    shown: &'a str,
}

fn rows(text: &str) -> Vec<Row<'_>> {
    let mut rows = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        if let [rule, _, kept, shown] = cells[..]
            && !["rule", "promise"].contains(&rule)
        {
            rows.push(Row { rule, kept, shown });
        }
    }
    rows
}

#[test]
fn every_promise_and_rule_names_its_code_and_its_tests() {
    let tree = Tree::read();
    let rows = rows(tree.text(SAFETY));
    let named: Vec<&str> = rows.iter().map(|row| row.rule).collect();
    let all: Vec<String> = (1..=6).map(|n| format!("promise {n}")).chain((1..=22).map(|n| format!("S{n}"))).collect();
    assert_eq!(named, all, "{SAFETY} has one row a promise and a rule, in order");
    let mut wrong = Vec::new();
    for row in rows.iter().filter(|row| !UNTOUCHED.contains(&row.rule)) {
        for (cell, tests) in [(row.kept, false), (row.shown, true)] {
            let count = check_cell(&tree, row.rule, cell, tests, &mut wrong);
            wrong.extend((count == 0).then(|| format!("{}: nothing named in {}", row.rule, if tests { "the tests" } else { "the code" })));
        }
    }
    none("rules whose code or tests are not there", &wrong);
}

/// `file`: `name`, `name`; `file`: ... Returns how many names there were.
fn check_cell(tree: &Tree, rule: &str, cell: &str, tests: bool, wrong: &mut Vec<String>) -> usize {
    let (mut file, mut count): (Option<&File>, usize) = (None, 0);
    for word in cell.split('`').skip(1).step_by(2) {
        if is_file(word) {
            file = resolve(tree, word);
            // A story or golden bytes say by themselves what they show.
            count += usize::from(!word.ends_with(".rs"));
            wrong.extend(file.is_none().then(|| format!("{rule}: no file {word}")));
            continue;
        }
        count += 1;
        let name = word.trim_end_matches("()").rsplit("::").next().unwrap();
        let there = file.is_some_and(|file| match tests {
            true => is_a_test(file, name),
            false => functions(file).iter().any(|(_, function, _)| function == name) || declares(file, name),
        });
        let path = file.map_or("no file", |file| &file.path);
        wrong.extend((!there).then(|| format!("{rule}: no {} {name} in {path}", if tests { "test" } else { "function or type" })));
    }
    count
}

fn is_a_test(file: &File, name: &str) -> bool {
    let lines: Vec<&str> = file.text.lines().collect();
    let at = lines.iter().position(|line| has_word(line, name) && line.contains("fn "));
    at.is_some_and(|at| lines[at.saturating_sub(4)..at].iter().any(|line| line.contains("#[") && line.contains("test")))
}

fn declares(file: &File, name: &str) -> bool {
    let heads = ["struct ", "enum ", "const ", "trait "];
    file.text.lines().any(|line| has_word(line, name) && heads.iter().any(|head| line.contains(head)))
}
