//! Quality checks: what each objects to, what becomes of it, what they remember.

use std::time::Duration;

use proptest::prelude::*;
use rtlive_core::engine::{DUPLICATE_TIMES, Engine, SPIKE_READINGS};
use rtlive_core::event::{Declared, Event};
use rtlive_core::plan::{Mark, QualityPlan, Switch, ValueType};
use rtlive_core::reading::{Check, InputId, Quality, Reading, SeriesId, SeriesInfo, Value};
use rtlive_core::record::{Emitted, Record};

use crate::plan::{Planned, batch, handle, reading, seconds, shown};

/// Readings of series 0 one after another; which of them a check objected to, as `index:check:quality`. Marked suspect, all stay.
fn objections(set: impl FnOnce(&mut QualityPlan), readings: Vec<(i64, Value)>) -> Vec<String> {
    let mut engine = Planned::new(0).raw("raw", "#").quality("#", set).engine(&["a/x"]);
    let mut found = Vec::new();
    for (i, (time, value)) in readings.into_iter().enumerate() {
        for record in raw(&give(&mut engine, time, value)) {
            if let Some(check) = record.check {
                found.push(format!("{i}:{}:{:?}", check.name(), record.quality));
            }
        }
    }
    found
}

fn give(engine: &mut Engine, time: i64, value: Value) -> Vec<Emitted> {
    handle(engine, &batch(seconds(1_000_000), vec![reading(0, seconds(time), value)]))
}

fn raw(out: &[Emitted]) -> Vec<Reading> {
    let reading = |emitted: &Emitted| match &emitted.record {
        Record::Reading(reading) if emitted.stream.index() == 5 => Some(reading.clone()),
        _ => None,
    };
    out.iter().filter_map(reading).collect()
}

fn floats(points: &[(i64, f64)]) -> Vec<(i64, Value)> {
    points.iter().map(|&(time, value)| (time, Value::Float(value))).collect()
}

fn each_second(values: &[f64]) -> Vec<(i64, Value)> {
    (1..).zip(values.iter().map(|&value| Value::Float(value))).collect()
}

#[test]
fn a_range_holds_its_bounds_and_looks_at_numbers_alone() {
    let range = |table: &mut QualityPlan| table.range = Some(Switch::On([180.0, 260.0]));
    let mut readings = each_second(&[180.0, 260.0, 179.9, 260.1, 200.0]);
    readings.push((9, Value::Int(300)));
    readings.push((10, Value::Bool(true)));
    assert_eq!(objections(range, readings), ["2:range:Suspect", "3:range:Suspect", "5:range:Suspect"]);
}

#[test]
fn a_rate_counts_from_the_reading_before_in_both_directions_of_time() {
    let rate = |table: &mut QualityPlan| table.max_rate = Some(Switch::On(0.5));
    // +1 in 2 s is as fast as allowed; the return from a jump is a jump; at one time nothing is said; 9 s back, 5 away.
    let points = [(0, 10.0), (2, 11.0), (4, 20.0), (6, 11.0), (6, 99.0), (8, 11.0), (18, 16.0), (9, 11.0), (10, 12.0)];
    assert_eq!(
        objections(rate, floats(&points)),
        ["2:max_rate:Suspect", "3:max_rate:Suspect", "5:max_rate:Suspect", "7:max_rate:Suspect", "8:max_rate:Suspect"]
    );
}

#[test]
fn a_value_is_stuck_once_it_stood_for_the_span() {
    let stuck = |table: &mut QualityPlan| table.stuck_after = Some(Switch::On(Duration::from_secs(10)));
    let points = [(0, 1.0), (9, 1.0), (10, 1.0), (11, 1.0), (12, 2.0), (21, 2.0), (30, 1.0), (20, 1.0)];
    assert_eq!(objections(stuck, floats(&points)), ["2:stuck_after:Suspect", "3:stuck_after:Suspect"]);
    let texts =
        [(0, "run"), (5, "run"), (15, "run"), (16, "stop")].map(|(time, text)| (time, Value::Text(text.into())));
    assert_eq!(objections(stuck, texts.into()), ["2:stuck_after:Suspect"]);
}

