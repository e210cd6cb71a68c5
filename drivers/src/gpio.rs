//! `gpio`: lines of the GPIO character device, version 2 of its interface (Linux 5.10, `include/uapi/linux/gpio.h`).
//!
//! Wiring: a contact between the line and ground, with `bias = "pull-up"` and `active_low = true`, reads true while it is closed.
//! Edges are stamped by the kernel in its interrupt handler, by the clock that nobody sets, so that neither load nor a slow commit moves
//! them; debouncing is the kernel's too. The kernel keeps 1024 edges until they are fetched and then drops the oldest; its
//! sequence numbers show how many, which becomes an outage `overrun`.
//!
//! A line belongs to one program at a time; its consumer is named `rtlive`.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use gpiocdev::line::{Bias, EdgeDetection, EdgeKind, EventClock, Offset, Values};
use gpiocdev::{Chip, Request};
use rtlive_config::quantity::{Period, Span};
use rtlive_config::table::Table;
use rtlive_config::value::{NonEmpty, Setting};
use rtlive_config::{choices, options};
use rtlive_core::reading::{SeriesId, Value, is_series_name};
use rtlive_core::time::Timestamp;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use crate::input::{CheckedInput, Driver, Input, InputError, Running};
use crate::outlet::Session;

/// How many edges the kernel keeps for us: the most that it allows, 16 for each of 64 lines.
const KERNEL_EVENTS: u32 = 1024;
/// How many edges are fetched at once, and go as one delivery.
const EDGES_PER_DELIVERY_MAX: usize = 256;
/// How many lines one input may have: what one request of the interface can hold (`GPIO_V2_LINES_MAX`).
const LINES_MAX: usize = 64;
/// The resolution of the time of a sampled level; the sampling itself is not better.
const SAMPLE_RESOLUTION: Duration = Duration::from_millis(1);

/// The driver.
pub const DRIVER: Driver = Driver {
    name: "gpio",
    summary: "lines of a GPIO chip: edges with the kernel's time, or levels at intervals",
    example: r#"[inputs.door]
driver = "gpio"
chip = "/dev/gpiochip0"
lines = [
  { line = 17, series = "open", mode = "edges", bias = "pull-up", active_low = true, debounce = "20ms" },
  { line = 22, series = "mains", mode = "level", every = "1s" },
]
"#,
    options: GpioOptions::reference,
    check,
};

options! {
    /// Lines of a GPIO chip.
    pub struct GpioOptions {
        /// The chip: its path, its name or its label, as `gpiodetect` shows them.
        pub chip: String,
        /// Its lines.
        pub lines: NonEmpty<LineOptions>,
    }
}

options! {
    /// A line.
    pub struct LineOptions {
        /// The line: its number on the chip, or its name, as `gpioinfo` shows them.
        pub line: LineName,
        /// The series, below the input's name.
        pub series: String,
        /// What is read of it.
        pub mode: Mode = "edges",
        /// The resistor in the chip. Absent: as it is.
        pub bias: Option<Pull>,
        /// Whether the line is true when its voltage is low.
        pub active_low: bool = false,
        /// How long the line must rest after an edge before the edge counts; for `edges`.
        pub debounce: Option<Span>,
        /// How often the line is read, at multiples of the wall clock; for `level`.
        pub every: Option<Period>,
    }
}

choices! {
    /// What is read of a line.
    pub enum Mode {
        /// Each change, as the value after it. The state at the start is not one.
        Edges = "edges",
        /// The value, at intervals.
        Level = "level",
    }
}

choices! {
    /// The resistor in the chip.
    pub enum Pull {
        /// To the supply.
        Up = "pull-up",
        /// To ground.
        Down = "pull-down",
        /// None.
        Disabled = "disabled",
    }
}

/// A line's number or name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineName {
    /// Its number on the chip.
    Number(Offset),
    /// Its name.
    Name(String),
}

impl Setting for LineName {
    fn expected() -> String {
        "the number of a line, or its name".into()
    }

    fn read(value: &rtlive_config::table::Value<'_>) -> Option<Self> {
        let number = value.as_integer().and_then(|number| Offset::try_from(number).ok()).map(Self::Number);
        let name = || value.as_text().filter(|name| !name.is_empty()).map(|name| Self::Name(name.to_owned()));
        let line = number.or_else(name);
        if line.is_none() {
            value.wrong(Self::expected());
        }
        line
    }
}

