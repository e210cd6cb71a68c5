//! How an instance stands: what raises and clears it, by its readings and by time alone.
//!
//! - A condition that must hold `for` a span of event time raises with the reading that shows it so long after the first, or on the wall
//!   clock when so much time has passed since that first one arrived, whichever comes sooner.
//! - An absence is counted on the wall clock from the last arrival of a reading, good or bad; for a series that was not heard since the
//!   rule began, or since the process started or the machine woke, from that.
//! - A raised alert is repeated on the wall clock, at most once in its span.
//!
//! The wall clock is that of the engine, which nobody sets. When it comes to be another ([`Rules::set_clock`]) all that was noted by it, or
//! stamped by it, moves along.

use std::sync::Arc;
use std::time::Duration;

use super::report::report;
use super::{Instance, InstanceScope, Recent, Rules, Stamp};
use crate::plan::{Condition, Plan, RulePlan, StreamId};
use crate::reading::SeriesId;
use crate::record::{AlertState, Emitted};
use crate::sorted;
use crate::time::Timestamp;

/// What is remembered of an instance.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(in crate::engine) struct Standing {
    pub(in crate::engine) is_raised: bool,
    /// The event time since which the condition holds, while it has not held for long enough.
    since: Option<Stamp>,
    /// From when on the wall clock counts: when `since` arrived, or for an absence when its rule, or the process, began.
    /// [`Timestamp::MIN`] before that is known, [`Timestamp::MAX`] once the clock has said all that it can.
    armed: Timestamp,
    /// When it was last raised or repeated, by the wall clock.
    reported: Timestamp,
}

impl Default for Standing {
    fn default() -> Self {
        Self { is_raised: false, since: None, armed: Timestamp::MIN, reported: Timestamp::MIN }
    }
}

impl Standing {
    fn report(&mut self, state: AlertState, at: Timestamp) {
        self.is_raised = state != AlertState::Cleared;
        self.since = None;
        self.reported = at;
    }

    /// When time alone may change something.
    fn due(&self, rule: &RulePlan, heard: Option<Timestamp>) -> Option<Timestamp> {
        let after = |from: Timestamp, span: Duration| {
            Some(from.saturating_add(span)).filter(|&at| from > Timestamp::MIN && at < Timestamp::MAX)
        };
        if self.is_raised {
            return after(self.reported, rule.repeat?);
        }
        match rule.condition {
            Condition::Holds { hold, .. } => self.since.and_then(|_| after(self.armed, hold)),
            Condition::Absent { after: span, .. } => after(heard.unwrap_or(self.armed).max(self.armed), span),
        }
    }
}

