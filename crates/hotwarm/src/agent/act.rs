//! The decision thread's hands: carries out what the node decided, by handing it to the thread whose work it is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use hotwarm_core::action::{EngineAction, MemberEvent, StopCause};
use hotwarm_core::group::reason::Evidence;
use hotwarm_core::ids::{Epoch, GroupName, Incarnation, MemberId, Mono, NodeId};
use hotwarm_core::node::{Action, Node, RouterEvent};
use hotwarm_core::route::{RouteState, Routes};
use tracing::{error, info, warn};

use super::handle::Shared;
use super::notice::{Notice, Notices};
use super::toll::{self, Tolls};
use super::{erring, spec};
use crate::codes::Code;
use crate::config::{self, Config};
use crate::store::dir::write_atomic;
use crate::store::{Log, disk};
use crate::{clock, engine, router};

/// Between two tries to write down which cluster the data directory belongs to.
const REMEMBER_AGAIN: Duration = Duration::from_secs(10);
/// The picture is published at least so often while nothing happens.
const PUBLISH_EVERY: Duration = Duration::from_millis(200);
/// Between two tries to open a listener that could not be opened.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);
/// A notice that is older when it is told says so in the log, whose lines bear the time of the telling.
const LATE: Duration = Duration::from_secs(1);
/// A probe of the disk that takes longer is told to the node while it is still under way.
const DISK_LATE_MS: u64 = 50;

pub(super) struct Hands {
    pub(super) me: NodeId,
    pub(super) shared: Arc<Shared>,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) engines: BTreeMap<MemberId, engine::Handle>,
    /// Members of lost nodes whose fence is run here.
    pub(super) foreign: BTreeMap<MemberId, engine::foreign::Fencing>,
    /// Members of an earlier configuration that are being ended; `None` until they have been looked for.
    pub(super) strays: Option<BTreeMap<MemberId, engine::stray::Ending>>,
    pub(super) engine_events: engine::Events,
    pub(super) data: PathBuf,
    pub(super) exe: PathBuf,
    pub(super) disk: disk::Handle,
    pub(super) disk_late: bool,
    pub(super) remembered: bool,
    pub(super) listeners: Listeners,
    pub(super) published: (Mono, hotwarm_core::ids::Index),
    pub(super) notices: Notices,
    pub(super) erring: erring::Watch,
}

/// Where this node takes requests.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    /// Groups whose listener is open here.
    open: BTreeSet<GroupName>,
    /// What each group's router was told last, or would have been.
    routes: BTreeMap<GroupName, Routes>,
    /// Groups whose listener is being closed, and that others may wait for.
    owed: BTreeSet<GroupName>,
    tried: Mono,
    tolls: Tolls,
}

impl Hands {
    /// Does all that the node wants done.
    pub(super) fn act(&mut self, node: &mut Node) {
        let mut acted = false;
        loop {
            while let Some(action) = node.poll_action() {
                acted = true;
                self.one(node, action);
            }
            if !self.say_owed(node) {
                break;
            }
        }
        self.publish(node, acted);
    }

    fn publish(&mut self, node: &mut Node, acted: bool) {
        let now = clock::now();
        let due = now.since(self.published.0) >= PUBLISH_EVERY;
        if due || (acted && node.applied() != self.published.1) {
            self.published = (now, node.applied());
            let view = node.view();
            if !view.lease_left.is_zero() {
                self.shared.leased.store(now.0, Ordering::Relaxed);
            }
            let notices = self.notices.look(now, &view);
            self.shared.view.store(Arc::new(view));
            notices.iter().for_each(|notice| self.tell(notice));
        }
        if due {
            self.look_at_answers(now);
            node.set_wall(now, wall_ms());
            self.listen_again(now);
            self.rewrite_idle_logs(node);
            self.remember_cluster(node);
        }
    }

    fn tell(&self, notice: &Notice) {
        match notice {
            Notice::Out { .. } => warn!(code = %Code::LEASE_ENDED, "{notice}"),
            Notice::Leader { ago, .. } if *ago >= LATE => info!("{notice}, for {:.1} s already", ago.as_secs_f64()),
            Notice::Hiccup { .. } | Notice::Held { .. } | Notice::Leader { .. } => info!("{notice}"),
        }
        self.shared.records.note_of(
            notice.ago(),
            self.shared.view.load().log_now,
            None,
            notice.kind(),
            format!("node {}: {notice}", self.me),
        );
    }

