//! What an operator sees and does, on real clusters, by the real command line.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use hotwarm::api::types::{Configuration, Events};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cluster::{Cluster, PATIENCE, Site, is_whole};
use crate::command::hotwarm;
use crate::faults::EXPECTED as OF_FAULTS;
use crate::schema;

#[test]
fn an_operator_sees_and_acts() {
    let cluster = Site::new(3).web_and_clock().start_whole();
    sees_the_cluster(&cluster);
    answers_as_described(&cluster);
    is_refused_with_a_code_and_a_page(&cluster);
    measures(&cluster);
    reads_output_where_it_is(&cluster);
    hands_over(&cluster);
    follows_events(&cluster);
    follows_by_commands(&cluster);
    pauses_and_resumes(&cluster);
    drains(&cluster);
    applies(&cluster);
    removes_a_group(&cluster);
    let refused = "refused above";
    cluster.finish(&[
        OF_FAULTS[0],
        ("switchover refused", refused),
        ("is not restarted yet", "asked while another member came back"),
        ("configuration refused", refused),
        ("is kept although", "drained while no other could serve"),
        ("automation is paused", "paused above"),
        ("pause ends when", "paused above"),
    ]);
}

/// The member of `clock` that is hot.
fn hot(cluster: &Cluster) -> String {
    cluster.hot("clock", &[]).expect("a hot member")
}

fn sees_the_cluster(cluster: &Cluster) {
    let text = cluster.done("b", &["status"]);
    assert!(text.starts_with("cluster it  leader "), "{text}");
    for part in
        ["quorum 3/3", "configuration 1", "as node b sees it", "web    hot-hot   serving", "clock  hot-warm  serving", "3/3", "1/1  2/2"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains('\u{1b}'), "colour where nobody looks");
    let status: Value = serde_json::from_str(&cluster.done("b", &["status", "--json"])).unwrap();
    assert_eq!(status["node"]["name"], "b");
    let pids: Vec<bool> = status["groups"][1]["members"].as_array().unwrap().iter().map(|member| member["pid"].is_u64()).collect();
    assert_eq!(pids, [false, true, false], "a node knows the pids of its own members");
    let (code, health) = cluster.client("c").get_text("/health").unwrap();
    assert!(code == 200 && health.contains("\"UP\""), "{health}");
    let hot = hot(cluster);
    let why = cluster.done("c", &["why", "clock"]);
    assert!(why.starts_with(&format!("clock: {hot} serves epoch ")), "{why}");
    assert!(why.contains(&format!("{hot} is killed  clock/")) && why.contains("takes over"), "{why}");
    assert!(cluster.done("a", &["events", "clock"]).contains("vacant"));
    assert!(cluster.done("a", &["top", "--once", "--every", "50ms"]).contains("web/c"));
}

/// Every read in the table is asked for, on a real node, and its answer held against the description.
fn answers_as_described(cluster: &Cluster) {
    let api = cluster.client("a");
    let document: Value = api.get("/api/v1/openapi.json").unwrap();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let Some(get) = operations.get("get") else { continue };
        let asked = path.replace("{group}", "web").replace("{member}", "a");
        let schema = &get["responses"]["200"]["content"]["application/json"]["schema"];
        if schema.is_null() {
            assert_eq!(path, "/metrics");
            continue;
        }
        let answer: Value = api.get(&asked).unwrap_or_else(|error| panic!("{asked}: {error}"));
        schema::check(&document, schema, &answer, &asked);
    }
    let writes = [
        ("/api/v1/groups/{group}/pause", json!({}), 200),
        ("/api/v1/groups/{group}/resume", json!({}), 200),
        ("/api/v1/groups/{group}/switchover", json!({ "to": "web/b" }), 409),
        ("/api/v1/groups/{group}/restart", json!({ "cancel": true }), 200),
        ("/api/v1/members/{group}/{member}/drain", json!({}), 200),
        ("/api/v1/members/{group}/{member}/undrain", json!({}), 200),
        ("/api/v1/nodes/{node}/drain", json!({}), 200),
        ("/api/v1/nodes/{node}/undrain", json!({}), 200),
        ("/api/v1/members/{group}/{member}/restart", json!({}), 200),
        ("/api/v1/config", json!({ "text": "x = 1", "revision": 1 }), 422),
        ("/api/v1/certificates/reload", json!({}), 409),
    ];
    let posts = document["paths"].as_object().unwrap().values().filter(|path| path.get("post").is_some()).count();
    assert_eq!(writes.len(), posts, "a write that no test asks for");
    for (path, body, expected) in writes {
        let asked = path.replace("{group}", "web").replace("{member}", "a").replace("{node}", "c");
        let operation = &document["paths"][path]["post"];
        let (status, answer) = match api.post::<Value>(&asked, &body) {
            Ok(answer) => (200, answer),
            Err(hotwarm::api::client::ClientError::Refused { status, error }) => (status, json!(error)),
            Err(error) => panic!("{asked}: {error}"),
        };
        assert_eq!(status, expected, "{asked}: {answer}");
        let schema = &operation["responses"][status.to_string()]["content"]["application/json"]["schema"];
        schema::check(&document, schema, &answer, &asked);
    }
    cluster.wait_all("web whole again", |status| status.groups.iter().all(is_whole));
}

