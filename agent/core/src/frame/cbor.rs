//! CBOR (RFC 8949) as frames need it: written deterministically (section 4.2.1), read no other way.
//!
//! Lengths are definite, integers and floats have their shortest form, keys ascend. A reader that takes one spelling only needs
//! no limits beyond the length of its input: nothing is reserved before its bytes are there, and nesting is bounded.

use crate::reading::Value;

/// How deep arrays and maps may nest in what is skipped because it is not known.
const DEPTH_MAX: usize = 16;

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const FALSE: u8 = 0xf4;
const TRUE: u8 = 0xf5;
const NULL: u8 = 0xf6;
const HALF: u8 = 0xf9;
const SINGLE: u8 = 0xfa;
const DOUBLE: u8 = 0xfb;

/// Writes items one after the other.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    /// What was written.
    pub(crate) bytes: Vec<u8>,
}

impl Writer {
    fn head(&mut self, major: u8, argument: u64) {
        let major = major << 5;
        match argument {
            0..=23 => self.bytes.push(major | argument as u8),
            24..=0xff => self.bytes.extend([major | 24, argument as u8]),
            0x100..=0xffff => {
                self.bytes.push(major | 25);
                self.bytes.extend((argument as u16).to_be_bytes());
            }
            0x1_0000..=0xffff_ffff => {
                self.bytes.push(major | 26);
                self.bytes.extend((argument as u32).to_be_bytes());
            }
            _ => {
                self.bytes.push(major | 27);
                self.bytes.extend(argument.to_be_bytes());
            }
        }
    }

    pub(crate) fn unsigned(&mut self, value: u64) {
        self.head(UNSIGNED, value);
    }

