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
//! Each definition of the plan has an input of its own there, with a source for each instance: their accounts, times and state are those
//! of an input.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::rule::Recent;
use super::series::SeriesTable;
use super::watermark::Source;
use crate::expr::{Sample, Scope};
use crate::plan::{DerivedPlan, Join, Plan};
use crate::reading::{ClockState, InputId, Quality, Reading, Scalar, SeriesId, Value};
use crate::time::Timestamp;

/// How many readings of a series wait for others at most: an hour at 1 Hz, in 250 kB. When more do, the oldest waits no longer, and what
/// depends on it is computed with what has arrived.
pub const JOIN_SAMPLES_MAX: usize = 4096;

/// How many readings of a series that are older than all that is still to be computed are kept: the newest of them, and the one before
/// for `prev` and `rate`.
const SAMPLES_BEFORE: usize = 2;

/// How many readings of a series are kept before the superfluous ones are looked for.
const SAMPLES_PRUNED_FROM: usize = 16;

/// All derived series.
#[derive(Debug, Default)]
pub(super) struct Derived {
    instances: Vec<Instance>,
    joined: Vec<Joined>,
    /// The places in `joined`.
    places: BTreeMap<SeriesId, u32>,
    /// Who waits for a series that was not declared yet: instance and side.
    wanted: BTreeMap<Arc<str>, Vec<(u32, usize)>>,
    /// The instances that look at a series of a source.
    by_source: BTreeMap<u32, BTreeSet<u32>>,
    /// The sources that hold back joins unless they are silent, each with its input.
    holding: BTreeMap<u32, InputId>,
    /// Instances whose joint watermark may have moved, by the place of their definition: those that others depend on come first.
    touched: BTreeSet<(u16, u32)>,
    /// See [`Derived::take_late`].
    late: BTreeMap<u16, u64>,
    /// Whether rules look at a derived series, so that newest values count.
    is_watched: bool,
    /// Room that is taken and given back, so that no reading asks for any; empty between readings.
    observed: Vec<(u32, Sample)>,
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
}

/// A series that definitions look at.
#[derive(Debug)]
struct Joined {
    series: SeriesId,
    source: u32,
    /// By time, which are distinct.
    samples: VecDeque<Point>,
    newest: Recent,
    users: Vec<u32>,
}

/// A reading that waits, or that is looked back at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Point {
    sample: Sample,
    is_suspect: bool,
}

/// A joined series in a snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SavedJoined {
    series: SeriesId,
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
}

/// The samples of an instance at a time, or with `None` the newest ones.
struct Moment<'a> {
    joined: &'a [Joined],
    sides: &'a [Option<u32>],
    within: std::time::Duration,
    at: Timestamp,
    is_newest: bool,
}

impl Moment<'_> {
    fn side(&self, binding: usize) -> Option<&Joined> {
        self.joined.get((*self.sides.get(binding)?)? as usize)
    }

    /// The place of the newest sample at or before the time, if it is not too old.
    fn place(&self, binding: usize) -> Option<(&Joined, usize)> {
        let side = self.side(binding)?;
        let place = side.samples.partition_point(|point| point.sample.time <= self.at).checked_sub(1)?;
        self.is_near(side.samples.get(place)?.sample.time).then_some((side, place))
    }

    fn is_near(&self, time: Timestamp) -> bool {
        self.at.since(time) <= self.within
    }

    fn point(&self, binding: usize) -> Option<&Point> {
        let (side, place) = self.place(binding)?;
        side.samples.get(place)
    }
}

