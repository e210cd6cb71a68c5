//! The SQLite file: its tables, and every statement that touches it but those of frames ([`super::frames`]).
//!
//! ```text
//! meta       one row: the epoch, the boot that it belongs to, and how many replays since the last good one did not end
//! journal    number → chunk                     one row for each commit
//! snapshots  number → body                      two rows
//! frames     id → stream, numbers, bytes        ids ascend within a priority, so that the next to send is the next by key
//! ```

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rtlive_core::journal::{Chunk, Part};
use rtlive_core::plan::Priority;
use rtlive_core::record::Epoch;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::fault::Faults;
use super::snapshot::SavedSnapshot;
use super::wear;
use super::{replace, reserve};
use crate::message::{FrameId, StoreError};

/// Marks a file as a store of rtlive: "rtlv".
pub(super) const APPLICATION_ID: i64 = 0x7274_6c76;

/// What makes the tables of each version from those of the one before, from none on. The version is raised with every change of the tables, of the
/// journal's layout, or of snapshots, so that an older program sees it before it reads anything. What was released is never changed here.
///
/// Version 2: chunks of the journal may have parts.
const MIGRATIONS: [&str; 2] = [SCHEMA, ""];

/// The version of the tables.
pub(super) const VERSION: i64 = MIGRATIONS.len() as i64;

/// A page is written whole, to the log and by a checkpoint once more, however little of it changed. A commit appends a row to the journal, inserts and
/// deletes frames, and touches a page of the tree above, the list of free pages and the map of their parents. For 1,000 readings a second that was
/// 20 kB with pages of 8 KiB, and is 9 kB with these, of which a longer row takes some of its own that are written once (docs/performance.md).
pub(super) const PAGE_BYTES: i64 = 1024;

/// A checkpoint costs three syncs, and writes each page once that changed since the one before. It comes every thousand commits or so; to read a
/// log of this size again takes a start some 20 ms.
const CHECKPOINT_BYTES: i64 = 16 << 20;

/// The least that a checkpoint waits for: below this, every commit would cost one.
const CHECKPOINT_BYTES_MIN: i64 = 64 << 10;

/// How much SQLite keeps in memory unless it is told otherwise, and how many free pages one of those that list them names.
const CACHE_BYTES: i64 = 2_000 << 10;
const FREE_PAGES_LISTED: i64 = PAGE_BYTES / 4 - 8;

/// How many pages are freed between two looks at the clock, and for how long.
const VACUUMED_AT_ONCE: i64 = 4;
const VACUUM: &str = "PRAGMA incremental_vacuum(4)";
const VACUUM_MAX: Duration = Duration::from_millis(20);

/// Frames of each priority have ids in a range of their own: 2^60 each.
const PRIORITY_SHIFT: u32 = 60;

