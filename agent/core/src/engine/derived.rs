//! Derived series: an expression over an as-of join of others, computed when nothing that could change it is awaited any more.
//!
//! ```text
//! readings of joined series ──▶ buffers, by time ──(the joint watermark passes)──▶ readings of the derived series ──▶ their way
//!                         └───▶ newest values ──▶ rules, on arrival
//! ```
//!
//! A derived series has a reading at each time of its **first** name. Every other name has the value of its newest reading at or before
//! that time, if that is no older than `within`; without one it is missing. What is missing gives no reading, and is counted; a left join
//! gives one that is not a number, and thus bad.
//!
//! The joint watermark is the least of the sources of all its series. Times before it are computed (as a window before it is finished),
//! so that any order within `out_of_order` gives the same readings. A source of another than the first name that was silent for its input's
//! `idle` is left out; without the first name there is nothing to compute, so its source never is. A reading that comes later than what it
//! would have changed is counted as `late`. Derived readings have the joint watermark for their own, so that windows and other derived
//! series over them go the same way.
//!
//! A window join (`over`) is the same over aggregates: a name is a function of a window stream over a series, its samples are the newest
//! revisions of final aggregates, each at the start of its window, and only those of the same start meet. It is computed once the windows
//! of all its series have **closed**, so that no revision comes after it: a derived series has one reading for each time. As windows
//! are told at the end of an event, it comes after them ([`Derived::release`]). An inner one waits for all sides, silent ones too: without
//! them there would be nothing, and a source that was cut off sends them yet.
//!
//! Each definition of the plan has an input of its own there, with a source for each instance: their accounts, times and state are those
//! of an input.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::moment::{Moment, reading, value};
use super::rule::{Recent, Seen};
use super::series::SeriesTable;
use super::watermark::Source;
use crate::expr::Sample;
use crate::plan::{DerivedPlan, Function, Join, Plan, StreamId};
use crate::reading::{InputId, Quality, Reading, SeriesId, Value};
use crate::record::{Emitted, Record};
use crate::sorted;
use crate::time::{Timestamp, nanos};

/// How many readings of a series wait for others at most: an hour at 1 Hz, in 250 kB. When more do, the oldest waits no longer, and what
/// depends on it is computed with what has arrived.
pub const JOIN_SAMPLES_MAX: usize = 4096;

/// How many readings of a series that are older than all that is still to be computed are kept: the newest of them, and the one before
/// for `prev` and `rate`.
const SAMPLES_BEFORE: usize = 2;

/// How many readings of a series are kept before the superfluous ones are looked for.
const SAMPLES_PRUNED_FROM: usize = 16;

/// What is joined: the readings of a series, or what a function of a window's `compute` says of them.
type Key = (SeriesId, Option<(StreamId, u16)>);

/// All derived series.
#[derive(Debug, Default)]
pub(super) struct Derived {
    instances: Vec<Instance>,
    joined: Vec<Joined>,
    /// The places in `joined`.
    places: BTreeMap<Key, u32>,
    /// Who waits for a series that was not declared yet: instance and side.
    wanted: BTreeMap<Arc<str>, Vec<(u32, usize)>>,
    /// The instances that look at a series of a source.
    by_source: BTreeMap<u32, BTreeSet<u32>>,
    /// The sources that hold back joins unless they are silent, each with its input.
    holding: BTreeMap<u32, InputId>,
    /// Instances whose joint watermark may have moved, by the place of their definition: those that others depend on come first.
    touched: BTreeSet<(u16, u32)>,
    /// Those over windows, until the windows have been told.
    waiting: BTreeSet<(u16, u32)>,
    /// The windows that some are over.
    windows: BTreeSet<StreamId>,
    /// See [`Derived::take_late`].
    late: BTreeMap<u16, u64>,
    /// Whether rules look at a derived series, so that newest values count.
    is_watched: bool,
    /// Room that is taken and given back, so that no reading asks for any; empty between readings.
    observed: Vec<(u32, Seen)>,
    computed: Vec<Reading>,
}

