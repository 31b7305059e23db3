//! Whatever a peer sends: refused or taken, never a panic (S16).

use proptest::prelude::*;

use super::cluster::{Cluster, encode_state};
use crate::consensus::{Body, Change, ConfChange, Message, MessageError};
use crate::ids::RaftId;
use crate::wal::{Entry, EntryKind, LogId, Snapshot, Voters};

/// Numbers around those that a small log has, and impossible ones.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0u64..16, 1 => 16u64..100, 1 => Just(u64::MAX), 1 => Just(u64::MAX - 1), 1 => any::<u64>()]
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    let change = ConfChange::Joint(vec![Change::AddVoter(RaftId(4)), Change::Remove(RaftId(2))]).encode();
    prop_oneof![Just(change), Just(Vec::new()), prop::collection::vec(any::<u8>(), 0..20)]
}

fn kind() -> impl Strategy<Value = EntryKind> {
    prop_oneof![4 => Just(EntryKind::Normal), 1 => Just(EntryKind::ConfChange)]
}

fn entry() -> impl Strategy<Value = Entry> {
    (number(), number(), kind(), data(), data()).prop_map(|(index, term, kind, data, context)| Entry { index, term, kind, data, context })
}

/// Entries as a leader would send them, so that some get past the first check.
fn run() -> impl Strategy<Value = (u64, u64, Vec<Entry>)> {
    (0u64..14, 0u64..6, prop::collection::vec((0u64..3, kind(), data()), 0..5)).prop_map(|(index, log_term, items)| {
        let mut term = log_term.max(1);
        let entries = items.into_iter().zip(index + 1..).map(|((step, kind, data), index)| {
            term += step;
            let context = Vec::new();
            Entry { index, term, kind, data, context }
        });
        (index, log_term, entries.collect())
    })
}

fn ids() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(prop_oneof![4 => 1u64..6, 1 => number()], 0..4)
}

fn voters() -> impl Strategy<Value = Voters> {
    (ids(), ids(), ids(), ids(), any::<bool>()).prop_map(|(voters, learners, outgoing, learners_next, auto_leave)| Voters {
        voters,
        learners,
        outgoing,
        learners_next,
        auto_leave,
    })
}

