//! What can be taken from a damaged file, without SQLite.
//!
//! The file is read page by page (SQLite's [file format](https://www.sqlite.org/fileformat2.html), sections 1.5, 1.6 and 4). Every row is found on a leaf
//! page of a table, whichever it is: its columns tell what it is, and its own checksum whether it is whole. So neither the tables' roots nor the
//! pages between these and the leaves must be whole. Of a frame whose bytes are damaged, its numbers are taken, so that a gap can name them.
//!
//! Pages that were freed are passed over, as far as the list of them can be read: a frame that is there was delivered. One that is taken all the
//! same is sent once more, which the centre sees.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::iter;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rtlive_core::journal::Chunk;
use rusqlite::types::Value;
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::file::{PAGE_BYTES, id_place, parts, priority_of};
use super::snapshot::SavedSnapshot;
use crate::message::FrameId;

const PAGE: usize = PAGE_BYTES as usize;

/// The longest row that is believed; no frame, chunk or snapshot is longer.
const ROW_BYTES_MAX: u64 = 64 << 20;

/// The header of the file lies before the first page's own.
const FILE_HEADER_BYTES: usize = 100;

/// Where the header has the first page of the list of free pages.
const FREE_LIST_AT: usize = 32;

/// The first byte of a leaf page of a table.
const LEAF: u8 = 0x0d;

const LOG_HEADER_BYTES: u64 = 32;
const LOG_FRAME_HEADER_BYTES: u64 = 24;

/// As many columns as the widest of our tables has.
const COLUMNS_MAX: usize = 10;

/// The most records that a frame is believed to have.
const RECORDS_MAX: i64 = 1 << 20;

/// A row that was found.
pub(super) enum Row {
    /// A frame, or what is left of one: its columns.
    Frame(Vec<Value>),
    /// A commit: its number, the epoch of its numbers, and its bytes.
    Chunk(i64, Option<u64>, Vec<u8>),
    /// A snapshot: its number, and its bytes.
    Snapshot(i64, Vec<u8>),
    /// The epoch.
    Meta(i64),
}

/// Shows every row of a damaged file; `read` is told which page of how many is read. Says how many pages the system did not give.
///
/// # Errors
/// What the system said, or `found`.
pub(super) fn each_row<E: From<io::Error>>(
    path: &Path,
    mut read: impl FnMut(u32, u32),
    mut found: impl FnMut(Row) -> Result<(), E>,
) -> Result<u32, E> {
    let pages = Pages::open(path)?;
    let free = pages.free();
    let count = pages.count();
    for (place, number) in pages.numbers().filter(|(_, number)| !free.contains(number)) {
        read(place, count);
        let Some(page) = pages.read(number) else { continue };
        let header = if number == 1 { FILE_HEADER_BYTES } else { 0 };
        for cell in cells(&page, header) {
            if let Some(row) = pages.row(&page, cell) {
                found(row)?;
            }
        }
    }
    Ok(u32::try_from(pages.unreadable.borrow().len()).unwrap_or(u32::MAX))
}

/// The pages of a file and its log.
struct Pages {
    file: fs::File,
    log: Option<fs::File>,
    /// Where in the log the newest version of a page lies.
    logged: BTreeMap<u32, u64>,
    /// How many pages lie in the file.
    in_file: u32,
    unreadable: RefCell<BTreeSet<u32>>,
}

impl Pages {
    fn open(path: &Path) -> io::Result<Self> {
        let [path, log, _] = parts(path);
        let file = fs::File::open(path)?;
        let log = fs::File::open(log).ok();
        let logged = log.as_ref().map(committed).unwrap_or_default();
        let in_file = u32::try_from(file.metadata()?.len().div_ceil(PAGE as u64)).unwrap_or(u32::MAX);
        Ok(Self { file, log, logged, in_file, unreadable: RefCell::default() })
    }

    /// The pages that are there, each behind its place among them. A damaged list of free pages may have led to any number, so that a page lies in the log
    /// under that, or behind a hole in the file.
    fn numbers(&self) -> impl Iterator<Item = (u32, u32)> {
        let in_file = iter::successors(self.written_from(1), |number| self.written_from(number.checked_add(1)?));
        let in_file = in_file.filter(|number| !self.logged.contains_key(number)).map(|number| (number, number));
        let logged = (1..=u32::MAX).zip(self.logged.keys());
        in_file.chain(logged.map(|(place, number)| (self.in_file.saturating_add(place), *number)))
    }

    /// The last of these places at most.
    fn count(&self) -> u32 {
        self.in_file.saturating_add(self.logged.len() as u32)
    }

