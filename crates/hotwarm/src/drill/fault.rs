//! The faults themselves: signals to processes, a node cut off its peers. What is done can be undone, and is when a drill ends.

use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process};

/// What is done to a running cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The member's program is killed.
    Kill,
    /// The member's program is stopped (SIGSTOP) without ending.
    Freeze,
    /// The node's agent, its guards and its members are killed at once, as a power cut would.
    NodeKill,
    /// No packet passes between the node and its peers.
    Cut,
}

/// Sends a signal to a process of this machine.
///
/// # Errors
/// It is not there, or not ours.
pub fn signal(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(kill_process(pid, signal)?)
}

/// A process and all that descends from it, children last.
#[must_use]
pub fn tree(root: u32) -> Vec<u32> {
    let mut all = vec![root];
    let mut next = 0;
    // Bounded by the number of processes: each is listed once, under its parent.
    while let Some(pid) = all.get(next).copied() {
        next += 1;
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for task in tasks {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    all
}

/// Kills a process and its descendants, each before what it could start anew: a power cut as nearly as signals can.
pub fn kill_tree(root: u32) {
    kill_trees([root]);
}

/// The same for several, all stopped before the first is killed.
pub fn kill_trees(roots: impl IntoIterator<Item = u32>) {
    let all: Vec<u32> = roots.into_iter().flat_map(tree).collect();
    for pid in &all {
        let _ = signal(*pid, Signal::STOP);
    }
    for pid in all {
        // Whoever is gone already needs no signal.
        let _ = signal(pid, Signal::KILL);
    }
}

/// Kills all that descends from this process, again until nothing is left or `within` has passed; this process must be their subreaper.
/// A guard's member is handed over only when the guard has ended, and then is found in the next round.
pub fn end_descendants(within: Duration) {
    let until = Instant::now() + within;
    loop {
        // A child that was stopped ends on this signal too.
        for pid in tree(std::process::id()).into_iter().skip(1) {
            let _ = signal(pid, Signal::KILL);
        }
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                // No child is left, and so no descendant: those of a dead one are ours.
                Err(_) => return,
            }
        }
        if Instant::now() > until {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What the kernel says a process does (`R`, `S`, `T`: stopped, `Z`: dead and not waited for); `None` if it is no more.
#[must_use]
pub fn state(pid: u32) -> Option<char> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it is in brackets and may hold anything.
    text.rsplit_once(") ")?.1.chars().next()
}

/// Whose child a process is.
#[must_use]
pub fn parent(pid: u32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// True if a process of this machine is hotwarm's `command` (`run`, `guard`).
#[must_use]
pub fn is_hotwarm(pid: u32, command: &str) -> bool {
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    arguments.split(|byte| *byte == 0).skip(1).any(|argument| argument == command.as_bytes())
}

/// True if the process is no more, or only not waited for.
#[must_use]
pub fn is_dead(pid: u32) -> bool {
    matches!(state(pid), None | Some('Z' | 'X'))
}

/// A command that undoes a fault: run when this is dropped, or when this process has ended, however that came about.
#[derive(Debug)]
struct Afterwards {
    command: String,
    shell: Option<Child>,
}

impl Afterwards {
    fn begin(command: String) -> io::Result<Self> {
        // Its standard input ends with this process. What ends this one by a signal to a whole group or session is not for it.
        let script = format!("trap '' HUP INT TERM; read _; {command}");
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let shell = Some(shell.spawn().map_err(|error| io::Error::new(error.kind(), format!("/bin/sh, which is to undo it: {error}")))?);
        Ok(Self { command, shell })
    }

    /// There is nothing to undo.
    fn cancel(mut self) -> io::Result<()> {
        let Some(mut shell) = self.shell.take() else { return Ok(()) };
        shell.kill()?;
        shell.wait().map(drop)
    }
}

impl Drop for Afterwards {
    fn drop(&mut self) {
        let Some(mut shell) = self.shell.take() else { return };
        drop(shell.stdin.take());
        if !shell.wait().is_ok_and(|status| status.success()) {
            eprintln!("what the drill did is not undone: run `{}`", self.command);
        }
    }
}

/// A process that is stopped; it goes on when this is dropped.
#[derive(Debug)]
pub struct Frozen {
    _goes_on: Afterwards,
}

impl Frozen {
    /// Stops a process.
    ///
    /// # Errors
    /// There is none of that number, or it is another user's.
    pub fn begin(pid: u32) -> io::Result<Self> {
        let goes_on = Afterwards::begin(format!("kill -CONT {pid} || :"))?;
        signal(pid, Signal::STOP)?;
        Ok(Self { _goes_on: goes_on })
    }
}

const TABLE: &str = "hotwarm_drill";

/// A node cut off; the cut ends when this is dropped.
#[derive(Debug)]
pub struct Cut {
    _is_joined: Afterwards,
}

impl Cut {
    /// Drops every packet between this machine's node, which listens for its peers at `own`, and `peers`, in both directions and on the
    /// connections of both sides.
    ///
    /// # Errors
    /// nft is missing or refuses (it needs root).
    pub fn begin(own: SocketAddr, peers: &[SocketAddr]) -> io::Result<Self> {
        let mut rules = format!(
            "add table inet {TABLE}\n\
             add chain inet {TABLE} in {{ type filter hook input priority 0; policy accept; }}\n\
             add chain inet {TABLE} out {{ type filter hook output priority 0; policy accept; }}\n"
        );
        let mut drop = |chain: &str, whose: &str, address: SocketAddr, port: &str| {
            let family = if address.is_ipv4() { "ip" } else { "ip6" };
            let (ip, number) = (address.ip(), address.port());
            rules.push_str(&format!("add rule inet {TABLE} {chain} {family} {whose} {ip} tcp {port} {number} drop\n"));
        };
        // What peers opened to us, and what we opened to each of them.
        drop("in", "daddr", own, "dport");
        drop("out", "saddr", own, "sport");
        for peer in peers {
            drop("in", "saddr", *peer, "sport");
            drop("out", "daddr", *peer, "dport");
        }
        let is_joined = Afterwards::begin(format!("nft delete table inet {TABLE}"))?;
        match nft(&rules) {
            Ok(()) => Ok(Self { _is_joined: is_joined }),
            Err(error) => {
                // What matters is why nothing was cut.
                let _ = is_joined.cancel();
                Err(error)
            }
        }
    }
}

fn nft(rules: &str) -> io::Result<()> {
    use std::io::Write;
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(rules.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
