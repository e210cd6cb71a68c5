//! `rtlive tail`: what the running agent reads and computes, live.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use rtlive_core::selector::Selector;

use super::{Failure, ask_agent};
use crate::socket::Request;

/// Prints records of the selected series as JSON lines, until the agent stops or the reader goes.
///
/// # Errors
/// [`Failure::Usage`] for a filter that is none; [`Failure::Failed`] when no agent runs.
pub fn tail(paths: &[PathBuf], select: &str) -> Result<ExitCode, Failure> {
    let select: Selector = select.parse().map_err(|error| Failure::Usage(format!("{error}")))?;
    let mut out = std::io::stdout().lock();
    for line in ask_agent(paths, &Request::Tail { select })? {
        let line = line.map_err(Failure::at("read from the agent"))?;
        writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Failure::at("write to standard output"))?;
    }
    Ok(ExitCode::SUCCESS)
}