    /// The first page from a number on that is in no hole of the file.
    fn written_from(&self, number: u32) -> Option<u32> {
        let before = u64::from(number.checked_sub(1)?) * PAGE as u64;
        let at = match rustix::fs::seek(&self.file, SeekFrom::Data(before)) {
            Ok(at) => at,
            Err(Errno::NXIO) => return None,
            // A file system that does not tell.
            Err(_) => before,
        };
        u32::try_from(at / PAGE as u64 + 1).ok().filter(|number| *number <= self.in_file)
    }

    fn has(&self, number: u32) -> bool {
        (1..=self.in_file).contains(&number) || self.logged.contains_key(&number)
    }

    /// A page; what of it is behind the end of the file, or cannot be read, is zero.
    fn read(&self, number: u32) -> Option<Vec<u8>> {
        let before = u64::from(number.checked_sub(1)?) * PAGE as u64;
        let mut page = vec![0; PAGE];
        let (file, mut at) = match (self.logged.get(&number), &self.log) {
            (Some(at), Some(log)) => (log, *at),
            _ => (&self.file, before),
        };
        let mut rest = &mut page[..];
        while !rest.is_empty() {
            match file.read_at(rest, at) {
                Ok(0) => break,
                Err(_) => {
                    self.unreadable.borrow_mut().insert(number);
                    break;
                }
                Ok(count) => {
                    at += count as u64;
                    rest = rest.get_mut(count..)?;
                }
            }
        }
        Some(page)
    }

    /// The pages that belong to nothing.
    fn free(&self) -> BTreeSet<u32> {
        let mut free = BTreeSet::new();
        let mut next = self.read(1).and_then(|page| number_at(&page, FREE_LIST_AT)).unwrap_or_default();
        while self.has(next) && free.insert(next) {
            let Some(trunk) = self.read(next) else { break };
            let count = number_at(&trunk, 4).unwrap_or_default() as usize;
            free.extend((0..count.min(PAGE / 4)).filter_map(|place| number_at(&trunk, 8 + 4 * place)));
            next = number_at(&trunk, 0).unwrap_or_default();
        }
        free
    }

    /// The row in a cell, if it is one of ours.
    fn row(&self, page: &[u8], at: usize) -> Option<Row> {
        let mut rest = page.get(at..)?;
        let length = varint(&mut rest)?.cast_unsigned();
        let id = varint(&mut rest)?;
        // No row is longer than the file that it is in; a length that is garbage would be looked for page by page.
        if length > ROW_BYTES_MAX.min((u64::from(self.in_file) + self.logged.len() as u64) * PAGE as u64) {
            return None;
        }
        let length = usize::try_from(length).ok()?;
        // What comes of garbage is refused before pages are looked for that it seems to lead to.
        let kinds =
            Kinds::read(rest.get(..length).unwrap_or(rest)).filter(|kinds| kinds.payload_bytes() == Some(length))?;
        let mut columns = kinds.columns(&self.payload(rest, length)?)?;
        if is_frame(&columns) {
            // One that leads to an id that no frame has cannot be sent.
            id_place(priority_of(FrameId(id)), FrameId(id))?;
            *columns.first_mut()? = Value::Integer(id);
            return Some(Row::Frame(columns));
        }
        match &mut columns[..] {
            [Value::Null, Value::Blob(bytes)] => {
                let bytes = std::mem::take(bytes);
                if let Some(snapshot) = SavedSnapshot::decode(&bytes) {
                    return (snapshot.number.cast_signed() == id).then_some(Row::Snapshot(id, bytes));
                }
                let chunk = Chunk::decode(&bytes).ok().filter(|chunk| chunk.number.cast_signed() == id)?;
                Some(Row::Chunk(id, chunk.epoch.map(|epoch| epoch.0), bytes))
            }
            [_, Value::Integer(epoch), Value::Text(_), Value::Integer(_)] if id == 1 => Some(Row::Meta(*epoch)),
            _ => None,
        }
    }

    /// The payload of a cell, with what overflowed; zeros stand for what cannot be found, and for all behind a page that leads back to one before it.
    fn payload(&self, local: &[u8], length: usize) -> Option<Vec<u8>> {
        let most = PAGE - 35;
        if length <= most {
            return Some(local.get(..length)?.to_vec());
        }
        let least = (PAGE - 12) * 32 / 255 - 23;
        let fitting = least + (length - least) % (PAGE - 4);
        let here = if fitting <= most { fitting } else { least };
        let mut payload = local.get(..here)?.to_vec();
        let mut next = number_at(local, here)?;
        let mut passed = BTreeSet::new();
        while payload.len() < length && self.has(next) && passed.insert(next) {
            let page = self.read(next)?;
            let count = (length - payload.len()).min(PAGE - 4);
            payload.extend_from_slice(page.get(4..4 + count)?);
            next = number_at(&page, 0)?;
        }
        payload.resize(length, 0);
        Some(payload)
    }
}

