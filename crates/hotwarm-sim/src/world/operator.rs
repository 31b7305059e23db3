//! What a person does to a running cluster, and takes back: drains and pauses.

use hotwarm_core::group::input::Operator;
use hotwarm_core::group::state::Pause;
use hotwarm_core::node::Command;

use super::World;
use crate::event::N;
use crate::fault::{Healing, Kind, Target, Undo};
use crate::plan::CLOCK;

impl World {
    pub(super) fn strike_by_hand(&mut self, kind: Kind, n: N, lasts: u64) {
        let hot = self.hot_member();
        let (command, undo) = match (kind, hot) {
            (Kind::Drained, Some(m)) if self.rng.one_in(2) => {
                (self.of_group(CLOCK, Operator::Drain { member: self.members[m].id.clone() }), Undo::Drain(m))
            }
            (Kind::Drained, _) => (Command::Drain { node: self.machines[n].name.clone() }, Undo::DrainNode(n)),
            _ => (self.of_group(CLOCK, Operator::Pause), Undo::Pause(CLOCK)),
        };
        let at = self.victim(Target::Leader);
        self.command(at, command);
        self.later(lasts, Healing::Operator(undo));
    }

    pub(super) fn take_back(&mut self, undo: Undo) {
        let command = match undo {
            Undo::Drain(m) => self.of_group(self.members[m].group, Operator::Undrain { member: self.members[m].id.clone() }),
            Undo::DrainNode(n) => Command::Undrain { node: self.machines[n].name.clone() },
            Undo::Pause(group) => self.of_group(group, Operator::Resume { force: false }),
        };
        let at = self.victim(Target::Leader);
        self.command(at, command);
    }

    /// As the newest node knows them: by the time it is applied some of those lives may be over.
    pub(super) fn restart_members(&mut self, group: usize) {
        let states = self.machines.iter().filter_map(|m| m.agent.as_ref()).map(|node| node.state());
        let newest = states.max_by_key(|(_, applied)| *applied).and_then(|(cluster, _)| cluster.groups.get(&self.plan.groups[group].name));
        let Some(newest) = newest else { return };
        let lives = newest.members.iter().map(|(id, m)| (id.clone(), m.incarnation)).collect();
        let command = self.of_group(group, Operator::Restart { lives });
        let at = self.victim(Target::Leader);
        self.command(at, command);
    }

    /// A command may have been lost: at the end a person looks again.
    pub(super) fn take_all_back(&mut self) {
        let states = self.machines.iter().filter_map(|m| m.agent.as_ref()).map(|node| node.state());
        let Some((cluster, _)) = states.max_by_key(|(_, applied)| *applied) else { return };
        let mut left = Vec::new();
        for (g, spec) in self.plan.groups.iter().enumerate() {
            let Some(group) = cluster.groups.get(&spec.name) else { continue };
            let drained = group.members.iter().filter(|(_, member)| member.drained).filter_map(|(id, _)| self.numbers.get(id).copied());
            left.extend(drained.map(Undo::Drain));
            if group.pause == Pause::Paused {
                left.push(Undo::Pause(g));
            }
        }
        let nodes = cluster.nodes.iter().filter(|(_, node)| node.drained).filter_map(|(name, _)| self.names.get(name).copied());
        left.extend(nodes.map(Undo::DrainNode));
        left.into_iter().for_each(|undo| self.take_back(undo));
    }

    fn of_group(&self, group: usize, operator: Operator) -> Command {
        Command::Group { group: self.plan.groups[group].name.clone(), operator }
    }
}
