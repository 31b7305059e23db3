//! Rules about the operator's API: beyond loopback it asks for a token and shows a certificate, or it is not there.
//!
//! Main path: [`judge`] by the text alone; [`judge_here`] looks at this machine's token and certificates. It never shows a token.

use std::io;
use std::path::Path;

use hotwarm_core::ids::NodeId;

use super::super::diagnostic::{Finding, Findings, Span};
use super::super::draft::{At, Draft};
use super::super::is_exposed;
use super::super::token::{Token, Unfit};
use crate::codes::Code;

const LOOPBACK: &str = "or a loopback address such as \"127.0.0.1:7401\", reached through ssh -L";

pub(super) fn judge(draft: &Draft<'_>, findings: &mut Findings) {
    // One key for all nodes is told of once.
    let mut told: Vec<&Span> = Vec::new();
    for (node, at) in &draft.apis {
        if is_exposed(at.value) && !draft.tokens.contains_key(node) && !told.contains(&&at.span) {
            told.push(&at.span);
            findings
                .error(Code::API_EXPOSED, &at.span, format!("the API at {} would be open to whoever reaches it", at.value))
                .expected(format!("`api_token` beside it, {LOOPBACK}"))
                .hint(
                    "beyond loopback it asks for a token, over TLS: `sudo sh -c 'umask 077; openssl rand -hex 32 > \
                     /etc/hotwarm/api.token'` on each node, and api_token = \"/etc/hotwarm/api.token\"",
                );
        }
    }
    let mut told: Vec<&Span> = Vec::new();
    for (node, at) in &draft.tokens {
        if at.value.starts_with(draft.data_of(node)) && !told.contains(&&at.span) {
            told.push(&at.span);
            findings
                .error(
                    Code::API_TOKEN,
                    &at.span,
                    format!("the token of node {node} would be in its data directory, which holds nothing else"),
                )
                .expected("a file elsewhere, such as \"/etc/hotwarm/api.token\"")
                .hint("a data directory is moved away when a node is to join anew, and the token with it");
        }
    }
}

/// What this machine's files say against the API of `here`. Before the node `starts` it is a warning: it runs without its API until there is
/// what secures it, and nothing is left out; else what may not be looked at is.
pub(super) fn judge_here(draft: &Draft<'_>, here: &NodeId, starts: bool, findings: &mut Findings) {
    if let Some(at) = draft.tokens.get(here) {
        token(at, starts, findings);
    }
    let Some(at) = draft.apis.get(here).filter(|at| is_exposed(at.value)) else { return };
    let certificate = draft.data_of(here).join("tls/node.pem");
    if is_missing(&certificate) {
        let message = format!("the API at {} speaks TLS, and node {here} has no certificate {}", at.value, certificate.display());
        told(findings, starts, Code::API_EXPOSED, &at.span, message)
            .expected(format!("a node with a certificate, {LOOPBACK}"))
            .hint("`hotwarm join` with this node's join file installs it");
    }
}

fn told<'a>(findings: &'a mut Findings, starts: bool, code: Code, span: &Span, message: String) -> &'a mut Finding {
    match starts {
        true => findings.warn(code, span, format!("{message}: the node runs without its API until there is one")),
        false => findings.error(code, span, message),
    }
}

fn token(at: &At<impl AsRef<Path>>, starts: bool, findings: &mut Findings) {
    match Token::read(at.value.as_ref()) {
        Ok(_) => {}
        Err(Unfit::Unreadable { .. }) if !starts => {}
        Err(unfit) => {
            let finding = told(findings, starts, Code::API_TOKEN, &at.span, format!("the API's token cannot be used: {unfit}"));
            finding.expected(Unfit::EXPECTED).hint(unfit.hint());
        }
    }
}

fn is_missing(path: &Path) -> bool {
    path.metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}
