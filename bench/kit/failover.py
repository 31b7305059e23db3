"""Cases 1 to 6: what clients see when members, nodes and the leader of the log die.

Every run has a fresh cluster and a fresh peer, started and settled before the fault; nothing is learned from the run before it. Main path:
the functions in `CASES`, each of which makes one run of one system.
"""

import os
import signal
import time

from . import machine, peers
from .cluster import Cluster, Group
from .load import Load, now_ns
from .net import Network, ask, port
from .procs import Failed, Stage, kill, wait_for

# Seconds of load before the fault.
BEFORE_S = 1.0


def _hurt(pids, sig):
    """Sends a signal to all at once; gives the moment."""
    at = now_ns()
    kill(pids, sig)
    return at


def member_fault(system, component, sig, number):
    """Kills or freezes one serving member; a run of `hotwarm`, `haproxy` (defaults) or `haproxy-tuned`."""
    hot_warm = component == "clock"
    with Stage(f"{component}-{system}") as stage:
        # What is parked answers after the failover: the limit of a client must be longer than that.
        timeout_ms = 5000 if hot_warm else 1000
        if system == "hotwarm":
            cluster = Cluster(stage, [Group("g", "hot-warm" if hot_warm else "hot-hot", component)]).start().ready()
            victim = cluster.hot("g") if hot_warm else "b"
            # Through each node in turn: the one that has the victim, and those that must learn of it.
            to = cluster.listen["g"][cluster.nodes[number % 3]]
            pid, after = cluster.member("g", victim)["pid"], 3.0
        else:
            members = peers.Members(stage, component)
            to, pid = f"127.0.0.1:{port()}", members.process["a"].pid
            tuned = system == "haproxy-tuned"
            settings = (peers.HAPROXY_TUNED, peers.HAPROXY_TUNED_SERVER) if tuned else (peers.HAPROXY_DEFAULTS, "")
            peers.haproxy(stage, peers.haproxy_config(to, members.addresses, *settings, backup=hot_warm))
            wait_for("haproxy", lambda: ask(to))
            time.sleep(2)
            after = 3.0 if tuned else (13.0 if sig == signal.SIGSTOP else 7.0)
        load = Load(stage, to, BEFORE_S + after, timeout_ms=timeout_ms)
        time.sleep(BEFORE_S)
        seen = load.seen(_hurt([pid], sig))
        kill([pid], signal.SIGCONT)
        return seen


def node_kill(system, number):
    """The leader of the log, with the hot member, its guard and everything else of its node: all killed at once, on loopback."""
    del number
    with Stage("node-kill") as stage:
        cluster = Cluster(stage, [Group("g", "hot-warm", "clock", priority={"a": 10})]).start().ready()
        node = _leading_and_hot(cluster)
        survivor = next(name for name in cluster.nodes if name != node)
        load = Load(stage, cluster.listen["g"][survivor], BEFORE_S + 4, timeout_ms=5000)
        pids = cluster.node_processes(node)
        time.sleep(BEFORE_S)
        return load.seen(_hurt(pids, signal.SIGKILL))


def _leading_and_hot(cluster):
    leader, hot = cluster.leader(), cluster.hot("g")
    if leader != hot:
        raise RuntimeError(f"{leader} leads and {hot} is hot: another case than the one to be measured")
    return leader


def node_fault(system, how, number):
    """The same beyond loopback, in namespaces with mutual TLS: killed, or cut off (silent both ways)."""
    del number
    names = ["a", "b", "c", "client"]
    # Longer than the outage by some seconds; keepalived's default takes 3.5 s of them.
    after = 7 if system == "keepalived" else 4
    with Network(names) as network, Stage(f"node-{how}-{system}") as stage:
        if system == "hotwarm":
            group = Group("g", "hot-warm", "clock", priority={"a": 10})
            cluster = Cluster(stage, [group], network=network).start().ready()
            node = _leading_and_hot(cluster)
            pids = cluster.node_processes(node)
            to = cluster.listen["g"][next(name for name in cluster.nodes if name != node)]
        else:
            node, pids, to = _keepalived(stage, network, 1 if system == "keepalived" else 0.1)
        load = Load(stage, to, BEFORE_S + after, timeout_ms=5000, netns=network.netns("client"))
        time.sleep(BEFORE_S)
        if how == "cut":
            at = now_ns()
            network.cut(node)
        else:
            at = _hurt(pids, signal.SIGKILL)
        return load.seen(at)


