//! Quality: which checks the readings of a series must pass, and what becomes of those that do not.
//!
//! A plan has tables of keys, each with a filter. The keys of a series are put together from all the tables whose filter selects it,
//! each key from the most specific of those that set it: see [`Checks::of`].

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::reading::{Check, Quality, SeriesInfo, Value};
use crate::selector::Selector;
use crate::sorted;
use crate::time::nanos;

/// A quality table of the configuration. A key that is `None` is left to less specific tables.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QualityPlan {
    /// The series that it speaks of.
    pub select: Selector,
    /// The least and the greatest number that is right.
    pub range: Option<Switch<[f64; 2]>>,
    /// How much the number may change in a second.
    pub max_rate: Option<Switch<f64>>,
    /// How long the value may stay as it is.
    pub stuck_after: Option<Switch<Duration>>,
    /// How many scaled median deviations a number may be away from the median of those before it.
    pub spike: Option<Switch<f64>>,
    /// How far away from that median a number may be whatever the others do.
    pub spike_min: Option<f64>,
    /// The type that values have.
    pub value_type: Option<Switch<ValueType>>,
    /// The unit that the source must not contradict.
    pub unit: Option<Switch<Arc<str>>>,
    /// Whether a time before the newest of the series is looked for.
    pub backwards: Option<bool>,
    /// Whether a second reading of the same series and time is looked for.
    pub duplicate: Option<bool>,
    /// What becomes of a reading to which a check objects, by [`Check::place`].
    pub marks: [Option<Mark>; Check::ALL.len()],
}

/// A check that a table turns on, or off for what a less specific table turned on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Switch<T> {
    /// No check.
    Off,
    /// The check, with its bound.
    On(T),
}

/// What becomes of a reading to which a check objects; the greater is the worse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Mark {
    /// It goes on, marked.
    #[default]
    Suspect,
    /// It stays in raw streams, marked; rules and windows do not see it.
    Bad,
    /// It goes to the stream `quarantine` alone, marked.
    Quarantine,
    /// It goes nowhere, and is counted.
    Drop,
}

/// What kind of values a series has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ValueType {
    /// Floats and integers.
    Number,
    /// Bools.
    Bool,
    /// Texts.
    Text,
    /// What the first reading of the series had.
    Same,
}

/// The checks of one series.
#[derive(Clone, Debug, PartialEq)]
pub struct Checks {
    /// Those that are on, in the order in which they run; the first is always [`Check::NotFinite`].
    pub on: Vec<Check>,
    /// See [`QualityPlan::range`].
    pub range: [f64; 2],
    /// See [`QualityPlan::max_rate`].
    pub max_rate: f64,
    /// See [`QualityPlan::stuck_after`]; nanoseconds.
    pub stuck_after: i64,
    /// See [`QualityPlan::spike`].
    pub spike: f64,
    /// See [`QualityPlan::spike_min`]; 0 unless set.
    pub spike_min: f64,
    /// See [`QualityPlan::value_type`].
    pub value_type: ValueType,
    /// See [`QualityPlan::unit`].
    pub unit: Option<Arc<str>>,
    /// See [`QualityPlan::marks`].
    pub marks: [Mark; Check::ALL.len()],
}

impl QualityPlan {
    /// A table without keys.
    pub fn new(select: Selector) -> Self {
        Self {
            select,
            range: None,
            max_rate: None,
            stuck_after: None,
            spike: None,
            spike_min: None,
            value_type: None,
            unit: None,
            backwards: None,
            duplicate: None,
            marks: [None; Check::ALL.len()],
        }
    }
}

impl<T> Switch<T> {
    /// The same switch with another form of its bound.
    pub fn map<U>(self, form: impl FnOnce(T) -> U) -> Switch<U> {
        match self {
            Self::Off => Switch::Off,
            Self::On(bound) => Switch::On(form(bound)),
        }
    }

    fn on(self) -> Option<T> {
        match self {
            Self::Off => None,
            Self::On(bound) => Some(bound),
        }
    }
}

