"""The table of cases: what is measured beside what, and what is to be reached.

Main path: `CASES`, which `bench/run` goes through in order.
"""

import signal
from dataclasses import dataclass, field
from statistics import median
from typing import Callable

from . import failover, proxy


@dataclass
class Case:
    key: str
    title: str
    reach: str
    # What the systems are called, hotwarm first; `run(system, number)` makes one run of one of them.
    systems: list
    run: Callable
    # The figures to show: (key, unit, decimals).
    show: list
    # (what, measured(runs of all systems), limit): a verdict is `measured <= limit`.
    limits: list
    # The figure whose ratio to each peer is told; smaller is better unless `more_is_better`.
    ratio: str
    more_is_better: bool = False
    # Systems that take long and never vary much are run this often at most.
    at_most: dict = field(default_factory=dict)
    # About how long one run of each system takes: for the estimate of what is left.
    seconds: dict = field(default_factory=dict)
    note: str = ""


def mid(runs, system, key):
    return median(run[key] for run in runs[system])


def total(runs, system, key):
    return sum(run[key] for run in runs[system])


def _none_failed():
    return ("requests failed, all runs", lambda runs: total(runs, "hotwarm", "failed"), 0)


def _at_most(what, key, limit):
    return (what, lambda runs: mid(runs, "hotwarm", key), limit)


def _over(what, key, peer, limit):
    return (what, lambda runs: mid(runs, "hotwarm", key) / mid(runs, peer, key), limit)


def _three_times_etcd(runs):
    return 3 * mid(runs, "etcd", "per_second") / mid(runs, "hotwarm", "per_second")


SEEN = [("failed", "", 0), ("gap_ms", "ms", 1), ("longest_ms", "ms", 1), ("failing_ms", "ms", 0)]
HAPROXY = ["hotwarm", "haproxy-tuned", "haproxy"]


def _member(component, sig):
    return lambda system, number: failover.member_fault(system, component, sig, number)


