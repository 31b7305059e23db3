//! Sizes and beginnings: every file says what it is for, and none is too long to be read.

use super::none;
use super::tree::{File, Tree, indent};

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;

#[test]
fn every_file_says_what_it_is_for() {
    let tree = Tree::read();
    let silent = tree.rust().filter(|file| !file.text.starts_with("//! ")).map(|file| file.path.clone());
    none("files that do not begin with //!", &silent.collect::<Vec<_>>());
}

#[test]
fn no_file_is_too_long() {
    let tree = Tree::read();
    let lines = |file: &File| file.text.lines().count();
    let long = tree.rust().filter(|file| lines(file) > FILE_LINES_MAX).map(|file| format!("{} ({} lines)", file.path, lines(file)));
    none("files over 800 lines", &long.collect::<Vec<_>>());
}

#[test]
fn no_function_is_too_long() {
    let tree = Tree::read();
    let mut long = Vec::new();
    for file in tree.rust() {
        for (line, name, length) in functions(file) {
            if length > FUNCTION_LINES_MAX {
                long.push(format!("{}:{line}: {name} has {length} lines", file.path));
            }
        }
    }
    none("functions over 70 lines", &long);
}

/// Line, name and lines of each function.
pub(crate) fn functions(file: &File) -> Vec<(usize, String, usize)> {
    let lines = file.lines();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function_name(&line.code) else { continue };
        let code = line.code.trim_end();
        let depth = indent(&line.code);
        let one_line = code.ends_with(';') || (code.ends_with('}') && code.contains('{'));
        let rest = lines[at + 1..].iter().position(|l| {
            let code = l.code.trim_end();
            !code.trim().is_empty() && indent(code) == depth && (code.trim() == "}" || code.ends_with(';') || code.ends_with("{}"))
        });
        let length = if one_line { 1 } else { rest.map_or(usize::MAX, |n| n + 2) };
        found.push((line.number, name, length));
    }
    found
}

/// The name, if a function is declared on this line.
fn function_name(code: &str) -> Option<String> {
    let (before, after) = code.trim_start().split_once("fn ")?;
    let heads = ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe", "extern"];
    if !before.split_whitespace().all(|word| heads.contains(&word)) {
        return None;
    }
    let name: String = after.chars().take_while(|c| super::tree::is_word(*c)).collect();
    (!name.is_empty()).then_some(name)
}

#[test]
fn functions_are_measured() {
    let text = "impl A {\n    pub(crate) const fn a(&self) -> u8 {\n        match x {\n        }\n    }\n    fn b();\n    fn c() {}\n\
                    async fn d(\n        x: u8,\n    ) -> u8\n    where\n        X: Y,\n    {\n        1\n    }\n}\n";
    let file = File { path: "crates/x/src/y.rs".into(), text: text.replace("\nasync", "\n    async") };
    let found: Vec<(String, usize)> = functions(&file).into_iter().map(|(_, name, length)| (name, length)).collect();
    assert_eq!(found, [("a".into(), 4), ("b".into(), 1), ("c".into(), 1), ("d".into(), 8)]);
}
