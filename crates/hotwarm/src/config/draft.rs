//! Between the values as read and the validated model: what is known so far, with places, holes where something was wrong.
//!
//! Main path: [`draft`] resolves names and shapes, `rules` judges the result, and [`Draft::finish`] makes the [`Config`]. It reports only what
//! keeps a value from being understood; whether it is wise is for `rules`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hotwarm_core::ids::{GroupName, MemberId, NodeId};

use super::diagnostic::{Findings, Span};
use super::mark::Mark;
use super::model::{
    Balance, Check, CheckKind, Cluster, Config, Engine, Fence, Group, Hooks, HttpLimits, Limits, Member, Mode, Node, Objective, Park,
    Process, Protocol, Restart, RoleChange, Timeouts,
};
use super::read::{Entry, Table, Value, nearest};
use super::units;
use crate::codes::Code;

/// Something with the place where the file says it.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

#[derive(Debug)]
pub(super) struct Draft<'t> {
    name: Option<String>,
    pub(super) nodes_span: Span,
    pub(super) nodes: BTreeMap<NodeId, DraftNode>,
    pub(super) witness: BTreeMap<NodeId, Span>,
    pub(super) edge: BTreeMap<NodeId, Span>,
    zones: BTreeMap<NodeId, String>,
    pub(super) lease: At<Duration>,
    pub(super) heartbeat: At<Duration>,
    node: &'t Table,
    /// The API of each node, as `[node]` and `[node.NAME]` say.
    pub(super) apis: BTreeMap<NodeId, At<SocketAddr>>,
    pub(super) api: Option<At<SocketAddr>>,
    /// The file with the token of each node's API, where it has one.
    pub(super) tokens: BTreeMap<NodeId, At<PathBuf>>,
    /// Every data directory that the file names, with the node it is for; without one, that of the nodes that have none of their own.
    pub(super) data: Vec<(Option<NodeId>, At<PathBuf>)>,
    pub(super) groups: Vec<DraftGroup<'t>>,
}

#[derive(Debug)]
pub(super) struct DraftNode {
    /// `None` where it could not be read.
    pub(super) address: Option<SocketAddr>,
    pub(super) span: Span,
    pub(super) name_span: Span,
}

#[derive(Debug)]
pub(super) struct DraftGroup<'t> {
    pub(super) name: GroupName,
    pub(super) span: Span,
    pub(super) table: &'t Table,
    pub(super) mode: Option<Mode>,
    pub(super) listen: BTreeMap<NodeId, At<SocketAddr>>,
    pub(super) protocol: Option<Protocol>,
    pub(super) engine: Option<Engine>,
    /// How many the file names, readable or not.
    pub(super) member_count: usize,
    pub(super) members: BTreeMap<MemberId, At<Member>>,
    pub(super) fence: Option<Fence>,
}

/// Resolves what was read. `None` where even the cluster's table is missing.
pub(super) fn draft<'t>(file: &'t Table, findings: &mut Findings) -> Option<Draft<'t>> {
    let cluster = file.table("cluster")?;
    let nodes: BTreeMap<NodeId, DraftNode> = cluster
        .entries("nodes")
        .unwrap_or_default()
        .iter()
        .map(|entry| {
            let address = entry.value.as_ref().and_then(Value::address).copied();
            let node = DraftNode { address, span: entry.span.clone(), name_span: entry.name_span.clone() };
            (NodeId::new(&entry.name), node)
        })
        .collect();
    let node = file.table("node")?;
    let mut draft = Draft {
        name: cluster.text("name").map(str::to_owned),
        nodes_span: cluster.field("nodes").span.clone(),
        witness: BTreeMap::new(),
        edge: BTreeMap::new(),
        zones: BTreeMap::new(),
        lease: duration_at(cluster, "lease"),
        heartbeat: duration_at(cluster, "heartbeat"),
        node,
        apis: BTreeMap::new(),
        api: node.address("api").map(|api| At { value: *api, span: node.field("api").span.clone() }),
        tokens: BTreeMap::new(),
        data: data_at(None, node).into_iter().collect(),
        groups: Vec::new(),
        nodes,
    };
    draft.node_lists(cluster, findings);
    draft.node_apis(findings);
    for entry in file.entries("group").unwrap_or_default() {
        if let Some(table) = entry.value.as_ref().and_then(Value::table) {
            let group = draft.group(entry, table, findings);
            draft.groups.push(group);
        }
    }
    Some(draft)
}

