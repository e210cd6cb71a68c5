//! Rules.

use rtlive_core::engine::Engine;
use rtlive_core::event::Event;
use rtlive_core::reading::Value;

use crate::plan::{Planned, batch, declared, handle, reading, seconds, shown, take, wait};

fn overheat() -> Planned {
    let bindings = [("t", "a/boiler/temperature"), ("pump", "a/boiler/pump")];
    let message = "boiler at {t} °C and the pump stands";
    Planned::new(0).rule("overheat", &bindings, "t > 90 and not pump", Some("t < 85"), message)
}

fn poll(engine: &mut Engine, time: i64, temperature: f64, pump: bool) -> Vec<String> {
    let readings =
        vec![reading(0, seconds(time), Value::Float(temperature)), reading(1, seconds(time), Value::Bool(pump))];
    let out = handle(engine, &batch(seconds(time), readings));
    shown(engine, &out)
}

#[test]
fn raises_and_clears_with_hysteresis() {
    let mut engine = overheat().engine(&["a/boiler/temperature", "a/boiler/pump"]);
    assert!(poll(&mut engine, 1, 89.0, false).is_empty());
    let raised = ["overheat  Raised at 2: boiler at 91.2 °C and the pump stands (t=91.2 pump=false)"];
    assert_eq!(poll(&mut engine, 2, 91.2, false), raised);
    assert_eq!(&*engine.alerts_raised()[0].rule, "overheat");
    assert!(poll(&mut engine, 3, 92.0, false).is_empty());
    assert!(poll(&mut engine, 4, 86.0, true).is_empty());
    let cleared = ["overheat  Cleared at 5: boiler at 84 °C and the pump stands (t=84 pump=true)"];
    assert_eq!(poll(&mut engine, 5, 84.0, true), cleared);
    assert!(engine.alerts_raised().is_empty());
}

#[test]
fn the_values_of_one_poll_count_at_once() {
    let mut engine = overheat().engine(&["a/boiler/temperature", "a/boiler/pump"]);
    assert!(poll(&mut engine, 1, 80.0, false).is_empty());
    // The temperature alone would have raised.
    assert!(poll(&mut engine, 2, 95.0, true).is_empty());
}

#[test]
fn a_burst_is_evaluated_at_each_of_its_times() {
    let mut engine = overheat().engine(&["a/boiler/temperature", "a/boiler/pump"]);
    poll(&mut engine, 1, 80.0, false);
    let out = take(&mut engine, &[(0, 2, 95.0), (0, 3, 80.0), (0, 4, 96.0)]);
    let states: Vec<String> = shown(&engine, &out).iter().map(|line| line[..line.find(':').unwrap()].into()).collect();
    assert_eq!(states, ["overheat  Raised at 2", "overheat  Cleared at 3", "overheat  Raised at 4"]);
}

#[test]
fn what_is_missing_or_bad_or_old_neither_raises_nor_clears() {
    let mut engine = overheat().engine(&["a/boiler/temperature", "a/boiler/pump"]);
    assert!(take(&mut engine, &[(0, 1, 95.0)]).is_empty());
    assert_eq!(poll(&mut engine, 2, 95.0, false).len(), 1);
    assert!(take(&mut engine, &[(0, 3, f64::NAN)]).is_empty());
    assert!(take(&mut engine, &[(0, 2, 80.0)]).is_empty(), "older than the newest");
    assert_eq!(engine.alerts_raised().len(), 1);
    assert_eq!(take(&mut engine, &[(0, 4, 80.0)]).len(), 1);
}

#[test]
fn a_rule_without_clear_ends_when_its_condition_does() {
    let planned = Planned::new(0).rule("hot", &[("t", "a/t")], "t > 90", None, "");
    let mut engine = planned.engine(&["a/t"]);
    let out = take(&mut engine, &[(0, 1, 91.0), (0, 2, 90.0)]);
    let expected = ["hot  Raised at 1: hot: t > 90 (t=91)", "hot  Cleared at 2: hot: t > 90 (t=90)"];
    assert_eq!(shown(&engine, &out), expected);
}

