//! The tree as it is looked at: every file's text, and for Rust each line without comments and strings, with what it belongs to.

use std::path::{Path, PathBuf};

/// One file.
pub(crate) struct File {
    /// From the root of the repository.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A line of Rust.
pub(crate) struct Line<'a> {
    pub(crate) number: usize,
    pub(crate) raw: &'a str,
    /// Comments and the insides of strings blanked out.
    pub(crate) code: String,
    /// Inside `#[cfg(test)]`, or in a file that is only tests.
    pub(crate) test: bool,
}

pub(crate) struct Tree {
    pub(crate) files: Vec<File>,
}

/// Not ours, or not text.
const SKIPPED: [&str; 3] = ["target", ".git", "results"];

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

impl Tree {
    pub(crate) fn read() -> Self {
        let (root, mut files) = (root(), Vec::new());
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let entry = entry.unwrap();
                let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
                if SKIPPED.contains(&name.as_str()) {
                    continue;
                }
                if entry.file_type().unwrap().is_dir() {
                    folders.push(path);
                } else if let Ok(text) = std::fs::read_to_string(&path) {
                    files.push(File { path: path.strip_prefix(&root).unwrap().to_string_lossy().into_owned(), text });
                }
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        assert!(files.len() > 100, "{} files: is this the root of the repository?", files.len());
        Self { files }
    }

    pub(crate) fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.path.starts_with("crates/") && file.path.ends_with(".rs"))
    }

    pub(crate) fn pages(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.path.ends_with(".md"))
    }

    pub(crate) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    pub(crate) fn text(&self, path: &str) -> &str {
        &self.file(path).unwrap_or_else(|| panic!("{path} is missing")).text
    }

    /// A file or a folder of that path.
    pub(crate) fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        self.files.iter().any(|file| file.path == path || file.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('/')))
    }
}

impl File {
    /// Whether the whole file is only for tests.
    pub(crate) fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }

    pub(crate) fn lines(&self) -> Vec<Line<'_>> {
        let blanked = blank(&self.text);
        let mut lines: Vec<Line<'_>> = Vec::new();
        let mut tests: Option<usize> = None;
        for ((number, raw), code) in (1..).zip(self.text.lines()).zip(blanked.lines()) {
            if tests.is_none() && code.trim_start().starts_with("#[cfg(test)]") {
                tests = Some(indent(code));
            }
            lines.push(Line { number, raw, code: code.to_owned(), test: self.is_test() || tests.is_some() });
            // The item ends with its brace, or at once.
            let end = tests.is_some_and(|at| indent(code) == at && (code.trim() == "}" || code.trim_end().ends_with(';')));
            if end {
                tests = None;
            }
        }
        lines
    }
}

pub(crate) fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

pub(crate) fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// True if `word` stands in `text` with no letter, digit or underscore beside it.
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back().is_some_and(is_word);
        !before && !text[at + word.len()..].chars().next().is_some_and(is_word)
    })
}

/// Rust with comments and the insides of strings and characters replaced by blanks; lines stay where they are.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| at + n),
            b'/' if bytes[at..].starts_with(b"/*") => find(bytes, at + 2, b"*/"),
            b'r' if !(at > 0 && is_word(char::from(bytes[at - 1])) && bytes[at - 1] != b'b') && raw_hashes(bytes, at).is_some() => {
                let hashes = raw_hashes(bytes, at).unwrap();
                find(bytes, at + hashes + 2, &[b"\"".as_slice(), &vec![b'#'; hashes]].concat())
            }
            b'"' => quoted(bytes, at + 1, b'"'),
            b'\'' if bytes.get(at + 1) == Some(&b'\\') => quoted(bytes, at + 1, b'\''),
            // A character, not a lifetime.
            b'\'' => text[at + 1..].chars().next().map_or(at + 1, |c| {
                let after = at + 1 + c.len_utf8();
                if bytes.get(after) == Some(&b'\'') { after + 1 } else { at + 1 }
            }),
            _ => {
                at += 1;
                continue;
            }
        };
        for byte in &mut out[at..end.min(bytes.len())] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(out).unwrap()
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    let from = from.min(bytes.len());
    bytes[from..].windows(what.len()).position(|part| part == what).map_or(bytes.len(), |n| from + n + what.len())
}

fn quoted(bytes: &[u8], mut at: usize, quote: u8) -> usize {
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// The hashes of a raw string that begins at `at`.
fn raw_hashes(bytes: &[u8], at: usize) -> Option<usize> {
    let hashes = bytes[at + 1..].iter().take_while(|b| **b == b'#').count();
    (bytes.get(at + 1 + hashes) == Some(&b'"')).then_some(hashes)
}

#[test]
fn comments_and_strings_are_blank() {
    let text = "let a = \"x // y\"; // unwrap\nlet r = br#\"un\"safe\"#; let c = '\"'; fn f<'a>() {} /* x\ny */ z";
    let got = blank(text);
    let words: Vec<&str> = got.split_whitespace().collect();
    assert_eq!(words, ["let", "a", "=", ";", "let", "r", "=", "b", ";", "let", "c", "=", ";", "fn", "f<", "a>()", "{}", "z"]);
    assert_eq!(got.lines().count(), text.lines().count());
    assert!(has_word("the S1 rule", "S1") && !has_word("S12", "S1"));
}

#[test]
fn tests_inside_a_file_are_known_as_such() {
    let text = "fn a() {}\n#[cfg(test)]\nuse x;\n#[cfg(test)]\nmod tests {\n    const T: &str = r#\"\n}\n\"#;\n}\nfn c() {}\n".to_owned();
    let file = File { path: "crates/x/src/y.rs".into(), text };
    let tests: Vec<bool> = file.lines().iter().map(|line| line.test).collect();
    assert_eq!(tests, [false, true, true, true, true, true, true, true, true, false]);
}
