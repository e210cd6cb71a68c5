//! `rtlive store inspect`: what lies in a store.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use rtlive_core::frame;
use rtlive_core::record::Epoch;
use rtlive_core::sorted;
use rtlive_core::time::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use super::export::{GAPS, lines_of, unnumbered};
use super::progress::Progress;
use crate::cli::Export;
use crate::command::{Failure, print};
use crate::store::look::{Look, Looked, Size};

/// What lies in a store.
#[derive(Serialize)]
struct Inspection {
    path: String,
    size: Size,
    agent: Option<String>,
    epoch: Option<String>,
    boot: Option<String>,
    last_commit: Option<u64>,
    last_commit_at: Option<String>,
    commits_in_journal: usize,
    snapshots: usize,
    streams: Vec<Stream>,
    /// Records that say what is missing, and wait to be sent themselves.
    gaps: Vec<Box<RawValue>>,
    faults: Vec<String>,
}

/// The records of a stream and class in one epoch.
#[derive(Serialize)]
struct Stream {
    stream: String,
    class: String,
    epoch: String,
    /// How many are in frames, and how many frames these are; `null` frames are records that wait in the journal.
    records: u64,
    frames: Option<u64>,
    from: u64,
    to: u64,
    bytes: u64,
    committed_first: Option<String>,
    committed_last: Option<String>,
    start: Option<String>,
    end: Option<String>,
}

/// Tells what lies in a store, for people or as one JSON object.
pub(super) fn inspect(store: &Look, json: bool) -> Result<ExitCode, Failure> {
    let book = store.book()?;
    let reckoning = book.reckon();
    let (spans, mut gaps) = read_frames(store)?;
    gaps.extend(lines(&unnumbered(&book, &reckoning, &Export::default())));
    let mut streams: Vec<Stream> = Vec::new();
    for lane in &book.lanes {
        let span = spans.get(&(lane.key.stream.to_string(), lane.key.class.to_string(), lane.epoch));
        streams.push(Stream {
            stream: lane.key.stream.to_string(),
            class: lane.key.class.to_string(),
            epoch: lane.epoch.to_string(),
            records: lane.records,
            frames: Some(lane.frames),
            from: lane.numbers.0,
            to: lane.numbers.1,
            bytes: lane.bytes,
            committed_first: Some(lane.committed.0.to_string()),
            committed_last: Some(lane.committed.1.to_string()),
            start: span.map(|span| span.0.to_string()),
            end: span.map(|span| span.1.to_string()),
        });
    }
    for waiting in &reckoning.waiting {
        let spans = || waiting.records.iter().filter_map(rtlive_core::record::Record::span);
        streams.push(Stream {
            stream: waiting.stream.name.to_string(),
            class: waiting.stream.class.to_string(),
            epoch: book.meta.as_ref().map(|(epoch, _)| epoch.to_string()).unwrap_or_default(),
            records: waiting.records.len() as u64,
            frames: None,
            from: waiting.first,
            to: waiting.first + waiting.records.len() as u64 - 1,
            bytes: 0,
            committed_first: None,
            committed_last: None,
            start: spans().map(|span| span.0).min().map(|time| time.to_string()),
            end: spans().map(|span| span.1).max().map(|time| time.to_string()),
        });
    }
    sorted::by(&mut streams, |a, b| a.stream.cmp(&b.stream));
    let inspection = Inspection {
        path: store.path().display().to_string(),
        size: store.size()?,
        agent: reckoning.plan.map(|plan| plan.agent.to_string()),
        epoch: book.meta.as_ref().map(|(epoch, _)| epoch.to_string()),
        boot: book.meta.map(|(_, boot)| boot),
        last_commit: reckoning.last_commit.map(|(number, _)| number),
        last_commit_at: reckoning.last_commit.map(|(_, at)| at.to_string()),
        commits_in_journal: book.chunks.len(),
        snapshots: book.snapshots.len(),
        streams,
        gaps,
        faults: reckoning.faults,
    };
    if json {
        let line = serde_json::to_string(&inspection).map_err(Failure::at("write the inspection"))?;
        print(format_args!("{line}\n"))?;
    } else {
        print(text(&inspection))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Event times by stream, class and epoch.
type Spans = BTreeMap<(String, String, Epoch), (Timestamp, Timestamp)>;

/// The event times that frames speak of, and the gaps that wait.
fn read_frames(store: &Look) -> Result<(Spans, Vec<Box<RawValue>>), Failure> {
    let (mut spans, mut gaps): (Spans, Vec<_>) = Default::default();
    let mut progress = Progress::new(store.frame_count()?, "frames");
    store.each_frame(|looked| -> Result<(), Failure> {
        progress.step();
        let Looked::Whole(frame) = looked else { return Ok(()) };
        if &*frame.stream == GAPS {
            gaps.extend(lines(&lines_of(&frame).unwrap_or_default()));
        }
        if frame.json {
            return Ok(());
        }
        if let Some(span) = frame::read_header(&frame.bytes).ok().and_then(|(header, _)| header.span) {
            let key = (frame.stream.to_string(), frame.class.to_string(), frame.epoch);
            let known = spans.entry(key).or_insert(span);
            *known = (known.0.min(span.0), known.1.max(span.1));
        }
        Ok(())
    })?;
    Ok((spans, gaps))
}

/// JSON lines one by one.
fn lines(lines: &[u8]) -> impl Iterator<Item = Box<RawValue>> {
    let texts = lines.split(|&byte| byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    texts.filter_map(|line| RawValue::from_string(line.to_owned()).ok())
}

/// For people.
fn text(inspection: &Inspection) -> String {
    let Inspection { path, size, agent, epoch, boot, last_commit, last_commit_at, streams, gaps, faults, .. } =
        inspection;
    let or = |text: &Option<String>, other: &str| text.clone().unwrap_or_else(|| other.to_owned());
    let mut out = String::new();
    // A string takes everything that is written to it.
    let _ = writeln!(out, "{path}: {} bytes, {} of them free, and {} in its log", size.file, size.free, size.log);
    let _ = writeln!(out, "agent {}, epoch {}, boot {}", or(agent, "unknown"), or(epoch, "none"), or(boot, "none"));
    if let Some(number) = last_commit {
        let (commits, snapshots) = (inspection.commits_in_journal, inspection.snapshots);
        let at = or(last_commit_at, "-");
        let _ = writeln!(out, "commit {number} at {at}; {commits} commits in the journal, {snapshots} snapshots");
    }
    let _ = writeln!(
        out,
        "\n{:<20} {:<10} {:<16} {:>9} {:>9} {:>9} {:>9} {:>11}  event times",
        "stream", "class", "epoch", "frames", "records", "from", "to", "bytes"
    );
    for Stream { stream, class, epoch, records, frames, from, to, bytes, start, end, .. } in streams {
        let frames = frames.map_or_else(|| "journal".into(), |frames| frames.to_string());
        let (start, end) = (or(start, "-"), or(end, "-"));
        let _ = writeln!(
            out,
            "{stream:<20} {class:<10} {epoch:<16} {frames:>9} {records:>9} {from:>9} {to:>9} {bytes:>11}  {start} to {end}"
        );
    }
    for gap in gaps {
        let _ = writeln!(out, "gap: {gap}");
    }
    for fault in faults {
        let _ = writeln!(out, "fault: {fault}");
    }
    out
}
