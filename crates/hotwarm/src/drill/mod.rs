//! Faults on purpose, measured from a client's side: what `hotwarm drill` does to a running cluster, and what the demo is made of.
//!
//! It acts from outside, as an operator would: signals, packet filters, the API. It must undo what it did and never act on what it was
//! not given. The main path: [`run`] puts load on, does the fault ([`hold`]), waits until the cluster is whole again, and tells what clients saw.

pub mod fault;
pub mod hold;
pub mod load;
mod question;
mod report;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hotwarm_core::ids::{MemberId, NodeId};
use rustix::process::Signal;

pub use fault::Fault;
pub use hold::{Grip, Lasting};
pub use load::{Load, Seen};
pub use question::Question;
pub use report::{GroupReport, Moment, Report};

use hold::Begun;
use load::KEPT_MAX;
use report::Measured;

use crate::api::client::{Client, ClientError};
use crate::api::types::{Events, GroupStatus, MemberStatus, Status, Traffic};

/// Load before the fault, so that what follows is seen against something.
const BEFORE: Duration = Duration::from_millis(1500);
/// Load after everything is whole again.
const AFTER: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// A signal is carried out within milliseconds.
const EFFECT_WITHIN: Duration = Duration::from_secs(5);

/// The nodes' APIs, by name, as far as this machine reaches them.
pub type Apis = BTreeMap<NodeId, Client>;

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    pub fault: Fault,
    /// A member (`web/a`) for `Kill` and `Freeze`, a node for the others.
    pub target: String,
    /// Requests a second, for each group.
    pub rate: u32,
    /// How long a freeze or cut lasts, unless the cluster ends it by starting the member anew.
    pub lasting: Duration,
    /// How long the cluster may take to be whole again.
    pub patience: Duration,
    /// What clients may see at worst: the longest time without an answer, where the group states none of its own.
    pub objective: Duration,
    /// The groups that state one.
    pub objectives: BTreeMap<String, Duration>,
    /// What each group is asked.
    pub questions: BTreeMap<String, Question>,
}

