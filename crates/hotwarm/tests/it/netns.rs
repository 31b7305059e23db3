//! Nodes on machines of their own, as nearly as one machine can: a network namespace each, certificates, and cuts of every shape.
//!
//! Clients sit at the switch, and where it says so beside a node that is cut off.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use hotwarm::api::types::Reloaded;
use hotwarm::drill::Load;
use rustix::process::Pid;
use serde_json::json;

use crate::cluster::{Cluster, Site, all_answered, alone, private};
use crate::command::{done, run};
use crate::lan::Lan;
use crate::members::is_alive;
use crate::recorder::Recorder;

/// What is said while nodes cannot reach each other, and why that is right.
const EXPECTED: &[(&str, &str)] = &[
    ("not connected:", "packets to the peer are dropped"),
    ("HW0509", "a node whose renewals or grants are dropped holds no lease"),
    ("was ended here by its guard", "it was hot on a node that is cut off"),
];
const REVOKED: &[(&str, &str)] = &[
    ("is revoked", "the certificate that node c goes on with, and says so itself"),
    ("connection refused:", "by node c, or of it"),
    ("connection closed:", "the same, of those that stood"),
];
const RATE: u32 = 40;

/// `init` on one machine, `join` on each, `run`, with mutual TLS. The joined file is given the groups, and for each node a directory of its
/// own: all machines of a test share one disk.
pub(crate) fn join_all(site: Site) -> Cluster {
    let dir = site.dir.path().to_owned();
    let nodes: Vec<String> = site.machines.iter().map(|m| format!("{}={}", m.name, m.peer.ip())).collect();
    done(&["init", "it", "--nodes", &nodes.join(","), "--dir", dir.to_str().unwrap()]);
    let mut configs = BTreeMap::new();
    for machine in &site.machines {
        let root = dir.join(machine.name);
        private(&root);
        let join = dir.join("it").join(format!("{}.join", machine.name));
        done(&["join", join.to_str().unwrap(), "--root", root.to_str().unwrap()]);
        let file = root.join("etc/hotwarm/hotwarm.toml");
        let text = fs::read_to_string(&file).unwrap() + &site.machines_text() + &site.groups;
        fs::write(&file, text).unwrap();
        configs.insert(machine.name, file);
    }
    let mut cluster = Cluster::new(site, configs);
    for name in cluster.names() {
        cluster.start(name);
    }
    cluster.wait_whole();
    cluster
}

/// Five nodes that serve, watched from the switch: through every router, and every member past the routers.
struct Stage {
    cluster: Cluster,
    recorder: Recorder,
    lan: Arc<Lan>,
}

impl Stage {
    fn set() -> Self {
        let cluster = join_all(Site::in_namespaces(5).web_and_clock());
        let lan = Arc::clone(cluster.site.lan.as_ref().unwrap());
        let recorder = lan.on("switch", || Recorder::watch(&cluster));
        Self { cluster, recorder, lan }
    }

    fn hot_node(&self) -> (&'static str, String) {
        let hot = self.cluster.hot("clock", &[]).expect("one that serves");
        (self.cluster.node_of(&hot), hot)
    }

    fn epoch(&self) -> u64 {
        let status = self.cluster.status_but(&[]).expect("a node that answers");
        status.groups.iter().find(|group| group.name == "clock").unwrap().epoch
    }

    /// Load on the routers of all nodes but one, from the switch.
    fn load(&self, group: &str, but: &str) -> Load {
        let addresses = self.cluster.listen(group).into_iter().filter(|(name, _)| name != but).map(|(_, address)| address).collect();
        self.lan.on("switch", || Load::start(addresses, RATE)).unwrap()
    }

    /// Waits until the others serve without `node`, whose member `hot` was the process `pid`: it must be dead before.
    fn wait_replaced(&self, node: &str, hot: &str, pid: Pid) {
        self.cluster.wait_until("the majority to serve without it", || {
            let now = self.cluster.hot("clock", &[node]).filter(|now| now != hot);
            // Read in this order: at the latest then it must have been dead.
            assert!(now.is_none() || !is_alive(pid), "{hot} lives while {now:?} serves");
            now.is_some() && self.recorder.newest().is_some_and(|reply| reply.said.name != hot)
        });
    }

    /// One question from a client beside a node, at that node's own listener.
    fn asks_beside(&self, node: &str, address: SocketAddr) -> bool {
        self.lan.on(node, || {
            Load::start(vec![address], RATE).is_ok_and(|load| {
                let since = Instant::now();
                self.cluster.wait_until("an answer beside the node", || load.answered_since(since) > 0);
                true
            })
        })
    }

