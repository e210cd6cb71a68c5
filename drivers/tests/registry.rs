//! What holds for every driver of the registry: its name, its example, its documentation, and that no bytes can harm it.
//!
//! A folder `golden/<driver>/<case>` holds `config.toml`, the bytes of a source in `input`, and in `expected.jsonl` the readings, as
//! `rtlive try --from` prints them, and what was rejected. A new case is a new folder; `RTLIVE_BLESS=1` writes what is expected anew.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;
use rtlive_config::markdown::reference_markdown;
use rtlive_config::reference::Reference;
use rtlive_config::{Config, load};
use rtlive_core::json::{self, Origin};
use rtlive_core::reading::{ClockState, InputId, SeriesInfo};
use rtlive_core::record::Record;
use rtlive_core::time::Timestamp;
use rtlive_drivers::catalogue::Drivers;
use rtlive_drivers::input::{Driver, Input};
use rtlive_drivers::outlet::{Clock, Session, SessionParts, SharedHealth};
use rtlive_drivers::registry::{DRIVERS, driver_named};
use tokio::sync::{mpsc, watch};

/// What the clock shows in all of this.
const NOW: &str = "2026-01-01T12:00:00Z";

struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        NOW.parse().unwrap()
    }
}

/// Loads a configuration as the program does.
fn loaded(path: &Path) -> Config<Box<dyn Input>> {
    load(&[path.to_owned()], &Drivers).unwrap_or_else(|mistakes| panic!("{}: {mistakes}", path.display()))
}

/// The example of a driver, loaded.
fn example(driver: &Driver) -> Config<Box<dyn Input>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("example.toml");
    fs::write(&path, format!("[agent]\nid = \"test\"\n\n{}", driver.example)).unwrap();
    loaded(&path)
}

/// What came of some bytes.
#[derive(Debug, Default, PartialEq)]
struct Decoded {
    lines: Vec<String>,
    rejected: BTreeMap<String, u64>,
}

/// Decodes the bytes, cut into pieces of these lengths, again and again; `None` for a driver that cannot.
fn decode(config: &Config<Box<dyn Input>>, bytes: &[u8], cuts: &[usize]) -> Option<Decoded> {
    let input = &config.inputs[0];
    let mut decoder = input.input.decoder()?;
    let mut session = Session::new(SessionParts {
        input: InputId(0),
        name: Arc::clone(&input.name),
        agent: "test".into(),
        prefix: Arc::clone(&input.prefix),
        round: None,
        clock: Arc::new(Stopped),
        deliveries: mpsc::channel(1).0,
        committed: watch::channel(0).1,
        stop: watch::channel(false).1,
        held: None,
        health: SharedHealth::default(),
        state: BTreeMap::new(),
        trace: None,
    });
    let mut cuts = cuts.iter().cycle();
    let mut rest = bytes;
    let mut decoded = Decoded::default();
    let mut series: Vec<SeriesInfo> = Vec::new();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
        rest = after;
        decoder.take(piece, &mut session);
        let Some(delivery) = session.take(session.now(), false) else { continue };
        series.extend(delivery.declared.into_iter().map(|declared| declared.info));
        for mut reading in delivery.batch.readings {
            // As the engine does while the clock is trusted.
            reading.clock = ClockState::Synced;
            let origin = Origin { agent: "test", epoch: "try", stream: "raw", class: "process", historical: false };
            let mut line = Vec::new();
            let number = decoded.lines.len() as u64 + 1;
            json::write_record(&mut line, &origin, number, &Record::Reading(reading), &series, &[]);
            decoded.lines.push(String::from_utf8(line).unwrap());
        }
        for rejected in delivery.batch.rejected {
            *decoded.rejected.entry(rejected.reason.to_string()).or_default() += rejected.count;
        }
    }
    Some(decoded)
}

/// The golden folders.
fn cases() -> Vec<PathBuf> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let folders = |path: &Path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let mut cases: Vec<PathBuf> = folders(&golden).iter().flat_map(|driver| folders(driver)).collect();
    cases.sort();
    cases
}

#[test]
fn names_are_words_of_their_own_in_order() {
    let names: Vec<&str> = DRIVERS.iter().map(|driver| driver.name).collect();
    assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
    for driver in DRIVERS {
        assert!(driver.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()), "{}", driver.name);
        assert_eq!(driver_named(driver.name).map(|found| found.name), Some(driver.name));
        let summary = driver.summary;
        assert!(!summary.is_empty() && !summary.contains('\n') && !summary.ends_with('.'), "{summary}");
    }
}