/// A definition for one series of its filter, or the only one of a definition without.
#[derive(Debug)]
struct Instance {
    derived: u16,
    /// What it makes, and its source: the watermark is how far it is computed.
    series: SeriesId,
    source: u32,
    /// For each name the place among the joined.
    sides: Vec<Option<u32>>,
    /// Whether it is over windows.
    is_windowed: bool,
    /// Whether silence lets it go on without a side.
    is_patient: bool,
}

/// A series that definitions look at.
#[derive(Debug)]
pub(super) struct Joined {
    key: Key,
    source: u32,
    /// By time, which are distinct.
    pub(super) samples: VecDeque<Point>,
    pub(super) newest: Recent,
    users: Vec<u32>,
}

/// A reading that waits, or that is looked back at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Point {
    pub(super) sample: Sample,
    pub(super) is_suspect: bool,
}

/// A joined series in a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SavedJoined {
    series: SeriesId,
    /// The window and its function, where it is an aggregate of the series.
    aggregate: Option<(Arc<str>, Function)>,
    samples: Vec<Point>,
    newest: Recent,
}

/// What came of an instance.
pub(super) struct Computed {
    /// Its place.
    pub(super) instance: u32,
    /// The input and source that it comes from.
    pub(super) input: InputId,
    pub(super) source: u32,
    /// Up to where all is computed now.
    pub(super) watermark: Timestamp,
    pub(super) readings: Vec<Reading>,
    /// Times at which something was missing.
    pub(super) missing: u64,
    /// Whether it was made of aggregates.
    pub(super) is_windowed: bool,
}

impl Joined {
    /// Puts a reading where its time belongs; one of the same time replaces it. Says whether it was not there.
    fn insert(&mut self, point: Point) -> bool {
        let time = point.sample.time;
        let place = match self.samples.back() {
            Some(last) if last.sample.time >= time => self.samples.partition_point(|point| point.sample.time < time),
            _ => self.samples.len(),
        };
        match self.samples.get_mut(place).filter(|known| known.sample.time == time) {
            Some(known) => {
                *known = point;
                false
            }
            None => {
                self.samples.insert(place, point);
                true
            }
        }
    }
}

impl Derived {
    /// Adds an instance, whose series and source there are. [`Derived::bind`] follows for each name.
    pub(super) fn add(&mut self, number: u16, derived: &DerivedPlan, series: SeriesId, source: u32) -> u32 {
        self.windows.extend(derived.over.as_ref().map(|over| over.window));
        let is_windowed = derived.over.is_some();
        self.instances.push(Instance {
            derived: number,
            series,
            source,
            sides: vec![None; derived.bindings.len()],
            is_windowed,
            is_patient: is_windowed && derived.join == Join::Inner,
        });
        (self.instances.len() - 1) as u32
    }

    /// Waits for a series of which a name of an instance is.
    pub(super) fn want(&mut self, name: Arc<str>, instance: u32, side: usize) {
        self.wanted.entry(name).or_default().push((instance, side));
    }

    /// Who waits for a series.
    pub(super) fn take_wanted(&mut self, name: &str) -> Vec<(u32, usize)> {
        self.wanted.remove(name).unwrap_or_default()
    }

    /// Gives a name of an instance its series, and the series its place among the joined.
    pub(super) fn bind(&mut self, plan: &Plan, instance: u32, side: usize, series: SeriesId, table: &mut SeriesTable) {
        let Some(route) = table.routes.get_mut(series.index()) else { return };
        let Some(entry) = self.instances.get(instance as usize) else { return };
        let is_patient = entry.is_patient;
        let key = match plan.derived.get(usize::from(entry.derived)).and_then(|derived| derived.over.as_ref()) {
            None => (series, None),
            Some(over) => {
                let function = over.functions.get(side).and_then(|&function| place_of(plan, over.window, function));
                let Some(function) = function else { return };
                (series, Some((over.window, function)))
            }
        };
        let place = *self.places.entry(key).or_insert_with(|| {
            let place = self.joined.len() as u32;
            let (samples, newest, users) = (VecDeque::new(), Recent::default(), Vec::new());
            self.joined.push(Joined { key, source: route.source, samples, newest, users });
            place
        });
        if key.1.is_none() {
            route.joined = Some(place);
        }
        if let Some(entry) = self.instances.get_mut(instance as usize).and_then(|entry| entry.sides.get_mut(side)) {
            *entry = Some(place);
        }
        if let Some(joined) = self.joined.get_mut(place as usize)
            && !joined.users.contains(&instance)
        {
            joined.users.push(instance);
        }
        self.by_source.entry(route.source).or_default().insert(instance);
        if let Some(input) = route.input.filter(|_| side > 0 && !is_patient) {
            self.holding.insert(route.source, input);
        }
    }

