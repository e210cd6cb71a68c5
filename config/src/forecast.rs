//! The forecast: what a configuration will read, send and write, and what a power cut can lose.
//!
//! Estimates from what is known before anything runs; every assumption is a constant here and is told with the numbers. An input
//! whose rate nobody can know beforehand (a topic, a log file) is named and left out of the sums.

mod link;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rtlive_core::plan::{
    BatchLimit, BindingSource, DerivedPlan, Durability, Format, Function, Plan, Priority, StreamKind, StreamPlan,
};
use rtlive_core::selector::Selector;
use rtlive_core::uplink::Schedule;
use serde::Serialize;

use crate::binding::looked_at;
use crate::check::Config;
use crate::derived;
use crate::input::InputConfig;
use crate::quantity::write_span;
use crate::reach::{self, write_reach};
use crate::store::{CELLS_PER_BYTE, Flash};
use crate::stream::selection;

pub use link::{CarriedLevel, LadderForecast, LevelForecast, LinkForecast, Upkeep};

/// Bytes of a value in a frame with its share of the time stamp: columns and zstd on sensor series of 60 to 600 readings.
const FRAME_BYTES_PER_VALUE: f64 = 4.0;

/// Bytes of a frame's envelope, of the message around it with its topic, and of TCP, IP and the acknowledgement.
const BYTES_PER_MESSAGE: f64 = 300.0;

/// Bytes of a series in a frame's own table of names and units, compressed.
const FRAME_BYTES_PER_SERIES: f64 = 8.0;

/// Bytes of what every record has in JSON: agent, epoch, stream, number, series, time.
pub(crate) const JSON_BYTES_PER_RECORD: f64 = 170.0;

/// Bytes of a value in JSON with its name.
pub(crate) const JSON_BYTES_PER_VALUE: f64 = 20.0;

/// Bytes that a commit costs on the device whatever it holds: 8 kB in blocks of SQLite's log and of checkpoints (docs/performance.md), and 17 kB that the
/// file system's own journal may take (ext4).
const FLASH_BYTES_PER_COMMIT: f64 = 25_000.0;

/// How often a stored byte is written: log, checkpoint, and once more as a frame.
const FLASH_WRITES_PER_BYTE: f64 = 3.0;

/// As how many values the times in each state count: a few states, each with its name.
const TIME_IN_STATE_VALUES: f64 = 4.0;

const SECONDS_PER_DAY: f64 = 86_400.0;

/// The assumptions, as they are told.
const ASSUMPTIONS: [&str; 7] = [
    "4 bytes a value in a frame, time_in_state as 4 values, and 8 bytes for each series that the frame names",
    "170 bytes a record in JSON, and 20 bytes a value",
    "300 bytes a message for envelope, topic, TCP/IP and acknowledgement; a message a commit, with a schedule while it is connected and one for what waited, unless `batch` says otherwise",
    "a connection over TLS 1.3, with a chain of certificates of 3 kB",
    "on flash 25 kB a commit, and what is stored written 3 times",
    "in the store 3 bytes a value while the link is gone; in JSON as on the link",
    "a good link: no backlog, nothing sent twice",
];

/// What a configuration will do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forecast {
    /// The agent's id.
    pub agent: String,
    /// When its clock counts as right: `agent.clock`.
    pub clock: &'static str,
    /// The inputs by name.
    pub inputs: Vec<InputForecast>,
    /// The streams: first the reserved ones.
    pub streams: Vec<StreamForecast>,
    /// The derived series, as they are written. In the estimates each has as many readings as the series that gives its times, at most.
    pub derived: Vec<String>,
    /// The rules by name.
    pub rules: Vec<String>,
    /// The broker, where there is one.
    pub uplink: Option<String>,
    /// What it costs to be connected; `None` without an uplink.
    pub upkeep: Option<Upkeep>,
    /// Bytes a day on the link, with what it costs to be connected, without the inputs of `rate_unknown`; `None` without an uplink.
    pub link_bytes_per_day: Option<u64>,
    /// What `rate` and `budget` let pass in a day beside what is left to alerts, in bytes, the lesser of them; `None` where nothing bounds it.
    pub link_bytes_per_day_max: Option<u64>,
    /// The ladders, where there is an uplink: which level of each the link carries.
    pub ladders: Vec<LadderForecast>,
    /// The links of `[uplink.links]`, in the order in which they are preferred; what stands above is of the first of them.
    pub links: Vec<LinkForecast>,
    /// Bytes a day that the device of the store is asked to write, without the inputs of `rate_unknown`.
    pub flash_bytes_per_day: u64,
    /// For how many years the flash of `[store]` lasts under that; `None` where it is not told, or nothing is known to be written.
    pub flash_years: Option<f64>,
    #[serde(skip)]
    flash: Option<Flash>,
    /// The inputs whose rate cannot be known beforehand.
    pub rate_unknown: Vec<String>,
    /// What a power cut can lose, in words.
    pub power_cut: String,
    /// What the estimates assume.
    pub assumptions: Vec<&'static str>,
}

