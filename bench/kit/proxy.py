"""Cases 7 to 10: what the router, an idle node and the control log cost, beside those who do the same.

The proxy has one core to itself; load and back end share the other. Main path: one function a case and system.
"""

import json
import os
import subprocess
import time

from . import machine, peers
from .cluster import Cluster, Group
from .net import ask, port
from .procs import Stage, alive, cpu_s, holders, rss_mib, wait_for

PROXY_CPU, OTHERS_CPU = 0, 1
CONNECTIONS = 64
BODY = "x" * 200


def _one_node(stage, protocol, back_end):
    """A cluster of one node that only routes, to one address that something else serves."""
    group = Group("g", "hot-hot", protocol=protocol, external={"m": back_end})
    cluster = Cluster(stage, [group], nodes=("a",)).start(cpu=PROXY_CPU)
    return cluster.process["a"].pid, cluster.listen["g"]["a"]


def _proxy(system, stage, mode, back_end):
    """Starts a proxy before `back_end`; its pid and address."""
    if system == "hotwarm":
        return _one_node(stage, mode, back_end)
    to = f"127.0.0.1:{port()}"
    if system == "nginx":
        # The connections to the back end are kept, as with the others.
        config = (
            f"upstream back {{ server {back_end}; keepalive 64; keepalive_requests 100000000; }} server {{ listen {to}; location / {{ "
            'proxy_pass http://back; proxy_http_version 1.1; proxy_set_header Connection ""; '
            "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; } }"
        )
        return peers.nginx(stage, config, name="proxy", cpu=PROXY_CPU)[1], to
    timeouts = peers.HAPROXY_PLAIN if mode == "http" else peers.HAPROXY_DEFAULTS
    extra = {"http": "option forwardfor", "tcp": ""}[mode]
    if system == "haproxy-splice":
        timeouts += "    option splice-auto\n"
    config = peers.haproxy_config(to, {"m": back_end}, timeouts, "", mode=mode, check="", threads=1, extra=extra)
    return peers.haproxy(stage, config, cpu=PROXY_CPU).pid, to


def http(system, number, seconds=5):
    """CPU per request: small replies over kept connections, as many as the proxy can."""
    del number
    with Stage(f"http-{system}") as stage:
        back_end = f"127.0.0.1:{port()}"
        peers.nginx(stage, f"server {{ listen {back_end}; location / {{ return 200 '{BODY}'; }} }}", name="back", cpu=OTHERS_CPU)
        pid, to = _proxy(system, stage, "http", back_end)
        wait_for(f"{system} to answer", lambda: (ask(to) or (0,))[0] == 200)
        _wrk(to, 1)
        before, begun = cpu_s(pid), time.monotonic()
        done = _wrk(to, seconds)
        used, took = cpu_s(pid) - before, time.monotonic() - begun
        if done["errors"]:
            raise RuntimeError(f"{system}: {done['errors']} requests failed under load")
        return {"us_per_request": used / done["requests"] * 1e6, "per_second": done["requests"] / took, "core_percent": used / took * 100}


def _wrk(to, seconds):
    argv = ["taskset", "-c", str(OTHERS_CPU), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", f"http://{to}/"]
    text = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=seconds + 30).stdout
    errors = [line for line in text.splitlines() if "Socket errors" in line or "Non-2xx" in line]
    line = next(line for line in text.splitlines() if "requests in" in line)
    return {"requests": int(line.split()[0]), "errors": "; ".join(errors)}


def bulk(system, number, mib=4096):
    """CPU per GiB: bytes from the back end to a client on four connections."""
    del number
    with Stage(f"bulk-{system}") as stage:
        back_end = f"127.0.0.1:{port()}"
        stage.start("back", [machine.LOAD, "bulk-serve", "--listen", back_end], cpu=OTHERS_CPU)
        pid, to = _proxy(system, stage, "tcp", back_end)
        wait_for(f"{system} to pass bytes", lambda: _bulk(to, 1))
        before = cpu_s(pid)
        done = _bulk(to, mib)
        used, gib = cpu_s(pid) - before, done["bytes"] / 2**30
        return {"s_per_gib": used / gib, "gib_per_second": gib / done["seconds"]}


