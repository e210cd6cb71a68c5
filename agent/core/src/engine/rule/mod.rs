//! Rules: conditions over the newest values of series, which raise and clear alerts.
//!
//! A rule is evaluated when readings arrive that are newer, by event time, than what its series had; readings of one time in a
//! batch count at once, so that the values of one poll are never seen half. A batch that brings several times is
//! evaluated at each of them, in the order of arrival.
//!
//! A rule has one instance, or one for each series that its first filter binding selects; its other bindings name their
//! series by the levels of that one. A bad reading makes its value missing; what is missing neither raises nor clears.
//!
//! A rule over the absence of data has one instance for each series that it selects, and for each that it names whether it was ever
//! seen or not. What time alone changes is in [`standing`].

mod report;
mod standing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::expr::{Sample, Scope};
use crate::plan::{BindingSource, Condition, Plan, RulePlan};
use crate::reading::SeriesId;
use crate::record::Emitted;
use crate::time::Timestamp;

pub(super) use standing::Standing;

/// A time of an event. One that a reading got from the agent's clock when it arrived is as right as that was, and moves when it is set.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Stamp {
    pub(super) time: Timestamp,
    pub(super) is_by_clock: bool,
}

/// A sample, and whether its time is by the agent's clock.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Seen {
    pub(super) sample: Sample,
    pub(super) is_by_clock: bool,
}

/// The newest two samples of a series that a rule looks at.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Recent {
    pub(super) newest: Option<Seen>,
    pub(super) previous: Option<Seen>,
    /// When a reading of it last arrived, good or bad, old or new.
    pub(super) heard: Option<Timestamp>,
}

/// A series that a rule looks at, and who looks.
#[derive(Debug)]
struct Watched {
    series: SeriesId,
    recent: Recent,
    instances: Vec<u32>,
    /// Those of `instances` whose rule is over its absence, and is raised.
    missed: Vec<u32>,
}

/// A rule for one series of its filter, or the only one of a rule without.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) rule: u16,
    /// The series that made it; empty for the only one.
    pub(super) name: Arc<str>,
    pub(super) standing: Standing,
    is_pending: bool,
    /// For each binding the place among the watched; for a rule over absence that of its series.
    bindings: Vec<Option<u32>>,
    /// When it is looked at because of time alone: what stands in [`Rules::timers`].
    timer: Option<Timestamp>,
    /// Whether its rule is over the absence of data.
    is_absence: bool,
    /// Whether the input of its series is gone, so that nobody expects to hear of it: for rules over absence.
    is_mute: bool,
}

/// All rules.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) instances: Vec<Instance>,
    watched: Vec<Watched>,
    /// The places in `watched`.
    places: BTreeMap<SeriesId, u32>,
    /// Who waits for a series that was not declared yet: instance and binding.
    wanted: BTreeMap<Arc<str>, Vec<(u32, usize)>>,
    /// Series that came to be watched since [`Rules::newly_watched`] was last asked.
    fresh: Vec<(u32, SeriesId)>,
    /// Instances whose values changed at `pending_stamp`.
    pending: Vec<u32>,
    pending_stamp: Stamp,
    /// When which instance is to be looked at. It may be sooner than anything is due: an absence is put off by each reading, and that
    /// only counts when its time has come.
    timers: BTreeSet<(Timestamp, u32)>,
    /// Instances over absence that do not know yet from when on to count.
    unarmed: Vec<u32>,
}

struct InstanceScope<'a> {
    watched: &'a [Watched],
    bindings: &'a [Option<u32>],
}

impl InstanceScope<'_> {
    fn recent(&self, binding: usize) -> Option<&Recent> {
        let place = (*self.bindings.get(binding)?)?;
        Some(&self.watched.get(place as usize)?.recent)
    }
}

impl Scope for InstanceScope<'_> {
    fn newest(&self, binding: usize) -> Option<&Sample> {
        self.recent(binding)?.newest()
    }

    fn previous(&self, binding: usize) -> Option<&Sample> {
        self.recent(binding)?.previous()
    }
}

impl Recent {
    pub(super) fn newest(&self) -> Option<&Sample> {
        self.newest.as_ref().map(|seen| &seen.sample)
    }

    pub(super) fn previous(&self) -> Option<&Sample> {
        self.previous.as_ref().map(|seen| &seen.sample)
    }