/// Why a drill was not done, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    #[error(transparent)]
    Api(#[from] ClientError),
    #[error("{0} is neither a member nor a node of this cluster")]
    UnknownTarget(String),
    /// `others`: the faults that it could be the target of.
    #[error("`{fault}` takes {takes}, and {target} is {is}")]
    WrongTarget { fault: &'static str, takes: &'static str, target: String, is: &'static str, others: String },
    #[error("{0}")]
    Unready(String),
    #[error("{target} does not run on a machine that this drill reaches ({why}): run it on the machine of node {node}")]
    Elsewhere { target: String, node: String, why: String },
    #[error("{rate} requests a second for up to {} s are more than the {max} whose results a drill keeps", .time.as_secs(), max = KEPT_MAX)]
    TooMany { rate: u32, time: Duration },
    #[error("no effect of the fault was seen ({0}): nothing was tested")]
    NoEffect(String),
    #[error("this process could not open a connection ({0}): what it counts since then says nothing of the group")]
    OwnLimit(String),
    #[error("{doing} failed: {source}")]
    Fault { doing: String, source: std::io::Error },
    #[error("not whole again within {} s: {what}", .after.as_secs())]
    NotWhole { after: Duration, what: String },
}

/// How the world outside takes part: a demo starts a killed node again, a drill on machines of others cannot.
pub trait Hands {
    /// Tells a person what is being done.
    fn progress(&mut self, text: &str);
    /// Starts a node again that was killed; false if this is for a person to do.
    fn revive(&mut self, node: &NodeId) -> bool;
}

/// Whether the drill can be done here; nothing is done.
///
/// # Errors
/// See [`DrillError`].
pub fn check(apis: &Apis, plan: &Plan) -> Result<(), DrillError> {
    fits(plan.rate, BEFORE + plan.patience + AFTER)?;
    let target = Target::find(&any_status(apis, None)?, plan)?;
    pid_of(apis, plan, &target).map(drop)
}

/// What came after the last that is kept would be told as if it had been answered.
fn fits(rate: u32, time: Duration) -> Result<(), DrillError> {
    let most = u128::from(rate) * time.as_millis() / 1_000;
    if most > KEPT_MAX as u128 { Err(DrillError::TooMany { rate, time }) } else { Ok(()) }
}

/// Does the drill. Nothing of it stays: what was stopped runs on, what was cut is whole; so too where `grip` is ended from another thread.
///
/// # Errors
/// See [`DrillError`]; the fault is undone in any case.
pub fn run(apis: &Apis, plan: &Plan, grip: &Grip, hands: &mut dyn Hands) -> Result<Report, DrillError> {
    let done = play(apis, plan, grip, hands);
    // Whatever failed meanwhile.
    let undone = grip.let_go().map_err(|source| DrillError::Fault { doing: "undoing the fault".into(), source });
    let report = done?;
    undone.map(|()| report)
}

fn play(apis: &Apis, plan: &Plan, grip: &Grip, hands: &mut dyn Hands) -> Result<Report, DrillError> {
    let status = any_status(apis, None)?;
    let target = Target::find(&status, plan)?;
    let observer = observer(apis, &target.node)?;
    let groups = groups_of(&status, plan, &target);
    if groups.is_empty() {
        return Err(DrillError::Unready("no group that it touches has a listener to ask: it would show nothing".into()));
    }
    load::raise_open_files();
    let mut loads = Vec::new();
    for group in &groups {
        let addresses = addresses(group, plan, &target.node);
        let question = plan.questions.get(&group.name).cloned().unwrap_or_else(|| Question::page("/", &[]));
        let load = Load::asking(question, addresses, plan.rate)
            .map_err(|source| DrillError::Fault { doing: "starting the load".into(), source })?;
        loads.push(load);
    }
    let begun = Instant::now();
    hands.progress(&format!("load: {} requests a second on {}", plan.rate, names(&groups)));
    std::thread::sleep(BEFORE);
    could_ask(&loads)?;
    for (group, load) in groups.iter().zip(&loads) {
        if !load.calibrate() {
            let seen = load.seen(begun, Instant::now()).first_failure.unwrap_or_else(|| "no request was decided".to_owned());
            let why = format!("group {} answers nothing before the drill ({seen}): it would show nothing", group.name);
            return Err(DrillError::Unready(why));
        }
    }
    let before = Before { number: newest(&observer)?, parked: parked(apis) };
    let fault = act(apis, plan, &target, grip)?;
    if fault.left {
        hands.progress("a cut that an earlier drill had left behind was in force until now");
    }
    hands.progress(&format!("fault: {}", plan.describe()));
    let whole = wait_until_whole(apis, plan, &target, grip, &loads, fault.at, hands);
    std::thread::sleep(AFTER);
    loads.iter().for_each(Load::stop);
    let end = Instant::now();
    loads.iter_mut().for_each(Load::settle);
    could_ask(&loads)?;
    let events = observer.get::<Events>(&format!("/api/v1/events?after={}&limit=1000", before.number));
    let events = match events {
        Ok(events) => events.events,
        // The node that would tell is the one that was killed; what clients saw is known all the same.
        Err(_) if plan.fault == Fault::NodeKill => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let after = parked(apis);
    let reports = groups.iter().zip(&loads).map(|(group, load)| {
        let seen = load.seen(fault.at, end);
        let counted = after.get(&group.name).copied().unwrap_or(0).saturating_sub(before.parked.get(&group.name).copied().unwrap_or(0));
        let parked = if load.connects_again() { seen.again as u64 } else { counted };
        let objective = plan.objectives.get(&group.name).copied().unwrap_or(plan.objective);
        GroupReport::new(group, Measured { seen, parked, evidence: load.evidence(), fault: fault.wall }, &events, objective)
    });
    let report = Report { what: plan.describe(), groups: reports.collect() };
    whole.map(|()| report)
}

struct Before {
    number: u64,
    parked: BTreeMap<String, u64>,
}

struct Target {
    /// The member, for faults of one.
    member: Option<MemberId>,
    /// Its life when the drill begins: a later one has taken its place.
    incarnation: u64,
    node: NodeId,
    /// Of a node and of its peers, where they listen for each other.
    address: Option<SocketAddr>,
    peers: Vec<SocketAddr>,
}

impl Target {
    fn find(status: &Status, plan: &Plan) -> Result<Self, DrillError> {
        let unknown = || DrillError::UnknownTarget(plan.target.clone());
        let members = || status.groups.iter().flat_map(|g| &g.members);
        let (is_member, is_node) = (members().any(|m| m.name == plan.target), status.nodes.iter().any(|n| n.name == plan.target));
        if plan.fault.is_of_member() && is_node && !is_member {
            let of_node = members().filter(|m| m.node == plan.target).map(|m| m.name.as_str()).collect::<Vec<_>>().join(", ");
            let others =
                format!("the whole node: `hotwarm drill node-kill {0}`, `hotwarm drill cut {0}`; its members: {of_node}", plan.target);
            return Err(plan.wrong_target("a member such as web/a", "a node", others));
        }
        if !plan.fault.is_of_member() && is_member {
            let others = format!("`hotwarm drill kill {0}`, `hotwarm drill freeze {0}`", plan.target);
            return Err(plan.wrong_target("a node", "a member", others));
        }
        if plan.fault.is_of_member() {
            let member = members().find(|m| m.name == plan.target).ok_or_else(unknown)?;
            let (id, node) = (MemberId::new(&member.name), NodeId::new(&member.node));
            return Ok(Self { member: Some(id), incarnation: member.incarnation, node, address: None, peers: Vec::new() });
        }
        let node = status.nodes.iter().find(|n| n.name == plan.target).ok_or_else(unknown)?;
        let peers = status.nodes.iter().filter(|n| n.name != plan.target).map(|n| n.address).collect();
        Ok(Self { member: None, incarnation: 0, node: NodeId::new(&node.name), address: Some(node.address), peers })
    }
}

impl Plan {
    fn wrong_target(&self, takes: &'static str, is: &'static str, others: String) -> DrillError {
        DrillError::WrongTarget { fault: self.fault.name(), takes, target: self.target.clone(), is, others }
    }

    /// In words, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let target = &self.target;
        match self.fault {
            Fault::Kill => format!("{target} is killed (SIGKILL)"),
            Fault::Freeze => format!("{target} is frozen (SIGSTOP)"),
            Fault::NodeKill => format!("node {target} dies: its agent, its guards and its members at once"),
            Fault::Cut => format!("node {target} is cut off its peers"),
        }
    }
}

fn any_status(apis: &Apis, except: Option<&NodeId>) -> Result<Status, DrillError> {
    let mut last = None;
    for (_, client) in apis.iter().filter(|(name, _)| Some(*name) != except) {
        match client.get::<Status>("/api/v1/status") {
            Ok(status) => return Ok(status),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| DrillError::Unready("no node's API is known".into()), DrillError::Api))
}

/// A node that lives through the fault and can tell of it.
fn observer(apis: &Apis, struck: &NodeId) -> Result<Client, DrillError> {
    let up = |client: &&Client| client.get::<Status>("/api/v1/status").is_ok();
    let others = apis.iter().filter(|(name, _)| *name != struck).map(|(_, client)| client);
    let found = others.chain(apis.get(struck)).find(up).cloned();
    found.ok_or_else(|| DrillError::Unready("no node's API answers; give --api".into()))
}

fn newest(observer: &Client) -> Result<u64, DrillError> {
    Ok(observer.get::<Events>("/api/v1/events?limit=1")?.newest)
}

fn parked(apis: &Apis) -> BTreeMap<String, u64> {
    let mut parked = BTreeMap::new();
    for traffic in apis.values().filter_map(|client| client.get::<Traffic>("/api/v1/traffic").ok()) {
        for group in traffic.groups {
            *parked.entry(group.group).or_default() += group.parked;
        }
    }
    parked
}

/// The groups that the fault can touch. Where a listener takes every address of its node, the node's own one is asked.
fn groups_of(status: &Status, plan: &Plan, target: &Target) -> Vec<GroupStatus> {
    let mut status = status.clone();
    for (name, address) in status.groups.iter_mut().flat_map(|group| &mut group.listen) {
        if let Some(node) = status.nodes.iter().find(|node| node.name == *name && address.ip().is_unspecified()) {
            address.set_ip(node.address.ip());
        }
    }
    let group = target.member.as_ref().map(|m| m.group().to_string());
    let touched = |g: &&GroupStatus| group.as_ref().is_none_or(|name| g.name == *name) && !addresses(g, plan, &target.node).is_empty();
    status.groups.iter().filter(touched).cloned().collect()
}

/// Where clients ask: every node's listener, but not that of a node that is about to die or be cut off (theirs is the address of another).
fn addresses(group: &GroupStatus, plan: &Plan, struck: &NodeId) -> Vec<SocketAddr> {
    let whole_node = matches!(plan.fault, Fault::NodeKill | Fault::Cut);
    let lives = |(name, _): &(&String, &SocketAddr)| !(whole_node && name.as_str() == struck.as_str());
    group.listen.iter().filter(lives).map(|(_, address)| *address).collect()
}

fn names(groups: &[GroupStatus]) -> String {
    groups.iter().map(|g| g.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn member<'a>(status: &'a Status, id: &MemberId) -> Option<&'a MemberStatus> {
    status.groups.iter().flat_map(|g| &g.members).find(|m| m.name == id.as_str())
}

/// The target's process on this machine, as its own node tells it.
fn pid_of(apis: &Apis, plan: &Plan, target: &Target) -> Result<u32, DrillError> {
    let elsewhere = |why: String| DrillError::Elsewhere { target: plan.target.clone(), node: target.node.to_string(), why };
    let client = apis.get(&target.node).ok_or_else(|| elsewhere("its API is not reached".into()))?;
    let status: Status = client.get("/api/v1/status").map_err(|error| elsewhere(error.to_string()))?;
    let pid = match &target.member {
        Some(id) => member(&status, id).and_then(|m| m.pid).ok_or_else(|| elsewhere("it has no process now".into()))?,
        None => status.node.pid,
    };
    // The number of a process of another machine, of which an API elsewhere or at the end of a tunnel tells, may be a stranger's here, and
    // even of another node or member.
    let home = status.nodes.iter().find(|node| node.name == target.node.as_str()).map(|node| node.address.ip());
    if let Some(home) = home.filter(|home| !fault::is_ours(*home)) {
        return Err(elsewhere(format!("its address {home} is not this machine's")));
    }
    let ours = match &target.member {
        Some(_) => fault::is_member(pid),
        None => fault::is_hotwarm(pid, "run"),
    };
    if ours && !fault::is_dead(pid) { Ok(pid) } else { Err(elsewhere(format!("no such process {pid} here"))) }
}

/// The guards of a node's members, as their programs' parents.
fn guards_of(apis: &Apis, node: &NodeId) -> Vec<u32> {
    let status = apis.get(node).and_then(|client| client.get::<Status>("/api/v1/status").ok());
    let pids = status.iter().flat_map(|status| &status.groups).flat_map(|group| &group.members).filter_map(|member| member.pid);
    pids.filter_map(fault::parent).filter(|guard| fault::is_hotwarm(*guard, "guard")).collect()
}

/// Waits until the fault is seen in what it struck.
fn took_effect(what: &str, seen: impl Fn() -> bool) -> Result<(), DrillError> {
    let begun = Instant::now();
    while !seen() {
        if begun.elapsed() > EFFECT_WITHIN {
            return Err(DrillError::NoEffect(format!("{what} within {} s", EFFECT_WITHIN.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn act(apis: &Apis, plan: &Plan, target: &Target, grip: &Grip) -> Result<Begun, DrillError> {
    let failed = |doing: &str| {
        let doing = format!("{doing} {}", plan.target);
        move |source| DrillError::Fault { doing, source }
    };
    let pid = pid_of(apis, plan, target)?;
    match plan.fault {
        Fault::Kill => {
            let begun = Begun::now();
            fault::signal(pid, Signal::KILL).map_err(failed("killing"))?;
            took_effect("the process is not dead", || fault::is_dead(pid))?;
            Ok(begun)
        }
        Fault::Freeze => {
            let begun = grip.take(Lasting::Freeze { pid }, plan.lasting).map_err(failed("stopping"))?;
            took_effect("the process is not stopped", || fault::is_dead(pid) || fault::state(pid) == Some('T'))?;
            Ok(begun)
        }
        Fault::NodeKill => {
            // Guards that were adopted are not below this agent.
            let pids = std::iter::once(pid).chain(guards_of(apis, &target.node)).collect();
            let begun = grip.take(Lasting::Kill { pids }, plan.lasting).map_err(failed("killing"))?;
            took_effect("the agent is not dead", || fault::is_dead(pid))?;
            Ok(begun)
        }
        Fault::Cut => {
            // The filter is this machine's: elsewhere it would cut one link, and not the node.
            let own = target.address.ok_or_else(|| DrillError::UnknownTarget(plan.target.clone()))?;
            if target.peers.is_empty() || target.peers.iter().any(|peer| peer.ip() == own.ip()) {
                let why = "its links are told from those of other nodes by their addresses, and it has none of its own";
                return Err(DrillError::Unready(format!("node {} cannot be cut off: {why}", target.node)));
            }
            let cut = Lasting::Cut { own, peers: target.peers.clone() };
            grip.take(cut, plan.lasting).map_err(failed("cutting off"))
        }
    }
}

/// A drill that could not ask ends at once, and blames nobody for it.
fn could_ask(loads: &[Load]) -> Result<(), DrillError> {
    loads.iter().find_map(Load::own_failure).map_or(Ok(()), |why| Err(DrillError::OwnLimit(why.to_owned())))
}

/// Waits for the fault to end, undoes it, and waits until the cluster is what it was.
fn wait_until_whole(
    apis: &Apis,
    plan: &Plan,
    target: &Target,
    grip: &Grip,
    loads: &[Load],
    since: Instant,
    hands: &mut dyn Hands,
) -> Result<(), DrillError> {
    let mut undone = false;
    let mut served_again = false;
    let mut struck = plan.fault != Fault::Cut;
    while since.elapsed() < plan.patience {
        std::thread::sleep(LOOK_EVERY);
        could_ask(loads)?;
        if !struck && is_cut_off(apis, target) {
            struck = true;
            hands.progress(&format!("node {} hears none of its peers", target.node));
        }
        let status = any_status(apis, Some(&target.node)).or_else(|_| any_status(apis, None));
        let serves = status.as_ref().is_ok_and(|s| is_current(s) && s.groups.iter().all(|g| g.listen.is_empty() || g.state == "serving"));
        if serves && struck && !served_again && since.elapsed() > Duration::from_millis(200) {
            served_again = true;
            hands.progress("every group serves");
        }
        let replaced = match (&target.member, &status) {
            (Some(id), Ok(status)) => member(status, id).is_some_and(|m| is_back(m, target.incarnation, undone)),
            (None, _) => true,
            _ => false,
        };
        let over = match plan.fault {
            Fault::Kill => replaced,
            // The cluster ends a frozen member and starts it anew; one that it leaves alone goes on when the time is up.
            Fault::Freeze => since.elapsed() >= plan.lasting || (replaced && since.elapsed() > Duration::from_secs(2)),
            // With no other node's API at hand only clients tell; they are given as long as a freeze or a cut would last.
            Fault::NodeKill => {
                since.elapsed() >= if status.is_ok() { Duration::from_secs(2) } else { plan.lasting } && (serves || status.is_err())
            }
            Fault::Cut => since.elapsed() >= plan.lasting,
        };
        if over && !undone {
            if !struck {
                return Err(DrillError::NoEffect(format!("node {} heard its peers all the time", target.node)));
            }
            undone = true;
            if !end(plan, target, grip, hands)? {
                return Ok(());
            }
        }
        if over && replaced && status.is_ok_and(|status| whole(&status)) {
            hands.progress("everything is back");
            return Ok(());
        }
    }
    Err(DrillError::NotWhole { after: plan.patience, what: missing(apis) })
}

/// The member that was struck in its life `before` is well again. One in whose place a spare serves by now lives once more, and rests.
fn is_back(member: &MemberStatus, before: u64, undone: bool) -> bool {
    let lives_anew = member.incarnation > before;
    (member.ready && (lives_anew || undone)) || (member.role == "spare" && lives_anew)
}

/// Undoes the fault; false if the rest is for a person to do.
fn end(plan: &Plan, target: &Target, grip: &Grip, hands: &mut dyn Hands) -> Result<bool, DrillError> {
    grip.let_go().map_err(|source| DrillError::Fault { doing: "undoing the fault".into(), source })?;
    match plan.fault {
        Fault::Kill | Fault::Freeze => {}
        Fault::Cut => hands.progress("the cut is over"),
        Fault::NodeKill if hands.revive(&target.node) => hands.progress(&format!("node {} is started again", target.node)),
        Fault::NodeKill => {
            hands.progress(&format!("start node {} again on its machine: systemctl start hotwarm", target.node));
            return Ok(false);
        }
    }
    Ok(true)
}

/// The struck node says itself that it hears nobody.
fn is_cut_off(apis: &Apis, target: &Target) -> bool {
    let own = apis.get(&target.node).and_then(|client| client.get::<Status>("/api/v1/status").ok());
    own.is_some_and(|own| own.nodes.iter().all(|node| !node.heard || node.name == own.node.name))
}

/// A node that knows how things are now: one that was cut off a moment ago may still tell of the time before.
fn is_current(status: &Status) -> bool {
    let node = &status.node;
    node.cut_off_ms.is_none() && node.lease_left_ms > 0 && node.applied >= node.commit && status.cluster.leader.is_some()
}

/// Every node is heard and holds a lease, every group has what it wants.
fn whole(status: &Status) -> bool {
    let nodes = status.nodes.iter().all(|n| n.leased && !n.silent && n.heard);
    is_current(status)
        && nodes
        && status.groups.iter().all(|g| g.state == "serving" && g.have.hot >= g.want.hot && g.have.warm >= g.want.warm)
}

fn missing(apis: &Apis) -> String {
    let Ok(status) = any_status(apis, None) else { return "no node's API answers".into() };
    let nodes = status.nodes.iter().filter(|n| !n.leased || n.silent).map(|n| format!("node {}", n.name));
    let members = status.groups.iter().flat_map(|g| &g.members).filter_map(|m| m.unfit.as_ref().map(|u| format!("{}: {}", m.name, u.text)));
    nodes.chain(members).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_keeps_what_it_counts_or_is_not_begun() {
        let minute = Duration::from_secs(60);
        assert!(fits(100, minute).is_ok() && fits(10_000, minute).is_ok() && fits(100, 30 * minute).is_ok());
        let refused = fits(1_000, 60 * minute).expect_err("an hour of a thousand a second");
        assert!(refused.to_string().starts_with("1000 requests a second for up to 3600 s are more than"), "{refused}");
    }

    #[test]
    fn a_member_that_rests_as_a_spare_in_a_later_life_is_back() {
        let member = |role: &str, ready: bool, incarnation: u64| -> MemberStatus {
            serde_json::from_value(serde_json::json!({
                "name": "web/a", "node": "a", "address": "10.0.0.1:9080", "role": role, "serving": false, "life": "stopped", "stopped": null,
                "ready": ready, "why_unready": "", "drained": false, "unfit": null, "held_down_ms": null, "former_engine": false, "pid": null,
                "incarnation": incarnation, "priority": 0, "weight": 100,
            }))
            .unwrap()
        };
        assert!(is_back(&member("warm", true, 8), 7, false), "it was started again");
        assert!(!is_back(&member("warm", true, 7), 7, false), "not yet noticed");
        assert!(is_back(&member("warm", true, 7), 7, true), "a frozen one that goes on");
        assert!(!is_back(&member("warm", false, 8), 7, true));
        assert!(is_back(&member("spare", false, 8), 7, false), "another serves in its place, and it has been ready since");
        assert!(!is_back(&member("spare", false, 7), 7, true), "nobody knows yet whether it can live");
    }
}
