//! A column of values of any type: one byte says which, where all are of one type; runs say which is where, otherwise.
//!
//! Bools are integers of 0 and 1; texts are a dictionary and places in it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::cursor::{Cursor, put_text, put_unsigned};
use super::integers::{self, Shape};
use super::{ColumnError, ColumnFault, Effort, TEXT_BYTES_MAX, floats};
use crate::reading::Value;

/// All values are floats.
const FLOAT: u8 = 0;
/// All values are integers.
const INT: u8 = 1;
/// All values are bools.
const BOOL: u8 = 2;
/// All values are texts.
const TEXT: u8 = 3;
/// No row has a value.
const ABSENT: u8 = 4;
/// Runs of the types above, then a column of each type that occurs, in the order of their numbers.
const MIXED: u8 = 5;

/// Values of one type or of several, as they were read.
#[derive(Clone, Debug)]
pub(super) enum Column {
    /// Floats, one for each row: by far the most.
    Floats(Vec<f64>),
    /// Anything, or nothing.
    Any(Vec<Option<Value>>),
}

impl Column {
    /// One value a row.
    pub(super) fn into_values(self) -> Vec<Option<Value>> {
        match self {
            Self::Floats(floats) => floats.into_iter().map(|value| Some(Value::Float(value))).collect(),
            Self::Any(values) => values,
        }
    }
}

const fn kind(value: Option<&Value>) -> u8 {
    match value {
        Some(Value::Float(_)) => FLOAT,
        Some(Value::Int(_)) => INT,
        Some(Value::Bool(_)) => BOOL,
        Some(Value::Text(_)) => TEXT,
        None => ABSENT,
    }
}

/// Appends a column; the number of values is not written, the reader knows it.
pub(super) fn encode(values: &[Option<&Value>], effort: Effort, out: &mut Vec<u8>) {
    let Some(&first) = values.first() else { return };
    let first = kind(first);
    let mut same = true;
    for value in values {
        same &= kind(*value) == first;
    }
    if same {
        out.push(first);
        return encode_kind(values, first, effort, out);
    }
    out.push(MIXED);
    let runs: Vec<&[Option<&Value>]> = values.chunk_by(|a, b| kind(*a) == kind(*b)).collect();
    put_unsigned(out, runs.len() as u64);
    for run in runs {
        out.push(run.first().map_or(ABSENT, |value| kind(*value)));
        put_unsigned(out, run.len() as u64);
    }
    for one in [FLOAT, INT, BOOL, TEXT] {
        encode_kind(values, one, effort, out);
    }
}

/// The same for floats alone.
pub(super) fn encode_floats(values: &[f64], effort: Effort, out: &mut Vec<u8>) {
    if !values.is_empty() {
        out.push(FLOAT);
        floats::encode(values, effort, out);
    }
}

/// The column of the values of one type among `values`; nothing if there are none.
fn encode_kind<'a>(values: &[Option<&'a Value>], one: u8, effort: Effort, out: &mut Vec<u8>) {
    match one {
        FLOAT => {
            let float = |value: &Value| if let Value::Float(value) = value { Some(*value) } else { None };
            floats::encode(&picked(values, float), effort, out);
        }
        INT => {
            let int = |value: &Value| if let Value::Int(value) = value { Some(*value) } else { None };
            integers::encode(&picked(values, int), Shape::Any, effort, out);
        }
        BOOL => {
            let bool = |value: &Value| if let Value::Bool(value) = value { Some(i64::from(*value)) } else { None };
            integers::encode(&picked(values, bool), Shape::Any, effort, out);
        }
        TEXT => {
            let text = |value: &'a Value| if let Value::Text(value) = value { Some(&**value) } else { None };
            encode_texts(&picked(values, text), effort, out);
        }
        _ => {}
    }
}

/// Those of the values that are of a type.
fn picked<'a, T>(values: &[Option<&'a Value>], of_type: impl Fn(&'a Value) -> Option<T>) -> Vec<T> {
    let mut picked = Vec::with_capacity(values.len());
    for value in values.iter().flatten() {
        if let Some(value) = of_type(value) {
            picked.push(value);
        }
    }
    picked
}

