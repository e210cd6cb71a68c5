//! The order in which readings arrive does not count within the lateness, and the ledger closes whatever comes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rtlive_core::engine::Engine;
use rtlive_core::event::Event;
use rtlive_core::plan::Function;
use rtlive_core::reading::{SeriesId, Value};
use rtlive_core::record::{Aggregate, Emitted, Record};
use rtlive_core::time::Timestamp;

use crate::plan::{Planned, batch, handle, reading, seconds};

const EVERY: i64 = 10;
pub(crate) const LATENESS: i64 = 20;
pub(crate) const OUT_OF_ORDER: i64 = 2;

/// The newest revision of each aggregate. Revisions count from 0 without holes, and none follows a final one as early.
pub(crate) fn newest(emitted: &[Emitted]) -> BTreeMap<(u16, SeriesId, Timestamp), Aggregate> {
    let mut newest: BTreeMap<_, Aggregate> = BTreeMap::new();
    for Emitted { stream, record } in emitted {
        let Record::Aggregate(aggregate) = record else { continue };
        let before = newest.insert((stream.0, aggregate.series, aggregate.start), aggregate.clone());
        assert_eq!(aggregate.revision, before.as_ref().map_or(0, |before| before.revision + 1));
        assert!(aggregate.is_final || before.is_none_or(|before| !before.is_final));
    }
    newest
}

/// One reading of a test: series, time in seconds, value.
pub(crate) type Point = (u32, i64, Value);

fn engine() -> Engine {
    Planned::new(OUT_OF_ORDER as u64).window("ten", "#", EVERY as u64, LATENESS as u64).engine(&["a/x", "a/y", "a/z"])
}

pub(crate) fn values() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => (-1e6..1e6f64).prop_map(Value::Float),
        2 => any::<i32>().prop_map(|value| Value::Int(value.into())),
        1 => any::<i64>().prop_map(Value::Int),
        1 => Just(Value::Float(-0.0)),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => "[ab]{0,2}".prop_map(|text| Value::Text(text.into())),
    ]
}

/// Readings with distinct (series, time) over a minute and a half, in an order in which none is further behind the newest than
/// lateness and out-of-orderness allow, cut into batches.
pub(crate) fn arrivals(values: impl Strategy<Value = Value>) -> impl Strategy<Value = Vec<Vec<Point>>> {
    let points = prop::collection::btree_map((0..3u32, 0..90i64), values, 1..120);
    let disorder = prop::collection::vec(0..OUT_OF_ORDER + LATENESS, 120);
    (points, disorder, prop::collection::vec(1..8usize, 120)).prop_map(|(points, disorder, sizes)| {
        let mut points: Vec<Point> = points.into_iter().map(|((series, time), value)| (series, time, value)).collect();
        // Sorted by time plus at most D, none comes after one that is more than D newer.
        let mut keyed: Vec<(i64, Point)> =
            points.drain(..).zip(disorder).map(|(point, delay)| (point.1 + delay, point)).collect();
        keyed.sort_by_key(|(at, (series, time, _))| (*at, *series, -*time));
        let mut points = keyed.into_iter().map(|(_, point)| point);
        let batches = sizes.into_iter().map(|size| points.by_ref().take(size).collect::<Vec<_>>());
        batches.take_while(|batch| !batch.is_empty()).collect()
    })
}

fn run(batches: &[Vec<Point>]) -> Vec<Emitted> {
    let mut engine = engine();
    let mut emitted = Vec::new();
    for points in batches {
        let arrival = seconds(points.iter().map(|(_, time, _)| *time).max().unwrap());
        let readings = points.iter().map(|(series, time, value)| reading(*series, seconds(*time), value.clone()));
        emitted.extend(handle(&mut engine, &batch(arrival, readings.collect())));
    }
    engine.close(Timestamp::MAX, &mut emitted);
    assert_eq!(engine.ledger().check(), None);
    assert_eq!(engine.ledger().windows[0].late, 0);
    assert_eq!(engine.windows_open(), 0);
    emitted
}

/// The same, obviously right: all readings of a window at once, in the order of their times.
fn naive(batches: &[Vec<Point>]) -> BTreeMap<(u32, i64), [Option<Value>; 7]> {
    let mut windows: BTreeMap<(u32, i64), BTreeMap<i64, Value>> = BTreeMap::new();
    for (series, time, value) in batches.iter().flatten() {
        windows.entry((*series, time / EVERY * EVERY)).or_default().insert(*time, value.clone());
    }
    let of_window = |values: BTreeMap<i64, Value>| {
        let numbers = || values.values().filter_map(|value| Some((value.as_number()?, value)));
        let sum = exact_sum(numbers().map(|(number, _)| number));
        let count = numbers().count();
        let by_order = |a: &(f64, &Value), b: &(f64, &Value)| a.1.as_scalar().total_cmp(b.1.as_scalar());
        [
            Some(Value::Int(values.len() as i64)),
            (count > 0).then_some(Value::Float(sum)),
            (count > 0).then_some(Value::Float(sum / count as f64)),
            numbers().min_by(by_order).map(|(_, value)| value.clone()),
            numbers().max_by(by_order).map(|(_, value)| value.clone()),
            values.values().next().cloned(),
            values.values().next_back().cloned(),
        ]
    };
    windows.into_iter().map(|(key, values)| (key, of_window(values))).collect()
}

