//! The decoder against captures of real receivers, and what an independent program made of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value as Json;

use super::*;
use crate::rig::{checked, session, shared};

/// Half a centimetre on the ground, and the agreement that is asked for: 10⁻⁷ degrees.
const DEGREES: f64 = 1e-7;
/// The expected speeds have three decimals.
const SPEED: f64 = 6e-4;

/// What a decoder has made of the bytes it got.
struct Decoded {
    decoder: Box<dyn Decoder>,
    session: Session,
    health: crate::outlet::SharedHealth,
    names: Vec<String>,
    readings: Vec<(String, Timestamp, rtlive_core::reading::Value)>,
    rejected: BTreeMap<String, u64>,
}

impl Decoded {
    fn new(options: &str) -> Self {
        let input = checked(&DRIVER, &format!("port = '/dev/null'\n{options}")).unwrap().input;
        let (session, _, _, _, health) = session(BTreeMap::new());
        let decoder = input.decoder().unwrap();
        Self { decoder, session, health, names: Vec::new(), readings: Vec::new(), rejected: BTreeMap::new() }
    }

    fn of(options: &str, bytes: &[u8]) -> Self {
        let mut decoded = Self::new(options);
        decoded.take(bytes);
        decoded
    }

    fn take(&mut self, bytes: &[u8]) {
        self.decoder.take(bytes, &mut self.session);
        let Some(delivery) = self.session.take(self.session.now(), false) else { return };
        self.names.extend(delivery.declared.into_iter().map(|declared| declared.info.name.to_string()));
        for reading in delivery.batch.readings {
            self.readings.push((self.names[reading.series.index()].clone(), reading.time, reading.value));
        }
        for rejected in delivery.batch.rejected {
            *self.rejected.entry(rejected.reason.to_string()).or_default() += rejected.count;
        }
    }

    fn last(&self, series: &str) -> Option<f64> {
        let found = self.readings.iter().rev().find(|(name, ..)| name == &format!("in/{series}"));
        found.and_then(|(_, _, value)| value.as_number())
    }

    fn rejected(&self, reason: &str) -> u64 {
        self.rejected.get(reason).copied().unwrap_or(0)
    }

    /// Those that are right, of both kinds.
    fn sentences(&self) -> u64 {
        let counters = &self.health.lock().unwrap().counters;
        ["sentences", "ais_sentences"].iter().filter_map(|counter| counters.get(counter)).sum()
    }
}

/// The captures of a folder with what was counted in them.
fn captures(folder: &Path) -> Vec<(String, Vec<u8>, Json)> {
    let stats: Json = serde_json::from_slice(&fs::read(folder.join("line_stats.json")).unwrap()).unwrap();
    let stats = stats.as_object().unwrap().clone();
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    stats.into_iter().map(|(name, stats)| (name.clone(), read(&name), stats)).collect()
}

#[test]
fn sentences_of_every_capture_are_counted_right() {
    for folder in ["nmea", "nmea-bad", "ais"] {
        let Some(folder) = shared(folder) else { return };
        for (name, mut bytes, stats) in captures(&folder) {
            // What the end of the file cuts off was counted as a line; here it is none before its end has come.
            if !bytes.ends_with(b"\n") {
                bytes.push(b'\n');
            }
            let decoded = Decoded::of("", &bytes);
            let count = |key: &str| stats[key].as_u64().unwrap();
            // One line holds a whole sentence behind bytes of another baud rate, which the expected reports know too.
            let behind_noise = u64::from(name == "ublox-8.log");
            assert_eq!(decoded.sentences(), count("sentences_checksum_ok") + behind_noise, "{name}");
            assert_eq!(decoded.rejected("bad_checksum"), count("sentences_checksum_bad"), "{name}");
            assert_eq!(decoded.rejected("no_checksum"), count("sentences_without_checksum"), "{name}");
            assert_eq!(decoded.rejected("not_nmea"), count("comment_lines") + count("other_lines"), "{name}");
        }
    }
}

