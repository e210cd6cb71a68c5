//! What becomes of a file that cannot be used: all that is whole in it goes to a new one, and it is moved aside; one of a newer program is kept.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rtlive_core::record::Epoch;
use rtlive_drivers::input::told;
use rusqlite::params;

use super::fault::Faults;
use super::file::{APPLICATION_ID, File, PAGE_BYTES, VERSION, parts};
use super::frames::INSERT_FRAME;
use super::repair;
use super::salvage::{self, Row as Salvaged};
use crate::message::{FrameId, StoreError};

/// How many damaged files are kept beside the store.
const SET_ASIDE_MAX: usize = 2;

/// A damaged file that is longer is deleted once everything that is whole was taken from it: it would take the room of what was.
const SET_ASIDE_BYTES_MAX: u64 = 1 << 20;

/// How many stores of newer programs may lie beside the store. They are not this program's to delete, so that they do not count in its bound.
const NEWER_KEPT_MAX: usize = 100;

/// A file is not salvaged while more of its pages cannot be read than this part of them: a card that does not answer may do so later.
const UNREADABLE_PART: u64 = 8;

/// So many pages may always be lost: a few blocks of flash.
const UNREADABLE_MIN: u64 = 64;

/// The boot of a file that was salvaged, until its first commit; it is no boot's id.
pub(super) const SALVAGED: &str = "salvaged";

/// The epoch of a salvaged file in which nothing told one.
pub(super) const UNKNOWN: Epoch = Epoch(0);

impl File {
    /// Opens the file, or makes it. One that is not a store of this version is moved aside, and what took its place is marked ([`SALVAGED`]).
    pub(super) fn open_or_replace(path: &Path, faults: &Faults) -> Result<Self, StoreError> {
        if salvaged(path).exists() {
            adopt(path, faults)?;
        }
        let is_strange =
            |part: &PathBuf| fs::symlink_metadata(part).is_ok() && !fs::metadata(part).is_ok_and(|it| it.is_file());
        let unusable = if let Some(part) = parts(path).iter().find(|part| is_strange(part)) {
            Some(StoreError::NoFile { path: part.display().to_string() })
        } else if condemned(path).exists() {
            Some(StoreError::Condemned { path: path.display().to_string() })
        } else {
            newer(path)
        };
        if let Some(error) = unusable {
            return Self::replace(path, faults, &error);
        }
        match Self::open(path, faults) {
            Err(error) if error.is_damage() => Self::replace(path, faults, &error),
            opened => opened,
        }
    }

