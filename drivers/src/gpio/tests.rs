//! Decoding with recorded edges; options; errors that need no hardware.

use std::collections::BTreeMap;
use std::path::Path;

use rtlive_core::engine::Engine;
use rtlive_core::event::{Batch, Declared, Event};
use rtlive_core::reading::{ClockState, InputId, Quality, Reading, SeriesInfo};
use rtlive_core::record::Record;
use rtlive_core::time::nanos;

use super::*;
use crate::catalogue::Drivers;
use crate::rig::{Rig, checked, shared};

fn edge(number: u32, nanos: i64) -> Edge {
    Edge { time: Timestamp::from_nanos(nanos), line: 3, rising: number % 2 == 1, number }
}

#[test]
fn a_hole_in_the_numbers_is_an_overrun() {
    let mut edges = Edges::default();
    assert_eq!(edges.decode(edge(1, 10)), (Value::Bool(true), None));
    assert_eq!(edges.decode(edge(2, 20)), (Value::Bool(false), None));
    let time = Timestamp::from_nanos;
    let overrun = Overrun { start: Some(time(20)), end: time(60), count: 3 };
    assert_eq!(edges.decode(edge(6, 60)), (Value::Bool(false), Some(overrun)));
    let first = Overrun { start: None, end: time(5), count: 4 };
    assert_eq!(Edges::default().decode(edge(5, 5)).1, Some(first));
    let mut wrapping = Edges { last: Some((u32::MAX, time(1))) };
    assert_eq!(wrapping.decode(edge(0, 2)).1, None);
}

#[test]
fn a_level_is_due_at_a_multiple_also_when_the_clock_was_set_back() {
    let at = |millis| Timestamp::from_millis(millis).unwrap();
    let level = Reads::Level(Duration::from_secs(1));
    let line = Line { name: LineName::Number(0), series: "a".into(), reads: level, bias: None, active_low: false };
    for (due, now, expected) in [(2000, 1000, 2000), (2000, 2500, 2000), (3_600_000, 1500, 2000)] {
        let mut found = Found { line: &line, offset: 0, series: SeriesId(0), due: Some(at(due)) };
        found.follow(at(now));
        assert_eq!(found.due, Some(at(expected)), "due at {due}, now {now}");
    }
}

