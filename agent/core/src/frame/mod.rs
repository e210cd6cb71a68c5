//! Frames: the unit that is sealed, stored and sent. docs/wire-format.md describes every byte.
//!
//! A frame holds records of one stream and one class with consecutive numbers. Its header is readable without opening it; its
//! contents carry the series and functions that the records name, so that nothing else is needed to read them (but for frames by
//! reference, see [`refer`]); a CRC-32 over the bytes as sent ends it. Frames are self-delimiting CBOR items: a file of frames is a CBOR sequence (RFC 8742).
//!
//! - A frame's bytes never change once sealed. The same records, header and density give the same bytes.
//! - [`open()`] gives back exactly the records that [`seal()`] was given, with series numbered in the order of their first records.
//! - Opening is total: whatever the bytes, it ends with the contents or with a [`FrameError`], in time linear in the bounds below
//!   and within [`OPEN_BYTES_MAX`] bytes of memory.
//! - Keys of the header that a later version adds are ignored where they are not negative, and refuse to be opened where they are
//!   ([`FrameError::Critical`]); the header of such a frame can still be read.

pub(crate) mod cbor;
pub(crate) mod notice;
mod open;
mod reference;
mod seal;

use std::sync::Arc;

pub use cbor::CborFault;
pub use open::{open, read_header};
pub use reference::{Referring, SCHEMA_BYTES_MAX, Schema, SchemaId, is_schema, refer, restore};
pub use seal::{Density, SealError, seal};

use crate::columns::ColumnError;
use crate::plan::Function;
use crate::reading::SeriesInfo;
use crate::record::{Epoch, Record};
use crate::time::Timestamp;

/// The version of the format that is written, and the only one that is read.
pub const VERSION: u64 = 1;
/// The longest frame in bytes: 65,536 readings of 8 bytes each, eight times over. An MQTT packet may have 256 MB, but a gateway and
/// its broker must hold a frame in memory.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// The bytes of the checksum, which end every frame.
pub const CHECKSUM_BYTES: usize = 4;
/// The longest header in bytes: four names, five integers, and room for what later versions add (a signature, a key id).
pub const HEADER_BYTES_MAX: usize = 4096;
/// The most records in a frame; 18 hours of a reading a second.
pub const RECORDS_MAX: usize = 65_536;
/// The longest contents, before compression, in bytes.
pub const CONTENTS_BYTES_MAX: usize = 16 << 20;
/// The most functions of an aggregate.
pub const FUNCTIONS_MAX: usize = 32;
/// The most values in aggregates, functions × records: what bounds their memory. Eight functions of the most records.
pub const VALUES_MAX: usize = 1 << 19;
/// The most values of alerts and last numbers of epochs in a frame, together.
pub const LISTED_MAX: usize = 65_536;
/// The longest name of an agent, a stream, a class or a unit, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// The longest text of an alert's message or of a value, in bytes.
pub const TEXT_BYTES_MAX: usize = crate::columns::TEXT_BYTES_MAX;
/// The most memory that opening a frame takes, in bytes: the contents (16 MiB) and their texts, the most rows in columns
/// (65,536 × [`ROW_BYTES_MAX`](crate::columns::ROW_BYTES_MAX), 32 MiB), and the most values of aggregates as columns and as records, each
/// with a text of its own (524,288 × 96 bytes, 48 MiB).
pub const OPEN_BYTES_MAX: usize = 128 << 20;

/// Whose records a frame holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The agent's id.
    pub agent: Arc<str>,
    /// The epoch that the numbers count in.
    pub epoch: Epoch,
    /// The stream's name.
    pub stream: Arc<str>,
    /// The class of the records.
    pub class: Arc<str>,
}

/// How the contents are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// As they are.
    Stored,
    /// One Zstandard frame (RFC 8878).
    Zstd,
    /// One that this version does not know.
    Unknown(u64),
}

/// What is readable of a frame without opening it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The version of the format.
    pub version: u64,
    /// Whose records.
    pub origin: Origin,
    /// The number of the first record; the others follow without holes.
    pub first: u64,
    /// How many records; at least 1.
    pub count: u32,
    /// The earliest and the latest event time that the records speak of; `None` if none speaks of any.
    pub span: Option<(Timestamp, Timestamp)>,
    /// How the contents are packed.
    pub codec: Codec,
    /// The length of the contents when unpacked, in bytes.
    pub contents_bytes: u32,
    /// The schema without which the frame cannot be opened, where it is not inside.
    pub schema: Option<SchemaId>,
    /// Keys that this version does not know and without which the frame must not be opened.
    pub critical: Vec<i64>,
    /// The CRC-32 (IEEE 802.3) of all bytes before it; the frame's short name in messages.
    pub checksum: u32,
}

