//! Rules.

use rtlive_core::engine::Engine;
use rtlive_core::event::Event;
use rtlive_core::reading::Value;

use crate::plan::{Planned, batch, declared, handle, reading, seconds, shown, take};

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
