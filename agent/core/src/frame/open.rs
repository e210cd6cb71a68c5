//! From bytes to a header, and on to records.

use std::sync::Arc;

use super::cbor::{CborFault, Reader};
use super::notice::{self, NoticeFault};
use super::{
    CONTENTS_BYTES_MAX, Codec, Contents, DEFAULT_CLASS, FRAME_BYTES_MAX, FUNCTIONS_MAX, FrameError, HEADER_BYTES_MAX,
    Header, LISTED_MAX, NAME_BYTES_MAX, Origin, RECORDS_MAX, SchemaId, VALUES_MAX, VERSION, key, part, section,
};
use crate::columns::{decode_aggregates, decode_readings_with};
use crate::pack;
use crate::plan::Function;
use crate::reading::{SERIES_NAME_BYTES_MAX, SeriesId, SeriesInfo};
use crate::record::{Epoch, Record};
use crate::time::Timestamp;

/// The most keys in a header.
pub(super) const KEYS_MAX: usize = 64;

/// Reads the header of the frame that `bytes` begin with, verifies the checksum, and says how long the frame is. What follows the
/// frame is not looked at.
///
/// # Errors
/// The bytes do not begin with a whole frame of this version, unaltered. [`FrameError::Truncated`] says that more bytes might help.
pub fn read_header(bytes: &[u8]) -> Result<(Header, usize), FrameError> {
    parse(bytes).map(|(header, _, length)| (header, length))
}

/// Opens the one frame that `bytes` are.
///
/// # Errors
/// The bytes are not exactly one frame that this version can open, or break one of its bounds.
pub fn open(bytes: &[u8]) -> Result<(Header, Contents), FrameError> {
    let (header, contents) = contents_of(bytes)?;
    if let Some(schema) = header.schema {
        return Err(FrameError::Schema(schema));
    }
    let contents = read_contents(&contents, &header)?;
    Ok((header, contents))
}

/// The header of the one frame that `bytes` are, and its contents as they were before they were packed.
pub(super) fn contents_of(bytes: &[u8]) -> Result<(Header, Unpacked<'_>), FrameError> {
    let (header, packed, length) = parse(bytes)?;
    if length != bytes.len() {
        return Err(FrameError::Trailing { expected: length, found: bytes.len() });
    }
    if !header.critical.is_empty() {
        return Err(FrameError::Critical(header.critical));
    }
    let contents = match header.codec {
        Codec::Stored => Unpacked::Borrowed(packed),
        Codec::Zstd => Unpacked::Owned(unpack(packed, header.contents_bytes)?),
        Codec::Unknown(codec) => return Err(FrameError::Codec(codec)),
    };
    Ok((header, contents))
}

pub(super) type Unpacked<'a> = std::borrow::Cow<'a, [u8]>;

/// Uncompresses to exactly `expected` bytes, which the header bounded.
fn unpack(packed: &[u8], expected: u32) -> Result<Vec<u8>, FrameError> {
    let refuse = |why: String| FrameError::Unpack { expected, why };
    let one = zstd::zstd_safe::find_frame_compressed_size(packed).map_err(|code| refuse(error_name(code)))?;
    if one != packed.len() {
        return Err(refuse("expected one Zstandard frame and nothing after it".into()));
    }
    let contents = pack::unpack(packed, expected as usize).map_err(|error| refuse(error.to_string()))?;
    if contents.len() != expected as usize {
        return Err(refuse(format!("found {} bytes", contents.len())));
    }
    Ok(contents)
}

fn error_name(code: usize) -> String {
    zstd::zstd_safe::get_error_name(code).into()
}

/// The header, the packed contents, and the length of the frame.
fn parse(bytes: &[u8]) -> Result<(Header, &[u8], usize), FrameError> {
    // A frame is not read further than the longest may reach, so that `Truncated` is never an invitation to send without end.
    let window = bytes.get(..FRAME_BYTES_MAX).unwrap_or(bytes);
    let mut reader = Reader::new(window);
    let fail = |at: usize, fault: CborFault| match fault {
        CborFault::Truncated if bytes.len() < FRAME_BYTES_MAX => FrameError::Truncated(bytes.len()),
        CborFault::Truncated => {
            FrameError::TooLarge { what: "bytes of a frame", found: bytes.len() as u64, max: FRAME_BYTES_MAX as u64 }
        }
        source => FrameError::Envelope { at, source },
    };
    let length = reader.array(4).map_err(|fault| fail(reader.at(), fault))?;
    if length != 4 {
        return Err(fail(reader.at(), CborFault::Expected("an array of 4 items")));
    }
    let fields = Fields::read(&mut reader).map_err(|fault| fault.or(&reader, fail))?;
    let packed = reader.bytes_at_most(FRAME_BYTES_MAX).map_err(|fault| fail(reader.at(), fault))?;
    let critical = read_extension(&mut reader, fields.critical.clone()).map_err(|fault| fail(reader.at(), fault))?;
    let tail = reader.bytes().map_err(|fault| fail(reader.at(), fault))?;
    let tail: [u8; 4] = tail.try_into().map_err(|_| fail(reader.at(), CborFault::Expected("a checksum of 4 bytes")))?;
    let found = u32::from_be_bytes(tail);
    let computed = crc32fast::hash(window.get(..reader.at() - tail.len()).unwrap_or_default());
    if found != computed {
        return Err(FrameError::Checksum { computed, found });
    }
    let header = fields.header(packed.len(), critical, found, reader.at())?;
    Ok((header, packed, reader.at()))
}

