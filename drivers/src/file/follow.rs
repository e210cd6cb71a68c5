//! Following files: which bytes are new, whatever rotation did to the names.
//!
//! A file is known by device and inode, so that a renamed one is read to its end under its new name, and by what stood before the
//! place up to which it was read: the hash of its first bytes and of the last ones before that place. Where these differ, the file was emptied or
//! replaced and is read from its start. Where an unknown file has them at the same place, and the original was emptied, it is a
//! copy (`copytruncate`), and only what follows is read: what the original had not given before it was emptied. While the original
//! stands as it was, the file may be a copy in the making, and is left alone for [`SUSPECT_SCANS`].
//!
//! All calls block on the file system.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rtlive_core::sorted;

use crate::fields::Lines;
use crate::fnv;

/// How much of a file is read at once: one delivery's worth, and the bound of what is held of one file.
const CHUNK_BYTES: usize = 64 << 10;
/// How many bytes at each end of what was read are hashed: longer than the header that log files of one program share.
const PROBE_BYTES: u64 = 256;
/// How many files one input follows; each is looked at in every round.
pub(super) const FILES_MAX: usize = 1000;
/// How many entries of a folder are looked at for a file that was renamed while the program was not running.
const ENTRIES_MAX: usize = 10_000;
/// For how many scans a file that looks like a copy waits for its original to be emptied; logrotate takes milliseconds between the two.
const SUSPECT_SCANS: u8 = 2;
/// What the keys of the kept state begin with; device and inode in hexadecimal follow.
const KEY_PREFIX: &str = "f";
/// The key that says that there was a scan, though it may have found no file.
const SCANNED_KEY: &str = "scanned";

/// The file was being followed when its mark was kept: from when on it is missing is not known yet.
const FOLLOWED: u64 = 0;

/// Device and inode.
type Identity = (u64, u64);

/// How far a file was read; what is kept for after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Mark {
    /// Up to the end of the last whole line.
    offset: u64,
    /// Of the first bytes, at most [`PROBE_BYTES`], before `offset`.
    head: u64,
    /// Of the last ones before `offset`.
    tail: u64,
    /// Whether `offset` is within a line that is too long and being skipped.
    skipping: bool,
    /// When the file was last seen, in seconds since the epoch; what is kept of a file that is being followed has [`FOLLOWED`] there, because
    /// it is not kept anew at every look.
    seen: u64,
    /// Where it was first seen.
    path: PathBuf,
}

/// A file that is being followed.
struct Followed {
    file: File,
    mark: Mark,
    lines: Lines,
    /// Up to where the file was read; ahead of the mark by a partial line.
    read: u64,
    /// Whether the last scan found it under a name that is followed.
    listed: bool,
    /// The how-manieth it was.
    order: u64,
}

/// What a step of [`Follower::next`] gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Whole lines.
    pub(super) lines: Vec<Vec<u8>>,
    /// Lines that were too long.
    pub(super) too_long: u64,
    /// What must be kept together with them.
    pub(super) state: Vec<(String, Option<Vec<u8>>)>,
}

/// What a scan found out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// Files that were emptied or replaced, and are read from their start.
    pub(super) truncated: u64,
    /// Files that could not be opened, with the first reason.
    pub(super) unreadable: u64,
    pub(super) error: Option<String>,
    /// Files beyond [`FILES_MAX`].
    pub(super) too_many: u64,
    /// What must be kept.
    pub(super) state: Vec<(String, Option<Vec<u8>>)>,
}

/// What an unknown file has to do with the known ones.
enum Likeness {
    /// Nothing.
    None,
    /// It begins like a file that stands as it was.
    Suspect,
    /// It is a copy of a file that was read as far as this mark.
    Copy(Mark),
}

