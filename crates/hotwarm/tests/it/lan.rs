//! Network namespaces for tests: one for each machine, and one for the switch that joins them, in which the clients are too.
//!
//! Nothing outside is touched and every test may use the same addresses: only the names are unique, and they tell which process made
//! them. It removes them when it is dropped, and what a killed test has left when the next begins. It needs root.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, test_kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const PREFIX: &str = "hwit";

/// Machines on a switch.
#[derive(Debug)]
pub(crate) struct Lan {
    id: String,
    names: Vec<&'static str>,
}

impl Lan {
    pub(crate) fn new(names: &[&'static str]) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        assert!(rustix::process::geteuid().is_root(), "network namespaces need root: run the tests as root");
        remove_left();
        let id = format!("{PREFIX}-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let lan = Self { id, names: names.to_vec() };
        lan.add_space("switch");
        ip(&format!("-n {} link add br0 type bridge forward_delay 0", lan.space("switch")));
        ip(&format!("-n {} addr add 10.0.0.254/24 dev br0", lan.space("switch")));
        ip(&format!("-n {} link set br0 up", lan.space("switch")));
        for name in names {
            let (space, switch) = (lan.space(name), lan.space("switch"));
            lan.add_space(name);
            ip(&format!("-n {switch} link add port-{name} type veth peer name eth0 netns {space}"));
            ip(&format!("-n {switch} link set port-{name} master br0 up"));
            ip(&format!("-n {space} addr add {}/24 dev eth0", lan.address(name)));
            ip(&format!("-n {space} link set eth0 up"));
        }
        lan
    }

    fn add_space(&self, name: &str) {
        ip(&format!("netns add {}", self.space(name)));
        ip(&format!("-n {} link set lo up", self.space(name)));
    }

    pub(crate) fn space(&self, name: &str) -> String {
        format!("{}-{name}", self.id)
    }

    pub(crate) fn address(&self, name: &str) -> IpAddr {
        let at = self.names.iter().position(|n| *n == name).expect("a machine of this network");
        IpAddr::V4(Ipv4Addr::new(10, 0, 0, u8::try_from(at).unwrap() + 1))
    }

    /// Runs `work` on a thread in the machine's network (`switch`: the clients'); what it starts stays there.
    pub(crate) fn on<T: Send>(&self, name: &str, work: impl FnOnce() -> T + Send) -> T {
        let space = File::open(format!("/run/netns/{}", self.space(name))).unwrap();
        let work = move || {
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may enter a network namespace");
            work()
        };
        std::thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Takes the machine's interface off the switch: nothing passes, in either direction.
    pub(crate) fn cut(&self, name: &str) {
        ip(&format!("-n {} link set port-{name} nomaster", self.space("switch")));
    }

    pub(crate) fn join(&self, name: &str) {
        ip(&format!("-n {} link set port-{name} master br0", self.space("switch")));
    }

    /// Drops all that comes to `to` from `from`; the other direction goes on.
    pub(crate) fn deafen(&self, to: &str, from: &str) {
        let (space, source) = (self.space(to), self.address(from));
        run("ip", &format!("netns exec {space} nft add table ip cut"));
        run("ip", &format!("netns exec {space} nft add chain ip cut in {{ type filter hook input priority 0 ; }}"));
        run("ip", &format!("netns exec {space} nft add rule ip cut in ip saddr {source} drop"));
    }

    /// Drops what comes to a port of `to`: it can call others, and cannot be called.
    pub(crate) fn block(&self, to: &str, port: u16) {
        let space = self.space(to);
        run("ip", &format!("netns exec {space} nft add table ip cut"));
        run("ip", &format!("netns exec {space} nft add chain ip cut in {{ type filter hook input priority 0 ; }}"));
        run("ip", &format!("netns exec {space} nft add rule ip cut in tcp dport {port} drop"));
    }

    /// Drops what `from` sends to a port of `to`: `to` can call `from`, and is not called by it.
    pub(crate) fn mute(&self, from: &str, to: &str, port: u16) {
        let (space, source) = (self.space(to), self.address(from));
        run("ip", &format!("netns exec {space} nft add table ip cut"));
        run("ip", &format!("netns exec {space} nft add chain ip cut in {{ type filter hook input priority 0 ; }}"));
        run("ip", &format!("netns exec {space} nft add rule ip cut in ip saddr {source} tcp dport {port} drop"));
    }

    /// Ends what [`Lan::deafen`], [`Lan::block`] and [`Lan::mute`] did to `to`.
    pub(crate) fn undeafen(&self, to: &str) {
        run("ip", &format!("netns exec {} nft flush ruleset", self.space(to)));
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for name in self.names.iter().copied().chain(["switch"]) {
            let _ = Command::new("ip").args(["netns", "del", &self.space(name)]).status();
        }
    }
}

/// Removes the namespaces of test processes that no longer are.
fn remove_left() {
    let listed = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    for name in listed.filter_map(|entry| entry.file_name().into_string().ok()) {
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1)).and_then(|pid| Pid::from_raw(pid.parse().ok()?));
        if maker.is_some_and(|pid| test_kill_process(pid).is_err()) {
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

fn ip(arguments: &str) {
    run("ip", arguments);
}

fn run(program: &str, arguments: &str) {
    let output = Command::new(program).args(arguments.split(' ')).output().unwrap_or_else(|error| panic!("{program}: {error}; run ./test"));
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}
