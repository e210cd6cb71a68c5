//! The model: windows as plainly as they can be computed. Every window keeps its readings, and is computed anew whenever it is told.

use std::collections::{BTreeMap, BTreeSet};

use rtlive_core::plan::{CalendarLength, WindowKind, WindowPlan};
use rtlive_core::reading::Value;

use crate::plans::{self, SECOND, Wanted};

/// A record as the model expects it.
#[derive(Clone, Debug)]
pub(crate) enum Expected {
    Late { series: u32, time: i64 },
    Aggregate(Told),
}

/// An aggregate: what identifies it, and the readings that it is made of.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) stream: usize,
    pub(crate) series: u32,
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) revision: u32,
    pub(crate) is_final: bool,
    pub(crate) deleted: bool,
    pub(crate) readings: Vec<(i64, Value)>,
}

#[derive(Clone, Debug)]
struct Pane {
    start: i64,
    end: i64,
    readings: Vec<(i64, Value)>,
    revisions: u32,
    is_finished: bool,
    is_changed: bool,
    is_reopened: bool,
}

/// A series in a window under one definition.
#[derive(Clone, Debug)]
struct Slot {
    kind: WindowKind,
    lateness: i64,
    floor: i64,
    /// Where the definition begins, where there was one before.
    begins: i64,
    panes: Vec<Pane>,
}

#[derive(Clone, Debug, Default)]
struct Source {
    newest: Option<i64>,
    watermark: Option<i64>,
    /// The watermark when the event began.
    settled: Option<i64>,
}