impl Header {
    /// The number of the last record.
    pub const fn last(&self) -> u64 {
        self.first.saturating_add(self.count.saturating_sub(1) as u64)
    }
}

/// What a frame holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Contents {
    /// The series that the records name by [`SeriesId`](crate::reading::SeriesId), in the order of their first records.
    pub series: Vec<SeriesInfo>,
    /// What the values of aggregates are, in order; empty in a frame without aggregates.
    pub compute: Vec<Function>,
    /// The records, in the order of their numbers.
    pub records: Vec<Record>,
}

/// Why bytes are not a frame that can be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The bytes end before the frame does.
    #[error("frame: expected more bytes after the {0} there are")]
    Truncated(usize),
    /// Bytes follow the frame.
    #[error("frame: expected {expected} bytes, found {found}")]
    Trailing {
        /// The frame's length.
        expected: usize,
        /// How many bytes there are.
        found: usize,
    },
    /// The envelope is not what docs/wire-format.md says.
    #[error("frame: byte {at}")]
    Envelope {
        /// How far reading had come, in bytes from the start of the frame.
        at: usize,
        /// What was wrong.
        source: CborFault,
    },
    /// A key of the header is missing, or has a value that cannot be.
    #[error("frame: byte {at}: expected a header with {missing}")]
    Header {
        /// How far reading had come, in bytes from the start of the frame.
        at: usize,
        /// What was looked for.
        missing: &'static str,
    },
    /// Another version.
    #[error("frame: expected version {VERSION}, found {0}")]
    Version(u64),
    /// The bytes were altered.
    #[error("frame: expected the checksum {computed:08x}, found {found:08x}")]
    Checksum {
        /// Of the bytes there are.
        computed: u32,
        /// At the end of the frame.
        found: u32,
    },
    /// A bound is exceeded.
    #[error("frame: expected at most {max} {what}, found {found}")]
    TooLarge {
        /// What is bounded.
        what: &'static str,
        /// How much there is.
        found: u64,
        /// The bound.
        max: u64,
    },
    /// The frame says that it must not be opened by who does not know these keys.
    #[error("frame: the header has critical keys that this version does not know: {0:?}")]
    Critical(Vec<i64>),
    /// The schema stands outside, and is not here: [`restore`] makes the frame whole.
    #[error("frame: expected its schema, {0}, found it neither in the frame nor before it")]
    Schema(SchemaId),
    /// A packing that this version does not know.
    #[error("frame: expected codec 0 (stored) or 1 (zstd), found {0}")]
    Codec(u64),
    /// The contents cannot be unpacked.
    #[error("frame: contents do not unpack to {expected} bytes: {why}")]
    Unpack {
        /// The length that the header says.
        expected: u32,
        /// What the unpacker says.
        why: String,
    },
    /// The contents are not what docs/wire-format.md says.
    #[error("frame: contents, byte {at}")]
    Contents {
        /// How far reading had come, in bytes from the start of the unpacked contents.
        at: usize,
        /// What was wrong.
        source: CborFault,
    },
    /// The contents contradict themselves or the header.
    #[error("frame: contents, byte {at}: {what}")]
    Inconsistent {
        /// How far reading had come, in bytes from the start of the unpacked contents.
        at: usize,
        /// What was expected.
        what: &'static str,
    },
    /// A function that this version does not know.
    #[error("frame: expected a known function of a window, found {0:?}")]
    Function(String),
    /// A block of columns cannot be read.
    #[error("frame: contents, block that ends at byte {at}")]
    Columns {
        /// Where the block ends, in bytes from the start of the unpacked contents.
        at: usize,
        /// What was wrong, and where in the block.
        source: ColumnError,
    },
}

/// Keys of the header. Negative keys are critical. −1 is none, so that frames with it stay ones that nobody may open.
mod key {
    pub(super) const VERSION: i64 = 0;
    pub(super) const AGENT: i64 = 1;
    pub(super) const EPOCH: i64 = 2;
    pub(super) const STREAM: i64 = 3;
    pub(super) const CLASS: i64 = 4;
    pub(super) const FIRST: i64 = 5;
    pub(super) const COUNT: i64 = 6;
    pub(super) const START: i64 = 7;
    pub(super) const END: i64 = 8;
    pub(super) const CODEC: i64 = 9;
    pub(super) const BYTES: i64 = 10;
    pub(super) const SCHEMA: i64 = -2;
}

/// Keys of the contents.
mod part {
    pub(super) const SERIES: i64 = 0;
    pub(super) const COMPUTE: i64 = 1;
    pub(super) const SECTIONS: i64 = 2;
}

/// Kinds of sections.
mod section {
    pub(super) const READINGS: u64 = 0;
    pub(super) const AGGREGATES: u64 = 1;
    pub(super) const NOTICES: u64 = 2;
}

/// The class that is not written.
pub(crate) const DEFAULT_CLASS: &str = "process";
