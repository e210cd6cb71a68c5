//! `rtlive store export`: the records of a store as JSON lines, or as the messages that would carry them.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::sync::Arc;

use rtlive_core::frame::{self, FRAME_BYTES_MAX};
use rtlive_core::json::{self, Origin};
use rtlive_core::message;
use rtlive_core::plan::{Function, StreamId, StreamKind};
use rtlive_core::record::Record;
use rtlive_core::time::Timestamp;
use serde_json::value::RawValue;

use super::progress::Progress;
use crate::cli::{Export, ExportFormat};
use crate::command::{Failure, told};
use crate::message::StoredFrame;
use crate::store::book::{Book, Reckoning, Waiting};
use crate::store::look::{Look, Looked};

/// The stream of gaps.
pub(super) const GAPS: &str = "gaps";

/// Writes what was asked for: frames first, then what waits in the journal. What is damaged is told on standard error, and passed over;
/// the exit code is 1 then.
pub(super) fn export(store: &Look, options: &Export) -> Result<ExitCode, Failure> {
    let mut out: Box<dyn Write> = match &options.output {
        Some(path) => Box::new(File::create(path).map_err(Failure::at(format!("make {}", path.display())))?),
        None => Box::new(io::stdout().lock()),
    };
    let mut out = BufWriter::new(&mut out);
    let book = store.book()?;
    let reckoning = book.reckon();
    let mut faults = 0;
    let mut tell = |fault: &str| {
        faults += 1;
        // Whoever closed standard error does not want to know.
        let _ = writeln!(io::stderr(), "{fault}");
    };
    reckoning.faults.iter().for_each(|fault| tell(fault));
    let failed = || Failure::at("write the records");
    let mut progress = Progress::new(store.frame_count()?, "frames");
    store.each_frame(|looked| -> Result<(), Failure> {
        progress.step();
        match looked {
            Looked::Damaged { key, epoch, numbers: (from, to) } => {
                tell(&format!("stream {}, epoch {epoch}: the frame of records {from} to {to} is damaged", key.stream));
            }
            Looked::Whole(frame) if is_wanted(options, &frame.stream) => match options.format {
                ExportFormat::Frames => write_messages(options, &frame, &mut out).map_err(failed())?,
                ExportFormat::Json => match lines_in(options, &frame) {
                    Ok(lines) => out.write_all(&lines).map_err(failed())?,
                    Err(fault) => tell(&format!("stream {}, epoch {}: {fault}", frame.stream, frame.epoch)),
                },
            },
            Looked::Whole(_) => {}
        }
        Ok(())
    })?;
    drop(progress);
    for waiting in reckoning.waiting.iter().filter(|waiting| is_wanted(options, &waiting.stream.name)) {
        write_waiting(options, &book, &reckoning, waiting, &mut out, &mut tell).map_err(failed())?;
    }
    if is_wanted(options, GAPS) {
        match options.format {
            ExportFormat::Json => out.write_all(&unnumbered(&book, &reckoning, options)).map_err(failed())?,
            ExportFormat::Frames if reckoning.gaps.is_empty() => {}
            // A message under numbers that the agent may still give to others would speak against it.
            ExportFormat::Frames => {
                let count = reckoning.gaps.len();
                let _ = writeln!(io::stderr(), "{count} gaps have no number yet, and are only in JSON lines");
            }
        }
    }
    out.flush().map_err(failed())?;
    drop(out);
    Ok(if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn is_wanted(options: &Export, stream: &str) -> bool {
    options.stream.is_empty() || options.stream.iter().any(|wanted| wanted == stream)
}

/// Whether a span touches what was asked for; what tells no time does.
fn is_within(options: &Export, span: Option<(Timestamp, Timestamp)>) -> bool {
    span.is_none_or(|(start, end)| {
        options.from.is_none_or(|from| end >= from) && options.to.is_none_or(|to| start < to)
    })
}

/// A frame as the messages that carry it; one that touches the times that were asked for goes whole.
fn write_messages(options: &Export, frame: &StoredFrame, out: &mut impl Write) -> io::Result<()> {
    if frame.json {
        return out.write_all(&frame.bytes);
    }
    let span = frame::read_header(&frame.bytes).ok().and_then(|(header, _)| header.span);
    if !is_within(options, span) {
        return Ok(());
    }
    message::split(&frame.bytes, true, FRAME_BYTES_MAX).try_for_each(|message| out.write_all(&message))
}

/// All records of a frame as JSON lines.
pub(super) fn lines_of(frame: &StoredFrame) -> Result<Vec<u8>, String> {
    lines_in(&Export::default(), frame)
}

/// The records of a frame that were asked for, as JSON lines. Records of a JSON message are not looked at more closely.
fn lines_in(options: &Export, frame: &StoredFrame) -> Result<Vec<u8>, String> {
    let mut lines = Vec::new();
    if frame.json {
        let text = std::str::from_utf8(&frame.bytes).map_err(|error| told(&error))?;
        let records: Vec<&RawValue> = serde_json::from_str(text)
            .or_else(|_| serde_json::from_str(text).map(|one| vec![one]))
            .map_err(|error| told(&error))?;
        for record in records {
            lines.extend_from_slice(record.get().as_bytes());
            lines.push(b'\n');
        }
        return Ok(lines);
    }
    let (header, contents) = frame::open(&frame.bytes).map_err(|error| told(&error))?;
    let epoch = header.origin.epoch.to_string();
    let origin = Origin::of_frame(&header.origin, &epoch, false);
    for (seq, record) in (header.first..).zip(&contents.records) {
        if is_within(options, record.span()) {
            json::write_record(&mut lines, &origin, seq, record, &contents.series, &contents.compute);
            lines.push(b'\n');
        }
    }
    Ok(lines)
}

/// The gaps that have no number yet, as JSON lines with `"seq":0`.
pub(super) fn unnumbered(book: &Book, reckoning: &Reckoning, options: &Export) -> Vec<u8> {
    let mut lines = Vec::new();
    let (Some((epoch, _)), Some(plan)) = (&book.meta, &reckoning.plan) else { return lines };
    let (epoch, class) = (epoch.to_string(), plan.streams.get(StreamId::GAPS.index()).map(|stream| &*stream.class));
    let (agent, class) = (&*plan.agent, class.unwrap_or_default());
    let origin = Origin { agent, epoch: &epoch, stream: GAPS, class, historical: false };
    for gap in reckoning.gaps.iter().cloned().map(Record::from).filter(|gap| is_within(options, gap.span())) {
        json::write_record(&mut lines, &origin, 0, &gap, &[], &[]);
        lines.push(b'\n');
    }
    lines
}

/// What is in no frame yet; as messages it is sealed now, under the numbers that it has.
fn write_waiting(
    options: &Export,
    book: &Book,
    reckoning: &Reckoning,
    waiting: &Waiting,
    out: &mut impl Write,
    tell: &mut impl FnMut(&str),
) -> io::Result<()> {
    let (Some((epoch, _)), Some(plan)) = (&book.meta, &reckoning.plan) else { return Ok(()) };
    let Waiting { stream, first, records } = waiting;
    let compute: &[Function] = match &stream.kind {
        StreamKind::Window(window) => &window.compute,
        StreamKind::Raw { .. } | StreamKind::Reserved => &[],
    };
    let wanted = |record: &&Record| is_within(options, record.span());
    match options.format {
        ExportFormat::Json => {
            let epoch = epoch.to_string();
            let (agent, name, class) = (&*plan.agent, &*stream.name, &*stream.class);
            let origin = Origin { agent, epoch: &epoch, stream: name, class, historical: false };
            let mut lines = Vec::new();
            for (seq, record) in (*first..).zip(records).filter(|(_, record)| wanted(record)) {
                json::write_record(&mut lines, &origin, seq, record, &reckoning.series, compute);
                lines.push(b'\n');
            }
            out.write_all(&lines)
        }
        ExportFormat::Frames if records.iter().any(|record| wanted(&record)) => {
            let (agent, epoch, name) = (Arc::clone(&plan.agent), *epoch, Arc::clone(&stream.name));
            let origin = frame::Origin { agent, epoch, stream: name, class: Arc::clone(&stream.class) };
            match frame::seal(&origin, *first, records, &reckoning.series, compute, Default::default()) {
                Ok(frame) => {
                    message::split(&frame, true, FRAME_BYTES_MAX).try_for_each(|message| out.write_all(&message))
                }
                Err(error) => {
                    tell(&format!(
                        "stream {}: what waits in the journal makes no frame: {}",
                        stream.name,
                        told(&error)
                    ));
                    Ok(())
                }
            }
        }
        ExportFormat::Frames => Ok(()),
    }
}
