//! `hotwarm apply`: a changed configuration into the running cluster.
//!
//! It shows the difference and what follows, asks, and hands it to a node; the cluster takes it whole or not at all (promise 6).

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hotwarm_core::ids::GroupName;

use super::failure::{Failure, print, tell};
use super::remote::{client, print_json, wait};
use super::table::{Tone, colour, paint};
use super::{Global, diff, read_config, table};
use crate::api::client::Client;
use crate::api::types::{Applied, Apply, Configuration};
use crate::codes::Code;
use crate::config::{self, Parsed};

/// Show how a configuration file differs from what the cluster runs with, and change the cluster
#[derive(Debug, Args)]
pub struct ApplyArgs {
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Show the difference and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do it without asking
    #[arg(long)]
    pub yes: bool,
}

/// The node that was asked has it in force by then: it has applied the entry already.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(5);

pub(super) fn apply(args: &ApplyArgs, global: &Global) -> Result<(), Failure> {
    let text = read_config(&args.file)?;
    let Parsed { config, found } = config::examine(&text, &args.file.to_string_lossy(), None);
    if config.is_none() {
        return Err(Failure::from(found));
    }
    found.warnings.iter().for_each(|warning| tell(&warning.to_string()));
    let client = client(global)?;
    change(&client, &text, args.dry_run, args.yes, global.json)
}

/// Puts `text` into force after showing what it changes.
pub(super) fn change(client: &Client, text: &str, dry_run: bool, yes: bool, json: bool) -> Result<(), Failure> {
    let now: Configuration = client.get("/api/v1/config")?;
    let mut asked = Apply { text: text.to_owned(), revision: now.revision, dry_run: true };
    let planned: Applied = client.post("/api/v1/config", &asked)?;
    let difference = diff::unified(&now.text, text);
    if !json {
        print(&shown(&difference, &planned.changes, colour()))?;
    }
    if difference.is_empty() && now.text == text {
        return done(json, &planned, &difference, &format!("configuration {} is this one already: nothing to do", now.revision));
    }
    if dry_run {
        return done(json, &planned, &difference, "nothing was changed (--dry-run)");
    }
    table::ask(&format!("configuration {} becomes {}", now.revision, now.revision + 1), yes)?;
    asked.dry_run = false;
    let applied: Applied = client.post("/api/v1/config", &asked)?;
    let in_force = wait(IN_FORCE_WITHIN, || {
        let now: Configuration = client.get("/api/v1/config")?;
        Ok((now.revision >= applied.revision).then_some(()))
    })?;
    if in_force.is_none() {
        return Err(Failure::failed(Code::NOT_OVER, format!("configuration {} is agreed on, and not seen in force yet", applied.revision)));
    }
    let new = config::parse(text, "", None).ok();
    let members = |group: &str| new.as_ref().and_then(|new| new.groups.get(&GroupName::new(group))).map(|group| group.members.len());
    let next = next(&planned.changes, |group| members(group) == Some(1));
    done(json, &applied, &difference, &format!("configuration {} is in force\n{next}", applied.revision))
}

/// What a person does then: members of a changed engine run on as they are.
fn next(changes: &[String], is_alone: impl Fn(&str) -> bool) -> String {
    let of = |change: &String| Some(change.strip_prefix("group ")?.split_once(": the engine changes")?.0.to_owned());
    let groups: Vec<String> = changes.iter().filter_map(of).collect();
    let (alone, groups): (Vec<String>, Vec<String>) = groups.into_iter().partition(|group| is_alone(group));
    if alone.is_empty() && groups.is_empty() {
        return "watch what follows with `hotwarm status`".to_owned();
    }
    let mut text = "members that run go on with the former engine (`hotwarm status` on each node names its own)".to_owned();
    if !groups.is_empty() {
        let restarts = groups.iter().map(|group| format!("`hotwarm restart {group}`")).collect::<Vec<_>>().join(", ");
        text.push_str(&format!("; next, one after the other: {restarts}"));
    }
    if !alone.is_empty() {
        text.push_str(&format!(
            "; the only member of {} is not restarted by hotwarm: when nobody need be served for a moment, `kill PID` on its node",
            alone.join(", ")
        ));
    }
    text
}

fn done(json: bool, applied: &Applied, difference: &str, what: &str) -> Result<(), Failure> {
    if json {
        return print_json(&serde_json::json!({
            "revision": applied.revision, "dry_run": applied.dry_run, "changes": applied.changes, "warnings": applied.warnings,
            "diff": difference,
        }));
    }
    print(&format!("{what}\n"))
}

fn shown(difference: &str, changes: &[String], colour: bool) -> String {
    let mut out = String::new();
    for line in difference.lines() {
        let tone = match line.as_bytes().first() {
            Some(b'+') => Tone::Good,
            Some(b'-') => Tone::Bad,
            Some(b'@') => Tone::Dim,
            _ => Tone::Plain,
        };
        out.push_str(&paint(line, tone, colour));
        out.push('\n');
    }
    if !changes.is_empty() {
        out.push_str("\nwhat it does:\n");
    }
    changes.iter().for_each(|change| out.push_str(&format!("  {change}\n")));
    out
}
