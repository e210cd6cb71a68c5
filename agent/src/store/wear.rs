//! What the store asks of its disk, so that a status can say how long the flash lasts.
//!
//! Bytes are those that the kernel counts for the store's own thread (proc_pid_io(5), `wchar`): every page to the log, and once more when a checkpoint
//! writes it to the file. Its count of blocks is of no use here: it counts a block that is written again before it reaches the disk each time.
//! What the file system writes beside them is not among them.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use super::Store;
use super::file::parts;
use crate::message::Wear;

/// A checkpoint syncs the log before, the file behind it, and the header of the log that then begins again.
const SYNCS_PER_CHECKPOINT: u64 = 3;

/// Where the header of the log counts how often it began again (SQLite's file format, section 4.1).
const BEGUN_AT: usize = 12;

impl Store {
    /// What the disk was asked for since the start; to be called by the thread that writes.
    pub(super) fn wear(&self) -> Wear {
        let begun = self.file.log_begun().saturating_sub(self.log_begun);
        Wear { syncs: self.wear.syncs + u64::from(begun) * SYNCS_PER_CHECKPOINT, bytes: bytes_written(), ..self.wear }
    }
}

/// How often the log of a file began again.
pub(super) fn log_begun(path: &Path) -> u32 {
    let [_, log, _] = parts(path);
    let mut header = [0; BEGUN_AT + 4];
    let read = File::open(log).and_then(|mut log| log.read_exact(&mut header));
    read.ok().and_then(|()| header.last_chunk()).map_or(0, |begun| u32::from_be_bytes(*begun))
}

/// The bytes that this thread ever wrote.
fn bytes_written() -> u64 {
    let counters = fs::read_to_string("/proc/thread-self/io").unwrap_or_default();
    let written = counters.lines().find_map(|line| line.strip_prefix("wchar:"));
    written.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or_default()
}