#[test]
fn every_example_is_a_configuration_of_its_driver() {
    for driver in DRIVERS {
        let config = example(driver);
        assert_eq!(config.inputs.len(), 1, "{}", driver.name);
        assert_eq!(config.inputs[0].driver, driver.name);
        assert!(driver.example.starts_with("[") && driver.example.ends_with('\n'), "to be redirected: {}", driver.name);
        assert!(config.warnings.iter().all(|warning| !warning.key.starts_with("inputs")), "{:?}", config.warnings);
    }
}

#[test]
fn every_option_is_documented_and_named_once() {
    fn look(driver: &str, reference: &Reference) {
        assert!(!reference.doc.trim().is_empty(), "{driver}");
        let mut names = BTreeSet::new();
        for key in &reference.keys {
            let doc = key.doc.trim();
            assert!(doc.ends_with('.') || doc.ends_with(')'), "{driver}: {}: {doc:?} is no sentence", key.name);
            assert!(names.insert(key.name), "{driver}: {} stands twice", key.name);
            for (word, doc) in &key.choices {
                assert!(doc.ends_with('.'), "{driver}: {} = {word:?}: {doc:?} is no sentence", key.name);
            }
            if let Some(table) = &key.table {
                look(driver, table);
            }
        }
    }
    for driver in DRIVERS {
        look(driver.name, &(driver.options)());
    }
}

/// docs/configuration.md, with the part of the drivers. `RTLIVE_BLESS=1` writes it anew.
#[test]
fn the_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let expected = reference_markdown(&Drivers);
    if std::env::var_os("RTLIVE_BLESS").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let is_same = fs::read_to_string(&path).unwrap() == expected;
    assert!(
        is_same,
        "docs/configuration.md differs from the options: RTLIVE_BLESS=1 cargo test -p rtlive-drivers --test registry"
    );
}

#[test]
fn golden_cases_give_what_is_expected() {
    let mut missing: BTreeSet<&str> = DRIVERS
        .iter()
        .filter(|driver| decode(&example(driver), b"", &[1]).is_some())
        .map(|driver| driver.name)
        .collect();
    for case in cases() {
        let config = loaded(&case.join("config.toml"));
        missing.remove(config.inputs[0].driver.as_str());
        let bytes = fs::read(case.join("input")).unwrap();
        let decoded = decode(&config, &bytes, &[bytes.len()]).unwrap();
        let rejected =
            decoded.rejected.iter().map(|(reason, count)| format!("{{\"rejected\":\"{reason}\",\"count\":{count}}}"));
        let found: String = decoded.lines.iter().cloned().chain(rejected).map(|line| line + "\n").collect();
        let path = case.join("expected.jsonl");
        if std::env::var_os("RTLIVE_BLESS").is_some() {
            fs::write(&path, &found).unwrap();
        }
        assert_eq!(found, fs::read_to_string(&path).unwrap_or_default(), "{}", case.display());
    }
    assert!(missing.is_empty(), "drivers that decode need a golden case: {missing:?}");
}

/// A golden case, somewhat damaged: the bytes at these places are others.
fn damaged() -> impl Strategy<Value = (PathBuf, Vec<u8>)> {
    let case = prop::sample::select(cases());
    (case, prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8)).prop_map(|(case, damages)| {
        let mut bytes = fs::read(case.join("input")).unwrap();
        for (place, byte) in damages {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        (case, bytes)
    })
}

/// Any byte, but more often one that means something.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![any::<u8>(), prop::sample::select(b"\n\r$!*,;:{}[]\"\\.-0123456789AGNSTkg".to_vec())]
}

proptest! {
    #[test]
    fn any_cut_of_a_damaged_stream_gives_the_same_readings(
        (case, bytes) in damaged(),
        cuts in prop::collection::vec(1_usize..100, 1..20),
    ) {
        let config = loaded(&case.join("config.toml"));
        prop_assert_eq!(decode(&config, &bytes, &cuts), decode(&config, &bytes, &[bytes.len()]));
    }

    #[test]
    fn no_bytes_harm_a_decoder(bytes in prop::collection::vec(byte(), 1..500), cut in 1_usize..100) {
        for case in cases() {
            let config = loaded(&case.join("config.toml"));
            prop_assert!(decode(&config, &bytes, &[cut]).is_some());
        }
    }
}
