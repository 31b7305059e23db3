//! `hotwarm demo`: three nodes on one machine, real members, load, faults, and a verdict.
//!
//! Each node is a process of its own with a data directory of its own; the incidents are drills ([`crate::drill`]). It must leave nothing
//! behind, however it ends: [`front`]. Main path: [`demo`] -> [`front::outer`] -> the same program again -> [`front::inner`] -> [`play_all`].

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::{Args, value_parser};
use hotwarm_core::ids::NodeId;

use super::failure::{print, tell};
use super::{Exit, Failure, Global};
use crate::api::client::Client;
use crate::api::types::Status;
use crate::config;
use crate::drill::{self, Apis, Fault, Grip, Hands, Plan, Report};

mod front;

/// Show it all on this machine: three nodes, load, faults, a verdict
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Leave it running afterwards, until Ctrl-C
    #[arg(long)]
    pub keep: bool,
    /// First of the ports: node i uses it + 10 i for peers and the next for the API; groups listen from it + 680 [default: 7400, or the
    /// first of 8400, 9400 and so on that is free]
    #[arg(long, value_name = "PORT", value_parser = value_parser!(u16).range(1..=BASE_MAX))]
    pub base_port: Option<u16>,
    /// Requests per second on each group
    #[arg(long, value_name = "RATE", default_value_t = 200, value_parser = super::drill::rate())]
    pub load: u32,
    /// Given to the process that does the work: its directory
    #[arg(long, value_name = "DIR", hide = true)]
    pub inner: Option<PathBuf>,
}

const NODES: [&str; 3] = ["a", "b", "c"];
/// What clients may see at worst in a group with several hot members, and in one with a single one.
const RTO_MANY: Duration = Duration::from_millis(500);
const RTO_ONE: Duration = Duration::from_secs(2);
/// From the start until everything serves.
const START_WITHIN: Duration = Duration::from_secs(20);
const PORTS: u16 = 1000;
/// The last node's last listener: + 780 + 20 and the next.
const BASE_MAX: i64 = u16::MAX as i64 - 801;

pub(super) fn demo(args: &DemoArgs, global: &Global) -> Result<(), Failure> {
    match &args.inner {
        Some(dir) => front::inner(dir, |starting| play_all(args, dir, global, starting)),
        None => front::outer(),
    }
}

fn play_all(args: &DemoArgs, dir: &Path, global: &Global, starting: Arc<Mutex<()>>) -> Result<(), Failure> {
    let mut stage = Stage::set(args, dir, starting)?;
    stage.progress(&format!("three nodes start in {}", stage.dir.display()));
    stage.start_all()?;
    let first = stage.wait_until_serving()?;
    stage.progress(&format!("they serve: web on every node, clock on {}", first));
    stage.progress(&format!("look for yourself: {}", stage.hints()));
    let mut reports = Vec::new();
    let played = play(args, &mut stage, &mut reports);
    if !global.json {
        reports.iter().try_for_each(|report| print(&format!("\n{}", report.text())))?;
    }
    played?;
    let met = reports.iter().all(Report::met);
    let verdict = if met { "every objective was met" } else { "an objective was missed" };
    if global.json {
        print(&format!("{}\n", serde_json::json!({ "met": met, "incidents": reports })))?;
    } else {
        print(&format!("\n{}\nverdict: {verdict}\n", table(&reports)))?;
    }
    if args.keep {
        stage.keep();
    }
    if met { Ok(()) } else { Err(Failure::plain(Exit::ObjectiveMissed, verdict)) }
}

