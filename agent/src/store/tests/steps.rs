//! A process that is killed before each step that it takes with the store, and then once more before each step of the start that follows.
//!
//! The process is this very test, run again with a folder to work in and the number of the step; it kills itself, so that nothing is closed,
//! rolled back or written on the way. What it committed and what it delivered it notes in files, each before it goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use rtlive_core::record::Epoch;

use super::*;
use crate::store::{FILE_NAME, Faults};

/// Every step of opening, of a commit with all that rides in it, and of the time between commits.
const STEPS: [&str; 17] = [
    "open the store",
    "make the tables",
    "count the replay",
    "begin a commit",
    "delete frames",
    "write the epoch",
    "write a frame",
    "write the journal",
    "write a snapshot",
    "delete old snapshots",
    "delete the old journal",
    "commit",
    "go on after a commit",
    "leave a mark",
    "read a frame",
    "free pages",
    "close the store",
];

/// Every further step of a salvage.
const STEPS_OF_A_SALVAGE: [&str; 6] = [
    "begin a salvage",
    "end a salvage",
    "move the damaged store aside",
    "move a file aside",
    "forget that the store was condemned",
    "name the salvaged store",
];

/// Where the process finds what to do: `folder step work second`.
const TASK: &str = "RTLIVE_STEPS_TASK";

/// What a process does with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// It commits, seals, delivers, deletes, frees pages, and closes.
    Usual,
    /// It opens, commits once, and closes.
    Start,
}

/// What happened before the process ended.
enum Ended {
    Finished,
    Killed(String),
}

/// Runs a process on a folder that is killed before a step.
fn process(folder: &Path, step: usize, work: Work, second: i64) -> Ended {
    let _ = fs::remove_file(folder.join("step"));
    let task = format!("{} {step} {work:?} {second}", folder.display());
    let test = ["--exact", "store::tests::steps::the_process", "--ignored"];
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(test).env(TASK, task).stdin(Stdio::null()).output().unwrap();
    if output.status.success() {
        return Ended::Finished;
    }
    let killed_before = fs::read_to_string(folder.join("step"));
    Ended::Killed(killed_before.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stdout))))
}

#[test]
#[ignore = "the process that the other tests kill"]
fn the_process() {
    let Ok(task) = std::env::var(TASK) else { return };
    let mut words = task.split(' ');
    let mut word = || words.next().unwrap();
    let (folder, step) = (PathBuf::from(word()), word().parse::<usize>().unwrap());
    let (work, second) = (word().to_owned(), word().parse().unwrap());
    let reached = AtomicUsize::new(0);
    let note = folder.clone();
    let faults = Faults::new(move |name| {
        if reached.fetch_add(1, Ordering::Relaxed) == step {
            fs::write(note.join("step"), name).unwrap();
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
        }
        None
    });
    if work == format!("{:?}", Work::Usual) { usual(&folder, faults, second) } else { start(&folder, faults, second) }
}

fn open_with(folder: &Path, faults: Faults, second: i64) -> Store {
    // A start that follows in time is one of another boot now and then.
    let boot = Boot { id: format!("boot {}", second / 250), now: at(second), random: second.cast_unsigned() + 1 };
    let options = Options { faults, ..Options::new(folder.to_owned()) };
    let (mut store, recovered) = Store::open(&options, boot).unwrap();
    if recovered.snapshot.is_some() {
        let emitted = recovered.commits.iter().map(|events| emitted(events)).collect();
        store.resume(series(), emitted).unwrap();
    }
    store
}

fn note(folder: &Path, file: &str, line: &str) {
    let mut file = File::options().append(true).create(true).open(folder.join(file)).unwrap();
    writeln!(file, "{line}").unwrap();
}

/// Commits three values that were never there before, and notes them.
fn commit_noted(store: &mut Store, folder: &Path, second: i64, with_snapshot: bool) {
    let values: Vec<_> = (0..3).map(|stream| (stream, second * 3 + i64::try_from(stream).unwrap())).collect();
    store.commit(commit(second, &values, with_snapshot)).unwrap();
    values.iter().for_each(|(_, value)| note(folder, "committed", &value.to_string()));
}

fn usual(folder: &Path, faults: Faults, second: i64) {
    let mut store = open_with(folder, faults, second);
    store.hint(CONNECTED);
    for round in 0..5 {
        commit_noted(&mut store, folder, second + round, round % 3 == 0);
        if round % 2 == 1 {
            for _ in 0..2 {
                let Some(frame) = store.take(&[]).unwrap() else { break };
                note_delivered(folder, &frame);
                store.acknowledge(&[frame.id]);
            }
        }
    }
    store.flush(at(second + 9)).unwrap();
    let _ = store.file.vacuum(0, 0).unwrap();
    store.close().unwrap();
}

fn start(folder: &Path, faults: Faults, second: i64) {
    let mut store = open_with(folder, faults, second);
    commit_noted(&mut store, folder, second, true);
    store.close().unwrap();
}

fn note_delivered(folder: &Path, frame: &StoredFrame) {
    let bytes: String = frame.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    note(folder, "delivered", &bytes);
}

type Lane = (Epoch, String);

