//! Three receivers share ten agents by partition, and all of them and their broker are killed at random: each reading is in the Parquet files once, and what
//! the receivers report is true whenever they are asked.
//!
//! `RTLIVE_KILLS` says how often something is killed, `RTLIVE_SEED` in which order.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rtlive_core::message::{Item, Message, MessageReader};
use rtlive_tests::broker::Mosquitto;
use rtlive_tests::peer::{python, until_within};
use rtlive_tests::program::{Agent, Receiver, json_lines};
use serde_json::Value;

const AGENTS: usize = 10;

/// Which partitions of the sixteen each receiver has.
const PARTITIONS: [std::ops::Range<u32>; 3] = [0..5, 5..10, 10..16];

/// How often something is killed where nothing is said.
const KILLS: u64 = 12;

/// After how many kills the reports are held against the files.
const JUDGED_EVERY: u64 = 6;

/// How many lines two of the agents get at each kill, enough for a frame in parts, and all others.
const LINES: [u64; 2] = [1_000, 20];

/// Lines become a reading of each of two series.
const SERIES: u64 = 2;

/// A fleet on a machine with two cores that does other things too.
const PATIENCE: Duration = Duration::from_secs(300);

/// Numbers that look random, the same for a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }
}

/// An agent, the file that it reads, and how many lines that has.
struct Source {
    agent: Agent,
    path: PathBuf,
    lines: u64,
}

impl Source {
    fn append(&mut self, count: u64, dice: &mut Dice) {
        let text: String = (self.lines..self.lines + count)
            .map(|n| format!("{{\"t\":{},\"n\":{n},\"v\":{}}}\n", 1_767_225_600_000 + n * 10, dice.roll()))
            .collect();
        OpenOptions::new().append(true).open(&self.path).unwrap().write_all(text.as_bytes()).unwrap();
        self.lines += count;
    }
}

struct Fleet {
    python: PathBuf,
    lake: PathBuf,
    broker: Mosquitto,
    sources: Vec<Source>,
    receivers: Vec<Receiver>,
}

fn id(number: usize) -> String {
    format!("gw-{number}")
}

fn agent(folder: &Path, number: usize, broker: &Mosquitto) -> Source {
    let folder = folder.join(id(number));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("source.jsonl");
    fs::write(&path, "").unwrap();
    let configuration = format!(
        r##"
        [inputs.app]
        driver = "file"
        path = {path:?}
        format = "json"
        time = "/t"
        fields = [
            {{ series = "n", pointer = "/n", type = "i64" }},
            {{ series = "v", pointer = "/v", type = "i64" }},
        ]
        [streams.raw]
        select = "#"
        order = "newest"
        [uplink]
        broker = {:?}
        topic = "fleet/{{partition:16}}/{{agent}}/{{stream}}"
        delivery = "receiver"
        receipt_timeout = "3s"
        rate = "64 kbit/s"
        "##,
        broker.url()
    );
    let mut agent = Agent::named(&id(number), &folder, &configuration).unwrap();
    agent.start().unwrap();
    Source { agent, path, lines: 0 }
}

fn receiver(folder: &Path, number: usize, broker: &Mosquitto, lake: &Path) -> Receiver {
    let topics: Vec<String> = PARTITIONS[number].clone().map(|partition| format!("fleet/{partition}/#")).collect();
    let configuration = format!(
        "[sources.centre]\nkind = \"mqtt\"\nbroker = {:?}\ntopics = {topics:?}\nreceipts = true\n\
         [outputs.lake]\nkind = \"parquet\"\npath = {lake:?}\nevery = \"1s\"\n",
        broker.url()
    );
    let mut receiver = Receiver::new(&folder.join(format!("r{number}")), &configuration).unwrap();
    receiver.start().unwrap();
    receiver
}

impl Fleet {
    /// What the receivers say of the stream `raw` of all agents that they have heard of.
    fn reports(&self) -> BTreeMap<String, Value> {
        let mut reports = BTreeMap::new();
        for receiver in &self.receivers {
            let output = receiver.run(&["completeness", "--json"]).unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            for report in json_lines(&output.stdout).unwrap().into_iter().filter(|report| report["stream"] == "raw") {
                let agent = report["agent"].as_str().unwrap().to_owned();
                let twice = reports.insert(agent, report);
                assert!(twice.is_none(), "two receivers have the agent of {twice:?}");
            }
        }
        reports
    }

