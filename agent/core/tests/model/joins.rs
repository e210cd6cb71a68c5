//! Derived series, plainly: what was read is kept for ever, and looked through.

use std::collections::BTreeMap;
use std::ops::Bound;

use rtlive_core::reading::Value;

use crate::definitions::{Derivation, Seen, VALUES, filter, rendered, selects, span};
use crate::expected::{Expected, Told};
use crate::naive::{Model, Origin, Way};
use crate::windows::Slot;

/// Values by time; `None` where a reading was bad.
#[derive(Clone, Debug, Default)]
pub(crate) struct History(BTreeMap<i64, Option<Value>>);

/// What is joined: a series, or the function of a window over it.
pub(crate) type Key = (u32, Option<(&'static str, usize)>);

/// A derived series of one maker.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) definition: Derivation,
    pub(crate) series: u32,
    pub(crate) origin: Origin,
    pub(crate) sides: [Option<Key>; 2],
}

impl History {
    /// Takes a value, and says whether it is the newest now.
    pub(crate) fn observe(&mut self, time: i64, value: Option<Value>) -> bool {
        let is_newest = self.0.last_key_value().is_none_or(|(newest, _)| time >= *newest);
        self.0.insert(time, value);
        is_newest
    }

    /// The newest and the one before, at a time.
    pub(crate) fn at(&self, time: i64) -> Option<(i64, Seen)> {
        let mut before = self.0.range(..=time).rev();
        let (newest, value) = before.next()?;
        let previous = before.next().and_then(|(_, value)| value.clone());
        Some((*newest, Seen { newest: value.clone(), previous }))
    }

    pub(crate) fn newest(&self) -> Option<i64> {
        self.0.last_key_value().map(|(time, _)| *time)
    }
}

/// The derived series of all that is known, by definition and then as their makers appeared.
pub(crate) fn instances(model: &Model) -> Vec<Instance> {
    let mut instances = Vec::new();
    for definition in model.wanted.derivations() {
        for maker in model.series.iter().map(|series| &series.name) {
            if !is_made_by(&definition, maker) {
                continue;
            }
            let series = |name: &str| model.number(name);
            let key = |side: usize| {
                let name = definition.sides[side];
                let name = if name.contains('+') { Some(maker.clone()) } else { rendered(name, maker) };
                let function = definition.over.map(|(window, functions)| (window, functions[side]));
                Some((series(&name?)?, function))
            };
            instances.push(Instance {
                series: series(&rendered(definition.name, maker).unwrap()).unwrap(),
                origin: (definition.input(), maker.clone()),
                sides: [key(0), key(1)],
                definition: definition.clone(),
            });
        }
    }
    instances
}

pub(crate) fn is_made_by(definition: &Derivation, series: &str) -> bool {
    match filter(&definition.sides) {
        Some(filter) => selects(filter, series),
        None => definition.sides[0] == series,
    }
}

impl Instance {
    /// Whether it waits for a silent side.
    const fn is_patient(&self) -> bool {
        self.definition.over.is_some() && !self.definition.is_left
    }

    fn looks_at(&self, series: u32) -> bool {
        self.sides.iter().flatten().any(|(of, _)| *of == series)
    }

    /// The value at a time, of what each side was then.
    fn value(&self, sides: [Seen; 2]) -> Option<Value> {
        let is_whole = sides.iter().all(|side| side.newest.is_some());
        let value = || VALUES[self.definition.value].1(&sides[0], &sides[1]);
        if is_whole || self.definition.is_left { value() } else { None }
    }
}

impl Model {
    /// A side of an instance at a time, if it is near enough.
    fn side(&self, instance: &Instance, histories: &BTreeMap<Key, History>, side: usize, at: i64) -> Seen {
        let seen = instance.sides[side].and_then(|key| histories.get(&key)?.at(at));
        seen.filter(|(time, _)| at - time <= span(instance.definition.within)).map(|(_, seen)| seen).unwrap_or_default()
    }

    /// Readings of a source came, or it is known to be silent: what waits for it may be computed.
    pub(crate) fn touch(&mut self, origin: &Origin) {
        for (place, instance) in self.instances.iter().enumerate() {
            let is_of = |key: &Key| self.series[key.0 as usize].origin.as_ref() == Some(origin);
            if instance.sides.iter().flatten().any(is_of) {
                let list = if instance.definition.over.is_some() { &mut self.waiting } else { &mut self.touched };
                list.insert(place);
            }
        }
    }

    /// The sources that hold back joins unless they are silent.
    pub(crate) fn holding(&self) -> Vec<Origin> {
        let hurried = self.instances.iter().filter(|instance| !instance.is_patient());
        let sides = hurried.filter_map(|instance| instance.sides[1]);
        sides.filter_map(|(series, _)| self.series[series as usize].origin.clone()).collect()
    }

    /// A reading of a series is there to be joined.
    pub(crate) fn offer(&mut self, series: u32, time: i64, value: Option<Value>) {
        self.note_late(series, time, false);
        if self.instances.iter().any(|instance| instance.sides.contains(&Some((series, None)))) {
            self.joined.entry((series, None)).or_default().observe(time, value);
        }
    }

    /// A window was told: if it is final it is there to be joined.
    pub(crate) fn offer_window(&mut self, told: &Told) {
        let Some(name) = self.wanted.windows.keys().nth(told.stream - 5).filter(|_| told.is_final && !told.deleted)
        else {
            return;
        };
        let keys = self.instances.iter().flat_map(|instance| instance.sides).flatten();
        let keys: Vec<_> =
            keys.filter(|(of, over)| *of == told.series && over.is_some_and(|of| of.0 == *name)).collect();
        if !keys.is_empty() {
            self.note_late(told.series, told.start, true);
        }
        for key in keys {
            let function = key.1.map(|(_, function)| function).unwrap();
            self.joined.entry(key).or_default().observe(told.start, told.values()[function].clone());
        }
    }

    /// Counts what comes later than what it would have changed.
    fn note_late(&mut self, series: u32, time: i64, is_window: bool) {
        for instance in self.instances.iter().filter(|instance| instance.looks_at(series)) {
            let is_past = self.sources[&instance.origin].watermark.is_some_and(|watermark| time < watermark);
            if is_past && instance.definition.over.is_some() == is_window {
                *self.dropped.entry((instance.definition.input(), "late")).or_default() += 1;
            }
        }
    }

    /// The time up to which nothing is awaited any more.
    fn joint_watermark(&self, instance: &Instance) -> Option<i64> {
        let mut joint = Vec::new();
        for (side, key) in instance.sides.iter().enumerate() {
            let source = key.and_then(|(series, _)| self.source_of(series));
            let Some(source) = source.filter(|source| side == 0 || instance.is_patient() || !source.is_idle) else {
                continue;
            };
            joint.push(source.watermark);
        }
        // Of those that have said nothing yet all is awaited.
        let joint = joint.into_iter().min().flatten()?;
        Some(match instance.definition.over {
            None => joint,
            Some((window, _)) => Slot::new(&self.wanted.windows[window], i64::MIN).least_start(joint),
        })
    }

    /// Computes what is not awaited any more.
    pub(crate) fn join(&mut self, arrival: i64) {
        while let Some(place) = self.touched.pop_first() {
            let instance = self.instances[place].clone();
            let from = self.sources[&instance.origin].watermark.unwrap_or(i64::MIN);
            let Some(to) = self.joint_watermark(&instance).filter(|to| *to > from) else { continue };
            let first = instance.sides[0].and_then(|key| self.joined.get(&key)).cloned().unwrap_or_default();
            let mut readings = Vec::new();
            for at in first.0.range((Bound::Included(from), Bound::Excluded(to))).map(|(at, _)| *at) {
                match instance.value([0, 1].map(|side| self.side(&instance, &self.joined, side, at))) {
                    Some(value) => readings.push((instance.series, at, value)),
                    None if instance.definition.is_left => {
                        readings.push((instance.series, at, Value::Float(f64::NAN)));
                    }
                    None => *self.dropped.entry((instance.definition.input(), "missing")).or_default() += 1,
                }
            }
            let way = if instance.definition.over.is_some() { Way::Windows } else { Way::Readings };
            self.pass(&instance.definition.input(), arrival, &readings, way);
            self.sources.get_mut(&instance.origin).unwrap().watermark = Some(to);
            self.touch(&instance.origin);
        }
    }

    /// What derived series are by the newest values, for rules.
    pub(crate) fn show_derived(&mut self, series: u32, time: i64, value: Option<Value>, arrival: i64, read_at: i64) {
        let as_of = self.instances.iter().filter(|instance| instance.definition.over.is_none());
        let users: Vec<Instance> = as_of.filter(|instance| instance.looks_at(series)).cloned().collect();
        if users.is_empty() || !self.newest.entry((series, None)).or_default().observe(time, value) {
            return;
        }
        for instance in users {
            let newest = instance.sides.iter().flatten().filter_map(|key| self.newest.get(key)?.newest());
            let Some(at) = newest.max() else { continue };
            let value = instance.value([0, 1].map(|side| self.side(&instance, &self.newest, side, at)));
            self.observe(instance.series, at, value.clone(), arrival, read_at);
            self.show_derived(instance.series, at, value, arrival, read_at);
        }
    }

    /// Whether rules look at a derived series.
    pub(crate) fn is_derived_watched(&self) -> bool {
        self.instances.iter().any(|instance| self.is_watched(instance.series))
    }

    /// The records of an event.
    pub(crate) fn emitted(&mut self) -> Vec<Expected> {
        std::mem::take(&mut self.out)
    }
}
