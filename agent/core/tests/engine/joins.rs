//! Derived series over windows, and what a burst after an outage makes of joins.

use proptest::prelude::*;
use rtlive_core::engine::Engine;
use rtlive_core::event::{Batch, Event};
use rtlive_core::plan::Join;
use rtlive_core::reading::{InputId, Value};
use rtlive_core::record::{Emitted, Record};
use rtlive_core::time::Timestamp;

use crate::plan::{Planned, handle, reading, seconds, shown, take, wait};

/// Of each pair of `a/+/u` and `b/{1}/i`, by windows of ten seconds.
fn pairs(join: Join, lateness: u64) -> Planned {
    Planned::new(0)
        .input("b", 0)
        .window("ten", "#", 10, lateness)
        .derived("sum/{1}", &[("u", "a/+/u"), ("i", "b/{1}/i")], 0, join, "u")
        .over("ten", &[("u", "mean"), ("u", "max"), ("i", "max")], "u.mean * i.max + 0 * u.max")
        .raw("raw", "sum/+")
}

fn only(engine: &Engine, out: &[Emitted], stream: &str) -> Vec<String> {
    shown(engine, out).into_iter().filter(|line| line.starts_with(stream)).collect()
}

/// What became of the readings of the first derived series: accepted, and dropped by reason.
fn account(engine: &Engine) -> (u64, Vec<(String, u64)>) {
    let account = engine.ledger().inputs.iter().find(|account| account.input.starts_with("derived:")).unwrap();
    (account.accepted, account.dropped.iter().map(|(reason, count)| (reason.to_string(), *count)).collect())
}

fn send(engine: &mut Engine, input: u16, arrival: i64, points: &[(u32, i64, f64)]) -> Vec<Emitted> {
    let readings = points.iter().map(|&(series, time, value)| reading(series, seconds(time), Value::Float(value)));
    let (readings, arrival) = (readings.collect(), seconds(arrival));
    handle(engine, &Event::Batch(Batch { input: InputId(input), arrival, readings, rejected: vec![] }))
}

fn id(engine: &Engine, name: &str) -> u32 {
    engine.series_named(name).unwrap().0
}

#[test]
fn is_told_once_all_windows_have_closed() {
    let mut engine = pairs(Join::Inner, 5).window("half", "sum/+", 30, 0).engine(&["a/1/u", "b/1/i"]);
    let (u, i) = (id(&engine, "a/1/u"), id(&engine, "b/1/i"));
    assert!(engine.series_named("sum/1").is_some(), "by the name of the instance");
    send(&mut engine, 0, 1, &[(u, 1, 2.0), (u, 3, 4.0)]);
    send(&mut engine, 1, 1, &[(i, 1, 7.0), (i, 14, 8.0)]);
    // Emitted, and still revised: 6 and 5 instead of 7.
    let out = send(&mut engine, 0, 14, &[(u, 14, 1.0), (u, 5, 12.0)]);
    assert_eq!(only(&engine, &out, "raw"), [] as [&str; 0]);
    assert_eq!(only(&engine, &out, "ten").len(), 1);
    let out = send(&mut engine, 0, 15, &[(u, 15, 1.0)]);
    assert_eq!(only(&engine, &out, "raw"), [] as [&str; 0], "the other side has not closed");
    let out = send(&mut engine, 1, 15, &[(i, 15, 1.0)]);
    assert_eq!(only(&engine, &out, "raw"), ["raw sum/1 0=42"], "6 × 7, at the start of the window");
    // A window that one side lacks is missing, and windows over it end by its own watermark.
    send(&mut engine, 0, 50, &[(u, 50, 3.0)]);
    let out = send(&mut engine, 1, 50, &[(i, 25, 1.0), (i, 50, 9.0)]);
    assert_eq!(only(&engine, &out, "raw"), ["raw sum/1 10=8"]);
    assert_eq!(only(&engine, &out, "half"), ["half sum/1 0..30 r0: 2 50 25 8 42 42 8"]);
    assert_eq!(account(&engine), (2, vec![]), "the window of 20 has none of the first name");
    let mut out = Vec::new();
    engine.close(Timestamp::MAX, &mut out);
    assert_eq!(only(&engine, &out, "raw"), ["raw sum/1 50=27"]);
    assert_eq!(only(&engine, &out, "half"), ["half sum/1 30..60 r0: 1 27 27 27 27 27 27"]);
}

