//! A disk that loses what was not synced: the files as a program sees them, beside what a power cut would leave of them.
//!
//! - A write or a change of length lasts from the sync of its file on. At a cut, a random choice of the others is on the disk: in any order as far as they
//!   do not lie over each other, and torn in sectors of [`SECTOR`] bytes.
//! - Names (files that are made, renamed, deleted) change in the order in which they were asked to, as with a file system that keeps a
//!   journal of its metadata. They last from the sync of their folder on; a file's own name also from its sync on, and with it what was done
//!   before. At a cut, a random number of the first of the others is done. A renaming is never half done.
//! - After a cut nothing of the time before has a number that is still known, so that what the kernel writes late goes nowhere.
//!
//! ext4 promises no less; it keeps more, since it commits names and lengths together.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::ops::Range;

use crate::random::Random;

/// What a disk writes as a whole.
const SECTOR: usize = 512;

/// How many of a hundred syncs do nothing on a card that lies.
const LIES_PERCENT: u64 = 40;

/// The folder that everything lies in.
pub(crate) const ROOT: u64 = 1;

/// The number of a file, a folder or a socket.
pub(crate) type Number = u64;

/// What has a number.
#[derive(Clone)]
pub(crate) enum Node {
    File(File),
    Folder,
    /// A socket; nothing is stored of it but its name.
    Socket,
}

/// A file.
#[derive(Clone, Default)]
pub(crate) struct File {
    /// As programs see it.
    pub(crate) bytes: Vec<u8>,
    /// What a cut leaves in any case.
    durable: Vec<u8>,
    /// What was done to the file since its last sync.
    changes: Vec<Change>,
    /// Whether its writes are counted: those of the store, but not of the memory that SQLite shares by way of a file.
    is_counted: bool,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, written) => {
                let end = at + written.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[*at..end].copy_from_slice(written);
            }
            Self::Length(length) => bytes.resize(*length, 0),
        }
    }

    /// A write of which only some sectors came to the disk.
    fn tear(&self, random: &mut Random, bytes: &mut Vec<u8>) {
        let Self::Write(at, written) = self else { return self.apply(bytes) };
        let mut from = 0;
        while from < written.len() {
            let to = written.len().min(from + SECTOR - (at + from) % SECTOR);
            if random.percent(50) {
                Self::Write(at + from, written[from..to].to_vec()).apply(bytes);
            }
            from = to;
        }
    }
}

/// A name in a folder.
type Name = (Number, OsString);

/// A change of names: these go, and these come.
#[derive(Clone)]
struct Renaming {
    gone: Vec<Name>,
    come: Vec<(Name, Number)>,
}

impl Renaming {
    fn apply(&self, names: &mut BTreeMap<Name, Number>) {
        names.retain(|name, _| !self.gone.contains(name));
        names.extend(self.come.iter().cloned());
    }

    fn is_in(&self, folder: Number) -> bool {
        self.gone.iter().chain(self.come.iter().map(|(name, _)| name)).any(|(of, _)| *of == folder)
    }
}

/// What fails, and what it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Failure {
    #[default]
    None,
    /// No write finds room.
    Full,
    /// No sync succeeds.
    Syncs,
    /// Nothing can be changed.
    ReadOnly,
    /// Every so many writes, one finds no room, and as many syncs fail: a disk that is ill.
    Some(u64),
}

/// The disk. See the module's documentation.
pub(crate) struct Disk {
    nodes: BTreeMap<Number, Node>,
    names: BTreeMap<Name, Number>,
    durable_names: BTreeMap<Name, Number>,
    renamings: Vec<Renaming>,
    next: Number,
    /// How many bytes the files may have together.
    room: u64,
    pub(crate) failure: Failure,
    /// Whether something did.
    pub(crate) has_failed: bool,
    /// Decides which syncs do nothing, on a card that lies.
    pub(crate) lies: Option<Random>,
    /// What cannot be read: bytes of a file.
    pub(crate) unreadable: Option<(Number, Range<usize>)>,
    /// How many writes and syncs there were, and how many bytes were written of the store's files.
    pub(crate) writes: u64,
    pub(crate) syncs: u64,
    pub(crate) store_bytes: u64,
    /// How many bytes the files had at most.
    pub(crate) used_max: u64,
}

impl Disk {
    /// An empty one.
    pub(crate) fn new(room: u64) -> Self {
        Self {
            nodes: BTreeMap::from([(ROOT, Node::Folder)]),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            renamings: Vec::new(),
            next: ROOT + 1,
            room,
            failure: Failure::None,
            has_failed: false,
            lies: None,
            unreadable: None,
            writes: 0,
            syncs: 0,
            store_bytes: 0,
            used_max: 0,
        }
    }

    pub(crate) fn node(&self, number: Number) -> Option<&Node> {
        self.nodes.get(&number)
    }

    pub(crate) fn find(&self, folder: Number, name: &OsStr) -> Option<Number> {
        self.names.get(&(folder, name.to_owned())).copied()
    }

    /// What lies in a folder.
    pub(crate) fn list(&self, folder: Number) -> impl Iterator<Item = (&OsStr, Number)> {
        let from = (folder, OsString::new());
        self.names.range(from..(folder + 1, OsString::new())).map(|((_, name), number)| (name.as_os_str(), *number))
    }

    /// Makes something with a name.
    pub(crate) fn make(&mut self, folder: Number, name: &OsStr, mut node: Node) -> Number {
        if let Node::File(file) = &mut node {
            let name = name.to_string_lossy();
            file.is_counted = name.starts_with("store.") && !name.ends_with("-shm");
        }
        let number = self.next;
        self.next += 1;
        self.nodes.insert(number, node);
        self.rename(Vec::new(), vec![((folder, name.to_owned()), number)]);
        number
    }

