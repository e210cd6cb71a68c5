//! The mark: the number of the last commit, beside the file and its log.
//!
//! SQLite goes on without a word where its log is gone, or was cut, or is damaged within: what stood there was never committed then, and a restart
//! within the boot would give its numbers again. So every commit leaves its number here, without a sync: the kernel keeps it for as long as the boot
//! lasts, and every boot begins an epoch anyway. A start that finds fewer commits than its mark says knows that some are lost.
//!
//! Where there is no mark, or none of this boot, nothing is known, and nothing is said.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rtlive_core::record::Epoch;

const FILE_NAME: &str = "store.mark";

/// A number, an epoch, and the id of a boot, which has 36 characters.
const BYTES_MAX: usize = 256;

/// Where the number of the last commit goes.
#[derive(Debug)]
pub(super) struct Mark {
    /// `None` where none can be written, as on a disk that is read-only.
    file: Option<fs::File>,
    boot_id: String,
}

/// The last commit of an earlier process of this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Marked {
    pub(super) epoch: Epoch,
    pub(super) number: u64,
}

impl Mark {
    /// The mark of a folder, and what it says of this boot.
    pub(super) fn open(folder: &Path, boot_id: &str) -> (Self, Option<Marked>) {
        let path = folder.join(FILE_NAME);
        let marked = read(&path).and_then(|line| parse(&line, boot_id));
        let is_usable = fs::metadata(&path).map_or_else(|_| fs::symlink_metadata(&path).is_err(), |it| it.is_file());
        let file = is_usable.then(|| OpenOptions::new().write(true).create(true).truncate(false).open(&path));
        let file = file.and_then(|file| {
            file.inspect_err(|error| tracing::debug!(%error, "no mark can be left in {}", path.display())).ok()
        });
        (Self { file, boot_id: boot_id.to_owned() }, marked)
    }

    /// A commit was made.
    pub(super) fn set(&self, Marked { epoch, number }: Marked) {
        let line = format!("{number:020} {epoch} {}\n", self.boot_id);
        if let Some(file) = &self.file
            && let Err(error) = file.write_all_at(line.as_bytes(), 0)
        {
            tracing::debug!(%error, "the mark cannot be written");
        }
    }
}

/// The first line of a file.
fn read(path: &Path) -> Option<String> {
    if !fs::metadata(path).is_ok_and(|it| it.is_file()) {
        return None;
    }
    let mut bytes = [0; BYTES_MAX];
    let length = fs::File::open(path).and_then(|file| file.read_at(&mut bytes, 0)).ok()?;
    let text = std::str::from_utf8(bytes.get(..length)?).ok()?;
    text.split_once('\n').map(|(line, _)| line.to_owned())
}

fn parse(line: &str, boot_id: &str) -> Option<Marked> {
    let (number, rest) = line.split_once(' ')?;
    let (epoch, of_boot) = rest.split_once(' ')?;
    let (epoch, number) = (epoch.parse().ok()?, number.parse().ok()?);
    (of_boot == boot_id).then_some(Marked { epoch, number })
}
