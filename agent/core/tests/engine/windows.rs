//! Windows, lateness, idleness, quarantine, quality.

use rtlive_core::engine::Engine;
use rtlive_core::event::{Event, Outage, Rejected};
use rtlive_core::reading::{InputId, Quality, Value};
use rtlive_core::record::{Aggregate, Emitted, Record};
use rtlive_core::time::Timestamp;

use crate::plan::{Planned, batch, declared, handle, reading, seconds, shown, take};

fn ten() -> Planned {
    Planned::new(2).window("ten", "a/#", 10, 10)
}

#[test]
fn ends_at_the_watermark_and_is_revised_until_the_lateness_is_over() {
    let mut engine = ten().engine(&["a/x"]);
    assert!(take(&mut engine, &[(0, 0, 1.0), (0, 9, 3.0), (0, 11, 9.0)]).is_empty());
    let out = take(&mut engine, &[(0, 12, 9.0)]);
    assert_eq!(shown(&engine, &out), ["ten a/x 0..10 r0: 2 4 2 1 3 1 3"]);
    // Two late readings in one batch make one revision; the start belongs to the window, the end to the next.
    let out = take(&mut engine, &[(0, 5, 5.0), (0, 0, 0.0), (0, 10, 7.0)]);
    assert_eq!(shown(&engine, &out), ["ten a/x 0..10 r1: 4 9 2.25 0 5 0 3"]);
    assert!(take(&mut engine, &[(0, 21, 1.0)]).is_empty());
    let out = take(&mut engine, &[(0, 8, 5.0)]);
    assert_eq!(shown(&engine, &out), ["ten a/x 0..10 r2: 5 14 2.8 0 5 0 3"]);
    // The watermark reaches 20: the window has closed, the next one ends.
    let out = take(&mut engine, &[(0, 22, 1.0)]);
    assert_eq!(shown(&engine, &out), ["ten a/x 10..20 r0: 3 25 8.333333333333334 7 9 7 9"]);
    let out = take(&mut engine, &[(0, 8, 5.0)]);
    assert_eq!(shown(&engine, &out), ["late a/x 8=5"]);
    let account = &engine.ledger().windows[0];
    assert_eq!((account.selected, account.open, account.finished, account.late), (11, 2, 8, 1));
    assert_eq!((account.revising, engine.ledger().inputs[0].late), (3, 1));
}

#[test]
fn a_burst_that_passes_several_windows_emits_them_by_end_stream_and_series() {
    let planned = Planned::new(0).window("five", "a/#", 5, 0).window("ten", "a/#", 10, 0);
    let mut engine = planned.engine(&["a/x", "a/y"]);
    let out = take(&mut engine, &[(1, 1, 1.0), (0, 1, 2.0), (0, 6, 3.0), (1, 3, 4.0), (0, 20, 0.0)]);
    let ends: Vec<String> =
        shown(&engine, &out).iter().map(|line| line.split(':').next().unwrap().to_owned()).collect();
    let expected = [
        "late a/y 3=4",
        "five a/x 0..5 r0",
        "five a/y 0..5 r0",
        "five a/x 5..10 r0",
        "ten a/x 0..10 r0",
        "ten a/y 0..10 r0",
    ];
    assert_eq!(ends, expected);
}

#[test]
fn a_reading_late_for_one_of_two_windows_goes_to_late_once_and_into_the_other() {
    let planned = Planned::new(0).window("five", "a/#", 5, 0).window("sixty", "a/#", 60, 0).window("six", "a/#", 6, 0);
    let mut engine = planned.engine(&["a/x"]);
    take(&mut engine, &[(0, 30, 1.0)]);
    let out = take(&mut engine, &[(0, 1, 2.0)]);
    assert_eq!(shown(&engine, &out), ["late a/x 1=2"]);
    let windows = &engine.ledger().windows;
    assert_eq!(windows.iter().map(|account| account.late).collect::<Vec<_>>(), [1, 0, 1]);
    assert_eq!(engine.ledger().inputs[0].late, 1);
}

#[test]
fn each_source_has_its_own_watermark() {
    let mut engine = ten().engine(&["a/dev1/x", "a/dev2/x", "a/dev1/y"]);
    take(&mut engine, &[(0, 5, 1.0), (1, 5, 1.0), (2, 5, 1.0)]);
    let out = take(&mut engine, &[(0, 3600, 1.0)]);
    assert_eq!(shown(&engine, &out), ["ten a/dev1/x 0..10 r0: 1 1 1 1 1 1 1", "ten a/dev1/y 0..10 r0: 1 1 1 1 1 1 1"]);
    // The other device sends its buffer an hour later, and none of it is late.
    let out = take(&mut engine, &[(1, 6, 2.0), (1, 12, 2.0)]);
    assert_eq!(shown(&engine, &out), ["ten a/dev2/x 0..10 r0: 2 3 1.5 1 2 1 2"]);
    assert_eq!(engine.input_times()[0].watermark, Some(seconds(10)));
    assert_eq!(engine.input_times()[0].newest, Some(seconds(3600)));
}