impl<'t> Draft<'t> {
    /// Names of nodes that vote.
    pub(super) fn voters(&self) -> BTreeSet<NodeId> {
        self.nodes.keys().filter(|node| !self.edge.contains_key(*node)).cloned().collect()
    }

    fn node_lists(&mut self, cluster: &Table, findings: &mut Findings) {
        for entry in cluster.entries("witness").unwrap_or_default() {
            if let Some(node) = self.known_node(entry, findings) {
                self.witness.insert(node, entry.name_span.clone());
            }
        }
        for entry in cluster.entries("edge").unwrap_or_default() {
            if let Some(node) = self.known_node(entry, findings) {
                self.edge.insert(node, entry.name_span.clone());
            }
        }
        for entry in cluster.entries("zones").unwrap_or_default() {
            let zone = entry.value.as_ref().and_then(Value::text).map(str::to_owned);
            if let (Some(node), Some(zone)) = (self.known_node(entry, findings), zone) {
                self.zones.insert(node, zone);
            }
        }
    }

    fn node_apis(&mut self, findings: &mut Findings) {
        for node in self.nodes.keys() {
            self.apis.extend(self.api.clone().map(|api| (node.clone(), api)));
            self.tokens.extend(path_at(self.node, "api_token").map(|token| (node.clone(), token)));
        }
        for entry in &self.node.rest {
            let node = self.known_node(entry, findings);
            let table = entry.value.as_ref().and_then(Value::table);
            if let (Some(node), Some(table)) = (&node, table) {
                self.data.extend(data_at(Some(node), table));
                self.tokens.extend(path_at(table, "api_token").map(|token| (node.clone(), token)));
            }
            if let (Some(node), Some(table)) = (node, table)
                && let Some(api) = table.address("api")
            {
                self.apis.insert(node, At { value: *api, span: table.field("api").span.clone() });
            }
        }
    }

    fn known_node(&self, entry: &Entry, findings: &mut Findings) -> Option<NodeId> {
        // A list's item that is no name left a hole and was reported.
        entry.value.as_ref()?;
        self.node_named(&entry.name, &entry.name_span, findings)
    }

    fn node_named(&self, name: &str, span: &Span, findings: &mut Findings) -> Option<NodeId> {
        let node = NodeId::new(name);
        if self.nodes.contains_key(&node) {
            return Some(node);
        }
        let names: Vec<&str> = self.nodes.keys().map(NodeId::as_str).collect();
        let finding = findings
            .error(Code::UNKNOWN_NODE, span, format!("the cluster has no node `{name}`"))
            .expected(format!("one of {}", names.join(", ")));
        match nearest(name, names) {
            Some(near) => finding.hint(format!("did you mean `{near}`?")),
            None => finding.hint("add it to nodes in [cluster], or correct the name"),
        };
        None
    }

