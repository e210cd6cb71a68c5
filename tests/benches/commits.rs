//! What commits cost the disk: syncs and bytes written, beside a raw log and a writer of one row a commit.
//!
//! `cargo bench -p rtlive-tests --bench commits` runs the real engine and store over 1,500 commits, with every frame taken and acknowledged at once
//! and, in a second run, with a link that is gone; a bare SQLite writer that inserts the same readings as one row a commit; and a log that
//! appends them and calls fdatasync. Each with a commit a second and with one every ten; and the store once more at 100 readings a second.
//!
//! System calls are counted by strace(1), so that neither the machine's load nor its disk counts. The bytes are those handed to the kernel for
//! the file and its log. *Blocks* are the blocks of 4 KiB that they touch between two syncs: what a device is asked for at least, beside the file
//! system's own journal.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rtlive::message::{Bounds, LinkHint, Wanted};
use rtlive::recovery;
use rtlive::store::{Boot, Keeper, Options};
use rtlive_core::event::{Batch, Declared, Event};
use rtlive_core::journal::Chunk;
use rtlive_core::plan::Plan;
use rtlive_core::reading::{ClockState, InputId, Quality, Reading, SeriesId, SeriesInfo, Value};
use rtlive_core::time::Timestamp;
use rtlive_drivers::catalogue::Drivers;
use rtlive_drivers::outlet::Delivery;
use rtlive_tests::peer::installed;
use rusqlite::{Connection, params};

/// How many commits each run makes: opening and closing cost some ten syncs.
const COMMITS: u64 = 1_500;
const READINGS: u32 = 1_000;
const READINGS_OF_A_GATEWAY: u32 = 100;

/// What is aimed at.
const SYNCS_PER_COMMIT_MAX: f64 = 1.02;
const OF_THE_BARE_WRITER_MAX: f64 = 1.6;

/// What the store may take: the default.
const BYTES_MAX: u64 = 512 << 20;

const BLOCK_BYTES: u64 = 4096;

/// The argument by which this program is a writer; the writer's name, its folder, the readings a second and the seconds a commit follow.
const WRITER: &str = "--writer";

fn main() {
    let arguments: Vec<String> = std::env::args().skip_while(|argument| argument != WRITER).skip(1).collect();
    if let [writer, folder, readings, every] = &arguments[..] {
        let folder = Path::new(folder);
        let load = Load { readings: readings.parse().unwrap(), every: every.parse().unwrap() };
        return match writer.as_str() {
            "log" => log(folder, load),
            "bare" => bare(folder, load, 8192),
            "bare-small" => bare(folder, load, 1024),
            _ => store(folder, load, writer == "delivered"),
        };
    }
    let Some(strace) = installed("strace") else { return };
    for load in
        [(READINGS, 1), (READINGS, 10), (READINGS_OF_A_GATEWAY, 1)].map(|(readings, every)| Load { readings, every })
    {
        compare(&strace, load);
    }
}

/// What is written.
#[derive(Clone, Copy)]
struct Load {
    /// Readings a second, each of a series of its own.
    readings: u32,
    /// Seconds from commit to commit.
    every: u64,
}

