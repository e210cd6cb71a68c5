//! Kinds of windows: calendar days, sliding windows, sessions, early results, and what happens at their bounds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rtlive_core::engine::{Engine, SLOT_PANES_MAX};
use rtlive_core::event::Event;
use rtlive_core::plan::{CalendarLength, Function, WindowKind};
use rtlive_core::reading::{Quality, SeriesId, Value};
use rtlive_core::record::{Aggregate, Emitted, Record};
use rtlive_core::time::Timestamp;
use rtlive_core::zone::Zone;

use crate::order::{LATENESS, OUT_OF_ORDER, Point, arrivals, values};
use crate::plan::{Planned, SECOND, batch, handle, reading, seconds, shown, take};
use crate::reference::{rows, shared, time};

fn sliding(every: u64, over: u64) -> WindowKind {
    let (every, over) = (Duration::from_secs(every), Duration::from_secs(over));
    WindowKind::Sliding { every, over, offset: Duration::ZERO }
}

fn session(gap: u64, longest: u64) -> WindowKind {
    WindowKind::Session { gap: Duration::from_secs(gap), longest: Duration::from_secs(longest) }
}

/// One window of a kind that only counts and sums.
fn counting(kind: WindowKind, lateness: u64, emit_every: Option<u64>) -> Planned {
    Planned::new(0).kind("w", "#", kind, lateness, emit_every).computing(vec![Function::Count, Function::Sum])
}

#[test]
fn a_day_has_25_hours_when_the_clock_is_put_back() {
    // Central Europe, 25 October 2026, 01:00 UTC.
    let zone = Zone::new("Europe/Berlin".into(), 7_200, vec![(1_792_890_000, 3_600)]).unwrap();
    let (length, offset) = (CalendarLength::Days(1), Duration::ZERO);
    let mut engine = counting(WindowKind::Calendar { length, offset, zone: Arc::new(zone) }, 0, None).engine(&["a/x"]);
    let first: Timestamp = "2026-10-23T22:00:00Z".parse().unwrap();
    let mut out = Vec::new();
    for hour in 0..24 * 3 + 1 {
        let time = first.saturating_add(Duration::from_secs(hour * 3_600));
        engine.handle(time, &batch(time, vec![reading(0, time, Value::Int(1))]), &mut out);
    }
    engine.close(Timestamp::MAX, &mut out);
    let days: Vec<String> = out
        .iter()
        .filter_map(|one| match &one.record {
            Record::Aggregate(one) => Some(format!("{} {} {:?}", one.start, one.end, one.values[0])),
            _ => None,
        })
        .collect();
    let expected = [
        "2026-10-23T22:00:00Z 2026-10-24T22:00:00Z Some(Int(24))",
        "2026-10-24T22:00:00Z 2026-10-25T23:00:00Z Some(Int(25))",
        "2026-10-25T23:00:00Z 2026-10-26T23:00:00Z Some(Int(24))",
    ];
    assert_eq!(days, expected);
}

#[test]
fn a_late_reading_revises_every_sliding_window_that_it_lies_in() {
    let mut engine = counting(sliding(10, 30), 20, None).engine(&["a/x"]);
    let out = take(&mut engine, &[(0, 5, 1.0), (0, 15, 2.0), (0, 31, 4.0)]);
    let expected = ["w a/x -20..10 r0: 1 1", "w a/x -10..20 r0: 2 3", "w a/x 0..30 r0: 2 3"];
    assert_eq!(shown(&engine, &out), expected);
    // The first of its windows, -20..10, has closed at 30.
    let out = take(&mut engine, &[(0, 6, 8.0)]);
    assert_eq!(shown(&engine, &out), ["late a/x 6=8", "w a/x -10..20 r1: 3 11", "w a/x 0..30 r1: 3 11"]);
    let account = &engine.ledger().windows[0];
    assert_eq!((account.selected, account.late, account.finished, account.open), (12, 1, 7, 4));
}

#[test]
fn a_sliding_window_that_closed_within_a_batch_does_not_hold_what_came_after() {
    let mut engine = counting(sliding(10, 20), 0, None).engine(&["a/x"]);
    let out = take(&mut engine, &[(0, 5, 1.0), (0, 12, 2.0), (0, 7, 4.0)]);
    assert_eq!(shown(&engine, &out), ["late a/x 7=4", "w a/x -10..10 r0: 1 1"]);
    let out = take(&mut engine, &[(0, 20, 0.0)]);
    assert_eq!(shown(&engine, &out), ["w a/x 0..20 r0: 3 7"]);
}

