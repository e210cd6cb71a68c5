//! The table of frames: every statement that touches it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rtlive_core::frame;
use rtlive_core::journal::StreamKey;
use rtlive_core::plan::{Order, Priority, StreamPlan};
use rtlive_core::record::Epoch;
use rtlive_core::time::Timestamp;
use rusqlite::{Row, params};

use super::file::{File, PRIORITIES, id_range, priority_of};
use super::seal::{NewFrame, Sealed};
use crate::message::{FrameId, Lane, StoreError, StoredFrame};

/// How far `status` looks for the oldest frame of each stream, per priority: it must not scan a backlog.
const OLDEST_FRAMES_LOOKED_AT: i64 = 256;

pub(super) const INSERT_FRAME: &str =
    "INSERT INTO frames (id, stream, class, epoch, first, count, committed_at, json, checksum, bytes)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

/// A frame that was found.
pub(super) enum Found {
    Whole(StoredFrame, Sealed),
    Damaged(FrameId, Sealed),
}

/// The columns of a frame.
pub(super) struct FrameRow(FrameId, Vec<rusqlite::types::Value>);

/// A frame that may be evicted.
pub(super) struct Evictable<'a, 'b> {
    pub(super) id: FrameId,
    pub(super) sealed: Sealed,
    pub(super) committed_at: Timestamp,
    row: &'a Row<'b>,
}

impl Evictable<'_, '_> {
    /// Its bytes.
    pub(super) fn bytes(&self) -> rusqlite::Result<Vec<u8>> {
        self.row.get("bytes")
    }

    /// The event times that it speaks of, where they are known. Only this reads the frame.
    pub(super) fn span(&self) -> rusqlite::Result<Option<(Timestamp, Timestamp)>> {
        let bytes = self.row.get_ref("bytes")?.as_blob()?;
        Ok(frame::read_header(bytes).ok().and_then(|(header, _)| header.span))
    }
}

impl File {
    /// The numbers of all frames, in the order in which they are given out; reads the whole table without its bytes.
    pub(super) fn lanes(&self) -> Result<Vec<Sealed>, StoreError> {
        let failed = || self.failed("sum up the frames");
        let sql = "SELECT id, stream, class, epoch, first, count, length(bytes) FROM frames ORDER BY id";
        let mut statement = self.connection.prepare(sql).map_err(failed())?;
        let lane = |row: &Row<'_>| sealed(row, row.get::<_, i64>(6)?.cast_unsigned());
        let lanes = statement.query_map([], lane).map_err(failed())?;
        lanes.collect::<Result<_, _>>().map_err(failed())
    }

    pub(super) fn insert_frame(
        &mut self,
        stream: &StreamPlan,
        epoch: Epoch,
        committed_at: Timestamp,
        frame: &NewFrame,
    ) -> Result<(), StoreError> {
        let id = self.last_id(stream.priority) + 1;
        let values = params![
            id,
            &*stream.name,
            &*stream.class,
            epoch.0.cast_signed(),
            frame.from.cast_signed(),
            frame.count,
            committed_at.as_nanos(),
            frame.is_json,
            crc32fast::hash(&frame.bytes),
            frame.bytes
        ];
        self.execute("write a frame", INSERT_FRAME, values)?;
        self.used(FrameId(id));
        Ok(())
    }

    pub(super) fn used(&mut self, id: FrameId) {
        let priority = priority_of(id);
        if let Some((known, _)) = self.last_ids.iter_mut().zip(PRIORITIES).find(|(_, other)| *other == priority) {
            *known = id.0.max(*known);
        }
    }

