//! Commands of people and programs: put into the log from any node, answered when they are applied.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Action, Node};
use crate::cluster::{Applied, Body, ClusterSpec, Event, Item, Origin, WITH_RESTART};
use crate::group::input::Operator;
use crate::ids::{GroupName, Mono, NodeId};

/// A command is sent again while it is not applied, and given up after this.
const GIVE_UP: Duration = Duration::from_secs(5);
const SEND_AGAIN: Duration = Duration::from_millis(300);
/// Commands under way, at most.
const PENDING_MAX: usize = 64;
/// More numbers than commands of an earlier life can be on their way.
const LIVES_APART: u64 = 1 << 16;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Group { group: GroupName, operator: Operator },
    Drain { node: NodeId },
    Undrain { node: NodeId },
    Configure { spec: Box<ClusterSpec>, revision: u64 },
}

/// What it did, event by event; a refusal is an event too.
pub type Outcome = Result<Vec<Event>, CommandError>;

/// A command that was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    #[error("group {0} not known; `hotwarm status` lists the groups")]
    UnknownGroup(GroupName),
    #[error("node {0} not known; `hotwarm status` lists the nodes")]
    UnknownNode(NodeId),
    /// S17: a node with an older program could not read the entry.
    #[error("not every node's program can do this yet: upgrade them all; `hotwarm status` tells their versions")]
    NotYet,
    #[error("no leader: the quorum is not reached; see `hotwarm status`")]
    NoLeader,
    #[error("not confirmed within 5 s: it may still happen; see `hotwarm status`")]
    Unconfirmed,
    #[error("too many commands at once; try again")]
    Busy,
    #[error("disk of this node, which leads, far behind: nothing new is taken until it has synced; look at the disk, then try again")]
    DiskBehind,
}

#[derive(Debug)]
struct Pending {
    ticket: u64,
    body: Body,
    since: Mono,
    sent: Option<Mono>,
    /// It may be in the log, or on its way to who leads.
    taken: bool,
}

#[derive(Debug)]
pub(crate) struct Commands {
    next: u64,
    pending: BTreeMap<u64, Pending>,
}

impl Commands {
    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    pub(crate) const fn new(base: u64) -> Self {
        Self { next: base + 1, pending: BTreeMap::new() }
    }
}

impl Node {
    pub(super) fn on_command(&mut self, ticket: u64, command: Command) {
        let body = match self.body_of(command) {
            Ok(body) => body,
            Err(error) => return self.reply(ticket, Err(error)),
        };
        if self.commands.pending.len() >= PENDING_MAX {
            return self.reply(ticket, Err(CommandError::Busy));
        }
        let number = self.next_number();
        self.commands.pending.insert(number, Pending { ticket, body, since: self.now, sent: None, taken: false });
        self.expire_commands();
    }

    /// Above all that were applied, also if the clock from which this life's numbers begin went back since the last.
    fn next_number(&mut self) -> u64 {
        let applied = self.cluster.nodes.get(&self.options.me).map_or(0, |node| node.last_command);
        if self.commands.next <= applied {
            self.commands.next = applied + LIVES_APART;
        }
        self.commands.next += 1;
        self.commands.next - 1
    }

    fn body_of(&self, command: Command) -> Result<Body, CommandError> {
        let node_known = |node: &NodeId| self.cluster.nodes.contains_key(node);
        match command {
            Command::Group { operator: Operator::Restart { .. } | Operator::EndRestart, .. } if self.cluster.behaviour < WITH_RESTART => {
                Err(CommandError::NotYet)
            }
            Command::Group { group, operator } if self.cluster.groups.contains_key(&group) => {
                Ok(Body::Group { group, body: crate::group::Body::Operator(operator) })
            }
            Command::Group { group, .. } => Err(CommandError::UnknownGroup(group)),
            Command::Drain { node } if node_known(&node) => Ok(Body::Drain { node }),
            Command::Undrain { node } if node_known(&node) => Ok(Body::Undrain { node }),
            Command::Drain { node } | Command::Undrain { node } => Err(CommandError::UnknownNode(node)),
            Command::Configure { spec, revision } => Ok(Body::Configure { spec, revision }),
        }
    }

    fn reply(&mut self, ticket: u64, outcome: Outcome) {
        self.actions.push_back(Action::Reply { ticket, outcome });
    }

    /// Sends what was not sent lately, gives up what is too old.
    pub(super) fn expire_commands(&mut self) {
        if self.commands.pending.is_empty() {
            return;
        }
        let now = self.now;
        let reachable = self.leader().is_some();
        let old: Vec<u64> = self.commands.pending.iter().filter(|(_, p)| now.since(p.since) >= GIVE_UP).map(|(n, _)| *n).collect();
        for number in old {
            if let Some(pending) = self.commands.pending.remove(&number) {
                let error = match pending.sent {
                    None => CommandError::NoLeader,
                    Some(_) if pending.taken => CommandError::Unconfirmed,
                    Some(_) => CommandError::DiskBehind,
                };
                self.reply(pending.ticket, Err(error));
            }
        }
        let me = self.options.me.clone();
        for (number, pending) in &mut self.commands.pending {
            let due = pending.sent.is_none_or(|sent| now.since(sent) >= SEND_AGAIN);
            if due && reachable {
                pending.sent = Some(now);
                let origin = Some(Origin { node: me.clone(), number: *number });
                self.items.push(Item { origin, body: pending.body.clone() });
            }
        }
    }

    /// These were put into the log or sent to its leader, as far as they are commands of ours; not so what the log refused.
    pub(super) fn commands_taken(&mut self, items: &[Item]) {
        let mine = items.iter().filter_map(|item| item.origin.as_ref()).filter(|origin| origin.node == self.options.me);
        for origin in mine {
            if let Some(pending) = self.commands.pending.get_mut(&origin.number) {
                pending.taken = true;
            }
        }
    }

    pub(super) fn on_applied(&mut self, applied: Applied) {
        if applied.origin.node != self.options.me {
            return;
        }
        let number = applied.origin.number;
        if let Some(pending) = self.commands.pending.remove(&number) {
            self.reply(pending.ticket, Ok(applied.events));
        }
        // A command below one that was applied never is: those that were lost on their way, with a leader, go again under new numbers.
        let later = self.commands.pending.split_off(&number);
        for (_, lost) in std::mem::replace(&mut self.commands.pending, later) {
            let number = self.next_number();
            self.commands.pending.insert(number, Pending { sent: None, ..lost });
        }
    }

    /// A snapshot took the place of entries: which of the commands that it may hold were applied is not known, so they are not repeated.
    pub(super) fn on_commands_skipped(&mut self) {
        let newest = self.cluster.nodes.get(&self.options.me).map_or(0, |node| node.last_command);
        let later = self.commands.pending.split_off(&(newest + 1));
        for (_, unknown) in std::mem::replace(&mut self.commands.pending, later) {
            self.reply(unknown.ticket, Err(CommandError::Unconfirmed));
        }
    }
}
