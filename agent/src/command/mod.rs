//! The commands of the program, one file each, and what they share: configuration, exit codes, the way errors are told.

pub mod check;
pub mod decode;
#[cfg(feature = "demo")]
pub mod demo;
pub mod drivers;
pub mod reload;
pub mod replay;
pub mod run;
pub mod status;
pub mod store;
pub mod tail;
pub mod try_input;
pub mod version;

use std::error::Error;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use rtlive_config::mistake::Mistakes;
use rtlive_drivers::catalogue::Drivers;
use rtlive_drivers::input::Input;
pub(crate) use rtlive_drivers::input::told;

use crate::socket::{self, Request};

/// Wrong usage, or a configuration with mistakes (`EX_USAGE` of sysexits(3)); systemd does not restart on it.
const EXIT_USAGE: u8 = 64;

/// The configuration that this program runs on.
pub type Config = rtlive_config::Config<Box<dyn Input>>;

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

    /// The reader of our output went away (`rtlive tail | head`): no failure.
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

/// Tells the user why a command failed, and returns its exit code.
pub fn report(failure: &Failure) -> ExitCode {
    if failure.is_closed_pipe() {
        return ExitCode::SUCCESS;
    }
    tell(told(failure).trim_end());
    match failure {
        Failure::Mistakes(_) | Failure::Usage(_) => usage(),
        Failure::Failed { .. } => ExitCode::FAILURE,
    }
}

/// Tells something on standard error; unlike `eprintln!`, it does not panic when nobody reads it.
pub fn tell(text: impl Display) {
    // Where would a failure be told?
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints to standard output; unlike `print!`, it does not panic when the reader went away.
///
/// # Errors
/// [`Failure::Failed`] when it cannot be written.
pub fn print(text: impl Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    write!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::at("write to standard output"))
}

/// The exit code of wrong usage.
pub fn usage() -> ExitCode {
    ExitCode::from(EXIT_USAGE)
}

/// Reads and checks the configuration.
///
/// # Errors
/// [`Failure::Mistakes`] with all of them.
pub fn load(paths: &[PathBuf]) -> Result<Config, Failure> {
    rtlive_config::load(paths, &Drivers).map_err(Failure::Mistakes)
}

/// As [`load`], for the agent itself: its warnings go to the log.
///
/// # Errors
/// [`Failure::Mistakes`] with all of them.
fn load_to_run(paths: &[PathBuf]) -> Result<Config, Failure> {
    let config = load(paths)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    Ok(config)
}

/// Sends a request to the agent that runs on this configuration.
///
/// # Errors
/// [`Failure::Failed`] when no agent runs there, with the socket's path; [`Failure::Mistakes`] when the configuration does not tell
/// where that is.
pub fn ask_agent(
    paths: &[PathBuf],
    request: &Request,
) -> Result<impl Iterator<Item = io::Result<String>> + use<>, Failure> {
    let state_dir = rtlive_config::load::state_dir(paths).map_err(Failure::Mistakes)?;
    let path = socket::path(&state_dir);
    socket::request(&path, request).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => Failure::Failed {
            doing: format!("no agent runs on this configuration (nobody listens on {})", path.display()),
            source: error.into(),
        },
        _ => Failure::at(format!("ask the agent on {}", path.display()))(error),
    })
}

/// The only line of an answer.
fn only_line(mut lines: impl Iterator<Item = io::Result<String>>) -> Result<String, Failure> {
    match lines.next() {
        Some(line) => line.map_err(Failure::at("read from the agent")),
        None => Err(Failure::at("read from the agent")(io::Error::from(ErrorKind::UnexpectedEof))),
    }
}
