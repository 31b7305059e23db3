//! The program `hotwarm`: hands each entry point its arguments, and nothing else.
//!
//! `guard` and `component` come before everything: they are processes of their own and must not pay for the rest.

use std::process::ExitCode;

use hotwarm::cli::{self, Failure, Global, RunArgs};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first() {
        Some((command, rest)) if command == "guard" => hotwarm::fence::guard::main(rest),
        Some((command, rest)) if command == "component" => hotwarm::component::main(rest),
        _ => cli::main(run),
    }
}

/// Runs a node until it is told to stop.
fn run(args: &RunArgs, global: &Global) -> Result<(), Failure> {
    let _ = (args, global);
    Err(Failure::plain(cli::Exit::Failed, "`run` is not built yet"))
}
