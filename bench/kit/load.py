"""Load, and what a client saw of a fault.

Main path: `Load` starts an open-loop load; `Load.seen` reads what became of each request and measures around the fault.
"""

import json
import time

from . import machine


class Load:
    """An open-loop HTTP load that runs for `seconds`."""

    def __init__(self, stage, to, seconds, rate=400, timeout_ms=1000, name="load", netns=None, **more):
        argv = [machine.LOAD, "open", "--to", to, "--rate", rate, "--seconds", seconds, "--timeout-ms", timeout_ms]
        for key, value in more.items():
            argv += [f"--{key.replace('_', '-')}", value]
        self.stage, self.name = stage, name
        self.process = stage.start(name, argv, first=True, netns=netns)
        self.patience = seconds + timeout_ms / 1000 + 10

    def seen(self, fault_ns):
        """What a client saw of a fault at `fault_ns` (CLOCK_MONOTONIC)."""
        self.process.wait(self.patience)
        data = json.loads(self.stage.log(self.name).splitlines()[-1])
        start = data["start_ns"]
        requests = [(start + due * 1000, latency * 1000, outcome) for due, latency, outcome in data["requests"]]
        failed = [r for r in requests if r[2] != "ok"]
        before = [r for r in failed if r[0] < fault_ns - 1_000_000_000]
        kinds = {}
        for request in failed:
            kinds[request[2]] = kinds.get(request[2], 0) + 1
        ends = sorted(due + latency for due, latency, outcome in requests if outcome == "ok")
        # From the last success before the fault to the end of the load: a service that never comes back has a gap to the end.
        after = [t for t in ends if t >= fault_ns]
        edge = ([t for t in ends if t < fault_ns][-1:] or [fault_ns]) + after + [max(due for due, _, _ in requests)]
        gap = max((b - a for a, b in zip(edge, edge[1:])), default=0)
        longest = max((latency for due, latency, outcome in requests if outcome == "ok" and due + latency >= fault_ns), default=0)
        last_failed = max((due for due, _, _ in failed), default=fault_ns)
        return {
            "requests": len(requests),
            "failed": len(failed),
            "kinds": kinds,
            "failed_before": len(before),
            "gap_ms": gap / 1e6,
            "longest_ms": longest / 1e6,
            # From the fault to the last request that was sent and failed.
            "failing_ms": max(0, last_failed - fault_ns) / 1e6 if failed else 0.0,
            "late_ms": data["late_ms_max"],
        }


def now_ns():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)