#[test]
fn silence_emits_early_once_and_finalises_nothing() {
    let mut engine = ten().engine(&["a/x"]);
    assert_eq!(engine.wake_at(), None);
    take(&mut engine, &[(0, 3, 1.0), (0, 4, 2.0)]);
    assert_eq!(engine.wake_at(), Some(seconds(14)));
    let mut out = Vec::new();
    engine.handle(seconds(13), &Event::Tick, &mut out);
    assert!(out.is_empty());
    engine.handle(seconds(14), &Event::Tick, &mut out);
    assert_eq!(shown(&engine, &out), ["ten a/x 0..10 r0 early: 2 3 1.5 1 2 1 2"]);
    assert_eq!(engine.wake_at(), None);
    engine.handle(seconds(1_000), &Event::Tick, &mut out);
    assert_eq!(out.len(), 1);
    assert_eq!(engine.ledger().windows[0].open, 2);
    // An hour later the buffer arrives.
    let late = [reading(0, seconds(5), Value::Float(3.0)), reading(0, seconds(12), Value::Float(0.0))];
    let out = handle(&mut engine, &batch(seconds(3600), late.into()));
    assert_eq!(shown(&engine, &out), ["ten a/x 0..10 r1: 3 6 2 1 3 1 3"]);
    assert_eq!(engine.wake_at(), Some(seconds(3610)));
    let mut out = Vec::new();
    engine.handle(seconds(3610), &Event::Tick, &mut out);
    assert_eq!(shown(&engine, &out), ["ten a/x 10..20 r0 early: 1 0 0 0 0 0 0"]);
    assert_eq!(engine.ledger().check(), None);
}

#[test]
fn what_is_too_far_ahead_goes_to_quarantine_and_moves_nothing() {
    let mut engine = ten().raw("raw", "#").engine(&["a/x"]);
    take(&mut engine, &[(0, 1, 1.0)]);
    let ahead = vec![reading(0, seconds(303), Value::Float(1.0)), reading(0, seconds(302), Value::Float(2.0))];
    let out = handle(&mut engine, &batch(seconds(2), ahead));
    let expected = ["quarantine a/x 303=1", "raw a/x 302=2", "ten a/x 0..10 r0: 1 1 1 1 1 1 1"];
    assert_eq!(shown(&engine, &out), expected);
    let account = &engine.ledger().inputs[0];
    assert_eq!((account.taken, account.accepted, account.quarantined), (3, 3, 1));
}

#[test]
fn what_is_not_finite_is_bad_and_stays_raw() {
    let mut engine = ten().raw("raw", "#").engine(&["a/x"]);
    take(&mut engine, &[(0, 1, 1.0)]);
    let mut marked = reading(0, seconds(3), Value::Float(5.0));
    marked.quality = Quality::Bad;
    let mut suspect = reading(0, seconds(4), Value::Float(3.0));
    suspect.quality = Quality::Suspect;
    let nan = reading(0, seconds(12), Value::Float(f64::NAN));
    let out = handle(&mut engine, &batch(seconds(12), vec![marked, suspect, nan]));
    let expected = ["raw a/x 3=5", "raw a/x 4=3", "raw a/x 12=NaN", "ten a/x 0..10 r0: 2 4 2 1 3 1 3"];
    assert_eq!(shown(&engine, &out), expected);
    assert!(format!("{:?}", out[2]).contains("quality: Bad, check: Some(NotFinite)"));
    assert_eq!(engine.ledger().inputs[0].bad, 2);
}

#[test]
fn nothing_is_dropped_without_a_word_of_the_ledger() {
    let planned = ten().input("b", 0);
    let mut engine = planned.engine(&["a/x", "b/x"]);
    let (a, b) = (reading(0, seconds(1), Value::Int(1)), reading(1, seconds(1), Value::Int(1)));
    let unknown = reading(7, seconds(1), Value::Int(1));
    let Event::Batch(mut event) = batch(seconds(1), vec![a, b, unknown]) else { unreachable!() };
    event.rejected.push(Rejected { reason: "checksum".into(), count: 3 });
    handle(&mut engine, &Event::Batch(event));
    let account = &engine.ledger().inputs[0];
    assert_eq!((account.taken, account.accepted), (6, 1));
    let dropped: Vec<_> = account.dropped.iter().map(|(reason, count)| (&**reason, *count)).collect();
    assert_eq!(dropped, [("checksum", 3), ("unknown_series", 2)]);
}

