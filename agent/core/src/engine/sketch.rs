//! A sketch of how numbers are spread, from which percentiles are read with a stated error.
//!
//! As DDSketch does (Masson, Rim, Lee 2019, "DDSketch: a fast and fully-mergeable quantile sketch with relative-error guarantees"),
//! numbers are counted in buckets whose ends grow by a constant factor, and a percentile is a number from the middle of the bucket
//! that the exact one is in. Sketches merge by adding counts, so that neither order nor division of the readings counts.
//!
//! The logarithm that finds a bucket is an approximation in integers: the exponent of the float, and between two powers of two a
//! parabola, `f(s) = s (4 − s) / 3` for a number `2^e (1 + s)`. It is the same on every machine and takes no call. A step of it
//! is one of at most 3/4 of the natural logarithm, where the exact binary logarithm has ln 2: it takes 8 % more buckets.

use serde::{Deserialize, Serialize};

use crate::function::{Buckets, Percentile};

/// The most buckets of a sketch: 16 KiB. With 1 % they span 51 powers of two, where a sensor has ten; where that is not enough the
/// lowest are joined to the lowest that stays, so that the high percentiles keep their error, and one that falls there has no value.
pub(super) const BUCKETS_MAX: usize = 2048;

/// Bits of the fraction that the parabola is computed with: so that its product, of twice as many and two more, fits.
const FRACTION_BITS: u32 = 30;
/// The bits of a float's fraction below those.
const UNUSED_BITS: u32 = f64::MANTISSA_DIGITS - 1 - FRACTION_BITS;

/// The exponents of floats that are finite, with that of the smallest.
const EXPONENTS: i64 = 2047;

/// The part of the error that rounding a percentile to a few decimal digits may take.
const ROUNDING_PART: f64 = 0.05;
/// The part that the width of a bucket may take; what is left of one covers the resolution of the approximation.
const WIDTH_PART: f64 = 0.94;

/// The buckets of a run, 64 bytes: with 1 % from a number to 1.8 times as much, as a sensor has it in one window. Finding a bucket in a
/// run is one step in one line of the cache; what is wider, or has more than 65,535 numbers in a bucket, is kept sparse, 8 bytes for
/// each bucket that holds something.
const RUN: usize = 32;

/// Where an empty run starts: only one bucket could be in it, and there it would be right.
const NOWHERE: i32 = i32::MAX;

/// How many numbers lie in a bucket.
type Bucket = (i32, u32);

/// How many numbers lie in which buckets. Which of the two it is depends on the numbers alone, not on their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Counts {
    /// In the buckets from the first on that holds something.
    Run { start: i32, counts: [u16; RUN] },
    /// By key, at most [`BUCKETS_MAX`], none of them empty.
    Sparse(Vec<Bucket>),
}

/// How numbers are divided into buckets. Buckets have keys that rise with their numbers; that of zero is 0, and the key of −x is
/// minus that of x.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Scale {
    /// So many buckets between two powers of two; percentiles are rounded to so many digits.
    Octaves { buckets: u32, digits: u8 },
    /// The multiples of a step.
    Steps(f64),
}

/// Counts of numbers in buckets.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Sketch {
    scale: Scale,
    counts: Counts,
    /// Whether the lowest bucket holds numbers of lower ones.
    is_joined: bool,
}

impl Scale {
    pub(super) fn new(buckets: Buckets) -> Self {
        match buckets {
            Buckets::Steps(step) => Self::Steps(step),
            Buckets::Relative(error) => {
                let error = error.clamp(Buckets::RELATIVE_MIN, Buckets::RELATIVE_MAX);
                // The end of a bucket over its start is at most e^(3/4 / buckets), and the error of its middle at most the half.
                let buckets = (0.375 / (WIDTH_PART * error)).ceil() as u32;
                // Rounded to d digits a number is at most 10^(1 − d) / 2 of itself away.
                let mut digits = 1;
                let mut rounding = 0.5;
                while rounding > ROUNDING_PART * error {
                    rounding /= 10.0;
                    digits += 1;
                }
                Self::Octaves { buckets, digits }
            }
        }
    }

    /// The bucket of a finite number. With octaves, what is smaller than the smallest normal float counts as zero.
    #[inline]
    fn key(self, number: f64) -> i32 {
        match self {
            // As a cast saturates, the outermost keys also hold what is beyond them.
            Self::Steps(step) => ((number / step).round() as i32).max(-i32::MAX),
            Self::Octaves { buckets, .. } => {
                let bits = number.to_bits();
                let exponent = bits << 1 >> f64::MANTISSA_DIGITS;
                if exponent == 0 {
                    return 0;
                }
                let fraction = (bits >> UNUSED_BITS) & ((1 << FRACTION_BITS) - 1);
                let parabola = (fraction * ((4 << FRACTION_BITS) - fraction)) >> FRACTION_BITS;
                let thrice = ((3 * exponent) << FRACTION_BITS) + parabola;
                let key = (((thrice * u64::from(buckets)) >> FRACTION_BITS) as u32 / 3) as i32;
                if number < 0.0 { -key } else { key }
            }
        }
    }

