//! The one configuration file: TOML in, a validated [`Config`] out, or every error at once with line and column.
//!
//! Main path: [`parse`] -> `read` (values by the schema) -> `draft` (names resolved) -> `rules` (what cannot be kept) -> [`Config`]. It opens
//! no socket and reads no file; [`examine_here`] and [`examine_to_run`] alone look at this machine's. What is wrong it says, and it never guesses.

pub mod data;
mod diagnostic;
pub mod disk;
mod draft;
mod edit;
mod losses;
mod mark;
pub mod model;
pub mod pki;
mod read;
pub mod reference;
mod rules;
mod schema;
pub mod token;
mod units;

#[cfg(test)]
mod tests;

use hotwarm_core::ids::NodeId;

pub use diagnostic::{Diagnostic, Errors, Place, Severity};
pub use edit::{without_node, without_work_of};
pub use losses::{GroupLoss, Loss, Lost, Report, losses};
pub use mark::Mark;
pub use model::*;
pub use rules::smallest_rto;

use crate::codes::Code;

/// A duration as the file writes it: `10s`, `250ms`.
///
/// # Errors
/// What is wrong with it.
pub fn duration(text: &str) -> Result<std::time::Duration, String> {
    units::duration_ms(text).map(std::time::Duration::from_millis)
}

/// True if `text` can name a cluster, node, group or member: 1 to 32 of a-z, 0-9, -, no hyphen at the ends.
#[must_use]
pub fn is_name(text: &str) -> bool {
    units::is_name(text)
}

/// True for an API that other machines reach: it asks for a token, over TLS.
#[must_use]
pub fn is_exposed(api: std::net::SocketAddr) -> bool {
    !api.ip().to_canonical().is_loopback()
}

/// Bytes of the longest file that is read: it must fit a record of the control log with room to spare (S13).
const TEXT_BYTES_MAX: usize = 1 << 20;

/// The text of a configuration file.
///
/// # Errors
/// It is not UTF-8: where it first is not.
pub fn text_of(bytes: Vec<u8>, file_name: &str) -> Result<String, Errors> {
    String::from_utf8(bytes).map_err(|error| {
        let (at, wrong) = (error.utf8_error().valid_up_to(), error.as_bytes());
        let mut findings = diagnostic::Findings::default();
        findings
            .error(Code::SYNTAX, &(at..at + 1), format!("not TOML: the byte 0x{:02x} is not text in UTF-8", wrong[at]))
            .expected("text in UTF-8")
            .hint("save the file as UTF-8, or remove what is not text; everything else is checked once it can be read");
        findings.finish(file_name, &String::from_utf8_lossy(wrong))
    })
}

/// What a file came to.
#[derive(Debug)]
pub struct Parsed {
    /// There if nothing is wrong.
    pub config: Option<Config>,
    /// Errors and warnings; the errors are empty if `config` is there.
    pub found: Errors,
}

/// The configuration that `text` says, for `node` or, without one, for the node that `[node] name` says or none.
///
/// # Errors
/// All of them, each with its place in `file_name`.
pub fn parse(text: &str, file_name: &str, node: Option<&NodeId>) -> Result<Config, Errors> {
    let Parsed { config, found } = examine(text, file_name, node);
    config.ok_or(found)
}

/// Like [`parse`], with the warnings also where nothing is wrong.
#[must_use]
pub fn examine(text: &str, file_name: &str, node: Option<&NodeId>) -> Parsed {
    judged(text, file_name, node, |_, _| {})
}

/// Like [`examine`], and looks whether the data directory can be one on this machine, which is the node `here`; all of them, where nobody
/// knows which node it is. Where that is known, token and certificates of its API are looked at too.
#[must_use]
pub fn examine_here(text: &str, file_name: &str, node: Option<&NodeId>, here: Option<&NodeId>) -> Parsed {
    judged(text, file_name, node, |draft, findings| rules::judge_here(draft, node, here, findings))
}

/// What an objective asks of this machine's disk, of which `sync` was measured: nothing if it can be kept.
#[must_use]
pub fn examine_disk(text: &str, file_name: &str, node: Option<&NodeId>, sync: std::time::Duration) -> Parsed {
    judged(text, file_name, node, |draft, findings| rules::judge_disk(draft, sync, findings))
}

/// What is to be said of the objectives of `config`: what they come to by lease and heartbeat, and by the `sync` of this machine's disk, or why
/// that was not measured.
#[must_use]
pub fn objectives(config: &Config, sync: &Result<std::time::Duration, String>) -> Vec<String> {
    rules::objectives(config, sync)
}

/// Like [`examine`], for the machine that is `node`, or the one that the file names, and is about to run it: what it lacks for its API
/// is warned of.
#[must_use]
pub fn examine_to_run(text: &str, file_name: &str, node: Option<&NodeId>) -> Parsed {
    judged(text, file_name, node, |draft, findings| rules::judge_start(draft, node, findings))
}

fn judged(text: &str, file_name: &str, node: Option<&NodeId>, more: impl FnOnce(&draft::Draft<'_>, &mut diagnostic::Findings)) -> Parsed {
    let mut findings = diagnostic::Findings::default();
    let config = config(text, node, more, &mut findings);
    let config = config.filter(|_| !findings.has_errors());
    if config.is_none() && !findings.has_errors() {
        // A hole without a report is a defect of ours; the user still learns that the file was not taken.
        findings.error_nowhere(Code::BAD_VALUE, "the file cannot be used, for a reason that hotwarm failed to name");
    }
    Parsed { config, found: findings.finish(file_name, text) }
}

fn config(
    text: &str,
    node: Option<&NodeId>,
    more: impl FnOnce(&draft::Draft<'_>, &mut diagnostic::Findings),
    findings: &mut diagnostic::Findings,
) -> Option<Config> {
    if text.len() > TEXT_BYTES_MAX {
        findings.error_nowhere(Code::SYNTAX, format!("the file has {} bytes", text.len())).expected(format!("{TEXT_BYTES_MAX} at most"));
        return None;
    }
    let table = read::read(text, findings)?;
    let draft = draft::draft(&table, findings)?;
    rules::judge(&draft, node, findings);
    more(&draft, findings);
    if findings.has_errors() {
        return None;
    }
    draft.finish(node, text)
}
