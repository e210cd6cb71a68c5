//! The shared data: real captures with expected results, which lie outside of the project.

use std::path::PathBuf;

/// A file or folder of the shared data: below `RTLIVE_DATA`, or `../shared/data` beside the project. `None`, said loudly, where it is missing.
pub fn shared(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("RTLIVE_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"), PathBuf::from);
    let path = folder.join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: {} is missing (RTLIVE_DATA names the folder of the shared data)", path.display());
    None
}