    /// The number that stands for those of a bucket; `None` for the outermost steps, which may hold anything.
    fn middle(self, key: i32) -> Option<f64> {
        match self {
            Self::Steps(_) if key.abs() == i32::MAX => None,
            Self::Steps(step) => {
                // 234 / 10 is the float nearest to 23.4, and 234 × 0.1 is not.
                let parts = (1.0 / step).round();
                let is_decimal = 1.0 / parts == step;
                Some(if is_decimal { f64::from(key) / parts } else { f64::from(key) * step })
            }
            Self::Octaves { .. } if key == 0 => Some(0.0),
            Self::Octaves { buckets, digits } => {
                let place = key.unsigned_abs();
                let (start, end) = (octave_edge(place, buckets), octave_edge(place + 1, buckets).min(f64::MAX));
                // As far, relative to either end, from the one as from the other.
                let middle = 2.0 * start / (1.0 + start / end);
                let rounded = rounded(middle, digits);
                Some(if key < 0 { -rounded } else { rounded })
            }
        }
    }
}

/// A number above zero, rounded to so many decimal digits.
fn rounded(number: f64, digits: u8) -> f64 {
    /// Powers of ten are exact as floats up to here.
    const EXACT_MAX: f64 = 1e22;
    let most = (0..digits).fold(1.0, |most, _| most * 10.0);
    let mut power = 1.0;
    // The quotient of two exact floats is the float nearest to the decimal.
    while power < EXACT_MAX && number * power * 10.0 < most {
        power *= 10.0;
    }
    if power > 1.0 && power < EXACT_MAX {
        return (number * power).round() / power;
    }
    while power < EXACT_MAX && number / power >= most {
        power *= 10.0;
    }
    if power < EXACT_MAX {
        return (number / power).round() * power;
    }
    format!("{number:.*e}", usize::from(digits).saturating_sub(1)).parse().unwrap_or(number).min(f64::MAX)
}

/// The least number of a bucket above zero: the parabola solved for its argument. A square root is the same on every machine.
fn octave_edge(place: u32, buckets: u32) -> f64 {
    let part = f64::from(place % buckets) / f64::from(buckets);
    let power = f64::from_bits(u64::from(place / buckets) << (f64::MANTISSA_DIGITS - 1));
    power * (3.0 - (4.0 - 3.0 * part).sqrt())
}

impl Counts {
    const NONE: Self = Self::Run { start: NOWHERE, counts: [0; RUN] };

    /// The buckets that hold something, by key.
    fn buckets(&self) -> impl Iterator<Item = Bucket> {
        let (start, run, sparse) = match self {
            Self::Run { start, counts } => (*start, counts.as_slice(), &[][..]),
            Self::Sparse(buckets) => (0, &[][..], buckets.as_slice()),
        };
        let run = run.iter().enumerate().filter(|&(_, &count)| count > 0);
        let run = run.map(move |(place, &count)| (start.wrapping_add(place as i32), u32::from(count)));
        run.chain(sparse.iter().copied())
    }
}

impl Sketch {
    pub(super) const fn new(scale: Scale) -> Self {
        Self { scale, counts: Counts::NONE, is_joined: false }
    }

    pub(super) const fn scale(&self) -> Scale {
        self.scale
    }

