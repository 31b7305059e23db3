//! What is wrong with the cluster and with the node that answers, beyond its groups: for `/health`, `status` and metrics alike.
//!
//! It only looks; it decides nothing. Main path: [`all`].

use std::time::SystemTime;

use hotwarm_core::detect::Grade;
use hotwarm_core::ids::NodeId;
use hotwarm_core::node::View;

use super::gate::Gate;
use super::picture;
use super::types::Problem;
use crate::agent::{Handle, expiry};
use crate::codes::Code;

/// The code of a node that the others have removed.
pub(super) const REMOVED: &str = "node-removed";

/// What a person should know and no group tells, the worst first.
pub(super) fn all(agent: &Handle, gate: &Gate) -> Vec<Problem> {
    let view = agent.view();
    let node = agent.me();
    let mut all: Vec<Problem> = removed(agent, &view).into_iter().chain(quorum(&view)).collect();
    if !view.strangers.is_empty() {
        let title =
            format!("{} of another cluster, or of this one before `recover-quorum`: both may serve the same groups", are(&view.strangers));
        all.push(coded(Code::WRONG_CLUSTER, "bare", title, "stop hotwarm there, or here, and let it join anew"));
    }
    if view.grade != Grade::Well {
        let (grade, ailing) = (picture::grade(view.grade), view.ailment.map(picture::ailment).unwrap_or_default());
        all.push(problem(format!("node-{grade}"), "notice", format!("node {node} is {grade}: {ailing}"), "look at its load and its disk"));
    }
    if let Some(room) = agent.room().filter(|room| room.low) {
        let title = format!("node {node} has {} MiB left on the disk of the data directory", room.free_bytes >> 20);
        all.push(coded(Code::DISK_LOW, "bare", title, "make room before it is full"));
    }
    all.extend(certificates(agent));
    if let Some(unfit) = gate.unfit() {
        let title = format!("the token's file of the API of node {node} cannot be used, the former token counts: {unfit}");
        all.push(coded(Code::API_TOKEN, "notice", title, "put a good one there: started with this one, the node runs without its API"));
    }
    let rank = |problem: &Problem| ["down", "bare", "notice"].iter().position(|severity| *severity == problem.severity);
    all.sort_by_key(rank);
    all
}

/// As the list of warnings in `/health` says it.
pub(super) fn warning(problem: &Problem) -> String {
    if problem.code.starts_with("HW") { format!("{} ({})", problem.title, problem.code) } else { problem.title.clone() }
}

fn problem(code: impl Into<String>, severity: &str, title: String, advice: &str) -> Problem {
    Problem { code: code.into(), severity: severity.to_owned(), title, advice: advice.to_owned() }
}

fn coded(code: Code, severity: &str, title: String, advice: &str) -> Problem {
    problem(code.to_string(), severity, title, &format!("{advice}: {}", code.page()))
}

fn are(nodes: &[NodeId]) -> String {
    let names = nodes.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ");
    if nodes.len() == 1 { format!("node {names} is") } else { format!("nodes {names} are") }
}

/// Its own log cannot tell: it ends before that.
fn removed(agent: &Handle, view: &View) -> Option<Problem> {
    let by = agent.removed_by();
    if by.is_empty() || !view.lease_left.is_zero() {
        return None;
    }
    let by = by.iter().map(NodeId::as_str).collect::<Vec<_>>().join(", ");
    let title = format!("node {} was removed from the cluster, as {by} say: it takes part in nothing", view.me);
    Some(problem(REMOVED, "down", title, "stop and disable hotwarm here; or add it by `hotwarm apply` elsewhere, and let it join anew"))
}

fn quorum(view: &View) -> Option<Problem> {
    let quorum = picture::quorum(view);
    if view.leader.is_none() {
        let title = format!("no leader: {} of {} voters reached, {} needed", quorum.reached, quorum.voters.len(), quorum.needed);
        return Some(problem("no-leader", "down", title, "nothing is promoted; what serves safely goes on; bring nodes back"));
    }
    let missing: Vec<&str> =
        view.voters.iter().filter(|name| **name != view.me && !view.heard.contains(name)).map(|name| name.as_str()).collect();
    if missing.is_empty() {
        return None;
    }
    let (severity, then) = match quorum.reached <= quorum.needed {
        true => ("bare", "the loss of one more voter is the loss of the quorum"),
        false => ("notice", "the quorum holds without"),
    };
    let title = format!("voters not heard by node {}: {}; {then}", view.me, missing.join(", "));
    Some(problem("voter-missing", severity, title, "bring them back, or `hotwarm leave` for those that are lost for good"))
}

/// All of a cluster's certificates are mostly made in one minute, and end in one.
fn certificates(agent: &Handle) -> Option<Problem> {
    let ending = expiry::ending(agent.certificates(), SystemTime::now());
    let (_, worst) = ending.first()?;
    let severity = if worst.is_pressing() { "bare" } else { "notice" };
    let title = expiry::told(&ending);
    Some(coded(Code::CERTIFICATE_ENDS, severity, title, "`hotwarm certs renew` makes new ones, `hotwarm join` installs each on its node"))
}