    /// A series comes from another source from now on: it may be further, and hold nothing back any more.
    pub(super) fn moved(&mut self, series: SeriesId, source: u32, table: &SeriesTable) {
        self.by_source.clear();
        for joined in &mut self.joined {
            if joined.key.0 == series {
                joined.source = source;
            }
            self.by_source.entry(joined.source).or_default().extend(&joined.users);
        }
        self.touch(source);
        let hurried = self.instances.iter().filter(|instance| !instance.is_patient);
        let others = hurried.flat_map(|instance| instance.sides.iter().skip(1).flatten());
        let others = others.filter_map(|&side| table.routes.get(self.joined.get(side as usize)?.key.0.index()));
        self.holding = others.filter_map(|route| Some((route.source, route.input?))).collect();
    }

    /// Rules look at a series; it may be a derived one.
    pub(super) fn watch(&mut self, series: SeriesId) {
        self.is_watched |= self.instances.iter().any(|instance| instance.series == series);
    }

    /// Whether newest values are to be shown to rules.
    #[inline]
    pub(super) const fn is_watched(&self) -> bool {
        self.is_watched
    }

    /// Whether joins look at a source.
    #[inline]
    pub(super) fn touch(&mut self, source: u32) {
        if self.by_source.is_empty() {
            return;
        }
        for &place in self.by_source.get(&source).into_iter().flatten() {
            if let Some(instance) = self.instances.get(place as usize) {
                let list = if instance.is_windowed { &mut self.waiting } else { &mut self.touched };
                list.insert((instance.derived, place));
            }
        }
    }

    /// Whether some are over windows.
    pub(super) fn has_windows(&self) -> bool {
        !self.windows.is_empty()
    }

    /// The windows have told what the watermarks have passed: those over them may be computed. Whether there are any.
    pub(super) fn release(&mut self) -> bool {
        self.touched.append(&mut self.waiting);
        !self.touched.is_empty()
    }

    /// A reading of a joined series arrives.
    pub(super) fn take(&mut self, place: u32, reading: &Reading, sources: &[Source]) {
        let sample = Sample { time: reading.time, value: reading.sound_value() };
        self.insert(place, Point { sample, is_suspect: reading.quality == Quality::Suspect }, sources);
    }

    /// Windows are told: what is final of them is joined.
    pub(super) fn take_aggregates(&mut self, emitted: &[Emitted], sources: &[Source]) {
        if self.windows.is_empty() {
            return;
        }
        for Emitted { stream, record } in emitted {
            let Record::Aggregate(one) = record else { continue };
            if !self.windows.contains(stream) {
                continue;
            }
            for (function, value) in (0..).zip(&one.values).filter(|_| one.is_final && !one.deleted) {
                let Some(&place) = self.places.get(&(one.series, Some((*stream, function)))) else { continue };
                let sample = Sample { time: one.start, value: value.clone() };
                self.insert(place, Point { sample, is_suspect: false }, sources);
            }
        }
    }