impl Mark {
    /// The quality of a reading that is marked so.
    pub const fn quality(self) -> Quality {
        match self {
            Self::Suspect => Quality::Suspect,
            Self::Bad | Self::Quarantine | Self::Drop => Quality::Bad,
        }
    }
}

impl ValueType {
    /// What a value is; never [`ValueType::Same`].
    pub const fn of(value: &Value) -> Self {
        match value {
            Value::Float(_) | Value::Int(_) => Self::Number,
            Value::Bool(_) => Self::Bool,
            Value::Text(_) => Self::Text,
        }
    }
}

impl Checks {
    /// The checks of a series, from the tables whose filter selects it. At the first level at which two of their filters differ a
    /// literal beats `+`, and `+` beats `#`; the order of the tables does not count, as no two of them have the same filter.
    pub fn of<'a>(tables: impl IntoIterator<Item = &'a QualityPlan>) -> Self {
        let mut tables: Vec<&QualityPlan> = tables.into_iter().collect();
        sorted::by(&mut tables, |a, b| a.select.cmp_specificity(&b.select));
        let range = first(&tables, |table| table.range).and_then(Switch::on);
        let max_rate = first(&tables, |table| table.max_rate).and_then(Switch::on);
        let stuck_after = first(&tables, |table| table.stuck_after).and_then(Switch::on);
        let spike = first(&tables, |table| table.spike).and_then(Switch::on);
        let value_type = first(&tables, |table| table.value_type).and_then(Switch::on);
        let unit = first(&tables, |table| table.unit.clone()).and_then(Switch::on);
        let is_on = |check: &Check| match check {
            Check::NotFinite => true,
            Check::Source => false,
            Check::Type => value_type.is_some(),
            Check::Unit => unit.is_some(),
            Check::Duplicate => first(&tables, |table| table.duplicate).unwrap_or(false),
            Check::Backwards => first(&tables, |table| table.backwards).unwrap_or(false),
            Check::Range => range.is_some(),
            Check::MaxRate => max_rate.is_some(),
            Check::Spike => spike.is_some(),
            Check::StuckAfter => stuck_after.is_some(),
        };
        let mark = |check: Check| {
            let default = if check == Check::NotFinite { Mark::Bad } else { Mark::Suspect };
            first(&tables, |table| table.marks.get(check.place()).copied().flatten()).unwrap_or(default)
        };
        Self {
            on: Check::ALL.into_iter().filter(is_on).collect(),
            range: range.unwrap_or([f64::NEG_INFINITY, f64::INFINITY]),
            max_rate: max_rate.unwrap_or(f64::INFINITY),
            stuck_after: stuck_after.map_or(i64::MAX, nanos),
            spike: spike.unwrap_or(f64::INFINITY),
            spike_min: first(&tables, |table| table.spike_min).unwrap_or(0.0),
            value_type: value_type.unwrap_or(ValueType::Same),
            unit,
            marks: Check::ALL.map(mark),
        }
    }

    /// What becomes of a reading to which the check objects.
    pub fn mark(&self, check: Check) -> Mark {
        self.marks.get(check.place()).copied().unwrap_or_default()
    }

    /// Whether the check is on.
    pub fn has(&self, check: Check) -> bool {
        self.on.contains(&check)
    }

    /// Whether the source of a series says another unit than it should. One that says none contradicts nothing.
    pub fn contradicts_unit(&self, info: &SeriesInfo) -> bool {
        self.unit.as_ref().zip(info.unit.as_ref()).is_some_and(|(expected, found)| expected != found)
    }
}

