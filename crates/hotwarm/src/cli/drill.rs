//! `hotwarm drill`: a fault on purpose, measured.
//!
//! What it does and how it measures is in [`crate::drill`]; here are the arguments, the question before it hurts, and the printing.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, ValueEnum};
use hotwarm_core::ids::NodeId;

use super::failure::{print, tell};
use super::{Exit, Failure, Global, read_config, remote, table};
use crate::api::client::{Client, ClientError};
use crate::api::types::Status;
use crate::codes::Code;
use crate::config;
use crate::drill::{self, Apis, DrillError, Hands, Plan};

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
    #[arg(value_name = "TARGET")]
    pub target: String,
    /// Requests per second that the drill itself makes
    #[arg(long, value_name = "RATE", default_value_t = 100)]
    pub load: u32,
    /// How long a freeze or cut lasts
    #[arg(long = "for", value_name = "DURATION", default_value = "10s", value_parser = super::duration)]
    pub lasting: Duration,
    /// The longest time without an answer that counts as good
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = super::duration)]
    pub objective: Duration,
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
    let plan = Plan { fault, target: args.target.clone(), rate: args.load, lasting: args.lasting, patience, objective: args.objective };
    let apis = apis(global)?;
    drill::check(&apis, &plan).map_err(failure)?;
    table::ask(&format!("{}. Requests of real clients are hit too.", plan.describe()), args.yes)?;
    let report = drill::run(&apis, &plan, &mut Onlooker).map_err(failure)?;
    if global.json {
        print(&format!("{}\n", serde_json::json!({ "met": report.met(), "report": report })))?;
    } else {
        print(&report.text())?;
    }
    if report.met() { Ok(()) } else { Err(Failure::plain(Exit::ObjectiveMissed, "the objective was missed")) }
}

fn failure(error: DrillError) -> Failure {
    let exit = match &error {
        DrillError::Api(ClientError::Unreachable { .. }) => Exit::Unreachable,
        DrillError::Elsewhere { .. } => Exit::Refused,
        DrillError::UnknownTarget(_) => return Failure::failed(Code::NOT_THERE, error.to_string()),
        DrillError::Api(_) | DrillError::Unready(_) | DrillError::NoEffect(_) | DrillError::Fault { .. } | DrillError::NotWhole { .. } => {
            Exit::Failed
        }
    };
    Failure::plain(exit, error.to_string())
}

/// The API that is named, and those of the configuration file that this machine reaches.
fn apis(global: &Global) -> Result<Apis, Failure> {
    let first = remote::client(global)?;
    let status: Status = first.get("/api/v1/status")?;
    let mut apis: Apis = BTreeMap::from([(NodeId::new(&status.node.name), first)]);
    let Ok(text) = read_config(&global.config) else { return Ok(apis) };
    for node in &status.nodes {
        let name = NodeId::new(&node.name);
        let Ok(config) = config::parse(&text, "", Some(&name)) else { continue };
        let client = Client::at(config.node.api);
        // Every node's API may have the same address, each on its own machine: only one that says it is this node is taken.
        let is_it = client.get::<Status>("/api/v1/status").is_ok_and(|status| status.node.name == node.name);
        if is_it {
            apis.entry(name).or_insert(client);
        }
    }
    Ok(apis)
}
