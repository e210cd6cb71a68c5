//! Bytes per reading of frames, and readings per CPU second, on the real series of shared data (`RTLIVE_DATA`).
//!
//! `cargo bench -p rtlive-core --bench frames` prints one table of sizes, envelope and names included, one series a frame, and one
//! of speeds. Without shared data it says so and measures series of its own making.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::hint::black_box;
use std::path::PathBuf;

use rtlive_core::columns::{decode_readings, encode_readings};
use rtlive_core::frame::{Density, Origin, open, seal};
use rtlive_core::json::parse_reading;
use rtlive_core::reading::{ClockState, Quality, Reading, SeriesId, SeriesInfo, Value};
use rtlive_core::record::{Epoch, Record};
use rtlive_core::time::Timestamp;

/// File, column, name. Times are the file's own, in UTC.
const SERIES: [(&str, usize, &str); 18] = [
    ("nab_ambient_temperature_system_failure.csv", 1, "nab/ambient"),
    ("nab_occupancy_6005.csv", 1, "nab/occupancy"),
    ("nab_speed_7578.csv", 1, "nab/speed"),
    ("nab_ec2_cpu_utilization_5f5533.csv", 1, "nab/cpu"),
    ("occupancy_datatest.csv", 2, "office/temperature"),
    ("occupancy_datatest.csv", 3, "office/humidity"),
    ("occupancy_datatest.csv", 4, "office/light"),
    ("occupancy_datatest.csv", 5, "office/co2"),
    ("occupancy_datatest.csv", 6, "office/ratio"),
    ("household_power_2007-02-01.csv", 2, "house/active"),
    ("household_power_2007-02-01.csv", 3, "house/reactive"),
    ("household_power_2007-02-01.csv", 4, "house/voltage"),
    ("household_power_2007-02-01.csv", 5, "house/intensity"),
    ("household_power_2007-02-01.csv", 6, "house/kitchen"),
    ("household_power_2007-02-01.csv", 7, "house/laundry"),
    ("household_power_2007-02-01.csv", 8, "house/heater"),
    ("daphnet_S06R02E0_first_half.csv", 1, "gait/ankle"),
    ("daphnet_S06R02E0_first_half.csv", 2, "gait/ankle_y"),
];

/// Which of [`SERIES`] send decimals, as sensors do; the others compute, and send many digits.
fn is_decimal(name: &str) -> bool {
    !matches!(name, "nab/ambient" | "office/humidity" | "office/light" | "office/co2" | "office/ratio")
}

const SIZES: [usize; 3] = [60, 600, 3600];

fn main() {
    let series = load();
    sizes(&series);
    speeds(&series);
}

fn load() -> Vec<(String, Vec<Reading>)> {
    let data = std::env::var_os("RTLIVE_DATA")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")), PathBuf::from);
    let mut all = Vec::new();
    for (file, column, name) in SERIES {
        match std::fs::read_to_string(data.join("timeseries").join(file)) {
            Ok(text) => all.push((name.to_owned(), parse(&text, file, column))),
            Err(error) => println!("SKIPPED: {name}: {}: {error}", data.display()),
        }
    }
    if all.is_empty() {
        let value = |i: i64| Value::Float((2100 + i * 7919 % 13) as f64 / 100.0);
        all.push(("made/wave".into(), (0..3600).map(|i| reading(i * 1_000_000_000, value(i))).collect()));
    }
    all
}

fn reading(nanos: i64, value: Value) -> Reading {
    let time = Timestamp::from_nanos(nanos);
    Reading { series: SeriesId(0), time, value, quality: Quality::Good, check: None, clock: ClockState::Synced }
}

fn parse(text: &str, file: &str, column: usize) -> Vec<Reading> {
    let mut readings = Vec::new();
    for line in text.lines().skip(1) {
        let fields: Vec<&str> = line.split([',', ';']).map(|field| field.trim().trim_matches('"')).collect();
        let stamp = match file {
            _ if file.starts_with("occupancy") => fields[1].to_owned(),
            _ if file.starts_with("household") => {
                let date: Vec<&str> = fields[0].split('/').collect();
                match *date {
                    [day, month, year] => format!("{year}-{month:0>2}-{day:0>2} {}", fields[1]),
                    _ => format!("{} {}", fields[0], fields[1]),
                }
            }
            _ => fields[0].to_owned(),
        };
        let time = format!("{}Z", stamp.replacen(' ', "T", 1)).parse::<Timestamp>();
        let nanos = time.map(Timestamp::as_nanos).or_else(|_| stamp.parse::<f64>().map(|ms| ms as i64 * 1_000_000));
        if let (Ok(nanos), Some(Ok(value))) = (nanos, fields.get(column).map(|field| field.parse::<f64>())) {
            readings.push(reading(nanos, Value::Float(value)));
        }
    }
    assert!(!readings.is_empty(), "{file} has no readings in column {column}");
    readings
}

fn frame(name: &str, readings: &[Reading], density: Density) -> Vec<u8> {
    let origin =
        Origin { agent: "gw-042".into(), epoch: Epoch(1 << 63), stream: "raw".into(), class: "process".into() };
    let records: Vec<Record> = readings.iter().cloned().map(Record::Reading).collect();
    let series = [SeriesInfo { name: name.into(), unit: Some("Cel".into()) }];
    seal(&origin, 1, &records, &series, &[], density).unwrap()
}