    /// Makes a file from all that is whole in one that cannot be used, and moves that one aside.
    ///
    /// The new file is complete before the old one is touched. It gets a name that says so, and from then on the next start goes on with it, wherever
    /// this one ends; until then the next start begins anew.
    pub(super) fn replace(path: &Path, faults: &Faults, why: &StoreError) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Folder { path: path.display().to_string(), source };
        match why {
            StoreError::Foreign { application: APPLICATION_ID, version, .. } => {
                tracing::error!("the store is that of a newer program and is kept beside a new one: {}", told(why));
                keep_newer(path, *version).map_err(failed)?;
            }
            _ => tracing::error!("the store cannot be read and is set aside: {}", told(why)),
        }
        let draft = path.with_extension("salvaging");
        remove(&draft).map_err(failed)?;
        faults.reach("begin a salvage");
        let mut file = Self::open(&draft, faults)?;
        let is_ours = !matches!(why, StoreError::Foreign { .. } | StoreError::NoFile { .. }) && path.is_file();
        let made = file.salvage(is_ours.then_some(path), |_, _| {}).and_then(|salvaged| {
            let pages = fs::metadata(path).map_or(0, |it| it.len()) / PAGE_BYTES.cast_unsigned();
            let unreadable = u64::from(salvaged.unreadable_pages);
            if unreadable > UNREADABLE_MIN.max(pages / UNREADABLE_PART) {
                let why = format!("{unreadable} of {pages} pages cannot be read: it is left as it is");
                return Err(failed(std::io::Error::other(why)));
            }
            file.close()
        });
        let made = made.and_then(|()| {
            faults.reach("end a salvage");
            sync_folder(path).and_then(|()| fs::rename(&draft, salvaged(path))).map_err(failed)
        });
        if let Err(error) = made {
            // It is tried again when the disk lets it; what is left of the draft would only take room.
            let _ = remove(&draft);
            return Err(error);
        }
        adopt(path, faults)?;
        Self::open(path, faults)
    }

    /// Takes from a damaged file all that is whole, and the numbers of frames that are not. A file of another program, or none, has nothing to take.
    /// `page` is told which page of how many is read.
    pub(super) fn salvage(
        &mut self,
        from: Option<&Path>,
        page: impl FnMut(u32, u32),
    ) -> Result<repair::Salvaged, StoreError> {
        let transaction = self.begin()?;
        let mut counts = repair::Salvaged::default();
        // Whose numbers were counted last: as the file says, or its newest commit, or its newest frame.
        let mut epoch = ((0, i64::MIN), UNKNOWN.0.cast_signed());
        let mut is_of = |rank: (u8, i64), value: i64| {
            if epoch.0 < rank && value != UNKNOWN.0.cast_signed() {
                epoch = (rank, value);
            }
        };
        let take = |row| match row {
            Salvaged::Frame(columns) => {
                counts.frames += 1;
                if let (
                    Some(rusqlite::types::Value::Integer(id)),
                    Some(rusqlite::types::Value::Integer(epoch)),
                    Some(rusqlite::types::Value::Integer(at)),
                ) = (columns.first(), columns.get(3), columns.get(6))
                {
                    is_of((0, *at), *epoch);
                    self.used(FrameId(*id));
                }
                let insert = INSERT_FRAME.replacen("INSERT", "INSERT OR IGNORE", 1);
                self.execute("write a frame", &insert, rusqlite::params_from_iter(columns))
            }
            Salvaged::Chunk(number, of, bytes) => {
                counts.commits += 1;
                if let Some(of) = of {
                    is_of((1, number), of.cast_signed());
                }
                let sql = "INSERT OR IGNORE INTO journal (number, chunk) VALUES (?1, ?2)";
                self.execute("write the journal", sql, params![number, bytes])
            }
            Salvaged::Snapshot(number, bytes) => {
                counts.snapshots += 1;
                let sql = "INSERT OR IGNORE INTO snapshots (number, body) VALUES (?1, ?2)";
                self.execute("write a snapshot", sql, params![number, bytes])
            }
            Salvaged::Meta(value) => {
                is_of((2, 0), value);
                Ok(())
            }
        };
        let unreadable_pages = from.map_or(Ok(0), |from| salvage::each_row(from, page, take))?;
        self.set_meta(Epoch(epoch.1.cast_unsigned()), SALVAGED)?;
        self.end(transaction)?;
        let repair::Salvaged { frames, commits, .. } = counts;
        tracing::warn!(frames, commits, "what the damaged store held and is whole is taken over");
        Ok(repair::Salvaged { unreadable_pages, ..counts })
    }

    /// After an error that says that the file is damaged: leaves a mark beside it, so that the next start moves it aside rather than meet
    /// the same damage.
    pub(super) fn condemn_for(&self, error: &StoreError) {
        if error.is_damage() && !self.is_in_memory() {
            condemn(&self.path);
        }
    }
}

/// Leaves a mark beside a file, so that the next start salvages it.
pub(super) fn condemn(path: &Path) {
    if let Err(error) = fs::write(condemned(path), "") {
        tracing::error!(%error, "the damaged store cannot be marked");
    }
}

/// The mark of a file whose damage was found while it was in use.
fn condemned(path: &Path) -> PathBuf {
    path.with_extension("condemned")
}

/// A file that was salvaged from a damaged one, complete, and has not taken its place.
fn salvaged(path: &Path) -> PathBuf {
    path.with_extension("salvaged")
}

/// The application and the version that a file's header names (section 1.3 of the file format); `None` where there is no database. SQLite is not asked,
/// because it may write to the file already when it opens it.
fn marks(path: &Path) -> Option<(i64, i64)> {
    let mut header = [0; 72];
    fs::File::open(path).and_then(|file| file.read_exact_at(&mut header, 0)).ok()?;
    let number_at = |at: usize| Some(i64::from(u32::from_be_bytes(*header.get(at..)?.first_chunk()?)));
    header.starts_with(b"SQLite format 3\0").then_some((number_at(68)?, number_at(60)?))
}

