//! Derived series.

use std::collections::BTreeMap;

use proptest::prelude::*;
use rtlive_core::engine::{Engine, JOIN_SAMPLES_MAX};
use rtlive_core::event::{Batch, Event};
use rtlive_core::plan::Join;
use rtlive_core::reading::{InputId, Value};
use rtlive_core::record::{Emitted, Record};
use rtlive_core::time::Timestamp;

use crate::plan::{Planned, declared, handle, reading, seconds, shown, take, wait};

fn power(out_of_order: u64) -> Planned {
    let bindings = [("u", "a/+/voltage"), ("i", "a/{1}/current")];
    Planned::new(out_of_order).derived("a/{1}/power", &bindings, 2, Join::Inner, "u * i").raw("raw", "+/+/power")
}

fn only(engine: &Engine, out: &[Emitted], stream: &str) -> Vec<String> {
    shown(engine, out).into_iter().filter(|line| line.starts_with(stream)).collect()
}

/// What became of the readings of the first derived series: accepted, and dropped by reason.
fn account(engine: &Engine) -> (u64, Vec<(String, u64)>) {
    let account = engine.ledger().inputs.iter().find(|account| account.input.starts_with("derived:")).unwrap();
    (account.accepted, account.dropped.iter().map(|(reason, count)| (reason.to_string(), *count)).collect())
}

#[test]
fn one_for_each_match_at_the_times_of_the_first_name() {
    let mut engine =
        power(0).window("ten", "a/+/power", 10, 0).engine(&["a/m1/voltage", "a/m2/voltage", "a/m1/current"]);
    let event = declared(&engine, "a/m2/current");
    handle(&mut engine, &event);
    let id = |name: &str| engine.series_named(name).unwrap().0;
    let (u, i, other) = (id("a/m1/voltage"), id("a/m1/current"), id("a/m2/current"));
    assert_eq!(engine.series()[engine.series_named("a/m1/power").unwrap().index()].unit.as_deref(), Some("W"));
    assert!(take(&mut engine, &[(i, 1, 2.0), (u, 1, 230.0), (u, 2, 231.0), (other, 2, 9.0)]).len() == 1);
    // The value of time 2 waits until nothing of that time can come any more.
    let out =
        take(&mut engine, &[(i, 3, 3.0), (u, 4, 232.0), (u, 6, 240.0), (u, 9, 250.0), (u, 12, 251.0), (i, 12, 1.0)]);
    let expected = ["raw a/m1/power 2=462", "raw a/m1/power 4=696"];
    assert_eq!(only(&engine, &out, "raw"), expected, "the current of 3 is too old at 6 and 9");
    assert_eq!(account(&engine), (3, vec![("missing".to_owned(), 2)]));
    // Nothing of time 12 or later is there yet, so that the window of the others is final.
    assert_eq!(only(&engine, &out, "ten"), ["ten a/m1/power 0..10 r0: 3 1618 539.3333333333334 460 696 460 696"]);
}

#[test]
fn a_silent_side_is_waited_for_until_its_input_is_idle() {
    let bindings = [("x", "a/x"), ("y", "b/y")];
    let planned = Planned::new(0).input("b", 0).derived("sum", &bindings, 5, Join::Inner, "x + y").raw("raw", "sum");
    let mut engine = planned.engine(&["a/x", "b/y"]);
    let y = engine.series_named("b/y").unwrap().0;
    let send = |engine: &mut Engine, time, arrival, value| {
        let readings = vec![reading(y, seconds(time), Value::Float(value))];
        handle(
            engine,
            &Event::Batch(Batch { input: InputId(1), arrival: seconds(arrival), readings, rejected: vec![] }),
        )
    };
    send(&mut engine, 100, 100, 1.0);
    let mut out = Vec::new();
    for time in 100..109 {
        out.extend(take(&mut engine, &[(0, time, 10.0)]));
    }
    assert!(out.is_empty(), "{:?}", shown(&engine, &out));
    // b/y is silent for 10 s: what is there now is all that there is.
    let out = wait(&mut engine, 110);
    assert_eq!(only(&engine, &out, "raw").len(), 6, "from 100 to 105 it is near enough");
    // It comes back with what it had: too late for those, and counted; then it is waited for again.
    send(&mut engine, 104, 111, 2.0);
    let out = take(&mut engine, &[(0, 111, 10.0), (0, 112, 10.0)]);
    assert!(only(&engine, &out, "raw").is_empty());
    let out = send(&mut engine, 112, 112, 3.0);
    assert_eq!(only(&engine, &out, "raw"), ["raw sum 108=12"]);
    let out = send(&mut engine, 113, 113, 4.0);
    assert_eq!(only(&engine, &out, "raw"), [] as [&str; 0]);
    let out = take(&mut engine, &[(0, 113, 10.0)]);
    assert_eq!(only(&engine, &out, "raw"), ["raw sum 112=13"]);
    assert_eq!(account(&engine).1, [("late".to_owned(), 1), ("missing".to_owned(), 3)]);
}

