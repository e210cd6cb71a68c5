//! The state: one SQLite file that says which records are here, and holds what is not in an output yet.
//!
//! What is always true of the file, between any two transactions:
//! - A number that is in a lane's intervals belongs to a record that was handed on, or lies in this file.
//! - Every gap, and every beginning of an epoch, whose number is in a lane's intervals lies in this file.
//! - A part that was acknowledged to its source lies in this file until its frame is complete or given up.
//! - A frame that was acknowledged and names a schema that is not here lies in this file until the schema comes, or it is given up.
//! - A record that was handed on to files is in a closed one, or its frame lies in this file; never both.
//! - A source's cursor lies behind messages that are dealt with, and before all others.
//!
//! The intake commits a batch of messages as one transaction with one sync, and only then are they acknowledged. So a process that is killed between any
//! two steps gets again what it had not committed, and knows what it had.
//!
//! Synchronous; one process holds it at a time. Others may read it meanwhile, and see the last commit.

mod announced;
mod cursors;
mod error;
mod lanes;
mod lock;
mod look;
mod parts;
mod schemas;
mod spool;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use rtlive_core::frame::Origin;
use rusqlite::{Connection, OptionalExtension, Params};

pub use error::StateError;
use lanes::Lane;
use lock::Lock;
pub use look::Look;
pub use parts::{ASSEMBLIES_MAX, ASSEMBLY_BYTES_MAX, Assembled};
pub use schemas::{UNOPENED_BYTES_MAX, UNOPENED_MAX, Unopened};
pub use spool::Spooled;

/// The name of the file in the state folder.
pub const FILE_NAME: &str = "state.db";

/// Marks a file as the state of a receiver: "rtlr".
const APPLICATION_ID: i64 = 0x7274_6c72;

/// What makes the tables of each version from those of the one before, from none on. What was released is never changed here.
const MIGRATIONS: [&str; 2] = [SCHEMA, UNOPENED];

/// The version of the tables.
const VERSION: i64 = MIGRATIONS.len() as i64;

