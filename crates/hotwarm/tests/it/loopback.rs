//! A real cluster on loopback: node processes, their members, their API and the command line, in a directory of its own.
//!
//! It must leave nothing behind: whatever runs under the directory is killed at the end, by pid. Every wait is for a condition. A line of
//! WARN or ERROR that no test has listed fails the test that ends the cluster with [`Cluster::end`].

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hotwarm::api::client::Client;
use hotwarm::api::types::{GroupStatus, Status};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::members::{HOTWARM, free_address};

/// Reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(40);
/// What every start of several nodes says, because one is the first.
const EXPECTED: &[&str] = &["not connected: "];

/// What a cluster is to be.
#[derive(Default)]
pub(crate) struct Builder {
    nodes: Vec<&'static str>,
    /// Name, mode, component.
    groups: Vec<(&'static str, &'static str, &'static str)>,
}

impl Builder {
    /// A group of web components, all hot.
    pub(crate) fn web(mut self) -> Self {
        self.groups.push(("web", "hot-hot", "web"));
        self
    }

    /// A group of clock components, one hot.
    pub(crate) fn clock(mut self) -> Self {
        self.groups.push(("clock", "hot-warm", "clock"));
        self
    }

    /// Starts every node; returns when every group serves with all its members.
    pub(crate) fn start(self) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let mut text = format!("[cluster]\nname = \"test\"\nnodes = {}\n", each(&self.nodes));
        let mut apis = BTreeMap::new();
        for node in &self.nodes {
            let (data, api) = (dir.path().join(node), free_address());
            DirBuilder::new().mode(0o700).create(&data).unwrap();
            text.push_str(&format!("\n[node.{node}]\ndata = {data:?}\napi = \"{api}\"\n"));
            apis.insert(*node, api);
        }
        for (name, mode, component) in &self.groups {
            let (listen, members) = (each(&self.nodes), each(&self.nodes));
            // A member of several leaves as soon as nothing is in flight there: no test could wait for the time to pass.
            let drain = if *mode == "hot-hot" { "1h" } else { "300ms" };
            text.push_str(&format!(
                "\n[group.{name}]\nmode = \"{mode}\"\nlisten = {listen}\nprotocol = \"http\"\nmembers = {members}\n\
                 engine = {{ process = [{HOTWARM:?}, \"component\", \"{component}\"], env = {{ {MARK} = {:?} }} }}\ncheck = {{ http = \"/healthz\" }}\ndrain = \"{drain}\"\n",
                dir.path()
            ));
        }
        fs::write(dir.path().join("hotwarm.toml"), &text).unwrap();
        fs::write(dir.path().join(self.nodes[0]).join("bootstrap"), "once\n").unwrap();
        let mut cluster = Cluster { dir, apis, running: BTreeMap::new() };
        self.nodes.iter().for_each(|node| cluster.start_node(node));
        let all = self.nodes.len();
        let joined = |s: &Status| s.cluster.quorum.voters.len() == all && s.cluster.quorum.reached == all;
        cluster.wait("all nodes and members", |s| joined(s) && !s.groups.is_empty() && s.groups.iter().all(is_whole));
        cluster
    }
}

fn each(nodes: &[&str]) -> String {
    let each: Vec<String> = nodes.iter().map(|node| format!("{node} = \"{}\"", free_address())).collect();
    format!("{{ {} }}", each.join(", "))
}

pub(crate) fn is_whole(group: &GroupStatus) -> bool {
    group.have == group.want && group.state == "serving" && group.problems.is_empty()
}

/// A running cluster.
pub(crate) struct Cluster {
    dir: TempDir,
    apis: BTreeMap<&'static str, SocketAddr>,
    running: BTreeMap<&'static str, Child>,
}