#[test]
fn the_end_of_the_input_closes_everything() {
    let mut engine = ten().engine(&["a/x"]);
    take(&mut engine, &[(0, 1, 1.0), (0, 12, 2.0), (0, 25, 3.0)]);
    let mut out = Vec::new();
    engine.close(seconds(25), &mut out);
    assert_eq!(shown(&engine, &out), ["ten a/x 20..30 r0: 1 3 3 3 3 3 3"]);
    assert_eq!((engine.windows_open(), engine.wake_at()), (0, None));
    assert_eq!(engine.ledger().check(), None);
    let out = take(&mut engine, &[(0, 26, 1.0)]);
    assert_eq!(shown(&engine, &out), ["late a/x 26=1"]);
}

#[test]
fn the_ends_of_time_are_windows_too() {
    let mut engine = Planned::new(0).window("week", "a/#", 604_800, 1).engine(&["a/x"]);
    let at = |time| vec![reading(0, time, Value::Int(1))];
    for time in [Timestamp::MIN, Timestamp::from_nanos(-1), Timestamp::EPOCH, Timestamp::MAX] {
        handle(&mut engine, &batch(time, at(time)));
    }
    handle(&mut engine, &batch(Timestamp::MAX, at(Timestamp::MIN)));
    let mut out = Vec::new();
    engine.close(Timestamp::MAX, &mut out);
    assert_eq!(engine.ledger().check(), None);
}

#[test]
fn outages_are_told() {
    let mut engine = ten().engine(&["a/x"]);
    let (start, reason) = (Some(seconds(1)), "restart".into());
    let out =
        handle(&mut engine, &Event::Outage(Outage { input: InputId(0), start, end: seconds(2), count: None, reason }));
    assert!(shown(&engine, &out)[0].starts_with("gaps Outage(OutageRecord { input: \"a\""));
}

#[test]
fn a_series_that_is_declared_again_keeps_its_number_and_its_windows() {
    let mut engine = ten().engine(&["a/x"]);
    take(&mut engine, &[(0, 1, 1.0)]);
    let again = declared(&engine, "a/x");
    handle(&mut engine, &again);
    assert_eq!((engine.series().len(), engine.windows_open()), (1, 1));
    // From another source this time: its watermark begins anew, its open window goes along.
    let Event::Series(mut moved) = again else { unreachable!() };
    moved.source = "dev2".into();
    handle(&mut engine, &Event::Series(moved));
    let out = take(&mut engine, &[(0, 2, 3.0), (0, 12, 0.0)]);
    assert_eq!(shown(&engine, &out), ["ten a/x 0..10 r0: 2 4 2 1 3 1 3"]);
}

/// Windows that share with shorter ones say what they would say alone; sums but for the last bits.
#[test]
fn windows_that_share_say_what_they_say_alone() {
    let functions =
        || ["count", "min", "max", "first", "last", "p95", "p50", "sum", "std"].map(|name| name.parse().unwrap());
    let alone = || Planned::new(3).window("long", "a/x", 60, 15).computing(functions().to_vec());
    let together = alone().window("short", "a/x", 10, 5).computing(functions().to_vec());
    let together = together.window("mid", "a/+", 20, 0).computing(functions().to_vec());
    let (mut alone, mut together) = (alone().engine(&["a/x"]), together.engine(&["a/x"]));
    let mut noise = 7_u64;
    let mut compared = 0;
    for time in 0..4_000 {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let behind = if noise >> 60 == 0 { 20 } else { (noise >> 40) % 4 } as i64;
        let point = (0, time - behind, ((noise >> 33) % 1_000) as f64 / 8.0 - 30.0);
        let (expected, found) = (take(&mut alone, &[point]), take(&mut together, &[point]));
        let of_long = |engine: &Engine, out: Vec<Emitted>| -> Vec<Aggregate> {
            let long = engine.plan().stream_named("long").unwrap();
            out.into_iter()
                .filter(|emitted| emitted.stream == long)
                .filter_map(|emitted| match emitted.record {
                    Record::Aggregate(aggregate) => Some(aggregate),
                    _ => None,
                })
                .collect()
        };
        let (expected, found) = (of_long(&alone, expected), of_long(&together, found));
        assert_eq!(expected.len(), found.len());
        for (expected, found) in expected.iter().zip(&found) {
            assert_eq!(
                (expected.start, expected.revision, expected.is_final),
                (found.start, found.revision, found.is_final)
            );
            assert_eq!(expected.values[..7], found.values[..7], "all but sums");
            for (expected, found) in expected.values[7..].iter().zip(&found.values[7..]) {
                let number = |value: &Option<Value>| value.as_ref().and_then(Value::as_number).unwrap();
                let (expected, found) = (number(expected), number(found));
                assert!((expected - found).abs() <= 1e-12 * expected.abs().max(60.0 * 95.0), "{expected} {found}");
            }
            compared += 1;
        }
        if noise >> 58 == 1 {
            together = Engine::restore(together.plan().clone(), &together.snapshot()).unwrap();
        }
    }
    assert!(compared > 100, "{compared}");
}