def _keepalived(stage, network, advert_s):
    """Two nodes with a virtual address, HAProxy tuned by hand and a member each; gives the node that has the address."""
    virtual, members, pids = "10.77.0.100", {}, []
    for name in ("a", "b"):
        members[name] = f"{network.addresses[name]}:9080"
        argv = [machine.HOTWARM, "component", "clock", "--listen", members[name], "--name", name]
        pids.append(stage.start(f"member-{name}", argv, netns=network.netns(name)).pid)
    for name, priority in (("a", 150), ("b", 100)):
        netns = network.netns(name)
        order = dict(sorted(members.items()))
        config = peers.haproxy_config("0.0.0.0:8080", order, peers.HAPROXY_TUNED, peers.HAPROXY_TUNED_SERVER, backup=True)
        pids.append(peers.haproxy(stage, config, name=f"haproxy-{name}", netns=netns).pid)
        path = stage.write(f"keepalived-{name}.conf", peers.keepalived_config(name, priority, virtual, advert_s))
        run = [f"--{what}={stage.path(f'{what}-{name}')}" for what in ("pid", "vrrp_pid", "checkers_pid")]
        argv = ["keepalived", "--dont-fork", "--vrrp", "--log-console", "-f", path, *run]
        stage.start(f"keepalived-{name}", argv, netns=netns)
        wait_for(f"haproxy on {name}", lambda n=name: network.ask("client", f"{network.addresses[n]}:8080"))
    wait_for("the virtual address", lambda: network.ask("client", f"{virtual}:8080"), 15)
    time.sleep(4 if advert_s >= 1 else 2)
    own = set(_netns_pids(network.netns("a")))
    return "a", sorted(own), f"{virtual}:8080"


def _netns_pids(netns):
    inode = os.stat(f"/run/netns/{netns}").st_ino
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{pid}/ns/net").st_ino == inode:
                yield int(pid)
        except OSError:
            continue


def leader_kill(system, number):
    """The leader of the log dies, and no hot member with it: traffic elsewhere, and the time to the next decision."""
    del number
    with Stage(f"leader-{system}") as stage:
        if system == "hotwarm":
            return _hotwarm_leader_kill(stage)
        etcd = peers.Etcd(stage, *((100, 1000) if system == "etcd" else (20, 200)))
        time.sleep(2)
        leader = wait_for("etcd's leader", etcd.leader)
        other = next(address for name, address in etcd.client.items() if name != leader)
        more = {"method": "POST", "path": "/v3/kv/put", "body": etcd.PUT}
        load = Load(stage, other, BEFORE_S + 4, rate=100, timeout_ms=5000, **more)
        time.sleep(BEFORE_S)
        seen = load.seen(_hurt([etcd.process[leader].pid], signal.SIGKILL))
        return {
            "decision_ms": seen["gap_ms"],
            "decisions_failed": seen["failed"],
            "decision_kinds": seen["kinds"],
            "late_ms": seen["late_ms"],
        }


def _hotwarm_leader_kill(stage):
    """Decisions are commands to another node's API, 100 a second: the longest time without one that was applied."""
    groups = [Group("g", "hot-hot", "web"), Group("side", "hot-hot", "web")]
    cluster = Cluster(stage, groups).start().ready()
    leader = cluster.leader()
    other = next(name for name in cluster.nodes if name != leader)
    traffic = Load(stage, cluster.listen["g"][other], BEFORE_S + 3)
    more = {"method": "POST", "path": "/api/v1/groups/side/pause", "body": "{}"}
    decisions = Load(stage, cluster.api[other], BEFORE_S + 3, rate=100, timeout_ms=5000, name="decisions", **more)
    time.sleep(BEFORE_S)
    at = _hurt([cluster.process[leader].pid], signal.SIGKILL)
    seen, decided = traffic.seen(at), decisions.seen(at)
    if decided["failed_before"]:
        raise Failed(f"{decided['failed_before']} decisions failed before the fault: {decided['kinds']}")
    return {**seen, "decision_ms": decided["gap_ms"], "decisions_failed": decided["failed"], "decision_kinds": decided["kinds"]}