/// The map after the contents: nothing in this version.
fn read_extension(reader: &mut Reader<'_>, mut critical: Vec<i64>) -> Result<Vec<i64>, CborFault> {
    let start = reader.at();
    let mut before = None;
    for _ in 0..reader.map(KEYS_MAX)? {
        let key = ascending(reader, &mut before)?;
        if key < 0 {
            critical.push(key);
        }
        reader.skip()?;
    }
    if reader.at() - start > HEADER_BYTES_MAX {
        return Err(CborFault::TooMany("bytes of an extension", HEADER_BYTES_MAX));
    }
    Ok(critical)
}

/// A key of a map with integer keys, in the order of the encoding: 0, 1, 2, …, then −1, −2, ….
fn ascending(reader: &mut Reader<'_>, before: &mut Option<(bool, u64)>) -> Result<i64, CborFault> {
    let key = reader.int()?;
    let rank = (key < 0, key.unsigned_abs());
    if before.is_some_and(|before| before >= rank) {
        return Err(CborFault::NotDeterministic);
    }
    *before = Some(rank);
    Ok(key)
}

/// The header's keys as far as they are there.
#[derive(Debug, Default)]
struct Fields {
    agent: Option<Arc<str>>,
    epoch: Option<Epoch>,
    stream: Option<Arc<str>>,
    class: Option<Arc<str>>,
    first: Option<u64>,
    count: Option<u64>,
    start: Option<Timestamp>,
    end: Option<Timestamp>,
    codec: Option<u64>,
    contents_bytes: Option<u64>,
    schema: Option<SchemaId>,
    critical: Vec<i64>,
}

/// Why the header cannot be read.
enum HeaderFault {
    Cbor(CborFault),
    Frame(FrameError),
}

impl HeaderFault {
    fn or(self, reader: &Reader<'_>, fail: impl Fn(usize, CborFault) -> FrameError) -> FrameError {
        match self {
            Self::Cbor(fault) => fail(reader.at(), fault),
            Self::Frame(error) => error,
        }
    }
}

impl From<CborFault> for HeaderFault {
    fn from(fault: CborFault) -> Self {
        Self::Cbor(fault)
    }
}

impl Fields {
    fn read(reader: &mut Reader<'_>) -> Result<Self, HeaderFault> {
        let mut fields = Self::default();
        let start = reader.at();
        let mut before = None;
        for place in 0..reader.map(KEYS_MAX)? {
            let key = ascending(reader, &mut before)?;
            // The version comes first, and with another one nothing after it can be relied on.
            if place == 0 {
                if key != key::VERSION {
                    return Err(HeaderFault::Frame(FrameError::Header {
                        at: reader.at(),
                        missing: "the version first",
                    }));
                }
                match reader.unsigned()? {
                    VERSION => continue,
                    other => return Err(HeaderFault::Frame(FrameError::Version(other))),
                }
            }
            fields.take(key, reader)?;
            if reader.at() - start > HEADER_BYTES_MAX {
                return Err(CborFault::TooMany("bytes of a header", HEADER_BYTES_MAX).into());
            }
        }
        Ok(fields)
    }

    fn take(&mut self, key: i64, reader: &mut Reader<'_>) -> Result<(), CborFault> {
        let name = |reader: &mut Reader<'_>| reader.text(NAME_BYTES_MAX).map(|text| Some(Arc::from(text)));
        let time = |reader: &mut Reader<'_>| reader.int().map(|nanos| Some(Timestamp::from_nanos(nanos)));
        match key {
            key::AGENT => self.agent = name(reader)?,
            key::EPOCH => self.epoch = Some(Epoch(reader.unsigned()?)),
            key::STREAM => self.stream = name(reader)?,
            key::CLASS => self.class = name(reader)?,
            key::FIRST => self.first = Some(reader.unsigned()?),
            key::COUNT => self.count = Some(reader.unsigned()?),
            key::START => self.start = time(reader)?,
            key::END => self.end = time(reader)?,
            key::CODEC => self.codec = Some(reader.unsigned()?),
            key::BYTES => self.contents_bytes = Some(reader.unsigned()?),
            key::SCHEMA => self.schema = Some(SchemaId(reader.unsigned()?)),
            unknown => {
                if unknown < 0 {
                    self.critical.push(unknown);
                }
                reader.skip()?;
            }
        }
        Ok(())
    }

