//! A column of integers: what is left after the obvious is taken away.
//!
//! All arithmetic is modulo 2^64, so that every column of 64-bit integers comes back exactly, whatever it holds. With `v[0]` the
//! first value and `unit` the greatest common divisor of all differences to it, `k[i] = (v[i] − v[0]) / unit`. What is written of
//! `k` is chosen by the sum of the bit lengths of the residuals, which is what an entropy coder behind this pays for.

use super::cursor::{Cursor, put_signed, put_unsigned, zigzag};
use super::{ColumnError, ColumnFault};

/// `v[i] = v[0] + i × step`, and nothing else: constants, and clocks that never waver.
const LINEAR: u8 = 0;
/// The residuals are `k[i]`.
const PLAIN: u8 = 1;
/// The residuals are `k[i] − k[i−1]`.
const DELTA: u8 = 2;
/// The residuals are the differences of these.
const DELTA_OF_DELTA: u8 = 3;
/// The residuals are distances from an ideal grid, of which places may be skipped.
const GRID: u8 = 4;
/// Set beside one of the above where `unit` is not 1 and follows.
const HAS_UNIT: u8 = 8;

/// The binary places of a grid's step: at 2^16 places a step that is no integer drifts by less than half a unit.
const STEP_BITS: u32 = 16;
/// The highest place on a grid. Far beyond any frame, and low enough that place × step never overflows 128 bits.
const GRID_PLACE_MAX: u64 = 1 << 40;

/// Whether a grid is worth a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Any integers.
    Any,
    /// Mostly rising by about the same: times.
    Rising,
}

