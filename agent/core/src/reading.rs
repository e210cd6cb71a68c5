//! Readings: what a driver hands over, and what every later stage computes with.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// The longest name of a series, in bytes.
pub const SERIES_NAME_BYTES_MAX: usize = 255;

/// The number of an input: its place in [`crate::plan::Plan::inputs`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InputId(pub u16);

/// The number of a series in the table that goes with it: the engine's, or a frame's own.
///
/// Dense and from 0, so that state per series is an array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SeriesId(pub u32);

impl SeriesId {
    /// No series: what a reading of a series that was never declared gets. The engine counts and drops it.
    pub const UNKNOWN: Self = Self(u32::MAX);

    /// The place in the table.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What was observed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// A measured number, exact to the bit.
    Float(f64),
    /// A count or an enumeration.
    Int(i64),
    /// A state of two.
    Bool(bool),
    /// A text, such as the name of a state.
    Text(Arc<str>),
}

impl Value {
    /// The value as a number for aggregates and expressions; `None` for bools and text.
    pub fn as_number(&self) -> Option<f64> {
        match *self {
            Self::Float(value) => Some(value),
            Self::Int(value) => Some(value as f64),
            Self::Bool(_) | Self::Text(_) => None,
        }
    }

    /// The text; `None` for anything else.
    pub const fn as_text(&self) -> Option<&Arc<str>> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Whether nothing changed from one to the other: numbers of one type are equal, and a NaN stays a NaN.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a == b || (a.is_nan() && b.is_nan()),
            _ => self == other,
        }
    }
}

/// A borrowed [`Value`]: what expressions compute with, and what aggregates compare.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar<'a> {
    /// See [`Value::Float`].
    Float(f64),
    /// See [`Value::Int`].
    Int(i64),
    /// See [`Value::Bool`].
    Bool(bool),
    /// See [`Value::Text`]; whose, so that a value of it asks for no memory.
    Text(&'a Arc<str>),
}

impl Value {
    /// The value, borrowed.
    pub fn as_scalar(&self) -> Scalar<'_> {
        match self {
            Self::Float(value) => Scalar::Float(*value),
            Self::Int(value) => Scalar::Int(*value),
            Self::Bool(value) => Scalar::Bool(*value),
            Self::Text(value) => Scalar::Text(value),
        }
    }
}

impl Scalar<'_> {
    /// The number; `None` for bools and text.
    pub fn as_number(self) -> Option<f64> {
        match self {
            Self::Float(value) => Some(value),
            Self::Int(value) => Some(value as f64),
            Self::Bool(_) | Self::Text(_) => None,
        }
    }

    /// A total order over all values, so that the least and the greatest of a set do not depend on the order in which it is
    /// seen: bools, then numbers, then text by its bytes. Numbers compare by magnitude; an integer stands before the float that
    /// it equals, −0.0 before 0.0, and integers that round to the same float compare exactly.
    #[inline]
    pub fn total_cmp(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a.total_cmp(&b),
            (a, b) => a.total_cmp_of_any(b),
        }
    }

    /// The same, out of the way of the floats, which most are.
    fn total_cmp_of_any(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => a.total_cmp(&b),
            (Self::Int(a), Self::Int(b)) => a.cmp(&b),
            // `as f64` is monotonic, so this agrees with the exact order of integers wherever it decides. −0.0 stands before
            // the integer 0, and that before 0.0: transitive all the same.
            (Self::Int(a), Self::Float(b)) => (a as f64).total_cmp(&b).then(Ordering::Less),
            (Self::Float(a), Self::Int(b)) => a.total_cmp(&(b as f64)).then(Ordering::Greater),
            (Self::Bool(a), Self::Bool(b)) => a.cmp(&b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            (a, b) => a.rank().cmp(&b.rank()),
        }
    }

    const fn rank(self) -> u8 {
        match self {
            Self::Bool(_) => 0,
            Self::Float(_) | Self::Int(_) => 1,
            Self::Text(_) => 2,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_scalar().fmt(f)
    }
}

impl fmt::Display for Scalar<'_> {
    /// As in a message to a person: the shortest decimal that reads back as the same number, `true`, text without quotes. A number
    /// that a device gave as a float of 32 bits is written as one: 7.02, not 7.019999980926514.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Float(value) if f64::from(*value as f32) == *value => (*value as f32).fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Bool(value) => value.fmt(f),
            Self::Text(value) => f.write_str(value),
        }
    }
}

/// How far a value can be trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quality {
    /// No check objected.
    #[default]
    Good,
    /// A check objected; passed on, flagged.
    Suspect,
    /// Kept out of aggregates.
    Bad,
}

impl Quality {
    /// The word in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Suspect => "suspect",
            Self::Bad => "bad",
        }
    }
}

