//! A column of 64-bit floats, exact to the bit.
//!
//! Sensors send decimals: 21.53 is the double nearest to 2153 / 100. Such a column is written as integers and one exponent. Where
//! `integer / 10^exponent` is not the same 64 bits (a sum that rounding made 44.833999999999996, a mean with fourteen digits, −0, a
//! NaN with its payload), the distance of the bits is listed: mostly a few units in the last place. A source that computes in
//! single precision sends 5.827000141143799, the double of the single nearest to 5.827; for it the quotient is rounded to single
//! precision. What is no decimal at all is written as its bits, as integers in the order of the values.

use super::cursor::{Cursor, put_unsigned};
use super::integers::{self, Shape};
use super::{ColumnError, ColumnFault, Effort};
use crate::reading::Value;

/// Integers divided by a power of ten.
const DECIMAL: u8 = 0;
/// The same, rounded to single precision.
const DECIMAL_SINGLE: u8 = 1;
/// The bits as integers that are ordered as the values are.
const ORDERED: u8 = 2;

/// The largest exponent: powers of ten up to here are exact, so that one correctly rounded division gives the double nearest to the
/// decimal.
const EXPONENT_MAX: usize = 22;
const POWERS: [f64; EXPONENT_MAX + 1] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];
/// Integers up to here are rounded by adding and taking away what leaves a double no room for a fraction.
const INTEGER_MAX: f64 = 2_251_799_813_685_248.0;
const NO_FRACTION: f64 = 6_755_399_441_055_744.0;
/// Up to so many units in the last place a value counts as a decimal that rounding moved.
const NEAR_ULPS: u64 = 8;
/// How many values are looked at to choose a coding, before all are when these were not typical.
const SAMPLE_VALUES: usize = 32;

/// Precision of the arithmetic that made the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Precision {
    Double,
    Single,
}

/// What each value lies beside, in the order of the values; nothing beside a plain column.
#[derive(Clone, Debug, Default)]
pub(super) struct Beside {
    /// Quotients are divided by these once more.
    pub(super) divisors: Vec<f64>,
    /// Integers are distances from what stands for these.
    pub(super) references: Vec<f64>,
}

impl Beside {
    /// Those of `rows` as divisors: positive integers, or 1.
    pub(super) fn divisors<'a>(rows: &[usize], value: impl Fn(usize) -> Option<&'a Value>) -> Vec<f64> {
        let divisor = |row: &usize| match value(*row) {
            Some(Value::Int(count)) if *count > 0 => *count as f64,
            _ => 1.0,
        };
        rows.iter().map(divisor).collect()
    }

    /// Those of `rows` as references: floats, or 0.
    pub(super) fn references<'a>(rows: &[usize], value: impl Fn(usize) -> Option<&'a Value>) -> Vec<f64> {
        let reference = |row: &usize| if let Some(Value::Float(value)) = value(*row) { *value } else { 0.0 };
        rows.iter().map(reference).collect()
    }

    fn divisor(&self, index: usize) -> f64 {
        divisor(&self.divisors, index)
    }

    /// The integer that stands for a reference, or 0.
    fn reference(&self, index: usize, power: f64) -> i64 {
        let reference = self.references.get(index).copied().unwrap_or(0.0);
        whole(reference * power * self.divisor(index)).unwrap_or(0)
    }
}

fn divisor(divisors: &[f64], index: usize) -> f64 {
    divisors.get(index).copied().unwrap_or(1.0)
}

/// The nearest integer, if it is not too large.
#[inline(always)]
fn whole(product: f64) -> Option<i64> {
    // Not so for NaN. Beside what leaves no room for a fraction, integers and bits of doubles differ by as much.
    let bits = |value: f64| value.to_bits().cast_signed();
    (product.abs() <= INTEGER_MAX).then(|| bits(product + NO_FRACTION) - bits(NO_FRACTION))
}

/// The value that an integer, a power of ten and a divisor stand for.
#[inline(always)]
fn quotient(integer: i64, power: f64, divisor: f64, precision: Precision) -> f64 {
    let mut value = integer as f64 / power;
    if divisor > 1.0 {
        value /= divisor;
    }
    match precision {
        Precision::Double => value,
        Precision::Single => f64::from(value as f32),
    }
}

