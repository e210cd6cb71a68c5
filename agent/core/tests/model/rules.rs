//! Rules, plainly: who watches what is worked out from the names, and every instance is asked when its time has come.

use std::collections::{BTreeMap, BTreeSet};

use rtlive_core::reading::Value;
use rtlive_core::record::AlertState;

use crate::definitions::{self, CONDITIONS, Seen, filter, rendered, span};
use crate::expected::Expected;
use crate::joins::History;
use crate::naive::{Model, Series};
use crate::plans::Wanted;

/// An instance of a rule: its series, where they are known.
#[derive(Clone, Debug)]
pub(crate) struct Watcher {
    rule: &'static str,
    instance: String,
    sides: Vec<Option<u32>>,
    is_absence: bool,
    /// Whether nobody expects to hear of its series.
    is_mute: bool,
}

/// How an instance stands.
#[derive(Clone, Debug, Default)]
struct Standing {
    is_raised: bool,
    since: Option<i64>,
    /// From when on the clock counts.
    armed: Option<i64>,
    reported: i64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    pub(crate) watchers: Vec<Watcher>,
    standings: BTreeMap<(&'static str, String), Standing>,
    seen: BTreeMap<u32, History>,
    heard: BTreeMap<u32, i64>,
    /// The series that are newer since rules were last evaluated.
    changed: BTreeSet<u32>,
    time: i64,
}

/// Who watches: those that need no series first, then as the series appear.
pub(crate) fn watchers(wanted: &Wanted, series: &[Series]) -> Vec<Watcher> {
    let number = |name: String| series.iter().position(|series| series.name == name).map(|number| number as u32);
    let (mut alone, mut made) = (Vec::new(), Vec::new());
    for (&rule, definition) in &wanted.rules {
        match &definition.condition {
            definitions::Wanted::Absent { select, .. } => {
                let is_named = |name: &str| select.contains(&name);
                let new = |instance: &str, is_mute| {
                    let (instance, sides) = (instance.to_owned(), vec![number(instance.to_owned())]);
                    Watcher { rule, instance, sides, is_absence: true, is_mute }
                };
                alone.extend(select.iter().filter(|name| !name.contains(['+', '#'])).map(|name| new(name, false)));
                for (place, series) in series.iter().enumerate().filter(|(_, series)| !is_named(&series.name)) {
                    if select.iter().any(|filter| definitions::selects(filter, &series.name)) {
                        made.push((place, new(&series.name, series.origin.is_none())));
                    }
                }
            }
            definitions::Wanted::Holds { sides, .. } => {
                let new = |instance: &str| {
                    let name = |side: &&str| match side.contains('+') {
                        true => Some(instance.to_owned()),
                        false => rendered(side, instance),
                    };
                    let sides = sides.iter().map(|side| number(name(side)?)).collect();
                    Watcher { rule, instance: instance.to_owned(), sides, is_absence: false, is_mute: false }
                };
                match filter(sides) {
                    None => alone.push(new("")),
                    Some(filter) => {
                        let selected = series.iter().enumerate();
                        let selected = selected.filter(|(_, series)| definitions::selects(filter, &series.name));
                        made.extend(selected.map(|(place, series)| (place, new(&series.name))));
                    }
                }
            }
        }
    }
    made.sort_by_key(|(place, _)| *place);
    alone.into_iter().chain(made.into_iter().map(|(_, watcher)| watcher)).collect()
}

impl Model {
    pub(crate) fn is_watched(&self, series: u32) -> bool {
        self.rules.watchers.iter().any(|watcher| watcher.sides.contains(&Some(series)))
    }

    fn standing(&mut self, watcher: &Watcher) -> &mut Standing {
        self.rules.standings.entry((watcher.rule, watcher.instance.clone())).or_default()
    }

    /// What the sides of an instance are.
    fn sides(&self, watcher: &Watcher) -> Vec<Seen> {
        let seen = |side: &Option<u32>| {
            let history = self.rules.seen.get(&(*side)?)?;
            Some(history.at(history.newest()?)?.1)
        };
        watcher.sides.iter().map(|side| seen(side).unwrap_or_default()).collect()
    }

    /// A sample of a series, with a reading of the time `read_at`. Readings of one time count at once.
    pub(crate) fn observe(&mut self, series: u32, time: i64, value: Option<Value>, arrival: i64, read_at: i64) {
        if !self.is_watched(series) {
            return;
        }
        if read_at != self.rules.time {
            self.evaluate(arrival);
            self.rules.time = read_at;
        }
        self.rules.heard.insert(series, arrival);
        if self.rules.seen.entry(series).or_default().observe(time, value) {
            self.rules.changed.insert(series);
        }
        for watcher in self.by_rule().into_iter().filter(|one| one.is_absence && one.sides.contains(&Some(series))) {
            if self.standing(&watcher).is_raised {
                self.say(&watcher, AlertState::Cleared, read_at, read_at);
            }
        }
    }

    fn by_rule(&self) -> Vec<Watcher> {
        let mut watchers = self.rules.watchers.clone();
        watchers.sort_by_key(|watcher| watcher.rule);
        watchers
    }

