//! Bytes per reading of frames beside those of other codecs, and readings per CPU second, on real series of shared data
//! (`RTLIVE_DATA`).
//!
//! `cargo bench -p rtlive-core --bench frames` prints one table of sizes, one of special shapes (several series, jitter, aggregates),
//! one of speeds, and what was asked for beside what was found. With `each` after `--` it prints every series, with `speeds` only the
//! speeds, and with the name of a density beside it only its own. Without shared data it says so and measures series of its own making.
//! Parquet is written by PyArrow: the script `parquet.py` beside this file, run by `RTLIVE_PYTHON` or `python3`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod peers;

use std::hint::black_box;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rtlive_core::frame::{Density, Origin, open, seal};
use rtlive_core::json::{Origin as JsonOrigin, parse_reading, write_record};
use rtlive_core::plan::Function;
use rtlive_core::reading::{ClockState, Quality, Reading, SeriesId, SeriesInfo, Value};
use rtlive_core::record::{Aggregate, Epoch, Record};
use rtlive_core::time::Timestamp;

/// What kind of numbers a series holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A few decimal places, as sensors send them.
    Decimal,
    /// Computed, with many digits.
    Digits,
    /// Mostly constant.
    Sparse,
}

use Kind::{Decimal, Digits, Sparse};

/// File, column, name, kind. Times are the file's own, in UTC.
const SERIES: [(&str, usize, &str, Kind); 20] = [
    ("nab_occupancy_6005.csv", 1, "nab/occupancy", Decimal),
    ("nab_speed_7578.csv", 1, "nab/speed", Decimal),
    ("occupancy_datatest.csv", 2, "office/temperature", Decimal),
    ("household_power_2007-02-01.csv", 2, "house/active", Decimal),
    ("household_power_2007-02-01.csv", 3, "house/reactive", Decimal),
    ("household_power_2007-02-01.csv", 4, "house/voltage", Decimal),
    ("household_power_2007-02-01.csv", 5, "house/intensity", Decimal),
    ("daphnet_S06R02E0_first_half.csv", 1, "gait/ankle", Decimal),
    ("daphnet_S06R02E0_first_half.csv", 2, "gait/ankle_y", Decimal),
    ("daphnet_S06R02E0_first_half.csv", 5, "gait/leg_y", Decimal),
    ("daphnet_S06R02E0_first_half.csv", 8, "gait/trunk_y", Decimal),
    ("nab_ambient_temperature_system_failure.csv", 1, "nab/ambient", Digits),
    ("nab_ec2_cpu_utilization_5f5533.csv", 1, "nab/cpu", Digits),
    ("occupancy_datatest.csv", 3, "office/humidity", Digits),
    ("occupancy_datatest.csv", 4, "office/light", Digits),
    ("occupancy_datatest.csv", 5, "office/co2", Digits),
    ("occupancy_datatest.csv", 6, "office/ratio", Digits),
    ("household_power_2007-02-01.csv", 6, "house/kitchen", Sparse),
    ("household_power_2007-02-01.csv", 7, "house/laundry", Sparse),
    ("household_power_2007-02-01.csv", 8, "house/heater", Sparse),
];

const SIZES: [usize; 3] = [60, 600, 3600];
const DENSITIES: [Density; 3] = [Density::Fast, Density::Normal, Density::Dense];

#[derive(Clone, Debug)]
struct Series {
    name: String,
    kind: Kind,
    readings: Vec<Reading>,
}

fn main() {
    let series = load();
    let mut asked = Vec::new();
    if !std::env::args().any(|argument| argument == "speeds") {
        sizes(&series, &mut asked);
        shapes(&series, &mut asked);
    }
    speeds(&series, &mut asked);
    println!("\n{:<60} {:>12} {:>8}", "asked for", "", "found");
    for Asked { what, bound, found } in asked {
        let (sign, bound, holds) = match bound {
            Bound::AtMost(bound) => ("at most", bound, found <= bound),
            Bound::AtLeast(bound) => ("at least", bound, found >= bound),
        };
        println!("{what:<60} {sign:<8} {bound:>5.2} {found:>6.2}{}", if holds { "" } else { "   NOT REACHED" });
    }
}

/// A figure that was asked for.
struct Asked {
    what: String,
    bound: Bound,
    found: f64,
}

enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Asked {
    fn at_most(what: impl Into<String>, bound: f64, found: f64) -> Self {
        Self { what: what.into(), bound: Bound::AtMost(bound), found }
    }

    fn at_least(what: impl Into<String>, bound: f64, found: f64) -> Self {
        Self { what: what.into(), bound: Bound::AtLeast(bound), found }
    }
}

/// A series as a line of JSON, for the script that measures Parquet.
fn dumped(series: &Series) -> serde_json::Value {
    let column = |value: &dyn Fn(&Reading) -> serde_json::Value| series.readings.iter().map(value).collect::<Vec<_>>();
    serde_json::json!({
        "ts": column(&|reading| (reading.time.as_nanos() / 1_000_000).into()),
        "v": column(&|reading| if let Value::Float(value) = reading.value { value.into() } else { 0.into() }),
    })
}

/// Bytes per reading of Parquet, by series and size; nothing where there is no PyArrow.
fn parquet(all: &[Series]) -> Option<Vec<Vec<f64>>> {
    let python = std::env::var("RTLIVE_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/parquet.py");
    let mut child = Command::new(&python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().ok()?;
    let lines: String = all.iter().map(|series| format!("{}\n", dumped(series))).collect();
    // A script that has ended already says why by itself.
    let _ = child.stdin.take()?.write_all(lines.as_bytes());
    let output = child.wait_with_output().ok()?;
    if !output.status.success() {
        println!("SKIPPED: Parquet: {python} (RTLIVE_PYTHON) has no PyArrow");
        return None;
    }
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.lines().map(|line| line.split(' ').map(|rate| rate.parse().unwrap()).collect()).collect())
}

fn load() -> Vec<Series> {
    let data = std::env::var_os("RTLIVE_DATA")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data")), PathBuf::from);
    let mut all = Vec::new();
    for (file, column, name, kind) in SERIES {
        match std::fs::read_to_string(data.join("timeseries").join(file)) {
            Ok(text) => all.push(Series { name: name.to_owned(), kind, readings: parse(&text, file, column) }),
            Err(error) => println!("SKIPPED: {name}: {}: {error}", data.display()),
        }
    }
    if all.is_empty() {
        all = made();
    }
    all
}

