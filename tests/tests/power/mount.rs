//! The disk as a mounted file system, by FUSE.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::disk::{Disk, Node, Number};

/// How long the kernel may go on with what it was told of a file; of names it is told anew each time, since a cut changes them.
const ATTRIBUTES_FOR: Duration = Duration::from_secs(1);
const NAMES_FOR: Duration = Duration::ZERO;

const BLOCK: u32 = 4096;

/// A mounted disk, until it is dropped.
pub(crate) struct Mount {
    disk: Arc<Mutex<Disk>>,
    _session: BackgroundSession,
}

impl Mount {
    /// Mounts it; `None`, said loudly, where this user may not mount.
    pub(crate) fn show(at: &Path, disk: Disk) -> io::Result<Option<Self>> {
        if !Path::new("/dev/fuse").exists() || !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: this user may not mount a file system by FUSE");
            return Ok(None);
        }
        std::fs::create_dir_all(at)?;
        let disk = Arc::new(Mutex::new(disk));
        let session = fuser::spawn_mount(Shown(disk.clone()), at, &Config::default())?;
        Ok(Some(Self { disk, _session: session }))
    }

    pub(crate) fn disk(&self) -> MutexGuard<'_, Disk> {
        lock(&self.disk)
    }
}

fn lock(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the kernel asks.
struct Shown(Arc<Mutex<Disk>>);

impl Shown {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        lock(&self.0)
    }

    fn make(&self, folder: INodeNo, name: &OsStr, node: Node) -> Result<FileAttr, Errno> {
        let mut disk = self.disk();
        if let Some(error) = disk.refuses(false) {
            return Err(error);
        }
        if !matches!(disk.node(folder.0), Some(Node::Folder)) {
            return Err(Errno::ESTALE);
        }
        if disk.find(folder.0, name).is_some() {
            return Err(Errno::EEXIST);
        }
        let number = disk.make(folder.0, name, node);
        attributes(&disk, number)
    }

    fn remove(&self, folder: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut disk = self.disk();
        if let Some(error) = disk.refuses(false) {
            return reply.error(error);
        }
        match disk.find(folder.0, name) {
            Some(number) if disk.list(number).next().is_some() => reply.error(Errno::ENOTEMPTY),
            Some(_) => {
                disk.rename(vec![(folder.0, name.to_owned())], Vec::new());
                reply.ok();
            }
            None => reply.error(Errno::ENOENT),
        }
    }

    fn sync(&self, number: INodeNo, reply: ReplyEmpty) {
        if self.disk().sync(number.0) { reply.ok() } else { reply.error(Errno::EIO) }
    }
}

fn attributes(disk: &Disk, number: Number) -> Result<FileAttr, Errno> {
    let (kind, perm, size) = match disk.node(number).ok_or(Errno::ESTALE)? {
        Node::File(file) => (FileType::RegularFile, 0o644, file.bytes.len() as u64),
        Node::Folder => (FileType::Directory, 0o755, 0),
        Node::Socket => (FileType::Socket, 0o755, 0),
    };
    Ok(FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    })
}