#[test]
fn a_late_reading_joins_two_sessions_and_takes_them_back() {
    let mut engine = counting(session(10, 3_600), 60, None).engine(&["a/x"]);
    let out = take(&mut engine, &[(0, 5, 1.0), (0, 20, 2.0), (0, 22, 4.0), (0, 40, 0.0)]);
    assert_eq!(shown(&engine, &out), ["w a/x 5..15 r0: 1 1", "w a/x 20..32 r0: 2 6"]);
    let out = take(&mut engine, &[(0, 13, 8.0)]);
    assert_eq!(shown(&engine, &out), ["w a/x 20..32 r1 deleted: - -", "w a/x 5..32 r1: 4 15"]);
    // An earlier reading gives it another start, and so another key.
    let out = take(&mut engine, &[(0, 2, 16.0)]);
    assert_eq!(shown(&engine, &out), ["w a/x 5..32 r2 deleted: - -", "w a/x 2..32 r0: 5 31"]);
    let account = &engine.ledger().windows[0];
    assert_eq!((account.finished, account.open, account.revising), (5, 1, 2));
}

#[test]
fn a_session_that_was_told_and_goes_on_is_told_as_early() {
    let mut engine = counting(session(10, 3_600), 60, None).engine(&["a/x"]);
    let out = take(&mut engine, &[(0, 5, 1.0), (0, 15, 2.0)]);
    assert_eq!(shown(&engine, &out), ["w a/x 5..15 r0: 1 1"]);
    let out = take(&mut engine, &[(0, 14, 4.0)]);
    assert_eq!(shown(&engine, &out), ["w a/x 5..25 r1 early: 3 7"]);
    let out = take(&mut engine, &[(0, 40, 0.0)]);
    assert_eq!(shown(&engine, &out), ["w a/x 5..25 r2: 3 7"]);
}

#[test]
fn readings_exactly_the_gap_apart_are_two_sessions() {
    let mut engine = counting(session(10, 3_600), 0, None).engine(&["a/x"]);
    let out = take(&mut engine, &[(0, 0, 1.0), (0, 10, 2.0), (0, 30, 0.0)]);
    assert_eq!(shown(&engine, &out), ["w a/x 0..10 r0: 1 1", "w a/x 10..20 r0: 1 2"]);
}

#[test]
fn a_session_that_never_ends_is_cut() {
    let mut engine = counting(session(10, 30), 0, None).engine(&["a/x"]);
    let mut out = Vec::new();
    for second in 0..100 {
        out.extend(take(&mut engine, &[(0, second, 1.0)]));
    }
    let expected =
        ["w a/x 0..30 r0: 21 21", "w a/x 21..51 r0: 21 21", "w a/x 42..72 r0: 21 21", "w a/x 63..93 r0: 21 21"];
    assert_eq!(shown(&engine, &out), expected);
    assert_eq!(engine.ledger().windows[0].cut, 4);
}

#[test]
fn long_windows_are_told_early_when_the_watermark_passes_a_multiple() {
    let kind = WindowKind::tumbling(Duration::from_secs(60));
    let mut engine = counting(kind, 0, Some(20)).engine(&["a/x", "a/y"]);
    assert!(take(&mut engine, &[(0, 1, 1.0), (1, 2, 1.0), (0, 19, 1.0)]).is_empty());
    let out = take(&mut engine, &[(0, 20, 1.0)]);
    assert_eq!(shown(&engine, &out), ["w a/x 0..60 r0 early: 3 3", "w a/y 0..60 r0 early: 1 1"]);
    // What has nothing new is not told again; several multiples at once are one.
    let out = take(&mut engine, &[(0, 59, 1.0)]);
    assert_eq!(shown(&engine, &out), ["w a/x 0..60 r1 early: 4 4"]);
    let out = take(&mut engine, &[(0, 60, 1.0)]);
    assert_eq!(shown(&engine, &out), ["w a/x 0..60 r2: 4 4", "w a/y 0..60 r1: 1 1"]);
}

#[test]
fn too_many_open_windows_end_from_the_oldest_on() {
    let kind = WindowKind::tumbling(Duration::from_secs(1));
    let bound = SLOT_PANES_MAX as i64;
    let mut engine = counting(kind, 2 * bound as u64, None).engine(&["a/x", "a/y"]);
    let mut out = Vec::new();
    for second in 0..bound {
        take(&mut engine, &[(0, second, 1.0)]);
    }
    assert_eq!(engine.windows_open(), SLOT_PANES_MAX);
    out.extend(take(&mut engine, &[(0, bound, 1.0), (0, bound + 1, 1.0)]));
    assert_eq!(engine.windows_open(), SLOT_PANES_MAX);
    // The first two were final and stay as they are; what comes for them is late, although the lateness is not over.
    assert!(shown(&engine, &out).iter().all(|line| !line.contains(" 0..1 ") && !line.contains(" 1..2 ")));
    let out = take(&mut engine, &[(0, 1, 5.0), (1, 1, 5.0), (0, 2, 5.0)]);
    assert_eq!(shown(&engine, &out), ["late a/x 1=5", "w a/y 1..2 r0: 1 5", "w a/x 2..3 r1: 2 6"]);
    let account = &engine.ledger().windows[0];
    assert_eq!((account.crowded, account.late), (2, 1));
    assert_eq!(engine.ledger().check(), None);
}