/// Adds in 128-bit fixed point with 40 fractional bits: exact for integers, and within 2⁻⁴⁰ for each float below a million.
fn exact_sum(numbers: impl Iterator<Item = f64>) -> f64 {
    let scale = (1u64 << 40) as f64;
    numbers.map(|number| (number * scale) as i128).sum::<i128>() as f64 / scale
}

fn close_enough(a: &Option<Value>, b: &Option<Value>, magnitude: f64) -> bool {
    match (a, b) {
        (Some(Value::Float(a)), Some(Value::Float(b))) => (a - b).abs() <= 1e-12 * magnitude.max(1.0),
        (a, b) => a == b,
    }
}

proptest! {
    #[test]
    fn any_order_within_the_lateness_gives_the_aggregates_of_a_naive_model(batches in arrivals(values())) {
        let expected = naive(&batches);
        let found = newest(&run(&batches));
        prop_assert_eq!(found.len(), expected.len());
        for ((_, series, start), aggregate) in &found {
            let start = start.as_nanos() / 1_000_000_000;
            prop_assert!(aggregate.is_final);
            let wanted = &expected[&(series.0, start)];
            let magnitude: f64 = batches.iter().flatten()
                .filter(|(of, time, _)| *of == series.0 && time / EVERY * EVERY == start)
                .filter_map(|(_, _, value)| value.as_number())
                .map(f64::abs)
                .sum();
            for (i, function) in Function::PLAIN.into_iter().enumerate() {
                let (found, wanted) = (&aggregate.values[i], &wanted[i]);
                let equal = match function {
                    Function::Sum | Function::Mean => close_enough(found, wanted, magnitude),
                    _ => format!("{found:?}") == format!("{wanted:?}"),
                };
                prop_assert!(equal, "{:?} of {:?}: {:?} and {:?}", function, aggregate, found, wanted);
            }
        }
    }

    #[test]
    fn cutting_into_batches_changes_no_newest_revision(batches in arrivals(values())) {
        let single: Vec<Vec<Point>> = batches.iter().flatten().map(|point| vec![point.clone()]).collect();
        let without_revision = |emitted: &[Emitted]| {
            let mut newest = newest(emitted);
            newest.values_mut().for_each(|aggregate| aggregate.revision = 0);
            newest
        };
        prop_assert_eq!(without_revision(&run(&batches)), without_revision(&run(&single)));
    }

    #[test]
    fn the_ledger_closes_whatever_comes(
        events in prop::collection::vec(
            prop_oneof![
                4 => prop::collection::vec((0..5u32, any::<i64>(), values()), 0..4),
                4 => prop::collection::vec((0..4u32, (0..200i64).prop_map(|s| s * 1_000_000_000), values()), 0..6),
            ],
            0..30,
        ),
        ticks in any::<u64>(),
    ) {
        let mut engine = engine();
        let mut emitted = Vec::new();
        for (i, points) in events.into_iter().enumerate() {
            let arrival = seconds(100 + i as i64);
            let readings = points
                .into_iter()
                .map(|(series, time, value)| reading(series, Timestamp::from_nanos(time), value));
            engine.handle(arrival, &batch(arrival, readings.collect()), &mut emitted);
            prop_assert_eq!(engine.ledger().check(), None);
            if ticks >> (i % 64) & 1 == 1 {
                engine.handle(seconds(120 + i as i64), &Event::Tick, &mut emitted);
                prop_assert_eq!(engine.ledger().check(), None);
            }
        }
        engine.close(Timestamp::MAX, &mut emitted);
        prop_assert_eq!(engine.ledger().check(), None);
        // What the ledger says is in the records: the newest revisions hold what was finished.
        let in_records: u64 = newest(&emitted).values().map(|aggregate| match aggregate.values[0] {
            Some(Value::Int(count)) => count as u64,
            _ => 0,
        }).sum();
        let late = emitted.iter().filter(|emitted| emitted.stream.0 == 2).count() as u64;
        let account = &engine.ledger().windows[0];
        prop_assert_eq!((account.finished, account.late, account.open), (in_records, late, 0));
    }
}
