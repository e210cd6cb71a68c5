//! Windows of real series against the results of pandas and polars, and lateness against Flink's rule: shared data.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use rtlive_core::engine::Engine;
use rtlive_core::plan::Function;
use rtlive_core::reading::{SeriesId, Value};
use rtlive_core::record::{Emitted, Record};
use rtlive_core::time::Timestamp;

use crate::order::newest;
use crate::plan::{Planned, batch, declared, reading, seconds};

/// The folder of shared data, or a loud word that it is missing.
pub(crate) fn shared(folder: &str) -> Option<PathBuf> {
    let root = std::env::var_os("RTLIVE_DATA")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")), PathBuf::from);
    let path = root.join(folder);
    if path.is_dir() {
        return Some(path);
    }
    eprintln!("SKIPPED: no shared data at {}; set RTLIVE_DATA", path.display());
    None
}

/// The rows of a CSV file by the names of their columns. No value of these files has a comma or a quote in it.
pub(crate) fn rows(path: &PathBuf) -> Vec<BTreeMap<String, String>> {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut lines = text.lines().map(|line| line.split(',').map(|cell| cell.trim_matches('"').to_owned()));
    let header: Vec<String> = lines.next().unwrap().collect();
    lines
        .map(|cells| {
            let cells: Vec<String> = cells.collect();
            // One file leaves its first column, a row number, without a name.
            let skipped = cells.len() - header.len();
            header.iter().cloned().zip(cells.into_iter().skip(skipped)).collect()
        })
        .collect()
}

/// Local times without a zone are taken as UTC, as the expected files did.
pub(crate) fn time(text: &str) -> Timestamp {
    let text = text.replace(' ', "T");
    if text.ends_with('Z') { text.parse().unwrap() } else { format!("{text}Z").parse().unwrap() }
}

fn number(text: &str) -> Value {
    text.parse().map_or_else(|_| Value::Float(text.parse().unwrap()), Value::Int)
}

fn float(value: &Option<Value>) -> f64 {
    value.as_ref().unwrap().as_number().unwrap()
}

#[track_caller]
fn assert_close(found: &Option<Value>, expected: &str, what: &str) {
    let expected: f64 = expected.parse().unwrap();
    let found = float(found);
    assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1e-9), "{what}: {found} and {expected}");
}

fn compare(file: &str, window: &str, every: u64, stamp: impl Fn(&BTreeMap<String, String>) -> Timestamp) {
    let Some(folder) = shared("timeseries") else { return };
    let expected = rows(&folder.join(format!("expected/{file}.tumbling_{window}.csv")));
    let mut names: Vec<String> = expected.iter().map(|row| row["series"].clone()).collect();
    names.sort();
    names.dedup();
    let series: Vec<String> = names.iter().map(|name| format!("a/{name}")).collect();
    let series: Vec<&str> = series.iter().map(String::as_str).collect();
    let functions = Function::PLAIN.into_iter().chain([Function::Std]).collect();
    let mut engine = Planned::new(0).window("w", "#", every, 0).computing(functions).engine(&series);
    let mut out = Vec::new();
    for row in rows(&folder.join(format!("{file}.csv"))) {
        let time = stamp(&row);
        let readings = names.iter().enumerate().filter(|(_, name)| !row[*name].is_empty());
        let readings = readings.map(|(i, name)| reading(i as u32, time, number(&row[name])));
        engine.handle(time, &batch(time, readings.collect()), &mut out);
    }
    engine.close(Timestamp::MAX, &mut out);
    assert_eq!(engine.ledger().check(), None);
    let found = newest(&out);
    assert_eq!(found.len(), expected.len(), "as many windows");
    for row in &expected {
        let place = names.iter().position(|name| *name == row["series"]).unwrap();
        let what = format!("{} from {}", row["series"], row["window_start"]);
        let aggregate = &found[&(5, SeriesId(place as u32), time(&row["window_start"]))];
        assert_eq!(aggregate.end, time(&row["window_end"]), "{what}");
        let [count, sum, mean, min, max, first, last, std] = &*aggregate.values else { panic!("eight functions") };
        assert_eq!(count, &Some(number(&row["count"])), "{what}");
        assert_close(sum, &row["sum"], &what);
        assert_close(mean, &row["mean"], &what);
        // Of readings that never changed pandas leaves a rest of the last digit; the exact spread is 0.
        let rest = 1e-14 * float(max).abs().max(float(min).abs());
        let expected: f64 = row["std"].parse().unwrap();
        assert!((float(std) - expected).abs() <= 1e-9 * expected + rest, "{what}: {std:?} and {expected}");
        for (found, column) in [(min, "min"), (max, "max"), (first, "first"), (last, "last")] {
            assert_eq!(float(found).to_bits(), float(&Some(number(&row[column]))).to_bits(), "{column} of {what}");
        }
    }
}

