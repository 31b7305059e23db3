//! `hotwarm check`: everything that is wrong with a configuration, and which losses it survives.
//!
//! It reads one file, looks at this machine's data directory, and changes nothing.

use std::path::PathBuf;

use clap::Args;
use hotwarm_core::ids::NodeId;

use super::failure::{Failure, print, tell};
use super::{Global, NodeArg, installed_name, read_config};
use crate::config::{self, Parsed};

/// Tell everything that is wrong with a configuration file, and which losses the design survives
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
    let Parsed { config, found } = config::examine_here(&text, &path.to_string_lossy(), node.as_ref(), here.as_ref());
    let report = config.as_ref().map(config::losses);
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
