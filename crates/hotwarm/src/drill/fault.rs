//! The faults themselves: signals to processes, a node cut off its peers. What lasts is undone when the drill ends (`hold`).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::{Command, Stdio};
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

impl Fault {
    /// As the command line says it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Freeze => "freeze",
            Self::NodeKill => "node-kill",
            Self::Cut => "cut",
        }
    }

    /// True for faults of a member, and not of a node.
    #[must_use]
    pub const fn is_of_member(self) -> bool {
        matches!(self, Self::Kill | Self::Freeze)
    }
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

/// True if a process of this machine is a member's program.
#[must_use]
pub fn is_member(pid: u32) -> bool {
    parent(pid).is_some_and(|guard| is_hotwarm(guard, "guard"))
}

/// True if this machine has the address: what it would send there it would send from there.
#[must_use]
pub fn is_ours(ip: IpAddr) -> bool {
    let any: IpAddr = if ip.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // Nothing is sent: the kernel only says how it would go.
    let from = UdpSocket::bind((any, 0)).and_then(|socket| socket.connect((ip, 9)).and_then(|()| socket.local_addr()));
    ip.is_loopback() || from.is_ok_and(|from| from.ip() == ip)
}

/// True if the process is no more, or only not waited for.
#[must_use]
pub fn is_dead(pid: u32) -> bool {
    matches!(state(pid), None | Some('Z' | 'X'))
}

/// What is dropped is told to the kernel's packet filter in a table of its own.
const TABLE: &str = "hotwarm_drill";

/// Drops every packet between this machine's node, which listens for its peers at `own`, and `peers`, in both directions and on the
/// connections of both sides. A table that is there already is replaced.
///
/// # Errors
/// nft is missing or refuses (it needs root); nothing is changed.
pub fn cut(own: SocketAddr, peers: &[SocketAddr]) -> io::Result<()> {
    let mut rules = format!(
        "add table inet {TABLE}\ndelete table inet {TABLE}\nadd table inet {TABLE}\n\
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
    nft(&rules)
}

/// Ends a cut, whoever made it; none is no error.
///
/// # Errors
/// It is not removed: says how to remove it by hand.
pub fn uncut() -> io::Result<()> {
    nft(&format!("add table inet {TABLE}\ndelete table inet {TABLE}\n"))
        .map_err(|error| io::Error::other(format!("the cut is not removed ({error}): run `nft delete table inet {TABLE}` as root")))
}

/// True if a cut is in force.
///
/// # Errors
/// nft is missing.
pub fn is_cut() -> io::Result<bool> {
    let mut list = Command::new("nft");
    list.args(["list", "table", "inet", TABLE]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(list.status().map_err(no_nft)?.success())
}

fn no_nft(error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::NotFound {
        return error;
    }
    io::Error::new(io::ErrorKind::NotFound, "the program `nft` is not there; install nftables")
}

fn nft(rules: &str) -> io::Result<()> {
    use std::io::Write;
    let mut nft = Command::new("nft");
    let mut child = nft.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(no_nft)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(rules.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    // The rest repeats the rules.
    Err(io::Error::other(said.lines().next().unwrap_or("nft says nothing").trim().to_owned()))
}
