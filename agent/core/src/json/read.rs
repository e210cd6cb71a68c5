//! Readings from JSON lines, as fast as they can be looked at once: borrowed strings, numbers and times read in place.
//!
//! A line is an object with `series`, `time` and `value`; `arrival`, `quality`, `check`, `clock` and `unit` are understood, so that
//! what [`super::write_record`] printed can be read again. Other keys are passed over, whatever they hold.

use std::borrow::Cow;

use crate::reading::{Check, ClockState, Quality, Value};
use crate::time::{TimeError, Timestamp};

/// How deep arrays and objects may nest in what is passed over.
const DEPTH_MAX: usize = 64;

/// What a line observed.
#[derive(Clone, Debug, PartialEq)]
pub enum LineValue<'a> {
    /// A number with a fraction or an exponent, or beyond 64 bits; `null` is NaN.
    Float(f64),
    /// A number without.
    Int(i64),
    /// `true` or `false`.
    Bool(bool),
    /// A string.
    Text(Cow<'a, str>),
}

impl From<LineValue<'_>> for Value {
    fn from(value: LineValue<'_>) -> Self {
        match value {
            LineValue::Float(value) => Self::Float(value),
            LineValue::Int(value) => Self::Int(value),
            LineValue::Bool(value) => Self::Bool(value),
            LineValue::Text(value) => Self::Text(value.into()),
        }
    }
}

/// A reading as a line says it.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadingLine<'a> {
    /// The name of the series.
    pub series: Cow<'a, str>,
    /// When it was observed.
    pub time: Timestamp,
    /// When it arrived, where the line says so.
    pub arrival: Option<Timestamp>,
    /// What was observed.
    pub value: LineValue<'a>,
    /// The unit, where the line says so.
    pub unit: Option<Cow<'a, str>>,
    /// How far the value can be trusted; good unless the line says otherwise.
    pub quality: Quality,
    /// The check that objected, where the line names one.
    pub check: Option<Check>,
    /// How well the time is known; well unless the line says otherwise.
    pub clock: ClockState,
}

/// Why a line is not a reading.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {fault}")]
pub struct LineError {
    /// Where, in bytes from 1.
    pub column: usize,
    /// What is wrong there.
    pub fault: LineFault,
}

/// What is wrong with a line that is not a reading.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineFault {
    /// It is not JSON, or not what is needed there.
    #[error("expected {0}")]
    Expected(&'static str),
    /// A key is missing.
    #[error("expected the key `{0}`")]
    Missing(&'static str),
    /// A time is none.
    #[error("{0}")]
    Time(TimeError),
    /// A word that is not known.
    #[error("expected a known {what}, found {found:?}")]
    Unknown {
        /// The key.
        what: &'static str,
        /// The word.
        found: String,
    },
}

/// Reads a line: one JSON object, with or without a line end.
///
/// # Errors
/// The line is not a reading; the error says where and what was expected.
pub fn parse_reading(line: &[u8]) -> Result<ReadingLine<'_>, LineError> {
    let mut scanner = Scanner { line, at: 0 };
    scanner.reading().map_err(|fault| LineError { column: scanner.at + 1, fault })
}

/// A place in a line.
struct Scanner<'a> {
    line: &'a [u8],
    at: usize,
}

type Scanned<T> = Result<T, LineFault>;