#[test]
fn instances_by_a_filter_with_others_by_their_levels() {
    let bindings = [("u", "a/+/voltage"), ("i", "a/{1}/current")];
    let message = "{1} of {label.site}: {u} V, {i} A in {series} ({nothing}, {9})";
    let planned = Planned::new(0).rule("power", &bindings, "u * i > 1000", None, message);
    // The current of m2 appears after its voltage; m3 has none; m1's appears first.
    let mut engine = planned.engine(&["a/m1/current", "a/m1/voltage", "a/m2/voltage", "a/m2/current", "a/m3/voltage"]);
    let out = take(&mut engine, &[(0, 1, 2.0), (1, 1, 230.0), (2, 1, 230.0), (3, 1, 6.0), (4, 1, 1e6), (0, 2, 5.0)]);
    let expected = [
        "power a/m2/voltage Raised at 1: m2 of plant-7: 230 V, 6 A in a/m2/voltage ({nothing}, {9}) (u=230 i=6)",
        "power a/m1/voltage Raised at 2: m1 of plant-7: 230 V, 5 A in a/m1/voltage ({nothing}, {9}) (u=230 i=5)",
    ];
    assert_eq!(shown(&engine, &out), expected);
}

#[test]
fn prev_and_rate_look_at_the_reading_before_by_time() {
    let planned = Planned::new(0).rule("fast", &[("t", "a/t")], "rate(t) > 1 and t > prev(t)", None, "");
    let mut engine = planned.engine(&["a/t"]);
    assert!(take(&mut engine, &[(0, 0, 0.0)]).is_empty());
    // 0 → 9 in 10 s is slow; once the reading between them has arrived, the next step counts from the newest.
    assert!(take(&mut engine, &[(0, 10, 9.0), (0, 8, 1.0)]).is_empty());
    assert!(take(&mut engine, &[(0, 12, 10.0)]).is_empty());
    assert_eq!(take(&mut engine, &[(0, 13, 12.0)]).len(), 1);
}

#[test]
fn a_rule_over_a_series_that_never_comes_is_silent() {
    let mut engine = overheat().engine(&["a/boiler/temperature"]);
    assert!(take(&mut engine, &[(0, 1, 99.0)]).is_empty());
    let event: Event = declared(&engine, "a/boiler/pump");
    handle(&mut engine, &event);
    assert_eq!(poll(&mut engine, 2, 99.0, false).len(), 1);
}

fn hot_for_five(repeat: u64) -> Engine {
    Planned::new(0).rule("hot", &[("t", "a/t")], "t > 90", Some("t < 80"), "{t}").with(5, repeat).engine(&["a/t"])
}

/// What was said, without the values.
fn said(engine: &Engine, out: &[rtlive_core::record::Emitted]) -> Vec<String> {
    shown(engine, out).iter().map(|line| line[..line.find(" (").unwrap()].to_owned()).collect()
}

#[test]
fn a_condition_that_must_hold_raises_by_the_times_of_its_readings() {
    let mut engine = hot_for_five(0);
    assert!(take(&mut engine, &[(0, 100, 95.0), (0, 104, 96.0)]).is_empty());
    let out = take(&mut engine, &[(0, 105, 97.0)]);
    assert_eq!(said(&engine, &out), ["hot  Raised at 105: 97"]);
    // It was over for a moment: the span begins anew.
    let mut engine = hot_for_five(0);
    assert!(take(&mut engine, &[(0, 100, 95.0), (0, 103, 90.0), (0, 104, 96.0), (0, 108, 96.0)]).is_empty());
    // A value that is missing says neither.
    let out = take(&mut engine, &[(0, 109, f64::NAN), (0, 110, 96.0)]);
    assert_eq!(said(&engine, &out), ["hot  Raised at 110: 96"]);
}

#[test]
fn a_condition_that_must_hold_raises_by_the_wall_clock_where_no_reading_comes() {
    let mut engine = hot_for_five(0);
    // The readings are three seconds old when they arrive; the clock counts from their arrival.
    let late = |time| batch(seconds(time + 3), vec![reading(0, seconds(time), Value::Float(95.0))]);
    handle(&mut engine, &late(100));
    handle(&mut engine, &late(101));
    assert_eq!(engine.wake_at(), Some(seconds(108)));
    assert!(wait(&mut engine, 107).is_empty());
    let out = wait(&mut engine, 200);
    assert_eq!(said(&engine, &out), ["hot  Raised at 105: 95"]);
    // Over before its time: nothing is left to wake for.
    let mut engine = hot_for_five(0);
    take(&mut engine, &[(0, 100, 95.0)]);
    take(&mut engine, &[(0, 101, 85.0)]);
    assert_eq!(engine.wake_at(), None);
    // Missing when its time comes: the next reading decides.
    take(&mut engine, &[(0, 110, 95.0)]);
    take(&mut engine, &[(0, 111, f64::NAN)]);
    assert!(wait(&mut engine, 200).is_empty());
    let out = take(&mut engine, &[(0, 201, 95.0)]);
    assert_eq!(said(&engine, &out), ["hot  Raised at 201: 95"]);
}

