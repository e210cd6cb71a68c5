//! A column of a function's values that another column foretells: a maximum lies a little above the mean, and a mean is a sum of
//! decimals divided by a count.
//!
//! All values are floats, in one column, series by series: decimals ([`floats`]) that may be divided by the integers of a column
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
) -> Result<Vec<Option<Value>>, ColumnError> {
    let divisor = cursor.at_most("columns before", columns.len())?;
    let reference = cursor.at_most("columns before", columns.len())?;
    let of = |number: usize| {
        let column = number.checked_sub(1).and_then(|column| columns.get(column));
        move |row: usize| column.and_then(|column| column.get(row)).and_then(Option::as_ref)
    };
    let beside =
        Beside { divisors: Beside::divisors(rows, of(divisor)), references: Beside::references(rows, of(reference)) };
    let values = decode_decimals(cursor, rows.len(), &beside)?;
    Ok(values.into_iter().map(|value| Some(Value::Float(value))).collect())
}