/// Where in the log the newest committed version of each page lies. The log counts as far as its checksums hold (section 4.2).
fn committed(log: &fs::File) -> BTreeMap<u32, u64> {
    let (mut pages, mut pending) = (BTreeMap::new(), Vec::new());
    let mut header = [0; LOG_HEADER_BYTES as usize];
    if log.read_exact_at(&mut header, 0).is_err() {
        return pages;
    }
    // The last bit of the magic number says in which order of bytes the checksums are.
    let is_big = header[3] & 1 == 1;
    let mut sum = checksum(is_big, [0; 2], &header[..24]);
    let mut at = LOG_HEADER_BYTES;
    let mut frame = vec![0; LOG_FRAME_HEADER_BYTES as usize + PAGE];
    while log.read_exact_at(&mut frame, at).is_ok() {
        let (head, page) = frame.split_at(LOG_FRAME_HEADER_BYTES as usize);
        sum = checksum(is_big, checksum(is_big, sum, &head[..8]), page);
        let [Some(number), Some(size)] = [0, 4].map(|place| number_at(head, place)) else { break };
        let is_of_this_log = head[8..16] == header[16..24];
        if !is_of_this_log || [16, 20].map(|place| number_at(head, place)) != sum.map(Some) {
            break;
        }
        pending.push((number, at + LOG_FRAME_HEADER_BYTES));
        if size != 0 {
            pages.extend(pending.drain(..));
        }
        at += frame.len() as u64;
    }
    pages
}

fn checksum(is_big: bool, [mut first, mut second]: [u32; 2], bytes: &[u8]) -> [u32; 2] {
    let word = |bytes: [u8; 4]| if is_big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) };
    let (words, _) = bytes.as_chunks::<4>();
    let (pairs, _) = words.as_chunks::<2>();
    for pair in pairs {
        first = first.wrapping_add(word(pair[0])).wrapping_add(second);
        second = second.wrapping_add(word(pair[1])).wrapping_add(first);
    }
    [first, second]
}

/// Where the cells of a leaf page are; none on another page.
fn cells(page: &[u8], header: usize) -> Vec<usize> {
    let short_at = |at: usize| Some(usize::from(u16::from_be_bytes(*page.get(at..)?.first_chunk()?)));
    if page.get(header) != Some(&LEAF) {
        return Vec::new();
    }
    let count = short_at(header + 3).unwrap_or_default();
    (0..count).map_while(|place| short_at(header + 8 + 2 * place)).filter(|at| *at > header + 8).collect()
}

/// The header of a record: what its columns are (section 2.1).
struct Kinds {
    header_bytes: usize,
    kinds: Vec<i64>,
}

impl Kinds {
    /// Reads it from where a record begins; `None` where it is none of ours.
    fn read(record: &[u8]) -> Option<Self> {
        let mut rest = record;
        let header_bytes = usize::try_from(varint(&mut rest)?).ok()?;
        let mut header = record.get(record.len() - rest.len()..header_bytes)?;
        let mut kinds = Vec::new();
        while !header.is_empty() && kinds.len() < COLUMNS_MAX {
            kinds.push(varint(&mut header)?);
        }
        header.is_empty().then_some(Self { header_bytes, kinds })
    }

    /// How long the record is; `None` where a column is of no kind.
    fn payload_bytes(&self) -> Option<usize> {
        let mut lengths = self.kinds.iter().map(|kind| value_bytes(*kind));
        lengths.try_fold(self.header_bytes, |sum, length| sum.checked_add(length?))
    }

    /// The values.
    fn columns(&self, payload: &[u8]) -> Option<Vec<Value>> {
        let mut body = payload.get(self.header_bytes..)?;
        let mut columns = Vec::with_capacity(self.kinds.len());
        for &kind in &self.kinds {
            let (bytes, rest) = body.split_at_checked(value_bytes(kind)?)?;
            body = rest;
            columns.push(match kind {
                0 => Value::Null,
                8 | 9 => Value::Integer(kind - 8),
                7 => Value::Real(f64::from_be_bytes(*bytes.first_chunk()?)),
                1..=6 => {
                    let negative = bytes.first()? & 0x80 != 0;
                    let start = if negative { -1 } else { 0 };
                    Value::Integer(bytes.iter().fold(start, |number: i64, byte| number << 8 | i64::from(*byte)))
                }
                _ if kind % 2 == 0 => Value::Blob(bytes.to_vec()),
                _ => Value::Text(String::from_utf8(bytes.to_vec()).ok()?),
            });
        }
        Some(columns)
    }
}

