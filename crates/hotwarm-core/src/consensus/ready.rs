//! What a replica hands out: messages, records, committed entries, reads, and how it stands. Plain data; [`super::Replica`] fills it.

use std::collections::VecDeque;

use super::message::{Body, Message};
use crate::ids::RaftId;
use crate::wal::{Entry, Record, Snapshot, Voters};

/// Work for the replica's owner. Fields are in the order in which to see to them, except that messages and records may go at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// To send now, in this order per peer. Losing one is allowed.
    pub messages: Vec<Message>,
    /// To append to the write-ahead log, in this order, as one batch.
    pub persist: Vec<Record>,
    /// The records must be durable before `persisted(number)` is called. Without it they may be written whenever it suits.
    pub must_sync: bool,
    /// Given to [`super::Replica::persisted`] once the records of this and all earlier ones are durable; needed only with `must_sync`.
    pub number: u64,
    /// A new term, role or leader.
    pub leadership: Option<Leadership>,
    /// In place of the state machine's state. Durable. It comes before `committed`.
    pub snapshot: Option<Snapshot>,
    /// To apply, in this order; changes of voters are in effect already. Durable. Then call [`super::Replica::applied`].
    pub committed: Vec<Entry>,
    /// The voters as they are after `committed`, if they changed.
    pub voters: Option<Voters>,
    /// A peer joined after the latest snapshot and needs one: call [`super::Replica::take_snapshot`] with the applied state. Asked again
    /// until it is there.
    pub snapshot_wanted: bool,
    /// Reads that may be answered once `index` is applied (S15).
    pub reads: Vec<ReadState>,
    /// Reads that will not be answered because leadership was lost, by their context.
    pub reads_failed: Vec<u64>,
}

impl Ready {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self { number: self.number, ..Self::default() }
    }
}

/// Leadership of the log was held from after the read was asked for: state that has applied `index` may answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadState {
    pub context: u64,
    pub index: u64,
}

/// How a replica stands in its log's elections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaRole {
    Follower,
    PreCandidate,
    Candidate,
    Leader,
}

/// Who leads the log, as this replica knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    pub term: u64,
    pub role: ReplicaRole,
    pub leader: Option<RaftId>,
}

/// A replica at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub id: RaftId,
    pub leadership: Leadership,
    /// The first entry still held; a follower that needs an earlier one gets a snapshot.
    pub first: u64,
    pub last: u64,
    pub commit: u64,
    pub applied: u64,
    /// The index of the latest snapshot.
    pub snapshot: u64,
    /// The voters of the applied log.
    pub voters: Voters,
    /// The other replicas, by id; on the leader only.
    pub peers: Vec<PeerProgress>,
}

/// What the leader knows of one other replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerProgress {
    pub id: RaftId,
    /// Its log agrees with the leader's up to here.
    pub matched: u64,
    /// It was heard of within the last election timeout.
    pub active: bool,
    /// It is so far behind that it is being sent a snapshot.
    pub behind: bool,
}

/// What waits for records to become durable.
#[derive(Debug)]
pub(super) struct Unpersisted {
    pub(super) number: u64,
    /// Nothing of it must be durable; it waits only for those before it.
    pub(super) free: bool,
    /// The term or the vote is among its records.
    pub(super) term_or_vote: bool,
    pub(super) last_entry: Option<u64>,
    pub(super) messages: Vec<Message>,
    pub(super) snapshot: Option<Snapshot>,
}

/// The records handed out that are not known to be durable.
#[derive(Debug, Default)]
pub(super) struct Outstanding(pub(super) VecDeque<Unpersisted>);

impl Outstanding {
    pub(super) fn last_entry(&self) -> Option<u64> {
        self.0.iter().filter_map(|unpersisted| unpersisted.last_entry).max()
    }

    pub(super) fn has_term_or_vote(&self) -> bool {
        self.0.iter().any(|unpersisted| unpersisted.term_or_vote)
    }

    /// The next one that is done with once everything up to `number` is durable.
    pub(super) fn pop_persisted(&mut self, number: u64) -> Option<Unpersisted> {
        let done = self.0.front().is_some_and(|first| first.number <= number || first.free);
        if done { self.0.pop_front() } else { None }
    }
}

/// An append message grows by merging up to about this.
const APPEND_MAX_BYTES: usize = 1 << 20;

/// Messages by receiver, in the order in which raft-rs made them for each; appends that continue each other become one, and of
/// heartbeats that follow each other the last says it all: it bears the newest read, which confirms those before it.
pub(super) fn tidy(mut messages: Vec<Message>) -> Vec<Message> {
    messages.sort_by_key(|message| message.to);
    let mut tidied: Vec<Message> = Vec::with_capacity(messages.len());
    for message in messages {
        match tidied.last_mut() {
            Some(last) if continues(last, &message) => merge(last, message),
            Some(last) if supersedes(&message, last) => *last = message,
            _ => tidied.push(message),
        }
    }
    tidied
}

fn continues(a: &Message, b: &Message) -> bool {
    let (Body::Append { index, log_term, entries, .. }, Body::Append { index: next, log_term: next_term, entries: more, .. }) =
        (&a.body, &b.body)
    else {
        return false;
    };
    let end = entries.last().map_or((*index, *log_term), |entry| (entry.index, entry.term));
    a.to == b.to && a.term == b.term && end == (*next, *next_term) && bytes(entries) + bytes(more) <= APPEND_MAX_BYTES
}

fn supersedes(b: &Message, a: &Message) -> bool {
    matches!((&a.body, &b.body), (Body::Heartbeat { .. }, Body::Heartbeat { .. })) && (a.to, a.term) == (b.to, b.term)
}

fn bytes(entries: &[Entry]) -> usize {
    entries.iter().map(|entry| entry.data.len() + entry.context.len() + 32).sum()
}

fn merge(a: &mut Message, b: Message) {
    if let (Body::Append { entries, commit, .. }, Body::Append { entries: more, commit: later, .. }) = (&mut a.body, b.body) {
        entries.extend(more);
        *commit = later.max(*commit);
    }
}
