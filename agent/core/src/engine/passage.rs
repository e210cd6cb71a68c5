//! The way of one reading of a known series, whether an input brought it or it was derived from others.
//!
//! ```text
//! raw streams (what is news) ──▶ watermark ──▶ rules ──▶ windows, or `late`
//! ```

use super::WindowAccount;
use super::derived::Derived;
use super::ledger::ReportAccount;
use super::report::Reports;
use super::rule::{Rules, Seen, Stamp};
use super::series::{Route, SeriesTable};
use super::watermark::Source;
use super::window::Windows;
use crate::expr::Sample;
use crate::plan::{Plan, StreamId};
use crate::reading::{Quality, Reading};
use crate::record::{Emitted, Record};
use crate::time::Timestamp;

/// What a reading may touch on its way.
pub(super) struct Passage<'a> {
    pub(super) plan: &'a Plan,
    pub(super) origin: Origin,
    /// Whether the reading that is on its way got its time from the agent's clock.
    pub(super) is_by_clock: bool,
    /// When it arrived, by the wall clock.
    pub(super) arrival: Timestamp,
    pub(super) series: &'a SeriesTable,
    pub(super) sources: &'a mut [Source],
    pub(super) windows: &'a mut Windows,
    pub(super) reports: &'a mut Reports,
    pub(super) rules: &'a mut Rules,
    pub(super) derived: &'a mut Derived,
    pub(super) accounts: &'a mut [WindowAccount],
    pub(super) report_accounts: &'a mut [ReportAccount],
    /// Sources whose watermark has passed something.
    pub(super) queued: &'a mut Vec<u32>,
}

/// Where a reading comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// An input brought it.
    Input,
    /// An input brought it, and it waited for the clock: rules have seen it on its arrival.
    Clock,
    /// It was derived from readings: rules have seen it on their arrival.
    Readings,
    /// It was derived from aggregates.
    Windows,
}

/// What became of a reading, for the account of where it came from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fate {
    /// In raw streams alone.
    pub(super) is_bad: bool,
    /// Too late for at least one window.
    pub(super) is_late: bool,
    /// In at least one window.
    pub(super) is_open: bool,
}

impl Passage<'_> {
    /// Takes a reading on its way. `out_of_order`, in nanoseconds, is how far behind it the watermark of its source stays.
    #[inline]
    pub(super) fn take(&mut self, reading: &Reading, route: &Route, out_of_order: i64, out: &mut Vec<Emitted>) -> Fate {
        let mut fate = Fate { is_bad: reading.quality == Quality::Bad, ..Fate::default() };
        for &lane in self.series.raw(route) {
            if self.reports.lets_pass(lane, reading, self.report_accounts) {
                out.push(Emitted { stream: lane.stream, record: Record::Reading(reading.clone()) });
            }
        }
        self.show_to_rules(reading, route, out);
        if let Some(place) = route.joined {
            self.derived.take(place, reading, self.sources);
        }
        let Some(source) = self.sources.get_mut(route.source as usize) else { return fate };
        hear(source, route.source, reading.time, out_of_order, self.arrival, self.derived);
        if !fate.is_bad {
            (fate.is_late, fate.is_open) =
                self.windows.add_to_all(route.slots(), reading.time, &reading.value, source, self.accounts);
            if fate.is_late {
                out.push(Emitted { stream: StreamId::LATE, record: Record::Reading(reading.clone()) });
            }
        }
        if source.has_due() && !source.is_queued {
            source.is_queued = true;
            self.queued.push(route.source);
        }
        fate
    }

    /// Takes from a reading that is kept out only what its time says: its source has come so far.
    pub(super) fn pass_by(&mut self, reading: &Reading, route: &Route, out_of_order: i64) {
        let Some(source) = self.sources.get_mut(route.source as usize) else { return };
        hear(source, route.source, reading.time, out_of_order, self.arrival, self.derived);
        if source.has_due() && !source.is_queued {
            source.is_queued = true;
            self.queued.push(route.source);
        }
    }

    /// Lets rules look at a reading, which is all that one may do that waits for the clock. They see what is derived from it at once, by
    /// newest values, and not when it is computed.
    #[inline]
    pub(super) fn show_to_rules(&mut self, reading: &Reading, route: &Route, out: &mut Vec<Emitted>) {
        if matches!(self.origin, Origin::Clock | Origin::Readings) {
            return;
        }
        if let Some(place) = route.recent {
            let (stamp, seen) = self.seen(reading);
            self.rules.observe(self.plan, place, self.arrival, stamp, seen, out);
        }
        if let Some(place) = route.joined.filter(|_| self.derived.is_watched()) {
            self.show_derived(place, reading, out);
        }
    }

    #[cold]
    fn show_derived(&mut self, place: u32, reading: &Reading, out: &mut Vec<Emitted>) {
        let (stamp, seen) = self.seen(reading);
        let Self { plan, arrival, series: table, rules, .. } = self;
        self.derived.observe(plan, table, place, seen, |series, seen| {
            if let Some(place) = table.routes.get(series.index()).and_then(|route| route.recent) {
                rules.observe(plan, place, *arrival, stamp, seen, out);
            }
        });
    }

    fn seen(&self, reading: &Reading) -> (Stamp, Seen) {
        let (time, is_by_clock) = (reading.time, self.is_by_clock);
        let sample = Sample { time, value: reading.sound_value() };
        (Stamp { time, is_by_clock }, Seen { sample, is_by_clock })
    }
}

/// A source speaks.
#[inline]
fn hear(
    source: &mut Source,
    place: u32,
    time: Timestamp,
    out_of_order: i64,
    arrival: Timestamp,
    derived: &mut Derived,
) {
    let before = source.watermark;
    source.observe(time, out_of_order);
    source.heard = source.heard.max(Some(arrival));
    source.is_idle = false;
    if source.watermark > before {
        derived.touch(place);
    }
}
