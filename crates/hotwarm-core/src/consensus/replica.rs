//! One member of one replicated log: raft-rs behind our own messages, log, jitter and order of persistence.
//!
//! It must never do I/O, read a clock or take randomness from anywhere but its seed. The main path: `handle_message`, `tick` and
//! `propose` go through [`Replica::after`], then [`Replica::poll_ready`] until it gives nothing.

use std::collections::{BTreeMap, VecDeque};

use raft::eraftpb;
use raft::{Changer, RawNode, SnapshotStatus, StateRole};

use super::check::{MessageError, View};
use super::conf::{ConfChange, committed_change, is_plausible_voters, voters_from_raft};
use super::election::{Acks, Grants, Jitter};
use super::log::Log;
use super::message::{self, Body, Message};
use super::ready::{Leadership, Outstanding, PeerProgress, ReadState, Ready, ReplicaRole, Status, Unpersisted, tidy};
use super::{Error, IN_FLIGHT_MAX, Options, ProposeError, Proposed, ReadError, Recovered, SnapshotError, TransferError};
use crate::ids::{Mono, RaftId};
use crate::plant::{self, Bug};
use crate::wal::{EntryKind, HardState, LogId, Record, Snapshot, Voters};

/// Reads waiting for an answer, at most.
const READS_MAX: usize = 16_384;
/// Entries in one append message of raft-rs's, in bytes, unless the first is larger.
const APPEND_BYTES: u64 = 256 << 10;
/// Committed entries in one [`Ready`], in bytes, unless the first is larger.
const COMMITTED_BYTES: u64 = 4 << 20;
/// A snapshot's data, at most: what a message and a record can carry with room for the rest.
const SNAPSHOT_MAX_BYTES: usize = (16 << 20) - (64 << 10);
/// Election timeouts after which a snapshot that was not acknowledged is taken for lost.
const SNAPSHOT_PATIENCE: usize = 10;

/// One member of one replicated log.
pub struct Replica {
    raft: RawNode<Log>,
    options: Options,
    jitter: Jitter,
    acks: Acks,
    grants: Grants,
    /// See [`Self::older_term_acked_until`].
    older_term_acked_until: Option<Mono>,
    outstanding: Outstanding,
    /// The term and vote last handed out to be persisted.
    term_and_vote: (u64, u64),
    /// Messages whose records have become durable.
    freed: Vec<Message>,
    /// A snapshot from the leader, durable, not yet handed to the state machine.
    restored: Option<Snapshot>,
    /// A snapshot of our own, not yet handed out to be persisted.
    taken: Option<Snapshot>,
    handed_out: u64,
    reads: Reads,
    reported: Leadership,
    now: Mono,
    /// Ticks since each peer was sent a snapshot.
    snapshot_ticks: BTreeMap<u64, usize>,
}

/// Reads by the round that will confirm them.
#[derive(Debug, Default)]
struct Reads {
    next_round: u64,
    /// Not yet in a round.
    waiting: Vec<u64>,
    rounds: VecDeque<(u64, Vec<u64>)>,
    count: usize,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica").field("log", &self.options.log).field("status", &self.status()).finish_non_exhaustive()
    }
}

