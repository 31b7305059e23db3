//! Rules of the shared state: configuration whole or not at all, sessions, numbers never used twice, leases that shrink.
mod random;

use super::*;
use crate::group::input::Answer;
use crate::group::spec::{Bounds, Fence, GroupSpec, MemberSpec};
use crate::ids::{Incarnation, MemberId, NodeId};

fn spec(names: &[&str]) -> ClusterSpec {
    let node = |i: usize| NodeSpec {
        address: std::net::SocketAddr::from(([127, 0, 0, 1], 7400 + i as u16)),
        votes: true,
        witness: false,
        zone: String::new(),
    };
    ClusterSpec {
        name: "shop".into(),
        lease_ms: 1000,
        nodes: names.iter().enumerate().map(|(i, n)| (NodeId::from(*n), node(i))).collect(),
        groups: BTreeMap::new(),
        text: String::new(),
    }
}

fn found() -> Cluster {
    let mut cluster = Cluster::empty();
    apply(&mut cluster, 1, Body::Found { cluster: 7, spec: Box::new(spec(&["a", "b"])), node: "a".into(), incarnation: 70 });
    cluster
}

fn apply(cluster: &mut Cluster, at: u64, body: Body) -> Vec<What> {
    let entry = Entry { at: Millis(at), wall_ms: 0, items: vec![Item { origin: None, body }] };
    let entry = Entry::decode(&entry.encode()).expect("an entry survives its bytes");
    cluster.apply(&entry).0.into_iter().map(|e| e.what).collect()
}

#[test]
fn s11_a_wiped_directory_gets_a_new_number() {
    let mut c = found();
    assert_eq!(c.nodes[&NodeId::from("a")].raft_id, Some(RaftId(1)));
    apply(&mut c, 2, Body::Admit { node: "b".into(), incarnation: 71, behaviour: BEHAVIOUR });
    apply(&mut c, 3, Body::Admit { node: "b".into(), incarnation: 71, behaviour: BEHAVIOUR });
    assert_eq!(c.nodes[&NodeId::from("b")].raft_id, Some(RaftId(2)));
    apply(&mut c, 4, Body::Admit { node: "b".into(), incarnation: 72, behaviour: BEHAVIOUR });
    assert_eq!(c.nodes[&NodeId::from("b")].raft_id, Some(RaftId(3)));
    assert_eq!(c.node_of(RaftId(3)), Some(&NodeId::from("b")));
    assert_eq!(c.node_of(RaftId(2)), None);
}

#[test]
fn a_second_founding_changes_nothing() {
    let mut c = found();
    let before = c.clone();
    assert!(apply(&mut c, 2, Body::Found { cluster: 8, spec: Box::new(spec(&["z"])), node: "z".into(), incarnation: 1 }).is_empty());
    assert_eq!((c.id, &c.nodes), (before.id, &before.nodes));
}

#[test]
fn a_session_ends_once_and_the_next_begins() {
    let mut c = found();
    let a = NodeId::from("a");
    assert_eq!(apply(&mut c, 2, Body::Back { node: a.clone(), session: Session(0) }).len(), 1);
    assert!(c.nodes[&a].leased);
    assert!(apply(&mut c, 3, Body::Lapsed { node: a.clone(), session: Session(0) }).is_empty(), "a late lapse of an older session");
    assert_eq!(apply(&mut c, 4, Body::Lapsed { node: a.clone(), session: Session(1) }).len(), 1);
    assert!(apply(&mut c, 5, Body::Heard { node: a.clone(), session: Session(1) }).is_empty(), "heard without a lease is not back");
    apply(&mut c, 6, Body::Back { node: a.clone(), session: Session(1) });
    assert_eq!(c.nodes[&a].session, Session(2));
}

#[test]
fn s2_a_shorter_lease_is_waited_out_at_its_old_length() {
    let mut c = found();
    let mut shorter = spec(&["a", "b"]);
    shorter.lease_ms = 300;
    apply(&mut c, 10, Body::Configure { spec: Box::new(shorter), revision: 1 });
    assert_eq!((c.lease.length_ms, c.lease.longest_ms), (300, 1000));
    apply(&mut c, 1500, Body::Timer);
    assert_eq!(c.lease.longest_ms, 1000);
    let settles = c.next_deadline().expect("somebody must wake up to settle it");
    apply(&mut c, settles.0, Body::Timer);
    assert_eq!(c.lease.longest_ms, 300);
}

#[test]
fn a_configuration_made_from_another_revision_is_refused() {
    let mut c = found();
    let done = apply(&mut c, 2, Body::Configure { spec: Box::new(spec(&["a"])), revision: 0 });
    assert!(matches!(&done[..], [What::ConfigureRefused { why }] if why.contains("revision 0")), "{done:?}");
    assert_eq!(c.nodes.len(), 2);
}

