//! What must hold at every moment of true time, one rule a file. The world tells what happens; the first broken rule ends the run.
//!
//! They look from outside: at what was sent, kept, answered, never at what a node believes of itself, except where that is the rule.

mod acknowledged;
mod agreement;
mod alarms;
mod elections;
mod fail_static;
mod grants;
mod leases;
mod lives;
mod log;
mod one_serves;
mod quiet;
mod reasonable;
mod reasons;
mod segments;
mod versions;

use std::collections::BTreeSet;

use hotwarm_core::cluster::{Event, What};
use hotwarm_core::consensus::{ReplicaRole, Status};
use hotwarm_core::ids::{Epoch, GroupName, Index, NodeId, Session};
use hotwarm_core::node::Node;
use hotwarm_core::route::Routes;
use hotwarm_core::wal::Record;

use crate::event::{M, N};
use crate::machine::Machine;
use crate::member::Member;
use crate::plan::Plan;
use crate::router::Request;

/// A rule that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub rule: &'static str,
    pub text: String,
}

/// All rules of a run.
#[derive(Debug)]
pub struct Checks {
    violation: Option<Violation>,
    one_serves: one_serves::OneServes,
    acknowledged: acknowledged::Acknowledged,
    agreement: agreement::Agreement,
    elections: elections::Elections,
    grants: grants::Grants,
    leases: leases::Leases,
    lives: lives::Lives,
    log: log::Log,
    quiet: quiet::Quiet,
    fail_static: fail_static::FailStatic,
    reasonable: reasonable::Reasonable,
    segments: segments::Segments,
    versions: versions::Versions,
    applied: Vec<u64>,
    exclusive: BTreeSet<GroupName>,
}

