//! The kinds of windows: which intervals of event time a window aggregates over.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::{Timestamp, nanos};
use crate::zone::Zone;

const DAY: i64 = 86_400 * 1_000_000_000;

/// Which intervals of event time a window aggregates over. All are [start, end), and saturate at the ends of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum WindowKind {
    /// `[n × every + offset, (n + 1) × every + offset)` since the epoch.
    Tumbling {
        /// The length, and the step.
        every: Duration,
        /// How much later than a multiple of `every` they begin.
        offset: Duration,
    },
    /// Days or months of the clock on a wall; a day may have 23 or 25 hours.
    Calendar {
        /// Their length.
        length: CalendarLength,
        /// How much later by the clock on the wall they begin.
        offset: Duration,
        /// Where the wall stands.
        zone: Arc<Zone>,
    },
    /// `[n × every + offset, n × every + offset + over)`: each reading lies in `over / every` of them.
    Sliding {
        /// The step.
        every: Duration,
        /// The length; a multiple of `every`.
        over: Duration,
        /// How much later than a multiple of `every` they begin.
        offset: Duration,
    },
    /// From a reading until there was none for `gap`; readings less than `gap` apart share one.
    Session {
        /// The silence that ends it, which is a part of it.
        gap: Duration,
        /// How long it may be: one that would be longer is not joined to what makes it so.
        longest: Duration,
    },
}

/// The length of a [`WindowKind::Calendar`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CalendarLength {
    /// So many days, counted from 1970-01-01; whole weeks begin on a Monday.
    Days(u16),
    /// So many months, counted from 1970-01.
    Months(u16),
}

impl WindowKind {
    /// Windows without an offset.
    pub const fn tumbling(every: Duration) -> Self {
        Self::Tumbling { every, offset: Duration::ZERO }
    }

    /// How often windows of a series begin, or end at most in the case of sessions; that of a month is 28 days.
    pub fn step(&self) -> Duration {
        match self {
            Self::Tumbling { every, .. } | Self::Sliding { every, .. } => *every,
            Self::Calendar { length: CalendarLength::Days(days), .. } => Duration::from_secs(u64::from(*days) * 86_400),
            Self::Calendar { length: CalendarLength::Months(months), .. } => {
                Duration::from_secs(u64::from(*months) * 28 * 86_400)
            }
            Self::Session { gap, .. } => *gap,
        }
    }

    /// How long a window may be; that of a month is 31 days.
    pub fn length(&self) -> Duration {
        match self {
            Self::Sliding { over, .. } => *over,
            Self::Session { longest, .. } => *longest,
            Self::Calendar { length: CalendarLength::Months(months), .. } => {
                Duration::from_secs(u64::from(*months) * 31 * 86_400)
            }
            _ => self.step(),
        }
    }

    /// How many windows a reading lies in.
    pub(crate) fn overlapping(&self) -> u64 {
        match self {
            Self::Sliding { every, over, .. } => (over.as_nanos() / every.as_nanos().max(1)).max(1) as u64,
            _ => 1,
        }
    }

    /// The window that a time lies in: of sliding ones the latest; of sessions that of a reading alone.
    pub(crate) fn around(&self, time: Timestamp) -> (Timestamp, Timestamp) {
        match self {
            Self::Tumbling { every, offset } => {
                let every = nanos(*every);
                let behind = behind(time, every, nanos(*offset));
                // An end that is counted from a start would be too early where that was cut off.
                let end = time.as_nanos().saturating_add(every.max(1) - behind);
                (Timestamp::from_nanos(time.as_nanos().saturating_sub(behind)), Timestamp::from_nanos(end))
            }
            Self::Sliding { every, over, offset } => {
                let start = floor(time, nanos(*every), nanos(*offset));
                (start, start.saturating_add(*over))
            }
            Self::Calendar { length, offset, zone } => around_calendar(*length, nanos(*offset), zone, time),
            Self::Session { gap, .. } => (time, time.saturating_add(*gap)),
        }
    }

    /// The least start that a window may have which must not begin before a time. Sliding windows are not cut off there: several
    /// of the same start could not be told apart.
    pub(crate) fn start_from(&self, time: Timestamp) -> Timestamp {
        match self {
            Self::Sliding { .. } if time > Timestamp::MIN && self.around(time).0 < time => self.boundary_after(time),
            _ => time,
        }
    }

