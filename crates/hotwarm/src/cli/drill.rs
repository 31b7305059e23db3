//! `hotwarm drill`: a fault on purpose, measured.
//!
//! What it does and how it measures is in [`crate::drill`]; here are the arguments, the question before it hurts, and the printing.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::builder::RangedI64ValueParser;
use clap::{Args, ValueEnum, value_parser};
use hotwarm_core::ids::NodeId;
use tokio::signal::unix::{SignalKind, signal};

use super::failure::{print, tell};
use super::{Exit, Failure, Global, read_config, remote, table};
use crate::api::client::Client;
use crate::api::types::{Configuration, Status};
use crate::codes::Code;
use crate::config::{self, CheckKind, Config, Group, Protocol};
use crate::drill::{self, Apis, DrillError, Grip, Hands, Lasting, Plan, Question};

/// Requests a second that one thread can make on time.
const RATE_MAX: i64 = 10_000;
/// What counts as good where neither the command nor the group says.
const OBJECTIVE: Duration = Duration::from_secs(2);

/// What is done to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// Kill a member's program
    Kill,
    /// Stop a member's program without ending it
    Freeze,
    /// Kill everything of a node
    NodeKill,
    /// Cut a node off from the others
    Cut,
}

/// Cause a fault on purpose and measure what clients see; on the machine of what it strikes
#[derive(Debug, Args)]
pub struct DrillArgs {
    #[arg(value_name = "FAULT", value_enum)]
    pub fault: Fault,
    /// A member such as web/a, or a node
    #[arg(value_name = "TARGET", value_parser = NonEmptyStringValueParser::new())]
    pub target: String,
    /// Requests per second that the drill itself makes
    #[arg(long, value_name = "RATE", default_value_t = 100, value_parser = rate())]
    pub load: u32,
    /// What HTTP groups are asked for [default: the path of the group's check, or /]
    #[arg(long, value_name = "PATH", value_parser = path)]
    pub path: Option<String>,
    /// How long a freeze or cut lasts
    #[arg(long = "for", value_name = "DURATION", default_value = "10s", value_parser = super::duration)]
    pub lasting: Duration,
    /// The longest time without an answer that counts as good [default: the group's `objective.rto`, or 2s]
    #[arg(long, value_name = "DURATION", value_parser = super::duration)]
    pub objective: Option<Duration>,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
}

/// A drill on a cluster that others run: nothing is started again here.
struct Onlooker;

impl Hands for Onlooker {
    fn progress(&mut self, text: &str) {
        tell(text);
    }

    fn revive(&mut self, _node: &NodeId) -> bool {
        false
    }
}

pub(super) fn drill(args: &DrillArgs, global: &Global) -> Result<(), Failure> {
    let fault = match args.fault {
        Fault::Kill => drill::Fault::Kill,
        Fault::Freeze => drill::Fault::Freeze,
        Fault::NodeKill => drill::Fault::NodeKill,
        Fault::Cut => drill::Fault::Cut,
    };
    let patience = args.lasting + Duration::from_secs(60);
    let (first, apis) = apis(global)?;
    let config = config_in_force(&first)?;
    let (target, questions) = (args.target.clone(), questions(&config, args.path.as_deref()));
    let stated = config.groups.values().filter_map(|group| Some((group.name.to_string(), group.objective.rto?)));
    let objectives = if args.objective.is_some() { BTreeMap::new() } else { stated.collect() };
    let objective = args.objective.unwrap_or(OBJECTIVE);
    let plan = Plan { fault, target, rate: args.load, lasting: args.lasting, patience, objective, objectives, questions };
    drill::check(&apis, &plan).map_err(failure)?;
    table::ask(&format!("{}. Requests of real clients are hit too.", plan.describe()), args.yes)?;
    let grip = Grip::default();
    end_on_signals(&grip, &plan, global.json)?;
    let report = drill::run(&apis, &plan, &grip, &mut Onlooker).map_err(failure)?;
    if global.json {
        print(&format!("{}\n", serde_json::json!({ "met": report.met(), "report": report })))?;
    } else {
        print(&report.text())?;
    }
    if report.met() { Ok(()) } else { Err(Failure::plain(Exit::ObjectiveMissed, "the objective was missed")) }
}

/// Requests a second that can be measured.
pub(super) fn rate() -> RangedI64ValueParser<u32> {
    value_parser!(u32).range(1..=RATE_MAX)
}

fn path(text: &str) -> Result<String, String> {
    let plain = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic());
    if plain { Ok(text.to_owned()) } else { Err("a path begins with / and has no spaces, as in /healthz".to_owned()) }
}

