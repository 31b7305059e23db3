//! Drills test what they say, or say that they did not: each on the machine of what it strikes.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, Stdio};

use hotwarm::api::types::{Status, Traffic};
use hotwarm::drill::fault;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};

use crate::cluster::{Cluster, PATIENCE, Site, alone, engine, members};
use crate::command::hotwarm;
use crate::faults::EXPECTED as OF_FAULTS;
use crate::members::HOTWARM;
use crate::netns::join_all;

/// Each way in which a drill may end before its time, the exit code that it is to have then, and how it says so.
const ENDS: [(Signal, Option<i32>, &str); 4] = [
    (Signal::INT, Some(130), "interrupted: "),
    (Signal::TERM, Some(143), "terminated: "),
    (Signal::HUP, Some(129), "the terminal went away: "),
    (Signal::KILL, None, "the drill has died: "),
];
/// Far longer than a test takes: what ends before is ended by what is tested.
const LONG: &str = "30m";

/// What is said of a group that is paused.
const OF_PAUSED: &[(&str, &str)] = &[("reason=\"automation-paused\"", "the test paused it"), ("reason=\"resume-waits\"", "and resumed it")];

/// A drill that runs, in a process group of its own, and what it says.
struct Drill {
    child: Child,
    said: BufReader<ChildStderr>,
}

impl Drill {
    /// Until the fault is made.
    fn start(cluster: &Cluster, node: &str, fault: &str, target: &str, lasting: &str) -> Self {
        let mut command = hotwarm();
        command.args(["--api", cluster.client(node).url(), "--config"]).arg(cluster.config(node)).args(["drill", fault, target]);
        command.args(["--yes", "--for", lasting]);
        command.process_group(0).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = cluster.on(node, move || command.spawn().unwrap());
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut all = String::new();
        while !all.contains("fault: ") {
            assert!(said.read_line(&mut all).unwrap() > 0, "it ended: {all}");
        }
        println!("{all}");
        Self { child, said }
    }

    /// All of its process group gets the signal, as from a terminal; the exit code, and what was said until nobody holds its standard error.
    fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        kill_process_group(Pid::from_child(&self.child), signal).unwrap();
        let code = self.child.wait().unwrap().code();
        let mut rest = String::new();
        self.said.read_to_string(&mut rest).unwrap();
        (code, rest)
    }
}

