//! Messages: what is published. A frame, or a part of one, behind a small header that is neither stored nor signed.
//!
//! A message is one CBOR item: the tag 55799, whose three bytes no JSON text and no UTF-8 text can begin with, around an array of
//! version, `historical`, part index, part count, the frame's checksum, and the bytes (docs/wire-format.md). So messages in a row
//! can be told apart from each other and from JSON, and a reader that lost its place finds the next one.

mod reassemble;
mod stream;

pub use reassemble::{REASSEMBLIES_MAX, REASSEMBLY_BYTES_MAX, Reassembler, ReassemblerCounts, Whole};
pub use stream::{Item, JSON_BYTES_MAX, MessageReader, StreamError, StreamFault};

use crate::frame::cbor::{CborFault, Reader, Writer};
use crate::frame::{CHECKSUM_BYTES, FRAME_BYTES_MAX};

/// The version of the header.
pub const VERSION: u64 = 1;
/// The tag of self-described CBOR (RFC 8949, section 3.4.6), which every message begins with.
pub const MAGIC: [u8; 3] = [0xd9, 0xd9, 0xf7];
const TAG: u64 = 55_799;
/// The longest header in bytes: three of the tag, one each of array, version and `historical`, three each of index and count, five of
/// the checksum, five of the length.
pub const HEADER_BYTES_MAX: usize = 22;
/// The longest message in bytes.
pub const MESSAGE_BYTES_MAX: usize = FRAME_BYTES_MAX + HEADER_BYTES_MAX;
/// The shortest part worth a header, in bytes: half a second at 4 kbit/s. A smaller `part_bytes_max` counts as this.
pub const PART_BYTES_MIN: usize = 256;
/// The most parts of a frame: the longest frame in the shortest parts.
pub const PARTS_MAX: u32 = FRAME_BYTES_MAX.div_ceil(PART_BYTES_MIN) as u32;

/// A message, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Whether it is backlog: sent long after its records were committed.
    pub historical: bool,
    /// Which part this is, from 0.
    pub index: u32,
    /// How many parts the frame has.
    pub count: u32,
    /// The last four bytes of the frame, big-endian.
    pub checksum: u32,
    /// The part of the frame.
    pub part: &'a [u8],
}

/// Why bytes are not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Another beginning: JSON, or anything else that is not a message of frames.
    #[error("message: expected the bytes d9 d9 f7 at its start")]
    NotAMessage,
    /// The bytes end before the message does.
    #[error("message: expected more bytes after the {0} there are")]
    Truncated(usize),
    /// The header is not what docs/wire-format.md says.
    #[error("message: byte {at}")]
    Header {
        /// How far reading had come, in bytes from the start of the message.
        at: usize,
        /// What was wrong.
        source: CborFault,
    },
    /// Another version.
    #[error("message: expected version {VERSION}, found {0}")]
    Version(u64),
    /// An index or a count that cannot be.
    #[error(
        "message: expected a part of at most {PARTS_MAX} and an index below their number, found part {index} of {count}"
    )]
    Part {
        /// The part's index.
        index: u64,
        /// The number of parts.
        count: u64,
    },
    /// Bytes follow the message.
    #[error("message: expected {expected} bytes, found {found}")]
    Trailing {
        /// The message's length.
        expected: usize,
        /// How many bytes there are.
        found: usize,
    },
    /// The frame does not end with the checksum of the header, or is longer than any frame.
    #[error("message: expected a frame that ends with the checksum {0:08x}, its parts do not make one")]
    Checksum(u32),
}

impl<'a> Message<'a> {
    /// Takes apart the one message that `bytes` are.
    ///
    /// # Errors
    /// They are not exactly one message of this version.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, MessageError> {
        match Self::parse_first(bytes)? {
            (message, length) if length == bytes.len() => Ok(message),
            (_, expected) => Err(MessageError::Trailing { expected, found: bytes.len() }),
        }
    }

    /// Takes apart the message that `bytes` begin with, and says how long it is.
    ///
    /// # Errors
    /// They do not begin with a whole message of this version. [`MessageError::Truncated`] says that more bytes might help.
    pub fn parse_first(bytes: &'a [u8]) -> Result<(Self, usize), MessageError> {
        let whole = bytes.len().min(MAGIC.len());
        if bytes.get(..whole) != MAGIC.get(..whole) {
            return Err(MessageError::NotAMessage);
        }
        let mut reader = Reader::new(bytes);
        let parsed = Self::read(&mut reader);
        let at = reader.at();
        parsed.map(|message| (message, at)).map_err(|fault| match fault {
            Fault::Cbor(CborFault::Truncated) => MessageError::Truncated(bytes.len()),
            Fault::Cbor(source) => MessageError::Header { at, source },
            Fault::Message(error) => error,
        })
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, Fault> {
        if reader.tag()? != TAG {
            return Err(CborFault::Expected("the tag 55799").into());
        }
        if reader.array(6)? != 6 {
            return Err(CborFault::Expected("an array of 6 items").into());
        }
        let version = reader.unsigned()?;
        if version != VERSION {
            return Err(Fault::Message(MessageError::Version(version)));
        }
        let historical = reader.bool()?;
        let (index, count) = (reader.unsigned()?, reader.unsigned()?);
        if index >= count || count > u64::from(PARTS_MAX) {
            return Err(Fault::Message(MessageError::Part { index, count }));
        }
        let checksum = reader.unsigned()?;
        let checksum = u32::try_from(checksum).map_err(|_| CborFault::Expected("a checksum of 32 bits"))?;
        let part = reader.bytes_at_most(FRAME_BYTES_MAX)?;
        Ok(Self { historical, index: index as u32, count: count as u32, checksum, part })
    }
}

