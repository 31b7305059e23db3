//! Faults on purpose, measured from a client's side: what `hotwarm drill` does to a running cluster, and what the demo is made of.
//!
//! It acts from outside, as an operator would: signals, packet filters, the API. It must undo what it did and never act on what it was
//! not given. The main path: [`run`] puts load on, does the fault, waits until the cluster is whole again, and tells what clients saw.

pub mod fault;
pub mod load;
mod report;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use hotwarm_core::ids::{MemberId, NodeId};
use rustix::process::Signal;

pub use fault::Fault;
pub use load::{Load, Seen};
pub use report::{GroupReport, Moment, Report};

use crate::api::client::{Client, ClientError};
use crate::api::types::{Events, GroupStatus, MemberStatus, Status, Traffic};

/// Load before the fault, so that what follows is seen against something.
const BEFORE: Duration = Duration::from_millis(1500);
/// Load after everything is whole again.
const AFTER: Duration = Duration::from_millis(500);
const LOOK_EVERY: Duration = Duration::from_millis(50);

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
}

/// Why a drill was not done, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    #[error(transparent)]
    Api(#[from] ClientError),
    #[error("{0} is neither a member nor a node of this cluster; `hotwarm status` lists them")]
    UnknownTarget(String),
    #[error("{0}")]
    Unready(String),
    #[error("{target} does not run on a machine that this drill reaches ({why}): run it on the machine of node {node}")]
    Elsewhere { target: String, node: String, why: String },
    #[error("{doing} failed: {source}")]
    Fault { doing: String, source: std::io::Error },
    #[error("not whole again within {} s: {what}; see `hotwarm status` and `hotwarm why`", .after.as_secs())]
    NotWhole { after: Duration, what: String },
}

/// How the world outside takes part: a demo starts a killed node again, a drill on machines of others cannot.
pub trait Hands {
    /// Tells a person what is being done.
    fn progress(&mut self, text: &str);
    /// Starts a node again that was killed; false if this is for a person to do.
    fn revive(&mut self, node: &NodeId) -> bool;
}

/// Does the drill. Nothing of it stays: what was stopped runs on, what was cut is whole.
///
/// # Errors
/// See [`DrillError`]; the fault is undone in any case.
pub fn run(apis: &Apis, plan: &Plan, hands: &mut dyn Hands) -> Result<Report, DrillError> {
    let status = any_status(apis, None)?;
    let target = Target::find(&status, plan)?;
    let observer = observer(apis, &target.node)?;
    let groups = groups_of(&status, plan, &target);
    let mut loads = Vec::new();
    for group in &groups {
        let addresses = addresses(group, plan, &target.node);
        let load = Load::start(addresses, plan.rate).map_err(|source| DrillError::Fault { doing: "starting the load".into(), source })?;
        loads.push(load);
    }
    let begun = Instant::now();
    hands.progress(&format!("load: {} requests a second on {}", plan.rate, names(&groups)));
    std::thread::sleep(BEFORE);
    for (group, load) in groups.iter().zip(&loads) {
        if load.answered_since(begun) == 0 {
            return Err(DrillError::Unready(format!("group {} answers nothing before the drill: it would show nothing", group.name)));
        }
    }
    let before = Before { number: newest(&observer)?, parked: parked(apis) };
    let fault = Moments { instant: Instant::now(), wall: SystemTime::now() };
    let undo = act(apis, plan, &target)?;
    hands.progress(&format!("fault: {}", plan.describe()));
    let whole = wait_until_whole(apis, plan, &target, undo, fault.instant, hands);
    std::thread::sleep(AFTER);
    let events: Events = observer.get(&format!("/api/v1/events?after={}&limit=5000", before.number))?;
    let after = parked(apis);
    let reports = groups.iter().zip(&loads).map(|(group, load)| {
        let seen = load.seen(fault.instant, Instant::now());
        let parked = after.get(&group.name).copied().unwrap_or(0).saturating_sub(before.parked.get(&group.name).copied().unwrap_or(0));
        GroupReport::new(group, seen, parked, &events.events, fault.wall, plan.objective)
    });
    let report = Report { what: plan.describe(), groups: reports.collect() };
    whole.map(|()| report)
}

struct Before {
    number: u64,
    parked: BTreeMap<String, u64>,
}

struct Moments {
    instant: Instant,
    wall: SystemTime,
}

/// What undoes the fault.
enum Undo {
    Nothing,
    Continue(u32),
    Cut(fault::Cut),
    Revive,
}

struct Target {
    /// The member, for faults of one.
    member: Option<MemberId>,
    node: NodeId,
    address: Option<SocketAddr>,
}

impl Target {
    fn find(status: &Status, plan: &Plan) -> Result<Self, DrillError> {
        let unknown = || DrillError::UnknownTarget(plan.target.clone());
        if matches!(plan.fault, Fault::Kill | Fault::Freeze) {
            let member = status.groups.iter().flat_map(|g| &g.members).find(|m| m.name == plan.target).ok_or_else(unknown)?;
            return Ok(Self { member: Some(MemberId::new(&member.name)), node: NodeId::new(&member.node), address: None });
        }
        let node = status.nodes.iter().find(|n| n.name == plan.target).ok_or_else(unknown)?;
        Ok(Self { member: None, node: NodeId::new(&node.name), address: Some(node.address) })
    }
}

