//! What replicas say to each other, in our own versioned format, and to and from raft-rs's messages.
//!
//! Bytes of a peer are never handed to protobuf (S16). Local messages of raft-rs have no counterpart here, so no peer can send one.
//! The main path enters at [`Message::encode`] and [`Message::decode`]; the encoding is frozen by `tests/compat`.

use raft::CAMPAIGN_TRANSFER;
use raft::eraftpb::{self, EntryType, MessageType};
use serde::{Deserialize, Serialize};

use super::conf::{voters_from_raft, voters_to_raft};
use crate::ids::RaftId;
use crate::wal::{Entry, EntryKind, LogId, Snapshot};

/// An encoded message, at most.
pub const MESSAGE_MAX_BYTES: usize = 16 << 20;

const VERSION: u8 = 1;

/// One message from one replica of a log to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub log: LogId,
    pub from: RaftId,
    pub to: RaftId,
    /// The sender's term; in a pre-vote the term it would campaign in.
    pub term: u64,
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Entries that follow the one at `index`, which has `log_term`.
    Append {
        index: u64,
        log_term: u64,
        commit: u64,
        entries: Vec<Entry>,
    },
    /// The log agrees with the leader's up to `index`.
    Appended {
        index: u64,
        commit: u64,
    },
    /// The entry at `index` is not there; try at `hint`, where this log has `log_term`.
    AppendRefused {
        index: u64,
        hint: u64,
        log_term: u64,
        commit: u64,
    },
    Heartbeat {
        commit: u64,
        /// The newest read round that an answer confirms.
        read: Option<u64>,
    },
    HeartbeatAnswer {
        commit: u64,
        read: Option<u64>,
    },
    Snapshot(Snapshot),
    /// The candidate's log ends at `index` with `log_term`.
    Vote {
        /// A question only: nobody's term changes.
        pre: bool,
        /// The leader asked for this election, so its lease does not forbid it.
        transfer: bool,
        index: u64,
        log_term: u64,
        commit: u64,
        commit_term: u64,
    },
    VoteAnswer {
        pre: bool,
        granted: bool,
        commit: u64,
        commit_term: u64,
        /// Microseconds from the voter's last acknowledgement of an older term's leader to the sending of this vote (S3); `None` if
        /// it never acknowledged one, and in pre-votes.
        ack_age_us: Option<u64>,
    },
    /// Campaign at once: the leader hands over to the receiver.
    TimeoutNow,
}

/// Bytes that are no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("message of {bytes} bytes larger than {MESSAGE_MAX_BYTES}; the peer is not a hotwarm node")]
    TooLarge { bytes: usize },
    #[error("message of version {version} not known here; upgrade this node")]
    UnknownVersion { version: u8 },
    #[error("message malformed: {what}")]
    Malformed { what: &'static str },
}

impl Message {
    /// The message as bytes, version first.
    ///
    /// # Panics
    /// Never for a message from a [`super::Replica`]: entries and snapshots are bounded where they enter.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_extend(self, vec![VERSION]).expect("a message always encodes into memory")
    }

    /// # Errors
    /// [`DecodeError`] if the bytes are not one whole message of a version known here.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MESSAGE_MAX_BYTES {
            return Err(DecodeError::TooLarge { bytes: bytes.len() });
        }
        let (&version, body) = bytes.split_first().ok_or(DecodeError::Malformed { what: "no bytes" })?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion { version });
        }
        match postcard::take_from_bytes(body) {
            Ok((message, [])) => Ok(message),
            Ok(_) => Err(DecodeError::Malformed { what: "bytes after its end" }),
            Err(_) => Err(DecodeError::Malformed { what: "fields not readable" }),
        }
    }

    /// `None` for what this module never lets raft-rs say.
    pub(super) fn from_raft(log: LogId, mut raft: eraftpb::Message) -> Option<Self> {
        let vote = |pre: bool, raft: &eraftpb::Message| Body::Vote {
            pre,
            transfer: raft.context.as_ref() == CAMPAIGN_TRANSFER,
            index: raft.index,
            log_term: raft.log_term,
            commit: raft.commit,
            commit_term: raft.commit_term,
        };
        let vote_answer = |pre: bool, raft: &eraftpb::Message| Body::VoteAnswer {
            pre,
            granted: !raft.reject,
            commit: raft.commit,
            commit_term: raft.commit_term,
            ack_age_us: None,
        };
        let body = match raft.get_msg_type() {
            MessageType::MsgAppend => Body::Append {
                index: raft.index,
                log_term: raft.log_term,
                commit: raft.commit,
                entries: raft.take_entries().into_iter().map(entry_from_raft).collect(),
            },
            MessageType::MsgAppendResponse if raft.reject => {
                Body::AppendRefused { index: raft.index, hint: raft.reject_hint, log_term: raft.log_term, commit: raft.commit }
            }
            MessageType::MsgAppendResponse => Body::Appended { index: raft.index, commit: raft.commit },
            MessageType::MsgHeartbeat => Body::Heartbeat { commit: raft.commit, read: read_from_context(&raft.context) },
            MessageType::MsgHeartbeatResponse => Body::HeartbeatAnswer { commit: raft.commit, read: read_from_context(&raft.context) },
            MessageType::MsgSnapshot => Body::Snapshot(snapshot_from_raft(raft.take_snapshot())),
            MessageType::MsgRequestVote => vote(false, &raft),
            MessageType::MsgRequestPreVote => vote(true, &raft),
            MessageType::MsgRequestVoteResponse => vote_answer(false, &raft),
            MessageType::MsgRequestPreVoteResponse => vote_answer(true, &raft),
            MessageType::MsgTimeoutNow => Body::TimeoutNow,
            _ => return None,
        };
        Some(Self { log, from: RaftId(raft.from), to: RaftId(raft.to), term: raft.term, body })
    }

    pub(super) fn into_raft(self) -> eraftpb::Message {
        let mut raft = eraftpb::Message::default();
        (raft.from, raft.to, raft.term) = (self.from.0, self.to.0, self.term);
        self.body.fill_raft(&mut raft);
        raft
    }
}

