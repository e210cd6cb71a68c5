//! How many readings a second of CPU takes through `rtlive replay`, from JSON lines to JSON lines.
//!
//! `cargo bench -p rtlive-tests --bench replay`: 1,000 series at 1 Hz over 3,000 s under one window of 10 s; the median of five runs.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use rtlive_tests::program::rtlive;
use rtlive_tests::usage::{median, wait_with_cpu};

const SERIES: u64 = 1_000;
const SECONDS: u64 = 3_000;
const RUNS: usize = 5;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let (configuration, readings) = (folder.path().join("rtlive.toml"), folder.path().join("readings.jsonl"));
    std::fs::write(&configuration, "[windows.ten]\nselect = [\"#\"]\nevery = \"10s\"\n").unwrap();
    write(&readings);
    let bytes = std::fs::metadata(&readings).unwrap().len();
    let rates = (0..RUNS).map(|_| {
        let mut command = Command::new(rtlive());
        command.arg("-c").arg(&configuration).arg("replay").arg(&readings).stdout(Stdio::null());
        let (status, seconds) = wait_with_cpu(&mut command.spawn().unwrap()).unwrap();
        assert!(status.success());
        (SERIES * SECONDS) as f64 / seconds
    });
    println!(
        "replay: {:.2} million readings per CPU second, {} bytes a line, {SERIES} series, one window of 10 s",
        median(rates.collect()) / 1e6,
        bytes / (SERIES * SECONDS)
    );
}

fn write(path: &Path) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    for second in 0..SECONDS {
        let time = 1_767_225_600_000 + second * 1_000;
        for series in 0..SERIES {
            let value = 20.0 + ((second * 31 + series * 7_919) % 1_000) as f64 / 100.0;
            writeln!(file, "{{\"series\":\"plant/s{series}\",\"time\":{time},\"value\":{value}}}").unwrap();
        }
    }
    file.flush().unwrap();
}
