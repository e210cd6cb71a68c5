//! Sources: where messages come from. Each is a task that puts messages into the queue of the intake, and waits when it is full.

pub mod files;
pub mod mqtt;
pub mod nats;
mod retry;

use std::io;
use std::path::PathBuf;

use crate::delivery::Stopped;

/// Why a source ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A file or folder cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Nothing more is taken.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}
