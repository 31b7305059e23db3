//! A real cluster for tests: real node processes with directories, ports and logs of their own, on loopback or in network namespaces.
//!
//! It waits for conditions and never for a time, reads the nodes' logs at the end ([`Cluster::finish`]: a warning or an error that the
//! test did not list fails it), and leaves no process behind, however the test ends. Main path: [`Site::new`], [`Site::start`],
//! [`Cluster::wait_whole`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hotwarm::api::client::{Authority, Client, ClientError};
use hotwarm::api::types::{GroupStatus, MemberStatus, Status};
use hotwarm::config::token::Token;
use hotwarm::drill::Load;
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::command::hotwarm;
use crate::lan::Lan;
use crate::members::{HOTWARM, free_address, is_alive, parent};

/// Reached only by a test that fails: two cores may be shared by many clusters.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// What the components speak, and where they answer checks. A drained member of a group in which all serve goes on for this long.
const CHECKED: &str = "protocol = \"http\"\ncheck = { http = \"/healthz\" }\ndrain = \"300ms\"\n";
/// Requests a second to each group.
const RATE: u32 = 60;
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// One machine of a test.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) name: &'static str,
    pub(crate) peer: SocketAddr,
    pub(crate) api: SocketAddr,
    pub(crate) data: PathBuf,
    pub(crate) log: PathBuf,
}

/// What a cluster is made of, before it runs.
pub(crate) struct Site {
    pub(crate) dir: TempDir,
    pub(crate) machines: Vec<Machine>,
    pub(crate) lan: Option<Arc<Lan>>,
    /// Text of the groups.
    pub(crate) groups: String,
    /// The file with the token that every node's API asks for.
    pub(crate) token: Option<PathBuf>,
    count: u16,
}

