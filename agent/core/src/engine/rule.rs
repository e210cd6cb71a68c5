//! Rules: conditions over the newest values of series, which raise and clear alerts.
//!
//! A rule is evaluated when readings arrive that are newer, by event time, than what its series had; readings of one time in a
//! batch count at once, so that the values of one poll are never seen half. A batch that brings several times is
//! evaluated at each of them, in the order of arrival.
//!
//! A rule has one instance, or one for each series that its first filter binding selects; its other bindings name their
//! series by the levels of that one. A bad reading makes its value missing; what is missing neither raises nor clears.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::expr::{Sample, Scope};
use crate::plan::{BindingSource, Plan, RulePlan, StreamId};
use crate::reading::{ClockState, SeriesId};
use crate::record::{Alert, AlertState, Emitted, Record};
use crate::template::{Piece, Template};
use crate::time::Timestamp;

/// The newest two samples of a series that a rule looks at.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Recent {
    pub(super) newest: Option<Sample>,
    pub(super) previous: Option<Sample>,
}

/// A series that a rule looks at, and who looks.
#[derive(Debug)]
struct Watched {
    series: SeriesId,
    recent: Recent,
    instances: Vec<u32>,
}

/// A rule for one series of its filter, or the only one of a rule without.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) rule: u16,
    /// The series that made it; empty for the only one.
    pub(super) name: Arc<str>,
    pub(super) is_raised: bool,
    is_pending: bool,
    /// For each binding the place among the watched.
    bindings: Vec<Option<u32>>,
}

/// All rules.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) instances: Vec<Instance>,
    watched: Vec<Watched>,
    /// The places in `watched`.
    places: BTreeMap<SeriesId, u32>,
    /// Who waits for a series that was not declared yet: instance and binding.
    wanted: BTreeMap<Arc<str>, Vec<(u32, usize)>>,
    /// Series that came to be watched since [`Rules::newly_watched`] was last asked.
    fresh: Vec<(u32, SeriesId)>,
    /// Instances whose values changed at `pending_time`.
    pending: Vec<u32>,
    pending_time: Timestamp,
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
        self.recent(binding)?.newest.as_ref()
    }

    fn previous(&self, binding: usize) -> Option<&Sample> {
        self.recent(binding)?.previous.as_ref()
    }
}