/// The greatest common divisor of the distances of all values to the first; 0 when all are equal.
pub(super) fn common_unit(values: &[i64]) -> u64 {
    let Some(&first) = values.first() else { return 0 };
    let mut unit = 0;
    for &value in values {
        let distance = value.wrapping_sub(first).unsigned_abs();
        // One division in the usual case, where the unit is settled.
        if unit == 1 {
            break;
        }
        if unit == 0 || !distance.is_multiple_of(unit) {
            unit = gcd(unit, distance);
        }
    }
    unit
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Appends a column; the number of values is not written, the reader knows it. A single value needs no coding.
pub(super) fn encode(values: &[i64], shape: Shape, out: &mut Vec<u8>) {
    let [first, rest @ ..] = values else { return };
    if rest.is_empty() {
        return put_signed(out, *first);
    }
    let step = rest.first().map_or(0, |second| second.wrapping_sub(*first));
    if values.windows(2).all(|pair| matches!(pair, [a, b] if b.wrapping_sub(*a) == step)) {
        out.push(LINEAR);
        put_signed(out, *first);
        put_signed(out, step);
        return;
    }
    // A unit of 2^63 is no positive 64-bit integer; such a column gains nothing from it.
    let unit = i64::try_from(common_unit(values)).unwrap_or(1).max(1);
    let scaled: Vec<i64> = values.iter().map(|value| value.wrapping_sub(*first) / unit).collect();
    let (plain, delta, second) = costs(&scaled);
    let grid = (shape == Shape::Rising).then(|| Grid::fit(&scaled)).flatten();
    let best = plain.min(delta).min(second);
    let grid = grid.filter(|grid| grid.cost < best);
    let coding = match () {
        () if grid.is_some() => GRID,
        () if best == delta => DELTA,
        () if best == plain => PLAIN,
        () => DELTA_OF_DELTA,
    };
    out.push(coding | if unit > 1 { HAS_UNIT } else { 0 });
    put_signed(out, *first);
    if unit > 1 {
        put_unsigned(out, unit.cast_unsigned());
    }
    if let Some(grid) = grid {
        return grid.write(&scaled, out);
    }
    let (mut before, mut step) = (0_i64, 0_i64);
    for &value in scaled.get(1..).unwrap_or_default() {
        let delta = value.wrapping_sub(before);
        put_signed(
            out,
            match coding {
                PLAIN => value,
                DELTA => delta,
                _ => delta.wrapping_sub(step),
            },
        );
        (before, step) = (value, delta);
    }
}

fn bits(residual: i64) -> u64 {
    u64::from(64 - zigzag(residual).leading_zeros())
}

/// The bits of the residuals of `PLAIN`, `DELTA` and `DELTA_OF_DELTA`.
fn costs(scaled: &[i64]) -> (u64, u64, u64) {
    let (mut plain, mut delta, mut second) = (0, 0, 0);
    let (mut before, mut step) = (0_i64, 0_i64);
    for &value in scaled.get(1..).unwrap_or_default() {
        let difference = value.wrapping_sub(before);
        plain += bits(value);
        delta += bits(difference);
        second += bits(difference.wrapping_sub(step));
        (before, step) = (value, difference);
    }
    (plain, delta, second)
}

/// An ideal grid: place `p` lies at `phase + floor(p × step / 2^16)`. Each value takes the place after its predecessor's, or one
/// further on where places are skipped.
#[derive(Clone, Debug)]
struct Grid {
    step: u64,
    phase: i64,
    /// Index of a value, and how many places lie unused before it.
    skips: Vec<(usize, u64)>,
    cost: u64,
}

impl Grid {
    fn fit(scaled: &[i64]) -> Option<Self> {
        let mut deltas: Vec<i64> = scaled.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
        let middle = deltas.len() / 2;
        let median = (*deltas.select_nth_unstable(middle).1).cast_unsigned();
        if median == 0 || median >= 1 << (63 - STEP_BITS) {
            return None;
        }
        let mut skips = Vec::new();
        let mut place = 0_u64;
        for (index, pair) in scaled.windows(2).enumerate() {
            let distance = u64::try_from(pair[1].wrapping_sub(pair[0])).unwrap_or(0);
            let steps = (distance.saturating_add(median / 2) / median).max(1);
            if steps > 1 {
                skips.push((index + 1, steps - 1));
            }
            place = place.checked_add(steps).filter(|place| *place <= GRID_PLACE_MAX)?;
        }
        let span = u128::try_from(*scaled.last()?).ok()?;
        let fitted = ((span << STEP_BITS) + u128::from(place / 2)) / u128::from(place);
        let steps = [Some(median << STEP_BITS), u64::try_from(fitted).ok()];
        let grids = steps.into_iter().flatten().map(|step| Self { step, phase: 0, skips: skips.clone(), cost: 0 });
        grids.map(|grid| grid.settled(scaled)).min_by_key(|grid| grid.cost)
    }

    /// With the phase that lies in the middle of the values, and the cost.
    fn settled(mut self, scaled: &[i64]) -> Self {
        let mut residuals: Vec<i64> = self.residuals(scaled).collect();
        let middle = residuals.len() / 2;
        if middle > 0 {
            self.phase = *residuals.select_nth_unstable(middle).1;
        }
        // A skip is two integers of a byte or more.
        self.cost = self.residuals(scaled).map(bits).sum::<u64>() + 20 * self.skips.len() as u64 + 16;
        self
    }

    fn residuals<'a>(&'a self, scaled: &'a [i64]) -> impl Iterator<Item = i64> + 'a {
        let mut skips = self.skips.iter().peekable();
        let mut place = 0;
        scaled.iter().enumerate().skip(1).map(move |(index, value)| {
            place += 1 + skips.next_if(|skip| skip.0 == index).map_or(0, |skip| skip.1);
            value.wrapping_sub(self.phase.wrapping_add(position(place, self.step)))
        })
    }

    fn write(&self, scaled: &[i64], out: &mut Vec<u8>) {
        put_unsigned(out, self.step);
        put_signed(out, self.phase);
        put_unsigned(out, self.skips.len() as u64);
        let mut before = 0;
        for &(index, places) in &self.skips {
            put_unsigned(out, (index - before) as u64);
            put_unsigned(out, places);
            before = index;
        }
        self.residuals(scaled).for_each(|residual| put_signed(out, residual));
    }
}

/// Where a place of a grid lies, modulo 2^64.
fn position(place: u64, step: u64) -> i64 {
    // At most 40 + 64 bits.
    ((u128::from(place) * u128::from(step)) >> STEP_BITS) as u64 as i64
}

/// Reads a column of `count` values. The caller has bounded `count`.
pub(super) fn decode(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<i64>, ColumnError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    if count == 1 {
        return Ok(vec![cursor.signed()?]);
    }
    let coding = cursor.byte()?;
    let first = cursor.signed()?;
    if coding == LINEAR {
        let step = cursor.signed()?;
        return Ok((0..count as i64).map(|place| first.wrapping_add(place.wrapping_mul(step))).collect());
    }
    let unit = if coding & HAS_UNIT == 0 { 1 } else { cursor.unsigned()?.cast_signed() };
    // Each residual takes at least a byte, which bounds what a short input can make us reserve.
    if cursor.left() < count - 1 {
        return Err(cursor.error(ColumnFault::Truncated));
    }
    let mut values = Vec::with_capacity(count);
    values.push(first);
    let mut push = |scaled: i64| values.push(first.wrapping_add(scaled.wrapping_mul(unit)));
    match coding & !HAS_UNIT {
        PLAIN => {
            for _ in 1..count {
                push(cursor.signed()?);
            }
        }
        DELTA => {
            let mut scaled = 0_i64;
            for _ in 1..count {
                scaled = scaled.wrapping_add(cursor.signed()?);
                push(scaled);
            }
        }
        DELTA_OF_DELTA => {
            let (mut scaled, mut delta) = (0_i64, 0_i64);
            for _ in 1..count {
                delta = delta.wrapping_add(cursor.signed()?);
                scaled = scaled.wrapping_add(delta);
                push(scaled);
            }
        }
        GRID => read_grid(cursor, count, push)?,
        _ => return Err(cursor.error(ColumnFault::Coding { column: "integers", found: coding })),
    }
    Ok(values)
}

fn read_grid(cursor: &mut Cursor<'_>, count: usize, mut push: impl FnMut(i64)) -> Result<(), ColumnError> {
    let step = cursor.unsigned()?;
    let phase = cursor.signed()?;
    let mut skips = Vec::new();
    let mut index = 0;
    for _ in 0..cursor.at_most("skips of a grid", count - 1)? {
        let ahead = cursor.at_most("values before a skip", count - 1 - index)?;
        if ahead == 0 {
            return Err(cursor.error(ColumnFault::Order));
        }
        index += ahead;
        skips.push((index, cursor.at_most_wide("skipped places", GRID_PLACE_MAX)?));
    }
    let mut skips = skips.into_iter().peekable();
    let mut place = 0_u64;
    for index in 1..count {
        place += 1 + skips.next_if(|skip| skip.0 == index).map_or(0, |skip| skip.1);
        if place > GRID_PLACE_MAX {
            let what = "places of a grid";
            return Err(cursor.error(ColumnFault::TooMany { what, found: place, max: GRID_PLACE_MAX }));
        }
        push(phase.wrapping_add(position(place, step)).wrapping_add(cursor.signed()?));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(values: &[i64], shape: Shape) -> usize {
        let mut bytes = Vec::new();
        encode(values, shape, &mut bytes);
        let mut cursor = Cursor::new(&bytes);
        assert_eq!(decode(&mut cursor, values.len()).unwrap(), values);
        assert_eq!(cursor.left(), 0);
        bytes.len()
    }

    proptest! {
        #[test]
        fn any_integers_come_back(values: Vec<i64>, bits in 0_u32..64) {
            let values: Vec<i64> = values.into_iter().map(|value| value >> bits).collect();
            round_trip(&values, Shape::Any);
            round_trip(&values, Shape::Rising);
        }

        #[test]
        fn jittery_clocks_with_holes_come_back(
            start: i64, step in 1_i64..1_000_000_000_000, unit in prop::sample::select(vec![1_i64, 1_000, 1_000_000]),
            moves in prop::collection::vec((-3_i64..4, prop::bool::weighted(0.1)), 1..200),
        ) {
            let mut place = 0;
            let values: Vec<i64> = moves.into_iter().map(|(jitter, hole)| {
                place += if hole { 7 } else { 1 };
                start.wrapping_add(step.wrapping_mul(place)).wrapping_add(jitter).wrapping_mul(unit)
            }).collect();
            round_trip(&values, Shape::Rising);
        }
    }

    #[test]
    fn extremes_come_back() {
        for values in [
            vec![],
            vec![i64::MIN],
            vec![i64::MIN, i64::MAX, i64::MIN, 0],
            vec![0, i64::MIN, 0, i64::MIN, i64::MIN],
            vec![0, i64::MAX, i64::MAX, 0, 1],
        ] {
            round_trip(&values, Shape::Any);
            round_trip(&values, Shape::Rising);
        }
    }

    #[test]
    fn constants_and_regular_clocks_cost_a_few_bytes() {
        assert_eq!(round_trip(&[7; 1000], Shape::Any), 3);
        let clock: Vec<i64> = (0..1000).map(|i| i * 1_000).collect();
        assert_eq!(round_trip(&clock, Shape::Rising), 4);
    }

    #[test]
    fn a_grid_survives_missing_places_and_fractions_of_a_unit() {
        // 64 Hz in whole milliseconds, every hundredth sample missing: one byte a residual, and all of them within ±1.
        let clock: Vec<i64> = (0_i64..1000).filter(|i| i % 100 != 99).map(|i| i * 125 / 8).collect();
        let bytes = round_trip(&clock, Shape::Rising);
        assert!(bytes < clock.len() + 50, "{bytes}");
    }
}