fn entry(attributes: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match attributes {
        Ok(attributes) => reply.entry_with_ttls(&ATTRIBUTES_FOR, &NAMES_FOR, &attributes, Generation(0)),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Shown {
    fn lookup(&self, _: &Request, folder: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let disk = self.disk();
        entry(disk.find(folder.0, name).ok_or(Errno::ENOENT).and_then(|number| attributes(&disk, number)), reply);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match attributes(&self.disk(), number.0) {
            Ok(attributes) => reply.attr(&ATTRIBUTES_FOR, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<std::time::SystemTime>,
        _: Option<FileHandle>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut disk = self.disk();
        if let Some(error) = disk.refuses(false) {
            return reply.error(error);
        }
        if size.is_some_and(|size| !disk.set_length(number.0, size as usize)) {
            return reply.error(Errno::ENOSPC);
        }
        match attributes(&disk, number.0) {
            Ok(attributes) => reply.attr(&ATTRIBUTES_FOR, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn mknod(&self, _: &Request, folder: INodeNo, name: &OsStr, mode: u32, _: u32, _: u32, reply: ReplyEntry) {
        let is_socket = rustix::fs::FileType::from_raw_mode(mode) == rustix::fs::FileType::Socket;
        let node = if is_socket { Node::Socket } else { Node::File(Default::default()) };
        entry(self.make(folder, name, node), reply);
    }

    fn mkdir(&self, _: &Request, folder: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        entry(self.make(folder, name, Node::Folder), reply);
    }

    fn unlink(&self, _: &Request, folder: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(folder, name, reply);
    }

    fn rmdir(&self, _: &Request, folder: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(folder, name, reply);
    }

    fn rename(
        &self,
        _: &Request,
        folder: INodeNo,
        name: &OsStr,
        to: INodeNo,
        new: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mut disk = self.disk();
        if let Some(error) = disk.refuses(false) {
            return reply.error(error);
        }
        let Some(number) = disk.find(folder.0, name) else { return reply.error(Errno::ENOENT) };
        disk.rename(vec![(folder.0, name.to_owned())], vec![((to.0, new.to_owned()), number)]);
        reply.ok();
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let mut disk = self.disk();
        if disk.node(number.0).is_none() {
            return reply.error(Errno::ESTALE);
        }
        let to_write = flags.acc_mode() != fuser::OpenAccMode::O_RDONLY;
        match disk.refuses(false).filter(|_| to_write) {
            Some(error) => reply.error(error),
            // The kernel reads far ahead, and all of that would fail with the block that cannot be read.
            None if disk.unreadable.as_ref().is_some_and(|(of, _)| *of == number.0) => {
                reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
            }
            None => reply.opened(FileHandle(0), FopenFlags::empty()),
        }
    }

    fn create(&self, _: &Request, folder: INodeNo, name: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        match self.make(folder, name, Node::File(Default::default())) {
            // Its name is asked for again at the next opening.
            Ok(attributes) => {
                reply.created(&NAMES_FOR, &attributes, Generation(0), FileHandle(0), FopenFlags::empty());
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        at: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let disk = self.disk();
        if disk.node(number.0).is_none() {
            return reply.error(Errno::ESTALE);
        }
        match disk.read(number.0, at as usize, size as usize) {
            Some(bytes) => reply.data(bytes),
            None => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        at: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut disk = self.disk();
        if disk.node(number.0).is_none() {
            return reply.error(Errno::ESTALE);
        }
        match disk.refuses(true) {
            Some(error) => reply.error(error),
            None if disk.write(number.0, at as usize, data) => reply.written(data.len() as u32),
            None => reply.error(Errno::ENOSPC),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(number, reply);
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(number, reply);
    }

    fn readdir(&self, _: &Request, folder: INodeNo, _: FileHandle, from: u64, mut reply: ReplyDirectory) {
        let disk = self.disk();
        for (place, (name, number)) in disk.list(folder.0).enumerate().skip(from as usize) {
            let kind = attributes(&disk, number).map_or(FileType::RegularFile, |attributes| attributes.kind);
            if reply.add(INodeNo(number), place as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn fallocate(&self, _: &Request, number: INodeNo, _: FileHandle, at: u64, length: u64, _: i32, reply: ReplyEmpty) {
        let mut disk = self.disk();
        match disk.refuses(true) {
            Some(error) => reply.error(error),
            None if disk.set_length(number.0, (at + length) as usize) => reply.ok(),
            None => reply.error(Errno::ENOSPC),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let disk = self.disk();
        let (all, free) = (disk.room() / u64::from(BLOCK), disk.free() / u64::from(BLOCK));
        reply.statfs(all, free, free, 1 << 20, 1 << 20, BLOCK, 255, BLOCK);
    }
}
