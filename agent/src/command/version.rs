//! `rtlive --version`: the version and the features of this build.

use std::process::ExitCode;

use super::{Failure, print};

/// Prints the version, and the features that this build has.
///
/// # Errors
/// [`Failure::Failed`] when it cannot be written.
pub fn version() -> Result<ExitCode, Failure> {
    let features: &[&str] = if cfg!(feature = "demo") { &["demo"] } else { &[] };
    let drivers: Vec<_> = rtlive_drivers::registry::DRIVERS.iter().map(|driver| driver.name).collect();
    let features = if features.is_empty() { "none".into() } else { features.join(" ") };
    let version = env!("CARGO_PKG_VERSION");
    print(format_args!("rtlive {version}\nfeatures: {features}\ndrivers: {}\n", drivers.join(" ")))?;
    Ok(ExitCode::SUCCESS)
}