#[test]
fn a_spike_is_far_from_the_median_of_those_before() {
    let spike = |table: &mut QualityPlan| table.spike = Some(Switch::On(5.0));
    // The median of 0..11 is 5 and their median absolute deviation 3: the bound is 5 ± 22.239.
    let ramp: Vec<f64> = (0..SPIKE_READINGS).map(|n| n as f64).collect();
    let with = |last: f64| each_second(&[&ramp[..], &[last]].concat());
    assert_eq!(objections(spike, with(27.3)), ["11:spike:Suspect"]);
    assert_eq!(objections(spike, with(27.2)), [""; 0]);
    assert_eq!(objections(spike, with(-17.3)), ["11:spike:Suspect"]);
    // Before there are eleven nothing is said.
    assert_eq!(objections(spike, each_second(&[&ramp[1..], &[1e6]].concat())), [""; 0]);
    // Of equal numbers the deviation is 0: a least distance alone says what is far.
    let flat = || each_second(&[&[230.0; SPIKE_READINGS][..], &[230.4, 230.6]].concat());
    assert_eq!(objections(spike, flat()), [""; 0]);
    let with_least = |table: &mut QualityPlan| (table.spike, table.spike_min) = (Some(Switch::On(5.0)), Some(0.5));
    assert_eq!(objections(with_least, flat()), ["12:spike:Suspect"]);
}

#[test]
fn a_step_is_a_spike_until_it_is_the_median() {
    let spike = |table: &mut QualityPlan| (table.spike, table.spike_min) = (Some(Switch::On(5.0)), Some(0.5));
    let half = SPIKE_READINGS / 2 + 1;
    let values = [[1.0; SPIKE_READINGS], [9.0; SPIKE_READINGS]].concat();
    let expected: Vec<String> = (SPIKE_READINGS..SPIKE_READINGS + half).map(|i| format!("{i}:spike:Suspect")).collect();
    assert_eq!(objections(spike, each_second(&values)), expected);
}

#[test]
fn time_that_goes_back_and_time_that_came_before_are_told_apart() {
    let both = |table: &mut QualityPlan| (table.backwards, table.duplicate) = (Some(true), Some(true));
    let points = [(5, 1.0), (5, 2.0), (4, 1.0), (6, 1.0), (4, 1.0)];
    assert_eq!(
        objections(both, floats(&points)),
        ["1:duplicate:Suspect", "2:backwards:Suspect", "4:duplicate:Suspect"]
    );
    // So many times are remembered.
    let mut times: Vec<(i64, Value)> = (0..=DUPLICATE_TIMES as i64).map(|time| (time, Value::Bool(true))).collect();
    times.extend([(0, Value::Bool(true)), (2, Value::Bool(true))]);
    let duplicate = |table: &mut QualityPlan| table.duplicate = Some(true);
    assert_eq!(objections(duplicate, times), [format!("{}:duplicate:Suspect", DUPLICATE_TIMES + 2)]);
}

#[test]
fn a_type_is_named_or_that_of_the_first_reading() {
    let values = || {
        [Value::Int(1), Value::Bool(true), Value::Float(0.5), Value::Text("x".into())].map(|value| (1, value)).into()
    };
    let typed = |value_type| move |table: &mut QualityPlan| table.value_type = Some(Switch::On(value_type));
    assert_eq!(objections(typed(ValueType::Same), values()), ["1:type:Suspect", "3:type:Suspect"]);
    assert_eq!(objections(typed(ValueType::Number), values()), ["1:type:Suspect", "3:type:Suspect"]);
    assert_eq!(objections(typed(ValueType::Bool), values()), ["0:type:Suspect", "2:type:Suspect", "3:type:Suspect"]);
}

