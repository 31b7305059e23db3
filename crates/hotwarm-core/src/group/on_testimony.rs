//! What other nodes say of a member. Testimony is counted, never believed alone; it names the life and the epoch it saw (S4).

use super::Step;
use super::input::Testimony;

impl Step {
    pub(super) fn on_testimony(&mut self, testimony: &Testimony) {
        let group = &mut self.group;
        match testimony {
            Testimony::Suspect { member: id, incarnation, epoch, witness, evidence } => {
                let Some(member) = group.members.get_mut(id) else { return };
                if *incarnation != member.incarnation || *epoch != group.epoch || !member.running() {
                    return;
                }
                member.testimony.insert(witness.clone(), (evidence.clone(), group.at));
                self.doubt_begins(id);
            }
            Testimony::Clear { member: id, witness } => {
                if let Some(member) = group.members.get_mut(id) {
                    member.testimony.remove(witness);
                }
            }
        }
    }
}