fn sizes(all: &[(String, Vec<Reading>)]) {
    println!("bytes per reading, one series a frame: envelope, name and unit included (without them)");
    println!("{:<20} {:>20} {:>20} {:>20}", "series", SIZES[0], SIZES[1], SIZES[2]);
    let mut means = [[(0.0, 0.0, 0); SIZES.len()]; 2];
    for (name, readings) in all {
        print!("{name:<20}");
        for (place, size) in SIZES.into_iter().enumerate() {
            let (mut frames, mut bare, mut count) = (0, 0, 0);
            for chunk in readings.chunks(size).filter(|chunk| chunk.len() == size || readings.len() < size) {
                frames += frame(name, chunk, Density::Normal).len();
                let mut block = Vec::new();
                encode_readings(chunk, &mut block);
                bare += block.len().min(zstd::bulk::compress(&block, 3).unwrap().len());
                count += chunk.len();
            }
            let (all, bare) = (frames as f64 / count as f64, bare as f64 / count as f64);
            print!(" {all:>11.2} ({bare:>6.2})");
            let mean = &mut means[usize::from(!is_decimal(name))][place];
            *mean = (mean.0 + all, mean.1 + bare, mean.2 + 1);
        }
        println!();
    }
    for (kind, means) in ["mean of decimals", "mean of the others"].into_iter().zip(means) {
        print!("{kind:<20}");
        means
            .iter()
            .for_each(|(all, bare, n)| print!(" {:>11.2} ({:>6.2})", all / f64::from(*n), bare / f64::from(*n)));
        println!();
    }
    println!();
}

/// CPU time of this thread in seconds, from Linux' scheduler.
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

/// Millions of `items` per CPU second, the median of five runs of a fifth of a second.
fn speed(items: usize, mut run: impl FnMut()) -> f64 {
    let mut rates: Vec<f64> = (0..5)
        .map(|_| {
            let (start, mut runs) = (cpu(), 0);
            while cpu() - start < 0.2 {
                run();
                runs += 1;
            }
            (runs * items) as f64 / (cpu() - start) / 1e6
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    rates[2]
}

fn speeds(all: &[(String, Vec<Reading>)]) {
    println!("million readings per CPU second, frames of 600 of one decimal series");
    let decimals: Vec<&[Reading]> = all
        .iter()
        .filter(|(name, _)| is_decimal(name))
        .flat_map(|(_, readings)| readings.chunks(600).filter(|chunk| chunk.len() == 600))
        .collect();
    let count: usize = decimals.iter().map(|chunk| chunk.len()).sum();
    let blocks: Vec<Vec<u8>> = decimals
        .iter()
        .map(|chunk| {
            let mut block = Vec::new();
            encode_readings(chunk, &mut block);
            block
        })
        .collect();
    let encoded = speed(count, || {
        for chunk in &decimals {
            let mut block = Vec::new();
            encode_readings(black_box(chunk), &mut block);
            black_box(block);
        }
    });
    let decoded =
        speed(count, || blocks.iter().for_each(|block| drop(black_box(decode_readings(black_box(block), 600)))));
    println!("{:<28} {encoded:>8.1}", "columns, encode");
    println!("{:<28} {decoded:>8.1}", "columns, decode");
    let origin =
        Origin { agent: "gw-042".into(), epoch: Epoch(1 << 63), stream: "raw".into(), class: "process".into() };
    let series = [SeriesInfo { name: "a/b".into(), unit: None }];
    let records: Vec<Vec<Record>> =
        decimals.iter().map(|chunk| chunk.iter().cloned().map(Record::Reading).collect()).collect();
    for density in [Density::Fast, Density::Normal, Density::Dense] {
        let rate = speed(count, || {
            records.iter().for_each(|one| drop(black_box(seal(&origin, 1, black_box(one), &series, &[], density))));
        });
        let frames: Vec<Vec<u8>> =
            records.iter().map(|one| seal(&origin, 1, one, &series, &[], density).unwrap()).collect();
        let bytes: usize = frames.iter().map(Vec::len).sum();
        println!("{:<28} {rate:>8.1}   ({:.3} B a reading)", format!("seal, {density:?}"), bytes as f64 / count as f64);
        let rate = speed(count, || frames.iter().for_each(|frame| drop(black_box(open(black_box(frame))))));
        println!("{:<28} {rate:>8.1}", format!("open, {density:?}"));
    }
    let lines: Vec<String> = (0..1000)
        .map(|i| {
            format!(
                "{{\"series\":\"boiler/temperature{}\",\"time\":\"2026-01-01T00:{:02}:00.250Z\",\"value\":{}.5}}",
                i % 9,
                i % 60,
                i
            )
        })
        .collect();
    let rate =
        speed(lines.len(), || lines.iter().for_each(|line| drop(black_box(parse_reading(black_box(line.as_bytes()))))));
    println!("{:<28} {rate:>8.1}", "JSON lines, read");
}