/// What is delivered and stored: each number with its value, or with `None` where it is no reading.
fn all(folder: &Path, store: &mut Store) -> BTreeMap<(Lane, u64), Option<i64>> {
    let mut all: BTreeMap<(Lane, u64), Option<i64>> = BTreeMap::new();
    let mut whole: BTreeMap<(Lane, u64), Vec<u8>> = BTreeMap::new();
    let delivered = fs::read_to_string(folder.join("delivered")).unwrap_or_default();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    let delivered = delivered.lines().map(|line| line.as_bytes().chunks(2).map(byte).collect());
    let stored: Vec<_> = frames(store).into_iter().map(|frame| frame.bytes.to_vec()).collect();
    for bytes in delivered.chain(stored) {
        let bytes: Vec<u8> = bytes;
        let (header, contents) = frame::open(&bytes).unwrap();
        let lane = (header.origin.epoch, header.origin.stream.to_string());
        let known = whole.entry((lane.clone(), header.first)).or_insert_with(|| bytes.clone());
        assert!(*known == bytes, "{lane:?} {}: two frames with one number", header.first);
        for (number, record) in (header.first..).zip(&contents.records) {
            let value = match record {
                Record::Reading(Reading { value: Value::Int(value), .. }) => Some(*value),
                Record::Gap(gap) => panic!("nothing had to go, and yet there is {gap:?}"),
                _ => None,
            };
            let before = all.insert((lane.clone(), number), value);
            assert!(before.is_none_or(|before| before == value), "{lane:?} {number} is {before:?} and {value:?}");
        }
    }
    all
}

/// Opens the store as the next process would, and looks at everything.
fn look(folder: &Path, second: i64) {
    let mut store = open_with(folder, Faults::default(), second);
    commit_noted(&mut store, folder, second, true);
    let all = all(folder, &mut store);
    let mut times: BTreeMap<i64, usize> = BTreeMap::new();
    all.values().flatten().for_each(|value| *times.entry(*value).or_default() += 1);
    let committed = fs::read_to_string(folder.join("committed")).unwrap_or_default();
    for value in committed.lines().map(|line| line.parse::<i64>().unwrap()) {
        assert!(times.contains_key(&value), "{value} was committed, and is gone");
    }
    assert!(times.values().all(|times| *times == 1), "some values have two numbers: {times:?}");
    let mut lanes: BTreeMap<&Lane, BTreeSet<u64>> = BTreeMap::new();
    for (lane, number) in all.keys() {
        lanes.entry(lane).or_default().insert(*number);
    }
    for (lane, numbers) in lanes {
        assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "{lane:?}: {numbers:?}");
    }
    assert_eq!(store.status().unwrap().check(), Vec::<String>::new());
}

/// The steps that were killed before, told where a test fails.
struct Pair(usize, usize);

impl Drop for Pair {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("killed before step {} and step {} of the start", self.0, self.1);
        }
    }
}

/// Kills the work at every step, then the start that follows at every step of its own, and looks each time; `prepare` makes the folder that the work
/// finds. Says which steps there were.
fn every_pair(work: Work, prepare: impl Fn(&Path)) -> BTreeSet<String> {
    let mut seen = BTreeSet::new();
    let prepared = folder();
    prepare(prepared.path());
    for first in 0.. {
        let mut is_over = false;
        for second in 0.. {
            let _pair = Pair(first, second);
            let folder = super::folder();
            for entry in fs::read_dir(prepared.path()).unwrap() {
                let entry = entry.unwrap();
                fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
            }
            match process(folder.path(), first, work, 100) {
                Ended::Finished => is_over = true,
                Ended::Killed(step) => drop(seen.insert(step)),
            }
            // Within the boot, or in another one.
            let next = if first % 2 == 0 { 200 } else { 300 };
            match process(folder.path(), second, Work::Start, next) {
                Ended::Finished => {
                    look(folder.path(), 400);
                    break;
                }
                Ended::Killed(step) => drop(seen.insert(step)),
            }
            look(folder.path(), 400);
        }
        if is_over {
            break;
        }
    }
    seen
}

fn expect_all(seen: &BTreeSet<String>, steps: &[&str]) {
    let missing: Vec<_> = steps.iter().filter(|step| !seen.contains(**step)).collect();
    assert!(missing.is_empty(), "nothing was killed before {missing:?}, only before {seen:?}");
}

#[test]
fn a_process_may_be_killed_before_every_step_and_again_in_the_start_that_follows() {
    expect_all(&every_pair(Work::Usual, |_| {}), &STEPS);
}

#[test]
fn a_salvage_may_be_killed_before_every_step_and_again_in_the_one_that_follows() {
    let seen = every_pair(Work::Start, |folder| {
        usual(folder, Faults::default(), 0);
        let file = File::options().write(true).open(folder.join(FILE_NAME)).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"no SQLite", 0).unwrap();
    });
    expect_all(&seen, &STEPS_OF_A_SALVAGE);
}

#[test]
fn the_salvage_of_a_store_that_was_condemned_in_use_may_be_killed_likewise() {
    let seen = every_pair(Work::Start, |folder| {
        usual(folder, Faults::default(), 0);
        fs::write(folder.join("store.condemned"), "").unwrap();
    });
    expect_all(&seen, &STEPS_OF_A_SALVAGE);
}