    fn insert(&mut self, place: u32, point: Point, sources: &[Source]) {
        let Some(joined) = self.joined.get_mut(place as usize) else { return };
        let (time, series) = (point.sample.time, joined.key.0);
        joined.insert(point);
        if joined.samples.len() > JOIN_SAMPLES_MAX {
            self.prune(place, sources);
        }
        let Some(joined) = self.joined.get(place as usize) else { return };
        let is_full = joined.samples.len() > JOIN_SAMPLES_MAX;
        for &user in &joined.users {
            let Some(instance) = self.instances.get(user as usize) else { continue };
            if is_full {
                let list = if instance.is_windowed { &mut self.waiting } else { &mut self.touched };
                list.insert((instance.derived, user));
            }
            // Once for each user, of whatever is joined of a series.
            let is_of_series = |side: &&u32| self.joined.get(**side as usize).is_some_and(|one| one.key.0 == series);
            if sources.get(instance.source as usize).is_some_and(|source| time < source.watermark)
                && instance.sides.iter().flatten().find(is_of_series) == Some(&place)
            {
                *self.late.entry(instance.derived).or_default() += 1;
            }
        }
    }

    /// How many readings came later than what they would have changed, by definition, since this was last asked.
    pub(super) fn take_late(&mut self) -> BTreeMap<u16, u64> {
        std::mem::take(&mut self.late)
    }

    /// The next instance whose joint watermark may have moved, and what comes of it.
    pub(super) fn compute(&mut self, plan: &Plan, sources: &[Source]) -> Option<Computed> {
        loop {
            let (_, place) = self.touched.pop_first()?;
            let computed = self.compute_instance(plan, sources, place);
            if computed.is_some() {
                return computed;
            }
        }
    }

    /// Gives back the room of what was computed.
    pub(super) fn recycle(&mut self, mut readings: Vec<Reading>) {
        readings.clear();
        self.computed = readings;
    }

    fn compute_instance(&mut self, plan: &Plan, sources: &[Source], place: u32) -> Option<Computed> {
        let instance = self.instances.get(place as usize)?;
        let definition = plan.derived.get(usize::from(instance.derived))?;
        let from = sources.get(instance.source as usize)?.watermark;
        let first = self.joined.get((*instance.sides.first()?)? as usize)?;
        let to = self.joint_watermark(plan, definition, instance, sources)?;
        if to <= from {
            return None;
        }
        let is_windowed = instance.is_windowed;
        let (input, source, readings) = (definition.input, instance.source, std::mem::take(&mut self.computed));
        let mut computed =
            Computed { instance: place, input, source, watermark: to, readings, missing: 0, is_windowed };
        let start = first.samples.partition_point(|point| point.sample.time < from);
        for point in first.samples.range(start..).take_while(|point| point.sample.time < to) {
            let at = point.sample.time;
            let (joined, sides) = (&self.joined, &instance.sides);
            let moment = Moment { joined, sides, within: definition.within, at, is_newest: false };
            match value(definition, &moment) {
                Some(value) => computed.readings.push(reading(instance.series, &moment, value)),
                None if definition.join == Join::Left => {
                    computed.readings.push(reading(instance.series, &moment, Value::Float(f64::NAN)));
                }
                None => computed.missing += 1,
            }
        }
        Some(computed)
    }

    /// The time up to which all is there; over windows the start up to which all have closed.
    fn joint_watermark(
        &self,
        plan: &Plan,
        definition: &DerivedPlan,
        instance: &Instance,
        sources: &[Source],
    ) -> Option<Timestamp> {
        let mut joint: Option<Timestamp> = None;
        let mut forced = Timestamp::MIN;
        for (side, place) in instance.sides.iter().enumerate() {
            let Some(joined) = place.and_then(|place| self.joined.get(place as usize)) else { continue };
            if joined.samples.len() > JOIN_SAMPLES_MAX {
                let oldest = joined.samples.len() - JOIN_SAMPLES_MAX;
                forced = forced.max(joined.samples.get(oldest).map_or(Timestamp::MIN, |point| point.sample.time));
            }
            let Some(source) = sources.get(joined.source as usize) else { continue };
            if side == 0 || instance.is_patient || !source.is_idle {
                joint = Some(joint.map_or(source.watermark, |joint| joint.min(source.watermark)));
            }
        }
        let joint = joint.filter(|&joint| joint > Timestamp::MIN);
        let joint = match &definition.over {
            None => joint,
            Some(over) => {
                let window = plan.window(over.window)?;
                joint.map(|joint| window.kind.least_start(nanos(window.lateness), joint))
            }
        };
        joint.or(Some(forced).filter(|&forced| forced > Timestamp::MIN)).map(|joint| joint.max(forced))
    }