/// What an input will do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InputForecast {
    /// Its name.
    pub name: String,
    /// The driver's name.
    pub driver: String,
    /// What its series begin with.
    pub prefix: String,
    /// Whether the agent asks.
    pub polled: bool,
    /// How many series, where that is known.
    pub series: Option<usize>,
    /// Readings per second, where that is known.
    pub readings_per_second: Option<f64>,
    /// The readings of how many milliseconds a power cut can lose; 0 where the source sends again what was not committed.
    pub power_cut_loss_ms: u64,
}

/// What a stream will carry.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StreamForecast {
    /// Its name.
    pub name: String,
    /// `reserved`, `raw` or `window`.
    pub kind: &'static str,
    /// What goes before what.
    pub priority: Priority,
    /// How records are written on the wire.
    pub format: Format,
    /// Series that it takes, of those known; the upper bound where a filter takes a part of an input.
    pub series: usize,
    /// Whether it leaves out what tells nothing new (`deadband`, `on_change`): what follows is then the most.
    pub is_at_most: bool,
    /// Records per second; likewise. `None` where no rate is known, and for the reserved streams, which carry what happens.
    pub records_per_second: Option<f64>,
    /// Bytes a day on the link; likewise.
    pub link_bytes_per_day: Option<u64>,
    /// How far back the store reaches when the link is gone, in seconds; likewise the least.
    pub reach_seconds: Option<u64>,
    /// Values of a record.
    #[serde(skip)]
    pub(crate) values_per_record: f64,
}

/// When what is there is sent, where `batch` says nothing.
#[derive(Clone, Copy)]
struct Rounds {
    commit_every: Duration,
    schedule: Option<Schedule>,
}

/// What makes series: an input, or a derived series.
struct Source {
    makes: Selector,
    flow: Flow,
}

/// What a selection gets from the sources.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    series: f64,
    readings_per_second: f64,
    /// Whether it gets something, and of all of it the rate is not known.
    is_unknown: bool,
}

impl Forecast {
    /// The forecast of a configuration.
    pub fn of<I>(config: &Config<I>) -> Self {
        let commit_every = config.store.commit_every;
        let durability = |name: &str| {
            let plan = config.plan.inputs.iter().find(|plan| *plan.name == *name);
            plan.map_or(Durability::Commit, |plan| plan.durability)
        };
        let loss = |input: &InputConfig<I>| match durability(&input.name) {
            _ if input.can_be_asked_again => Duration::ZERO,
            Durability::Commit => commit_every,
            Durability::Relaxed => commit_every * Durability::RELAXED_COMMITS,
        };
        let inputs: Vec<InputForecast> = config
            .inputs
            .iter()
            .map(|input| InputForecast {
                name: input.name.to_string(),
                driver: input.driver.clone(),
                prefix: input.prefix.to_string(),
                polled: input.polled,
                series: input.series_count(),
                readings_per_second: input.readings_per_second.or_else(|| {
                    let every = input.every.filter(|every| !every.is_zero())?;
                    Some(input.series_count()? as f64 / every.as_secs_f64())
                }),
                power_cut_loss_ms: u64::try_from(loss(input).as_millis()).unwrap_or(u64::MAX),
            })
            .collect();
        let sources = sources(&inputs, &config.plan);
        let rounds = Rounds { commit_every, schedule: config.uplink.as_ref().and_then(|uplink| uplink.schedule) };
        let mut streams: Vec<StreamForecast> =
            config.plan.streams.iter().map(|stream| stream_forecast(stream, &sources, rounds)).collect();
        let reaches = reach::reaches(&config.plan, &streams, &config.store);
        streams.iter_mut().zip(reaches).for_each(|(stream, reach)| stream.reach_seconds = reach);
        let uplink = config.uplink.as_ref();
        let upkeep = uplink.map(|uplink| Upkeep::of(uplink, &config.plan));
        let ladders = uplink.zip(upkeep.as_ref()).map_or(Vec::new(), |(uplink, upkeep)| {
            LadderForecast::all(&config.plan, &streams, upkeep.bytes_per_day, uplink)
        });
        let sent: u64 = streams.iter().filter_map(|stream| stream.link_bytes_per_day).sum();
        let rate_unknown = inputs.iter().filter(|input| input.readings_per_second.is_none());
        let flash_bytes_per_day = flash_bytes_per_day(&inputs, &streams, commit_every);
        let flash = config.store.flash.filter(|_| flash_bytes_per_day > 0);
        Self {
            agent: config.agent.id.to_string(),
            clock: config.agent.clock.word(),
            derived: config.plan.derived.iter().map(|derived| derived.name.to_string()).collect(),
            rules: config.plan.rules.iter().map(|rule| rule.name.to_string()).collect(),
            uplink: uplink.map(|uplink| {
                let brokers = [&uplink.broker].into_iter().chain(&uplink.fallbacks);
                brokers.map(ToString::to_string).collect::<Vec<_>>().join(", else ")
            }),
            link_bytes_per_day: upkeep.as_ref().map(|upkeep| sent + upkeep.bytes_per_day),
            link_bytes_per_day_max: uplink.and_then(|uplink| uplink.links.first()?.bytes_per_day_max(Priority::Live)),
            links: uplink.map_or(Vec::new(), |uplink| LinkForecast::all(uplink, &ladders)),
            ladders,
            upkeep,
            flash_bytes_per_day,
            flash_years: flash.map(|flash| flash.years(flash_bytes_per_day as f64)),
            flash,
            rate_unknown: rate_unknown.map(|input| input.name.clone()).collect(),
            power_cut: power_cut(&inputs),
            assumptions: ASSUMPTIONS.to_vec(),
            inputs,
            streams,
        }
    }
}