    fn header(self, packed: usize, critical: Vec<i64>, checksum: u32, at: usize) -> Result<Header, FrameError> {
        let missing = |missing| FrameError::Header { at, missing };
        let bounded = |what, found: u64, max: usize| match u32::try_from(found) {
            Ok(value) if value as usize <= max => Ok(value),
            _ => Err(FrameError::TooLarge { what, found, max: max as u64 }),
        };
        let first = self.first.ok_or(missing("the first number"))?;
        let count = bounded("records", self.count.ok_or(missing("the count"))?, RECORDS_MAX)?;
        if count == 0 || first.checked_add(u64::from(count) - 1).is_none() {
            return Err(missing("a count of at least 1, and numbers within 64 bits"));
        }
        let span = match (self.start, self.end) {
            (None, None) => None,
            (Some(start), Some(end)) if start <= end => Some((start, end)),
            _ => return Err(missing("a start and an end not before it")),
        };
        let codec = match self.codec {
            None | Some(0) => Codec::Stored,
            Some(1) => Codec::Zstd,
            Some(other) => Codec::Unknown(other),
        };
        let contents_bytes = match codec {
            Codec::Stored => packed as u64,
            _ => self.contents_bytes.ok_or(missing("the length of the contents"))?,
        };
        let origin = Origin {
            agent: self.agent.ok_or(missing("the agent"))?,
            epoch: self.epoch.ok_or(missing("the epoch"))?,
            stream: self.stream.ok_or(missing("the stream"))?,
            class: self.class.unwrap_or_else(|| DEFAULT_CLASS.into()),
        };
        let contents_bytes = bounded("bytes of contents", contents_bytes, CONTENTS_BYTES_MAX)?;
        let schema = self.schema;
        Ok(Header { version: VERSION, origin, first, count, span, codec, contents_bytes, schema, critical, checksum })
    }
}

fn read_contents(contents: &[u8], header: &Header) -> Result<Contents, FrameError> {
    let mut reader = Reader::new(contents);
    let result = read_parts(&mut reader, header);
    let at = reader.at();
    result.map_err(|fault| match fault {
        Fault::Cbor(source) => FrameError::Contents { at, source },
        Fault::Inconsistent(what) => FrameError::Inconsistent { at, what },
        Fault::Frame(error) => error,
    })
}