fn body() -> impl Strategy<Value = Body> {
    let numbers = || (number(), number(), number(), number());
    prop_oneof![
        (number(), number(), number(), prop::collection::vec(entry(), 0..4))
            .prop_map(|(index, log_term, commit, entries)| { Body::Append { index, log_term, commit, entries } }),
        (run(), number()).prop_map(|((index, log_term, entries), commit)| Body::Append { index, log_term, commit, entries }),
        (number(), number()).prop_map(|(index, commit)| Body::Appended { index, commit }),
        numbers().prop_map(|(index, hint, log_term, commit)| Body::AppendRefused { index, hint, log_term, commit }),
        (number(), prop::option::of(number())).prop_map(|(commit, read)| Body::Heartbeat { commit, read }),
        (number(), prop::option::of(number())).prop_map(|(commit, read)| Body::HeartbeatAnswer { commit, read }),
        (number(), number(), voters(), data())
            .prop_map(|(index, term, voters, data)| { Body::Snapshot(Snapshot { index, term, voters, data }) }),
        (any::<(bool, bool)>(), numbers()).prop_map(|((pre, transfer), (index, log_term, commit, commit_term))| Body::Vote {
            pre,
            transfer,
            index,
            log_term,
            commit,
            commit_term,
        }),
        (any::<(bool, bool)>(), number(), number(), prop::option::of(any::<u64>())).prop_map(
            |((pre, granted), commit, commit_term, ack_age_us)| Body::VoteAnswer { pre, granted, commit, commit_term, ack_age_us }
        ),
        Just(Body::TimeoutNow),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    (prop_oneof![4 => 1u64..5, 1 => number()], 1u64..4, number(), body()).prop_map(|(from, to, term, body)| Message {
        log: LogId(0),
        from: RaftId(from),
        to: RaftId(to),
        term,
        body,
    })
}

#[derive(Clone, Debug)]
enum Step {
    Hear(Message),
    Tick(u64),
    Settle,
    Propose,
    Stall(u64),
    Flow(u64),
    Campaign(u64),
    Snapshot(u64),
    Restart(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let node = 1u64..4;
    prop_oneof![
        12 => message().prop_map(Step::Hear),
        2 => (1u64..40).prop_map(Step::Tick),
        2 => Just(Step::Settle),
        1 => Just(Step::Propose),
        1 => node.clone().prop_map(Step::Stall),
        1 => node.clone().prop_map(Step::Flow),
        1 => node.clone().prop_map(Step::Campaign),
        1 => node.clone().prop_map(Step::Snapshot),
        1 => node.prop_map(Step::Restart),
    ]
}

fn play(cluster: &mut Cluster, step: Step) {
    let now = cluster.now;
    match step {
        Step::Hear(message) => {
            // A peer's clock, address and disk may be anything; what its bytes say is what is heard.
            let decoded = Message::decode(&message.encode()).unwrap();
            assert_eq!(decoded, message);
            let to = message.to.0;
            let _ = cluster.at(to).handle_message(now, message);
            cluster.drain(to);
        }
        // The peers' own messages are lost: they would tell each other what garbage made them believe.
        Step::Tick(ticks) => {
            for _ in 0..ticks {
                for id in 1..=3 {
                    cluster.at(id).tick(now);
                    cluster.drain(id);
                }
                cluster.network.clear();
            }
        }
        Step::Settle => cluster.network.clear(),
        Step::Propose => {
            for id in 1..=3 {
                let _ = cluster.at(id).propose(b"x".to_vec(), Vec::new());
                let _ = cluster.at(id).read_index(1);
                cluster.drain(id);
            }
        }
        Step::Stall(id) => cluster.nodes.get_mut(&id).unwrap().stalled = true,
        Step::Flow(id) => {
            cluster.nodes.get_mut(&id).unwrap().stalled = false;
            cluster.drain(id);
        }
        Step::Campaign(id) => {
            cluster.at(id).campaign(now);
            cluster.drain(id);
        }
        Step::Snapshot(id) => {
            let (applied, state) = (cluster.at(id).status().applied, encode_state(&cluster.nodes[&id].applied));
            let _ = cluster.at(id).take_snapshot(applied, state);
            cluster.at(id).compact(applied);
            cluster.drain(id);
        }
        Step::Restart(id) => cluster.start(id),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_never_panics(steps in prop::collection::vec(step(), 1..60)) {
        let mut cluster = Cluster::three(1);
        cluster.propose("a");
        cluster.network.clear();
        for step in steps {
            play(&mut cluster, step);
        }
    }

    #[test]
    fn bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), version in any::<bool>()) {
        let bytes = if version { [vec![1], bytes].concat() } else { bytes };
        if let Ok(message) = Message::decode(&bytes) {
            prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
        }
    }
}

#[test]
fn what_contradicts_our_log_is_refused() {
    let mut cluster = Cluster::three(2);
    cluster.propose("a");
    let (term, last) = (cluster.at(1).leadership().term, cluster.at(1).status().last);
    let say = |from, to, term, body| Message { log: LogId(0), from: RaftId(from), to: RaftId(to), term, body };
    let heartbeat = |commit| Body::Heartbeat { commit, read: None };
    let now = cluster.now;
    let mut hear = |message: Message| cluster.at(message.to.0).handle_message(now, message);
    assert_eq!(hear(say(1, 2, term, heartbeat(last + 1))), Err(MessageError::LostEntries { index: last + 1, last }));
    let (known, from) = (RaftId(1), RaftId(3));
    assert_eq!(hear(say(3, 2, term, heartbeat(0))), Err(MessageError::TwoLeaders { term, known, from }));
    let appended = Body::Appended { index: last + 1, commit: 0 };
    assert_eq!(hear(say(2, 1, term, appended.clone())), Err(MessageError::BeyondLog { index: last + 1, last }));
    assert_eq!(hear(say(9, 1, term, appended)), Err(MessageError::UnknownPeer { from: RaftId(9) }));
    assert_eq!(hear(say(1, 2, 0, heartbeat(0))), Err(MessageError::Numbers("the term")));
    assert_eq!(hear(say(2, 2, term, heartbeat(0))), Err(MessageError::Sender { from: RaftId(2) }));
    let granted = Body::VoteAnswer { pre: false, granted: true, commit: 0, commit_term: 0, ack_age_us: None };
    assert_eq!(hear(say(2, 1, term + 1, granted)), Err(MessageError::UnaskedVote { term: term + 1 }));
}
