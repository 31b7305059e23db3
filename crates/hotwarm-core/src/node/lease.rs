//! Leases, both sides: the holder that counts one from before it asked, the landlord (the log's leader) that waits one out (S1 to S3).
//!
//! A lease belongs to a node and a session. What it covers, (group, epoch) pairs, is what the holder's state says at the grant's index
//! or later: once a fence is committed, no grant that carries a later index covers that pair.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cluster::{Cluster, Lease};
use crate::ids::{Index, Mono, NodeId, Session};
use crate::plant::{self, Bug};

/// How much faster than the landlord's a holder's clock may run: 1 in this many.
const DRIFT: u32 = 100;
/// For what happens between the lease's end and its effect.
const MARGIN: Duration = Duration::from_millis(20);
/// Renewals on their way, at most; older ones are forgotten.
const SENT_MAX: usize = 64;

/// How long the landlord waits from the arrival of the last renewal it answered (S2).
#[must_use]
pub fn wait(lease: Lease) -> Duration {
    let length = Duration::from_millis(lease.longest_ms);
    if plant::is(Bug::S2ShortWait) {
        return length / 2;
    }
    length + length / DRIFT + MARGIN
}

/// This node's own lease.
#[derive(Debug, Default)]
pub(crate) struct Holder {
    /// When each renewal was begun, and the lease's length then: the lease counts from before it was sent, and no longer than whoever
    /// answered it knew (S2).
    sent: BTreeMap<u64, (Mono, Duration)>,
    /// Grants that carry an index not yet applied.
    pending: Vec<(u64, Session, Index)>,
    until: Mono,
    session: Session,
}

impl Holder {
    pub(crate) fn asked(&mut self, number: u64, now: Mono, lease: Lease) {
        self.sent.insert(number, (now, Duration::from_millis(lease.length_ms)));
        while self.sent.len() > SENT_MAX {
            self.sent.pop_first();
        }
    }

    pub(crate) fn granted(&mut self, now: Mono, number: u64, session: Session, index: Index) {
        if plant::is(Bug::S2FromGrant)
            && let Some((sent, _)) = self.sent.get_mut(&number)
        {
            *sent = now;
        }
        if self.pending.len() < SENT_MAX {
            self.pending.push((number, session, index));
        }
    }

    /// Counts the grants whose index is applied. True if the lease's end moved.
    pub(crate) fn settle(&mut self, cluster: &Cluster, me: &NodeId, applied: Index) -> bool {
        let before = self.until;
        let Some(node) = cluster.nodes.get(me) else { return false };
        if !node.leased || node.session != self.session {
            // The session is over: whatever is left of its lease is not ours.
            self.until = Mono(0);
            self.session = node.session;
        }
        let length = Duration::from_millis(cluster.lease.length_ms);
        for (number, session, index) in std::mem::take(&mut self.pending) {
            if index > applied && !plant::is(Bug::S1NotApplied) {
                self.pending.push((number, session, index));
            } else if node.leased
                && session == node.session
                && let Some((sent, asked)) = self.sent.get(&number)
            {
                self.until = self.until.max(sent.plus(length.min(*asked)));
            }
        }
        self.until != before
    }

    pub(crate) const fn until(&self) -> Mono {
        self.until
    }
}

/// A renewal that waits for a read round, or for its answer.
#[derive(Clone, Debug)]
pub(crate) struct Renewal {
    pub(crate) node: NodeId,
    pub(crate) number: u64,
    pub(crate) session: Session,
    pub(crate) arrived: Mono,
}

/// The leader's side. It exists for one term of leadership and is made anew for the next.
#[derive(Debug)]
pub(crate) struct Landlord {
    /// The latest moment at which an older term's leader can have granted anything (S3).
    floor: Mono,
    /// When the sessions were first looked at.
    begun: Option<Mono>,
    waiting: Vec<Renewal>,
    rounds: BTreeMap<u64, Vec<Renewal>>,
    /// The arrival of the last renewal that was answered, and what was committed then.
    answered: BTreeMap<NodeId, (Mono, Index)>,
    /// Each node's newest session, and when this landlord first saw it: it is given time for a first renewal.
    seen: BTreeMap<NodeId, (Session, Mono)>,
    /// Told to the log as lapsed, the newest of each node: neither that session nor an older one is answered again in this term.
    lapsing: BTreeMap<NodeId, Session>,
}

impl Landlord {
    pub(crate) const fn new(floor: Mono) -> Self {
        Self {
            floor,
            begun: None,
            waiting: Vec::new(),
            rounds: BTreeMap::new(),
            answered: BTreeMap::new(),
            seen: BTreeMap::new(),
            lapsing: BTreeMap::new(),
        }
    }

