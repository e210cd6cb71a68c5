//! `rtlive reload`: SIGHUP with the verdict.

use std::path::PathBuf;
use std::process::ExitCode;

use super::{Failure, ask_agent, print, tell, usage};
use crate::socket::{Request, Verdict};

/// Asks the running agent to reload, and prints what came of it; exit 64 when the configuration has mistakes (the agent goes on with
/// the one it has).
///
/// # Errors
/// [`Failure::Failed`] when no agent runs, or it stops meanwhile.
pub fn reload(paths: &[PathBuf]) -> Result<ExitCode, Failure> {
    let line = super::only_line(ask_agent(paths, &Request::Reload)?)?;
    let verdict: Verdict = serde_json::from_str(&line).map_err(Failure::at("read the agent's verdict"))?;
    if verdict.taken {
        print(format_args!("{}\n", verdict.text))?;
        return Ok(ExitCode::SUCCESS);
    }
    tell(verdict.text.trim_end());
    Ok(usage())
}
