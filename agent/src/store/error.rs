//! What can go wrong in the store.

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("{doing} in {path}")]
    Sqlite {
        /// The operation.
        doing: &'static str,
        /// The file.
        path: String,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The folder of the store cannot be used.
    #[error("use {path}")]
    Folder {
        /// The folder or file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another agent runs on the same folder.
    #[error("{path} is in use by the agent with process id {holder}; two agents cannot share a state_dir")]
    InUse {
        /// The folder.
        path: String,
        /// The process id that its lock names.
        holder: String,
    },
    /// The file belongs to another program, or to another version of this one.
    #[error("{path}: expected a store of this version, found application id {application:#x}, version {version}")]
    Foreign {
        /// The file.
        path: String,
        /// Whose it is.
        application: i64,
        /// The version of its tables.
        version: i64,
    },
    /// What has the store's name is no file.
    #[error("{path} is no file")]
    NoFile {
        /// What is there.
        path: String,
    },
    /// Damage showed while the file was in use, by an earlier process.
    #[error("{path} was found to be damaged while it was in use")]
    Condemned {
        /// The file.
        path: String,
    },
    /// A commit cannot be written as a chunk of the journal.
    #[error("write the journal")]
    Journal(#[from] rtlive_core::journal::JournalError),
    /// A snapshot cannot be written.
    #[error("write a snapshot")]
    Snapshot(#[source] postcard::Error),
    /// The first commit of a new store brought no plan.
    #[error("the first commit of a store must bring a snapshot with the plan")]
    NoPlan,
    /// An error that was told to whoever asked.
    #[error("{0}")]
    Failed(String),
    /// The store thread is gone.
    #[error("the store has stopped")]
    Stopped,
}

impl From<std::io::Error> for StoreError {
    fn from(source: std::io::Error) -> Self {
        Self::Folder { path: "the damaged store".into(), source }
    }
}

impl StoreError {
    /// Whether the disk is at fault, so that what fails now may succeed once it has room again, or can be written again.
    pub(super) fn is_of_the_disk(&self) -> bool {
        use rusqlite::ErrorCode::{
            CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, PermissionDenied, ReadOnly, SystemIoFailure,
        };
        match self {
            Self::Sqlite { source, .. } => source.sqlite_error_code().is_some_and(|code| {
                matches!(
                    code,
                    CannotOpen
                        | DatabaseBusy
                        | DatabaseLocked
                        | DiskFull
                        | PermissionDenied
                        | ReadOnly
                        | SystemIoFailure
                )
            }),
            Self::Folder { .. } => true,
            _ => false,
        }
    }

    /// Whether the disk did not give what it holds.
    pub(super) fn is_unreadable(&self) -> bool {
        use rusqlite::ffi::{SQLITE_IOERR_CORRUPTFS, SQLITE_IOERR_DATA, SQLITE_IOERR_READ};
        let Self::Sqlite { source: rusqlite::Error::SqliteFailure(error, _), .. } = self else { return false };
        [SQLITE_IOERR_READ, SQLITE_IOERR_CORRUPTFS, SQLITE_IOERR_DATA].contains(&error.extended_code)
    }

    /// Whether what failed may have been done all the same.
    pub(super) fn is_doubtful(&self) -> bool {
        matches!(self, Self::Sqlite { doing: super::file::COMMIT, .. })
    }

    /// Whether there is no room on the disk.
    pub(super) fn is_full(&self) -> bool {
        match self {
            Self::Sqlite { source, .. } => source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            Self::Folder { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            _ => false,
        }
    }

    /// Whether the file itself is at fault, so that a new one would do. A file that is held by another program, or cannot be written, or has
    /// no room, is not.
    pub(super) fn is_damage(&self) -> bool {
        match self {
            Self::Sqlite { source, .. } => {
                !self.is_of_the_disk() && source.sqlite_error_code() != Some(rusqlite::ErrorCode::OutOfMemory)
            }
            Self::Foreign { .. } | Self::Condemned { .. } => true,
            _ => false,
        }
    }
}
