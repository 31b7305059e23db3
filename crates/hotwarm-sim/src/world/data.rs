//! The data of a group whose engine replicates it: the hot member sends its log, W others acknowledge, a returning one is rewound.
//!
//! Entries are numbers that stand for one execution each, so two logs with the same entry at a position are alike up to there.

use std::rc::Rc;

use hotwarm_core::ids::{Epoch, Role};

use super::World;
use crate::event::{Event, M};
use crate::plan::MS;
use crate::router::Request;

/// Whoever is behind is sent the log again after this.
const AGAIN_US: u64 = 100 * MS;

impl World {
    /// A write was executed; it is answered when W others have it.
    pub(super) fn write(&mut self, m: M, request: Request) {
        let member = &mut self.members[m];
        member.data.log.push(request.entry);
        let position = member.data.log.len();
        let Some(program) = &mut member.program else { return };
        program.waiting.push_back((position, request));
        self.send_log(m);
        self.acknowledge(m);
    }

    fn followers(&self, hot: M) -> impl Iterator<Item = M> {
        let group = self.members[hot].group;
        (0..self.members.len()).filter(move |m| *m != hot && self.members[*m].group == group)
    }

    /// To each follower what it is not known to have.
    fn send_log(&mut self, hot: M) {
        let followers: Vec<M> = self.followers(hot).collect();
        for to in followers {
            let (from_n, to_n) = (self.members[hot].node, self.members[to].node);
            if !self.net.passes(from_n, to_n) {
                continue;
            }
            let member = &self.members[hot];
            let Some(program) = &member.program else { return };
            let log = &member.data.log;
            let from = program.followers.get(&to).copied().unwrap_or(log.len()).min(log.len());
            let before = if from == 0 { 0 } else { log[from - 1] };
            let entries = Rc::new(log[from..].to_vec());
            let (epoch, incarnation) = (program.epoch, member.life);
            let takes = self.net.takes(from_n, to_n, &mut self.rng);
            self.queue.push(self.now + takes, Event::Replicate { hot, to, epoch, incarnation, from, before, entries });
        }
    }

    pub(super) fn replicate_again(&mut self, hot: M, incarnation: u64) {
        let is_hot = self.members[hot].living(incarnation).is_some_and(|program| program.role == Role::Hot);
        if !is_hot {
            return;
        }
        self.queue.push(self.now + AGAIN_US, Event::ReplicateAgain { hot, incarnation });
        let length = self.members[hot].data.log.len();
        let hung = self.members[hot].program.as_ref().is_some_and(|program| program.hung);
        let all = self.followers(hot).count();
        let level = self.members[hot].program.as_ref().is_some_and(|p| p.followers.values().filter(|at| **at == length).count() == all);
        if !hung && !level {
            self.send_log(hot);
        }
    }

    /// A follower takes what fits behind what it has, and cuts what the hot member does not have.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn replicate(&mut self, hot: M, to: M, epoch: Epoch, incarnation: u64, from: usize, before: u64, entries: &[u64]) {
        let member = &mut self.members[to];
        let Some(program) = &member.program else { return };
        if !program.up || program.hung || program.role != Role::Warm || epoch < member.data.floor {
            return;
        }
        member.data.floor = epoch;
        let log = &mut member.data.log;
        let fits = from == 0 || log.get(from - 1) == Some(&before);
        let upto = if fits {
            let same = log[from..].iter().zip(entries).take_while(|(a, b)| a == b).count();
            if same < entries.len() {
                log.truncate(from + same);
                log.extend(&entries[same..]);
            } else if member.data.was_hot.is_some_and(|hot| hot < epoch) {
                // What it executed and nobody acknowledged: in quarantine.
                log.truncate(from + same);
            }
            from + entries.len()
        } else {
            0
        };
        if fits && member.data.was_hot.is_some_and(|hot| hot < epoch) {
            member.data.was_hot = None;
        }
        let (to_n, hot_n) = (self.members[to].node, self.members[hot].node);
        if self.net.passes(to_n, hot_n) {
            let takes = self.net.takes(to_n, hot_n, &mut self.rng);
            self.queue.push(self.now + takes, Event::Acked { hot, incarnation, by: to, upto, refused: !fits });
        }
    }

    pub(super) fn acked(&mut self, hot: M, incarnation: u64, by: M, upto: usize, refused: bool) {
        let Some(program) = self.members[hot].living(incarnation) else { return };
        if program.role != Role::Hot {
            return;
        }
        if refused {
            program.followers.insert(by, 0);
            self.send_log(hot);
            return;
        }
        let known = program.followers.entry(by).or_insert(0);
        *known = upto.max(*known);
        self.acknowledge(hot);
    }

    /// Answers writes that enough others have.
    fn acknowledge(&mut self, hot: M) {
        let acks = usize::from(self.plan.groups[self.members[hot].group].acks);
        loop {
            let Some(program) = &mut self.members[hot].program else { return };
            if program.hung {
                return;
            }
            let Some((position, _)) = program.waiting.front() else { return };
            let have = program.followers.values().filter(|at| *at >= position).count();
            if have < acks {
                return;
            }
            let (_, request) = program.waiting.pop_front().expect("looked at just now");
            self.reply(hot, request);
        }
    }
}