impl Recent {
    /// Takes a sample, and says whether it is the newest now. One of the same time replaces it: a source that corrects itself.
    fn observe(&mut self, sample: Sample) -> bool {
        match &mut self.newest {
            Some(newest) if sample.time < newest.time => {
                if self.previous.as_ref().is_none_or(|previous| sample.time >= previous.time) {
                    self.previous = Some(sample);
                }
                false
            }
            Some(newest) if sample.time == newest.time => {
                *newest = sample;
                true
            }
            newest => {
                let before = newest.replace(sample);
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
        let mut rules = Self { pending_time: Timestamp::MIN, ..Self::default() };
        for (i, rule) in plan.rules.iter().enumerate() {
            if maker(rule).is_none() {
                rules.add_instance(i as u16, rule, "", None, |_| None);
            }
        }
        rules
    }

    /// A series appears: it may make instances, and instances may wait for it.
    pub(super) fn declare(
        &mut self,
        plan: &Plan,
        name: &Arc<str>,
        series: SeriesId,
        id_of: impl Fn(&str) -> Option<SeriesId>,
    ) {
        for (i, rule) in plan.rules.iter().enumerate() {
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

    /// The series that came to be watched since the last call, with the places under which [`Rules::observe`] takes them.
    pub(super) fn newly_watched(&mut self) -> Vec<(u32, SeriesId)> {
        std::mem::take(&mut self.fresh)
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
        self.instances.push(Instance {
            rule,
            name: Arc::clone(&name),
            is_raised: false,
            is_pending: false,
            bindings: vec![None; plan.bindings.len()],
        });
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
            self.watched.push(Watched { series, recent: Recent::default(), instances: Vec::new() });
            place
        });
        if let Some(watched) = self.watched.get_mut(place as usize)
            && !watched.instances.contains(&instance)
        {
            watched.instances.push(instance);
        }
        let bound = self.instances.get_mut(instance as usize).and_then(|instance| instance.bindings.get_mut(binding));
        if let Some(bound) = bound {
            *bound = Some(place);
        }
    }

    /// A reading of a watched series arrives. What earlier times of the batch changed is evaluated first.
    pub(super) fn observe(&mut self, plan: &Plan, place: u32, sample: Sample, out: &mut Vec<Emitted>) {
        if sample.time != self.pending_time {
            self.evaluate(plan, out);
            self.pending_time = sample.time;
        }
        let Some(watched) = self.watched.get_mut(place as usize) else { return };
        if !watched.recent.observe(sample) {
            return;
        }
        for &instance in &watched.instances {
            if let Some(entry) = self.instances.get_mut(instance as usize)
                && !entry.is_pending
            {
                entry.is_pending = true;
                self.pending.push(instance);
            }
        }
    }

    /// Evaluates what changed: by rule, then by instance in the order in which their series appeared.
    pub(super) fn evaluate(&mut self, plan: &Plan, out: &mut Vec<Emitted>) {
        let Self { instances, watched, pending, pending_time, .. } = self;
        pending.sort_unstable_by_key(|&place| (instances.get(place as usize).map(|instance| instance.rule), place));
        for place in pending.drain(..) {
            let Some(instance) = instances.get_mut(place as usize) else { continue };
            instance.is_pending = false;
            let Some(rule) = plan.rules.get(usize::from(instance.rule)) else { continue };
            let scope = InstanceScope { watched, bindings: &instance.bindings };
            let changes = match (&rule.clear, instance.is_raised) {
                (_, false) => rule.when.holds(&scope) == Some(true),
                (Some(clear), true) => clear.holds(&scope) == Some(true),
                (None, true) => rule.when.holds(&scope) == Some(false),
            };
            if changes {
                let alert = report(plan, rule, &instance.name, !instance.is_raised, &scope, *pending_time);
                out.push(Emitted { stream: StreamId::ALERTS, record: Record::Alert(alert) });
                instance.is_raised = !instance.is_raised;
            }
        }
    }

    /// A sample of a watched series that was seen at one time was of another.
    pub(super) fn retime(&mut self, place: u32, seen: Timestamp, time: Timestamp) {
        let Some(watched) = self.watched.get_mut(place as usize) else { return };
        let Recent { newest, previous } = &mut watched.recent;
        for sample in [newest, previous].into_iter().flatten().filter(|sample| sample.time == seen) {
            sample.time = time;
        }
    }

    /// The alerts that are raised, as rule and instance.
    pub(super) fn raised(&self) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(|instance| instance.is_raised)
    }

    /// The samples of every watched series.
    pub(super) fn recents(&self) -> impl Iterator<Item = (SeriesId, &Recent)> {
        self.watched.iter().map(|watched| (watched.series, &watched.recent))
    }

    /// Puts samples back. `None` when no rule looks at the series.
    pub(super) fn restore_recent(&mut self, series: SeriesId, recent: Recent) -> Option<()> {
        let place = *self.places.get(&series)?;
        self.watched.get_mut(place as usize)?.recent = recent;
        Some(())
    }

    /// Marks an instance as raised. `None` when there is none such.
    pub(super) fn restore_raised(&mut self, rule: u16, name: &str) -> Option<()> {
        let mut instances = self.instances.iter_mut();
        instances.find(|instance| instance.rule == rule && &*instance.name == name)?.is_raised = true;
        Some(())
    }

    /// Clears the raised alerts whose rule or instance a new plan does not have.
    pub(super) fn clear_removed(
        &mut self,
        plan: &Plan,
        now: Timestamp,
        stays: impl Fn(&RulePlan, &str) -> bool,
        out: &mut Vec<Emitted>,
    ) {
        for instance in self.instances.iter_mut().filter(|instance| instance.is_raised) {
            let Some(rule) = plan.rules.get(usize::from(instance.rule)) else { continue };
            if !stays(rule, &instance.name) {
                let scope = InstanceScope { watched: &self.watched, bindings: &instance.bindings };
                let alert = report(plan, rule, &instance.name, false, &scope, now);
                out.push(Emitted { stream: StreamId::ALERTS, record: Record::Alert(alert) });
                instance.is_raised = false;
            }
        }
    }
}

/// The binding that makes a rule's instances.
pub(super) fn maker(rule: &RulePlan) -> Option<usize> {
    rule.bindings.iter().position(|binding| matches!(binding.source, BindingSource::Each(_)))
}

fn report(
    plan: &Plan,
    rule: &RulePlan,
    instance: &Arc<str>,
    is_raised: bool,
    scope: &InstanceScope<'_>,
    time: Timestamp,
) -> Alert {
    let values: Vec<_> = rule
        .bindings
        .iter()
        .enumerate()
        .map(|(i, binding)| (Arc::clone(&binding.name), scope.newest(i).and_then(|sample| sample.value.clone())))
        .collect();
    let message = match &rule.message {
        Some(template) => message(template, plan, rule, instance, &values),
        None => format!("{}: {}", rule.name, rule.when),
    };
    Alert {
        rule: Arc::clone(&rule.name),
        instance: Arc::clone(instance),
        severity: rule.severity,
        time,
        state: if is_raised { AlertState::Raised } else { AlertState::Cleared },
        message: message.into(),
        values,
        clock: ClockState::Synced,
    }
}

/// Fills in a message: bindings by their names, levels of the instance's series, then `{rule}`, `{instance}` and `{series}` (the same),
/// `{agent}` and `{label.NAME}`. A value that is missing reads `missing`; a place that nothing is known for stays as it is.
fn message(
    template: &Template,
    plan: &Plan,
    rule: &RulePlan,
    instance: &str,
    values: &[(Arc<str>, Option<crate::reading::Value>)],
) -> String {
    let fill = |piece: &Piece| -> Option<Cow<'static, str>> {
        Some(Cow::Owned(match piece {
            Piece::Text(text) => text.clone(),
            Piece::Level(n) => instance.split('/').nth(*n).map_or_else(|| format!("{{{n}}}"), str::to_owned),
            Piece::Name { name, argument } => {
                if let Some((_, value)) = values.iter().find(|(binding, _)| **binding == **name) {
                    value.as_ref().map_or_else(|| "missing".to_owned(), ToString::to_string)
                } else {
                    match (name.as_str(), argument) {
                        ("rule", None) => rule.name.to_string(),
                        ("instance" | "series", None) => instance.to_owned(),
                        ("agent", None) => plan.agent.to_string(),
                        (name, argument) => match name.strip_prefix("label.").and_then(|name| plan.labels.get(name)) {
                            Some(label) => label.clone(),
                            None => match argument {
                                Some(argument) => format!("{{{name}:{argument}}}"),
                                None => format!("{{{name}}}"),
                            },
                        },
                    }
                }
            }
        }))
    };
    // Every place is filled in above, so there is nothing that could be unknown.
    template.render(fill).unwrap_or_default()
}
