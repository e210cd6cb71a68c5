//! A block of aggregates: like readings, with a length and a revision for each window, and a column for each function.

use super::cursor::{Cursor, put_unsigned};
use super::integers::{self, Shape};
use super::readings::{Runs, decode_runs, decode_values, encode_related};
use super::rows::{Gatherer, Rows};
use super::{ColumnError, ColumnFault, Effort};
use crate::reading::SeriesId;
use crate::record::Aggregate;
use crate::time::Timestamp;

/// An early result.
const NOT_FINAL: u8 = 1;
/// Takes earlier revisions back.
const DELETED: u8 = 2;

/// Appends aggregates of `functions` values each as a block. Values beyond `functions` are not written, missing ones are absent.
pub(crate) fn encode_aggregates(aggregates: &[&Aggregate], functions: usize, effort: Effort, out: &mut Vec<u8>) {
    put_unsigned(out, aggregates.len() as u64);
    put_unsigned(out, functions as u64);
    let (mut rows, mut states) = (Gatherer::of(aggregates.len()), Runs::default());
    for one in aggregates {
        rows.push(one.series.0, one.start.as_nanos());
        states.push(if one.is_final { 0 } else { NOT_FINAL } | if one.deleted { DELETED } else { 0 });
    }
    let rows = rows.rows();
    rows.encode(effort, out);
    let lengths: Vec<i64> =
        aggregates.iter().map(|one| one.end.as_nanos().wrapping_sub(one.start.as_nanos())).collect();
    integers::encode(&lengths, Shape::Any, effort, out);
    let revisions: Vec<i64> = aggregates.iter().map(|aggregate| i64::from(aggregate.revision)).collect();
    integers::encode(&revisions, Shape::Any, effort, out);
    states.encode(out);
    let by_series = rows.by_series();
    let cell = |function: usize, row: usize| aggregates.get(row)?.values.get(function)?.as_ref();
    (0..functions).for_each(|function| encode_related(&by_series, function, cell, effort, out));
}

/// Reads a block of at most `aggregates_max` aggregates of exactly `functions` values each, and nothing after it.
///
/// # Errors
/// The bytes are no such block; the error says where.
pub(crate) fn decode_aggregates(
    bytes: &[u8],
    functions: usize,
    aggregates_max: usize,
) -> Result<Vec<Aggregate>, ColumnError> {
    let mut cursor = Cursor::new(bytes);
    let count = cursor.at_most("aggregates", aggregates_max)?;
    if cursor.at_most("functions", functions)? != functions {
        return Err(cursor.error(ColumnFault::Order));
    }
    let rows = Rows::decode(&mut cursor, count)?;
    let by_series = rows.by_series();
    let lengths = integers::decode(&mut cursor, count)?;
    let revisions = integers::decode(&mut cursor, count)?;
    let runs = decode_runs(&mut cursor, count)?;
    let states = runs.into_iter().flat_map(|(state, length)| std::iter::repeat_n(state, length));
    let mut columns = Vec::with_capacity(functions);
    for _ in 0..functions {
        columns.push(decode_values(&mut cursor, &by_series, count, &columns)?.into_values());
    }
    let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
    if cursor.left() > 0 {
        return Err(cursor.error(ColumnFault::Trailing(cursor.left())));
    }
    let mut aggregates = Vec::with_capacity(count);
    for ((((place, start), length), revision), state) in
        rows.places.iter().zip(rows.times).zip(lengths).zip(revisions).zip(states)
    {
        if state & !(NOT_FINAL | DELETED) != 0 {
            return Err(cursor.error(ColumnFault::Coding { column: "states", found: state }));
        }
        let beyond =
            ColumnFault::TooMany { what: "revisions", found: revision.cast_unsigned(), max: u64::from(u32::MAX) };
        aggregates.push(Aggregate {
            series: SeriesId(rows.ids[*place as usize]),
            start: Timestamp::from_nanos(start),
            end: Timestamp::from_nanos(start.wrapping_add(length)),
            revision: u32::try_from(revision).map_err(|_| cursor.error(beyond))?,
            is_final: state & NOT_FINAL == 0,
            deleted: state & DELETED != 0,
            values: columns.iter_mut().map(|column| column.next().flatten()).collect(),
        });
    }
    Ok(aggregates)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::columns::cases::any_aggregate;

    proptest! {
        #[test]
        fn aggregates_come_back(aggregates in prop::collection::vec(any_aggregate(3), 0..60)) {
            let mut bytes = Vec::new();
            let borrowed: Vec<&Aggregate> = aggregates.iter().collect();
            for effort in Effort::ALL {
                bytes.clear();
                encode_aggregates(&borrowed, 3, effort, &mut bytes);
                prop_assert_eq!(&decode_aggregates(&bytes, 3, aggregates.len()).unwrap(), &aggregates);
            }
        }

        #[test]
        fn random_bytes_end_in_rows_or_an_error(bytes: Vec<u8>, functions in 0_usize..4, max in 0_usize..5000) {
            let _ = decode_aggregates(&bytes, functions, max);
        }
    }
}
