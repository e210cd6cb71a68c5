//! What a source must find again: how far each file is read, and which topics a broker may still hold subscribed.

use rusqlite::{Row, params};

use super::{State, StateError};
use crate::delivery::Cursor;

impl State {
    /// Notes how far a file is read.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn set_cursor(&mut self, source: &str, cursor: &Cursor) -> Result<(), StateError> {
        let sql = "INSERT INTO cursors (source, name, offset) VALUES (?1, ?2, ?3)
                   ON CONFLICT (source, name) DO UPDATE SET offset = excluded.offset";
        self.execute("write a cursor", sql, params![source, &*cursor.name, cursor.offset.cast_signed()])
    }

    /// How far each file of a source is read.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn cursors(&self, source: &str) -> Result<Vec<Cursor>, StateError> {
        let failed = || self.failed("read the cursors");
        let sql = "SELECT name, offset FROM cursors WHERE source = ?1";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed())?;
        let cursor = |row: &Row<'_>| {
            Ok(Cursor { name: row.get::<_, String>(0)?.into(), offset: row.get::<_, i64>(1)?.cast_unsigned() })
        };
        let cursors = statement.query_map([source], cursor).map_err(failed())?;
        cursors.collect::<Result<_, _>>().map_err(failed())
    }

    /// Notes the filters that a source subscribes to, and gives those that it did before and does not any more: a broker keeps them in its session
    /// until it is told.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn subscribe(&mut self, source: &str, filters: &[String]) -> Result<Vec<String>, StateError> {
        for filter in filters {
            let sql = "INSERT OR IGNORE INTO subscriptions (source, filter) VALUES (?1, ?2)";
            self.execute("note a subscription", sql, [source, filter])?;
        }
        let failed = || self.failed("read the subscriptions");
        let sql = "SELECT filter FROM subscriptions WHERE source = ?1";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed())?;
        let known = statement.query_map([source], |row| row.get(0)).map_err(failed())?;
        let known: Vec<String> = known.collect::<Result<_, _>>().map_err(failed())?;
        Ok(known.into_iter().filter(|filter| !filters.contains(filter)).collect())
    }
}