#[test]
fn a_command_sent_twice_is_applied_once() {
    let mut c = found();
    let origin = Some(Origin { node: "a".into(), number: 5 });
    let entry = Entry { at: Millis(9), wall_ms: 1_700_000_000_000, items: vec![Item { origin, body: Body::Drain { node: "b".into() } }] };
    assert_eq!(c.apply(&entry).1.len(), 1);
    assert_eq!(c.apply(&entry).1.len(), 0);
}

#[test]
fn snapshots_survive_their_bytes_and_other_versions_are_named() {
    let c = found();
    let mut bytes = c.encode();
    assert_eq!(Cluster::decode(&bytes), Ok(c.clone()));
    // What came before the first release is not read.
    bytes[0] = 1;
    assert_eq!(Cluster::decode(&bytes), Err(DecodeError::UnknownVersion { what: "cluster snapshot", version: 1 }));
    bytes[0] = 9;
    assert_eq!(Cluster::decode(&bytes), Err(DecodeError::UnknownVersion { what: "cluster snapshot", version: 9 }));
    assert!(Cluster::decode(&[]).is_err());
}

#[test]
fn s17_a_behaviour_is_in_force_once_every_program_has_it_and_stays() {
    let mut c = found();
    let admit = |name: &str, incarnation, behaviour| Body::Admit { node: name.into(), incarnation, behaviour };
    let own = c.nodes[&NodeId::from("a")].incarnation;
    let newer = BEHAVIOUR + 1;
    apply(&mut c, 2, admit("b", 71, BEHAVIOUR));
    apply(&mut c, 3, admit("a", own, newer));
    assert!(apply(&mut c, 4, Body::Behaviour { version: newer }).is_empty(), "b's program has not got it");
    apply(&mut c, 5, admit("b", 71, newer));
    assert!(matches!(apply(&mut c, 6, Body::Behaviour { version: newer })[..], [What::Behaviour { version }] if version == newer));
    assert!(apply(&mut c, 7, admit("b", 72, BEHAVIOUR)).is_empty(), "an older program does not come back in");
    assert_eq!(c.nodes[&NodeId::from("b")].incarnation, 71);
    assert!(apply(&mut c, 8, Body::Behaviour { version: BEHAVIOUR }).is_empty(), "never lowered");
}

#[test]
fn s2_a_node_leaves_only_after_its_lease() {
    let mut c = found();
    let b = NodeId::from("b");
    apply(&mut c, 2, Body::Admit { node: b.clone(), incarnation: 71, behaviour: BEHAVIOUR });
    apply(&mut c, 3, Body::Back { node: b.clone(), session: Session(0) });
    let without = || Body::Configure { spec: Box::new(spec(&["a"])), revision: 1 };
    assert!(matches!(&apply(&mut c, 4, without())[..], [What::ConfigureRefused { why }] if why.contains("node b")));
    assert!(c.nodes.contains_key(&b));
    apply(&mut c, 5, Body::Lapsed { node: b.clone(), session: Session(1) });
    assert!(matches!(&apply(&mut c, 6, without())[..], [What::Configured { revision: 2 }]));
    assert!(!c.nodes.contains_key(&b));
}

#[test]
fn a_node_that_runs_is_not_moved_to_another_address() {
    let mut c = found();
    let b = NodeId::from("b");
    apply(&mut c, 2, Body::Admit { node: b.clone(), incarnation: 71, behaviour: BEHAVIOUR });
    apply(&mut c, 3, Body::Back { node: b.clone(), session: Session(0) });
    let moved = || {
        let mut moved = spec(&["a", "b"]);
        moved.nodes.get_mut(&NodeId::from("b")).expect("it is there").address.set_port(9999);
        Body::Configure { spec: Box::new(moved), revision: 1 }
    };
    assert!(matches!(&apply(&mut c, 4, moved())[..], [What::ConfigureRefused { why }] if why.contains("node b changes from")));
    apply(&mut c, 5, Body::Lapsed { node: b.clone(), session: Session(1) });
    assert!(matches!(&apply(&mut c, 6, moved())[..], [What::Configured { revision: 2 }]));
    assert_eq!(c.nodes[&b].spec.address.port(), 9999);
}