fn check(table: &Table<'_>) -> Option<CheckedInput> {
    let options = GpioOptions::read(table)?;
    let mut right = true;
    let mut mistake = |key: &str, expected: &str, found: &str| {
        table.mistake(key, expected, found);
        right = false;
    };
    if options.lines.len() > LINES_MAX {
        mistake("lines", "at most 64 lines", &options.lines.len().to_string());
    }
    let mut lines: Vec<Line> = Vec::new();
    for (index, written) in options.lines.iter().enumerate() {
        let at = |key: &str| format!("lines[{index}].{key}");
        let LineOptions { line, series, mode, bias, active_low, debounce, every } = written.clone();
        let reads = match (mode, every, debounce) {
            (Mode::Edges, None, debounce) => Reads::Edges(debounce.map(|span| span.0)),
            (Mode::Level, Some(every), None) => Reads::Level(every.0),
            (Mode::Edges, Some(_), _) => {
                mistake(&at("every"), "mode = \"level\" for it", "\"edges\"");
                continue;
            }
            (Mode::Level, _, Some(_)) => {
                mistake(&at("debounce"), "mode = \"edges\" for it", "\"level\"");
                continue;
            }
            (Mode::Level, None, None) => {
                mistake(&at("mode"), "`every` beside \"level\"", "none");
                continue;
            }
        };
        if !is_series_name(&series) {
            mistake(
                &at("series"),
                "levels without + # { } and none of them empty, 255 bytes at most",
                &format!("{series:?}"),
            );
        }
        if lines.iter().any(|other| other.series == series) {
            mistake(&at("series"), "a series of its own", "one that another line has");
        }
        if lines.iter().any(|other| other.name == line) {
            mistake(&at("line"), "a line of its own", "one that stands above");
        }
        lines.push(Line { name: line, series, reads, bias, active_low });
    }
    let every = lines.iter().filter_map(Line::every).min();
    let polled = lines.iter().all(|line| line.every().is_some());
    let per_second: f64 = lines.iter().filter_map(Line::every).map(|every| 1.0 / every.as_secs_f64()).sum();
    let series = lines.iter().map(|line| line.series.clone()).collect();
    let input = Box::new(GpioInput { chip: options.chip, lines });
    right.then_some(CheckedInput {
        input,
        polled,
        every,
        can_be_asked_again: false,
        series,
        has_others: false,
        readings_per_second: polled.then_some(per_second),
    })
}

/// A line, checked.
struct Line {
    name: LineName,
    series: String,
    reads: Reads,
    bias: Option<Pull>,
    active_low: bool,
}

enum Reads {
    /// Edges, debounced over this time.
    Edges(Option<Duration>),
    /// The level, so often.
    Level(Duration),
}

impl Line {
    fn every(&self) -> Option<Duration> {
        match self.reads {
            Reads::Edges(_) => None,
            Reads::Level(every) => Some(every),
        }
    }
}

/// An edge, as the kernel tells it. Rising means becoming true, whatever the voltage does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edge {
    time: Timestamp,
    line: Offset,
    rising: bool,
    /// Counts the edges of all lines of the request, from 1.
    number: u32,
}

/// Edges that the kernel dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Overrun {
    /// The last edge before; `None` where there was none.
    start: Option<Timestamp>,
    /// The first edge after.
    end: Timestamp,
    count: u32,
}

/// Pure: the order of edges, and what is missing in it.
#[derive(Default)]
struct Edges {
    last: Option<(u32, Timestamp)>,
}

impl Edges {
    /// The value that the line has after the edge, and what is missing before it.
    fn decode(&mut self, edge: Edge) -> (Value, Option<Overrun>) {
        let (number, start) = self.last.map_or((0, None), |(number, time)| (number, Some(time)));
        let missing = edge.number.wrapping_sub(number).wrapping_sub(1);
        self.last = Some((edge.number, edge.time));
        // Half the range of the numbers: a number that goes back is no hole.
        let overrun =
            (1..=u32::MAX / 2).contains(&missing).then_some(Overrun { start, end: edge.time, count: missing });
        (Value::Bool(edge.rising), overrun)
    }
}

/// An input, checked.
struct GpioInput {
    chip: String,
    lines: Vec<Line>,
}

impl Input for GpioInput {
    fn run<'a>(&'a self, session: &'a mut Session) -> Running<'a> {
        Box::pin(self.run(session))
    }
}

/// A line that was found on its chip.
struct Found<'l> {
    line: &'l Line,
    offset: Offset,
    series: SeriesId,
    /// When a level is read next.
    due: Option<Timestamp>,
}

impl Found<'_> {
    /// Follows a clock that was set back: what is due later than at the next multiple was due by the old time.
    fn follow(&mut self, now: Timestamp) {
        let next = self.line.every().map(|every| now.next_multiple(every));
        self.due = self.due.min(next);
    }
}

