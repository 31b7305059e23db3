//! What is wrong with a file, where, and what was expected: errors and warnings with line and column, rendered as compilers do.
//!
//! The main path: the passes over the file call [`Findings::error`] and [`Findings::warn`]; [`Findings::finish`] turns byte spans into
//! lines and columns, in the order of the file. It never stops at the first.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::Serialize;

use crate::codes::Code;

/// Bytes of the text.
pub(super) type Span = Range<usize>;

/// One error or warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    pub code: Code,
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// Where; `None` when it is about what is not there.
    pub place: Option<Place>,
    /// What was expected at that place; may be empty.
    pub expected: String,
    /// What to do about it.
    pub hint: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
}

/// A stretch of one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// In characters; at least 1.
    pub length: usize,
    /// The whole line.
    pub text: String,
}

/// Everything that is wrong with a configuration. Its text is all of it, ready for a terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Errors {
    pub file: String,
    pub errors: Vec<Diagnostic>,
    pub warnings: Vec<Diagnostic>,
}

impl std::error::Error for Errors {}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in self.errors.iter().chain(&self.warnings) {
            writeln!(f, "{diagnostic}")?;
        }
        let errors = self.errors.len();
        write!(f, "{}: {errors} error{}", self.file, if errors == 1 { "" } else { "s" })?;
        match self.warnings.len() {
            0 => Ok(()),
            1 => write!(f, ", 1 warning"),
            n => write!(f, ", {n} warnings"),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, "{severity}[{}]: {}", self.code, printable(&self.message))?;
        let mut margin = String::from(" ");
        if let Some(place) = &self.place {
            margin = " ".repeat(place.line.to_string().len());
            let indent: String = place.text.chars().take(place.column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            writeln!(f, "{margin}--> {}:{}:{}", place.file, place.line, place.column)?;
            writeln!(f, "{margin} |")?;
            writeln!(f, "{} | {}", place.line, printable(&place.text))?;
            let carets = "^".repeat(place.length);
            writeln!(f, "{}", format!("{margin} | {indent}{carets} {}", printable(&self.expected)).trim_end())?;
        } else if !self.expected.is_empty() {
            writeln!(f, "{margin} = expected: {}", self.expected)?;
        }
        if let Some(hint) = &self.hint {
            writeln!(f, "{margin} = help: {}", printable(hint))?;
        }
        writeln!(f, "{margin} = page: {}", self.code.page())
    }
}

/// Without what a terminal obeys: a file may hold anything.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' && c != '\n' { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// One finding before its place is known as line and column.
#[derive(Debug)]
pub(super) struct Finding {
    code: Code,
    span: Option<Span>,
    message: String,
    expected: String,
    hint: Option<String>,
}

impl Finding {
    pub(super) fn expected(&mut self, expected: impl Into<String>) -> &mut Self {
        self.expected = expected.into();
        self
    }

    pub(super) fn hint(&mut self, hint: impl Into<String>) -> &mut Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Collects what the passes find.
#[derive(Debug, Default)]
pub(super) struct Findings {
    errors: Vec<Finding>,
    warnings: Vec<Finding>,
    /// What may be a secret that was written into the file: it is not shown with its line.
    hidden: Vec<Span>,
}

impl Findings {
    pub(super) fn error(&mut self, code: Code, span: &Span, message: impl Into<String>) -> &mut Finding {
        push(&mut self.errors, code, Some(span.clone()), message.into())
    }

    pub(super) fn warn(&mut self, code: Code, span: &Span, message: impl Into<String>) -> &mut Finding {
        push(&mut self.warnings, code, Some(span.clone()), message.into())
    }

    /// An error about what is nowhere in the file.
    pub(super) fn error_nowhere(&mut self, code: Code, message: impl Into<String>) -> &mut Finding {
        push(&mut self.errors, code, None, message.into())
    }

    /// Keeps a stretch of the file out of every line that is shown.
    pub(super) fn hide(&mut self, span: &Span) {
        self.hidden.push(span.clone());
    }

    pub(super) fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Errors and warnings, each in the order of the file.
    pub(super) fn finish(self, file: &str, text: &str) -> Errors {
        let masked = if self.hidden.is_empty() { Cow::Borrowed(text) } else { Cow::Owned(mask(text, &self.hidden)) };
        let text = masked.as_ref();
        let place = |mut findings: Vec<Finding>, severity| {
            findings.sort_by_key(|finding| finding.span.as_ref().map_or(usize::MAX, |span| span.start));
            findings.into_iter().map(|finding| locate(finding, severity, file, text)).collect()
        };
        Errors { file: file.to_owned(), errors: place(self.errors, Severity::Error), warnings: place(self.warnings, Severity::Warning) }
    }
}

/// The text with asterisks in place of what is hidden, of the same length, so that spans stay true.
fn mask(text: &str, hidden: &[Span]) -> String {
    let is_hidden = |at: usize| hidden.iter().any(|span| span.contains(&at));
    let shown =
        |(at, c): (usize, char)| if is_hidden(at) && !['"', '\'', '\n'].contains(&c) { "*".repeat(c.len_utf8()) } else { c.to_string() };
    text.char_indices().map(shown).collect()
}

fn push(list: &mut Vec<Finding>, code: Code, span: Option<Span>, message: String) -> &mut Finding {
    list.push(Finding { code, span, message, expected: String::new(), hint: None });
    list.last_mut().expect("one was just pushed")
}

fn locate(finding: Finding, severity: Severity, file: &str, text: &str) -> Diagnostic {
    let Finding { code, span, message, expected, hint } = finding;
    let place = span.map(|span| place(&span, file, text));
    Diagnostic { code, severity, message, place, expected, hint }
}

/// A span past the end, or over several lines, is cut to one line.
fn place(span: &Span, file: &str, text: &str) -> Place {
    let start = floor_char(text, span.start);
    let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
    let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
    let end = floor_char(text, span.end).clamp(start, line_end);
    Place {
        file: file.to_owned(),
        line: text[..line_start].matches('\n').count() + 1,
        column: text[line_start..start].chars().count() + 1,
        length: text[start..end].chars().count().max(1),
        text: text[line_start..line_end].trim_end().chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect(),
    }
}

fn floor_char(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}
