//! A column of 64-bit floats, exact to the bit.
//!
//! Sensors send decimals: 21.53 is the double nearest to 2153 / 100. Such a column is written as integers and one exponent, and
//! every value for which `integer / 10^exponent` is not the same 64 bits (a mean with fourteen digits, −0, a NaN with its payload)
//! is listed as an exception. A source that computes in single precision sends 5.827000141143799, the double of the single
//! nearest to 5.827; for it the quotient is rounded to single precision. What is no decimal at all is written as its bits, byte
//! by byte of all values, so that the bytes that hardly change lie together.

use super::cursor::{Cursor, put_unsigned};
use super::integers::{self, Shape};
use super::{ColumnError, ColumnFault};

/// Integers divided by a power of ten.
const DECIMAL: u8 = 0;
/// The same, rounded to single precision.
const DECIMAL_SINGLE: u8 = 1;
/// The bits, most significant bytes first.
const BITS: u8 = 2;
/// The bits of the single-precision value, most significant bytes first.
const BITS_SINGLE: u8 = 3;

/// The largest exponent: a double has 15 decimal digits that can be relied on.
const EXPONENT_MAX: usize = 15;
/// The powers of ten are exact, so that one correctly rounded division gives the double nearest to the decimal.
const POWERS: [f64; EXPONENT_MAX + 1] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
/// Integers up to here are exact as doubles.
const INTEGER_MAX: f64 = 9_007_199_254_740_992.0;
/// How many values are looked at to choose a coding, before all are when these were not typical.
const SAMPLE_VALUES: usize = 64;

/// Precision of the arithmetic that made the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Precision {
    Double,
    Single,
}

/// The value that an integer and a power of ten stand for.
fn quotient(integer: i64, power: f64, precision: Precision) -> f64 {
    let value = integer as f64 / power;
    match precision {
        Precision::Double => value,
        Precision::Single => f64::from(value as f32),
    }
}

/// The integer that stands for `value`, if one does.
fn integer(value: f64, power: f64, precision: Precision) -> Option<i64> {
    let product = (value * power).round_ties_even();
    // Not so for NaN.
    if product.abs() <= INTEGER_MAX {
        let integer = product as i64;
        return (quotient(integer, power, precision).to_bits() == value.to_bits()).then_some(integer);
    }
    None
}

/// How a column is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Decimal(usize, Precision),
    Bits(Precision),
}

/// The coding with the fewest expected bits for these values.
fn choose(values: impl Iterator<Item = f64> + Clone) -> Coding {
    let count = values.clone().count() as f64;
    let singles = values.clone().all(|value| f64::from(value as f32).to_bits() == value.to_bits());
    let mut best = match singles {
        true => (28.0 * count, Coding::Bits(Precision::Single)),
        false => (56.0 * count, Coding::Bits(Precision::Double)),
    };
    for precision in [Precision::Double, Precision::Single] {
        // How many values need this exponent and no smaller one.
        let mut needs = [0_u32; EXPONENT_MAX + 1];
        for value in values.clone() {
            let exact = |exponent: &usize| integer(value, POWERS[*exponent], precision).is_some();
            if let Some(exponent) = (0..=EXPONENT_MAX).find(exact) {
                needs[exponent] += 1;
            }
        }
        let mut exact = 0.0;
        for (exponent, &needing) in needs.iter().enumerate() {
            exact += f64::from(needing);
            // A digit more costs 3.32 bits in every value, an exception 64 and its position.
            let cost = count * 3.32 * exponent as f64 + 80.0 * (count - exact);
            if needing > 0 && cost < best.0 {
                best = (cost, Coding::Decimal(exponent, precision));
            }
        }
    }
    best.1
}

/// Appends a column; the number of values is not written, the reader knows it.
pub(super) fn encode(values: &[f64], out: &mut Vec<u8>) {
    if values.is_empty() {
        return;
    }
    let stride = (values.len() / SAMPLE_VALUES).max(1);
    let mut coding = choose(values.iter().copied().step_by(stride));
    if let Coding::Decimal(exponent, precision) = coding {
        let (integers, exceptions) = split(values, exponent, precision);
        if stride == 1 || exceptions.len() <= values.len() / 16 {
            return write_decimal(&integers, &exceptions, exponent, precision, out);
        }
        coding = choose(values.iter().copied());
    }
    match coding {
        Coding::Decimal(exponent, precision) => {
            let (integers, exceptions) = split(values, exponent, precision);
            write_decimal(&integers, &exceptions, exponent, precision, out);
        }
        Coding::Bits(Precision::Single) if values.iter().all(|value| single(*value).is_some()) => {
            out.push(BITS_SINGLE);
            put_planes(values, |value| single(value).unwrap_or_default().to_be_bytes(), out);
        }
        Coding::Bits(_) => {
            out.push(BITS);
            put_planes(values, |value| value.to_bits().to_be_bytes(), out);
        }
    }
}

/// The bits in single precision, if those say it all.
fn single(value: f64) -> Option<u32> {
    let single = value as f32;
    (f64::from(single).to_bits() == value.to_bits()).then_some(single.to_bits())
}

