//! Which losses a configuration survives: each node, each zone, for the decisions and for each group.
//!
//! A pure reading of the configuration, always for the worst case (what was lost was hot). It promises nothing about two losses at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use hotwarm_core::ids::{GroupName, NodeId};
use serde::Serialize;

use super::model::{Config, Fence, Group};

/// What `hotwarm check` says about losses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub losses: Vec<Loss>,
    /// What else the operator should know, by group.
    pub notes: Vec<String>,
}

/// What the loss of one node or zone does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Loss {
    pub lost: Lost,
    /// Every group goes on.
    pub survived: bool,
    pub voters_left: usize,
    pub voters: usize,
    /// A majority of voters is left: roles can still be decided.
    pub quorum: bool,
    pub groups: Vec<GroupLoss>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Lost {
    Node(NodeId),
    Zone(String),
}

/// What a loss does to one group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupLoss {
    pub group: GroupName,
    pub survived: bool,
    pub what: String,
}

/// The losses that `config` survives and those that it does not.
#[must_use]
pub fn losses(config: &Config) -> Report {
    let mut zones: BTreeMap<&str, BTreeSet<&NodeId>> = BTreeMap::new();
    for (node, zone) in &config.cluster.zones {
        zones.entry(zone).or_default().insert(node);
    }
    let nodes = config.cluster.nodes.keys().map(|node| (Lost::Node(node.clone()), BTreeSet::from([node])));
    // A zone of one node is that node.
    let zones = zones.into_iter().filter(|(_, nodes)| nodes.len() > 1).map(|(zone, nodes)| (Lost::Zone(zone.to_owned()), nodes));
    let losses = nodes.chain(zones).map(|(lost, nodes)| loss(config, lost, &nodes)).collect();
    let empty = config.groups.is_empty().then(|| "there is no group yet: nothing is kept".to_owned());
    Report { losses, notes: empty.into_iter().chain(config.groups.values().flat_map(notes)).collect() }
}

fn loss(config: &Config, lost: Lost, gone: &BTreeSet<&NodeId>) -> Loss {
    let voters: Vec<&NodeId> = config.cluster.nodes.keys().filter(|node| !config.cluster.edge.contains(*node)).collect();
    let left = voters.iter().filter(|node| !gone.contains(*node)).count();
    let quorum = left > voters.len() / 2;
    let groups: Vec<GroupLoss> = config.groups.values().map(|group| group_loss(group, gone, quorum)).collect();
    Loss { lost, survived: groups.iter().all(|group| group.survived), voters_left: left, voters: voters.len(), quorum, groups }
}

fn group_loss(group: &Group, gone: &BTreeSet<&NodeId>, quorum: bool) -> GroupLoss {
    let all = group.members.len();
    let lost = group.members.values().filter(|member| gone.contains(&member.node)).count();
    let left = all - lost;
    let hot_lost = lost.min(usize::from(group.mode.hot));
    let hot_left = usize::from(group.mode.hot) - hot_lost;
    let listeners_left = group.listen.keys().filter(|node| !gone.contains(node)).count();
    let says = |survived, what: String| GroupLoss { group: group.name.clone(), survived, what };
    if group.mode.hot == 0 {
        return says(true, "serves nobody now (hot = 0)".into());
    }
    if !group.listen.is_empty() && listeners_left == 0 {
        return says(false, "stops: no listener is left".into());
    }
    if left == 0 {
        return says(false, format!("stops: all {all} members are lost"));
    }
    if group.mode.exclusive && !quorum {
        return says(false, "stops when the lease ends: without a majority of voters it is not renewed".into());
    }
    match (lost, quorum) {
        (0, true) => says(true, "goes on".into()),
        (0, false) => says(true, "goes on as it is; nothing is promoted until a majority of voters is back".into()),
        (_, true) if hot_lost == 0 => says(true, format!("goes on; {left} of {all} members are left")),
        (_, true) if left >= usize::from(group.mode.hot) => {
            says(true, format!("goes on after a failover; {left} of {all} members are left, {} hot", group.mode.hot))
        }
        (_, true) => says(true, format!("goes on with {left} of {all} members")),
        (_, false) if hot_left > 0 => {
            says(true, format!("goes on with {hot_left} hot members; nothing is promoted without a majority of voters"))
        }
        (_, false) => says(false, "may stop: every hot member may be lost, and nothing is promoted without a majority of voters".into()),
    }
}

fn notes(group: &Group) -> Vec<String> {
    let name = &group.name;
    let mut notes = Vec::new();
    if group.mode.exclusive && group.fence == Fence::RouterOnly {
        notes.push(format!("{name}: clients that go around the routers may reach an old hot member (fence = \"router-only\")"));
    }
    if group.mode.spare > 0 {
        notes.push(format!("{name}: a failover to a spare lasts as long as its start (start_timeout at most)"));
    }
    let nodes: BTreeSet<&NodeId> = group.members.values().map(|member| &member.node).collect();
    if nodes.len() == 1 && group.members.len() > 1 {
        notes.push(format!("{name}: all {} members are on one node; only the loss of a member is covered", group.members.len()));
    }
    notes
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::Zone(zone) => write!(f, "zone {zone}"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "losses, one at a time, at worst:")?;
        for loss in &self.losses {
            let verdict = if loss.survived { "survived" } else { "NOT survived" };
            let votes = match (loss.quorum, loss.voters_left == loss.voters) {
                (true, true) => String::new(),
                (true, false) => format!(" ({} of {} voters left, still a majority)", loss.voters_left, loss.voters),
                (false, _) => format!(" ({} of {} voters left, no majority: no decisions)", loss.voters_left, loss.voters),
            };
            writeln!(f, "  {}: {verdict}{votes}", loss.lost)?;
            for group in &loss.groups {
                writeln!(f, "    {:<12} {}", group.group, group.what)?;
            }
        }
        for note in &self.notes {
            writeln!(f, "  note: {note}")?;
        }
        Ok(())
    }
}
