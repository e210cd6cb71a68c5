//! Maps without a sort.

use std::collections::BTreeMap;

/// A map of these pairs; of equal keys the last one counts. `collect` would sort them first, with 5 kB of code for each type of pair.
pub fn map<K: Ord, V>(pairs: impl IntoIterator<Item = (K, V)>) -> BTreeMap<K, V> {
    let mut map = BTreeMap::new();
    map.extend(pairs);
    map
}
