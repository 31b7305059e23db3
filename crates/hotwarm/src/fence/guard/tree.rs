//! All descendants of a guard: finding and killing them (S5).
//!
//! It never signals a process that might have become somebody else's: a child not yet waited for keeps its number, and any deeper
//! descendant is checked through a descriptor before it is signalled. It reports nothing: only `wait` knows when the tree is empty.
//! Main path: [`kill_all`], called again and again until then.

use std::collections::BTreeSet;
use std::fs;

use rustix::process::{Pid, PidfdFlags, Signal, getpid, kill_process, pidfd_open, pidfd_send_signal};

/// Bound on one walk, against a tree that grows while it is walked; the next walk goes on.
const WALK_MAX: usize = 100_000;

/// Sends SIGKILL to every descendant of this process that one walk finds, however it has hidden: a daemon that forked twice and made
/// its own session has been handed to this process, the subreaper. Returns how many it found.
pub(super) fn kill_all() -> usize {
    walk(&mut |process| process.kill())
}

/// How many descendants there are now, without touching them.
pub(super) fn count() -> usize {
    walk(&mut |_| {})
}

struct Process {
    pid: Pid,
    parent: Pid,
    direct: bool,
}

impl Process {
    fn kill(&self) {
        if self.direct {
            // This process has not waited for it, so the number is still its own.
            let _ = kill_process(self.pid, Signal::KILL);
            return;
        }
        let Ok(fd) = pidfd_open(self.pid, PidfdFlags::empty()) else { return };
        // The number may have passed to a stranger since it was read; a stranger has another parent.
        if parent_of(self.pid) == Some(self.parent) {
            let _ = pidfd_send_signal(&fd, Signal::KILL);
        }
    }
}

fn walk(visit: &mut dyn FnMut(&Process)) -> usize {
    let me = getpid();
    let mut seen = BTreeSet::from([me.as_raw_nonzero()]);
    let mut queue = vec![me];
    while let Some(parent) = queue.pop() {
        for pid in children_of(parent) {
            if seen.len() <= WALK_MAX && seen.insert(pid.as_raw_nonzero()) {
                visit(&Process { pid, parent, direct: parent == me });
                queue.push(pid);
            }
        }
    }
    seen.len() - 1
}

fn children_of(pid: Pid) -> Vec<Pid> {
    let tasks = format!("/proc/{}/task", pid.as_raw_nonzero());
    let Ok(threads) = fs::read_dir(tasks) else { return Vec::new() };
    threads
        .flatten()
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| list.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect::<Vec<_>>())
        .collect()
}

fn parent_of(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The name in parentheses may itself hold parentheses and spaces: the fields begin after the last one.
    let parent = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?;
    Pid::from_raw(parent.parse().ok()?)
}