impl Forecast {
    /// A sum of bytes in words; the inputs that it leaves out make it a lower bound, and the readings that streams leave out an upper one.
    fn a_day(&self, bytes: u64) -> String {
        let is_at_most = self.streams.iter().any(|stream| stream.is_at_most);
        let word = match (self.rate_unknown.is_empty(), is_at_most) {
            (false, _) if bytes == 0 => return "not known".into(),
            (true, false) | (false, true) => "about",
            (true, true) => "at most",
            (false, false) => "at least",
        };
        format!("{word} {} a day", write_bytes(bytes))
    }
}

/// What makes series: the inputs, and the derived series, each behind those that it looks at.
fn sources(inputs: &[InputForecast], plan: &Plan) -> Vec<Source> {
    let read = inputs.iter().filter_map(|input| {
        let flow = Flow {
            series: input.series.unwrap_or_default() as f64,
            readings_per_second: input.readings_per_second.unwrap_or_default(),
            is_unknown: input.readings_per_second.is_none(),
        };
        Some(Source { makes: format!("{}/+/#", input.prefix).parse().ok()?, flow })
    });
    let mut sources: Vec<Source> = read.collect();
    for (derived, makes) in plan.derived.iter().zip(derived::made(&plan.derived)) {
        let flow = derived_flow(derived, &sources);
        sources.push(Source { makes, flow });
    }
    sources
}

/// The readings of a derived series: one for each of the series that gives the times.
fn derived_flow(derived: &DerivedPlan, sources: &[Source]) -> Flow {
    let bindings = &derived.bindings;
    let Some(filter) = bindings.first().and_then(|first| looked_at(bindings, first)) else { return Flow::default() };
    let flow = flow(&[filter], sources);
    if bindings.iter().any(|binding| matches!(binding.source, BindingSource::Each(_))) {
        return flow;
    }
    // One series of those that its input has.
    Flow { series: flow.series.min(1.0), readings_per_second: flow.readings_per_second / flow.series.max(1.0), ..flow }
}