/// What is wrong with a file that is a newer program's.
fn newer(path: &Path) -> Option<StoreError> {
    let (application, version) = marks(path)?;
    let is_newer = application == APPLICATION_ID && version > VERSION;
    is_newer.then(|| StoreError::Foreign { path: path.display().to_string(), application, version })
}

/// Moves the file of a newer program to a name that this one never touches again, so that the newer one can be given it back. May be done again from
/// wherever it ended: the file itself goes last.
fn keep_newer(path: &Path, version: i64) -> std::io::Result<()> {
    let mut names = (1..=NEWER_KEPT_MAX).map(|number| path.with_extension(format!("version-{version}-{number}")));
    let Some(to) = names.find(|name| fs::symlink_metadata(name).is_err()) else {
        return Err(std::io::Error::other("too many stores of newer programs lie beside it: move them elsewhere"));
    };
    for (from, to) in parts(path).into_iter().zip(parts(&to)).rev() {
        gone(fs::rename(from, to))?;
    }
    sync_folder(path)
}

/// What was salvaged takes the damaged file's place. May be done again from wherever it ended.
fn adopt(path: &Path, faults: &Faults) -> Result<(), StoreError> {
    let failed = |source| StoreError::Folder { path: path.display().to_string(), source };
    faults.reach("move the damaged store aside");
    set_aside(path, faults).map_err(failed)?;
    faults.reach("forget that the store was condemned");
    gone(fs::remove_file(condemned(path))).map_err(failed)?;
    // A log must not come back to lie beside a file that is not its own.
    sync_folder(path).map_err(failed)?;
    faults.reach("name the salvaged store");
    fs::rename(salvaged(path), path).and_then(|()| sync_folder(path)).map_err(failed)?;
    faults.reach("open the salvaged store");
    Ok(())
}

fn sync_folder(path: &Path) -> std::io::Result<()> {
    fs::File::open(path.parent().unwrap_or(path))?.sync_all()
}

/// Removes a file with its log.
fn remove(path: &Path) -> std::io::Result<()> {
    parts(path).into_iter().try_for_each(|part| gone(fs::remove_file(part)))
}

/// What is not there is gone.
fn gone(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Whether a file says that it is another program's, or another version's.
fn is_foreign(path: &Path) -> bool {
    marks(path).is_some_and(|(application, version)| application != APPLICATION_ID || !(1..=VERSION).contains(&version))
}

/// Where the last file but `number` that was set aside lies.
fn numbered(path: &Path, number: usize) -> PathBuf {
    path.with_extension(format!("damaged-{number}"))
}

/// All files that may have been set aside beside a store.
pub(super) fn set_aside_files(path: &Path) -> impl Iterator<Item = PathBuf> {
    (1..=SET_ASIDE_MAX).flat_map(|number| parts(&numbered(path, number)))
}

/// Moves a file and its log aside, and deletes the oldest of those that were moved before. One of ours that is too long is deleted itself.
fn set_aside(path: &Path, faults: &Faults) -> std::io::Result<()> {
    let is_there = |path: &Path| fs::symlink_metadata(path).is_ok();
    if !parts(path).iter().any(|part| is_there(part)) {
        return Ok(());
    }
    if fs::metadata(path).is_ok_and(|it| it.is_file() && it.len() > SET_ASIDE_BYTES_MAX) && !is_foreign(path) {
        tracing::warn!("the damaged store is too large to be kept");
        return remove(path);
    }
    for number in (0..=SET_ASIDE_MAX).rev() {
        let of = |number| parts(&if number == 0 { path.to_owned() } else { numbered(path, number) });
        for (from, to) in of(number).into_iter().zip(of(number + 1)).filter(|(from, _)| is_there(from)) {
            faults.reach("move a file aside");
            if number < SET_ASIDE_MAX {
                fs::rename(from, to)?;
            } else if fs::symlink_metadata(&from)?.is_dir() {
                fs::remove_dir_all(from)?;
            } else {
                fs::remove_file(from)?;
            }
        }
    }
    Ok(())
}
