//! S7: a candidate that was cut from the old data follows again only after the log has said what became of the attempt it was cut for.
//!
//! There is no entry of its own for that: the entry whose application ends the attempt is the `Abort`, or the success. So it is looked
//! for in every state of every story whether any member that is still cut would be told to follow.

use std::collections::BTreeMap;

use hotwarm_core::action::EngineAction;
use hotwarm_core::cluster::Cluster;
use hotwarm_core::group::{Effect, Group, step};
use hotwarm_core::ids::{Attempt, Epoch, Role};
use hotwarm_core::reconcile::{Local, LocalLife, Observed, actions};

use crate::{good, retell, stories};

/// In which epoch each attempt cut its candidates.
type Cuts = BTreeMap<Attempt, Epoch>;

/// How many members that are still cut for an attempt are told to follow again; or which of them is told too early.
fn followers(group: &Group, cuts: &Cuts) -> Result<usize, String> {
    let mut told = 0;
    for (id, member) in group.members.iter().filter(|(_, member)| member.running() && member.role != Role::Hot) {
        for (attempt, cut_in) in cuts {
            let (node, position) = (group.node_of(id).expect("configured"), Some((*attempt, Default::default())));
            let (role, detached) = (Some(Role::Warm), Some(*attempt));
            let incarnation = member.incarnation;
            let local = Local { incarnation, life: LocalLife::Running, role, epoch: group.epoch, position, detached, ..Local::default() };
            let observed = Observed { members: [(id.clone(), local)].into(), leased: true, ..Observed::default() };
            let mut cluster = Cluster::empty();
            cluster.groups.insert(group.spec.name.clone(), group.clone());
            for (_, action) in actions(&cluster, &observed, node) {
                let EngineAction::Follow { epoch } = action else { continue };
                if group.transition.is_some() || epoch <= *cut_in || epoch != group.epoch || group.closed {
                    return Err(format!("{id}, cut for {attempt} in epoch {cut_in}, is told to follow in epoch {epoch}: {group:#?}"));
                }
                told += 1;
            }
        }
    }
    Ok(told)
}

#[test]
fn s7_no_cut_is_undone_before_the_log_has_ended_its_attempt() {
    let (mut attempts, mut told) = (0, 0);
    for (name, text) in stories() {
        let (_, story) = retell(&name, &text);
        let mut cuts = Cuts::new();
        let Some((first, _)) = story.past.first() else { continue };
        let mut group = first.clone();
        let mut look = |before: &Group, after: &Group, effects: &[Effect]| {
            for effect in effects {
                if let Effect::Detach { attempt } = effect {
                    cuts.entry(*attempt).or_insert(before.epoch);
                    attempts += 1;
                }
            }
            told += followers(after, &cuts).unwrap_or_else(|why| panic!("{name}: {why}"));
        };
        for (before, input) in &story.past {
            let effects;
            (group, effects) = step(before.clone(), input);
            look(before, &group, &effects);
        }
        // And on, until it is in service, whatever the story left under way.
        for _ in 0..40 {
            let Some(body) = good::answers(&group).into_iter().next() else { break };
            let before = group.clone();
            let effects;
            (group, effects) = step(group, &hotwarm_core::group::input::Input { at: before.at.plus(1), body });
            look(&before, &group, &effects);
        }
    }
    assert!(attempts >= 8 && told >= 20, "{attempts} attempts cut somebody, {told} times one was told to follow: nothing was looked at");
}