impl Replica {
    /// A replica as it was when its records were written. `now` is taken for its last acknowledgement of a leader (S3).
    ///
    /// # Errors
    /// [`Error::Options`] for unusable options, [`Error::Recovered`] for a log that no replica can have left.
    pub fn new(options: Options, recovered: Recovered, now: Mono) -> Result<Self, Error> {
        let (min, max) = options.election_ticks;
        if recovered.snapshot.as_ref().is_some_and(|snapshot| !is_plausible_voters(&snapshot.voters)) {
            return Err(Error::Recovered("voters of the snapshot impossible".to_owned()));
        }
        let hard_state = recovered.hard_state;
        let log = Log::new(recovered).map_err(Error::Recovered)?;
        let applied = log.snapshot_index();
        let restored = (applied > 0).then(|| message::snapshot_from_raft(log.latest_snapshot().clone()));
        let config = raft::Config {
            id: options.id.0,
            election_tick: min,
            min_election_tick: min,
            max_election_tick: max,
            heartbeat_tick: options.heartbeat_ticks,
            applied,
            max_size_per_msg: APPEND_BYTES,
            max_inflight_msgs: options.max_inflight,
            check_quorum: true,
            pre_vote: true,
            // S15
            read_only_option: if plant::is(Bug::S15LeaseReads) { raft::ReadOnlyOption::LeaseBased } else { raft::ReadOnlyOption::Safe },
            max_uncommitted_size: options.max_uncommitted_bytes as u64,
            max_committed_size_per_ready: COMMITTED_BYTES,
            ..raft::Config::default()
        };
        config.validate().map_err(|error| Error::Options(error.to_string()))?;
        if options.max_entry_bytes == 0 || options.max_entry_bytes > SNAPSHOT_MAX_BYTES {
            return Err(Error::Options(format!("max_entry_bytes not between 1 and {SNAPSHOT_MAX_BYTES}")));
        }
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raft = RawNode::new(&config, log, &logger).map_err(|error| Error::Recovered(error.to_string()))?;
        // Nobody leads in the term that a log is born in, so whoever is still there has acknowledged nobody.
        let acks = if hard_state.term > 1 { Acks::restarted(hard_state.term, now) } else { Acks::default() };
        let mut replica = Self {
            raft,
            jitter: Jitter::new(options.seed, options.id, options.election_ticks),
            acks,
            grants: Grants::default(),
            older_term_acked_until: None,
            outstanding: Outstanding::default(),
            term_and_vote: (hard_state.term, hard_state.vote),
            freed: Vec::new(),
            restored,
            taken: None,
            handed_out: applied,
            reads: Reads::default(),
            reported: Leadership { term: hard_state.term, role: ReplicaRole::Follower, leader: None },
            now,
            snapshot_ticks: BTreeMap::new(),
            options,
        };
        replica.after(false, false);
        Ok(replica)
    }

    #[must_use]
    pub const fn id(&self) -> RaftId {
        self.options.id
    }

    #[must_use]
    pub const fn log(&self) -> LogId {
        self.options.log
    }

    /// Appends `data` to the log, if this replica leads it.
    ///
    /// # Errors
    /// [`ProposeError`] if it was not taken. If it was taken it may still be lost with the leadership: it is committed when an entry
    /// with this index and term comes out of [`Self::poll_ready`], and lost when the index comes out with another term.
    pub fn propose(&mut self, data: Vec<u8>, context: Vec<u8>) -> Result<Proposed, ProposeError> {
        if data.is_empty() {
            return Err(ProposeError::Empty);
        }
        self.may_propose(data.len() + context.len())?;
        self.raft.propose(context, data).map_err(|_| ProposeError::Full)?;
        Ok(self.proposed())
    }

    /// Changes the voters, once it commits.
    ///
    /// # Errors
    /// [`ProposeError`] if it was not taken: one change at a time, and only possible ones.
    pub fn propose_conf_change(&mut self, change: &ConfChange, context: &[u8]) -> Result<Proposed, ProposeError> {
        let data = change.encode();
        self.may_propose(data.len() + context.len())?;
        let raft = &self.raft.raft;
        // raft-rs would turn the entry into an empty one and say nothing.
        if raft.has_pending_conf() || !self.voters().outgoing.is_empty() {
            return Err(ProposeError::ConfChangePending);
        }
        if !change.is_plausible() {
            return Err(ProposeError::ConfChangeInvalid("no replica, replica 0 or too many named".to_owned()));
        }
        let to_raft = change.to_raft();
        let outcome = match to_raft.enter_joint() {
            Some(auto_leave) => Changer::new(raft.prs()).enter_joint(auto_leave, &to_raft.changes),
            None => Changer::new(raft.prs()).simple(&to_raft.changes),
        };
        outcome.map_err(|error| ProposeError::ConfChangeInvalid(error.to_string()))?;
        let context = message::conf_change_context(&data, context);
        self.raft.propose_conf_change(context, to_raft).map_err(|_| ProposeError::Full)?;
        Ok(self.proposed())
    }

