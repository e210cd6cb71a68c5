//! Sets of numbers, as the intervals that they make: which records of a lane are here.
//!
//! A lane's numbers arrive in an order that nobody promises: backlog from its newest end, live frames before it, the same frame twice. A high-water
//! mark would take what lies below it for known; a set of intervals says what is known.

use rtlive_core::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Numbers without holes, and the latest event time that their records speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// The first number.
    pub from: u64,
    /// The last number.
    pub to: u64,
    /// The latest event time of the records, where any speaks of one.
    pub latest: Option<Timestamp>,
}

/// Numbers from the first to the last, without holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// The first.
    pub from: u64,
    /// The last; not before the first.
    pub to: u64,
}

/// A set of numbers: intervals in ascending order that do not touch each other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Intervals(Vec<Interval>);

impl Numbers {
    /// How many.
    pub const fn count(self) -> u64 {
        (self.to - self.from).saturating_add(1)
    }
}

impl Intervals {
    /// Adds numbers, of records that speak of times up to `latest`, and says which of them were not there before, in ascending order.
    pub fn insert(&mut self, numbers: Numbers, latest: Option<Timestamp>) -> Vec<Numbers> {
        let new = self.missing(numbers);
        if new.is_empty() {
            return new;
        }
        // All that overlap the new one or touch it become one with it.
        let first = self.0.partition_point(|known| known.to < numbers.from.saturating_sub(1));
        let behind = self.0.partition_point(|known| known.from <= numbers.to.saturating_add(1));
        let mut joined = Interval { from: numbers.from, to: numbers.to, latest };
        for known in self.0.drain(first..behind) {
            joined.from = joined.from.min(known.from);
            joined.to = joined.to.max(known.to);
            joined.latest = joined.latest.max(known.latest);
        }
        self.0.insert(first, joined);
        new
    }

    /// Which of these numbers are not in the set, in ascending order.
    pub fn missing(&self, Numbers { from, to }: Numbers) -> Vec<Numbers> {
        let mut missing = Vec::new();
        let mut next = from;
        let first = self.0.partition_point(|known| known.to < from);
        for known in self.0.iter().skip(first).take_while(|known| known.from <= to) {
            if known.from > next {
                missing.push(Numbers { from: next, to: known.from - 1 });
            }
            match known.to.checked_add(1) {
                Some(behind) => next = behind,
                None => return missing,
            }
        }
        if next <= to {
            missing.push(Numbers { from: next, to });
        }
        missing
    }

    /// The intervals, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Interval> + '_ {
        self.0.iter().copied()
    }

    /// The greatest number.
    pub fn last(&self) -> Option<u64> {
        self.0.last().map(|known| known.to)
    }

    /// How many numbers are in the set.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|known| Numbers { from: known.from, to: known.to }.count()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn at(nanos: u64) -> Option<Timestamp> {
        Some(Timestamp::from_nanos(nanos.cast_signed()))
    }

    fn numbers(from: u64, to: u64) -> Numbers {
        Numbers { from, to }
    }

    proptest! {
        #[test]
        fn it_is_the_set_that_it_stands_for(added in prop::collection::vec((1_u64..60, 0_u64..12), 0..40)) {
            let (mut intervals, mut set) = (Intervals::default(), BTreeSet::new());
            for (from, more) in added {
                let new = intervals.insert(numbers(from, from + more), at(from + more));
                let new: Vec<u64> = new.iter().flat_map(|new| new.from..=new.to).collect();
                let expected: Vec<u64> = (from..=from + more).filter(|number| set.insert(*number)).collect();
                prop_assert_eq!(new, expected);
                prop_assert_eq!(intervals.count(), set.len() as u64);
                prop_assert_eq!(intervals.last(), set.last().copied());
                let listed: Vec<Interval> = intervals.iter().collect();
                prop_assert!(listed.windows(2).all(|pair| pair[0].to + 1 < pair[1].from), "{:?}", listed);
                prop_assert!(listed.iter().all(|known| (known.from..=known.to).all(|number| set.contains(&number))));
                prop_assert!(listed.iter().all(|known| known.latest == at(known.to)), "{:?}", listed);
            }
        }
    }

    #[test]
    fn the_ends_of_all_numbers_are_numbers() {
        let mut intervals = Intervals::default();
        assert_eq!(intervals.insert(numbers(u64::MAX - 1, u64::MAX), None), [numbers(u64::MAX - 1, u64::MAX)]);
        assert_eq!(intervals.insert(numbers(0, 0), None), [numbers(0, 0)]);
        assert_eq!(intervals.insert(numbers(0, u64::MAX), None), [numbers(1, u64::MAX - 2)]);
        assert_eq!(intervals.iter().count(), 1);
        assert_eq!(intervals.missing(numbers(0, u64::MAX)), []);
    }
}