#[test]
fn windows_that_are_ended_before_their_end_are_told_as_they_are() {
    // Nothing is ever complete: the watermark stays far behind.
    let bound = SLOT_PANES_MAX as i64;
    let planned = Planned::new(10_000).kind("w", "#", WindowKind::tumbling(Duration::from_secs(1)), 0, None);
    let mut engine = planned.computing(vec![Function::Count]).engine(&["a/x"]);
    let points: Vec<_> = (0..=bound).map(|second| (0, second, 1.0)).collect();
    let out = take(&mut engine, &points);
    assert_eq!(shown(&engine, &out), ["w a/x 0..1 r0 early: 1"]);
    let restored = Engine::restore(engine.plan().clone(), &engine.snapshot()).unwrap();
    assert_eq!(restored.snapshot(), engine.snapshot());
}

#[test]
fn no_time_makes_any_kind_panic() {
    let zone = Zone::new("Europe/Berlin".into(), 7_200, vec![(1_792_890_000, 3_600)]).unwrap();
    let (length, offset) = (CalendarLength::Months(1), Duration::from_secs(3_600));
    let planned = Planned::new(0)
        .kind("sliding", "#", sliding(7, 70), 10, None)
        .kind("session", "#", session(10, 100), 10, Some(3))
        .kind("month", "#", WindowKind::Calendar { length, offset, zone: Arc::new(zone) }, 10, Some(100));
    let mut engine = planned.engine(&["a/x"]);
    let near = |end: i64| [end, end.saturating_add(1), end.saturating_sub(1), end.saturating_add(20 * SECOND)];
    let times = [i64::MIN, -1, 0, i64::MAX - 20 * SECOND, i64::MAX, i64::MIN].into_iter().flat_map(near);
    for time in times.map(Timestamp::from_nanos) {
        handle(&mut engine, &batch(time, vec![reading(0, time, Value::Int(1))]));
        engine = Engine::restore(engine.plan().clone(), &engine.snapshot()).unwrap();
    }
    engine.close(Timestamp::MAX, &mut Vec::new());
    assert_eq!(engine.ledger().check(), None);
}

/// The newest revisions, without what was taken back. Nothing that was taken back comes again.
fn standing(emitted: &[Emitted]) -> BTreeMap<(u16, SeriesId, Timestamp), Aggregate> {
    let mut newest: BTreeMap<_, Aggregate> = BTreeMap::new();
    for Emitted { stream, record } in emitted {
        let Record::Aggregate(aggregate) = record else { continue };
        let before = newest.insert((stream.0, aggregate.series, aggregate.start), aggregate.clone());
        assert_eq!(aggregate.revision, before.as_ref().map_or(0, |before| before.revision + 1));
        assert!(before.is_none_or(|before| !before.deleted));
    }
    newest.retain(|_, aggregate| !aggregate.deleted);
    newest
}

fn run(batches: &[Vec<Point>]) -> BTreeMap<(u16, SeriesId, Timestamp), Aggregate> {
    let zone = Zone::new("Test/Minutes".into(), 0, vec![(40, 30), (70, 0)]).unwrap();
    let calendar =
        WindowKind::Calendar { length: CalendarLength::Days(1), offset: Duration::from_secs(30), zone: Arc::new(zone) };
    let planned = Planned::new(OUT_OF_ORDER as u64)
        .kind("session", "#", session(4, 3_600), LATENESS as u64, None)
        .kind("sliding", "#", sliding(3, 12), LATENESS as u64, None)
        .kind("zoned", "#", calendar, LATENESS as u64, Some(7));
    let mut engine = planned.engine(&["a/x", "a/y", "a/z"]);
    let mut emitted = Vec::new();
    for points in batches {
        let arrival = seconds(points.iter().map(|(_, time, _)| *time).max().unwrap());
        let readings = points.iter().map(|(series, time, value)| reading(*series, seconds(*time), value.clone()));
        emitted.extend(handle(&mut engine, &batch(arrival, readings.collect())));
    }
    engine.close(Timestamp::MAX, &mut emitted);
    assert!(engine.ledger().windows.iter().all(|account| account.late == 0 && account.open == 0));
    standing(&emitted)
}