/// How many bytes a value of a kind takes.
fn value_bytes(kind: i64) -> Option<usize> {
    let bytes = match kind {
        0 | 8 | 9 => 0,
        1..=4 => kind,
        5 => 6,
        6 | 7 => 8,
        12.. => (kind - 12) / 2,
        _ => return None,
    };
    usize::try_from(bytes).ok()
}

fn is_frame(columns: &[Value]) -> bool {
    use Value::{Blob, Integer, Null, Text};
    let [
        Null,
        Text(stream),
        Text(class),
        Integer(_),
        Integer(first),
        Integer(count),
        Integer(_),
        Integer(json),
        rest @ ..,
    ] = columns
    else {
        return false;
    };
    let is_sane = !stream.is_empty() && !class.is_empty() && *first >= 1 && (1..=RECORDS_MAX).contains(count);
    is_sane && (0..=1).contains(json) && matches!(rest, [Integer(_), Blob(_)])
}

/// A number of variable length (section 1.6).
fn varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut number = 0_u64;
    for place in 0..9 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        if place == 8 {
            return Some((number << 8 | u64::from(*byte)).cast_signed());
        }
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some(number.cast_signed())
}

fn number_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_that_lead_in_a_circle_are_read_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let page = |next: u32| [&next.to_be_bytes()[..], &[7; PAGE - 4]].concat();
        fs::write(file.path(), [vec![0; PAGE], page(3), page(2), page(0)].concat()).unwrap();
        let pages = Pages::open(file.path()).unwrap();
        // So long that the least is in the row itself.
        let least = (PAGE - 12) * 32 / 255 - 23;
        let length = least + 4 * (PAGE - 4);
        let local = [&[7; PAGE][..least], &2_u32.to_be_bytes()].concat();
        let payload = pages.payload(&local, length).unwrap();
        let found = least + 2 * (PAGE - 4);
        assert_eq!(payload, [vec![7; found], vec![0; length - found]].concat());
    }

    #[test]
    fn a_page_that_lies_in_the_log_or_behind_a_hole_under_a_strange_number_costs_no_search() {
        const STRANGE: u32 = 4_000_000_000;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let [_, log, _] = parts(&path);
        // As large as blocks of any file system.
        const WRITTEN: u32 = 64;
        fs::write(&path, vec![1; WRITTEN as usize * PAGE]).unwrap();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 38).unwrap();
        // As SQLite writes a log of one page that is committed, with checksums in the order of bytes that 0x377f0683 stands for.
        let header = [&[0x37, 0x7f, 0x06, 0x83][..], &[0; 20]].concat();
        let sum = checksum(true, [0; 2], &header);
        let head = [STRANGE, STRANGE].map(u32::to_be_bytes).concat();
        let page = vec![7; PAGE];
        let sums = |sum: [u32; 2]| sum.map(u32::to_be_bytes).concat();
        let of_page = checksum(true, checksum(true, sum, &head), &page);
        fs::write(&log, [header, sums(sum), head, vec![0; 8], sums(of_page), page.clone()].concat()).unwrap();
        let pages = Pages::open(&path).unwrap();
        let numbers = pages.numbers().map(|(_, number)| number);
        assert_eq!(numbers.collect::<Vec<_>>(), (1..=WRITTEN).chain([STRANGE]).collect::<Vec<_>>());
        assert_eq!(pages.read(STRANGE), Some(page));
    }

    #[test]
    fn a_header_that_is_none_of_ours_is_refused_before_its_columns_are_made() {
        let payload_bytes = |record: &[u8]| Kinds::read(record).and_then(|kinds| kinds.payload_bytes());
        // NULL, a byte, a text of one, a blob of two.
        assert_eq!(payload_bytes(&[5, 0, 1, 15, 16, 9, b'x', 1, 2]), Some(5 + 4));
        // A million NULLs, as zeros where a page was lost.
        let header_bytes = [0xbd, 0x84, 0x40];
        assert_eq!(payload_bytes(&[&header_bytes[..], &[0; 1_000_000]].concat()), None);
        // A kind that there is not, and one that is below zero.
        assert_eq!(payload_bytes(&[2, 10]), None);
        assert_eq!(payload_bytes(&[&[10][..], &[0xff; 9]].concat()), None);
    }
}
