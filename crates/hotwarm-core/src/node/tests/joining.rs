//! Who joins, or comes back, where a node leads that its own file or log does not name.

use super::*;

impl Desk {
    fn bring_to_lead(&mut self, name: &str) {
        let (name, leader) = (NodeId::from(name), self.leader());
        let id = self.cluster("a").nodes[&name].raft_id.expect("admitted");
        self.nodes.get_mut(&leader).expect("known").replica.as_mut().expect("it leads").transfer_leader(id).expect("a voter");
        self.until(1000, "it leads", |d| d.nodes[&name].lead.is_some());
        self.run(300);
    }

    fn reached(&self, on: &str) -> Vec<String> {
        let reached = self.nodes[&NodeId::from(on)].view().reached;
        reached.iter().map(ToString::to_string).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// Its file is as old as its disk was: it names one that left, and not the one that came for it, which leads.
#[test]
fn s11_a_wiped_node_joins_although_its_file_does_not_name_the_leader() {
    let mut desk = Desk::new(&["a", "b", "d"]);
    desk.until(3000, "all members serve", |d| d.serving("web", "d").len() == 3);
    desk.until(1000, "three voters", |d| d.nodes[&d.leader()].view().voters.len() == 3);
    desk.run(500);
    desk.bring_to_lead("d");
    assert_eq!(desk.reached("a"), ["a", "b", "d"]);
    let before = desk.cluster("a").nodes[&NodeId::from("b")].raft_id;
    desk.wipe("b", false);
    desk.nodes.get_mut(&NodeId::from("b")).expect("known").peers = {
        let mut options = desk.nodes[&NodeId::from("b")].options.clone();
        options.peers = ["a", "b", "c"].map(NodeId::from).into();
        peers::Peers::new(&options, desk.now)
    };
    desk.until(300, "it is heard, and as no voter", |d| {
        d.nodes[&NodeId::from("a")].view().heard.contains(&"b".into()) && d.reached("a") == ["a", "d"]
    });
    desk.until(3000, "it is a voter again, under another number", |d| {
        let leader = d.nodes.values().find(|n| n.lead.is_some());
        let voters = leader.map(|n| n.replica.as_ref().expect("it leads").voters().voters.clone()).unwrap_or_default();
        let now = d.cluster("b").nodes.get(&NodeId::from("b")).and_then(|node| node.raft_id);
        now.is_some_and(|id| Some(id) != before && voters.contains(&id.0))
    });
    assert_eq!(desk.leader(), NodeId::from("d"), "no election was needed\n{}", desk.log.join("\n"));
    desk.until(5000, "it serves again, and is reached", |d| d.serving("web", "b").len() == 3 && d.reached("a") == ["a", "b", "d"]);
}

/// One that kept its log and slept while another node was added, which leads now.
#[test]
fn a_node_that_was_away_hears_of_the_newcomer_that_leads() {
    let mut desk = settled();
    let away = NodeId::from("b");
    if desk.leader() == away {
        desk.bring_to_lead("a");
    }
    desk.down.insert(away.clone());
    desk.until(3000, "it lapsed", |d| !d.cluster("a").nodes[&away].leased && !d.cluster("c").nodes[&away].leased);
    let mut spec = desk.nodes[&NodeId::from("a")].options.found.clone().expect("a founded").1;
    spec.nodes.insert("d".into(), spec.nodes[&away].clone());
    let revision = desk.cluster("a").revision;
    let (now, leader) = (desk.now, desk.leader());
    let command = Command::Configure { spec: Box::new(spec), revision };
    desk.nodes.get_mut(&leader).expect("known").handle_command(now, 9, command);
    desk.until(500, "it is configured", |d| d.cluster("a").nodes.contains_key(&NodeId::from("d")));
    let mut options = Options::new("d".into(), "desk", 500, 5);
    options.peers = ["a", "b", "c", "d"].map(NodeId::from).into();
    desk.nodes.insert("d".into(), Node::new(options, Stored::default(), desk.now).expect("a new node starts"));
    desk.until(5000, "the newcomer votes", |d| d.nodes[&d.leader()].view().voters.contains(&"d".into()));
    desk.run(500);
    desk.bring_to_lead("d");
    desk.down.clear();
    desk.until(3000, "it has read of the newcomer", |d| d.cluster("b").nodes.contains_key(&NodeId::from("d")));
    desk.until(3000, "it is leased again", |d| d.cluster("b").nodes[&away].leased);
    assert_eq!(desk.leader(), NodeId::from("d"), "no election was needed\n{}", desk.log.join("\n"));
}