impl Rules {
    /// When [`Rules::step`] would next look at something.
    pub(in crate::engine) fn wake_at(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Evaluates what changed: by rule, then by instance in the order in which their series appeared.
    pub(in crate::engine) fn evaluate(&mut self, plan: &Plan, arrival: Timestamp, out: &mut Vec<Emitted>) {
        let mut pending = std::mem::take(&mut self.pending);
        pending
            .sort_unstable_by_key(|&place| (self.instances.get(place as usize).map(|instance| instance.rule), place));
        for place in pending.drain(..) {
            self.evaluate_instance(plan, place, arrival, out);
        }
        self.pending = pending;
    }

    fn evaluate_instance(&mut self, plan: &Plan, place: u32, arrival: Timestamp, out: &mut Vec<Emitted>) {
        let Self { instances, watched, pending_stamp, .. } = self;
        let stamp @ Stamp { time, .. } = *pending_stamp;
        let Some(instance) = instances.get_mut(place as usize) else { return };
        instance.is_pending = false;
        let Some(rule) = plan.rules.get(usize::from(instance.rule)) else { return };
        let Condition::Holds { when, clear, hold } = &rule.condition else { return };
        let scope = InstanceScope { watched, bindings: &instance.bindings };
        let standing = &mut instance.standing;
        let change = if standing.is_raised {
            let is_over = match clear {
                Some(clear) => clear.holds(&scope) == Some(true),
                None => when.holds(&scope) == Some(false),
            };
            is_over.then_some(AlertState::Cleared)
        } else {
            match when.holds(&scope) {
                Some(true) => {
                    if standing.since.is_none() {
                        (standing.since, standing.armed) = (Some(stamp), arrival);
                    }
                    let since = standing.since.unwrap_or(stamp);
                    (time >= since.time.saturating_add(*hold)).then_some(AlertState::Raised)
                }
                Some(false) => {
                    standing.since = None;
                    None
                }
                None => None,
            }
        };
        if let Some(state) = change {
            let alert = report(plan, rule, &instance.name, state, &scope, time);
            out.push(Emitted { stream: StreamId::ALERTS, record: alert.into() });
            standing.report(state, arrival);
        }
        self.set_timer(plan, place);
    }

    /// A series was heard that instances missed.
    pub(super) fn end_absence(&mut self, plan: &Plan, place: u32, out: &mut Vec<Emitted>) {
        let Some(watched) = self.watched.get_mut(place as usize) else { return };
        let time = self.pending_stamp.time;
        let mut missed = std::mem::take(&mut watched.missed);
        missed.sort_unstable();
        for place in missed {
            self.tell(plan, place, AlertState::Cleared, time, time, out);
            self.set_timer(plan, place);
        }
    }

    /// Lets time pass: what is due by the wall clock, in the order in which it came due.
    pub(in crate::engine) fn step(&mut self, plan: &Plan, now: Timestamp, out: &mut Vec<Emitted>) {
        while let Some((at, place)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.pop_first();
            let Some(instance) = self.instances.get_mut(place as usize) else { continue };
            instance.timer = None;
            let Some(rule) = plan.rules.get(usize::from(instance.rule)) else { continue };
            // What was put off meanwhile has its turn when it is due.
            if let Some(due) = self.due(rule, place).filter(|&due| due <= at) {
                self.come_due(plan, rule, place, due, now, out);
            }
            self.set_timer(plan, place);
        }
    }

    fn come_due(
        &mut self,
        plan: &Plan,
        rule: &RulePlan,
        place: u32,
        due: Timestamp,
        now: Timestamp,
        out: &mut Vec<Emitted>,
    ) {
        let Some(instance) = self.instances.get_mut(place as usize) else { return };
        if instance.standing.is_raised {
            return self.tell(plan, place, AlertState::Repeated, now, now, out);
        }
        match &rule.condition {
            Condition::Absent { .. } => {
                self.tell(plan, place, AlertState::Raised, due, now, out);
                self.note_missed(place);
            }
            Condition::Holds { when, hold, .. } => {
                let scope = InstanceScope { watched: &self.watched, bindings: &instance.bindings };
                // A value that is missing by now says neither; the next reading does.
                instance.standing.armed = Timestamp::MAX;
                if when.holds(&scope) == Some(true) {
                    let time = instance.standing.since.map_or(now, |since| since.time.saturating_add(*hold));
                    self.tell(plan, place, AlertState::Raised, time, now, out);
                }
            }
        }
    }

    fn tell(
        &mut self,
        plan: &Plan,
        place: u32,
        state: AlertState,
        time: Timestamp,
        now: Timestamp,
        out: &mut Vec<Emitted>,
    ) {
        let Self { instances, watched, .. } = self;
        let Some(instance) = instances.get_mut(place as usize) else { return };
        let Some(rule) = plan.rules.get(usize::from(instance.rule)) else { return };
        let scope = InstanceScope { watched, bindings: &instance.bindings };
        let alert = report(plan, rule, &instance.name, state, &scope, time);
        out.push(Emitted { stream: StreamId::ALERTS, record: alert.into() });
        instance.standing.report(state, now);
    }

    /// When time alone may change something of an instance; never where nobody expects to hear of its series.
    fn due(&self, rule: &RulePlan, place: u32) -> Option<Timestamp> {
        let instance = self.instances.get(place as usize).filter(|instance| !instance.is_mute)?;
        let series = instance.bindings.first().copied().flatten();
        let heard = series.and_then(|series| self.watched.get(series as usize)?.recent.heard);
        instance.standing.due(rule, heard)
    }

    fn set_timer(&mut self, plan: &Plan, place: u32) {
        let rule = self.instances.get(place as usize).and_then(|instance| plan.rules.get(usize::from(instance.rule)));
        let due = rule.and_then(|rule| self.due(rule, place));
        let Some(instance) = self.instances.get_mut(place as usize).filter(|instance| instance.timer != due) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut instance.timer, due) {
            self.timers.remove(&(before, place));
        }
        self.timers.extend(due.map(|at| (at, place)));
    }

