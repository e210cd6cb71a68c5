//! What needs the readings of a window in the order of their times: how a counter rose, how long a value or a state held.
//!
//! Readings that may still be overtaken are kept one by one; what is older is folded into one [`Course`]. The result is the same
//! whatever the order of arrival, since readings are always folded in the order of their times.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ledger::COUNT_MAX;
use super::sum::Sum;
use crate::function::Function;
use crate::reading::Value;
use crate::sorted;
use crate::time::Timestamp;

/// How many readings are kept before it is tried to fold them, and then at each power of two.
const FOLD_AT: usize = 16;

/// The most readings that are kept one by one: 256 KiB. The rule at this bound: the older half is folded, although a reading may
/// still come between. At 400 readings a second and a lateness of 10 s it is not reached.
const OBSERVED_MAX: usize = 8192;

/// The most states of a window whose times are told apart, in the order of their times; those of all others are summed up as
/// [`OTHER_STATES`]. A series that has more is no state.
const STATES_MAX: usize = 16;

/// The longest name of a state, in bytes; a longer text counts as [`OTHER_STATES`].
const STATE_BYTES_MAX: usize = 255;

/// The name of all states beyond the bounds.
const OTHER_STATES: &str = "(other)";

const NANOS_PER_SECOND: f64 = 1e9;

/// A value and when it was observed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Observed {
    pub(super) time: Timestamp,
    pub(super) value: Value,
}

/// Where a window lies, for the functions that need order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span<'a> {
    /// The first instant of the window.
    pub(super) start: Timestamp,
    /// Until when the newest value holds: the end of the window, or the newest reading where the window has not ended.
    pub(super) until: Timestamp,
    /// The newest reading before the window.
    pub(super) carry: Option<&'a Observed>,
}

/// A number of a counter: integers add exactly.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Number {
    Int(i128),
    Float(f64),
}

/// Numbers in the order of their times, folded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Numbers {
    first: (Timestamp, Number),
    last: (Timestamp, Number),
    /// What the counter had reached when it went back, summed up.
    before_resets: Number,
    resets: u64,
    least: f64,
    greatest: f64,
    /// Each number times the nanoseconds until the next.
    weighted: Sum,
}

/// States in the order of their times, folded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct States {
    first: Timestamp,
    /// The newest; no state where it is a float.
    last: Observed,
    /// Nanoseconds of each state, in the order in which they came.
    held: Vec<(Arc<str>, i64)>,
}

/// Readings in the order of their times, folded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Folded {
    numbers: Option<Numbers>,
    states: Option<States>,
}

/// The readings of a window in the order of their times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Course {
    /// How far behind the newest reading one may come, in nanoseconds.
    overtaken: i64,
    keeps_states: bool,
    /// The time of the newest reading that was folded.
    folded_until: Option<Timestamp>,
    folded: Folded,
    /// By time, then value.
    observed: Vec<Observed>,
}

impl Observed {
    fn is_before(&self, other: &Self) -> bool {
        let values = || self.value.as_scalar().total_cmp(other.value.as_scalar()).is_lt();
        self.time < other.time || (self.time == other.time && values())
    }
}

impl Number {
    fn of(value: &Value) -> Option<Self> {
        match *value {
            Value::Int(value) => Some(Self::Int(value.into())),
            Value::Float(value) => Some(Self::Float(value)),
            Value::Bool(_) | Value::Text(_) => None,
        }
    }

    fn float(self) -> f64 {
        match self {
            Self::Int(value) => value as f64,
            Self::Float(value) => value,
        }
    }

    fn is_below(self, other: Self) -> bool {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => a < b,
            (a, b) => a.float() < b.float(),
        }
    }

    /// Integers of 64 bits, of which there are fewer than 2^62, do not reach the end of 128.
    fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Self::Int(a.saturating_add(b)),
            (a, b) => Self::Float(a.float() + b.float()),
        }
    }

    fn minus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Self::Int(a.saturating_sub(b)),
            (a, b) => Self::Float(a.float() - b.float()),
        }
    }

    fn value(self) -> Value {
        match self {
            Self::Int(value) => i64::try_from(value).map_or(Value::Float(value as f64), Value::Int),
            Self::Float(value) => Value::Float(value),
        }
    }
}

fn nanos_between(since: Timestamp, until: Timestamp) -> i64 {
    until.as_nanos().saturating_sub(since.as_nanos())
}

impl Numbers {
    fn of(time: Timestamp, number: Number) -> Self {
        Self {
            first: (time, number),
            last: (time, number),
            before_resets: Number::Int(0),
            resets: 0,
            least: number.float(),
            greatest: number.float(),
            weighted: Sum::ZERO,
        }
    }