    fn end(self, loads: Vec<Load>) {
        all_answered(loads);
        println!("{} replies recorded", self.recorder.judge());
        self.cluster.finish(EXPECTED);
    }
}

/// New certificates while everything runs: on a node that has the CA key, on one that gets a join file, and on one that is down.
#[test]
fn renewed_certificates_are_taken_up_without_a_restart() {
    let _alone = alone();
    let mut cluster = join_all(Site::in_namespaces(3).web_and_clock());
    let serial = |cluster: &Cluster, name| cluster.status_of(name).unwrap().node.certificate.expect("a certificate").serial;
    let state = |cluster: &Cluster| (["a", "b"].map(|n| cluster.agent(n)), ["web", "clock"].map(|g| cluster.group(g).epoch));
    let before = ["a", "b", "c"].map(|name| serial(&cluster, name));
    let (running, accepted) = (state(&cluster), |from| cluster.log("a").matches(&format!("accepted from={from}")).count());
    let connected = ["b", "c"].map(accepted);
    let file = |name: &str| cluster.file(name).to_str().unwrap().to_owned();
    let (key, folder) = (file("it/ca.key"), file(""));
    let renew = ["certs", "renew", "--ca-key", &key, "--dir", &folder, "--node"];
    let installed = cluster.run_plain("b", &[&renew[..], &["b"]].concat()).out;
    assert_eq!(installed.lines().count(), 1, "{installed}");
    assert!(installed.starts_with("node b, this machine: installed, in force now"), "{installed}");
    assert!(!cluster.file("b.join").exists());
    // Where the CA key lies is no node.
    let written = done(&[&renew[..], &["a,c"]].concat());
    assert!(written.contains("a.join") && written.contains("c.join") && written.contains("sudo hotwarm join"), "{written}");
    let join = |name: &str| cluster.on(name, || done(&["join", &file(&format!("{name}.join")), "--root", &file(name)]));
    assert!(join("a").contains("in force now"));
    cluster.wait_until("b to come with the new one", || accepted("b") > connected[0]);
    cluster.wait_until("new ones of b and a on each node", || (0..2).all(|at| serial(&cluster, ["a", "b"][at]) != before[at]));
    cluster.wait_whole();
    assert_eq!(state(&cluster), running, "no agent was started anew, and nothing moved");
    // One that is down takes it up when it starts.
    assert_eq!(serial(&cluster, "c"), before[2]);
    cluster.kill_agent("c");
    let file = |name: &str| cluster.file(name).to_str().unwrap().to_owned();
    let told = cluster.on("c", || done(&["join", &file("c.join"), "--root", &file("c")]));
    assert!(told.contains("at the node's next start"), "{told}");
    cluster.start("c");
    cluster.wait_settled();
    assert_ne!(serial(&cluster, "c"), before[2]);
    let keys = fs::read_dir(cluster.machine("b").data.join("tls")).unwrap().count();
    assert_eq!((keys, cluster.machine("b").data.join("tls.new").exists()), (3, false), "nothing of the old is left");
    cluster.finish(EXPECTED);
}

