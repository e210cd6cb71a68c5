//! Time zones as tables of their transitions.
//!
//! The table is resolved where the configuration is checked and stored with the plan, so that a replay of the journal cuts the same
//! days on every machine, whatever its time zone data say.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

const NANOS: i64 = 1_000_000_000;

/// No zone was ever further from UTC than 16 hours (Manila before 1844); a table with more is refused, and the search for an instant
/// begins this far before it.
const OFFSET_SECONDS_MAX: i32 = 26 * 3_600;

/// The most transitions of a zone: Morocco, with four a year because of Ramadan, has about 200 in its file, and two a year until 2262
/// are 600.
pub const TRANSITIONS_MAX: usize = 2_000;

/// A time zone: its offset from UTC in 1970, and every change of it since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    name: Arc<str>,
    /// The offset before the first transition, in seconds east of UTC.
    first: i32,
    /// When, in seconds since the epoch, which offset begins.
    transitions: Vec<(i64, i32)>,
}

impl Zone {
    /// A zone from its offset before the first transition and the transitions, in seconds. `None` where these are not in order, too
    /// many, or further from UTC than any zone ever was.
    pub fn new(name: Arc<str>, first: i32, transitions: Vec<(i64, i32)>) -> Option<Self> {
        let is_ordered = transitions.is_sorted_by(|(a, _), (b, _)| a < b);
        let mut offsets = transitions.iter().map(|(_, offset)| *offset).chain([first]);
        let are_offsets = offsets.all(|offset| offset.abs() <= OFFSET_SECONDS_MAX);
        (is_ordered && are_offsets && transitions.len() <= TRANSITIONS_MAX).then_some(Self { name, first, transitions })
    }

    /// The zone without an offset.
    pub fn utc() -> Self {
        Self { name: "UTC".into(), first: 0, transitions: Vec::new() }
    }

    /// The name in the configuration.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What the clock on the wall shows at an instant, in nanoseconds since it showed 1970-01-01T00:00:00.
    pub(crate) fn local(&self, time: Timestamp) -> i64 {
        let seconds = time.as_nanos().div_euclid(NANOS);
        let offset = self.offset(self.transitions.partition_point(|(at, _)| *at <= seconds));
        time.as_nanos().saturating_add(offset)
    }

    /// The first instant at which the clock on the wall shows a time or a later one: the first of two where it is put back over the
    /// time, and the instant at which it is put forward where it skips the time.
    pub(crate) fn instant(&self, local: i64) -> Timestamp {
        if local == i64::MIN || local == i64::MAX {
            return Timestamp::from_nanos(local);
        }
        let earliest = (local / NANOS).saturating_sub(i64::from(OFFSET_SECONDS_MAX));
        let begins = |segment: usize| match segment.checked_sub(1).and_then(|before| self.transitions.get(before)) {
            Some((at, _)) => at.saturating_mul(NANOS),
            None => i64::MIN,
        };
        let mut segment = self.transitions.partition_point(|(at, _)| *at <= earliest);
        loop {
            let instant = local.saturating_sub(self.offset(segment)).max(begins(segment));
            if segment >= self.transitions.len() || instant < begins(segment + 1) {
                return Timestamp::from_nanos(instant);
            }
            segment += 1;
        }
    }

    /// The offset behind so many transitions, in nanoseconds.
    fn offset(&self, transitions: usize) -> i64 {
        let last = transitions.checked_sub(1).and_then(|last| self.transitions.get(last));
        i64::from(last.map_or(self.first, |(_, offset)| *offset)) * NANOS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An hour ahead from second 100,000 on, back at 200,000.
    fn zone() -> Zone {
        Zone::new("Test/Zone".into(), 3_600, vec![(100_000, 7_200), (200_000, 3_600)]).unwrap()
    }

    #[test]
    fn every_instant_shows_a_time_that_leads_back_to_it_or_to_its_twin() {
        for seconds in (0..300_000).step_by(50) {
            let time = Timestamp::from_nanos(seconds * NANOS);
            let back = zone().instant(zone().local(time));
            let is_twin = (200_000..203_600).contains(&seconds);
            assert_eq!(back, Timestamp::from_nanos((seconds - if is_twin { 3_600 } else { 0 }) * NANOS));
        }
    }

    #[test]
    fn a_time_that_is_skipped_is_the_instant_of_the_skip() {
        for local in 103_600..107_200 {
            assert_eq!(zone().instant(local * NANOS), Timestamp::from_nanos(100_000 * NANOS));
        }
    }

    #[test]
    fn the_ends_of_time_saturate() {
        assert_eq!(zone().local(Timestamp::MAX), i64::MAX);
        assert_eq!(zone().instant(i64::MAX), Timestamp::MAX);
        assert_eq!(zone().instant(i64::MIN), Timestamp::MIN);
        assert_eq!(zone().local(Timestamp::MIN), i64::MIN + 3_600 * NANOS);
    }

    #[test]
    fn refuses_what_is_no_table() {
        assert_eq!(Zone::new("x".into(), 0, vec![(2, 0), (1, 0)]), None);
        assert_eq!(Zone::new("x".into(), 100_000, Vec::new()), None);
    }
}