const SCHEMA: &str = "
    CREATE TABLE meta (
        only INTEGER PRIMARY KEY CHECK (only = 1), epoch INTEGER NOT NULL, boot_id TEXT NOT NULL, replays INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE journal (number INTEGER PRIMARY KEY, chunk BLOB NOT NULL) STRICT;
    CREATE TABLE snapshots (number INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
    CREATE TABLE frames (
        id INTEGER PRIMARY KEY, stream TEXT NOT NULL, class TEXT NOT NULL, epoch INTEGER NOT NULL, first INTEGER NOT NULL,
        count INTEGER NOT NULL, committed_at INTEGER NOT NULL, json INTEGER NOT NULL, checksum INTEGER NOT NULL, bytes BLOB NOT NULL
    ) STRICT;
";

/// The operation after whose failure it is not known whether it was done.
pub(super) const COMMIT: &str = "commit";

/// The file.
pub(super) struct File {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    /// The last id that was used, by the priority's place.
    pub(super) last_ids: [i64; 3],
    is_in_memory: bool,
    /// See [`File::look_beside`].
    aside_bytes: u64,
    /// Which files the file and its log were when it was opened.
    opened: [Option<FileId>; 2],
    pub(super) faults: Faults,
}

/// What the system knows a file by: its device and its number there.
type FileId = (u64, u64);

/// A transaction that is open; forgetting it rolls back when the connection closes.
#[must_use]
pub(super) struct Open(());

/// Whose numbers are counted now.
pub(super) struct Meta {
    pub(super) epoch: Epoch,
    pub(super) boot_id: String,
    /// How many replays in a row were begun and did not come to their end.
    pub(super) replays: u32,
}

/// A row of the journal.
pub(super) struct JournalRow {
    pub(super) number: u64,
    /// The chunk and its length; `None` where it is damaged.
    pub(super) chunk: Option<(Chunk, u64)>,
}

impl File {
    /// One in memory, of which only the frames are ever read again.
    pub(super) fn in_memory() -> Result<Self, StoreError> {
        let path = PathBuf::from(":memory:");
        let failed = |doing| move |source| StoreError::Sqlite { doing, path: ":memory:".into(), source };
        let connection = Connection::open_in_memory().map_err(failed("open a store in memory"))?;
        connection.pragma_update(None, "page_size", PAGE_BYTES).map_err(failed("set the page size"))?;
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(failed("set the vacuum"))?;
        connection.execute_batch(SCHEMA).map_err(failed("make the tables"))?;
        Ok(Self {
            connection,
            path,
            last_ids: PRIORITIES.map(|priority| id_range(priority).0),
            is_in_memory: true,
            aside_bytes: 0,
            opened: [None; 2],
            faults: Faults::default(),
        })
    }

    /// Closes the file after an error, whatever else goes wrong with that; it must not be used any more.
    pub(super) fn let_go(&mut self) -> Result<(), StoreError> {
        let nothing = Self::in_memory()?;
        drop(std::mem::replace(&mut self.connection, nothing.connection));
        Ok(())
    }

    /// The last ids that were used.
    pub(super) fn last_ids(&self) -> [i64; 3] {
        PRIORITIES.map(|priority| self.last_id(priority) - id_range(priority).0)
    }

    /// Gives no ids up to these any more.
    pub(super) fn raise_ids(&mut self, ids: [i64; 3]) {
        for ((known, id), priority) in self.last_ids.iter_mut().zip(ids).zip(PRIORITIES) {
            *known = (*known).max(id_range(priority).0 + id);
        }
    }

    pub(super) fn last_id(&self, priority: Priority) -> i64 {
        let place = PRIORITIES.iter().position(|&other| other == priority).unwrap_or_default();
        self.last_ids.get(place).copied().unwrap_or_default()
    }

    pub(super) fn open(path: &Path, faults: &Faults) -> Result<Self, StoreError> {
        let failed = |doing| move |source| StoreError::Sqlite { doing, path: path.display().to_string(), source };
        let connection =
            faults.around("open the store", || Connection::open(path)).map_err(failed("open the store"))?;
        connection.set_prepared_statement_cache_capacity(32);
        let pragma = |name: &str, value: i64| connection.pragma_update(None, name, value);
        pragma("page_size", PAGE_BYTES).map_err(failed("set the page size"))?;
        // Freed pages can go back to the file system in small steps; this can only be chosen before the first table.
        connection.pragma_update(None, "auto_vacuum", "INCREMENTAL").map_err(failed("set the vacuum"))?;
        let mode = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0));
        mode.map_err(failed("open the log"))?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(failed("set the syncs"))?;
        pragma("wal_autocheckpoint", CHECKPOINT_BYTES / PAGE_BYTES).map_err(failed("set the checkpoints"))?;
        let read = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let (application, version) = (
            read("application_id").map_err(failed("read the header"))?,
            read("user_version").map_err(failed("read the header"))?,
        );
        let is_known = match (application, version) {
            (APPLICATION_ID, 1..=VERSION) => true,
            (0, 0) => is_empty(&connection).map_err(failed("read the tables"))?,
            _ => false,
        };
        let missing = usize::try_from(version).ok().and_then(|version| MIGRATIONS.get(version..));
        let Some(missing) = missing.filter(|_| is_known) else {
            return Err(StoreError::Foreign { path: path.display().to_string(), application, version });
        };
        if !missing.is_empty() {
            faults.reach("make the tables");
            // At once, so that no file is ever half a store.
            let marks = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};");
            let steps = format!("BEGIN; {} {marks} COMMIT;", missing.concat());
            connection.execute_batch(&steps).map_err(failed("make the tables"))?;
        }
        let mut file = Self {
            connection,
            path: path.to_owned(),
            last_ids: [0; 3],
            is_in_memory: false,
            aside_bytes: 0,
            opened: [None; 2],
            faults: faults.clone(),
        };
        file.look_beside();
        for (place, priority) in PRIORITIES.into_iter().enumerate() {
            let (from, to) = id_range(priority);
            let last = file.connection.query_row(
                "SELECT id FROM frames WHERE id >= ?1 AND id < ?2 ORDER BY id DESC LIMIT 1",
                [from, to],
                |row| row.get::<_, i64>(0),
            );
            let last = last.optional().map_err(failed("find the last frame"))?.unwrap_or(from);
            // In a damaged tree that is not in order any id may come last; counted on from there, ids would be given twice.
            if last != from && id_place(priority, FrameId(last)).is_none() {
                let error = rusqlite::Error::IntegralValueOutOfRange(0, last);
                return Err(failed("find the last frame")(error));
            }
            if let Some(known) = file.last_ids.get_mut(place) {
                *known = last;
            }
        }
        // Reading it has made the log.
        file.opened = file_ids(path);
        Ok(file)
    }

    /// Whether the file and its log are those that were opened. A log without a name is written as ever, and is gone with the process.
    pub(super) fn is_in_place(&self) -> bool {
        self.is_in_memory || file_ids(&self.path) == self.opened
    }

    /// Writes all that the log holds to the file.
    pub(super) fn empty_log(&self) -> Result<(), StoreError> {
        let emptied = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        emptied.map_err(self.failed("empty the log"))
    }

    /// Whose numbers are counted; `None` in a new file.
    pub(super) fn meta(&self) -> Result<Option<Meta>, StoreError> {
        let row = self.connection.query_row("SELECT epoch, boot_id, replays FROM meta", [], |row| {
            let epoch = Epoch(row.get::<_, i64>(0)?.cast_unsigned());
            Ok(Meta { epoch, boot_id: row.get(1)?, replays: row.get(2)? })
        });
        row.optional().map_err(self.failed("read the epoch"))
    }

    pub(super) fn set_meta(&self, epoch: Epoch, boot_id: &str) -> Result<(), StoreError> {
        let sql = "INSERT OR REPLACE INTO meta (only, epoch, boot_id, replays) VALUES (1, ?1, ?2, 0)";
        self.execute("write the epoch", sql, params![epoch.0.cast_signed(), boot_id])
    }

    /// The newest snapshot whose checksum holds.
    pub(super) fn last_snapshot(&self) -> Result<Option<SavedSnapshot>, StoreError> {
        let failed = || self.failed("read the snapshots");
        let mut statement =
            self.connection.prepare("SELECT body FROM snapshots ORDER BY number DESC").map_err(failed())?;
        let mut rows = statement.query([]).map_err(failed())?;
        while let Some(row) = rows.next().map_err(failed())? {
            let body: Vec<u8> = row.get(0).map_err(failed())?;
            match SavedSnapshot::decode(&body) {
                Some(snapshot) => return Ok(Some(snapshot)),
                None => tracing::error!("a snapshot is damaged; the one before it is taken"),
            }
        }
        Ok(None)
    }

    /// Notes how many replays were begun and did not come to their end.
    pub(super) fn set_replays(&self, replays: u32) -> Result<(), StoreError> {
        self.execute("count the replay", "UPDATE meta SET replays = ?1 WHERE replays <> ?1", [replays])
    }

    /// The commits after a snapshot, in order.
    pub(super) fn chunks_after(&self, number: u64) -> Result<Vec<JournalRow>, StoreError> {
        let failed = || self.failed("read the journal");
        let sql = "SELECT number, chunk FROM journal WHERE number > ?1 ORDER BY number";
        let mut statement = self.connection.prepare(sql).map_err(failed())?;
        let mut rows = statement.query([number.cast_signed()]).map_err(failed())?;
        let mut chunks = Vec::new();
        while let Some(row) = rows.next().map_err(failed())? {
            let number = row.get::<_, i64>(0).map_err(failed())?.cast_unsigned();
            let bytes: Vec<u8> = row.get(1).map_err(failed())?;
            let chunk = Chunk::decode(&bytes).inspect_err(|error| tracing::error!("commit {number}: {error}")).ok();
            let chunk = chunk.filter(|chunk| chunk.number == number).map(|chunk| (chunk, bytes.len() as u64));
            chunks.push(JournalRow { number, chunk });
        }
        Ok(chunks)
    }

    /// The highest number of any commit that the file knows of.
    pub(super) fn last_number(&self) -> Result<u64, StoreError> {
        let sql =
            "SELECT max(ifnull((SELECT max(number) FROM journal), 0), ifnull((SELECT max(number) FROM snapshots), 0))";
        let last = self.connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        Ok(last.map_err(self.failed("find the last commit"))?.cast_unsigned())
    }

    pub(super) fn begin(&self) -> Result<Open, StoreError> {
        self.execute("begin a commit", "BEGIN IMMEDIATE", [])?;
        Ok(Open(()))
    }

    pub(super) fn end(&self, Open(()): Open) -> Result<(), StoreError> {
        self.execute(COMMIT, "COMMIT", [])?;
        self.faults.reach("go on after a commit");
        Ok(())
    }

    /// `parts` are of its first events. Returns the length of the chunk.
    pub(super) fn insert_chunk(&self, chunk: &Chunk, parts: &[Part]) -> Result<u64, StoreError> {
        if self.is_in_memory {
            return Ok(0);
        }
        let bytes = chunk.encode(parts)?;
        let sql = "INSERT INTO journal (number, chunk) VALUES (?1, ?2)";
        self.execute("write the journal", sql, params![chunk.number.cast_signed(), bytes])?;
        Ok(bytes.len() as u64)
    }

    /// Keeps this snapshot, the one before where both take no more than `room` bytes, and the journal since the older of them. Returns the length of the
    /// snapshot.
    pub(super) fn insert_snapshot(&self, snapshot: &SavedSnapshot, room: u64) -> Result<u64, StoreError> {
        if self.is_in_memory {
            return Ok(0);
        }
        let bytes = snapshot.encode().map_err(StoreError::Snapshot)?;
        let number = snapshot.number.cast_signed();
        let before =
            self.connection.query_row("SELECT max(number) FROM snapshots", [], |row| row.get::<_, Option<i64>>(0));
        let before = before.map_err(self.failed("find the last snapshot"))?;
        let oldest = if 2 * bytes.len() as u64 <= room { before } else { Some(number) };
        // First, so that the snapshot goes into the room that this leaves.
        if let Some(oldest) = oldest {
            self.execute("delete old snapshots", "DELETE FROM snapshots WHERE number < ?1", [oldest])?;
            self.execute("delete the old journal", "DELETE FROM journal WHERE number <= ?1", [oldest])?;
        }
        let insert = "INSERT OR REPLACE INTO snapshots (number, body) VALUES (?1, ?2)";
        self.execute("write a snapshot", insert, params![number, bytes])?;
        Ok(bytes.len() as u64)
    }

    /// Gives up to `pages` free pages back to the file system where more than `kept` are free, or as many as it can in [`VACUUM_MAX`]: where very many
    /// are free SQLite looks long for one that lies where it is wanted. Says whether there were as many. The file becomes
    /// shorter with the next checkpoint.
    pub(super) fn vacuum(&self, pages: i64, kept: i64) -> Result<bool, StoreError> {
        let free = self.connection.pragma_query_value(None, "freelist_count", |row| row.get::<_, i64>(0));
        let free = free.map_err(self.failed("count the free pages"))?;
        if free < kept + pages {
            return Ok(false);
        }
        // The pages that list the free ones are looked through for each that moves, and are not to be read again for each.
        let cached = CACHE_BYTES + free / FREE_PAGES_LISTED * PAGE_BYTES;
        self.connection.pragma_update(None, "cache_size", -(cached >> 10)).map_err(self.failed("set the cache"))?;
        self.faults.reach("free pages");
        let freed = || -> rusqlite::Result<()> {
            // Undone where it does not come to its end.
            let transaction = Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate)?;
            let mut vacuum = self.connection.prepare_cached(VACUUM)?;
            let begun = Instant::now();
            for _ in 0..pages / VACUUMED_AT_ONCE {
                // Each row of this pragma frees one page, so it must be read to its end.
                let mut rows = vacuum.query([])?;
                while rows.next()?.is_some() {}
                if begun.elapsed() >= VACUUM_MAX {
                    break;
                }
            }
            transaction.commit()
        };
        freed().map_err(self.failed("free pages"))?;
        Ok(true)
    }

    /// Whether it is on no disk.
    pub(super) fn is_in_memory(&self) -> bool {
        self.is_in_memory
    }

    /// The folder that it lies in.
    pub(super) fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// Empties the log when it has a quarter of this many bytes, so that a large commit still has room, and cuts it there if it ever grew beyond.
    pub(super) fn bound_log(&self, bytes: u64) -> Result<(), StoreError> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        let pages = (bytes / 4).clamp(CHECKPOINT_BYTES_MIN, CHECKPOINT_BYTES) / PAGE_BYTES;
        let pragma = |name: &str, value: i64| self.connection.pragma_update(None, name, value);
        pragma("wal_autocheckpoint", pages).map_err(self.failed("set the checkpoints"))?;
        let set = self.connection.pragma_update_and_check(None, "journal_size_limit", bytes, |_| Ok(()));
        set.map_err(self.failed("bound the log"))
    }

    /// The part of the file that is in use, in bytes. Free pages are used before the file grows.
    pub(super) fn bytes_used(&self) -> Result<u64, StoreError> {
        let read = |sql: &str| self.connection.prepare_cached(sql)?.query_row([], |row| row.get::<_, i64>(0));
        let pages = read("PRAGMA page_count").and_then(|pages| Ok(pages - read("PRAGMA freelist_count")?));
        Ok((pages.map_err(self.failed("read the size"))? * PAGE_BYTES).cast_unsigned())
    }

    /// The size of the files that were set aside, of the reserve and of the log's index, in bytes. The first two as of [`File::look_beside`].
    pub(super) fn bytes_beside(&self) -> u64 {
        let [_, _, index] = parts(&self.path);
        self.aside_bytes + fs::metadata(index).map_or(0, |file| file.len())
    }

    /// Looks at the files that lie beside the store. No commit changes them, and seven looks take a tenth of the time of one.
    pub(super) fn look_beside(&mut self) {
        let aside = replace::set_aside_files(&self.path);
        let aside: u64 = aside.map(|path| fs::metadata(path).map_or(0, |file| file.len())).sum();
        self.aside_bytes = aside + reserve::bytes(self.folder());
    }

    /// How often the log began again.
    pub(super) fn log_begun(&self) -> u32 {
        if self.is_in_memory { 0 } else { wear::log_begun(&self.path) }
    }

    /// The size of the file and its log, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        if self.is_in_memory {
            let read = |name: &str| self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
            return (read("page_count").unwrap_or(0) * read("page_size").unwrap_or(0)).unsigned_abs();
        }
        let sizes = parts(&self.path).into_iter().map(|path| fs::metadata(path).map_or(0, |file| file.len()));
        sizes.sum()
    }

    pub(super) fn close(self) -> Result<(), StoreError> {
        self.faults.reach("close the store");
        let path = self.path.display().to_string();
        self.connection.close().map_err(|(_, source)| StoreError::Sqlite { doing: "close the store", path, source })
    }

    pub(super) fn execute(
        &self,
        doing: &'static str,
        sql: &str,
        values: impl rusqlite::Params,
    ) -> Result<(), StoreError> {
        let execute = || self.connection.prepare_cached(sql)?.execute(values).map(drop);
        self.faults.around(doing, execute).map_err(self.failed(doing))
    }

    pub(super) fn failed(&self, doing: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError + use<> {
        let path = self.path.display().to_string();
        move |source| StoreError::Sqlite { doing, path, source }
    }
}