    /// It is told and shown, and decides nothing.
    fn look_at_answers(&mut self, now: Mono) {
        let Some((erring, told)) = self.erring.look(now, || self.shared.router.answers()) else { return };
        self.shared.erring.store(Arc::new(erring));
        for line in told {
            let (text, group) = (line.text(&self.me), line.member.group());
            match line.kind() {
                erring::OVER => info!("{text}"),
                _ => warn!(code = %Code::ANSWERS_5XX, "{text}"),
            }
            self.shared.records.note(self.shared.view.load().log_now, Some(group), line.kind(), text);
        }
    }

    /// S14: a log that is idle keeps no segment from being freed.
    fn rewrite_idle_logs(&self, node: &Node) {
        for log in self.shared.wal.pinning() {
            if let Err(refused) = self.shared.wal.rewrite(0, log, node.rewrite(log)) {
                warn!("log {log:?} not rewritten ({refused}): tried again");
            }
        }
    }

    /// S11: the directory remembers which cluster it belongs to, apart from the log.
    fn remember_cluster(&mut self, node: &Node) {
        let Some(identity) = node.identity().filter(|_| !self.remembered) else { return };
        self.remembered = true;
        let path = self.data.join("cluster");
        self.runtime.spawn(remember(path, identity.cluster));
    }

    fn one(&mut self, node: &mut Node, action: Action) {
        match action {
            Action::Send { to, bytes } => {
                // Losing a message is allowed; the transport counts it.
                let _ = self.shared.transport.send(&to, bytes);
            }
            Action::Persist { records, token } => self.persist(records, token),
            Action::Engine { member, action } => self.tell_engine(node, &member, action),
            Action::Probe { member } => {
                if let Some(engine) = self.engines.get(&member) {
                    engine.control.probe_now();
                }
            }
            Action::Routes(routes) => self.set_routes(routes),
            Action::Lease { until } => {
                self.shared.router.lease().set(until);
                self.notices.lease(clock::now(), until);
                if self.strays.is_none() && until > clock::now() {
                    self.end_strays();
                }
            }
            Action::Events { events, wall_ms, fresh } => {
                if fresh {
                    events.iter().for_each(log_event);
                }
                self.shared.records.add(events, wall_ms, fresh);
            }
            Action::Reply { ticket, outcome } => {
                self.shared.tickets.lock().unwrap_or_else(PoisonError::into_inner).answer(ticket, outcome);
            }
            Action::Configured { revision, text } => self.configure(node, revision, &text),
            Action::Alarm { code, text } => error!(code, "{text}"),
            Action::Halt { code, text } => {
                error!(code, "{text}: the node stops");
                std::process::abort();
            }
        }
    }

    fn persist(&self, records: Vec<hotwarm_core::wal::Record>, token: Option<u64>) {
        if let Err(refused) = self.shared.wal.submit(token.unwrap_or(0), records, token.is_some()) {
            // The log is bounded in megabytes of records not yet durable: a disk that far behind is a disk that hangs.
            error!(code = "HW0502", "write-ahead log takes no more records ({refused}): the node stops; check the disk");
            std::process::abort();
        }
    }

    fn tell_engine(&mut self, node: &Node, member: &MemberId, action: EngineAction) {
        let Some(engine) = self.engines.get(member) else {
            if let EngineAction::Fence { epoch } = action {
                self.fence_foreign(node, member, epoch);
            }
            return;
        };
        if engine.actions.try_send(action).is_err() {
            warn!(%member, "engine's queue full: the action is derived again in a moment");
        }
    }

    /// S8: the member's node is lost, and only its hook can tell that it serves no more.
    fn fence_foreign(&mut self, node: &Node, member: &MemberId, epoch: Epoch) {
        if self.foreign.get(member).is_some_and(|fencing| fencing.is_under_way(epoch)) {
            return;
        }
        let config = self.shared.config.load_full();
        let Some(group) = config.groups.get(&member.group()) else { return };
        let Some(spec) = self.spawn_spec(node, &Arc::new(group.clone()), member) else { return };
        let known = node.state().0.groups.get(&member.group()).and_then(|group| group.members.get(member));
        let incarnation = known.map(|known| known.incarnation).unwrap_or_default();
        let _runtime = self.runtime.enter();
        self.foreign.remove(member);
        if let Some(fencing) = engine::foreign::fence(&spec, epoch, incarnation, self.engine_events.clone()) {
            self.foreign.insert(member.clone(), fencing);
        }
    }

