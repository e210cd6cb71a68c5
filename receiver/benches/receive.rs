//! Readings a second from frames in a file into Parquet files, and the memory that it takes.
//!
//! `cargo bench -p rtlive-receiver --bench receive` makes frames of ten agents, as dense as they are on a poor link, and lets the whole pipeline
//! take them: verified, each number once, its state committed, files closed every million rows. It prints readings by the wall clock and by the
//! CPU second, and the most resident memory of both halves of each run.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rtlive_config::document::Document;
use rtlive_core::frame::{Density, Origin, seal};
use rtlive_core::message::split;
use rtlive_core::reading::{ClockState, Quality, Reading, SeriesId, SeriesInfo, Value};
use rtlive_core::record::{Epoch, Record};
use rtlive_core::time::Timestamp;
use rtlive_receiver::config::check;
use rtlive_receiver::pipeline::{Pipeline, Reads};

const AGENTS: u64 = 10;
/// Polled together, once a second.
const SERIES: u32 = 100;
/// The seconds of a frame.
const POLLS: u64 = 60;
const FRAMES_OF_AGENT: u64 = 250;
const RUNS: usize = 5;

/// What is aimed at, on two cores.
const MILLION_READINGS_MIN: f64 = 1.0;

/// 2026-01-01.
const START_NS: u64 = 1_767_225_600_000_000_000;

/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let messages = folder.path().join("messages");
    let bytes = write_messages(&messages);
    let readings = AGENTS * FRAMES_OF_AGENT * POLLS * u64::from(SERIES);
    println!("{readings} readings in {} frames, {bytes} bytes", AGENTS * FRAMES_OF_AGENT);
    let (mut rates, mut of_cpu) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        let (taken, cpu, halves) = receive(&folder.path().join(run.to_string()), &messages, readings);
        let millions = readings as f64 / 1e6;
        println!(
            "run {run}: {taken:.1} s, {cpu:.1} CPU s, at most {:.0} and {:.0} MiB resident in the first and the second half",
            halves[0], halves[1]
        );
        rates.push(millions / taken);
        of_cpu.push(millions / cpu);
    }
    println!(
        "{:.2} million readings a second (at least {MILLION_READINGS_MIN}), {:.2} a CPU second",
        median(rates),
        median(of_cpu)
    );
}

/// Writes the frames of all agents in turn; says how many bytes they are.
fn write_messages(path: &Path) -> u64 {
    let mut file = fs::File::create(path).unwrap();
    let series: Vec<SeriesInfo> =
        (0..SERIES).map(|id| SeriesInfo { name: format!("meters/s{id}").into(), unit: Some("V".into()) }).collect();
    let mut values = vec![23_000_i64; SERIES as usize];
    let mut noise = 1_u64;
    for number in 0..FRAMES_OF_AGENT {
        for agent in 0..AGENTS {
            let records = records(number * POLLS, &mut values, &mut noise);
            let origin = Origin {
                agent: format!("gw-{agent}").into(),
                epoch: Epoch(agent + 1),
                stream: "raw".into(),
                class: "process".into(),
            };
            let first = number * records.len() as u64 + 1;
            let frame = seal(&origin, first, &records, &series, &[], Density::Dense).unwrap();
            for message in split(&frame, false, 1 << 20) {
                file.write_all(&message).unwrap();
            }
        }
    }
    file.metadata().unwrap().len()
}

/// Readings with one decimal place that wander.
fn records(from: u64, values: &mut [i64], noise: &mut u64) -> Vec<Record> {
    let mut records = Vec::new();
    for poll in from..from + POLLS {
        let time = Timestamp::from_nanos((START_NS + poll * 1_000_000_000).cast_signed());
        for (id, value) in (0..).zip(values.iter_mut()) {
            *noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *value += (*noise >> 61).cast_signed() - 3;
            let (quality, check, clock) = (Quality::Good, None, ClockState::Synced);
            let value = Value::Float(*value as f64 / 10.0);
            records.push(Record::Reading(Reading { series: SeriesId(id), time, value, quality, check, clock }));
        }
    }
    records
}

/// Seconds, seconds of CPU, and the most memory of both halves in MiB.
fn receive(folder: &Path, messages: &Path, readings: u64) -> (f64, f64, [f64; 2]) {
    let text = format!(
        "[receiver]\nstate_dir = {:?}\n[outputs.lake]\nkind = \"parquet\"\npath = {:?}\n",
        folder.join("state"),
        folder.join("lake")
    );
    let config = check(&Document::of_text("receiver.toml", &text)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let (figures, seen) = runtime.block_on(async {
        let reads = vec![(Arc::from("file"), Reads::File(messages.to_owned()))];
        let mut pipeline = Pipeline::start(&config, reads).unwrap();
        let mut seen = Vec::new();
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                ended = pipeline.sources_ended() => break ended.unwrap(),
                _ = look.tick() => seen.push(resident_mib()),
            }
        }
        (pipeline.stop().await.unwrap(), seen)
    });
    assert_eq!(figures.counts().records, readings);
    let (first, second) = seen.split_at(seen.len() / 2);
    let most = |seen: &[f64]| seen.iter().copied().fold(0.0, f64::max);
    (started.elapsed().as_secs_f64(), cpu_seconds() - cpu, [most(first), most(second)])
}

fn resident_mib() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
}

/// Of all threads of this process, those that have ended too.
fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