    /// Takes names away and gives others, in one step.
    pub(crate) fn rename(&mut self, gone: Vec<Name>, come: Vec<(Name, Number)>) {
        let renaming = Renaming { gone, come };
        renaming.apply(&mut self.names);
        self.renamings.push(renaming);
    }

    /// Whether a change of the disk fails now, and how.
    pub(crate) fn refuses(&mut self, grows: bool) -> Option<fuser::Errno> {
        self.writes += u64::from(grows);
        let error = match self.failure {
            Failure::ReadOnly => Some(fuser::Errno::EROFS),
            Failure::Full if grows => Some(fuser::Errno::ENOSPC),
            Failure::Some(every) if grows && self.writes.is_multiple_of(every) => Some(fuser::Errno::ENOSPC),
            _ => None,
        };
        self.has_failed |= error.is_some();
        error
    }

    /// Bytes of a file; `None` where they cannot be read.
    pub(crate) fn read(&self, number: Number, at: usize, size: usize) -> Option<&[u8]> {
        let Some(Node::File(file)) = self.nodes.get(&number) else { return None };
        let from = file.bytes.len().min(at);
        let to = file.bytes.len().min(from + size);
        let is_bad = |(of, bad): &(Number, Range<usize>)| *of == number && bad.start < to && from < bad.end;
        if self.unreadable.as_ref().is_some_and(is_bad) { None } else { file.bytes.get(from..to) }
    }

    /// Writes; says whether there was room.
    pub(crate) fn write(&mut self, number: Number, at: usize, written: &[u8]) -> bool {
        self.change(number, Change::Write(at, written.to_vec()))
    }

    /// Sets the length; says whether there was room.
    pub(crate) fn set_length(&mut self, number: Number, length: usize) -> bool {
        self.change(number, Change::Length(length))
    }

    fn change(&mut self, number: Number, change: Change) -> bool {
        let used = self.used();
        let Some(Node::File(file)) = self.nodes.get_mut(&number) else { return true };
        let end = match &change {
            Change::Write(at, written) => file.bytes.len().max(at + written.len()),
            Change::Length(length) => *length,
        };
        let after = used + end.saturating_sub(file.bytes.len()) as u64;
        if after > self.room && after > used {
            return false;
        }
        if let (true, Change::Write(_, written)) = (file.is_counted, &change) {
            self.store_bytes += written.len() as u64;
        }
        change.apply(&mut file.bytes);
        file.changes.push(change);
        self.used_max = self.used_max.max(after);
        true
    }

    /// How many bytes the files that have a name have together.
    pub(crate) fn used(&self) -> u64 {
        let of = |number| match self.nodes.get(number) {
            Some(Node::File(file)) => file.bytes.len() as u64,
            _ => 0,
        };
        self.names.values().map(of).sum()
    }

    pub(crate) fn free(&self) -> u64 {
        if self.failure == Failure::Full { 0 } else { self.room.saturating_sub(self.used()) }
    }

    pub(crate) fn room(&self) -> u64 {
        self.room
    }

    /// Syncs a file or a folder; says whether that was possible.
    pub(crate) fn sync(&mut self, number: Number) -> bool {
        self.syncs += 1;
        let fails = match self.failure {
            Failure::Syncs => true,
            Failure::Some(every) => self.syncs.is_multiple_of(every),
            _ => false,
        };
        self.has_failed |= fails;
        if fails || self.lies.as_mut().is_some_and(|random| random.percent(LIES_PERCENT)) {
            return !fails;
        }
        let concerns = |renaming: &Renaming| match self.nodes.get(&number) {
            Some(Node::Folder) => renaming.is_in(number),
            _ => renaming.come.iter().any(|(_, come)| *come == number),
        };
        let done = self.renamings.iter().rposition(concerns).map_or(0, |last| last + 1);
        self.renamings.drain(..done).for_each(|renaming| renaming.apply(&mut self.durable_names));
        if let Some(Node::File(file)) = self.nodes.get_mut(&number) {
            file.changes.drain(..).for_each(|change| change.apply(&mut file.durable));
        }
        true
    }

    /// The power goes, and comes back: what is there now is what was synced, and what chance adds.
    pub(crate) fn cut(&mut self, random: &mut Random) {
        let done = random.between(0, self.renamings.len() as i64 + 1) as usize;
        let mut names = std::mem::take(&mut self.durable_names);
        self.renamings.drain(..).take(done).for_each(|renaming| renaming.apply(&mut names));
        // Now and then all of it was just written, or nothing; and what was, whole or torn.
        let (kept, torn) = (*random.pick(&[0, 10, 50, 90, 100]), *random.pick(&[0, 0, 30, 100]));
        let mut numbers = BTreeMap::from([(ROOT, ROOT)]);
        let mut nodes = BTreeMap::from([(ROOT, Node::Folder)]);
        for old in names.values().copied().collect::<BTreeSet<_>>() {
            let Some(node) = self.nodes.remove(&old) else { continue };
            let node = match node {
                Node::File(File { mut durable, changes, is_counted, .. }) => {
                    for change in changes {
                        if random.percent(kept) {
                            if random.percent(torn) {
                                change.tear(random, &mut durable);
                            } else {
                                change.apply(&mut durable);
                            }
                        }
                    }
                    Node::File(File { bytes: durable.clone(), durable, changes: Vec::new(), is_counted })
                }
                node => node,
            };
            numbers.insert(old, self.next);
            nodes.insert(self.next, node);
            self.next += 1;
        }
        let renumbered = names
            .into_iter()
            .filter_map(|((folder, name), number)| Some(((*numbers.get(&folder)?, name), *numbers.get(&number)?)));
        self.names = renumbered.collect();
        self.durable_names.clone_from(&self.names);
        self.nodes = nodes;
    }
}
