//! What people see: aligned columns, colour where it helps and a terminal shows it, questions, spans of time.
//!
//! Colour never carries what the words do not say. Main path: [`Table`] -> text.

use std::fmt::Write as _;
use std::io::{self, BufRead, IsTerminal, Write as _};
use std::time::Duration;

use super::failure::{Exit, Failure, tell};
use crate::codes::Code;

/// How a cell looks on a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    Good,
    Doubtful,
    Bad,
    Strong,
    Dim,
}

impl Tone {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Good => "\u{1b}[32m",
            Self::Doubtful => "\u{1b}[33m",
            Self::Bad => "\u{1b}[31m",
            Self::Strong => "\u{1b}[1m",
            Self::Dim => "\u{1b}[2m",
        }
    }
}

/// True where standard output is a terminal and nobody asked for no colour.
pub(super) fn colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// `text`, coloured where that is wanted.
pub(super) fn paint(text: &str, tone: Tone, colour: bool) -> String {
    if colour && tone != Tone::Plain { format!("{}{text}\u{1b}[0m", tone.code()) } else { text.to_owned() }
}

/// Rows under a head, each column as wide as its widest cell.
#[derive(Debug)]
pub(super) struct Table {
    head: &'static [&'static str],
    rows: Vec<Vec<(String, Tone)>>,
}

impl Table {
    pub(super) const fn new(head: &'static [&'static str]) -> Self {
        Self { head, rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = (String, Tone)>) {
        // What a name or message holds must not move the cursor.
        let clean = |text: String| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.rows.push(cells.into_iter().map(|(text, tone)| (clean(text), tone)).collect());
    }

    pub(super) fn text(&self, colour: bool) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|(text, _)| text.chars().count());
            cells.chain([self.head[column].len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let head: Vec<(String, Tone)> = self.head.iter().map(|name| ((*name).to_owned(), Tone::Dim)).collect();
        let mut out = String::new();
        for row in std::iter::once(&head).chain(&self.rows) {
            let mut line = String::new();
            let mut gap = 0;
            for ((text, tone), width) in row.iter().zip(&widths) {
                let _ = write!(line, "{:gap$}{}", "", paint(text, *tone, colour && !text.is_empty()));
                gap = width - text.chars().count() + 2;
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// A cell without colour.
pub(super) fn plain(text: impl ToString) -> (String, Tone) {
    (text.to_string(), Tone::Plain)
}

/// `-` for nothing.
pub(super) fn or_dash(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or("-").to_owned()
}

/// A line of somebody else's, for standard output: on a terminal, what would move the cursor or change its colours is shown as `\x1b`.
pub(super) fn foreign(line: &str, terminal: bool) -> String {
    let mut out = String::with_capacity(line.len());
    for c in line.chars() {
        match c {
            '\t' => out.push(c),
            c if terminal && c.is_control() => {
                let _ = write!(out, "\\x{:02x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// Says what will happen and asks; `yes` answers before.
pub(super) fn ask(what: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let refused = |text: &str| Failure::refused(Code::NOT_CONFIRMED_BY_YOU, text.to_owned()).hint("--yes does it without asking");
    tell(what);
    if !io::stdin().is_terminal() {
        return Err(refused("nobody is there to be asked: nothing was done"));
    }
    // The question goes where messages go.
    let _ = write!(io::stderr(), "Go on? [y/N] ").and_then(|()| io::stderr().flush());
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    match (read, answer.trim()) {
        (Ok(_), "y" | "Y" | "yes") => Ok(()),
        (Err(error), _) => Err(Failure::plain(Exit::Failed, format!("the answer cannot be read: {error}"))),
        _ => Err(refused("nothing was done")),
    }
}

/// A span as people say it.
pub(super) fn span(duration: Duration) -> String {
    match duration.as_millis() {
        ms @ 0..1_000 => format!("{ms} ms"),
        ms @ 1_000..60_000 => format!("{:.1} s", ms as f64 / 1_000.0),
        ms => format!("{} min {} s", ms / 60_000, ms / 1_000 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_nothing_moves_the_cursor() {
        let mut table = Table::new(&["NAME", "X"]);
        table.row([plain("a\u{1b}[2J"), plain(1)]);
        table.row([("längere".to_owned(), Tone::Bad), plain("")]);
        assert_eq!(table.text(false), "NAME     X\na [2J    1\nlängere\n");
        assert_eq!(table.text(true).lines().nth(2).unwrap(), "\u{1b}[31mlängere\u{1b}[0m");
    }

    #[test]
    fn a_members_line_does_nothing_to_a_terminal_and_reaches_a_program_as_it_is() {
        let line = "a\tä \u{1b}]0;title\u{7}\u{9b}2J\r";
        assert_eq!(foreign(line, true), "a\tä \\x1b]0;title\\x07\\x9b2J\\x0d");
        assert_eq!(foreign(line, false), line);
    }
}