fn decode_bools(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<bool>, ColumnError> {
    let values = integers::decode(cursor, count)?;
    let flag = |value: i64| match value {
        0 => Ok(false),
        1 => Ok(true),
        found => Err(cursor.error(ColumnFault::Coding { column: "bools", found: found as u8 })),
    };
    values.into_iter().map(flag).collect()
}

fn encode_texts(values: &[&str], effort: Effort, out: &mut Vec<u8>) {
    if values.is_empty() {
        return;
    }
    let mut places = BTreeMap::new();
    let mut dictionary = Vec::new();
    let mut column = Vec::with_capacity(values.len());
    for &text in values {
        let place = *places.entry(text).or_insert_with(|| {
            dictionary.push(text);
            dictionary.len() as i64 - 1
        });
        column.push(place);
    }
    put_unsigned(out, dictionary.len() as u64);
    dictionary.into_iter().for_each(|text| put_text(out, text));
    integers::encode(&column, Shape::Any, effort, out);
}

fn decode_texts(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<Arc<str>>, ColumnError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut dictionary: Vec<Arc<str>> = Vec::new();
    for _ in 0..cursor.at_most("texts", count)? {
        dictionary.push(cursor.text("bytes of a text", TEXT_BYTES_MAX)?.into());
    }
    let places = integers::decode(cursor, count)?;
    let max = dictionary.len() as u64;
    let text = |place: i64| {
        let found = usize::try_from(place).ok().and_then(|place| dictionary.get(place)).cloned();
        found.ok_or_else(|| cursor.error(ColumnFault::TooMany { what: "texts", found: place.cast_unsigned(), max }))
    };
    places.into_iter().map(text).collect()
}

/// Reads a column of `count` values. The caller has bounded `count`.
pub(super) fn decode(cursor: &mut Cursor<'_>, count: usize) -> Result<Column, ColumnError> {
    if count == 0 {
        return Ok(Column::Any(Vec::new()));
    }
    let values = match cursor.byte()? {
        FLOAT => return Ok(Column::Floats(floats::decode(cursor, count)?)),
        INT => integers::decode(cursor, count)?.into_iter().map(|value| Some(Value::Int(value))).collect(),
        BOOL => decode_bools(cursor, count)?.into_iter().map(|value| Some(Value::Bool(value))).collect(),
        TEXT => decode_texts(cursor, count)?.into_iter().map(|value| Some(Value::Text(value))).collect(),
        ABSENT => vec![None; count],
        MIXED => decode_mixed(cursor, count)?,
        found => return Err(cursor.error(ColumnFault::Coding { column: "values", found })),
    };
    Ok(Column::Any(values))
}

fn decode_mixed(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<Option<Value>>, ColumnError> {
    let mut kinds = Vec::with_capacity(count);
    for _ in 0..cursor.at_most("runs of types", count)? {
        let kind = cursor.byte()?;
        let run = cursor.at_most("values of a type", count - kinds.len())?;
        if kind > ABSENT {
            return Err(cursor.error(ColumnFault::Coding { column: "types", found: kind }));
        }
        kinds.resize(kinds.len() + run, kind);
    }
    if kinds.len() != count {
        return Err(cursor.error(ColumnFault::Order));
    }
    let counted = |kind: u8| kinds.iter().filter(|found| **found == kind).count();
    let mut floats = floats::decode(cursor, counted(FLOAT))?.into_iter();
    let mut ints = integers::decode(cursor, counted(INT))?.into_iter();
    let mut bools = decode_bools(cursor, counted(BOOL))?.into_iter();
    let mut texts = decode_texts(cursor, counted(TEXT))?.into_iter();
    let value = |kind: u8| match kind {
        FLOAT => floats.next().map(Value::Float),
        INT => ints.next().map(Value::Int),
        BOOL => bools.next().map(Value::Bool),
        TEXT => texts.next().map(Value::Text),
        _ => None,
    };
    Ok(kinds.iter().copied().map(value).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_value() -> impl Strategy<Value = Option<Value>> {
        prop_oneof![
            Just(None),
            any::<f64>().prop_map(|value| Some(Value::Float(value))),
            any::<i64>().prop_map(|value| Some(Value::Int(value))),
            any::<bool>().prop_map(|value| Some(Value::Bool(value))),
            "[a-zä]{0,3}".prop_map(|value| Some(Value::Text(value.into()))),
        ]
    }

    fn round_trip(values: &[Option<Value>]) -> usize {
        let borrowed: Vec<Option<&Value>> = values.iter().map(Option::as_ref).collect();
        let [bytes, ..] = Effort::ALL.map(|effort| {
            let mut bytes = Vec::new();
            encode(&borrowed, effort, &mut bytes);
            let mut cursor = Cursor::new(&bytes);
            assert_eq!(decode(&mut cursor, values.len()).unwrap().into_values(), values, "{effort:?}");
            assert_eq!(cursor.left(), 0);
            bytes.len()
        });
        bytes
    }

    proptest! {
        #[test]
        fn mixed_values_come_back(values in prop::collection::vec(any_value(), 0..100)) {
            round_trip(&values);
        }

        #[test]
        fn bools_come_back(bools in prop::collection::vec(prop::bool::weighted(0.05), 0..300), flip: bool) {
            round_trip(&bools.into_iter().map(|value| Some(Value::Bool(value != flip))).collect::<Vec<_>>());
        }

        #[test]
        fn texts_come_back(texts in prop::collection::vec("[a-cü]{0,2}", 0..100)) {
            round_trip(&texts.into_iter().map(|text| Some(Value::Text(text.into()))).collect::<Vec<_>>());
        }
    }

    #[test]
    fn constants_cost_a_few_bytes() {
        for (value, bytes) in [
            (Some(Value::Float(21.5)), 8),
            (Some(Value::Int(3)), 4),
            (Some(Value::Bool(true)), 5),
            (Some(Value::Text("open".into())), 10),
            (None, 1),
        ] {
            assert!(round_trip(&vec![value.clone(); 1000]) <= bytes, "{value:?}");
        }
    }
}
