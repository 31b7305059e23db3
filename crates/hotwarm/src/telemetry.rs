//! The log on standard error: one line an event, for a person or (under systemd) for the journal.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts it. `HOTWARM_LOG` chooses what is told, as in `info` or `hotwarm::router=debug`; `info` by default.
pub fn start() {
    let filter = EnvFilter::try_from_env("HOTWARM_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // A second start (in tests) keeps the first.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour).with_target(false).try_init();
}
