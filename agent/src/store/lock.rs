//! One agent for each state folder.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::message::StoreError;

/// The name of the lock file in the state folder.
const LOCK_NAME: &str = "rtlive.lock";

/// Held while the store is open; the system lets it go when the process ends, however it ends.
pub(super) struct Lock {
    _file: fs::File,
}

impl Lock {
    /// Takes the lock of a folder, which is made where it is missing.
    pub(super) fn take(folder: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Folder { path: folder.display().to_string(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        let path = folder.join(LOCK_NAME);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = file.map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Who holds it is a courtesy; that it is held is what counts.
                let _ = file.read_to_string(&mut holder);
                return Err(StoreError::InUse { path: folder.display().to_string(), holder: holder.trim().into() });
            }
            Err(error) => return Err(failed(error.into())),
        }
        let named = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
        if let Err(error) = named {
            tracing::debug!(%error, "the lock does not name its holder");
        }
        Ok(Self { _file: file })
    }
}
