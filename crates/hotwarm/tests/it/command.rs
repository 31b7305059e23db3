//! The command line as a person uses it on a cluster of a test: real processes, their exit code and what they print.
//!
//! Nobody is at the terminal, and nothing of this process's environment that steers hotwarm reaches them. Main path: [`Cluster::done`],
//! [`Cluster::refused`], [`Cluster::run`].

use std::process::{Command, Stdio};

use crate::cluster::Cluster;
use crate::members::HOTWARM;

/// What a command did.
pub(crate) struct Ran {
    pub(crate) exit: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// What in this process's environment would steer the program.
pub(crate) const STEERING: [&str; 6] =
    ["HOTWARM_NODE", "HOTWARM_CONFIG", "HOTWARM_API", "HOTWARM_API_TOKEN_FILE", "HOTWARM_API_CA", "HOTWARM_LOG"];

/// The program, without what this process's environment would tell it.
pub(crate) fn hotwarm() -> Command {
    let mut command = Command::new(HOTWARM);
    for name in STEERING {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

pub(crate) fn run(arguments: &[&str]) -> Ran {
    let output = hotwarm().args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { exit: output.status.code().expect("an exit code"), out: text(output.stdout), err: text(output.stderr) }
}

/// A command that is to be done; returns what it printed.
pub(crate) fn done(arguments: &[&str]) -> String {
    ended(arguments, run(arguments), 0).out
}

fn ended(arguments: &[&str], ran: Ran, exit: i32) -> Ran {
    assert_eq!(ran.exit, exit, "hotwarm {arguments:?}: {}{}", ran.out, ran.err);
    ran
}

impl Cluster {
    /// A command with the cluster's file, where `node` is, by the API of that node.
    pub(crate) fn run(&self, node: &str, arguments: &[&str]) -> Ran {
        self.run_plain(node, &[&["--api", self.client(node).url()], arguments].concat())
    }

    /// The same, without an address to ask.
    pub(crate) fn run_plain(&self, node: &str, arguments: &[&str]) -> Ran {
        let config = self.config(node).to_str().unwrap();
        self.on(node, || run(&[&["--config", config], arguments].concat()))
    }

    /// A command that is to be done; returns what it printed.
    pub(crate) fn done(&self, node: &str, arguments: &[&str]) -> String {
        ended(arguments, self.run(node, arguments), 0).out
    }

    /// A command that a rule is to refuse; returns what it said.
    pub(crate) fn refused(&self, node: &str, arguments: &[&str]) -> String {
        ended(arguments, self.run(node, arguments), 3).err
    }
}