impl GpioInput {
    async fn run(&self, session: &mut Session) -> Result<(), InputError> {
        let path = find_chip(&self.chip)?;
        let offsets = self.find_lines(&path)?;
        let request = self.request(&path, &offsets)?;
        let request =
            watched(request).map_err(|error| failed(format!("wait for edges of {}", self.chip), &error, None))?;
        {
            let mut health = session.health();
            health.state = "running";
            health.error = None;
        }
        let now = session.now();
        let mut found = Vec::with_capacity(self.lines.len());
        for (line, offset) in self.lines.iter().zip(offsets) {
            let due = line.every().map(|every| now.next_multiple(every));
            found.push(Found { line, offset, series: session.series(&line.series, None, ""), due });
        }
        let mut edges = Edges::default();
        loop {
            let now = session.now();
            found.iter_mut().for_each(|line| line.follow(now));
            let due = found.iter().filter_map(|line| line.due).min();
            let wait = due.map(|due| due.since(now));
            let readable = tokio::select! {
                biased;
                () = session.stopping() => return Ok(()),
                () = sleep(wait.unwrap_or_default()), if wait.is_some() => None,
                readable = request.readable() => Some(readable),
            };
            match readable {
                None => self.sample(request.get_ref(), &mut found, session)?,
                Some(Ok(mut readable)) => {
                    let fetched = self.fetch(request.get_ref(), session)?;
                    if fetched.len() < EDGES_PER_DELIVERY_MAX {
                        readable.clear_ready();
                    }
                    for edge in fetched {
                        let (value, overrun) = edges.decode(edge);
                        if let Some(Overrun { start, end, count }) = overrun {
                            // A delivery speaks of one outage.
                            if session.deliver(session.now(), false).await.is_err() {
                                return Ok(());
                            }
                            session.outage(start, end, Some(u64::from(count)), "overrun");
                        }
                        if let Some(line) = found.iter().find(|line| line.offset == edge.line) {
                            session.read_on_arrival(line.series, edge.time, value);
                        }
                    }
                }
                Some(Err(error)) => return Err(failed(format!("wait for edges of {}", self.chip), &error, None)),
            }
            if session.deliver(session.now(), false).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Reads the levels that are due.
    fn sample(&self, request: &Request, found: &mut [Found<'_>], session: &mut Session) -> Result<(), InputError> {
        let now = session.now();
        let due: Vec<usize> = (0..found.len())
            .filter(|i| found.get(*i).is_some_and(|line| line.due.is_some_and(|due| due <= now)))
            .collect();
        let offsets: Vec<Offset> = due.iter().filter_map(|i| found.get(*i)).map(|line| line.offset).collect();
        if offsets.is_empty() {
            return Ok(());
        }
        let mut values = Values::from_offsets(&offsets);
        request.values(&mut values).map_err(|error| failed(format!("read levels of {}", self.chip), &error, None))?;
        let time = session.now().floor(SAMPLE_RESOLUTION);
        for index in due {
            let Some(line) = found.get_mut(index) else { continue };
            if let (Some(every), Some(due)) = (line.line.every(), line.due) {
                let missed = now.since(due).as_nanos() / every.as_nanos().max(1);
                if missed > 0 {
                    session.count("polls_missed", u64::try_from(missed).unwrap_or(u64::MAX));
                }
                line.due = Some(now.next_multiple(every));
            }
            if let Some(value) = values.get(line.offset) {
                session.read_on_arrival(line.series, time, Value::Bool(value.into()));
            }
        }
        Ok(())
    }

    /// Fetches what edges there are.
    fn fetch(&self, request: &Request, session: &Session) -> Result<Vec<Edge>, InputError> {
        let error = |error: gpiocdev::Error| failed(format!("fetch edges of {}", self.chip), &error, None);
        let ahead = session.now().as_nanos().saturating_sub(monotonic_nanos());
        let mut buffer = request.new_edge_event_buffer(EDGES_PER_DELIVERY_MAX);
        let mut edges = Vec::new();
        while edges.len() < EDGES_PER_DELIVERY_MAX && buffer.has_event().map_err(error)? {
            let event = buffer.read_event().map_err(error)?;
            let nanos = i64::try_from(event.timestamp_ns).unwrap_or(i64::MAX).saturating_add(ahead);
            edges.push(Edge {
                time: Timestamp::from_nanos(nanos),
                line: event.offset,
                rising: event.kind == EdgeKind::Rising,
                number: event.seqno,
            });
        }
        Ok(edges)
    }

    fn find_lines(&self, path: &PathBuf) -> Result<Vec<Offset>, InputError> {
        let chip = open_chip(path)?;
        let mut offsets = Vec::new();
        for line in &self.lines {
            let info = match &line.name {
                LineName::Number(offset) => {
                    let doing = format!("look at line {offset} of {}", self.chip);
                    let lines = chip.info().map_or(0, |info| info.num_lines);
                    let hint =
                        (*offset >= lines).then(|| format!("the chip has lines 0 to {}", lines.saturating_sub(1)));
                    chip.line_info(*offset).map_err(|error| failed(doing, &error, hint))?
                }
                LineName::Name(name) => chip.find_line_info(name).ok_or_else(|| InputError {
                    doing: format!("look for line {name} of {}", self.chip),
                    cause: "the chip has no line of that name".into(),
                    hint: Some("`gpioinfo` lists the lines".into()),
                })?,
            };
            if info.used {
                let user = if info.consumer.is_empty() { "the kernel" } else { &info.consumer };
                return Err(InputError {
                    doing: format!("take line {} of {}", info.offset, self.chip),
                    cause: format!("it is in use by {user:?}"),
                    hint: Some("end that program, or remove the device tree overlay that claims the line".into()),
                });
            }
            offsets.push(info.offset);
        }
        Ok(offsets)
    }

    /// Requests the lines, with edges stamped by the clock that nobody sets.
    fn request(&self, path: &PathBuf, offsets: &[Offset]) -> Result<Request, InputError> {
        let mut builder = Request::builder();
        builder.on_chip(path).with_consumer("rtlive").with_kernel_event_buffer_size(KERNEL_EVENTS);
        for (line, offset) in self.lines.iter().zip(offsets) {
            builder.with_line(*offset).as_input().with_bias(line.bias.map(|pull| match pull {
                Pull::Up => Bias::PullUp,
                Pull::Down => Bias::PullDown,
                Pull::Disabled => Bias::Disabled,
            }));
            if line.active_low {
                builder.as_active_low();
            }
            if let Reads::Edges(debounce) = line.reads {
                builder.with_edge_detection(EdgeDetection::BothEdges).with_event_clock(EventClock::Monotonic);
                if let Some(debounce) = debounce {
                    builder.with_debounce_period(debounce);
                }
            }
        }
        builder.request().map_err(|error| failed(format!("take the lines of {}", self.chip), &error, None))
    }
}

/// Makes the runtime wake us when there are edges.
#[expect(
    deprecated,
    reason = "its successor is unsafe code; a request owns its file and never replaces it, as that asks for"
)]
fn watched(request: Request) -> io::Result<AsyncFd<Request>> {
    AsyncFd::with_interest(request, Interest::READABLE)
}

/// The clock that edges are stamped with, which nobody sets.
fn monotonic_nanos() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

/// The path of a chip that is named by path, name or label.
fn find_chip(named: &str) -> Result<PathBuf, InputError> {
    if named.starts_with('/') {
        return Ok(named.into());
    }
    let chips = gpiocdev::chip::chips().unwrap_or_default();
    let mut known = Vec::new();
    for path in chips {
        let Ok(info) = open_chip(&path).map(|chip| chip.info()) else { continue };
        let Ok(info) = info else { continue };
        if info.name == named || info.label == named {
            return Ok(path);
        }
        known.push(format!("{} ({})", info.name, info.label));
    }
    Err(InputError {
        doing: format!("look for the GPIO chip {named}"),
        cause: "there is none of that name or label".into(),
        hint: Some(match known.is_empty() {
            true => "no chip can be opened here: has the kernel a driver for it, and may the service's user read /dev/gpiochip*?".into(),
            false => format!("there are {}", known.join(", ")),
        }),
    })
}

fn open_chip(path: &PathBuf) -> Result<Chip, InputError> {
    Chip::from_path(path).map_err(|error| {
        let hint = match std::fs::File::open(path).map_err(|error| error.kind()) {
            Err(io::ErrorKind::PermissionDenied) => {
                "the service's user must be able to read it: add it to the group of the device, mostly gpio"
            }
            Err(io::ErrorKind::NotFound) => "`gpiodetect` lists the chips",
            _ => "expected a GPIO character device",
        };
        failed(format!("open {}", path.display()), &error, Some(hint.into()))
    })
}

fn failed(doing: String, error: &dyn std::error::Error, hint: Option<String>) -> InputError {
    InputError { doing, cause: error.to_string(), hint }
}

#[cfg(test)]
mod tests;