impl Site {
    /// `nodes` machines on loopback, without groups.
    pub(crate) fn new(nodes: usize) -> Self {
        let dir = tempfile::Builder::new().prefix("hotwarm-it-").tempdir().unwrap();
        let machine = |name: &&'static str| Machine {
            name,
            peer: free_address(),
            api: free_address(),
            data: dir.path().join(name),
            log: dir.path().join(format!("{name}.log")),
        };
        let machines = NAMES[..nodes].iter().map(machine).collect();
        Self { dir, machines, lan: None, groups: String::new(), token: None, count: 0 }
    }

    /// `nodes` machines with a network namespace each, on one switch.
    pub(crate) fn in_namespaces(nodes: usize) -> Self {
        let lan = Arc::new(Lan::new(&NAMES[..nodes]));
        let mut site = Self::new(nodes);
        for machine in &mut site.machines {
            machine.peer = SocketAddr::new(lan.address(machine.name), 7400);
            machine.api = SocketAddr::from(([127, 0, 0, 1], 7401));
            // Where `hotwarm join --root` puts it.
            machine.data = site.dir.path().join(machine.name).join("var/lib/hotwarm");
        }
        site.lan = Some(lan);
        site
    }

    /// The nodes' APIs ask for this token.
    pub(crate) fn asking_for(mut self, token: &str) -> Self {
        let path = self.dir.path().join("api.token");
        secret(&path, token);
        self.token = Some(path);
        self
    }

    /// Other machines reach the APIs.
    pub(crate) fn exposed(mut self) -> Self {
        let lan = self.lan.as_ref().expect("machines with a network");
        self.machines.iter_mut().for_each(|machine| machine.api = SocketAddr::new(lan.address(machine.name), 7401));
        self
    }

    /// A group with a listener and a member on every node. `more` are further lines of its table.
    pub(crate) fn group(mut self, name: &str, mode: &str, more: &str) -> Self {
        let number = self.count;
        self.count += 1;
        let address = |machine: &Machine, port: u16| match &self.lan {
            Some(lan) => SocketAddr::new(lan.address(machine.name), port + number),
            None => free_address(),
        };
        let each = |port| self.machines.iter().map(|m| (m.name, address(m, port))).collect::<Vec<_>>();
        let (listen, members) = (each(8080), each(9080));
        let map = |all: &[(&str, SocketAddr)]| all.iter().map(|(n, a)| format!("{n} = \"{a}\"")).collect::<Vec<_>>().join(", ");
        let (listen, table) = (map(&listen), map(&members));
        let _ = writeln!(self.groups, "[group.{name}]\nmode = \"{mode}\"\nlisten = {{ {listen} }}\nmembers = {{ {table} }}\n{more}");
        self
    }

    /// The two groups of the demo: `web`, every member hot, and `clock`, one hot, which learns its role and tells it.
    pub(crate) fn web_and_clock(self) -> Self {
        let clock = engine(&[HOTWARM, "component", "clock"], "on_role_change = { http = \"/role\" }");
        // What is tested here is not the budget.
        let clock = format!("{CHECKED}failovers_per_hour = 1000\n{clock}");
        self.web().group("clock", "hot-warm", &clock)
    }

    /// Only `web`.
    pub(crate) fn web(self) -> Self {
        let web = engine(&[HOTWARM, "component", "web"], "");
        // A member of several leaves as soon as nothing is in flight there: no test could wait for this time to pass.
        let checked = CHECKED.replace("300ms", "1h");
        self.group("web", "hot-hot", &format!("{checked}{web}"))
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("hotwarm.toml")
    }

    /// What the file says of each machine's own.
    pub(crate) fn machines_text(&self) -> String {
        let token = self.token.as_ref().map(|path| format!("api_token = \"{}\"\n", path.display())).unwrap_or_default();
        let each = |m: &Machine| format!("[node.{}]\ndata = \"{}\"\napi = \"{}\"\n{token}", m.name, m.data.display(), m.api);
        self.machines.iter().map(each).collect()
    }

    fn text(&self) -> String {
        let nodes: Vec<_> = self.machines.iter().map(|m| format!("{} = \"{}\"", m.name, m.peer)).collect();
        let cluster = format!("[cluster]\nname = \"it\"\nnodes = {{ {} }}\n", nodes.join(", "));
        cluster + &self.machines_text() + &self.groups
    }

    /// Starts every node, and waits until all is whole.
    pub(crate) fn start_whole(self) -> Cluster {
        let cluster = self.start();
        cluster.wait_whole();
        cluster
    }

    /// Writes the files by hand, as on loopback, and starts every node; the first may found the cluster.
    pub(crate) fn start(self) -> Cluster {
        self.start_with(|_| {})
    }

    /// The same, with what is to be done to the first machine before anything runs.
    pub(crate) fn start_with(self, before: impl FnOnce(&Machine)) -> Cluster {
        for machine in &self.machines {
            private(&machine.data);
        }
        fs::write(self.machines[0].data.join("bootstrap"), "the first node's right\n").unwrap();
        fs::write(self.file(), self.text()).unwrap();
        before(&self.machines[0]);
        let file = self.file();
        let configs = self.machines.iter().map(|m| (m.name, file.clone())).collect();
        let mut cluster = Cluster::new(self, configs);
        for name in cluster.names() {
            cluster.start(name);
        }
        cluster
    }
}

/// Every request was answered.
pub(crate) fn all_answered(loads: impl IntoIterator<Item = Load>) {
    for shot in loads.into_iter().flat_map(Load::finish) {
        assert!(shot.answered(), "failed: {shot:?}");
    }
}

/// The line of a supervised program.
pub(crate) fn engine(argv: &[&str], more: &str) -> String {
    let comma = if more.is_empty() { "" } else { ", " };
    format!("engine = {{ process = {argv:?}{comma}{more} }}\n")
}

/// Puts a secret into a file, whole from one moment to the next.
pub(crate) fn secret(path: &Path, text: &str) {
    let partial = path.with_extension("partial");
    let file = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&partial);
    file.and_then(|mut file| file.write_all(text.as_bytes())).unwrap();
    fs::rename(&partial, path).unwrap();
}

pub(crate) fn private(path: &Path) {
    if !path.exists() {
        fs::DirBuilder::new().mode(0o700).create(path).unwrap();
    }
}

pub(crate) struct Cluster {
    pub(crate) site: Site,
    configs: BTreeMap<&'static str, PathBuf>,
    /// Those that were started and not ended by the test.
    agents: BTreeMap<&'static str, Child>,
    /// Processes that the test has stopped: they would not end by themselves.
    frozen: Vec<Pid>,
}