pub(super) const PRIORITIES: [Priority; 3] = [Priority::Alert, Priority::Live, Priority::Bulk];

/// Which files have the names of a file and its log.
fn file_ids(path: &Path) -> [Option<FileId>; 2] {
    let [file, log, _] = parts(path);
    [file, log].map(|path| fs::metadata(path).ok().map(|it| (it.dev(), it.ino())))
}

/// Whether a file has no table; one with tables and without our mark is another program's.
fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT NOT EXISTS (SELECT 1 FROM sqlite_schema)", [], |row| row.get(0))
}

/// The priority whose range an id lies in.
pub(super) fn priority_of(id: FrameId) -> Priority {
    match id.0 >> PRIORITY_SHIFT {
        0 => Priority::Alert,
        1 => Priority::Live,
        _ => Priority::Bulk,
    }
}

/// Ids of a priority lie strictly between these.
pub(super) fn id_range(priority: Priority) -> (i64, i64) {
    let place = match priority {
        Priority::Alert => 0,
        Priority::Live => 1,
        Priority::Bulk => 2,
    };
    (place << PRIORITY_SHIFT, (place + 1) << PRIORITY_SHIFT)
}

/// Which id of a priority's this is, counted from 1; `None` for what no store gives, in half of the range that it never comes to.
pub(super) fn id_place(priority: Priority, id: FrameId) -> Option<i64> {
    let place = id.0.checked_sub(id_range(priority).0)?;
    (1..1 << (PRIORITY_SHIFT - 1)).contains(&place).then_some(place)
}

/// The file, its log and the log's index.
pub(super) fn parts(path: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    })
}
