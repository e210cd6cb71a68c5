//! One receiver for each state folder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::StateError;

/// The name of the lock file in the state folder.
const LOCK_NAME: &str = "receiver.lock";

/// Held while the state is open; the system lets it go when the process ends, however it ends.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of a folder, which is made where it is missing.
    pub(super) fn take(folder: &Path) -> Result<Self, StateError> {
        let failed = |source: io::Error| StateError::Folder { path: folder.display().to_string(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        let options =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(folder.join(LOCK_NAME));
        let mut file = options.map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Who holds it is a courtesy; that it is held is what counts.
                let _ = file.read_to_string(&mut holder);
                return Err(StateError::InUse { path: folder.display().to_string(), holder: holder.trim().into() });
            }
            Err(error) => return Err(failed(error.into())),
        }
        let named = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
        named.map_err(failed)?;
        Ok(Self { _file: file })
    }
}
