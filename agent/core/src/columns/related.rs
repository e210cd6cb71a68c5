//! A column of a function's values that another column foretells: a maximum lies a little above the mean, and a mean is a sum of
//! decimals divided by a count.
//!
//! All values are floats, in one column, series by series: decimals ([`super::floats`]) that may be divided by the integers of a column
//! before, and whose own integers are distances from the values of another.

use super::cursor::{Cursor, put_unsigned};
use super::floats::{Beside, Decimals, decode_decimals};
use super::integers::{self, Shape};
use super::{ColumnError, Effort};
use crate::reading::Value;

/// Appends the values of column `function` in the order of `rows`, beside those of the columns before it that leave the fewest bits.
/// `cell` has the value of a column and a row. `None`, and nothing is written, if not all are decimals or near.
pub(super) fn encode<'a>(
    rows: &[usize],
    function: usize,
    cell: impl Fn(usize, usize) -> Option<&'a Value> + Copy,
    effort: Effort,
    out: &mut Vec<u8>,
) -> Option<()> {
    let float = |row: &usize| if let Some(Value::Float(value)) = cell(function, *row) { Some(*value) } else { None };
    let values: Vec<f64> = rows.iter().map(float).collect::<Option<_>>()?;
    let first = *rows.first()?;
    let columns = |is_wanted: fn(&Value) -> bool| {
        std::iter::once(0).chain((1..=function).filter(move |number| cell(*number - 1, first).is_some_and(is_wanted)))
    };
    let of = |number: usize| move |row: usize| number.checked_sub(1).and_then(|column| cell(column, row));

    let counts = columns(|value| matches!(value, Value::Int(_)));
    let divided = counts.take(2).filter_map(|number| {
        let divisors = Beside::divisors(rows, of(number));
        Decimals::find(&values, &divisors).map(|(cost, decimals)| (cost, number, divisors, decimals))
    });
    let (_, divisor, divisors, decimals) = divided.min_by(|a, b| a.0.total_cmp(&b.0))?;
    let left = columns(|value| matches!(value, Value::Float(_))).map(|number| {
        let beside = Beside { divisors: divisors.clone(), references: Beside::references(rows, of(number)) };
        let left = decimals.distances(&beside);
        (integers::cost(&left), number, left)
    });
    let (_, reference, left) = left.min_by_key(|one| one.0)?;
    put_unsigned(out, divisor as u64);
    put_unsigned(out, reference as u64);
    decimals.write_head(effort, out);
    integers::encode(&left, Shape::Any, effort, out);
    Some(())
}

/// Reads a column of `rows`, beside the columns before it.
pub(super) fn decode(
    cursor: &mut Cursor<'_>,
    rows: &[usize],
    columns: &[Vec<Option<Value>>],
) -> Result<Vec<f64>, ColumnError> {
    let divisor = cursor.at_most("columns before", columns.len())?;
    let reference = cursor.at_most("columns before", columns.len())?;
    let of = |number: usize| {
        let column = number.checked_sub(1).and_then(|column| columns.get(column));
        move |row: usize| column.and_then(|column| column.get(row)).and_then(Option::as_ref)
    };
    let beside =
        Beside { divisors: Beside::divisors(rows, of(divisor)), references: Beside::references(rows, of(reference)) };
    decode_decimals(cursor, rows.len(), &beside)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::columns::cases::{any_value, same_value};

    /// A count, a value, how much more another is, an odd value, and whether that is taken.
    type Row = (i64, i64, i64, Value, bool);

    /// What comes back of the last column, written beside those before it; `None` where it cannot be.
    fn round_trip(columns: &[Vec<Option<Value>>], effort: Effort) -> Option<(usize, Vec<Option<Value>>)> {
        let (last, before) = columns.split_last()?;
        let rows: Vec<usize> = (0..last.len()).rev().collect();
        let cell = |column: usize, row: usize| columns.get(column)?.get(row)?.as_ref();
        let mut bytes = Vec::new();
        encode(&rows, before.len(), cell, effort, &mut bytes)?;
        let mut cursor = Cursor::new(&bytes);
        let values = decode(&mut cursor, &rows, before).unwrap();
        let mut back: Vec<_> = values.into_iter().map(|value| Some(Value::Float(value))).collect();
        assert_eq!(cursor.left(), 0);
        back.reverse();
        Some((bytes.len(), back))
    }

    proptest! {
        #[test]
        fn decimals_and_what_rounding_made_of_them_come_back(
            rows in prop::collection::vec((1_i64..5, -9000_i64..9000, 0_i64..30, any_value(), prop::bool::weighted(0.05)), 1..80),
        ) {
            let column = |value: &dyn Fn(&Row) -> Value| rows.iter().map(|row| Some(value(row))).collect::<Vec<_>>();
            let odd = |row: &Row, value: f64| match (&row.3, row.4) {
                (Value::Float(odd), true) => Value::Float(*odd),
                _ => Value::Float(value),
            };
            let columns = [
                column(&|row| Value::Int(row.0 - 1)),
                column(&|row| odd(row, row.1 as f64 / 100.0)),
                column(&|row| row.3.clone()),
                column(&|row| odd(row, (row.1 + row.2) as f64 / 100.0 / row.0 as f64)),
            ];
            for effort in Effort::ALL {
                if let Some((_, back)) = round_trip(&columns, effort) {
                    let is_same = |pair: (&Option<Value>, &Option<Value>)| pair.0.as_ref().zip(pair.1.as_ref()).is_some_and(|(a, b)| same_value(a, b));
                    prop_assert!(back.iter().zip(&columns[3]).all(is_same), "{:?}\n{:?}", back, columns[3]);
                }
            }
        }
    }

    #[test]
    fn a_mean_is_a_sum_by_a_count_and_a_maximum_a_little_more() {
        let sum = |row: i64| 60 * 2150 + row * row * 7919 % 3001;
        let columns: [Vec<Option<Value>>; 3] = [
            vec![Some(Value::Int(60)); 600],
            (0..600).map(|row| Some(Value::Float(sum(row) as f64 / 100.0 / 60.0))).collect(),
            (0..600).map(|row| Some(Value::Float((sum(row) / 60 + 2 + row % 3) as f64 / 100.0))).collect(),
        ];
        let (bytes, back) = round_trip(&columns[..2], Effort::Quick).unwrap();
        assert!(back == columns[1] && bytes < 1000, "{bytes}");
        let (bytes, back) = round_trip(&columns, Effort::Quick).unwrap();
        assert!(back == columns[2] && bytes < 250, "{bytes}");
    }
}