    /// Changes what was noted by the agent's clock to what another would have shown.
    pub(super) fn set_clock(&mut self, shown: &dyn Fn(Timestamp) -> Timestamp) {
        self.heard = self.heard.map(shown);
        let Self { newest, previous, .. } = self;
        for seen in [newest, previous].into_iter().flatten().filter(|seen| seen.is_by_clock) {
            seen.sample.time = shown(seen.sample.time);
        }
        let newest = self.newest().map(|newest| newest.time);
        self.previous.take_if(|previous| Some(previous.sample.time) >= newest);
    }

    /// Takes a sample, and says whether it is the newest now. One of the same time replaces it: a source that corrects itself.
    pub(super) fn observe(&mut self, seen: Seen) -> bool {
        let time = seen.sample.time;
        match &mut self.newest {
            Some(newest) if time < newest.sample.time => {
                if self.previous().is_none_or(|previous| time >= previous.time) {
                    self.previous = Some(seen);
                }
                false
            }
            Some(newest) if time == newest.sample.time => {
                *newest = seen;
                true
            }
            newest => {
                let before = newest.replace(seen);
                if before.is_some() {
                    self.previous = before;
                }
                true
            }
        }
    }
}

impl Rules {
    /// The rules of a plan, before any series is known.
    pub(super) fn new(plan: &Plan) -> Self {
        let mut rules = Self {
            instances: Vec::new(),
            watched: Vec::new(),
            places: BTreeMap::new(),
            wanted: BTreeMap::new(),
            fresh: Vec::new(),
            pending: Vec::new(),
            pending_stamp: Stamp { time: Timestamp::MIN, is_by_clock: false },
            timers: BTreeSet::new(),
            unarmed: Vec::new(),
        };
        for (i, rule) in plan.rules.iter().enumerate() {
            match &rule.condition {
                Condition::Absent { select, .. } => {
                    for name in select.iter().filter(|filter| filter.is_literal()) {
                        rules.add_absence(i as u16, &name.to_string().into(), None, false);
                    }
                }
                Condition::Holds { .. } if maker(rule).is_none() => {
                    rules.add_instance(i as u16, rule, "", None, |_| None);
                }
                Condition::Holds { .. } => {}
            }
        }
        rules
    }

    /// A series appears: it may make instances, and instances may wait for it. Unless it `is_expected`, its input is gone, and nobody
    /// misses it.
    pub(super) fn declare(
        &mut self,
        plan: &Plan,
        name: &Arc<str>,
        series: SeriesId,
        is_expected: bool,
        id_of: impl Fn(&str) -> Option<SeriesId>,
    ) {
        for (i, rule) in plan.rules.iter().enumerate() {
            if let Condition::Absent { select, .. } = &rule.condition {
                let is_named = select.iter().any(|filter| filter.is_literal() && filter.matches(name));
                if !is_named && select.iter().any(|filter| filter.matches(name)) {
                    self.add_absence(i as u16, name, Some(series), !is_expected);
                }
                continue;
            }
            let Some(binding) = maker(rule) else { continue };
            let selects = rule
                .bindings
                .get(binding)
                .is_some_and(|binding| matches!(&binding.source, BindingSource::Each(filter) if filter.matches(name)));
            if selects {
                self.add_instance(i as u16, rule, name, Some(binding), &id_of);
            }
        }
        for (instance, binding) in self.wanted.remove(name).unwrap_or_default() {
            self.bind(instance, binding, series);
        }
    }

    /// The input of a series is back: it is missed again from now on.
    pub(super) fn expect_again(&mut self, series: SeriesId) {
        let watched = self.places.get(&series).and_then(|&place| self.watched.get(place as usize));
        for &place in watched.map_or(&[][..], |watched| &watched.instances) {
            if let Some(instance) = self.instances.get_mut(place as usize).filter(|instance| instance.is_mute) {
                instance.is_mute = false;
                self.unarmed.push(place);
            }
        }
    }

    /// The series that came to be watched since the last call, with the places under which [`Rules::observe`] takes them.
    pub(super) fn newly_watched(&mut self) -> Vec<(u32, SeriesId)> {
        std::mem::take(&mut self.fresh)
    }

    /// An instance of a rule over absence.
    fn add_absence(&mut self, rule: u16, name: &Arc<str>, series: Option<SeriesId>, is_mute: bool) {
        let instance = self.instances.len() as u32;
        self.instances.push(Instance { is_absence: true, is_mute, ..Instance::new(rule, Arc::clone(name), 1) });
        if !is_mute {
            self.unarmed.push(instance);
        }
        match series {
            Some(series) => self.bind(instance, 0, series),
            None => self.wanted.entry(Arc::clone(name)).or_default().push((instance, 0)),
        }
    }