impl Drop for Drill {
    fn drop(&mut self) {
        // One that has ended needs no signal.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A group as in the README: one member serves, over connections that nobody looks into, checked by connecting.
fn ledger(site: Site) -> Site {
    let clock = engine(&[HOTWARM, "component", "clock"], "on_role_change = { http = \"/role\" }");
    site.group("ledger", "hot-warm", &format!("protocol = \"tcp\"\nfailovers_per_hour = 1000\n{clock}"))
}

/// A hot member that hotwarm does not end when it hangs, and its process: nobody but a drill lets it go on.
fn left_alone() -> (Cluster, String, u32) {
    let cluster = ledger(Site::new(3)).start_whole();
    let hot = cluster.hot("ledger", &[]).expect("one that serves");
    cluster.done("a", &["pause", "ledger", "--yes"]);
    let pid = cluster.member_pid(&hot).unwrap().as_raw_nonzero().get();
    (cluster, hot, u32::try_from(pid).unwrap())
}

/// `nft` with the packet filter of a machine.
fn nft(cluster: &Cluster, node: &str, what: &str) -> bool {
    let arguments: Vec<&str> = what.split(' ').collect();
    cluster.on(node, || Command::new("nft").args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success())
}

fn is_cut(cluster: &Cluster, node: &str) -> bool {
    nft(cluster, node, "list table inet hotwarm_drill")
}

/// What was sent to the members of `ledger`, as the routers counted it.
fn sent_to_ledger(cluster: &Cluster) -> u64 {
    let traffic = cluster.running().map(|name| cluster.on(name, || cluster.client(name).get::<Traffic>("/api/v1/traffic").unwrap()));
    let groups = traffic.flat_map(|traffic| traffic.groups).filter(|group| group.group == "ledger");
    groups.flat_map(|group| group.members).map(|member| member.sent_bytes).sum()
}

/// Machines with certificates, and an API on loopback each; groups of both protocols.
fn machines() -> Cluster {
    join_all(ledger(Site::in_namespaces(3).web_and_clock()))
}

fn node_of(cluster: &Cluster) -> &'static str {
    let hot = cluster.hot("clock", &[]).expect("one that serves");
    cluster.names().into_iter().find(|name| hot.ends_with(&format!("/{name}"))).unwrap()
}

/// On another machine it is refused; on its own, the node really hears nobody, says so itself, and is back afterwards.
#[test]
fn a_cut_node_is_cut_and_says_so() {
    let _alone = alone();
    let cluster = machines();
    let node = node_of(&cluster);
    let other = cluster.names().into_iter().find(|name| *name != node).unwrap();
    let refused = cluster.refused(other, &["drill", "cut", node, "--yes"]);
    assert!(refused.contains(&format!("run it on the machine of node {node}")) && refused.contains("error[HW0419]"), "{refused}");
    let patience = format!("{}s", PATIENCE.as_secs());
    let drill = ["drill", "cut", node, "--yes", "--for", "6s", "--objective", &patience];
    let cut_off = |status: &Status| status.node.cut_off_ms.is_some() && status.groups.iter().any(|g| g.name == "clock");
    let (told, seen, why) = std::thread::scope(|scope| {
        let told = scope.spawn(|| cluster.run(node, &drill));
        cluster.wait_status(node, "the node to know that it is cut off", cut_off);
        let seen = cluster.run(node, &["status"]).out;
        let why = cluster.run(node, &["why", "clock"]).out;
        (told.join().unwrap(), seen, why)
    });
    assert!(
        told.exit == 0 && told.err.contains("hears none of its peers") && told.err.contains("everything is back"),
        "{}{}",
        told.out,
        told.err
    );
    assert!(told.out.contains("clock (hot-warm)") && told.out.contains("ledger (hot-warm)") && told.out.contains(": met"), "{}", told.out);
    for text in [&seen, &why] {
        assert!(text.starts_with(&format!("node {node} is cut off: ")), "{text}");
    }
    assert!(!why.contains("IF"), "{why}");
    // Not one word that here anything of `clock` is served, which here is not so.
    let line = |text: &str, first: &str| text.lines().find(|line| line.starts_with(first)).unwrap_or_default().to_owned();
    let (clock, web) = (line(&seen, "clock "), line(&seen, "web "));
    assert!(clock.contains("not served here, was serving") && clock.contains("was 1/1"), "{seen}");
    assert!(web.contains("was serving, goes on here"), "{seen}");
    assert!(seen.contains(&format!("clock: node {node} holds no lease: it serves nothing of this group")), "{seen}");
    let now = line(&why, "clock: ");
    assert!(now.starts_with(&format!("clock: nothing of it is served by node {node}, which holds no lease; when it last knew: ")), "{why}");
    assert!(line(&why, &format!("clock/{node} ")).contains("it was") && !why.contains("it is\n"), "{why}");
    cluster.wait_whole();
    assert_ne!(node_of(&cluster), node, "another took over");
    cluster.finish(OF_FAULTS);
}

/// What is said of a death is said of the process that died, and not of a node that goes on.
#[test]
fn a_drill_of_a_killed_node_ends_where_nobody_is_left_to_ask() {
    let _alone = alone();
    let mut cluster = machines();
    let node = node_of(&cluster);
    let patience = format!("{}s", PATIENCE.as_secs());
    let told = cluster.run(node, &["drill", "node-kill", node, "--yes", "--for", "4s", "--objective", &patience]);
    assert!(told.exit == 0 && told.err.contains(&format!("start node {node} again")), "{}{}", told.out, told.err);
    assert!(told.out.contains("clock (hot-warm)"), "{}", told.out);
    cluster.forget_agent(node);
    cluster.start(node);
    cluster.wait_whole();
    let missing = cluster.run(node, &["drill", "kill", "web/nobody", "--yes"]);
    assert!(missing.exit == 1 && missing.err.contains("HW0401"), "{}", missing.err);
    cluster.finish(OF_FAULTS);
}

/// A node is cut off for no longer than somebody measures it: neither a signal nor `kill -9` leaves it alone in the world.
#[test]
fn a_cut_ends_with_its_drill_however_that_ends() {
    let _alone = alone();
    let mut cluster = machines();
    for (signal, code, how) in ENDS {
        if signal == Signal::TERM {
            assert!(nft(&cluster, "c", "add table inet hotwarm_drill"), "as an earlier drill might have left it");
        }
        let drill = Drill::start(&cluster, "c", "cut", "c", LONG);
        assert!(is_cut(&cluster, "c"));
        let second = cluster.run("c", &["drill", "cut", "c", "--yes"]);
        assert!(second.exit == 1 && second.err.contains("error[HW0421]") && second.err.contains("another drill cuts"), "{}", second.err);
        assert!(is_cut(&cluster, "c"), "the second one leaves the first one's cut alone");
        let (exit, said) = drill.end(signal);
        assert!(exit == code && said.contains(&format!("{how}the cut is over")), "{signal:?}: {exit:?} {said}");
        // Nobody holds its standard error any more: whoever was to undo it has ended.
        assert!(!is_cut(&cluster, "c"), "{signal:?}");
        cluster.wait_whole();
    }
    // What is dead stays so, and it is said who is to start it.
    let (exit, said) = Drill::start(&cluster, "c", "node-kill", "c", LONG).end(Signal::INT);
    assert!(exit == Some(130) && said.contains("start it again on its machine"), "{exit:?} {said}");
    cluster.forget_agent("c");
    cluster.start("c");
    cluster.wait_whole();
    cluster.finish(OF_FAULTS);
}

#[test]
fn a_frozen_program_goes_on_when_its_drill_ends_however_that_ends() {
    let _alone = alone();
    let (cluster, hot, pid) = left_alone();
    let node = hot.rsplit_once('/').unwrap().1;
    for (signal, code, how) in ENDS {
        let drill = Drill::start(&cluster, node, "freeze", &hot, LONG);
        assert_eq!(fault::state(pid), Some('T'));
        let (exit, said) = drill.end(signal);
        assert!(exit == code && said.contains(&format!("{how}the frozen program goes on")), "{signal:?}: {exit:?} {said}");
        assert!(!matches!(fault::state(pid), None | Some('T' | 'Z')), "{signal:?}: {:?}", fault::state(pid));
    }
    cluster.finish(&[OF_FAULTS, OF_PAUSED].concat());
}

/// A drill that is suspended still ends its fault in time.
#[test]
fn a_drill_that_is_suspended_freezes_nothing_for_good() {
    let _alone = alone();
    let (cluster, hot, pid) = left_alone();
    let node = hot.rsplit_once('/').unwrap().1;
    let drill = Drill::start(&cluster, node, "freeze", &hot, "3s");
    kill_process_group(Pid::from_child(&drill.child), Signal::STOP).unwrap();
    assert_eq!(fault::state(pid), Some('T'));
    cluster.wait_until("the frozen program to go on", || fault::state(pid) != Some('T'));
    let (_, said) = drill.end(Signal::KILL);
    assert!(said.contains("the drill takes too long: the frozen program goes on"), "{said}");
    cluster.finish(&[OF_FAULTS, OF_PAUSED].concat());
}

/// Connections without a member are not taken for service, a program that hangs is not either, and nothing is sent to it.
#[test]
fn a_tcp_group_is_drilled_by_connections_alone() {
    let _alone = alone();
    let mut cluster = join_all(ledger(Site::in_namespaces(3)));
    let ask = |cluster: &Cluster, node: &str, fault: &str, target: &str| -> Value {
        let told = cluster.run(node, &["drill", fault, target, "--yes", "--for", "3s", "--objective", "60s", "--json"]);
        println!("{fault}: {}{}", told.err, told.out);
        let report: Value = serde_json::from_str(&told.out).unwrap_or_else(|_| panic!("{}{}", told.out, told.err));
        assert_eq!((report["report"]["groups"][0]["group"].as_str(), sent_to_ledger(cluster)), (Some("ledger"), 0));
        report["report"]["groups"][0].clone()
    };
    let hot = |cluster: &Cluster| cluster.hot("ledger", &[]).expect("one that serves");
    let node_of = |cluster: &Cluster| cluster.names().into_iter().find(|name| hot(cluster).ends_with(&format!("/{name}"))).unwrap();
    let killed = ask(&cluster, node_of(&cluster), "kill", &hot(&cluster));
    assert!(killed["met"] == true && killed["failed"] == 0 && killed["requests"].as_u64() > Some(0), "{killed}");
    assert!(killed["evidence"].as_str().unwrap().contains("which the member ends when the client does"), "{killed}");
    cluster.wait_whole();
    // The kernel accepts for a stopped program. Nobody ends this one: it is answered for when it goes on, and not before.
    cluster.done("a", &["pause", "ledger", "--yes"]);
    let frozen = ask(&cluster, node_of(&cluster), "freeze", &hot(&cluster));
    assert!(frozen["outage_ms"].as_u64() > Some(2500) && frozen["met"] == true, "{frozen}");
    cluster.done("a", &["resume", "ledger"]);
    cluster.wait_whole();
    // Until the lease is out nobody may take over, and routers accept all the same.
    let node = node_of(&cluster);
    let dead = ask(&cluster, node, "node-kill", node);
    assert!(dead["outage_ms"].as_u64() > Some(100) && dead["parked"].as_u64() > Some(0) && dead["failed"] == 0, "{dead}");
    cluster.forget_agent(node);
    cluster.start(node);
    cluster.wait_whole();
    cluster.finish(&[OF_FAULTS, OF_PAUSED].concat());
}

/// The group's own objective, unless the command says another; one that was missed is told, and is an exit code of its own.
#[test]
fn a_drill_is_judged_by_the_objective_of_its_group() {
    let _alone = alone();
    let mut site = Site::new(3).web();
    site.groups = site.groups.replace("[group.web]", "[group.web]\nobjective = { rto = \"77s\" }");
    let cluster = site.start_whole();
    let drill = ["drill", "kill", "web/b", "--yes"];
    let met = cluster.done("b", &[&drill[..], &["--json"]].concat());
    let report: Value = serde_json::from_str(&met).unwrap();
    assert_eq!((&report["met"], &report["report"]["groups"][0]["objective_ms"]), (&json!(true), &json!(77_000)), "{report}");
    cluster.wait_settled();
    // No two answers of 100 a second are as near as that.
    let missed = cluster.run("b", &[&drill[..], &["--objective", "1ms"]].concat());
    assert!(missed.exit == 5 && missed.err.contains("the objective was missed"), "{} {}", missed.exit, missed.err);
    assert!(missed.out.contains("objective 0 failed and 1 ms: MISSED"), "{}", missed.out);
    cluster.wait_settled();
    cluster.finish(OF_FAULTS);
}

/// The page of the check, or the one that is asked for; a page that is not there is a member's answer too.
#[test]
fn an_http_group_is_asked_for_a_page_that_a_member_knows() {
    let _alone = alone();
    let cluster = Site::new(3).web().start_whole();
    let kill = ["drill", "kill", "web/a", "--yes", "--objective", "60s"];
    let told = cluster.done("a", &kill);
    assert!(told.contains("answers: GET /healthz, answered with a status below 500") && told.contains(": met"), "{told}");
    cluster.wait_settled();
    let told = cluster.done("a", &[&kill[..], &["--path", "/no/such/page"]].concat());
    assert!(told.contains("answers: GET /no/such/page") && told.contains(", 0 failed"), "{told}");
    cluster.wait_settled();
    let pids = |cluster: &Cluster| members(&cluster.status_of("a").unwrap()).find_map(|member| member.pid);
    let before = pids(&cluster);
    for (arguments, code, help) in [
        (&["kill", "a"][..], "HW0418", "`kill` takes a member such as web/a, and a is a node"),
        (&["kill", "a"], "HW0418", "hotwarm drill node-kill a"),
        (&["kill", "a"], "HW0418", "its members: web/a"),
        (&["cut", "web/a"], "HW0418", "`cut` takes a node, and web/a is a member"),
        (&["kill", "web/a", "--load", "0"], "", "0 is not in 1..=10000"),
        (&["kill", "web/a", "--path", "page"], "", "a path begins with /"),
    ] {
        let ran = cluster.run("a", &[&["drill"], arguments, &["--yes"]].concat());
        assert!(ran.exit == 2 && ran.err.contains(code) && ran.err.contains(help), "{arguments:?}: {} {}", ran.exit, ran.err);
    }
    assert_eq!(pids(&cluster), before, "nothing was done");
    cluster.finish(OF_FAULTS);
}

/// Another serves in the place of the one that was struck, which lives again and then rests: that is all that can come back.
#[test]
fn a_drill_of_a_group_with_a_spare_ends_when_who_was_struck_rests() {
    let _alone = alone();
    let clock = engine(&[HOTWARM, "component", "clock"], "on_role_change = { http = \"/role\" }");
    let more = format!("protocol = \"http\"\ncheck = {{ http = \"/healthz\" }}\nfailovers_per_hour = 1000\n{clock}");
    let cluster = Site::new(2).group("clock", "hot-spare", &more).start_whole();
    let hot = cluster.hot("clock", &[]).expect("one that serves");
    let told = cluster.done(node_of(&cluster), &["drill", "kill", &hot, "--yes", "--objective", "60s"]);
    assert!(told.contains("clock (hot-spare)") && told.contains(": met"), "{told}");
    assert_ne!(cluster.hot("clock", &[]), Some(hot), "the spare serves");
    cluster.finish(OF_FAULTS);
}
