//! S17: no node decides by a behaviour that its program does not have.

use hotwarm_core::cluster::Cluster;

use crate::event::N;

#[derive(Debug)]
pub(super) struct Versions {
    /// The newest behaviour of each node's program.
    programs: Vec<u32>,
}

impl Versions {
    pub(super) fn new(nodes: usize) -> Self {
        Self { programs: vec![0; nodes] }
    }

    pub(super) fn started(&mut self, n: N, behaviour: u32) {
        self.programs[n] = behaviour;
    }

    pub(super) fn applied(&self, n: N, cluster: &Cluster) -> Option<String> {
        let (has, in_force) = (self.programs[n], cluster.behaviour);
        (in_force > has).then(|| format!("behaviour {in_force} is in force at node {n}, whose program has {has}"))
    }
}