#[test]
fn an_alert_that_stays_raised_is_repeated_at_most_once_in_its_span() {
    let mut engine = hot_for_five(60);
    take(&mut engine, &[(0, 100, 95.0)]);
    assert_eq!(wait(&mut engine, 105).len(), 1);
    for time in 106..165 {
        assert!(take(&mut engine, &[(0, time, 99.0)]).is_empty());
    }
    let out = wait(&mut engine, 164);
    assert!(out.is_empty());
    let out = wait(&mut engine, 165);
    assert_eq!(said(&engine, &out), ["hot  Repeated at 165: 99"]);
    // Nobody woke it for an hour: once, not sixty times.
    let mut out = Vec::new();
    engine.handle(seconds(3_765), &Event::Tick, &mut out);
    assert_eq!(said(&engine, &out), ["hot  Repeated at 3765: 99"]);
    let out = take(&mut engine, &[(0, 3_766, 70.0)]);
    assert_eq!(said(&engine, &out), ["hot  Cleared at 3766: 70"]);
    assert_eq!(engine.wake_at(), None);
}

#[test]
fn a_series_that_falls_silent_is_missed_until_it_speaks() {
    let mut engine = Planned::new(0).absent("silent", &["a/+/u", "a/never"], 30).engine(&[]);
    let declare = |engine: &mut Engine, at, name: &str| {
        let event = declared(engine, name);
        engine.handle(seconds(at), &event, &mut Vec::new());
    };
    declare(&mut engine, 100, "a/m1/u");
    declare(&mut engine, 110, "a/m2/u");
    declare(&mut engine, 110, "a/m2/w");
    take(&mut engine, &[(1, 120, 1.0)]);
    // Old, and bad: it speaks all the same.
    handle(&mut engine, &batch(seconds(125), vec![reading(1, seconds(50), Value::Float(f64::NAN))]));
    let out = wait(&mut engine, 155);
    let expected = [
        "silent a/never Raised at 130: a/never is silent",
        "silent a/m1/u Raised at 130: a/m1/u is silent",
        "silent a/m2/u Raised at 155: a/m2/u is silent",
    ];
    assert_eq!(said(&engine, &out), expected);
    let out = take(&mut engine, &[(0, 160, 1.0), (1, 161, 1.0)]);
    let expected = ["silent a/m1/u Cleared at 160: a/m1/u is silent", "silent a/m2/u Cleared at 161: a/m2/u is silent"];
    assert_eq!(said(&engine, &out), expected);
    assert_eq!(engine.wake_at(), Some(seconds(191)));
}

#[test]
fn what_comes_due_at_one_tick_is_told_in_the_order_in_which_it_did() {
    // The first was put off by a reading, so that the second is due before it; a restart in between changes nothing.
    for is_restarted in [false, true] {
        let mut engine = Planned::new(0).absent("silent", &["a/u", "a/v"], 30).engine(&["a/u", "a/v"]);
        take(&mut engine, &[(0, 100, 1.0)]);
        take(&mut engine, &[(1, 105, 1.0)]);
        take(&mut engine, &[(0, 110, 1.0)]);
        if is_restarted {
            engine = Engine::restore(engine.plan().clone(), &engine.snapshot()).unwrap();
        }
        let mut out = Vec::new();
        engine.handle(seconds(150), &Event::Tick, &mut out);
        let expected = ["silent a/v Raised at 135: a/v is silent", "silent a/u Raised at 140: a/u is silent"];
        assert_eq!(said(&engine, &out), expected);
    }
}

#[test]
fn a_process_that_was_away_misses_nothing_for_it() {
    let planned = || Planned::new(0).absent("silent", &["a/u", "a/v"], 30);
    let mut engine = planned().engine(&["a/u", "a/v"]);
    take(&mut engine, &[(0, 100, 1.0)]);
    take(&mut engine, &[(1, 110, 1.0)]);
    assert_eq!(wait(&mut engine, 130).len(), 1);
    let mut engine = Engine::restore(engine.plan().clone(), &engine.snapshot()).unwrap();
    let mut out = Vec::new();
    engine.handle(seconds(1_000), &Event::Start, &mut out);
    assert!(out.is_empty() && wait(&mut engine, 1_029).is_empty());
    let out = wait(&mut engine, 1_030);
    assert_eq!(said(&engine, &out), ["silent a/v Raised at 1030: a/v is silent"]);
    assert_eq!(take(&mut engine, &[(0, 1_031, 1.0)]).len(), 1, "what was raised before is cleared by its reading");
}
