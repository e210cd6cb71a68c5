//! A look at the state from outside, while a receiver may be running: what is known of each agent's numbers, at one moment.

use std::path::Path;
use std::sync::Arc;

use rtlive_core::record::Epoch;
use rtlive_core::time::Timestamp;
use rusqlite::{Connection, OpenFlags, Params, Row};
use serde::de::DeserializeOwned;

use super::{APPLICATION_ID, FILE_NAME, StateError, VERSION};
use crate::completeness::{AnnouncedEpoch, AnnouncedGap, Facts, LaneFacts};
use crate::intervals::Numbers;

/// The state as the last commit left it before the look began.
pub struct Look {
    connection: Connection,
    path: String,
}

impl Look {
    /// Opens the state in a folder for reading.
    ///
    /// # Errors
    /// There is none, it is none of this version, or what SQLite said.
    pub fn open(folder: &Path) -> Result<Self, StateError> {
        let path = folder.join(FILE_NAME);
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&path, flags);
        let path = path.display().to_string();
        let connection =
            connection.map_err(|source| StateError::Sqlite { doing: "open the state", path: path.clone(), source })?;
        let look = Self { connection, path };
        // One transaction, so that all answers are of one moment.
        look.connection.execute_batch("BEGIN").map_err(look.failed("begin to read"))?;
        let [application, version] = [look.header("application_id")?, look.header("user_version")?];
        if (application, version) != (APPLICATION_ID, VERSION) {
            return Err(StateError::Foreign { path: look.path, application, version });
        }
        Ok(look)
    }

    /// The agents of which anything is known, in the order of their ids.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn agents(&self) -> Result<Vec<Arc<str>>, StateError> {
        let sql = "SELECT agent FROM lanes UNION SELECT agent FROM gaps UNION SELECT agent FROM epochs ORDER BY agent";
        self.rows("list the agents", sql, [], |row| text(row, 0))
    }

    /// What is known of an agent's numbers.
    ///
    /// # Errors
    /// What SQLite said, or a row that cannot be read.
    pub fn facts(&self, agent: &str) -> Result<Facts, StateError> {
        let sql = "SELECT epoch, stream, class, received FROM lanes WHERE agent = ?1 ORDER BY stream, class";
        let lanes = self.rows("read the lanes", sql, [agent], |row| {
            Ok((epoch(row.get(0)?), text(row, 1)?, text(row, 2)?, row.get::<_, Vec<u8>>(3)?))
        })?;
        let lane = |(epoch, stream, class, received): (_, _, _, Vec<u8>)| {
            Ok(LaneFacts { epoch, stream, class, received: self.unpacked(&received, "a set of intervals")? })
        };
        let lanes = lanes.into_iter().map(lane).collect::<Result<_, StateError>>()?;

        let sql =
            "SELECT epoch, stream, class, first, last, count, latest, reason, covered_by FROM gaps WHERE agent = ?1";
        let gaps = self.rows("read the gaps", sql, [agent], |row| {
            let numbers = Numbers { from: unsigned(row, 3)?, to: unsigned(row, 4)? };
            Ok(AnnouncedGap {
                epoch: epoch(row.get(0)?),
                stream: text(row, 1)?,
                class: text(row, 2)?,
                numbers,
                count: row.get::<_, Option<i64>>(5)?.map_or(numbers.count(), i64::cast_unsigned),
                latest: row.get::<_, Option<i64>>(6)?.map(Timestamp::from_nanos),
                reason: text(row, 7)?,
                covered_by: row.get::<_, Option<String>>(8)?.map(Into::into),
            })
        })?;

        let sql = "SELECT epoch, predecessor, began, last FROM epochs WHERE agent = ?1";
        let epochs = self.rows("read the epochs", sql, [agent], |row| {
            let began = Timestamp::from_nanos(row.get(2)?);
            Ok((epoch(row.get(0)?), row.get::<_, Option<i64>>(1)?.map(epoch), began, row.get::<_, Vec<u8>>(3)?))
        })?;
        let announced = |(epoch, predecessor, began, last): (_, _, _, Vec<u8>)| {
            let last = self.unpacked(&last, "the last numbers of an epoch")?;
            Ok(AnnouncedEpoch { epoch, predecessor, began, last })
        };
        let epochs = epochs.into_iter().map(announced).collect::<Result<_, StateError>>()?;
        Ok(Facts { lanes, gaps, epochs })
    }

    fn header(&self, name: &str) -> Result<i64, StateError> {
        self.connection.pragma_query_value(None, name, |row| row.get(0)).map_err(self.failed("read the header"))
    }

    fn rows<T>(
        &self,
        doing: &'static str,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StateError> {
        let mut statement = self.connection.prepare(sql).map_err(self.failed(doing))?;
        let rows = statement.query_map(params, read).map_err(self.failed(doing))?;
        rows.collect::<Result<_, _>>().map_err(self.failed(doing))
    }

    fn unpacked<T: DeserializeOwned>(&self, bytes: &[u8], what: &str) -> Result<T, StateError> {
        postcard::from_bytes(bytes).map_err(|_| StateError::Damaged { path: self.path.clone(), what: what.into() })
    }

    fn failed(&self, doing: &'static str) -> impl Fn(rusqlite::Error) -> StateError + use<> {
        let path = self.path.clone();
        move |source| StateError::Sqlite { doing, path: path.clone(), source }
    }
}

fn epoch(stored: i64) -> Epoch {
    Epoch(stored.cast_unsigned())
}

fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<Arc<str>> {
    row.get::<_, String>(column).map(Into::into)
}

fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(column).map(i64::cast_unsigned)
}