/// The integer that stands for `value` or for one near it, and how far the bits of what it stands for are from those of `value`;
/// nothing if the integer would be too large.
#[inline(always)]
fn integer(value: f64, power: f64, divisor: f64, precision: Precision) -> Option<(i64, i64)> {
    let integer = whole(value * power * divisor)?;
    Some((integer, distance(integer, value, power, divisor, precision)))
}

/// How far the bits of `value` are from those of what `integer` stands for.
#[inline(always)]
fn distance(integer: i64, value: f64, power: f64, divisor: f64, precision: Precision) -> i64 {
    value.to_bits().wrapping_sub(quotient(integer, power, divisor, precision).to_bits()).cast_signed()
}

/// How a column is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Decimal(usize, Precision),
    Ordered,
}

/// The coding with the fewest expected bits for these values and their divisors, and how many those are.
fn choose(values: impl Iterator<Item = (f64, f64)> + Clone) -> (f64, Coding) {
    let count = values.clone().count() as f64;
    let singles = values.clone().all(|(value, _)| f64::from(value as f32).to_bits() == value.to_bits());
    let mut best = (if singles { 28.0 } else { 56.0 } * count, Coding::Ordered);
    for precision in [Precision::Double, Precision::Single] {
        // How many values need this exponent and no smaller one, and how many of them are only near.
        let mut needs = [(0_u32, 0_u32); EXPONENT_MAX + 1];
        let mut last = 0;
        for (value, divisor) in values.clone() {
            let near = |exponent: usize| {
                let (_, distance) = integer(value, POWERS[exponent], divisor, precision)?;
                (distance.unsigned_abs() <= NEAR_ULPS).then_some((exponent, distance))
            };
            // Most need as many digits as the one before.
            let found = match near(last) {
                Some(found) => (0..last).rev().map_while(near).last().or(Some(found)),
                None => (0..=EXPONENT_MAX).find_map(near),
            };
            if let Some((exponent, distance)) = found {
                last = exponent;
                needs[exponent].0 += 1;
                needs[exponent].1 += u32::from(distance != 0);
            }
        }
        let (mut found, mut near) = (0.0, 0.0);
        for (exponent, &(needing, nearly)) in needs.iter().enumerate() {
            found += f64::from(needing);
            near += f64::from(nearly);
            // A digit more costs 3.32 bits in every value, an exception its position and its distance.
            let cost = count * 3.32 * exponent as f64 + 8.0 * near + 64.0 * (count - found);
            if needing > 0 && cost < best.0 {
                best = (cost, Coding::Decimal(exponent, precision));
            }
        }
        // What has few digits in double precision has no fewer in single precision.
        if matches!(best.1, Coding::Decimal(..)) && best.0 < count * 30.0 {
            break;
        }
    }
    best
}

/// Appends a column; the number of values is not written, the reader knows it.
pub(super) fn encode(values: &[f64], effort: Effort, out: &mut Vec<u8>) {
    if values.is_empty() {
        return;
    }
    match Decimals::of(values, &[]) {
        (_, Some(decimals)) => {
            out.push(if decimals.precision == Precision::Single { DECIMAL_SINGLE } else { DECIMAL });
            decimals.write_head(effort, out);
            integers::encode(&decimals.integers, Shape::Any, effort, out);
        }
        (_, None) => {
            out.push(ORDERED);
            let ordered: Vec<i64> = values.iter().map(|value| ordered(value.to_bits().cast_signed())).collect();
            integers::encode(&ordered, Shape::Any, effort, out);
        }
    }
}

/// Bits of floats become integers in their order, and these the bits again.
const fn ordered(bits: i64) -> i64 {
    bits ^ ((bits >> 63) as u64 >> 1) as i64
}

/// Values as decimals: integers, and the values that these do not stand for.
#[derive(Clone, Debug)]
pub(super) struct Decimals {
    exponent: usize,
    precision: Precision,
    integers: Vec<i64>,
    /// Index of a value, and how far its bits are off.
    exceptions: Vec<(usize, i64)>,
}

