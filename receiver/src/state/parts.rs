//! Parts of frames become frames again. They lie in the file meanwhile, so that their messages can be acknowledged: a broker sends no more than it may
//! have unacknowledged, and a frame may have more parts than that.

use rtlive_core::frame::FRAME_BYTES_MAX;
use rtlive_core::message::{Message, PARTS_MAX};
use rusqlite::params;

use super::{State, StateError};

/// How many frames may lie in parts. An agent sends one of each priority at a time, so that these are those of 5,000 agents on slow links, and beside
/// them what agents began to send and then split otherwise.
pub const ASSEMBLIES_MAX: i64 = 16_384;

/// How many bytes of parts may lie here.
pub const ASSEMBLY_BYTES_MAX: i64 = 1 << 30;

/// What a part came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assembled {
    /// Other parts are missing.
    Waits,
    /// It had come before.
    Again,
    /// It was the last; these are the bytes of all of them in order.
    Whole {
        /// The frame.
        frame: Vec<u8>,
        /// Whether any of its messages was backlog.
        historical: bool,
    },
    /// The parts are longer together than any frame. They are forgotten.
    TooLong,
}

/// The number of a part in the file.
const fn part_id(assembly: i64, index: u32) -> i64 {
    assembly * PARTS_MAX as i64 + index as i64
}

impl State {
    /// Takes one part of several. Parts belong together that share topic, checksum and count.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn put_part(&mut self, topic: &str, message: &Message<'_>) -> Result<Assembled, StateError> {
        let doing = "write a part";
        self.touches += 1;
        let key = params![topic, message.checksum, message.count];
        let sql =
            "SELECT id, missing, bytes, historical FROM assemblies WHERE topic = ?1 AND checksum = ?2 AND count = ?3";
        let found = self.row("find a frame in parts", sql, key, |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, u32>(1)?, row.get::<_, i64>(2)?, row.get::<_, bool>(3)?))
        })?;
        let (id, missing, bytes, historical) = match found {
            Some(found) => found,
            None => {
                let sql = "INSERT INTO assemblies (topic, checksum, count, missing, bytes, historical, touched) VALUES (?1, ?2, ?3, ?3, 0, 0, 0)";
                self.execute(doing, sql, key)?;
                (self.connection.last_insert_rowid(), message.count, 0, false)
            }
        };
        let part = part_id(id, message.index);
        if self.row("find a part", "SELECT 1 FROM parts WHERE id = ?1", [part], |_| Ok(()))?.is_some() {
            return Ok(Assembled::Again);
        }
        let (missing, bytes, historical) =
            (missing.saturating_sub(1), bytes + message.part.len() as i64, historical || message.historical);
        if bytes > FRAME_BYTES_MAX as i64 {
            self.forget_assembly(id)?;
            return Ok(Assembled::TooLong);
        }
        self.execute(doing, "INSERT INTO parts (id, bytes) VALUES (?1, ?2)", params![part, message.part])?;
        if missing == 0 {
            let frame = self.join_parts(id)?;
            self.forget_assembly(id)?;
            return Ok(Assembled::Whole { frame, historical });
        }
        let sql = "UPDATE assemblies SET missing = ?2, bytes = ?3, historical = ?4, touched = ?5 WHERE id = ?1";
        self.execute(doing, sql, params![id, missing, bytes, historical, self.touches])?;
        Ok(Assembled::Waits)
    }

    /// Gives up the frames whose last part came longest ago while there are more than the bounds allow; says how many.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn trim_assemblies(&mut self) -> Result<u64, StateError> {
        let mut given_up = 0;
        loop {
            let (count, bytes) = self.assemblies()?;
            if count <= ASSEMBLIES_MAX && bytes <= ASSEMBLY_BYTES_MAX {
                return Ok(given_up);
            }
            let sql = "SELECT id FROM assemblies ORDER BY touched LIMIT 1";
            let Some(id) = self.row("find the oldest frame in parts", sql, [], |row| row.get(0))? else {
                return Ok(given_up);
            };
            self.forget_assembly(id)?;
            given_up += 1;
        }
    }

    /// How many frames lie in parts, and their bytes.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn assemblies(&self) -> Result<(i64, i64), StateError> {
        let sql = "SELECT count(*), ifnull(sum(bytes), 0) FROM assemblies";
        let read = self.row("count the frames in parts", sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(read.unwrap_or_default())
    }

    pub(super) fn last_touch(&self) -> Result<i64, StateError> {
        let sql = "SELECT touched FROM assemblies ORDER BY touched DESC LIMIT 1";
        Ok(self.row("find the newest frame in parts", sql, [], |row| row.get(0))?.unwrap_or_default())
    }

    fn join_parts(&self, assembly: i64) -> Result<Vec<u8>, StateError> {
        let failed = || self.failed("read the parts of a frame");
        let sql = "SELECT bytes FROM parts WHERE id BETWEEN ?1 AND ?2 ORDER BY id";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed())?;
        let mut rows = statement.query([part_id(assembly, 0), part_id(assembly, PARTS_MAX - 1)]).map_err(failed())?;
        let mut frame = Vec::new();
        while let Some(row) = rows.next().map_err(failed())? {
            let part = row.get_ref(0).and_then(|part| Ok(part.as_blob()?)).map_err(failed())?;
            frame.extend_from_slice(part);
        }
        Ok(frame)
    }

    fn forget_assembly(&self, id: i64) -> Result<(), StateError> {
        let doing = "forget the parts of a frame";
        let parts = [part_id(id, 0), part_id(id, PARTS_MAX - 1)];
        self.execute(doing, "DELETE FROM parts WHERE id BETWEEN ?1 AND ?2", parts)?;
        self.execute(doing, "DELETE FROM assemblies WHERE id = ?1", [id])
    }
}