    /// Looks at the conditions over what has changed.
    pub(crate) fn evaluate(&mut self, arrival: i64) {
        let changed = std::mem::take(&mut self.rules.changed);
        let time = self.rules.time;
        for watcher in self.by_rule() {
            let definitions::Wanted::Holds { when, clear, hold, .. } = self.wanted.rules[watcher.rule].condition else {
                continue;
            };
            if !watcher.sides.iter().flatten().any(|side| changed.contains(side)) {
                continue;
            }
            let sides = self.sides(&watcher);
            let holds = |condition: usize| CONDITIONS[condition].1(&sides[0], &sides[1]);
            let standing = self.standing(&watcher);
            if standing.is_raised {
                let is_over = clear.map_or(holds(when) == Some(false), |clear| holds(clear) == Some(true));
                if is_over {
                    self.say(&watcher, AlertState::Cleared, time, arrival);
                }
                continue;
            }
            match holds(when) {
                Some(true) => {
                    if standing.since.is_none() {
                        (standing.since, standing.armed) = (Some(time), Some(arrival));
                    }
                    if standing.since.is_some_and(|since| time >= since + span(hold)) {
                        self.say(&watcher, AlertState::Raised, time, arrival);
                    }
                }
                Some(false) => standing.since = None,
                None => {}
            }
        }
    }

    fn say(&mut self, watcher: &Watcher, state: AlertState, time: i64, now: i64) {
        let standing = self.standing(watcher);
        (standing.is_raised, standing.since, standing.reported) = (state != AlertState::Cleared, None, now);
        let values = match watcher.is_absence {
            true => Vec::new(),
            false => self.sides(watcher).into_iter().map(|side| side.newest).collect(),
        };
        let (rule, instance) = (watcher.rule, watcher.instance.clone());
        self.out.push(Expected::Alert { rule, instance, state, time, values });
    }

    /// When time alone would change something.
    fn due(&self, watcher: &Watcher) -> Option<i64> {
        let standing = self.rules.standings.get(&(watcher.rule, watcher.instance.clone()))?;
        let rule = &self.wanted.rules[watcher.rule];
        if standing.is_raised {
            return Some(standing.reported + span(rule.repeat?));
        }
        match &rule.condition {
            definitions::Wanted::Holds { hold, .. } => standing.since.and(Some(standing.armed? + span(*hold))),
            definitions::Wanted::Absent { .. } if watcher.is_mute => None,
            definitions::Wanted::Absent { after, .. } => {
                let heard = watcher.sides[0].and_then(|side| self.rules.heard.get(&side));
                Some(heard.copied().max(standing.armed)? + span(*after))
            }
        }
    }

    /// The earliest that is due, and of those at once the first.
    pub(crate) fn first_due(&self) -> Option<(i64, usize)> {
        let dues = self.rules.watchers.iter().enumerate();
        dues.filter_map(|(place, watcher)| Some((self.due(watcher)?, place))).min()
    }

    /// What time alone changes.
    pub(crate) fn step_rules(&mut self, now: i64) {
        while let Some((due, place)) = self.first_due().filter(|(due, _)| *due <= now) {
            let watcher = self.rules.watchers[place].clone();
            let sides = self.sides(&watcher);
            let condition = self.wanted.rules[watcher.rule].condition.clone();
            let standing = self.standing(&watcher);
            if standing.is_raised {
                self.say(&watcher, AlertState::Repeated, now, now);
                continue;
            }
            match condition {
                definitions::Wanted::Absent { .. } => self.say(&watcher, AlertState::Raised, due, now),
                definitions::Wanted::Holds { when, hold, .. } => {
                    // A value that is missing says neither; the next reading decides.
                    standing.armed = None;
                    let time = standing.since.unwrap() + span(hold);
                    if CONDITIONS[when].1(&sides[0], &sides[1]) == Some(true) {
                        self.say(&watcher, AlertState::Raised, time, now);
                    }
                }
            }
        }
    }

    /// Absences that are new, or with `anew` all of them, count from now on.
    pub(crate) fn arm_rules(&mut self, now: i64, anew: bool) {
        for watcher in self.rules.watchers.clone().iter().filter(|one| one.is_absence && !one.is_mute) {
            let standing = self.standing(watcher);
            if anew || standing.armed.is_none() {
                standing.armed = Some(now);
            }
        }
    }

    /// Another plan comes: what it has no place for is cleared.
    pub(crate) fn clear_removed(&mut self, wanted: &Wanted, series: &[Series], now: i64) {
        let next = watchers(wanted, series);
        for watcher in self.rules.watchers.clone() {
            let is_same = |one: &&Watcher| {
                (one.rule, &one.instance, one.is_absence) == (watcher.rule, &watcher.instance, watcher.is_absence)
            };
            let stays = next.iter().find(is_same).is_some_and(|one| !one.is_mute);
            if self.standing(&watcher).is_raised && !stays {
                self.say(&watcher, AlertState::Cleared, now, now);
            }
        }
    }

    /// Another plan has come: a condition that is another begins anew, but for what is raised.
    pub(crate) fn reload_rules(&mut self, before: &Wanted) {
        self.rules.watchers = watchers(&self.wanted, &self.series);
        let rules = &self.wanted.rules;
        let is_changed = |rule: &str| {
            before.rules.get(rule).zip(rules.get(rule)).is_none_or(|(old, new)| old.condition != new.condition)
        };
        let watchers = &self.rules.watchers;
        self.rules.standings.retain(|(rule, instance), standing| {
            let watcher = watchers.iter().find(|one| one.rule == *rule && one.instance == *instance);
            watcher.is_some_and(|one| standing.is_raised || !(is_changed(rule) || one.is_mute))
        });
        let is_watched = |series: &u32| watchers.iter().any(|watcher| watcher.sides.contains(&Some(*series)));
        self.rules.seen.retain(|series, _| is_watched(series));
        self.rules.heard.retain(|series, _| is_watched(series));
    }
}
