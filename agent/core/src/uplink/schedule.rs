//! When an uplink connects that does so only at times.

use std::time::Duration;

use crate::time::Timestamp;

/// The times at which to connect: multiples of `every`, and `offset` more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// How often.
    pub every: Duration,
    /// How much later than the multiples of it, counted from 1970-01-01T00:00:00Z; less than `every`.
    pub offset: Duration,
    /// Whether an alert does not wait for such a time.
    pub alerts_now: bool,
    /// How long a connection lasts at least: what the store holds loose becomes frames with the next commit once there is a link.
    pub linger: Duration,
}

impl Schedule {
    /// An offset of which no two agents' are likely to be the same, and which is always the same for one.
    pub fn offset_of(agent: &str, every: Duration) -> Duration {
        // A hash as a fraction of 2³², in units of `every`.
        let part = u128::from(crc32fast::hash(agent.as_bytes()));
        Duration::from_nanos(u64::try_from((every.as_nanos() * part) >> 32).unwrap_or_default())
    }

    /// How long it is until the next time.
    pub fn wait(&self, now: Timestamp) -> Duration {
        let every = i128::try_from(self.every.as_nanos()).unwrap_or(i128::MAX).max(1);
        let offset = i128::try_from(self.offset.as_nanos()).unwrap_or_default();
        let passed = (i128::from(now.as_nanos()) - offset).rem_euclid(every);
        u64::try_from(every - passed).map_or(self.every, Duration::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_next_time_is_a_multiple_and_the_offset_more(now: i32, every in 1_u64..100_000, agent in "[a-z]{1,8}") {
            let every = Duration::from_secs(every);
            let offset = Schedule::offset_of(&agent, every);
            prop_assert!(offset < every);
            let schedule = Schedule { every, offset, alerts_now: true, linger: Duration::ZERO };
            let now = Timestamp::from_nanos(i64::from(now) * 1_000_000_000);
            let wait = schedule.wait(now);
            prop_assert!(wait > Duration::ZERO && wait <= every);
            let at = now.saturating_add(wait).as_nanos() - i64::try_from(offset.as_nanos()).unwrap();
            prop_assert_eq!(at.rem_euclid(i64::try_from(every.as_nanos()).unwrap()), 0);
            // Then the one after it.
            prop_assert_eq!(schedule.wait(now.saturating_add(wait)), every);
        }
    }

    #[test]
    fn a_fleet_is_spread_over_the_period() {
        let hour = Duration::from_secs(3600);
        let mut minutes = [0; 60];
        for agent in 0..6000 {
            let offset = Schedule::offset_of(&format!("gw-{agent:04}"), hour);
            minutes[usize::try_from(offset.as_secs() / 60).unwrap()] += 1;
        }
        assert!(minutes.iter().all(|&count| (50..150).contains(&count)), "{minutes:?}");
    }
}
