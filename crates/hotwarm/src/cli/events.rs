//! `hotwarm events`: what happened, with reasons.
//!
//! One line an event: time, group, reason's code or kind, text.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, value_parser};

use super::Global;
use super::failure::{Failure, print};
use super::remote::{client, part, print_json};
use super::table::{Tone, colour, paint};
use crate::api::types::{EVENTS_MAX, Event, Events};

/// Show what happened, and why
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only this group's
    #[arg(value_name = "GROUP", value_parser = NonEmptyStringValueParser::new())]
    pub group: Option<String>,
    /// Wait for more
    #[arg(long, short)]
    pub follow: bool,
    /// How many of the past
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 50, value_parser = value_parser!(u32).range(0..=EVENTS_MAX.into()))]
    pub lines: u32,
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
    print(&by_time(events.events).iter().map(line).collect::<String>())
}

/// What a node saw of itself goes to where its time is: a node that was away learns only afterwards what was decided meanwhile. Decisions keep
/// the order of the log, whatever the clocks of those who led were.
fn by_time(events: Vec<Event>) -> Vec<Event> {
    let (mut own, mut all): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| event.kind.starts_with("here-"));
    own.sort_by(|one, other| one.time.cmp(&other.time));
    for event in own {
        // RFC 3339 with a fixed width: earlier is less.
        let after = all.iter().rposition(|other| other.time <= event.time).map_or(0, |last| last + 1);
        all.insert(after, event);
    }
    all
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_saw_of_itself_stands_where_its_time_is_and_decisions_in_their_order() {
        let event = |kind: &str, at: &str| Event {
            number: 0,
            time: format!("2026-01-01T00:00:{at}.000Z"),
            at_ms: 0,
            group: None,
            kind: kind.to_owned(),
            text: String::new(),
            reason: None,
        };
        let told = [
            ("here-ended", "17"),
            ("node-lapsed", "13"),
            ("opened", "14"),
            ("promoted", "12"),
            ("here-leader", "18"),
            ("here-leased", "11"),
        ];
        let shown = by_time(told.map(|(kind, at)| event(kind, at)).into());
        let kinds: Vec<_> = shown.iter().map(|event| event.kind.as_str()).collect();
        assert_eq!(kinds, ["here-leased", "node-lapsed", "opened", "promoted", "here-ended", "here-leader"]);
    }
}