impl Body {
    fn fill_raft(self, raft: &mut eraftpb::Message) {
        raft.set_msg_type(match &self {
            Self::Append { .. } => MessageType::MsgAppend,
            Self::Appended { .. } | Self::AppendRefused { .. } => MessageType::MsgAppendResponse,
            Self::Heartbeat { .. } => MessageType::MsgHeartbeat,
            Self::HeartbeatAnswer { .. } => MessageType::MsgHeartbeatResponse,
            Self::Snapshot(_) => MessageType::MsgSnapshot,
            Self::Vote { pre: false, .. } => MessageType::MsgRequestVote,
            Self::Vote { pre: true, .. } => MessageType::MsgRequestPreVote,
            Self::VoteAnswer { pre: false, .. } => MessageType::MsgRequestVoteResponse,
            Self::VoteAnswer { pre: true, .. } => MessageType::MsgRequestPreVoteResponse,
            Self::TimeoutNow => MessageType::MsgTimeoutNow,
        });
        match self {
            Self::Append { index, log_term, commit, entries } => {
                (raft.index, raft.log_term, raft.commit) = (index, log_term, commit);
                raft.set_entries(entries.into_iter().map(entry_to_raft).collect::<Vec<_>>().into());
            }
            Self::Appended { index, commit } => (raft.index, raft.commit) = (index, commit),
            Self::AppendRefused { index, hint, log_term, commit } => {
                (raft.index, raft.reject_hint, raft.log_term, raft.commit) = (index, hint, log_term, commit);
                raft.reject = true;
            }
            Self::Heartbeat { commit, read } | Self::HeartbeatAnswer { commit, read } => {
                raft.commit = commit;
                raft.context = read.map_or_else(Vec::new, read_to_context).into();
            }
            Self::Snapshot(snapshot) => raft.set_snapshot(snapshot_to_raft(snapshot)),
            Self::Vote { transfer, index, log_term, commit, commit_term, .. } => {
                (raft.index, raft.log_term) = (index, log_term);
                (raft.commit, raft.commit_term) = (commit, commit_term);
                if transfer {
                    raft.context = CAMPAIGN_TRANSFER.into();
                }
            }
            Self::VoteAnswer { granted, commit, commit_term, .. } => {
                raft.reject = !granted;
                (raft.commit, raft.commit_term) = (commit, commit_term);
            }
            Self::TimeoutNow => {}
        }
    }
}

pub(super) fn read_to_context(read: u64) -> Vec<u8> {
    read.to_le_bytes().to_vec()
}

pub(super) fn read_from_context(context: &[u8]) -> Option<u64> {
    context.try_into().ok().map(u64::from_le_bytes)
}

/// raft-rs wants protobuf in the data of a change of voters, but only of one that it proposes itself. Ours therefore travels in its
/// context, together with the proposer's context.
pub(super) fn conf_change_context(data: &[u8], context: &[u8]) -> Vec<u8> {
    postcard::to_stdvec(&(data, context)).expect("two byte strings always encode into memory")
}

pub(super) fn entry_from_raft(raft: eraftpb::Entry) -> Entry {
    let (kind, data, context) = match raft.entry_type {
        EntryType::EntryNormal => (EntryKind::Normal, raft.data.into(), raft.context.into()),
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 if raft.context.is_empty() => {
            (EntryKind::ConfChange, Vec::new(), Vec::new())
        }
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
            let (data, context) = postcard::from_bytes::<(Vec<u8>, Vec<u8>)>(&raft.context).expect("conf_change_context wrote it");
            (EntryKind::ConfChange, data, context)
        }
    };
    Entry { index: raft.index, term: raft.term, kind, data, context }
}

pub(super) fn entry_to_raft(entry: Entry) -> eraftpb::Entry {
    let mut raft = eraftpb::Entry::default();
    (raft.index, raft.term) = (entry.index, entry.term);
    match entry.kind {
        EntryKind::Normal => (raft.data, raft.context) = (entry.data.into(), entry.context.into()),
        EntryKind::ConfChange => {
            raft.set_entry_type(EntryType::EntryConfChangeV2);
            if !entry.data.is_empty() || !entry.context.is_empty() {
                raft.context = conf_change_context(&entry.data, &entry.context).into();
            }
        }
    }
    raft
}

pub(super) fn snapshot_from_raft(mut raft: eraftpb::Snapshot) -> Snapshot {
    let mut metadata = raft.take_metadata();
    Snapshot { index: metadata.index, term: metadata.term, voters: voters_from_raft(metadata.take_conf_state()), data: raft.data.into() }
}

pub(super) fn snapshot_to_raft(snapshot: Snapshot) -> eraftpb::Snapshot {
    let mut raft = eraftpb::Snapshot::default();
    let metadata = raft.mut_metadata();
    (metadata.index, metadata.term) = (snapshot.index, snapshot.term);
    metadata.set_conf_state(voters_to_raft(&snapshot.voters));
    raft.data = snapshot.data.into();
    raft
}
