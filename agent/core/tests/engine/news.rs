//! Report by exception: which readings a stream leaves out.

use proptest::prelude::*;
use rtlive_core::engine::Engine;
use rtlive_core::plan::Deadband;
use rtlive_core::reading::{Check, Quality, Reading, Value};

use crate::plan::{Planned, batch, handle, reading, seconds, shown, take};

fn engine(deadband: Deadband, heartbeat: u64) -> Engine {
    Planned::new(0).news("news", "a/#", deadband, heartbeat).engine(&["a/x", "a/y"])
}

/// The values that went along.
fn news(deadband: Deadband, heartbeat: u64, readings: &[(i64, f64)]) -> Vec<f64> {
    let mut engine = engine(deadband, heartbeat);
    let mut values = Vec::new();
    for &(time, value) in readings {
        if !take(&mut engine, &[(0, time, value)]).is_empty() {
            values.push(value);
        }
    }
    let account = &engine.ledger().reports[0];
    assert_eq!((account.selected, account.reported), (readings.len() as u64, values.len() as u64));
    values
}

#[test]
fn a_deadband_counts_from_what_went_along_last() {
    // It creeps: 1.0, then by small steps out of the band.
    let creeping: Vec<(i64, f64)> = (0..8).map(|n| (n, 1.0 + n as f64 * 0.25)).collect();
    assert_eq!(news(Deadband::Absolute(0.5), 0, &creeping), [1.0, 1.75, 2.5]);
    let decades =
        [(0, 100.0), (1, 101.0), (2, 101.1), (3, 0.0), (4, 0.0), (5, 0.001), (6, -100.0), (7, -99.0), (8, -98.9)];
    assert_eq!(news(Deadband::Relative(0.01), 0, &decades), [100.0, 101.1, 0.0, 0.001, -100.0, -98.9]);
}

#[test]
fn only_another_value_is_a_change() {
    assert_eq!(news(Deadband::Any, 0, &[(0, 1.0), (1, 1.0), (2, 1.5), (3, 1.5), (4, 1.0)]), [1.0, 1.5, 1.0]);
    let mut engine = engine(Deadband::Absolute(5.0), 0);
    let values =
        [Value::Text("a".into()), Value::Text("a".into()), Value::Text("b".into()), Value::Int(1), Value::Int(6)];
    let readings = (0..).zip(values).map(|(time, value)| reading(0, seconds(time), value)).collect();
    let out = handle(&mut engine, &batch(seconds(9), readings));
    assert_eq!(shown(&engine, &out), ["news a/x 0=a", "news a/x 2=b", "news a/x 3=1"]);
}

#[test]
fn a_heartbeat_is_the_first_reading_after_it() {
    let steady = [(0, 1.0), (5, 1.0), (9, 1.0), (10, 1.0), (11, 1.0), (31, 1.0), (25, 1.0)];
    assert_eq!(news(Deadband::Any, 10, &steady).len(), 3);
    // A clock that is set back a year silences nothing for a year.
    let set_back = [(31_557_600, 1.0), (1, 1.0), (10, 1.0), (11, 1.0)];
    assert_eq!(news(Deadband::Any, 10, &set_back).len(), 3);
    // No record comes by time alone.
    let mut engine = engine(Deadband::Any, 10);
    take(&mut engine, &[(0, 0, 1.0)]);
    assert_eq!(engine.wake_at(), None);
}

#[test]
fn another_quality_always_goes_along() {
    let mut engine = engine(Deadband::Any, 0);
    let marked = |time, quality, check| Reading { quality, check, ..reading(0, seconds(time), Value::Int(1)) };
    let readings = vec![
        marked(0, Quality::Good, None),
        marked(1, Quality::Suspect, Some(Check::Range)),
        marked(2, Quality::Suspect, Some(Check::Range)),
        marked(3, Quality::Suspect, Some(Check::Spike)),
        marked(4, Quality::Bad, Some(Check::Spike)),
        marked(5, Quality::Good, None),
        marked(6, Quality::Good, None),
    ];
    let out = handle(&mut engine, &batch(seconds(9), readings));
    let times = ["0=1", "1=1", "3=1", "4=1", "5=1"].map(|time| format!("news a/x {time}"));
    assert_eq!(shown(&engine, &out), times);
}

#[test]
fn windows_and_other_streams_see_everything() {
    let planned = Planned::new(0).news("news", "a/#", Deadband::Any, 0).raw("raw", "#").window("w", "#", 10, 0);
    let mut engine = planned.engine(&["a/x"]);
    let out = take(&mut engine, &[(0, 1, 1.0), (0, 2, 1.0), (0, 10, 1.0)]);
    let expected = ["news a/x 1=1", "raw a/x 1=1", "raw a/x 2=1", "raw a/x 10=1", "w a/x 0..10 r0: 2 2 1 1 1 1 1"];
    assert_eq!(shown(&engine, &out), expected);
}

#[test]
fn a_reload_goes_on_where_the_stream_was() {
    let mut engine = engine(Deadband::Any, 0);
    take(&mut engine, &[(0, 1, 1.0), (1, 1, 1.0)]);
    let planned = Planned::new(0).raw("all", "#").news("news", "a/x", Deadband::Absolute(1.0), 0);
    engine.reload(seconds(2), planned.done(), &mut Vec::new());
    let out = take(&mut engine, &[(0, 3, 1.5), (1, 3, 1.5), (0, 4, 2.5)]);
    let expected = ["all a/x 3=1.5", "all a/y 3=1.5", "all a/x 4=2.5", "news a/x 4=2.5"];
    assert_eq!(shown(&engine, &out), expected);
    assert_eq!(engine.ledger().reports[0].selected, 4);
}

proptest! {
    /// At every reading what went along last is as near as the deadband says, and not older than the heartbeat.
    #[test]
    fn who_reads_the_stream_knows_the_value_within_the_deadband(
        steps in prop::collection::vec((0..4i64, -5.0..5.0f64), 1..50), heartbeat in 5..20u64,
    ) {
        let mut engine = engine(Deadband::Absolute(2.0), heartbeat);
        let (mut time, mut known) = (0, None);
        for (step, value) in steps {
            time += step;
            if !take(&mut engine, &[(0, time, value)]).is_empty() {
                known = Some((time, value));
            }
            let (since, was) = known.unwrap();
            prop_assert!((value - was).abs() <= 2.0 && time - since < heartbeat as i64);
        }
    }
}