    /// Begins anew.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.scale);
    }

    /// The bytes that it takes beside itself.
    pub(super) fn bytes(&self) -> usize {
        match &self.counts {
            Counts::Run { .. } => 0,
            Counts::Sparse(buckets) => buckets.capacity() * size_of::<Bucket>(),
        }
    }

    /// Takes a finite number.
    #[inline]
    pub(super) fn add(&mut self, number: f64) {
        self.count(self.scale.key(number), 1);
    }

    #[inline]
    fn count(&mut self, key: i32, count: u32) {
        if let Counts::Run { start, counts } = &mut self.counts
            && let Some(counted) = key.checked_sub(*start).and_then(|place| counts.get_mut(place as usize))
            && let Ok(sum) = u16::try_from(u32::from(*counted).saturating_add(count))
        {
            *counted = sum;
        } else {
            self.count_elsewhere(key, count);
        }
    }

    /// Counts what the run that there is has no room for.
    #[cold]
    fn count_elsewhere(&mut self, key: i32, count: u32) {
        match &mut self.counts {
            Counts::Run { start, counts } => {
                let last = counts.iter().rposition(|&counted| counted > 0);
                let last = last.map_or(key, |place| start.saturating_add(place as i32).max(key));
                let first = key.min(*start);
                // Only a bucket that is full comes here although the run has it.
                if i64::from(last) - i64::from(first) < RUN as i64 && key < *start && count <= u32::from(u16::MAX) {
                    // An empty one is not moved.
                    let before = (i64::from(*start) - i64::from(first)).min(RUN as i64) as usize;
                    counts.copy_within(..RUN - before, before);
                    counts.iter_mut().take(before).for_each(|counted| *counted = 0);
                    *start = first;
                } else {
                    self.counts = Counts::Sparse(self.counts.buckets().collect());
                }
                self.count(key, count);
            }
            Counts::Sparse(buckets) => match buckets.binary_search_by_key(&key, |&(key, _)| key) {
                Ok(place) => raise(buckets, place, count),
                // What stays are the highest of all buckets that there ever were, in whatever order they came.
                Err(place) if buckets.len() < BUCKETS_MAX => buckets.insert(place, (key, count)),
                Err(0) => {
                    self.is_joined = true;
                    raise(buckets, 0, count);
                }
                Err(place) => {
                    self.is_joined = true;
                    buckets.insert(place, (key, count));
                    let (_, joined) = buckets.remove(0);
                    raise(buckets, 0, joined);
                }
            },
        }
    }

    /// Takes what another one of the same scale took.
    pub(super) fn merge(&mut self, other: &Self) {
        self.is_joined |= other.is_joined;
        for (key, count) in other.counts.buckets() {
            self.count(key, count);
        }
    }

    /// The least number to which at least this part of all numbers is equal or below (ISO 3534-1, "quantile"), within the error that
    /// was asked for; `None` where the buckets do not tell, and without numbers.
    pub(super) fn percentile(&self, percentile: Percentile) -> Option<f64> {
        let count: u64 = self.counts.buckets().map(|(_, count)| u64::from(count)).sum();
        // 11 bits of buckets, 32 of counts and 17 of thousandths.
        let rank = (count * u64::from(percentile.thousandths())).div_ceil(u64::from(Percentile::WHOLE));
        let mut below = 0;
        let (place, (key, _)) = self.counts.buckets().enumerate().find(|(_, (_, count))| {
            below += u64::from(*count);
            below >= rank
        })?;
        if place == 0 && self.is_joined { None } else { self.scale.middle(key) }
    }

    /// Whether it can have come from [`Sketch::add`] of at most `count` numbers; for state that comes from outside.
    pub(super) fn is_sound(&self, count: u64) -> bool {
        let counted = self.counts.buckets().fold(0_u64, |sum, (_, count)| sum.saturating_add(u64::from(count)));
        let key_max = match self.scale {
            Scale::Steps(_) => i64::from(i32::MAX),
            Scale::Octaves { buckets, .. } => i64::from(buckets) * EXPONENTS - 1,
        };
        let has_bounds = match &self.counts {
            Counts::Run { start, counts } => {
                counts[0] > 0 || *start == NOWHERE && counts.iter().all(|&counted| counted == 0)
            }
            Counts::Sparse(buckets) => buckets.len() <= BUCKETS_MAX && buckets.is_sorted_by(|(a, _), (b, _)| a < b),
        };
        has_bounds && counted <= count && self.counts.buckets().all(|(key, _)| i64::from(key).abs() <= key_max)
    }
}

