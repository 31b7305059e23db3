//! `hotwarm events`: what happened, with reasons.
//!
//! One line an event: time, group, reason's code or kind, text.

use clap::Args;

use super::Global;
use super::failure::{Failure, print};
use super::remote::{client, part, print_json};
use super::table::{Tone, colour, paint};
use crate::api::types::{Event, Events};

/// Show what happened, and why
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only this group's
    #[arg(value_name = "GROUP")]
    pub group: Option<String>,
    /// Wait for more
    #[arg(long, short)]
    pub follow: bool,
    /// How many of the past
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 50)]
    pub lines: usize,
}

pub(super) fn events(args: &EventsArgs, global: &Global) -> Result<(), Failure> {
    let client = client(global)?;
    let mut path = format!("/api/v1/events?limit={}", args.lines);
    if let Some(group) = &args.group {
        path.push_str(&format!("&group={}", part(group)));
    }
    if args.follow {
        let mut stream = client.stream(&format!("{path}&follow=true"))?;
        while let Some(event) = stream.next_object::<Event>()? {
            print(&if global.json { format!("{}\n", serde_json::json!(event)) } else { line(&event) })?;
        }
        return Ok(());
    }
    let events: Events = client.get(&path)?;
    if global.json {
        return print_json(&events);
    }
    print(&events.events.iter().map(line).collect::<String>())
}

fn line(event: &Event) -> String {
    let (code, tone) = match &event.reason {
        Some(reason) if reason.refusal => (reason.code.as_str(), Tone::Doubtful),
        Some(reason) if reason.code == "opened" => (reason.code.as_str(), Tone::Good),
        Some(reason) => (reason.code.as_str(), Tone::Strong),
        None => (event.kind.as_str(), Tone::Dim),
    };
    let colour = colour();
    let group = event.group.as_deref().unwrap_or("-");
    format!("{}  {group:<10}  {}  {}\n", paint(&event.time, Tone::Dim, colour), paint(&format!("{code:<17}"), tone, colour), event.text)
}
