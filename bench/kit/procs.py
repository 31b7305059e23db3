"""Processes: started by name, ended by pid, and never another's.

Main path: `Stage` starts them in a directory of its own and ends, when it is left, everything that was started in it: what it started
itself, and what those started, known by a file they hold open below that directory.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time

TICKS = os.sysconf("SC_CLK_TCK")
# On a disk, not in memory: syncs must be real.
ROOT = os.environ.get("HOTWARM_BENCH_DIR", "/var/tmp")


class Failed(Exception):
    """Something did not come to be in its time."""


def wait_for(what, test, seconds=30.0, every=0.01):
    """Waits until `test` gives something true, and gives it."""
    until = time.monotonic() + seconds
    while True:
        got = test()
        if got:
            return got
        if time.monotonic() > until:
            raise Failed(f"not within {seconds} s: {what}")
        time.sleep(every)


def holders(directory):
    """The processes that have a file below `directory` open."""
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        if pid == os.getpid():
            continue
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                try:
                    target = os.readlink(f"/proc/{pid}/fd/{fd}")
                except OSError:
                    continue
                if target.startswith(directory + "/"):
                    found.append(pid)
                    break
        except OSError:
            continue
    return found


def kill(pids, sig=signal.SIGKILL):
    for pid in pids:
        try:
            os.kill(pid, sig)
        except ProcessLookupError:
            pass


def cpu_s(pid):
    """CPU seconds, user and system, that a process has used (all its threads)."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_mib(pid):
    """Resident memory; the second figure is without what is shared with other processes (the program itself)."""
    values = {}
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key in ("VmRSS", "RssAnon"):
                values[key] = int(value.split()[0]) / 1024
    return values["VmRSS"], values["RssAnon"]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class Stage:
    """A directory, and everything that runs in it."""

    def __init__(self, name):
        self.dir = tempfile.mkdtemp(prefix=f"hotwarm-bench-{name}-", dir=ROOT)
        self.started = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def write(self, name, text, mode=0o644):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def start(self, name, argv, cpu=None, netns=None, first=False):
        """Starts a program; its output goes to `NAME.log`, which is also how what it starts is found again."""
        argv = list(map(str, argv))
        if first and os.geteuid() == 0:
            # Ahead of all others on the processors: what measures must not be late because what is measured works.
            argv = ["chrt", "--fifo", "10"] + argv
        if cpu is not None:
            argv = ["taskset", "-c", str(cpu)] + argv
        if netns is not None:
            argv = ["ip", "netns", "exec", netns] + argv
        with open(self.path(f"{name}.log"), "ab") as log:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self.started.append(process)
        return process

    def log(self, name):
        with open(self.path(f"{name}.log"), encoding="utf-8", errors="replace") as file:
            return file.read()

    def end(self):
        for sig in (signal.SIGCONT, signal.SIGKILL):
            kill([p.pid for p in self.started if p.poll() is None], sig)
        for process in self.started:
            process.wait(10)
        for _ in range(50):
            left = holders(self.dir)
            if not left:
                break
            kill(left, signal.SIGCONT)
            kill(left)
            time.sleep(0.02)
        if not os.environ.get("HOTWARM_BENCH_KEEP"):
            shutil.rmtree(self.dir, ignore_errors=True)