/// Why contents cannot be read.
enum Fault {
    Cbor(CborFault),
    Inconsistent(&'static str),
    Frame(FrameError),
}

impl From<CborFault> for Fault {
    fn from(fault: CborFault) -> Self {
        Self::Cbor(fault)
    }
}

impl From<NoticeFault> for Fault {
    fn from(fault: NoticeFault) -> Self {
        match fault {
            NoticeFault::Cbor(fault) => Self::Cbor(fault),
            NoticeFault::Expected(what) => Self::Inconsistent(what),
        }
    }
}

fn read_parts(reader: &mut Reader<'_>, header: &Header) -> Result<Contents, Fault> {
    let mut contents = Contents { series: Vec::new(), compute: Vec::new(), records: Vec::new() };
    let mut before = None;
    for _ in 0..reader.map(KEYS_MAX)? {
        match ascending(reader, &mut before)? {
            part::SERIES => contents.series = read_series(reader, header.count as usize)?,
            part::COMPUTE => contents.compute = read_compute(reader)?,
            part::SECTIONS => read_sections(reader, header.count as usize, &mut contents)?,
            critical @ ..0 => return Err(Fault::Frame(FrameError::Critical(vec![critical]))),
            _ => reader.skip()?,
        }
    }
    if contents.records.len() != header.count as usize {
        return Err(Fault::Inconsistent("as many records as the header says"));
    }
    if reader.left() > 0 {
        return Err(Fault::Inconsistent("the end of the contents"));
    }
    Ok(contents)
}

/// The series table. Every series has a record.
fn read_series(reader: &mut Reader<'_>, max: usize) -> Result<Vec<SeriesInfo>, Fault> {
    let mut series = Vec::new();
    for _ in 0..reader.array(max)? {
        let fields = reader.array(2)?;
        if fields == 0 {
            return Err(Fault::Inconsistent("a series with a name"));
        }
        let name = reader.text(SERIES_NAME_BYTES_MAX)?.into();
        let unit = if fields == 2 { Some(reader.text(NAME_BYTES_MAX)?.into()) } else { None };
        series.push(SeriesInfo { name, unit });
    }
    Ok(series)
}

fn read_compute(reader: &mut Reader<'_>) -> Result<Vec<Function>, Fault> {
    let mut compute = Vec::new();
    for _ in 0..reader.array(FUNCTIONS_MAX)? {
        let name = reader.text(NAME_BYTES_MAX)?;
        compute.push(name.parse::<Function>().map_err(|_| Fault::Frame(FrameError::Function(name.into())))?);
    }
    Ok(compute)
}

fn read_sections(reader: &mut Reader<'_>, count: usize, contents: &mut Contents) -> Result<(), Fault> {
    let (mut values_left, mut listed_left) = (VALUES_MAX, LISTED_MAX);
    for _ in 0..reader.array(count)? {
        if reader.array(3)? != 3 {
            return Err(Fault::Inconsistent("a section of a kind, a count and its records"));
        }
        let kind = reader.unsigned()?;
        let left = count - contents.records.len();
        let rows = usize::try_from(reader.unsigned()?).ok().filter(|rows| (1..=left).contains(rows));
        let rows = rows.ok_or(Fault::Inconsistent("sections with as many records as the header says"))?;
        match kind {
            section::READINGS => {
                let block = reader.bytes()?;
                let before = contents.records.len();
                let ids = decode_readings_with(block, rows, Record::Reading, &mut contents.records)
                    .map_err(|source| Fault::Frame(FrameError::Columns { at: reader.at(), source }))?;
                checked(ids.into_iter().map(SeriesId), contents.records.len() - before, rows, contents)?;
            }
            section::AGGREGATES => {
                let functions = contents.compute.len();
                let wanted = rows.saturating_mul(functions);
                values_left = values_left.checked_sub(wanted).ok_or(Fault::Frame(FrameError::TooLarge {
                    what: "values of aggregates",
                    found: wanted as u64,
                    max: VALUES_MAX as u64,
                }))?;
                let block = reader.bytes()?;
                let aggregates = decode_aggregates(block, functions, rows)
                    .map_err(|source| Fault::Frame(FrameError::Columns { at: reader.at(), source }))?;
                checked(aggregates.iter().map(|aggregate| aggregate.series), aggregates.len(), rows, contents)?;
                contents.records.extend(aggregates.into_iter().map(Record::Aggregate));
            }
            section::NOTICES => {
                if reader.array(rows)? != rows {
                    return Err(Fault::Inconsistent("as many notices as the section says"));
                }
                for _ in 0..rows {
                    contents.records.push(notice::read(reader, &mut listed_left)?);
                }
            }
            _ => return Err(Fault::Inconsistent("a section of kind 0, 1 or 2")),
        }
    }
    Ok(())
}

/// Checks a block against its section and the series table.
fn checked(
    mut ids: impl Iterator<Item = SeriesId>,
    found: usize,
    rows: usize,
    contents: &Contents,
) -> Result<(), Fault> {
    if found != rows {
        return Err(Fault::Inconsistent("a block with as many rows as the section says"));
    }
    if ids.any(|id| id.index() >= contents.series.len()) {
        return Err(Fault::Inconsistent("series of the table"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The frames of corner cases that Zstandard is tested with, read as any other; whatever is cut off or altered ends in bytes or an error.
    #[test]
    fn the_golden_frames_of_zstandard() {
        let data = std::env::var_os("RTLIVE_DATA").map_or_else(
            || concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data").into(),
            std::path::PathBuf::from,
        );
        for (name, expected) in [("empty-block", &b""[..]), ("zeroSeq_2B", b"Hello World!\n")] {
            let path = data.join(format!("zstd/{name}.zst"));
            let Ok(packed) = std::fs::read(&path) else {
                println!("SKIPPED: the frames of Zstandard: no {}", path.display());
                continue;
            };
            assert_eq!(unpack(&packed, expected.len() as u32), Ok(expected.to_vec()), "{name}");
            assert!(unpack(&packed, expected.len() as u32 + 1).is_err(), "{name}");
            for length in 0..packed.len() {
                assert!(unpack(&packed[..length], expected.len() as u32).is_err(), "{name} cut at {length}");
            }
            for bit in 0..packed.len() * 8 {
                let mut altered = packed.clone();
                altered[bit / 8] ^= 1 << (bit % 8);
                if let Ok(bytes) = unpack(&altered, expected.len() as u32) {
                    assert_eq!(bytes.len(), expected.len(), "{name} with bit {bit} flipped");
                }
            }
        }
    }
}
