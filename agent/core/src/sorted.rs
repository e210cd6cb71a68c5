//! Order with little code: `sort` and `collect` take 2 to 5 kB of the program for each type that they put into order.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// A map of these pairs; of equal keys the last one counts.
pub fn map<K: Ord, V>(pairs: impl IntoIterator<Item = (K, V)>) -> BTreeMap<K, V> {
    let mut map = BTreeMap::new();
    map.extend(pairs);
    map
}

/// A set of these items.
pub fn set<T: Ord>(items: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    let mut set = BTreeSet::new();
    set.extend(items);
    set
}

/// Puts items into order, as `sort_by` does: equal ones stay in theirs. Slower than that, for what is sorted seldom.
pub fn by<T>(items: &mut [T], compare: impl Fn(&T, &T) -> Ordering) {
    let in_order = |a: usize, b: usize| match (items.get(a), items.get(b)) {
        (Some(a), Some(b)) => compare(a, b),
        _ => Ordering::Equal,
    };
    let mut from = places(items.len(), &in_order);
    // Each place takes the item that belongs there, and gives its own to the place from which that came, until a circle is closed.
    for start in 0..items.len() {
        let mut place = start;
        while from[place] != start {
            items.swap(place, from[place]);
            place = std::mem::replace(&mut from[place], place);
        }
        from[place] = place;
    }
}

/// As [`by`], by a key of each item.
pub fn by_key<T, K: Ord>(items: &mut [T], key: impl Fn(&T) -> K) {
    by(items, |a, b| key(a).cmp(&key(b)));
}

/// From where the item of each place comes: the one sort, whatever is sorted.
fn places(count: usize, compare: &dyn Fn(usize, usize) -> Ordering) -> Vec<usize> {
    let mut places: Vec<usize> = (0..count).collect();
    places.sort_by(|&a, &b| compare(a, b));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_in_the_order_of_a_stable_sort() {
        let mut random = 1_u32;
        for count in 0..200 {
            let next = |place: usize| {
                random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (random >> 28, place.to_string())
            };
            let items: Vec<(u32, String)> = (0..count).map(next).collect();
            let (mut expected, mut found) = (items.clone(), items);
            expected.sort_by_key(|(key, _)| *key);
            by_key(&mut found, |(key, _)| *key);
            assert_eq!(found, expected);
        }
    }
}