#[test]
fn a_name_under_which_several_served_is_not_taken_by_a_group_of_one() {
    let (mut c, _) = found_with_group();
    let mut at = 1000;
    let mut configured = |present: bool, change: fn(&mut GroupSpec)| {
        at += 1;
        let mut spec = with_group(present);
        spec.groups.values_mut().for_each(change);
        let revision = c.revision;
        let done = apply(&mut c, at, Body::Configure { spec, revision });
        matches!(done[..], [What::Configured { .. }, ..])
    };
    let one = |group: &mut GroupSpec| (group.hot, group.warm, group.exclusive) = (1, 1, true);
    assert!(!configured(true, one), "its mode cannot change");
    assert!(configured(false, |_| {}));
    assert!(!configured(true, one), "nor by way of a removal: who served may not have heard of it");
    assert!(configured(true, |_| {}), "as it was it may come back");
    assert!(configured(false, |_| {}));
    assert!(!configured(true, one), "and is remembered");
}

/// A configuration with one group of several hot members, one on each node; or without it.
fn with_group(present: bool) -> Box<ClusterSpec> {
    let name = GroupName::from("web");
    let member = |n: &str| {
        let spec = MemberSpec { node: n.into(), address: ([127, 0, 0, 1], 9000).into(), priority: 0, weight: 1, zone: String::new() };
        (MemberId::of(&name, n), spec)
    };
    let group = GroupSpec {
        name: name.clone(),
        hot: 2,
        warm: 0,
        exclusive: false,
        stateful: false,
        members: [member("a"), member("b")].into(),
        routers: Vec::new(),
        fence: Fence::Supervisor,
        positions: false,
        acks: 0,
        bounds: Bounds::default(),
    };
    let groups = if present { [(name, group)].into() } else { BTreeMap::new() };
    Box::new(ClusterSpec { groups, ..spec(&["a", "b"]) })
}

/// The node's member begins a life and answers; tells which epoch it was promoted to.
fn promoted(c: &mut Cluster, node: &str, life: u64) -> Epoch {
    let group = GroupName::from("web");
    let (member, incarnation) = (MemberId::of(&group, node), Incarnation(life));
    let mut told = Vec::new();
    for life in [group::input::Life::Started { member: member.clone(), incarnation }, group::input::Life::Ready { member, incarnation }] {
        let at = c.at.0 + 1;
        told.extend(apply(c, at, Body::Group { group: group.clone(), body: group::Body::Life(life) }));
    }
    let epoch = told.iter().find_map(|what| match what {
        What::Group(Effect::Promote { epoch, .. }) => Some(*epoch),
        _ => None,
    });
    epoch.expect("it was asked to be hot")
}

/// Two nodes with leases and a group, of which one member was asked to be hot: in which epoch.
fn found_with_group() -> (Cluster, Epoch) {
    let mut c = found();
    for (at, node) in [(2, "a"), (3, "b")] {
        apply(&mut c, at, Body::Back { node: node.into(), session: Session(0) });
    }
    apply(&mut c, 4, Body::Configure { spec: with_group(true), revision: 1 });
    let epoch = promoted(&mut c, "a", 1);
    (c, epoch)
}

#[test]
fn a_group_that_is_removed_and_added_again_uses_no_epoch_of_before() {
    let (mut c, first) = found_with_group();
    let used = promoted(&mut c, "b", 1);
    assert!(used > first);
    let at = c.at.0;
    apply(&mut c, at + 1, Body::Configure { spec: with_group(false), revision: 2 });
    assert!(c.groups.is_empty());
    // A change in between forgets nothing.
    apply(&mut c, at + 2, Body::Configure { spec: with_group(false), revision: 3 });
    apply(&mut c, at + 3, Body::Configure { spec: with_group(true), revision: 4 });
    assert!(promoted(&mut c, "a", 2) > used);
}

#[test]
fn a_survivor_goes_on_beyond_epochs_it_may_not_have_heard_of() {
    let survives = |mut c: Cluster| {
        c.begin_anew(8, &"a".into(), 70);
        apply(&mut c, 1000, Body::Back { node: "a".into(), session: Session(1) });
        c
    };
    let (c, used) = found_with_group();
    let mut c = survives(c);
    apply(&mut c, 1001, Body::Back { node: "b".into(), session: Session(1) });
    assert!(promoted(&mut c, "b", 2) > Epoch(used.0 + 1000), "of a group that it has");
    let (mut c, used) = found_with_group();
    apply(&mut c, 900, Body::Configure { spec: with_group(false), revision: 2 });
    let mut c = survives(c);
    apply(&mut c, 1001, Body::Configure { spec: with_group(true), revision: 3 });
    assert!(promoted(&mut c, "a", 2) > Epoch(used.0 + 1000), "of one that is added again");
}

