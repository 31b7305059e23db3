//! The node that commands ask: its address, the token it asks for, by what it is known, and how its refusals become ours.

use std::io;
use std::time::{Duration, Instant};

use super::failure::{Exit, Failure, tell};
use super::{Global, files, installed_name, read_config};
use crate::api::client::{Authority, Client, ClientError};
use crate::codes::Code;
use crate::config::token::{Token, Unfit};
use crate::config::{self, Config};

/// The API that `--api`, `HOTWARM_API` or the configuration file names.
pub(super) fn client(global: &Global) -> Result<Client, Failure> {
    let (client, config) = match &global.api {
        // Where it is named, the file only says what is not, if there is one.
        Some(url) => (Client::new(url)?, own_config(global).ok()),
        None => {
            let config = own_config(global).map_err(|failure| failure.hint("give --api URL, or --config FILE"))?;
            (Client::at(config.node.api), Some(config))
        }
    };
    let authority = || installed_authority(config.as_ref());
    Ok(admitted(client, global, config.as_ref(), authority)?.telling(waiting))
}

fn own_config(global: &Global) -> Result<Config, Failure> {
    let text = read_config(&global.config)?;
    // The name chooses among the overrides of [node]; without one the file's own [node] counts.
    let node = std::env::var("HOTWARM_NODE").ok().map(hotwarm_core::ids::NodeId::new).or_else(|| installed_name(&global.config));
    Ok(config::parse(&text, &global.config.to_string_lossy(), node.as_ref())?)
}

/// The client with the token that the arguments name, or else `config`, and over TLS with the authority that they name, or else `authority`
/// tells (PEM).
pub(super) fn admitted(
    client: Client,
    global: &Global,
    config: Option<&Config>,
    authority: impl FnOnce() -> Result<Option<String>, Failure>,
) -> Result<Client, Failure> {
    let path = global.api_token.as_ref().or_else(|| config?.node.api_token.as_ref());
    let unfit = |unfit: Unfit| Failure::failed(Code::API_TOKEN, format!("the API's token cannot be used: {unfit}")).hint(unfit.hint());
    let client = client.with_token(path.map(|path| Token::read(path)).transpose().map_err(unfit)?);
    if !client.is_tls() {
        return Ok(client);
    }
    let pem = match &global.api_ca {
        Some(path) => Some(files::read(path)?),
        None => authority()?,
    };
    // Without one nothing is asked, and the error says so.
    let Some(pem) = pem else { return Ok(client) };
    let wrong = |error| Failure::failed(Code::CERTIFICATE, format!("the authority to know nodes by: {error}"));
    Ok(client.trusting(Authority::new(&pem).map_err(wrong)?))
}

/// The authority that `join` installed on this machine; `None` where it is no node.
fn installed_authority(config: Option<&Config>) -> Result<Option<String>, Failure> {
    let Some(config) = config else { return Ok(None) };
    let path = config.node.data.join("tls/ca.pem");
    files::read_if_there(&path).map_err(|failure| failure.hint("try again with sudo, or give --api-ca FILE, a copy that you may read"))
}

fn waiting(url: &str) {
    tell(&format!("no answer yet from {url}, which may look for a leader ..."));
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let text = error.to_string();
        match error {
            ClientError::Url(_) => Self::plain(Exit::Usage, text),
            ClientError::NoAuthority { .. } | ClientError::NotTrusted { .. } | ClientError::PlainToken { .. } => {
                Self::failed(Code::API_NOT_TRUSTED, text)
            }
            ClientError::Unreachable { url, .. } => {
                let plain = if is_plain_elsewhere(&url) { " (beyond loopback it speaks TLS: https://)" } else { "" };
                Self::with_code(Exit::Unreachable, Some(Code::API_UNREACHABLE), text)
                    .hint(format!("is the node running (`systemctl status hotwarm`)? is --api right{plain}? was `api` in its file changed since it started? groups go on \
                           without it"))
            }
            ClientError::NoTls { .. } => Self::failed(Code::API_DEFECT, text).hint(
                "the node takes up another `api` of its file when it is restarted; if it was started with a loopback address, ask it there \
                 until then: --api http://127.0.0.1:7401",
            ),
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

fn is_plain_elsewhere(url: &str) -> bool {
    url.strip_prefix("http://").is_some_and(|host| host.parse().is_ok_and(config::is_exposed))
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