/// The incidents, in the order in which a newcomer understands them.
fn play(args: &DemoArgs, stage: &mut Stage, reports: &mut Vec<Report>) -> Result<(), Failure> {
    let hot = |stage: &Stage| -> Result<String, Failure> {
        let status = stage.status()?;
        let clock = status.groups.iter().find(|g| g.name == "clock");
        let hot = clock.and_then(|g| g.members.iter().find(|m| m.serving)).map(|m| m.name.clone());
        hot.ok_or_else(|| Failure::plain(Exit::Failed, "no member of clock serves; see the logs of the nodes"))
    };
    let incidents: [(Fault, Option<&str>, Duration); 5] = [
        (Fault::Kill, Some("web/b"), RTO_MANY),
        (Fault::Freeze, Some("web/c"), RTO_MANY),
        (Fault::Kill, None, RTO_ONE),
        (Fault::Freeze, None, RTO_ONE),
        (Fault::NodeKill, None, RTO_ONE),
    ];
    let questions = super::drill::questions(&config::parse(&stage.text(), "", None)?, None);
    for (number, (fault, target, objective)) in incidents.into_iter().enumerate() {
        let target = match (target, fault) {
            (Some(target), _) => target.to_owned(),
            (None, Fault::NodeKill) => hot(stage)?.trim_start_matches("clock/").to_owned(),
            (None, _) => hot(stage)?,
        };
        let (lasting, patience) = (Duration::from_secs(4), Duration::from_secs(60));
        let (questions, objectives) = (questions.clone(), Default::default());
        let plan = Plan { fault, target, rate: args.load, lasting, patience, objective, objectives, questions };
        stage.progress(&format!("incident {} of 5: {}", number + 1, plan.describe()));
        let apis = stage.apis.clone();
        // What a signal interrupts is ended with everything else.
        let report = drill::run(&apis, &plan, &Grip::default(), stage).map_err(|error| Failure::plain(Exit::Failed, error.to_string()))?;
        reports.push(report);
    }
    Ok(())
}

fn table(reports: &[Report]) -> String {
    let wide = reports.iter().map(|report| report.what.chars().count()).max().unwrap_or(0);
    let mut text = format!(
        "{:<wide$} {:<6} {:>8} {:>7} {:>7} {:>10} {:>11}  objective\n",
        "incident", "group", "requests", "failed", "parked", "outage ms", "slowest ms"
    );
    for report in reports {
        let mut what = report.what.clone();
        for group in &report.groups {
            let verdict = if group.met { "met" } else { "MISSED" };
            text.push_str(&format!(
                "{:<wide$} {:<6} {:>8} {:>7} {:>7} {:>10} {:>11}  {} ms: {verdict}\n",
                what, group.group, group.requests, group.failed, group.parked, group.outage_ms, group.slowest_ms, group.objective_ms
            ));
            what.clear();
        }
    }
    text
}

/// Three nodes, their files and their processes.
struct Stage {
    dir: PathBuf,
    config: PathBuf,
    exe: PathBuf,
    base: u16,
    apis: Apis,
    children: Vec<(NodeId, Child)>,
    /// Held while a node is started, and for good once everything is being ended.
    starting: Arc<Mutex<()>>,
    started: Instant,
}

impl Hands for Stage {
    fn progress(&mut self, text: &str) {
        tell(&format!("[{:>6.1} s] {text}", self.started.elapsed().as_secs_f64()));
    }

    fn revive(&mut self, node: &NodeId) -> bool {
        self.start(node).is_ok()
    }
}

impl Stage {
    fn set(args: &DemoArgs, dir: &Path, starting: Arc<Mutex<()>>) -> Result<Self, Failure> {
        let base = args.base_port.map_or_else(free_ports, Ok)?;
        let dir = dir.to_owned();
        let exe = std::env::current_exe().map_err(|error| Failure::plain(Exit::Failed, format!("the path of this program: {error}")))?;
        let api = |i: u16| Client::at(SocketAddr::from((Ipv4Addr::LOCALHOST, base + 1 + 10 * i)));
        let apis = NODES.iter().zip(0..).map(|(name, i)| (NodeId::new(name), api(i))).collect();
        let config = dir.join("hotwarm.toml");
        let stage = Self { dir, config, exe, base, apis, children: Vec::new(), starting, started: Instant::now() };
        stage.write_files().map_err(|error| Failure::plain(Exit::Failed, format!("{} cannot be written: {error}", stage.dir.display())))?;
        Ok(stage)
    }

