//! The command line: what can be asked, and the one place with clap and printing. One file a command.
//!
//! Main path: [`main`] parses, hands the arguments to the command's file, prints its failure and turns it into an exit code. `run` is
//! handed in by the program, because only it may know the agent. Nothing here decides about groups; it asks a node's API.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use hotwarm_core::ids::NodeId;

use crate::codes::Code;
use crate::config::{self, Config, Parsed};

mod accept_loss;
mod apply;
mod certs;
mod check;
mod demo;
mod diff;
mod drain;
mod drill;
mod events;
mod failure;
mod files;
mod init;
mod join;
mod leave;
mod logs;
mod pause;
mod recover_quorum;
pub mod reference;
mod remote;
mod restart;
mod run;
mod status;
mod switchover;
mod table;
mod top;
mod unit;
mod why;

#[cfg(test)]
mod tests;

pub use failure::{Exit, Failure};
pub use files::refused as not_permitted;
pub use recover_quorum::{Found, RecoverQuorum, Recovered};
pub use run::RunArgs;

/// Keeps a service answering while its machines fail.
#[derive(Debug, Parser)]
#[command(name = "hotwarm", version, max_term_width = 100, after_help = EXIT_CODES)]
#[command(disable_help_subcommand = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 failed, the message says what to do; 2 wrong usage; 3 refused by a rule, \
    with the reason and the override; 4 not reachable; 5 objective missed (drill, demo); 128 and \
    the number of the signal that ended a demo or a drill.";

/// What every command takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE", env = "HOTWARM_CONFIG", hide_env_values = true, default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// The node's API, such as http://127.0.0.1:7401 or https://10.0.0.1:7401 [default: `api` of the configuration file]
    #[arg(long, global = true, value_name = "URL", env = "HOTWARM_API", hide_env_values = true)]
    pub api: Option<String>,
    /// The file with the API's token [default: `api_token` of the configuration file]
    #[arg(long, global = true, value_name = "FILE", env = "HOTWARM_API_TOKEN_FILE", hide_env_values = true)]
    pub api_token: Option<PathBuf>,
    /// The certificate of the cluster's authority, by which nodes are known over https [default: tls/ca.pem in this node's data directory]
    #[arg(long, global = true, value_name = "FILE", env = "HOTWARM_API_CA", hide_env_values = true)]
    pub api_ca: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    pub json: bool,
}

pub const DEFAULT_CONFIG: &str = "/etc/hotwarm/hotwarm.toml";

/// Which node this machine is.
#[derive(Clone, Debug, Args)]
pub struct NodeArg {
    /// Which node this machine is [default: `[node] name`, or what `join` installed]
    #[arg(long, value_name = "NAME", env = "HOTWARM_NODE", hide_env_values = true)]
    pub node: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Demo(demo::DemoArgs),
    Init(init::InitArgs),
    Join(join::JoinArgs),
    Leave(leave::LeaveArgs),
    Check(check::CheckArgs),
    Apply(apply::ApplyArgs),
    Run(RunArgs),
    Certs(certs::CertsArgs),
    Status(status::StatusArgs),
    Events(events::EventsArgs),
    Why(why::WhyArgs),
    Top(top::TopArgs),
    Logs(logs::LogsArgs),
    Switchover(switchover::SwitchoverArgs),
    Drain(drain::DrainArgs),
    Undrain(drain::UndrainArgs),
    Restart(restart::RestartArgs),
    Pause(pause::PauseArgs),
    Resume(pause::ResumeArgs),
    AcceptLoss(accept_loss::AcceptLossArgs),
    RecoverQuorum(recover_quorum::RecoverQuorumArgs),
    Drill(drill::DrillArgs),
}

/// How the program runs a node: until it ends.
pub type RunNode = fn(&RunArgs, &Global) -> Result<(), Failure>;

/// What commands do with parts of the program that this room may not enter.
#[derive(Clone, Copy, Debug)]
pub struct Wired {
    pub run: RunNode,
    pub recover_quorum: RecoverQuorum,
}

/// The whole program but `guard` and `component`.
pub fn main(wired: Wired) -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && std::env::args().any(|argument| argument == "--json") => {
            let text = error.render().to_string();
            return Failure::plain(Exit::Usage, text.trim().trim_start_matches("error: ")).report(true);
        }
        Err(error) => error.exit(),
    };
    match dispatch(&cli, wired) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(cli.global.json),
    }
}