/// The expected file echoes the sentences, and behind them stand the reports that were made of them. After each report of a position
/// the newest of ours must be the same. Behind a sentence without speed the other program reports one that it derived itself
/// from positions, and it takes altitudes from PGRMZ, a barometer: those are not compared.
#[test]
fn positions_altitudes_speeds_and_courses_of_every_capture_are_right() {
    let Some(folder) = shared("nmea") else { return };
    let mut compared: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, ..) in captures(&folder) {
        let mut decoded = Decoded::new("");
        let mut sentence = String::new();
        let expected = fs::read(folder.join(format!("{name}.chk"))).unwrap();
        for line in expected.split_inclusive(|byte| *byte == b'\n') {
            if !line.starts_with(b"{") {
                decoded.take(line);
                sentence = String::from_utf8_lossy(line).into_owned();
                continue;
            }
            let report: Json = serde_json::from_slice(line).unwrap();
            let tells_speed = ["RMC", "VTG"].contains(&sentence.get(3..6).unwrap_or_default());
            for (key, series, tolerance, is_told) in [
                ("lat", "latitude", DEGREES, true),
                ("lon", "longitude", DEGREES, true),
                ("altMSL", "altitude", 1e-4, !sentence.starts_with("$PGRMZ")),
                ("speed", "speed", SPEED, tells_speed),
                ("track", "course", 1e-4, tells_speed),
            ] {
                let Some(expected) = report[key].as_f64().filter(|_| is_told && report["class"] == "TPV") else {
                    continue;
                };
                let found = decoded.last(series);
                let is_near = found.is_some_and(|found| (found - expected).abs() <= tolerance);
                assert!(is_near, "{name}: {series} is {found:?}, expected {expected} behind {sentence}");
                *compared.entry(series).or_default() += 1;
            }
        }
    }
    println!("compared: {compared:?}");
    assert!(compared.len() == 5 && compared.values().all(|count| *count > 300), "{compared:?}");
}

#[test]
fn any_cut_of_the_stream_gives_the_same_readings() {
    let Some(folder) = shared("nmea-bad") else { return };
    let bytes = fs::read(folder.join("pygpsdata-nmea4.log")).unwrap();
    let values = |decoded: &Decoded| -> Vec<_> {
        decoded.readings.iter().map(|(name, _, value)| (name.clone(), value.clone())).collect()
    };
    let whole = Decoded::of("", &bytes);
    assert_eq!(whole.readings.len(), SERIES.len() - 1, "all but a course: {:?}", whole.readings);
    for length in [1, 7, 82] {
        let mut decoded = Decoded::new("");
        bytes.chunks(length).for_each(|chunk| decoded.take(chunk));
        assert_eq!((values(&decoded), &decoded.rejected), (values(&whole), &whole.rejected));
    }
}

#[test]
fn the_receivers_time_of_day_lies_on_the_nearest_day() {
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let time_of_day = |hours: u64, minutes: u64| (hours * 60 + minutes) * 60_000_000_000;
    for (arrival, hours, minutes, expected) in [
        ("2026-01-01T12:00:00Z", 11, 59, "2026-01-01T11:59:00Z"),
        ("2026-01-01T00:00:01Z", 23, 59, "2025-12-31T23:59:00Z"),
        ("2025-12-31T23:59:59Z", 0, 0, "2026-01-01T00:00:00Z"),
        ("2026-01-01T12:00:00Z", 0, 0, "2026-01-01T00:00:00Z"),
    ] {
        assert_eq!(nearest(time_of_day(hours, minutes), at(arrival)), at(expected), "{arrival} {hours}:{minutes}");
    }
    let decoded = Decoded::of("time = 'receiver'\nchecksum_optional = true", b"$GPGLL,,,,,101112.5,A\n$GPVTG,1,T\n");
    let times: Vec<_> = decoded.readings.iter().map(|(_, time, _)| time.as_nanos() % 60_000_000_000).collect();
    assert_eq!(times, [12_500_000_000; 2], "also those of sentences without a time, in the same epoch");
}

#[test]
fn a_line_without_end_is_skipped_and_counted() {
    let mut bytes = vec![b'$'; 5000];
    bytes.extend_from_slice(b"\r\n$GPGLL,,,,,101112,V*04\r\n");
    let decoded = Decoded::of("", &bytes);
    assert_eq!(decoded.rejected, BTreeMap::from([("line_too_long".into(), 1)]));
    assert_eq!(decoded.last("fix"), Some(0.0));
}

#[test]
fn mistakes_in_the_options_are_named() {
    for (options, mistake) in [
        ("", "`port` or `tcp`"),
        ("port = '/dev/ttyS0'\ntime = 'gps'", "\"arrival\" or \"receiver\""),
        ("port = '/dev/ttyS0'\nbuad = 4800", "baud"),
    ] {
        let mistakes = checked(&DRIVER, options).err().unwrap();
        assert!(mistakes.contains(mistake), "{options}: {mistakes}");
    }
}