    fn group(&self, entry: &Entry, table: &'t Table, findings: &mut Findings) -> DraftGroup<'t> {
        let name = GroupName::new(&entry.name);
        let members = table.entries("members").unwrap_or_default();
        DraftGroup {
            span: entry.name_span.clone(),
            mode: mode(table, members.len()),
            listen: self.listen(table, findings),
            protocol: table.text("protocol").map(|text| if text == "http" { Protocol::Http } else { Protocol::Tcp }),
            engine: engine(table, findings),
            member_count: members.len(),
            members: members.iter().filter_map(|entry| self.member(&name, entry, findings)).collect(),
            fence: fence(table),
            name,
            table,
        }
    }

    fn listen(&self, table: &Table, findings: &mut Findings) -> BTreeMap<NodeId, At<SocketAddr>> {
        if let Some(address) = table.address("listen") {
            let at = At { value: *address, span: table.field("listen").span.clone() };
            return self.nodes.keys().filter(|node| !self.witness.contains_key(*node)).map(|node| (node.clone(), at.clone())).collect();
        }
        let mut listen = BTreeMap::new();
        for entry in table.entries("listen").unwrap_or_default() {
            let Some(node) = self.known_node(entry, findings) else { continue };
            if self.witness.contains_key(&node) {
                findings
                    .error(Code::WITNESS_HOSTS, &entry.name_span, format!("`{node}` is a witness and opens no group's listener"))
                    .expected("a node that is no witness");
            } else if let Some(address) = entry.value.as_ref().and_then(Value::address) {
                listen.insert(node, At { value: *address, span: entry.span.clone() });
            }
        }
        listen
    }

    fn member(&self, group: &GroupName, entry: &Entry, findings: &mut Findings) -> Option<(MemberId, At<Member>)> {
        let value = entry.value.as_ref()?;
        let table = value.table();
        let (node, node_span) = match table.filter(|table| table.given("node")) {
            Some(table) => (table.text("node")?, table.field("node").span.clone()),
            None => (entry.name.as_str(), entry.name_span.clone()),
        };
        let node = self.node_named(node, &node_span, findings)?;
        if self.witness.contains_key(&node) {
            findings
                .error(Code::WITNESS_HOSTS, &node_span, format!("`{node}` is a witness and hosts no member"))
                .expected("a node that is no witness")
                .hint("take it out of witness in [cluster], or move the member");
        }
        let (address, span) = match table {
            Some(table) => (*table.address("address")?, table.field("address").span.clone()),
            None => (*value.address()?, entry.span.clone()),
        };
        let whole = |key, default| table.and_then(|table| table.whole(key)).copied().unwrap_or(default);
        let member = Member {
            node,
            address,
            priority: i32::try_from(whole("priority", 0)).ok()?,
            weight: u32::try_from(whole("weight", 100)).ok()?,
        };
        Some((MemberId::of(group, &entry.name), At { value: member, span }))
    }

    /// The validated configuration for `node`. `None` only where an error was reported.
    pub(super) fn finish(self, node: Option<&NodeId>, text: &str) -> Option<Config> {
        let name = node.cloned().or_else(|| self.node.text("name").map(NodeId::from));
        let over = self.node.rest.iter().find(|entry| Some(entry.name.as_str()) == name.as_ref().map(NodeId::as_str));
        let over = over.and_then(|entry| entry.value.as_ref()).and_then(Value::table);
        let data = over.and_then(|table| table.text("data")).or_else(|| self.node.text("data"))?;
        let api = over.and_then(|table| table.address("api")).or_else(|| self.node.address("api"))?;
        let api_token = over.and_then(|table| table.text("api_token")).or_else(|| self.node.text("api_token")).map(PathBuf::from);
        let node = Node { name, data: PathBuf::from(data), api: *api, api_token };
        let groups = self.groups.into_iter().map(|group| Some((group.name.clone(), group.finish()?))).collect::<Option<_>>()?;
        let cluster = Cluster {
            name: self.name?,
            nodes: self.nodes.into_iter().map(|(name, node)| Some((name, node.address?))).collect::<Option<_>>()?,
            witness: self.witness.into_keys().collect(),
            edge: self.edge.into_keys().collect(),
            zones: self.zones,
            lease: self.lease.value,
            heartbeat: self.heartbeat.value,
        };
        Some(Config { cluster, node, groups, text: text.to_owned() })
    }

    /// Which node the file itself says it is for.
    /// The data directory of a node.
    pub(super) fn data_of(&self, node: &NodeId) -> &Path {
        let of = |who: Option<&NodeId>| self.data.iter().find(|(named, _)| named.as_ref() == who);
        let at = of(Some(node)).or_else(|| of(None)).expect("`data` of [node] has a default");
        &at.1.value
    }

    pub(super) fn own_name(&self) -> Option<At<NodeId>> {
        self.node.text("name").map(|name| At { value: NodeId::new(name), span: self.node.field("name").span.clone() })
    }
}

impl DraftGroup<'_> {
    pub(super) fn exclusive(&self) -> bool {
        self.mode.is_some_and(|mode| mode.exclusive)
    }

    /// True unless the file says otherwise of a group with one hot member at a time.
    pub(super) fn stateful(&self) -> bool {
        self.table.flag("stateful").copied().unwrap_or(self.exclusive())
    }

    pub(super) fn objective(&self) -> Objective {
        let table = self.table.table("objective");
        let duration = |key| table.and_then(|table| table.duration(key)).copied();
        Objective {
            rto: duration("rto"),
            rpo: duration("rpo"),
            false_failovers: table.and_then(|table| table.rate("false_failovers")).copied(),
        }
    }