fn is_refused_with_a_code_and_a_page(cluster: &Cluster) {
    let unknown = cluster.run("a", &["why", "nothing"]);
    assert_eq!(unknown.exit, 1);
    assert!(unknown.err.contains("error[HW0401]: group nothing not known"), "{}", unknown.err);
    assert!(unknown.err.contains("docs/reference/errors/HW0401.md"), "{}", unknown.err);
    unknown_targets(cluster);
    let nobody = cluster.run_plain("a", &["--api", "http://127.0.0.1:1", "status"]);
    assert!(nobody.exit == 4 && nobody.err.contains("HW0005"), "{}", nobody.err);
    assert!(cluster.refused("a", &["switchover", "clock"]).contains("HW0411"), "it asks, and nobody is there");
    assert!(cluster.refused("a", &["switchover", "web", "--yes"]).contains("several hot members"));
    assert!(cluster.refused("a", &["accept-loss", "web"]).contains("HW0413"));
    let error: Value = serde_json::from_str(&cluster.refused("a", &["--json", "switchover", "web", "--yes"])).unwrap();
    assert_eq!(error["code"], "HW0406");
    for path in [
        "/nothing",
        "/api/v1/events?limit=many",
        "/api/v1/events?limit=1001",
        "/api/v1/members/web/a/logs?lines=10001",
        "/api/v1/events?lmit=1",
        "/api/v1/members/web/z/logs",
        "/api/v1/groups/z/why",
    ] {
        let (status, text) = cluster.client("a").get_text(path).unwrap();
        assert!((400..500).contains(&status) && text.contains("\"page\":\"docs/reference/errors/HW04"), "{path}: {status} {text}");
    }
    let url = cluster.client("a").url().to_owned();
    let asked = |headers: &[&str], rest: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}"]).args(headers.iter().flat_map(|header| ["-H", header])).args(rest);
        String::from_utf8(curl.output().unwrap().stdout).unwrap()
    };
    let status = format!("{url}/api/v1/status");
    assert_eq!(asked(&["Origin: http://another-site"], &[&status]), "403", "a page of another site");
    assert_eq!(asked(&[&format!("Origin: {url}")], &[&status]), "200");
    let resume = format!("{url}/api/v1/groups/web/resume");
    let plain = "Content-Type: text/plain";
    assert_eq!(asked(&["Origin: http://localhost:9999", plain], &["-d", "{}", &resume]), "403", "a page of another port");
    assert_eq!(asked(&[plain], &["-d", "{}", &resume]), "415", "what a page may send without asking");
    assert_eq!(asked(&["Content-Type: application/json"], &["-d", "{}", &resume]), "200");
    assert_eq!(asked(&[], &["-X", "POST", &resume]), "200");
    let json = "Content-Type: application/json";
    let writes = [
        "groups/web/switchover",
        "groups/web/pause",
        "groups/web/resume",
        "groups/web/restart",
        "members/web/a/restart",
        "members/web/a/drain",
        "members/web/a/undrain",
        "nodes/c/drain",
        "nodes/c/undrain",
        "config",
        "certificates/reload",
    ];
    for write in writes {
        for body in ["[]", "{\"unknown\":1}"] {
            assert_eq!(asked(&[json], &["-d", body, &format!("{url}/api/v1/{write}")]), "400", "{write} {body}");
        }
    }
    for (path, method, allowed) in
        [("config", "DELETE", "GET, HEAD, POST"), ("groups/web/pause", "GET", "POST"), ("status", "POST", "GET, HEAD")]
    {
        let curl = Command::new("curl").args(["-si", "-X", method, &format!("{url}/api/v1/{path}")]).output().unwrap();
        let head = String::from_utf8(curl.stdout).unwrap();
        assert!(head.starts_with("HTTP/1.1 405") && head.contains(&format!("\r\nallow: {allowed}\r\n")), "{head}");
    }
}

