//! Parquet files, partitioned by the date of the records and by their stream: `date=2026-01-01/stream=raw/NAME.parquet`.
//!
//! Rows are written as frames come; the frames lie in the state until the files that hold their records are closed. Then, in this order:
//!
//! 1. every file is written to its end in the staging folder, and synced ([`Lake::close_files`]);
//! 2. one commit of the state notes the names of the files, and drops the frames that are in them;
//! 3. the files are renamed to their places ([`Lake::publish`]), and with another commit the state forgets their names.
//!
//! A process that is killed before the second step writes the files anew, from the frames that the state still has; one that is killed behind it finds
//! the names, and goes on with the third. So no record is lost or there twice, and nobody ever sees a file that is taken back.

mod column;
mod compact;
mod lock;
mod place;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use rtlive_core::record::Record;

use crate::new_records::NewRecords;
pub use compact::{Compacted, compact};
use lock::PublishLock;
use place::Place;
use table::Table;

/// How many files may be open at once. Records of more days or streams than that make shorter files.
const OPEN_FILES_MAX: usize = 128;

/// How many rows are gathered before they are encoded: enough for columns, and little memory for each open file.
const BATCH_ROWS: usize = 8_192;

/// How many rows make a row group: what a reader decodes at once, and what an open file holds encoded in memory.
const ROW_GROUP_ROWS: usize = 1 << 18;

/// The folder of files that are not closed. Readers pass over names that begin with a dot.
pub const STAGING: &str = ".staging";

/// Why files cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The system refused.
    #[error("{doing} {}", path.display())]
    Io {
        /// The operation.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A file is none of this output.
    #[error("read {}", path.display())]
    Decode {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        source: ParquetError,
    },
    /// Another process compacts the same output.
    #[error("{} is held: another compaction is running", path.display())]
    Compacting {
        /// The lock.
        path: PathBuf,
    },
    /// The encoder refused.
    #[error("write {}", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: ParquetError,
    },
}

/// A file that is written to its end, and not yet in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedFile {
    /// Its name in the staging folder, and in its place.
    pub name: String,
    /// The folder of its place, below that of the output.
    pub folder: String,
}

/// Writes Parquet files.
pub struct Lake {
    folder: PathBuf,
    staging: PathBuf,
    lock: PublishLock,
    /// What the names of its files begin with; no other receiver's do.
    prefix: String,
    open: BTreeMap<Place, OpenFile>,
    closed: Vec<ClosedFile>,
    rows: u64,
}

struct OpenFile {
    closed: ClosedFile,
    path: PathBuf,
    table: Table,
    writer: ArrowWriter<File>,
}

impl Lake {
    /// Opens the output in a folder, which is made where it is missing. Files of `pending` are put in their places; others that a process before this one
    /// left in the staging folder are taken away: their records come again.
    ///
    /// # Errors
    /// What the system said.
    pub fn open(folder: &Path, prefix: &str, pending: &[ClosedFile]) -> Result<Self, LakeError> {
        let staging = folder.join(STAGING).join(prefix);
        let failed = |doing| {
            let path = staging.clone();
            move |source| LakeError::Io { doing, path, source }
        };
        fs::create_dir_all(&staging).map_err(failed("make the folder"))?;
        let lake = Self {
            folder: folder.to_owned(),
            staging: staging.clone(),
            lock: PublishLock::open(&folder.join(STAGING))?,
            prefix: prefix.to_owned(),
            open: BTreeMap::new(),
            closed: Vec::new(),
            rows: 0,
        };
        lake.publish(pending)?;
        for entry in fs::read_dir(&staging).map_err(failed("list"))? {
            let path = entry.map_err(failed("list"))?.path();
            fs::remove_file(&path).map_err(|source| LakeError::Io { doing: "remove", path, source })?;
        }
        Ok(lake)
    }

    /// How many rows were added since files were closed.
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// Adds the new records of a frame. `number` is that of the files which are closed next.
    ///
    /// # Errors
    /// What the system said; the lake must then be dropped.
    pub fn append(&mut self, number: u64, frame: &NewRecords) -> Result<(), LakeError> {
        let (stream, compute) = (&frame.header.origin.stream, &frame.contents.compute);
        let records: Vec<(u64, &Record)> = frame.iter().collect();
        let mut rest = &*records;
        while let Some((_, first)) = rest.first() {
            let place = Place::of(stream, first, compute);
            let count = rest.iter().take_while(|(_, record)| place.takes(stream, record, compute)).count();
            let (run, behind) = rest.split_at_checked(count).unwrap_or((rest, &[]));
            self.append_run(number, place, frame, run)?;
            rest = behind;
        }
        self.rows += records.len() as u64;
        Ok(())
    }

