//! A long backlog: how soon the agent starts with it, what it costs to send it, and whether commits wait while it is purged.
//!
//! `cargo bench -p rtlive-tests --bench backlog` fills a store with 64 MiB of frames (`RTLIVE_BACKLOG_MIB` says otherwise: 1024 takes minutes) and
//! prints
//! - the time from the start of the agent to its store's first answer,
//! - readings per CPU second of the whole agent while it sends all of them to a local mosquitto and deletes them, and its resident memory then,
//! - the time that commits of 1,000 readings take: beside an fdatasync alone, with the backlog, while its bound is lowered to a quarter, and while
//!   the room is given back to the file system. A step of the vacuum counts as a part of the commit that had to wait for it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rtlive::command::Config;
use rtlive::message::{Bounds, LinkHint};
use rtlive::pipeline::Pipeline;
use rtlive::recovery;
use rtlive::stage::Stage;
use rtlive::store::{Boot, Keeper, Options};
use rtlive_core::event::{Batch, Declared};
use rtlive_core::reading::{ClockState, InputId, Quality, Reading, SeriesId, SeriesInfo, Value};
use rtlive_core::time::Timestamp;
use rtlive_drivers::catalogue::Drivers;
use rtlive_drivers::outlet::Delivery;
use rtlive_tests::broker::Mosquitto;
use rtlive_tests::usage::{cpu_seconds, memory_mib};

/// How many readings a commit of the backlog has: each becomes a frame, sealed `Fast` because there are so many.
const READINGS_PER_FRAME: u32 = 20_000;
const READINGS_PER_COMMIT: u32 = 1_000;
const SERIES: u32 = 1_000;
const COMMITS: usize = 300;

/// What is aimed at.
const START_S_MAX: f64 = 1.0;
const DRAIN_MIN: f64 = 5.0;
const STALL_MS_MAX: f64 = 100.0;

/// The argument by which this program is one of its parts; the part's name and the configuration follow.
const PART: &str = "--part";

fn main() {
    let arguments: Vec<String> = std::env::args().skip_while(|argument| argument != PART).skip(1).collect();
    if let [part, configuration] = &arguments[..] {
        let configuration = Path::new(configuration);
        return match part.as_str() {
            "fill" => fill(configuration),
            "commit" => commit(configuration),
            _ => drain(configuration),
        };
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let Some(centre) = Mosquitto::start(&folder.path().join("centre"), "").unwrap() else { return };
    // What nobody subscribed to is not delivered, and would stay.
    let Some(_subscriber) = centre.subscribe("rtlive/#", "judge", Path::new("/dev/null")).unwrap() else { return };
    let configure = |name: &str| {
        let state = folder.path().join(name);
        let configuration = folder.path().join(format!("{name}.toml"));
        let text = format!(
            "[agent]\nid = \"bench\"\nclock = \"trusted\"\nstate_dir = {state:?}\n[store]\nmax_bytes = \"4 GiB\"\nmax_age = \"9000d\"\n\
             [inputs.plant]\ndriver = \"simulated\"\nseries = 1\nevery = \"1s\"\n[streams.raw]\nselect = [\"#\"]\n\
             [uplink]\nbroker = \"{}\"\n",
            centre.url()
        );
        fs::write(&configuration, text).unwrap();
        (state, configuration)
    };
    let (state, configuration) = configure("state");
    part("fill", &configuration);
    let (other, other_configuration) = configure("other");
    fs::create_dir_all(&other).unwrap();
    fs::copy(state.join("store.db"), other.join("store.db")).unwrap();
    part("commit", &other_configuration);
    fs::remove_dir_all(&other).unwrap();
    part("drain", &configuration);
}

fn part(name: &str, configuration: &Path) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([PART, name]).arg(configuration).stdin(Stdio::null());
    assert!(command.status().unwrap().success(), "{name}");
}