/// The files of one input.
pub(super) struct Follower {
    pattern: String,
    line_bytes_max: usize,
    forget_after: Duration,
    from_end: bool,
    files: BTreeMap<Identity, Followed>,
    /// The files that were not read since the last scan, in the order in which they appeared.
    unread: VecDeque<Identity>,
    /// How many files were ever followed.
    appeared: u64,
    /// Of files that are not open: vanished, or not yet found after a restart.
    marks: BTreeMap<Identity, Mark>,
    /// Files that look like copies of others that stand as they were, and for how many scans they did.
    suspects: BTreeMap<Identity, u8>,
    /// Whether there was a scan, in this process or an earlier one.
    scanned: bool,
    /// Whether renamed files were looked for.
    searched: bool,
}

impl Follower {
    /// From what was kept. `from_end`: files that are there at the very first scan are read from their end.
    pub(super) fn new(
        pattern: &str,
        line_bytes_max: usize,
        forget_after: Duration,
        from_end: bool,
        kept: &BTreeMap<String, Vec<u8>>,
    ) -> Self {
        let marks = kept.iter().filter_map(|(key, value)| Some((identity_of(key)?, Mark::read(value)?)));
        Self {
            pattern: pattern.to_owned(),
            line_bytes_max,
            forget_after,
            from_end,
            files: BTreeMap::new(),
            unread: VecDeque::new(),
            appeared: 0,
            marks: sorted::map(marks),
            suspects: BTreeMap::new(),
            scanned: !kept.is_empty(),
            searched: false,
        }
    }

    /// Looks which files there are.
    pub(super) fn scan(&mut self) -> Scan {
        let mut scan = Scan::default();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut paths: Vec<PathBuf> = Vec::new();
        match glob::glob(&self.pattern) {
            Ok(found) => paths.extend(found.filter_map(Result::ok).take(FILES_MAX + 1)),
            Err(error) => scan.error = Some(error.to_string()),
        }
        if paths.len() > FILES_MAX {
            scan.too_many = 1;
            paths.truncate(FILES_MAX);
        }
        self.files.values_mut().for_each(|followed| followed.listed = false);
        // Copies are recognised by the marks of their originals; so new files come before a look at what was emptied.
        for path in &paths {
            self.see(path, now, &mut scan);
        }
        if !std::mem::replace(&mut self.searched, true) {
            self.search_renamed(now, &mut scan);
        }
        for (identity, followed) in &mut self.files {
            if followed.was_replaced() {
                scan.truncated += 1;
                followed.restart(self.line_bytes_max);
                scan.state.push((key_of(*identity), Some(followed.mark.write_followed())));
            }
        }
        let mut unread: Vec<(u64, Identity)> =
            self.files.iter().map(|(identity, followed)| (followed.order, *identity)).collect();
        sorted::by(&mut unread, Ord::cmp);
        self.unread = unread.into_iter().map(|(_, identity)| identity).collect();
        if !std::mem::replace(&mut self.scanned, true) {
            scan.state.push((SCANNED_KEY.into(), Some(vec![1])));
        }
        if self.suspects.len() > FILES_MAX {
            self.suspects.clear();
        }
        self.forget(now, &mut scan);
        scan
    }