#[test]
fn a_first_name_that_was_silent_for_an_hour_loses_nothing() {
    let bindings = [("x", "a/x"), ("y", "b/y")];
    let planned = Planned::new(0).input("b", 0).derived("sum", &bindings, 1, Join::Inner, "x + y");
    let mut engine = planned.window("minute", "sum", 60, 0).engine(&["a/x", "b/y"]);
    let y = engine.series_named("b/y").unwrap().0;
    for time in 0..=3600 {
        let readings = vec![reading(y, seconds(time), Value::Float(time as f64))];
        let batch = Batch { input: InputId(1), arrival: seconds(time), readings, rejected: vec![] };
        handle(&mut engine, &Event::Batch(batch));
        wait(&mut engine, time);
    }
    let burst: Vec<(u32, i64, f64)> = (0..=3600).map(|time| (0, time, 0.0)).collect();
    let out = take(&mut engine, &burst);
    let windows = only(&engine, &out, "minute");
    assert_eq!((windows.len(), account(&engine)), (60, (3600, vec![])));
    assert!(windows[59].starts_with("minute sum 3540..3600 r0: 60 "), "{}", windows[59]);
}

#[test]
fn what_waits_for_too_long_waits_no_longer() {
    let bindings = [("x", "a/x"), ("y", "b/y")];
    let planned = Planned::new(0).input("b", 0).derived("sum", &bindings, 1, Join::Left, "x + y").raw("raw", "sum");
    let mut engine = planned.engine(&["a/x", "b/y"]);
    let mut out = Vec::new();
    let count = JOIN_SAMPLES_MAX as i64 + 5;
    for time in 0..count {
        out.extend(take(&mut engine, &[(0, time, 1.0)]));
    }
    // A left join has a reading for each of the first name's, bad where it is missing.
    assert_eq!(
        only(&engine, &out, "raw"),
        ["raw sum 0=NaN", "raw sum 1=NaN", "raw sum 2=NaN", "raw sum 3=NaN", "raw sum 4=NaN"]
    );
    assert_eq!((account(&engine).0, engine.ledger().inputs.iter().map(|account| account.bad).sum::<u64>()), (5, 5));
}

#[test]
fn derived_series_of_derived_series_and_rules_over_them() {
    let planned = Planned::new(5)
        .derived("twice", &[("x", "a/x")], 0, Join::Inner, "2 * x")
        .derived("both", &[("t", "twice"), ("x", "a/x")], 1, Join::Inner, "t + x")
        .raw("raw", "both")
        .rule("high", &[("b", "both")], "b > 30", None, "{b}")
        .absent("silent", &["both"], 60);
    let mut engine = planned.engine(&["a/x"]);
    let out = take(&mut engine, &[(0, 100, 5.0), (0, 101, 11.0)]);
    // The rule sees it on arrival, the stream when nothing older can come.
    assert_eq!(shown(&engine, &out), ["high  Raised at 101: 33 (b=33)"]);
    let out = take(&mut engine, &[(0, 107, 1.0)]);
    assert_eq!(shown(&engine, &out), ["high  Cleared at 107: 3 (b=3)", "raw both 100=15", "raw both 101=33"]);
    let out = wait(&mut engine, 500);
    assert_eq!(only(&engine, &out, "silent").len(), 1);
    let mut out = Vec::new();
    engine.close(seconds(500), &mut out);
    assert_eq!(shown(&engine, &out), ["raw both 107=3"]);
}

#[test]
fn a_series_that_an_input_makes_too_has_one_source() {
    let mut engine = power(0).engine(&["a/m1/power", "a/m1/voltage", "a/m1/current"]);
    let id = engine.series_named("a/m1/power").unwrap();
    assert_eq!(engine.origin_of(id).map(|(input, _)| input), Some(InputId(0)), "the input's was first");
    let out = take(&mut engine, &[(id.0, 1, 7.0), (1, 1, 1.0), (2, 1, 1.0), (1, 2, 1.0)]);
    assert_eq!(only(&engine, &out, "raw"), ["raw a/m1/power 1=7"]);
    // The other way round.
    let mut engine = power(0).engine(&["a/m1/voltage", "a/m1/current"]);
    let id = engine.series_named("a/m1/power").unwrap();
    let event = declared(&engine, "a/m1/power");
    handle(&mut engine, &event);
    assert_ne!(engine.origin_of(id).map(|(input, _)| input), Some(InputId(0)));
    assert!(take(&mut engine, &[(id.0, 1, 7.0)]).is_empty());
    assert_eq!(engine.ledger().inputs[0].dropped.values().sum::<u64>(), 1);
}