    /// All frames as they are, the oldest of each priority first.
    pub(super) fn rows(&self) -> Result<Vec<FrameRow>, StoreError> {
        let failed = || self.failed("read the frames");
        let sql = "SELECT id, stream, class, epoch, first, count, committed_at, json, checksum, bytes FROM frames ORDER BY id";
        let mut statement = self.connection.prepare(sql).map_err(failed())?;
        let row = |row: &Row<'_>| {
            Ok(FrameRow(FrameId(row.get(0)?), (0..10).map(|at| row.get(at)).collect::<Result<_, _>>()?))
        };
        let rows = statement.query_map([], row).map_err(failed())?;
        rows.collect::<Result<_, _>>().map_err(failed())
    }

    /// Writes frames of another store as they are.
    pub(super) fn insert_rows(&mut self, rows: &[FrameRow]) -> Result<(), StoreError> {
        for FrameRow(id, columns) in rows {
            self.execute("write a frame", INSERT_FRAME, rusqlite::params_from_iter(columns))?;
            self.used(*id);
        }
        Ok(())
    }

    /// Whether a frame is there.
    pub(super) fn has_frame(&self, id: FrameId) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM frames WHERE id = ?1)";
        self.connection.query_row(sql, [id.0], |row| row.get(0)).map_err(self.failed("look for a frame"))
    }

    /// The first frame, or in the order of the newest the last, whose id lies strictly within a range and that `is_wanted` by its id and stream; and the
    /// last id that was looked at, which is `None` when there is nothing more. Looks at no more than are `left`, which it counts down.
    pub(super) fn next_frame(
        &self,
        priority: Priority,
        within: [i64; 2],
        order: Order,
        left: &mut usize,
        mut is_wanted: impl FnMut(FrameId, &str) -> bool,
    ) -> Result<(Option<Found>, Option<FrameId>), StoreError> {
        let failed = || self.failed("read a frame");
        let sql = "SELECT id, stream, class, epoch, first, count, committed_at, json, checksum, bytes
                   FROM frames WHERE id > ?1 AND id < ?2 ORDER BY id";
        let prepare = || self.connection.prepare_cached(&ordered(sql, order));
        let mut statement = self.faults.around("read a frame", prepare).map_err(failed())?;
        let mut rows = statement.query(within).map_err(failed())?;
        let mut looked_at = None;
        while *left > 0 {
            *left -= 1;
            let Some(row) = rows.next().map_err(failed())? else { return Ok((None, looked_at)) };
            let id = FrameId(row.get(0).map_err(failed())?);
            looked_at = Some(id);
            let stream = row.get_ref(1).and_then(|stream| Ok(stream.as_str()?)).map_err(failed())?;
            if is_wanted(id, stream) {
                return Ok((Some(found(row, priority).map_err(failed())?), looked_at));
            }
        }
        Ok((None, looked_at))
    }

    /// Shows the frames of a priority in an order until `look` has seen enough.
    pub(super) fn each_frame(
        &self,
        priority: Priority,
        order: Order,
        mut look: impl FnMut(Evictable<'_, '_>) -> rusqlite::Result<bool>,
    ) -> Result<(), StoreError> {
        let (from, to) = id_range(priority);
        let failed = || self.failed("look through the frames");
        let sql = "SELECT id, stream, class, epoch, first, count, committed_at, length(bytes), bytes
                   FROM frames WHERE id > ?1 AND id < ?2 ORDER BY id";
        let mut statement = self.connection.prepare_cached(&ordered(sql, order)).map_err(failed())?;
        let mut rows = statement.query([from, to]).map_err(failed())?;
        while let Some(row) = rows.next().map_err(failed())? {
            let mut evictable = |row| -> rusqlite::Result<_> {
                let row: &Row<'_> = row;
                let sealed = sealed(row, row.get::<_, i64>(7)?.cast_unsigned())?;
                let committed_at = Timestamp::from_nanos(row.get(6)?);
                look(Evictable { id: FrameId(row.get(0)?), sealed, committed_at, row })
            };
            if !evictable(row).map_err(failed())? {
                break;
            }
        }
        Ok(())
    }

    pub(super) fn delete_frames(&self, ids: &BTreeSet<FrameId>) -> Result<(), StoreError> {
        // Frames are mostly acknowledged in order: ranges are far cheaper than single deletions.
        let mut ids = ids.iter().map(|id| id.0).peekable();
        while let Some(from) = ids.next() {
            let mut to = from;
            while let Some(next) = ids.next_if_eq(&(to + 1)) {
                to = next;
            }
            self.execute("delete frames", "DELETE FROM frames WHERE id BETWEEN ?1 AND ?2", [from, to])?;
        }
        Ok(())
    }

    /// When the oldest frame of each stream was committed, as far as the first frames of each priority tell.
    pub(super) fn oldest_frames(&self) -> Result<BTreeMap<StreamKey, Timestamp>, StoreError> {
        let failed = || self.failed("look at the oldest frames");
        let sql = "SELECT stream, class, committed_at FROM frames WHERE id > ?1 AND id < ?2 ORDER BY id LIMIT ?3";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed())?;
        let mut oldest = BTreeMap::new();
        for priority in PRIORITIES {
            let (from, to) = id_range(priority);
            let mut rows = statement.query([from, to, OLDEST_FRAMES_LOOKED_AT]).map_err(failed())?;
            while let Some(row) = rows.next().map_err(failed())? {
                let stream = text(row, 0).map_err(failed())?;
                let name = StreamKey { stream, class: text(row, 1).map_err(failed())? };
                let at = Timestamp::from_nanos(row.get(2).map_err(failed())?);
                let entry = oldest.entry(name).or_insert(at);
                *entry = at.min(*entry);
            }
        }
        Ok(oldest)
    }
}

/// A query by ids, from the end that is asked for.
fn ordered(sql: &str, order: Order) -> String {
    match order {
        Order::Oldest => sql.to_owned(),
        Order::Newest => sql.to_owned() + " DESC",
    }
}

fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<Arc<str>> {
    row.get::<_, String>(column).map(Into::into)
}

/// What a row of frames means to the accounts: the columns from the stream to the count are 1 to 5.
fn sealed(row: &Row<'_>, bytes: u64) -> rusqlite::Result<Sealed> {
    let key = StreamKey { stream: text(row, 1)?, class: text(row, 2)? };
    let epoch = Epoch(row.get::<_, i64>(3)?.cast_unsigned());
    let from = row.get::<_, i64>(4)?.cast_unsigned();
    let to = from.saturating_add(row.get::<_, u32>(5)?.into()).saturating_sub(1);
    Ok(Sealed { key, epoch, from, to, bytes, is_damaged: false })
}

pub(super) fn found(row: &Row<'_>, priority: Priority) -> rusqlite::Result<Found> {
    let id = FrameId(row.get(0)?);
    let (records, checksum): (u32, u32) = (row.get(5)?, row.get(8)?);
    let bytes: Arc<[u8]> = row.get_ref(9)?.as_blob()?.into();
    let sealed = sealed(row, bytes.len() as u64)?;
    let first = sealed.from;
    let (stream, class, epoch) = (sealed.key.stream.clone(), sealed.key.class.clone(), sealed.epoch);
    if crc32fast::hash(&bytes) != checksum {
        return Ok(Found::Damaged(id, sealed));
    }
    let (committed_at, json, lane) = (Timestamp::from_nanos(row.get(6)?), row.get(7)?, Lane::default());
    let frame = StoredFrame { id, stream, class, epoch, priority, lane, json, committed_at, first, records, bytes };
    Ok(Found::Whole(frame, sealed))
}
