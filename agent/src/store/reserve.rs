//! The reserve: room on the disk that is held back, and given up when the disk is full, so that gaps and alerts can still be committed.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

/// How much is held back: hundreds of commits of gaps and alerts.
const RESERVE_BYTES: u64 = 1 << 20;

/// The reserve is at most this part of the file system, and of what the store may take.
const FILE_SYSTEM_PART: u64 = 64;
const STORE_PART: u64 = 16;

const FILE_NAME: &str = "store.reserve";

fn path(folder: &Path) -> PathBuf {
    folder.join(FILE_NAME)
}

/// The size of the reserve, in bytes.
pub(super) fn bytes(folder: &Path) -> u64 {
    fs::metadata(path(folder)).map_or(0, |file| file.len())
}

/// Makes the reserve of a store that may take `bytes_max`, if it is not there and the disk has room for it and as much again; says whether it is
/// there.
pub(super) fn make(folder: &Path, bytes_max: u64) -> bool {
    let path = path(folder);
    let Ok(system) = rustix::fs::statvfs(folder) else { return false };
    let part = system.f_blocks.saturating_mul(system.f_frsize) / FILE_SYSTEM_PART;
    let bytes = RESERVE_BYTES.min(part).min(bytes_max / STORE_PART);
    if path.is_file() && self::bytes(folder) <= bytes {
        return true;
    }
    if system.f_bavail.saturating_mul(system.f_frsize) < bytes * 2 {
        return false;
    }
    let Ok(file) = OpenOptions::new().write(true).create(true).truncate(true).open(&path) else { return false };
    let made = fallocate(&file, FallocateFlags::empty(), 0, bytes).is_ok();
    if !made {
        // A file system without this call has no reserve.
        let _ = fs::remove_file(&path);
    }
    made
}

/// Frees the room; says whether there was any.
pub(super) fn give_up(folder: &Path) -> bool {
    fs::remove_file(path(folder)).is_ok()
}