impl Decimals {
    /// The decimals that stand for these values in double precision, if any do, and how many bits they are expected to take.
    pub(super) fn find(values: &[f64], divisors: &[f64]) -> Option<(f64, Self)> {
        let (cost, decimals) = Self::of(values, divisors);
        // A divisor makes every integer longer.
        let longer: u32 = divisors.iter().map(|divisor| (*divisor as u64).max(1).ilog2()).sum();
        Some((cost + f64::from(longer), decimals.filter(|decimals| decimals.precision == Precision::Double)?))
    }

    /// The decimals that stand for these values, or none where their bits take less.
    fn of(values: &[f64], divisors: &[f64]) -> (f64, Option<Self>) {
        let stride = (values.len() / SAMPLE_VALUES).max(1);
        let all = values.iter().enumerate().map(|(index, value)| (*value, divisor(divisors, index)));
        let (cost, mut coding) = choose(all.clone().step_by(stride));
        if let Coding::Decimal(exponent, precision) = coding {
            let decimals = Self::split(values, divisors, exponent, precision);
            let far = decimals.exceptions.iter().filter(|exception| exception.1.unsigned_abs() > NEAR_ULPS);
            if stride == 1 || far.count() <= values.len() / 16 {
                return (cost * stride as f64, Some(decimals));
            }
            coding = choose(all).1;
        }
        match coding {
            Coding::Decimal(exponent, precision) => {
                (cost * stride as f64, Some(Self::split(values, divisors, exponent, precision)))
            }
            Coding::Ordered => (cost * stride as f64, None),
        }
    }

    /// Where no integer is near a value, the one before is repeated, which costs nearly nothing.
    fn split(values: &[f64], divisors: &[f64], exponent: usize, precision: Precision) -> Self {
        let power = POWERS[exponent];
        let mut exceptions = Vec::new();
        let mut before = 0;
        let mut integers = Vec::with_capacity(values.len());
        for (index, &value) in values.iter().enumerate() {
            let divisor = divisor(divisors, index);
            before = whole(value * power * divisor).unwrap_or(before);
            let off = distance(before, value, power, divisor, precision);
            if off != 0 {
                exceptions.push((index, off));
            }
            integers.push(before);
        }
        Self { exponent, precision, integers, exceptions }
    }

    /// The integers less those that stand for references.
    pub(super) fn distances(&self, beside: &Beside) -> Vec<i64> {
        let power = POWERS[self.exponent];
        let each = self.integers.iter().enumerate();
        each.map(|(index, integer)| integer.wrapping_sub(beside.reference(index, power))).collect()
    }

    /// Appends the exponent and the exceptions, which the integers follow.
    pub(super) fn write_head(&self, effort: Effort, out: &mut Vec<u8>) {
        out.push(self.exponent as u8);
        put_unsigned(out, self.exceptions.len() as u64);
        let mut next = 0;
        let gap = |(index, _): &(usize, i64)| {
            let gap = *index as i64 - next;
            next = *index as i64 + 1;
            gap
        };
        let gaps: Vec<i64> = self.exceptions.iter().map(gap).collect();
        let distances: Vec<i64> = self.exceptions.iter().map(|exception| exception.1).collect();
        integers::encode(&gaps, Shape::Any, effort, out);
        integers::encode(&distances, Shape::Any, effort, out);
    }
}

/// Reads a column of `count` values. The caller has bounded `count`.
pub(super) fn decode(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<f64>, ColumnError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    match cursor.byte()? {
        DECIMAL => read_decimals(cursor, count, Precision::Double, &Beside::default()),
        DECIMAL_SINGLE => read_decimals(cursor, count, Precision::Single, &Beside::default()),
        ORDERED => {
            let bits = integers::decode(cursor, count)?;
            Ok(bits.into_iter().map(|bits| f64::from_bits(ordered(bits).cast_unsigned())).collect())
        }
        found => Err(cursor.error(ColumnFault::Coding { column: "floats", found })),
    }
}

/// Reads what [`Decimals::write_head`] and the distances of the integers are.
pub(super) fn decode_decimals(cursor: &mut Cursor<'_>, count: usize, beside: &Beside) -> Result<Vec<f64>, ColumnError> {
    read_decimals(cursor, count, Precision::Double, beside)
}