fn compare(strace: &Path, load: Load) {
    let commits = COMMITS as f64;
    println!("{} readings a second, a commit every {} s, {COMMITS} commits", load.readings, load.every);
    println!(
        "                       syncs    bytes  × bare   blocks  × bare   B a reading   GB a day   to the log, to the file"
    );
    let writers = [
        ("a log", "log"),
        ("a row, pages of 8192", "bare"),
        ("a row, pages of 1024", "bare-small"),
        ("store, all delivered", "delivered"),
        ("store, link gone", "stored"),
    ];
    let written = writers.map(|(name, writer)| (name, count(strace, writer, load)));
    let bare = &written[1].1;
    let ratio = |of: u64, to: u64| of as f64 / to as f64;
    for (name, it) in &written {
        println!(
            "{name:22} {:6.3} {:8.0} {:6.2} × {:8.0} {:6.2} × {:13.2} {:10.2}   {:.0}, {:.0}",
            it.syncs as f64 / commits,
            it.bytes as f64 / commits,
            ratio(it.bytes, bare.bytes),
            it.blocks as f64 / commits,
            ratio(it.blocks, bare.blocks),
            it.blocks as f64 / (COMMITS * load.every * u64::from(load.readings)) as f64,
            it.blocks as f64 / (COMMITS * load.every) as f64 * 86_400.0 / 1e9,
            it.to_log as f64 / commits,
            (it.bytes - it.to_log) as f64 / commits,
        );
    }
    let stores = &written[3..];
    let syncs = stores.iter().map(|(_, it)| it.syncs).max().unwrap_or_default() as f64 / commits;
    let most = stores.iter().map(|(_, it)| ratio(it.blocks, bare.blocks).max(ratio(it.bytes, bare.bytes)));
    let most = most.fold(0.0, f64::max);
    let held = |holds: bool| if holds { "holds" } else { "DOES NOT HOLD" };
    println!("at most {SYNCS_PER_COMMIT_MAX} syncs a commit: {}", held(syncs <= SYNCS_PER_COMMIT_MAX));
    println!("at most {OF_THE_BARE_WRITER_MAX} × the bare writer: {}\n", held(most <= OF_THE_BARE_WRITER_MAX));
}

/// What a writer asked of the kernel.
#[derive(Default)]
struct Written {
    syncs: u64,
    bytes: u64,
    /// Those of the bytes that go to SQLite's log.
    to_log: u64,
    /// The bytes of the blocks that are touched between two syncs of a file.
    blocks: u64,
}

fn count(strace: &Path, writer: &str, load: Load) -> Written {
    // Not on a file system in memory, where a sync is nothing.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let trace = folder.path().join("trace");
    let mut command = Command::new(strace);
    command.args(["-f", "-y", "-s", "0", "-qq", "-e", "trace=fsync,fdatasync,pwrite64", "-e", "signal=none", "-o"]);
    command.arg(&trace).arg(std::env::current_exe().unwrap()).args([WRITER, writer]).arg(folder.path().join("state"));
    command.args([load.readings.to_string(), load.every.to_string()]);
    assert!(command.stdout(Stdio::null()).status().unwrap().success());
    let mut written = Written::default();
    let mut touched: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
    for line in std::fs::read_to_string(&trace).unwrap().lines() {
        // 4711 pwrite64(5</folder/store.db-wal>, ""..., 24, 32) = 24
        let Some((call, rest)) = line.split_once('(') else { continue };
        let Some((file, rest)) = rest.split_once('<').and_then(|(_, rest)| rest.split_once('>')) else { continue };
        if call.ends_with("pwrite64") {
            let mut numbers =
                rest.split([',', ')']).rev().skip(1).map_while(|number| number.trim().parse::<u64>().ok());
            let (Some(offset), Some(length)) = (numbers.next(), numbers.next()) else { panic!("{line}") };
            written.bytes += length;
            written.to_log += if file.ends_with("-wal") { length } else { 0 };
            let blocks = offset / BLOCK_BYTES..=(offset + length - 1) / BLOCK_BYTES;
            touched.entry(file.to_owned()).or_default().extend(blocks);
        } else {
            written.syncs += 1;
            written.blocks += touched.remove(file).map_or(0, |blocks| blocks.len() as u64 * BLOCK_BYTES);
        }
    }
    written
}

/// The bytes of each commit, as a chunk of the journal.
fn chunks(load: Load) -> impl Iterator<Item = (u64, Vec<u8>)> {
    (1..=COMMITS).map(move |number| {
        let seconds = (number - 1) * load.every..number * load.every;
        let events = seconds.map(|second| (at(second), Event::Batch(batch(second, load)))).collect();
        (number, Chunk { number, at: at(number * load.every), events, ..Chunk::default() }.encode(&[]).unwrap())
    })
}

