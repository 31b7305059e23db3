//! The load generators of `bench/run`, and the driver of the control log that it measures. Each subcommand prints one line of JSON.
//!
//! Not part of the product and never installed. The main path: `main` -> one module a subcommand.

use std::process::ExitCode;

mod args;
mod bulk;
mod etcd;
mod log_clients;
mod log_node;
mod open;
mod reply;
mod tally;

use args::Args;

const USAGE: &str = "usage: hotwarm-load open|bulk-serve|bulk-get|log-node|log-clients|etcd [--KEY VALUE]...";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let outcome = Args::parse(words).and_then(|args| match command.as_str() {
        "open" => open::main(&args),
        "bulk-serve" => bulk::serve(&args),
        "bulk-get" => bulk::get(&args),
        "log-node" => log_node::main(&args),
        "log-clients" => log_clients::main(&args),
        "etcd" => etcd::main(&args),
        _ => anyhow::bail!("no subcommand {command:?}; {USAGE}"),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hotwarm-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}
