//! The model: what the engine does, as plainly as it can be computed.
//!
//! Windows (`windows`), derived series (`joins`) and rules (`rules`) keep everything that they were given. Here is what they share: series
//! and their sources, and what an event does with them.

use std::collections::{BTreeMap, BTreeSet};

use rtlive_core::plan::InputPlan;
use rtlive_core::reading::Value;

use crate::definitions::{rendered, selects};
use crate::expected::{Expected, Told};
use crate::joins::{self, History, Instance, Key};
use crate::plans::{Wanted, selected};
use crate::rules::{Rules, watchers};
use crate::windows::{Pane, Slot, boundary_after, nanos};

/// An input and what it multiplexes.
pub(crate) type Origin = (String, String);

/// Where a reading comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Input,
    /// Derived from readings.
    Readings,
    /// Derived from windows.
    Windows,
}

/// A series, by its number.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// `None` once its input is gone.
    pub(crate) origin: Option<Origin>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Source {
    newest: Option<i64>,
    pub(crate) watermark: Option<i64>,
    /// The watermark when windows were last looked at.
    settled: Option<i64>,
    heard: Option<i64>,
    pub(crate) is_idle: bool,
}

#[derive(Clone, Debug, Default)]
struct Input {
    heard: Option<i64>,
    is_unsettled: bool,
}

