//! Windows as plainly as they can be computed. Every one keeps its readings, and is computed anew whenever it is told.

use rtlive_core::plan::{CalendarLength, WindowKind, WindowPlan};
use rtlive_core::reading::Value;

use crate::expected::{Expected, Told};
use crate::plans::{self, SECOND};

/// An open window.
#[derive(Clone, Debug)]
pub(crate) struct Pane {
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) readings: Vec<(i64, Value)>,
    pub(crate) revisions: u32,
    pub(crate) is_finished: bool,
    pub(crate) is_changed: bool,
    pub(crate) is_reopened: bool,
}

/// A series in a window under one definition.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub(crate) kind: WindowKind,
    pub(crate) lateness: i64,
    pub(crate) floor: i64,
    /// Where the definition begins, where there was one before.
    pub(crate) begins: i64,
    pub(crate) panes: Vec<Pane>,
}

pub(crate) fn nanos(span: std::time::Duration) -> i64 {
    span.as_nanos() as i64
}

/// All windows of a kind that a time lies in, the latest first.
fn windows_around(kind: &WindowKind, time: i64) -> Vec<(i64, i64)> {
    match kind {
        WindowKind::Tumbling { every, offset } => {
            let (every, offset) = (nanos(*every), nanos(*offset));
            let start = (time - offset).div_euclid(every) * every + offset;
            vec![(start, start + every)]
        }
        WindowKind::Sliding { every, over, offset } => {
            let (every, over, offset) = (nanos(*every), nanos(*over), nanos(*offset));
            let mut windows = Vec::new();
            let mut start = (time - offset).div_euclid(every) * every + offset;
            while start + over > time {
                windows.push((start, start + over));
                start -= every;
            }
            windows
        }
        WindowKind::Calendar { length, offset, .. } => vec![calendar(*length, nanos(*offset), time)],
        WindowKind::Session { gap, .. } => vec![(time, time + nanos(*gap))],
    }
}

/// By the calendar of a library, day by day from well before the time.
fn calendar(length: CalendarLength, offset: i64, time: i64) -> (i64, i64) {
    use jiff::{ToSpan, civil};
    let (mut date, step) = match length {
        CalendarLength::Days(days) => {
            let first = if days % 7 == 0 { civil::date(1969, 12, 29) } else { civil::date(1970, 1, 1) };
            let days = i64::from(days);
            let passed = time.div_euclid(86_400 * SECOND) / days * days - 2 * days;
            (first.checked_add(passed.days()).unwrap(), days.days())
        }
        CalendarLength::Months(months) => {
            let near =
                jiff::Timestamp::from_nanosecond(i128::from(time)).unwrap().to_zoned(jiff::tz::TimeZone::UTC).date();
            let month = (i64::from(near.year()) - 1970) * 12 + i64::from(near.month()) - 1;
            let months = i64::from(months);
            (
                civil::date(1970, 1, 1).checked_add((month / months * months - 2 * months).months()).unwrap(),
                months.months(),
            )
        }
    };
    let begins = |date: civil::Date| {
        let time = date.to_datetime(civil::Time::midnight()).checked_add(offset.nanoseconds()).unwrap();
        plans::berlin().to_zoned(time).unwrap().timestamp().as_nanosecond() as i64
    };
    loop {
        let next = date.checked_add(step).unwrap();
        if begins(next) > time {
            return (begins(date), begins(next));
        }
        date = next;
    }
}

/// The first start of a window after a time.
pub(crate) fn boundary_after(kind: &WindowKind, time: i64) -> i64 {
    match kind {
        WindowKind::Session { .. } => time + 1,
        WindowKind::Sliding { every, .. } => windows_around(kind, time)[0].0 + nanos(*every),
        _ => windows_around(kind, time)[0].1,
    }
}

impl Slot {
    pub(crate) fn new(window: &WindowPlan, floor: i64) -> Self {
        // Sliding windows are not cut off: they begin at their next step.
        let floor = match window.kind {
            WindowKind::Sliding { .. } if floor > i64::MIN => boundary_after(&window.kind, floor - 1),
            _ => floor,
        };
        Self { kind: window.kind.clone(), lateness: nanos(window.lateness), floor, begins: i64::MIN, panes: Vec::new() }
    }

    /// The first start that a window may have which has not closed.
    pub(crate) fn least_start(&self, watermark: i64) -> i64 {
        let ended = watermark - self.lateness;
        match &self.kind {
            WindowKind::Sliding { over, .. } => boundary_after(&self.kind, ended - nanos(*over)),
            WindowKind::Session { gap, .. } => ended - nanos(*gap) + 1,
            kind => windows_around(kind, ended)[0].0,
        }
    }

