//! `rtlive check`: all mistakes of a configuration, or its plan.

use std::path::PathBuf;
use std::process::ExitCode;

use rtlive_config::report::Report;
use rtlive_drivers::catalogue::Drivers;

use super::{Failure, print, usage};

/// Prints the mistakes (exit 64), or what the agent would do, how many bytes a day that is, and what a power cut can lose.
///
/// # Errors
/// [`Failure::Mistakes`] with all of them; with `json` they are part of the one object instead.
pub fn check(paths: &[PathBuf], json: bool) -> Result<ExitCode, Failure> {
    let loaded = rtlive_config::load(paths, &Drivers);
    let report = Report::of(&loaded);
    if json {
        let report = serde_json::to_string(&report).map_err(Failure::at("write the report"))?;
        print(format_args!("{report}\n"))?;
    }
    match loaded {
        Err(_) if json => Ok(usage()),
        Err(mistakes) => Err(Failure::Mistakes(mistakes)),
        Ok(_) => {
            if !json {
                print(format_args!("{report}\n"))?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}