impl<'a> Scanner<'a> {
    fn peek(&self) -> Option<u8> {
        self.line.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Takes `byte` if it comes next, after white space.
    fn found(&mut self, byte: u8) -> bool {
        self.space();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Scanned<()> {
        if self.found(byte) { Ok(()) } else { Err(LineFault::Expected(what)) }
    }

    fn word(&mut self, word: &'static str) -> Scanned<()> {
        let rest = self.line.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word.as_bytes()) {
            return Err(LineFault::Expected("a JSON value"));
        }
        self.at += word.len();
        Ok(())
    }

    fn reading(&mut self) -> Scanned<ReadingLine<'a>> {
        let (mut series, mut time, mut arrival, mut value) = (None, None, None, None);
        let (mut unit, mut quality, mut check, mut clock) = (None, Quality::Good, None, ClockState::Synced);
        self.expect(b'{', "a JSON object such as {\"series\":\"boiler/temperature\",\"time\":…,\"value\":21.5}")?;
        if !self.found(b'}') {
            loop {
                self.space();
                let key = self.string("a key in quotes")?;
                self.expect(b':', "`:` after a key")?;
                self.space();
                match &*key {
                    "series" => series = Some(self.string("the name of a series in quotes")?),
                    "time" => time = Some(self.time()?),
                    "arrival" => arrival = Some(self.time()?),
                    "value" => value = Some(self.value()?),
                    "unit" => unit = Some(self.string("a unit in quotes")?),
                    "quality" => {
                        quality = self.one_of(
                            "quality",
                            &[("good", Quality::Good), ("suspect", Quality::Suspect), ("bad", Quality::Bad)],
                        )?;
                    }
                    "check" => {
                        let checks = Check::ALL.map(|check| (check.name(), check));
                        check = Some(self.one_of("check", &checks)?);
                    }
                    "clock" => {
                        let clocks = [("synced", ClockState::Synced), ("unsynced", ClockState::Unsynced)];
                        clock = self.one_of("clock", &clocks)?;
                    }
                    _ => self.pass(DEPTH_MAX)?,
                }
                if !self.found(b',') {
                    break;
                }
            }
            self.expect(b'}', "`,` or `}` after a value")?;
        }
        self.space();
        if self.at < self.line.len() {
            return Err(LineFault::Expected("the end of the line after the object"));
        }
        Ok(ReadingLine {
            series: series.ok_or(LineFault::Missing("series"))?,
            time: time.ok_or(LineFault::Missing("time"))?,
            arrival,
            value: value.ok_or(LineFault::Missing("value"))?,
            unit,
            quality,
            check,
            clock,
        })
    }

    fn one_of<T: Copy>(&mut self, what: &'static str, all: &[(&str, T)]) -> Scanned<T> {
        let start = self.at;
        let found = self.string("a word in quotes")?;
        match all.iter().find(|(word, _)| *word == found) {
            Some((_, value)) => Ok(*value),
            None => {
                self.at = start;
                Err(LineFault::Unknown { what, found: found.into_owned() })
            }
        }
    }

    /// A string; borrowed unless it has escapes.
    fn string(&mut self, what: &'static str) -> Scanned<Cow<'a, str>> {
        let start = self.at;
        if self.peek() != Some(b'"') {
            return Err(LineFault::Expected(what));
        }
        let rest = self.line.get(start + 1..).unwrap_or_default();
        let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
        if let Some(length) = plain
            && rest.get(length) == Some(&b'"')
        {
            let text = std::str::from_utf8(rest.get(..length).unwrap_or_default());
            let text = text.map_err(|_| LineFault::Expected("UTF-8 text"))?;
            self.at = start + length + 2;
            return Ok(Cow::Borrowed(text));
        }
        // Escapes are left to a parser that knows them all.
        let length = self.escaped_length(rest).ok_or(LineFault::Expected("a string that ends on this line"))?;
        let quoted = self.line.get(start..start + length + 2).unwrap_or_default();
        let text: String = serde_json::from_slice(quoted).map_err(|_| LineFault::Expected("a JSON string"))?;
        self.at = start + length + 2;
        Ok(Cow::Owned(text))
    }

    /// The bytes before the quote that ends a string.
    fn escaped_length(&self, rest: &[u8]) -> Option<usize> {
        let mut escaped = false;
        rest.iter().position(|byte| {
            let ends = *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            ends
        })
    }

    /// The bytes of a number.
    fn number(&mut self) -> &'a [u8] {
        let rest = self.line.get(self.at..).unwrap_or_default();
        let end = rest.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
        rest.get(..end.unwrap_or(rest.len())).unwrap_or_default()
    }

