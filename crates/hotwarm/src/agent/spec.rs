//! From the configuration file to what the core needs of it.

use std::collections::BTreeMap;

use hotwarm_core::cluster::{ClusterSpec, NodeSpec};
use hotwarm_core::group::spec::{Bounds, Fence, GroupSpec, MemberSpec};
use hotwarm_core::ids::{GroupName, NodeId};
use hotwarm_core::node::Supervision;

use crate::config::{self, Config, Engine, RoleChange};

/// The cluster as it enters the log.
#[must_use]
pub fn cluster(config: &Config) -> ClusterSpec {
    let zone = |node: &NodeId| config.cluster.zones.get(node).cloned().unwrap_or_default();
    let node = |(name, address): (&NodeId, &std::net::SocketAddr)| {
        let witness = config.cluster.witness.contains(name);
        let spec = NodeSpec { address: *address, votes: !config.cluster.edge.contains(name), witness, zone: zone(name) };
        (name.clone(), spec)
    };
    ClusterSpec {
        name: config.cluster.name.clone(),
        lease_ms: millis(config.cluster.lease),
        nodes: config.cluster.nodes.iter().map(node).collect(),
        groups: config.groups.values().map(|g| (g.name.clone(), group(g, &zone))).collect(),
        text: config.text.clone(),
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn group(group: &config::Group, zone: &dyn Fn(&NodeId) -> String) -> GroupSpec {
    let member = |m: &config::Member| MemberSpec {
        node: m.node.clone(),
        address: m.address,
        priority: m.priority,
        weight: m.weight,
        zone: zone(&m.node),
    };
    let fence = match (&group.fence, &group.engine) {
        (config::Fence::RouterOnly, _) => Fence::RouterOnly,
        // A hook is what confirms only where no supervisor of ours can.
        (config::Fence::Command(_), Engine::External | Engine::Command(_)) => Fence::Hook,
        (config::Fence::Command(_) | config::Fence::Supervisor, _) => Fence::Supervisor,
    };
    let positions = matches!(&group.engine, Engine::Command(hooks) if hooks.position.is_some());
    GroupSpec {
        name: group.name.clone(),
        hot: group.mode.hot,
        warm: group.mode.warm,
        exclusive: group.mode.exclusive,
        stateful: group.stateful,
        members: group.members.iter().map(|(id, m)| (id.clone(), member(m))).collect(),
        routers: group.listen.keys().cloned().collect(),
        fence,
        positions: positions && group.mode.exclusive,
        acks: 0,
        bounds: Bounds {
            drain_ms: drain_ms(group),
            failovers_per_hour: group.failovers_per_hour,
            promote_ms: promote_ms(&group.engine),
            ..Bounds::default()
        },
    }
}

/// A connection of TCP may go on for ever, and newcomers wait while a switchover waits for it: half of what they may.
fn drain_ms(group: &config::Group) -> u64 {
    let waits = group.mode.exclusive && group.protocol == config::Protocol::Tcp;
    millis(if waits { group.drain.min(group.park.time / 2) } else { group.drain })
}

/// A role that changes by a restart takes as long as an end with grace and a start may; one that hooks change, as long as a hook may.
fn promote_ms(engine: &Engine) -> u64 {
    let usual = Bounds::default().promote_ms;
    match engine {
        Engine::Process(process) if process.on_role_change == RoleChange::Restart => {
            usual.max(millis(process.grace).saturating_add(millis(process.start_timeout)))
        }
        Engine::Command(hooks) => usual.max(millis(hooks.timeout)),
        Engine::Process(_) | Engine::External => usual,
    }
}

/// How the members of each group are kept running.
#[must_use]
pub fn supervision(config: &Config) -> BTreeMap<GroupName, Supervision> {
    let of = |group: &config::Group| match &group.engine {
        Engine::Process(process) => Supervision {
            restart: process.restart.delay,
            restart_max: process.restart.delay_max,
            start_timeout: process.start_timeout,
            ..Supervision::default()
        },
        Engine::External | Engine::Command(_) => Supervision::default(),
    };
    config.groups.values().map(|g| (g.name.clone(), of(g))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_tcp_hold_a_switchover_for_half_of_what_newcomers_wait() {
        let drain_ms = |mode: &str, protocol: &str, more: &str| {
            let text = format!(
                "[cluster]\nname = \"x\"\nnodes = {{ a = \"127.0.0.1:7400\" }}\n[group.db]\nmode = {{ {mode} }}\nprotocol = \"{protocol}\"\n\
                 check = {{ tcp = true }}\nmembers = {{ a1 = {{ node = \"a\", address = \"127.0.0.1:9000\" }}, a2 = {{ node = \"a\", address = \"127.0.0.1:9001\" }} }}\n\
                 engine = {{ process = [\"/bin/db\"], on_role_change = {{ signal = \"SIGUSR1\" }} }}\n{more}"
            );
            let config = config::parse(&text, "test", None).expect("a configuration");
            cluster(&config).groups.values().map(|group| group.bounds.drain_ms).collect::<Vec<_>>()
        };
        let (one, several) = ("hot = 1, warm = 1, spare = 0", "hot = 2, warm = 0, spare = 0");
        let long = "park = { time = \"4s\" }\ndrain = \"1m\"";
        assert_eq!(drain_ms(one, "tcp", long), [2_000]);
        assert_eq!(drain_ms(one, "tcp", "drain = \"300ms\""), [300]);
        // Nobody waits where others serve; a request of http has an end.
        assert_eq!((drain_ms(several, "tcp", long), drain_ms(one, "http", long)), (vec![60_000], vec![60_000]));
    }

    #[test]
    fn what_the_file_leaves_out_is_what_the_core_takes() {
        let text = "[cluster]\nname = \"x\"\nnodes = { a = \"127.0.0.1:7400\" }\n[group.web]\nmode = \"hot-hot\"\nprotocol = \"http\"\ncheck = { tcp = true }\n\
             members = { a = \"127.0.0.1:9000\" }\nengine = { process = [\"/bin/web\"] }\n";
        let config = config::parse(text, "test", None).expect("a configuration");
        let bounds: Vec<Bounds> = cluster(&config).groups.values().map(|group| group.bounds).collect();
        assert_eq!(bounds, [Bounds::default()]);
    }

    #[test]
    fn a_role_change_by_a_restart_may_take_an_end_and_a_start() {
        let promote_ms = |change: &str| {
            let text = format!(
                "[cluster]\nname = \"x\"\nnodes = {{ a = \"127.0.0.1:7400\" }}\n[group.db]\nmode = \"hot-hot\"\nprotocol = \"tcp\"\ncheck = {{ tcp = true }}\n\
                 members = {{ a = \"127.0.0.1:9000\" }}\nengine = {{ process = [\"/bin/db\"], grace = \"7s\", start_timeout = \"50s\", {change} }}\n"
            );
            let config = config::parse(&text, "test", None).expect("a configuration");
            cluster(&config).groups.values().map(|group| group.bounds.promote_ms).collect::<Vec<_>>()
        };
        assert_eq!(promote_ms("on_role_change = { restart = true }"), [57_000]);
        assert_eq!(promote_ms("on_role_change = { signal = \"SIGUSR1\" }"), [Bounds::default().promote_ms]);
    }

    /// Else a hook that the file lets run for a minute is given up, and its member fenced, after ten seconds.
    #[test]
    fn a_role_change_by_hooks_may_take_as_long_as_a_hook_may() {
        let promote_ms = |timeout: &str| {
            let text = format!(
                "[cluster]\nname = \"x\"\nnodes = {{ a = \"127.0.0.1:7400\" }}\n[group.db]\nmode = \"hot-hot\"\nprotocol = \"tcp\"\ncheck = {{ tcp = true }}\n\
                 members = {{ a = \"127.0.0.1:9000\" }}\nengine = {{ command = {{ start = [\"/bin/x\"], stop = [\"/bin/x\"]{timeout} }} }}\n"
            );
            let config = config::parse(&text, "test", None).expect("a configuration");
            cluster(&config).groups.values().map(|group| group.bounds.promote_ms).collect::<Vec<_>>()
        };
        assert_eq!(promote_ms(", timeout = \"1m\""), [60_000]);
        assert_eq!((promote_ms(""), promote_ms(", timeout = \"2s\"")), (vec![10_000], vec![10_000]));
    }
}
