//! Writes: each becomes an entry of the control log, from whichever node was asked, and is answered when it is applied.
//!
//! What the log refuses is an error here (409) with the rule that refused.

use std::collections::BTreeMap;
use std::time::SystemTime;

use axum::Json;
use axum::extract::{Path, State};
use hotwarm_core::group::input::Operator;
use hotwarm_core::ids::{GroupName, Incarnation, MemberId, NodeId};
use hotwarm_core::node::Command;
use hyper::StatusCode;

use super::error::Refused;
use super::extract::{Body, Nothing};
use super::types::{Applied, Apply, Done, Reloaded, Restart, Resume, Switchover};
use super::{App, picture, read};
use crate::codes::Code;
use crate::config::Engine;

type Answer = Result<Json<Done>, Refused>;

async fn command(app: &App, command: Command) -> Answer {
    let events = app.agent.command(command).await?;
    if let Some(refused) = Refused::among(&events) {
        return Err(refused);
    }
    let now = SystemTime::now();
    Ok(Json(Done { events: events.iter().map(|event| picture::event(event, now)).collect() }))
}

async fn operator(app: &App, group: &str, operator: Operator) -> Answer {
    command(app, Command::Group { group: GroupName::new(group), operator }).await
}

pub(super) async fn switchover(State(app): State<App>, Path(group): Path<String>, Body(asked): Body<Switchover>) -> Answer {
    let to = asked.to.map(|to| if to.contains('/') { MemberId::new(to) } else { MemberId::new(format!("{group}/{to}")) });
    operator(&app, &group, Operator::Switchover { to }).await
}

pub(super) async fn pause(State(app): State<App>, Path(group): Path<String>, Body(Nothing {}): Body<Nothing>) -> Answer {
    operator(&app, &group, Operator::Pause).await
}

pub(super) async fn resume(State(app): State<App>, Path(group): Path<String>, Body(asked): Body<Resume>) -> Answer {
    operator(&app, &group, Operator::Resume { force: asked.force }).await
}

pub(super) async fn drain_member(State(app): State<App>, Path(member): Path<(String, String)>, Body(Nothing {}): Body<Nothing>) -> Answer {
    let (group, member) = known(&app, &member)?;
    operator(&app, &group, Operator::Drain { member }).await
}

pub(super) async fn undrain_member(
    State(app): State<App>,
    Path(member): Path<(String, String)>,
    Body(Nothing {}): Body<Nothing>,
) -> Answer {
    let (group, member) = known(&app, &member)?;
    operator(&app, &group, Operator::Undrain { member }).await
}

pub(super) async fn restart_group(State(app): State<App>, Path(group): Path<String>, Body(asked): Body<Restart>) -> Answer {
    if asked.cancel {
        return operator(&app, &group, Operator::EndRestart).await;
    }
    let mut lives = lives(&app, &group, |_| true)?;
    if let Some(named) = asked.incarnations {
        // What is no member is not named in the log.
        lives.retain(|id, _| named.contains_key(id.as_str()));
        lives.iter_mut().for_each(|(id, life)| *life = Incarnation(named[id.as_str()]));
    }
    restart(&app, &group, lives).await
}

pub(super) async fn restart_member(
    State(app): State<App>,
    Path(member): Path<(String, String)>,
    Body(Nothing {}): Body<Nothing>,
) -> Answer {
    let (group, member) = known(&app, &member)?;
    let lives = lives(&app, &group, |id| *id == member)?;
    restart(&app, &group, lives).await
}

async fn restart(app: &App, group: &str, lives: BTreeMap<MemberId, Incarnation>) -> Answer {
    let config = app.agent.config();
    if let Some(why) = config.groups.get(&GroupName::new(group)).and_then(|group| not_ours(&group.engine)) {
        return Err(Refused::restart(format!("restart refused: {why}")));
    }
    operator(app, group, Operator::Restart { lives }).await
}