fn read_decimals(
    cursor: &mut Cursor<'_>,
    count: usize,
    precision: Precision,
    beside: &Beside,
) -> Result<Vec<f64>, ColumnError> {
    let exponent = cursor.byte()?;
    let unknown = cursor.error(ColumnFault::Coding { column: "exponent of floats", found: exponent });
    let power = *POWERS.get(usize::from(exponent)).ok_or(unknown)?;
    let many = cursor.at_most("exceptions", count)?;
    let gaps = integers::decode(cursor, many)?;
    let distances = integers::decode(cursor, many)?;
    let integers = integers::decode(cursor, count)?;
    let mut values: Vec<f64> = match beside.references.is_empty() {
        true => integers.into_iter().map(|integer| quotient(integer, power, 1.0, precision)).collect(),
        false => integers
            .into_iter()
            .enumerate()
            .map(|(index, integer)| {
                let integer = integer.wrapping_add(beside.reference(index, power));
                quotient(integer, power, beside.divisor(index), precision)
            })
            .collect(),
    };
    let mut rest = values.iter_mut();
    for (gap, distance) in gaps.into_iter().zip(distances) {
        let value = usize::try_from(gap).ok().and_then(|gap| rest.nth(gap));
        let value = value.ok_or_else(|| cursor.error(ColumnFault::Order))?;
        *value = f64::from_bits(value.to_bits().wrapping_add(distance.cast_unsigned()));
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(values: &[f64]) -> Vec<u8> {
        let [bytes, ..] = Effort::ALL.map(|effort| {
            let mut bytes = Vec::new();
            encode(values, effort, &mut bytes);
            let mut cursor = Cursor::new(&bytes);
            let back = decode(&mut cursor, values.len()).unwrap();
            assert_eq!(cursor.left(), 0);
            let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&back), bits(values), "{effort:?}");
            bytes
        });
        bytes
    }

    fn odd() -> impl Strategy<Value = f64> {
        prop_oneof![any::<u64>().prop_map(f64::from_bits), any::<f32>().prop_map(f64::from), Just(-0.0), Just(f64::NAN)]
    }

    proptest! {
        #[test]
        fn any_bits_come_back(values in prop::collection::vec(any::<u64>().prop_map(f64::from_bits), 0..200)) {
            round_trip(&values);
        }

        #[test]
        fn singles_come_back(values in prop::collection::vec(any::<u32>().prop_map(|b| f64::from(f32::from_bits(b))), 0..200)) {
            round_trip(&values);
        }

        #[test]
        fn decimals_with_exceptions_come_back(
            values in prop::collection::vec((-100_000_i64..100_000, prop::option::weighted(0.05, odd())), 0..300),
            exponent in 0_usize..20,
        ) {
            let values: Vec<f64> = values.into_iter().map(|(m, odd)| odd.unwrap_or(m as f64 / POWERS[exponent])).collect();
            round_trip(&values);
        }
    }

    #[test]
    fn decimals_cost_what_their_integers_cost() {
        let values: Vec<f64> = (0..600).map(|i| f64::from(2100 + i % 7) / 100.0).collect();
        let bytes = round_trip(&values).len();
        assert!(bytes < 620, "{bytes}");
        let values: Vec<f64> = (0..600_i16).map(|i| f64::from(f32::from(5827 + i % 7) / 1000.0)).collect();
        let bytes = round_trip(&values).len();
        assert!(bytes < 620, "{bytes}");
    }

    #[test]
    fn one_value_with_many_digits_does_not_speak_for_the_others() {
        for odd in [21.533_333_333_333_335, 1e-9, 1.0 / 3.0] {
            let values: Vec<f64> =
                [odd].into_iter().chain((0..60).map(|i| f64::from(230 + i * 7 % 60) / 10.0)).collect();
            let bytes = round_trip(&values).len();
            assert!(bytes < 100, "{odd}: {bytes}");
        }
    }

    #[test]
    fn an_untypical_sample_is_noticed() {
        // Every value that the stride falls on is a whole number, the others have two places.
        let values: Vec<f64> =
            (0..6400).map(|i| f64::from(if i % 100 == 0 { 2000 } else { 2001 + i % 5 }) / 100.0).collect();
        assert!(round_trip(&values).len() < 2 * values.len());
    }
}
