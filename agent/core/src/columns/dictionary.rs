//! Integers of which few are different and far apart: a scale with steps of its own, such as that of a table or of a coarse converter. The different
//! ones are a column, and the place of each value among them another.

use super::integers::COUNTED_VALUES_MIN;

/// How many different values there may be. So few are no column that would be given a dictionary itself.
const DIFFERENT_MAX: usize = 256;
const _: () = assert!(DIFFERENT_MAX < COUNTED_VALUES_MIN);
/// How often each comes at least, in the mean.
const TIMES_MIN: usize = 8;
/// Which part of the numbers from the lowest to the highest come at most; where more do, the numbers are as good as their places.
const SPREAD_MIN: usize = 4;
/// How far from each other the lowest and the highest may lie: each number between them has a place in a table.
const RANGE_MAX: usize = 1 << 14;
const WORD_BITS: usize = u64::BITS as usize;

/// The different values in their order, and the place of each value among them; nothing where they promise nothing.
pub(super) fn of(values: &[i64]) -> Option<(Vec<i64>, Vec<i64>)> {
    let (mut low, mut high) = (i64::MAX, i64::MIN);
    for value in values {
        (low, high) = (low.min(*value), high.max(*value));
    }
    let range = usize::try_from(high.checked_sub(low)?).ok().filter(|range| *range < RANGE_MAX)?;
    if range < DIFFERENT_MAX {
        return None;
    }
    let place = |value: i64| (value - low) as usize;
    let many_max = (values.len() / TIMES_MIN).min(range / SPREAD_MIN).min(DIFFERENT_MAX);
    let (mut comes, mut many) = (vec![0_u64; range / WORD_BITS + 1], 0);
    for value in values {
        let (word, bit) = (&mut comes[place(*value) / WORD_BITS], 1 << (place(*value) % WORD_BITS));
        many += usize::from(*word & bit == 0);
        *word |= bit;
        // Most columns have too many long before their end.
        if many > many_max {
            return None;
        }
    }
    let mut ranks = vec![0_u16; range + 1];
    let mut different = Vec::with_capacity(many);
    for (at, rank) in ranks.iter_mut().enumerate() {
        if comes[at / WORD_BITS] >> (at % WORD_BITS) & 1 == 1 {
            *rank = different.len() as u16;
            different.push(low + at as i64);
        }
    }
    let places = values.iter().map(|value| i64::from(ranks[place(*value)])).collect();
    Some((different, places))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_and_far_apart_are_found_and_others_are_not() {
        let scale = |step: i64| (0..1000).map(|i| -700 + i * i % 41 * step).collect::<Vec<i64>>();
        let (different, places) = of(&scale(37)).unwrap();
        assert!(different.is_sorted() && different.len() <= 41);
        let back: Vec<i64> = places.iter().map(|place| different[*place as usize]).collect();
        assert_eq!(back, scale(37));
        for values in [
            scale(1),
            scale(1 << 20),
            scale(37)[..100].to_vec(),
            (0..1000).map(|i| i * 37).collect(),
            vec![i64::MIN, i64::MAX],
        ] {
            assert!(of(&values).is_none());
        }
    }
}