#[test]
fn left_has_a_reading_for_each_window_of_the_first_name() {
    let planned = pairs(Join::Left, 0).rule("low", &[("s", "sum/1")], "s < 10", None, "{s}");
    let mut engine = planned.engine(&["a/1/u", "b/1/i"]);
    let (u, i) = (id(&engine, "a/1/u"), id(&engine, "b/1/i"));
    send(&mut engine, 1, 1, &[(i, 1, 2.0)]);
    let out = send(&mut engine, 0, 21, &[(u, 1, 2.0), (u, 11, 3.0), (u, 21, 4.0)]);
    assert_eq!(only(&engine, &out, "raw"), [] as [&str; 0], "the other side has not said whether it has more");
    // It is silent, and not waited for; what it had is not final, and never will be unless it speaks.
    let out = wait(&mut engine, 60);
    assert_eq!(only(&engine, &out, "raw"), ["raw sum/1 0=NaN", "raw sum/1 10=NaN"]);
    assert!(only(&engine, &out, "low").is_empty());
    let out = send(&mut engine, 1, 61, &[(i, 21, 2.0), (i, 31, 0.0)]);
    assert_eq!(only(&engine, &out, "ten").len(), 2, "its windows are final and right all the same");
    assert_eq!(account(&engine).1, [("late".to_owned(), 1)]);
    let out = send(&mut engine, 0, 61, &[(u, 31, 4.0)]);
    assert_eq!(only(&engine, &out, "raw"), ["raw sum/1 20=8"]);
    assert_eq!(only(&engine, &out, "low"), ["low  Raised at 20: 8 (s=8)"], "rules see it when it is computed");
}

#[test]
fn what_revises_too_late_is_counted_at_once() {
    let mut engine = pairs(Join::Left, 30).engine(&["a/1/u", "b/1/i"]);
    let (u, i) = (id(&engine, "a/1/u"), id(&engine, "b/1/i"));
    send(&mut engine, 1, 15, &[(i, 1, 2.0), (i, 15, 2.0)]);
    send(&mut engine, 0, 50, &[(u, 1, 2.0), (u, 50, 3.0)]);
    let out = wait(&mut engine, 60);
    assert_eq!(only(&engine, &out, "raw"), ["raw sum/1 0=4"], "the other side is silent");
    // A revision of what was joined: no watermark moves, and nothing is computed.
    send(&mut engine, 1, 61, &[(i, 2, 7.0)]);
    assert_eq!(account(&engine).1, [("late".to_owned(), 1)]);
}

/// An hour of silence of either side, with the other live: every window is final and right, no reading is late, and joins miss nothing.
/// Of an as-of join the silent side is the first name.
#[test]
fn an_hour_in_one_burst_beside_a_live_input() {
    for silent in [0_u16, 1] {
        let asof = [("x", ["a/x", "b/y"][usize::from(silent)]), ("y", ["b/y", "a/x"][usize::from(silent)])];
        let planned = Planned::new(0)
            .input("b", 0)
            .window("minute", "#", 60, 10)
            .derived("power", &asof, 1, Join::Inner, "x * y")
            .derived("energy", &[("x", "a/x"), ("y", "b/y")], 0, Join::Inner, "x")
            .over("minute", &[("x", "mean"), ("y", "max")], "x.mean * y.max");
        let mut engine = planned.raw("raw", "energy").window("hour", "energy", 3_600, 0).engine(&["a/x", "b/y"]);
        let sides = [id(&engine, "a/x"), id(&engine, "b/y")];
        let live = 1 - silent;
        let mut out = Vec::new();
        for time in 0..=3_670 {
            out.extend(send(&mut engine, live, time, &[(sides[usize::from(live)], time, 2.0)]));
            out.extend(wait(&mut engine, time));
        }
        let name = ["a/x", "b/y"][usize::from(live)];
        assert_eq!(only(&engine, &out, &format!("minute {name}")).len(), 61);
        assert_eq!(only(&engine, &out, "minute").len(), 61, "nothing of the others");
        let burst: Vec<_> = (0..=3_670).map(|time| (sides[usize::from(silent)], time, time as f64)).collect();
        let out = send(&mut engine, silent, 3_671, &burst);
        let windows = |name: &str| only(&engine, &out, &format!("minute {name} "));
        let other = ["a/x", "b/y"][usize::from(silent)];
        for (name, factor) in [(other, 1), ("power", 2)] {
            let windows = windows(name);
            assert_eq!(windows.len(), 61, "{name}");
            for (place, line) in windows.iter().enumerate() {
                let (start, end) = (place * 60, place * 60 + 60);
                let sum: usize = (start..end).sum::<usize>() * factor;
                let (min, max) = (start * factor, (end - 1) * factor);
                let expected = format!("r0: 60 {sum} {} {min} {max} {min} {max}", sum as f64 / 60.0);
                assert_eq!(*line, format!("minute {name} {start}..{end} {expected}"));
            }
        }
        let joined = only(&engine, &out, "raw");
        let value = |minute: i64| {
            if silent == 0 { 2.0 * (60.0 * minute as f64 + 29.5) } else { 2.0 * (60 * minute + 59) as f64 }
        };
        let expected: Vec<_> = (0..61).map(|minute| format!("raw energy {}={}", minute * 60, value(minute))).collect();
        assert_eq!(joined, expected);
        assert_eq!(only(&engine, &out, "hour").len(), 1);
        let ledger = engine.ledger();
        assert!(
            ledger.windows.iter().all(|window| window.late == 0) && ledger.inputs.iter().all(|input| input.late == 0)
        );
        assert!(ledger.inputs.iter().all(|input| input.dropped.is_empty()), "{:?}", ledger.inputs);
    }
}