/// A file to which each commit is appended.
fn log(folder: &Path, load: Load) {
    std::fs::create_dir_all(folder).unwrap();
    let file = std::fs::File::create(folder.join("log")).unwrap();
    let mut end = 0;
    for (_, bytes) in chunks(load) {
        file.write_all_at(&bytes, end).unwrap();
        file.sync_data().unwrap();
        end += bytes.len() as u64;
    }
}

/// One row a commit with the same readings, in the same mode.
fn bare(folder: &Path, load: Load, page_bytes: i64) {
    std::fs::create_dir_all(folder).unwrap();
    let connection = Connection::open(folder.join("bare.db")).unwrap();
    connection.pragma_update(None, "page_size", page_bytes).unwrap();
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
    connection.pragma_update(None, "synchronous", "FULL").unwrap();
    connection.execute_batch("CREATE TABLE rows (number INTEGER PRIMARY KEY, bytes BLOB NOT NULL)").unwrap();
    for (number, bytes) in chunks(load) {
        connection.execute("INSERT INTO rows VALUES (?1, ?2)", params![number.cast_signed(), bytes]).unwrap();
    }
}

/// The engine and the store, as the agent runs them.
fn store(folder: &Path, load: Load, is_delivered: bool) {
    std::fs::create_dir_all(folder).unwrap();
    let plan = plan(folder);
    let boot = Boot { id: "bench".into(), now: at(0), random: 1 };
    let (mut store, recovered) = Keeper::open(&Options::new(folder.to_owned()), boot).unwrap();
    let (mut stage, _) = recovery::restore(&mut store, recovered, &plan, |_| (at(0), None)).unwrap();
    store.bound(Bounds { bytes: BYTES_MAX, ..Bounds::NONE }).unwrap();
    store.hint(LinkHint { connected: is_delivered, congested: false });
    let mut declared: Vec<Declared> = (0..load.readings).map(series).collect();
    let mut wants_snapshot = false;
    for second in 0..COMMITS * load.every {
        let declared = std::mem::take(&mut declared);
        let (input, number) = (InputId(0), second + 1);
        let delivery = Delivery {
            input,
            number,
            declared,
            batch: batch(second, load),
            state: Vec::new(),
            outage: None,
            urgent: false,
            ahead: 0,
        };
        stage.deliver(at(second), delivery);
        if !number.is_multiple_of(load.every) {
            continue;
        }
        let commit = stage.cut(at(second), wants_snapshot).unwrap();
        wants_snapshot = store.commit(commit).unwrap().wants_snapshot;
        stage.committed();
        while is_delivered && let Some(frame) = store.take(&Wanted::default()).unwrap() {
            store.acknowledge(&[frame.id]);
        }
    }
    store.close().unwrap();
}

fn plan(folder: &Path) -> Arc<Plan> {
    let configuration = folder.join("rtlive.toml");
    let text = "[inputs.plant]\ndriver = \"simulated\"\n[streams.raw]\nselect = [\"#\"]\n[windows.ten]\nselect = [\"#\"]\nevery = \"10s\"\n";
    std::fs::write(&configuration, text).unwrap();
    rtlive_config::load(&[configuration], &Drivers).unwrap_or_else(|mistakes| panic!("{mistakes}")).plan
}

fn series(number: u32) -> Declared {
    let info = SeriesInfo { name: format!("plant/s{number}").into(), unit: None };
    Declared { input: InputId(0), source: "".into(), info }
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_nanos(1_767_225_600_000_000_000).saturating_add(Duration::from_secs(second))
}

fn batch(second: u64, load: Load) -> Batch {
    let readings = (0..load.readings).map(|number| {
        let value = 20.0 + ((second * 31 + u64::from(number) * 7_919) % 1_000) as f64 / 100.0;
        let time = at(second);
        let (quality, check, clock) = (Quality::Good, None, ClockState::Synced);
        Reading { series: SeriesId(number), time, value: Value::Float(value), quality, check, clock }
    });
    Batch { input: InputId(0), arrival: at(second), readings: readings.collect(), rejected: Vec::new() }
}
