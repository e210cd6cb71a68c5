//! The output of files, with the spool from which they are written anew when the process ends before they are closed.

use std::time::{Duration, Instant};

use rtlive_core::frame::{self, FrameError};

use super::parquet::{ClosedFile, Lake, LakeError};
use crate::config::ParquetConfig;
use crate::new_records::NewRecords;
use crate::state::{Spooled, State, StateError};

/// Why files cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The state cannot be read or written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The files themselves cannot.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// A frame that was opened when it came cannot be opened again: the state is damaged.
    #[error("open a frame that lies in the state")]
    Spool(#[source] FrameError),
}

/// Files that hold rows, and when they are due.
pub struct Files {
    lake: Lake,
    every: Duration,
    rows_max: u64,
    /// When the first row came that is not in a closed file.
    since: Option<Instant>,
}

impl Files {
    /// Goes on where a process before this one ended. `id` is the receiver's.
    ///
    /// # Errors
    /// What the state or the files say.
    pub fn open(config: ParquetConfig, id: &str, state: &mut State) -> Result<Self, FilesError> {
        let ParquetConfig { folder, every, rows_max } = config;
        let prefix = format!("{id}-{:08x}", state.instance());
        let pending = state.pending_files()?;
        let lake = Lake::open(&folder, &prefix, &pending)?;
        if !pending.is_empty() {
            forget(state)?;
        }
        let mut files = Self { lake, every, rows_max, since: None };
        let mut last = i64::MIN;
        while let Some(Spooled { number, numbers, historical, frame }) = state.spooled_after(last)? {
            last = number;
            let (header, contents) = frame::open(&frame).map_err(FilesError::Spool)?;
            files.write(state, &NewRecords { header, contents, historical, numbers })?;
        }
        Ok(files)
    }

    /// Adds the new records of a frame, within a transaction of the state that keeps the frame.
    ///
    /// # Errors
    /// What the state or the files say.
    pub fn append(&mut self, state: &mut State, records: &NewRecords, frame: &[u8]) -> Result<(), FilesError> {
        state.spool(&records.numbers, records.historical, frame)?;
        self.write(state, records)
    }

    /// Whether the files hold as many rows as they should.
    pub const fn is_full(&self) -> bool {
        self.lake.rows() >= self.rows_max
    }

    /// In what time the files are to be closed; `None` while they hold nothing.
    pub fn due_in(&self) -> Option<Duration> {
        self.since.map(|since| self.every.saturating_sub(since.elapsed()))
    }

    /// Closes the files and puts them in their places, between transactions of the state; says how many they are.
    ///
    /// # Errors
    /// What is not done can be done by the next process.
    pub fn close(&mut self, state: &mut State) -> Result<u64, FilesError> {
        if self.since.take().is_none() {
            return Ok(0);
        }
        let closed = self.finish()?;
        note(state, &closed)?;
        self.lake.publish(&closed)?;
        forget(state)?;
        Ok(closed.len() as u64)
    }

    fn finish(&mut self) -> Result<Vec<ClosedFile>, FilesError> {
        Ok(self.lake.close_files()?)
    }

    fn write(&mut self, state: &State, records: &NewRecords) -> Result<(), FilesError> {
        self.since.get_or_insert_with(Instant::now);
        Ok(self.lake.append(state.files_number(), records)?)
    }
}

/// Notes that the records of all frames are in closed files.
fn note(state: &mut State, closed: &[ClosedFile]) -> Result<(), StateError> {
    state.begin()?;
    state.close_files(closed)?;
    state.commit()
}

