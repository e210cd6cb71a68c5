//! `rtlive check`: all mistakes of a configuration, or its plan.

use std::path::PathBuf;
use std::process::ExitCode;

use rtlive_config::forecast::Forecast;
use rtlive_drivers::registry;

use super::{Failure, usage};

/// Prints the mistakes (exit 64), or what the agent would do, how many bytes a day that is, and what a power cut can lose.
///
/// # Errors
/// [`Failure::Mistakes`] with all of them; with `json` they are printed as one object instead.
pub fn check(paths: &[PathBuf], json: bool) -> Result<ExitCode, Failure> {
    match rtlive_config::load(paths, &registry::Catalogue) {
        Ok(config) => {
            let forecast = Forecast::of(&config);
            if json {
                println!("{}", forecast.json());
            } else {
                print!("{}", forecast.text());
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(mistakes) if json => {
            println!("{}", mistakes.json());
            Ok(usage())
        }
        Err(mistakes) => Err(Failure::Mistakes(mistakes)),
    }
}