#[test]
fn a_series_that_comes_from_a_source_that_is_further_holds_nothing_back() {
    let bindings = [("x", "a/x"), ("y", "b/1/y")];
    let planned = Planned::new(0).input("b", 0).derived("sum", &bindings, 5, Join::Inner, "x + y").raw("raw", "sum");
    let mut engine = planned.engine(&["a/x", "b/1/y", "b/2/z"]);
    let id = |engine: &Engine, name: &str| engine.series_named(name).unwrap().0;
    let (x, y, z) = (id(&engine, "a/x"), id(&engine, "b/1/y"), id(&engine, "b/2/z"));
    let send = |engine: &mut Engine, series, time| {
        let (readings, arrival) = (vec![reading(series, seconds(time), Value::Float(1.0))], seconds(time));
        handle(engine, &Event::Batch(Batch { input: InputId(1), arrival, readings, rejected: vec![] }))
    };
    send(&mut engine, y, 100);
    send(&mut engine, z, 103);
    take(&mut engine, &[(x, 100, 2.0), (x, 101, 3.0), (x, 104, 4.0)]);
    // The device of the one is the other from now on: what was awaited of it is there.
    let Event::Series(mut series) = declared(&engine, "b/1/y") else { unreachable!() };
    series.source = "2".into();
    let mut out = Vec::new();
    engine.handle(seconds(104), &Event::Series(series), &mut out);
    assert_eq!(shown(&engine, &out), ["raw sum 100=3", "raw sum 101=4"]);
    // It was the only one of its old source, which nobody waits for any more.
    assert_eq!(send(&mut engine, z, 104).len(), 0);
    assert!(wait(&mut engine, 113).is_empty());
    assert_eq!(engine.wake_at(), Some(seconds(114)));
}

#[test]
fn goes_on_when_another_series_makes_it() {
    let planned = |names: [(&str, &str); 2]| {
        Planned::new(0).derived("sum", &names, 5, Join::Inner, "x - y").raw("raw", "sum").window("ten", "sum", 10, 0)
    };
    let mut engine = planned([("x", "a/x"), ("y", "a/y")]).engine(&["a/x", "a/y"]);
    let id = |engine: &Engine, name: &str| engine.series_named(name).unwrap().0;
    let (x, y) = (id(&engine, "a/x"), id(&engine, "a/y"));
    let out = take(&mut engine, &[(x, 1, 3.0), (y, 1, 1.0), (x, 2, 4.0), (y, 3, 2.0)]);
    assert_eq!(shown(&engine, &out), ["raw sum 1=2", "raw sum 2=3"]);
    // The first name, which gives the times, is another: what was computed is not computed again, and windows go on.
    engine.reload(seconds(3), planned([("y", "a/y"), ("x", "a/x")]).done(), &mut Vec::new());
    let engine = &mut Engine::restore(engine.plan().clone(), &engine.snapshot()).unwrap();
    let out = take(engine, &[(x, 4, 6.0), (y, 12, 1.0), (x, 12, 3.0), (y, 13, 0.0)]);
    assert_eq!(shown(engine, &out)[..2], ["raw sum 3=2", "raw sum 12=2"]);
    assert_eq!(shown(engine, &out)[2], "ten sum 0..10 r0: 3 7 2.3333333333333335 2 3 2 2");
}

#[test]
fn a_rule_that_comes_back_sees_nothing_of_before() {
    let planned = |is_watched: bool| {
        let bindings = [("x", "a/x"), ("y", "a/y")];
        let planned = Planned::new(0).derived("sum", &bindings, 1_000, Join::Inner, "x + y");
        if is_watched { planned.rule("high", &[("s", "sum")], "s > 10", None, "{s}") } else { planned }
    };
    let mut engine = planned(true).engine(&["a/x", "a/y"]);
    let [x, y] = ["a/x", "a/y"].map(|name| engine.series_named(name).unwrap().0);
    take(&mut engine, &[(x, 1, 9.0), (y, 1, 0.0)]);
    engine.reload(seconds(1), planned(false).done(), &mut Vec::new());
    take(&mut engine, &[(x, 2, 1.0)]);
    engine.reload(seconds(2), planned(true).done(), &mut Vec::new());
    assert!(take(&mut engine, &[(y, 3, 5.0)]).is_empty(), "9 was long ago");
    assert_eq!(take(&mut engine, &[(x, 4, 6.0)]).len(), 1);
}

