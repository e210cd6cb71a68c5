//! The bytes below the columns: variable-length integers, and a cursor that reads them and never beyond them.
//!
//! An unsigned integer is written in groups of seven bits, the least significant first; a set high bit says that more follow
//! (LEB128). A signed one is folded first, so that small magnitudes of either sign are short: 0, −1, 1, −2 become 0, 1, 2, 3
//! (zigzag). The shortest form is the only one.

use super::{ColumnError, ColumnFault};

/// Folds the sign into the lowest bit.
pub(super) const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

/// Takes [`zigzag`] back.
pub(super) const fn unzigzag(value: u64) -> i64 {
    ((value >> 1) ^ (value & 1).wrapping_neg()).cast_signed()
}

/// Appends an unsigned integer.
pub(super) fn put_unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed integer.
pub(super) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_unsigned(out, zigzag(value));
}

/// Appends a text with its length in bytes.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_unsigned(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// A place in bytes that are being decoded.
#[derive(Clone, Debug)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// An error at this place.
    pub(super) const fn error(&self, fault: ColumnFault) -> ColumnError {
        ColumnError { at: self.at, fault }
    }

    /// How many bytes are left.
    pub(super) const fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// All bytes that are left.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], ColumnError> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.get(..count));
        let taken = taken.ok_or_else(|| self.error(ColumnFault::Truncated))?;
        self.at += count;
        Ok(taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, ColumnError> {
        let byte = *self.bytes.get(self.at).ok_or_else(|| self.error(ColumnFault::Truncated))?;
        self.at += 1;
        Ok(byte)
    }

    pub(super) fn unsigned(&mut self) -> Result<u64, ColumnError> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        let mut value = u64::from(first & 0x7f);
        let mut shift = 7;
        loop {
            let byte = self.byte()?;
            // The tenth byte has room for one bit, and a last byte of zero says nothing.
            if (shift == 63 && byte > 1) || byte == 0 {
                return Err(self.error(ColumnFault::Integer));
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
            shift += 7;
        }
    }

    pub(super) fn signed(&mut self) -> Result<i64, ColumnError> {
        self.unsigned().map(unzigzag)
    }

    /// An unsigned integer of at most `max`.
    pub(super) fn at_most(&mut self, what: &'static str, max: usize) -> Result<usize, ColumnError> {
        // What is at most a `usize` is one.
        self.at_most_wide(what, max as u64).map(|value| value as usize)
    }

    /// An unsigned integer of at most `max`, which may be more than a small machine can count.
    pub(super) fn at_most_wide(&mut self, what: &'static str, max: u64) -> Result<u64, ColumnError> {
        match self.unsigned()? {
            found if found > max => Err(self.error(ColumnFault::TooMany { what, found, max })),
            value => Ok(value),
        }
    }

    pub(super) fn text(&mut self, what: &'static str, bytes_max: usize) -> Result<&'a str, ColumnError> {
        let length = self.at_most(what, bytes_max)?;
        let error = self.error(ColumnFault::NotUtf8);
        std::str::from_utf8(self.take(length)?).map_err(|_| error)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn integers_come_back(value: i64, bits in 0_u32..64) {
            let value = value >> bits;
            let mut bytes = Vec::new();
            put_signed(&mut bytes, value);
            let mut cursor = Cursor::new(&bytes);
            prop_assert_eq!(cursor.signed(), Ok(value));
            prop_assert_eq!(cursor.left(), 0);
        }
    }

    #[test]
    fn only_the_shortest_form_is_taken() {
        assert_eq!(Cursor::new(&[0x80, 0x00]).unsigned(), Err(ColumnError { at: 2, fault: ColumnFault::Integer }));
        let eleven = [0xff; 11];
        assert_eq!(Cursor::new(&eleven).unsigned(), Err(ColumnError { at: 10, fault: ColumnFault::Integer }));
        assert_eq!(Cursor::new(&[0xff, 0xff]).unsigned(), Err(ColumnError { at: 2, fault: ColumnFault::Truncated }));
        let most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(Cursor::new(&most).unsigned(), Ok(u64::MAX));
    }
}
