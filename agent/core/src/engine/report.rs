//! Report by exception: what a stream of readings leaves out, because it tells nothing new.
//!
//! A reading is compared with the last one of its series that went along, in the order of arrival, and at no other time: silence for
//! longer than the heartbeat says that nothing was read. A value that creeps is reported as soon as it has crept far enough.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ledger::ReportAccount;
use crate::plan::{Deadband, Plan, ReportPlan, StreamId, StreamKind};
use crate::reading::{Check, ClockState, Quality, Reading, SeriesId, Value};
use crate::sorted;
use crate::time::{Timestamp, nanos};

/// A series in a stream that takes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    pub(super) stream: StreamId,
    /// The place of what it last reported, where the stream leaves something out.
    report: Option<u32>,
}

/// What all such streams last reported.
#[derive(Debug, Default)]
pub(super) struct Reports {
    streams: Vec<(StreamId, ReportPlan)>,
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    /// The place in [`Reports::streams`], and in the ledger.
    stream: u16,
    series: SeriesId,
    last: Option<Last>,
}

/// The last reading of a series that went along.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Last {
    time: Timestamp,
    value: Value,
    state: (Quality, Option<Check>, ClockState),
}

/// What must survive of one stream.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedReport {
    pub(super) account: ReportAccount,
    pub(super) lasts: Vec<(SeriesId, Last)>,
}

impl Reports {
    /// The streams of a plan that leave something out, with an account for each.
    pub(super) fn new(plan: &Plan, accounts: &mut Vec<ReportAccount>) -> Self {
        let mut streams = Vec::new();
        for (i, stream) in plan.streams.iter().enumerate() {
            if let StreamKind::Raw { report: Some(report), .. } = &stream.kind {
                streams.push((StreamId(i as u16), report.clone()));
                accounts.push(ReportAccount { stream: Arc::clone(&stream.name), ..ReportAccount::default() });
            }
        }
        Self { streams, slots: Vec::new() }
    }

    /// The lane of a series in a stream that selects it.
    pub(super) fn lane(&mut self, stream: StreamId, series: SeriesId) -> Lane {
        let place = self.streams.iter().position(|(known, _)| *known == stream);
        let report = place.map(|place| {
            self.slots.push(Slot { stream: place as u16, series, last: None });
            self.slots.len() as u32 - 1
        });
        Lane { stream, report }
    }

    /// Whether a reading goes along.
    #[inline]
    pub(super) fn lets_pass(&mut self, lane: Lane, reading: &Reading, accounts: &mut [ReportAccount]) -> bool {
        lane.report.is_none_or(|place| self.tells_news(place, reading, accounts))
    }

    fn tells_news(&mut self, place: u32, reading: &Reading, accounts: &mut [ReportAccount]) -> bool {
        let Self { streams, slots } = self;
        let Some(slot) = slots.get_mut(place as usize) else { return true };
        let Some((_, plan)) = streams.get(usize::from(slot.stream)) else { return true };
        let tells_news = slot.last.as_ref().is_none_or(|last| last.differs(reading, plan));
        if tells_news {
            slot.last = Some(Last::of(reading));
        }
        if let Some(account) = accounts.get_mut(usize::from(slot.stream)) {
            account.selected += 1;
            account.reported += u64::from(tells_news);
            account.suppressed += u64::from(!tells_news);
        }
        tells_news
    }

    /// What must survive, in the order of the plan.
    pub(super) fn saved(&self, accounts: &[ReportAccount]) -> Vec<SavedReport> {
        let of_stream = |(place, account): (usize, &ReportAccount)| {
            let slots = self.slots.iter().filter(|slot| usize::from(slot.stream) == place);
            let mut lasts: Vec<_> = slots.filter_map(|slot| Some((slot.series, slot.last.clone()?))).collect();
            sorted::by_key(&mut lasts, |(series, _)| *series);
            SavedReport { account: account.clone(), lasts }
        };
        accounts.iter().enumerate().map(of_stream).collect()
    }

    /// Puts back the last reading of a series in the stream at this place of the ledger; `None` where `lane` is no lane of it.
    pub(super) fn restore(&mut self, stream: usize, lane: Lane, last: Last) -> Option<()> {
        let slot = self.slots.get_mut(lane.report? as usize)?;
        (usize::from(slot.stream) == stream).then(|| slot.last = Some(last))
    }
}

impl Last {
    fn of(reading: &Reading) -> Self {
        Self { time: reading.time, value: reading.value.clone(), state: state(reading) }
    }

    /// Whether a reading says something new beside this one.
    fn differs(&self, reading: &Reading, plan: &ReportPlan) -> bool {
        // Either way: a clock that was set back would keep a series that does not change silent until it has caught up.
        let between = reading.time.as_nanos().abs_diff(self.time.as_nanos());
        state(reading) != self.state
            || plan.heartbeat.is_some_and(|heartbeat| between >= nanos(heartbeat).unsigned_abs())
            || is_beyond(plan.deadband, &self.value, &reading.value)
    }
}

fn state(reading: &Reading) -> (Quality, Option<Check>, ClockState) {
    (reading.quality, reading.check, reading.clock)
}

fn is_beyond(deadband: Deadband, last: &Value, value: &Value) -> bool {
    let allowed = match deadband {
        Deadband::Any => None,
        Deadband::Absolute(bound) => Some((bound, 0.0)),
        Deadband::Relative(part) => Some((0.0, part)),
    };
    match (allowed, last.as_number(), value.as_number()) {
        (Some((bound, part)), Some(last), Some(value)) if last.is_finite() && value.is_finite() => {
            (value - last).abs() > bound + part * last.abs()
        }
        _ => !last.is_same(value),
    }
}
