//! Every function over every real series, in a shuffled order of arrival, against exact arithmetic in Python (tests/series), and that
//! against pandas and polars.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rtlive_core::function::Function;
use rtlive_core::time::Timestamp;
use rtlive_tests::data::shared;
use rtlive_tests::peer::python;
use rtlive_tests::program::run;
use serde_json::Value;

/// A file of the shared data, its columns of time, and a window's length in seconds, as pandas and polars had it.
const CASES: [(&str, &str, u32, Option<&str>); 8] = [
    ("daphnet_S06R02E0_first_half", "timestamp", 1, Some("1s")),
    ("household_power_2007-02-01", "Date,Time", 900, Some("15min")),
    ("nab_ambient_temperature_system_failure", "timestamp", 21_600, Some("6h")),
    ("nab_ec2_cpu_utilization_5f5533", "timestamp", 1_800, Some("30min")),
    ("nab_occupancy_6005", "timestamp", 3_600, Some("1h")),
    ("nab_speed_7578", "timestamp", 3_600, Some("1h")),
    ("occupancy_datatest", "date", 900, Some("15min")),
    ("noaa_seattle_weather_daily", "date", 604_800, None),
];

/// Series and start of a window.
type Key = (String, Timestamp);

#[test]
fn functions_of_every_series_equal_exact_arithmetic() {
    let Some(python) = python(&["json"]) else { return };
    for (file, time, every, _) in CASES {
        let Some(data) = shared(&format!("timeseries/{file}.csv")) else { return };
        let expected = windows(&python, &data, time, every);
        let found = replayed(&python, &data, time, every);
        assert_eq!(found.len(), expected.len(), "{file}");
        for (key, expected) in &expected {
            let found = &found[key];
            for (function, expected) in expected.as_object().unwrap() {
                let Ok(function) = function.parse::<Function>() else { continue };
                let found = &found[&*function.name()];
                assert!(agree(function, found, expected), "{file} {key:?} {function:?}: {found} and {expected}");
            }
        }
    }
}

#[test]
fn exact_arithmetic_equals_pandas_and_polars() {
    let Some(python) = python(&["json"]) else { return };
    for (file, time, every, suffix) in CASES {
        let Some(suffix) = suffix else { continue };
        let (data, expected) =
            (format!("timeseries/{file}.csv"), format!("timeseries/expected/{file}.tumbling_{suffix}.csv"));
        let (Some(data), Some(expected)) = (shared(&data), shared(&expected)) else { return };
        let found = windows(&python, &data, time, every);
        let text = fs::read_to_string(expected).unwrap();
        let mut lines = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let header = lines.next().unwrap();
        let mut count = 0;
        for line in lines {
            let found = &found[&(line[0].to_owned(), line[1].parse().unwrap())];
            for (name, cell) in header.iter().zip(&line).skip(3) {
                let expected: f64 = cell.parse().unwrap();
                let close = (found[name].as_f64().unwrap() - expected).abs() <= 1e-9 * expected.abs().max(1e-3);
                assert!(close, "{file} {name} of {line:?}: {}", found[name]);
            }
            count += 1;
        }
        assert!(count > 10, "{file}");
    }
}

/// Whether the program's value is right: to the last bit, within 1e-9, or within 1 % for a percentile.
fn agree(function: Function, found: &Value, expected: &Value) -> bool {
    let tolerance = match function {
        Function::Count | Function::Min | Function::Max | Function::First | Function::Last | Function::Resets => 0.0,
        Function::Percentile(_) => 0.01,
        _ => 1e-9,
    };
    match (found.as_f64(), expected.as_f64()) {
        (Some(found), Some(expected)) => (found - expected).abs() <= tolerance * expected.abs(),
        _ => found == expected,
    }
}

fn expected(python: &Path, arguments: &[&str]) -> Vec<u8> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/series/expected.py");
    let output = Command::new(python).arg(script).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn windows(python: &Path, data: &Path, time: &str, every: u32) -> BTreeMap<Key, Value> {
    let every = every.to_string();
    let lines = expected(python, &["windows", data.to_str().unwrap(), "--time", time, "--every", &every]);
    by_window(&lines, "")
}

/// What `rtlive replay` says last of each window, with readings up to three windows late.
fn replayed(python: &Path, data: &Path, time: &str, every: u32) -> BTreeMap<Key, Value> {
    let disorder = (3 * every).to_string();
    let lines = expected(python, &["readings", data.to_str().unwrap(), "--time", time, "--disorder", &disorder]);
    let folder = tempfile::tempdir().unwrap();
    let (readings, configuration): (PathBuf, PathBuf) = (folder.path().join("readings"), folder.path().join("c.toml"));
    fs::write(&readings, lines).unwrap();
    let names: Vec<_> = Function::NAMED.map(Function::name).into_iter().collect();
    let names: Vec<&str> = names.iter().map(|name| &**name).chain(["p5", "p50", "p95", "p99.9"]).collect();
    let window =
        format!("[windows.w]\nselect = \"#\"\nevery = \"{every}s\"\nlateness = \"{disorder}s\"\ncompute = {names:?}\n");
    fs::write(&configuration, window).unwrap();
    let replay = run(&["-c", configuration.to_str().unwrap(), "replay", readings.to_str().unwrap()]).unwrap();
    assert!(replay.status.success(), "{}", String::from_utf8_lossy(&replay.stderr));
    by_window(&replay.stdout, "csv/")
}

/// The newest line of each window, by the series' name without a prefix.
fn by_window(lines: &[u8], prefix: &str) -> BTreeMap<Key, Value> {
    let line = |line: &[u8]| {
        let record: Value = serde_json::from_slice(line).unwrap();
        let series = record["series"].as_str().unwrap().strip_prefix(prefix).unwrap().to_owned();
        assert_ne!(record["stream"], "late", "{record}");
        ((series, record["start"].as_str().unwrap().parse().unwrap()), record)
    };
    lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(line).collect()
}