/// What is not there is said alike by every command, before anybody is asked, with what may have been meant.
fn unknown_targets(cluster: &Cluster) {
    for asked in [
        &["why", "clok"][..],
        &["events", "clok"],
        &["pause", "clok"],
        &["resume", "clok"],
        &["switchover", "clok"],
        &["switchover", "clock", "--to", "z"],
        &["drain", "z"],
        &["drain", "web/z"],
        &["undrain", "web/z"],
        &["logs", "web/z"],
        &["leave", "z"],
        &["drill", "kill", "web/z"],
        &["drill", "node-kill", "z"],
    ] {
        let told = cluster.run("a", asked);
        assert!(told.exit == 1 && told.err.contains("error[HW0401]"), "{asked:?}: {} {}", told.exit, told.err);
        assert!(!asked.contains(&"clok") || told.err.contains("is it clock?"), "{asked:?}: {}", told.err);
    }
    for asked in [&["events", "-n", "1001"][..], &["logs", "web/a", "-n", "10001"], &["why", ""], &["events", ""], &["undrain", ""]] {
        let told = cluster.run("a", asked);
        assert!(told.exit == 2, "{asked:?}: {} {}", told.exit, told.err);
    }
    let usage = cluster.run("a", &["--json", "drain"]);
    let error: Value = serde_json::from_str(&usage.err).unwrap();
    assert!(usage.exit == 2 && error["error"].as_str().unwrap().contains("<TARGET>"), "{error}");
    assert!(cluster.done("a", &["status", "--check"]).contains("web/b    b     hot   serving  on b"));
}

fn measures(cluster: &Cluster) {
    let group = cluster.group("web");
    let client = hotwarm::api::client::Client::at(group.listen["a"]);
    (0..20).for_each(|_| assert_eq!(client.get_text("/").unwrap().0, 200));
    let (status, text) = cluster.client("a").get_text("/metrics").unwrap();
    assert_eq!(status, 200);
    let mut promtool = Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let checked = promtool.wait_with_output().unwrap();
    assert!(checked.status.success() && checked.stderr.is_empty(), "{}", String::from_utf8_lossy(&checked.stderr));
    let replied = "hotwarm_router_requests_total{group=\"web\",member=\"web/";
    let counts = text.lines().filter(|line| line.starts_with(replied) && line.contains("\"replied\"}"));
    let total: u64 = counts.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(total, 20);
    assert!(text.contains("hotwarm_router_client_requests_total{group=\"web\"} 20\n"));
    assert!(text.contains("hotwarm_group_members{group=\"clock\",role=\"warm\"} 2\n"));
}

fn reads_output_where_it_is(cluster: &Cluster) {
    assert!(cluster.done("a", &["logs", "web/a", "-n", "5"]).contains("listens on"));
    let other = cluster.run("b", &["logs", "web/a"]);
    assert_eq!(other.exit, 1);
    assert!(other.err.contains("web/a runs on node a") && other.err.contains("hotwarm logs web/a` on node a"), "{}", other.err);
    let mut lines = cluster.client("a").stream("/api/v1/members/web/a/logs?follow=true").unwrap();
    assert!(lines.next_object::<Value>().unwrap().unwrap()["line"].as_str().unwrap().contains("listens on"));
}

