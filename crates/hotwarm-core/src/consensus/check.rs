//! Messages are checked before they go in, because raft-rs panics on what a correct peer never sends (S16).
//!
//! Refused is only what no correct peer with an intact disk can send; what is merely late or useless goes in or is passed over. The
//! main path enters at [`Message::check`], which looks at the message alone, and [`View::check`], which looks at our log as well.

use super::conf::{is_plausible_data, is_plausible_voters};
use super::message::{Body, Message};
use crate::ids::RaftId;
use crate::wal::{Entry, LogId, Snapshot};

/// Terms and indexes beyond this are nonsense: nothing counts so far, and raft-rs adds to them without a check.
const NUMBER_MAX: u64 = 1 << 60;

/// A message that was refused; the replica is as if it had never come.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    #[error("message for replica {to} of log {log:?} came to another; check the addresses of the peers")]
    WrongAddress { log: LogId, to: RaftId },
    #[error("message from an impossible sender {from}")]
    Sender { from: RaftId },
    #[error("answer from {from}, which is no member of the log here")]
    UnknownPeer { from: RaftId },
    #[error("numbers of {0} impossible")]
    Numbers(&'static str),
    #[error("entries not contiguous or of falling terms after {index}")]
    Entries { index: u64 },
    #[error("entry {index} is a change of voters that cannot be read; the peer may run a newer version")]
    ConfChange { index: u64 },
    #[error("voters of the snapshot at {index} impossible")]
    Voters { index: u64 },
    #[error("term {term} has two leaders, {known} and {from}; one of them lost its disk and must join anew")]
    TwoLeaders { term: u64, known: RaftId, from: RaftId },
    #[error("leader believes this log has entry {index}, but it ends at {last}; this node lost records and must join anew")]
    LostEntries { index: u64, last: u64 },
    #[error("answer about entry {index}, but the log ends at {last}")]
    BeyondLog { index: u64, last: u64 },
    #[error("vote for term {term} that was never asked for")]
    UnaskedVote { term: u64 },
    #[error("snapshot at {index} contradicts the committed entry there")]
    SnapshotConflict { index: u64 },
}

fn position_is_possible(index: u64, log_term: u64, term: u64) -> bool {
    index < NUMBER_MAX && (index == 0) == (log_term == 0) && log_term <= term
}

impl Message {
    /// Whether a correct peer can have sent this at all.
    pub(super) fn check(&self, log: LogId, me: RaftId) -> Result<(), MessageError> {
        if self.log != log || self.to != me {
            return Err(MessageError::WrongAddress { log: self.log, to: self.to });
        }
        if self.from == me || self.from.0 == 0 {
            return Err(MessageError::Sender { from: self.from });
        }
        // Term 0 marks raft-rs's local messages, which skip its checks of the term.
        if self.term == 0 || self.term >= NUMBER_MAX {
            return Err(MessageError::Numbers("the term"));
        }
        let possible = match &self.body {
            Body::Append { index, log_term, commit, entries } => {
                check_entries(*index, *log_term, self.term, entries)?;
                position_is_possible(*index, *log_term, self.term) && *commit < NUMBER_MAX
            }
            Body::Appended { index, commit } => *index < NUMBER_MAX && *commit < NUMBER_MAX,
            Body::AppendRefused { index, hint, log_term, commit } => {
                let hint_is_possible = position_is_possible(*hint, *log_term, self.term) && hint <= index;
                hint_is_possible && *index < NUMBER_MAX && *commit < NUMBER_MAX
            }
            Body::Heartbeat { commit, .. } | Body::HeartbeatAnswer { commit, .. } => *commit < NUMBER_MAX,
            Body::Snapshot(snapshot) => return check_snapshot(snapshot, self.term),
            Body::Vote { index, log_term, commit, commit_term, .. } => {
                let log_is_possible = position_is_possible(*index, *log_term, self.term) && *log_term < self.term;
                log_is_possible && position_is_possible(*commit, *commit_term, *log_term) && commit <= index
            }
            Body::VoteAnswer { commit, commit_term, .. } => position_is_possible(*commit, *commit_term, self.term),
            Body::TimeoutNow => true,
        };
        if possible { Ok(()) } else { Err(MessageError::Numbers(self.body.name())) }
    }
}

