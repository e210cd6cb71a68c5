//! An hour of a gateway whose link is gone, on the smallest disk that anyone would use, with inputs at full speed. The engine and the store are the
//! agent's own; the clock is moved by hand.
//!
//! `RTLIVE_SECONDS=n` lets n seconds pass instead of [`SECONDS`]; tests/power/hour makes it an hour. For nine tenths of the time, from the first tenth
//! on, the disk fails in its way.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rtlive::command::Config;
use rtlive::message::{Bounds, LinkHint, Wanted};
use rtlive::recovery;
use rtlive::stage::Stage;
use rtlive::store::{Boot, Keeper, MEMORY_BYTES_MAX, Options};
use rtlive_core::event::{Batch, Declared};
use rtlive_core::frame;
use rtlive_core::reading::{ClockState, InputId, Quality, Reading, SeriesId, SeriesInfo, Value};
use rtlive_core::record::{Epoch, Record};
use rtlive_core::time::Timestamp;
use rtlive_drivers::catalogue::Drivers;
use rtlive_drivers::outlet::Delivery;
use rtlive_tests::tmpfs::Tmpfs;

use crate::disk::{Disk, Failure};
use crate::mount::Mount;

/// How large the disk is; the store may take half of it.
const DISK_BYTES: u64 = 8 << 20;
const STORE_BYTES: u64 = DISK_BYTES / 2;

/// How long it is tried in every run of the tests.
const SECONDS: u64 = 60;

const SERIES: u32 = 100;

/// How many readings a source hands over at once.
const READINGS: u32 = 1_000;

const CONFIGURATION: &str = r##"
    [agent]
    id = "hour"
    clock = "trusted"
    state_dir = "{state}"
    [inputs.plant]
    driver = "simulated"
    series = 100
    every = "1s"
    [streams.raw]
    select = "#"
    [windows.ten_seconds]
    select = "#"
    every = "10s"
    [windows.minute]
    select = "#"
    every = "1m"
    [ladders.plant]
    levels = ["raw", "ten_seconds", "minute"]
"##;

/// The stages of an agent that its clock moves.
struct Gateway {
    store: Keeper,
    stage: Stage,
    declared: Vec<Declared>,
    second: u64,
    deliveries: u64,
    wants_snapshot: bool,
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_nanos(1_767_225_600_000_000_000).saturating_add(Duration::from_secs(second))
}