    /// The least start that a window may have which has not closed at a watermark; `lateness` in nanoseconds.
    pub(crate) fn least_start(&self, lateness: i64, watermark: Timestamp) -> Timestamp {
        let ended = Timestamp::from_nanos(watermark.as_nanos().saturating_sub(lateness));
        match self {
            Self::Tumbling { .. } | Self::Calendar { .. } => self.around(ended).0,
            Self::Sliding { over: length, .. } | Self::Session { gap: length, .. } => {
                self.boundary_after(ended.saturating_sub(*length))
            }
        }
    }

    /// The first instant after a time at which a window begins, so that no window before it has a start as late; for a session,
    /// which may begin at any, the next.
    pub(crate) fn boundary_after(&self, time: Timestamp) -> Timestamp {
        match self {
            Self::Session { .. } => time.saturating_add(Duration::from_nanos(1)),
            Self::Sliding { every, .. } => self.around(time).0.saturating_add(*every),
            Self::Tumbling { .. } | Self::Calendar { .. } => self.around(time).1,
        }
    }
}

/// The greatest `n × every + offset` that is not after a time.
fn floor(time: Timestamp, every: i64, offset: i64) -> Timestamp {
    Timestamp::from_nanos(time.as_nanos().saturating_sub(behind(time, every, offset)))
}

/// How far a time is behind the greatest `n × every + offset` that is not after it.
fn behind(time: Timestamp, every: i64, offset: i64) -> i64 {
    let every = every.max(1);
    let behind = time.as_nanos().rem_euclid(every) - offset.rem_euclid(every);
    if behind < 0 { behind + every } else { behind }
}

fn around_calendar(length: CalendarLength, offset: i64, zone: &Zone, time: Timestamp) -> (Timestamp, Timestamp) {
    /// Between what the clock shows and the boundaries there are at most two: it is put back over one, or skips a whole day.
    const STEPS_MAX: usize = 3;
    let begins = |place: i64| match local_start(length, place) {
        end @ (i64::MIN | i64::MAX) => Timestamp::from_nanos(end),
        local => zone.instant(local.saturating_add(offset)),
    };
    let mut place = local_place(length, zone.local(time).saturating_sub(offset));
    for _ in 0..STEPS_MAX {
        if begins(place) > time {
            place -= 1;
        } else if begins(place + 1) <= time {
            place += 1;
        }
    }
    (begins(place), begins(place + 1))
}

/// What number a time of the clock on the wall has among the days or months.
fn local_place(length: CalendarLength, local: i64) -> i64 {
    match length {
        CalendarLength::Days(days) => (local.div_euclid(DAY) - first_day(days)).div_euclid(i64::from(days.max(1))),
        CalendarLength::Months(months) => {
            let date =
                jiff::Timestamp::from_nanosecond(i128::from(local)).map(|time| jiff::tz::Offset::UTC.to_datetime(time));
            let month = date.map_or(0, |date| (i64::from(date.year()) - 1970) * 12 + i64::from(date.month()) - 1);
            month.div_euclid(i64::from(months.max(1)))
        }
    }
}

/// The time of the clock on the wall at which the window of a number begins.
fn local_start(length: CalendarLength, place: i64) -> i64 {
    match length {
        CalendarLength::Days(days) => {
            place.saturating_mul(i64::from(days.max(1))).saturating_add(first_day(days)).saturating_mul(DAY)
        }
        CalendarLength::Months(months) => {
            let month = place.saturating_mul(i64::from(months.max(1)));
            let year = i16::try_from(month.div_euclid(12).saturating_add(1970)).unwrap_or(i16::MAX);
            let date = jiff::civil::Date::new(year, month.rem_euclid(12) as i8 + 1, 1);
            let instant = date
                .and_then(|date| jiff::tz::Offset::UTC.to_timestamp(date.to_datetime(jiff::civil::Time::midnight())));
            let end = if place < 0 { i64::MIN } else { i64::MAX };
            instant.ok().and_then(|instant| i64::try_from(instant.as_nanosecond()).ok()).unwrap_or(end)
        }
    }
}