    /// Goes on with numbers that are not before these.
    fn append(&mut self, next: &Self) {
        let ((since, before), (time, number)) = (self.last, next.first);
        self.weighted.add(before.float() * nanos_between(since, time) as f64);
        if number.is_below(before) {
            self.before_resets = self.before_resets.plus(before);
            self.resets += 1;
        }
        self.last = next.last;
        self.before_resets = self.before_resets.plus(next.before_resets);
        self.resets += next.resets;
        self.least = self.least.min(next.least);
        self.greatest = self.greatest.max(next.greatest);
        self.weighted.merge(&next.weighted);
    }

    fn increase(&self) -> Number {
        self.last.1.minus(self.first.1).plus(self.before_resets)
    }

    /// The mean over the time from the first number until an instant; the newest number where that is no time at all.
    fn mean(&self, until: Timestamp) -> f64 {
        let nanos = nanos_between(self.first.0, until);
        let mut weighted = self.weighted;
        weighted.add(self.last.1.float() * nanos_between(self.last.0, until) as f64);
        let mean = if nanos > 0 { weighted.total() / nanos as f64 } else { self.last.1.float() };
        // Rounding leads out of what there was; the mean of equal numbers is that number.
        if mean.is_finite() { mean.max(self.least).min(self.greatest) } else { mean }
    }
}

impl States {
    fn of(observed: &Observed) -> Self {
        Self { first: observed.time, last: observed.clone(), held: Vec::new() }
    }

    /// Goes on with states that are not before these.
    fn append(&mut self, next: &Self) {
        self.hold(next.first);
        self.last = next.last.clone();
        for (state, nanos) in &next.held {
            self.count(Arc::clone(state), *nanos);
        }
    }

    /// The newest state holds until an instant.
    fn hold(&mut self, until: Timestamp) {
        let state = match &self.last.value {
            Value::Float(_) => return,
            Value::Text(text) if text.len() <= STATE_BYTES_MAX => Arc::clone(text),
            Value::Text(_) => OTHER_STATES.into(),
            value => value.to_string().into(),
        };
        self.count(state, nanos_between(self.last.time, until));
    }

    fn count(&mut self, state: Arc<str>, nanos: i64) {
        if nanos == 0 {
            return;
        }
        let is_full = self.held.len() >= STATES_MAX;
        let state =
            if is_full && self.held.iter().all(|(known, _)| *known != state) { OTHER_STATES.into() } else { state };
        match self.held.iter_mut().find(|(known, _)| *known == state) {
            Some((_, held)) => *held = held.saturating_add(nanos),
            None => self.held.push((state, nanos)),
        }
    }
}

impl Folded {
    fn push(&mut self, observed: &Observed, keeps_states: bool) {
        let numbers = Number::of(&observed.value).map(|number| Numbers::of(observed.time, number));
        self.append(Self { numbers, states: keeps_states.then(|| States::of(observed)) });
    }

    fn append(&mut self, next: Self) {
        match (&mut self.numbers, next.numbers) {
            (Some(numbers), Some(next)) => numbers.append(&next),
            (numbers, next) => *numbers = numbers.or(next),
        }
        match (&mut self.states, next.states) {
            (Some(states), Some(next)) => states.append(&next),
            (states @ None, next) => *states = next,
            _ => (),
        }
    }
}

impl Course {
    pub(super) const fn new(overtaken: i64, keeps_states: bool) -> Self {
        let folded = Folded { numbers: None, states: None };
        Self { overtaken, keeps_states, folded_until: None, folded, observed: Vec::new() }
    }

    /// Goes on as a changed plan needs it. States that were not kept so far stay away.
    pub(super) fn fit(&mut self, overtaken: i64, keeps_states: bool) {
        self.overtaken = overtaken;
        if !keeps_states && self.keeps_states {
            self.keeps_states = false;
            self.folded.states = None;
            self.observed.retain(|observed| Number::of(&observed.value).is_some());
        }
    }