    fn see(&mut self, path: &Path, now: u64, scan: &mut Scan) {
        let Ok(metadata) = std::fs::metadata(path) else { return };
        if !metadata.is_file() {
            return;
        }
        let identity = (metadata.dev(), metadata.ino());
        if let Some(followed) = self.files.get_mut(&identity) {
            followed.listed = true;
            followed.mark.seen = now;
            return;
        }
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) => {
                scan.unreadable += 1;
                scan.error.get_or_insert_with(|| format!("open {}: {error}", path.display()));
                return;
            }
        };
        let mut mark = match self.marks.remove(&identity) {
            Some(mark) => mark,
            None => match self.likeness(&file, path) {
                Likeness::Copy(original) => Mark { path: path.to_owned(), ..original },
                Likeness::Suspect if self.suspects.get(&identity).is_none_or(|scans| *scans < SUSPECT_SCANS) => {
                    *self.suspects.entry(identity).or_default() += 1;
                    return;
                }
                Likeness::Suspect | Likeness::None => {
                    Mark { path: path.to_owned(), ..self.first_mark(&file, metadata.len()) }
                }
            },
        };
        self.suspects.remove(&identity);
        mark.seen = now;
        scan.state.push((key_of(identity), Some(mark.write_followed())));
        let lines = if mark.skipping { Lines::skipping(self.line_bytes_max) } else { Lines::new(self.line_bytes_max) };
        self.appeared += 1;
        let order = self.appeared;
        self.files.insert(identity, Followed { file, read: mark.offset, mark, lines, listed: true, order });
    }

    fn first_mark(&self, file: &File, length: u64) -> Mark {
        let mut mark = Mark::default();
        if self.from_end && !self.scanned {
            mark.offset = length;
            mark.probe(file);
        }
        mark
    }

    /// Whether a file that is not known has what was read of another.
    fn likeness(&self, file: &File, path: &Path) -> Likeness {
        let mut likeness = Likeness::None;
        for original in self.files.values().filter(|original| original.mark.offset > 0 && original.mark.fits(file)) {
            if original.was_replaced() {
                return Likeness::Copy(original.mark.clone());
            }
            likeness = Likeness::Suspect;
        }
        // An original that is gone was copied and deleted, unless this is the new file in its place.
        let gone = self.marks.values().find(|mark| mark.offset > 0 && mark.path != path && mark.fits(file));
        gone.map_or(likeness, |mark| Likeness::Copy(mark.clone()))
    }

    /// Finds files that were renamed to a name that is not followed, before this process: their end is still to be read.
    fn search_renamed(&mut self, now: u64, scan: &mut Scan) {
        let folders = sorted::set(self.marks.values().filter_map(|mark| mark.path.parent().map(Path::to_owned)));
        for folder in folders {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for entry in entries.take(ENTRIES_MAX).flatten() {
                let Ok(metadata) = entry.metadata() else { continue };
                if self.marks.contains_key(&(metadata.dev(), metadata.ino())) {
                    self.see(&entry.path(), now, scan);
                }
            }
        }
    }

    /// Closes what has no followed name any more and was read to its end; forgets what vanished long ago.
    fn forget(&mut self, now: u64, scan: &mut Scan) {
        let gone = self
            .files
            .iter()
            .filter(|(_, followed)| !followed.listed && followed.is_read() && now > followed.mark.seen);
        let gone: Vec<Identity> = gone.map(|(identity, _)| *identity).collect();
        for identity in gone {
            if let Some(followed) = self.files.remove(&identity) {
                scan.state.push((key_of(identity), Some(followed.mark.write())));
                self.marks.insert(identity, followed.mark);
            }
        }
        let oldest = now.saturating_sub(self.forget_after.as_secs());
        self.marks.retain(|identity, mark| {
            if mark.seen == FOLLOWED {
                // Not there at the first look after a restart, as on a file system that is mounted late.
                mark.seen = now;
                scan.state.push((key_of(*identity), Some(mark.write())));
            }
            let keep = mark.seen >= oldest;
            if !keep {
                scan.state.push((key_of(*identity), None));
            }
            keep
        });
    }

    /// The next whole lines of one of the files; `None` when all were read as far as they go, until the next scan. Files that were
    /// first seen earlier are read first, so that the end of a rotated file comes before what follows it.
    ///
    /// # Errors
    /// A file that could not be read; the others are read by the next call.
    pub(super) fn next(&mut self) -> io::Result<Option<Chunk>> {
        while let Some(identity) = self.unread.front() {
            let read = self.files.get_mut(identity).map_or(Ok(None), Followed::read_on);
            match read {
                Ok(Some(mut chunk)) => {
                    let mark = self.files.get(identity).map(|followed| followed.mark.write_followed());
                    chunk.state.push((key_of(*identity), mark));
                    return Ok(Some(chunk));
                }
                Ok(None) => {
                    self.unread.pop_front();
                }
                Err(error) => {
                    self.unread.pop_front();
                    return Err(error);
                }
            }
        }
        Ok(None)
    }
}