impl Cluster {
    /// Nothing is started yet; `configs` is the configuration file of each node.
    pub(crate) const fn new(site: Site, configs: BTreeMap<&'static str, PathBuf>) -> Self {
        Self { site, configs, agents: BTreeMap::new(), frozen: Vec::new() }
    }

    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.site.machines.iter().map(|m| m.name).collect()
    }

    pub(crate) fn machine(&self, name: &str) -> &Machine {
        self.site.machines.iter().find(|m| m.name == name).expect("a machine of this site")
    }

    /// Where a member is.
    pub(crate) fn node_of(&self, member: &str) -> &'static str {
        self.names().into_iter().find(|name| member.ends_with(&format!("/{name}"))).expect("a member on a node of its name")
    }

    pub(crate) fn config(&self, name: &str) -> &Path {
        &self.configs[name]
    }

    /// A file or folder of the cluster's directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.site.dir.path().join(name)
    }

    /// Starts a node's agent, which must not run.
    pub(crate) fn start(&mut self, name: &'static str) {
        let log = fs::OpenOptions::new().create(true).append(true).open(&self.machine(name).log).unwrap();
        let mut command = hotwarm();
        command.args(["run", "--node", name, "--config"]).arg(self.config(name)).stdout(Stdio::null()).stderr(log);
        let child = self.on(name, move || command.spawn().unwrap());
        assert!(self.agents.insert(name, child).is_none(), "node {name} runs already");
    }

    /// Does something where the node's machine is: in its network namespace, if it has one.
    pub(crate) fn on<T: Send>(&self, name: &str, work: impl FnOnce() -> T + Send) -> T {
        match &self.site.lan {
            Some(lan) => lan.on(name, work),
            None => work(),
        }
    }

    pub(crate) fn agent(&self, name: &str) -> Pid {
        Pid::from_child(&self.agents[name])
    }

    /// The member's program on its node.
    pub(crate) fn member_pid(&self, member: &str) -> Option<Pid> {
        let node = member.rsplit_once('/').expect("GROUP/MEMBER").1;
        let status = self.status_of(node).ok()?;
        let found = members(&status).find(|m| m.name == member)?.pid?;
        Pid::from_raw(i32::try_from(found).ok()?)
    }

    /// The guard of a member that runs.
    pub(crate) fn guard_pid(&self, member: &str) -> Option<Pid> {
        self.member_pid(member).map(parent)
    }

    pub(crate) fn signal(&mut self, pid: Pid, signal: Signal) {
        match signal {
            Signal::STOP => self.frozen.push(pid),
            Signal::CONT => self.frozen.retain(|frozen| *frozen != pid),
            _ => {}
        }
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn kill_agent(&mut self, name: &str) {
        let mut agent = self.take_agent(name);
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// Asks the node's agent to end, as a service manager does, and waits until it has. Its members live on.
    pub(crate) fn stop_agent(&mut self, name: &str) {
        let mut agent = self.take_agent(name);
        rustix::process::kill_process(Pid::from_child(&agent), Signal::TERM).unwrap();
        assert!(agent.wait().unwrap().success(), "node {name} did not end well");
    }

    /// The agent was ended by what is tested.
    pub(crate) fn forget_agent(&mut self, name: &str) {
        self.take_agent(name).wait().unwrap();
    }

    fn take_agent(&mut self, name: &str) -> Child {
        self.agents.remove(name).unwrap_or_else(|| panic!("node {name} does not run"))
    }

    /// The members of a node whose agent does not run, with their guards.
    pub(crate) fn kill_members(&self, name: &str) {
        end_guards(&self.machine(name).data);
    }

    /// The whole machine at once: agent, guards, members.
    pub(crate) fn kill_node(&mut self, name: &'static str) {
        let mut agent = self.take_agent(name);
        hotwarm::drill::fault::kill_tree(agent.id());
        agent.wait().unwrap();
        self.kill_members(name);
    }

    pub(crate) fn client(&self, name: &str) -> Client {
        let machine = self.machine(name);
        let client = Client::at(machine.api).with_token(self.site.token.as_ref().map(|path| Token::read(path).unwrap()));
        if !client.is_tls() {
            return client;
        }
        let authority = fs::read_to_string(machine.data.join("tls/ca.pem")).unwrap();
        client.trusting(Authority::new(&authority).unwrap())
    }

    pub(crate) fn status_of(&self, name: &str) -> Result<Status, ClientError> {
        self.on(name, || self.client(name).get("/api/v1/status"))
    }

    /// The nodes whose agent runs and is not stopped.
    pub(crate) fn running(&self) -> impl Iterator<Item = &'static str> {
        let runs = |agent: Pid| !self.frozen.contains(&agent) && is_alive(agent);
        self.agents.iter().filter(move |(_, agent)| runs(Pid::from_child(agent))).map(|(name, _)| *name)
    }

    /// What any node says that runs, other than those named.
    pub(crate) fn status_but(&self, not: &[&str]) -> Option<Status> {
        self.running().filter(|name| !not.contains(name)).find_map(|name| self.status_of(name).ok())
    }

    /// A group as any node that runs sees it.
    pub(crate) fn group(&self, name: &str) -> GroupStatus {
        let status = self.status_but(&[]).expect("a node that answers");
        status.groups.into_iter().find(|g| g.name == name).expect("a group of this name")
    }

    pub(crate) fn listen(&self, group: &str) -> BTreeMap<String, SocketAddr> {
        self.group(group).listen
    }

    /// Load on both groups through the routers of all nodes but one.
    pub(crate) fn load_but(&self, not: &str) -> [Load; 2] {
        ["web", "clock"].map(|group| {
            let routers = self.listen(group).into_iter().filter(|(name, _)| name != not).map(|(_, address)| address);
            Load::start(routers.collect(), RATE).unwrap()
        })
    }

    /// The member of `group` that serves, as the nodes other than `not` say.
    pub(crate) fn hot(&self, group: &str, not: &[&str]) -> Option<String> {
        let status = self.status_but(not)?;
        let group = status.groups.into_iter().find(|g| g.name == group)?;
        group.members.into_iter().find(|m| m.serving).map(|m| m.name)
    }

    /// Waits until `node` says so, and returns what it said.
    pub(crate) fn wait_status(&self, node: &str, what: &str, condition: impl Fn(&Status) -> bool) -> Status {
        let mut found = None;
        self.wait_for(what, || match self.status_of(node) {
            Ok(status) if condition(&status) => {
                found = Some(status);
                None
            }
            other => Some(format!("node {node}: {other:#?}")),
        });
        found.expect("the wait ended when it was found")
    }

    /// Waits until every node that runs says so.
    pub(crate) fn wait_all(&self, what: &str, condition: impl Fn(&Status) -> bool) {
        self.running().for_each(|node| drop(self.wait_status(node, what, &condition)));
    }

    /// Every node answers, holds a lease and votes; every group has what it wants and no problem; every member is ready.
    pub(crate) fn wait_whole(&self) {
        let names = self.names();
        self.wait_for("a whole cluster", || names.iter().find_map(|name| self.not_whole(name, group_not_whole)));
    }

    /// As [`Self::wait_whole`], but a member that failed lately may still be held down: fit, and not hot yet.
    pub(crate) fn wait_settled(&self) {
        let names = self.names();
        self.wait_for("a settled cluster", || names.iter().find_map(|name| self.not_whole(name, group_not_settled)));
    }

    fn not_whole(&self, name: &str, group: fn(&GroupStatus) -> Option<String>) -> Option<String> {
        let status = match self.status_of(name) {
            Ok(status) => status,
            Err(error) => return Some(format!("node {name}: {error}")),
        };
        let nodes = self.site.machines.len();
        if status.cluster.quorum.voters.len() != nodes {
            return Some(format!("node {name} sees the voters {:?}", status.cluster.quorum.voters));
        }
        if let Some(node) = status.nodes.iter().find(|n| !n.leased || n.silent || !n.heard || !n.votes) {
            return Some(format!("node {name} sees {node:?}"));
        }
        status.groups.iter().find_map(group).map(|problem| format!("node {name} sees {problem}"))
    }

    /// Waits until `problem` tells none.
    pub(crate) fn wait_for(&self, what: &str, mut problem: impl FnMut() -> Option<String>) {
        let until = Instant::now() + PATIENCE;
        while let Some(problem) = problem() {
            assert!(Instant::now() < until, "waited in vain for {what}: {problem}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn wait_until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        self.wait_for(what, || (!condition()).then(|| "not yet".to_owned()));
    }

    pub(crate) fn log(&self, name: &str) -> String {
        fs::read_to_string(&self.machine(name).log).unwrap_or_default()
    }

    /// Ends everything and fails if a node's log holds a warning or an error that `expected` does not explain: text of the line, and why
    /// it may be there.
    pub(crate) fn finish(mut self, expected: &[(&str, &str)]) {
        self.end();
        for name in self.names() {
            for line in self.log(name).lines().filter(|line| grave(line)) {
                assert!(expected.iter().any(|(text, _why)| line.contains(text)), "node {name} said: {line}");
            }
        }
    }

    fn end(&mut self) {
        for agent in self.agents.values_mut() {
            // One that ended before needs no signal.
            let _ = agent.kill();
            let _ = agent.wait();
        }
        for pid in self.frozen.drain(..) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        end_guards(self.site.dir.path());
    }
}

/// The group has what it wants, and no problem.
pub(crate) fn is_whole(group: &GroupStatus) -> bool {
    group_not_whole(group).is_none()
}

fn group_not_whole(group: &GroupStatus) -> Option<String> {
    let problem = || Some(format!("{}: {}", group.name, group.problems.first()?.title));
    group_unfit(group).or_else(problem)
}

fn group_unfit(group: &GroupStatus) -> Option<String> {
    let (have, want) = (&group.have, &group.want);
    if group.state != "serving" || have.hot < want.hot || have.warm < want.warm {
        return Some(format!("{} {}: has {have:?} of {want:?}; {}", group.name, group.state, unfit(group)));
    }
    let unready = group.members.iter().find(|m| m.role != "spare" && !m.ready);
    unready.map(|m| format!("{} not ready: {} {}", m.name, m.life, m.why_unready))
}

fn group_not_settled(group: &GroupStatus) -> Option<String> {
    let mut group = group.clone();
    group.want.warm = group.want.warm.max(group.want.hot.saturating_sub(group.have.hot));
    group.want.hot = 1;
    group_unfit(&group)
}

fn unfit(group: &GroupStatus) -> String {
    let refusal = group.refusal.iter().map(|r| r.text.clone());
    refusal
        .chain(group.members.iter().filter_map(|m| Some(format!("{}: {}", m.name, m.unfit.as_ref()?.text))))
        .collect::<Vec<_>>()
        .join("; ")
}

pub(crate) fn members(status: &Status) -> impl Iterator<Item = &MemberStatus> {
    status.groups.iter().flat_map(|g| &g.members)
}

fn grave(line: &str) -> bool {
    line.contains(" WARN ") || line.contains("ERROR ") || line.contains("panicked")
}

/// Kills the guards below `data` with all that they guard, until none is left. A guard is known by the lock file that it holds open.
fn end_guards(data: &Path) {
    let until = Instant::now() + PATIENCE;
    loop {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let guards: Vec<u32> =
            processes.filter(|p| holds_lock(&p.path(), data)).filter_map(|p| p.file_name().to_str()?.parse().ok()).collect();
        if guards.is_empty() || Instant::now() > until {
            return;
        }
        guards.into_iter().for_each(hotwarm::drill::fault::kill_tree);
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn holds_lock(process: &Path, data: &Path) -> bool {
    let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let mut names = files.filter_map(|file| fs::read_link(file.path()).ok());
    names.any(|name| name.starts_with(data) && name.file_name().is_some_and(|file| file == "guard.lock"))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for name in self.names() {
                for path in ["groups/clock/why", "traffic", "status"] {
                    let told = self.on(name, || self.client(name).get_text(&format!("/api/v1/{path}")));
                    eprintln!("---- node {name}: {path}\n{told:?}");
                }
            }
        }
        self.end();
        if std::thread::panicking() {
            for name in self.names() {
                let log = self.log(name);
                let lines: Vec<&str> = log.lines().collect();
                let last = &lines[lines.len().saturating_sub(60)..];
                eprintln!("---- the last of node {name}'s log\n{}", last.join("\n"));
            }
        }
    }
}

/// Held by tests that load the machine: they run one after the other, also where each test is a process of its own.
pub(crate) fn alone() -> fs::File {
    let path = std::env::temp_dir().join("hotwarm-it-alone.lock");
    let file = fs::OpenOptions::new().create(true).write(true).truncate(false).open(path).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    file
}

/// `HOTWARM_TEST_LONG=1`: the long rounds.
pub(crate) fn long() -> bool {
    std::env::var("HOTWARM_TEST_LONG").is_ok_and(|value| value == "1")
}

/// A number to draw from, printed so that a failure can be repeated: `HOTWARM_TEST_SEED` sets it.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("HOTWARM_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| hotwarm::clock::now().0);
    println!("HOTWARM_TEST_SEED={seed}");
    seed
}