#[test]
fn a_reload_keeps_what_waits() {
    let mut engine = power(0).engine(&["a/m1/voltage", "a/m1/current"]);
    let id = |engine: &Engine, name: &str| engine.series_named(name).unwrap().0;
    let (u, i) = (id(&engine, "a/m1/voltage"), id(&engine, "a/m1/current"));
    take(&mut engine, &[(u, 1, 230.0), (i, 1, 2.0)]);
    let mut out = Vec::new();
    // Another one comes, over series that there are already.
    let next = power(0).derived("a/{1}/half", &[("p", "a/+/power")], 0, Join::Inner, "p / 2").raw("more", "a/+/half");
    engine.reload(seconds(1), next.done(), &mut out);
    assert!(out.is_empty());
    let out = take(&mut engine, &[(u, 3, 230.0), (i, 3, 2.0)]);
    assert_eq!(only(&engine, &out, "raw"), ["raw a/m1/power 1=460"]);
    assert_eq!(only(&engine, &out, "more"), ["more a/m1/half 1=230"]);
    let restored = Engine::restore(engine.plan().clone(), &engine.snapshot()).unwrap();
    assert_eq!(restored.snapshot(), engine.snapshot());
}

const OUT_OF_ORDER: i64 = 4;

/// Readings of three series with distinct (series, time), none further behind the newest of its source than it may be, cut into batches.
fn arrivals() -> impl Strategy<Value = Vec<Vec<(u32, i64, f64)>>> {
    let value = prop_oneof![8 => (-100..100i32).prop_map(f64::from), 1 => Just(f64::NAN)];
    let points = prop::collection::btree_map((0..3u32, 0..60i64), value, 1..120);
    let disorder = prop::collection::vec(0..=OUT_OF_ORDER, 120);
    (points, disorder, prop::collection::vec(1..8usize, 120)).prop_map(|(points, disorder, sizes)| {
        let mut keyed: Vec<(i64, (u32, i64, f64))> = points
            .into_iter()
            .zip(disorder)
            .map(|(((series, time), value), delay)| (time + delay, (series, time, value)))
            .collect();
        keyed.sort_by_key(|(at, (series, time, _))| (*at, *series, -*time));
        let mut points = keyed.into_iter().map(|(_, point)| point);
        let batches = sizes.into_iter().map(|size| points.by_ref().take(size).collect::<Vec<_>>());
        batches.take_while(|batch| !batch.is_empty()).collect()
    })
}

/// The join, obviously right: for each time of the first, the newest of the others among all readings in the order of their times.
fn naive(batches: &[Vec<(u32, i64, f64)>], within: i64) -> Vec<(i64, f64)> {
    let mut series: [BTreeMap<i64, f64>; 3] = Default::default();
    for &(of, time, value) in batches.iter().flatten() {
        series[of as usize].insert(time, value);
    }
    let newest = |of: usize, at: i64| {
        let (time, value) = series[of].range(..=at).next_back()?;
        (at - time <= within && value.is_finite()).then_some(*value)
    };
    let before = |of: usize, at: i64| {
        let (time, _) = series[of].range(..=at).next_back()?;
        series[of].range(..time).next_back().map(|(_, value)| *value).filter(|value| value.is_finite())
    };
    let joined = |&at: &i64| Some((at, newest(0, at)? * newest(1, at)? + newest(2, at)? - before(2, at)?));
    series[0].keys().filter_map(joined).collect()
}

proptest! {
    #[test]
    fn any_order_within_the_bound_gives_the_readings_of_a_naive_join(batches in arrivals(), within in 0..6i64) {
        let bindings = [("x", "a/x"), ("y", "a/y"), ("z", "a/z")];
        let planned = Planned::new(OUT_OF_ORDER as u64)
            .derived("join", &bindings, within as u64, Join::Inner, "x * y + z - prev(z)")
            .raw("raw", "join");
        let mut engine = planned.engine(&["a/x", "a/y", "a/z"]);
        let mut out = Vec::new();
        let ids = ["a/x", "a/y", "a/z"].map(|name| engine.series_named(name).unwrap().0);
        for points in &batches {
            let points: Vec<_> = points.iter().map(|&(of, time, value)| (ids[of as usize], time, value)).collect();
            out.extend(take(&mut engine, &points));
        }
        engine.close(Timestamp::MAX, &mut out);
        prop_assert_eq!(engine.ledger().check(), None);
        let found: Vec<(i64, f64)> = out
            .iter()
            .filter_map(|emitted| match &emitted.record {
                Record::Reading(reading) => Some((reading.time.as_nanos() / 1_000_000_000, reading.value.as_number()?)),
                _ => None,
            })
            .collect();
        prop_assert_eq!(found, naive(&batches, within));
        prop_assert!(account(&engine).1.iter().all(|(reason, _)| reason == "missing"));
    }
}