CASES = [
    Case(
        "1-kill-hot-hot",
        "kill -9 of a hot member, hot-hot HTTP, 400 req/s open loop",
        "0 failed, no request over 20 ms",
        HAPROXY,
        _member("web", signal.SIGKILL),
        SEEN,
        [_none_failed(), _at_most("longest request, ms", "longest_ms", 20)],
        "longest_ms",
        at_most={"haproxy": 3},
        seconds={"hotwarm": 8, "haproxy-tuned": 7, "haproxy": 11},
    ),
    Case(
        "2-freeze-hot-hot",
        "SIGSTOP of a hot member, hot-hot HTTP, same load",
        "0 failed, no request over 300 ms",
        HAPROXY,
        _member("web", signal.SIGSTOP),
        SEEN,
        [_none_failed(), _at_most("longest request, ms", "longest_ms", 300)],
        "longest_ms",
        at_most={"haproxy": 3},
        seconds={"hotwarm": 8, "haproxy-tuned": 7, "haproxy": 17},
    ),
    Case(
        "3-kill-hot-warm",
        "kill -9 of the hot member, hot-warm HTTP",
        "0 failed, pause 50 ms or less",
        HAPROXY,
        _member("clock", signal.SIGKILL),
        SEEN,
        [_none_failed(), _at_most("pause, ms", "gap_ms", 50)],
        "gap_ms",
        at_most={"haproxy": 3},
        seconds={"hotwarm": 8, "haproxy-tuned": 7, "haproxy": 11},
        note="HAProxy with `backup` servers; it does not keep two from serving at once.",
    ),
    Case(
        "4-freeze-hot-warm",
        "SIGSTOP of the hot member, hot-warm HTTP",
        "0 failed, pause 1.2 s or less",
        HAPROXY,
        _member("clock", signal.SIGSTOP),
        SEEN,
        [_none_failed(), _at_most("pause, ms", "gap_ms", 1200)],
        "gap_ms",
        at_most={"haproxy": 3},
        seconds={"hotwarm": 8, "haproxy-tuned": 7, "haproxy": 17},
        note="HAProxy fences nobody: its frozen member wakes up and believes that it serves. hotwarm's pause is the time to fence it.",
    ),
    Case(
        "5a-node-kill",
        "a node is killed on loopback: leader of the log and hot member, with guards",
        "pause 1.5 s or less",
        ["hotwarm"],
        failover.node_kill,
        SEEN,
        [_none_failed(), _at_most("pause, ms", "gap_ms", 1500)],
        "gap_ms",
        seconds={"hotwarm": 9},
    ),
    Case(
        "5b-node-kill-netns",
        "the same in network namespaces, mutual TLS",
        "pause 1.5 s or less",
        ["hotwarm", "keepalived-0.1s", "keepalived"],
        lambda system, number: failover.node_fault(system, "kill", number),
        SEEN,
        [_none_failed(), _at_most("pause, ms", "gap_ms", 1500)],
        "gap_ms",
        at_most={"keepalived": 5},
        seconds={"hotwarm": 12, "keepalived-0.1s": 9, "keepalived": 14},
        note="keepalived without quorum and with advert_int 0.1 s, and at its default of 1 s; HAProxy tuned by hand behind it.",
    ),
    Case(
        "5c-node-cut-netns",
        "the same node cut off: its interface taken off the bridge",
        "pause 1.5 s or less",
        ["hotwarm", "keepalived-0.1s", "keepalived"],
        lambda system, number: failover.node_fault(system, "cut", number),
        SEEN,
        [_none_failed(), _at_most("pause, ms", "gap_ms", 1500)],
        "gap_ms",
        at_most={"keepalived": 5},
        seconds={"hotwarm": 12, "keepalived-0.1s": 9, "keepalived": 14},
        note="The cut-off keepalived node keeps its address: two serve.",
    ),
    Case(
        "6-leader-kill",
        "the leader of the log killed, nothing else",
        "no effect on traffic, 300 ms to the next decision",
        ["hotwarm", "etcd-tuned", "etcd"],
        failover.leader_kill,
        [("decision_ms", "ms", 0), ("decisions_failed", "", 0), ("failed", "", 0), ("longest_ms", "ms", 1)],
        [
            _none_failed(),
            _at_most("longest request of the traffic, ms", "longest_ms", 20),
            _at_most("to the next decision, ms", "decision_ms", 300),
        ],
        "decision_ms",
        seconds={"hotwarm": 8, "etcd-tuned": 9, "etcd": 9},
        note="Decisions of hotwarm are commands to another node's API, of etcd puts to another member, 100 a second. "
        "etcd at 100/1000 ms (default) and 20/200 ms.",
    ),
    Case(
        "7-http-cpu",
        f"HTTP proxy: kept connections, 200-byte replies, {proxy.CONNECTIONS} connections, one core",
        "CPU per request 1.0x HAProxy's or less",
        ["hotwarm", "haproxy", "nginx"],
        proxy.http,
        [("us_per_request", "us", 1), ("per_second", "/s", 0), ("core_percent", "%", 0)],
        [_over("CPU per request over HAProxy's", "us_per_request", "haproxy", 1.0)],
        "us_per_request",
        seconds={"hotwarm": 8, "haproxy": 8, "nginx": 8},
    ),
    Case(
        "8-tcp-bulk",
        "TCP proxy: bulk on four connections, one core",
        "CPU per GiB 0.6x HAProxy's or less",
        ["hotwarm", "haproxy", "haproxy-splice"],
        proxy.bulk,
        [("s_per_gib", "s", 2), ("gib_per_second", "GiB/s", 2)],
        [_over("CPU per GiB over HAProxy's", "s_per_gib", "haproxy", 0.6)],
        "s_per_gib",
        seconds={"hotwarm": 5, "haproxy": 11, "haproxy-splice": 8},
        note="HAProxy as it is by default, and with `option splice-auto`.",
    ),
    Case(
        "9-idle",
        "idle node with 10 groups of 3 members",
        "under 1 % of a core, under 60 MiB",
        ["hotwarm", "haproxy"],
        proxy.idle,
        [("core_percent", "%", 2), ("rss_mib", "MiB", 1), ("guards_core_percent", "%", 2), ("guards_own_mib", "MiB", 1)],
        [_at_most("% of a core", "core_percent", 1.0), _at_most("MiB", "rss_mib", 60)],
        "core_percent",
        at_most={"haproxy": 2, "hotwarm": 3},
        seconds={"hotwarm": 52, "haproxy": 46},
        note="The busiest of the three nodes. HAProxy checks as many members every second and does nothing else.",
    ),
    Case(
        "10-log",
        "control log: 256-byte inputs, 3 nodes, 64 clients on 8 connections",
        "3x etcd's writes per second",
        ["hotwarm", "etcd", "hotwarm-each"],
        proxy.log,
        [("per_second", "/s", 0), ("p50_ms", "ms", 1), ("p99_ms", "ms", 1)],
        [("three times etcd's writes per second over hotwarm's", _three_times_etcd, 1.0)],
        "per_second",
        more_is_better=True,
        at_most={"hotwarm-each": 3},
        seconds={"hotwarm": 8, "etcd": 9, "hotwarm-each": 8},
        note="hotwarm's replica, write-ahead log and transport, driven as the node is: inputs that come together are one entry; its own frames. "
        "etcd over gRPC, with as many clients on as many connections. `hotwarm-each` makes an entry of each input and takes the work out after "
        "it.",
    ),
]