    fn finish(self) -> Option<Group> {
        let (table, stateful, objective) = (self.table, self.stateful(), self.objective());
        let fence = match (&self.fence, &self.engine) {
            (Some(fence), _) => fence.clone(),
            (None, Some(Engine::Command(Hooks { fence: Some(argv), .. }))) => Fence::Command(argv.clone()),
            _ => Fence::Supervisor,
        };
        let (park, http, timeouts) = (table.table("park")?, table.table("http")?, table.table("timeouts")?);
        Some(Group {
            mode: self.mode?,
            listen: self.listen.into_iter().map(|(node, at)| (node, at.value)).collect(),
            protocol: self.protocol?,
            engine: self.engine?,
            members: self.members.into_iter().map(|(member, at)| (member, at.value)).collect(),
            check: check(table.table("check")?)?,
            balance: balance(table)?,
            park: Park { time: *park.duration("time")?, requests: count(park, "requests")?, bytes: *park.size("bytes")? },
            http: HttpLimits {
                head_bytes: usize::try_from(*http.size("head")?).ok()?,
                headers: count(http, "headers")?,
                connections: count(http, "connections")?,
            },
            repeat: http.entries("repeat")?.iter().filter_map(|entry| Mark::read(entry.value.as_ref()?.text()?).ok()).collect(),
            timeouts: Timeouts {
                connect: *timeouts.duration("connect")?,
                first_byte: *timeouts.duration("first_byte")?,
                idle: *timeouts.duration("idle")?,
            },
            drain: *table.duration("drain")?,
            failovers_per_hour: count(table, "failovers_per_hour")?,
            name: self.name,
            fence,
            objective,
            stateful,
        })
    }
}

/// A whole number of the schema, whose range fits the model's type.
fn count<T: TryFrom<i64>>(table: &Table, key: &str) -> Option<T> {
    T::try_from(*table.whole(key)?).ok()
}

fn data_at(node: Option<&NodeId>, table: &Table) -> Option<(Option<NodeId>, At<PathBuf>)> {
    Some((node.cloned(), path_at(table, "data")?))
}

fn path_at(table: &Table, key: &str) -> Option<At<PathBuf>> {
    Some(At { value: PathBuf::from(table.text(key)?), span: table.field(key).span.clone() })
}

fn duration_at(table: &Table, key: &str) -> At<Duration> {
    let value = *table.duration(key).expect("a key with a default always has a value");
    At { value, span: table.field(key).span.clone() }
}

fn argv(table: &Table, key: &str) -> Option<Vec<String>> {
    table.argv(key).map(<[String]>::to_vec)
}

fn mode(table: &Table, members: usize) -> Option<Mode> {
    let members = u16::try_from(members).unwrap_or(u16::MAX);
    let rest = members.saturating_sub(1);
    if let Some(counts) = table.table("mode") {
        let (hot, warm, spare) = (count(counts, "hot")?, count(counts, "warm")?, count(counts, "spare")?);
        return Some(Mode { hot, warm, spare, exclusive: hot <= 1 && members > 1 });
    }
    Some(match table.text("mode")? {
        "hot-hot" => Mode { hot: members, warm: 0, spare: 0, exclusive: false },
        "hot-warm" => Mode { hot: 1, warm: rest, spare: 0, exclusive: true },
        _ => Mode { hot: 1, warm: 0, spare: rest, exclusive: true },
    })
}

fn fence(table: &Table) -> Option<Fence> {
    match table.table("fence") {
        Some(fence) => argv(fence, "command").map(Fence::Command),
        None => table.text("fence").map(|_| Fence::RouterOnly),
    }
}