#[test]
fn a_unit_is_what_the_source_says_now() {
    let planned = || Planned::new(0).raw("raw", "#").quality("#", |table| table.unit = Some(Switch::On("V".into())));
    // The series of these tests are declared in Cel.
    let mut engine = planned().engine(&["a/x"]);
    assert_eq!(raw(&give(&mut engine, 1, Value::Int(1)))[0].check, Some(Check::Unit));
    for (unit, check) in [(Some("V"), None), (None, None), (Some("mV"), Some(Check::Unit))] {
        let info = SeriesInfo { name: "a/x".into(), unit: unit.map(Into::into) };
        handle(&mut engine, &Event::Series(Declared { input: InputId(0), source: "".into(), info }));
        engine = Engine::restore(engine.plan().clone(), &engine.snapshot()).unwrap();
        assert_eq!(raw(&give(&mut engine, 2, Value::Int(1)))[0].check, check, "{unit:?}");
    }
}

#[test]
fn marks_say_where_a_reading_goes() {
    let expected = [
        (Mark::Suspect, "raw a/x 1=300|w a/x 0..10 r0: 1 300 300 300 300 300 300"),
        (Mark::Bad, "raw a/x 1=300"),
        (Mark::Quarantine, "quarantine a/x 1=300"),
        (Mark::Drop, ""),
    ];
    for (mark, expected) in expected {
        let planned =
            Planned::new(0).raw("raw", "#").window("w", "#", 10, 0).rule("high", &[("x", "a/x")], "x > 500", None, "");
        let mut engine = planned
            .quality("#", |table| {
                table.range = Some(Switch::On([0.0, 260.0]));
                table.marks[Check::Range.place()] = Some(mark);
            })
            .engine(&["a/x"]);
        let mut out = give(&mut engine, 1, Value::Float(300.0));
        // It moves the watermark whatever becomes of it.
        assert_eq!(engine.input_times()[0].watermark, Some(seconds(1)), "{mark:?}");
        out.extend(give(&mut engine, 10, Value::Float(200.0)));
        let shown: Vec<String> = shown(&engine, &out).into_iter().filter(|line| !line.contains("10=200")).collect();
        assert_eq!(shown.join("|"), expected, "{mark:?}");
        let account = &engine.ledger().inputs[0];
        assert_eq!(account.taken, 2);
        assert_eq!(account.dropped.get("range").copied().unwrap_or_default(), u64::from(mark == Mark::Drop));
        assert_eq!(
            (account.bad, account.quarantined),
            (u64::from(mark == Mark::Bad), u64::from(mark == Mark::Quarantine))
        );
        assert_eq!(engine.quality_counts().checks, [(Check::Range, 1)].into());
        assert_eq!(engine.quality_counts().series, [((SeriesId(0), Check::Range), 1)].into());
    }
}

#[test]
fn the_worst_mark_wins_and_ends_the_checks() {
    let set = |table: &mut QualityPlan| {
        (table.duplicate, table.range) = (Some(true), Some(Switch::On([0.0, 100.0])));
        (table.max_rate, table.marks[Check::Range.place()]) = (Some(Switch::On(1.0)), Some(Mark::Bad));
    };
    // The duplicate is suspect, but out of range it is bad; what is bad is no measure for the rate of the next.
    let points = [(1, 10.0), (1, 900.0), (2, 10.5), (3, 50.0)];
    assert_eq!(objections(set, floats(&points)), ["1:range:Bad", "3:max_rate:Suspect"]);
}

#[test]
fn what_the_source_says_stands() {
    let planned = Planned::new(0).raw("raw", "#").quality("#", |table| {
        table.range = Some(Switch::On([0.0, 10.0]));
        table.stuck_after = Some(Switch::On(Duration::ZERO));
        table.marks[Check::Range.place()] = Some(Mark::Bad);
    });
    let mut engine = planned.engine(&["a/x"]);
    let mut found = Vec::new();
    for (quality, value) in [(Quality::Bad, 99.0), (Quality::Suspect, 5.0), (Quality::Suspect, 99.0)] {
        let said = Reading { quality, check: Some(Check::Source), ..reading(0, seconds(1), Value::Float(value)) };
        let out = raw(&handle(&mut engine, &batch(seconds(1), vec![said])));
        found.push((out[0].quality, out[0].check.map(Check::name)));
    }
    let source = Some("source");
    assert_eq!(found, [(Quality::Bad, source), (Quality::Suspect, source), (Quality::Bad, Some("range"))]);
    assert_eq!(engine.quality_counts().checks.get(&Check::Source), Some(&3));
}

