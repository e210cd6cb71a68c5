//! Compaction: the files of a folder become one for each set of columns, row by row as they are.
//!
//! The new files are made beside the folder, together with links to those that stay, and then the two folders change places (`RENAME_EXCHANGE` of
//! renameat(2)): whoever lists it sees all files of before, or all of after. Receivers put files in their places under a shared lock; the exchange has
//! it for itself, and takes in what came meanwhile. So a compaction that is killed leaves a folder that is whole, and work that the next one removes.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow_schema::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::errors::ParquetError;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::lock::PublishLock;
use super::{BATCH_ROWS, LakeError, STAGING, properties, sync_folder};

/// The folder of what is not in its place yet, within the staging folder. No receiver's prefix is without a hyphen.
const WORK: &str = "compaction";

/// What the names of compacted files begin with.
const PREFIX: &str = "compacted";

/// What a compaction came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// How many folders changed.
    pub folders: u64,
    /// How many files were merged.
    pub files: u64,
    /// Into how many.
    pub into: u64,
    /// How many rows they hold.
    pub rows: u64,
}

/// Compacts an output whose receivers may be running: the folders of all days before one, given as `2026-01-31`, or of all.
///
/// # Errors
/// Another compaction is running, or what the system or the format said. What was compacted before that stays so.
pub fn compact(folder: &Path, before: Option<&str>) -> Result<Compacted, LakeError> {
    let staging = folder.join(STAGING);
    make_folder(&staging)?;
    let lock = PublishLock::open(&staging)?;
    let work = staging.join(WORK);
    let _alone = PublishLock::of_compaction(&staging)?;
    remove_folder(&work)?;
    let mut compacted = Compacted::default();
    for date in folders(folder)? {
        let is_old =
            |date: &str| before.is_none_or(|before| date.strip_prefix("date=").is_some_and(|date| date < before));
        if !date.to_str().is_some_and(is_old) {
            continue;
        }
        for stream in folders(&folder.join(&date))? {
            let live = folder.join(&date).join(&stream);
            compact_folder(&live, &work, &lock, &mut compacted)?;
        }
    }
    Ok(compacted)
}

fn compact_folder(live: &Path, work: &Path, lock: &PublishLock, total: &mut Compacted) -> Result<(), LakeError> {
    let names = files(live)?;
    let mut sets: Vec<(SchemaRef, Vec<OsString>)> = Vec::new();
    for name in &names {
        let schema = reader(&live.join(name))?.schema().clone();
        match sets.iter_mut().find(|(known, _)| *known == schema) {
            Some((_, names)) => names.push(name.clone()),
            None => sets.push((schema, vec![name.clone()])),
        }
    }
    if sets.iter().all(|(_, names)| names.len() < 2) {
        return Ok(());
    }
    make_folder(work)?;
    let mut merged = BTreeSet::new();
    let larger = sets.into_iter().filter(|(_, names)| names.len() > 1);
    for (number, (schema, names)) in (next_number(&names)..).zip(larger) {
        let path = work.join(format!("{PREFIX}-{number:06}.parquet"));
        total.rows += merge(live, &names, schema, &path)?;
        total.files += names.len() as u64;
        total.into += 1;
        merged.extend(names);
    }
    {
        let _exclusive = lock.exclusive()?;
        // Those that stay, and those that came meanwhile.
        for name in files(live)?.into_iter().filter(|name| !merged.contains(name)) {
            let path = work.join(&name);
            fs::hard_link(live.join(&name), &path).map_err(|source| LakeError::Io {
                doing: "link a file to",
                path,
                source,
            })?;
        }
        sync_folder(work)?;
        renameat_with(CWD, work, CWD, live, RenameFlags::EXCHANGE).map_err(|error| LakeError::Io {
            doing: "exchange a new folder with",
            path: live.to_owned(),
            source: error.into(),
        })?;
        live.parent().map_or(Ok(()), sync_folder)?;
    }
    total.folders += 1;
    remove_folder(work)
}

/// Writes the rows of files with the same columns into one; says how many there are.
fn merge(live: &Path, names: &[OsString], schema: SchemaRef, path: &Path) -> Result<u64, LakeError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source: ParquetError| LakeError::Encode { path, source }
    };
    let file = File::create(path);
    let file = file.map_err(|source| LakeError::Io { doing: "make", path: path.to_owned(), source })?;
    let options = ArrowWriterOptions::new().with_properties(properties()).with_skip_arrow_metadata(true);
    let mut writer = ArrowWriter::try_new_with_options(file, schema, options).map_err(failed(path))?;
    let mut rows = 0;
    for name in names {
        let from = live.join(name);
        let batches = reader(&from)?.with_batch_size(BATCH_ROWS).build().map_err(failed(&from))?;
        for batch in batches {
            let batch = batch.map_err(|error| failed(&from)(error.into()))?;
            rows += batch.num_rows() as u64;
            writer.write(&batch).map_err(failed(path))?;
        }
    }
    let file = writer.into_inner().map_err(failed(path))?;
    file.sync_all().map_err(|source| LakeError::Io { doing: "sync", path: path.to_owned(), source })?;
    Ok(rows)
}

fn reader(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>, LakeError> {
    let file = File::open(path).map_err(|source| LakeError::Io { doing: "open", path: path.to_owned(), source })?;
    ParquetRecordBatchReaderBuilder::try_new(file).map_err(|source| LakeError::Decode { path: path.to_owned(), source })
}

/// A number for a file that none here has.
fn next_number(names: &[OsString]) -> u64 {
    let number = |name: &OsString| {
        let name = name.to_str()?.strip_prefix(PREFIX)?.strip_prefix('-')?;
        name.strip_suffix(".parquet")?.parse::<u64>().ok()
    };
    names.iter().filter_map(number).max().unwrap_or(0) + 1
}

/// The partitions below a folder, in the order of their names.
fn folders(folder: &Path) -> Result<Vec<OsString>, LakeError> {
    entries(folder, |path| path.is_dir() && path.file_name().is_some_and(|name| !is_hidden(name)))
}

/// The Parquet files in a folder, in the order of their names.
fn files(folder: &Path) -> Result<Vec<OsString>, LakeError> {
    let is_parquet = |path: &Path| path.extension().is_some_and(|extension| extension == "parquet");
    entries(folder, |path| is_parquet(path) && path.file_name().is_some_and(|name| !is_hidden(name)))
}

fn is_hidden(name: &std::ffi::OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

fn entries(folder: &Path, is_wanted: impl Fn(&Path) -> bool) -> Result<Vec<OsString>, LakeError> {
    let failed = |source| LakeError::Io { doing: "list", path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if is_wanted(&entry.path()) {
            names.push(entry.file_name());
        }
    }
    names.sort();
    Ok(names)
}

fn make_folder(path: &Path) -> Result<(), LakeError> {
    fs::create_dir_all(path).map_err(|source| LakeError::Io { doing: "make the folder", path: path.to_owned(), source })
}

fn remove_folder(path: &Path) -> Result<(), LakeError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(LakeError::Io { doing: "remove the folder", path: PathBuf::from(path), source: error })
        }
        _ => Ok(()),
    }
}
