//! Functions beside the plain ones, against a naive model: all readings of a series in the order of their times.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use rtlive_core::plan::{Function, Percentile, WindowKind};
use rtlive_core::reading::{SeriesId, Value};
use rtlive_core::record::{Aggregate, Emitted, Record};
use rtlive_core::time::Timestamp;

use crate::order::{LATENESS, OUT_OF_ORDER, Point, arrivals, newest};
use crate::plan::{Planned, batch, handle, reading, seconds, shown};

const NAMES: [&str; 3] = ["a/x", "a/y", "a/z"];

/// Every function that is not plain, and percentiles.
pub(crate) fn all() -> Vec<Function> {
    let percentiles = ["p1", "p50", "p95", "p99.9"].map(|name| name.parse().unwrap());
    Function::NAMED.into_iter().filter(|function| !Function::PLAIN.contains(function)).chain(percentiles).collect()
}

fn planned() -> Planned {
    let lateness = LATENESS as u64;
    let kind =
        WindowKind::Sliding { every: Duration::from_secs(5), over: Duration::from_secs(20), offset: Duration::ZERO };
    Planned::new(OUT_OF_ORDER as u64)
        .window("ten", "#", 10, lateness)
        .computing(all())
        .window("sixty", "#", 60, lateness)
        .computing(all())
        .kind("sliding", "#", kind, lateness, None)
        .computing(all())
}

/// The readings of a series by time.
type Series = BTreeMap<i64, Value>;