impl Checks {
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let nodes = plan.names.len();
        Self {
            violation: None,
            one_serves: one_serves::OneServes::new(plan),
            acknowledged: acknowledged::Acknowledged::new(plan),
            agreement: agreement::Agreement::default(),
            elections: elections::Elections::default(),
            grants: grants::Grants::new(nodes),
            leases: leases::Leases::new(plan),
            lives: lives::Lives::default(),
            log: log::Log::new(nodes),
            quiet: quiet::Quiet::new(plan.faults.is_empty()),
            fail_static: fail_static::FailStatic::new(plan),
            reasonable: reasonable::Reasonable::new(nodes),
            segments: segments::Segments::new(nodes),
            versions: versions::Versions::new(nodes),
            applied: vec![0; nodes],
            exclusive: plan.groups.iter().filter(|g| g.exclusive).map(|g| g.name.clone()).collect(),
        }
    }

    #[must_use]
    pub const fn broken(&self) -> bool {
        self.violation.is_some()
    }

    pub const fn take(&mut self) -> Option<Violation> {
        self.violation.take()
    }

    pub fn fail(&mut self, rule: &'static str, text: String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { rule, text });
        }
    }

    fn check(&mut self, rule: &'static str, broken: Option<String>) {
        if let Some(text) = broken {
            self.fail(rule, text);
        }
    }

    /// The agent of a node began a new life.
    pub fn started(&mut self, n: N, behaviour: u32) {
        self.applied[n] = 0;
        self.versions.started(n, behaviour);
        self.log.started(n);
        self.segments.started(n);
    }

    /// The agent of a node ended: it honours no lease any more.
    pub fn ended(&mut self, n: N) {
        self.leases.ended(n);
        self.grants.ended(n);
        self.fail_static.ended(n);
    }

    /// A node's directory is gone.
    pub fn forgot(&mut self, n: N) {
        self.log.forgot(n);
        self.acknowledged.copy_lost();
    }

    /// After everything that a node was given.
    pub fn observe(&mut self, _now: u64, n: N, node: &Node) {
        if let Some((id, leadership)) = node.leadership() {
            if leadership.role == ReplicaRole::Leader {
                self.grants.leads(n);
            }
            let broken = self.elections.observe(id, leadership);
            self.check("one leader a term", broken);
        }
        let (cluster, applied) = node.state();
        if applied.0 == self.applied[n] {
            return;
        }
        self.applied[n] = applied.0;
        let broken = self.agreement.applied(n, applied, cluster);
        self.check("same index, same state", broken);
        let broken = self.lives.applied(applied, cluster);
        self.check("S4 lives only follow each other", broken);
        let broken = self.versions.applied(n, cluster);
        self.check("S17 every program has what is in force", broken);
        let broken = self.reasonable.applied(n, applied, cluster);
        self.check("S9, S10 no failover without cause", broken);
    }

    pub fn records(&mut self, n: N, records: &[Record]) {
        let broken = self.log.persisted(n, records);
        self.check("log", broken);
    }

    pub fn lease(&mut self, n: N, session: Option<Session>, until: u64) {
        self.leases.told(n, session, until);
    }

    /// A message came to a node.
    pub fn delivered(&mut self, n: N, bytes: &[u8]) {
        self.grants.delivered(n, bytes);
    }

    /// A node's lease ends later than before.
    pub fn lease_grew(&mut self, n: N, applied: Index, leads: bool) {
        let broken = self.grants.grew(n, applied, leads);
        self.check("S1 grants count once applied", broken);
    }

    /// New events of the log, as a node applies them.
    pub fn events(&mut self, now: u64, _n: N, machines: &[Machine], events: &[Event]) {
        for event in events {
            if let What::Lapsed { node, session } = &event.what
                && let Some(holder) = machines.iter().position(|m| m.name == *node)
            {
                let broken = self.leases.lapsed(now, holder, node, *session);
                self.check("S2 lapsed leases are not honoured", broken);
            }
        }
        let broken = reasons::check(events, |group| self.exclusive.contains(group));
        self.check("every decision has a reason", broken);
        let broken = self.quiet.events(events);
        self.check("no failover without a fault", broken);
    }

    /// A sync of a node ended, and its replica has not heard of it.
    pub fn in_flight(&mut self, n: N, status: &Status) {
        let broken = self.segments.in_flight(n, status);
        self.check("S14 what is in flight is bounded", broken);
    }

    /// A node writes forward the logs that hold its oldest segment, to this one or later ones.
    pub fn forward(&mut self, n: N, current: usize) {
        self.segments.forward(n, current);
    }

    /// All that a node wrote is synced, and what nobody needs is gone: the oldest segment that takes room, and the newest.
    pub fn tidied(&mut self, n: N, oldest: usize, current: usize) {
        let broken = self.segments.tidied(n, oldest, current);
        self.check("S14 idle logs pin nothing", broken);
    }

    pub fn alarm(&mut self, node: &NodeId, code: &'static str, text: &str) {
        let broken = alarms::check(node, code, text);
        self.check("no alarm", broken);
    }

    /// A router has a new table.
    pub fn switched(&mut self, now: u64, n: N, group: usize, routes: &Routes) {
        let broken = self.fail_static.switched(now, n, group, routes);
        self.check("S10 hot-hot goes on", broken);
    }

    /// A member with state executed a request in its hot role.
    pub fn executed(&mut self, _now: u64, m: M, group: usize, epoch: Epoch) {
        let broken = self.one_serves.executed(m, group, epoch);
        self.check("S22 one serves", broken);
    }

    /// A router gave a reply to its client.
    pub fn released(&mut self, now: u64, _n: N, m: M, request: &Request) {
        let broken = self.one_serves.released(now, m, request);
        self.check("S22 one serves", broken);
        self.acknowledged.released(request);
    }

    /// An engine made a member hot.
    pub fn became_hot(&mut self, now: u64, m: M, epoch: Epoch, members: &[Member], machines: &[Machine]) {
        let broken = self.one_serves.became_hot(now, m, epoch, members, machines);
        self.check("S22 one serves", broken);
        let broken = self.acknowledged.became_hot(m, members);
        self.check("no acknowledged write is lost", broken);
    }
}
