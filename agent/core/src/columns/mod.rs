//! Columns: readings and aggregates turned by ninety degrees, so that what resembles each other lies together.
//!
//! One block holds the rows of one kind: which series each row belongs to, when, what, and what is known of it, each as a column
//! of its own (docs/wire-format.md says every byte). The order of the rows and every bit of every value come back. Frames carry
//! such blocks to the centre, and the store's journal keeps its readings in them.
//!
//! **Architecture invariant:** decoding is total. Whatever the bytes, it ends with rows or with a [`ColumnError`] that says where,
//! in time linear in the bytes and the row limit of the caller, and with at most [`ROW_BYTES_MAX`] bytes of memory for each row
//! that the caller allows, beside the texts, which are no longer than the bytes themselves, and 18 KiB for the trees of one column.

mod aggregates;
#[cfg(test)]
pub(crate) mod cases;
mod counts;
mod cursor;
mod dictionary;
mod entropy;
mod floats;
mod groups;
mod integers;
mod predictions;
mod readings;
mod related;
mod rows;
mod shares;
mod tokens;
mod values;

pub(crate) use aggregates::{decode_aggregates, encode_aggregates};
pub(crate) use readings::{Readings, decode_readings_with};
pub use readings::{decode_readings, encode_readings};

/// The longest text value, in bytes. A log line fits; a document belongs into a file.
pub const TEXT_BYTES_MAX: usize = 65_536;

/// The most memory that decoding takes for one row of readings, in bytes, beside texts: the reading itself, and its place in
/// the columns while they are being turned back, were each row of a series of its own.
pub const ROW_BYTES_MAX: usize = 512;

/// How columns of integers are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// In bytes, in which Zstandard may find what repeats.
    Bytes,
    /// By their entropy, with the prediction that promises most.
    Quick,
    /// By their entropy, as the shortest of several trials.
    Thorough,
}

#[cfg(test)]
impl Effort {
    const ALL: [Self; 3] = [Self::Bytes, Self::Quick, Self::Thorough];
}

/// Why bytes are not columns.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("columns: byte {at}: {fault}")]
pub struct ColumnError {
    /// How far reading had come, in bytes from the start of the block.
    pub at: usize,
    /// What was wrong.
    pub fault: ColumnFault,
}

/// What is wrong with bytes that are not columns.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ColumnFault {
    /// The bytes end too early.
    #[error("the bytes end within a column")]
    Truncated,
    /// An integer is longer than it needs to be, or than 64 bits.
    #[error("expected an integer of at most 64 bits in its shortest form")]
    Integer,
    /// A coding that this version does not know.
    #[error("expected a known coding of {column}, found {found}")]
    Coding {
        /// Which column.
        column: &'static str,
        /// The number found.
        found: u8,
    },
    /// A number is beyond its bound.
    #[error("expected at most {max} {what}, found {found}")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// The number found.
        found: u64,
        /// The bound.
        max: u64,
    },
    /// Runs or positions do not add up to the number of rows.
    #[error("runs or positions do not add up to the number of rows")]
    Order,
    /// A text is not UTF-8.
    #[error("expected UTF-8 text")]
    NotUtf8,
    /// A reading without a value.
    #[error("expected a value for every reading")]
    Absent,
    /// Bytes follow the last column.
    #[error("expected the end, found {0} more bytes")]
    Trailing(usize),
}
