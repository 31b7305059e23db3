//! S2: when the log says that a session's lease was waited out, its holder honours it no more, in true time.

use hotwarm_core::ids::{NodeId, Session};

use crate::event::N;
use crate::plan::Plan;

#[derive(Debug)]
pub(super) struct Leases {
    /// Of each node: the session and the end, in true time, of the lease that its router honours.
    held: Vec<Option<(Session, u64)>>,
}

impl Leases {
    pub(super) fn new(plan: &Plan) -> Self {
        Self { held: vec![None; plan.names.len()] }
    }

    pub(super) fn told(&mut self, n: N, session: Option<Session>, until: u64) {
        self.held[n] = session.map(|session| (session, until));
    }

    pub(super) fn ended(&mut self, n: N) {
        self.held[n] = None;
    }

    pub(super) fn lapsed(&self, now: u64, n: N, node: &NodeId, session: Session) -> Option<String> {
        let (held, until) = self.held[n]?;
        (held == session && until > now)
            .then(|| format!("the lease of node {node} in session {session} lapsed {} us before its holder lets go", until - now))
    }
}