/// Series of every kind that wander, once a second.
fn made() -> Vec<Series> {
    let mut uniform = noise(3);
    let mut level = 20.0;
    let mut series = |name: &str, kind: Kind, value: &dyn Fn(f64, f64) -> f64| {
        let mut one = |second: i64| {
            level += 0.2 * (uniform() - 0.5);
            reading(second * 1_000_000_000, Value::Float(value(level, uniform())))
        };
        Series { name: name.into(), kind, readings: (0..3600).map(&mut one).collect() }
    };
    vec![
        series("made/temperature", Decimal, &|level, noise| ((level + 0.1 * noise) * 100.0).round() / 100.0),
        series("made/voltage", Decimal, &|level, noise| ((level + 210.0 + noise) * 10.0).round() / 10.0),
        series("made/humidity", Digits, &|level, noise| (level + noise) / 7.0),
        series("made/heater", Sparse, &|_, noise| if noise > 0.99 { 1.0 } else { 0.0 }),
    ]
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

fn origin() -> Origin {
    Origin { agent: "gw-042".into(), epoch: Epoch(1 << 63), stream: "raw".into(), class: "process".into() }
}

/// A frame whose series have names of one byte: what a reference to a schema costs.
fn frame(readings: &[Reading], density: Density) -> Vec<u8> {
    let records: Vec<Record> = readings.iter().cloned().map(Record::Reading).collect();
    let series = readings.iter().map(|reading| reading.series.0).max().unwrap_or(0) + 1;
    let series: Vec<SeriesInfo> = (0..series).map(|_| SeriesInfo { name: "a".into(), unit: None }).collect();
    seal(&origin(), 1, &records, &series, &[], density).unwrap()
}

type Codec = (&'static str, fn(&[Reading]) -> usize);

/// All that is compared, by name. The bare codecs have no envelope.
const CODECS: [Codec; 9] = [
    ("JSON + zstd-3", |readings| peers::zstd(&peers::json(readings))),
    ("CBOR rows + zstd-3", |readings| peers::zstd(&peers::cbor(readings))),
    ("Sparkplug B + zstd-3", |readings| peers::zstd(&peers::sparkplug(readings))),
    ("Gorilla", |readings| peers::gorilla(readings).len()),
    ("varint columns + zstd-3", peers::varint),
    ("pco, scaled integers", peers::pco),
    ("frame, Fast", |readings| frame(readings, Density::Fast).len()),
    ("frame, Normal", |readings| frame(readings, Density::Normal).len()),
    ("frame, Dense", |readings| frame(readings, Density::Dense).len()),
];

/// Bytes per reading of a codec in blocks of `size`; a series that is shorter is one block.
fn rate(readings: &[Reading], size: usize, codec: fn(&[Reading]) -> usize) -> f64 {
    let blocks = readings.chunks(size).filter(|block| block.len() == size || readings.len() < size);
    let (bytes, count) = blocks.fold((0, 0), |sum, block| (sum.0 + codec(block), sum.1 + block.len()));
    bytes as f64 / count as f64
}

fn sizes(all: &[Series], asked: &mut Vec<Asked>) {
    let each = std::env::args().any(|argument| argument == "each");
    println!(
        "bytes per reading with its time, one series a block; frames with their envelope, without the series' name"
    );
    print!("{:<24}", "codec");
    for kind in ["decimals", "many digits", "sparse"] {
        SIZES.iter().for_each(|size| print!(" {:>16}", format!("{kind} {size}")));
    }
    println!();
    let mut envelope_bytes = 0;
    let mut best = vec![vec![f64::MAX; SIZES.len()]; all.len()];
    let mut larger = 0;
    let of_codec = |(codec, bytes): Codec| {
        let of_series = |one: &Series| SIZES.iter().map(|size| rate(&one.readings, *size, bytes)).collect();
        (codec, all.iter().map(of_series).collect::<Vec<Vec<f64>>>())
    };
    let parquet = parquet(all).map(|rates| ("Parquet + zstd-3", rates));
    let mut decimals = std::collections::BTreeMap::new();
    for (codec, rates) in parquet.into_iter().chain(CODECS.map(of_codec)) {
        print!("{codec:<24}");
        for kind in [Decimal, Digits, Sparse] {
            for place in 0..SIZES.len() {
                let of: Vec<f64> =
                    all.iter().zip(&rates).filter(|(one, _)| one.kind == kind).map(|(_, rates)| rates[place]).collect();
                let mean = of.iter().sum::<f64>() / of.len() as f64;
                if kind == Decimal {
                    decimals.insert((codec, SIZES[place]), mean);
                }
                print!(" {mean:>16.2}");
            }
        }
        println!();
        if each {
            for (one, rates) in all.iter().zip(&rates) {
                println!(
                    "    {:<20} {}",
                    one.name,
                    rates.iter().map(|rate| format!("{rate:>8.2}")).collect::<String>()
                );
            }
        }
        if codec.starts_with("frame") {
            // What a frame has around its block: the frame of one reading without that.
            envelope_bytes = frame(&all[0].readings[..1], Density::Fast).len() - 24;
            if codec.ends_with("Dense") {
                for (one, (rates, best)) in all.iter().zip(rates.iter().zip(&best)) {
                    for (place, size) in SIZES.into_iter().enumerate() {
                        let bare = rates[place] - envelope_bytes as f64 / size.min(one.readings.len()) as f64;
                        if bare > best[place] {
                            larger += 1;
                            println!(
                                "larger than another codec: {} at {size}: {bare:.3} beside {:.3}",
                                one.name, best[place]
                            );
                        }
                    }
                }
            }
        } else {
            for (best, rates) in best.iter_mut().zip(&rates) {
                best.iter_mut().zip(rates).for_each(|(best, rate)| *best = best.min(*rate));
            }
        }
    }
    println!("(of a frame {envelope_bytes} bytes are its envelope)\n");
    for (size, bound) in [(600, 1.5), (3600, 1.3)] {
        let what = format!("bytes a reading, decimals, {size} in a frame");
        asked.push(Asked::at_most(what, bound, decimals[&("frame, Dense", size)]));
        let fast = decimals[&("frame, Fast", size)] / decimals[&("frame, Dense", size)];
        asked.push(Asked::at_most(format!("Fast beside Dense, decimals, {size} in a frame"), 1.15, fast));
    }
    asked.push(Asked::at_most("series and sizes where a bare codec is smaller", 0.0, f64::from(larger)));
}

/// A sequence that looks like noise and is the same everywhere (a linear congruential generator, Knuth's MMIX constants).
fn noise(mut state: u64) -> impl FnMut() -> f64 {
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The same values once a second, each late by a jitter of 1.5 ms standard deviation in whole milliseconds.
fn jittered(readings: &[Reading]) -> Vec<Reading> {
    let mut uniform = noise(1);
    let late = |place: usize| {
        let normal = (0..12).map(|_| uniform()).sum::<f64>() - 6.0;
        let millis = place as i64 * 1000 + (1.5 * normal).round() as i64;
        Timestamp::from_nanos((1_767_225_600_000 + millis) * 1_000_000)
    };
    let times: Vec<Timestamp> = (0..readings.len()).map(late).collect();
    readings.iter().zip(times).map(|(reading, time)| Reading { time, ..reading.clone() }).collect()
}

/// The decimal series' readings from `start` on, as one poll of all of them a second.
fn polled(all: &[Series], start: usize, rounds: usize, jitter: bool) -> Vec<Reading> {
    let series: Vec<&Series> = all.iter().filter(|one| one.kind == Decimal).collect();
    let clock = jittered(&vec![reading(0, Value::Int(0)); rounds]);
    let mut readings = Vec::new();
    for (round, late) in clock.iter().enumerate() {
        for (place, one) in series.iter().enumerate() {
            let time = match jitter {
                true => late.time,
                false => Timestamp::from_nanos((1_767_225_600 + round as i64) * 1_000_000_000),
            };
            readings.push(Reading { series: SeriesId(place as u32), time, ..one.readings[start + round].clone() });
        }
    }
    readings
}

/// What the windows compute.
fn functions() -> Vec<Function> {
    ["count", "min", "max", "mean", "last", "p95"].map(|name| name.parse().unwrap()).to_vec()
}

/// The sum as the engine forms it (Neumaier 1974).
fn compensated(values: &[f64]) -> f64 {
    let (mut sum, mut lost) = (0.0_f64, 0.0);
    for value in values {
        let next = sum + value;
        lost += if sum.abs() >= value.abs() { (sum - next) + value } else { (value - next) + sum };
        sum = next;
    }
    sum + lost
}

/// One-minute aggregates of readings once a second, 60 of each of 100 series; their readings are decimals that wander.
fn aggregated() -> (Vec<SeriesInfo>, Vec<Record>) {
    let mut uniform = noise(7);
    let series: Vec<SeriesInfo> = (0..100)
        .map(|place| SeriesInfo {
            name: format!("plant{}/pump/temperature{place}", place / 20).into(),
            unit: Some("Cel".into()),
        })
        .collect();
    let mut levels: Vec<f64> = (0..100).map(|_| 2000.0 + 4000.0 * uniform()).collect();
    let mut records = Vec::new();
    for minute in 0..60_i64 {
        for (place, level) in levels.iter_mut().enumerate() {
            let mut values: Vec<f64> = (0..60)
                .map(|_| {
                    *level += 6.0 * uniform() - 3.0;
                    (*level + 4.0 * uniform()).round() / 100.0
                })
                .collect();
            let (sum, last) = (compensated(&values), values[59]);
            values.sort_by(f64::total_cmp);
            let found = [values[0], values[59], sum / 60.0, last, values[56]].map(|value| Some(Value::Float(value)));
            let start = 1_767_225_600 + minute * 60;
            records.push(Record::Aggregate(Aggregate {
                series: SeriesId(place as u32),
                start: Timestamp::from_nanos(start * 1_000_000_000),
                end: Timestamp::from_nanos((start + 60) * 1_000_000_000),
                revision: 0,
                is_final: true,
                deleted: false,
                values: [Some(Value::Int(60))].into_iter().chain(found).collect(),
            }));
        }
    }
    (series, records)
}

fn shapes(all: &[Series], asked: &mut Vec<Asked>) {
    println!("{:<52} {:>8} {:>8} {:>8}", "", "Fast", "Normal", "Dense");
    let line =
        |what: &str, values: [f64; 3]| println!("{what:<52} {}", values.map(|value| format!("{value:>8.2}")).join(" "));
    let decimals: Vec<&Series> = all.iter().filter(|one| one.kind == Decimal).collect();
    for size in SIZES {
        let mean = |density: Density| {
            let rates = decimals.iter().map(|one| {
                let readings = jittered(&one.readings);
                let blocks = readings.chunks(size).filter(|block| block.len() == size || readings.len() < size);
                let (bytes, count) =
                    blocks.fold((0, 0), |sum, block| (sum.0 + frame(block, density).len(), sum.1 + block.len()));
                bytes as f64 / count as f64
            });
            rates.sum::<f64>() / decimals.len() as f64
        };
        let found = DENSITIES.map(mean);
        line(&format!("decimals, {size} readings, 1.5 ms of jitter"), found);
        if size == 600 {
            asked.push(Asked::at_most("bytes a reading, decimals, 600 with 1.5 ms of jitter", 1.95, found[2]));
        }
    }
    for (jitter, what) in [(false, "regular"), (true, "1.5 ms of jitter")] {
        let mean = |density: Density| {
            let starts = [0, 300, 600, 900];
            let bytes: usize = starts
                .iter()
                .filter(|start| decimals.iter().all(|one| one.readings.len() >= *start + 60))
                .map(|start| frame(&polled(all, *start, 60, jitter), density).len())
                .sum();
            bytes as f64 / (starts.len() * 60 * decimals.len()) as f64
        };
        let (what, found) = (format!("all {} decimals polled, 60 rounds, {what}", decimals.len()), DENSITIES.map(mean));
        line(&what, found);
        if !jitter {
            asked.push(Asked::at_most(format!("bytes a reading, {what}"), 2.15, found[2]));
        }
    }
    let (series, records) = aggregated();
    let mut json = Vec::new();
    let text = Epoch(1 << 63).to_string();
    let origin = origin();
    let named = JsonOrigin::of_frame(&origin, &text, false);
    for (number, record) in (1..).zip(&records) {
        write_record(&mut json, &named, number, record, &series, &functions());
        json.push(b'\n');
    }
    let json = peers::zstd(&json);
    let sealed = DENSITIES.map(|density| seal(&origin, 1, &records, &series, &functions(), density).unwrap().len());
    println!("100 series x 60 one-minute aggregates of 6 functions: {json} bytes as JSON + zstd-3");
    line("  bytes as a frame", sealed.map(|bytes| bytes as f64));
    let smaller = sealed.map(|bytes| json as f64 / bytes as f64);
    line("  so many times smaller", smaller);
    asked.push(Asked::at_least("aggregates, times smaller than JSON + zstd", 4.0, smaller[2]));
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

fn speeds(all: &[Series], asked: &mut Vec<Asked>) {
    println!("million readings per CPU second, decimal series, one a frame");
    let series = [SeriesInfo { name: "a".into(), unit: None }];
    let origin = origin();
    let named = |density: &Density| std::env::args().any(|argument| argument == format!("{density:?}"));
    let are_named = DENSITIES.iter().any(named);
    let is_wanted = |density: &Density| !are_named || named(density);
    for size in [600, 3600] {
        let records: Vec<Vec<Record>> = all
            .iter()
            .filter(|one| one.kind == Decimal)
            .flat_map(|one| one.readings.chunks(size).filter(|block| block.len() == size || one.readings.len() < size))
            .map(|block| block.iter().cloned().map(Record::Reading).collect())
            .collect();
        let count: usize = records.iter().map(Vec::len).sum();
        for density in DENSITIES.into_iter().filter(is_wanted) {
            let sealed = speed(count, || {
                records.iter().for_each(|one| drop(black_box(seal(&origin, 1, black_box(one), &series, &[], density))));
            });
            let frames: Vec<Vec<u8>> =
                records.iter().map(|one| seal(&origin, 1, one, &series, &[], density).unwrap()).collect();
            let opened = speed(count, || frames.iter().for_each(|frame| drop(black_box(open(black_box(frame))))));
            let bytes = frames.iter().map(Vec::len).sum::<usize>() as f64 / count as f64;
            let sealed_min = match density {
                Density::Fast => 20.0,
                Density::Normal | Density::Dense => 3.0,
            };
            asked.push(Asked::at_least(
                format!("million sealed per CPU second, {size}, {density:?}"),
                sealed_min,
                sealed,
            ));
            asked.push(Asked::at_least(format!("million opened per CPU second, {size}, {density:?}"), 20.0, opened));
            println!(
                "{:<24} sealed {sealed:>8.1}   opened {opened:>8.1}   ({bytes:.3} B a reading)",
                format!("{size}, {density:?}")
            );
        }
    }
    let lines: Vec<String> = (0..1000)
        .map(|i| {
            format!(
                "{{\"series\":\"boiler/temperature{}\",\"time\":\"2026-01-01T00:{:02}:00.250Z\",\"value\":{i}.5}}",
                i % 9,
                i % 60
            )
        })
        .collect();
    let rate =
        speed(lines.len(), || lines.iter().for_each(|line| drop(black_box(parse_reading(black_box(line.as_bytes()))))));
    println!("{:<24} read   {rate:>8.1}", "JSON lines");
}
