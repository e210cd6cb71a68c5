//! The schedule: polls fall on multiples of the wall clock, and one that is missed is counted, not made up for. Pure.

use std::time::Duration;

use rtlive_core::time::Timestamp;

/// A wall clock that differs from the steady one by more than this since the last look was set; slewing is at most 500 ppm.
const CLOCK_STEP_MIN: Duration = Duration::from_secs(1);

/// When each device is asked.
#[derive(Debug)]
pub(super) struct Schedule {
    polls: Vec<Poll>,
    /// The wall clock and the steady clock at the last look.
    looked: (Timestamp, Duration),
}

/// Those registers of a device that are read at one interval.
#[derive(Debug)]
struct Poll {
    device: usize,
    every: Duration,
    due: Timestamp,
}

impl Poll {
    /// Goes on to the next multiple, and says how many have passed since it was due, itself included.
    fn advance(&mut self, now: Timestamp) -> u64 {
        if self.due > now {
            return 0;
        }
        let late = now.since(self.due).as_nanos() / self.every.as_nanos().max(1);
        self.due = now.next_multiple(self.every);
        u64::try_from(late).unwrap_or(u64::MAX).saturating_add(1)
    }
}

/// What is due of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// At which intervals.
    pub(super) every: Vec<Duration>,
    /// How many polls before these were missed.
    pub(super) missed: u64,
}

impl Schedule {
    /// The polls of these devices, each at its intervals, the first at the next multiple. `steady` is a clock that nobody sets.
    pub(super) fn new(polls: impl IntoIterator<Item = (usize, Duration)>, now: Timestamp, steady: Duration) -> Self {
        let poll = |(device, every)| Poll { device, every, due: now.next_multiple(every) };
        Self { polls: polls.into_iter().map(poll).collect(), looked: (now, steady) }
    }

    /// Must be called with the time before [`Schedule::first`]. A clock that was set begins the schedule anew: what lies between is
    /// time that did not pass.
    pub(super) fn look(&mut self, now: Timestamp, steady: Duration) {
        let (wall, last) = self.looked;
        let passed = steady.saturating_sub(last);
        let expected = wall.saturating_add(passed);
        if now.since(expected).max(expected.since(now)) > CLOCK_STEP_MIN {
            self.polls.iter_mut().for_each(|poll| poll.due = now.next_multiple(poll.every));
        }
        self.looked = (now, steady);
    }

    /// The device that comes first among those that are due: the one that waits longest, and of these the one with the least
    /// `last`, so that devices which do not answer delay none that do.
    pub(super) fn first<K: Ord>(&self, now: Timestamp, last: impl Fn(usize) -> K) -> Option<usize> {
        let due = self.polls.iter().filter(|poll| poll.due <= now);
        due.min_by_key(|poll| (poll.due, last(poll.device), poll.device)).map(|poll| poll.device)
    }

    /// Takes what is due of a device.
    pub(super) fn take(&mut self, device: usize, now: Timestamp) -> Due {
        let mut taken = Due::default();
        for poll in self.polls.iter_mut().filter(|poll| poll.device == device && poll.due <= now) {
            taken.missed += poll.advance(now).saturating_sub(1);
            taken.every.push(poll.every);
        }
        taken
    }

    /// Gives up what is due, and says how many polls that are.
    pub(super) fn skip(&mut self, now: Timestamp) -> u64 {
        self.polls.iter_mut().map(|poll| poll.advance(now)).sum()
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.polls.iter().map(|poll| poll.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);

    /// So many milliseconds after a full minute.
    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(1_767_225_600_000 + ms).unwrap()
    }

    fn steady(ms: u64) -> Duration {
        Duration::from_secs(1000) + Duration::from_millis(ms)
    }

    #[test]
    fn polls_fall_on_multiples_and_missed_ones_are_counted() {
        let mut schedule = Schedule::new([(0, SECOND), (0, MINUTE), (1, SECOND)], at(300), steady(300));
        assert_eq!((schedule.next(), schedule.first(at(999), |_| 0)), (Some(at(1000)), None));
        assert_eq!(schedule.first(at(1000), |_| 0), Some(0));
        assert_eq!(schedule.take(0, at(1000)), Due { every: vec![SECOND], missed: 0 });
        // The other device is late by more than two polls, which are missed.
        assert_eq!(schedule.take(1, at(3100)), Due { every: vec![SECOND], missed: 2 });
        assert_eq!(schedule.next(), Some(at(2000)));
        assert_eq!(schedule.take(0, at(60_000)), Due { every: vec![SECOND, MINUTE], missed: 58 });
        assert_eq!(schedule.take(0, at(60_001)), Due::default());
        assert_eq!((schedule.skip(at(62_500)), schedule.next()), (2 + 59, Some(at(63_000))));
    }

    #[test]
    fn who_waits_longest_comes_first_and_then_who_answers() {
        let mut schedule = Schedule::new([(0, SECOND), (1, SECOND), (2, SECOND)], at(0), steady(0));
        let timeouts = [3, 0, 1];
        let mut order = Vec::new();
        while let Some(device) = schedule.first(at(1000), |device| timeouts[device]) {
            order.push(device);
            schedule.take(device, at(1000));
        }
        assert_eq!(order, [1, 2, 0]);
        schedule.take(1, at(2000));
        schedule.take(2, at(2000));
        assert_eq!(schedule.first(at(3000), |device| timeouts[device]), Some(0));
    }

    #[test]
    fn a_clock_that_is_set_begins_anew_and_misses_nothing() {
        for ms in [-3_600_000, 3_600_500] {
            let mut schedule = Schedule::new([(0, SECOND)], at(0), steady(0));
            schedule.look(at(900), steady(900));
            schedule.look(at(ms), steady(950));
            assert_eq!(schedule.next(), Some(at(ms).next_multiple(SECOND)));
            assert_eq!(schedule.first(at(ms), |_| 0), None);
        }
        // Time that did pass, on the other hand, is missed.
        let mut schedule = Schedule::new([(0, SECOND)], at(0), steady(0));
        schedule.look(at(30_500), steady(30_500));
        assert_eq!(schedule.take(0, at(30_500)), Due { every: vec![SECOND], missed: 29 });
    }
}