/// A number of 64 bits is stored as the signed one with the same bits.
const SCHEMA: &str = "
    CREATE TABLE meta (only INTEGER PRIMARY KEY CHECK (only = 1), instance INTEGER NOT NULL, files INTEGER NOT NULL) STRICT;
    INSERT INTO meta (only, instance, files) VALUES (1, random() & 0xffffffff, 1);
    CREATE TABLE lanes (
        id INTEGER PRIMARY KEY, agent TEXT NOT NULL, epoch INTEGER NOT NULL, stream TEXT NOT NULL, class TEXT NOT NULL, received BLOB NOT NULL,
        UNIQUE (agent, epoch, stream, class)
    ) STRICT;
    CREATE TABLE gaps (
        agent TEXT NOT NULL, epoch INTEGER NOT NULL, stream TEXT NOT NULL, class TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
        count INTEGER, latest INTEGER, reason TEXT NOT NULL, covered_by TEXT
    ) STRICT;
    CREATE INDEX gaps_agent ON gaps (agent);
    CREATE TABLE epochs (agent TEXT NOT NULL, epoch INTEGER NOT NULL, predecessor INTEGER, began INTEGER NOT NULL, last BLOB NOT NULL) STRICT;
    CREATE INDEX epochs_agent ON epochs (agent);
    CREATE TABLE assemblies (
        id INTEGER PRIMARY KEY, topic TEXT NOT NULL, checksum INTEGER NOT NULL, count INTEGER NOT NULL, missing INTEGER NOT NULL,
        bytes INTEGER NOT NULL, historical INTEGER NOT NULL, touched INTEGER NOT NULL, UNIQUE (topic, checksum, count)
    ) STRICT;
    CREATE INDEX assemblies_touched ON assemblies (touched);
    CREATE TABLE parts (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
    CREATE TABLE spool (number INTEGER PRIMARY KEY, numbers BLOB NOT NULL, historical INTEGER NOT NULL, frame BLOB NOT NULL) STRICT;
    CREATE TABLE files (name TEXT PRIMARY KEY, folder TEXT NOT NULL) STRICT;
    CREATE TABLE cursors (source TEXT NOT NULL, name TEXT NOT NULL, offset INTEGER NOT NULL, PRIMARY KEY (source, name)) STRICT;
    CREATE TABLE subscriptions (source TEXT NOT NULL, filter TEXT NOT NULL, PRIMARY KEY (source, filter)) STRICT;
";

/// Schemas, and the frames that name others.
const UNOPENED: &str = "
    CREATE TABLE schemas (number INTEGER PRIMARY KEY, agent TEXT NOT NULL, id INTEGER NOT NULL, bytes BLOB NOT NULL, UNIQUE (agent, id)) STRICT;
    CREATE TABLE unopened (
        number INTEGER PRIMARY KEY, agent TEXT NOT NULL, schema INTEGER NOT NULL, checksum INTEGER NOT NULL, historical INTEGER NOT NULL, frame BLOB NOT NULL,
        UNIQUE (agent, schema, checksum)
    ) STRICT;
";

/// The file, held by this process.
pub struct State {
    connection: Connection,
    path: PathBuf,
    _lock: Lock,
    /// The lanes that were used last.
    lanes: HashMap<Origin, Lane>,
    /// When a part last came, as a count of parts: which assembly waits longest.
    touches: i64,
    /// A number that no other state has.
    instance: u32,
    /// The number of the files that are closed next.
    files_number: u64,
}

impl State {
    /// Opens the state in a folder, which is made where it is missing.
    ///
    /// # Errors
    /// Another receiver holds it, it is none of this version, or what the system said.
    pub fn open(folder: &Path) -> Result<Self, StateError> {
        let lock = Lock::take(folder)?;
        let path = folder.join(FILE_NAME);
        let failed = |doing| move |source| StateError::Sqlite { doing, path: path.display().to_string(), source };
        let path = folder.join(FILE_NAME);
        let connection = Connection::open(&path).map_err(failed.clone()("open the state"))?;
        connection.set_prepared_statement_cache_capacity(64);
        let mode = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0));
        mode.map_err(failed.clone()("open the log"))?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed.clone()("set the syncs"))?;
        let read = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let header = read("application_id").and_then(|application| Ok((application, read("user_version")?)));
        let (application, version) = header.map_err(failed.clone()("read the header"))?;
        let is_known = match (application, version) {
            (APPLICATION_ID, 1..=VERSION) => true,
            (0, 0) => is_empty(&connection).map_err(failed.clone()("read the tables"))?,
            _ => false,
        };
        let missing = usize::try_from(version).ok().and_then(|version| MIGRATIONS.get(version..));
        let Some(missing) = missing.filter(|_| is_known) else {
            return Err(StateError::Foreign { path: path.display().to_string(), application, version });
        };
        if !missing.is_empty() {
            // At once, so that no file is ever half a state.
            let marks = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};");
            let steps = format!("BEGIN; {} {marks} COMMIT;", missing.concat());
            connection.execute_batch(&steps).map_err(failed("make the tables"))?;
        }
        let mut state =
            Self { connection, path, _lock: lock, lanes: HashMap::new(), touches: 0, instance: 0, files_number: 0 };
        state.touches = state.last_touch()?;
        state.read_meta()?;
        Ok(state)
    }

    /// Begins a transaction. Until [`State::commit`] nothing of what follows is seen by others, or kept by a process that is killed.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn begin(&mut self) -> Result<(), StateError> {
        self.execute("begin a commit", "BEGIN IMMEDIATE", [])
    }

    /// Ends the transaction: all of it is on the disk.
    ///
    /// # Errors
    /// What SQLite said. The state must then be dropped: what it remembers may not be what the file says.
    pub fn commit(&mut self) -> Result<(), StateError> {
        self.write_lanes()?;
        self.execute("commit", "COMMIT", [])?;
        self.trim_lanes();
        Ok(())
    }

    fn execute(&self, doing: &'static str, sql: &str, params: impl Params) -> Result<(), StateError> {
        let done = self.connection.prepare_cached(sql).and_then(|mut statement| statement.execute(params));
        done.map(drop).map_err(self.failed(doing))
    }

    /// The only row of an answer, where there is one.
    fn row<T>(
        &self,
        doing: &'static str,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StateError> {
        let row =
            self.connection.prepare_cached(sql).and_then(|mut statement| statement.query_row(params, read).optional());
        row.map_err(self.failed(doing))
    }

    fn failed(&self, doing: &'static str) -> impl Fn(rusqlite::Error) -> StateError + use<> {
        let path = self.path.display().to_string();
        move |source| StateError::Sqlite { doing, path: path.clone(), source }
    }
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) = 0 FROM sqlite_master", [], |row| row.get(0))
}