impl Scope for Moment<'_> {
    fn newest(&self, binding: usize) -> Option<&Sample> {
        match self.is_newest {
            true => self.side(binding)?.newest.newest.as_ref().filter(|sample| self.is_near(sample.time)),
            false => self.point(binding).map(|point| &point.sample),
        }
    }

    fn previous(&self, binding: usize) -> Option<&Sample> {
        if self.is_newest {
            self.newest(binding)?;
            return self.side(binding)?.newest.previous.as_ref();
        }
        let (side, place) = self.place(binding)?;
        side.samples.get(place.checked_sub(1)?).map(|point| &point.sample)
    }
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
    pub(super) fn add(&mut self, derived: u16, series: SeriesId, source: u32, names: usize) -> u32 {
        self.instances.push(Instance { derived, series, source, sides: vec![None; names] });
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
    pub(super) fn bind(&mut self, instance: u32, side: usize, series: SeriesId, table: &mut SeriesTable) {
        let Some(route) = table.routes.get_mut(series.index()) else { return };
        let place = *self.places.entry(series).or_insert_with(|| {
            let place = self.joined.len() as u32;
            let (samples, newest, users) = (VecDeque::new(), Recent::default(), Vec::new());
            self.joined.push(Joined { series, source: route.source, samples, newest, users });
            place
        });
        route.joined = Some(place);
        if let Some(entry) = self.instances.get_mut(instance as usize).and_then(|entry| entry.sides.get_mut(side)) {
            *entry = Some(place);
        }
        if let Some(joined) = self.joined.get_mut(place as usize)
            && !joined.users.contains(&instance)
        {
            joined.users.push(instance);
        }
        self.by_source.entry(route.source).or_default().insert(instance);
        if let Some(input) = route.input.filter(|_| side > 0) {
            self.holding.insert(route.source, input);
        }
    }

    /// A series comes from another source from now on.
    pub(super) fn moved(&mut self, series: SeriesId, source: u32, table: &SeriesTable) {
        let place = self.places.get(&series).copied();
        let Some(joined) = place.and_then(|place| self.joined.get_mut(place as usize)) else { return };
        joined.source = source;
        self.by_source.entry(source).or_default().extend(&joined.users);
        let others = self.instances.iter().flat_map(|instance| instance.sides.iter().skip(1).flatten());
        let others = others.filter_map(|&side| table.routes.get(self.joined.get(side as usize)?.series.index()));
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
        for &instance in self.by_source.get(&source).into_iter().flatten() {
            if let Some(entry) = self.instances.get(instance as usize) {
                self.touched.insert((entry.derived, instance));
            }
        }
    }

    /// A reading of a joined series arrives.
    pub(super) fn take(&mut self, place: u32, reading: &Reading, sources: &[Source]) {
        let Some(joined) = self.joined.get_mut(place as usize) else { return };
        let sample = Sample { time: reading.time, value: reading.sound_value() };
        joined.insert(Point { sample, is_suspect: reading.quality == Quality::Suspect });
        if joined.samples.len() > JOIN_SAMPLES_MAX {
            self.prune(place, sources);
        }
        let Some(joined) = self.joined.get(place as usize) else { return };
        let is_full = joined.samples.len() > JOIN_SAMPLES_MAX;
        for &user in &joined.users {
            let Some(instance) = self.instances.get(user as usize) else { continue };
            if is_full {
                self.touched.insert((instance.derived, user));
            }
            if sources.get(instance.source as usize).is_some_and(|source| reading.time < source.watermark) {
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
        let to = self.joint_watermark(instance, sources)?;
        if to <= from {
            return None;
        }
        let (input, source, readings) = (definition.input, instance.source, std::mem::take(&mut self.computed));
        let mut computed = Computed { instance: place, input, source, watermark: to, readings, missing: 0 };
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

    fn joint_watermark(&self, instance: &Instance, sources: &[Source]) -> Option<Timestamp> {
        let mut joint: Option<Timestamp> = None;
        let mut forced = Timestamp::MIN;
        for (side, place) in instance.sides.iter().enumerate() {
            let Some(joined) = place.and_then(|place| self.joined.get(place as usize)) else { continue };
            if joined.samples.len() > JOIN_SAMPLES_MAX {
                let oldest = joined.samples.len() - JOIN_SAMPLES_MAX;
                forced = forced.max(joined.samples.get(oldest).map_or(Timestamp::MIN, |point| point.sample.time));
            }
            let Some(source) = sources.get(joined.source as usize) else { continue };
            if side == 0 || !source.is_idle {
                joint = Some(joint.map_or(source.watermark, |joint| joint.min(source.watermark)));
            }
        }
        joint.map(|joint| joint.max(forced))
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
        sample: Sample,
        mut show: impl FnMut(SeriesId, Sample),
    ) {
        let mut next = std::mem::take(&mut self.observed);
        next.push((place, sample));
        while let Some((place, sample)) = next.pop() {
            let Some(joined) = self.joined.get_mut(place as usize) else { continue };
            if !joined.newest.observe(sample) {
                continue;
            }
            for &user in self.joined.get(place as usize).map_or(&[][..], |joined| &joined.users) {
                let Some(instance) = self.instances.get(user as usize) else { continue };
                let Some(definition) = plan.derived.get(usize::from(instance.derived)) else { continue };
                let (joined, sides) = (&self.joined, &instance.sides);
                let newest =
                    sides.iter().flatten().filter_map(|&side| joined.get(side as usize)?.newest.newest.as_ref());
                let Some(at) = newest.map(|sample| sample.time).max() else { continue };
                let moment = Moment { joined, sides, within: definition.within, at, is_newest: true };
                let sample = Sample { time: at, value: value(definition, &moment) };
                if let Some(place) = table.routes.get(instance.series.index()).and_then(|route| route.joined) {
                    next.push((place, sample.clone()));
                }
                show(instance.series, sample);
            }
        }
        self.observed = next;
    }

    /// A sample that was seen at one time was of another.
    pub(super) fn retime(&mut self, place: u32, seen: Timestamp, time: Timestamp) {
        if let Some(joined) = self.joined.get_mut(place as usize) {
            joined.newest.retime(seen, time);
        }
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

    /// All are looked at once more: every watermark has moved.
    pub(super) fn touch_all(&mut self) {
        self.touched = self.instances.iter().zip(0..).map(|(instance, place)| (instance.derived, place)).collect();
    }

    /// What waits, by series.
    pub(super) fn saved(&self, sources: &[Source]) -> Vec<SavedJoined> {
        let known =
            self.joined.iter().filter(|joined| !joined.samples.is_empty() || joined.newest != Recent::default());
        let mut saved: Vec<_> = known
            .map(|joined| SavedJoined {
                series: joined.series,
                samples: joined.samples.iter().skip(self.superfluous(joined, sources)).cloned().collect(),
                newest: joined.newest.clone(),
            })
            .collect();
        saved.sort_by_key(|joined| joined.series);
        saved
    }

    /// Puts back what waited. `None` when nobody looks at the series, or it is in no order.
    pub(super) fn restore(&mut self, saved: SavedJoined) -> Option<()> {
        let SavedJoined { series, samples, newest } = saved;
        let in_order = samples.iter().zip(samples.iter().skip(1)).all(|(a, b)| a.sample.time < b.sample.time);
        let place = *self.places.get(&series).filter(|_| in_order)?;
        let joined = self.joined.get_mut(place as usize)?;
        (joined.samples, joined.newest) = (samples.into(), newest);
        Some(())
    }
}

/// The value of a definition at a moment; `None` when it is missing.
fn value(definition: &DerivedPlan, moment: &Moment<'_>) -> Option<Value> {
    let is_whole = |name: usize| moment.newest(name).is_some_and(|sample| sample.value.is_some());
    if definition.join == Join::Inner && !(0..definition.bindings.len()).all(is_whole) {
        return None;
    }
    Some(match definition.expr.eval(moment)? {
        Scalar::Float(value) => Value::Float(value),
        Scalar::Int(value) => Value::Int(value),
        Scalar::Bool(value) => Value::Bool(value),
        Scalar::Text(value) => Value::Text(value.into()),
    })
}

/// The reading of a moment, as suspect as what it was made of.
fn reading(series: SeriesId, moment: &Moment<'_>, value: Value) -> Reading {
    let is_suspect = (0..moment.sides.len()).filter_map(|name| moment.point(name)).any(|point| point.is_suspect);
    let quality = if is_suspect { Quality::Suspect } else { Quality::Good };
    Reading { series, time: moment.at, value, quality, check: None, clock: ClockState::Synced }
}
