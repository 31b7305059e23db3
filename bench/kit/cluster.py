"""A cluster of hotwarm nodes: on loopback, or one in each namespace of a `Network`.

Main path: `Cluster(stage, groups)` -> `start` -> `ready`; then `member`, `node_processes` and `leader` say whom to hurt.
"""

import json
import os
import subprocess
import time

from . import machine
from .net import ask, port
from .procs import Failed, holders, wait_for

NODES = ("a", "b", "c")


class Group:
    """A group as the benchmark wants it: a component of hotwarm's own on every node, or addresses that something else serves."""

    def __init__(self, name, mode, component=None, protocol="http", external=None, extra="", priority=None, members=NODES):
        self.name, self.mode, self.component, self.protocol = name, mode, component, protocol
        self.external, self.extra, self.priority, self.names = external, extra, priority or {}, members


class Cluster:
    def __init__(self, stage, groups, nodes=NODES, network=None):
        self.stage, self.groups, self.nodes, self.network = stage, groups, nodes, network
        ip = network.addresses if network else {node: "127.0.0.1" for node in nodes}
        self.peers = {node: f"{ip[node]}:{7400 if network else port()}" for node in nodes}
        self.api = {node: f"127.0.0.1:{7401 if network else port()}" for node in nodes}
        self.listen, self.members = {}, {}
        for group in groups:
            self.listen[group.name] = {node: f"{ip[node]}:{port()}" for node in nodes}
            self.members[group.name] = group.external or {node: f"{ip[node]}:{port()}" for node in group.names}
        self.process = {}

    def data(self, node):
        return self.stage.path(f"data-{node}")

    def _table(self, table):
        return "{ " + ", ".join(f'{key} = "{value}"' for key, value in table.items()) + " }"

    def _group(self, group):
        members = {}
        for number, (name, address) in enumerate(self.members[group.name].items()):
            node = name if name in self.nodes else self.nodes[number % len(self.nodes)]
            members[name] = f'{{ node = "{node}", address = "{address}", priority = {group.priority.get(name, 0)} }}'
        text = [
            f"[group.{group.name}]",
            f'mode = "{group.mode}"',
            f"listen = {self._table(self.listen[group.name])}",
            f'protocol = "{group.protocol}"',
            "members = { " + ", ".join(f"{name} = {what}" for name, what in members.items()) + " }",
        ]
        if group.external:
            text.append('engine = "external"')
        else:
            text.append(f'engine = {{ process = ["{machine.HOTWARM}", "component", "{group.component}"] }}')
        if group.protocol == "http" and not group.external:
            text.append('check = { http = "/healthz" }')
        return "\n".join([*text, group.extra, ""])

    def config(self):
        text = ["[cluster]", 'name = "bench"', f"nodes = {self._table(self.peers)}", ""]
        for node in self.nodes:
            text += [f"[node.{node}]", f'data = "{self.data(node)}"', f'api = "{self.api[node]}"', ""]
        return "\n".join(text + [self._group(group) for group in self.groups])

    def start(self, cpu=None):
        path = self.stage.write("hotwarm.toml", self.config())
        if self.network:
            self._certificates()
        for node in self.nodes:
            os.makedirs(self.data(node), mode=0o700, exist_ok=True)
        if not self.network:
            self.stage.write(f"data-{self.nodes[0]}/bootstrap", "bench\n", 0o600)
        for node in self.nodes:
            argv = [machine.HOTWARM, "run", "--config", path, "--node", node]
            netns = self.network.netns(node) if self.network else None
            self.process[node] = self.stage.start(f"node-{node}", argv, cpu=cpu, netns=netns)
        return self

    def _certificates(self):
        """As a user gets them: `init`, then `join` with each node's file."""
        nodes = ",".join(f"{node}={address}" for node, address in self.peers.items())
        init = [machine.HOTWARM, "init", "bench", "--nodes", nodes, "--dir", self.stage.dir]
        subprocess.run(init, check=True, capture_output=True)
        for node in self.nodes:
            root = self.stage.path(f"root-{node}")
            join = [machine.HOTWARM, "join", self.stage.path("bench", f"{node}.join"), "--root", root]
            subprocess.run(join, check=True, capture_output=True)
            # The nodes share one machine, so each one's data is where its configuration says, not in /var/lib.
            os.rename(os.path.join(root, "var/lib/hotwarm"), self.data(node))

    def ask(self, node, address, path="/"):
        """A question asked from where `node` is; its body, or None."""
        if self.network:
            return self.network.ask(node, address, path)
        answer = ask(address, path)
        return answer[1] if answer and answer[0] == 200 else None

    def ready(self, settle_s=2.0):
        """Every node's listener of every group answers, every member runs, and it stays so for a moment."""
        for group in self.groups:
            if group.protocol == "http":
                for node in self.nodes:
                    wait_for(f"{group.name} at {node}", lambda g=group, n=node: self.ask(n, self.listen[g.name][n]), every=0.05)
            if not group.external:
                for name, address in self.members[group.name].items():
                    wait_for(f"member {group.name}/{name}", lambda n=name, a=address: self.ask(n, a), every=0.05)
        # Failure detectors know a peer after some heartbeats; a fault in the first second is another case than the one measured.
        wait_for("a leader", self.leader)
        time.sleep(settle_s)
        return self

    def member(self, group, name):
        """What a member says of itself: `name`, `pid`, `role`."""
        answer = self.ask(name, self.members[group][name])
        if not answer:
            raise Failed(f"{group}/{name} does not answer")
        return json.loads(answer)

    def hot(self, group):
        """The member that answers through the routers of a group with one hot member."""
        node = self.nodes[-1]
        name = json.loads(wait_for("an answer", lambda: self.ask(node, self.listen[group][node])))["name"]
        return name.rpartition("/")[2]

    def node_processes(self, node):
        """The agent of a node, its guards and its members."""
        return holders(self.data(node))

    def leader(self):
        """The node that leads the control log, as one of them says."""
        for node in self.nodes:
            answer = self.ask(node, self.api[node], "/api/v1/status")
            if answer and json.loads(answer)["cluster"]["leader"]:
                return json.loads(answer)["cluster"]["leader"]
        return None
