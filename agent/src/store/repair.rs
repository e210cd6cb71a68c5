//! Repair: what is whole in a damaged file goes to a new one, which the next start takes as it takes a file that it salvaged itself.

use std::path::Path;

use super::StoreError;
use super::fault::Faults;
use super::file::File;
use super::lock::Lock;

/// What was taken over.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Salvaged {
    /// Frames, of which some may have damaged bytes: their numbers are known all the same.
    pub frames: u64,
    /// Commits of the journal.
    pub commits: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Pages that the system did not give; what lies there is not among them.
    pub unreadable_pages: u32,
}

/// Takes all that is whole from a file to a new one. `page` is told which page of how many is read.
///
/// # Errors
/// An agent holds the folder of the damaged file, the new one is there already or cannot be written, or the damaged one cannot be read.
pub fn repair(from: &Path, to: &Path, page: impl FnMut(u32, u32)) -> Result<Salvaged, StoreError> {
    if let Some(folder) = from.parent() {
        Lock::refuse_held(folder)?;
    }
    let failed = |path: &Path, source| StoreError::Folder { path: path.display().to_string(), source };
    std::fs::metadata(from).map_err(|source| failed(from, source))?;
    // Nothing that is there is written over.
    std::fs::File::create_new(to).map_err(|source| failed(to, source))?;
    let mut file = File::open(to, &Faults::default())?;
    let salvaged = file.salvage(Some(from), page)?;
    file.close()?;
    Ok(salvaged)
}
