//! `rtlive-receiver compact`.

use std::path::PathBuf;

use super::{Failure, print};
use crate::config;
use crate::output::parquet::{self, Compacted};

/// Merges the Parquet files of each day and stream, of all days or of those before one.
///
/// # Errors
/// [`Failure::Mistakes`] of the configuration, no output of Parquet files in it, or files that cannot be merged.
pub fn compact(paths: &[PathBuf], before: Option<&str>) -> Result<(), Failure> {
    let config = config::load(paths).map_err(Failure::Mistakes)?;
    let Some(output) = config.outputs.parquet else {
        return Err(Failure::Usage("expected an output with `kind = \"parquet\"` in the configuration".into()));
    };
    let compacted = parquet::compact(&output.folder, before).map_err(Failure::at("compact"))?;
    let Compacted { folders, files, into, rows } = compacted;
    print(format_args!("{files} files with {rows} rows in {folders} folders became {into}\n"))
}
