//! Reads: each answers from what this node knows, with or without a quorum. None changes anything.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use hotwarm_core::ids::{GroupName, MemberId};
use hotwarm_core::node::View;
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;
use serde::Deserialize;

use super::error::Refused;
use super::extract::at_most;
use super::types::{Configuration, EVENTS_MAX, Events, GroupStatus, LINES_MAX, Logs, NodeStatus, Status, Traffic, Why};
use super::{App, metrics, openapi, picture, stream};
use crate::agent::seen::{self, Place};
use crate::codes::Code;

const EVENTS_DEFAULT: usize = 50;
const LINES_DEFAULT: usize = 100;

pub(super) async fn health(State(app): State<App>) -> Response {
    let health = picture::health(&app.agent, &app.gate);
    let status = if health.reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(health)).into_response()
}

pub(super) async fn prometheus(State(app): State<App>) -> Response {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::page(&app.agent, &app.gate)).into_response()
}

pub(super) async fn described() -> Json<serde_json::Value> {
    Json(openapi::document())
}

pub(super) async fn status(State(app): State<App>) -> Json<Status> {
    Json(picture::status(&app.agent, &app.gate))
}

pub(super) async fn nodes(State(app): State<App>) -> Json<Vec<NodeStatus>> {
    Json(picture::nodes(&app.agent.view()))
}

pub(super) async fn groups(State(app): State<App>) -> Json<Vec<GroupStatus>> {
    Json(picture::groups(&app.agent))
}

pub(super) async fn group(State(app): State<App>, Path(name): Path<String>) -> Result<Json<GroupStatus>, Refused> {
    let view = app.agent.view();
    let group = view.cluster.groups.get(&GroupName::new(&name)).ok_or_else(|| no_group(&view, &name))?;
    Ok(Json(picture::group_status(&app.agent, &view, group)))
}

pub(super) async fn why(State(app): State<App>, Path(name): Path<String>) -> Result<Json<Why>, Refused> {
    let view = app.agent.view();
    let group = view.cluster.groups.get(&GroupName::new(&name)).ok_or_else(|| no_group(&view, &name))?;
    Ok(Json(picture::why(&app.agent, group)))
}

pub(super) fn no_group(view: &View, name: &str) -> Refused {
    let groups = view.cluster.groups.keys().map(GroupName::as_str);
    let shown = if name.is_empty() { "\"\"" } else { name };
    Refused::not_there(format!("group {shown} not known{}", meant(name, groups)))
}

/// `; is it web?`, where a name is nearly another.
pub(super) fn meant<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    // What is much longer is no slip, and to compare it would take as long as somebody likes.
    let length = name.chars().count();
    let alike = known.filter(|known| length * 3 <= known.chars().count().max(3) * 4);
    let near = alike.map(|known| (strsim::damerau_levenshtein(name, known), known)).filter(|(far, known)| far * 3 <= known.len().max(3));
    near.min().map_or_else(String::new, |(_, known)| format!("; is it {known}?"))
}

pub(super) async fn traffic(State(app): State<App>) -> Json<Traffic> {
    Json(picture::traffic(&app.agent))
}

pub(super) async fn config(State(app): State<App>) -> Json<Configuration> {
    let view = app.agent.view();
    Json(Configuration { revision: view.cluster.revision, text: view.cluster.text.clone() })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventsQuery {
    after: Option<u64>,
    limit: Option<usize>,
    group: Option<String>,
    #[serde(default)]
    follow: bool,
}

pub(super) async fn events(State(app): State<App>, query: Result<Query<EventsQuery>, QueryRejection>) -> Result<Response, Refused> {
    let Query(query) = query?;
    let limit = at_most("limit", query.limit, EVENTS_DEFAULT, EVENTS_MAX.into())?;
    let group = query.group.clone();
    let wanted = stream::Wanted::group(query.group);
    let view = app.agent.view();
    // Filtered before it is cut, so that a quiet group's events are found behind a busy one's.
    let (all, newest) = app.agent.records().all_after(query.after.unwrap_or(0));
    let of_group: Vec<_> = all.iter().filter(|record| wanted.takes(record)).collect();
    if let Some(name) = group.filter(|name| of_group.is_empty() && !view.cluster.groups.contains_key(&GroupName::new(name))) {
        return Err(no_group(&view, &name));
    }
    let skipped = if query.after.is_some() { 0 } else { of_group.len().saturating_sub(limit) };
    let events: Vec<_> = of_group.into_iter().skip(skipped).take(limit).map(picture::recorded).collect();
    if query.follow {
        let after = if query.after.is_some() { events.last().map_or(newest, |e| e.number) } else { newest };
        return stream::events(app, events, after, wanted);
    }
    Ok(Json(Events { events, newest }).into_response())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogsQuery {
    lines: Option<usize>,
    #[serde(default)]
    follow: bool,
}

pub(super) async fn logs(
    State(app): State<App>,
    Path((group, name)): Path<(String, String)>,
    query: Result<Query<LogsQuery>, QueryRejection>,
) -> Result<Response, Refused> {
    let Query(query) = query?;
    let member = MemberId::new(format!("{group}/{name}"));
    let place = place(&app, &member)?;
    let lines = at_most("lines", query.lines, LINES_DEFAULT, LINES_MAX.into())?;
    if query.follow {
        return stream::logs(&app, place, lines).await;
    }
    let lines = tokio::task::spawn_blocking(move || seen::tail(&place, lines)).await;
    let lines = lines.unwrap_or_else(|ended| Err(std::io::Error::other(ended))).map_err(|error| unreadable(&member, &error))?;
    Ok(Json(Logs { member: member.to_string(), lines }).into_response())
}

pub(super) fn no_member(view: &View, member: &MemberId) -> Refused {
    let members = view.cluster.groups.values().flat_map(|group| group.members.keys()).map(MemberId::as_str);
    Refused::not_there(format!("member {member} not known{}", meant(member.as_str(), members)))
}

pub(super) fn unreadable(member: &MemberId, error: &std::io::Error) -> Refused {
    Refused::new(StatusCode::INTERNAL_SERVER_ERROR, Code::NOT_PERMITTED, format!("output of {member} not readable: {error}"))
}

/// A member's output is where it runs, and no node asks another's API: it has no token for it.
fn place(app: &App, member: &MemberId) -> Result<Place, Refused> {
    let view = app.agent.view();
    let known = view.cluster.groups.get(&member.group()).is_some_and(|group| group.members.contains_key(member));
    if known && picture::is_external(&app.agent, &member.group()) {
        let text = format!("hotwarm does not run {member} (engine = \"external\") and has no output of it");
        return Err(Refused::not_there(text).hint("ask what runs it, such as `journalctl --unit UNIT` on its machine"));
    }
    if let Some(place) = app.agent.place(member) {
        return Ok(place);
    }
    let spec = view.cluster.groups.get(&member.group()).and_then(|g| g.spec.members.get(member));
    let Some(spec) = spec else { return Err(no_member(&view, member)) };
    let (node, me) = (&spec.node, app.agent.me());
    let text = format!("{member} runs on node {node}, its output is there; this is node {me}");
    let hint = format!(
        "run `hotwarm logs {member}` on node {node}, or ask its API: `--api https://...` where it is open to other machines, else through `ssh -L 7401:127.0.0.1:7401 {node}`"
    );
    Err(Refused::new(StatusCode::MISDIRECTED_REQUEST, Code::OTHER_NODE, text).hint(hint))
}
