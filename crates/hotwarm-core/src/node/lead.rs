//! What a node does only while it leads the log: stamps time, answers renewals, notices silence and lapses, tends the voters.

use std::collections::BTreeMap;
use std::time::Duration;

use super::lease::{Landlord, Renewal};
use super::{Message, Node};
use crate::cluster::Body;
use crate::consensus::{Change, ConfChange};
use crate::ids::{Index, Millis, Mono, NodeId, RaftId};
use crate::plant::{self, Bug};

/// A phi of 8: one wrong suspicion in 10^8 heartbeats of the usual spread.
pub(crate) const PHI: f64 = 8.0;
/// A report that is not seen in the state by then is sent again.
pub(crate) const AGAIN: Duration = Duration::from_millis(200);
/// A node that lapsed is taken back after so many heartbeats in a row.
const BEATS_TO_RETURN: u32 = 3;

const LOG_HEARTBEAT: u32 = crate::consensus::HEARTBEAT_TICKS as u32;

/// Exists while this node leads.
#[derive(Debug)]
pub(crate) struct Lead {
    /// The term it leads in. Another one makes all of this anew, even if no moment without leadership was noticed between the two.
    term: u64,
    pub(crate) landlord: Landlord,
    /// Log time at a moment of our clock (S18).
    base: (Millis, Mono),
    next_round: u64,
    /// No lease lapses before this, as things stand after so many changes of the state; and when the log's next timer is due.
    next_lapse: Mono,
    timer: Option<Millis>,
    timers_of: Option<u64>,
    /// Heartbeats in a row of nodes that hold no lease.
    returning: BTreeMap<NodeId, u32>,
    handed_over_at: Option<Mono>,
    since: Mono,
    /// When each node last answered something of the log's.
    acknowledged: BTreeMap<NodeId, Mono>,
}

impl Node {
    pub(super) fn on_leadership(&mut self) {
        self.reported.clear();
        let Some(replica) = &self.replica else { return };
        if !replica.leads() {
            self.lead = None;
            return;
        }
        let term = replica.leadership().term;
        if self.lead.as_ref().is_some_and(|lead| lead.term == term) {
            return;
        }
        // S3: an older leader can have granted nothing after the electors last acknowledged it.
        let floor = replica.older_term_acked_until().filter(|_| !plant::is(Bug::S3NoFloor)).unwrap_or(Mono(0));
        self.lead = Some(Lead {
            term,
            landlord: Landlord::new(floor),
            base: (self.log_now(), self.now),
            // No answer to a round of another term is taken for one of this.
            next_round: (term << 32) + 1,
            next_lapse: self.now,
            timer: None,
            timers_of: None,
            returning: BTreeMap::new(),
            handed_over_at: None,
            since: self.now,
            acknowledged: BTreeMap::new(),
        });
        if let (false, Some((id, spec))) = (self.cluster.founded(), self.options.found.clone()) {
            let (node, incarnation) = (self.options.me.clone(), self.options.incarnation);
            self.propose(Body::Found { cluster: id, spec: Box::new(spec), node, incarnation });
        }
    }

    /// S18: the last applied time and what has passed since; `None` if this node does not lead.
    pub(super) fn stamp(&mut self) -> Option<Millis> {
        let (now, at) = (self.now, self.cluster.at);
        let lead = self.lead.as_mut()?;
        if plant::is(Bug::S18OwnClock) {
            return Some(Millis(now.0 / 1000));
        }
        let passed = u64::try_from(now.since(lead.base.1).as_millis()).unwrap_or(u64::MAX);
        let stamp = lead.base.0.plus(passed);
        if at > stamp {
            lead.base = (at, now);
        }
        Some(stamp.max(at))
    }

    /// Some of it goes with the log's heartbeat, when that is sent: a read round of its own would double the messages.
    pub(super) fn tend_lead(&mut self, beats: bool) {
        if self.lead.is_none() {
            return;
        }
        self.log_timer();
        self.log_lapses();
        if !beats {
            return;
        }
        self.begin_read_round();
        self.log_silence();
        self.tend_voters();
        self.raise_behaviour();
        self.hand_over();
    }

