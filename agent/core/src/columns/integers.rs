//! A column of integers: what is left after the obvious is taken away.
//!
//! All arithmetic is modulo 2^64, so that every column of 64-bit integers comes back exactly, whatever it holds. With `v[0]` the
//! first value and `unit` the greatest common divisor of all differences to it, `k[i] = (v[i] − v[0]) / unit`. Of `k` the
//! residuals of a prediction ([`super::predictions`]) are written. They are written in bytes, for Zstandard to find what repeats, or by [`super::entropy`].

use super::counts::Counts;
use super::cursor::{Cursor, put_signed, put_unsigned};
use super::entropy::{self, Model};
use super::predictions::{DELTA, DELTA_OF_DELTA, GRID, GRID_PLACE_MAX, LINE, Line, ONE, PLAIN, Prediction, position};
use super::shares::{self, Shares};
use super::tokens::Alphabet;
use super::{ColumnError, ColumnFault, Effort, dictionary};

/// `v[i] = v[0] + i × step`, and nothing else: constants, and clocks that never waver.
const LINEAR: u8 = 0;
/// The different values, and the place of each among them ([`dictionary`]).
const DICTIONARY: u8 = 7;
/// Set beside one of the above where `unit` is not 1 and follows.
const HAS_UNIT: u8 = 8;
/// Set beside one of the above where the residuals are coded by their entropy.
const IS_CODED: u8 = 16;
/// Set beside one of the above where the residuals are coded by fixed shares.
const IS_SHARED: u8 = 32;

/// From so many values on what fixed shares say first is little beside the rest.
const SHARED_VALUES_MIN: usize = 128;
/// From so many values on counts are near enough to spare trials.
pub(super) const COUNTED_VALUES_MIN: usize = 512;
/// From so many values on a dictionary is looked for where time is short.
const QUICK_DICTIONARY_MIN: usize = 1024;
/// About how many bits a different value takes in a dictionary.
const DIFFERENT_BITS: u64 = 6;
/// Below so many values a coder costs more to start than it saves.
const CODED_VALUES_MIN: usize = 8;

/// Whether a grid is worth a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Any integers.
    Any,
    /// Mostly rising by about the same: times.
    Rising,
}

/// The greatest common divisor of the distances of all values to the first, at least 1. Only 1 where distances need more than 63
/// bits: then it might not divide what is left of them.
pub(super) fn common_unit(values: &[i64]) -> u64 {
    let (mut unit, mut before, mut longest) = (0, 0, 0);
    for pair in values.windows(2) {
        let distance = pair[1].wrapping_sub(pair[0]).unsigned_abs();
        // One division where the unit is settled, and none where a clock is regular.
        if distance != before && (unit == 0 || !distance.is_multiple_of(unit)) {
            unit = gcd(unit, distance);
            if unit == 1 {
                return 1;
            }
        }
        longest = longest.max(distance);
        before = distance;
    }
    let is_wide = || {
        let range = |(low, high): (i64, i64), value: &i64| (low.min(*value), high.max(*value));
        let (low, high) = values.iter().fold((i64::MAX, i64::MIN), range);
        high.checked_sub(low).is_none()
    };
    if longest.saturating_mul(values.len() as u64) >= 1 << 63 && is_wide() { 1 } else { unit.max(1) }
}

/// The distances of values to the first, divided by their [`common_unit`].
pub(super) fn in_units(values: &[i64], unit: u64) -> Vec<i64> {
    let first = values.first().copied().unwrap_or(0);
    if unit <= 1 {
        return values.iter().map(|value| value.wrapping_sub(first)).collect();
    }
    // What a number divides without a rest, its inverse modulo 2^64 multiplies instead; that of an odd one is itself in three
    // bits, and each step of Newton's method doubles them.
    let twos = unit.trailing_zeros();
    let odd = unit >> twos;
    let inverse = (0..5).fold(odd, |inverse, _| inverse.wrapping_mul(2_u64.wrapping_sub(odd.wrapping_mul(inverse))));
    let divided = |value: &i64| (value.wrapping_sub(first) >> twos).wrapping_mul(inverse.cast_signed());
    values.iter().map(divided).collect()
}

/// The greatest common divisor; that of a number and 0 is the number.
pub(super) fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// Appends a column; the number of values is not written, the reader knows it. A single value needs no coding.
pub(super) fn encode(values: &[i64], shape: Shape, effort: Effort, out: &mut Vec<u8>) {
    match values {
        [] => {}
        [one] => put_signed(out, *one),
        [first, ..] if encode_linear(*first, 1, values, out) => {}
        [first, ..] => {
            let unit = common_unit(values);
            encode_scaled(*first, unit, &in_units(values, unit), shape, effort, out);
        }
    }
}