    pub(crate) fn int(&mut self, value: i64) {
        match u64::try_from(value) {
            Ok(value) => self.head(UNSIGNED, value),
            Err(_) => self.head(NEGATIVE, !value.cast_unsigned()),
        }
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.head(BYTES, bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.head(TEXT, text.len() as u64);
        self.bytes.extend_from_slice(text.as_bytes());
    }

    pub(crate) fn array(&mut self, length: usize) {
        self.head(ARRAY, length as u64);
    }

    pub(crate) fn map(&mut self, length: usize) {
        self.head(MAP, length as u64);
    }

    pub(crate) fn tag(&mut self, tag: u64) {
        self.head(TAG, tag);
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.bytes.push(if value { TRUE } else { FALSE });
    }

    pub(crate) fn null(&mut self) {
        self.bytes.push(NULL);
    }

    /// A float in the shortest form that keeps its bits. A NaN is always written in full, so that no payload is lost.
    pub(crate) fn float(&mut self, value: f64) {
        let single = value as f32;
        if value.is_nan() || f64::from(single).to_bits() != value.to_bits() {
            self.bytes.push(DOUBLE);
            self.bytes.extend(value.to_bits().to_be_bytes());
        } else if let Some(half) = half(single) {
            self.bytes.push(HALF);
            self.bytes.extend(half.to_be_bytes());
        } else {
            self.bytes.push(SINGLE);
            self.bytes.extend(single.to_bits().to_be_bytes());
        }
    }

    /// A value of a series, or null.
    pub(crate) fn value(&mut self, value: Option<&Value>) {
        match value {
            Some(Value::Float(value)) => self.float(*value),
            Some(Value::Int(value)) => self.int(*value),
            Some(Value::Bool(value)) => self.bool(*value),
            Some(Value::Text(value)) => self.text(value),
            None => self.null(),
        }
    }
}

/// The half-precision bits of a float that is not NaN, if they say it all (RFC 8949, appendix D, the other way).
fn half(value: f32) -> Option<u16> {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    let exponent = (bits >> 23 & 0xff) as i32 - 127;
    let mantissa = bits & 0x7f_ffff;
    match exponent {
        -127 if mantissa == 0 => Some(sign),
        128 => Some(sign | 0x7c00),
        -14..=15 if mantissa.trailing_zeros() >= 13 => {
            Some(sign | ((exponent + 15) as u16) << 10 | (mantissa >> 13) as u16)
        }
        // Subnormal halves are multiples of 2^-24.
        -24..=-15 => {
            let whole = mantissa | 0x80_0000;
            let shift = (-1 - exponent) as u32;
            (whole.trailing_zeros() >= shift).then_some(sign | (whole >> shift) as u16)
        }
        _ => None,
    }
}

/// The value of half-precision bits.
fn from_half(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    match exponent {
        0 => sign * mantissa * 2_f64.powi(-24),
        31 if mantissa == 0.0 => sign * f64::INFINITY,
        31 => f64::NAN,
        _ => sign * (1024.0 + mantissa) * 2_f64.powi(exponent - 25),
    }
}

/// Why bytes are not CBOR as it is written here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CborFault {
    /// The bytes end too early.
    #[error("the bytes end within an item")]
    Truncated,
    /// A longer form, an indefinite length, a reserved byte, keys out of order: anything but the deterministic encoding.
    #[error("expected deterministic CBOR (RFC 8949, section 4.2.1)")]
    NotDeterministic,
    /// Another type than expected.
    #[error("expected {0}")]
    Expected(&'static str),
    /// A text is not UTF-8.
    #[error("expected UTF-8 text")]
    NotUtf8,
    /// Items nest deeper than any that could be meant.
    #[error("expected items nested at most {DEPTH_MAX} deep")]
    TooDeep,
    /// More than allowed.
    #[error("expected at most {1} {0}")]
    TooMany(&'static str, usize),
}

/// Reads items one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How far reading has come, in bytes.
    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    pub(crate) const fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn peek(&self) -> Result<u8, CborFault> {
        self.bytes.get(self.at).copied().ok_or(CborFault::Truncated)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], CborFault> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.get(..count)).ok_or(CborFault::Truncated)?;
        self.at += count;
        Ok(taken)
    }

    fn big_endian(&mut self, width: usize) -> Result<u64, CborFault> {
        Ok(self.take(width)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// The major type and the argument of the next item, which is no float and no simple value.
    fn head(&mut self) -> Result<(u8, u64), CborFault> {
        let initial = self.peek()?;
        let major = initial >> 5;
        if major == 7 {
            return Err(CborFault::Expected("an integer, a string, an array, a map or a tag"));
        }
        self.at += 1;
        let (argument, least) = match initial & 0x1f {
            short @ 0..=23 => return Ok((major, u64::from(short))),
            24 => (self.big_endian(1)?, 24),
            25 => (self.big_endian(2)?, 0x100),
            26 => (self.big_endian(4)?, 0x1_0000),
            27 => (self.big_endian(8)?, 0x1_0000_0000),
            _ => return Err(CborFault::NotDeterministic),
        };
        if argument < least {
            return Err(CborFault::NotDeterministic);
        }
        Ok((major, argument))
    }

    fn expect(&mut self, major: u8, what: &'static str) -> Result<u64, CborFault> {
        if self.peek()? >> 5 != major {
            return Err(CborFault::Expected(what));
        }
        Ok(self.head()?.1)
    }

    pub(crate) fn unsigned(&mut self) -> Result<u64, CborFault> {
        self.expect(UNSIGNED, "an unsigned integer")
    }

    pub(crate) fn int(&mut self) -> Result<i64, CborFault> {
        const WHAT: CborFault = CborFault::Expected("an integer of 64 bits");
        match self.peek()? >> 5 {
            UNSIGNED => i64::try_from(self.head()?.1).map_err(|_| WHAT),
            NEGATIVE => i64::try_from(self.head()?.1).map(|value| !value).map_err(|_| WHAT),
            _ => Err(WHAT),
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], CborFault> {
        let length = self.expect(BYTES, "a byte string")?;
        self.take(usize::try_from(length).map_err(|_| CborFault::Truncated)?)
    }

    /// A byte string of at most `max` bytes, refused before its bytes are there.
    pub(crate) fn bytes_at_most(&mut self, max: usize) -> Result<&'a [u8], CborFault> {
        match self.expect(BYTES, "a byte string")? {
            length if length > max as u64 => Err(CborFault::TooMany("bytes", max)),
            length => self.take(length as usize),
        }
    }

    /// A text of at most `max` bytes.
    pub(crate) fn text(&mut self, max: usize) -> Result<&'a str, CborFault> {
        let length = self.expect(TEXT, "a text")?;
        let bytes = self.take(usize::try_from(length).map_err(|_| CborFault::Truncated)?)?;
        if bytes.len() > max {
            return Err(CborFault::TooMany("bytes of text", max));
        }
        std::str::from_utf8(bytes).map_err(|_| CborFault::NotUtf8)
    }

    fn length(&mut self, major: u8, what: &'static str, max: usize) -> Result<usize, CborFault> {
        let length = self.expect(major, what)?;
        // Every item takes at least one byte.
        let length =
            usize::try_from(length).ok().filter(|length| *length <= self.left()).ok_or(CborFault::Truncated)?;
        if length > max { Err(CborFault::TooMany("items", max)) } else { Ok(length) }
    }

    /// The length of an array of at most `max` items.
    pub(crate) fn array(&mut self, max: usize) -> Result<usize, CborFault> {
        self.length(ARRAY, "an array", max)
    }

    /// The number of pairs of a map of at most `max`.
    pub(crate) fn map(&mut self, max: usize) -> Result<usize, CborFault> {
        self.length(MAP, "a map", max)
    }

    pub(crate) fn tag(&mut self) -> Result<u64, CborFault> {
        self.expect(TAG, "a tag")
    }

    pub(crate) fn bool(&mut self) -> Result<bool, CborFault> {
        let byte = self.peek()?;
        if byte != TRUE && byte != FALSE {
            return Err(CborFault::Expected("true or false"));
        }
        self.at += 1;
        Ok(byte == TRUE)
    }

    pub(crate) fn float(&mut self) -> Result<f64, CborFault> {
        let initial = self.peek()?;
        let (width, what) = match initial {
            HALF => (2, CborFault::NotDeterministic),
            SINGLE => (4, CborFault::NotDeterministic),
            DOUBLE => (8, CborFault::NotDeterministic),
            _ => return Err(CborFault::Expected("a float")),
        };
        self.at += 1;
        let bits = self.big_endian(width)?;
        let value = match width {
            2 => from_half(bits as u16),
            4 => f64::from(f32::from_bits(bits as u32)),
            _ => f64::from_bits(bits),
        };
        let mut again = Writer::default();
        again.float(value);
        if again.bytes.len() != width + 1 { Err(what) } else { Ok(value) }
    }

    /// A value of a series, or null; texts of at most `max` bytes.
    pub(crate) fn value(&mut self, max: usize) -> Result<Option<Value>, CborFault> {
        Ok(match self.peek()? {
            NULL => {
                self.at += 1;
                None
            }
            TRUE | FALSE => Some(Value::Bool(self.bool()?)),
            HALF | SINGLE | DOUBLE => Some(Value::Float(self.float()?)),
            other if other >> 5 == TEXT => Some(Value::Text(self.text(max)?.into())),
            _ => Some(Value::Int(self.int()?)),
        })
    }

    /// The bytes of one item of any type, which is well-formed and deterministic.
    pub(crate) fn item(&mut self) -> Result<&'a [u8], CborFault> {
        let start = self.at;
        self.skip()?;
        Ok(self.bytes.get(start..self.at).unwrap_or_default())
    }

    /// Passes over one item of any type, checking that it is well-formed and deterministic.
    pub(crate) fn skip(&mut self) -> Result<(), CborFault> {
        self.skip_within(DEPTH_MAX)
    }

    fn skip_within(&mut self, depth: usize) -> Result<(), CborFault> {
        let depth = depth.checked_sub(1).ok_or(CborFault::TooDeep)?;
        let initial = self.peek()?;
        if initial >> 5 == 7 {
            return match initial {
                HALF | SINGLE | DOUBLE => self.float().map(|_| ()),
                0xf8 => match self.take(2)? {
                    [_, value] if *value >= 32 => Ok(()),
                    _ => Err(CborFault::NotDeterministic),
                },
                0xe0..=0xf7 => self.take(1).map(|_| ()),
                _ => Err(CborFault::NotDeterministic),
            };
        }
        let text = initial >> 5 == TEXT;
        if text {
            return self.text(usize::MAX).map(|_| ());
        }
        let (major, argument) = self.head()?;
        match major {
            BYTES => self.take(usize::try_from(argument).map_err(|_| CborFault::Truncated)?).map(|_| ()),
            ARRAY => (0..argument).try_for_each(|_| self.skip_within(depth)),
            MAP => {
                let mut before: Option<&[u8]> = None;
                for _ in 0..argument {
                    let key_at = self.at;
                    self.skip_within(depth)?;
                    let key = self.bytes.get(key_at..self.at).unwrap_or_default();
                    if before.is_some_and(|before| before >= key) {
                        return Err(CborFault::NotDeterministic);
                    }
                    before = Some(key);
                    self.skip_within(depth)?;
                }
                Ok(())
            }
            TAG => self.skip_within(depth),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn floats_come_back_in_their_shortest_form(bits: u64, single: u32, half: u16) {
            for value in [f64::from_bits(bits), f64::from(f32::from_bits(single)), from_half(half)] {
                let mut writer = Writer::default();
                writer.float(value);
                let mut reader = Reader::new(&writer.bytes);
                prop_assert_eq!(reader.float().map(f64::to_bits), Ok(value.to_bits()));
                prop_assert_eq!(reader.left(), 0);
                if !value.is_nan() {
                    let mut peer = Vec::new();
                    ciborium::into_writer(&value, &mut peer).unwrap();
                    prop_assert_eq!(&writer.bytes, &peer);
                }
            }
        }

        #[test]
        fn integers_and_texts_are_written_as_a_peer_does(unsigned: u64, int: i64, bits in 0_u32..64, text: String) {
            let (unsigned, int) = (unsigned >> bits, int >> bits);
            let mut writer = Writer::default();
            writer.unsigned(unsigned);
            writer.int(int);
            writer.text(&text);
            let mut peer = Vec::new();
            ciborium::into_writer(&unsigned, &mut peer).unwrap();
            ciborium::into_writer(&int, &mut peer).unwrap();
            ciborium::into_writer(&text, &mut peer).unwrap();
            prop_assert_eq!(&writer.bytes, &peer);
            let mut reader = Reader::new(&peer);
            prop_assert_eq!(reader.unsigned(), Ok(unsigned));
            prop_assert_eq!(reader.int(), Ok(int));
            prop_assert_eq!(reader.text(usize::MAX), Ok(&*text));
        }

        #[test]
        fn random_bytes_are_passed_over_or_refused(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while reader.skip().is_ok() {}
            prop_assert!(reader.at() <= bytes.len());
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for (bytes, fault) in [
            (&[0x18, 0x17][..], CborFault::NotDeterministic),
            (&[0x1c], CborFault::NotDeterministic),
            (&[0x5f, 0x41, 0x00, 0xff], CborFault::NotDeterministic),
            (&[0x9f, 0xff], CborFault::NotDeterministic),
            (&[0xff], CborFault::NotDeterministic),
            (&[0xf8, 0x18], CborFault::NotDeterministic),
            (&[0xfb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0], CborFault::NotDeterministic),
            (&[0xa2, 0x01, 0x00, 0x00, 0x00], CborFault::NotDeterministic),
            (&[0xa2, 0x00, 0x00, 0x00, 0x00], CborFault::NotDeterministic),
            (&[0x62, 0xc3, 0x28], CborFault::NotUtf8),
            (&[0x82, 0x00], CborFault::Truncated),
            (&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], CborFault::Truncated),
            (&[0x81; 100], CborFault::TooDeep),
        ] {
            assert_eq!(Reader::new(bytes).skip(), Err(fault), "{bytes:02x?}");
        }
    }

    /// RFC 8949, appendix F: all kinds of what is no CBOR.
    #[test]
    fn what_the_standard_calls_malformed_is_refused() {
        let malformed = "18 19 1a 1b 1901 1a0102 1b01020304050607 38 58 78 98 9a01ff00 b8 d8 f8 f900 fa0000 fb000000 41 61 5affffffff00 \
            5bffffffffffffffff010203 7affffffff00 7b7fffffffffffffff010203 81 818181818181818181 8200 a1 a20102 a100 a2000000 c0 5f4100 \
            7f6100 9f 9f0102 bf bf01020102 819f 9f8000 9f9f9f9f9fffffffff 9f819f819f9fffffff 1c 1d 1e 3c 3d 3e 5c 5d 5e 7c 7d 7e 9c 9d 9e \
            bc bd be dc dd de fc fd fe f800 f801 f818 f81f 5f00ff 5f21ff 5f6100ff 5f80ff 5fa0ff 5fc000ff 5fe0ff 7f4100ff 5f5f4100ffff \
            7f7f6100ffff ff 81ff 8200ff a1ff a1ff00 a100ff a20000ff 9f81ff 9f829f819f9fffffffff bf00ff bf000000ff 1f 3f df";
        for hex in malformed.split_whitespace() {
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
            let fault = Reader::new(&bytes).skip();
            assert!(matches!(fault, Err(CborFault::Truncated | CborFault::NotDeterministic)), "{hex}: {fault:?}");
        }
    }

    /// RFC 8949, appendix A: what a frame could hold is read as the vector says; what has another spelling is refused.
    #[test]
    fn the_vectors_of_the_standard() {
        let data = std::env::var_os("RTLIVE_DATA").map_or_else(
            || concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data").into(),
            std::path::PathBuf::from,
        );
        let path = data.join("cbor/rfc8949_appendix_a_even.json");
        let Ok(text) = std::fs::read_to_string(&path) else {
            println!("SKIPPED: the vectors of RFC 8949: no {}", path.display());
            return;
        };
        let vectors: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        let mut taken = 0;
        for vector in &vectors {
            let hex = vector["hex"].as_str().unwrap();
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
            let mut reader = Reader::new(&bytes);
            let shortest = vector["roundtrip"] == true;
            // NaN is written in full here, and the vector's is short.
            let nan = vector["diagnostic"] == "NaN";
            let indefinite = bytes.iter().any(|byte| matches!(byte, 0x5f | 0x7f | 0x9f | 0xbf));
            if !shortest || nan || indefinite {
                // A byte that would begin an indefinite length may also be a part of something else.
                let refused = reader.skip() == Err(CborFault::NotDeterministic);
                assert!(refused || shortest || nan, "{hex}");
                continue;
            }
            assert_eq!(reader.skip(), Ok(()), "{hex}");
            assert_eq!(reader.left(), 0, "{hex}");
            taken += 1;
            if let (Ok(Some(value)), Some(decoded)) = (Reader::new(&bytes).value(usize::MAX), vector.get("decoded")) {
                let same = match value {
                    Value::Float(value) => decoded.as_f64() == Some(value),
                    Value::Int(value) => decoded.as_i64() == Some(value),
                    Value::Bool(value) => decoded.as_bool() == Some(value),
                    Value::Text(value) => decoded.as_str() == Some(&*value),
                };
                assert!(same, "{hex}: {decoded}");
            }
            for length in 0..bytes.len() {
                assert!(Reader::new(&bytes[..length]).skip().is_err(), "{hex} cut at {length}");
            }
        }
        assert!(taken > 20, "only {taken} of {} vectors were taken", vectors.len());
    }
}