/// The integers, and which values they do not stand for. An exception repeats the integer before it, which costs nearly nothing.
fn split(values: &[f64], exponent: usize, precision: Precision) -> (Vec<i64>, Vec<(usize, u64)>) {
    let power = POWERS[exponent];
    let mut exceptions = Vec::new();
    let mut before = None;
    let mut integers: Vec<i64> = Vec::with_capacity(values.len());
    for (index, &value) in values.iter().enumerate() {
        match integer(value, power, precision) {
            Some(integer) => before = Some(integer),
            None => exceptions.push((index, value.to_bits())),
        }
        integers.push(before.unwrap_or(0));
    }
    // Exceptions at the start repeat the first integer after them.
    let leading = exceptions.iter().enumerate().take_while(|(rank, exception)| *rank == exception.0).count();
    if let Some(&first) = integers.get(leading) {
        integers.iter_mut().take(leading).for_each(|integer| *integer = first);
    }
    (integers, exceptions)
}

fn write_decimal(
    integers: &[i64],
    exceptions: &[(usize, u64)],
    exponent: usize,
    precision: Precision,
    out: &mut Vec<u8>,
) {
    out.push(if precision == Precision::Single { DECIMAL_SINGLE } else { DECIMAL });
    out.push(exponent as u8);
    put_unsigned(out, exceptions.len() as u64);
    let mut next = 0;
    for (index, _) in exceptions {
        put_unsigned(out, (index - next) as u64);
        next = index + 1;
    }
    exceptions.iter().for_each(|(_, bits)| out.extend_from_slice(&bits.to_le_bytes()));
    integers::encode(integers, Shape::Any, out);
}

fn put_planes<const WIDTH: usize>(values: &[f64], bytes: impl Fn(f64) -> [u8; WIDTH], out: &mut Vec<u8>) {
    for plane in 0..WIDTH {
        out.extend(values.iter().map(|value| bytes(*value)[plane]));
    }
}

/// Reads a column of `count` values. The caller has bounded `count`.
pub(super) fn decode(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<f64>, ColumnError> {
    if count == 0 {
        return Ok(Vec::new());
    }
    match cursor.byte()? {
        DECIMAL => read_decimal(cursor, count, Precision::Double),
        DECIMAL_SINGLE => read_decimal(cursor, count, Precision::Single),
        BITS => read_planes(cursor, count, |bytes| f64::from_bits(u64::from_be_bytes(bytes))),
        BITS_SINGLE => read_planes(cursor, count, |bytes| f64::from(f32::from_bits(u32::from_be_bytes(bytes)))),
        found => Err(cursor.error(ColumnFault::Coding { column: "floats", found })),
    }
}

fn read_decimal(cursor: &mut Cursor<'_>, count: usize, precision: Precision) -> Result<Vec<f64>, ColumnError> {
    let exponent = cursor.byte()?;
    let unknown = cursor.error(ColumnFault::Coding { column: "exponent of floats", found: exponent });
    let power = *POWERS.get(usize::from(exponent)).ok_or(unknown)?;
    let mut positions = Vec::new();
    let mut next = 0;
    for _ in 0..cursor.at_most("exceptions", count)? {
        // `next` is at most `count`: with none left the gap cannot be read.
        let Some(room) = (count - next).checked_sub(1) else { return Err(cursor.error(ColumnFault::Order)) };
        let position = next + cursor.at_most("values before an exception", room)?;
        positions.push(position);
        next = position + 1;
    }
    let mut exceptions = Vec::with_capacity(positions.len());
    for position in positions {
        exceptions.push((position, f64::from_bits(cursor.word()?)));
    }
    let mut values: Vec<f64> =
        integers::decode(cursor, count)?.into_iter().map(|integer| quotient(integer, power, precision)).collect();
    for (position, exception) in exceptions {
        if let Some(value) = values.get_mut(position) {
            *value = exception;
        }
    }
    Ok(values)
}

fn read_planes<const WIDTH: usize>(
    cursor: &mut Cursor<'_>,
    count: usize,
    value: impl Fn([u8; WIDTH]) -> f64,
) -> Result<Vec<f64>, ColumnError> {
    let bytes = cursor.take(count.saturating_mul(WIDTH))?;
    Ok((0..count).map(|row| value(std::array::from_fn(|plane| bytes[plane * count + row]))).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(values: &[f64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(values, &mut bytes);
        let mut cursor = Cursor::new(&bytes);
        let back = decode(&mut cursor, values.len()).unwrap();
        assert_eq!(cursor.left(), 0);
        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back), bits(values));
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
            exponent in 0_usize..10,
        ) {
            let values: Vec<f64> = values.into_iter().map(|(m, odd)| odd.unwrap_or(m as f64 / POWERS[exponent])).collect();
            round_trip(&values);
        }
    }

    #[test]
    fn decimals_cost_what_their_integers_cost() {
        let values: Vec<f64> = (0..600).map(|i| f64::from(2100 + i % 7) / 100.0).collect();
        assert!(round_trip(&values).len() < 610);
        let values: Vec<f64> = (0..600_i16).map(|i| f64::from(f32::from(5827 + i % 7) / 1000.0)).collect();
        assert!(round_trip(&values).len() < 610);
    }

    #[test]
    fn an_untypical_sample_is_noticed() {
        // Every value that the stride falls on is a whole number, the others have two places.
        let values: Vec<f64> =
            (0..6400).map(|i| f64::from(if i % 100 == 0 { 2000 } else { 2001 + i % 5 }) / 100.0).collect();
        assert!(round_trip(&values).len() < 2 * values.len());
    }
}
