//! The program `hotwarm`: hands each entry point its arguments, and wires a node to its API.
//!
//! `guard`, `component` and `hold` come before everything: they are processes of their own and must not pay for the rest.

use std::path::Path;
use std::process::ExitCode;

use hotwarm::agent::recover::{self, Recovery};
use hotwarm::agent::{Agent, Start};
use hotwarm::api;
use hotwarm::cli::{self, Exit, Failure, Found, Global, Recovered, RunArgs};
use hotwarm::codes::Code;
use hotwarm::telemetry;
use hotwarm_core::ids::NodeId;
use tokio::signal::unix::{SignalKind, signal};

/// From when on it is told that nobody has founded the cluster.
const FOUNDED_WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((command, rest)) if command == "guard" => hotwarm::fence::guard::main(rest),
        Some((command, rest)) if command == "component" => hotwarm::component::main(rest),
        Some((command, rest)) if command == "hold" => hotwarm::drill::hold::main(rest),
        _ => cli::main(cli::Wired { run, recover_quorum }),
    }
}

/// Runs a node until it is told to stop.
fn run(args: &RunArgs, global: &Global) -> Result<(), Failure> {
    let (config, node) = cli::load_to_run(global, &args.node)?;
    telemetry::start();
    let failed = |what: &str, error: &dyn std::fmt::Display| Failure::plain(Exit::Failed, format!("{what}: {error}"));
    let exe = std::env::current_exe().map_err(|error| failed("the path of this program is not known", &error))?;
    let (listen, token) = (config.node.api, config.node.api_token.clone());
    // Probes and engines; the decision thread, the log and the routers have threads of their own. One worker: what blocks runs elsewhere, and
    // a second one would be woken for everything that the first is about to do.
    let shell = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("shell").enable_all().build();
    let shell = shell.map_err(|error| failed("no runtime", &error))?;
    // The API on this thread: whatever it is asked, no probe and no promotion waits behind it.
    let front = tokio::runtime::Builder::new_current_thread().thread_name("api").enable_all().build();
    let front = front.map_err(|error| failed("no runtime", &error))?;
    let agent = Agent::start(Start { config, node: node.clone(), exe, runtime: shell.handle().clone() });
    let agent = agent.map_err(|error| match error.is_permission() {
        true => Failure::failed(Code::NOT_PERMITTED, format!("the node does not start: {error}"))
            .hint("try again with sudo, or as the user that the data directory belongs to"),
        false => match error.code() {
            Some(code) => Failure::failed(code, format!("the node does not start: {error}")),
            None => failed("the node does not start", &error),
        },
    })?;
    let served = front.block_on(api::serve(listen, token, agent.handle()));
    let api = match served {
        Ok(api) => api,
        Err(error) => {
            agent.stop();
            return Err(Failure::failed(error.code(), error.to_string()));
        }
    };
    match api.address() {
        Some(address) => tracing::info!(api = %address, "node {node} runs"),
        None => tracing::info!("node {node} runs, without its API"),
    }
    shell.spawn(tell_if_nobody_founds(agent.handle()));
    let stopped = front.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::io::Result::Ok(())
    });
    drop(api);
    agent.stop();
    // What still runs there has nobody left to tell.
    front.shutdown_background();
    shell.shutdown_background();
    stopped.map_err(|error| failed("signals are not received", &error))
}

/// A cluster that nobody may found waits for ever, and in silence: which a hand-written file easily comes to.
async fn tell_if_nobody_founds(agent: hotwarm::agent::Handle) {
    tokio::time::sleep(FOUNDED_WITHIN).await;
    if !agent.view().cluster.founded() && !agent.may_found() {
        tracing::warn!(
            "no cluster heard of, and this node may not found one: it waits for one that may; `hotwarm init` and `hotwarm join` give one node \
             the right to"
        );
    }
}

/// Makes a new cluster from a stopped node's data directory, if `judge` lets it.
fn recover_quorum(data: &Path, me: &NodeId, judge: &mut dyn FnMut(&Found) -> Result<(), Failure>) -> Result<Recovered, Failure> {
    let failed = |error: recover::Error| match error {
        recover::Error::Unreadable { path, source } => cli::not_permitted(&path, &source),
        error => Failure::failed(Code::NOT_RECOVERABLE, error.to_string()),
    };
    let recovery = Recovery::read(data, me).map_err(failed)?;
    let plan = &recovery.plan;
    let nodes = &plan.cluster.nodes;
    let found = Found {
        cluster: plan.cluster.name.clone(),
        revision: plan.cluster.revision,
        last: plan.last.0,
        commit: plan.commit.0,
        term: plan.term,
        dated: plan.dated_ms.map(|ms| std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms)),
        voters: nodes.iter().filter(|(_, node)| node.spec.votes).map(|(name, _)| name.clone()).collect(),
        peers: nodes.iter().filter(|(name, _)| *name != me).map(|(name, node)| (name.clone(), node.spec.address)).collect(),
        cut: recovery.cut.clone(),
    };
    let id = format!("{:032x}", plan.identity.cluster);
    judge(&found)?;
    Ok(Recovered { id, quarantine: recovery.carry_out().map_err(failed)? })
}
