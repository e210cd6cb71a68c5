//! Looks into a store without changing it: that of a running agent, a copy, the card of a dead device.
//!
//! Frames are read in pages, each in a transaction of its own that ends within [`PAGE_WITHIN`]: a longer one would keep a running agent from
//! emptying its log. What must fit together (accounts, journal, sums over frames) is read in one transaction by [`Look::book`]; its length is
//! that of the journal, which a snapshot bounds.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rtlive_core::journal::StreamKey;
use rtlive_core::record::Epoch;
use rtlive_core::time::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row};

use super::StoreError;
use super::book::Book;
use super::file::{APPLICATION_ID, VERSION};
use super::frames::Found;
use crate::message::{FrameId, StoredFrame};

/// How long a page may take to read; a tenth of a second is what an agent hardly notices.
const PAGE_WITHIN: Duration = Duration::from_millis(50);

/// How many bytes of frames a page may hold in memory.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// How long an agent may hold the file while it opens or closes it.
const BUSY_FOR: Duration = Duration::from_secs(5);

/// A store that is only read.
pub struct Look {
    connection: Connection,
    path: PathBuf,
}

/// The size of a store, in bytes.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Size {
    /// The file.
    pub file: u64,
    /// Its log.
    pub log: u64,
    /// The part of the file that is free.
    pub free: u64,
}

/// The frames of a stream and class in one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The stream and its class.
    pub key: StreamKey,
    /// The epoch that the numbers count in.
    pub epoch: Epoch,
    /// The first and the last number.
    pub numbers: (u64, u64),
    /// How many frames.
    pub frames: u64,
    /// How many records.
    pub records: u64,
    /// The bytes of the frames.
    pub bytes: u64,
    /// When the first and the last of them were committed.
    pub committed: (Timestamp, Timestamp),
}

/// A frame that was found.
#[derive(Clone, Debug)]
pub enum Looked {
    /// Its bytes are those that were written.
    Whole(StoredFrame),
    /// They are not.
    Damaged {
        /// The stream and its class.
        key: StreamKey,
        /// The epoch that the numbers count in.
        epoch: Epoch,
        /// The first and the last number.
        numbers: (u64, u64),
    },
}

