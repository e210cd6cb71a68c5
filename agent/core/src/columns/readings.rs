//! A block of readings.

use super::cursor::{Cursor, put_unsigned};
use super::groups::Groups;
use super::rows::{Gatherer, Rows};
use super::values::Column;
use super::{ColumnError, ColumnFault, Effort, related, values};
use crate::reading::{Check, ClockState, Quality, Reading, SeriesId, Value};
use crate::time::Timestamp;

/// The values of each series are a column.
const PER_SERIES: u8 = 0;
/// The values of all series are one column, series by series.
const POOLED: u8 = 1;
/// The same, beside other columns ([`related`]).
const RELATED: u8 = 2;
/// Below so many rows a series, pooling is tried: a column costs a few bytes even if it is short.
const POOL_BELOW_ROWS: usize = 16;
/// What a column of decimals takes at least: its type, its coding, an exponent, the number of exceptions, one integer.
const FLOATS_BYTES_MIN: usize = 5;
/// Far more than rounding moves decimals that are evenly spaced, as a part of their size.
const UNEVEN: f64 = 1e-12;

/// Appends readings as a block: the order is kept, and every id, time, value, quality, check and clock state comes back bit for bit.
///
/// The ids of series are written as they are; whoever reads the block needs the table that they index.
pub fn encode_readings(readings: &[&Reading], out: &mut Vec<u8>) {
    let mut gathered = Readings::of(readings.len());
    readings.iter().for_each(|reading| gathered.push(reading.series, reading));
    gathered.encode(|row| readings.get(row).map(|reading| &reading.value), Effort::Bytes, out);
}

/// Readings as columns, gathered in one look at each: that is about as much work as the rest where little is done to be small.
#[derive(Debug)]
pub(crate) struct Readings {
    rows: Gatherer,
    states: Runs,
    /// The floats among the values of the first series, until there is another.
    floats: Vec<f64>,
    count: usize,
}

impl Readings {
    /// So many at most.
    pub(crate) fn of(count: usize) -> Self {
        let floats = Vec::with_capacity(count);
        Self { rows: Gatherer::of(count), states: Runs::default(), floats, count: 0 }
    }

    /// One more, with an id that may be another than its own.
    #[inline(always)]
    pub(crate) fn push(&mut self, series: SeriesId, reading: &Reading) {
        self.rows.push(series.0, reading.time.as_nanos());
        self.states.push(status(reading));
        if let Value::Float(float) = reading.value
            && self.rows.rows().ids.len() == 1
        {
            self.floats.push(float);
        }
        self.count += 1;
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Appends them as a block, with integers as `effort` says. `value` is that of each in turn.
    pub(crate) fn encode<'a>(&self, value: impl Fn(usize) -> Option<&'a Value>, effort: Effort, out: &mut Vec<u8>) {
        put_unsigned(out, self.count as u64);
        let rows = self.rows.rows();
        rows.encode(effort, out);
        if rows.ids.len() == 1 && self.floats.len() == self.count {
            out.push(PER_SERIES);
            values::encode_floats(&self.floats, effort, out);
        } else {
            encode_values(&rows.by_series(), value, effort, out);
        }
        self.states.encode(out);
    }
}

/// Reads a block of at most `readings_max` readings, and nothing after it.
///
/// # Errors
/// The bytes are no such block; the error says where.
pub fn decode_readings(bytes: &[u8], readings_max: usize) -> Result<Vec<Reading>, ColumnError> {
    let mut readings = Vec::new();
    decode_readings_with(bytes, readings_max, |reading| reading, &mut readings)?;
    Ok(readings)
}