    /// The first start behind all that is known to have been open.
    pub(crate) fn fresh_start(&self, watermark: Option<i64>) -> i64 {
        let behind = self.panes.iter().map(|pane| match &self.kind {
            WindowKind::Sliding { every, .. } => pane.start + nanos(*every),
            _ => pane.end,
        });
        let closed = watermark.map_or(i64::MIN, |watermark| self.least_start(watermark));
        behind.max().unwrap_or(i64::MIN).max(self.floor).max(closed)
    }

    /// Takes a reading: how many windows it is late for, whether one takes it, and the sessions that are taken back.
    pub(crate) fn add(&mut self, time: i64, value: &Value, watermark: i64) -> (u64, bool, Vec<Pane>) {
        if time < self.floor {
            return (1, false, Vec::new());
        }
        if let WindowKind::Session { gap, longest } = self.kind {
            return self.add_to_session(time, value, watermark, nanos(gap), nanos(longest));
        }
        let (mut late, mut is_open) = (0, false);
        for (start, end) in windows_around(&self.kind, time) {
            let start = match self.kind {
                WindowKind::Sliding { .. } if start < self.floor => continue,
                _ => start.max(self.floor),
            };
            if watermark >= end + self.lateness {
                late += 1;
                continue;
            }
            is_open = true;
            let place = self.panes.iter().position(|pane| pane.start == start).unwrap_or_else(|| {
                self.panes.push(Pane::new(start, end));
                self.panes.len() - 1
            });
            self.panes[place].readings.push((time, value.clone()));
            self.panes[place].is_changed = true;
        }
        if let (WindowKind::Sliding { .. }, 0, false) = (&self.kind, late, is_open) {
            // No window of it begins between the floor and the reading; the floor is a start, so this cannot be.
            unreachable!("a reading in no window");
        }
        (late, is_open, Vec::new())
    }

    fn add_to_session(
        &mut self,
        time: i64,
        value: &Value,
        watermark: i64,
        gap: i64,
        longest: i64,
    ) -> (u64, bool, Vec<Pane>) {
        let is_open = |pane: &Pane| watermark < pane.end + self.lateness;
        let is_near = |pane: &Pane| time < pane.end && pane.start < time + gap;
        let (mut near, mut rest): (Vec<Pane>, Vec<Pane>) =
            self.panes.drain(..).partition(|pane| is_open(pane) && is_near(pane));
        near.sort_by_key(|pane| pane.start);
        let mut joined: Option<Pane> = None;
        let (mut start, mut end) = (time, time + gap);
        let mut members = Vec::new();
        for pane in near {
            if end.max(pane.end) - start.min(pane.start) <= longest {
                (start, end) = (start.min(pane.start), end.max(pane.end));
                members.push(pane);
            } else {
                rest.push(pane);
            }
        }
        let would_begin = members.first().is_none_or(|first| time < first.start);
        if would_begin && watermark >= time + gap + self.lateness {
            self.panes = rest.into_iter().chain(members).collect();
            return (1, false, Vec::new());
        }
        let mut taken_back = Vec::new();
        if members.is_empty() {
            joined = Some(Pane::new(time, time + gap));
        }
        let was_told_wrongly = members
            .iter()
            .any(|pane| pane.is_finished || pane.is_reopened || (pane.revisions > 0 && pane.start != start));
        for member in members {
            let keeps_key = member.start == start;
            if member.revisions > 0 && !keeps_key {
                taken_back.push(member.clone());
            }
            let joined = joined.get_or_insert_with(|| Pane::new(start, end));
            joined.readings.extend(member.readings);
            if keeps_key {
                joined.revisions = member.revisions;
            }
        }
        let mut joined = joined.unwrap();
        (joined.start, joined.end) = (start, end);
        joined.readings.push((time, value.clone()));
        joined.is_changed = true;
        joined.is_reopened = was_told_wrongly;
        rest.push(joined);
        self.panes = rest;
        (0, true, taken_back)
    }
}

impl Pane {
    pub(crate) fn new(start: i64, end: i64) -> Self {
        let (is_finished, is_changed, is_reopened) = (false, false, false);
        Self { start, end, readings: Vec::new(), revisions: 0, is_finished, is_changed, is_reopened }
    }

    pub(crate) fn told(&mut self, stream: usize, series: u32, is_final: bool) -> Expected {
        let revision = self.revisions;
        self.revisions += 1;
        (self.is_changed, self.is_reopened) = (false, false);
        self.is_finished |= is_final;
        let (start, end, readings) = (self.start, self.end, self.readings.clone());
        Expected::Aggregate(Told { stream, series, start, end, revision, is_final, deleted: false, readings })
    }
}