/// What a window of a series is expected to say.
struct Window<'a> {
    /// The newest reading before it.
    carry: Option<(i64, &'a Value)>,
    readings: Vec<(i64, &'a Value)>,
    start: i64,
    end: i64,
}

impl<'a> Window<'a> {
    fn of(series: &'a Series, start: i64, end: i64) -> Self {
        let carry = series.range(..start).next_back().map(|(time, value)| (*time, value));
        Self { carry, readings: series.range(start..end).map(|(time, value)| (*time, value)).collect(), start, end }
    }

    fn numbers(&self) -> Vec<f64> {
        self.readings.iter().filter_map(|(_, value)| value.as_number()).collect()
    }

    /// The numbers that a counter is counted over.
    fn counted(&self) -> Vec<(i64, &'a Value)> {
        let all = self.carry.into_iter().chain(self.readings.iter().copied());
        all.filter(|(_, value)| value.as_number().is_some()).collect()
    }

    /// What held from when until when, of the values that say what does.
    fn held(&self, counts: impl Fn(&Value) -> bool) -> Vec<(&'a Value, f64)> {
        let carry = self.carry.map(|(_, value)| (self.start, value));
        let all: Vec<_> = carry.into_iter().chain(self.readings.iter().copied()).filter(|(_, v)| counts(v)).collect();
        let ends = all.iter().skip(1).map(|(time, _)| *time).chain([self.end]);
        all.iter().zip(ends).map(|((time, value), end)| (*value, (end - time) as f64)).collect()
    }

    fn expected(&self, function: Function) -> Option<Value> {
        let numbers = self.numbers();
        let count = numbers.len() as f64;
        let mean = numbers.iter().map(|number| number / count).sum::<f64>();
        let float = |value: f64| (!numbers.is_empty()).then_some(Value::Float(value));
        match function {
            Function::Std => float((numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt()),
            Function::Rms => float((numbers.iter().map(|x| x * x).sum::<f64>() / count).sqrt()),
            Function::Range => {
                let value = |&(_, value): &(i64, &'a Value)| value.as_number().is_some().then_some(value);
                let by = |a: &&Value, b: &&Value| a.as_scalar().total_cmp(b.as_scalar());
                let min = self.readings.iter().filter_map(value).min_by(by)?;
                let max = self.readings.iter().filter_map(value).max_by(by)?;
                Some(minus(max, min))
            }
            Function::Percentile(percentile) => float(rank(&numbers, percentile)?),
            Function::Increase => self.increase(),
            Function::Rate => {
                let counted = self.counted();
                let span = counted.last()?.0 - counted.first()?.0;
                Some(Value::Float(self.increase()?.as_number()? / span as f64))
            }
            Function::Resets => {
                let counted = self.counted();
                let resets = counted.windows(2).filter(|pair| is_below(pair[1].1, pair[0].1)).count();
                (counted.len() > 1).then_some(Value::Int(resets as i64))
            }
            Function::TimeMean => {
                let held = self.held(|value| value.as_number().is_some());
                let whole: f64 = held.iter().map(|(_, time)| time).sum();
                let weighted = held.iter().map(|(value, time)| value.as_number().unwrap() * time).sum::<f64>();
                (!held.is_empty()).then_some(Value::Float(weighted / whole))
            }
            Function::TimeInState => {
                let mut states: BTreeMap<String, f64> = BTreeMap::new();
                for (value, time) in self.held(|_| true) {
                    if !matches!(value, Value::Float(_)) && time > 0.0 {
                        let (name, is_full) = (value.to_string(), states.len() >= 16);
                        let name = if is_full && !states.contains_key(&name) { "(other)".into() } else { name };
                        *states.entry(name).or_default() += time;
                    }
                }
                (!states.is_empty()).then(|| Value::Text(serde_json::to_string(&states).unwrap().into()))
            }
            _ => unreachable!("a plain function"),
        }
    }

    fn increase(&self) -> Option<Value> {
        let counted = self.counted();
        let steps = counted.windows(2).map(|pair| (pair[0].1, pair[1].1));
        let integer = |value: &Value| if let Value::Int(value) = value { Some(i128::from(*value)) } else { None };
        let exact = counted.iter().map(|(_, value)| integer(value)).collect::<Option<Vec<i128>>>();
        (counted.len() > 1).then(|| match exact {
            Some(exact) => {
                let sum = exact.windows(2).map(|pair| if pair[1] < pair[0] { pair[1] } else { pair[1] - pair[0] });
                let sum: i128 = sum.sum();
                i64::try_from(sum).map_or(Value::Float(sum as f64), Value::Int)
            }
            None => {
                let step = |(a, b): (&Value, &Value)| {
                    let (a, b, falls) = (a.as_number().unwrap(), b.as_number().unwrap(), is_below(b, a));
                    if falls { b } else { b - a }
                };
                Value::Float(steps.map(step).sum())
            }
        })
    }

    /// The greatest of what sums are made of.
    fn magnitude(&self) -> f64 {
        self.counted().iter().filter_map(|(_, value)| value.as_number()).map(f64::abs).fold(0.0, f64::max)
    }
}

fn is_below(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => a < b,
        (a, b) => a.as_number() < b.as_number(),
    }
}

fn minus(a: &Value, b: &Value) -> Value {
    let exact = if let (Value::Int(a), Value::Int(b)) = (a, b) { a.checked_sub(*b) } else { None };
    exact.map_or_else(|| Value::Float(a.as_number().unwrap() - b.as_number().unwrap()), Value::Int)
}

fn rank(numbers: &[f64], percentile: Percentile) -> Option<f64> {
    let mut numbers = numbers.to_vec();
    numbers.sort_by(f64::total_cmp);
    numbers.get((numbers.len() * percentile.thousandths() as usize).div_ceil(100_000).checked_sub(1)?).copied()
}

fn agree(function: Function, found: &Option<Value>, window: &Window<'_>) -> bool {
    let expected = window.expected(function);
    let tolerance = |expected: f64| match function {
        Function::Percentile(_) => 0.01 * expected.abs(),
        _ => 1e-12 * window.magnitude() * (window.counted().len() as f64 + 1.0) + 1e-12,
    };
    if found == &expected {
        return true;
    }
    // Where a series mixes integers and floats, what is made of two of them has the type of these two.
    let is_mixed = window.counted().iter().any(|(_, value)| matches!(value, Value::Float(_)));
    let numbers = found.as_ref().and_then(Value::as_number).zip(expected.as_ref().and_then(Value::as_number));
    let is_float = matches!((found, &expected), (Some(Value::Float(_)), Some(Value::Float(_))));
    numbers.is_some_and(|(found, expected)| (is_float || is_mixed) && (found - expected).abs() <= tolerance(expected))
}

fn run(batches: &[Vec<Point>]) -> Vec<Emitted> {
    let mut engine = planned().engine(&NAMES);
    let mut emitted = Vec::new();
    for points in batches {
        let arrival = seconds(points.iter().map(|(_, time, _)| *time).max().unwrap());
        let readings = points.iter().map(|(series, time, value)| reading(*series, seconds(*time), value.clone()));
        emitted.extend(handle(&mut engine, &batch(arrival, readings.collect())));
    }
    engine.close(Timestamp::MAX, &mut emitted);
    assert!(engine.ledger().windows.iter().all(|account| account.late == 0));
    emitted
}

/// What a counter's readings are: it rises, and begins again now and then.
fn counter() -> impl Strategy<Value = Value> {
    prop_oneof![(0..1000i64).prop_map(Value::Int), (0..50i64).prop_map(|tenths| Value::Float(tenths as f64 / 10.0))]
}

fn compare(batches: &[Vec<Point>]) -> Result<(), TestCaseError> {
    let mut series: BTreeMap<u32, Series> = BTreeMap::new();
    for (one, time, value) in batches.iter().flatten() {
        series.entry(*one).or_default().insert(*time, value.clone());
    }
    let found = newest(&run(batches));
    prop_assert!(found.len() >= series.len() * 3);
    for ((stream, SeriesId(one), _), Aggregate { start, end, values, .. }) in &found {
        let second = |time: &Timestamp| time.as_nanos() / 1_000_000_000;
        let window = Window::of(&series[one], second(start), second(end));
        for (function, found) in all().into_iter().zip(values) {
            prop_assert!(
                agree(function, found, &window),
                "{function:?} of series {one} from {start} to {end} (stream {stream}): {found:?} and {:?} of {:?} after {:?}",
                window.expected(function),
                window.readings,
                window.carry
            );
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_order_within_the_lateness_gives_what_a_naive_model_says(batches in arrivals(crate::order::values())) {
        compare(&batches)?;
    }

    #[test]
    fn counters_add_up_in_any_order(batches in arrivals(counter())) {
        compare(&batches)?;
        // Of integers exactly: the windows' increases are that of the whole.
        let found = newest(&run(&batches));
        let ten = found.keys().map(|(stream, ..)| *stream).min();
        for one in 0..3 {
            let mut points: Vec<_> = batches.iter().flatten().filter(|(series, ..)| *series == one).collect();
            points.sort_by_key(|(_, time, _)| *time);
            let numbers: Vec<f64> = points.iter().filter_map(|(_, _, value)| value.as_number()).collect();
            let whole: f64 = numbers.windows(2).map(|pair| if pair[1] < pair[0] { pair[1] } else { pair[1] - pair[0] }).sum();
            let increase = all().iter().position(|function| *function == Function::Increase).unwrap();
            let tens = found.iter().filter(|((stream, series, _), _)| Some(*stream) == ten && series.0 == one);
            let sum: f64 = tens.filter_map(|(_, aggregate)| aggregate.values[increase].as_ref()?.as_number()).sum();
            prop_assert!((sum - whole).abs() <= 1e-9 * (1.0 + whole), "{sum} and {whole}");
        }
    }
}

fn taken(planned: Planned, readings: &[(i64, Value)]) -> Vec<String> {
    let mut engine = planned.engine(&["a/x"]);
    let mut shown_all = Vec::new();
    for (time, value) in readings {
        let out = handle(&mut engine, &batch(seconds(*time), vec![reading(0, seconds(*time), value.clone())]));
        shown_all.extend(shown(&engine, &out));
    }
    let mut out = Vec::new();
    engine.close(Timestamp::MAX, &mut out);
    shown_all.extend(shown(&engine, &out));
    shown_all
}

#[test]
fn a_late_reading_revises_the_window_that_counts_from_it() {
    let counter = [(1, 10), (8, 12), (11, 15), (21, 20), (9, 13), (10, 14)];
    let readings = counter.map(|(time, value)| (time, Value::Int(value)));
    let planned = Planned::new(0).window("ten", "#", 10, 20).computing(vec![Function::Increase, Function::Resets]);
    assert_eq!(
        taken(planned, &readings),
        [
            // From 10 to 12, with nothing before it; then from 12 to 15.
            "ten a/x 0..10 r0: 2 0",
            "ten a/x 10..20 r0: 3 0",
            // 13 at 9 is the newest before 10.
            "ten a/x 0..10 r1: 3 0",
            "ten a/x 10..20 r1: 2 0",
            "ten a/x 10..20 r2: 2 0",
            "ten a/x 20..30 r0: 5 0",
        ]
    );
}

#[test]
fn a_state_that_changed_long_ago_is_known() {
    let states = [(5, true), (3_605, false), (3_630, true), (3_700, true)].map(|(t, v)| (t, Value::Bool(v)));
    let planned = Planned::new(0).window("minute", "#", 60, 10).computing(vec![Function::TimeInState]);
    assert_eq!(
        taken(planned, &states),
        [
            r#"minute a/x 0..60 r0: {"true":55.0}"#,
            r#"minute a/x 3600..3660 r0: {"false":25.0,"true":35.0}"#,
            r#"minute a/x 3660..3720 r0: {"true":60.0}"#,
        ]
    );
}

#[test]
fn a_session_counts_from_its_own_first_reading() {
    let counter = [(0, 5), (10, 8), (100, 50), (110, 51)].map(|(time, value)| (time, Value::Int(value)));
    let kind = WindowKind::Session { gap: Duration::from_secs(30), longest: Duration::from_secs(600) };
    let planned = Planned::new(0).kind("visit", "#", kind, 10, None).computing(vec![Function::Increase]);
    assert_eq!(taken(planned, &counter), ["visit a/x 0..40 r0: 3", "visit a/x 100..140 r0: 1"]);
}

#[test]
fn more_states_than_a_state_has_are_summed_up() {
    let readings: Vec<_> = (0..40).map(|second| (second, Value::Int(second))).collect();
    let planned = Planned::new(0).window("minute", "#", 60, 10).computing(vec![Function::TimeInState]);
    let found = taken(planned, &readings);
    assert!(found[0].contains(r#""(other)":44.0"#), "{found:?}");
    assert_eq!(found[0].matches(':').count(), 18, "{found:?}");
}

#[test]
fn a_reload_gives_a_new_function_values_from_the_next_window() {
    let numbers = |range: std::ops::Range<i64>| range.map(|second| (0, second, second as f64)).collect::<Vec<_>>();
    let plan = |functions: &[Function]| Planned::new(0).window("ten", "#", 10, 10).computing(functions.to_vec());
    let mut engine = plan(&[Function::Std]).engine(&["a/x"]);
    crate::plan::take(&mut engine, &numbers(0..5));
    let p50 = Function::Percentile("p50".parse().unwrap());
    handle(&mut engine, &rtlive_core::event::Event::Reload(plan(&[Function::Std, p50, Function::Increase]).done()));
    let mut out = crate::plan::take(&mut engine, &numbers(5..20));
    engine.close(Timestamp::MAX, &mut out);
    let values: Vec<_> = out
        .iter()
        .filter_map(
            |emitted| if let Record::Aggregate(one) = &emitted.record { Some(one.values.clone()) } else { None },
        )
        .collect();
    let std = Some(Value::Float(8.25_f64.sqrt()));
    assert_eq!(*values[0], [std.clone(), None, None]);
    assert_eq!(
        *values[1],
        [std, Some(Value::Float(14.0)), Some(Value::Int(9)).filter(|_| false).or(Some(Value::Float(9.0)))]
    );
}