proptest! {
    #[test]
    fn any_order_within_the_lateness_gives_the_same(batches in arrivals(values())) {
        let mut sorted: Vec<Point> = batches.iter().flatten().cloned().collect();
        sorted.sort_by_key(|(series, time, _)| (*time, *series));
        let sorted: Vec<Vec<Point>> = sorted.into_iter().map(|point| vec![point]).collect();
        let (found, expected) = (run(&batches), run(&sorted));
        prop_assert_eq!(found.len(), expected.len());
        let sum: f64 = batches.iter().flatten().filter_map(|(_, _, value)| value.as_number()).map(f64::abs).sum();
        for (key, found) in &found {
            let expected = &expected[key];
            prop_assert_eq!((found.end, found.is_final), (expected.end, expected.is_final));
            for (found, expected) in found.values.iter().zip(&expected.values) {
                let is_close = match (found, expected) {
                    (Some(Value::Float(a)), Some(Value::Float(b))) => a.to_bits() == b.to_bits() || (a - b).abs() <= 1e-12 * sum,
                    (a, b) => a == b,
                };
                prop_assert!(is_close, "{:?} and {:?}", found, expected);
            }
        }
    }
}

/// Moves the watermark as an input does whose readings say nothing.
fn advance(engine: &mut Engine, to: i64) -> Vec<Emitted> {
    let mut reading = reading(0, seconds(to), Value::Int(0));
    reading.quality = Quality::Bad;
    handle(engine, &batch(seconds(to), vec![reading]))
}

/// Each transcript's inputs and watermarks; what a window holds in the end is what all its panes of the transcript hold, or the last
/// where they accumulate. Our trigger is the watermark, so that panes of `AfterCount` are not told one by one.
#[test]
fn transcripts_of_beam_end_with_the_same_contents() {
    let Some(folder) = shared("windows") else { return };
    let text = std::fs::read_to_string(folder.join("beam_trigger_transcripts_part.json")).unwrap();
    let file: serde_json::Value = serde_json::from_str(&text).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 3);
    for case in cases {
        let discards = case["accumulation"] == "discarding";
        let kind = WindowKind::tumbling(Duration::from_secs(10));
        let mut engine = counting(kind, 1_000, None).engine(&["a/x"]);
        let mut expected: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        let mut out = Vec::new();
        // The transcript's watermark does not follow its inputs: they arrive as one burst before each step of it.
        let mut burst = Vec::new();
        for step in case["transcript"].as_array().unwrap() {
            let integers = |list: &serde_json::Value| {
                list.as_array().unwrap().iter().map(|one| one.as_i64().unwrap()).collect::<Vec<_>>()
            };
            if step["input"].is_array() {
                burst.extend(integers(&step["input"]));
            }
            if let Some(watermark) = step["watermark"].as_i64() {
                // The newest last, so that none of a burst is late.
                burst.sort_unstable();
                for time in burst.drain(..) {
                    out.extend(take(&mut engine, &[(0, time, time as f64)]));
                }
                out.extend(advance(&mut engine, watermark));
            }
            for pane in step["expect"].as_array().into_iter().flatten() {
                let held = expected.entry(pane["window"][0].as_i64().unwrap()).or_default();
                if !discards {
                    held.clear();
                }
                held.extend(integers(&pane["values"]));
            }
        }
        for time in burst {
            out.extend(take(&mut engine, &[(0, time, time as f64)]));
        }
        let found: BTreeMap<i64, (Option<Value>, Option<Value>)> = standing(&out)
            .into_values()
            .map(|one| (one.start.as_nanos() / SECOND, (one.values[0].clone(), one.values[1].clone())))
            .collect();
        let expected = expected.into_iter().map(|(start, held)| {
            let sum = held.iter().sum::<i64>() as f64;
            (start, (Some(Value::Int(held.len() as i64)), Some(Value::Float(sum))))
        });
        assert_eq!(found, expected.collect(), "{}", case["name"]);
        let revisions =
            out.iter().filter(|one| matches!(&one.record, Record::Aggregate(one) if one.revision > 0)).count();
        assert_eq!(revisions, usize::from(case["name"] == "fixed_default_late_data"), "{}", case["name"]);
    }
}