fn hands_over(cluster: &Cluster) {
    let before = cluster.group("clock");
    let (from, to) = (hot(cluster), before.members.iter().find(|member| member.role == "warm").unwrap().name.clone());
    let text = cluster.done("c", &["switchover", "clock", "--to", &to, "--yes"]);
    assert!(text.starts_with(&format!("{to} serves epoch ")) && text.contains("fence"), "{text}");
    assert!(cluster.refused("c", &["switchover", "clock", "--to", &to, "--yes"]).contains("is hot already"));
    cluster.wait_all("the old member warm", |status| status.groups.iter().all(is_whole));
    let told: Value = serde_json::from_str(&cluster.done("a", &["switchover", "clock", "--json", "--yes", "--to", &from])).unwrap();
    assert_eq!((&told["from"], &told["to"]), (&json!(to), &json!(from)));
    assert!(told["pause"]["pause_ms"].is_u64() && told["epoch"].as_u64().unwrap() > before.epoch, "{told}");
    cluster.wait_all("the old member warm", |status| status.groups.iter().all(is_whole));
    know_their_part(cluster);
    let (hot, epoch) = (hot(cluster), cluster.group("clock").epoch);
    crate::members::signal(cluster.member_pid(&hot).unwrap(), Signal::KILL);
    cluster.wait_all("another hot, all back", |status| status.groups.iter().all(|g| is_whole(g) && (g.name != "clock" || g.epoch > epoch)));
    know_their_part(cluster);
}

/// Each member of `clock` tells the role that it has, and the hot one the epoch in force.
fn know_their_part(cluster: &Cluster) {
    let group = cluster.group("clock");
    for member in &group.members {
        let told: Value = hotwarm::api::client::Client::at(member.address).get("/").unwrap();
        assert_eq!((&told["name"], &told["role"]), (&json!(member.name), &json!(member.role)), "{told}");
        let epoch = told["epoch"].as_u64().unwrap();
        assert!(if member.role == "hot" { epoch == group.epoch } else { epoch <= group.epoch }, "of {}: {told}", group.epoch);
    }
}

fn follows_events(cluster: &Cluster) {
    let newest = cluster.client("b").get::<Events>("/api/v1/events?limit=1").unwrap().newest;
    let mut stream = cluster.client("b").stream(&format!("/api/v1/events?follow=true&after={newest}&group=clock")).unwrap();
    cluster.done("a", &["switchover", "clock", "--yes"]);
    let mut codes = Vec::new();
    while codes.last().is_none_or(|code| code != "opened") {
        let event: Value = stream.next_object().unwrap().expect("an event");
        assert_eq!(event["group"], "clock");
        codes.extend(event["reason"]["code"].as_str().map(str::to_owned));
    }
    assert_eq!(codes[0], "switchover-asked");
    cluster.wait_all("clock whole", |status| status.groups.iter().all(is_whole));
}

/// A command that goes on, and its lines as they come.
struct Follower(Child, mpsc::Receiver<String>);

impl Follower {
    fn start(cluster: &Cluster, arguments: &[&str]) -> Self {
        let mut command = hotwarm();
        command.args(["--api", cluster.client("a").url()]).args(arguments).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let (tell, told) = mpsc::channel();
        // Ends with the command, or when nobody reads any more.
        std::thread::spawn(move || lines.map_while(|line| tell.send(line).ok()).count());
        Self(child, told)
    }