    fn may_propose(&self, bytes: usize) -> Result<(), ProposeError> {
        let raft = &self.raft.raft;
        let max = self.options.max_entry_bytes;
        if raft.state != StateRole::Leader {
            return Err(ProposeError::NotLeader { leader: self.leader() });
        }
        if let Some(to) = raft.lead_transferee {
            return Err(ProposeError::Transferring { to: RaftId(to) });
        }
        if bytes > max {
            return Err(ProposeError::TooLarge { bytes, max });
        }
        let log = &raft.raft_log;
        // Followers may commit what a disk that hangs does not keep here: each bound is one of its own.
        let most = if plant::is(Bug::S14NoEnd) { u64::MAX } else { IN_FLIGHT_MAX };
        let behind = log.last_index().saturating_sub(log.persisted);
        if behind >= most {
            return Err(ProposeError::DiskBehind { entries: behind });
        }
        if log.last_index() - log.committed >= most {
            return Err(ProposeError::Full);
        }
        Ok(())
    }

    fn proposed(&self) -> Proposed {
        Proposed { index: self.raft.raft.raft_log.last_index(), term: self.raft.raft.term }
    }

    /// Hands leadership to the voter `to` as soon as it has the whole log; given up after one election timeout.
    ///
    /// # Errors
    /// [`TransferError`] if this replica does not lead or `to` has no vote.
    pub fn transfer_leader(&mut self, to: RaftId) -> Result<(), TransferError> {
        if self.raft.raft.state != StateRole::Leader {
            return Err(TransferError::NotLeader { leader: self.leader() });
        }
        if !self.raft.raft.prs().conf().voters().contains(to.0) {
            return Err(TransferError::NotVoter { to });
        }
        self.raft.transfer_leader(to.0);
        self.after(true, false);
        Ok(())
    }

    /// Asks for an election now, if this replica may: a voter whose log is durable and whose snapshot is applied.
    pub fn campaign(&mut self, now: Mono) {
        self.observe(now);
        if self.leads() || !self.raft.raft.promotable() || !self.may_campaign() {
            return;
        }
        // Refused only while a change of voters is not applied; the election timeout tries again.
        let _ = self.raft.campaign();
        self.after(false, true);
    }

    /// A peer's message. `now` is not earlier than its arrival.
    ///
    /// # Errors
    /// [`MessageError`] if no correct peer can have sent it; nothing has changed then.
    pub fn handle_message(&mut self, now: Mono, message: Message) -> Result<(), MessageError> {
        self.observe(now);
        message.check(self.options.log, self.options.id)?;
        self.view(&message).check(&message)?;
        if self.is_useless(&message) {
            return Ok(());
        }
        let was_leader = self.leads();
        let Message { from, term, .. } = message;
        let acknowledges = matches!(message.body, Body::Append { .. } | Body::Heartbeat { .. } | Body::Snapshot(_));
        if let Body::VoteAnswer { pre: false, granted: true, ack_age_us, .. } = message.body
            && term == self.raft.raft.term
            && self.raft.raft.state == StateRole::Candidate
        {
            self.grants.note(term, from, now, ack_age_us);
        }
        self.raft.step(message.into_raft()).map_err(|_| MessageError::UnknownPeer { from })?;
        // S3: from here on the sender may count us among those that follow it.
        if acknowledges && term == self.raft.raft.term && self.leader() == Some(from) {
            self.acks.note(term, now);
        }
        self.after(was_leader, false);
        Ok(())
    }

    fn view(&self, message: &Message) -> View {
        let raft = &self.raft.raft;
        let term_at_snapshot = match &message.body {
            Body::Snapshot(snapshot) => raft.raft_log.term(snapshot.index).unwrap_or(0),
            _ => 0,
        };
        View {
            term: raft.term,
            leads: self.leads(),
            leader: self.leader(),
            last: raft.raft_log.last_index(),
            committed: raft.raft_log.committed,
            sender_is_member: raft.prs().get(message.from.0).is_some(),
            term_at_snapshot,
        }
    }

    /// What raft-rs had better not see now, though a correct peer can have sent it.
    fn is_useless(&self, message: &Message) -> bool {
        match message.body {
            // Whoever asked for votes has a durable log; what comes otherwise answers an earlier life of this replica.
            Body::VoteAnswer { pre, granted: true, .. } => !self.may_campaign() || (pre && message.term != self.raft.raft.term + 1),
            Body::TimeoutNow => !self.may_campaign(),
            _ => false,
        }
    }