/// A list of revoked certificates counts from a reload on, from a start on, and still after a renewal of the certificates beside it; a new
/// certificate of the node is let in.
#[test]
fn a_revoked_certificate_is_refused_until_its_node_has_another() {
    let _alone = alone();
    let mut cluster = join_all(Site::in_namespaces(3).web_and_clock());
    let file = |name: &str| cluster.file(name).to_str().unwrap().to_owned();
    let (key, folder, roots) = (file("it/ca.key"), file(""), ["a", "b", "c"].map(|name| (name, file(name))));
    let file_of_c = file("it/c.join");
    let root = |name| &roots.iter().find(|(of, _)| *of == name).expect("a node of three").1;
    let serial = cluster.status_of("c").unwrap().node.certificate.expect("a certificate").serial;
    for node in ["a", "b"] {
        fs::write(cluster.machine(node).data.join("tls/revoked"), format!("{serial}  # stolen\n")).unwrap();
    }
    let refused = |cluster: &Cluster, by| cluster.log(by).matches("is revoked").count();
    let refuses_c = |cluster: &Cluster, node, before| {
        cluster.wait_until("c to be refused", || refused(cluster, node) > before);
        cluster.wait_status(node, "c to be heard no more", |status| status.nodes.iter().any(|other| other.name == "c" && !other.heard));
    };
    // A list with a line that nobody understands revokes nothing, and says so: at a reload, and at a start.
    let (list, whole) = (cluster.machine("a").data.join("tls/revoked"), format!("serial={}  # stolen\n", serial.to_uppercase()));
    fs::write(&list, format!("{whole}c.pem\n")).unwrap();
    let reload = |cluster: &Cluster| cluster.on("a", || cluster.client("a").post::<Reloaded>("/api/v1/certificates/reload", &json!({})));
    let told = reload(&cluster).unwrap_err().to_string();
    assert!(told.contains("line 2 of ") && told.contains("no certificate's serial number"), "{told}");
    cluster.kill_agent("a");
    cluster.start("a");
    cluster.forget_agent("a");
    assert!(cluster.log("a").contains("the node does not start") && cluster.log("a").contains("line 2 of "));
    fs::write(&list, "").unwrap();
    cluster.start("a");
    cluster.wait_settled();
    assert_eq!(refused(&cluster, "a"), 0);
    fs::write(&list, whole).unwrap();
    // Whatever is wrong with the certificates beside it.
    let (own, aside) = (cluster.machine("a").data.join("tls/node.pem"), cluster.file("aside"));
    fs::rename(&own, &aside).unwrap();
    assert!(reload(&cluster).unwrap_err().to_string().contains("no certificates"));
    fs::rename(&aside, &own).unwrap();
    refuses_c(&cluster, "a", 0);
    cluster.kill_agent("b");
    cluster.start("b");
    refuses_c(&cluster, "b", 0);
    // The node itself, started with that list: its own log says what is wrong, and so do those who dial it.
    fs::write(cluster.machine("c").data.join("tls/revoked"), &serial).unwrap();
    cluster.kill_agent("c");
    cluster.start("c");
    let logged = |cluster: &Cluster, text: &str| cluster.log("c").lines().any(|line| line.contains(text) && line.contains("is revoked"));
    cluster.wait_until("c to say it of itself", || logged(&cluster, "code=HW0203"));
    cluster.wait_until("c to hear it when it dials", || logged(&cluster, "not connected: refused by the other node"));
    cluster.wait_until("c to hear it when it is dialled", || logged(&cluster, "connection refused: refused by the other node"));
    cluster.wait_until("c to answer its operator", || cluster.status_of("c").is_ok());
    // A renewal replaces what lies beside the list.
    let renew = ["certs", "renew", "--ca-key", &key, "--dir", &folder, "--node"];
    let installed = cluster.run_plain("a", &[&renew[..], &["a"]].concat()).out;
    assert!(installed.contains("in force now"), "{installed}");
    refuses_c(&cluster, "a", refused(&cluster, "a"));
    done(&[&renew[..], &["c"]].concat());
    let renewed = cluster.on("c", || done(&["join", &format!("{folder}/c.join"), "--root", root("c")]));
    assert!(renewed.contains("in force now"), "{renewed}");
    cluster.wait_settled();
    // The first file, which somebody kept, does not bring it back.
    let kept = cluster.on("c", || run(&["join", &file_of_c, "--root", root("c")]));
    assert!(kept.exit == 3 && kept.err.contains("is revoked in "), "{}{}", kept.out, kept.err);
    cluster.finish(&[EXPECTED, REVOKED].concat());
}

/// The hot member's node loses its link: its member ends before another serves, the majority's clients wait and are answered, and what
/// serves on every node goes on beside the node that is cut off (fail-static).
#[test]
fn a_node_off_the_network_stops_what_must_not_go_on_and_keeps_the_rest() {
    let _alone = alone();
    let mut stage = Stage::set();
    let (node, hot) = stage.hot_node();
    let (clock, lan) = (stage.cluster.group("clock"), Arc::clone(&stage.lan));
    let member = clock.members.iter().find(|member| member.name == hot).unwrap().address;
    // Who is beside the node reaches its router and its member all the while, and must not be served by them once another serves (S8).
    lan.on(node, || {
        stage.recorder.ask([clock.listen[node]], true);
        stage.recorder.ask([member], false);
    });
    let cluster = &stage.cluster;
    let (web, pid) = (cluster.listen("web")[node], cluster.member_pid(&hot).unwrap());
    let loads = vec![stage.load("web", node), stage.load("clock", node)];
    stage.lan.cut(node);
    stage.wait_replaced(node, &hot, pid);
    assert!(stage.asks_beside(node, web), "fail-static: what needs no lease goes on");
    stage.lan.join(node);
    cluster.wait_settled();
    stage.end(loads);
}

