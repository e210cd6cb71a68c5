//! Where a record goes: its date, its stream, and the table that it is a row of.

use std::sync::Arc;
use std::time::Duration;

use rtlive_core::function::Function;
use rtlive_core::record::Record;
use rtlive_core::time::{Timestamp, nanos};

use super::table::Kind;

/// A day of UTC.
const DAY: Duration = Duration::from_secs(86_400);

/// The partition of records that speak of no time, as Hive calls it.
const NO_DATE: &str = "__HIVE_DEFAULT_PARTITION__";

/// Rows of one file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The day of UTC, as the number of days since 1970-01-01; `None` for records that speak of no time.
    day: Option<i64>,
    stream: Arc<str>,
    pub(super) kind: Kind,
}

impl Place {
    pub(super) fn of(stream: &Arc<str>, record: &Record, compute: &[Function]) -> Self {
        Self { day: day(record), stream: Arc::clone(stream), kind: Kind::of(record, compute) }
    }

    /// Whether a record of this stream goes here.
    pub(super) fn takes(&self, stream: &str, record: &Record, compute: &[Function]) -> bool {
        *self.stream == *stream && self.day == day(record) && self.kind.takes(record, compute)
    }

    /// The folder below that of the output.
    pub(super) fn folder(&self) -> String {
        let date = self.day.map_or_else(
            || NO_DATE.to_owned(),
            // The date is what a time of that day begins with.
            |day| Timestamp::from_nanos(noon(day)).to_string().chars().take("2026-01-01".len()).collect(),
        );
        format!("date={date}/stream={}", self.stream)
    }
}

/// A time of a day, also of the first and the last that there are.
fn noon(day: i64) -> i64 {
    day.saturating_mul(nanos(DAY)).saturating_add(nanos(DAY) / 2)
}

/// The day that a record belongs to: that of its time, or of the start of what it tells of.
fn day(record: &Record) -> Option<i64> {
    let time = match record {
        Record::Reading(reading) => reading.time,
        Record::Aggregate(aggregate) => aggregate.start,
        Record::Alert(alert) => alert.time,
        Record::Gap(gap) => gap.start.or(gap.end)?,
        Record::Outage(outage) => outage.start.unwrap_or(outage.end),
        Record::EpochStart(epoch) => epoch.time,
    };
    Some(time.as_nanos().div_euclid(nanos(DAY)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtlive_core::record::Gap;

    fn gap(start: Option<i64>) -> Record {
        Record::from(Gap {
            stream: "raw".into(),
            epoch: None,
            class: None,
            from: 1,
            to: 2,
            count: None,
            start: start.map(Timestamp::from_nanos),
            end: None,
            reason: "evicted".into(),
            covered_by: None,
        })
    }

    #[test]
    fn folders_are_named_by_date_and_stream() {
        for (start, date) in [
            (Some(0), "1970-01-01"),
            (Some(-1), "1969-12-31"),
            (Some(1_767_225_600_250_000_000), "2026-01-01"),
            (Some(i64::MAX), "2262-04-11"),
            (Some(i64::MIN), "1677-09-21"),
            (None, NO_DATE),
        ] {
            let place = Place::of(&"gaps".into(), &gap(start), &[]);
            assert_eq!(place.folder(), format!("date={date}/stream=gaps"));
        }
    }
}