    fn add_instance(
        &mut self,
        rule: u16,
        plan: &RulePlan,
        name: &str,
        maker: Option<usize>,
        id_of: impl Fn(&str) -> Option<SeriesId>,
    ) {
        let instance = self.instances.len() as u32;
        let name: Arc<str> = name.into();
        self.instances.push(Instance::new(rule, Arc::clone(&name), plan.bindings.len()));
        for (i, binding) in plan.bindings.iter().enumerate() {
            let wanted = match &binding.source {
                BindingSource::Each(_) if maker == Some(i) => Arc::clone(&name),
                // A second filter would make pairs, which the configuration refuses; its value stays missing.
                BindingSource::Each(_) => continue,
                // A level that the series does not have names nothing.
                BindingSource::Series(template) => match template.render_levels(&name) {
                    Ok(series) => series.into(),
                    Err(_) => continue,
                },
            };
            match id_of(&wanted) {
                Some(series) => self.bind(instance, i, series),
                None => self.wanted.entry(wanted).or_default().push((instance, i)),
            }
        }
    }

    fn bind(&mut self, instance: u32, binding: usize, series: SeriesId) {
        let place = *self.places.entry(series).or_insert_with(|| {
            let place = self.watched.len() as u32;
            self.fresh.push((place, series));
            let (recent, instances, missed) = (Recent::default(), Vec::new(), Vec::new());
            self.watched.push(Watched { series, recent, instances, missed });
            place
        });
        if let Some(watched) = self.watched.get_mut(place as usize)
            && !watched.instances.contains(&instance)
        {
            watched.instances.push(instance);
        }
        if let Some(entry) = self.instances.get_mut(instance as usize)
            && let Some(bound) = entry.bindings.get_mut(binding)
        {
            *bound = Some(place);
        }
        self.note_missed(instance);
    }

    /// Has the next reading of a series end its absence.
    fn note_missed(&mut self, instance: u32) {
        let Some(entry) = self.instances.get(instance as usize) else { return };
        let place = entry.bindings.first().copied().flatten();
        if let Some(watched) = place.and_then(|place| self.watched.get_mut(place as usize))
            && entry.is_absence
            && entry.standing.is_raised
        {
            watched.missed.push(instance);
        }
    }

    /// A sample of a watched series arrives with a reading of this stamp. What earlier times of the batch changed is evaluated first.
    pub(super) fn observe(
        &mut self,
        plan: &Plan,
        place: u32,
        arrival: Timestamp,
        stamp: Stamp,
        seen: Seen,
        out: &mut Vec<Emitted>,
    ) {
        if stamp != self.pending_stamp {
            self.evaluate(plan, arrival, out);
            self.pending_stamp = stamp;
        }
        let Some(watched) = self.watched.get_mut(place as usize) else { return };
        watched.recent.heard = watched.recent.heard.max(Some(arrival));
        let is_missed = !watched.missed.is_empty();
        if watched.recent.observe(seen) {
            for &instance in &watched.instances {
                if let Some(entry) = self.instances.get_mut(instance as usize)
                    && !entry.is_pending
                {
                    entry.is_pending = true;
                    self.pending.push(instance);
                }
            }
        }
        if is_missed {
            self.end_absence(plan, place, out);
        }
    }

    /// The alerts that are raised, as rule and instance.
    pub(super) fn raised(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(|instance| instance.standing.is_raised)
    }

    /// Puts samples back. `None` when no rule looks at the series.
    pub(super) fn restore_recent(&mut self, series: SeriesId, recent: Recent) -> Option<()> {
        let place = *self.places.get(&series)?;
        self.watched.get_mut(place as usize)?.recent = recent;
        Some(())
    }
}

impl Instance {
    fn new(rule: u16, name: Arc<str>, bindings: usize) -> Self {
        Self {
            rule,
            name,
            standing: Standing::default(),
            is_pending: false,
            bindings: vec![None; bindings],
            timer: None,
            is_absence: false,
            is_mute: false,
        }
    }
}

/// The binding that makes a rule's instances.
pub(super) fn maker(rule: &RulePlan) -> Option<usize> {
    rule.bindings.iter().position(|binding| matches!(binding.source, BindingSource::Each(_)))
}