/// A key of the most specific table that sets it.
fn first<T>(tables: &[&QualityPlan], key: impl Fn(&QualityPlan) -> Option<T>) -> Option<T> {
    tables.iter().find_map(|table| key(table))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What beats what, by the words of the contract and not by the order of filters: of two that select the same series, the one that has
    /// a literal, else a `+`, at the first level at which they differ; one that has ended there beats the other.
    fn beats(a: &str, b: &str) -> bool {
        let rank = |level: Option<&str>| match level {
            None => 0,
            Some("#") => 3,
            Some("+") => 2,
            Some(_) => 1,
        };
        let (mut a, mut b) = (a.split('/'), b.split('/'));
        loop {
            match (a.next(), b.next()) {
                (None, None) => return false,
                (a, b) if rank(a) != rank(b) => return rank(a) < rank(b),
                _ => {}
            }
        }
    }

    /// Filters that select `a/b/c`.
    fn filter() -> impl Strategy<Value = String> {
        prop::sample::select(vec![
            "#", "+/#", "a/#", "+/+/#", "a/+/#", "+/b/#", "a/b/#", "+/+/+", "a/+/+", "+/b/+", "+/+/c", "a/b/+",
            "a/+/c", "+/b/c", "a/b/c", "a/b/c/#", "+/+/+/#",
        ])
        .prop_map(str::to_owned)
    }

    fn table() -> impl Strategy<Value = QualityPlan> {
        let mark = prop::sample::select(vec![Mark::Suspect, Mark::Bad, Mark::Quarantine, Mark::Drop]);
        let marks = prop::collection::vec(prop::option::weighted(0.3, mark), Check::ALL.len());
        let switch = |value: f64| if value < 2.0 { Switch::Off } else { Switch::On(value) };
        let number = move || prop::option::of((0..100).prop_map(f64::from).prop_map(switch));
        let flag = || prop::option::of(any::<bool>());
        (filter(), number(), number(), flag(), flag(), prop::option::of(0.0..9.0), marks).prop_map(
            |(select, max_rate, spike, backwards, duplicate, spike_min, marks)| QualityPlan {
                max_rate,
                spike,
                spike_min,
                backwards,
                duplicate,
                marks: std::array::from_fn(|place| marks[place]),
                ..QualityPlan::new(select.parse().unwrap())
            },
        )
    }

    proptest! {
        #[test]
        fn each_key_comes_from_the_most_specific_table(tables in prop::collection::vec(table(), 0..8)) {
            let mut distinct: Vec<QualityPlan> = Vec::new();
            for table in tables {
                if distinct.iter().all(|known| known.select != table.select) {
                    distinct.push(table);
                }
            }
            let filter = |table: &QualityPlan| table.select.to_string();
            for table in &distinct {
                prop_assert!(table.select.matches("a/b/c"));
            }
            let unbeaten = |has: &dyn Fn(&QualityPlan) -> bool| {
                let having: Vec<&QualityPlan> = distinct.iter().filter(|table| has(table)).collect();
                having.iter().copied().find(|a| having.iter().all(|b| a.select == b.select || beats(&filter(a), &filter(b))))
            };
            let checks = Checks::of(&distinct);
            let rate = unbeaten(&|table| table.max_rate.is_some()).and_then(|table| table.max_rate).and_then(Switch::on);
            prop_assert_eq!(checks.has(Check::MaxRate).then_some(checks.max_rate), rate);
            let spike = unbeaten(&|table| table.spike.is_some()).and_then(|table| table.spike).and_then(Switch::on);
            prop_assert_eq!(checks.has(Check::Spike).then_some(checks.spike), spike);
            let min = unbeaten(&|table| table.spike_min.is_some()).and_then(|table| table.spike_min);
            prop_assert_eq!(checks.spike_min, min.unwrap_or(0.0));
            let backwards = unbeaten(&|table| table.backwards.is_some()).and_then(|table| table.backwards);
            prop_assert_eq!(checks.has(Check::Backwards), backwards == Some(true));
            for check in Check::ALL {
                let mark = unbeaten(&|table| table.marks[check.place()].is_some()).and_then(|table| table.marks[check.place()]);
                let default = if check == Check::NotFinite { Mark::Bad } else { Mark::Suspect };
                prop_assert_eq!(checks.mark(check), mark.unwrap_or(default));
            }
            let reversed: Vec<QualityPlan> = distinct.iter().rev().cloned().collect();
            prop_assert_eq!(Checks::of(&reversed), checks);
        }
    }
}