/// A quality check. The order is that in which they run, but for [`Check::Source`], which the driver ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// NaN or an infinity.
    NotFinite,
    /// The source itself said so (a scale that has not settled, a GPS without a fix).
    Source,
    /// A value of another type than the series has.
    Type,
    /// The source speaks of another unit.
    Unit,
    /// A second reading of the same series and time.
    Duplicate,
    /// A time before the newest of the series.
    Backwards,
    /// A number out of its range.
    Range,
    /// A number that changed faster than it can.
    MaxRate,
    /// A number far from those before it.
    Spike,
    /// A value that did not change for too long.
    StuckAfter,
}

impl Check {
    /// Every check.
    pub const ALL: [Self; 10] = [
        Self::NotFinite,
        Self::Source,
        Self::Type,
        Self::Unit,
        Self::Duplicate,
        Self::Backwards,
        Self::Range,
        Self::MaxRate,
        Self::Spike,
        Self::StuckAfter,
    ];

    /// The name in JSON and in the ledger: that of the key which configures it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotFinite => "not_finite",
            Self::Source => "source",
            Self::Type => "type",
            Self::Unit => "unit",
            Self::Duplicate => "duplicate",
            Self::Backwards => "backwards",
            Self::Range => "range",
            Self::MaxRate => "max_rate",
            Self::Spike => "spike",
            Self::StuckAfter => "stuck_after",
        }
    }

    /// The place in [`Check::ALL`]; in frames it stands with 1 added.
    pub const fn place(self) -> usize {
        self as usize
    }
}

/// How well the time of a reading is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockState {
    /// The time comes from the source, or from a clock that was synchronised.
    #[default]
    Synced,
    /// The time is that of the arrival, and as good as the clock. A driver marks so what it stamps itself; in a record it says that the
    /// clock was not synchronised.
    Unsynced,
}

/// One observation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Which series it belongs to.
    pub series: SeriesId,
    /// When it was observed.
    pub time: Timestamp,
    /// What was observed.
    pub value: Value,
    /// How far the value can be trusted.
    pub quality: Quality,
    /// The check that objected, where one did.
    pub check: Option<Check>,
    /// How well the time is known.
    pub clock: ClockState,
}

impl Reading {
    /// The value as rules take it: `None` where it is bad, or no number.
    pub fn sound_value(&self) -> Option<Value> {
        let is_finite = !matches!(self.value, Value::Float(value) if !value.is_finite());
        (is_finite && self.quality != Quality::Bad).then(|| self.value.clone())
    }
}

/// What is known of a series beside its readings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesInfo {
    /// The path `<input>/<rest>`, at most [`SERIES_NAME_BYTES_MAX`] bytes.
    pub name: Arc<str>,
    /// The unit in UCUM (`Cel`, `kWh`), or what the user wrote.
    pub unit: Option<Arc<str>>,
}

/// One level of a series name, with the characters that may not stand in one replaced by `_`.
///
/// `/ + # { }` and control characters would change what selectors and templates mean. An empty text becomes `_`.
pub fn series_level(text: &str) -> String {
    if text.is_empty() {
        return "_".into();
    }
    text.chars().map(|c| if is_forbidden(c) { '_' } else { c }).collect()
}

/// Whether a text can be a series, or the rest of one: levels that [`series_level`] leaves as they are, at most [`SERIES_NAME_BYTES_MAX`].
pub fn is_series_name(text: &str) -> bool {
    let is_level = |level: &str| !level.is_empty() && !level.chars().any(is_forbidden);
    text.len() <= SERIES_NAME_BYTES_MAX && text.split('/').all(is_level)
}

fn is_forbidden(c: char) -> bool {
    matches!(c, '/' | '+' | '#' | '{' | '}') || c.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_reads_the_number_that_the_device_showed() {
        for (value, text) in [
            (f64::from(7.02_f32), "7.02"),
            (7.02, "7.02"),
            (0.1, "0.1"),
            (230.0, "230"),
            (-1e300, &format!("-1{}", "0".repeat(300))),
        ] {
            assert_eq!(Value::Float(value).to_string(), text);
        }
        assert_eq!(Value::Float(f64::NAN).to_string(), "NaN");
        assert_eq!(Value::Float(f64::INFINITY).to_string(), "inf");
    }

    #[test]
    fn levels_lose_what_selectors_and_templates_would_read() {
        assert_eq!(series_level("a/b+c#d{e}f\n"), "a_b_c_d_e_f_");
        assert_eq!(series_level("Öl 1"), "Öl 1");
        assert_eq!(series_level(""), "_");
        assert!(is_series_name("a/Öl 1"));
        for name in ["", "/a", "a//b", "a/", "a/+/b", "a/\0", &"a".repeat(SERIES_NAME_BYTES_MAX + 1)] {
            assert!(!is_series_name(name), "{name:?}");
        }
    }
}
