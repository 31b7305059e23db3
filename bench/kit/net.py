"""Ports, small HTTP questions, and a little network of namespaces whose links can be cut.

Main path: `port`, `ask`; `Network` for cases beyond loopback.
"""

import http.client
import json
import socket
import subprocess

# Below the range that outgoing connections take their ports from.
_next_port = 12000


def port():
    """A port that this run has not used, and nobody else has now."""
    global _next_port
    while True:
        _next_port = 12000 if _next_port > 32000 else _next_port + 1
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", _next_port))
                return _next_port
            except OSError:
                continue


def ask(address, path="/", method="GET", timeout=1.0, body=None):
    """Status and body, or None when there is no answer."""
    host, _, number = address.rpartition(":")
    try:
        connection = http.client.HTTPConnection(host, int(number), timeout=timeout)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        connection.request(method, path, body=body, headers=headers)
        reply = connection.getresponse()
        answer = reply.status, reply.read().decode("utf-8", "replace")
        connection.close()
        return answer
    except (OSError, http.client.HTTPException):
        return None


def ask_json(address, path="/"):
    answer = ask(address, path)
    if not answer or answer[0] != 200:
        return None
    try:
        return json.loads(answer[1])
    except ValueError:
        return None


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Network:
    """Namespaces `hwb-NAME` with the addresses 10.77.0.1, .2, ... on a bridge in a namespace of its own."""

    def __init__(self, names):
        self.names = names
        self.addresses = {name: f"10.77.0.{number}" for number, name in enumerate(names, 1)}

    def __enter__(self):
        self.remove()
        ip("netns", "add", "hwb-bridge")
        ip("-n", "hwb-bridge", "link", "add", "br0", "type", "bridge")
        ip("-n", "hwb-bridge", "link", "set", "br0", "up")
        for name in self.names:
            ip("netns", "add", f"hwb-{name}")
            ip("-n", f"hwb-{name}", "link", "set", "lo", "up")
            ip("link", "add", "eth0", "netns", f"hwb-{name}", "type", "veth", "peer", "name", f"p-{name}", "netns", "hwb-bridge")
            ip("-n", f"hwb-{name}", "address", "add", f"{self.addresses[name]}/24", "dev", "eth0")
            ip("-n", f"hwb-{name}", "link", "set", "eth0", "up")
            ip("-n", "hwb-bridge", "link", "set", f"p-{name}", "up", "master", "br0")
        return self

    def __exit__(self, *_):
        self.remove()

    def remove(self):
        for name in [*self.names, "bridge"]:
            subprocess.run(["ip", "netns", "del", f"hwb-{name}"], check=False, capture_output=True)

    @staticmethod
    def netns(name):
        return f"hwb-{name}"

    @staticmethod
    def cut(name):
        """Takes a node's interface off the bridge: silent, both ways."""
        ip("-n", "hwb-bridge", "link", "set", f"p-{name}", "nomaster")

    def ask(self, name, address, path="/"):
        """A question asked from within a namespace."""
        argv = ["ip", "netns", "exec", self.netns(name), "curl", "-s", "-m", "1", "-f", f"http://{address}{path}"]
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        return done.stdout if done.returncode == 0 else None