/// Everything.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) wanted: Wanted,
    inputs: BTreeMap<String, Input>,
    pub(crate) sources: BTreeMap<Origin, Source>,
    pub(crate) series: Vec<Series>,
    /// By window's name and series: the slot, and the one before the last reload.
    slots: BTreeMap<(&'static str, u32), (Slot, Option<Slot>)>,
    retired: BTreeMap<(&'static str, u32), i64>,
    /// Sessions that were taken back in this event.
    taken_back: Vec<Expected>,
    pub(crate) instances: Vec<Instance>,
    pub(crate) joined: BTreeMap<Key, History>,
    /// The same for rules, which do not wait.
    pub(crate) newest: BTreeMap<Key, History>,
    /// Instances that may be computed, and those that may be once the windows have been told.
    pub(crate) touched: BTreeSet<usize>,
    pub(crate) waiting: BTreeSet<usize>,
    pub(crate) rules: Rules,
    pub(crate) out: Vec<Expected>,
    /// Readings that were late for a window.
    pub(crate) late: BTreeMap<&'static str, u64>,
    /// What was not derived, by input and reason.
    pub(crate) dropped: BTreeMap<(String, &'static str), u64>,
}

fn ordered(mut told: Vec<Expected>) -> Vec<Expected> {
    told.sort_by_key(|one| match one {
        Expected::Aggregate(one) => (one.end, one.stream, one.series, !one.deleted, one.start),
        _ => unreachable!(),
    });
    told
}

impl Model {
    pub(crate) fn new(wanted: Wanted) -> Self {
        let mut model = Self { wanted, ..Self::default() };
        model.settle_in();
        model
    }

    pub(crate) fn number(&self, name: &str) -> Option<u32> {
        self.series.iter().position(|series| series.name == name).map(|number| number as u32)
    }

    pub(crate) fn source_of(&self, series: u32) -> Option<&Source> {
        self.sources.get(self.series[series as usize].origin.as_ref()?)
    }

    /// How far an input's watermark stays behind, and how long it may be silent.
    fn timing(&self, input: &str) -> (i64, i64) {
        let derived = (0, nanos(InputPlan::IDLE_MIN));
        self.wanted.inputs.get(input).map_or(derived, |timing| (timing.out_of_order, timing.idle))
    }

    /// Makes what series and plan say there is.
    fn settle_in(&mut self) {
        let mut place = 0;
        while let Some(maker) = self.series.get(place).map(|series| series.name.clone()) {
            for definition in self.wanted.derivations().iter().filter(|one| joins::is_made_by(one, &maker)) {
                let name = rendered(definition.name, &maker).unwrap();
                self.place(&name, (definition.input(), maker.clone()));
            }
            place += 1;
        }
        for (number, series) in (0..).zip(&self.series) {
            for (name, window) in self.wanted.windows.iter().filter(|_| series.origin.is_some()) {
                if selected(window, &series.name) && !self.slots.contains_key(&(*name, number)) {
                    let floor = self.retired.remove(&(*name, number)).unwrap_or(i64::MIN);
                    self.slots.insert((*name, number), (Slot::new(window, floor), None));
                }
            }
        }
        self.instances = joins::instances(self);
        self.rules.watchers = watchers(&self.wanted, &self.series);
    }

    /// Gives a series its source. A derived one that another series made before is computed on from where it was.
    fn place(&mut self, name: &str, origin: Origin) {
        let old = self.number(name).and_then(|number| self.series[number as usize].origin.clone());
        let known = old.filter(|(input, _)| *input == origin.0 && !self.wanted.inputs.contains_key(&**input));
        let known = known.map(|old| self.sources[&old].clone()).unwrap_or_default();
        let source = self.sources.entry(origin.clone()).or_default();
        source.newest = source.newest.max(known.newest);
        source.watermark = source.watermark.max(known.watermark);
        source.settled = source.settled.max(known.watermark);
        match self.number(name) {
            Some(number) => self.series[number as usize].origin = Some(origin),
            None => self.series.push(Series { name: name.to_owned(), origin: Some(origin) }),
        }
    }

    /// A series appears, or comes from another source.
    pub(crate) fn declare(&mut self, now: i64, name: &str, origin: Origin) -> Vec<Expected> {
        let number = self.number(name);
        let old = number.and_then(|number| self.series[number as usize].origin.clone());
        if old.as_ref() != Some(&origin) {
            let watermark = old.and_then(|old| self.sources[&old].watermark);
            for (_, slots) in self.slots.iter_mut().filter(|((_, of), _)| Some(*of) == number) {
                for slot in [Some(&mut slots.0), slots.1.as_mut()].into_iter().flatten() {
                    slot.floor = slot.floor.max(watermark.map_or(i64::MIN, |watermark| slot.least_start(watermark)));
                }
            }
            self.place(name, origin.clone());
            self.settle_in();
            if number.is_some() {
                self.touch(&origin);
            }
            self.finish(now);
        }
        self.arm(now, false);
        self.emitted()
    }

    /// A source from which joins wait to hear is expected from now on; with `anew` all of them.
    fn arm(&mut self, now: i64, anew: bool) {
        self.arm_rules(now, anew);
        for origin in self.holding() {
            let source = self.sources.get_mut(&origin).unwrap();
            if anew || source.heard.is_none() {
                source.heard = Some(now);
            }
        }
    }

    /// A process starts.
    pub(crate) fn start(&mut self, now: i64) {
        self.arm(now, true);
    }

    /// Readings arrive.
    pub(crate) fn take(&mut self, input: &str, arrival: i64, readings: &[(u32, i64, Value)]) -> Vec<Expected> {
        self.pass(input, arrival, readings, Way::Input);
        self.join(arrival);
        self.finish(arrival);
        self.emitted()
    }

    /// Readings go their way.
    pub(crate) fn pass(&mut self, input: &str, arrival: i64, readings: &[(u32, i64, Value)], way: Way) {
        if readings.is_empty() {
            return;
        }
        self.inputs.entry(input.to_owned()).or_default().heard = Some(arrival);
        let out_of_order = self.timing(input).0;
        for (series, time, value) in readings {
            let (series, time, value) = (*series, *time, value.clone());
            let sound = Some(value.clone()).filter(|value| value.as_number().is_none_or(f64::is_finite));
            if selects(self.wanted.raw, &self.series[series as usize].name) {
                let stream = self.wanted.stream("raw");
                self.out.push(Expected::Reading { stream, series, time, value });
            }
            if way != Way::Readings {
                self.observe(series, time, sound.clone(), arrival, time);
                if self.is_derived_watched() {
                    self.show_derived(series, time, sound.clone(), arrival, time);
                }
            }
            self.offer(series, time, sound.clone());
            let origin = self.series[series as usize].origin.clone().unwrap();
            let source = self.sources.get_mut(&origin).unwrap();
            let before = source.watermark;
            if source.newest < Some(time) {
                source.newest = Some(time);
                source.watermark = before.max(Some(time - out_of_order));
            }
            (source.heard, source.is_idle) = (Some(arrival), false);
            if source.watermark > before {
                self.touch(&origin);
            }
            if let Some(value) = sound {
                self.add(input, series, time, value);
            }
        }
        self.evaluate(arrival);
    }

    /// A reading enters its windows.
    fn add(&mut self, input: &str, series: u32, time: i64, value: Value) {
        let watermark = self.source_of(series).and_then(|source| source.watermark).unwrap();
        let mut is_late = false;
        for ((name, _), (slot, before)) in self.slots.iter_mut().filter(|((_, of), _)| *of == series) {
            let slot = match before {
                Some(before) if time < slot.begins => before,
                _ => slot,
            };
            let (late, is_open, taken_back) = slot.add(time, &value, watermark);
            is_late |= late > 0;
            self.inputs.get_mut(input).unwrap().is_unsettled |= is_open;
            *self.late.entry(name).or_default() += late;
            let stream = self.wanted.stream(name);
            self.taken_back.extend(taken_back.into_iter().map(|Pane { start, end, revisions: revision, .. }| {
                let (is_final, deleted, readings) = (true, true, Vec::new());
                Expected::Aggregate(Told { stream, series, start, end, revision, is_final, deleted, readings })
            }));
        }
        if is_late {
            self.out.push(Expected::Reading { stream: 2, series, time, value });
        }
    }

    /// Tells windows, and computes what is joined from them, of which there may be windows again.
    fn finish(&mut self, now: i64) {
        self.settle();
        loop {
            self.touched.append(&mut self.waiting);
            if self.touched.is_empty() {
                return;
            }
            self.join(now);
            self.settle();
        }
    }

    /// Tells what the watermarks have passed and what was revised.
    fn settle(&mut self) {
        let mut told = std::mem::take(&mut self.taken_back);
        for ((name, series), (slot, before)) in &mut self.slots {
            let stream = self.wanted.stream(name);
            let Some(origin) = &self.series[*series as usize].origin else { continue };
            let source = &self.sources[origin];
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
        let told = ordered(told);
        for one in &told {
            if let Expected::Aggregate(one) = one {
                self.offer_window(one);
            }
        }
        self.out.extend(told);
    }

    /// When a tick would next do something.
    pub(crate) fn wake_at(&self) -> Option<i64> {
        let unsettled = self.inputs.iter().filter(|(_, input)| input.is_unsettled);
        let idle = unsettled.filter_map(|(name, input)| Some(input.heard? + self.timing(name).1));
        let rule = self.first_due().map(|(due, _)| due);
        idle.chain(rule).chain(self.silences().into_iter().map(|(at, _)| at)).min()
    }

    /// When which source that holds joins back counts as silent.
    fn silences(&self) -> Vec<(i64, Origin)> {
        let silence = |origin: Origin| {
            let source = &self.sources[&origin];
            (!source.is_idle).then_some((source.heard? + self.timing(&origin.0).1, origin))
        };
        self.holding().into_iter().filter_map(silence).collect()
    }

    /// Time passes.
    pub(crate) fn tick(&mut self, now: i64) -> Vec<Expected> {
        let mut silent = BTreeSet::new();
        for name in self.inputs.keys().cloned().collect::<Vec<_>>() {
            let idle = self.timing(&name).1;
            let input = self.inputs.get_mut(&name).unwrap();
            if input.is_unsettled && input.heard.is_some_and(|heard| now >= heard + idle) {
                input.is_unsettled = false;
                silent.insert(name);
            }
        }
        let is_of_silent = |series: &Series| series.origin.as_ref().is_some_and(|origin| silent.contains(&origin.0));
        let of_silent: Vec<bool> = self.series.iter().map(is_of_silent).collect();
        let is_silent = |key: &(&'static str, u32)| of_silent[key.1 as usize];
        self.tell_as_they_are(|pane| !pane.is_finished, is_silent, is_silent);
        self.step_rules(now);
        for (_, origin) in self.silences().into_iter().filter(|(at, _)| *at <= now) {
            self.sources.get_mut(&origin).unwrap().is_idle = true;
            self.touch(&origin);
        }
        self.join(now);
        self.finish(now);
        self.emitted()
    }

    fn tell_as_they_are(
        &mut self,
        wanted: impl Fn(&Pane) -> bool,
        of_current: impl Fn(&(&'static str, u32)) -> bool,
        of_before: impl Fn(&(&'static str, u32)) -> bool,
    ) {
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
        self.out.extend(ordered(told));
    }

    /// Another plan.
    pub(crate) fn reload(&mut self, now: i64, wanted: Wanted) -> Vec<Expected> {
        let mut series = self.series.clone();
        for series in &mut series {
            series.origin.take_if(|(input, _)| !wanted.has_input(input));
        }
        self.reload_windows(&wanted, &series);
        self.clear_removed(&wanted, &series, now);
        let was_derived_watched = self.is_derived_watched();
        let before = std::mem::replace(&mut self.wanted, wanted);
        self.series = series;
        self.inputs.retain(|name, _| self.wanted.has_input(name));
        self.sources.retain(|(input, _), _| self.wanted.has_input(input));
        self.dropped.retain(|(input, _), _| self.wanted.has_input(input));
        self.late.retain(|name, _| self.wanted.windows.contains_key(name));
        self.settle_in();
        self.reload_rules(&before);
        let keys: Vec<Key> = self.instances.iter().flat_map(|instance| instance.sides).flatten().collect();
        self.joined.retain(|key, _| keys.contains(key));
        self.newest.retain(|key, _| was_derived_watched && keys.contains(key));
        self.arm(now, false);
        self.emitted()
    }

    /// Ends the windows that another plan has no place for, and begins others where it changes them.
    fn reload_windows(&mut self, wanted: &Wanted, series: &[Series]) {
        let mut ends = BTreeSet::new();
        let mut changes = BTreeSet::new();
        for (key, (slot, _)) in &self.slots {
            let Series { name, origin } = &series[key.1 as usize];
            let window = wanted.windows.get(key.0).filter(|window| origin.is_some() && selected(window, name));
            match window {
                None => ends.insert(*key),
                Some(window) if window.kind != slot.kind => changes.insert(*key),
                Some(_) => false,
            };
        }
        self.tell_as_they_are(|_| true, |key| ends.contains(key), |key| ends.contains(key) || changes.contains(key));
        for key in ends {
            let (slot, _) = self.slots.remove(&key).unwrap();
            let floor = slot.fresh_start(self.source_of(key.1).and_then(|source| source.watermark));
            if floor > i64::MIN {
                self.retired.insert(key, floor);
            }
        }
        for (key, (slot, before)) in &mut self.slots {
            let source = &self.sources[self.series[key.1 as usize].origin.as_ref().unwrap()];
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
    }

    /// The end of all input: what was read ends first, so that all of it is joined.
    pub(crate) fn close(&mut self, now: i64) -> Vec<Expected> {
        for ((input, _), source) in &mut self.sources {
            if self.wanted.inputs.contains_key(&**input) {
                source.watermark = Some(i64::MAX / 2);
            }
        }
        for origin in self.sources.keys().cloned().collect::<Vec<_>>() {
            self.touch(&origin);
        }
        self.join(now);
        if self.instances.iter().any(|instance| instance.definition.over.is_some()) {
            self.finish(now);
        }
        for source in self.sources.values_mut() {
            source.watermark = Some(i64::MAX / 2);
        }
        self.settle();
        self.emitted()
    }
}