/// The day from which days are counted: 1970-01-01 is a Thursday, and weeks begin on the Monday before it.
const fn first_day(days: u16) -> i64 {
    if days.is_multiple_of(7) { -3 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calendar(length: CalendarLength, offset_hours: u64, zone: Zone) -> WindowKind {
        WindowKind::Calendar { length, offset: Duration::from_secs(offset_hours * 3_600), zone: Arc::new(zone) }
    }

    fn around(kind: &WindowKind, time: &str) -> [String; 2] {
        let (start, end) = kind.around(time.parse().unwrap());
        [start.to_string(), end.to_string()]
    }

    /// Central Europe in 2026: summer time from 29 March to 25 October, both at 01:00 UTC.
    fn central_europe() -> Zone {
        Zone::new("Europe/Berlin".into(), 3_600, vec![(1_774_746_000, 7_200), (1_792_890_000, 3_600)]).unwrap()
    }

    #[test]
    fn days_have_23_and_25_hours() {
        let day = calendar(CalendarLength::Days(1), 0, central_europe());
        assert_eq!(around(&day, "2026-03-29T12:00:00Z"), ["2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"]);
        assert_eq!(around(&day, "2026-10-24T22:00:00Z"), ["2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"]);
        assert_eq!(around(&day, "2026-10-25T22:59:59.999Z"), ["2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"]);
        // The day of gas begins at six by the clock, also on the Sunday on which the clock changes.
        let gas = calendar(CalendarLength::Days(1), 6, central_europe());
        assert_eq!(around(&gas, "2026-03-29T03:59:59Z"), ["2026-03-28T05:00:00Z", "2026-03-29T04:00:00Z"]);
    }

    #[test]
    fn weeks_begin_on_monday_and_months_on_the_first() {
        let week = calendar(CalendarLength::Days(7), 0, Zone::utc());
        assert_eq!(around(&week, "2026-11-24T12:00:00Z"), ["2026-11-23T00:00:00Z", "2026-11-30T00:00:00Z"]);
        let month = calendar(CalendarLength::Months(1), 0, central_europe());
        assert_eq!(around(&month, "2026-02-28T23:30:00Z"), ["2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z"]);
        let quarter = calendar(CalendarLength::Months(3), 0, Zone::utc());
        assert_eq!(around(&quarter, "1969-12-31T23:59:59Z"), ["1969-10-01T00:00:00Z", "1970-01-01T00:00:00Z"]);
    }

    /// Where the clock is put back from 00:30 to 23:30, midnight comes twice, and where it skips a day, that day has no length.
    #[test]
    fn every_instant_lies_in_one_window() {
        let odd = Zone::new("x".into(), 0, vec![(86_400 * 3 + 1_800, -3_600), (86_400 * 6, 86_400 - 3_600)]).unwrap();
        for length in
            [CalendarLength::Days(1), CalendarLength::Days(2), CalendarLength::Days(7), CalendarLength::Months(1)]
        {
            let kind = calendar(length, 0, odd.clone());
            let mut last = kind.around(Timestamp::from_nanos(0));
            for second in (0..86_400 * 12).step_by(600) {
                let time = Timestamp::from_nanos(second * 1_000_000_000);
                let (start, end) = kind.around(time);
                assert!(start <= time && time < end, "{start} {time} {end}");
                assert!((start, end) == last || start == last.1, "{last:?} and then {start}");
                last = (start, end);
            }
        }
    }

    #[test]
    fn the_ends_of_time_are_windows_too() {
        let kinds = [
            WindowKind::tumbling(Duration::from_secs(7)),
            WindowKind::Tumbling { every: Duration::from_secs(7), offset: Duration::from_secs(3) },
            WindowKind::Sliding {
                every: Duration::from_secs(7),
                over: Duration::from_secs(21),
                offset: Duration::ZERO,
            },
            WindowKind::Session { gap: Duration::from_secs(7), longest: Duration::from_secs(70) },
            calendar(CalendarLength::Days(1), 5, central_europe()),
            calendar(CalendarLength::Months(12), 5, central_europe()),
        ];
        for kind in kinds {
            for time in [Timestamp::MIN, Timestamp::from_nanos(i64::MIN + 1), Timestamp::from_nanos(i64::MAX - 1)] {
                let (start, end) = kind.around(time);
                assert!(start <= time && time < end, "{kind:?}: {start} {time} {end}");
                assert!(kind.boundary_after(time) > time);
            }
            let (start, end) = kind.around(Timestamp::MAX);
            assert!(start <= Timestamp::MAX && end == Timestamp::MAX, "{kind:?}");
        }
    }
}
