//! What the control log holds and nodes say to each other: inputs, the state as a snapshot, messages. A kind more is a behaviour more
//! (S17), and goes at the end of its enum.

use std::collections::BTreeMap;

use hotwarm_core::action::StopCause;
use hotwarm_core::cluster::{Body, Cluster, ClusterSpec, Entry, Item, NodeSpec, Origin};
use hotwarm_core::group;
use hotwarm_core::group::input::{Answer, Life, NodeInput, Operator, Testimony};
use hotwarm_core::group::reason::{Evidence, SelfDoubt};
use hotwarm_core::group::spec::{Bounds, Fence, GroupSpec, MemberSpec};
use hotwarm_core::ids::{Attempt, Epoch, GroupName, Incarnation, Index, MemberId, Millis, NodeId, Position, RaftId, Role, Session};
use hotwarm_core::node::Message;
use hotwarm_core::node::message::Beat;

use super::{check, hex, unhex};

fn spec() -> ClusterSpec {
    let web = GroupName::from("web");
    let member = |node: &str, priority| {
        let spec = MemberSpec { node: node.into(), address: ([127, 0, 0, 1], 9000).into(), priority, weight: 100, zone: "north".into() };
        (MemberId::of(&web, node), spec)
    };
    let node = |port| NodeSpec { address: ([127, 0, 0, 1], port).into(), votes: true, witness: false, zone: "north".into() };
    let bounds = Bounds {
        promote_ms: 1,
        drain_ms: 2,
        positions_ms: 3,
        testimony_ms: 4,
        hold_down_ms: 5,
        hold_down_max_ms: 6,
        failovers_per_hour: 7,
    };
    let group = GroupSpec {
        name: web.clone(),
        hot: 1,
        warm: 1,
        exclusive: true,
        stateful: true,
        members: [member("a", 2), member("b", -1)].into(),
        routers: vec!["a".into(), "b".into()],
        fence: Fence::Hook,
        positions: true,
        acks: 1,
        bounds,
    };
    ClusterSpec {
        name: "shop".into(),
        lease_ms: 1000,
        nodes: [("a".into(), node(7400)), ("b".into(), node(7401))].into(),
        groups: BTreeMap::from([(web, group)]),
        text: "text".into(),
    }
}

fn of_members() -> Vec<group::Body> {
    let (member, incarnation, epoch, attempt) = (MemberId::from("web/a"), Incarnation(3), Epoch(300), Attempt(5));
    let life = || (member.clone(), incarnation);
    let stopped = |cause| {
        let (member, incarnation) = life();
        group::Body::Life(Life::Stopped { member, incarnation, cause })
    };
    let causes = [
        StopCause::Exit(-1),
        StopCause::Signal(9),
        StopCause::Asked,
        StopCause::Deadline,
        StopCause::NotStarted("no".into()),
        StopCause::Absent,
        StopCause::Renewed { role: Role::Hot },
        StopCause::Hung("no answer".into()),
    ];
    let (m, node) = (|| member.clone(), || NodeId::from("b"));
    let suspect = |evidence| group::Body::Testimony(Testimony::Suspect { member: m(), incarnation, epoch, witness: node(), evidence });
    let answers = [
        Answer::Promoted { member: m(), incarnation, epoch, attempt },
        Answer::PromoteFailed { member: m(), incarnation, epoch, attempt, why: "no".into() },
        Answer::Demoted { member: m(), incarnation, epoch },
        Answer::Fenced { member: m(), epoch },
        Answer::RouterClosed { node: node(), epoch },
        Answer::RouterDrained { node: node(), epoch },
        Answer::Position { member: m(), incarnation, attempt, position: Position::default() },
        Answer::ResumeSeen { node: node(), resume: 2 },
    ];
    let lives = [
        Life::Started { member: m(), incarnation },
        Life::Ready { member: m(), incarnation },
        Life::Unready { member: m(), incarnation, why: "no".into() },
    ];
    let clear = group::Body::Testimony(Testimony::Clear { member: m(), witness: node() });
    let told = [Evidence::Refused, Evidence::Reset, Evidence::Silent].map(suspect);
    let lives = lives.map(group::Body::Life).into_iter().chain(causes.map(stopped));
    lives.chain(told).chain([clear]).chain(answers.map(group::Body::Answer)).collect()
}

fn of_groups() -> Vec<group::Body> {
    let node = || NodeId::from("b");
    let nodes = [
        NodeInput::Silent { node: node() },
        NodeInput::Heard { node: node() },
        NodeInput::Lapsed { node: node() },
        NodeInput::Back { node: node() },
        NodeInput::Drain { node: node() },
        NodeInput::Undrain { node: node() },
        NodeInput::SelfDoubt { node: node(), why: Some(SelfDoubt::LittleRoom) },
        NodeInput::SelfDoubt { node: node(), why: Some(SelfDoubt::Stalled) },
    ];
    let asked = [
        Operator::Switchover { to: Some("web/b".into()) },
        Operator::Drain { member: "web/b".into() },
        Operator::Undrain { member: "web/b".into() },
        Operator::Pause,
        Operator::Resume { force: true },
        Operator::Restart { lives: [("web/a".into(), Incarnation(3))].into() },
        Operator::EndRestart,
    ];
    let configure = group::Body::Configure(Box::new(spec().groups[&GroupName::from("web")].clone()));
    nodes.map(group::Body::Node).into_iter().chain(asked.map(group::Body::Operator)).chain([configure, group::Body::Timer]).collect()
}