#[test]
fn what_is_not_finite_is_bad_unless_it_goes() {
    let mut engine = Planned::new(0).raw("raw", "#").engine(&["a/x"]);
    assert_eq!(raw(&give(&mut engine, 1, Value::Float(f64::NAN)))[0].check, Some(Check::NotFinite));
    let dropping = |table: &mut QualityPlan| table.marks[Check::NotFinite.place()] = Some(Mark::Drop);
    let mut engine = Planned::new(0).raw("raw", "#").quality("#", dropping).engine(&["a/x"]);
    assert!(give(&mut engine, 1, Value::Float(f64::INFINITY)).is_empty());
    assert_eq!(engine.ledger().inputs[0].dropped.get("not_finite"), Some(&1));
}

#[test]
fn a_reload_keeps_what_unchanged_checks_remember() {
    let planned = |range: f64, is_spiky: bool| {
        Planned::new(0).raw("raw", "#").quality("a/#", move |table| {
            table.duplicate = Some(true);
            table.range = Some(Switch::On([0.0, range]));
            table.spike = is_spiky.then_some(Switch::On(5.0));
        })
    };
    let mut engine = planned(10.0, true).engine(&["a/x"]);
    give(&mut engine, 1, Value::Float(5.0));
    let mut reloaded = Engine::restore(engine.plan().clone(), &engine.snapshot()).unwrap();
    reloaded.reload(seconds(2), planned(4.0, false).done(), &mut Vec::new());
    assert_eq!(raw(&give(&mut reloaded, 1, Value::Float(3.0)))[0].check, Some(Check::Duplicate));
    assert_eq!(raw(&give(&mut reloaded, 2, Value::Float(5.0)))[0].check, Some(Check::Range));
    assert_eq!(reloaded.quality_counts().checks, [(Check::Duplicate, 1), (Check::Range, 1)].into());
    // Without any check nothing is remembered, and counts stay.
    reloaded.reload(seconds(4), Planned::new(0).raw("raw", "#").done(), &mut Vec::new());
    assert_eq!(raw(&give(&mut reloaded, 1, Value::Float(3.0)))[0].check, None);
    assert_eq!(reloaded.quality_counts().checks.len(), 2);
}

/// The median by sorting, of any list.
fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

proptest! {
    /// The checks of numbers beside their formulas over the whole history.
    #[test]
    fn checks_of_numbers_are_their_formulas(steps in prop::collection::vec((1..5i64, -20..20i32), 1..60)) {
        let mut time = 0;
        let readings: Vec<(i64, f64)> = steps.iter().map(|(step, value)| { time += step; (time, f64::from(*value)) }).collect();
        let set = |table: &mut QualityPlan| {
            (table.spike, table.spike_min) = (Some(Switch::On(1.5)), Some(3.0));
            (table.max_rate, table.stuck_after) = (Some(Switch::On(6.0)), Some(Switch::On(Duration::from_secs(6))));
        };
        let mut expected = Vec::new();
        for (i, &(time, value)) in readings.iter().enumerate() {
            let rate = i > 0 && (value - readings[i - 1].1).abs() > 6.0 * (time - readings[i - 1].0) as f64;
            let spike = i >= SPIKE_READINGS && {
                let before: Vec<f64> = readings[i - SPIKE_READINGS..i].iter().map(|(_, value)| *value).collect();
                let middle = median(before.clone());
                let deviation = median(before.iter().map(|value| (value - middle).abs()).collect());
                (value - middle).abs() > f64::max(1.5 * 1.482602218505602 * deviation, 3.0)
            };
            let since = readings[..=i].iter().rev().take_while(|(_, same)| *same == value).last().unwrap().0;
            let stuck = time - since >= 6;
            let check = [(rate, "max_rate"), (spike, "spike"), (stuck, "stuck_after")].into_iter().find(|(is, _)| *is);
            expected.extend(check.map(|(_, name)| format!("{i}:{name}:Suspect")));
        }
        prop_assert_eq!(objections(set, floats(&readings)), expected);
    }
}