    fn write_files(&self) -> std::io::Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        let private = |path: &Path| std::fs::DirBuilder::new().mode(0o700).create(path);
        private(&self.dir)?;
        for name in NODES {
            private(&self.dir.join(name))?;
        }
        // The first node's right to found the cluster, once; `init` and `join` bring it to a real one.
        std::fs::write(self.dir.join(NODES[0]).join("bootstrap"), "the demo's first node\n")?;
        std::fs::write(&self.config, self.text())
    }

    fn text(&self) -> String {
        let base = self.base;
        let each = |make: &dyn Fn(&str, u16) -> String| NODES.iter().zip(0..).map(|(name, i)| make(name, i)).collect::<Vec<_>>();
        let addresses = |first: u16| each(&|name, i| format!("{name} = \"127.0.0.1:{}\"", first + 10 * i)).join(", ");
        let nodes = each(&|name, i| {
            let data = toml_string(&self.dir.join(name).display().to_string());
            format!("[node.{name}]\ndata = {data}\napi = \"127.0.0.1:{}\"\n", base + 1 + 10 * i)
        });
        let group = |name: &str, mode: &str, offset: u16, change: &str| {
            let exe = toml_string(&self.exe.display().to_string());
            format!(
                "[group.{name}]\nmode = \"{mode}\"\nprotocol = \"http\"\nlisten = {{ {} }}\nmembers = {{ {} }}\n\
                 engine = {{ process = [{exe}, \"component\", \"{name}\"]{change} }}\ncheck = {{ http = \"/healthz\" }}\n",
                addresses(base + 680 + offset),
                addresses(base + 780 + offset),
            )
        };
        format!(
            "# Written by `hotwarm demo`: three nodes on loopback. On real machines `hotwarm init` writes the file.\n\
             [cluster]\nname = \"demo\"\nnodes = {{ {} }}\n\n{}\n# every member serves\n{}\n# one member serves, the others take over\n{}",
            addresses(base),
            nodes.join("\n"),
            group("web", "hot-hot", 0, ""),
            group("clock", "hot-warm", 1, ", on_role_change = { http = \"/role\" }"),
        )
    }

    fn start_all(&mut self) -> Result<(), Failure> {
        for name in NODES {
            self.start(&NodeId::new(name)).map_err(|error| Failure::plain(Exit::Failed, format!("node {name} does not start: {error}")))?;
        }
        Ok(())
    }

    fn start(&mut self, node: &NodeId) -> std::io::Result<()> {
        let starting = Arc::clone(&self.starting);
        let _nothing_is_ended = starting.lock().unwrap_or_else(PoisonError::into_inner);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join(format!("{node}.log")))?;
        let mut command = Command::new(&self.exe);
        command.args(["run", "--config"]).arg(&self.config).args(["--node", node.as_str()]);
        command.env_remove("HOTWARM_NODE").env_remove("HOTWARM_CONFIG").env_remove("HOTWARM_API");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
        self.reap();
        self.children.retain(|(name, _)| name != node);
        self.children.push((node.clone(), child));
        Ok(())
    }

    /// Waits for what has ended, so that no remains are left.
    fn reap(&mut self) {
        for (_, child) in &mut self.children {
            // Not ended yet is no error.
            let _ = child.try_wait();
        }
    }

    fn status(&self) -> Result<Status, Failure> {
        let mut answers = self.apis.values().filter_map(|client| client.get::<Status>("/api/v1/status").ok());
        answers.next().ok_or_else(|| Failure::plain(Exit::Failed, format!("no node answers; see the logs in {}", self.dir.display())))
    }

    /// Waits until everything serves and tells which member of `clock` is hot.
    fn wait_until_serving(&mut self) -> Result<String, Failure> {
        let begun = Instant::now();
        while begun.elapsed() < START_WITHIN {
            if let Ok(status) = self.status() {
                let full = status.groups.iter().all(|g| g.state == "serving" && g.have.hot >= g.want.hot && g.have.warm >= g.want.warm);
                let hot = status.groups.iter().flat_map(|g| &g.members).find(|m| m.name.starts_with("clock/") && m.serving);
                if let (true, Some(hot), true) = (full, hot, status.groups.len() == 2 && status.cluster.quorum.voters.len() == NODES.len())
                {
                    return Ok(hot.name.clone());
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let logs = self.dir.display();
        Err(Failure::plain(Exit::Failed, format!("not everything serves within {} s; see the logs in {logs}", START_WITHIN.as_secs())))
    }

    fn hints(&self) -> String {
        let (api, web) = (self.base + 1, self.base + 680);
        format!("curl 127.0.0.1:{web}/   hotwarm status --api http://127.0.0.1:{api}   http://127.0.0.1:{api}/metrics")
    }

    /// Until a signal ends the outer process, and that this one.
    fn keep(&mut self) {
        self.progress(&format!("left running until Ctrl-C: {}", self.hints()));
        loop {
            std::thread::park();
        }
    }
}

fn toml_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The first base whose ports are all free.
fn free_ports() -> Result<u16, Failure> {
    let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let fits = |base: &u16| (0..3).flat_map(|i| [0, 1, 680, 681, 780, 781].map(|o| base + o + 10 * i)).all(free);
    let bases = (0..20).map(|i| 7400 + i * PORTS);
    let found = bases.into_iter().find(fits);
    found.ok_or_else(|| Failure::plain(Exit::Failed, "no free ports found from 7400 on; choose others with --base-port"))
}