    /// The numbers and the values of each agent that readers find.
    fn found(&self) -> Value {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("receiver/rows.py");
        let output = Command::new(&self.python).arg(script).arg(&self.lake).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Kills the broker and all receivers, asks for reports, and lets the receivers write what they have: it is what they reported, and nothing else.
    fn judge(&mut self) {
        self.broker.kill();
        self.receivers.iter_mut().for_each(Receiver::kill);
        let reports = self.reports();
        for receiver in &self.receivers {
            let output = receiver.run(&["read", "/dev/null"]).unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let found = self.found();
        for (agent, report) in &reports {
            let numbers: Vec<u64> = serde_json::from_value(found[agent]["seq"].clone()).unwrap_or_default();
            let distinct: BTreeSet<u64> = numbers.iter().copied().collect();
            assert_eq!(distinct.len(), numbers.len(), "{agent}: numbers stand there twice");
            assert_eq!(here(report), distinct, "{report}");
        }
        for receiver in &mut self.receivers {
            receiver.start().unwrap();
        }
        self.broker.restart().unwrap();
    }
}

/// The numbers that a report says are here.
fn here(report: &Value) -> BTreeSet<u64> {
    assert_eq!((&report["gaps"], &report["unannounced"]), (&Value::Array(vec![]), &Value::Array(vec![])), "{report}");
    let missing: BTreeSet<u64> = report["missing"].as_array().unwrap().iter().flat_map(numbers).collect();
    let last = report["records"].as_u64().unwrap() + missing.len() as u64;
    (1..=last).filter(|number| !missing.contains(number)).collect()
}

fn numbers(hole: &Value) -> std::ops::RangeInclusive<u64> {
    hole["from"].as_u64().unwrap()..=hole["to"].as_u64().unwrap()
}

/// How many messages in a file are parts of longer frames.
fn parts(messages: &Path) -> usize {
    let mut reader = MessageReader::default();
    reader.feed(&fs::read(messages).unwrap());
    let mut parts = 0;
    while let Some(Ok(item)) = reader.next_item() {
        if let Item::Message(bytes) = item {
            parts += usize::from(Message::parse(&bytes).unwrap().count > 1);
        }
    }
    parts
}

#[test]
fn each_reading_is_there_once_whatever_is_killed() {
    let Some(python) = python(&["pyarrow.parquet"]) else { return };
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let kills = number("RTLIVE_KILLS").unwrap_or(KILLS);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("RTLIVE_SEED").unwrap_or(u64::from(now.subsec_nanos()));
    eprintln!("RTLIVE_SEED={seed} RTLIVE_KILLS={kills}");
    let mut dice = Dice(seed);

    let folder = tempfile::tempdir().unwrap();
    let (folder, lake, messages) = (folder.path(), folder.path().join("lake"), folder.path().join("messages"));
    let kept = folder.join("broker");
    let lines = format!(
        "persistence true\npersistence_location {}/\nautosave_interval 1\nmax_queued_messages 0\n",
        kept.display()
    );
    let Some(broker) = Mosquitto::start(&kept, &lines).unwrap() else { return };
    let Some(_subscriber) = broker.subscribe("fleet/#", "judge", &messages).unwrap() else { return };
    let receivers: Vec<Receiver> =
        (0..PARTITIONS.len()).map(|number| receiver(folder, number, &broker, &lake)).collect();
    let is_connected = |receiver: &Receiver| receiver.log().is_ok_and(|log| log.contains("connected to"));
    until_within(PATIENCE, "all receivers are connected", || receivers.iter().all(is_connected));
    let sources = (0..AGENTS).map(|number| agent(folder, number, &broker)).collect();
    let mut fleet = Fleet { python, lake, broker, sources, receivers };

    let mut records: BTreeMap<String, u64> = BTreeMap::new();
    for kill in 1..=kills {
        let busy = [dice.below(AGENTS as u64), dice.below(AGENTS as u64)];
        for (number, source) in (0..).zip(&mut fleet.sources) {
            source.append(LINES[usize::from(!busy.contains(&number))], &mut dice);
        }
        thread::sleep(Duration::from_millis(dice.below(1_500)));
        let pause = Duration::from_millis(dice.below(500));
        match dice.below(3) {
            0 => {
                fleet.broker.kill();
                thread::sleep(pause);
                fleet.broker.restart().unwrap();
            }
            1 => {
                let victim = dice.below(PARTITIONS.len() as u64) as usize;
                fleet.receivers[victim].kill();
                thread::sleep(pause);
                fleet.receivers[victim].start().unwrap();
            }
            _ => {
                let victim = dice.below(AGENTS as u64) as usize;
                fleet.sources[victim].agent.kill();
                thread::sleep(pause);
                fleet.sources[victim].agent.start().unwrap();
            }
        }
        // What was told as here is never taken back, and nobody tells of more than there is.
        for (agent, report) in fleet.reports() {
            let told = report["records"].as_u64().unwrap();
            let before = records.insert(agent, told).unwrap_or(0);
            assert!(told >= before, "{before} records were here before: {report}");
        }
        if kill % JUDGED_EVERY == 0 {
            fleet.judge();
        }
    }
    until_within(PATIENCE, "all of it is reported as complete", || {
        let reports = fleet.reports();
        (0..).zip(&fleet.sources).all(|(number, source)| {
            let Some(report) = reports.get(&id(number)) else { return false };
            assert!(report["records"].as_u64() <= Some(SERIES * source.lines), "{report}");
            report["state"] == "complete" && report["records"].as_u64() == Some(SERIES * source.lines)
        })
    });
    fleet.judge();
    let found = fleet.found();
    for (number, source) in (0..).zip(&fleet.sources) {
        let values: Vec<u64> = serde_json::from_value(found[id(number)]["n"].clone()).unwrap();
        assert!(values.iter().copied().eq(0..source.lines), "gw-{number}: not each value once, in order: {values:?}");
    }
    assert!(parts(&messages) > 0, "no frame came in parts");
}