fn engine(table: &Table, findings: &mut Findings) -> Option<Engine> {
    let Some(engine) = table.table("engine") else {
        return table.text("engine").map(|_| Engine::External);
    };
    if let Some(hooks) = engine.table("command") {
        only_for_process(engine, findings);
        return Some(Engine::Command(Hooks {
            start: argv(hooks, "start"),
            stop: argv(hooks, "stop"),
            promote: argv(hooks, "promote"),
            demote: argv(hooks, "demote"),
            fence: argv(hooks, "fence"),
            position: argv(hooks, "position"),
            user: hooks.text("user").map(str::to_owned),
            timeout: *hooks.duration("timeout")?,
        }));
    }
    let (limits, restart) = (engine.table("limits")?, engine.table("restart")?);
    if restart.duration("delay") > restart.duration("delay_max") {
        let span = restart.field(if restart.given("delay") { "delay" } else { "delay_max" }).span.clone();
        findings.error(Code::BAD_VALUE, &span, "delay is longer than delay_max").expected("delay of at most delay_max");
    }
    Some(Engine::Process(Process {
        argv: argv(engine, "process")?,
        user: engine.text("user").map(str::to_owned),
        directory: engine.text("directory").map(PathBuf::from),
        env: env(engine, findings),
        on_role_change: role_change(engine, findings)?,
        grace: *engine.duration("grace")?,
        start_timeout: *engine.duration("start_timeout")?,
        limits: Limits {
            open_files: count(limits, "open_files"),
            memory_bytes: limits.size("memory").copied(),
            processes: count(limits, "processes"),
        },
        restart: Restart { delay: *restart.duration("delay")?, delay_max: *restart.duration("delay_max")? },
    }))
}

/// What only a supervised program has is no silent decoration of hooks.
fn only_for_process(engine: &Table, findings: &mut Findings) {
    for key in ["user", "directory", "env", "on_role_change", "grace", "start_timeout", "limits", "restart"] {
        if engine.given(key) && !engine.given("process") {
            let span = engine.field(key).span.clone();
            let finding = findings.error(Code::CHOOSE_ONE, &span, format!("`{key}` belongs to `process`, not to `command`"));
            if key == "user" {
                finding.hint("write it inside command = { ... }");
            }
        }
    }
}

fn env(engine: &Table, findings: &mut Findings) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for entry in engine.entries("env").unwrap_or_default() {
        if entry.name.starts_with("HOTWARM_") || entry.name.is_empty() || entry.name.contains(['=', '\0']) {
            findings
                .error(Code::BAD_NAME, &entry.name_span, format!("`{}` cannot be set in a member's environment", entry.name))
                .expected("a name without =, not beginning with HOTWARM_");
        } else if let Some(value) = entry.value.as_ref().and_then(Value::text) {
            env.insert(entry.name.clone(), value.to_owned());
        }
    }
    env
}

fn role_change(engine: &Table, findings: &mut Findings) -> Option<RoleChange> {
    let Some(table) = engine.table("on_role_change") else { return Some(RoleChange::Gate) };
    if let Some(name) = table.text("signal") {
        return units::signal(name).map(RoleChange::Signal);
    }
    if let Some(path) = table.text("http") {
        return Some(RoleChange::Http(path.to_owned()));
    }
    if let Some(argv) = argv(table, "command") {
        return Some(RoleChange::Command(argv));
    }
    affirmed(table, "restart", findings).map(|()| RoleChange::Restart)
}

/// A key whose only sensible value is `true`.
fn affirmed(table: &Table, key: &str, findings: &mut Findings) -> Option<()> {
    if *table.flag(key)? {
        return Some(());
    }
    let span = table.field(key).span.clone();
    findings.error(Code::BAD_VALUE, &span, format!("`{key} = false` says nothing")).expected("true").hint("leave the key out");
    None
}

/// What is wrong with `check` as a whole is found by `rules`, which asks for it first.
pub(super) fn check(table: &Table) -> Option<Check> {
    let kind = if let Some(path) = table.text("http") {
        let status = table.entries("status").map(|all| all.iter().filter_map(status).collect());
        let body = table.text("body").map(str::to_owned);
        CheckKind::Http { path: path.to_owned(), status: status.unwrap_or_else(|| (200..400).collect()), body }
    } else {
        argv(table, "command").map_or(CheckKind::Tcp, CheckKind::Command)
    };
    Some(Check {
        kind,
        every: *table.duration("every")?,
        timeout: *table.duration("timeout")?,
        fall: count(table, "fall")?,
        rise: count(table, "rise")?,
    })
}

fn status(entry: &Entry) -> Option<u16> {
    u16::try_from(*entry.value.as_ref()?.whole()?).ok()
}

fn balance(table: &Table) -> Option<Balance> {
    if let Some(hash) = table.table("balance") {
        let key = hash.text("hash")?;
        return Some(key.strip_prefix("header:").map_or(Balance::HashClientIp, |name| Balance::HashHeader(name.to_ascii_lowercase())));
    }
    Some(if table.text("balance")? == "round-robin" { Balance::RoundRobin } else { Balance::LeastLoaded })
}
