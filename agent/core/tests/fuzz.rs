//! The short form of fuzzing: the entries of tests/fuzz/ over mutations of what is right, the same ones in every run.
//!
//! `RTLIVE_FUZZ_RUNS` says how many for each entry.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../../tests/fuzz/entries.rs"]
mod entries;
mod samples;

use rtlive_core::frame::{Density, seal};
use rtlive_core::message::split;
use samples::samples;

/// A few seconds, without optimisation.
const RUNS: usize = 3_000;

/// What is right: frames, messages, lines, texts.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for sample in samples() {
        for density in [Density::Fast, Density::Normal] {
            let frame =
                seal(&sample.origin, sample.first, &sample.records, &sample.series, &sample.compute, density).unwrap();
            seeds.push(split(&frame, true, 256).collect::<Vec<_>>().concat());
            seeds.push(frame);
        }
    }
    let lines = [
        r#"{"series":"boiler/temperature","time":"2026-01-01T00:00:00.250Z","value":21.5}"#,
        r#"{"series":"a/\u00e4","time":1767225600250,"value":"\"x\"","unit":"Cel","quality":"bad"}"#,
        "rtlive/{agent}/{1}/{{x}}/{partition:16}",
        "t > 90 and not pump or abs(prev(t) - t) / rate(t) >= 1.5e-3",
        "if(pump == 'on', min(t, 3), clamp(t, -1, 1)) % 2",
        "meters/+/voltage/#",
        "p99.9",
    ];
    seeds.extend(lines.map(|line| line.as_bytes().to_vec()));
    seeds
}

/// A sequence that looks like noise and is the same everywhere (a linear congruential generator, Knuth's MMIX constants).
struct Noise(u64);

impl Noise {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound.max(1)
    }

    /// One of what fuzzers do: a bit, a byte, a stretch less, twice, or of another seed.
    fn mutate(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(bytes.len());
        let length = self.below(16.min(bytes.len() - at)) + 1;
        let end = (at + length).min(bytes.len());
        match self.below(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
            1 if !bytes.is_empty() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, self.below(256) as u8][self.below(6)],
            2 => drop(bytes.drain(at..end)),
            3 => {
                let stretch = bytes[at..end].to_vec();
                bytes.splice(at..at, stretch);
            }
            4 => {
                let from = self.below(other.len());
                let stretch = other[from..(from + length).min(other.len())].to_vec();
                bytes.splice(at..end, stretch);
            }
            _ => bytes.truncate(at),
        }
    }
}

#[test]
fn mutations_break_no_promise() {
    let seeds = seeds();
    for seed in &seeds {
        entries::ALL.iter().for_each(|(_, entry)| entry(seed));
    }
    let runs = std::env::var("RTLIVE_FUZZ_RUNS").map_or(RUNS, |runs| runs.parse().unwrap());
    for (place, (name, entry)) in entries::ALL.into_iter().enumerate() {
        let mut noise = Noise(place as u64);
        for run in 0..runs {
            let mut bytes = seeds[noise.below(seeds.len())].clone();
            for _ in 0..=noise.below(4) {
                let other = &seeds[noise.below(seeds.len())];
                noise.mutate(&mut bytes, other);
            }
            let outcome = std::panic::catch_unwind(|| entry(&bytes));
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(outcome.is_ok(), "{name}, run {run}: {hex}");
        }
    }
}
