//! What is in the receiver's Parquet files, by those who read them: PyArrow, Polars and DuckDB.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rtlive_tests::broker::Mosquitto;
use rtlive_tests::peer::{python, until};
use rtlive_tests::program::{Agent, Receiver, decode};
use serde_json::{Value, json};

/// How many lines the source has; each becomes a reading of four series.
const LINES: i64 = 3_000;

/// The time of the first line, in milliseconds: a minute before midnight.
const START_MS: i64 = 1_767_311_940_000;

/// Integers of which a float holds each, and all sums in any order.
const INTEGERS_FROM: i64 = 1 << 40;

/// From a minute before midnight to a minute and a half behind it, 50 ms apart; most hundredth lines are 8 s late.
fn line(number: i64) -> String {
    let late_ms = if number > 200 && number % 100 == 99 { 8_000 } else { 0 };
    let time = START_MS + number * 50 - late_ms;
    let color = ["red", "green", "blue"][usize::try_from(number % 3).unwrap()];
    let line = json!({
        "t": time,
        "f": number as f64 * 0.25,
        "i": INTEGERS_FROM + number,
        "b": number % 3 == 0,
        "s": color,
    });
    format!("{line}\n")
}

fn configuration(source: &Path, broker: &Mosquitto) -> String {
    format!(
        r##"
        [inputs.app]
        driver = "file"
        path = {source:?}
        format = "json"
        time = "/t"
        idle = "1s"
        fields = [
            {{ series = "f", pointer = "/f", type = "f64", unit = "Cel" }},
            {{ series = "i", pointer = "/i", type = "i64" }},
            {{ series = "b", pointer = "/b", type = "bool" }},
            {{ series = "s", pointer = "/s", type = "text" }},
        ]
        [streams.raw]
        select = "#"
        [windows.ten]
        select = "#"
        every = "10s"
        compute = ["count", "sum", "min", "max", "mean", "first", "last", "p95"]
        [uplink]
        broker = {:?}
        "##,
        broker.url()
    )
}

/// What readers should find: for each series the rows, the numbers, and the sums of the columns of values.
fn raw_expected() -> Value {
    let rows = LINES;
    let sum: i64 = (0..LINES).sum();
    json!({
        "app/f": [rows, rows, sum as f64 * 0.25, null, null, null],
        "app/i": [rows, rows, (INTEGERS_FROM * LINES + sum) as f64, INTEGERS_FROM * LINES + sum, null, null],
        "app/b": [rows, rows, null, null, (LINES + 2) / 3, null],
        "app/s": [rows, rows, null, null, null, "blue,green,red"],
    })
}

/// For each series the windows, and the sums of their counts and sums.
fn windows_expected() -> Value {
    let windows = LINES * 50 / 10_000;
    let sum: i64 = (0..LINES).sum();
    json!({
        "app/f": [windows, LINES, sum as f64 * 0.25],
        "app/i": [windows, LINES, (INTEGERS_FROM * LINES + sum) as f64],
        "app/b": [windows, LINES, null],
        "app/s": [windows, LINES, null],
    })
}

/// The files below a folder with their lengths, without those that are not closed.
fn files(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with(".staging") {
            found.extend(files(&path));
        } else if path.is_file() {
            let length = fs::metadata(&path).unwrap().len();
            found.insert(path, length);
        }
    }
    found
}

/// How many readings of the source have been printed, as records and within the newest revisions of windows.
fn arrived(receiver: &Receiver) -> (usize, u64) {
    let lines = receiver.lines().unwrap_or_default();
    let raw = lines.iter().filter(|line| line["stream"] == "raw").count();
    let mut newest: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    for line in lines.iter().filter(|line| line["stream"] == "ten") {
        let key = (line["series"].to_string(), line["start"].to_string());
        let revision = (line["revision"].as_u64().unwrap(), line["count"].as_u64().unwrap());
        let known = newest.entry(key).or_default();
        *known = revision.max(*known);
    }
    (raw, newest.values().map(|(_, count)| count).sum())
}