    /// When [`Self::tend_lead`] is next to do something that no tick of the log's own brings.
    pub(super) fn lead_due(&self) -> Option<Mono> {
        let lead = self.lead.as_ref()?;
        if lead.timers_of != Some(self.changes) {
            return Some(Mono(0));
        }
        let timer = lead.timer.map(|due| lead.base.1.plus(Duration::from_millis(due.since(lead.base.0))));
        Some(lead.next_lapse.min(timer.unwrap_or(lead.next_lapse)))
    }

    fn log_timer(&mut self) {
        let Some(lead) = &mut self.lead else { return };
        if lead.timers_of != Some(self.changes) {
            lead.timers_of = Some(self.changes);
            lead.timer = self.cluster.next_deadline();
        }
        let Some(due) = lead.timer else { return };
        if self.stamp().is_some_and(|stamp| stamp >= due) {
            self.propose_once(Body::Timer, Duration::from_millis(50));
        }
    }

    /// Leases that were waited out (S2). From here on the session is not renewed.
    fn log_lapses(&mut self) {
        let Some(lead) = &mut self.lead else { return };
        if !self.replica.as_ref().is_some_and(crate::consensus::Replica::leads_settled) {
            // What an older term committed may lengthen leases, and is not in our state yet.
            lead.next_lapse = self.now.plus(self.options.tick);
            return;
        }
        // Two heartbeats, and two of the log's: a renewal waits for one of those.
        let grace = (self.options.heartbeat + self.options.tick * LOG_HEARTBEAT) * 2;
        let mut lapsed = Vec::new();
        lead.next_lapse = Mono(u64::MAX);
        for (name, node) in self.cluster.nodes.iter().filter(|(_, n)| n.leased) {
            let at = lead.landlord.lapses_at(name, node.session, self.cluster.lease, self.now, grace);
            lead.next_lapse = lead.next_lapse.min(at);
            // S2: what its holder had applied when it asked may have made the lease longer, and is not in our state while our disk stalls.
            if self.now >= at && self.applied >= lead.landlord.known_to(name) {
                lead.landlord.lapse(name, node.session);
                lapsed.push(Body::Lapsed { node: name.clone(), session: node.session });
            }
        }
        for body in lapsed {
            self.propose_once(body, AGAIN);
        }
    }

    fn log_silence(&mut self) {
        if self.health.abstains(self.now) {
            return;
        }
        let mut heard = Vec::new();
        for (name, node) in self.cluster.nodes.iter().filter(|(_, n)| n.leased) {
            // A leader before us may have found us silent: we are not.
            let silent = *name != self.options.me && self.peers.silent(name, self.now);
            if silent && !node.silent {
                heard.push(Body::Silent { node: name.clone(), session: node.session });
            } else if !silent && node.silent {
                heard.push(Body::Heard { node: name.clone(), session: node.session });
            }
        }
        for body in heard {
            self.propose_once(body, AGAIN);
        }
    }

    /// A renewal arrived, from a peer or from this node itself.
    pub(super) fn on_renewal(&mut self, renewal: Renewal, renew: bool) {
        let Some(lead) = &mut self.lead else { return };
        let Some(node) = self.cluster.nodes.get(&renewal.node) else { return };
        // One that is heard and hears nobody could use no lease, and its lapse is what lets another serve in its place.
        let patience = Duration::from_millis(self.cluster.lease.length_ms) / 2;
        let answers = lead.acknowledged.get(&renewal.node).copied().unwrap_or(lead.since);
        let hears = renewal.node == self.options.me || self.now.since(answers) < patience;
        if !renew || !hears {
            lead.returning.remove(&renewal.node);
            return;
        }
        if node.leased {
            lead.returning.remove(&renewal.node);
            if renewal.session == node.session {
                if plant::is(Bug::S1NoRound) {
                    return self.grant_unheld(&renewal);
                }
                lead.landlord.renewal(renewal);
            }
            return;
        }
        let beats = lead.returning.entry(renewal.node.clone()).or_default();
        *beats += 1;
        // The first lease of a session that never was needs no caution.
        if *beats >= BEATS_TO_RETURN || node.session.0 == 0 {
            let body = Body::Back { node: renewal.node.clone(), session: node.session };
            self.propose_once(body, AGAIN);
        }
    }