#[test]
fn a_restart_and_a_reload_keep_what_waits() {
    let mut engine = pairs(Join::Inner, 5).engine(&["a/1/u", "b/1/i"]);
    let (u, i) = (id(&engine, "a/1/u"), id(&engine, "b/1/i"));
    send(&mut engine, 0, 30, &[(u, 1, 2.0), (u, 30, 1.0)]);
    let mut engine = Engine::restore(engine.plan().clone(), &engine.snapshot()).unwrap();
    let snapshot = engine.snapshot();
    assert_eq!(Engine::restore(engine.plan().clone(), &snapshot).unwrap().snapshot(), snapshot);
    // Another window comes before it, so that streams have other numbers, and the window says something more.
    let next = Planned::new(0).input("b", 0).window("a", "#", 20, 0).window("ten", "#", 10, 5);
    let next = next.computing(["max", "min", "mean"].map(|name| name.parse().unwrap()).to_vec());
    let next = next
        .derived("sum/{1}", &[("u", "a/+/u"), ("i", "b/{1}/i")], 0, Join::Inner, "u")
        .over("ten", &[("u", "mean"), ("u", "max"), ("i", "max")], "u.mean * i.max + 0 * u.max")
        .raw("raw", "sum/+");
    engine.reload(seconds(30), next.done(), &mut Vec::new());
    let out = send(&mut engine, 1, 30, &[(i, 2, 5.0), (i, 30, 1.0)]);
    assert_eq!(only(&engine, &out, "raw"), ["raw sum/1 0=10"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any order within the lateness gives the readings that the aggregates of all give.
    #[test]
    fn any_order_within_the_lateness_gives_the_same(
        values in prop::collection::vec((0..2u16, 0..12i64, -50..50i32), 1..80),
        cut in 1..7usize,
    ) {
        // Times are distinct, and no side goes further ahead than the lateness before all is there.
        let points: Vec<(u16, i64, f64)> =
            values.iter().enumerate().map(|(at, &(side, behind, value))| (side, at as i64 - behind, f64::from(value))).collect();
        let mut seen = std::collections::BTreeSet::new();
        let points: Vec<_> = points.into_iter().filter(|&(side, time, _)| time >= 0 && seen.insert((side, time))).collect();
        let mut engine = pairs(Join::Inner, 12).engine(&["a/1/u", "b/1/i"]);
        let sides = [id(&engine, "a/1/u"), id(&engine, "b/1/i")];
        let mut out = Vec::new();
        for points in points.chunks(cut) {
            for input in 0..2 {
                let of: Vec<_> =
                    points.iter().filter(|point| point.0 == input).map(|&(side, time, value)| (sides[usize::from(side)], time, value)).collect();
                if !of.is_empty() {
                    out.extend(send(&mut engine, input, 100, &of));
                    engine = Engine::restore(engine.plan().clone(), &engine.snapshot()).unwrap();
                }
            }
        }
        engine.close(Timestamp::MAX, &mut out);
        let found: Vec<(i64, f64)> = out.iter().filter_map(|emitted| match &emitted.record {
            Record::Reading(reading) => Some((reading.time.as_nanos() / 1_000_000_000, reading.value.as_number()?)),
            _ => None,
        }).collect();
        let mut expected = Vec::new();
        for start in (0..100).step_by(10) {
            let of = |input: u16| points.iter().filter(move |p| p.0 == input && (start..start + 10).contains(&p.1)).map(|p| p.2);
            if of(0).count() > 0 && of(1).count() > 0 {
                let mean = of(0).sum::<f64>() / of(0).count() as f64;
                expected.push((start, mean * of(1).fold(f64::MIN, f64::max) + 0.0));
            }
        }
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn sides_of_one_series_are_counted_once() {
    let planned = Planned::new(0)
        .window("ten", "#", 10, 0)
        .derived("spread", &[("x", "a/x")], 0, Join::Inner, "x")
        .over("ten", &[("x", "max"), ("x", "min")], "x.max - x.min")
        .raw("raw", "spread");
    let mut engine = planned.engine(&["a/x"]);
    let out = take(&mut engine, &[(0, 1, 5.0), (0, 2, 3.0), (0, 10, 1.0)]);
    assert_eq!(only(&engine, &out, "raw"), ["raw spread 0=2"]);
    assert_eq!(account(&engine), (1, vec![]));
}