/// The hot member's node hears nobody, and is heard. Then the reverse: nobody hears it.
#[test]
fn a_cut_of_one_direction_is_a_cut() {
    let _alone = alone();
    let stage = Stage::set();
    let cluster = &stage.cluster;
    for deaf in [true, false] {
        let (node, hot) = stage.hot_node();
        let others: Vec<_> = cluster.names().into_iter().filter(|name| *name != node).collect();
        let loads = vec![stage.load("web", node), stage.load("clock", node)];
        println!("{node} {}", if deaf { "hears nobody" } else { "is not heard" });
        for other in &others {
            if deaf { stage.lan.deafen(node, other) } else { stage.lan.deafen(other, node) }
        }
        cluster.wait_until("the majority to serve without it", || {
            cluster.hot("clock", &[node]).is_some_and(|now| now != hot) && stage.recorder.newest().is_some_and(|r| r.said.name != hot)
        });
        cluster.names().iter().for_each(|name| stage.lan.undeafen(name));
        cluster.wait_settled();
        all_answered(loads);
    }
    stage.end(Vec::new());
}

/// A node hears all others and is heard by none, so that nothing it sees is missing but its lease: it says so before all else.
#[test]
fn a_node_that_hears_all_and_is_heard_by_none_says_that_it_holds_no_lease() {
    let _alone = alone();
    let cluster = join_all(Site::in_namespaces(3).web_and_clock());
    let lan = Arc::clone(cluster.site.lan.as_ref().unwrap());
    let leader = cluster.status_but(&[]).unwrap().cluster.leader;
    let node = cluster.names().into_iter().find(|name| Some(*name) != leader.as_deref()).unwrap();
    let others: Vec<_> = cluster.names().into_iter().filter(|name| *name != node).collect();
    others.iter().for_each(|other| lan.mute(node, other, cluster.machine(other).peer.port()));
    cluster.wait_status(node, "no lease", |status| status.node.no_lease_ms.is_some());
    let told = cluster.run(node, &["status", "--check"]);
    let first = format!("node {node} holds no lease since ");
    assert!(told.exit == 1 && told.out.starts_with(&first), "{}", told.out);
    assert!(told.out.contains("quorum 3/3") && told.out.contains("not served here, was serving"), "it hears all: {}", told.out);
    let own = told.out.lines().find(|line| line.starts_with(&format!("{node} "))).unwrap();
    assert!(own.contains("no lease"), "{}", told.out);
    let why = cluster.run(node, &["why", "clock"]).out;
    assert!(why.starts_with(&first) && why.contains("when it last knew: "), "{why}");
    let status = cluster.status_of(node).unwrap();
    assert!(status.node.cut_off_ms.is_none(), "{:?}", status.node);
    assert!(status.nodes.iter().all(|other| other.leased == (other.name != node)), "{:?}", status.nodes);
    others.iter().for_each(|other| lan.undeafen(other));
    cluster.wait_settled();
    assert!(cluster.done(node, &["status"]).starts_with("cluster it "));
    cluster.finish(EXPECTED);
}

/// A firewall that lets the hot member's node call the others, and not be called: its heartbeats arrive, and no grant reaches it.
#[test]
fn a_node_that_can_call_and_not_be_called_is_replaced() {
    let _alone = alone();
    let stage = Stage::set();
    let cluster = &stage.cluster;
    let (node, hot) = stage.hot_node();
    let pid = cluster.member_pid(&hot).unwrap();
    let loads = vec![stage.load("web", node), stage.load("clock", node)];
    stage.lan.block(node, cluster.machine(node).peer.port());
    stage.wait_replaced(node, &hot, pid);
    stage.lan.undeafen(node);
    cluster.wait_settled();
    stage.end(loads);
}

/// The hot member's node and the leader's do not hear each other; all others hear both. Their words go by a third node: nothing moves.
#[test]
fn two_nodes_that_do_not_hear_each_other_are_no_reason_to_move_anything() {
    let _alone = alone();
    let stage = Stage::set();
    let cluster = &stage.cluster;
    let leader = || cluster.status_but(&[]).and_then(|status| status.cluster.leader);
    let (node, hot) = stage.hot_node();
    let first = leader().expect("a leader");
    let other = if first == node { cluster.names().into_iter().find(|name| *name != node).unwrap() } else { cluster.machine(&first).name };
    let epoch = stage.epoch();
    let loads = vec![stage.load("web", ""), stage.load("clock", "")];
    stage.lan.deafen(node, other);
    stage.lan.deafen(other, node);
    // Long enough for a lease that is not renewed to be waited out: seen by the entries that the log takes in the meantime.
    let lasts = Instant::now() + std::time::Duration::from_secs(5);
    cluster.wait_until("five seconds of it", || {
        assert_eq!((cluster.hot("clock", &[]), stage.epoch()), (Some(hot.clone()), epoch), "moved by a cut that nobody needed to notice");
        Instant::now() > lasts
    });
    stage.lan.undeafen(node);
    stage.lan.undeafen(other);
    cluster.wait_settled();
    stage.end(loads);
}