fn bodies() -> Vec<Body> {
    let (node, session) = (|| NodeId::from("b"), Session(2));
    let mut bodies = vec![
        Body::Found { cluster: 77, spec: Box::new(spec()), node: "a".into(), incarnation: 70 },
        Body::Configure { spec: Box::new(spec()), revision: 3 },
        Body::Admit { node: node(), incarnation: 71, behaviour: 1 },
        Body::Silent { node: node(), session },
        Body::Heard { node: node(), session },
        Body::Lapsed { node: node(), session },
        Body::Back { node: node(), session },
        Body::Drain { node: node() },
        Body::Undrain { node: node() },
        Body::Behaviour { version: 2 },
        Body::Timer,
        Body::SelfDoubt { node: node(), why: Some(SelfDoubt::LittleRoom) },
        Body::SelfDoubt { node: node(), why: None },
    ];
    let group = |body| Body::Group { group: "web".into(), body };
    bodies.extend(of_members().into_iter().chain(of_groups()).map(group));
    bodies
}

fn entries() -> Vec<Entry> {
    let entry = |origin: Option<Origin>, body| Entry { at: Millis(70_000), wall_ms: 1_700_000_000_000, items: vec![Item { origin, body }] };
    let asked = entry(Some(Origin { node: "a".into(), number: 9 }), Body::Timer);
    bodies().into_iter().map(|body| entry(None, body)).chain([asked]).collect()
}

fn messages() -> Vec<Message> {
    let beat = Beat {
        number: 9,
        session: Session(2),
        renew: true,
        heard: vec!["a".into(), "c".into()],
        behaviour: 2,
        digest: Some((Index(256), 0xdead_beef)),
    };
    let item = Item { origin: Some(Origin { node: "a".into(), number: 9 }), body: Body::Timer };
    vec![
        Message::Log(Box::new(super::messages().remove(3))),
        Message::Beat(beat),
        Message::Grant { number: 9, session: Session(2), index: Index(300) },
        Message::Propose { items: vec![item] },
        Message::Hello { cluster: Some(77), name: "shop".into(), incarnation: 71, behaviour: 2 },
        Message::Welcome { cluster: 77, incarnation: 71, raft_id: RaftId(3) },
        Message::Relay { from: "a".into(), to: "c".into(), bytes: vec![1, 2, 3] },
        Message::Birth { incarnation: 71, cluster: Some(77) },
    ]
}

#[test]
fn entries_of_the_control_log_are_frozen() {
    let golden = include_str!("entries.hex");
    check(golden, &entries().iter().map(|entry| hex(&entry.encode())).collect::<Vec<_>>());
    for (line, entry) in golden.lines().zip(entries()) {
        assert_eq!(Entry::decode(&unhex(line)), Ok(entry));
    }
}

#[test]
fn messages_between_nodes_are_frozen() {
    let golden = include_str!("node_messages.hex");
    check(golden, &messages().iter().map(|message| hex(&message.encode(77))).collect::<Vec<_>>());
    for (line, message) in golden.lines().zip(messages()) {
        assert_eq!(Message::decode(&unhex(line)), Ok((77, message)));
    }
}

/// The state that a few of those entries make, with a member that was asked to be hot and a node that doubts itself.
#[test]
fn the_state_in_a_snapshot_is_frozen() {
    let mut cluster = Cluster::empty();
    let (member, incarnation) = (MemberId::from("web/a"), Incarnation(1));
    let life = |life| Body::Group { group: "web".into(), body: group::Body::Life(life) };
    let happened = [
        Body::Found { cluster: 77, spec: Box::new(spec()), node: "a".into(), incarnation: 70 },
        Body::Back { node: "a".into(), session: Session(0) },
        life(Life::Started { member: member.clone(), incarnation }),
        life(Life::Ready { member, incarnation }),
        Body::Drain { node: "b".into() },
        Body::SelfDoubt { node: "b".into(), why: Some(SelfDoubt::LittleRoom) },
    ];
    for (at, body) in happened.into_iter().enumerate() {
        cluster.apply(&Entry { at: Millis(at as u64 * 1000), wall_ms: 0, items: vec![Item { origin: None, body }] });
    }
    let golden = include_str!("snapshot.hex");
    check(golden, &[hex(&cluster.encode())]);
    assert_eq!(Cluster::decode(&unhex(golden.trim_end())), Ok(cluster));
}