def _bulk(to, mib):
    argv = ["taskset", "-c", str(OTHERS_CPU), machine.LOAD, "bulk-get", "--to", to, "--mib", str(mib)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120)
    return json.loads(done.stdout) if done.returncode == 0 else None


def idle(system, number, seconds=40, groups=10):
    """What a node costs when nobody asks it anything: ten groups of three members on three nodes."""
    del number
    with Stage(f"idle-{system}") as stage:
        if system == "hotwarm":
            modes = ["hot-hot" if n % 2 else "hot-warm" for n in range(groups)]
            cluster = Cluster(stage, [Group(f"g{n}", mode, "web") for n, mode in enumerate(modes)]).start().ready(5)
            pids = {node: process.pid for node, process in cluster.process.items()}
            guards = [pid for pid in holders(cluster.data("a")) if _is_guard(pid)]
        else:
            pids, guards = {"a": _idle_haproxy(stage, groups)}, []
        everything = list(pids.values()) + guards
        before, begun = {pid: cpu_s(pid) for pid in everything}, time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - begun
        if not all(alive(pid) for pid in everything):
            raise RuntimeError("a process died while nothing happened")
        percent = {pid: (cpu_s(pid) - before[pid]) / took * 100 for pid in everything}
        # The node that costs most: the leader of the log.
        worst = max(pids.values(), key=lambda pid: percent[pid])
        return {
            "core_percent": percent[worst],
            "rss_mib": max(rss_mib(pid)[0] for pid in pids.values()),
            "guards_core_percent": sum(percent[pid] for pid in guards),
            "guards_own_mib": sum(rss_mib(pid)[1] for pid in guards),
        }


def _is_guard(pid):
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().split(b"\0")[1:2] == [b"guard"]


def _idle_haproxy(stage, groups):
    """HAProxy with as many back ends, each member checked every second: what it does without leases, log and guards."""
    members = peers.Members(stage, "web").addresses
    text = "global\n    maxconn 4000\ndefaults\n    mode http\n" + peers.HAPROXY_DEFAULTS
    for number in range(groups):
        text += f"listen g{number}\n    bind 127.0.0.1:{port()}\n    option httpchk GET /healthz\n    default-server inter 1s\n"
        text += "".join(f"    server {name} {address} check\n" for name, address in members.items())
    process = peers.haproxy(stage, text)
    time.sleep(5)
    return process.pid


def log(system, number, seconds=5, clients=64, connections=8):
    """Writes per second of a replicated log: 256 bytes, three nodes on loopback, real syncs on one disk; as many connections for each."""
    del number
    with Stage(f"log-{system}") as stage:
        if system == "etcd":
            etcd = peers.Etcd(stage)
            to = etcd.client[wait_for("etcd's leader", etcd.leader)]
            argv = [machine.LOAD, "etcd", "--to", to]
        else:
            to = _log_nodes(stage, act_each=system == "hotwarm-each")
            argv = [machine.LOAD, "log-clients", "--to", to]
        argv = list(map(str, [*argv, "--clients", clients, "--connections", connections, "--bytes", 256]))
        wait_for("a first write", lambda: _json([*argv, "--seconds", "1"])["done"] > 0)
        done = _json([*argv, "--seconds", str(seconds)])
        if done["failed"]:
            raise RuntimeError(f"{system}: {done['failed']} writes failed")
        return {key: done[key] for key in ("per_second", "p50_ms", "p99_ms")}


def _log_nodes(stage, act_each):
    peer = [f"127.0.0.1:{port()}" for _ in range(3)]
    client = [f"127.0.0.1:{port()}" for _ in range(3)]
    for number in range(3):
        argv = [machine.LOAD, "log-node", "--id", number + 1, "--dir", stage.path(f"wal-{number}"), "--peers", ",".join(peer)]
        argv += ["--clients", client[number], "--act-each", int(act_each)]
        os.makedirs(stage.path(f"wal-{number}"))
        stage.start(f"log-{number}", argv)
    return client[0]


def _json(argv):
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120)
    return json.loads(done.stdout) if done.returncode == 0 else {"done": 0, "failed": 0}