    /// Lets go of what an instance, and all others, have gone past.
    pub(super) fn prune_sides(&mut self, instance: u32, sources: &[Source]) {
        let sides = self.instances.get(instance as usize).map_or(0, |instance| instance.sides.len());
        for side in 0..sides {
            let place = self.instances.get(instance as usize).and_then(|instance| *instance.sides.get(side)?);
            let joined = place.and_then(|place| self.joined.get(place as usize));
            if let Some(place) =
                place.filter(|_| joined.is_some_and(|joined| joined.samples.len() > SAMPLES_PRUNED_FROM))
            {
                self.prune(place, sources);
            }
        }
    }

    fn prune(&mut self, place: u32, sources: &[Source]) {
        let superfluous = self.joined.get(place as usize).map_or(0, |joined| self.superfluous(joined, sources));
        if let Some(joined) = self.joined.get_mut(place as usize) {
            joined.samples.drain(..superfluous);
        }
    }

    /// How many samples of a series, from the oldest, nobody looks at any more.
    fn superfluous(&self, joined: &Joined, sources: &[Source]) -> usize {
        let users = joined.users.iter().filter_map(|&user| self.instances.get(user as usize));
        let computed = users.filter_map(|user| Some(sources.get(user.source as usize)?.watermark)).min();
        let computed = computed.unwrap_or(Timestamp::MIN);
        joined.samples.partition_point(|point| point.sample.time < computed).saturating_sub(SAMPLES_BEFORE)
    }

    /// Takes a sample of a joined series as its newest, and shows what derived series are by it: their numbers with their samples.
    pub(super) fn observe(
        &mut self,
        plan: &Plan,
        table: &SeriesTable,
        place: u32,
        seen: Seen,
        mut show: impl FnMut(SeriesId, Seen),
    ) {
        let mut next = std::mem::take(&mut self.observed);
        next.push((place, seen));
        while let Some((place, seen)) = next.pop() {
            let Some(joined) = self.joined.get_mut(place as usize) else { continue };
            if !joined.newest.observe(seen) {
                continue;
            }
            for &user in self.joined.get(place as usize).map_or(&[][..], |joined| &joined.users) {
                let Some(instance) = self.instances.get(user as usize) else { continue };
                let Some(definition) = plan.derived.get(usize::from(instance.derived)) else { continue };
                let (joined, sides) = (&self.joined, &instance.sides);
                let newest =
                    sides.iter().flatten().filter_map(|&side| joined.get(side as usize)?.newest.newest.as_ref());
                let Some((at, is_by_clock)) = newest.map(|seen| (seen.sample.time, seen.is_by_clock)).max() else {
                    continue;
                };
                let moment = Moment { joined, sides, within: definition.within, at, is_newest: true };
                let seen = Seen { sample: Sample { time: at, value: value(definition, &moment) }, is_by_clock };
                if let Some(place) = table.routes.get(instance.series.index()).and_then(|route| route.joined) {
                    next.push((place, seen.clone()));
                }
                show(instance.series, seen);
            }
        }
        self.observed = next;
    }

    /// Changes the newest times that are by the agent's clock to what another would have shown. What waits to be joined keeps its times:
    /// it is in streams already.
    pub(super) fn set_clock(&mut self, shown: &dyn Fn(Timestamp) -> Timestamp) {
        self.joined.iter_mut().for_each(|joined| joined.newest.set_clock(shown));
    }