/// (window, line, direction) → how many.
type Counts = BTreeMap<(i64, String, &'static str), u64>;

/// Recorded edges of real devices give as many readings in each window as were counted, out of the decoder and out of the engine.
#[test]
fn recorded_edges_are_counted_right() {
    let Some(folder) = shared("gpio") else { return };
    for (name, seconds) in [("dcf77_480s_interrupted", 60), ("grbl_cnc_3", 1), ("lidarlite_pwm", 1)] {
        let every = Duration::from_secs(seconds);
        let readings = decoded(&folder.join(format!("{name}.edges.csv")));
        let expected = counted(&folder.join(format!("{name}.count_{seconds}s.csv")));
        assert!(!expected.is_empty());
        let mut found = Counts::new();
        for (line, time, value) in &readings {
            let direction = if *value == Value::Bool(true) { "rising" } else { "falling" };
            *found.entry((time.floor(every).as_nanos() / nanos(every), line.clone(), direction)).or_default() += 1;
        }
        assert_eq!(found, expected, "{name}");
        let mut of_lines = BTreeMap::new();
        for ((window, line, _), count) in expected {
            *of_lines.entry((window, line)).or_default() += count;
        }
        assert_eq!(aggregated(&readings, every), of_lines, "{name}");
    }
}

/// Line, time and value of the recorded edges, as the decoder gives them.
fn decoded(path: &Path) -> Vec<(String, Timestamp, Value)> {
    let mut edges = Edges::default();
    let mut readings = Vec::new();
    for (number, row) in (1..).zip(std::fs::read_to_string(path).unwrap().lines().skip(1)) {
        let [time, line, direction] = row.split(',').collect::<Vec<_>>().try_into().unwrap();
        let time = Timestamp::from_nanos(time.parse().unwrap());
        let (value, overrun) = edges.decode(Edge { time, line: 0, rising: direction == "rising", number });
        assert_eq!(overrun, None);
        readings.push((line.to_owned(), time, value));
    }
    readings
}

/// The windows that the expected file counts something in.
fn counted(path: &Path) -> Counts {
    let mut counts = Counts::new();
    for row in std::fs::read_to_string(path).unwrap().lines().skip(1) {
        let [window, line, direction, count] = row.split(',').collect::<Vec<_>>().try_into().unwrap();
        let direction = if direction == "rising" { "rising" } else { "falling" };
        counts.insert((window.parse().unwrap(), line.to_owned(), direction), count.parse().unwrap());
    }
    counts.retain(|_, count| *count > 0);
    counts
}

/// The counts of the engine's windows, of readings that arrive in deliveries as the driver makes them.
fn aggregated(readings: &[(String, Timestamp, Value)], every: Duration) -> BTreeMap<(i64, String), u64> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rtlive.toml");
    let configuration = format!(
        r#"
        [agent]
        id = "test"
        [inputs.recorded]
        driver = "gpio"
        chip = "gpiochip0"
        lines = [{{ line = 0, series = "any" }}]
        [windows.w]
        select = ["recorded/#"]
        every = "{}s"
        compute = ["count"]
        "#,
        every.as_secs()
    );
    std::fs::write(&path, configuration).unwrap();
    let plan = rtlive_config::load(&[path], &Drivers).unwrap().plan;
    let window = plan.stream_named("w").unwrap();
    let mut engine = Engine::new(plan);
    let mut out = Vec::new();
    let mut lines: Vec<&str> = Vec::new();
    for delivery in readings.chunks(EDGES_PER_DELIVERY_MAX) {
        let arrival = delivery.last().unwrap().1;
        let mut batch = Batch { input: InputId(0), arrival, readings: Vec::new(), rejected: Vec::new() };
        for (line, time, value) in delivery {
            let place = lines.iter().position(|known| known == line).unwrap_or_else(|| {
                lines.push(line);
                let info = SeriesInfo { name: format!("recorded/{line}").into(), unit: None };
                let declared = Declared { input: InputId(0), source: "".into(), info };
                engine.handle(arrival, &Event::Series(declared), &mut out);
                lines.len() - 1
            });
            batch.readings.push(Reading {
                series: SeriesId(u32::try_from(place).unwrap()),
                time: *time,
                value: value.clone(),
                quality: Quality::Good,
                check: None,
                clock: ClockState::Synced,
            });
        }
        engine.handle(arrival, &Event::Batch(batch), &mut out);
    }
    engine.close(readings.last().unwrap().1, &mut out);
    assert_eq!(engine.ledger().check(), None);
    let mut counts = BTreeMap::new();
    for emitted in out.into_iter().filter(|emitted| emitted.stream == window) {
        let Record::Aggregate(aggregate) = emitted.record else { panic!("{:?}", emitted.record) };
        let Some(Value::Int(count)) = aggregate.values[0] else { panic!("{aggregate:?}") };
        let key = (aggregate.start.as_nanos() / nanos(every), lines[aggregate.series.index()].to_owned());
        // A later revision replaces an earlier one.
        counts.insert(key, u64::try_from(count).unwrap());
    }
    counts
}

#[test]
fn mistakes_in_the_options_are_named() {
    for (line, mistake) in [
        ("line = 1, series = 'a', mode = 'level'", "every"),
        ("line = 1, series = 'a', every = '1s'", "mode"),
        ("line = 1, series = 'a', mode = 'level', every = '1s', debounce = '1ms'", "debounce"),
        ("line = -1, series = 'a'", "the number of a line"),
        ("line = 1, series = '+'", "+"),
        ("line = 1, series = 'a', bias = 'up'", "pull-up"),
        ("line = 1, series = 'a' }, { line = 1, series = 'b'", "a line of its own"),
        ("line = 1, series = 'a' }, { line = 2, series = 'a'", "a series of its own"),
    ] {
        let mistakes = checked(&DRIVER, &format!("chip = 'x'\nlines = [{{ {line} }}]")).err().unwrap();
        assert!(mistakes.contains(mistake), "{line}: {mistakes}");
    }
}

#[tokio::test]
async fn a_chip_that_is_missing_is_an_error_with_a_hint() {
    for chip in ["/dev/gpiochip-none", "no-such-label"] {
        let mut rig = Rig::new(&DRIVER, &format!("chip = '{chip}'\nlines = [{{ line = 1, series = 'a' }}]"));
        rig.start();
        let health = rig.health_until(|health| health.state == "waiting").await;
        let error = health.error.unwrap();
        assert!(error.contains(chip) && error.contains('('), "{error}");
        rig.stop().await;
    }
}