fn load(configuration: &Path) -> Config {
    rtlive_config::load(&[PathBuf::from(configuration)], &Drivers).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

/// The store and the engine, with the number of the last delivery and the second that comes next.
struct Source {
    store: Keeper,
    stage: Stage,
    declared: Vec<Declared>,
    second: u64,
    wants_snapshot: bool,
}

impl Source {
    fn open(configuration: &Path, second: u64) -> Self {
        let config = load(configuration);
        let boot = Boot { id: "bench".into(), now: at(second), random: 1 };
        let bounds = Bounds { bytes: config.store.max_bytes, age: config.store.max_age };
        let options = Options { bounds, ..Options::new(config.agent.state_dir.clone()) };
        let (mut store, recovered) = Keeper::open(&options, boot).unwrap();
        let (stage, _) = recovery::restore(&mut store, recovered, &config.plan, |_| (at(second), None)).unwrap();
        store.hint(LinkHint { connected: true, congested: false });
        let series = |number| {
            let info = SeriesInfo { name: format!("plant/s{number}").into(), unit: None };
            Declared { input: InputId(0), source: "".into(), info }
        };
        Self { store, stage, declared: (0..SERIES).map(series).collect(), second, wants_snapshot: false }
    }

    /// Takes readings and commits them; says how long the commit took.
    fn commit(&mut self, readings: u32) -> Duration {
        let now = at(self.second);
        let delivery = Delivery {
            input: InputId(0),
            number: self.second,
            declared: std::mem::take(&mut self.declared),
            batch: batch(self.second, readings),
            state: Vec::new(),
            outage: None,
            urgent: false,
            ahead: 0,
        };
        self.second += 1;
        self.stage.deliver(now, delivery);
        let commit = self.stage.cut(now, self.wants_snapshot).unwrap();
        let begun = Instant::now();
        self.wants_snapshot = self.store.commit(commit).unwrap().wants_snapshot;
        let took = begun.elapsed();
        self.stage.committed();
        took
    }

    fn stored_bytes(&self) -> u64 {
        self.store.status().unwrap().streams.values().map(|account| account.stored_bytes).sum()
    }
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_nanos(1_767_225_600_000_000_000).saturating_add(Duration::from_secs(second))
}

/// Of each reading the last two decimals are noise, as those of a sensor are: ten bits that no coding saves.
fn batch(second: u64, readings: u32) -> Batch {
    let readings = (0..readings).map(|number| {
        let mixed = (second << 32 | u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let value =
            20.0 + ((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) as u32 as f64 % 1_000.0 / 100.0;
        let time = at(second).saturating_add(Duration::from_millis(u64::from(number / SERIES)));
        let (quality, check, clock) = (Quality::Good, None, ClockState::Synced);
        Reading { series: SeriesId(number % SERIES), time, value: Value::Float(value), quality, check, clock }
    });
    Batch { input: InputId(0), arrival: at(second), readings: readings.collect(), rejected: Vec::new() }
}

fn fill(configuration: &Path) {
    let mib: u64 = std::env::var("RTLIVE_BACKLOG_MIB").ok().and_then(|mib| mib.parse().ok()).unwrap_or(64);
    let mut source = Source::open(configuration, 1);
    while !source.second.is_multiple_of(64) || source.stored_bytes() < mib << 20 {
        source.commit(READINGS_PER_FRAME);
    }
    let records: u64 = source.store.status().unwrap().streams.values().map(|account| account.stored).sum();
    println!("{mib} MiB of frames, {:.1} million readings", records as f64 / 1e6);
    source.store.close().unwrap();
}

fn commit(configuration: &Path) {
    let mut source = Source::open(configuration, 1 << 24);
    let folder = configuration.parent().unwrap();
    let mut file = fs::File::create(folder.join("raw")).unwrap();
    let raw = (0..COMMITS).map(|_| {
        let begun = Instant::now();
        file.write_all(&[7; 4096]).unwrap();
        file.sync_data().unwrap();
        begun.elapsed()
    });
    tell("an fdatasync", raw.collect());
    tell("a commit", (0..COMMITS).map(|_| source.commit(READINGS_PER_COMMIT)).collect());
    let before = source.stored_bytes();
    source.store.bound(Bounds { bytes: before / 4, ..Bounds::NONE }).unwrap();
    let purged = (0..COMMITS).map(|_| source.commit(READINGS_PER_COMMIT)).collect();
    tell(&format!("… while {} MiB are purged", (before - source.stored_bytes()) >> 20), purged);
    let file = source.store.status().unwrap().bytes;
    let vacuumed = (0..COMMITS).map(|_| {
        let begun = Instant::now();
        source.store.vacuum().unwrap();
        begun.elapsed() + source.commit(READINGS_PER_COMMIT)
    });
    let vacuumed = vacuumed.collect();
    tell(
        &format!("… while {} MiB are given back", file.saturating_sub(source.store.status().unwrap().bytes) >> 20),
        vacuumed,
    );
    source.store.close().unwrap();
}

fn tell(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let ms = |part: f64| took[((took.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    let holds = if ms(0.99) <= STALL_MS_MAX { "" } else { ": MORE THAN ASKED FOR" };
    println!("{what}: p50 {:.2} ms, p99 {:.2} ms, at most {:.1} ms{holds}", ms(0.5), ms(0.99), ms(1.0));
}

#[tokio::main(flavor = "current_thread")]
async fn drain(configuration: &Path) {
    let config = load(configuration);
    let begun = Instant::now();
    let pipeline = Pipeline::start(config).unwrap();
    let first = pipeline.store.status().await.unwrap();
    let start = begun.elapsed().as_secs_f64();
    println!("start: {start:.3} s (at most {START_S_MAX})");
    let id = std::process::id();
    let cpu = cpu_seconds(id).unwrap();
    let waiting =
        |status: &rtlive::message::StoreStatus| status.streams.values().map(|it| it.stored_bytes).sum::<u64>();
    let sent = |status: &rtlive::message::StoreStatus| status.streams.values().map(|it| it.acknowledged).sum::<u64>();
    let all = waiting(&first);
    let mut early = None;
    let last = loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let status = pipeline.store.status().await.unwrap();
        if early.is_none() && waiting(&status) < all / 10 * 9 {
            early = Some(memory_mib(id, "VmRSS").unwrap());
        }
        if waiting(&status) < all / 100 {
            break status;
        }
    };
    let cpu = cpu_seconds(id).unwrap() - cpu;
    let readings = (sent(&last) - sent(&first)) as f64 / 1e6;
    println!(
        "drain: {readings:.1} million readings in {cpu:.2} CPU s: {:.1} million a CPU second (at least {DRAIN_MIN}); in {:.1} s; \
         resident {:.1} MiB with nine tenths to go, {:.1} MiB at the end, {:.1} MiB at most",
        readings / cpu,
        begun.elapsed().as_secs_f64(),
        early.unwrap_or(f64::NAN),
        memory_mib(id, "VmRSS").unwrap(),
        memory_mib(id, "VmHWM").unwrap()
    );
    pipeline.stop().await.unwrap();
}