/// The same, appended to `out` as what `wrap` makes of each. Returns the ids of the series that occur.
pub(crate) fn decode_readings_with<T>(
    bytes: &[u8],
    readings_max: usize,
    wrap: impl Fn(Reading) -> T,
    out: &mut Vec<T>,
) -> Result<Vec<u32>, ColumnError> {
    let mut cursor = Cursor::new(bytes);
    let count = cursor.at_most("readings", readings_max)?;
    let rows = Rows::decode(&mut cursor, count)?;
    let mut values = decode_values(&mut cursor, &rows.by_series(), count, &[])?;
    let states = decode_runs(&mut cursor, count)?;
    if cursor.left() > 0 {
        return Err(cursor.error(ColumnFault::Trailing(cursor.left())));
    }
    out.reserve(count);
    let mut start = 0;
    for (byte, length) in states {
        let unknown = ColumnFault::Coding { column: "states", found: byte };
        let (quality, check, clock) = from_status(byte).ok_or_else(|| cursor.error(unknown))?;
        let of = start..start + length;
        let keys = rows.places[of.clone()].iter().zip(&rows.times[of.clone()]);
        let reading = |(place, time): (&u32, &i64), value: Value| {
            let (series, time) = (SeriesId(rows.ids[*place as usize]), Timestamp::from_nanos(*time));
            wrap(Reading { series, time, value, quality, check, clock })
        };
        match &mut values {
            Column::Floats(floats) => {
                out.extend(keys.zip(&floats[of]).map(|(key, float)| reading(key, Value::Float(*float))));
            }
            Column::Any(values) => {
                for (key, value) in keys.zip(&mut values[of]) {
                    out.push(reading(key, value.take().ok_or_else(|| cursor.error(ColumnFault::Absent))?));
                }
            }
        }
        start += length;
    }
    Ok(rows.ids)
}

/// Quality in bits 0–1, clock in bit 2, check from bit 3 on. All good is 0.
const fn status(reading: &Reading) -> u8 {
    let quality = match reading.quality {
        Quality::Good => 0,
        Quality::Suspect => 1,
        Quality::Bad => 2,
    };
    let clock = match reading.clock {
        ClockState::Synced => 0,
        ClockState::Unsynced => 1,
    };
    let check = match reading.check {
        None => 0,
        Some(check) => check.place() as u8 + 1,
    };
    quality | clock << 2 | check << 3
}

fn from_status(status: u8) -> Option<(Quality, Option<Check>, ClockState)> {
    let quality = match status & 3 {
        0 => Quality::Good,
        1 => Quality::Suspect,
        2 => Quality::Bad,
        _ => return None,
    };
    let clock = if status & 4 == 0 { ClockState::Synced } else { ClockState::Unsynced };
    let check = match status >> 3 {
        0 => None,
        number => Some(*Check::ALL.get(usize::from(number) - 1)?),
    };
    Some((quality, check, clock))
}

/// Small numbers, one a row, as runs: numbers, and how often each stands.
#[derive(Debug, Default)]
pub(super) struct Runs {
    runs: Vec<(u8, u64)>,
    last: (u8, u64),
}

impl Runs {
    #[inline(always)]
    pub(super) fn push(&mut self, byte: u8) {
        if byte == self.last.0 {
            self.last.1 += 1;
        } else {
            self.begin(byte);
        }
    }

    fn begin(&mut self, byte: u8) {
        if self.last.1 > 0 {
            self.runs.push(self.last);
        }
        self.last = (byte, 1);
    }

    /// Appends them; nothing but a count of none when all are 0.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let last = if self.last.1 > 0 { Some(self.last) } else { None };
        let is_plain = self.runs.is_empty() && self.last.0 == 0;
        let runs = self.runs.iter().copied().chain(last).filter(|_| !is_plain);
        put_unsigned(out, runs.clone().count() as u64);
        for (byte, length) in runs {
            out.push(byte);
            put_unsigned(out, length);
        }
    }
}

