//! One agent for each state folder.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::StoreError;

/// The name of the lock file in the state folder.
const LOCK_NAME: &str = "rtlive.lock";

/// Held while the store is open; the system lets it go when the process ends, however it ends.
pub(super) struct Lock {
    _file: Option<File>,
    is_usual: bool,
}

impl Lock {
    /// Takes the lock of a folder, which is made where it is missing. Where the lock file cannot be made, the folder itself is locked. Where that
    /// cannot be either, the agent goes on without a lock, and says so: a start does not fail for it.
    pub(super) fn take(folder: &Path) -> Result<Self, StoreError> {
        // Whatever is wrong with the folder shows in what follows.
        let _ = fs::create_dir_all(folder);
        let path = folder.join(LOCK_NAME);
        let own = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let is_ours = own.is_ok();
        // Locking needs no right to write, and whatever has the name of the lock file can be locked.
        let named = own.or_else(|_| File::open(&path));
        let is_usual = named.is_ok();
        let file = named.or_else(|error| {
            tracing::warn!(%error, "{} cannot be made; the folder itself is locked", path.display());
            File::open(folder)
        });
        let mut file = match file {
            Ok(file) => file,
            Err(error) => {
                tracing::error!(%error, "{} cannot be locked: see to it that no second agent uses it", folder.display());
                return Ok(Self { _file: None, is_usual: false });
            }
        };
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Who holds it is a courtesy; that it is held is what counts.
                let _ = file.read_to_string(&mut holder);
                return Err(StoreError::InUse { path: folder.display().to_string(), holder: holder.trim().into() });
            }
            Err(error) => {
                tracing::error!(%error, "{} cannot be locked: see to it that no second agent uses it", folder.display());
                return Ok(Self { _file: None, is_usual: false });
            }
        }
        if is_ours {
            let named =
                file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
            if let Err(error) = named {
                tracing::debug!(%error, "the lock does not name its holder");
            }
        }
        Ok(Self { _file: Some(file), is_usual })
    }

    /// Looks whether an agent holds a folder, and changes nothing there.
    pub(super) fn refuse_held(folder: &Path) -> Result<(), StoreError> {
        let Ok(mut file) = File::open(folder.join(LOCK_NAME)) else { return Ok(()) };
        if let Err(rustix::io::Errno::WOULDBLOCK) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            return Err(StoreError::InUse { path: folder.display().to_string(), holder: holder.trim().into() });
        }
        Ok(())
    }

    /// Whether it is the lock that every other agent tries first.
    pub(super) fn is_usual(&self) -> bool {
        self.is_usual
    }
}