/// What a command did.
pub(crate) struct Ran {
    pub(crate) exit: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Cluster {
    pub(crate) fn of(nodes: &[&'static str]) -> Builder {
        Builder { nodes: nodes.to_vec(), ..Builder::default() }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.file("hotwarm.toml")
    }

    pub(crate) fn api(&self, node: &str) -> Client {
        Client::at(self.apis[node])
    }

    /// The command with `--api` of a node and nobody at the terminal.
    pub(crate) fn run(&self, node: &str, arguments: &[&str]) -> Ran {
        self.hotwarm(&[&["--api", self.api(node).url()], arguments].concat())
    }

    pub(crate) fn hotwarm(&self, arguments: &[&str]) -> Ran {
        let output = Command::new(HOTWARM).arg("--config").arg(self.config()).args(arguments).stdin(Stdio::null()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { exit: output.status.code().expect("an exit code"), out: text(output.stdout), err: text(output.stderr) }
    }

    /// A command that is to be done.
    pub(crate) fn done(&self, node: &str, arguments: &[&str]) -> String {
        let ran = self.run(node, arguments);
        assert_eq!(ran.exit, 0, "{arguments:?}: {}{}", ran.out, ran.err);
        ran.out
    }

    /// A command that a rule is to refuse; tells what it says.
    pub(crate) fn refused(&self, node: &str, arguments: &[&str]) -> String {
        let ran = self.run(node, arguments);
        assert_eq!(ran.exit, 3, "{arguments:?}: {}{}", ran.out, ran.err);
        ran.err
    }

    pub(crate) fn start_node(&mut self, node: &'static str) {
        let log = File::options().create(true).append(true).open(self.file(&format!("{node}.log"))).unwrap();
        let child = Command::new(HOTWARM)
            .args(["run", "--node", node, "--config"])
            .arg(self.config())
            .env_remove("HOTWARM_LOG")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.running.insert(node, child.unwrap());
    }

    /// Asks the node's process to end, and waits until it has. Its members live on.
    pub(crate) fn stop_node(&mut self, node: &str) {
        self.end_node(node, Signal::TERM);
    }

    pub(crate) fn kill_node(&mut self, node: &str) {
        self.end_node(node, Signal::KILL);
    }

    fn end_node(&mut self, node: &str, signal: Signal) {
        let mut child = self.running.remove(node).expect("a node that runs");
        kill_process(Pid::from_child(&child), signal).unwrap();
        child.wait().unwrap();
    }

    /// The members of a node, which are named like it.
    pub(crate) fn kill_members(&self, node: &str) {
        kill_members(self.dir.path(), &format!("/{node}"));
    }

    /// Waits until some node that runs says so.
    pub(crate) fn wait(&self, what: &str, condition: impl Fn(&Status) -> bool) -> Status {
        let until = Instant::now() + PATIENCE;
        let mut last = None;
        loop {
            for node in self.running.keys() {
                match self.api(node).get::<Status>("/api/v1/status") {
                    Ok(status) if condition(&status) => return status,
                    Ok(status) => last = Some(status),
                    Err(_) => {}
                }
            }
            assert!(Instant::now() < until, "waited in vain for {what}; last seen: {last:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until every node that runs says so.
    pub(crate) fn wait_all(&self, what: &str, condition: impl Fn(&Status) -> bool) {
        self.running.keys().for_each(|node| drop(self.wait(what, |status| status.node.name == **node && condition(status))));
    }

    pub(crate) fn group(&self, name: &str) -> GroupStatus {
        let node = self.running.keys().next().expect("a node that runs");
        self.api(node).get(&format!("/api/v1/groups/{name}")).unwrap()
    }

    /// The member that is hot.
    pub(crate) fn hot(&self, group: &str) -> String {
        self.group(group).members.into_iter().find(|member| member.role == "hot").expect("a hot member").name
    }

    /// Ends everything; every line of WARN or ERROR must hold one of `listed`.
    pub(crate) fn end(mut self, listed: &[&str]) {
        let nodes: Vec<&str> = self.running.keys().copied().collect();
        nodes.iter().for_each(|node| self.stop_node(node));
        let mut unlisted = Vec::new();
        for node in self.apis.keys() {
            let text = fs::read_to_string(self.file(&format!("{node}.log"))).unwrap_or_default();
            let loud = text.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ") || line.contains("panicked"));
            let new = loud.filter(|line| !EXPECTED.iter().chain(listed).any(|known| line.contains(known)));
            unlisted.extend(new.map(|line| format!("{node}: {line}")));
        }
        assert!(unlisted.is_empty(), "unlisted:\n{}", unlisted.join("\n"));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.running.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
        kill_members(self.dir.path(), "");
        if std::thread::panicking() {
            for node in self.apis.keys() {
                show_end(&self.file(&format!("{node}.log")));
                let groups = fs::read_dir(self.file(&format!("{node}/run"))).into_iter().flatten().flatten();
                let members = groups.flat_map(|group| fs::read_dir(group.path()).into_iter().flatten().flatten());
                members.for_each(|member| show_end(&member.path().join("output.log")));
            }
        }
    }
}

/// For whoever looks into a failure.
fn show_end(file: &Path) {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    eprintln!("--- {}\n{}", file.display(), lines[lines.len().saturating_sub(40)..].join("\n"));
}

/// In the environment of every member: which cluster's it is.
const MARK: &str = "CLUSTER_OF_TEST";

/// Kills the members of the cluster in `folder` whose names end so. Their guards end with them.
fn kill_members(folder: &Path, name: &str) {
    let mark = format!("{MARK}={}", folder.display());
    let is_one = |environment: &str| {
        let has = |wanted: &dyn Fn(&str) -> bool| environment.split('\0').any(wanted);
        has(&|one| one == mark) && has(&|one| one.strip_prefix("HOTWARM_MEMBER=").is_some_and(|member| member.ends_with(name)))
    };
    for _ in 0..500 {
        let found: Vec<Pid> = environments().filter(|(_, environment)| is_one(environment)).map(|(pid, _)| pid).collect();
        if found.is_empty() {
            return;
        }
        for pid in found {
            // One may have ended meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn environments() -> impl Iterator<Item = (Pid, String)> {
    fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let path = entry.ok()?.path();
        let pid = Pid::from_raw(path.file_name()?.to_str()?.parse().ok()?)?;
        Some((pid, String::from_utf8_lossy(&fs::read(path.join("environ")).ok()?).into_owned()))
    })
}