    /// A follower answered: what this node sends reaches it.
    pub(super) fn on_acknowledged(&mut self, from: &NodeId) {
        if let Some(lead) = &mut self.lead {
            lead.acknowledged.insert(from.clone(), self.now);
        }
    }

    /// What must never be done (S1): it is reached only with a bug planted on purpose.
    fn grant_unheld(&mut self, renewal: &Renewal) {
        let index = self.applied;
        if renewal.node == self.options.me {
            self.holder.granted(self.now, renewal.number, renewal.session, index);
        } else {
            self.send(&renewal.node, Message::Grant { number: renewal.number, session: renewal.session, index });
        }
    }

    fn begin_read_round(&mut self) {
        let (Some(lead), Some(replica)) = (&mut self.lead, &mut self.replica) else { return };
        if !lead.landlord.wants_round() {
            return;
        }
        let context = lead.next_round;
        if replica.read_index(context).is_ok() {
            lead.next_round += 1;
            lead.landlord.begin_round(context);
        }
    }

    /// S1: leadership was held after these renewals arrived.
    pub(super) fn on_read_confirmed(&mut self, context: u64, index: Index) {
        let Some(lead) = &mut self.lead else { return };
        for renewal in lead.landlord.confirmed(context, index) {
            if renewal.node == self.options.me {
                self.holder.granted(self.now, renewal.number, renewal.session, index);
            } else {
                self.send(&renewal.node, Message::Grant { number: renewal.number, session: renewal.session, index });
            }
        }
    }

    pub(super) fn on_read_failed(&mut self, context: u64) {
        if let Some(lead) = &mut self.lead {
            lead.landlord.drop_round(context);
        }
    }

    /// S11: a node without a number gets one; then it is told.
    pub(super) fn on_hello(&mut self, from: &NodeId, cluster: Option<u128>, name: &str, incarnation: u128, behaviour: u32) {
        if self.lead.is_none() || !self.cluster.founded() {
            return;
        }
        if name != self.cluster.name || cluster.is_some_and(|id| id != self.cluster.id) {
            return self.alarm_other_cluster(from);
        }
        let Some(node) = self.cluster.nodes.get(from) else {
            return self.alarm("HW0307", format!("node {from} is not in the configuration; add it by `hotwarm apply`"));
        };
        if behaviour < self.cluster.behaviour {
            let (has, needs) = (behaviour, self.cluster.behaviour);
            return self.alarm("HW0310", format!("node {from} has behaviour {has} and {needs} is in force; upgrade its program"));
        }
        let known = node.raft_id.filter(|_| node.incarnation == incarnation);
        if known.is_some() && node.behaviour != behaviour {
            // Another program: what it supports is known to all before anything is raised (S17).
            self.propose_once(Body::Admit { node: from.clone(), incarnation, behaviour }, AGAIN);
        }
        match known {
            Some(raft_id) => self.send(from, Message::Welcome { cluster: self.cluster.id, incarnation, raft_id }),
            None => self.propose_once(Body::Admit { node: from.clone(), incarnation, behaviour }, AGAIN),
        }
    }