/// A configuration of these nodes with one group `web` of one hot member, which `a` and `b` have; all nodes have its router.
fn with_exclusive(names: &[&str], fence: Fence) -> Box<ClusterSpec> {
    let mut spec = with_group(true);
    let group = spec.groups.get_mut(&"web".into()).expect("the only group");
    (group.hot, group.warm, group.exclusive, group.fence) = (1, 1, true, fence);
    group.routers = names.iter().map(|n| NodeId::from(*n)).collect();
    spec.nodes = self::spec(names).nodes;
    spec
}

/// `web/a` serves, `web/b` is warm beside it.
fn found_exclusive(fence: Fence) -> Cluster {
    let mut c = found();
    for (at, node) in [(2, "a"), (3, "b")] {
        apply(&mut c, at, Body::Back { node: node.into(), session: Session(0) });
    }
    apply(&mut c, 4, Body::Configure { spec: with_exclusive(&["a", "b"], fence), revision: 1 });
    let epoch = promoted(&mut c, "a", 1);
    let (member, incarnation) = (MemberId::from("web/a"), Incarnation(1));
    let attempt = web(&c).attempt;
    tell(&mut c, group::Body::Answer(Answer::Promoted { member, incarnation, epoch, attempt }));
    let member = MemberId::from("web/b");
    for life in [group::input::Life::Started { member: member.clone(), incarnation }, group::input::Life::Ready { member, incarnation }] {
        tell(&mut c, group::Body::Life(life));
    }
    assert!(web(&c).members[&"web/a".into()].serving && !web(&c).closed);
    c
}

fn web(c: &Cluster) -> &Group {
    &c.groups[&"web".into()]
}

fn tell(c: &mut Cluster, body: group::Body) -> Vec<What> {
    apply(c, c.at.0 + 1, Body::Group { group: "web".into(), body })
}

#[test]
fn s8_nobody_waits_for_the_router_of_a_node_that_was_added_and_never_came() {
    let mut c = found_exclusive(Fence::Supervisor);
    let at = c.at.0;
    apply(&mut c, at + 1, Body::Configure { spec: with_exclusive(&["a", "b", "c"], Fence::Supervisor), revision: 2 });
    apply(&mut c, at + 2, Body::Lapsed { node: "a".into(), session: Session(1) });
    let epoch = web(&c).closed_epoch;
    tell(&mut c, group::Body::Answer(Answer::RouterClosed { node: "b".into(), epoch }));
    assert_eq!(web(&c).promoting(), Some(&"web/b".into()), "{:?}", web(&c).transition);
}

#[test]
fn a_node_that_is_removed_and_added_again_is_not_drained() {
    let mut c = found_exclusive(Fence::Supervisor);
    let at = c.at.0;
    let configure = |names: &[&str], revision| Body::Configure { spec: with_exclusive(names, Fence::Supervisor), revision };
    apply(&mut c, at + 1, configure(&["a", "b", "c"], 2));
    apply(&mut c, at + 2, Body::Drain { node: "c".into() });
    apply(&mut c, at + 3, configure(&["a", "b"], 3));
    apply(&mut c, at + 4, configure(&["a", "b", "c"], 4));
    let c_is = |c: &Cluster| (c.nodes[&NodeId::from("c")].drained, web(c).node(&"c".into()).drained);
    assert_eq!(c_is(&c), (false, false), "what the group knows is what the cluster knows");
}

#[test]
fn a_survivor_breaks_no_rule_whatever_tells_the_end_of_the_members_of_lost_nodes() {
    for (fence, paused) in [(Fence::Hook, false), (Fence::Supervisor, true), (Fence::RouterOnly, false), (Fence::Supervisor, false)] {
        let mut c = found_exclusive(fence);
        if paused {
            tell(&mut c, group::Body::Operator(group::input::Operator::Pause));
        }
        c.begin_anew(8, &"b".into(), 71);
        assert_eq!(group::invariants::check(web(&c)), None, "{fence:?}, paused: {paused}");
        apply(&mut c, 1000, Body::Back { node: "b".into(), session: Session(1) });
        assert_eq!(group::invariants::check(web(&c)), None, "{fence:?}, paused: {paused}, back");
    }
}

#[test]
fn a_new_group_that_cannot_be_is_refused_as_one_that_is_there_would_be() {
    let mut c = found();
    let mut wanted = with_exclusive(&["a", "b"], Fence::Supervisor);
    wanted.groups.get_mut(&"web".into()).expect("the only group").acks = 2;
    let done = apply(&mut c, 2, Body::Configure { spec: wanted, revision: 1 });
    assert!(matches!(&done[..], [What::ConfigureRefused { why }] if why.contains("2 members are to acknowledge")), "{done:?}");
    assert!(c.groups.is_empty());
}
