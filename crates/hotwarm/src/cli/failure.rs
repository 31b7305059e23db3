//! How a command ends: exit codes in one place, and what is printed.
//!
//! Standard output carries data, standard error the rest. A reader that went away (a closed pipe) is no failure.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use crate::codes::Code;
use crate::config::Errors;

/// The exit codes; the manual and `--help` list the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    /// The message says what to do.
    Failed = 1,
    Usage = 2,
    /// A rule forbids it; the reason and the override are printed.
    Refused = 3,
    Unreachable = 4,
    ObjectiveMissed = 5,
    /// A signal ended it, and it cleared up: 128 and the signal's number, as shells count.
    HungUp = 129,
    Interrupted = 130,
    Terminated = 143,
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub struct Failure {
    pub exit: Exit,
    pub code: Option<Code>,
    pub message: String,
    pub hint: Option<String>,
    /// A configuration that is wrong: told in full instead of the message.
    config: Option<Box<Errors>>,
    /// A person knows already.
    told: bool,
}

impl Failure {
    /// Only an exit code: what there is to say was said.
    #[must_use]
    pub fn told(exit: Exit) -> Self {
        Self { told: true, ..Self::plain(exit, "") }
    }

    #[must_use]
    pub fn plain(exit: Exit, message: impl Into<String>) -> Self {
        Self::with_code(exit, None, message)
    }

    #[must_use]
    pub fn with_code(exit: Exit, code: Option<Code>, message: impl Into<String>) -> Self {
        Self { exit, code, message: message.into(), hint: None, config: None, told: false }
    }

    /// Exit code 1.
    #[must_use]
    pub fn failed(code: Code, message: impl Into<String>) -> Self {
        Self { code: Some(code), ..Self::plain(Exit::Failed, message) }
    }

    /// Exit code 3.
    #[must_use]
    pub fn refused(code: Code, message: impl Into<String>) -> Self {
        Self { code: Some(code), ..Self::plain(Exit::Refused, message) }
    }

    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Prints it on standard error, as text or in the API's shape.
    pub fn report(&self, json: bool) -> ExitCode {
        if self.told {
            return ExitCode::from(self.exit as u8);
        }
        if !json {
            tell(&self.to_string());
        } else if let Some(errors) = &self.config {
            tell(&serde_json::json!(errors).to_string());
        } else {
            let page = self.code.map(Code::page);
            tell(&serde_json::json!({ "code": self.code, "error": self.message, "hint": self.hint, "page": page }).to_string());
        }
        ExitCode::from(self.exit as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(errors) = &self.config {
            return fmt::Display::fmt(errors, f);
        }
        match self.code {
            Some(code) => write!(f, "error[{code}]: {}", self.message)?,
            None => write!(f, "error: {}", self.message)?,
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  = help: {hint}")?;
        }
        match self.code {
            Some(code) => write!(f, "\n  = page: {}", code.page()),
            None => Ok(()),
        }
    }
}

impl From<Errors> for Failure {
    fn from(errors: Errors) -> Self {
        Self { config: Some(Box::new(errors)), ..Self::plain(Exit::Failed, "the configuration is wrong") }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::plain(Exit::Failed, format!("{error:#}"))
    }
}

/// Prints data on standard output.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::plain(Exit::Failed, format!("standard output cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints a message on standard error, with its severity in colour where a person looks on and did not refuse.
pub(super) fn tell(text: &str) {
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let mut lines = String::new();
    for line in text.lines() {
        lines.push_str(&if colour { coloured(line) } else { line.to_owned() });
        lines.push('\n');
    }
    // Where standard error cannot be written there is nobody to tell.
    let _ = io::stderr().lock().write_all(lines.as_bytes());
}

fn coloured(line: &str) -> String {
    for (word, colour) in [("error", "\u{1b}[1;31m"), ("warning", "\u{1b}[1;33m")] {
        if let Some(rest) = line.strip_prefix(word)
            && rest.starts_with([':', '['])
        {
            return format!("{colour}{word}\u{1b}[0m{rest}");
        }
    }
    line.to_owned()
}
