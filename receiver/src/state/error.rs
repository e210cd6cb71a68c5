//! What can go wrong with the state.

/// Why the state could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
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
    /// The folder of the state cannot be used.
    #[error("use {path}")]
    Folder {
        /// The folder or file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Another receiver runs on the same folder.
    #[error("{path} is in use by the receiver with process id {holder}; two receivers cannot share a state_dir")]
    InUse {
        /// The folder.
        path: String,
        /// The process id that its lock names.
        holder: String,
    },
    /// The file belongs to another program, or to another version of this one.
    #[error(
        "{path}: expected a receiver's state of this version, found application id {application:#x}, version {version}"
    )]
    Foreign {
        /// The file.
        path: String,
        /// Whose it is.
        application: i64,
        /// The version of its tables.
        version: i64,
    },
    /// A row does not say what it should.
    #[error("{path}: {what} cannot be read")]
    Damaged {
        /// The file.
        path: String,
        /// Which row.
        what: String,
    },
}
