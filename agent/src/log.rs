//! The log: one line an event, to standard error.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt;

/// Starts the log. `RTLIVE_LOG` names the level (`off`, `error`, `warn`, `info`, `debug`, `trace`); `default` without it.
///
/// Under systemd the journal has its own times, so that lines carry none there.
pub fn start(default: LevelFilter) {
    let level = std::env::var("RTLIVE_LOG").ok().and_then(|level| level.parse().ok()).unwrap_or(default);
    let log = fmt().with_writer(std::io::stderr).with_max_level(level).with_target(false).with_ansi(false);
    // A log that nobody reads any more is no failure, and must not end the program.
    let log = log.log_internal_errors(false);
    // A second start (in tests) keeps the first log.
    let _ = if std::env::var_os("JOURNAL_STREAM").is_some() {
        tracing::subscriber::set_global_default(log.without_time().finish())
    } else {
        tracing::subscriber::set_global_default(log.finish())
    };
}
