//! Files, folders of files, and standard input: messages in a row, as `mosquitto_sub -N` and `rtlive store export --format frames` write them.
//!
//! A cursor goes with each message of a file, and is committed with it: a file is never read twice, and one that grows is read on. A file that is
//! shorter than its cursor is another one of the same name, and is read from its beginning; what was here is not taken again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rtlive_core::message::{Item, MessageReader};
use tokio::sync::watch;

use super::SourceError;
use crate::delivery::{Cursor, Delivery, Queue, SourceId};

/// How much is read at once.
const READ_BYTES: usize = 1 << 18;

/// How often a folder that is followed is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Reads the files of a folder; with `follow`, until it is told to stop. `cursors` says how far each is read.
///
/// # Errors
/// The folder or a file cannot be read.
pub async fn read_folder(
    source: SourceId,
    folder: PathBuf,
    follow: bool,
    cursors: Vec<Cursor>,
    queue: Queue,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), SourceError> {
    let mut offsets: BTreeMap<String, u64> =
        cursors.into_iter().map(|cursor| (cursor.name.to_string(), cursor.offset)).collect();
    loop {
        for (name, length) in listed(&folder).map_err(|source| SourceError::Read { path: folder.clone(), source })? {
            if *stopping.borrow() {
                return Ok(());
            }
            let offset = offsets.entry(name.clone()).or_default();
            if length < *offset {
                *offset = 0;
            }
            if length > *offset {
                let path = folder.join(&name);
                let reading = Reading { source, path, name: Some(name.into()), offset: *offset, is_growing: follow };
                *offset = reading.read(&queue, &stopping).await?;
            }
        }
        if !follow {
            return Ok(());
        }
        // Woken by a stop, or after a while.
        let _ = tokio::time::timeout(LOOK_EVERY, stopping.wait_for(|stop| *stop)).await;
        if *stopping.borrow() {
            return Ok(());
        }
    }
}

/// Reads one file, or standard input for `-`, to its end.
///
/// # Errors
/// It cannot be read.
pub async fn read_file(
    source: SourceId,
    path: PathBuf,
    queue: Queue,
    stopping: watch::Receiver<bool>,
) -> Result<(), SourceError> {
    let reading = Reading { source, path, name: None, offset: 0, is_growing: false };
    reading.read(&queue, &stopping).await.map(drop)
}

/// Files of a folder with their lengths, by name.
fn listed(folder: &Path) -> io::Result<BTreeMap<String, u64>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        let data = fs::metadata(entry.path())?;
        if data.is_file() {
            files.insert(name.to_owned(), data.len());
        }
    }
    Ok(files)
}

/// A file that is read from an offset to its end.
struct Reading {
    source: SourceId,
    path: PathBuf,
    /// The name under which its cursor is kept, where one is.
    name: Option<Arc<str>>,
    offset: u64,
    /// Whether more may follow, so that a message without its end is waited for.
    is_growing: bool,
}

impl Reading {
    /// Reads to the end, and says up to where whole messages were found.
    async fn read(self, queue: &Queue, stopping: &watch::Receiver<bool>) -> Result<u64, SourceError> {
        let failed = |source| SourceError::Read { path: self.path.clone(), source };
        let mut file = self.open().map_err(failed)?;
        let mut messages = MessageReader::default();
        let mut bytes = vec![0; READ_BYTES];
        let mut position = self.offset;
        loop {
            // Reading blocks the other sources while the disk answers; a pipe that is silent would hold them up, so that it is read elsewhere.
            let (read_file, read_bytes, count) = tokio::task::spawn_blocking(move || read_some(file, bytes))
                .await
                .map_err(|error| failed(error.into()))?;
            (file, bytes) = (read_file, read_bytes);
            let count = count.map_err(failed)?;
            messages.feed(bytes.get(..count).unwrap_or_default());
            loop {
                let at_end = count == 0 && !self.is_growing;
                let item = if at_end { messages.finish() } else { messages.next_item() };
                let Some(item) = item else { break };
                position = self.offset + messages.position();
                match item {
                    Ok(Item::Message(payload) | Item::Json(payload)) => self.put(payload, position, queue).await?,
                    Err(error) => tracing::warn!("{}: {error}: {}", self.path.display(), error.why),
                }
            }
            if count == 0 || *stopping.borrow() {
                return Ok(position);
            }
        }
    }

    async fn put(&self, payload: Vec<u8>, position: u64, queue: &Queue) -> Result<(), SourceError> {
        let cursor = self.name.as_ref().map(|name| Cursor { name: Arc::clone(name), offset: position });
        Ok(queue.put(Delivery { source: self.source, topic: Arc::from(""), payload, token: 0, cursor }).await?)
    }

    fn open(&self) -> io::Result<Box<dyn Read + Send>> {
        if self.path == Path::new("-") {
            return Ok(Box::new(io::stdin()));
        }
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.offset))?;
        Ok(Box::new(file))
    }
}

type ReadSome = (Box<dyn Read + Send>, Vec<u8>, io::Result<usize>);

fn read_some(mut file: Box<dyn Read + Send>, mut bytes: Vec<u8>) -> ReadSome {
    let count = loop {
        match file.read(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            count => break count,
        }
    };
    (file, bytes, count)
}
