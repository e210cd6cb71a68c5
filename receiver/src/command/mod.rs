//! The commands of the program, one file each, and what they share: exit codes, the log, the way errors are told.

pub mod check;
pub mod compact;
pub mod completeness;
pub mod run;

use std::error::Error;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use rtlive_config::mistake::Mistakes;
use tracing::level_filters::LevelFilter;

use crate::told::told;

/// Wrong usage, or a configuration with mistakes (`EX_USAGE` of sysexits(3)); systemd does not restart on it.
const EXIT_USAGE: u8 = 64;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration has mistakes; exit 64.
    #[error("{0}")]
    Mistakes(Mistakes),
    /// The command line asks for something that is not there; exit 64.
    #[error("{0}")]
    Usage(String),
    /// Something went wrong; exit 1.
    #[error("{doing}")]
    Failed {
        /// The operation and its object.
        doing: String,
        /// What was wrong.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl Failure {
    /// Something went wrong at `doing`.
    pub fn at<E: Into<Box<dyn Error + Send + Sync>>>(doing: impl Display) -> impl FnOnce(E) -> Self {
        move |source| Self::Failed { doing: doing.to_string(), source: source.into() }
    }

    /// The reader of our output went away (`rtlive-receiver read | head`): no failure.
    fn is_closed_pipe(&self) -> bool {
        let mut source = self.source();
        while let Some(error) = source {
            if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe) {
                return true;
            }
            source = error.source();
        }
        false
    }
}

/// The exit code of what a command came to; a failure is told on standard error.
pub fn end(result: Result<(), Failure>) -> ExitCode {
    let Err(failure) = result else { return ExitCode::SUCCESS };
    if failure.is_closed_pipe() {
        return ExitCode::SUCCESS;
    }
    // Where would a failure be told?
    let _ = writeln!(io::stderr(), "{}", told(&failure).trim_end());
    match failure {
        Failure::Mistakes(_) | Failure::Usage(_) => ExitCode::from(EXIT_USAGE),
        Failure::Failed { .. } => ExitCode::FAILURE,
    }
}

/// Prints to standard output; unlike `print!`, it does not panic when the reader went away.
///
/// # Errors
/// [`Failure::Failed`] when it cannot be written.
pub fn print(text: impl Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    write!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::at("write to standard output"))
}

/// Prints the version.
///
/// # Errors
/// As [`print()`].
pub fn version() -> Result<(), Failure> {
    print(format_args!("rtlive-receiver {}\n", env!("CARGO_PKG_VERSION")))
}

/// Starts the log: one line an event, to standard error. `RTLIVE_LOG` names the level; `info` without it. Under systemd the journal has its own times.
fn start_log() {
    let level = std::env::var("RTLIVE_LOG").ok().and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::INFO);
    let log = tracing_subscriber::fmt().with_writer(io::stderr).with_max_level(level);
    // A log that nobody reads any more is no failure, and must not end the program.
    let log = log.with_target(false).with_ansi(false).log_internal_errors(false);
    // A second start (in tests) keeps the first log.
    let _ = if std::env::var_os("JOURNAL_STREAM").is_some() {
        tracing::subscriber::set_global_default(log.without_time().finish())
    } else {
        tracing::subscriber::set_global_default(log.finish())
    };
}