    /// Lets instances that are new count from now on.
    pub(in crate::engine) fn arm(&mut self, plan: &Plan, now: Timestamp) {
        if self.unarmed.is_empty() || now == Timestamp::MIN {
            return;
        }
        for place in std::mem::take(&mut self.unarmed) {
            if let Some(instance) = self.instances.get_mut(place as usize)
                && instance.standing.armed == Timestamp::MIN
            {
                instance.standing.armed = now;
            }
            self.set_timer(plan, place);
        }
    }

    /// Nobody listened for a while, so that every absence is counted from now on.
    pub(in crate::engine) fn start(&mut self, plan: &Plan, now: Timestamp) {
        for instance in self.instances.iter_mut().filter(|instance| instance.is_absence && !instance.is_mute) {
            instance.standing.armed = now;
        }
        self.set_clock(plan, &|at| at.min(now));
    }

    /// Changes what was noted by the agent's clock to what another would have shown, so that no interval is longer or shorter for that.
    pub(in crate::engine) fn set_clock(&mut self, plan: &Plan, shown: &dyn Fn(Timestamp) -> Timestamp) {
        for Standing { since, armed, reported, .. } in self.instances.iter_mut().map(|instance| &mut instance.standing)
        {
            if let Some(since) = since.as_mut().filter(|since| since.is_by_clock) {
                since.time = shown(since.time);
            }
            for at in [armed, reported] {
                if *at > Timestamp::MIN && *at < Timestamp::MAX {
                    *at = shown(*at);
                }
            }
        }
        self.watched.iter_mut().for_each(|watched| watched.recent.set_clock(shown));
        self.set_timers(plan);
    }

    /// What is remembered of the instances of a rule, where it is more than nothing.
    pub(in crate::engine) fn standings(&self, rule: usize) -> Vec<(Arc<str>, Standing)> {
        let instances = self.instances.iter().filter(|instance| usize::from(instance.rule) == rule);
        let known = instances.filter(|instance| instance.standing != Standing::default());
        let mut known: Vec<_> = known.map(|Instance { name, standing, .. }| (name.clone(), standing.clone())).collect();
        sorted::by(&mut known, |(a, _), (b, _)| a.cmp(b));
        known
    }

    /// Puts back what is remembered of instances. A rule that was changed begins anew; only what is raised stays so until its readings
    /// clear it. Names to `stranger` the instances that there are not.
    pub(in crate::engine) fn restore(
        &mut self,
        rule: Option<u16>,
        standings: Vec<(Arc<str>, Standing)>,
        is_changed: bool,
        stranger: &mut dyn FnMut(&str),
    ) {
        for (name, saved) in standings {
            let mut instances = self.instances.iter_mut().enumerate();
            let found = instances.find(|(_, known)| Some(known.rule) == rule && known.name == name);
            let Some((place, instance)) = found else {
                stranger(&name);
                continue;
            };
            if saved.is_raised || !(is_changed || instance.is_mute) {
                instance.standing = saved;
            }
            self.note_missed(place as u32);
        }
    }

    /// Sets all timers anew, once everything that they depend on is known.
    pub(in crate::engine) fn set_timers(&mut self, plan: &Plan) {
        (0..self.instances.len() as u32).for_each(|place| self.set_timer(plan, place));
    }

    /// Clears the raised alerts whose rule or instance a new plan does not have.
    pub(in crate::engine) fn clear_removed(
        &mut self,
        plan: &Plan,
        now: Timestamp,
        stays: impl Fn(&RulePlan, &str) -> bool,
        out: &mut Vec<Emitted>,
    ) {
        for place in 0..self.instances.len() as u32 {
            let Some(instance) = self.instances.get(place as usize) else { continue };
            let Some(rule) = plan.rules.get(usize::from(instance.rule)) else { continue };
            if instance.standing.is_raised && !stays(rule, &instance.name) {
                self.tell(plan, place, AlertState::Cleared, now, now, out);
            }
        }
    }

    /// The samples of every watched series.
    pub(in crate::engine) fn recents(&self) -> impl Iterator<Item = (SeriesId, &Recent)> {
        self.watched.iter().map(|watched| (watched.series, &watched.recent))
    }
}