impl Body {
    const fn name(&self) -> &'static str {
        match self {
            Self::Append { .. } => "an append",
            Self::Appended { .. } => "an acknowledgement",
            Self::AppendRefused { .. } => "a refused append",
            Self::Heartbeat { .. } => "a heartbeat",
            Self::HeartbeatAnswer { .. } => "an answer to a heartbeat",
            Self::Snapshot(_) => "a snapshot",
            Self::Vote { .. } => "a request for a vote",
            Self::VoteAnswer { .. } => "a vote",
            Self::TimeoutNow => "a hand-over",
        }
    }

    const fn is_from_leader(&self) -> bool {
        matches!(self, Self::Append { .. } | Self::Heartbeat { .. } | Self::Snapshot(_) | Self::TimeoutNow)
    }

    const fn is_answer(&self) -> bool {
        matches!(self, Self::Appended { .. } | Self::AppendRefused { .. } | Self::HeartbeatAnswer { .. } | Self::VoteAnswer { .. })
    }
}

fn check_entries(index: u64, log_term: u64, term: u64, entries: &[Entry]) -> Result<(), MessageError> {
    let mut last = (index, log_term);
    for entry in entries {
        let follows = last.0 < NUMBER_MAX && entry.index == last.0 + 1 && entry.term >= last.1;
        if !follows || entry.term == 0 || entry.term > term {
            return Err(MessageError::Entries { index: last.0 });
        }
        if !is_plausible_data(entry.kind, &entry.data) {
            return Err(MessageError::ConfChange { index: entry.index });
        }
        last = (entry.index, entry.term);
    }
    Ok(())
}

fn check_snapshot(snapshot: &Snapshot, term: u64) -> Result<(), MessageError> {
    if snapshot.index == 0 || !position_is_possible(snapshot.index, snapshot.term, term) {
        return Err(MessageError::Numbers("a snapshot"));
    }
    if !is_plausible_voters(&snapshot.voters) {
        return Err(MessageError::Voters { index: snapshot.index });
    }
    Ok(())
}

/// What our own log knows, as far as a message can contradict it.
pub(super) struct View {
    pub(super) term: u64,
    pub(super) leads: bool,
    pub(super) leader: Option<RaftId>,
    pub(super) last: u64,
    pub(super) committed: u64,
    pub(super) sender_is_member: bool,
    /// The term of our entry at the index of a snapshot that came.
    pub(super) term_at_snapshot: u64,
}

impl View {
    /// Whether the message can be true beside what we know. It has passed [`Message::check`].
    pub(super) fn check(&self, message: &Message) -> Result<(), MessageError> {
        let Message { from, term, ref body, .. } = *message;
        if body.is_answer() && !self.sender_is_member {
            return Err(MessageError::UnknownPeer { from });
        }
        if let (true, true, Some(known)) = (body.is_from_leader(), term == self.term, self.leader)
            && known != from
        {
            return Err(MessageError::TwoLeaders { term, known, from });
        }
        let last = self.last;
        match *body {
            Body::Heartbeat { commit, .. } if term >= self.term && commit > last => Err(MessageError::LostEntries { index: commit, last }),
            Body::Appended { index, .. } | Body::AppendRefused { index, .. } if self.leads && term == self.term && index > last => {
                Err(MessageError::BeyondLog { index, last })
            }
            Body::VoteAnswer { pre: false, granted: true, .. } if term > self.term => Err(MessageError::UnaskedVote { term }),
            Body::Snapshot(ref snapshot) if snapshot.index == self.committed && snapshot.term != self.term_at_snapshot => {
                Err(MessageError::SnapshotConflict { index: snapshot.index })
            }
            _ => Ok(()),
        }
    }
}