fn stream_forecast(stream: &StreamPlan, sources: &[Source], rounds: Rounds) -> StreamForecast {
    let blank = StreamForecast {
        name: stream.name.to_string(),
        kind: "reserved",
        priority: stream.priority,
        format: stream.format,
        series: 0,
        is_at_most: matches!(stream.kind, StreamKind::Raw { report: Some(_), .. }),
        records_per_second: None,
        link_bytes_per_day: None,
        reach_seconds: None,
        values_per_record: 1.0,
    };
    let Some((filters, every)) = selection(stream) else { return blank };
    let flow = flow(filters, sources);
    let (records_per_second, values_per_record) = match &stream.kind {
        StreamKind::Window(window) => {
            let aggregates = flow.series / window.kind.step().as_secs_f64();
            let values = window.compute.iter().map(|function| match function {
                Function::TimeInState => TIME_IN_STATE_VALUES,
                _ => 1.0,
            });
            // A series that is read more seldom than once a window makes no more aggregates than readings.
            (aggregates.min(flow.readings_per_second), values.sum())
        }
        _ => (flow.readings_per_second, 1.0),
    };
    let bytes = link_bytes_per_second(stream, flow.series, records_per_second, values_per_record, every, rounds);
    StreamForecast {
        kind: if every.is_some() { "window" } else { "raw" },
        series: flow.series as usize,
        records_per_second: (!flow.is_unknown).then_some(records_per_second),
        link_bytes_per_day: (!flow.is_unknown).then_some((bytes * SECONDS_PER_DAY) as u64),
        values_per_record,
        ..blank
    }
}

/// The series and readings of all sources of which some filter may select something.
fn flow(filters: &[Selector], sources: &[Source]) -> Flow {
    let selected = sources.iter().filter(|source| filters.iter().any(|filter| filter.overlaps(&source.makes)));
    let (unknown, known): (Vec<_>, Vec<_>) = selected.partition(|source| source.flow.is_unknown);
    Flow {
        // Without any, the sum of floats is −0.
        series: 0.0 + known.iter().map(|source| source.flow.series).sum::<f64>(),
        readings_per_second: 0.0 + known.iter().map(|source| source.flow.readings_per_second).sum::<f64>(),
        is_unknown: known.is_empty() && !unknown.is_empty(),
    }
}

fn link_bytes_per_second(
    stream: &StreamPlan,
    series: f64,
    records_per_second: f64,
    values_per_record: f64,
    every: Option<Duration>,
    rounds: Rounds,
) -> f64 {
    if records_per_second == 0.0 {
        return 0.0;
    }
    let commit_every = rounds.commit_every.max(every.unwrap_or_default());
    let at_most_each = |span: Duration| records_per_second.min(1.0 / commit_every.max(span).as_secs_f64());
    let messages_per_second = match stream.batch {
        BatchLimit::Auto => {
            rounds.schedule.map_or(at_most_each(Duration::ZERO), |Schedule { every, linger, .. }| {
                // What waits goes as one, and what comes during the connection commit by commit.
                at_most_each(every) + at_most_each(Duration::ZERO) * linger.as_secs_f64() / every.as_secs_f64()
            })
        }
        BatchLimit::Time(time) => at_most_each(time),
        BatchLimit::Count(count) => records_per_second / f64::from(count),
    };
    let series_per_message = series.min(records_per_second / messages_per_second);
    let values_per_second = records_per_second * values_per_record;
    messages_per_second * BYTES_PER_MESSAGE
        + match stream.format {
            Format::Frame => {
                values_per_second * FRAME_BYTES_PER_VALUE
                    + messages_per_second * series_per_message * FRAME_BYTES_PER_SERIES
            }
            Format::Json => records_per_second * JSON_BYTES_PER_RECORD + values_per_second * JSON_BYTES_PER_VALUE,
        }
}

fn flash_bytes_per_day(inputs: &[InputForecast], streams: &[StreamForecast], commit_every: Duration) -> u64 {
    let readings_per_second = inputs.iter().filter_map(|input| input.readings_per_second).sum::<f64>();
    let commits_per_second = readings_per_second.min(1.0 / commit_every.as_secs_f64());
    let sent_per_second: f64 =
        streams.iter().filter_map(|stream| stream.link_bytes_per_day).map(|bytes| bytes as f64 / SECONDS_PER_DAY).sum();
    let stored_per_second = readings_per_second * FRAME_BYTES_PER_VALUE + sent_per_second;
    ((commits_per_second * FLASH_BYTES_PER_COMMIT + stored_per_second * FLASH_WRITES_PER_BYTE) * SECONDS_PER_DAY) as u64
}

fn power_cut(inputs: &[InputForecast]) -> String {
    let mut names: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for input in inputs {
        names.entry(input.power_cut_loss_ms).or_default().push(&input.name);
    }
    let kept = names.remove(&0);
    let lost = names.iter().map(|(ms, names)| {
        format!("at most {} of readings of {}", write_span(Duration::from_millis(*ms)), names.join(", "))
    });
    let kept = kept.map(|names| format!("nothing of {}, whose source keeps what was not committed", names.join(", ")));
    let mut sentences: Vec<String> = lost.chain(kept).collect();
    if sentences.is_empty() {
        sentences.push("nothing: there is no input".into());
    }
    sentences.join("; ")
}