/// Reads what [`Runs::encode`] wrote for `count` rows: numbers, and for how many rows each stands.
pub(super) fn decode_runs(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<(u8, usize)>, ColumnError> {
    let many = cursor.at_most("runs of states", count)?;
    if many == 0 {
        return Ok(vec![(0, count)]);
    }
    let (mut runs, mut left) = (Vec::with_capacity(many), count);
    for _ in 0..many {
        let byte = cursor.byte()?;
        let length = cursor.at_most("rows of a state", left)?;
        runs.push((byte, length));
        left -= length;
    }
    if left > 0 {
        return Err(cursor.error(ColumnFault::Order));
    }
    Ok(runs)
}

/// Appends one value (or none) a row, gathered by series.
pub(super) fn encode_values<'a>(
    by_series: &Groups,
    value: impl Fn(usize) -> Option<&'a Value>,
    effort: Effort,
    out: &mut Vec<u8>,
) {
    let column = |rows: &[usize], out: &mut Vec<u8>| match floats_of(rows, &value) {
        Some(floats) => values::encode_floats(&floats, effort, out),
        None => values::encode(&rows.iter().map(|row| value(*row)).collect::<Vec<_>>(), effort, out),
    };
    let mut pooled = Vec::new();
    if by_series.len() > 1 && by_series.all().len() < POOL_BELOW_ROWS * by_series.len() {
        pooled.push(POOLED);
        column(by_series.all(), &mut pooled);
        // A column for each series is not tried where it could not be shorter: an alert waits for the journal.
        if pooled.len() <= by_series.iter().map(|rows| bytes_min(rows, &value, effort)).sum() {
            return out.extend(pooled);
        }
    }
    let mut split = vec![PER_SERIES];
    by_series.iter().for_each(|rows| column(rows, &mut split));
    if !pooled.is_empty() && pooled.len() < split.len() {
        split = pooled;
    }
    out.extend(split);
}

/// The values of rows, if all are floats.
fn floats_of<'a>(rows: &[usize], value: impl Fn(usize) -> Option<&'a Value>) -> Option<Vec<f64>> {
    let mut floats = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(Value::Float(float)) = value(*row) else { return None };
        floats.push(*float);
    }
    Some(floats)
}

/// About what the column of one series takes at least.
fn bytes_min<'a>(rows: &[usize], value: impl Fn(usize) -> Option<&'a Value>, effort: Effort) -> usize {
    let float = |row: usize| if let Some(Value::Float(float)) = value(row) { Some(*float) } else { None };
    if rows.first().and_then(|row| float(*row)).is_none() {
        return 1;
    }
    // A byte for each value but the first, unless they are evenly spaced, or coded by their entropy.
    let is_uneven = |three: &[usize]| match [0, 1, 2].map(|at| float(three[at])) {
        [Some(a), Some(b), Some(c)] => (c - b - (b - a)).abs() > UNEVEN * (a.abs() + b.abs() + c.abs()),
        _ => false,
    };
    let residuals = if effort == Effort::Bytes && rows.windows(3).any(is_uneven) { rows.len() - 1 } else { 0 };
    FLOATS_BYTES_MIN + residuals
}

/// The same for the values of column `function`, of which those before it may say something.
pub(super) fn encode_related<'a>(
    by_series: &Groups,
    function: usize,
    cell: impl Fn(usize, usize) -> Option<&'a Value> + Copy,
    effort: Effort,
    out: &mut Vec<u8>,
) {
    let (mut alone, mut beside) = (Vec::new(), vec![RELATED]);
    encode_values(by_series, |row| cell(function, row), effort, &mut alone);
    let shorter = match related::encode(by_series.all(), function, cell, effort, &mut beside) {
        Some(()) if beside.len() < alone.len() => beside,
        _ => alone,
    };
    out.extend(shorter);
}

