//! Lets tests fail what the store asks of the disk.

use std::fmt;
use std::sync::Arc;

use rusqlite::ffi;

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no room.
    Full,
    /// The file system is mounted read-only.
    ReadOnly,
    /// The device fails.
    Io,
    /// The device fails once it has done it.
    IoAfterwards,
    /// The device does not give what it holds.
    Unreadable,
}

/// Decides which operations fail, by their names in errors. By default none does.
#[derive(Clone, Default)]
pub struct Faults(Option<Arc<Decide>>);

type Decide = dyn Fn(&'static str) -> Option<Fault> + Send + Sync;

impl Faults {
    /// Operations fail as `decide` says.
    pub fn new(decide: impl Fn(&'static str) -> Option<Fault> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(decide)))
    }

    /// Says that a step is reached that no error can be given to; a test may end the process there.
    pub(super) fn reach(&self, step: &'static str) {
        if let Some(decide) = &self.0 {
            decide(step);
        }
    }

    /// Does an operation, unless it is to fail.
    pub(super) fn around<T>(
        &self,
        doing: &'static str,
        operation: impl FnOnce() -> rusqlite::Result<T>,
    ) -> rusqlite::Result<T> {
        let Some(fault) = self.0.as_ref().and_then(|decide| decide(doing)) else { return operation() };
        let code = match fault {
            Fault::Full => ffi::SQLITE_FULL,
            Fault::ReadOnly => ffi::SQLITE_READONLY,
            Fault::Io => ffi::SQLITE_IOERR,
            Fault::Unreadable => ffi::SQLITE_IOERR_READ,
            Fault::IoAfterwards => {
                operation()?;
                ffi::SQLITE_IOERR
            }
        };
        Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None))
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Faults" } else { "no faults" })
    }
}