/// The same for values that are `first` + `scaled` × `unit`; of `scaled` the first is 0, and they have no unit in common.
pub(super) fn encode_reduced(first: i64, unit: u64, scaled: &[i64], shape: Shape, effort: Effort, out: &mut Vec<u8>) {
    match scaled {
        [] => {}
        [_] => put_signed(out, first),
        _ if encode_linear(first, unit, scaled, out) => {}
        _ => encode_scaled(first, unit, scaled, shape, effort, out),
    }
}

/// Appends values that differ by always the same, from `first` on, in units. False, and nothing is appended, if these do not.
fn encode_linear(first: i64, unit: u64, scaled: &[i64], out: &mut Vec<u8>) -> bool {
    let [one, two, ..] = scaled else { return false };
    let step = two.wrapping_sub(*one);
    for pair in scaled.windows(2) {
        if pair[1].wrapping_sub(pair[0]) != step {
            return false;
        }
    }
    out.push(LINEAR);
    put_signed(out, first);
    put_signed(out, step.wrapping_mul(unit.cast_signed()));
    true
}

/// Appends values that are `first` + `scaled` × `unit`.
fn encode_scaled(first: i64, unit: u64, scaled: &[i64], shape: Shape, effort: Effort, out: &mut Vec<u8>) {
    let predictions = Prediction::likely(scaled, shape, effort);
    let is_long = scaled.len() >= if effort == Effort::Quick { QUICK_DICTIONARY_MIN } else { COUNTED_VALUES_MIN };
    if effort != Effort::Bytes
        && is_long
        && let Some((different, places)) = dictionary::of(scaled)
    {
        let (first_place, places) = (places.first().copied().unwrap_or(0), in_units(&places, 1));
        let others = Prediction::likely(&places, Shape::Any, effort);
        let expected = |predictions: &[(u64, Prediction)], values: &[i64]| match predictions.first() {
            Some((_, likely)) if effort == Effort::Thorough => counted(&likely.residuals(values)) / 256,
            Some((bits, _)) => *bits,
            None => 0,
        };
        if expected(&others, &places) + DIFFERENT_BITS * (different.len() as u64) < expected(&predictions, scaled) {
            write_scale(DICTIONARY, first, unit, out);
            put_unsigned(out, different.len() as u64);
            encode(&different, Shape::Any, effort, out);
            return encode_predicted(first_place, 1, &places, &others, effort, out);
        }
    }
    encode_predicted(first, unit, scaled, &predictions, effort, out);
}

/// Appends how a column is coded, its first value, and the unit where there is one.
fn write_scale(coding: u8, first: i64, unit: u64, out: &mut Vec<u8>) {
    out.push(coding | if unit > 1 { HAS_UNIT } else { 0 });
    put_signed(out, first);
    if unit > 1 {
        put_unsigned(out, unit);
    }
}

/// The same with the best of these predictions.
fn encode_predicted(
    first: i64,
    unit: u64,
    scaled: &[i64],
    predictions: &[(u64, Prediction)],
    effort: Effort,
    out: &mut Vec<u8>,
) {
    let Some((_, likely)) = predictions.first() else { return };
    let head = |coding: u8, prediction: &Prediction| {
        let mut out = Vec::new();
        write_scale(coding | prediction.coding(), first, unit, &mut out);
        prediction.write(&mut out);
        out
    };
    let mut residuals = likely.residuals(scaled);
    if effort == Effort::Bytes || scaled.len() < CODED_VALUES_MIN {
        out.extend(head(0, likely));
        return residuals.into_iter().for_each(|residual| put_signed(out, residual));
    }
    if effort == Effort::Quick && scaled.len() >= SHARED_VALUES_MIN {
        out.extend(head(IS_SHARED, likely));
        return Shares::of(&residuals, Alphabet::LEAST).encode(&residuals, out);
    }
    let (mut best, mut model) = (head(IS_CODED, likely), Model::PLAIN);
    if effort == Effort::Thorough {
        let bits = |head: &[u8]| 8 * 256 * head.len() as u64;
        let mut counts = Counts::of(&residuals);
        let mut cost = entropy::cost(&residuals, model) + bits(&best);
        for (_, prediction) in predictions.iter().skip(1) {
            let (other, left) = (head(IS_CODED, prediction), prediction.residuals(scaled));
            let other_counts = Counts::of(&left);
            // Counts know nothing of the order, which a trial does; so they only say what is not worth one.
            let worth = counts.cost(Alphabet::LEAST) / 16 * 17;
            if left.len() >= COUNTED_VALUES_MIN && other_counts.cost(Alphabet::LEAST) > worth {
                continue;
            }
            let other_cost = entropy::cost(&left, model) + bits(&other);
            if other_cost < cost {
                (cost, best, residuals, counts) = (other_cost, other, left, other_counts);
            }
        }
        model = entropy::choose(&residuals, &counts, cost - bits(&best));
    }
    out.extend(best);
    entropy::encode(&residuals, model, out);
}