fn by_timestamp(row: &BTreeMap<String, String>) -> Timestamp {
    time(&row["timestamp"])
}

#[test]
fn ambient_temperature() {
    compare("nab_ambient_temperature_system_failure", "6h", 21_600, by_timestamp);
}

#[test]
fn road_occupancy() {
    compare("nab_occupancy_6005", "1h", 3_600, by_timestamp);
}

#[test]
fn road_speed() {
    compare("nab_speed_7578", "1h", 3_600, by_timestamp);
}

#[test]
fn processor_load() {
    compare("nab_ec2_cpu_utilization_5f5533", "30min", 1_800, by_timestamp);
}

#[test]
fn accelerometers() {
    compare("daphnet_S06R02E0_first_half", "1s", 1, by_timestamp);
}

#[test]
fn an_office() {
    compare("occupancy_datatest", "15min", 900, |row| time(&row["date"]));
}

#[test]
fn a_household() {
    compare("household_power_2007-02-01", "15min", 900, |row| time(&format!("{}T{}", row["Date"], row["Time"])));
}

/// One reading an event, as Flink moves its watermark after each element. Flink's rule subtracts a millisecond from the watermark and
/// from each window's end, which cancels (see the module on watermarks): the classes must be equal, element by element.
#[test]
fn lateness_divides_readings_as_flink_does() {
    let Some(folder) = shared("lateness") else { return };
    let file = |part: &str| rows(&folder.join(format!("nab_ambient_temperature_system_failure.{part}.csv")));
    let mut engine = Planned::new(7_200).window("w", "#", 21_600, 10_800).engine(&["a/value"]);
    let mut out = Vec::new();
    for (row, class) in file("arrival").iter().zip(file("class")) {
        let before = engine.ledger().windows[0].clone();
        let time = time(&row["event_time"]);
        engine.handle(time, &batch(time, vec![reading(0, time, number(&row["value"]))]), &mut out);
        let after = &engine.ledger().windows[0];
        let found = match (after.late - before.late, after.revising - before.revising) {
            (1, 0) => "dropped",
            (0, 1) => "late",
            _ => "ontime",
        };
        assert_eq!(found, class["class"], "element {}", row["seq"]);
    }
    engine.close(Timestamp::MAX, &mut out);
    let dropped = out.iter().filter(|Emitted { record, .. }| matches!(record, Record::Reading(_))).count();
    assert_eq!(dropped, 36);
    let (found, expected) = (newest(&out), file("final_windows"));
    assert_eq!(found.len(), expected.len());
    for row in expected {
        let aggregate = &found[&(5, SeriesId(0), time(&row["window_start"]))];
        assert_eq!(aggregate.end, time(&row["window_end"]));
        assert_eq!(aggregate.values[0], Some(number(&row["count"])));
        assert_close(&aggregate.values[1], &row["sum"], &row["window_start"]);
        assert_eq!(aggregate.values[3], Some(number(&row["min"])));
        assert_eq!(aggregate.values[4], Some(number(&row["max"])));
    }
}

#[test]
fn an_hour_in_one_burst_is_not_late() {
    let mut engine: Engine = Planned::new(0).input("b", 0).window("ten", "#", 10, 10).engine(&["a/x"]);
    let other = declared(&engine, "b/y");
    let mut out = Vec::new();
    engine.handle(seconds(0), &other, &mut out);
    engine.handle(seconds(1), &batch(seconds(1), vec![reading(0, seconds(1), Value::Int(0))]), &mut out);
    // The other input is alive all the time; this one comes back after an hour, with all of it.
    for second in 1..3_600 {
        let mut event = rtlive_core::event::Batch {
            input: engine.plan().input_named("b").unwrap(),
            arrival: seconds(second),
            readings: vec![reading(1, seconds(second), Value::Int(second))],
            rejected: Vec::new(),
        };
        event.rejected.clear();
        engine.handle(seconds(second), &rtlive_core::event::Event::Batch(event), &mut out);
        engine.handle(seconds(second), &rtlive_core::event::Event::Tick, &mut out);
    }
    let burst = (2..3_600).map(|second| reading(0, seconds(second), Value::Int(second))).collect();
    engine.handle(seconds(3_600), &batch(seconds(3_600), burst), &mut out);
    engine.close(seconds(3_600), &mut out);
    assert!(out.iter().all(|emitted| matches!(emitted.record, Record::Aggregate(_))), "none late");
    let found = newest(&out);
    assert_eq!(found.len(), 720);
    assert!(found.values().all(|aggregate| aggregate.is_final));
    assert_eq!(engine.ledger().check(), None);
}