/// Reads what [`encode_values`] or [`encode_related`] wrote for `count` rows, after the columns before.
pub(super) fn decode_values(
    cursor: &mut Cursor<'_>,
    by_series: &Groups,
    count: usize,
    before: &[Vec<Option<Value>>],
) -> Result<Column, ColumnError> {
    let layout = cursor.byte()?;
    if layout == PER_SERIES && by_series.len() == 1 {
        return values::decode(cursor, count);
    }
    let mut column = vec![None; count];
    let mut place = |rows: &[usize], values: Column| {
        let mut cell = |row: usize, value| {
            if let Some(cell) = column.get_mut(row) {
                *cell = value;
            }
        };
        match values {
            Column::Floats(floats) => {
                rows.iter().zip(floats).for_each(|(row, float)| cell(*row, Some(Value::Float(float))));
            }
            Column::Any(values) => rows.iter().zip(values).for_each(|(row, value)| cell(*row, value)),
        }
    };
    match layout {
        PER_SERIES => {
            for rows in by_series.iter() {
                place(rows, values::decode(cursor, rows.len())?);
            }
        }
        POOLED => place(by_series.all(), values::decode(cursor, count)?),
        RELATED => place(by_series.all(), Column::Floats(related::decode(cursor, by_series.all(), before)?)),
        found => return Err(cursor.error(ColumnFault::Coding { column: "the layout of values", found })),
    }
    Ok(Column::Any(column))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::columns::cases::{any_reading, same};

    fn encode_with(readings: &[Reading], effort: Effort, out: &mut Vec<u8>) {
        let mut gathered = super::Readings::of(readings.len());
        readings.iter().for_each(|reading| gathered.push(reading.series, reading));
        gathered.encode(|row| readings.get(row).map(|reading| &reading.value), effort, out);
    }

    fn round_trip(readings: &[Reading]) -> usize {
        let [bytes, ..] = Effort::ALL.map(|effort| {
            let mut bytes = Vec::new();
            encode_with(readings, effort, &mut bytes);
            let back = decode_readings(&bytes, readings.len()).unwrap();
            assert!(same(&back, readings), "{effort:?}\n{back:?}\n{readings:?}");
            bytes.len()
        });
        bytes
    }

    proptest! {
        #[test]
        fn readings_come_back(readings in prop::collection::vec(any_reading(), 0..120)) {
            round_trip(&readings);
        }

        #[test]
        fn random_bytes_end_in_rows_or_an_error(bytes: Vec<u8>, max in 0_usize..5000) {
            if let Ok(readings) = decode_readings(&bytes, max) {
                prop_assert!(readings.len() <= max);
            }
        }

        #[test]
        fn altered_blocks_end_in_rows_or_an_error(
            readings in prop::collection::vec(any_reading(), 0..60), at: prop::sample::Index, byte: u8,
            effort in prop::sample::select(Effort::ALL.to_vec()),
        ) {
            let mut bytes = Vec::new();
            encode_with(&readings, effort, &mut bytes);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = decode_readings(&bytes, 1000);
            prop_assert!(decode_readings(&bytes[..at], 1000).is_err() || at == bytes.len());
        }
    }

    fn poll(devices: u32, per_device: u32, rounds: i64, jitter: impl Fn(i64) -> i64) -> Vec<Reading> {
        let mut readings = Vec::new();
        for round in 0..rounds {
            for device in 0..devices {
                let time = Timestamp::from_nanos((round * 1000 + i64::from(device) * 35 + jitter(round)) * 1_000_000);
                for register in 0..per_device {
                    let value = Value::Float(230.0);
                    let series = SeriesId(device * per_device + register);
                    let (quality, check, clock) = (Quality::Good, None, ClockState::Synced);
                    readings.push(Reading { series, time, value, quality, check, clock });
                }
            }
        }
        readings
    }

    #[test]
    fn a_regular_poll_costs_next_to_nothing_beside_its_values() {
        // 4 devices with 7 registers each, 60 rounds: 1,680 readings, whose values are constant.
        let bytes = round_trip(&poll(4, 7, 60, |_| 0));
        assert!(bytes < 28 * 9 + 60, "{bytes}");
        // With jitter a byte for each poll of a device.
        let bytes = round_trip(&poll(4, 7, 60, |round| round * 7 % 5 - 2));
        assert!(bytes < 28 * 9 + 4 * 60 + 90, "{bytes}");
    }
}
