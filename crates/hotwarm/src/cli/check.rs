//! `hotwarm check`: everything that is wrong with a configuration, and which losses it survives.
//!
//! It reads one file, looks at this machine's data directory and how fast its disk is, and changes nothing.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hotwarm_core::ids::NodeId;

use super::failure::{Failure, print, tell};
use super::{Global, NodeArg, installed_name, read_config};
use crate::config::{self, Config, Parsed};

/// Tell everything that is wrong with a configuration file, and which losses the design survives
///
/// On the machine that is the node it also measures the disk of the data directory, for two seconds at most, where an objective depends on it.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The file [default: that of --config]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    node: NodeArg,
}

pub(super) fn check(args: &CheckArgs, global: &Global) -> Result<(), Failure> {
    let path = args.file.as_ref().unwrap_or(&global.config);
    let text = read_config(path)?;
    let node = args.node.node.as_deref().map(NodeId::new);
    let here = installed_name(path);
    let name = path.to_string_lossy();
    let mut parsed = config::examine_here(&text, &name, node.as_ref(), here.as_ref());
    let sync = parsed.config.as_ref().map(|config| disk(config, &text, node.as_ref(), here.as_ref()));
    if let Some(Ok(sync)) = &sync {
        let judged = config::examine_disk(&text, &name, node.as_ref(), *sync);
        if judged.config.is_none() {
            parsed = judged;
        }
    }
    let Parsed { config, found } = parsed;
    let report = config.as_ref().zip(sync).map(|(config, sync)| {
        let mut report = config::losses(config);
        report.notes.extend(config::objectives(config, &sync));
        report
    });
    if global.json {
        let result = serde_json::json!({
            "file": path, "valid": config.is_some(), "errors": found.errors, "warnings": found.warnings, "report": report,
        });
        print(&format!("{result:#}\n"))?;
        return match config {
            Some(_) => Ok(()),
            None => Err(Failure::plain(super::Exit::Failed, format!("{} is wrong", path.display()))),
        };
    }
    let Some(report) = report else { return Err(Failure::from(found)) };
    tell(&found.to_string());
    print(&report.to_string())
}

/// What a sync takes in the data directory of this machine's node, where an objective asks for it; else why that is not known.
fn disk(config: &Config, text: &str, node: Option<&NodeId>, here: Option<&NodeId>) -> Result<Duration, String> {
    if !config.groups.values().any(|group| group.objective.rto.is_some() && group.mode.exclusive) {
        return Err("no objective asks for it".to_owned());
    }
    let Some(here) = here else { return Err("this machine is no node, ask on each that is one".to_owned()) };
    if node.is_some_and(|node| node != here) {
        return Err(format!("this machine is node {here}, ask on the other"));
    }
    // Where it is may be said for this node alone.
    let own = config::parse(text, "", Some(here)).map_err(|_| format!("node {here}, which this machine is, is not in the file"))?;
    let data = &own.node.data;
    if data.is_dir() { config::disk::sync_time(data) } else { Err(format!("{} is not there yet", data.display())) }
}
