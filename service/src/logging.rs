//! Logs: for people on a terminal, one JSON object a line otherwise, always on standard error.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, fmt};

/// Starts logging for this process. `level` is a level (`info`) or a filter (`info,control_plane=debug`).
///
/// # Errors
/// `level` is neither, or logging was started already.
pub fn start(level: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(level)
        .map_err(|error| anyhow::anyhow!("log level {level:?}: {error}"))?;
    let started = if std::io::stderr().is_terminal() {
        fmt().with_env_filter(filter).with_writer(std::io::stderr).compact().try_init()
    } else {
        fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .json()
            .flatten_event(true)
            .try_init()
    };
    started.map_err(|error| anyhow::anyhow!("start logging: {error}"))
}
