//! The agent on a disk that is full for a while, and on one that cannot be written when it starts: a small file system of its own.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use rtlive_tests::broker::Mosquitto;
use rtlive_tests::peer::{Peer, until};
use rtlive_tests::program::{Agent, decode};
use rtlive_tests::tmpfs::Tmpfs;
use serde_json::Value;
use tempfile::TempDir;

/// The smallest disk that anyone would use.
const DISK_BYTES: u64 = 8 << 20;

/// Takes all the room that there is.
fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("filler");
    let mut file = fs::File::create(&path).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    path
}

fn configuration(broker: &Mosquitto, log: &Path) -> String {
    format!(
        r##"
        [store]
        commit_every = "100ms"
        [inputs.n]
        driver = "simulated"
        waveform = "counter"
        every = "20ms"
        [inputs.log]
        driver = "file"
        path = {log:?}
        every = "100ms"
        format = "json"
        fields = [{{ series = "v", pointer = "/v", type = "i64" }}]
        [streams.raw]
        select = "#"
        [uplink]
        broker = {:?}
        "##,
        broker.url()
    )
}

/// An agent whose store has a disk of its own, between a log and a broker. What is first here ends first.
struct Bench {
    agent: Agent,
    disk: Tmpfs,
    state: PathBuf,
    log: PathBuf,
    messages: PathBuf,
    _subscriber: Peer,
    _broker: Mosquitto,
    _folder: TempDir,
}

impl Bench {
    /// The agent runs, and has read and sent ten lines; `None` where something for it is missing.
    fn set_up() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let broker = Mosquitto::start(&folder.path().join("broker"), "").unwrap()?;
        let messages = folder.path().join("messages");
        let subscriber = broker.subscribe("rtlive/#", "judge", &messages).unwrap()?;
        let log = folder.path().join("app.log");
        let mut agent = Agent::new(&folder.path().join("agent"), &configuration(&broker, &log)).unwrap();
        let state = folder.path().join("agent/state");
        let disk = Tmpfs::mount(&state, DISK_BYTES).unwrap()?;
        append(&log, 0..10);
        agent.start().unwrap();
        until("the first lines are read", || arrived(&messages, "log").len() == 10);
        Some(Self { agent, disk, state, log, messages, _subscriber: subscriber, _broker: broker, _folder: folder })
    }
}

fn append(log: &Path, numbers: std::ops::Range<i64>) {
    let mut file = fs::File::options().append(true).create(true).open(log).unwrap();
    numbers.for_each(|number| writeln!(file, "{{\"v\":{number}}}").unwrap());
}

/// What has arrived of a series, each (epoch, number) once.
fn arrived(messages: &Path, input: &str) -> Vec<i64> {
    let mut seen = BTreeSet::new();
    let records = decode(messages).unwrap_or_default();
    let is_new = |record: &&Value| seen.insert((record["epoch"].to_string(), record["seq"].to_string()));
    let raw = records.iter().filter(|record| record["stream"] == "raw").filter(is_new);
    let of_input = raw.filter(|record| record["series"].as_str().unwrap().starts_with(input));
    of_input.map(|record| record["value"].as_f64().unwrap() as i64).collect()
}

fn reasons(messages: &Path) -> BTreeSet<String> {
    let records = decode(messages).unwrap_or_default();
    let starts = records.iter().filter_map(|record| record["epoch_start"]["reason"].as_str());
    starts.map(str::to_owned).collect()
}

#[test]
fn a_disk_that_is_full_for_a_while_loses_nothing() {
    let Some(mut bench) = Bench::set_up() else { return };
    let Bench { agent, state, log, messages, .. } = &mut bench;

    let filler = fill(state);
    let memory = || agent.status().unwrap_or_default()["store"]["memory"].clone();
    until("the store is in memory", || memory().is_object());
    assert!(memory()["why"].as_str().unwrap().contains("full"), "{}", memory());
    append(log, 10..20);
    let before = arrived(messages, "n").len();
    until("what cannot wait goes on", || arrived(messages, "n").len() > before + 50);
    // These can wait, and do.
    assert_eq!(arrived(messages, "log").len(), 10);

    fs::remove_file(filler).unwrap();
    until("the store is on the disk again", || memory().is_null());
    until("the other lines are read", || arrived(messages, "log").len() == 20);
    agent.kill();
    agent.start().unwrap();
    append(log, 20..30);
    until("all goes on after a restart", || arrived(messages, "log").len() == 30);
    let status = agent.status().unwrap();
    assert_eq!(status["ledger"]["closes"], true, "{status}");
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
    assert_eq!(arrived(messages, "log"), (0..30).collect::<Vec<_>>());
    let reasons = reasons(messages);
    assert!(reasons.contains("memory") && reasons.contains("after_memory"), "{reasons:?}");
    // It counts with the clock: nothing is missing but while no process ran, and nothing is there twice.
    let mut counted = arrived(messages, "n");
    counted.sort_unstable();
    let steps: BTreeSet<_> = counted.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let holes = counted.windows(2).filter(|pair| pair[1] - pair[0] != 1).count();
    assert!(counted.len() > 100 && holes <= 1, "{holes} holes, steps of {steps:?}");
}

#[test]
fn a_disk_that_cannot_be_written_at_the_start_is_used_once_it_can() {
    let Some(mut bench) = Bench::set_up() else { return };
    let Bench { agent, disk, log, messages, .. } = &mut bench;
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());

    disk.remount("ro").unwrap();
    append(log, 10..20);
    let before = arrived(messages, "n").len();
    agent.start().unwrap();
    until("what cannot wait goes on", || arrived(messages, "n").len() > before + 50);
    assert_eq!(arrived(messages, "log").len(), 10);
    assert!(agent.log().unwrap().contains("KEPT IN MEMORY"));
    disk.remount("rw").unwrap();
    until("the other lines are read, from where the disk says", || arrived(messages, "log").len() >= 20);
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
    assert_eq!(arrived(messages, "log"), (0..20).collect::<Vec<_>>());
    agent.start().unwrap();
    until("it answers", || agent.status().is_some_and(|status| status["store"]["memory"].is_null()));
    assert_eq!(agent.stop().unwrap(), Some(0), "{}", agent.log().unwrap());
    assert_eq!(arrived(messages, "log").len(), 20);
}
