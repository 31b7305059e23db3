//! The node that commands ask: its address, and how its refusals become ours.

use std::io;
use std::time::{Duration, Instant};

use super::failure::{Exit, Failure, tell};
use super::{Global, installed_name, read_config};
use crate::api::client::{Client, ClientError};
use crate::codes::Code;
use crate::config;

/// The API that `--api`, `HOTWARM_API` or the configuration file names.
pub(super) fn client(global: &Global) -> Result<Client, Failure> {
    if let Some(url) = &global.api {
        return Client::new(url).map(|client| client.telling(waiting)).map_err(Failure::from);
    }
    let text = read_config(&global.config).map_err(|failure| failure.hint("give --api URL, or --config FILE"))?;
    // The name chooses among the overrides of [node]; without one the file's own [node] counts.
    let node = std::env::var("HOTWARM_NODE").ok().map(hotwarm_core::ids::NodeId::new).or_else(|| installed_name(&global.config));
    let config = config::parse(&text, &global.config.to_string_lossy(), node.as_ref())?;
    Ok(Client::at(config.node.api).telling(waiting))
}

fn waiting(url: &str) {
    tell(&format!("waiting for the node at {url} ..."));
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let text = error.to_string();
        match error {
            ClientError::Url(_) => Self::plain(Exit::Usage, text),
            ClientError::Unreachable { .. } => Self::with_code(Exit::Unreachable, Some(Code::API_UNREACHABLE), text)
                .hint("is the node running (`systemctl status hotwarm`)? is --api right? groups go on without it"),
            ClientError::Malformed { .. } => Self::failed(Code::API_DEFECT, text),
            ClientError::Refused { status, error } => {
                let exit = if status == 409 { Exit::Refused } else { Exit::Failed };
                let failure = Self::with_code(exit, Code::named(&error.code), text);
                match error.hint {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                }
            }
        }
    }
}

/// Asks again and again until `done` says so, or `within` has passed; `None` then.
pub(super) fn wait<T>(within: Duration, mut done: impl FnMut() -> Result<Option<T>, Failure>) -> Result<Option<T>, Failure> {
    let begun = Instant::now();
    loop {
        match done() {
            Ok(None) => {}
            // A node that does not answer for a moment may have lost its leader; the time bounds it.
            Err(failure) if failure.exit == Exit::Unreachable && begun.elapsed() < within => {}
            other => return other,
        }
        if begun.elapsed() >= within {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A path's part, with what would end it escaped.
pub(super) fn part(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// `web/a` as the API's path `web/a`.
pub(super) fn member(text: &str) -> Result<String, Failure> {
    match text.split_once('/') {
        Some((group, name)) if !group.is_empty() && !name.is_empty() => Ok(format!("{}/{}", part(group), part(name))),
        _ => Err(Failure::plain(Exit::Usage, format!("`{text}` is not a member; write GROUP/MEMBER, such as web/a"))),
    }
}

/// Prints a value for programs.
pub(super) fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::other).map_err(anyhow::Error::from)?;
    super::failure::print(&(text + "\n"))
}