/// What names each record.
fn keys(records: &[Value]) -> BTreeSet<[String; 4]> {
    let records = records.iter().filter(|record| record["seq"].is_u64());
    records.map(|record| ["epoch", "stream", "class", "seq"].map(|key| record[key].to_string())).collect()
}

#[test]
fn every_reader_finds_what_the_source_had_once() {
    let Some(python) = python(&["pyarrow.dataset", "polars", "duckdb"]) else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let Some(broker) = Mosquitto::start(&folder.join("broker"), "max_queued_messages 0\n").unwrap() else { return };
    let messages = folder.join("messages");
    let Some(subscriber) = broker.subscribe("rtlive/#", "judge", &messages).unwrap() else { return };
    let lake = folder.join("lake");
    let configuration_of_receiver = format!(
        "[sources.centre]\nkind = \"mqtt\"\nbroker = {:?}\ntopics = \"rtlive/#\"\n\
         [outputs.lines]\nkind = \"json\"\n[outputs.lake]\nkind = \"parquet\"\npath = {lake:?}\nevery = \"700ms\"\n",
        broker.url()
    );
    let mut receiver = Receiver::new(&folder.join("receiver"), &configuration_of_receiver).unwrap();
    receiver.start().unwrap();
    // What the subscriber alone heard would be missing for ever.
    until("the receiver hears what is sent", || receiver.log().is_ok_and(|log| log.contains("subscribed to")));

    let source = folder.join("source.jsonl");
    let mut growing = File::create(&source).unwrap();
    let mut agent = Agent::new(&folder.join("agent"), &configuration(&source, &broker)).unwrap();
    agent.start().unwrap();
    let lines: Vec<String> = (0..LINES).map(line).collect();
    for (place, part) in lines.chunks(lines.len() / 5).enumerate() {
        growing.write_all(part.concat().as_bytes()).unwrap();
        let wanted = 4 * part.len() * (place + 1);
        until("some of it is there", || arrived(&receiver).0 >= wanted);
        receiver.kill();
        receiver.start().unwrap();
    }
    let readings = 4 * u64::try_from(LINES).unwrap();
    until("all of it is there, and in windows", || {
        let (raw, in_windows) = arrived(&receiver);
        raw as u64 >= readings && in_windows >= readings
    });
    // The agent sends its last frames while it stops.
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
    drop(subscriber);
    let sent = keys(&decode(&messages).unwrap());
    until("the last of it is there", || receiver.lines().is_ok_and(|lines| sent.is_subset(&keys(&lines))));
    assert_eq!(receiver.stop().unwrap(), Some(0), "{}", receiver.log().unwrap());

    // As the receivers left it, and compacted.
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("receiver/readers.py");
    let check = || {
        let output = Command::new(&python).arg(&script).arg(&lake).arg("ten").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        for reader in ["pyarrow", "polars", "duckdb"] {
            assert_eq!(found[reader]["raw"], raw_expected(), "{reader}");
            assert_eq!(found[reader]["windows"], windows_expected(), "{reader}");
        }
    };
    check();
    let output = receiver.run(&["compact"]).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    check();
    let of_raw = |path: &&PathBuf| path.to_str().unwrap().contains("date=2026-01-02/stream=raw/");
    assert_eq!(files(&lake).keys().filter(of_raw).count(), 1);
    let dates: Vec<String> = fs::read_dir(&lake)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .filter(|name| name.starts_with("date=2026"))
        .collect();
    assert!(
        ["date=2026-01-01", "date=2026-01-02"].iter().all(|date| dates.iter().any(|found| found == date)),
        "{dates:?}"
    );

    // The same frames once more, from a file.
    let before = files(&lake);
    let output = receiver.run(&["read", messages.to_str().unwrap()]).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.is_empty(), "records were new the second time");
    assert_eq!(files(&lake), before);
}