    fn value(&mut self) -> Scanned<LineValue<'a>> {
        match self.peek() {
            Some(b'"') => self.string("a string").map(LineValue::Text),
            Some(b't') => self.word("true").map(|()| LineValue::Bool(true)),
            Some(b'f') => self.word("false").map(|()| LineValue::Bool(false)),
            Some(b'n') => self.word("null").map(|()| LineValue::Float(f64::NAN)),
            Some(b'-' | b'0'..=b'9') => {
                let digits = self.number();
                let value = read_number(digits).ok_or(LineFault::Expected("a JSON number"))?;
                self.at += digits.len();
                Ok(value)
            }
            _ => Err(LineFault::Expected("a number, true, false, a string or null")),
        }
    }

    fn time(&mut self) -> Scanned<Timestamp> {
        const WHAT: &str = "a time: RFC 3339 in quotes, or integer milliseconds since 1970";
        match self.peek() {
            Some(b'"') => {
                let start = self.at;
                let text = self.string(WHAT)?;
                let time = read_time(text.as_bytes()).map_or_else(|| text.parse(), Ok);
                time.map_err(|error| {
                    self.at = start;
                    LineFault::Time(error)
                })
            }
            Some(b'-' | b'0'..=b'9') => {
                let digits = self.number();
                let Some(LineValue::Int(millis)) = read_number(digits) else { return Err(LineFault::Expected(WHAT)) };
                let out_of_range = || LineFault::Time(TimeError::OutOfRange(format!("{millis} ms")));
                let time = Timestamp::from_millis(millis).ok_or_else(out_of_range)?;
                self.at += digits.len();
                Ok(time)
            }
            _ => Err(LineFault::Expected(WHAT)),
        }
    }

    /// Passes over a value of any kind.
    fn pass(&mut self, depth: usize) -> Scanned<()> {
        let depth = depth.checked_sub(1).ok_or(LineFault::Expected("values nested less deeply"))?;
        match self.peek() {
            Some(b'{') => {
                self.at += 1;
                if self.found(b'}') {
                    return Ok(());
                }
                loop {
                    self.space();
                    self.string("a key in quotes")?;
                    self.expect(b':', "`:` after a key")?;
                    self.space();
                    self.pass(depth)?;
                    if !self.found(b',') {
                        return self.expect(b'}', "`,` or `}` after a value");
                    }
                }
            }
            Some(b'[') => {
                self.at += 1;
                if self.found(b']') {
                    return Ok(());
                }
                loop {
                    self.space();
                    self.pass(depth)?;
                    if !self.found(b',') {
                        return self.expect(b']', "`,` or `]` after a value");
                    }
                }
            }
            _ => self.value().map(|_| ()),
        }
    }
}

/// A number in the grammar of JSON (RFC 8259, section 6).
fn read_number(digits: &[u8]) -> Option<LineValue<'static>> {
    let unsigned = digits.strip_prefix(b"-").unwrap_or(digits);
    let whole = unsigned.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(unsigned.len());
    let leading_zero = whole > 1 && unsigned.first() == Some(&b'0');
    if whole == 0 || leading_zero {
        return None;
    }
    if whole == unsigned.len() && whole <= 18 {
        let magnitude = unsigned.iter().fold(0_i64, |value, digit| value * 10 + i64::from(digit - b'0'));
        return Some(match (digits.first(), magnitude) {
            // An integer has no sign of its own for zero.
            (Some(b'-'), 0) => LineValue::Float(-0.0),
            (Some(b'-'), magnitude) => LineValue::Int(-magnitude),
            _ => LineValue::Int(magnitude),
        });
    }
    let rest = unsigned.get(whole..)?;
    let fraction = rest.strip_prefix(b".");
    if let Some(fraction) = fraction
        && !fraction.first().is_some_and(u8::is_ascii_digit)
    {
        return None;
    }
    let text = std::str::from_utf8(digits).ok()?;
    if rest.is_empty()
        && let Ok(value) = text.parse()
    {
        return Some(LineValue::Int(value));
    }
    // What follows a fraction's digits or an `e` is judged by the standard parser, which takes no more than JSON does from here on
    // but for a bare exponent, which it refuses too.
    text.parse().ok().map(LineValue::Float)
}

/// RFC 3339 in UTC as most sources write it, `2026-01-01T00:00:00.25Z`; `None` for all else, which is left to the full parser.
fn read_time(text: &[u8]) -> Option<Timestamp> {
    let digits = |range: std::ops::Range<usize>| {
        let mut value = 0_i64;
        for byte in text.get(range)? {
            if !byte.is_ascii_digit() {
                return None;
            }
            value = value * 10 + i64::from(byte - b'0');
        }
        Some(value)
    };
    let fixed = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if text.last() != Some(&b'Z') || fixed.iter().any(|(at, byte)| text.get(*at) != Some(byte)) {
        return None;
    }
    let (year, month, day) = (digits(0..4)?, digits(5..7)?, digits(8..10)?);
    let (hour, minute, second) = (digits(11..13)?, digits(14..16)?, digits(17..19)?);
    let nanos = match text.len() {
        20 => 0,
        length @ 22..=30 if text.get(19) == Some(&b'.') => {
            let places = length - 21;
            digits(20..length - 1)? * 10_i64.pow(9 - places as u32)
        }
        _ => return None,
    };
    // Days that not every month has, leap seconds and the ends of the range are left to the full parser.
    if !(1700..2262).contains(&year)
        || !(1..=12).contains(&month)
        || !(1..=28).contains(&day)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Some(Timestamp::from_nanos(seconds * 1_000_000_000 + nanos))
}

