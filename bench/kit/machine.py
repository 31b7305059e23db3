"""The machine: installs what is missing, builds, and says what it is.

Main path: `prepare`, `describe`.
"""

import os
import platform
import subprocess
import sys

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_TARGET = os.environ.get("CARGO_TARGET_DIR", os.path.join(TREE, "target"))
HOTWARM = os.path.join(_TARGET, "release", "hotwarm")
LOAD = os.path.join(_TARGET, "release", "hotwarm-load")

# By package: what is measured beside hotwarm, and what measures.
PACKAGES = {
    "haproxy": "/usr/sbin/haproxy",
    "nginx-light": "/usr/sbin/nginx",
    "wrk": "/usr/bin/wrk",
    "etcd-server": "/usr/bin/etcd",
    "keepalived": "/usr/sbin/keepalived",
    "iproute2": "/usr/sbin/ip",
    "curl": "/usr/bin/curl",
    "procps": "/usr/bin/ps",
}


def note(text):
    print(text, file=sys.stderr, flush=True)


def prepare(build=True):
    """Installs the peers that are missing and builds the release."""
    missing = [package for package, program in PACKAGES.items() if not os.path.exists(program)]
    if missing:
        note(f"installing what is measured beside hotwarm: {' '.join(missing)}")
        sudo = [] if os.geteuid() == 0 else ["sudo"]
        # No service may start by being installed.
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        subprocess.run([*sudo, "apt-get", "update", "-qq"], check=True, stdout=sys.stderr)
        install = [*sudo, "apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
        subprocess.run(install, check=True, env=environment, stdout=sys.stderr)
    if build:
        subprocess.run(["cargo", "build", "--release", "--locked", "-p", "hotwarm", "-p", "hotwarm-load"], check=True, cwd=TREE)
    for program in (HOTWARM, LOAD):
        if not os.path.exists(program):
            sys.exit(f"{program} is not there: run without --no-build")


def _output(argv):
    try:
        done = subprocess.run(argv, check=False, capture_output=True, text=True, cwd=TREE)
    except OSError:
        return ""
    return (done.stdout + done.stderr).strip()


def describe():
    """What the figures depend on."""
    model = ""
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = int(file.readline().split()[1]) // 1024 // 1024
    with open("/etc/os-release", encoding="utf-8") as file:
        system = next(line.split("=", 1)[1].strip().strip('"') for line in file if line.startswith("PRETTY_NAME="))
    versions = {
        "hotwarm": _output(["git", "describe", "--always", "--dirty"]),
        "haproxy": _output(["haproxy", "-v"]).split("\n")[0].split()[2],
        "nginx": _output(["nginx", "-v"]).rsplit("/", 1)[-1],
        "etcd": _output(["etcd", "--version"]).split("\n")[0].rsplit(" ", 1)[-1],
        "keepalived": _output(["keepalived", "--version"]).split("\n")[0].split()[1],
    }
    return {
        "cores": os.cpu_count(),
        "cpu": model,
        "memory_gib": memory,
        "system": system,
        "kernel": platform.release(),
        "versions": versions,
        "load_before": os.getloadavg()[0],
    }