    /// One tick of the owner's clock; after a stall one tick, not all that were missed, and messages first (S16). True if it leads and
    /// the tick was one of its heartbeats: a read asked for now goes with that and costs no message of its own.
    pub fn tick(&mut self, now: Mono) -> bool {
        self.observe(now);
        let was_leader = self.leads();
        let raft = &self.raft.raft;
        let fires = !was_leader && raft.election_elapsed + 1 >= raft.randomized_election_timeout();
        if fires && !self.may_campaign() {
            return false;
        }
        self.raft.tick();
        self.time_snapshots();
        self.after(was_leader, fires);
        was_leader && self.leads() && self.raft.raft.heartbeat_elapsed() == 0
    }

    /// How many of the next ticks only count, as long as nothing else happens: no heartbeat, no election, no count of who is there.
    #[must_use]
    pub fn idle_ticks(&self) -> usize {
        let raft = &self.raft.raft;
        if !raft.promotable() {
            return usize::MAX;
        }
        if !self.leads() {
            return raft.randomized_election_timeout().saturating_sub(raft.election_elapsed + 1);
        }
        let heartbeat = self.options.heartbeat_ticks.saturating_sub(raft.heartbeat_elapsed() + 1);
        // A snapshot under way is timed; raft-rs counts who is there once in an election timeout.
        let count = self.options.election_ticks.0.saturating_sub(raft.election_elapsed + 1);
        if self.snapshot_ticks.is_empty() { heartbeat.min(count) } else { 0 }
    }

    /// raft-rs waits forever for the acknowledgement of a snapshot that was lost on its way.
    fn time_snapshots(&mut self) {
        let patience = self.options.election_ticks.1 * SNAPSHOT_PATIENCE;
        let sending: Vec<u64> = self.sorted_peers(|progress| progress.state == raft::ProgressState::Snapshot);
        self.snapshot_ticks.retain(|id, _| sending.contains(id));
        for id in sending {
            let ticks = self.snapshot_ticks.entry(id).or_default();
            *ticks += 1;
            if *ticks > patience {
                self.snapshot_ticks.remove(&id);
                self.raft.report_snapshot(id, SnapshotStatus::Failure);
            }
        }
    }

    /// The leader's process has ended, for all that can be told from here: the time without elections is over, as after a silence of that
    /// length. This replica votes, and asks for votes in a few ticks. A leader that lives takes it back with its next heartbeat.
    pub fn leader_ended(&mut self) {
        let was_leader = self.leads();
        if was_leader || self.leader().is_none() {
            return;
        }
        self.raft.raft.election_elapsed = self.raft.raft.election_elapsed.max(self.options.election_ticks.0);
        self.jitter.hasten();
        self.after(was_leader, false);
    }

    /// Asks for an index that a read begun now must see (S15). The answer comes in [`Ready::reads`], or in [`Ready::reads_failed`] if
    /// leadership is lost first. Reads asked for between two calls of `poll_ready` share one round of messages.
    ///
    /// # Errors
    /// [`ReadError`] if this replica does not lead, or too many reads wait.
    pub fn read_index(&mut self, context: u64) -> Result<(), ReadError> {
        if !self.leads() {
            return Err(ReadError::NotLeader { leader: self.leader() });
        }
        if self.reads.count >= READS_MAX {
            return Err(ReadError::Full);
        }
        self.reads.count += 1;
        self.reads.waiting.push(context);
        Ok(())
    }

    /// Begins one round for all waiting reads. raft-rs drops a round asked for before the term's first commit, so they wait for that.
    fn begin_reads(&mut self) {
        if self.reads.waiting.is_empty() || !self.leads() || !self.raft.raft.commit_to_current_term() {
            return;
        }
        self.reads.next_round += 1;
        let round = self.reads.next_round;
        let reads = std::mem::take(&mut self.reads.waiting);
        self.reads.rounds.push_back((round, reads));
        self.raft.read_index(message::read_to_context(round));
    }

    fn finish_reads(&mut self, states: Vec<raft::ReadState>, out: &mut Ready) {
        for state in states {
            let round = message::read_from_context(&state.request_ctx);
            while let Some((first, _)) = self.reads.rounds.front()
                && round.is_some_and(|round| *first <= round)
            {
                let (_, contexts) = self.reads.rounds.pop_front().expect("it was there just now");
                self.reads.count -= contexts.len();
                let index = state.index;
                out.reads.extend(contexts.into_iter().map(|context| ReadState { context, index }));
            }
        }
    }