    /// S1: under the first lease, so that the configuration is the one in force and not one that is replayed.
    fn end_strays(&mut self) {
        let config = self.shared.config.load_full();
        let mine = |member: &MemberId| member_of(&config, member).is_some_and(|m| m.node == self.me);
        let strays = engine::stray::find(&self.data).into_iter().filter(|member| !mine(member) && !self.engines.contains_key(member));
        let _runtime = self.runtime.enter();
        self.strays = Some(strays.map(|member| (member.clone(), engine::stray::end(&self.data, member))).collect());
    }

    fn set_routes(&mut self, routes: Routes) {
        let name = routes.group.clone();
        // Before they are in force: what they cut counts.
        let toll = self.shared.router.toll(&name);
        if let Some(text) = toll.and_then(|toll| self.listeners.tolls.before(&routes, toll, &self.me)) {
            self.shared.records.note(self.shared.view.load().log_now, Some(name.clone()), toll::KIND, text);
        }
        if !self.listeners.open.contains(&name) {
            self.listeners.owed.insert(name.clone());
        } else if let Err(refused) = self.shared.router.set_routes(&routes) {
            error!(code = "HW0503", "routes not taken: {refused}");
        }
        self.listeners.routes.insert(name, routes);
    }

    /// Where there is no listener nothing is admitted, and whoever waits for this router need not, once the last thread has let go of what
    /// was admitted while there was one (S8). True if anything was said.
    fn say_owed(&mut self, node: &mut Node) -> bool {
        let Self { listeners, shared, .. } = self;
        let closed: Vec<GroupName> = listeners.owed.iter().filter(|name| shared.router.is_closed(name)).cloned().collect();
        for group in &closed {
            listeners.owed.remove(group);
            let Some(routes) = listeners.routes.get(group) else { continue };
            let epoch = match routes.state {
                RouteState::Held => routes.epoch,
                RouteState::Open(_) | RouteState::Draining(_) => Epoch(routes.epoch.0.saturating_sub(1)),
            };
            let now = clock::now();
            node.handle_router(now, RouterEvent::Closed { group: group.clone(), epoch });
            node.handle_router(now, RouterEvent::Drained { group: group.clone(), epoch: routes.epoch });
        }
        !closed.is_empty()
    }

    /// A new configuration is in force: listeners, engines, peers follow it.
    fn configure(&mut self, node: &mut Node, revision: u64, text: &str) {
        let config = match config::parse(text, "the configuration in force", Some(&self.me)) {
            Ok(config) => config,
            Err(errors) => return error!(code = "HW0504", revision, "configuration in force not readable by this program: {errors}"),
        };
        info!(revision, "configuration in force");
        node.set_supervision(spec::supervision(&config));
        let peers = config.cluster.nodes.clone();
        if let Err(refused) = self.shared.transport.set_peers(&peers) {
            error!(code = "HW0505", "addresses of peers not taken: {refused}");
        }
        self.open_listeners(&config);
        self.note_former(&config);
        self.spawn_engines(node, &config);
        self.shared.config.store(Arc::new(config));
    }

    fn open_listeners(&mut self, config: &Config) {
        let listens = |name: &GroupName| config.groups.get(name).is_some_and(|group| group.listen.contains_key(&self.me));
        let gone: Vec<GroupName> = self.listeners.open.iter().filter(|name| !listens(name)).cloned().collect();
        let mut unopened = BTreeMap::clone(&self.shared.unopened.load());
        unopened.retain(|name, _| listens(name));
        self.shared.unopened.store(Arc::new(unopened));
        self.listeners.routes.retain(|name, _| config.groups.contains_key(name));
        for name in gone {
            self.listeners.open.remove(&name);
            self.listeners.tolls.forget(&name);
            self.shared.router.close(&name);
            // Its threads say so themselves; this is for routes that come in between.
            self.listeners.owed.insert(name);
        }
        config.groups.values().for_each(|group| self.open_listener(config, group));
        self.listeners.tried = clock::now();
    }