/// About how many 256ths of a bit residuals take.
fn counted(residuals: &[i64]) -> u64 {
    let counts = Counts::of(residuals);
    counts.cost(Alphabet::LEAST).min(counts.cost(Alphabet::MOST))
}

/// About how many bits a column takes.
pub(super) fn cost(values: &[i64]) -> u64 {
    let first = values.first().copied().unwrap_or(0);
    let scaled: Vec<i64> = values.iter().map(|value| value.wrapping_sub(first)).collect();
    Prediction::likely(&scaled, Shape::Any, Effort::Thorough).first().map_or(0, |(bits, _)| *bits)
}

/// Reads a column of `count` values. The caller has bounded `count`.
pub(super) fn decode(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<i64>, ColumnError> {
    decode_with(cursor, count, true)
}

/// The same, of a dictionary or not: none is made of others.
fn decode_with(cursor: &mut Cursor<'_>, count: usize, takes_dictionary: bool) -> Result<Vec<i64>, ColumnError> {
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
    let unknown = cursor.error(ColumnFault::Coding { column: "integers", found: coding });
    let predicted = coding & !(HAS_UNIT | IS_CODED | IS_SHARED);
    let (mut line, mut places) = (Line::new(0, 0), Vec::new());
    match predicted {
        PLAIN | DELTA => {}
        DELTA_OF_DELTA => line = Line::new(ONE, 0),
        LINE => line = Line::new(cursor.byte()?.cast_signed(), cursor.byte()?.cast_signed()),
        GRID => places = read_grid(cursor, count)?,
        DICTIONARY if takes_dictionary && coding & (IS_CODED | IS_SHARED) == 0 => {
            let mut values = read_dictionary(cursor, count)?;
            values.iter_mut().for_each(|value| *value = first.wrapping_add(value.wrapping_mul(unit)));
            return Ok(values);
        }
        _ => return Err(unknown),
    }
    let mut values = Vec::with_capacity(count);
    values.push(0);
    match coding & (IS_CODED | IS_SHARED) {
        0 => {
            // Each residual takes at least a byte.
            if cursor.left() < count - 1 {
                return Err(cursor.error(ColumnFault::Truncated));
            }
            for _ in 1..count {
                values.push(cursor.signed()?);
            }
        }
        IS_CODED => entropy::decode(cursor, count - 1, &mut values)?,
        IS_SHARED => shares::decode(cursor, count - 1, &mut values)?,
        _ => return Err(unknown),
    }
    match predicted {
        PLAIN => {}
        DELTA => {
            let mut value = 0_i64;
            values.iter_mut().for_each(|residual| {
                value = value.wrapping_add(*residual);
                *residual = value;
            });
        }
        GRID => values.iter_mut().zip(places).for_each(|(value, place)| *value = value.wrapping_add(place)),
        _ => values.iter_mut().skip(1).for_each(|value| {
            *value = value.wrapping_add(line.ahead());
            line.went_to(*value);
        }),
    }
    values.iter_mut().for_each(|value| *value = first.wrapping_add(value.wrapping_mul(unit)));
    Ok(values)
}

/// The values of which a dictionary has the different ones.
fn read_dictionary(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<i64>, ColumnError> {
    let many = cursor.at_most("different values", count)?;
    let different = decode_with(cursor, many, false)?;
    let mut values = decode_with(cursor, count, false)?;
    for value in &mut values {
        let found = value.cast_unsigned();
        let max = (many as u64).saturating_sub(1);
        let place = usize::try_from(found).ok().and_then(|place| different.get(place));
        *value = *place.ok_or_else(|| cursor.error(ColumnFault::TooMany { what: "places of values", found, max }))?;
    }
    Ok(values)
}

/// Where the values of a grid would lie without residuals.
fn read_grid(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<i64>, ColumnError> {
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
    let (mut place, mut places) = (0_u64, Vec::with_capacity(count));
    places.push(0);
    for index in 1..count {
        place += 1 + skips.next_if(|skip| skip.0 == index).map_or(0, |skip| skip.1);
        if place > GRID_PLACE_MAX {
            let what = "places of a grid";
            return Err(cursor.error(ColumnFault::TooMany { what, found: place, max: GRID_PLACE_MAX }));
        }
        places.push(phase.wrapping_add(position(place, step)));
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(values: &[i64], shape: Shape) -> usize {
        let lengths = Effort::ALL.map(|effort| {
            let mut bytes = Vec::new();
            encode(values, shape, effort, &mut bytes);
            let mut cursor = Cursor::new(&bytes);
            assert_eq!(decode(&mut cursor, values.len()).unwrap(), values, "{effort:?}");
            assert_eq!(cursor.left(), 0);
            bytes.len()
        });
        // Trials are judged by what they are expected to cost.
        assert!(lengths[2] <= lengths[1] + lengths[1] / 32 + 4, "{lengths:?}");
        lengths[0]
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
