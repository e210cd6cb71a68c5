//! `rtlive replay`: readings of a file through the same engine, in event time, as fast as it goes.
//!
//! A reading arrives at its `arrival`, or at the larger of its own time and the previous arrival; that is replay's clock. The same
//! readings under the same configuration print the same records, byte for byte.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use rtlive_core::columns::TEXT_BYTES_MAX;
use rtlive_core::engine::Engine;
use rtlive_core::event::{Batch, Declared, Event};
use rtlive_core::json::{self, LineValue, Origin, ReadingLine};
use rtlive_core::plan::{InputPlan, Plan, StreamKind};
use rtlive_core::reading::{InputId, Reading, SeriesId, SeriesInfo, is_series_name};
use rtlive_core::record::Emitted;
use rtlive_core::sorted;
use rtlive_core::time::Timestamp;

use super::{Config, Failure, load, tell};
use crate::cli::Replay;

/// What stands in place of an epoch.
const EPOCH: &str = "replay";

/// How long a line may be, in bytes: far more than a reading, far less than memory.
const LINE_BYTES_MAX: usize = 1 << 20;

/// How many bad lines are shown; the others are only counted.
const BAD_LINES_SHOWN_MAX: u64 = 10;

/// Reads JSON lines, prints JSON lines. Lines that are no readings are told on standard error, counted, and stop nothing; with `--strict`
/// the exit code is 1 where there was one.
///
/// # Errors
/// [`Failure::Mistakes`] of the configuration; [`Failure::Failed`] when a file cannot be read or written.
pub fn replay(paths: &[PathBuf], options: &Replay) -> Result<ExitCode, Failure> {
    let config = load(paths)?;
    let stdin = Path::new("-");
    let input = options.readings.as_deref().or(options.input.as_deref()).unwrap_or(stdin);
    let reader: Box<dyn BufRead> = if input == stdin {
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(input).map_err(Failure::at(format!("open {}", input.display())))?;
        Box::new(BufReader::with_capacity(1 << 16, file))
    };
    let writer: Box<dyn Write> = match &options.output {
        None => Box::new(io::stdout().lock()),
        Some(path) => Box::new(File::create(path).map_err(Failure::at(format!("create {}", path.display())))?),
    };
    let mut replay = Run::new(&config, BufWriter::with_capacity(1 << 16, writer));
    replay.read(reader).map_err(Failure::at(format!("read {}", input.display())))?;
    replay.finish().map_err(Failure::at("write the records"))?;
    match replay.bad_lines {
        1.. if options.strict => Ok(ExitCode::FAILURE),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// A replay under way.
struct Run<W: Write> {
    engine: Engine,
    inputs: BTreeMap<Arc<str>, InputId>,
    /// Whether an input's series are told apart by what stands between their first and last level: devices, topics.
    multiplexes: BTreeMap<InputId, bool>,
    series: HashMap<Box<str>, (SeriesId, InputId)>,
    now: Timestamp,
    batch: Event,
    emitted: Vec<Emitted>,
    numbers: Vec<u64>,
    line: Vec<u8>,
    out: W,
    bad_lines: u64,
    failure: Option<io::Error>,
}

impl<W: Write> Run<W> {
    fn new(config: &Config, out: W) -> Self {
        let ids = || (0..).map(InputId);
        let inputs = sorted::map(config.plan.inputs.iter().zip(ids()).map(|(input, id)| (input.prefix.clone(), id)));
        let multiplexes = sorted::map(config.inputs.iter().zip(ids()).map(|(input, id)| (id, input.multiplexes)));
        Self {
            engine: Engine::new(config.plan.clone()),
            inputs,
            multiplexes,
            series: HashMap::new(),
            now: Timestamp::MIN,
            batch: batch(InputId(0), Timestamp::MIN),
            emitted: Vec::new(),
            numbers: vec![0; config.plan.streams.len()],
            line: Vec::new(),
            out,
            bad_lines: 0,
            failure: None,
        }
    }

    fn read(&mut self, mut reader: impl BufRead) -> io::Result<()> {
        let mut line = Vec::new();
        let mut number = 0;
        loop {
            line.clear();
            number += 1;
            let read = io::Read::take(&mut reader, LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(());
            }
            if read > LINE_BYTES_MAX {
                self.refuse(number, &format!("expected at most {LINE_BYTES_MAX} bytes in a line"));
                skip_line(&mut reader)?;
                continue;
            }
            let text = line.trim_ascii();
            if text.is_empty() {
                continue;
            }
            match json::parse_reading(text) {
                Ok(reading) if !self.is_series(&reading.series) => {
                    let expected =
                        "expected a series of levels without + # { } and none of them empty, 255 bytes at most";
                    self.refuse(number, &format!("{expected}, found {:?}", reading.series));
                }
                Ok(ReadingLine { value: LineValue::Text(text), .. }) if text.len() > TEXT_BYTES_MAX => {
                    let found = text.len();
                    self.refuse(number, &format!("expected a text of at most {TEXT_BYTES_MAX} bytes, found {found}"));
                }
                Ok(reading) => self.take(&reading),
                Err(error) => self.refuse(number, &error.to_string()),
            }
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
        }
    }

    fn is_series(&self, name: &str) -> bool {
        self.series.contains_key(name) || is_series_name(name)
    }

    fn take(&mut self, line: &ReadingLine<'_>) {
        let arrival = line.arrival.unwrap_or(line.time).max(self.now);
        let (series, input) = self.series(line);
        let goes_along = matches!(&self.batch, Event::Batch(batch) if batch.input == input && batch.arrival == arrival);
        if !goes_along {
            self.hand_over();
            self.now = arrival;
            self.batch = batch(input, arrival);
        }
        if let Event::Batch(batch) = &mut self.batch {
            batch.readings.push(Reading {
                series,
                time: line.time,
                value: line.value.clone().into(),
                quality: line.quality,
                check: line.check,
                clock: line.clock,
            });
        }
    }

    /// The series of a line, declared at its first use. Its first level is its input; one that is not configured is a source that
    /// speaks by itself.
    fn series(&mut self, line: &ReadingLine<'_>) -> (SeriesId, InputId) {
        if let Some(&known) = self.series.get(&*line.series) {
            return known;
        }
        // What came before must not see what comes now.
        self.hand_over();
        let name = &*line.series;
        let (first, rest) = name.split_once('/').unwrap_or((name, ""));
        let input = match self.inputs.get(first) {
            Some(&input) => input,
            None => self.add_input(first),
        };
        let between = rest.rsplit_once('/').map_or("", |(between, _)| between);
        let source = if self.multiplexes.get(&input) == Some(&true) { between } else { "" };
        let info = SeriesInfo { name: name.into(), unit: line.unit.as_deref().map(Into::into) };
        self.handle(&Event::Series(Declared { input, source: source.into(), info }));
        let known = (self.engine.series_named(name).unwrap_or(SeriesId::UNKNOWN), input);
        self.series.insert(name.into(), known);
        known
    }

    fn add_input(&mut self, name: &str) -> InputId {
        let mut plan = Plan::clone(self.engine.plan());
        let input = InputId(u16::try_from(plan.inputs.len()).unwrap_or(u16::MAX));
        plan.inputs.push(InputPlan::pushed(name.into()));
        self.engine.reload(self.now, Arc::new(plan), &mut self.emitted);
        self.inputs.insert(name.into(), input);
        input
    }

    /// Hands the batch over that was gathered, after the time steps that come before it.
    fn hand_over(&mut self) {
        let empty = batch(InputId(0), self.now);
        let event = std::mem::replace(&mut self.batch, empty);
        if matches!(&event, Event::Batch(batch) if batch.readings.is_empty()) {
            return;
        }
        while let Some(at) = self.engine.wake_at().filter(|&at| at <= self.now) {
            self.engine.handle(at, &Event::Tick, &mut self.emitted);
        }
        self.handle(&event);
    }

    fn handle(&mut self, event: &Event) {
        self.engine.handle(self.now, event, &mut self.emitted);
        self.print();
    }

    /// Numbers and prints what was emitted.
    fn print(&mut self) {
        let plan = self.engine.plan();
        for Emitted { stream, record } in self.emitted.drain(..) {
            let Some(of) = plan.streams.get(stream.index()) else { continue };
            let Some(number) = self.numbers.get_mut(stream.index()) else { continue };
            *number += 1;
            let compute = match &of.kind {
                StreamKind::Window(window) => window.compute.as_slice(),
                StreamKind::Raw { .. } | StreamKind::Reserved => &[],
            };
            let origin =
                Origin { agent: &plan.agent, epoch: EPOCH, stream: &of.name, class: &of.class, historical: false };
            self.line.clear();
            json::write_record(&mut self.line, &origin, *number, &record, self.engine.series(), compute);
            self.line.push(b'\n');
            if let Err(error) = self.out.write_all(&self.line) {
                self.failure.get_or_insert(error);
            }
        }
    }

    fn refuse(&mut self, number: u64, why: &str) {
        self.bad_lines += 1;
        if self.bad_lines <= BAD_LINES_SHOWN_MAX {
            tell(format_args!("line {number}: {why}"));
        }
    }

    /// Closes all windows, and says how many lines were no readings.
    fn finish(&mut self) -> io::Result<()> {
        self.hand_over();
        self.engine.close(self.now, &mut self.emitted);
        self.print();
        if self.bad_lines > 0 {
            tell(format_args!("{} lines were no readings and are left out", self.bad_lines));
        }
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => self.out.flush(),
        }
    }
}

fn batch(input: InputId, arrival: Timestamp) -> Event {
    Event::Batch(Batch { input, arrival, readings: Vec::new(), rejected: Vec::new() })
}

/// Passes over what is left of a line.
fn skip_line(reader: &mut impl BufRead) -> io::Result<()> {
    loop {
        let bytes = reader.fill_buf()?;
        let (count, ended) = match bytes.iter().position(|&byte| byte == b'\n') {
            Some(place) => (place + 1, true),
            None => (bytes.len(), bytes.is_empty()),
        };
        reader.consume(count);
        if ended {
            return Ok(());
        }
    }
}
