"""What is measured beside hotwarm: HAProxy, nginx, etcd and keepalived, each with its defaults and, where it matters, tuned by hand.

Main path: one class or function a peer; each starts it on a stage.
"""

import json
import os

from . import machine
from .net import ask, port
from .procs import wait_for

# Debian's defaults (/etc/haproxy/haproxy.cfg), and checks as HAProxy does them when nothing is said: every 2 s, three failures.
HAPROXY_DEFAULTS = """
    timeout connect 5s
    timeout client 50s
    timeout server 50s
"""
HAPROXY_DEFAULT_SERVER = ""
# What an expert reaches. `timeout server` is what ends requests on a frozen member, and would end every honest answer slower than it too.
HAPROXY_TUNED = """
    timeout connect 200ms
    timeout client 50s
    timeout server 200ms
    retries 3
    option redispatch 1
    retry-on all-retryable-errors
"""
HAPROXY_TUNED_SERVER = (
    "default-server inter 100ms fastinter 50ms downinter 100ms fall 2 rise 2 observe layer4 error-limit 1 on-error mark-down"
)
# For proxying alone: nothing is checked, connections to the back end are kept.
HAPROXY_PLAIN = HAPROXY_DEFAULTS + "    http-reuse always\n"


def haproxy_config(listen, servers, timeouts, server_line, mode="http", check="check", backup=False, threads=None, extra=""):
    """`servers`: address by name; with `backup` all but the first only stand in for it."""
    lines = ["global", "    maxconn 4000"]
    if threads:
        lines.append(f"    nbthread {threads}")
    lines += ["defaults", f"    mode {mode}", timeouts.strip("\n"), "frontend front", f"    bind {listen}", "    default_backend back"]
    lines += ["backend back"]
    if check and mode == "http":
        lines.append("    option httpchk GET /healthz")
    if extra:
        lines.append(f"    {extra}")
    if server_line:
        lines.append(f"    {server_line}")
    for number, (name, address) in enumerate(servers.items()):
        lines.append(f"    server {name} {address} {check}{' backup' if backup and number else ''}")
    return "\n".join(lines) + "\n"


def haproxy(stage, config, name="haproxy", cpu=None, netns=None):
    path = stage.write(f"{name}.cfg", config)
    return stage.start(name, ["haproxy", "-db", "-f", path], cpu=cpu, netns=netns)


class Members:
    """hotwarm's components as plain processes, behind HAProxy; nobody restarts them."""

    def __init__(self, stage, component, names=("a", "b", "c")):
        self.addresses = {name: f"127.0.0.1:{port()}" for name in names}
        self.process = {}
        for name, address in self.addresses.items():
            argv = [machine.HOTWARM, "component", component, "--listen", address, "--name", name]
            self.process[name] = stage.start(f"member-{name}", argv)
        for address in self.addresses.values():
            wait_for(f"member at {address}", lambda a=address: ask(a))


def nginx(stage, config, name="nginx", cpu=None):
    """One worker process, in the foreground; gives the worker's pid too."""
    os.makedirs(stage.path(name), exist_ok=True)
    text = f"daemon off; worker_processes 1; pid {stage.path(name, 'pid')}; error_log {stage.path(name, 'error.log')} error;\n"
    temporary = " ".join(
        f"{kind}_temp_path {stage.path(name, kind)};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text += f"events {{ worker_connections 4096; }}\nhttp {{ access_log off; {temporary} keepalive_requests 100000000; {config} }}\n"
    process = stage.start(name, ["nginx", "-c", stage.write(f"{name}.conf", text), "-p", stage.path(name)], cpu=cpu)

    def worker():
        with open(f"/proc/{process.pid}/task/{process.pid}/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]

    return process, wait_for("nginx's worker", worker)[0]


class Etcd:
    """Three members on loopback, each with its own data directory on the same disk."""

    def __init__(self, stage, heartbeat_ms=100, election_ms=1000):
        names = ("e1", "e2", "e3")
        peer = {name: f"127.0.0.1:{port()}" for name in names}
        self.client = {name: f"127.0.0.1:{port()}" for name in names}
        self.process = {}
        cluster = ",".join(f"{name}=http://{address}" for name, address in peer.items())
        for name in names:
            argv = ["etcd", "--name", name, "--data-dir", stage.path(name), "--logger", "zap", "--log-level", "error"]
            argv += ["--listen-peer-urls", f"http://{peer[name]}", "--initial-advertise-peer-urls", f"http://{peer[name]}"]
            argv += ["--listen-client-urls", f"http://{self.client[name]}", "--advertise-client-urls", f"http://{self.client[name]}"]
            argv += ["--initial-cluster", cluster, "--initial-cluster-state", "new"]
            argv += ["--heartbeat-interval", heartbeat_ms, "--election-timeout", election_ms]
            self.process[name] = stage.start(f"etcd-{name}", argv)
        wait_for("etcd to take a write", lambda: self.put(self.client["e1"]), 30)

    # {"key": "bench", "value": "v"} in base64, as the gateway wants it.
    PUT = json.dumps({"key": "YmVuY2g=", "value": "dg=="})

    def put(self, address):
        answer = ask(address, "/v3/kv/put", "POST", body=self.PUT)
        return answer and answer[0] == 200

    def leader(self):
        """The name of the member that leads."""
        for name, address in self.client.items():
            answer = ask(address, "/v3/maintenance/status", "POST", body="{}")
            if answer and answer[0] == 200:
                status = json.loads(answer[1])
                if status["leader"] == status["header"]["member_id"]:
                    return name
        return None


def keepalived_config(me, priority, address, advert_s):
    """A virtual address that the node with the highest priority has."""
    return f"""
global_defs {{
    router_id {me}
    vrrp_version 3
    vrrp_garp_master_repeat 1
}}
vrrp_instance bench {{
    state BACKUP
    interface eth0
    virtual_router_id 51
    priority {priority}
    advert_int {advert_s}
    virtual_ipaddress {{ {address}/24 }}
}}
"""