/// Everything.
pub(crate) struct Model {
    wanted: Wanted,
    sources: BTreeMap<u32, Source>,
    /// The source of each declared series.
    series: BTreeMap<u32, u32>,
    /// By window's name and series: the slot, and the one before the last reload.
    slots: BTreeMap<(&'static str, u32), (Slot, Option<Slot>)>,
    retired: BTreeMap<(&'static str, u32), i64>,
    heard: Option<i64>,
    is_unsettled: bool,
    pub(crate) late: BTreeMap<&'static str, u64>,
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
fn boundary_after(kind: &WindowKind, time: i64) -> i64 {
    match kind {
        WindowKind::Session { .. } => time + 1,
        WindowKind::Sliding { every, .. } => windows_around(kind, time)[0].0 + nanos(*every),
        _ => windows_around(kind, time)[0].1,
    }
}

impl Slot {
    fn new(window: &WindowPlan, floor: i64) -> Self {
        // Sliding windows are not cut off: they begin at their next step.
        let floor = match window.kind {
            WindowKind::Sliding { .. } if floor > i64::MIN => boundary_after(&window.kind, floor - 1),
            _ => floor,
        };
        Self { kind: window.kind.clone(), lateness: nanos(window.lateness), floor, begins: i64::MIN, panes: Vec::new() }
    }

    /// The first start that a window may have which has not closed.
    fn least_start(&self, watermark: i64) -> i64 {
        let ended = watermark - self.lateness;
        match &self.kind {
            WindowKind::Sliding { over, .. } => boundary_after(&self.kind, ended - nanos(*over)),
            WindowKind::Session { gap, .. } => ended - nanos(*gap) + 1,
            kind => windows_around(kind, ended)[0].0,
        }
    }

    /// The first start behind all that is known to have been open.
    fn fresh_start(&self, watermark: Option<i64>) -> i64 {
        let behind = self.panes.iter().map(|pane| match &self.kind {
            WindowKind::Sliding { every, .. } => pane.start + nanos(*every),
            _ => pane.end,
        });
        let closed = watermark.map_or(i64::MIN, |watermark| self.least_start(watermark));
        behind.max().unwrap_or(i64::MIN).max(self.floor).max(closed)
    }

    /// Takes a reading: how many windows it is late for, whether one takes it, and the sessions that are taken back.
    fn add(&mut self, time: i64, value: &Value, watermark: i64) -> (u64, bool, Vec<Pane>) {
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
    fn new(start: i64, end: i64) -> Self {
        let (is_finished, is_changed, is_reopened) = (false, false, false);
        Self { start, end, readings: Vec::new(), revisions: 0, is_finished, is_changed, is_reopened }
    }

    fn told(&mut self, stream: usize, series: u32, is_final: bool) -> Expected {
        let revision = self.revisions;
        self.revisions += 1;
        (self.is_changed, self.is_reopened) = (false, false);
        self.is_finished |= is_final;
        let (start, end, readings) = (self.start, self.end, self.readings.clone());
        Expected::Aggregate(Told { stream, series, start, end, revision, is_final, deleted: false, readings })
    }
}

fn ordered(mut told: Vec<Expected>) -> Vec<Expected> {
    told.sort_by_key(|one| match one {
        Expected::Aggregate(one) => (one.end, one.stream, one.series, !one.deleted, one.start),
        Expected::Late { .. } => unreachable!(),
    });
    told
}

impl Model {
    pub(crate) fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            sources: BTreeMap::new(),
            series: BTreeMap::new(),
            slots: BTreeMap::new(),
            retired: BTreeMap::new(),
            heard: None,
            is_unsettled: false,
            late: BTreeMap::new(),
        }
    }

    /// A series appears, or comes from another source.
    pub(crate) fn declare(&mut self, series: u32, source: u32) -> Vec<Expected> {
        let old = self.series.insert(series, source);
        if old == Some(source) {
            return Vec::new();
        }
        self.sources.entry(source).or_default();
        let watermark = old.and_then(|old| self.sources[&old].watermark);
        for slots in self.slots.iter_mut().filter(|((_, of), _)| *of == series).map(|(_, slots)| slots) {
            for slot in [Some(&mut slots.0), slots.1.as_mut()].into_iter().flatten() {
                slot.floor = slot.floor.max(watermark.map_or(i64::MIN, |watermark| slot.least_start(watermark)));
            }
        }
        self.subscribe(series);
        self.settle(Vec::new())
    }

    fn subscribe(&mut self, series: u32) {
        for (name, window) in &self.wanted.windows {
            if plans::selects(window, series) && !self.slots.contains_key(&(*name, series)) {
                let floor = self.retired.remove(&(*name, series)).unwrap_or(i64::MIN);
                self.slots.insert((*name, series), (Slot::new(window, floor), None));
            }
        }
    }

    /// Readings arrive.
    pub(crate) fn take(&mut self, arrival: i64, readings: &[(u32, i64, Value)]) -> Vec<Expected> {
        if readings.is_empty() {
            return Vec::new();
        }
        self.heard = Some(arrival);
        let mut expected = Vec::new();
        let mut forced = Vec::new();
        for (series, time, value) in readings {
            let source = self.sources.get_mut(&self.series[series]).unwrap();
            let newest = source.newest.map_or(*time, |newest| newest.max(*time));
            source.newest = Some(newest);
            let watermark = source.watermark.map_or(newest - self.wanted.out_of_order, |watermark| {
                watermark.max(newest - self.wanted.out_of_order)
            });
            source.watermark = Some(watermark);
            let mut is_late = false;
            for ((name, _), (slot, before)) in self.slots.iter_mut().filter(|((_, of), _)| of == series) {
                let slot = match before {
                    Some(before) if *time < slot.begins => before,
                    _ => slot,
                };
                let (late, is_open, taken_back) = slot.add(*time, value, watermark);
                is_late |= late > 0;
                self.is_unsettled |= is_open;
                *self.late.entry(name).or_default() += late;
                let stream = self.wanted.stream(name);
                forced.extend(taken_back.into_iter().map(|pane| {
                    let Pane { start, end, revisions: revision, .. } = pane;
                    let (series, readings) = (*series, Vec::new());
                    Expected::Aggregate(Told {
                        stream,
                        series,
                        start,
                        end,
                        revision,
                        is_final: true,
                        deleted: true,
                        readings,
                    })
                }));
            }
            if is_late {
                expected.push(Expected::Late { series: *series, time: *time });
            }
        }
        expected.extend(self.settle(forced));
        expected
    }

    /// What is told at the end of an event.
    fn settle(&mut self, mut told: Vec<Expected>) -> Vec<Expected> {
        for ((name, series), (slot, before)) in &mut self.slots {
            let stream = self.wanted.stream(name);
            let Some(source) = self.series.get(series).map(|source| &self.sources[source]) else { continue };
            let Some(watermark) = source.watermark else { continue };
            let emit_every = self.wanted.windows[name].emit_every.map(nanos);
            let passed = emit_every.zip(source.settled).and_then(|(every, settled)| {
                let multiple = watermark.div_euclid(every) * every;
                (multiple > settled).then_some(multiple)
            });
            for slot in [Some(slot), before.as_mut()].into_iter().flatten() {
                for pane in &mut slot.panes {
                    let has_ended = watermark >= pane.end;
                    let is_due = match (pane.is_finished, has_ended) {
                        (false, true) => true,
                        (true, _) => pane.is_changed,
                        (false, false) => {
                            pane.is_reopened || pane.is_changed && passed.is_some_and(|multiple| pane.start < multiple)
                        }
                    };
                    if is_due {
                        told.push(pane.told(stream, *series, has_ended));
                    }
                }
                slot.panes.retain(|pane| watermark < pane.end + slot.lateness);
            }
        }
        for source in self.sources.values_mut() {
            source.settled = source.watermark;
        }
        ordered(told)
    }

    /// When a tick would next do something.
    pub(crate) fn wake_at(&self) -> Option<i64> {
        self.heard.filter(|_| self.is_unsettled).map(|heard| heard + self.wanted.idle)
    }

    /// Time passes.
    pub(crate) fn tick(&mut self, now: i64) -> Vec<Expected> {
        if self.wake_at().is_none_or(|at| now < at) {
            return Vec::new();
        }
        self.is_unsettled = false;
        self.told_as_they_are(|pane| !pane.is_finished, |_| true, |_| true)
    }

    fn told_as_they_are(
        &mut self,
        wanted: impl Fn(&Pane) -> bool,
        of_current: impl Fn(&(&'static str, u32)) -> bool,
        of_before: impl Fn(&(&'static str, u32)) -> bool,
    ) -> Vec<Expected> {
        let mut told = Vec::new();
        for (key, (slot, before)) in &mut self.slots {
            let stream = self.wanted.stream(key.0);
            let slots = [(Some(slot), of_current(key)), (before.as_mut(), of_before(key))];
            for slot in slots.into_iter().filter(|(_, is_wanted)| *is_wanted).filter_map(|(slot, _)| slot) {
                for pane in slot.panes.iter_mut().filter(|pane| pane.is_changed && wanted(pane)) {
                    told.push(pane.told(stream, key.1, false));
                }
            }
        }
        ordered(told)
    }

    /// Another plan.
    pub(crate) fn reload(&mut self, wanted: Wanted) -> Vec<Expected> {
        let mut ends = BTreeSet::new();
        let mut changes = BTreeSet::new();
        for (key, (slot, _)) in &self.slots {
            match wanted.windows.get(key.0).filter(|window| plans::selects(window, key.1)) {
                None => ends.insert(*key),
                Some(window) if window.kind != slot.kind => changes.insert(*key),
                Some(_) => false,
            };
        }
        let told = self.told_as_they_are(
            |_| true,
            |key| ends.contains(key),
            |key| ends.contains(key) || changes.contains(key),
        );
        for key in ends {
            let (slot, _) = self.slots.remove(&key).unwrap();
            let floor = slot.fresh_start(self.watermark(key.1));
            if floor > i64::MIN {
                self.retired.insert(key, floor);
            }
        }
        for (key, (slot, before)) in &mut self.slots {
            let source = &self.sources[&self.series[&key.1]];
            let window = &wanted.windows[key.0];
            if changes.contains(key) {
                let mut old = std::mem::replace(slot, Slot::new(window, slot.floor));
                *before = None;
                let behind = old.fresh_start(source.watermark);
                let floor = source.newest.map_or(behind, |newest| boundary_after(&old.kind, newest)).max(behind);
                if floor > i64::MIN {
                    *slot = Slot::new(window, floor);
                    slot.begins = slot.floor;
                    old.panes.iter_mut().for_each(|pane| pane.is_reopened = false);
                    *before = Some(old);
                }
            } else {
                let lateness = nanos(window.lateness);
                if let Some(watermark) = source.watermark.filter(|_| lateness > slot.lateness) {
                    slot.floor = slot.floor.max(slot.least_start(watermark));
                }
                slot.lateness = lateness;
            }
        }
        self.wanted = wanted;
        for series in self.series.keys().copied().collect::<Vec<_>>() {
            self.subscribe(series);
        }
        told
    }

    fn watermark(&self, series: u32) -> Option<i64> {
        self.sources[&self.series[&series]].watermark
    }

    /// The end of all input.
    pub(crate) fn close(&mut self) -> Vec<Expected> {
        for source in self.sources.values_mut() {
            source.watermark = Some(i64::MAX / 2);
        }
        self.settle(Vec::new())
    }
}