    fn open_listener(&mut self, config: &Config, group: &config::Group) {
        let Some(listen) = group.listen.get(&self.me) else { return };
        let mut unopened = BTreeMap::clone(&self.shared.unopened.load());
        let zone = config.cluster.zones.get(&self.me).map_or("", String::as_str);
        match self.shared.router.open(group, zone, *listen) {
            Ok(address) => {
                if unopened.remove(&group.name).is_some() {
                    info!(group = %group.name, %address, "listener open");
                    self.shared.unopened.store(Arc::new(unopened));
                }
                if self.listeners.open.insert(group.name.clone()) {
                    self.listeners.owed.remove(&group.name);
                    // The routes in force are not told again by themselves.
                    if let Some(routes) = self.listeners.routes.get(&group.name).cloned() {
                        self.set_routes(routes);
                    }
                }
            }
            Err(refused) => {
                let text = refused.to_string();
                if unopened.insert(group.name.clone(), text.clone()) != Some(text) {
                    error!(code = "HW0506", "{refused}");
                    self.shared.unopened.store(Arc::new(unopened));
                }
            }
        }
    }

    /// A port that was taken may be free by now.
    fn listen_again(&mut self, now: Mono) {
        let unopened = self.shared.unopened.load_full();
        if unopened.is_empty() || now.since(self.listeners.tried) < LISTEN_AGAIN {
            return;
        }
        self.listeners.tried = now;
        let config = self.shared.config.load_full();
        unopened.keys().filter_map(|name| config.groups.get(name)).for_each(|group| self.open_listener(&config, group));
    }

    /// A member that runs goes on as it was started, whatever the new configuration says of its engine: people are to know.
    fn note_former(&self, config: &Config) {
        let before = self.shared.config.load();
        let mut former = self.shared.former.lock().unwrap_or_else(PoisonError::into_inner);
        former.retain(|id, _| self.engines.contains_key(id));
        for (id, engine) in &self.engines {
            let of = |config: &Config| config.groups.get(&id.group()).map(|group| group.engine.clone());
            let (view, old, new) = (engine.view.borrow(), of(&before), of(config));
            if view.running && old.is_some() && new.is_some() && old != new {
                former.insert(id.clone(), view.incarnation);
            }
        }
    }

    fn spawn_engines(&mut self, node: &Node, config: &Config) {
        let before = self.shared.config.load_full();
        for group in config.groups.values() {
            let known = before.groups.get(&group.name);
            let shared = Arc::new(group.clone());
            for id in group.members.iter().filter(|(_, m)| m.node == self.me).map(|(id, _)| id) {
                if known.is_some_and(|known| same_engine(known, group, id)) && self.engines.contains_key(id) {
                    continue;
                }
                let Some(spec) = self.spawn_spec(node, &shared, id) else { continue };
                if let Some(strays) = &mut self.strays {
                    strays.remove(id);
                }
                let events = self.engine_events.clone();
                let _runtime = self.runtime.enter();
                // The old task ends with its handle; the member lives on and is adopted by the new one.
                let engine = match self.engines.remove(id) {
                    Some(before) => engine::spawn_after(spec, events, before),
                    None => engine::spawn(spec, events),
                };
                self.engines.insert(id.clone(), engine);
            }
        }
        self.publish_members();
    }

    fn spawn_spec(&self, node: &Node, group: &Arc<config::Group>, member: &MemberId) -> Option<engine::SpawnSpec> {
        Some(engine::SpawnSpec {
            member: member.clone(),
            group: Arc::clone(group),
            config: group.members.get(member)?.clone(),
            data: self.data.clone(),
            exe: self.exe.clone(),
            lives: engine::Lives { prefix: self.prefix(node), known: known(node, member) },
            failures: self.shared.failures.clone(),
            outputs: self.shared.outputs.clone(),
        })
    }

    /// The upper half of incarnations. Numbers of replicas only grow, so those of a wiped directory are newer than those before it; the
    /// random part keeps apart the members of several clusters on one machine, which may have the same names.
    fn prefix(&self, node: &Node) -> u32 {
        let Some(identity) = node.identity() else { return 0 };
        let grows = u32::try_from(identity.raft_id.0).unwrap_or(u32::MAX).min(0xfff);
        let random = (identity.incarnation ^ identity.cluster) as u32 & 0xf_ffff;
        grows << 20 | random
    }

    fn publish_members(&self) {
        let views = self.engines.iter().map(|(id, engine)| (id.clone(), engine.view.clone())).collect();
        self.shared.members.store(Arc::new(views));
    }