/// Notes that all closed files are in their places.
fn forget(state: &mut State) -> Result<(), StateError> {
    state.begin()?;
    state.forget_files()?;
    state.commit()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::{self, File};
    use std::path::Path;

    use arrow_array::cast::AsArray;
    use arrow_array::types::Int64Type;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;
    use crate::intervals::Numbers;
    use crate::sample::frame;

    fn files_of(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files_of(&path, found);
            } else {
                found.push(path);
            }
        }
    }

    /// How often each number stands in the files that readers see.
    fn numbers(folder: &Path) -> BTreeMap<i64, u32> {
        let (mut found, mut numbers) = (Vec::new(), BTreeMap::new());
        files_of(folder, &mut found);
        for path in found.iter().filter(|path| !path.starts_with(folder.join(super::super::parquet::STAGING))) {
            assert!(path.to_str().unwrap().contains("/stream=raw/"), "{path:?}");
            let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
            for batch in reader {
                let batch = batch.unwrap();
                for number in batch.column_by_name("seq").unwrap().as_primitive::<Int64Type>().values() {
                    *numbers.entry(*number).or_default() += 1;
                }
            }
        }
        numbers
    }

    /// How many files are not in their places; the locks beside them stay.
    fn staged(folder: &Path) -> usize {
        let mut found = Vec::new();
        files_of(&folder.join(super::super::parquet::STAGING), &mut found);
        found.iter().filter(|path| path.extension().is_some_and(|extension| extension == "parquet")).count()
    }

    fn open(folder: &Path) -> (Files, State) {
        let mut state = State::open(&folder.join("state")).unwrap();
        let config = ParquetConfig { folder: folder.join("lake"), every: Duration::MAX, rows_max: 1_000 };
        (Files::open(config, "test", &mut state).unwrap(), state)
    }

    fn append(files: &mut Files, state: &mut State, from: u64, count: u64) {
        let frame = frame("a", from, count);
        let (header, contents) = frame::open(&frame).unwrap();
        let numbers = vec![Numbers { from, to: from + count - 1 }];
        state.begin().unwrap();
        files.append(state, &NewRecords { header, contents, historical: false, numbers }, &frame).unwrap();
        state.commit().unwrap();
    }

    /// The process ends behind each step of closing files, and again behind each step of what the next one does.
    #[test]
    fn rows_are_there_once_wherever_the_process_ends() {
        for first in 0..=4 {
            for second in 0..=4 {
                let folder = tempfile::tempdir().unwrap();
                let lake = folder.path().join("lake");
                let mut last = 0;
                for steps in [first, second] {
                    let (mut files, mut state) = open(folder.path());
                    append(&mut files, &mut state, last + 1, 60);
                    last += 60;
                    let before = numbers(&lake);
                    if steps > 0 {
                        let closed = files.finish().unwrap();
                        if steps > 1 {
                            note(&mut state, &closed).unwrap();
                            assert_eq!(numbers(&lake), before, "files are seen before their time");
                        }
                        if steps > 2 {
                            files.lake.publish(&closed).unwrap();
                        }
                        if steps > 3 {
                            forget(&mut state).unwrap();
                        }
                    }
                    drop((files, state));
                    assert!(numbers(&lake).values().all(|count| *count == 1), "{first} {second}");
                }
                let (mut files, mut state) = open(folder.path());
                files.close(&mut state).unwrap();
                let expected: BTreeMap<i64, u32> = (1..=last.cast_signed()).map(|number| (number, 1)).collect();
                assert_eq!(numbers(&lake), expected, "{first} {second}");
                assert_eq!((staged(&lake), files.close(&mut state).unwrap()), (0, 0), "{first} {second}");
            }
        }
    }

    /// A receiver goes on while its files are compacted, and a compaction before was killed.
    #[test]
    fn compaction_keeps_each_row_once() {
        let folder = tempfile::tempdir().unwrap();
        let lake = folder.path().join("lake");
        let (mut files, mut state) = open(folder.path());
        let mut last = 0;
        for round in 1..4 {
            for _ in 0..3 {
                append(&mut files, &mut state, last + 1, 60);
                last += 60;
                files.close(&mut state).unwrap();
            }
            append(&mut files, &mut state, last + 1, 60);
            last += 60;
            let work = lake.join(super::super::parquet::STAGING).join("compaction");
            fs::create_dir_all(&work).unwrap();
            fs::write(work.join("compacted-000001.parquet"), "half a file").unwrap();
            let compacted = super::super::parquet::compact(&lake, None).unwrap();
            assert!(compacted.files > compacted.into, "{round}: {compacted:?}");
            assert!(!work.exists(), "{round}");
            assert_eq!(super::super::parquet::compact(&lake, None).unwrap().files, 0, "{round}");
            files.close(&mut state).unwrap();
            let expected: BTreeMap<i64, u32> = (1..=last.cast_signed()).map(|number| (number, 1)).collect();
            assert_eq!(numbers(&lake), expected, "{round}");
        }
        let untouched = super::super::parquet::compact(&lake, Some("1970-01-01")).unwrap();
        assert_eq!(untouched.folders, 0);
    }
}
