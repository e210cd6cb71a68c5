//! The spool: frames whose records are not in a closed file yet, and closed files that are not in their places yet.

use rusqlite::{Row, params};

use super::{State, StateError};
use crate::intervals::Numbers;
use crate::output::parquet::ClosedFile;

/// A frame in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spooled {
    /// Its place in the order in which frames came.
    pub number: i64,
    /// The numbers of the records that were new.
    pub numbers: Vec<Numbers>,
    /// Whether it was backlog.
    pub historical: bool,
    /// The frame.
    pub frame: Vec<u8>,
}

impl State {
    /// Keeps a frame until its records are in a closed file.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn spool(&mut self, numbers: &[Numbers], historical: bool, frame: &[u8]) -> Result<(), StateError> {
        let numbers: Vec<(u64, u64)> = numbers.iter().map(|numbers| (numbers.from, numbers.to)).collect();
        let numbers = postcard::to_stdvec(&numbers).map_err(|_| self.damaged("the numbers of a frame"))?;
        let sql = "INSERT INTO spool (numbers, historical, frame) VALUES (?1, ?2, ?3)";
        self.execute("keep a frame", sql, params![numbers, historical, frame])
    }

    /// The first frame behind a place, in the order in which they came.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn spooled_after(&self, number: i64) -> Result<Option<Spooled>, StateError> {
        let sql = "SELECT number, numbers, historical, frame FROM spool WHERE number > ?1 ORDER BY number LIMIT 1";
        let read = |row: &Row<'_>| Ok((row.get(0)?, row.get::<_, Vec<u8>>(1)?, row.get(2)?, row.get(3)?));
        let Some((number, numbers, historical, frame)) = self.row("read a frame", sql, [number], read)? else {
            return Ok(None);
        };
        let numbers: Vec<(u64, u64)> =
            postcard::from_bytes(&numbers).map_err(|_| self.damaged(format_args!("frame {number}")))?;
        let numbers = numbers.into_iter().map(|(from, to)| Numbers { from, to }).collect();
        Ok(Some(Spooled { number, numbers, historical, frame }))
    }

    /// The records of all frames are in these files: the frames go, and the files are to be put in their places.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn close_files(&mut self, files: &[ClosedFile]) -> Result<(), StateError> {
        self.execute("drop the frames", "DELETE FROM spool", [])?;
        for ClosedFile { name, folder } in files {
            let sql = "INSERT INTO files (name, folder) VALUES (?1, ?2)";
            self.execute("note a file", sql, [name, folder])?;
        }
        self.files_number += 1;
        let number = self.files_number.cast_signed();
        self.execute("count the files", "UPDATE meta SET files = ?1", [number])
    }

    /// Files that are closed, and perhaps not in their places.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn pending_files(&self) -> Result<Vec<ClosedFile>, StateError> {
        let failed = || self.failed("read the names of files");
        let mut statement = self.connection.prepare_cached("SELECT name, folder FROM files").map_err(failed())?;
        let file = |row: &Row<'_>| Ok(ClosedFile { name: row.get(0)?, folder: row.get(1)? });
        let files = statement.query_map([], file).map_err(failed())?;
        files.collect::<Result<_, _>>().map_err(failed())
    }

    /// All closed files are in their places.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn forget_files(&mut self) -> Result<(), StateError> {
        self.execute("forget the names of files", "DELETE FROM files", [])
    }

    /// The number of the files that are closed next; it never comes twice.
    pub const fn files_number(&self) -> u64 {
        self.files_number
    }

    /// A number that no other state has, for the names of files.
    pub const fn instance(&self) -> u32 {
        self.instance
    }

    /// Reads what names files.
    pub(super) fn read_meta(&mut self) -> Result<(), StateError> {
        let read = |row: &Row<'_>| Ok((row.get::<_, u32>(0)?, row.get::<_, i64>(1)?));
        let meta = self.row("read the number of this state", "SELECT instance, files FROM meta", [], read)?;
        let (instance, files) = meta.ok_or_else(|| self.damaged("the number of this state"))?;
        (self.instance, self.files_number) = (instance, files.cast_unsigned());
        Ok(())
    }
}