fn dispatch(cli: &Cli, wired: Wired) -> Result<(), Failure> {
    let global = &cli.global;
    match &cli.command {
        Command::Demo(args) => demo::demo(args, global),
        Command::Init(args) => init::init(args, global),
        Command::Join(args) => join::join(args, global),
        Command::Leave(args) => leave::leave(args, global),
        Command::Check(args) => check::check(args, global),
        Command::Apply(args) => apply::apply(args, global),
        Command::Run(args) => (wired.run)(args, global),
        Command::Certs(args) => certs::certs(args, global),
        Command::Status(args) => status::status(args, global),
        Command::Events(args) => events::events(args, global),
        Command::Why(args) => why::why(args, global),
        Command::Top(args) => top::top(args, global),
        Command::Logs(args) => logs::logs(args, global),
        Command::Switchover(args) => switchover::switchover(args, global),
        Command::Drain(args) => drain::drain(args, global),
        Command::Undrain(args) => drain::undrain(args, global),
        Command::Restart(args) => restart::restart(args, global),
        Command::Pause(args) => pause::pause(args, global),
        Command::Resume(args) => pause::resume(args, global),
        Command::AcceptLoss(args) => accept_loss::accept_loss(args, global),
        Command::RecoverQuorum(args) => recover_quorum::recover_quorum(args, global, wired.recover_quorum),
        Command::Drill(args) => drill::drill(args, global),
    }
}

/// The command line's definition, for the manual.
#[must_use]
pub fn definition() -> clap::Command {
    Cli::command()
}

/// The configuration file of this machine and which node it is: `--node`, the file's own name, or what `join` wrote beside the file.
/// Warnings go to standard error.
///
/// # Errors
/// The file cannot be read, is wrong, or nobody says which node this is.
pub fn load(global: &Global, node: &NodeArg) -> Result<(Config, NodeId), Failure> {
    load_by(config::examine, global, node)
}

/// Like [`load`], for a node that is about to run on this machine.
///
/// # Errors
/// As [`load`], and what the node cannot start without.
pub fn load_to_run(global: &Global, node: &NodeArg) -> Result<(Config, NodeId), Failure> {
    load_by(config::examine_to_run, global, node)
}

fn load_by(examine: fn(&str, &str, Option<&NodeId>) -> Parsed, global: &Global, node: &NodeArg) -> Result<(Config, NodeId), Failure> {
    let text = read_config(&global.config)?;
    let node = node.node.as_deref().map(NodeId::new).or_else(|| installed_name(&global.config).filter(|_| !names_itself(&text)));
    let Parsed { config, found } = examine(&text, &global.config.to_string_lossy(), node.as_ref());
    let Some(config) = config else { return Err(Failure::from(found)) };
    for warning in &found.warnings {
        failure::tell(&warning.to_string());
    }
    let name = config.node.name.clone().ok_or_else(|| {
        Failure::failed(Code::NODE_UNKNOWN, "nobody says which node this machine is")
            .hint("give --node NAME, set HOTWARM_NODE, or install the node's join file with `hotwarm join`")
    })?;
    Ok((config, name))
}

/// True if `[node] name` is there and right; a file that is wrong is told of by the reading that follows.
fn names_itself(text: &str) -> bool {
    config::parse(text, "", None).is_ok_and(|config| config.node.name.is_some())
}

/// What `join` wrote beside the configuration.
fn installed_name(config: &std::path::Path) -> Option<NodeId> {
    let text = std::fs::read_to_string(files::name_file(config)).ok()?;
    Some(text.trim()).filter(|name| !name.is_empty()).map(NodeId::new)
}

fn read_config(path: &std::path::Path) -> Result<String, Failure> {
    let bytes = std::fs::read(path).map_err(|error| {
        Failure::failed(Code::UNREADABLE_CONFIG, format!("{} cannot be read: {error}", path.display()))
            .hint("give --config FILE; a first one is written by `hotwarm init NAME --nodes a=IP,b=IP,c=IP`")
    })?;
    Ok(config::text_of(bytes, &path.to_string_lossy())?)
}

/// A duration argument: `10s`, `250ms`.
fn duration(text: &str) -> Result<Duration, String> {
    config::duration(text)
}
