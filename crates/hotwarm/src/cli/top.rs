//! `hotwarm top`: a live picture of one router's traffic.
//!
//! Rates and times are of the interval between two pictures; each node has a router of its own, so each shows its own part.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::Global;
use super::failure::{Failure, print};
use super::remote::client;
use super::table::{Table, Tone, colour, plain};
use crate::api::types::{GroupTraffic, MemberTraffic, Traffic};

/// Watch groups and members live
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Interval between pictures
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = super::duration)]
    pub every: Duration,
    /// One picture only
    #[arg(long)]
    pub once: bool,
}

/// What happened between two pictures.
#[derive(Debug, Serialize)]
struct Picture {
    node: String,
    interval_ms: u64,
    groups: Vec<GroupRates>,
}

#[derive(Debug, Serialize)]
struct GroupRates {
    group: String,
    epoch: u64,
    requests_per_second: f64,
    failed_per_second: f64,
    parked_now: usize,
    connections_now: usize,
    members: Vec<MemberRates>,
}

#[derive(Debug, Serialize)]
struct MemberRates {
    member: String,
    requests_per_second: f64,
    failed_per_second: f64,
    in_flight: usize,
    /// Times to the first byte; `null` without a sample.
    p50_us: Option<u64>,
    p99_us: Option<u64>,
    sent_bytes_per_second: f64,
    received_bytes_per_second: f64,
    ejected: bool,
}

pub(super) fn top(args: &TopArgs, global: &Global) -> Result<(), Failure> {
    let client = client(global)?;
    let mut before: Traffic = client.get("/api/v1/traffic")?;
    loop {
        std::thread::sleep(args.every.max(Duration::from_millis(50)));
        let now: Traffic = client.get("/api/v1/traffic")?;
        let picture = compare(&before, &now);
        let clear = if colour() && !args.once { "\u{1b}[H\u{1b}[2J" } else { "" };
        print(&if global.json { format!("{}\n", serde_json::json!(picture)) } else { format!("{clear}{}", text(&picture, colour())) })?;
        if args.once {
            return Ok(());
        }
        before = now;
    }
}

fn compare(before: &Traffic, now: &Traffic) -> Picture {
    let interval_ms = now.at_ms.saturating_sub(before.at_ms).max(1);
    let group = |g: &GroupTraffic| {
        let old = before.groups.iter().find(|old| old.group == g.group);
        let failed = |g: &GroupTraffic| g.failed.values().sum::<u64>();
        GroupRates {
            group: g.group.clone(),
            epoch: g.epoch,
            requests_per_second: rate(old.map(|o| o.requests), g.requests, interval_ms),
            failed_per_second: rate(old.map(failed), failed(g), interval_ms),
            parked_now: g.parked_now,
            connections_now: g.connections_now,
            members: g.members.iter().map(|m| member(old, m, interval_ms)).collect(),
        }
    };
    Picture { node: now.node.clone(), interval_ms, groups: now.groups.iter().map(group).collect() }
}

fn member(group: Option<&GroupTraffic>, now: &MemberTraffic, interval_ms: u64) -> MemberRates {
    let old = group.and_then(|group| group.members.iter().find(|old| old.member == now.member));
    let none = Vec::new();
    let samples = difference(old.map_or(&none, |old| &old.first_byte_us), &now.first_byte_us);
    MemberRates {
        member: now.member.clone(),
        requests_per_second: rate(old.map(|o| o.requests), now.requests, interval_ms),
        failed_per_second: rate(old.map(|o| o.failed), now.failed, interval_ms),
        in_flight: now.in_flight,
        p50_us: quantile(&samples, 500),
        p99_us: quantile(&samples, 990),
        sent_bytes_per_second: rate(old.map(|o| o.sent_bytes), now.sent_bytes, interval_ms),
        received_bytes_per_second: rate(old.map(|o| o.received_bytes), now.received_bytes, interval_ms),
        ejected: now.ejected,
    }
}

