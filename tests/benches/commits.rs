//! What a commit of 1,000 readings costs the disk: syncs and bytes written, beside a writer of one row a commit.
//!
//! `cargo bench -p rtlive-tests --bench commits` runs the real engine and store over 3,000 commits, with every frame taken and
//! acknowledged at once and, in a second run, with a link that is gone; and a bare SQLite writer that inserts the same readings as
//! one row a commit. System calls are counted by strace(1), so that neither the machine's load nor its disk counts. The bytes are those
//! handed to the kernel for the file, its log and the log's index.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rtlive::message::LinkHint;
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

const COMMITS: u64 = 3_000;
const READINGS: u32 = 1_000;
const SERIES: u32 = 1_000;

/// What the issue asks for.
const SYNCS_PER_COMMIT_MAX: f64 = 1.02;

/// The argument by which this program is a writer; the writer's name and its folder follow.
const WRITER: &str = "--writer";

fn main() {
    let mut arguments = std::env::args().skip_while(|argument| argument != WRITER).skip(1);
    if let (Some(writer), Some(folder)) = (arguments.next(), arguments.next()) {
        let folder = Path::new(&folder);
        return match writer.as_str() {
            "bare" => bare(folder),
            _ => store(folder, writer == "delivered"),
        };
    }
    let Some(strace) = installed("strace") else { return };
    println!("{COMMITS} commits of {READINGS} readings of {SERIES} series, one a second");
    let [bare, delivered, stored] = ["bare", "delivered", "stored"].map(|writer| count(&strace, writer));
    for (name, written) in
        [("one row a commit", &bare), ("store, all delivered", &delivered), ("store, link gone", &stored)]
    {
        println!(
            "{name:22} {:5.3} syncs and {:6.0} bytes a commit, {:.2} × the bare writer's bytes",
            written.syncs as f64 / COMMITS as f64,
            written.bytes as f64 / COMMITS as f64,
            written.bytes as f64 / bare.bytes as f64
        );
    }
    let syncs = delivered.syncs.max(stored.syncs) as f64 / COMMITS as f64;
    println!(
        "at most {SYNCS_PER_COMMIT_MAX} syncs a commit: {}",
        if syncs <= SYNCS_PER_COMMIT_MAX { "holds" } else { "DOES NOT HOLD" }
    );
}

/// What a writer asked of the kernel.
struct Written {
    syncs: u64,
    bytes: u64,
}

fn count(strace: &Path, writer: &str) -> Written {
    // Not on a file system in memory, where a sync is nothing.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let trace = folder.path().join("trace");
    let mut command = Command::new(strace);
    command.args(["-f", "-qq", "-e", "trace=fsync,fdatasync,pwrite64,write", "-e", "signal=none", "-o"]).arg(&trace);
    command.arg(std::env::current_exe().unwrap()).args([WRITER, writer]).arg(folder.path().join("state"));
    assert!(command.stdout(Stdio::null()).status().unwrap().success());
    let mut written = Written { syncs: 0, bytes: 0 };
    for line in std::fs::read_to_string(&trace).unwrap().lines() {
        let call = line.split_once(' ').map_or(line, |(_, call)| call.trim_start());
        if call.starts_with("fsync(") || call.starts_with("fdatasync(") {
            written.syncs += 1;
        } else if call.starts_with("pwrite64(") {
            written.bytes += line.rsplit(" = ").next().and_then(|bytes| bytes.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    written
}

/// One row a commit with the same readings, in the same mode.
fn bare(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let connection = Connection::open(folder.join("bare.db")).unwrap();
    connection.pragma_update(None, "page_size", 8192).unwrap();
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
    connection.pragma_update(None, "synchronous", "FULL").unwrap();
    connection.execute_batch("CREATE TABLE rows (number INTEGER PRIMARY KEY, bytes BLOB NOT NULL)").unwrap();
    for second in 0..COMMITS {
        let events = vec![(at(second), Event::Batch(batch(second)))];
        let bytes = Chunk { number: second, at: at(second), events, ..Chunk::default() }.encode().unwrap();
        connection.execute("INSERT INTO rows VALUES (?1, ?2)", params![second.cast_signed(), bytes]).unwrap();
    }
}

/// The engine and the store, as the agent runs them.
fn store(folder: &Path, is_delivered: bool) {
    std::fs::create_dir_all(folder).unwrap();
    let plan = plan(folder);
    let boot = Boot { id: "bench".into(), now: at(0), random: 1 };
    let (mut store, recovered) = Keeper::open(&Options::new(folder.to_owned()), boot).unwrap();
    let (mut stage, _) = recovery::restore(&mut store, recovered, &plan, |_| (at(0), None)).unwrap();
    store.hint(LinkHint { connected: is_delivered, congested: false });
    let mut declared: Vec<Declared> = (0..SERIES).map(series).collect();
    let mut wants_snapshot = false;
    for second in 0..COMMITS {
        let declared = std::mem::take(&mut declared);
        let (input, number) = (InputId(0), second + 1);
        let delivery = Delivery {
            input,
            number,
            declared,
            batch: batch(second),
            state: Vec::new(),
            outage: None,
            urgent: false,
            ahead: 0,
        };
        stage.deliver(at(second), delivery);
        let commit = stage.cut(at(second), wants_snapshot).unwrap();
        wants_snapshot = store.commit(commit).unwrap().wants_snapshot;
        stage.committed();
        while is_delivered && let Some(frame) = store.take(&[]).unwrap() {
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

fn batch(second: u64) -> Batch {
    let readings = (0..READINGS).map(|number| {
        let value = 20.0 + ((second * 31 + u64::from(number) * 7_919) % 1_000) as f64 / 100.0;
        let time = at(second);
        let (quality, check, clock) = (Quality::Good, None, ClockState::Synced);
        Reading { series: SeriesId(number % SERIES), time, value: Value::Float(value), quality, check, clock }
    });
    Batch { input: InputId(0), arrival: at(second), readings: readings.collect(), rejected: Vec::new() }
}