    /// The engine of a member that is configured no more, or on another node, has ended it: it is forgotten.
    pub(super) fn member_event(&mut self, member: &MemberId, event: &MemberEvent) {
        let MemberEvent::Stopped { cause, .. } = event else { return };
        if *cause == StopCause::Deadline {
            let text = format!("{member} was ended here by its guard: this node's lease was not renewed before the deadline");
            warn!("{text}");
            self.shared.records.note(self.shared.view.load().log_now, Some(member.group()), "here-ended", text);
        }
        let known = member_of(&self.shared.config.load(), member).is_some_and(|m| m.node == self.me);
        if !known && self.engines.remove(member).is_some() {
            self.publish_members();
        }
    }

    pub(super) fn router_event(&self, event: router::Event) -> Option<RouterEvent> {
        Some(match event {
            router::Event::Closed { group, epoch } => RouterEvent::Closed { group, epoch },
            router::Event::Drained { group, epoch } => RouterEvent::Drained { group, epoch },
            router::Event::Evidence { member, kind, .. } => {
                if kind != router::Kind::Ok
                    && let Some(engine) = self.engines.get(&member)
                {
                    // One of ours is in doubt: its own probe is to look now.
                    engine.control.probe_now();
                }
                let evidence = match kind {
                    router::Kind::Refused => Some(Evidence::Refused),
                    router::Kind::Reset => Some(Evidence::Reset),
                    router::Kind::Silent => Some(Evidence::Silent),
                    router::Kind::Ok => None,
                    router::Kind::Slow => return None,
                };
                RouterEvent::Evidence { member, evidence }
            }
        })
    }

    /// A disk that hangs says nothing: how long it has hung is looked at here.
    pub(super) fn watch_disk(&mut self, node: &mut Node) {
        let late = self.disk.oldest_ms().max(self.shared.wal.oldest_ms()) >= DISK_LATE_MS;
        if late && !self.disk_late {
            node.handle_disk(clock::now().minus(Duration::from_millis(DISK_LATE_MS)), None);
        } else if !late && self.disk_late {
            node.handle_disk(clock::now(), Some(true));
        }
        self.disk_late = late;
    }

    pub(super) fn stop(self) {
        self.shared.router.stop();
        self.shared.transport.stop();
        self.shared.wal.stop();
    }
}

/// Writes it down once the disk lets us; ends with the agent if it never does.
async fn remember(path: PathBuf, cluster: u128) {
    let text = format!("{cluster:032x}\n");
    loop {
        let (path, text) = (path.clone(), text.clone());
        let written = tokio::task::spawn_blocking(move || write_atomic(&path, text.as_bytes())).await;
        let Ok(Err(error)) = written else { return };
        // A full disk may have room later.
        error!(code = "HW0507", "{error}");
        tokio::time::sleep(REMEMBER_AGAIN).await;
    }
}

/// What the wall clock shows, in milliseconds since 1970.
pub(super) fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}

/// The latest life of a member that the log knows of.
fn known(node: &Node, member: &MemberId) -> Incarnation {
    let (cluster, _) = node.state();
    let known = cluster.groups.get(&member.group()).and_then(|group| group.members.get(member));
    known.map(|member| member.incarnation).unwrap_or_default()
}

fn member_of<'a>(config: &'a Config, member: &MemberId) -> Option<&'a config::Member> {
    config.groups.get(&member.group())?.members.get(member)
}

/// True if nothing changed that the engine of this member uses: then it goes on undisturbed.
fn same_engine(old: &config::Group, new: &config::Group, member: &MemberId) -> bool {
    let uses = |g: &config::Group| (g.engine.clone(), g.check.clone(), g.fence.clone(), g.stateful);
    uses(old) == uses(new) && old.members.get(member) == new.members.get(member)
}

/// One line a decision; the reasons say why.
fn log_event(event: &hotwarm_core::cluster::Event) {
    use hotwarm_core::cluster::What;
    use hotwarm_core::group::Effect;
    let group = event.group.as_ref().map(ToString::to_string).unwrap_or_default();
    match &event.what {
        What::Group(Effect::Because(reason)) if reason.is_refusal() => warn!(group, reason = reason.code(), "{reason}"),
        What::Group(Effect::Because(reason)) => info!(group, reason = reason.code(), "{reason}"),
        What::ConfigureRefused { .. } => warn!("{}", event.what),
        _ => info!(group, "{}", event.what),
    }
}