/// A number of bytes with three digits and a decimal unit.
fn write_bytes(bytes: u64) -> String {
    let units = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    let bytes = bytes as f64;
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{} {name}", three_digits(bytes / unit)),
        None => format!("{bytes} B"),
    }
}

fn three_digits(number: f64) -> String {
    match number {
        number if number >= 100.0 => format!("{number:.0}"),
        number if number >= 10.0 => format!("{number:.1}"),
        number => format!("{number:.2}"),
    }
}

impl fmt::Display for Forecast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "agent {}, clock {}", self.agent, self.clock)?;
        writeln!(f, "inputs:")?;
        for input in &self.inputs {
            let asked = if input.polled { "polled" } else { "speaks by itself" };
            let series = input.series.map_or("number of series not known".into(), |series| format!("{series} series"));
            let rate = input
                .readings_per_second
                .map_or("rate not known".into(), |rate| format!("{} readings/s", three_digits(rate)));
            writeln!(f, "  {} ({}, {asked}): {series}, {rate}", input.name, input.driver)?;
        }
        writeln!(f, "streams, beside alerts, gaps, late, quarantine and unsynced:")?;
        for stream in self.streams.iter().filter(|stream| stream.kind != "reserved") {
            match (stream.records_per_second, stream.link_bytes_per_day) {
                (Some(rate), Some(bytes)) => {
                    let (rate, bytes) = (three_digits(rate), write_bytes(bytes));
                    let most = if stream.is_at_most { "at most " } else { "" };
                    writeln!(f, "  {} ({}): {most}{rate} records/s, {most}{bytes} a day", stream.name, stream.kind)?;
                }
                _ => writeln!(f, "  {} ({}): rate not known", stream.name, stream.kind)?,
            }
        }
        if !self.derived.is_empty() {
            writeln!(f, "derived: {}", self.derived.join(", "))?;
        }
        if !self.rules.is_empty() {
            writeln!(f, "rules: {}", self.rules.join(", "))?;
        }
        match (&self.uplink, self.link_bytes_per_day) {
            (Some(broker), Some(bytes)) => {
                write!(f, "link: {} to {broker}", self.a_day(bytes))?;
                match self.link_bytes_per_day_max {
                    None => writeln!(f)?,
                    Some(most) if most >= bytes => writeln!(f, "; `rate` or `budget` lets {} pass", write_bytes(most))?,
                    Some(most) => {
                        let most = write_bytes(most);
                        writeln!(
                            f,
                            "; `rate` or `budget` lets only {most} pass: the rest waits in the store, and goes when that is full"
                        )?;
                    }
                }
            }
            _ => writeln!(f, "link: none; what is read is stored on this machine")?,
        }
        if let Some(upkeep) = &self.upkeep {
            writeln!(f, "  of it {upkeep}")?;
        }
        self.ladders.iter().try_for_each(|ladder| writeln!(f, "  {ladder}"))?;
        self.links.iter().try_for_each(|link| writeln!(f, "  {link}"))?;
        let reach = |stream: &StreamForecast| Some(format!("{} {}", stream.name, write_reach(stream.reach_seconds?)));
        let reaches: Vec<String> = self.streams.iter().filter_map(reach).collect();
        if !reaches.is_empty() {
            let most = if self.rate_unknown.is_empty() { "" } else { " at most" };
            writeln!(f, "when the link is gone, the store reaches back{most}: {}", reaches.join(", "))?;
        }
        write!(f, "flash: {}", self.a_day(self.flash_bytes_per_day))?;
        if let (Some(Flash { bytes, cycles }), Some(years)) = (self.flash, self.flash_years) {
            let (most, size, years) =
                (if self.rate_unknown.is_empty() { "" } else { "at most " }, write_bytes(bytes), three_digits(years));
            write!(
                f,
                "; {size} of {cycles} cycles last {most}{years} years, if the card writes {CELLS_PER_BYTE} bytes for each"
            )?;
        }
        writeln!(f)?;
        if !self.rate_unknown.is_empty() {
            writeln!(f, "not counted, since their rate is not known: {}", self.rate_unknown.join(", "))?;
        }
        writeln!(f, "a power cut can lose: {}", self.power_cut)?;
        write!(f, "assumed: {}", self.assumptions.join("; "))
    }
}