    fn fail_reads(&mut self, out: &mut Ready) {
        for (_, contexts) in self.reads.rounds.drain(..) {
            out.reads_failed.extend(contexts);
        }
        out.reads_failed.append(&mut self.reads.waiting);
        self.reads.count = 0;
    }

    /// The next piece of work, or nothing. Call it until it gives nothing, after every other call.
    pub fn poll_ready(&mut self, now: Mono) -> Option<Ready> {
        self.observe(now);
        self.begin_reads();
        let mut out = Ready::default();
        out.persist.extend(self.taken.take().map(|snapshot| Record::Snapshot(self.options.log, snapshot)));
        out.messages.append(&mut self.freed);
        out.snapshot = self.restored.take();
        if self.raft.has_ready() && !self.must_wait_for_disk() {
            self.take_raft_ready(&mut out);
        }
        if !self.leads() && self.reads.count > 0 {
            self.fail_reads(&mut out);
        }
        out.snapshot_wanted = self.raft.store().take_snapshot_wanted();
        let leadership = self.leadership();
        if leadership != self.reported {
            self.reported = leadership;
            out.leadership = Some(leadership);
        }
        out.messages = tidy(out.messages);
        for message in &mut out.messages {
            self.state_ack_age(message);
        }
        (!out.is_empty()).then_some(out)
    }

    /// S3: counted at the moment of sending, on the term that the vote is for.
    fn state_ack_age(&self, message: &mut Message) {
        if let Body::VoteAnswer { pre: false, granted: true, ref mut ack_age_us, .. } = message.body {
            let acked = self.acks.before(message.term);
            *ack_age_us = acked.map(|at| u64::try_from(self.now.since(at).as_micros()).unwrap_or(u64::MAX));
        }
    }

    /// Entries that replace others still on their way to disk, and snapshots, are held until those arrived; see the module's page.
    fn must_wait_for_disk(&self) -> bool {
        let log = &self.raft.raft.raft_log;
        let replaces = match (log.unstable_entries().first(), self.outstanding.last_entry()) {
            (Some(first), Some(last)) => first.index <= last,
            _ => false,
        };
        !self.outstanding.0.is_empty() && (replaces || log.unstable_snapshot().is_some())
    }

    fn take_raft_ready(&mut self, out: &mut Ready) {
        let leads = self.leads();
        let mut ready = self.raft.ready();
        let log = self.options.log;
        let (number, free) = (ready.number(), !ready.must_sync());
        let mut unpersisted = Unpersisted {
            number,
            free,
            term_or_vote: false,
            last_entry: ready.entries().last().map(|entry| entry.index),
            messages: Vec::new(),
            snapshot: None,
        };
        if let Some(hard_state) = ready.hs() {
            let term_and_vote = (hard_state.term, hard_state.vote);
            unpersisted.term_or_vote = term_and_vote != self.term_and_vote;
            self.term_and_vote = term_and_vote;
            out.persist.push(Record::HardState(log, hard_state_from_raft(hard_state)));
            self.raft.mut_store().set_hard_state(hard_state);
        }
        if !ready.snapshot().is_empty() {
            let snapshot = message::snapshot_from_raft(ready.snapshot().clone());
            self.handed_out = snapshot.index;
            out.persist.push(Record::Snapshot(log, snapshot.clone()));
            unpersisted.snapshot = Some(snapshot);
            self.raft.mut_store().restore(ready.snapshot());
        }
        let entries = ready.take_entries();
        self.raft.mut_store().append(&entries);
        out.persist.extend(entries.into_iter().map(|entry| Record::Entry(log, message::entry_from_raft(entry))));
        let mut messages = ready.take_messages();
        messages.extend(ready.take_persisted_messages());
        let messages = messages.into_iter().filter_map(|raft| Message::from_raft(log, raft)).collect();
        let committed = ready.take_committed_entries();
        let reads = ready.take_read_states();
        (out.number, out.must_sync) = (number, !free);
        self.raft.advance_append_async(ready);

        self.finish_reads(reads, out);
        self.hold_or_send(unpersisted, messages, leads, out);
        self.take_committed(committed, out);
    }

