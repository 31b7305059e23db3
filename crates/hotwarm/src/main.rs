//! The program: wires the command line to the node. Nothing is decided here.

use std::process::ExitCode;

use hotwarm::cli::{self, Exit, Failure, Global, RunArgs};

fn main() -> ExitCode {
    cli::main(run)
}

/// Runs a node; not wired yet.
fn run(_args: &RunArgs, _global: &Global) -> Result<(), Failure> {
    Err(Failure::plain(Exit::Failed, "`run` is not built yet"))
}