/// What each group is asked: what shows that a member serves it, and does no harm.
pub(super) fn questions(config: &Config, path: Option<&str>) -> BTreeMap<String, Question> {
    let question = |group: &Group| match (&group.protocol, &group.check.kind) {
        (Protocol::Tcp, _) => Question::Tcp { park: group.park.time },
        (Protocol::Http, CheckKind::Http { path: checked, status, .. }) => Question::page(path.unwrap_or(checked), status),
        (Protocol::Http, CheckKind::Tcp | CheckKind::Command(_)) => Question::page(path.unwrap_or("/"), &[]),
    };
    config.groups.values().map(|group| (group.name.to_string(), question(group))).collect()
}

fn config_in_force(client: &Client) -> Result<Config, Failure> {
    let now: Configuration = client.get("/api/v1/config")?;
    Ok(config::parse(&now.text, "the configuration in force", None)?)
}

/// From now on a signal ends the drill as its own end would: the fault is undone first.
fn end_on_signals(grip: &Grip, plan: &Plan, json: bool) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::plain(Exit::Failed, format!("signals are not received: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let registered =
        runtime.block_on(async { Ok((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?)) });
    let (mut interrupt, mut terminate, mut hang_up) = registered.map_err(failed)?;
    let (grip, plan) = (grip.clone(), plan.clone());
    let wait = move || {
        let (exit, how) = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => (Exit::Interrupted, "interrupted"),
                _ = terminate.recv() => (Exit::Terminated, "terminated"),
                _ = hang_up.recv() => (Exit::HungUp, "the terminal went away"),
            }
        });
        let over = match grip.end() {
            None if plan.fault == drill::Fault::Kill => "nothing is left to be undone".to_owned(),
            None => "no fault is in force".to_owned(),
            Some((Lasting::Kill { .. }, _)) => {
                format!("{}; start it again on its machine: systemctl start hotwarm", plan.describe())
            }
            Some((lasting, Ok(()))) => lasting.over().to_owned(),
            Some((_, Err(error))) => error.to_string(),
        };
        // No exit code to return: the thread that would waits for the fault to work.
        Failure::plain(exit, format!("{how}: {over}")).report(json);
        std::process::exit(exit as i32);
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).map(drop).map_err(failed)
}

fn failure(error: DrillError) -> Failure {
    let text = error.to_string();
    match error {
        DrillError::Api(error) => Failure::from(error),
        DrillError::UnknownTarget(_) => Failure::failed(Code::NOT_THERE, text).hint("`hotwarm status` lists members and nodes"),
        DrillError::WrongTarget { others, .. } => Failure::with_code(Exit::Usage, Some(Code::DRILL_TARGET), text).hint(others),
        DrillError::Elsewhere { .. } => {
            Failure::refused(Code::DRILL_ELSEWHERE, text).hint("a drill acts on processes and packets of its own machine")
        }
        DrillError::TooMany { .. } => Failure::with_code(Exit::Usage, None, text).hint("a smaller --load, or a shorter --for"),
        DrillError::Unready(_) => Failure::failed(Code::DRILL_SHOWS_NOTHING, text)
            .hint("`hotwarm status` tells how the groups are; --path asks HTTP groups for another page"),
        DrillError::NoEffect(_) => {
            Failure::failed(Code::DRILL_SHOWS_NOTHING, text).hint("was it run on the machine of its target, with the right to strike it?")
        }
        DrillError::OwnLimit(_) => {
            Failure::failed(Code::DRILL_SHOWS_NOTHING, text).hint("allow more open files (`ulimit -Hn`), or ask less often: --load")
        }
        DrillError::Fault { .. } => {
            Failure::failed(Code::DRILL_FAULT, text).hint("signals and packet filters of others need root; `cut` needs `nft`")
        }
        DrillError::NotWhole { .. } => Failure::failed(Code::DRILL_NOT_WHOLE, text).hint("`hotwarm status`, `hotwarm why GROUP`"),
    }
}

/// The API that is named, and those of the configuration file that this machine reaches.
fn apis(global: &Global) -> Result<(Client, Apis), Failure> {
    let first = remote::client(global)?;
    let status: Status = first.get("/api/v1/status")?;
    let mut apis: Apis = BTreeMap::from([(NodeId::new(&status.node.name), first.clone())]);
    let Ok(text) = read_config(&global.config) else { return Ok((first, apis)) };
    for node in &status.nodes {
        let name = NodeId::new(&node.name);
        let Ok(config) = config::parse(&text, "", Some(&name)) else { continue };
        let mut api = config.node.api;
        if api.ip().is_unspecified() {
            // Every address of its machine: the one that the other nodes have.
            api.set_ip(node.address.ip());
        }
        let client = first.beside(api);
        // Every node's API may have the same address, each on its own machine: only one that says it is this node is taken.
        let is_it = client.get::<Status>("/api/v1/status").is_ok_and(|status| status.node.name == node.name);
        if is_it {
            apis.entry(name).or_insert(client);
        }
    }
    Ok((first, apis))
}