impl Look {
    /// Opens a file to read it. A file whose log was emptied may lie on a medium that cannot be written.
    ///
    /// # Errors
    /// The file is missing, no store of this version, or cannot be read.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let failed = |doing| move |source| StoreError::Sqlite { doing, path: path.display().to_string(), source };
        std::fs::metadata(path).map_err(|source| StoreError::Folder { path: path.display().to_string(), source })?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(failed("open the store"))?;
        let connection = match connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)) {
            Err(error) if is_unwritable(&error) && !has_log(path) => {
                // Without a log there is nothing to share with a writer, and no need of a file beside this one.
                let flags = flags | OpenFlags::SQLITE_OPEN_URI;
                Connection::open_with_flags(immutable(path), flags).map_err(failed("open the store"))?
            }
            _ => connection,
        };
        connection.busy_timeout(BUSY_FOR).map_err(failed("open the store"))?;
        let read = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let (application, version) = (
            read("application_id").map_err(failed("read the header"))?,
            read("user_version").map_err(failed("read the header"))?,
        );
        if (application, version) != (APPLICATION_ID, VERSION) {
            return Err(StoreError::Foreign { path: path.display().to_string(), application, version });
        }
        Ok(Self { connection, path: path.to_owned() })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How large it is.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn size(&self) -> Result<Size, StoreError> {
        let read = |name: &str| self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let failed = || self.failed("read the size");
        let (pages, free) = (read("page_count").map_err(failed())?, read("freelist_count").map_err(failed())?);
        let page = read("page_size").map_err(failed())?.cast_unsigned();
        let log = std::fs::metadata(log_of(&self.path)).map_or(0, |log| log.len());
        Ok(Size { file: pages.cast_unsigned() * page, log, free: free.cast_unsigned() * page })
    }

    /// What the store says of itself at one instant.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn book(&self) -> Result<Book, StoreError> {
        let failed = || self.failed("read the journal");
        self.connection.execute_batch("BEGIN").map_err(failed())?;
        let meta = self.connection.query_row("SELECT epoch, boot_id FROM meta", [], |row| {
            Ok((Epoch(row.get::<_, i64>(0)?.cast_unsigned()), row.get::<_, String>(1)?))
        });
        let meta = meta.optional().map_err(failed())?;
        let snapshots = self.numbered("SELECT number, body FROM snapshots ORDER BY number DESC")?;
        let chunks = self.numbered("SELECT number, chunk FROM journal ORDER BY number")?;
        let lanes = self.lanes()?;
        self.connection.execute_batch("END").map_err(failed())?;
        Ok(Book { meta, snapshots, chunks, lanes })
    }

    /// How many frames there are.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn frame_count(&self) -> Result<u64, StoreError> {
        let count = self.connection.query_row("SELECT count(*) FROM frames", [], |row| row.get::<_, i64>(0));
        count.map(i64::cast_unsigned).map_err(self.failed("count the frames"))
    }

    /// Shows every frame, in the order of sending: by priority, then by age. Frames that a running agent seals meanwhile may be
    /// among them, frames that it deletes may not.
    ///
    /// # Errors
    /// What SQLite said, or `look`.
    pub fn each_frame<E: From<StoreError>>(&self, mut look: impl FnMut(Looked) -> Result<(), E>) -> Result<(), E> {
        let mut after = i64::MIN;
        loop {
            let page = self.page(&mut after)?;
            if page.is_empty() {
                return Ok(());
            }
            page.into_iter().try_for_each(&mut look)?;
        }
    }

    /// The next frames behind an id, which moves on.
    fn page(&self, after: &mut i64) -> Result<Vec<Looked>, StoreError> {
        let failed = || self.failed("read the frames");
        let sql = "SELECT id, stream, class, epoch, first, count, committed_at, json, checksum, bytes
                   FROM frames WHERE id > ?1 ORDER BY id";
        let mut statement = self.connection.prepare_cached(sql).map_err(failed())?;
        let mut rows = statement.query([*after]).map_err(failed())?;
        let (begun, mut bytes, mut page) = (Instant::now(), 0, Vec::new());
        while bytes < PAGE_BYTES_MAX && begun.elapsed() < PAGE_WITHIN {
            let Some(row) = rows.next().map_err(failed())? else { break };
            *after = row.get(0).map_err(failed())?;
            let found = super::frames::found(row, super::file::priority_of(FrameId(*after))).map_err(failed())?;
            page.push(match found {
                Found::Whole(frame, _) => {
                    bytes += frame.bytes.len();
                    Looked::Whole(frame)
                }
                Found::Damaged(_, sealed) => {
                    Looked::Damaged { key: sealed.key, epoch: sealed.epoch, numbers: (sealed.from, sealed.to) }
                }
            });
        }
        Ok(page)
    }

    fn numbered(&self, sql: &str) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
        let failed = || self.failed("read the journal");
        let mut statement = self.connection.prepare(sql).map_err(failed())?;
        let rows = statement.query_map([], |row| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?)));
        rows.map_err(failed())?.collect::<Result<_, _>>().map_err(failed())
    }

    fn lanes(&self) -> Result<Vec<Lane>, StoreError> {
        let failed = || self.failed("sum up the frames");
        let sql = "SELECT stream, class, epoch, min(first), max(first + count - 1), count(*), sum(count),
                          sum(length(bytes)), min(committed_at), max(committed_at)
                   FROM frames GROUP BY stream, class, epoch ORDER BY stream, class, min(id)";
        let mut statement = self.connection.prepare(sql).map_err(failed())?;
        let lane = |row: &Row<'_>| {
            let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
            let text = |column| row.get::<_, String>(column).map(Arc::from);
            let time = |column| row.get::<_, i64>(column).map(Timestamp::from_nanos);
            Ok(Lane {
                key: StreamKey { stream: text(0)?, class: text(1)? },
                epoch: Epoch(number(2)?),
                numbers: (number(3)?, number(4)?),
                frames: number(5)?,
                records: number(6)?,
                bytes: number(7)?,
                committed: (time(8)?, time(9)?),
            })
        };
        let lanes = statement.query_map([], lane).map_err(failed())?;
        lanes.collect::<Result<_, _>>().map_err(failed())
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError + use<> {
        let path = self.path.display().to_string();
        move |source| StoreError::Sqlite { doing, path, source }
    }
}

/// Whether SQLite could not make the file beside a store that it shares with a writer.
fn is_unwritable(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
}

fn log_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

fn has_log(path: &Path) -> bool {
    std::fs::metadata(log_of(path)).is_ok_and(|log| log.len() > 0)
}

/// The address of a file that nobody writes (sqlite.org/uri.html).
fn immutable(path: &Path) -> String {
    let mut address = "file:".to_owned();
    for &byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => address.push(char::from(byte)),
            _ => address.push_str(&format!("%{byte:02X}")),
        }
    }
    address + "?immutable=1"
}