    pub(crate) fn renewal(&mut self, renewal: Renewal) {
        // Only a node's newest renewal is worth an answer.
        self.waiting.retain(|r| r.node != renewal.node);
        self.waiting.push(renewal);
    }

    /// True if a round is to be begun; one at a time, so that a burst of renewals costs one.
    pub(crate) fn wants_round(&self) -> bool {
        !self.waiting.is_empty() && self.rounds.len() < 2
    }

    pub(crate) fn begin_round(&mut self, context: u64) {
        self.rounds.insert(context, std::mem::take(&mut self.waiting));
    }

    pub(crate) fn drop_round(&mut self, context: u64) {
        self.rounds.remove(&context);
    }

    /// The renewals of a confirmed round that may be answered: leadership was held after each of them arrived.
    pub(crate) fn confirmed(&mut self, context: u64, index: Index) -> Vec<Renewal> {
        let renewals = self.rounds.remove(&context).unwrap_or_default();
        let over = |r: &Renewal| self.lapsing.get(&r.node).is_some_and(|last| r.session <= *last);
        let granted: Vec<Renewal> = renewals.into_iter().filter(|r| !over(r)).collect();
        for renewal in &granted {
            let (last, known) = self.answered.entry(renewal.node.clone()).or_default();
            (*last, *known) = (renewal.arrived.max(*last), index.max(*known));
        }
        granted
    }

    /// Nothing after it was in the node's state when it asked for what it was last granted.
    pub(crate) fn known_to(&self, node: &NodeId) -> Index {
        self.answered.get(node).map(|(_, known)| *known).unwrap_or_default()
    }

    /// When the session's lease will have been waited out, and it had `grace` to renew under this landlord.
    pub(crate) fn lapses_at(&mut self, node: &NodeId, session: Session, lease: Lease, now: Mono, grace: Duration) -> Mono {
        let last = self.answered.get(node).map(|(last, _)| *last).unwrap_or_default().max(self.floor);
        let begun = *self.begun.get_or_insert(now);
        let newest = self.seen.entry(node.clone()).or_insert((session, now));
        if newest.0 != session {
            *newest = (session, now);
        }
        let seen = newest.1;
        // A session that began in this term is new to its node too, which may take long to apply it.
        let grace = if seen > begun { grace.max(wait(lease)) } else { grace };
        last.plus(wait(lease)).max(seen.plus(grace))
    }