/// The present lives of the members that are `wanted`, as this node knows them.
fn lives(app: &App, group: &str, wanted: impl Fn(&MemberId) -> bool) -> Result<BTreeMap<MemberId, Incarnation>, Refused> {
    let view = app.agent.view();
    let of = view.cluster.groups.get(&GroupName::new(group)).ok_or_else(|| read::no_group(&view, group))?;
    Ok(of.members.iter().filter(|(id, _)| wanted(id)).map(|(id, m)| (id.clone(), m.incarnation)).collect())
}

/// Why members with this engine are not hotwarm's to restart.
fn not_ours(engine: &Engine) -> Option<String> {
    match engine {
        Engine::Process(_) => None,
        Engine::External => {
            Some("the engine is `external`: something else runs these members; restart each there, after `hotwarm drain MEMBER`".to_owned())
        }
        Engine::Command(hooks) => {
            let missing = [("stop", &hooks.stop), ("start", &hooks.start)].into_iter().find(|(_, hook)| hook.is_none());
            missing.map(|(name, _)| format!("the engine has no `{name}` hook: hotwarm cannot {name} these members; give it one"))
        }
    }
}

/// The group would ignore a member that it does not have; the caller must hear of it.
fn known(app: &App, (group, name): &(String, String)) -> Result<(String, MemberId), Refused> {
    let (view, member) = (app.agent.view(), MemberId::new(format!("{group}/{name}")));
    let of = view.cluster.groups.get(&GroupName::new(group)).ok_or_else(|| read::no_group(&view, group))?;
    match of.members.contains_key(&member) {
        true => Ok((group.clone(), member)),
        false => Err(read::no_member(&view, &member)),
    }
}

pub(super) async fn drain_node(State(app): State<App>, Path(node): Path<String>, Body(Nothing {}): Body<Nothing>) -> Answer {
    command(&app, Command::Drain { node: NodeId::new(node) }).await
}

pub(super) async fn undrain_node(State(app): State<App>, Path(node): Path<String>, Body(Nothing {}): Body<Nothing>) -> Answer {
    command(&app, Command::Undrain { node: NodeId::new(node) }).await
}

pub(super) async fn configure(State(app): State<App>, Body(asked): Body<Apply>) -> Result<Json<Applied>, Refused> {
    let planned = app.agent.configure(&asked.text, asked.revision, asked.dry_run).await?;
    Ok(Json(Applied { revision: planned.revision, dry_run: asked.dry_run, changes: planned.changes, warnings: planned.warnings }))
}

pub(super) async fn reload_certificates(State(app): State<App>, Body(Nothing {}): Body<Nothing>) -> Result<Json<Reloaded>, Refused> {
    let agent = app.agent.clone();
    let reloaded = tokio::task::spawn_blocking(move || agent.reload_certificates()).await;
    let failed = |error| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, Code::API_DEFECT, format!("not reloaded: {error}"));
    let identity = reloaded.map_err(failed)??;
    Ok(Json(Reloaded { certificate: picture::certificate(&identity) }))
}

#[cfg(test)]
mod tests {
    use super::not_ours;
    use crate::config;

    #[test]
    fn only_what_hotwarm_can_stop_and_start_is_restarted() {
        let why = |engine: &str| {
            let text = format!(
                "[cluster]\nname = \"x\"\nnodes = {{ a = \"127.0.0.1:7400\" }}\n[group.web]\nmode = \"hot-hot\"\nprotocol = \"http\"\n\
                 check = {{ tcp = true }}\nmembers = {{ a = \"127.0.0.1:9000\" }}\nengine = {engine}\n"
            );
            let config = config::parse(&text, "test", None).expect("a configuration");
            config.groups.values().next().and_then(|group| not_ours(&group.engine)).unwrap_or_default()
        };
        assert!(why("\"external\"").contains("something else runs these members"));
        assert!(why("{ command = { start = [\"/bin/start\"] } }").contains("no `stop` hook"));
        assert!(why("{ command = { stop = [\"/bin/stop\"] } }").contains("no `start` hook"));
        assert_eq!(why("{ command = { start = [\"/bin/start\"], stop = [\"/bin/stop\"] } }"), "");
        assert_eq!(why("{ process = [\"/bin/web\"] }"), "");
    }
}
