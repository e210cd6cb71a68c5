//! Schemas that agents publish apart from their frames, and the frames that came before the schema that they name.

use rtlive_core::frame::SchemaId;
use rusqlite::{Row, params};

use super::{State, StateError};

/// How many schemas lie here: the 256 of an agent for 256 agents, and those of thousands that have fewer. Those that came first go.
const SCHEMAS_MAX: i64 = 65_536;

/// How many frames wait for their schema, and how many bytes they may have together. Those that came first are given up.
pub const UNOPENED_MAX: i64 = 16_384;
/// The bytes.
pub const UNOPENED_BYTES_MAX: i64 = 1 << 30;

/// A frame that cannot be opened yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unopened {
    /// Its place in the order in which they came.
    number: i64,
    /// Whether it was backlog.
    pub historical: bool,
    /// The frame.
    pub frame: Vec<u8>,
}

impl State {
    /// Keeps a schema; says whether it was not here before.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn put_schema(&mut self, agent: &str, id: SchemaId, bytes: &[u8]) -> Result<bool, StateError> {
        if self.schema(agent, id)?.is_some() {
            return Ok(false);
        }
        let sql = "INSERT INTO schemas (agent, id, bytes) VALUES (?1, ?2, ?3)";
        self.execute("keep a schema", sql, params![agent, id.0.cast_signed(), bytes])?;
        let sql = "DELETE FROM schemas WHERE number <= (SELECT max(number) FROM schemas) - ?1";
        self.execute("forget old schemas", sql, [SCHEMAS_MAX])?;
        Ok(true)
    }

    /// The schema of an agent with this name.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn schema(&self, agent: &str, id: SchemaId) -> Result<Option<Vec<u8>>, StateError> {
        let sql = "SELECT bytes FROM schemas WHERE agent = ?1 AND id = ?2";
        self.row("find a schema", sql, params![agent, id.0.cast_signed()], |row| row.get(0))
    }

    /// Keeps a frame until its schema comes; one that came before is kept once. Says how many others were given up for it.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn keep_unopened(
        &mut self,
        agent: &str,
        schema: SchemaId,
        checksum: u32,
        historical: bool,
        frame: &[u8],
    ) -> Result<u64, StateError> {
        let sql =
            "INSERT OR IGNORE INTO unopened (agent, schema, checksum, historical, frame) VALUES (?1, ?2, ?3, ?4, ?5)";
        let row = params![agent, schema.0.cast_signed(), checksum, historical, frame];
        self.execute("keep a frame without its schema", sql, row)?;
        let mut given_up = 0;
        loop {
            let (count, bytes) = self.unopened()?;
            if count <= UNOPENED_MAX && bytes <= UNOPENED_BYTES_MAX {
                return Ok(given_up);
            }
            let sql = "DELETE FROM unopened WHERE number = (SELECT min(number) FROM unopened)";
            self.execute("give up a frame without its schema", sql, [])?;
            given_up += 1;
        }
    }

    /// Takes out the first frame of an agent that waits for this schema.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn take_unopened(&mut self, agent: &str, schema: SchemaId) -> Result<Option<Unopened>, StateError> {
        let sql =
            "SELECT number, historical, frame FROM unopened WHERE agent = ?1 AND schema = ?2 ORDER BY number LIMIT 1";
        let read = |row: &Row<'_>| Ok(Unopened { number: row.get(0)?, historical: row.get(1)?, frame: row.get(2)? });
        let doing = "take a frame whose schema has come";
        let found = self.row(doing, sql, params![agent, schema.0.cast_signed()], read)?;
        if let Some(Unopened { number, .. }) = &found {
            self.execute(doing, "DELETE FROM unopened WHERE number = ?1", [number])?;
        }
        Ok(found)
    }

    /// How many frames wait for their schema, and their bytes.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn unopened(&self) -> Result<(i64, i64), StateError> {
        let sql = "SELECT count(*), ifnull(sum(length(frame)), 0) FROM unopened";
        let read = self.row("count the frames without their schema", sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(read.unwrap_or_default())
    }
}