impl Followed {
    /// Reads one chunk; `None` at the end of the file, or while its last line is not whole.
    fn read_on(&mut self) -> io::Result<Option<Chunk>> {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let count = self.file.read_at(&mut buffer, self.read)?;
            if count == 0 {
                return Ok(None);
            }
            let mut chunk = Chunk::default();
            let bytes = buffer.get(..count).unwrap_or_default();
            self.lines.take(bytes, |line| chunk.lines.push(line.to_vec()));
            self.read += count as u64;
            chunk.too_long = std::mem::take(&mut self.lines.too_long);
            let offset = self.read - self.lines.pending() as u64;
            if offset > self.mark.offset {
                self.mark.offset = offset;
                self.mark.skipping = self.lines.is_skipping();
                self.mark.probe(&self.file);
                return Ok(Some(chunk));
            }
        }
    }

    /// Whether the file has other bytes now where it was read; one that cannot be read at the moment is believed to be as it was.
    fn was_replaced(&self) -> bool {
        let Mark { offset, head, tail, .. } = self.mark;
        offset > 0 && probes(&self.file, offset).is_ok_and(|found| found != Some((head, tail)))
    }

    fn is_read(&self) -> bool {
        self.file.metadata().map_or(true, |metadata| metadata.len() <= self.read)
    }

    fn restart(&mut self, line_bytes_max: usize) {
        self.mark = Mark { seen: self.mark.seen, path: std::mem::take(&mut self.mark.path), ..Mark::default() };
        self.read = 0;
        self.lines = Lines::new(line_bytes_max);
    }
}

impl Mark {
    /// Hashes what stands before the offset.
    fn probe(&mut self, file: &File) {
        // A file that cannot be read again, or was emptied meanwhile, has other hashes at the next look and is read anew.
        let (head, tail) = probes(file, self.offset).ok().flatten().unwrap_or_default();
        self.head = head;
        self.tail = tail;
    }

    /// Whether the file has before the offset what was read there.
    fn fits(&self, file: &File) -> bool {
        self.offset == 0 || probes(file, self.offset).is_ok_and(|found| found == Some((self.head, self.tail)))
    }

    /// What is kept while the file is followed.
    fn write_followed(&self) -> Vec<u8> {
        Self { seen: FOLLOWED, ..self.clone() }.write()
    }

    fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        for number in [self.offset, self.head, self.tail, self.seen, u64::from(self.skipping)] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(std::os::unix::ffi::OsStrExt::as_bytes(self.path.as_os_str()));
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut number = || {
            let (first, after) = rest.split_first_chunk()?;
            rest = after;
            Some(u64::from_le_bytes(*first))
        };
        let (offset, head, tail, seen, skipping) = (number()?, number()?, number()?, number()?, number()? != 0);
        let path = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(rest).into();
        Some(Self { offset, head, tail, skipping, seen, path })
    }
}

/// The hashes of the first and last bytes before the offset; `None` where the file does not reach that far.
fn probes(file: &File, offset: u64) -> io::Result<Option<(u64, u64)>> {
    let length = offset.min(PROBE_BYTES);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    let mut hash_at = |place| match file.read_exact_at(&mut bytes, place) {
        Ok(()) => Ok(Some(fnv::hash(bytes.iter().copied()))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    };
    let (head, tail) = (hash_at(0)?, hash_at(offset - length)?);
    Ok(head.zip(tail))
}

fn key_of((device, inode): Identity) -> String {
    format!("{KEY_PREFIX}{device:x}:{inode:x}")
}

fn identity_of(key: &str) -> Option<Identity> {
    let (device, inode) = key.strip_prefix(KEY_PREFIX)?.split_once(':')?;
    Some((u64::from_str_radix(device, 16).ok()?, u64::from_str_radix(inode, 16).ok()?))
}

#[cfg(test)]
mod tests;