    /// When a source that holds joins back would next count as silent.
    pub(super) fn wake_at(&self, plan: &Plan, sources: &[Source]) -> Option<Timestamp> {
        let deadline = |(&source, input): (&u32, &InputId)| {
            let source = sources.get(source as usize).filter(|source| !source.is_idle)?;
            let heard = source.heard.filter(|_| source.watermark < Timestamp::MAX)?;
            Some(heard.saturating_add(plan.inputs.get(usize::from(input.0))?.idle))
        };
        self.holding.iter().filter_map(deadline).min()
    }

    /// Lets time pass: sources that were silent for long hold nothing back any more.
    pub(super) fn step(&mut self, plan: &Plan, sources: &mut [Source], now: Timestamp) {
        let mut silent = Vec::new();
        for (&place, input) in &self.holding {
            let Some(source) = sources.get_mut(place as usize).filter(|source| !source.is_idle) else { continue };
            let idle = plan.inputs.get(usize::from(input.0)).map(|input| input.idle).unwrap_or_default();
            if source.heard.is_some_and(|heard| heard.saturating_add(idle) <= now) {
                source.is_idle = true;
                silent.push(place);
            }
        }
        silent.into_iter().for_each(|source| self.touch(source));
    }

    /// Lets sources that were never heard count as silent some time from now, and with `anew` all that are not silent yet.
    pub(super) fn arm(&self, sources: &mut [Source], now: Timestamp, anew: bool) {
        if now == Timestamp::MIN {
            return;
        }
        for &place in self.holding.keys() {
            if let Some(source) = sources.get_mut(place as usize).filter(|source| anew || source.heard.is_none()) {
                source.heard = Some(now);
            }
        }
    }

    /// What a change of the plan touched is looked at when something of it is heard.
    pub(super) fn look_at_nothing(&mut self) {
        self.touched.clear();
        self.waiting.clear();
    }

    /// All are looked at once more: every watermark has moved.
    pub(super) fn touch_all(&mut self) {
        let (windowed, others) = (0..)
            .zip(&self.instances)
            .map(|(place, instance)| (instance.derived, place))
            .partition(|&(_, place)| self.instances.get(place as usize).is_some_and(|instance| instance.is_windowed));
        (self.waiting, self.touched) = (windowed, others);
    }

    /// What waits, by series.
    pub(super) fn saved(&self, plan: &Plan, sources: &[Source]) -> Vec<SavedJoined> {
        let known =
            self.joined.iter().filter(|joined| !joined.samples.is_empty() || joined.newest != Recent::default());
        let mut known: Vec<_> = known.collect();
        sorted::by_key(&mut known, |joined| joined.key);
        let saved = known.into_iter().map(|joined| SavedJoined {
            series: joined.key.0,
            aggregate: joined.key.1.and_then(|(window, function)| {
                let function = plan.window(window)?.compute.get(usize::from(function))?;
                Some((Arc::clone(&plan.streams.get(window.index())?.name), *function))
            }),
            samples: joined.samples.iter().skip(self.superfluous(joined, sources)).cloned().collect(),
            newest: joined.newest.clone(),
        });
        saved.collect()
    }

    /// Puts back what waited. `None` when nobody looks at the series, or it is in no order.
    pub(super) fn restore(&mut self, plan: &Plan, saved: SavedJoined) -> Option<()> {
        let SavedJoined { series, aggregate, samples, newest } = saved;
        let aggregate = match aggregate {
            None => None,
            Some((name, function)) => {
                let window = plan.stream_named(&name)?;
                Some((window, place_of(plan, window, function)?))
            }
        };
        let in_order = samples.iter().zip(samples.iter().skip(1)).all(|(a, b)| a.sample.time < b.sample.time);
        let place = *self.places.get(&(series, aggregate)).filter(|_| in_order)?;
        let joined = self.joined.get_mut(place as usize)?;
        joined.samples = samples.into();
        if self.is_watched {
            // Else it is not kept up, and would be old when a rule looks at it again.
            joined.newest = newest;
        }
        Some(())
    }
}

/// The place of a function in what a window computes.
fn place_of(plan: &Plan, window: StreamId, function: Function) -> Option<u16> {
    let place = plan.window(window)?.compute.iter().position(|&known| known == function)?;
    u16::try_from(place).ok()
}
