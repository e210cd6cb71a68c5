//! The lock between receivers that put files in their places and a compaction that exchanges folders.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::LakeError;

/// The name of the file in the staging folder.
const PUBLISH_LOCK: &str = "publish.lock";

/// The name of the file that a compaction holds from its beginning to its end.
const COMPACTION_LOCK: &str = "compaction.lock";

/// The lock of an output; the system lets it go when the process ends, however it ends.
pub(super) struct PublishLock {
    file: File,
    path: PathBuf,
}

/// Held while it lives.
pub(super) struct Held<'a>(&'a File);

impl PublishLock {
    pub(super) fn open(staging: &Path) -> Result<Self, LakeError> {
        Self::open_file(staging.join(PUBLISH_LOCK))
    }

    /// The right to compact, which one process has at a time.
    pub(super) fn of_compaction(staging: &Path) -> Result<Self, LakeError> {
        let lock = Self::open_file(staging.join(COMPACTION_LOCK))?;
        match flock(&lock.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(lock),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LakeError::Compacting { path: lock.path }),
            Err(error) => Err(lock.failed(error)),
        }
    }

    /// Files may be put in their places; other receivers may do so as well.
    pub(super) fn shared(&self) -> Result<Held<'_>, LakeError> {
        self.hold(FlockOperation::LockShared)
    }

    /// Nobody else changes folders.
    pub(super) fn exclusive(&self) -> Result<Held<'_>, LakeError> {
        self.hold(FlockOperation::LockExclusive)
    }

    fn hold(&self, operation: FlockOperation) -> Result<Held<'_>, LakeError> {
        flock(&self.file, operation).map_err(|error| self.failed(error))?;
        Ok(Held(&self.file))
    }

    fn open_file(path: PathBuf) -> Result<Self, LakeError> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        match file {
            Ok(file) => Ok(Self { file, path }),
            Err(source) => Err(LakeError::Io { doing: "open", path, source }),
        }
    }

    fn failed(&self, error: rustix::io::Errno) -> LakeError {
        LakeError::Io { doing: "lock", path: self.path.clone(), source: error.into() }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Nothing can be done about a lock that stays; it goes with the process.
        let _ = flock(self.0, FlockOperation::Unlock);
    }
}
