//! `rtlive store`: the buffer, looked at from outside; also a copy, or that of a dead device.

mod export;
mod inspect;
mod progress;
mod repair;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use super::Failure;
use crate::cli::StoreCommand;
use crate::store::look::Look;
use crate::store::{FILE_NAME, StoreError};

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::at("read the store")(error)
    }
}

/// Runs one of the commands.
///
/// # Errors
/// [`Failure::Failed`] when the store cannot be read, or the answer cannot be written.
pub fn store(config: &[PathBuf], what: &StoreCommand) -> Result<ExitCode, Failure> {
    match what {
        StoreCommand::Inspect { store, json } => inspect::inspect(&open(config, store.clone())?, *json),
        StoreCommand::Verify { store } => verify::verify(&open(config, store.clone())?),
        StoreCommand::Repair { store, output, json } => {
            repair::repair_store(&path_of(config, store.clone())?, output.clone(), *json)
        }
        StoreCommand::Export(options) => export::export(&open(config, options.store.clone())?, options),
    }
}

/// The store at a path, or in a folder, or the one of the configuration.
fn open(config: &[PathBuf], path: Option<PathBuf>) -> Result<Look, Failure> {
    let path = path_of(config, path)?;
    Look::open(&path).map_err(Failure::at(format!("look into {}", path.display())))
}

fn path_of(config: &[PathBuf], path: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let mut path = match path {
        Some(path) => path,
        None => rtlive_config::load::state_dir(config).map_err(Failure::Mistakes)?,
    };
    if path.is_dir() {
        path.push(FILE_NAME);
    }
    Ok(path)
}