/// The course of a day, and noise that no coding makes small.
fn value(second: u64, number: u32) -> f64 {
    let seed = (second << 20 | u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let noise = (seed ^ (seed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 52;
    (20.0 + 5.0 * (second as f64 / 86_400.0 * std::f64::consts::TAU).sin()) + noise as f64 / 1_000.0
}

impl Gateway {
    fn start(folder: &Path) -> Self {
        let configuration = folder.join("rtlive.toml");
        let state = folder.join("state");
        fs::write(&configuration, CONFIGURATION.replace("{state}", state.to_str().unwrap())).unwrap();
        let config: Config =
            rtlive_config::load(&[configuration], &Drivers).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let boot = Boot { id: "hour".into(), now: at(0), random: 1 };
        let bounds = Bounds { bytes: config.store.max_bytes, age: config.store.max_age };
        let options = Options { bounds, ..Options::new(state) };
        let (mut store, recovered) = Keeper::open(&options, boot).unwrap();
        let (stage, _) = recovery::restore(&mut store, recovered, &config.plan, |_| (at(0), None)).unwrap();
        store.hint(LinkHint::default());
        let series = |number| {
            let info = SeriesInfo { name: format!("plant/s{number}").into(), unit: None };
            Declared { input: InputId(0), source: "".into(), info }
        };
        let declared = (0..SERIES).map(series).collect();
        Self { store, stage, declared, second: 0, deliveries: 0, wants_snapshot: false }
    }

    /// A second in which as much is read as there is room for, and its commit.
    fn pass_second(&mut self) {
        self.second += 1;
        let now = at(self.second);
        let mut first = 0;
        while self.stage.has_room() {
            let reading = |number: u32| Reading {
                series: SeriesId(number % SERIES),
                time: now.saturating_sub(Duration::from_millis(999 - u64::from(number / SERIES % 1_000))),
                value: Value::Float(value(self.second, number)),
                quality: Quality::Good,
                check: None,
                clock: ClockState::Synced,
            };
            let readings = (first..first + READINGS).map(reading).collect();
            first += READINGS;
            self.deliveries += 1;
            let (input, number, urgent, ahead) = (InputId(0), self.deliveries, false, 0);
            let (declared, state, outage) = (std::mem::take(&mut self.declared), Vec::new(), None);
            let batch = Batch { input, arrival: now, readings, rejected: Vec::new() };
            self.stage.deliver(now, Delivery { input, number, declared, batch, state, outage, urgent, ahead });
        }
        self.stage.tick(now);
        let commit = self.stage.cut(now, self.wants_snapshot).unwrap();
        self.wants_snapshot = self.store.commit(commit).unwrap().wants_snapshot;
        self.stage.committed();
        self.store.vacuum().unwrap();
        self.check();
    }

    /// The ledger closes, and memory keeps its own bound.
    fn check(&self) {
        let status = self.store.status().unwrap();
        assert_eq!(status.check(), Vec::<String>::new(), "second {}", self.second);
        let open: Vec<String> = self.stage.engine().ledger().check().iter().map(ToString::to_string).collect();
        assert_eq!(open, Vec::<String>::new(), "second {}", self.second);
        let stored: u64 = status.streams.values().map(|account| account.stored_bytes).sum();
        assert!(status.memory.is_none() || stored <= MEMORY_BYTES_MAX + MEMORY_BYTES_MAX / 16, "{stored}");
    }

    /// The link comes, and everything is sent: each number that was given is a record, or lies in a gap.
    fn come_home(&mut self) -> String {
        self.store.hint(LinkHint { connected: true, congested: false });
        let (mut seen, mut gone) = (BTreeMap::new(), BTreeMap::new());
        loop {
            while let Some(stored) = self.store.take(&Wanted::default()).unwrap() {
                let (header, contents) = frame::open(&stored.bytes).unwrap();
                let lane = (header.origin.epoch, stored.stream.clone());
                *seen.entry(lane).or_insert(0) += contents.records.len() as u64;
                for record in contents.records {
                    if let Record::Gap(gap) = record {
                        let lane: (Epoch, std::sync::Arc<str>) = (gap.epoch.unwrap(), gap.stream.clone());
                        *gone.entry(lane).or_insert(0) += gap.records();
                    }
                }
                self.store.acknowledge(&[stored.id]);
            }
            self.second += 1;
            self.wants_snapshot = true;
            let now = at(self.second);
            self.stage.tick(now);
            match self.stage.cut(now, true) {
                Some(commit) => drop(self.store.commit(commit).unwrap()),
                None => self.store.flush(now).unwrap(),
            }
            self.stage.committed();
            let status = self.store.status().unwrap();
            if status.streams.values().all(|account| account.stored == 0) && !self.store.wants_flush(now) {
                break;
            }
        }
        self.check();
        let status = self.store.status().unwrap();
        let sum = |of: &BTreeMap<(Epoch, std::sync::Arc<str>), u64>, name: &str| {
            of.iter().filter(|((_, stream), _)| **stream == *name).map(|(_, count)| count).sum::<u64>()
        };
        for (key, account) in &status.streams {
            assert_eq!(sum(&gone, &key.stream), account.in_gaps, "{key:?}");
            assert_eq!(sum(&seen, &key.stream), account.acknowledged, "{key:?}");
        }
        let raw = status.streams.iter().find(|(key, _)| &*key.stream == "raw").unwrap().1;
        format!("{} readings numbered, {} in gaps, {} delivered", raw.numbered, raw.in_gaps, raw.acknowledged)
    }
}

fn seconds() -> u64 {
    std::env::var("RTLIVE_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(SECONDS)
}

/// What du(1) says of a folder.
fn du(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries.map(|entry| entry.metadata().map_or(0, |file| file.blocks() * 512)).sum()
}

/// The folder of a gateway, with the disk's place in it.
fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    (folder, state)
}

#[test]
fn an_hour_at_full_speed_stays_within_the_bound() {
    let (folder, state) = folder();
    let Some(_tmpfs) = Tmpfs::mount(&state, DISK_BYTES).unwrap() else { return };
    let mut gateway = Gateway::start(folder.path());
    let mut most = 0;
    while gateway.second < seconds() {
        gateway.pass_second();
        most = most.max(du(&state));
        assert!(most <= STORE_BYTES, "second {}: {most}", gateway.second);
        assert!(!gateway.store.is_in_memory());
    }
    let told = gateway.come_home();
    eprintln!("{} seconds: {told}, at most {most} bytes of {STORE_BYTES}", seconds());
    gateway.store.close().unwrap();
}

#[test]
fn an_hour_on_a_disk_that_fails_stays_within_the_bound() {
    std::thread::scope(|scope| {
        for failure in [Failure::ReadOnly, Failure::Full, Failure::Syncs] {
            scope.spawn(move || fails_for_an_hour(failure));
        }
    });
}

fn fails_for_an_hour(failure: Failure) {
    let (folder, state) = folder();
    let Some(mount) = Mount::show(&state, Disk::new(DISK_BYTES)).unwrap() else { return };
    let mut gateway = Gateway::start(folder.path());
    let begins = seconds() / 10;
    while gateway.second < seconds() {
        if gateway.second == begins {
            mount.disk().failure = failure;
        }
        gateway.pass_second();
        let most = mount.disk().used_max;
        assert!(most <= STORE_BYTES, "{failure:?}, second {}: {most}", gateway.second);
        assert_eq!(gateway.store.is_in_memory(), gateway.second > begins, "{failure:?}, second {}", gateway.second);
    }
    mount.disk().failure = Failure::None;
    let until = gateway.second + 30;
    while gateway.second < until {
        gateway.wants_snapshot |= gateway.store.is_in_memory();
        gateway.pass_second();
    }
    assert!(!gateway.store.is_in_memory(), "{failure:?}");
    let told = gateway.come_home();
    let most = mount.disk().used_max;
    assert!(most <= STORE_BYTES, "{failure:?}: {most}");
    eprintln!("{failure:?} for {} seconds: {told}, at most {most} bytes of {STORE_BYTES}", seconds() - begins);
    gateway.store.close().unwrap();
}