impl Plan {
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

/// The groups that the fault can touch.
fn groups_of(status: &Status, plan: &Plan, target: &Target) -> Vec<GroupStatus> {
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
    let client = apis.get(&target.node).ok_or_else(|| elsewhere("its API is not known".into()))?;
    let status: Status = client.get("/api/v1/status").map_err(|error| elsewhere(error.to_string()))?;
    let pid = match &target.member {
        Some(id) => member(&status, id).and_then(|m| m.pid).ok_or_else(|| elsewhere("it has no process now".into()))?,
        None => status.node.pid,
    };
    if std::path::Path::new(&format!("/proc/{pid}")).exists() { Ok(pid) } else { Err(elsewhere(format!("no process {pid} here"))) }
}

fn act(apis: &Apis, plan: &Plan, target: &Target) -> Result<Undo, DrillError> {
    let failed = |doing: &str| {
        let doing = format!("{doing} {}", plan.target);
        move |source| DrillError::Fault { doing, source }
    };
    match plan.fault {
        Fault::Kill => {
            fault::signal(pid_of(apis, plan, target)?, Signal::KILL).map_err(failed("killing"))?;
            Ok(Undo::Nothing)
        }
        Fault::Freeze => {
            let pid = pid_of(apis, plan, target)?;
            fault::signal(pid, Signal::STOP).map_err(failed("stopping"))?;
            Ok(Undo::Continue(pid))
        }
        Fault::NodeKill => {
            fault::kill_tree(pid_of(apis, plan, target)?);
            Ok(Undo::Revive)
        }
        Fault::Cut => {
            let address = target.address.ok_or_else(|| DrillError::UnknownTarget(plan.target.clone()))?;
            fault::Cut::begin(address).map(Undo::Cut).map_err(failed("cutting off"))
        }
    }
}

/// Waits for the fault to end, undoes it, and waits until the cluster is what it was.
fn wait_until_whole(
    apis: &Apis,
    plan: &Plan,
    target: &Target,
    undo: Undo,
    since: Instant,
    hands: &mut dyn Hands,
) -> Result<(), DrillError> {
    let mut undo = Some(undo);
    let mut served_again = false;
    while since.elapsed() < plan.patience {
        std::thread::sleep(LOOK_EVERY);
        let status = any_status(apis, Some(&target.node));
        let Ok(status) = status.or_else(|_| any_status(apis, None)) else { continue };
        let serves = status.groups.iter().all(|g| g.listen.is_empty() || g.state == "serving");
        if serves && !served_again && since.elapsed() > Duration::from_millis(200) {
            served_again = true;
            hands.progress("every group serves");
        }
        let replaced = target.member.as_ref().is_some_and(|id| member(&status, id).is_some_and(|m| m.ready));
        let over = match plan.fault {
            Fault::Kill => true,
            // The cluster ends a frozen member and starts it anew; one that it leaves alone goes on when the time is up.
            Fault::Freeze => since.elapsed() >= plan.lasting,
            Fault::NodeKill => serves && since.elapsed() >= Duration::from_secs(2),
            Fault::Cut => since.elapsed() >= plan.lasting,
        };
        if over && let Some(undo) = undo.take() {
            match undo {
                Undo::Nothing => {}
                Undo::Continue(pid) => drop(fault::signal(pid, Signal::CONT)),
                Undo::Cut(cut) => {
                    drop(cut);
                    hands.progress("the cut is over");
                }
                Undo::Revive => {
                    if !hands.revive(&target.node) {
                        hands.progress(&format!("start node {} again on its machine: systemctl start hotwarm", target.node));
                        return Ok(());
                    }
                    hands.progress(&format!("node {} is started again", target.node));
                }
            }
        }
        if over && whole(&status) && (target.member.is_none() || replaced) {
            hands.progress("everything is back");
            return Ok(());
        }
        if plan.fault == Fault::Freeze && served_again && replaced && since.elapsed() > Duration::from_secs(2) && whole(&status) {
            hands.progress("everything is back");
            return Ok(());
        }
    }
    Err(DrillError::NotWhole { after: plan.patience, what: missing(apis) })
}

/// Every node holds a lease, every group has what it wants.
fn whole(status: &Status) -> bool {
    let nodes = status.nodes.iter().all(|n| n.leased && !n.silent);
    nodes && status.groups.iter().all(|g| g.state == "serving" && g.have.hot >= g.want.hot && g.have.warm >= g.want.warm)
}

fn missing(apis: &Apis) -> String {
    let Ok(status) = any_status(apis, None) else { return "no node's API answers".into() };
    let nodes = status.nodes.iter().filter(|n| !n.leased || n.silent).map(|n| format!("node {}", n.name));
    let members = status.groups.iter().flat_map(|g| &g.members).filter_map(|m| m.unfit.as_ref().map(|u| format!("{}: {}", m.name, u.text)));
    nodes.chain(members).collect::<Vec<_>>().join("; ")
}