/// The example of "Streaming Systems" (Akidau, Chernyak, Lax 2018): readings in the order of processing time, no out-of-orderness
/// allowed for, so that the 9 of 12:01:26 is late and revises.
fn streaming_book(kind: WindowKind) -> Option<(Engine, Vec<Emitted>)> {
    let folder = shared("windows")?;
    let mut readings = rows(&folder.join("streamingbook_inputs.csv"));
    readings.sort_by(|a, b| a["processing_time"].cmp(&b["processing_time"]));
    let mut engine = counting(kind, 600, None).engine(&["a/x"]);
    let mut out = Vec::new();
    for row in readings {
        let time = time(&format!("1970-01-01T{}", row["event_time"]));
        let value = Value::Float(row["value"].parse().unwrap());
        out.extend(handle(&mut engine, &batch(time, vec![reading(0, time, value)])));
    }
    engine.close(Timestamp::MAX, &mut out);
    Some((engine, out))
}

fn sums(out: &[Emitted]) -> Vec<(String, String, f64)> {
    let text = |time: Timestamp| time.to_string()[11..19].to_owned();
    let sum = |one: Aggregate| one.values[1].as_ref().unwrap().as_number().unwrap();
    standing(out).into_values().map(|one| (text(one.start), text(one.end), sum(one))).collect()
}

#[test]
fn the_example_of_streaming_systems_in_fixed_windows() {
    let Some((_, out)) = streaming_book(WindowKind::tumbling(Duration::from_secs(120))) else { return };
    let text = std::fs::read_to_string(shared("windows").unwrap().join("streamingbook_expected_fixed.json")).unwrap();
    let file: serde_json::Value = serde_json::from_str(&text).unwrap();
    let expected: Vec<(String, String, f64)> = serde_json::from_value(file["fixed_2min_sum"].clone()).unwrap();
    assert_eq!(sums(&out), expected);
    assert_eq!(file["global_sum"], expected.iter().map(|(_, _, sum)| *sum as u64).sum::<u64>());
}

#[test]
fn the_example_of_streaming_systems_in_sessions() {
    // The 5, the 9 and the 7 are a minute apart to the second: a gap of a minute ends a session, and one of more does not.
    let Some((engine, out)) = streaming_book(session(60, 86_400)) else { return };
    let row = |start: &str, end: &str, sum| (start.to_owned(), end.to_owned(), sum);
    let apart = [
        row("12:00:26", "12:01:26", 5.0),
        row("12:01:26", "12:02:26", 9.0),
        row("12:02:26", "12:05:19", 22.0),
        row("12:06:39", "12:08:46", 12.0),
    ];
    assert_eq!(sums(&out), apart);
    assert_eq!(engine.ledger().windows[0].late, 0);
    let Some((_, out)) = streaming_book(session(61, 86_400)) else { return };
    assert_eq!(sums(&out), [row("12:00:26", "12:05:20", 36.0), row("12:06:39", "12:08:47", 12.0)]);
    // The 8 joins the sessions of the 3 and the 4 to that of the 7, and the 9 that to the 5: both take back what was told.
    let taken_back = out.iter().filter(|one| matches!(&one.record, Record::Aggregate(one) if one.deleted)).count();
    assert!(taken_back > 0, "the merged sessions were taken back");
}

#[test]
fn an_hour_in_one_burst_is_right_in_every_kind() {
    let planned = Planned::new(0)
        .kind("session", "#", session(10, 7_200), 0, None)
        .kind("sliding", "#", sliding(60, 600), 0, None)
        .kind("hour", "#", WindowKind::tumbling(Duration::from_secs(3_600)), 0, Some(60));
    let mut engine = planned.engine(&["a/x"]);
    let mut out = take(&mut engine, &[(0, 0, 0.0)]);
    engine.handle(seconds(30), &Event::Tick, &mut out);
    let readings = (1..3_600).map(|second| reading(0, seconds(second), Value::Float(1.0))).collect();
    out.extend(handle(&mut engine, &batch(seconds(3_600), readings)));
    engine.close(seconds(3_600), &mut out);
    assert!(out.iter().all(|one| matches!(one.record, Record::Aggregate(_))), "none late");
    let found = standing(&out);
    assert!(found.values().all(|one| one.is_final));
    let counts = |stream: &str| {
        let stream = engine.plan().stream_named(stream).unwrap().0;
        found.iter().filter(move |((of, ..), _)| *of == stream).map(|(_, one)| one.values[0].clone())
    };
    assert_eq!(counts("session").collect::<Vec<_>>(), [Some(Value::Int(3_600))]);
    assert_eq!(counts("sliding").filter(|count| *count == Some(Value::Int(600))).count(), 51);
    assert_eq!(counts("hour").collect::<Vec<_>>(), [Some(Value::Int(3_600))]);
}
