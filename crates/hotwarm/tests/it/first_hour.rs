//! The first hour of somebody new, from the README alone: its commands, word for word, on machines that know nothing of hotwarm.
//!
//! A machine is a network namespace with an `/etc` and a `/var/lib` of its own. Where the README needs what a test has not (ssh, systemd,
//! sudo), a stand-in of a few words takes its place; and what asks before it acts is told `--yes`. Nothing else is changed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::cluster::PATIENCE;
use crate::lan::Lan;
use crate::members::HOTWARM;

/// Directories that a machine has for itself; a change of `/etc` lies over what is there.
const MOUNTS: &str = "mount -t tmpfs tmpfs /mnt && mkdir /mnt/upper /mnt/work && \
     mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/upper,workdir=/mnt/work /etc && mount -t tmpfs tmpfs /var/lib && echo ready";

struct Machines {
    dir: TempDir,
    lan: Arc<Lan>,
    /// Keep the machines' mounts, and `hotwarm run` on them.
    kept: Vec<(&'static str, Child)>,
    agents: Vec<(&'static str, Child)>,
}

impl Machines {
    fn new(names: &[&'static str]) -> Self {
        let dir = tempfile::Builder::new().prefix("hotwarm-it-").tempdir().unwrap();
        let lan = Arc::new(Lan::new(names));
        let mut machines = Self { dir, lan, kept: Vec::new(), agents: Vec::new() };
        machines.stand_ins();
        for name in names {
            fs::create_dir(machines.home(name)).unwrap();
            let script = format!("{MOUNTS} > {}/ready && exec sleep infinity", machines.home(name).display());
            let mut command = Command::new("unshare");
            command.args(["-m", "sh", "-c", &script]).stdin(Stdio::null());
            let child = machines.lan.on(name, move || command.spawn().unwrap());
            machines.kept.push((name, child));
            let ready = machines.home(name).join("ready");
            wait("a machine's mounts", || fs::read_to_string(&ready).is_ok_and(|text| text == "ready\n"));
        }
        machines
    }

    /// What the README takes for granted: ssh between the machines, and sudo.
    fn stand_ins(&self) {
        let bin = self.dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        let homes = self.dir.path().display();
        let scp =
            format!("#!/bin/sh\nfor name in {homes}/home-*; do case $2 in \"$(cat $name/address)\":*) cp \"$1\" $name/; esac; done\n");
        for (name, text) in [("scp", scp.as_str()), ("sudo", "#!/bin/sh\nexec \"$@\"\n")] {
            fs::write(bin.join(name), text).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        std::os::unix::fs::symlink(HOTWARM, bin.join("hotwarm")).unwrap();
    }

    fn home(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("home-{name}"))
    }

    fn command(&self, name: &str, script: &str, directory: &Path) -> Command {
        let machine = &self.kept.iter().find(|(kept, _)| *kept == name).expect("a machine").1;
        let path = format!("{}/bin:/usr/sbin:/usr/bin:/sbin:/bin", self.dir.path().display());
        let mut command = Command::new("nsenter");
        command.args(["-t", &machine.id().to_string(), "-m", "-n", &format!("--wd={}", directory.display()), "sh", "-c", script]);
        command.env_clear().env("PATH", path).env("HOME", self.home(name)).stdin(Stdio::null());
        command
    }

    /// Runs one line of a person's on a machine and tells what was printed.
    fn try_in(&self, name: &str, line: &str, directory: &Path) -> Result<String, String> {
        let output = self.command(name, line, directory).output().unwrap();
        let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(told) } else { Err(told) }
    }

    fn run_in(&self, name: &str, line: &str, directory: &Path) -> String {
        let told = self.try_in(name, line, directory).unwrap_or_else(|told| panic!("{name}$ {line}\n{told}"));
        println!("{name}$ {line}\n{told}");
        told
    }

    fn run(&self, name: &str, line: &str) -> String {
        self.run_in(name, line, &self.home(name))
    }

    /// `hotwarm run` without any option, which goes on.
    fn start(&mut self, name: &'static str) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.home(name).join("log")).unwrap();
        let mut command = self.command(name, "exec hotwarm run", &self.home(name));
        self.agents.push((name, command.stdout(Stdio::null()).stderr(log).spawn().unwrap()));
    }

    /// Everything of a machine's hotwarm at once.
    fn power_off(&mut self, name: &str) {
        let at = self.agents.iter().position(|(agent, _)| *agent == name).unwrap();
        let mut agent = self.agents.remove(at).1;
        hotwarm::drill::fault::kill_tree(agent.id());
        agent.wait().unwrap();
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for (name, agent) in &mut self.agents {
            hotwarm::drill::fault::kill_tree(agent.id());
            let _ = agent.wait();
            if std::thread::panicking() {
                let log = fs::read_to_string(self.dir.path().join(format!("home-{name}/log"))).unwrap_or_default();
                eprintln!("---- node {name}'s log\n{log}");
            }
        }
        // Whatever is left in a machine's network: guards and members whose agent was killed before.
        let spaces: Vec<_> = self.kept.iter().filter_map(|(_, child)| fs::read_link(format!("/proc/{}/ns/net", child.id())).ok()).collect();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let space = fs::read_link(entry.path().join("ns/net"));
            let pid = entry.file_name().to_str().and_then(|name| Pid::from_raw(name.parse().ok()?));
            if let (Ok(space), Some(pid)) = (space, pid)
                && spaces.contains(&space)
            {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        for (_, child) in &mut self.kept {
            let _ = child.wait();
        }
    }
}

fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// The commands of a section of the README, in order.
fn commands(section: &str) -> Vec<String> {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).unwrap();
    let (_, rest) = readme.split_once(&format!("\n## {section}\n")).expect("a section of the README");
    let section = rest.split("\n## ").next().unwrap();
    let blocks = section.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.flat_map(str::lines).map(str::to_owned).collect()
}

/// The group that a newcomer adds: a program of their own, one serving.
const LEDGER: &str = r#"
[group.ledger]
mode      = "hot-warm"
listen    = "0.0.0.0:9000"
protocol  = "http"
engine    = { process = ["HOTWARM", "component", "clock"], on_role_change = { http = "/role" } }
members   = { a = "10.0.0.1:9100", b = "10.0.0.2:9100" }
check     = { http = "/healthz" }
"#;

#[test]
fn from_the_readme_alone() {
    let mut machines = Machines::new(&["a", "b", "c"]);
    for name in ["a", "b", "c"] {
        fs::write(machines.home(name).join("address"), machines.lan.address(name).to_string()).unwrap();
    }
    let mut lines = commands("First hour").into_iter();
    let mut next = |begins: &str| {
        let line = lines.next().unwrap_or_else(|| panic!("the README tells no more; expected {begins}"));
        assert!(line.starts_with(begins), "the README says `{line}` where this test knows `{begins}`: bring them together");
        line
    };
    // The machines have the program that is tested, by the same name.
    next("cargo build --release");
    assert!(next("sudo install").ends_with("/hotwarm"));
    // Once, on any machine.
    machines.run("a", &next("hotwarm init shop"));
    let copy = next("scp shop/a.join");
    for (name, address) in [("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3")] {
        machines.run("a", &copy.replace("a.join", &format!("{name}.join")).replace("10.0.0.1", address));
    }
    // On each machine.
    let (join, start, status) = (next("sudo hotwarm join a.join"), next("sudo systemctl enable"), next("hotwarm status"));
    assert!(start.ends_with("hotwarm"));
    for name in ["a", "b", "c"] {
        let told = machines.run(name, &join.replace("a.join", &format!("{name}.join")));
        assert!(told.contains("hotwarm run"), "without systemd the next command is `hotwarm run`: {told}");
        machines.start(name);
    }
    wait("three nodes that vote", || cluster_of(&machines, "b").is_some_and(|(_, voters)| voters == 3));
    machines.run("c", &status);
    // A group, from any node.
    let shop = machines.home("a").join("shop");
    let text = fs::read_to_string(shop.join("hotwarm.toml")).unwrap() + &LEDGER.replace("HOTWARM", HOTWARM);
    fs::write(shop.join("hotwarm.toml"), text).unwrap();
    let apply = next("hotwarm apply hotwarm.toml");
    machines.run_in("a", &format!("{apply} --yes"), &shop);
    let serves = |from: &str, address: &str| machines.try_in(from, &format!("curl -sf http://{address}:9000/"), Path::new("/"));
    wait("ledger to be served on both nodes", || {
        ["10.0.0.1", "10.0.0.2"].iter().all(|address| serves("c", address).is_ok_and(|told| told.contains("\"role\":\"hot\"")))
    });
    wait("both members", || {
        machines.try_in("a", "hotwarm status --json", Path::new("/")).is_ok_and(|told| told.matches("\"ready\": true").count() == 2)
    });
    let told = machines.run("a", &format!("{} --yes", next("sudo hotwarm drill kill ledger/a")));
    assert!(told.contains("0 failed"), "{told}");
    rejoin(&mut machines, &join);
}

/// The cluster that a machine's node belongs to, and how many vote in it.
fn cluster_of(machines: &Machines, name: &str) -> Option<(String, usize)> {
    let told = machines.try_in(name, "hotwarm status --json", Path::new("/")).ok()?;
    let told: serde_json::Value = serde_json::from_str(&told).ok()?;
    Some((told["cluster"]["id"].as_str()?.to_owned(), told["cluster"]["quorum"]["voters"].as_array()?.len()))
}

/// The first machine's disk is replaced: the same join file, whose right to found a cluster is used up, brings it back into the old one
/// (S11).
fn rejoin(machines: &mut Machines, join: &str) {
    let before = cluster_of(machines, "b").unwrap();
    machines.power_off("a");
    machines.run("a", "rm -rf /var/lib/hotwarm /etc/hotwarm");
    machines.run("a", join);
    machines.start("a");
    wait("the first node to be back in the same cluster", || cluster_of(machines, "a").is_some_and(|now| now == before));
}
