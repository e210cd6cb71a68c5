//! Points in time and their text form.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time: nanoseconds since 1970-01-01T00:00:00Z, without leap seconds.
///
/// Covers 1677-09-21 to 2262-04-11, the range of 64 signed bits. Arithmetic saturates at these ends, so that no input
/// can make it wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

/// Why a text or a number is not a [`Timestamp`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// The text does not follow RFC 3339, section 5.6.
    #[error("expected an RFC 3339 time such as 2026-01-01T00:00:00.25Z, found {0:?}")]
    NotRfc3339(String),
    /// The time is not in the range of [`Timestamp`].
    #[error("expected a time between 1677-09-21 and 2262-04-11, found {0}")]
    OutOfRange(String),
}

impl Timestamp {
    /// The earliest point in time.
    pub const MIN: Self = Self(i64::MIN);
    /// The latest point in time.
    pub const MAX: Self = Self(i64::MAX);
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// From nanoseconds since the Unix epoch.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// From milliseconds since the Unix epoch; `None` out of range.
    pub const fn from_millis(millis: i64) -> Option<Self> {
        match millis.checked_mul(1_000_000) {
            Some(nanos) => Some(Self(nanos)),
            None => None,
        }
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Later by `span`, at most [`Timestamp::MAX`].
    pub fn saturating_add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(nanos(span)))
    }

    /// Earlier by `span`, at least [`Timestamp::MIN`].
    pub fn saturating_sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(span)))
    }

    /// How much later this is than `earlier`; zero when it is not later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0).max(0).cast_unsigned())
    }

    /// The largest multiple of `span` since the epoch that is not after this; `span` of zero changes nothing.
    pub fn floor(self, span: Duration) -> Self {
        match nanos(span) {
            0 => self,
            span => Self(self.0.saturating_sub(self.0.rem_euclid(span))),
        }
    }

    /// The first multiple of `span` since the epoch that is after this: when what happens every `span` happens next.
    pub fn next_multiple(self, span: Duration) -> Self {
        self.floor(span).saturating_add(span)
    }
}

/// Nanoseconds of a duration, at most `i64::MAX` (292 years).
pub fn nanos(span: Duration) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with the shortest fraction: `2026-01-01T00:00:00.25Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(time) => time.fmt(f),
            Err(_) => write!(f, "{} ns", self.0),
        }
    }
}

impl FromStr for Timestamp {
    type Err = TimeError;

    /// RFC 3339, any offset; digits below a nanosecond are refused.
    fn from_str(text: &str) -> Result<Self, TimeError> {
        let time: jiff::Timestamp = text.parse().map_err(|_| TimeError::NotRfc3339(text.into()))?;
        let nanos = i64::try_from(time.as_nanosecond()).map_err(|_| TimeError::OutOfRange(text.into()))?;
        Ok(Self(nanos))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_the_shortest_fraction() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (250_000_000, "1970-01-01T00:00:00.25Z"),
            (1, "1970-01-01T00:00:00.000000001Z"),
            (-1_000_000, "1969-12-31T23:59:59.999Z"),
            (i64::MAX, "2262-04-11T23:47:16.854775807Z"),
            (i64::MIN, "1677-09-21T00:12:43.145224192Z"),
        ] {
            assert_eq!(Timestamp::from_nanos(nanos).to_string(), text);
            assert_eq!(text.parse(), Ok(Timestamp::from_nanos(nanos)));
        }
    }

    #[test]
    fn refuses_what_is_no_time_or_out_of_range() {
        assert!(matches!("yesterday".parse::<Timestamp>(), Err(TimeError::NotRfc3339(_))));
        assert!(matches!("2500-01-01T00:00:00Z".parse::<Timestamp>(), Err(TimeError::OutOfRange(_))));
        assert_eq!("2026-01-01T01:00:00+01:00".parse::<Timestamp>(), "2026-01-01T00:00:00Z".parse());
    }

    #[test]
    fn floors_towards_the_past_also_before_the_epoch() {
        let ten = Duration::from_nanos(10);
        assert_eq!(Timestamp::from_nanos(19).floor(ten), Timestamp::from_nanos(10));
        assert_eq!(Timestamp::from_nanos(-1).floor(ten), Timestamp::from_nanos(-10));
        assert_eq!(Timestamp::MIN.floor(ten), Timestamp::MIN);
    }

    #[test]
    fn the_next_multiple_is_always_later() {
        let ten = Duration::from_nanos(10);
        for (now, next) in [(0, 10), (1, 10), (9, 10), (10, 20), (-1, 0)] {
            assert_eq!(Timestamp::from_nanos(now).next_multiple(ten), Timestamp::from_nanos(next));
        }
    }
}