    fn hears(&self, what: &str) {
        while !self.1.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("it does not tell of {what}")).contains(what) {}
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn follows_by_commands(cluster: &Cluster) {
    let events = Follower::start(cluster, &["events", "clock", "--follow", "-n", "1"]);
    // What was, so that it is there before what is to come.
    events.hears("  clock");
    cluster.done("b", &["switchover", "clock", "--yes"]);
    events.hears("switchover-asked");
    events.hears("opened");
    cluster.wait_all("clock whole", |status| status.groups.iter().all(is_whole));
    let logs = Follower::start(cluster, &["logs", "web/a", "--follow", "-n", "1"]);
    logs.hears("listens on");
    crate::members::signal(cluster.member_pid("web/a").unwrap(), Signal::KILL);
    logs.hears("listens on");
    cluster.wait_all("web whole", |status| status.groups.iter().all(is_whole));
}

fn pauses_and_resumes(cluster: &Cluster) {
    cluster.done("a", &["pause", "--yes"]);
    cluster.wait_all("the pause", |status| status.groups.iter().all(|group| group.pause == "paused"));
    assert!(cluster.done("b", &["status"]).contains("serving, paused"));
    assert!(cluster.refused("b", &["switchover", "clock", "--yes"]).contains("automation is paused"));
    assert!(cluster.done("b", &["resume"]).starts_with("resumed: "));
    cluster.wait_all("the end of the pause", |status| status.groups.iter().all(is_whole));
    assert!(cluster.done("b", &["resume"]).starts_with("nothing was paused: "));
    // Whoever vouches for nodes that do not answer is asked: if it is not so, two are hot.
    let asked = cluster.refused("a", &["resume", "clock", "--force"]);
    let hot = hot(cluster);
    assert!(asked.contains("HW0411") && asked.contains("you vouch") && asked.contains(&format!("hot was {hot}")), "{asked}");
    cluster.done("a", &["resume", "clock", "--force", "--yes"]);
}

fn drains(cluster: &Cluster) {
    let hot = hot(cluster);
    let node = hot.strip_prefix("clock/").unwrap();
    cluster.done("a", &["drain", node, "--yes"]);
    let status = cluster.wait_status("a", "the node empty", |status| status.nodes.iter().any(|n| n.name == node && n.drained));
    let serving = status.groups.iter().flat_map(|group| &group.members).filter(|member| member.serving);
    assert!(serving.clone().count() == 3 && serving.clone().all(|member| member.node != node), "{status:#?}");
    let serves = self::hot(cluster).replace("clock/", "");
    assert!(cluster.refused("b", &["leave", &serves, "--yes"]).contains("HW0412"));
    assert!(cluster.done("b", &["undrain", node]).contains("may serve again"));
    cluster.wait_all("it undrained", |status| status.nodes.iter().all(|n| !n.drained));
    assert!(cluster.done("b", &["undrain", node]).contains("was not drained"));
    cluster.wait_all("all back", |status| status.groups.iter().all(is_whole));
    cluster.done("b", &["drain", "web/b", "--yes"]);
    assert_eq!(cluster.group("web").have.hot, 2);
    cluster.done("b", &["undrain", "web/b"]);
    cluster.wait_all("all back", |status| status.groups.iter().all(is_whole));
}

fn applies(cluster: &Cluster) {
    let before = cluster.group("clock").epoch;
    let now: Configuration = cluster.client("c").get("/api/v1/config").unwrap();
    let file = cluster.file("new.toml");
    let changed = now
        .text
        .replace("[group.clock]", "[group.clock]\npark = { time = \"5s\" }\nobjective = { rto = \"5s\" }\nhttp.repeat = [\"POST /\"]");
    std::fs::write(&file, &changed).unwrap();
    let file = file.to_str().unwrap();
    assert!(!cluster.done("c", &["status"]).contains("is not configuration"), "the file is the one in force");
    let dry = cluster.done("c", &["apply", file, "--dry-run"]);
    assert!(dry.contains("+park = { time = \"5s\" }") && dry.contains("nothing was changed"), "{dry}");
    assert!(dry.contains("group clock: limits and timeouts change\n"), "{dry}");
    assert!(dry.contains("group clock: what may be repeated changes\n"), "{dry}");
    assert!(cluster.done("c", &["apply", file, "--yes"]).contains("configuration 2 is in force"));
    assert!(cluster.done("a", &["apply", file]).contains("nothing to do"));
    assert!(cluster.done("c", &["status"]).contains("on this machine is not configuration 2"), "the machine's file is the old one");
    cluster.wait_all("revision 2", |status| status.cluster.revision == 2);
    let stale = cluster.client("a").post::<Value>("/api/v1/config", &json!({ "text": changed, "revision": 1 })).unwrap_err().to_string();
    assert!(stale.contains("made from revision 1"), "{stale}");
    std::fs::write(file, changed.replace("\"hot-warm\"", "\"hot-hot\"")).unwrap();
    assert!(cluster.refused("a", &["apply", file, "--yes"]).contains("HW0407"));
    std::fs::write(file, changed.replace("protocol", "protocl")).unwrap();
    let wrong = cluster.run("a", &["apply", file, "--yes"]);
    assert!(wrong.exit == 1 && wrong.err.contains("HW0102"), "{}", wrong.err);
    // A changed engine counts from the next start; until then the member is named where it runs.
    std::fs::write(file, changed.replace("\"component\", \"web\"", "\"component\", \"web\", \"--name\", \"new\"")).unwrap();
    assert!(cluster.done("a", &["apply", file, "--yes"]).contains("one after the other: `hotwarm restart web`"));
    cluster.wait_until("b to name its member", || cluster.done("b", &["status"]).contains("run the former engine: web/b"));
    crate::members::signal(cluster.member_pid("web/b").unwrap(), Signal::KILL);
    cluster.wait_until("the new one to run", || !cluster.done("b", &["status"]).contains("former engine"));
    assert!(cluster.done("a", &["status"]).contains("run the former engine: web/a"));
    // Nothing that serves was disturbed by what does not concern it.
    cluster.wait_all("all as before", |status| status.groups.iter().all(is_whole));
    assert_eq!(cluster.group("clock").epoch, before);
}

/// An exclusive group is stopped first: whoever served for it is known to have stepped down.
fn removes_a_group(cluster: &Cluster) {
    let now: Configuration = cluster.client("a").get("/api/v1/config").unwrap();
    let (kept, clock) = now.text.split_once("[group.clock]").expect("it is the last one");
    let (file, mode) = (cluster.file("new.toml"), "mode = \"hot-warm\"");
    assert!(clock.contains(mode), "{clock}");
    let apply = |text: &str| {
        std::fs::write(&file, text).unwrap();
        cluster.run("b", &["apply", file.to_str().unwrap(), "--yes"])
    };
    let serves = apply(kept);
    assert!(
        serves.exit == 3 && serves.err.contains("group clock is removed while a member is hot: apply it with `mode = { hot = 0"),
        "{}",
        serves.err
    );
    assert_eq!(apply(&now.text.replace(mode, "mode = { hot = 0, warm = 3 }")).exit, 0);
    cluster.wait_all("nobody hot", |status| status.groups.iter().any(|g| g.name == "clock" && g.have.hot == 0 && g.have.warm == 3));
    assert_eq!(cluster.client("c").get_text("/health").unwrap().0, 200, "as it is wanted");
    assert!(cluster.done("b", &["why", "clock"]).contains("wants nobody hot"));
    // Back again; and then for good.
    assert_eq!(apply(&now.text).exit, 0);
    cluster.wait_all("it to serve", |status| status.groups.iter().all(is_whole));
    assert_eq!(apply(&now.text.replace(mode, "mode = { hot = 0, warm = 3 }")).exit, 0);
    cluster.wait_until("it to be removed", || apply(kept).exit == 0);
    cluster.wait_all("one group", |status| status.groups.len() == 1);
    cluster.wait_until("its members to be ended", || ["clock/a", "clock/b", "clock/c"].iter().all(|m| cluster.member_pid(m).is_none()));
}

/// Files written by hand give nobody the right to found a cluster: nodes wait, and do not wait in silence.
#[test]
fn nodes_of_which_none_may_found_a_cluster_say_so() {
    let mut cluster = Site::new(2).web().start_with(|first| std::fs::remove_file(first.data.join("bootstrap")).unwrap());
    cluster.wait_status("b", "an answer", |status| status.node.cannot_found);
    for command in ["pause", "resume"] {
        let told = cluster.refused("b", if command == "pause" { &["pause", "--yes"] } else { &["resume"] });
        assert!(told.contains("HW0313") && told.contains("nothing was done"), "{command}: {told}");
    }
    let told = cluster.run("b", &["status", "--check"]);
    assert!(told.exit == 1 && told.out.contains("may not found the cluster"), "{}", told.out);
    cluster.wait_until("the log to say so", || cluster.log("a").contains("may not found one"));
    // The right may come later.
    cluster.stop_agent("a");
    std::fs::write(cluster.machine("a").data.join("bootstrap"), "the first node's right\n").unwrap();
    cluster.start("a");
    cluster.wait_whole();
    let waited = "nobody may found it at first";
    cluster.finish(&[OF_FAULTS[0], ("may not found one", waited)]);
}

/// The group clock, which is the last in the file, with a warm member less.
fn without_clock_c(text: &str) -> String {
    let (before, clock) = text.split_once("[group.clock]").unwrap();
    let members = clock.find("members = {").unwrap();
    let from = members + clock[members..].find(", c = ").unwrap();
    let to = from + clock[from..].find(" }").unwrap();
    let clock = format!("{}{}", &clock[..from], &clock[to..]);
    format!("{before}[group.clock]{}", clock.replace("warm = 2", "warm = 1"))
}

#[test]
fn a_node_leaves_and_the_others_go_on() {
    let mut site = Site::new(3).web_and_clock();
    site.groups = site.groups.replace("mode = \"hot-warm\"", "mode = { hot = 1, warm = 2 }");
    let mut cluster = site.start_whole();
    // All that is in the way is named before anything is done, and the way out.
    let told = cluster.refused("a", &["leave", "c", "--dry-run"]);
    assert!(told.contains("HW0412") && told.contains("web/c serve"), "{told}");
    assert!(told.contains("mode counts 3 roles for 2 members (HW0112)"), "{told}");
    assert!(told.contains("first `hotwarm drain c`, then `hotwarm apply` a file without clock/c, web/c and with a `mode`"), "{told}");
    cluster.done("a", &["drain", "c", "--yes"]);
    let told = cluster.refused("a", &["leave", "c", "--yes"]);
    assert!(!told.contains("serve") && told.contains("first `hotwarm apply` a file without"), "{told}");
    let file = cluster.file("fewer.toml");
    let now: Configuration = cluster.client("a").get("/api/v1/config").unwrap();
    std::fs::write(&file, without_clock_c(&now.text)).unwrap();
    cluster.done("a", &["apply", file.to_str().unwrap(), "--yes"]);
    let first = cluster.done("a", &["leave", "c", "--yes"]);
    assert!(first.contains("then again: hotwarm leave c"), "{first}");
    cluster.wait_status("a", "members of c gone", |status| status.groups.iter().all(|group| group.members.len() == 2));
    assert!(cluster.refused("a", &["leave", "c", "--yes"]).contains("still runs"));
    cluster.stop_agent("c");
    cluster.wait_status("b", "its lease over", |status| status.nodes.iter().any(|node| node.name == "c" && !node.leased));
    assert!(cluster.done("b", &["leave", "c", "--yes"]).contains("configuration 4 is in force"));
    cluster.wait_all("two voters", |status| status.cluster.quorum.voters == ["a", "b"] && status.groups.iter().all(is_whole));
    // A router that has gone for good holds nothing up.
    cluster.done("a", &["switchover", "clock", "--yes"]);
    cluster.wait_all("clock whole", |status| status.groups.iter().all(is_whole));
    cluster.finish(&[OF_FAULTS[0], ("is kept although", "drained while no other could serve"), ("peer=c", "c has gone for good")]);
}

/// Two of three die: the survivor's log and its events say what was lost, what it ended for that, and that it is over.
#[test]
fn a_lost_quorum_is_told_where_it_is_felt_and_so_is_its_end() {
    let mut cluster = Site::new(3).web_and_clock().start_whole();
    let hot = hot(&cluster);
    let last = cluster.names().into_iter().find(|name| hot == format!("clock/{name}")).unwrap();
    let lost: Vec<_> = cluster.names().into_iter().filter(|name| *name != last).collect();
    lost.iter().for_each(|name| cluster.kill_agent(name));
    let says = |text: &str| cluster.log(last).lines().filter(|line| line.contains(text)).count();
    cluster.wait_until("the log to tell of the quorum", || says("code=HW0509") == 1);
    assert_eq!(says("the quorum is lost (1 of 3 voters heard, 2 needed"), 1, "{}", cluster.log(last));
    cluster.wait_until("the log to tell of its hot member", || says(&format!("{hot} was ended here by its guard")) == 1);
    let events = cluster.done(last, &["events"]);
    assert!(events.contains(&format!("node {last}: this node's lease ended")) && events.contains("here-no-lease"), "{events}");
    assert!(cluster.done(last, &["events", "clock"]).contains("here-ended"));
    let status = cluster.done(last, &["status"]);
    assert!(status.contains(&format!("{hot}: its node holds no lease: it was ended there")), "{status}");
    assert!(status.contains("not served here, was serving") && status.contains("was serving, goes on here"), "{status}");
    lost.iter().for_each(|name| cluster.start(name));
    cluster.wait_settled();
    let says = |text: &str| cluster.log(last).contains(text);
    cluster.wait_until("the log to tell that it is over", || says("this node holds a lease again, after "));
    let leader = cluster.status_of(last).unwrap().cluster;
    let leads = format!("node {} leads the log in term {}", leader.leader.unwrap(), leader.term);
    for name in cluster.names() {
        cluster.wait_until("every log to tell who leads", || cluster.log(name).contains(&leads));
    }
    cluster.finish(OF_FAULTS);
}

#[test]
fn a_lost_quorum_is_recovered_from_one_node() {
    let mut cluster = Site::new(3).web().start_whole();
    let ask = ["recover-quorum", "--node", "a", "--lost", "b,c", "--yes"];
    let busy = cluster.run_plain("a", &ask);
    assert!(busy.exit == 1 && busy.err.contains("in use by another hotwarm"), "{}", busy.err);
    cluster.kill_agent("c");
    cluster.stop_agent("a");
    let log = || {
        let entries = std::fs::read_dir(cluster.file("a/wal")).unwrap().map(Result::unwrap);
        let told = |entry: std::fs::DirEntry| {
            let metadata = entry.metadata().unwrap();
            (entry.file_name(), metadata.modified().unwrap(), metadata.ino())
        };
        entries.map(told).collect::<std::collections::BTreeSet<_>>()
    };
    let untouched = log();
    let quorum_left = cluster.run_plain("a", &["recover-quorum", "--node", "a", "--lost", "c", "--yes"]);
    assert!(quorum_left.exit == 3 && quorum_left.err.contains("that is a quorum"), "{}", quorum_left.err);
    let alive = cluster.run_plain("a", &ask);
    assert!(alive.exit == 3 && alive.err.contains("HW0414") && alive.err.contains("b (127.0.0.1:"), "{}", alive.err);
    assert!(alive.err.contains(" of term ") && alive.err.contains("its last dated entry is of 20"), "{}", alive.err);
    assert_eq!(log(), untouched, "survivors are compared: a look changes nothing");
    cluster.kill_agent("b");
    let done = cluster.run_plain("a", &ask);
    assert!(done.exit == 0 && done.out.contains("a cluster of its own"), "{}{}", done.out, done.err);
    assert!(done.err.contains("log ends at entry"), "{}", done.err);
    assert_eq!(std::fs::read_dir(cluster.file("a/quarantine")).unwrap().count(), 1);
    cluster.start("a");
    cluster.wait_status("a", "a alone serves", |status| status.cluster.quorum.voters == ["a"] && status.groups[0].have.hot >= 1);
    // The others come as if for the first time.
    cluster.kill_members("b");
    std::fs::remove_dir_all(cluster.file("b")).unwrap();
    cluster.start("b");
    cluster.wait_status("a", "b is back", |status| status.cluster.quorum.voters == ["a", "b"] && status.groups[0].have.hot >= 2);
    cluster.finish(&[
        ("peer=", "the others are dead, or strangers to a cluster of its own"),
        ("without a group", "b's members live on from before, until they are known again"),
        ("is kept although", "no other can serve"),
        ("connection refused: closed by the other node", "a node that was killed while it connected"),
        ("HW0509", "there was no quorum"),
    ]);
}
