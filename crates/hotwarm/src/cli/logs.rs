//! `hotwarm logs`: a member's output.
//!
//! Only the member's own node has it; another says which that is.

use std::io::{self, IsTerminal};

use clap::{Args, value_parser};

use super::Global;
use super::failure::{Failure, print, tell};
use super::remote::{client, member, print_json};
use super::table::foreign;
use crate::api::client::Client;
use crate::api::types::{LINES_MAX, LogLine, Logs, Status};

/// Show what a member wrote on its standard output and error
///
/// On a terminal, control characters other than tabs are shown as \x1b, so that a member's output changes neither colours nor title;
/// elsewhere they pass as they are. A member of an `external` engine has no output here: hotwarm does not run it.
#[derive(Debug, Args)]
pub struct LogsArgs {
    /// Group and member, such as web/a
    #[arg(value_name = "MEMBER")]
    pub member: String,
    /// Wait for more
    #[arg(long, short)]
    pub follow: bool,
    /// How many of the last lines
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 100, value_parser = value_parser!(u32).range(0..=LINES_MAX.into()))]
    pub lines: u32,
}

/// A program that could not be started has printed nothing: why is known to the group.
fn tell_why_it_does_not_run(client: &Client, name: &str) -> Result<(), Failure> {
    let status: Status = client.get("/api/v1/status")?;
    let member = status.groups.iter().flat_map(|group| &group.members).find(|member| member.name == name);
    if let Some(stopped) = member.filter(|member| member.life == "stopped").and_then(|member| member.stopped.as_ref()) {
        tell(&format!("{name} does not run: {stopped}"));
    }
    Ok(())
}

pub(super) fn logs(args: &LogsArgs, global: &Global) -> Result<(), Failure> {
    let path = format!("/api/v1/members/{}/logs?lines={}", member(&args.member)?, args.lines);
    let client = client(global)?;
    let terminal = io::stdout().is_terminal();
    if args.follow {
        let mut stream = client.stream(&format!("{path}&follow=true"))?;
        while let Some(line) = stream.next_object::<LogLine>()? {
            print(&if global.json { format!("{}\n", serde_json::json!(line)) } else { format!("{}\n", foreign(&line.line, terminal)) })?;
        }
        return Ok(());
    }
    let logs: Logs = client.get(&path)?;
    if global.json {
        return print_json(&logs);
    }
    print(&logs.lines.iter().map(|line| format!("{}\n", foreign(line, terminal))).collect::<String>())?;
    tell_why_it_does_not_run(&client, &args.member)
}