    fn hold_or_send(&mut self, mut unpersisted: Unpersisted, messages: Vec<Message>, leads: bool, out: &mut Ready) {
        if unpersisted.free && self.outstanding.0.is_empty() {
            out.messages.extend(messages);
            self.raft.on_persist_ready(unpersisted.number);
            return;
        }
        if leads && !unpersisted.term_or_vote && !self.outstanding.has_term_or_vote() {
            out.messages.extend(messages);
        } else {
            unpersisted.messages = messages;
        }
        self.outstanding.0.push_back(unpersisted);
    }

    fn take_committed(&mut self, committed: Vec<eraftpb::Entry>, out: &mut Ready) {
        for entry in committed {
            let entry = message::entry_from_raft(entry);
            self.handed_out = entry.index;
            if entry.kind == EntryKind::ConfChange {
                out.voters = self.apply_conf_change(entry.index, &entry.data).or(out.voters.take());
            }
            out.committed.push(entry);
        }
    }

    /// `None` if the change is impossible, which every replica finds alike.
    fn apply_conf_change(&mut self, index: u64, data: &[u8]) -> Option<Voters> {
        let change = committed_change(data)?;
        let was_leader = self.leads();
        let voters = voters_from_raft(self.raft.apply_conf_change(&change).ok()?);
        self.raft.mut_store().voters_changed(index, voters.clone());
        if was_leader && !self.raft.raft.promotable() {
            let term = self.raft.raft.term;
            self.raft.raft.become_follower(term, raft::INVALID_ID);
        }
        self.after(was_leader, false);
        Some(voters)
    }

    /// The records of the [`Ready`] with this number, and of all before it, are durable.
    pub fn persisted(&mut self, number: u64) {
        let was_leader = self.leads();
        while let Some(unpersisted) = self.outstanding.pop_persisted(number) {
            self.raft.on_persist_ready(unpersisted.number);
            self.freed.extend(unpersisted.messages);
            // Only the last counts, and committed entries come after it.
            self.restored = unpersisted.snapshot.or(self.restored.take());
        }
        self.after(was_leader, false);
    }

    /// The state machine has applied everything up to `index`, a restored snapshot included.
    pub fn applied(&mut self, index: u64) {
        let log = &self.raft.raft.raft_log;
        let index = index.min(self.handed_out).min(log.committed).min(log.persisted);
        if index > log.applied {
            let was_leader = self.leads();
            self.raft.advance_apply_to(index);
            self.after(was_leader, false);
        }
    }

    /// Takes the state machine's state at `index` as the log's snapshot; its record comes out of the next `poll_ready`. Entries stay
    /// until [`Self::compact`].
    ///
    /// # Errors
    /// [`SnapshotError`] if `index` is not applied, not newer than the last one, or the data is too large.
    pub fn take_snapshot(&mut self, index: u64, data: Vec<u8>) -> Result<(), SnapshotError> {
        let applied = self.raft.raft.raft_log.applied;
        let have = self.raft.store().snapshot_index();
        if index > applied {
            return Err(SnapshotError::NotApplied { index, applied });
        }
        // A received snapshot on its way to disk must not be overtaken by the record of an older one.
        if index <= have || self.raft.snap().is_some() {
            return Err(SnapshotError::Old { index, have });
        }
        if data.len() > SNAPSHOT_MAX_BYTES {
            return Err(SnapshotError::TooLarge { bytes: data.len(), max: SNAPSHOT_MAX_BYTES });
        }
        self.raft.mut_store().set_snapshot(index, data);
        self.taken = Some(message::snapshot_from_raft(self.raft.store().latest_snapshot().clone()));
        Ok(())
    }

    /// Forgets entries up to `index`, but none after the latest snapshot. A follower that needs one of them is sent the snapshot, so
    /// some thousands are worth keeping.
    pub fn compact(&mut self, index: u64) {
        self.raft.mut_store().compact(index);
    }

