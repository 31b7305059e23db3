//! `hotwarm recover-quorum`: the way out when most voters are lost for good.
//!
//! It works on the stopped node's data directory, by a function that the program hands in. It says first what may be lost, and refuses
//! while any other node's port answers: of two clusters from one, both would serve.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Args;
use hotwarm_core::ids::NodeId;

use super::failure::{Failure, print, tell};
use super::remote::print_json;
use super::{Global, NodeArg, load, table};
use crate::clock::rfc3339;
use crate::codes::Code;

/// Make a new cluster of this node alone when most voters are lost for good; the node must be stopped
#[derive(Debug, Args)]
pub struct RecoverQuorumArgs {
    /// Nodes that are lost and will never come back; not needed where this node alone votes and its log is damaged
    #[arg(long, value_delimiter = ',', value_name = "NODE")]
    pub lost: Vec<String>,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
    /// Go on although a node's port answers: you vouch that what answers there is not a node of this cluster
    #[arg(long)]
    pub yes_they_are_dead: bool,
    #[command(flatten)]
    pub node: NodeArg,
}

/// What a data directory holds, before anything is changed.
#[derive(Clone, Debug)]
pub struct Found {
    pub cluster: String,
    pub revision: u64,
    /// The last entry that this node has.
    pub last: u64,
    /// The last one it knows to be agreed on.
    pub commit: u64,
    /// The term of the last one.
    pub term: u64,
    /// When the last dated entry was made, by the clock of the node that led then.
    pub dated: Option<SystemTime>,
    /// Nodes that vote.
    pub voters: Vec<NodeId>,
    pub peers: BTreeMap<NodeId, SocketAddr>,
    /// Records were cut that this node may have acknowledged (S12).
    pub cut: Option<String>,
}

/// What was made.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Of the new cluster.
    pub id: String,
    /// Where the old log is kept.
    pub quarantine: PathBuf,
}

/// Reads the data directory, lets the caller judge, and makes the new cluster if it does not refuse.
pub type RecoverQuorum = fn(&Path, &NodeId, &mut dyn FnMut(&Found) -> Result<(), Failure>) -> Result<Recovered, Failure>;

const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

pub(super) fn recover_quorum(args: &RecoverQuorumArgs, global: &Global, recover: RecoverQuorum) -> Result<(), Failure> {
    let (config, me) = load(global, &args.node)?;
    let recovered = recover(&config.node.data, &me, &mut |found| judge(args, &me, found))?;
    if global.json {
        return print_json(&serde_json::json!({ "cluster_id": recovered.id, "node": me, "quarantine": recovered.quarantine }));
    }
    print(&format!(
        "node {me} is a cluster of its own now (id {}); the old log is kept in {}\n\
         next:\n  on every other node, lost or not, before it starts again: wipe its data directory but for tls/; it joins as new. Old nodes \
         that start as they are\n    form the old cluster again, if they are a quorum of it, and serve beside this one. Of a node that you cannot reach, keep its \
         machine off\n    or cut off its network until then\n  \
         start it: sudo systemctl start hotwarm\n  \
         take nodes that never come back out of the configuration: hotwarm leave NODE\n",
        recovered.id,
        recovered.quarantine.display()
    ))
}

fn judge(args: &RecoverQuorumArgs, me: &NodeId, found: &Found) -> Result<(), Failure> {
    for lost in &args.lost {
        let lost = NodeId::new(lost);
        if lost == *me || !found.peers.contains_key(&lost) {
            return Err(Failure::failed(Code::NOT_THERE, format!("{lost} is not another node of the cluster {}", found.cluster)));
        }
    }
    let left = found.voters.iter().filter(|voter| !args.lost.contains(&voter.to_string())).count();
    // A log that lost its end needs the others, and they are asked first; where there are none, this is the way out.
    let damaged_alone = found.cut.is_some() && found.voters.len() == 1;
    if left > found.voters.len() / 2 && !damaged_alone {
        let text = format!("{left} of {} voters are left: that is a quorum, and nothing need be given up", found.voters.len());
        return Err(Failure::refused(Code::STILL_ALIVE, text).hint("start these nodes; `hotwarm status` tells what they lack"));
    }
    tell(&losses(found));
    let answering: Vec<String> = found.peers.iter().filter(|(_, at)| answers(at)).map(|(name, at)| format!("{name} ({at})")).collect();
    if !answering.is_empty() && !args.yes_they_are_dead {
        let text =
            format!("{} still answer{}: two clusters would serve", answering.join(", "), if answering.len() == 1 { "s" } else { "" });
        return Err(Failure::refused(Code::STILL_ALIVE, text)
            .hint("stop and disable hotwarm there; --yes-they-are-dead if what answers is something else"));
    }
    table::ask(&format!("node {me} becomes a new cluster; the nodes of the old one are never believed again"), args.yes)
}

fn losses(found: &Found) -> String {
    let mut lines = vec![
        format!(
            "cluster {}, configuration {}: this node's log ends at entry {} of term {}, of which {} are known to be agreed on",
            found.cluster, found.revision, found.last, found.term, found.commit,
        ),
        format!("{}; of several survivors, recover from the one whose log ends last (higher term, then higher entry)", dated(found.dated)),
    ];
    if found.last > found.commit {
        lines.push(format!("entries {} to {} may not have been agreed on; they are taken over", found.commit + 1, found.last));
    }
    lines.push("what the others agreed on after that is lost: configuration, drains, pauses, who was hot".to_owned());
    if let Some(cut) = &found.cut {
        lines.push(format!("this node's log was {cut}: it may lack entries that it has acknowledged; another survivor may know more"));
    }
    lines.join("\n")
}

/// By what is in the log, which no look changes.
fn dated(at: Option<SystemTime>) -> String {
    let Some(at) = at else { return "it holds no dated entry".to_owned() };
    let ago = SystemTime::now().duration_since(at).ok().map(|ago| format!(", {} ago", table::span(ago)));
    format!("its last dated entry is of {}{}", rfc3339(at), ago.unwrap_or_default())
}

fn answers(address: &SocketAddr) -> bool {
    TcpStream::connect_timeout(address, ANSWERS_WITHIN).is_ok()
}