/// Days from 1970-01-01 to a date of the Gregorian calendar: years are taken to begin in March, so that the leap day is the last
/// (`days_from_civil` in H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
const fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::columns::cases::any_reading;
    use crate::json::{Origin, write_record};
    use crate::reading::{Reading, SeriesId, SeriesInfo};
    use crate::record::Record;

    proptest! {
        #[test]
        fn what_is_written_is_read_again(reading in any_reading(), name in "[a-z\"\\\\äß]{1,8}") {
            let origin = Origin { agent: "gw", epoch: "9f", stream: "raw", class: "personal", historical: true };
            let reading = Reading { series: SeriesId(0), ..reading };
            let series = [SeriesInfo { name: name.as_str().into(), unit: Some("Cel".into()) }];
            let mut line = Vec::new();
            write_record(&mut line, &origin, 1, &Record::Reading(reading.clone()), &series, &[]);
            let read = parse_reading(&line).unwrap();
            prop_assert_eq!((&*read.series, read.time), (&*name, reading.time));
            prop_assert_eq!((read.quality, read.check, read.clock), (reading.quality, reading.check, reading.clock));
            match (Value::from(read.value), &reading.value) {
                (Value::Float(read), Value::Float(value)) if !value.is_finite() => prop_assert!(read.is_nan()),
                (Value::Float(read), Value::Float(value)) => prop_assert_eq!(read.to_bits(), value.to_bits()),
                (read, value) => prop_assert_eq!(&read, value),
            }
        }

        #[test]
        fn times_agree_with_the_full_parser(nanos: i64, places in 0_u32..=9) {
            let time = Timestamp::from_nanos(nanos - nanos % 10_i64.pow(9 - places));
            let text = time.to_string();
            prop_assert!(read_time(text.as_bytes()).is_none_or(|read| read == time), "{text}");
        }

        #[test]
        fn numbers_agree_with_serde(text in "-?[0-9]{0,3}(\\.[0-9]{0,3})?([eE][+-]?[0-9]{0,2})?") {
            let ours = read_number(text.as_bytes()).map(|value| match value {
                LineValue::Int(value) => value as f64,
                LineValue::Float(value) => value,
                _ => unreachable!(),
            });
            prop_assert_eq!(ours, serde_json::from_str::<f64>(&text).ok(), "{}", text);
        }

        #[test]
        fn random_bytes_are_readings_or_errors(bytes: Vec<u8>, text in "[{}\\[\\]\":,a-e0-9.\\\\]{0,40}") {
            let _ = parse_reading(&bytes);
            let _ = parse_reading(text.as_bytes());
        }
    }

    #[test]
    fn every_form_of_time() {
        for (time, nanos) in [
            ("\"2026-01-01T00:00:00.250Z\"", 1_767_225_600_250_000_000),
            ("\"2026-01-01T01:00:00.25+01:00\"", 1_767_225_600_250_000_000),
            ("\"2024-02-29T00:00:00Z\"", 1_709_164_800_000_000_000),
            ("1767225600250", 1_767_225_600_250_000_000),
            ("-1", -1_000_000),
        ] {
            let line = format!("{{\"series\":\"a/b\",\"time\":{time},\"value\":1,\"arrival\":{time}}}\r\n");
            let read = parse_reading(line.as_bytes()).unwrap();
            assert_eq!((read.time.as_nanos(), read.arrival), (nanos, Some(read.time)), "{time}");
        }
    }

    #[test]
    fn errors_say_where_and_what() {
        for (line, message) in [
            (
                "",
                "column 1: expected a JSON object such as {\"series\":\"boiler/temperature\",\"time\":…,\"value\":21.5}",
            ),
            ("{\"series\":1}", "column 11: expected the name of a series in quotes"),
            ("{\"series\":\"a\",\"value\":1}", "column 25: expected the key `time`"),
            ("{\"time\":1,\"value\":01}", "column 19: expected a JSON number"),
            ("{\"time\":1.5}", "column 9: expected a time: RFC 3339 in quotes, or integer milliseconds since 1970"),
            (
                "{\"time\":\"noon\"}",
                "column 9: expected an RFC 3339 time such as 2026-01-01T00:00:00.25Z, found \"noon\"",
            ),
            ("{\"quality\":\"fine\"}", "column 12: expected a known quality, found \"fine\""),
            ("{} {}", "column 4: expected the end of the line after the object"),
            ("{\"x\":[1,{\"y\":nul}]}", "column 14: expected a JSON value"),
        ] {
            assert_eq!(parse_reading(line.as_bytes()).unwrap_err().to_string(), message, "{line}");
        }
    }
}