    /// The bytes that it takes, itself included.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.observed.capacity() * size_of::<Observed>()
    }

    /// Takes a reading; `false` when it is too old to be put in its place.
    pub(super) fn add(&mut self, time: Timestamp, value: &Value) -> bool {
        if !self.keeps_states && Number::of(value).is_none() {
            return true;
        }
        if self.folded_until.is_some_and(|folded| time <= folded) {
            return false;
        }
        let observed = Observed { time, value: value.clone() };
        match self.observed.last() {
            Some(last) if observed.is_before(last) => {
                let place = self.observed.partition_point(|other| !observed.is_before(other));
                self.observed.insert(place, observed);
            }
            _ => self.observed.push(observed),
        }
        let count = self.observed.len();
        if count >= FOLD_AT && count.is_power_of_two() {
            self.fold();
        }
        true
    }

    /// Folds what cannot be overtaken any more.
    fn fold(&mut self) {
        let Some(newest) = self.observed.last().map(|newest| newest.time) else { return };
        let oldest = newest.as_nanos().saturating_sub(self.overtaken);
        let overtaken = self.observed.partition_point(|observed| observed.time.as_nanos() < oldest);
        let is_full = self.observed.len() >= OBSERVED_MAX;
        self.fold_first(if is_full { overtaken.max(OBSERVED_MAX / 2) } else { overtaken });
    }

    fn fold_first(&mut self, count: usize) {
        for observed in self.observed.drain(..count) {
            self.folded_until = Some(observed.time);
            self.folded.push(&observed, self.keeps_states);
        }
    }

    /// Takes what another one took. Where one of them has folded, all of the one must lie before all of the other.
    pub(super) fn merge(&mut self, other: &Self) {
        let newest = |course: &Self| course.observed.last().map(|newest| newest.time);
        if self.folded_until.is_some() || other.folded_until.is_some() {
            let mut later = other.clone();
            if newest(self) > newest(&later) {
                std::mem::swap(self, &mut later);
            }
            self.fold_first(self.observed.len());
            self.folded.append(later.folded);
            self.folded_until = later.folded_until.or(self.folded_until);
            self.observed = later.observed;
        } else {
            for Observed { time, value } in &other.observed {
                self.add(*time, value);
            }
        }
    }

    /// The value of a function that needs order; `None` where it has no meaning for what was observed.
    pub(super) fn value(&self, function: Function, span: &Span<'_>) -> Option<Value> {
        let is_of_states = function == Function::TimeInState;
        let mut whole = Folded::default();
        if let Some(carry) = span.carry {
            // What held before the window counts from its start; what a counter had reached, from when it was read.
            let is_of_time = is_of_states || function == Function::TimeMean;
            let time = if is_of_time { span.start } else { carry.time };
            whole.push(&Observed { time, value: carry.value.clone() }, is_of_states);
        }
        whole.append(self.folded.clone());
        for observed in &self.observed {
            whole.push(observed, is_of_states);
        }
        if is_of_states {
            if !self.keeps_states {
                return None;
            }
            let mut states = whole.states?;
            states.hold(span.until.max(states.last.time));
            return states.value();
        }
        let numbers = whole.numbers?;
        let nanos = nanos_between(numbers.first.0, numbers.last.0);
        match function {
            Function::TimeMean => Some(Value::Float(numbers.mean(span.until.max(numbers.last.0)))),
            // Of one number nothing is known of how it came to be.
            _ if nanos <= 0 => None,
            Function::Increase => Some(numbers.increase().value()),
            Function::Rate => Some(Value::Float(numbers.increase().float() / (nanos as f64 / NANOS_PER_SECOND))),
            Function::Resets => Some(Value::Int(i64::try_from(numbers.resets).unwrap_or(i64::MAX))),
            _ => None,
        }
    }

    /// Whether it can have come from [`Course::add`]; for state that comes from outside.
    pub(super) fn is_sound(&self) -> bool {
        let is_after = |observed: &Observed| self.folded_until.is_none_or(|folded| folded < observed.time);
        self.observed.len() <= OBSERVED_MAX
            && self.overtaken >= 0
            && self.observed.is_sorted_by(|a, b| !b.is_before(a))
            && self.observed.first().is_none_or(is_after)
            && (self.folded_until.is_some() || self.folded == Folded::default())
            && self.folded.numbers.is_none_or(|numbers| numbers.resets <= COUNT_MAX)
            && self.folded.states.as_ref().is_none_or(|states| states.held.len() <= STATES_MAX + 1)
    }
}

impl States {
    /// A JSON object of the seconds of each state, by name; `None` where no state held for any time.
    fn value(&self) -> Option<Value> {
        let held = self.held.iter().map(|(state, nanos)| (&**state, *nanos as f64 / NANOS_PER_SECOND));
        let states: BTreeMap<&str, f64> = sorted::map(held);
        // Writing a map of numbers into memory does not fail.
        (!states.is_empty()).then(|| Value::Text(serde_json::to_string(&states).unwrap_or_default().into()))
    }
}