    /// One change of the voters at a time: who is new learns, who has learnt votes, numbers that belong to nobody leave.
    fn tend_voters(&mut self) {
        let Some(replica) = &self.replica else { return };
        let status = replica.status();
        let (voters, learners) = (&status.voters.voters, &status.voters.learners);
        if !status.voters.outgoing.is_empty() {
            return;
        }
        let known: Vec<(RaftId, bool)> = self.cluster.nodes.values().filter_map(|n| n.raft_id.map(|id| (id, n.spec.votes))).collect();
        let stray = |id: &&u64| !known.iter().any(|(known, _)| known.0 == **id);
        let strays: Vec<RaftId> = voters.iter().chain(learners).filter(stray).map(|id| RaftId(*id)).collect();
        let caught_up = |id: RaftId| status.peers.iter().any(|p| p.id == id && p.active && p.matched >= status.commit);
        let change = if let Some((id, _)) = known.iter().find(|(id, _)| !voters.contains(&id.0) && !learners.contains(&id.0)) {
            Some(ConfChange::Simple(Change::AddLearner(*id)))
        } else if let Some((id, _)) = known.iter().find(|(id, votes)| *votes && learners.contains(&id.0) && caught_up(*id)) {
            // The new takes the place of what belongs to nobody, in one step: at no time are there fewer voters.
            let mut changes = vec![Change::AddVoter(*id)];
            changes.extend(strays.iter().map(|id| Change::Remove(*id)));
            Some(if changes.len() == 1 { ConfChange::Simple(changes.remove(0)) } else { ConfChange::Joint(changes) })
        } else if let Some(id) = strays.first().filter(|_| !known.iter().any(|(id, votes)| *votes && learners.contains(&id.0))) {
            Some(ConfChange::Simple(Change::Remove(*id)))
        } else {
            let demoted = known.iter().find(|(id, votes)| !*votes && voters.contains(&id.0));
            demoted.map(|(id, _)| ConfChange::Simple(Change::AddLearner(*id)))
        };
        if let (Some(change), Some(replica)) = (change, &mut self.replica) {
            // Refused while another change is under way: looked at again in a moment.
            let _ = replica.propose_conf_change(&change, &[]);
        }
    }

    /// S17: in force is what every node's program has, this one's included.
    fn raise_behaviour(&mut self) {
        let (me, mine) = (&self.options.me, self.options.behaviour);
        if let Some(node) = self.cluster.nodes.get(me).filter(|n| n.raft_id.is_some() && n.behaviour < mine) {
            let (node, incarnation) = (me.clone(), node.incarnation);
            return self.propose_once(Body::Admit { node, incarnation, behaviour: mine }, AGAIN);
        }
        let supported = self.cluster.nodes.values().filter(|n| n.raft_id.is_some()).map(|n| n.behaviour);
        let version = if plant::is(Bug::S17TooEarly) { supported.max() } else { supported.min() }.unwrap_or(0);
        if self.cluster.founded() && version > self.cluster.behaviour {
            self.propose_once(Body::Behaviour { version }, AGAIN);
        }
    }

    /// A witness leads only to bring another level (S19); a node with a stalled disk leads no longer than it must.
    fn hand_over(&mut self) {
        let witness = self.cluster.nodes.get(&self.options.me).is_some_and(|n| n.spec.witness);
        if (witness && !plant::is(Bug::S19WitnessLeads)) || self.health.abstains(self.now) {
            self.step_down();
        }
    }

    /// Hands leadership to the data voter that has the whole log, if there is one.
    pub(super) fn step_down(&mut self) {
        let (Some(replica), Some(lead)) = (&mut self.replica, &mut self.lead) else { return };
        if lead.handed_over_at.is_some_and(|at| self.now.since(at) < Duration::from_secs(1)) {
            return;
        }
        let status = replica.status();
        let data_voter = |id: RaftId| {
            let node = self.cluster.nodes.values().find(|n| n.raft_id == Some(id));
            node.is_some_and(|n| n.spec.votes && !n.spec.witness && !n.silent)
        };
        let level = status.peers.iter().filter(|p| p.active && p.matched >= status.commit && data_voter(p.id));
        if let Some(best) = level.max_by_key(|p| (p.matched, std::cmp::Reverse(p.id))) {
            lead.handed_over_at = Some(self.now);
            // Refused only if the voters changed in this very moment: tried again in a second.
            let _ = replica.transfer_leader(best.id);
        }
    }
}
