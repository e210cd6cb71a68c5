//! `rtlive status`: how the running agent stands.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Failure, ask_agent, print};
use crate::socket::Request;
use crate::status::Status;

/// Prints the status for people, or as one JSON object.
///
/// # Errors
/// [`Failure::Failed`] when no agent runs, or it stops meanwhile.
pub fn status(paths: &[PathBuf], json: bool) -> Result<ExitCode, Failure> {
    let line = super::only_line(ask_agent(paths, &Request::Status)?)?;
    if json {
        print(format_args!("{line}\n"))?;
    } else {
        let status: Status = serde_json::from_str(&line).map_err(Failure::at("read the agent's status"))?;
        print(status)?;
    }
    Ok(ExitCode::SUCCESS)
}