    /// From now on that session is not renewed; its lapse may be told to the log.
    pub(crate) fn lapse(&mut self, node: &NodeId, session: Session) {
        self.lapsing.insert(node.clone(), session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Body;
    use crate::ids::Millis;

    const LEASE: Lease = Lease { length_ms: 1000, longest_ms: 1000, since: Millis(0) };

    fn at(ms: u64) -> Mono {
        Mono(ms * 1000)
    }

    fn renewal(node: &str, number: u64, ms: u64) -> Renewal {
        Renewal { node: node.into(), number, session: Session(1), arrived: at(ms) }
    }

    #[test]
    fn s1_a_renewal_is_answered_only_by_a_round_begun_after_it_arrived() {
        let mut landlord = Landlord::new(at(0));
        landlord.renewal(renewal("a", 1, 10));
        landlord.begin_round(1);
        landlord.renewal(renewal("b", 1, 20));
        let answered: Vec<_> = landlord.confirmed(1, Index(0)).into_iter().map(|r| r.node).collect();
        assert_eq!(answered, [NodeId::from("a")]);
        assert!(landlord.wants_round());
    }

    #[test]
    fn s2_the_wait_counts_from_the_last_answered_renewal_and_exceeds_the_lease() {
        let mut landlord = Landlord::new(at(0));
        landlord.renewal(renewal("a", 1, 500));
        landlord.begin_round(1);
        landlord.confirmed(1, Index(0));
        landlord.renewal(renewal("a", 2, 900));
        assert_eq!(landlord.lapses_at(&"a".into(), Session(1), LEASE, at(0), Duration::ZERO), at(500).plus(wait(LEASE)));
        assert!(wait(LEASE) > Duration::from_millis(1000));
    }

    #[test]
    fn s3_a_new_leader_counts_from_what_its_electors_last_acknowledged() {
        let mut landlord = Landlord::new(at(700));
        assert_eq!(landlord.lapses_at(&"a".into(), Session(1), LEASE, at(0), Duration::ZERO), at(700).plus(wait(LEASE)));
    }

    #[test]
    fn a_session_that_began_in_this_term_is_given_the_time_of_a_lease_and_an_older_one_its_grace() {
        let (a, grace) = (NodeId::from("a"), Duration::from_millis(300));
        let mut landlord = Landlord::new(at(0));
        assert_eq!(landlord.lapses_at(&a, Session(1), LEASE, at(900), grace), at(1200), "it may not know yet who leads");
        assert_eq!(
            landlord.lapses_at(&a, Session(2), LEASE, at(5000), grace),
            at(5000).plus(wait(LEASE)),
            "it may not have applied it yet"
        );
        assert_eq!(landlord.lapses_at(&a, Session(2), LEASE, at(5500), grace), at(5000).plus(wait(LEASE)), "looking again gives no more");
    }

    #[test]
    fn a_session_that_is_lapsing_is_not_renewed() {
        let mut landlord = Landlord::new(at(0));
        landlord.renewal(renewal("a", 1, 500));
        landlord.begin_round(1);
        landlord.lapse(&"a".into(), Session(1));
        assert!(landlord.confirmed(1, Index(0)).is_empty());
        landlord.renewal(Renewal { session: Session(2), ..renewal("a", 2, 600) });
        landlord.begin_round(2);
        assert_eq!(landlord.confirmed(2, Index(0)).len(), 1, "the next one is");
    }

    #[test]
    fn of_a_node_that_comes_and_goes_only_the_newest_session_is_kept() {
        let (a, mut landlord) = (NodeId::from("a"), Landlord::new(at(0)));
        for session in 1..=100 {
            landlord.lapses_at(&a, Session(session), LEASE, at(session), Duration::ZERO);
            landlord.lapse(&a, Session(session));
        }
        assert_eq!((landlord.seen.len(), landlord.lapsing.len()), (1, 1));
    }

    fn apply(cluster: &mut Cluster, body: Body) {
        let item = crate::cluster::Item { origin: None, body };
        cluster.apply(&crate::cluster::Entry { at: Millis(1), wall_ms: 0, items: vec![item] });
    }

    fn spec(lease_ms: u64) -> Box<crate::cluster::ClusterSpec> {
        let node = crate::cluster::NodeSpec { address: ([127, 0, 0, 1], 1).into(), votes: true, witness: false, zone: String::new() };
        let (nodes, groups) = ([("a".into(), node)].into(), BTreeMap::new());
        Box::new(crate::cluster::ClusterSpec { name: "x".into(), lease_ms, nodes, groups, text: String::new() })
    }

    /// The node `a` in its first session.
    fn leased() -> Cluster {
        let mut cluster = Cluster::empty();
        apply(&mut cluster, Body::Found { cluster: 1, spec: spec(1000), node: "a".into(), incarnation: 1 });
        apply(&mut cluster, Body::Back { node: "a".into(), session: Session(0) });
        cluster
    }

    #[test]
    fn s2_a_grant_counts_for_no_longer_than_a_lease_was_when_it_was_asked_for() {
        let (mut cluster, me, mut holder) = (leased(), NodeId::from("a"), Holder::default());
        holder.asked(1, at(100), cluster.lease);
        apply(&mut cluster, Body::Configure { spec: spec(5000), revision: 1 });
        holder.granted(at(900), 1, Session(1), Index(9));
        holder.settle(&cluster, &me, Index(9));
        assert_eq!(holder.until(), at(1100), "who answered it may have waited it out before the longer one was agreed on");
        holder.asked(2, at(200), cluster.lease);
        apply(&mut cluster, Body::Configure { spec: spec(2000), revision: 2 });
        holder.granted(at(900), 2, Session(1), Index(9));
        holder.settle(&cluster, &me, Index(9));
        assert_eq!(holder.until(), at(2200), "a decrease counts at once");
    }

    #[test]
    fn s1_a_grant_counts_only_once_its_index_is_applied_and_only_for_the_session_in_force() {
        let mut cluster = leased();
        let (me, mut holder) = (NodeId::from("a"), Holder::default());
        holder.asked(1, at(100), LEASE);
        holder.granted(at(100), 1, Session(1), Index(9));
        holder.settle(&cluster, &me, Index(8));
        assert_eq!(holder.until(), Mono(0));
        holder.settle(&cluster, &me, Index(9));
        assert_eq!(holder.until(), at(1100), "counted from before it was sent");
        apply(&mut cluster, Body::Lapsed { node: "a".into(), session: Session(1) });
        holder.settle(&cluster, &me, Index(10));
        assert_eq!(holder.until(), Mono(0));
        holder.asked(2, at(200), LEASE);
        holder.granted(at(200), 2, Session(1), Index(9));
        holder.settle(&cluster, &me, Index(10));
        assert_eq!(holder.until(), Mono(0), "a grant of the session that is over");
    }
}