    /// All records that make this log, as handed out so far, so that an idle log pins no old segment (S14). In one batch or in several,
    /// in this order; what is written afterwards follows them.
    #[must_use]
    pub fn rewrite(&self) -> Vec<Record> {
        let (log, store) = (self.options.log, self.raft.store());
        let mut records = vec![Record::Birth(log, self.options.id)];
        if store.snapshot_index() > 0 {
            records.push(Record::Snapshot(log, message::snapshot_from_raft(store.latest_snapshot().clone())));
        }
        records.push(Record::HardState(log, hard_state_from_raft(store.hard_state())));
        let entries = store.entries_after_snapshot().cloned();
        records.extend(entries.map(|entry| Record::Entry(log, message::entry_from_raft(entry))));
        records
    }

    /// The latest moment, on this replica's clock, at which one of the voters that elected it acknowledged an older term's leader; this
    /// replica is among them (S3). `None` if it does not lead or nobody ever did.
    #[must_use]
    pub fn older_term_acked_until(&self) -> Option<Mono> {
        self.older_term_acked_until.filter(|_| self.leads())
    }

    /// It leads, and an entry of its own term is committed and applied: what older terms committed is in the state too.
    #[must_use]
    pub fn leads_settled(&self) -> bool {
        let log = &self.raft.raft.raft_log;
        self.leads() && log.term(log.applied).unwrap_or(0) == self.raft.raft.term
    }

    #[must_use]
    pub fn leads(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }

    #[must_use]
    pub fn leader(&self) -> Option<RaftId> {
        Some(RaftId(self.raft.raft.leader_id)).filter(|id| id.0 != 0)
    }

    #[must_use]
    pub fn leadership(&self) -> Leadership {
        Leadership {
            term: self.raft.raft.term,
            role: match self.raft.raft.state {
                StateRole::Follower => ReplicaRole::Follower,
                StateRole::PreCandidate => ReplicaRole::PreCandidate,
                StateRole::Candidate => ReplicaRole::Candidate,
                StateRole::Leader => ReplicaRole::Leader,
            },
            leader: self.leader(),
        }
    }

    /// The voters of the applied log.
    #[must_use]
    pub fn voters(&self) -> &Voters {
        self.raft.store().voters()
    }

    #[must_use]
    pub fn status(&self) -> Status {
        let raft = &self.raft.raft;
        let peers = self.sorted_peers(|_| self.leads()).into_iter().filter(|id| *id != self.options.id.0);
        let peer = |id: u64| {
            let progress = raft.prs().get(id).expect("sorted_peers names peers");
            PeerProgress {
                id: RaftId(id),
                matched: progress.matched,
                active: progress.recent_active,
                behind: progress.state == raft::ProgressState::Snapshot,
            }
        };
        Status {
            id: self.options.id,
            leadership: self.leadership(),
            first: raft.raft_log.first_index(),
            last: raft.raft_log.last_index(),
            commit: raft.raft_log.committed,
            applied: raft.raft_log.applied,
            snapshot: self.raft.store().snapshot_index(),
            voters: self.voters().clone(),
            peers: peers.map(peer).collect(),
        }
    }

    fn sorted_peers(&self, which: impl Fn(&raft::Progress) -> bool) -> Vec<u64> {
        let mut ids: Vec<u64> = self.raft.raft.prs().iter().filter(|(_, progress)| which(progress)).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// raft-rs asserts both: a new leader's log is durable, and its snapshot is applied.
    fn may_campaign(&self) -> bool {
        let log = &self.raft.raft.raft_log;
        log.last_index() == log.persisted && log.applied + 1 >= log.first_index()
    }

    fn observe(&mut self, now: Mono) {
        self.now = self.now.max(now);
        if self.leads() {
            self.acks.note(self.raft.raft.term, self.now);
        }
    }

    /// After every call that may have changed the standing: our jitter instead of raft-rs's (S16), and what a new leader must know.
    fn after(&mut self, was_leader: bool, began_election: bool) {
        let raft = &mut self.raft.raft;
        let standing = (raft.term, raft.state as u8, raft.leader_id);
        let timeout = self.jitter.timeout(standing, began_election);
        if !plant::is(Bug::S16Jitter) {
            raft.set_randomized_election_timeout(timeout);
        }
        if !was_leader && raft.state == StateRole::Leader {
            let own = self.acks.before(raft.term);
            self.older_term_acked_until = self.grants.acked_until(raft.term, own);
        }
    }
}

fn hard_state_from_raft(raft: &eraftpb::HardState) -> HardState {
    HardState { term: raft.term, vote: raft.vote, commit: raft.commit }
}
