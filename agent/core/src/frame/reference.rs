//! Frames by reference: what contents say of series and functions, their *schema*, stands in an item of its own, and frames name it by its hash.
//!
//! Stores keep frames whole. [`refer`] makes of a whole frame the one that is sent, always the same one, and its schema; [`restore`] makes it whole again.
//! A schema is sent as a message like a frame, of which the first bytes tell it.

use std::fmt;

use super::cbor::{CborFault, Reader, Writer};
use super::open::{KEYS_MAX, contents_of};
use super::seal::Envelope;
use super::{CHECKSUM_BYTES, Codec, FrameError, Header, NAME_BYTES_MAX, VERSION, part};
use crate::pack::pack;

/// The longest schema in bytes, so that one message holds it on any link. A frame of a longer one stays whole.
pub const SCHEMA_BYTES_MAX: usize = 16 << 10;

/// The level of Zstandard, as [`super::Density::Normal`] has it.
const LEVEL: i32 = 3;

/// The name of a schema: the FNV-1a hash of 64 bits of its tables as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchemaId(pub u64);

impl fmt::Display for SchemaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A schema, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schema<'a> {
    /// The agent whose frames name it.
    pub agent: &'a str,
    /// Its name.
    pub id: SchemaId,
    /// The keys of the contents that it stands for, with their values.
    tables: &'a [u8],
}

/// A frame that names its schema, and that schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referring {
    /// The name of the schema.
    pub id: SchemaId,
    /// The schema.
    pub schema: Vec<u8>,
    /// The frame.
    pub frame: Vec<u8>,
}

/// Whether what messages carry is a schema. A frame begins with its header, a map, and a schema with its version.
pub fn is_schema(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x84, VERSION as u8])
}

/// Takes the schema out of a whole frame; `None` where it has none, or one of more than [`SCHEMA_BYTES_MAX`].
///
/// # Errors
/// The bytes are no whole frame.
pub fn refer(frame: &[u8]) -> Result<Option<Referring>, FrameError> {
    let (header, contents) = contents_of(frame)?;
    let (tables, rest) = parted(&contents)?;
    if header.schema.is_some() || tables.count == 0 || tables.bytes.len() > SCHEMA_BYTES_MAX {
        return Ok(None);
    }
    let tables = tables.into_map();
    let id = SchemaId(hash(&tables));
    let mut out = Writer::default();
    out.array(4);
    out.unsigned(VERSION);
    out.text(&header.origin.agent);
    let mut schema = out.bytes;
    schema.extend(tables);
    schema.push(0x44);
    schema.extend(crc32fast::hash(&schema).to_be_bytes());
    let frame = enclosed(&header, Some(id), rest.into_map());
    Ok(Some(Referring { id, schema, frame }))
}

/// Makes a frame whole that names a schema; one that names none is whole already.
///
/// # Errors
/// The bytes are no frame that can be opened, or it names another schema than this.
pub fn restore(frame: &[u8], schema: &Schema<'_>) -> Result<Vec<u8>, FrameError> {
    let (header, contents) = contents_of(frame)?;
    match header.schema {
        Some(id) if id == schema.id => {}
        Some(id) => return Err(FrameError::Schema(id)),
        None => return Ok(frame.to_vec()),
    }
    let failed = |source| FrameError::Contents { at: 0, source };
    let (mut tables, _) = parted(schema.tables)?;
    let rest = pairs(&contents).map_err(failed)?;
    tables.count += rest.count;
    tables.bytes.extend(rest.bytes);
    Ok(enclosed(&header, None, tables.into_map()))
}

impl<'a> Schema<'a> {
    /// Reads the one schema that `bytes` are. What is in its tables shows when a frame is made whole and opened.
    ///
    /// # Errors
    /// They are no schema of this version, unaltered.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let mut reader = Reader::new(bytes);
        let read = Self::read(&mut reader);
        let at = reader.at();
        let (schema, found) = read.map_err(|source| FrameError::Envelope { at, source })?;
        if at != bytes.len() {
            return Err(FrameError::Trailing { expected: at, found: bytes.len() });
        }
        let computed = crc32fast::hash(bytes.get(..at - CHECKSUM_BYTES).unwrap_or_default());
        if found == computed { Ok(schema) } else { Err(FrameError::Checksum { computed, found }) }
    }

    /// The schema, and the checksum that it says it has.
    fn read(reader: &mut Reader<'a>) -> Result<(Self, u32), CborFault> {
        if reader.array(4)? != 4 || reader.unsigned()? != VERSION {
            return Err(CborFault::Expected("an array of 4 items and version 1"));
        }
        let agent = reader.text(NAME_BYTES_MAX)?;
        let tables = reader.item()?;
        let checksum = reader.bytes()?;
        let checksum: [u8; CHECKSUM_BYTES] =
            checksum.try_into().map_err(|_| CborFault::Expected("a checksum of 4 bytes"))?;
        if tables.len() > SCHEMA_BYTES_MAX {
            return Err(CborFault::TooMany("bytes of tables", SCHEMA_BYTES_MAX));
        }
        Ok((Self { agent, id: SchemaId(hash(tables)), tables }, u32::from_be_bytes(checksum)))
    }
}

/// Pairs of a map, one after the other.
#[derive(Default)]
struct Pairs {
    count: usize,
    bytes: Vec<u8>,
}

impl Pairs {
    fn into_map(self) -> Vec<u8> {
        let mut out = Writer::default();
        out.map(self.count);
        out.bytes.extend(self.bytes);
        out.bytes
    }
}

/// The pairs of a map.
fn pairs(map: &[u8]) -> Result<Pairs, CborFault> {
    let mut reader = Reader::new(map);
    let count = reader.map(KEYS_MAX)?;
    Ok(Pairs { count, bytes: map.get(reader.at()..).unwrap_or_default().to_vec() })
}

/// The pairs of contents that are tables, and the others.
fn parted(contents: &[u8]) -> Result<(Pairs, Pairs), FrameError> {
    let mut reader = Reader::new(contents);
    let (mut tables, mut rest) = (Pairs::default(), Pairs::default());
    let mut read = || {
        for _ in 0..reader.map(KEYS_MAX)? {
            let start = reader.at();
            let of = if matches!(reader.int()?, part::SERIES | part::COMPUTE) { &mut tables } else { &mut rest };
            reader.item()?;
            of.count += 1;
            of.bytes.extend_from_slice(contents.get(start..reader.at()).unwrap_or_default());
        }
        Ok(())
    };
    let done: Result<(), CborFault> = read();
    done.map_err(|source| FrameError::Contents { at: reader.at(), source })?;
    Ok((tables, rest))
}

/// A frame of the same records around other contents.
fn enclosed(header: &Header, schema: Option<SchemaId>, contents: Vec<u8>) -> Vec<u8> {
    let Header { origin, first, count, span, .. } = header;
    let envelope = Envelope { origin, first: *first, count: *count as usize, span: *span, schema };
    let packed = if header.codec == Codec::Zstd { pack(&contents, LEVEL).ok() } else { None };
    match packed.filter(|packed| packed.len() < contents.len()) {
        Some(packed) => envelope.around(Codec::Zstd, contents.len(), &packed),
        None => envelope.around(Codec::Stored, contents.len(), &contents),
    }
}

/// FNV-1a of 64 bits (draft-eastlake-fnv, section 2): equal tables have one name, and others hardly ever the same; it keeps no secret.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