/// Why a message cannot be read.
enum Fault {
    Cbor(CborFault),
    Message(MessageError),
}

impl From<CborFault> for Fault {
    fn from(fault: CborFault) -> Self {
        Self::Cbor(fault)
    }
}

/// The messages that carry a frame: one, or as many parts of at most `part_bytes_max` bytes as it takes, in order.
///
/// The number of parts alone decides where they end: a frame that is sent again in other parts is never put together from parts of both attempts
/// that do not fit.
///
/// `historical` marks backlog. The frame is what [`crate::frame::seal`] gave, or read back from a store; its last four bytes name it.
pub fn split(frame: &[u8], historical: bool, part_bytes_max: usize) -> impl ExactSizeIterator<Item = Vec<u8>> {
    let least = frame.len().div_ceil(part_bytes_max.max(PART_BYTES_MIN)).max(1);
    let parts = frame.chunks(frame.len().div_ceil(least).max(1));
    let count = parts.len() as u64;
    let checksum = checksum_of(frame);
    parts.enumerate().map(move |(index, part)| {
        let mut out = Writer { bytes: Vec::with_capacity(HEADER_BYTES_MAX + part.len()) };
        out.tag(TAG);
        out.array(6);
        out.unsigned(VERSION);
        out.bool(historical);
        out.unsigned(index as u64);
        out.unsigned(count);
        out.unsigned(u64::from(checksum));
        out.bytes(part);
        out.bytes
    })
}

/// The last four bytes of a frame.
fn checksum_of(frame: &[u8]) -> u32 {
    let start = frame.len().saturating_sub(CHECKSUM_BYTES);
    frame.get(start..).unwrap_or_default().iter().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

/// Whether a frame is what its last four bytes say.
fn intact(frame: &[u8]) -> bool {
    let body = frame.get(..frame.len().saturating_sub(CHECKSUM_BYTES)).unwrap_or_default();
    frame.len() > CHECKSUM_BYTES && crc32fast::hash(body) == checksum_of(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_starts_as_no_json_does() {
        let message = split(b"frame", false, 10).next().unwrap();
        assert!(message.starts_with(&MAGIC));
        assert!(std::str::from_utf8(&message).is_err());
    }

    #[test]
    fn parts_are_bounded_and_complete() {
        let frame: Vec<u8> = (0..10_000).map(|i| i as u8).collect();
        let messages: Vec<Vec<u8>> = split(&frame, true, 3000).collect();
        assert_eq!(messages.len(), 4);
        let mut again = Vec::new();
        for (index, message) in messages.iter().enumerate() {
            let parsed = Message::parse(message).unwrap();
            assert_eq!((parsed.index as usize, parsed.count, parsed.historical), (index, 4, true));
            assert!(parsed.part.len() <= 3000 && message.len() <= parsed.part.len() + HEADER_BYTES_MAX);
            again.extend_from_slice(parsed.part);
        }
        assert_eq!(again, frame);
    }

    #[test]
    fn as_many_parts_are_the_same_parts() {
        let frame: Vec<u8> = (0..10_000).map(|i| i as u8).collect();
        let mut known: Vec<Vec<Vec<u8>>> = Vec::new();
        for part_bytes_max in (PART_BYTES_MIN..11_000).step_by(7) {
            let messages: Vec<Vec<u8>> = split(&frame, false, part_bytes_max).collect();
            assert_eq!(messages.len(), frame.len().div_ceil(part_bytes_max));
            match known.iter().find(|known| known.len() == messages.len()) {
                Some(known) => assert_eq!(*known, messages),
                None => known.push(messages),
            }
        }
        assert!(known.len() > 20);
    }

    #[test]
    fn every_truncation_is_one_and_says_so() {
        let message = split(&[7; 200], false, 256).next().unwrap();
        for length in 0..message.len() {
            assert_eq!(Message::parse(&message[..length]), Err(MessageError::Truncated(length)));
        }
        assert_eq!(Message::parse(b"{\"agent\""), Err(MessageError::NotAMessage));
    }
}