/// What was not there before counts from 0; a counter that fell belongs to a router that was started again.
fn rate(old: Option<u64>, now: u64, interval_ms: u64) -> f64 {
    let old = old.filter(|old| *old <= now).unwrap_or(0);
    (now - old) as f64 * 1_000.0 / interval_ms as f64
}

/// Samples by upper bound; the open bucket last.
fn difference(old: &[(Option<u64>, u64)], now: &[(Option<u64>, u64)]) -> BTreeMap<u64, u64> {
    let old: BTreeMap<u64, u64> = old.iter().map(|(bound, count)| (bound.unwrap_or(u64::MAX), *count)).collect();
    let new = |(bound, count): &(Option<u64>, u64)| {
        let bound = bound.unwrap_or(u64::MAX);
        (bound, count.saturating_sub(old.get(&bound).copied().unwrap_or(0)))
    };
    now.iter().map(new).filter(|(_, count)| *count > 0).collect()
}

/// The bound under which so many of a thousand samples lie, in microseconds.
fn quantile(samples: &BTreeMap<u64, u64>, per_mille: u64) -> Option<u64> {
    let total: u64 = samples.values().sum();
    let rank = (total * per_mille).div_ceil(1_000).max(1);
    let mut seen = 0;
    samples.iter().find_map(|(bound, count)| {
        seen += count;
        (seen >= rank).then_some(*bound)
    })
}

fn text(picture: &Picture, colour: bool) -> String {
    let mut groups = Table::new(&["GROUP", "EPOCH", "REQ/S", "FAILED/S", "PARKED", "CONNECTIONS"]);
    let mut members = Table::new(&["MEMBER", "REQ/S", "FAILED/S", "IN FLIGHT", "P50", "P99", "SENT/S", "RECEIVED/S", ""]);
    for group in &picture.groups {
        groups.row([
            plain(&group.group),
            plain(group.epoch),
            plain(format!("{:.0}", group.requests_per_second)),
            bad(format!("{:.0}", group.failed_per_second), group.failed_per_second > 0.0),
            bad(group.parked_now.to_string(), group.parked_now > 0),
            plain(group.connections_now),
        ]);
        for member in &group.members {
            members.row([
                plain(&member.member),
                plain(format!("{:.0}", member.requests_per_second)),
                bad(format!("{:.0}", member.failed_per_second), member.failed_per_second > 0.0),
                plain(member.in_flight),
                plain(time(member.p50_us)),
                plain(time(member.p99_us)),
                plain(bytes(member.sent_bytes_per_second)),
                plain(bytes(member.received_bytes_per_second)),
                bad(if member.ejected { "ejected" } else { "" }.to_owned(), member.ejected),
            ]);
        }
    }
    format!("router of node {}\n\n{}\n{}", picture.node, groups.text(colour), members.text(colour))
}

fn bad(text: String, is: bool) -> (String, Tone) {
    (text, if is { Tone::Bad } else { Tone::Plain })
}

fn time(us: Option<u64>) -> String {
    match us {
        None => "-".to_owned(),
        Some(u64::MAX) => "very long".to_owned(),
        Some(us @ 0..1_000) => format!("{us} us"),
        Some(us @ 1_000..1_000_000) => format!("{:.1} ms", us as f64 / 1e3),
        Some(us) => format!("{:.1} s", us as f64 / 1e6),
    }
}

fn bytes(per_second: f64) -> String {
    match per_second {
        small if small < 1024.0 => format!("{small:.0} B"),
        middle if middle < 1024.0 * 1024.0 => format!("{:.1} KiB", middle / 1024.0),
        large => format!("{:.1} MiB", large / 1024.0 / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_what_is_new() {
        assert_eq!(rate(Some(10), 30, 500), 40.0);
        assert_eq!(rate(None, 5, 1_000), 5.0);
        assert_eq!(rate(Some(90), 5, 1_000), 5.0, "the router was started again");
        let samples = difference(&[(Some(16), 5)], &[(Some(16), 5), (Some(20), 98), (None, 2)]);
        assert_eq!((quantile(&samples, 500), quantile(&samples, 990)), (Some(20), Some(u64::MAX)));
        assert_eq!(quantile(&BTreeMap::new(), 500), None);
    }
}
