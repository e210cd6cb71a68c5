//! A small file system in memory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system in memory, until it is dropped.
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts one of so many bytes; `None`, said loudly, where this user may not mount.
    ///
    /// # Errors
    /// What the system said.
    pub fn mount(at: &Path, bytes: u64) -> io::Result<Option<Self>> {
        fs::create_dir_all(at)?;
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]).arg(at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Ok(Some(Self(at.to_owned())));
        }
        eprintln!("SKIPPED: this user may not mount a file system");
        Ok(None)
    }

    /// Mounts it with another option: `ro`, `rw`.
    ///
    /// # Errors
    /// What the system said, or that the mount failed.
    pub fn remount(&self, option: &str) -> io::Result<()> {
        let status = Command::new("mount").args(["-o", &format!("remount,{option}")]).arg(&self.0).status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("remount,{option}: {status}"))) }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
