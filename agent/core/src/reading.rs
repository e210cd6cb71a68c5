//! Readings: what a driver hands over, and what every later stage computes with.

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

/// A quality check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// NaN or an infinity.
    NotFinite,
    /// The source itself said so (a scale that has not settled, a GPS without a fix).
    Source,
}

impl Check {
    /// The name in JSON and in the ledger.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotFinite => "not_finite",
            Self::Source => "source",
        }
    }
}

/// How well the time of a reading is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockState {
    /// The time comes from the source, or from a clock that was synchronised.
    #[default]
    Synced,
    /// The time comes from a clock that was not.
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
    let forbidden = |c: char| matches!(c, '/' | '+' | '#' | '{' | '}') || c.is_control();
    text.chars().map(|c| if forbidden(c) { '_' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_lose_what_selectors_and_templates_would_read() {
        assert_eq!(series_level("a/b+c#d{e}f\n"), "a_b_c_d_e_f_");
        assert_eq!(series_level("Öl 1"), "Öl 1");
        assert_eq!(series_level(""), "_");
    }
}