    fn append_run(
        &mut self,
        number: u64,
        place: Place,
        frame: &NewRecords,
        run: &[(u64, &Record)],
    ) -> Result<(), LakeError> {
        if !self.open.contains_key(&place) {
            if self.open.len() >= OPEN_FILES_MAX
                && let Some((_, file)) = self.open.pop_first()
            {
                self.closed.push(file.close()?);
            }
            let count = self.open.len() + self.closed.len();
            let name = format!("{}-{number:06}-{count}.parquet", self.prefix);
            let closed = ClosedFile { folder: place.folder(), name };
            let path = self.staging.join(&closed.name);
            self.open.insert(place.clone(), OpenFile::make(closed, path, &place)?);
        }
        match self.open.get_mut(&place) {
            Some(file) => file.append(frame, run),
            None => Ok(()),
        }
    }

    /// Writes all files to their ends, and syncs them.
    ///
    /// # Errors
    /// What the system said; the lake must then be dropped.
    pub fn close_files(&mut self) -> Result<Vec<ClosedFile>, LakeError> {
        while let Some((_, file)) = self.open.pop_first() {
            self.closed.push(file.close()?);
        }
        self.rows = 0;
        sync_folder(&self.staging)?;
        Ok(std::mem::take(&mut self.closed))
    }

    /// Renames files to their places, where they are not there already.
    ///
    /// # Errors
    /// What the system said; what is not done can be done again.
    pub fn publish(&self, files: &[ClosedFile]) -> Result<(), LakeError> {
        let mut changed = BTreeSet::new();
        let _shared = self.lock.shared()?;
        for ClosedFile { name, folder } in files {
            let (staged, folder) = (self.staging.join(name), self.folder.join(folder));
            let failed = |doing, path: &Path| {
                let path = path.to_owned();
                move |source| LakeError::Io { doing, path, source }
            };
            fs::create_dir_all(&folder).map_err(failed("make the folder", &folder))?;
            let path = folder.join(name);
            match fs::rename(&staged, &path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if !path.exists() {
                        tracing::warn!("{} is not there any more: somebody else moved or removed it", path.display());
                    }
                }
                Err(error) => return Err(failed("rename a file to", &path)(error)),
            }
            // The folder of the stream, that of the date, and that of the output: each may be new.
            changed.extend(path.ancestors().skip(1).take(3).map(Path::to_owned));
        }
        changed.iter().try_for_each(|folder| sync_folder(folder))
    }
}

/// Makes names in a folder durable.
fn sync_folder(folder: &Path) -> Result<(), LakeError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|source| LakeError::Io { doing: "sync the folder", path: folder.to_owned(), source })
}

impl OpenFile {
    fn make(closed: ClosedFile, path: PathBuf, place: &Place) -> Result<Self, LakeError> {
        let table = Table::new(&place.kind);
        let file = File::create(&path);
        let file = file.map_err(|source| LakeError::Io { doing: "make", path: path.clone(), source })?;
        // Readers get texts, not Arrow's dictionaries, whatever the columns are here.
        let options = ArrowWriterOptions::new().with_properties(properties()).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(file, table.schema(), options);
        let writer = writer.map_err(|source| LakeError::Encode { path: path.clone(), source })?;
        Ok(Self { closed, path, table, writer })
    }

    fn append(&mut self, frame: &NewRecords, run: &[(u64, &Record)]) -> Result<(), LakeError> {
        self.table.push(frame, run);
        if self.table.count >= BATCH_ROWS { self.encode() } else { Ok(()) }
    }

    fn encode(&mut self) -> Result<(), LakeError> {
        let batch = self.table.take().map_err(ParquetError::from);
        let written = batch.and_then(|batch| self.writer.write(&batch));
        written.map_err(|source| LakeError::Encode { path: self.path.clone(), source })
    }

    fn close(mut self) -> Result<ClosedFile, LakeError> {
        self.encode()?;
        let file = self.writer.into_inner();
        let file = file.map_err(|source| LakeError::Encode { path: self.path.clone(), source })?;
        file.sync_all().map_err(|source| LakeError::Io { doing: "sync", path: self.path, source })?;
        Ok(self.closed)
    }
}

/// How columns are written: numbers and times that grow by their differences, all others as their few different values where that helps.
fn properties() -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_created_by(format!("rtlive-receiver {}", env!("CARGO_PKG_VERSION")));
    for growing in ["seq", "time", "start", "end"] {
        let column = ColumnPath::from(growing);
        properties = properties
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
    }
    properties.build()
}