fn raise(buckets: &mut [Bucket], place: usize, count: u32) {
    if let Some((_, counted)) = buckets.get_mut(place) {
        *counted = counted.saturating_add(count);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_number() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => -1e3..1e3f64,
            2 => (-50..50i32).prop_map(f64::from),
            1 => any::<f64>().prop_filter("finite", |number| number.is_finite()),
            1 => Just(-0.0),
            1 => Just(f64::MAX),
            1 => Just(f64::MIN_POSITIVE / 2.0),
        ]
    }

    fn any_percentile() -> impl Strategy<Value = Percentile> {
        prop_oneof![(1..100u32).prop_map(|percent| percent * 1000), 1..Percentile::WHOLE]
            .prop_map(|thousandths| Percentile::try_from(thousandths).unwrap())
    }

    fn sketch(buckets: Buckets, numbers: &[f64]) -> Sketch {
        let mut sketch = Sketch::new(Scale::new(buckets));
        numbers.iter().for_each(|&number| sketch.add(number));
        assert!(sketch.is_sound(numbers.len() as u64));
        sketch
    }

    /// The number of this rank, of all numbers in their order.
    fn exact(numbers: &[f64], percentile: Percentile) -> f64 {
        let mut numbers = numbers.to_vec();
        numbers.sort_by(f64::total_cmp);
        let rank = (numbers.len() * percentile.thousandths() as usize).div_ceil(Percentile::WHOLE as usize);
        numbers[rank - 1]
    }

    proptest! {
        #[test]
        fn a_percentile_is_within_the_relative_error(
            error in Buckets::RELATIVE_MIN..Buckets::RELATIVE_MAX,
            numbers in prop::collection::vec(any_number(), 1..300),
            percentile in any_percentile(),
        ) {
            let found = sketch(Buckets::Relative(error), &numbers).percentile(percentile).unwrap();
            let exact = exact(&numbers, percentile);
            // What is below the normal floats counts as zero.
            let allowed = (error * exact.abs()).max(f64::MIN_POSITIVE);
            prop_assert!((found - exact).abs() <= allowed, "{found} for {exact}");
        }

        #[test]
        fn a_percentile_is_within_half_a_step(
            step in prop::sample::select(vec![0.1, 0.01, 0.25, 5.0, 0.3]),
            numbers in prop::collection::vec(-1e4..1e4f64, 1..300),
            percentile in any_percentile(),
        ) {
            let found = sketch(Buckets::Steps(step), &numbers).percentile(percentile).unwrap();
            let exact = exact(&numbers, percentile);
            prop_assert!((found - exact).abs() <= step / 2.0 * (1.0 + 1e-9), "{found} for {exact}");
        }

        #[test]
        fn neither_order_nor_division_counts(
            numbers in prop::collection::vec(any_number(), 0..300),
            others in prop::collection::vec(any_number(), 0..300),
            wide in any::<bool>(),
        ) {
            // Wide: more buckets than may be, so that the lowest are joined.
            let spread = |part: &[f64], more: f64| -> Vec<f64> {
                let steps = (0..if wide { BUCKETS_MAX } else { 0 }).map(|i| more * (i as f64 + 1.0));
                part.iter().copied().chain(steps).collect()
            };
            let (numbers, others) = (spread(&numbers, 1.0), spread(&others, 1.5));
            let buckets = if wide { Buckets::Steps(0.1) } else { Buckets::default() };
            let whole = [numbers.as_slice(), others.as_slice()].concat();
            let expected = sketch(buckets, &whole);
            let mut merged = sketch(buckets, &numbers);
            merged.merge(&sketch(buckets, &others));
            prop_assert_eq!(&merged, &expected);
            let backwards: Vec<f64> = whole.iter().rev().copied().collect();
            prop_assert_eq!(&sketch(buckets, &backwards), &expected);
            prop_assert!(!wide || expected.is_joined);
        }
    }

    #[test]
    fn a_percentile_of_joined_buckets_has_no_value() {
        let numbers: Vec<f64> = (0..2 * BUCKETS_MAX as i32).map(f64::from).collect();
        let sketch = sketch(Buckets::Steps(1.0), &numbers);
        let percentile = |percent: u32| sketch.percentile(Percentile::try_from(percent * 1000).unwrap());
        assert_eq!((percentile(5), percentile(50)), (None, None));
        assert_eq!(percentile(51), Some(2088.0));
        assert_eq!(percentile(95), Some(3891.0));
    }

    #[test]
    fn a_bucket_may_hold_more_than_a_run_can_count() {
        let mut sketch = sketch(Buckets::default(), &[5.0; 70_000]);
        sketch.merge(&sketch.clone());
        assert!(sketch.is_sound(140_000) && !sketch.is_sound(139_999));
    }

    #[test]
    fn rounding_gives_the_nearest_decimal() {
        for (number, digits, expected) in [
            (29.412_37, 4, 29.41),
            (0.000_010_309_9, 4, 1.031e-5),
            (99_996.0, 4, 100_000.0),
            (1.0, 3, 1.0),
            (7_019.6, 4, 7_020.0),
            (1.234_56e-300, 4, 1.235e-300),
            (9.876_54e300, 5, 9.8765e300),
        ] {
            assert_eq!(rounded(number, digits), expected);
        }
    }

    #[test]
    fn steps_are_printed_as_the_decimals_that_they_are() {
        let sketch = sketch(Buckets::Steps(0.1), &[23.37]);
        assert_eq!(sketch.percentile(Percentile::try_from(50_000).unwrap()), Some(23.4));
    }

    #[test]
    fn what_is_beyond_all_steps_has_no_percentile() {
        let sketch = sketch(Buckets::Steps(0.1), &[-1e300, -1e300, 1.0, 1e300]);
        let percentile = |percent: u32| sketch.percentile(Percentile::try_from(percent * 1000).unwrap());
        assert_eq!((percentile(50), percentile(60), percentile(99)), (None, Some(1.0), None));
    }
}
