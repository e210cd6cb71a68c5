//! Streams and windows: what goes to the centre, as readings or as aggregates.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rtlive_core::frame::FUNCTIONS_MAX;
use rtlive_core::plan::{
    BatchLimit, Buckets, Format, Function, Order, Priority, StreamId, StreamKind, StreamPlan, WindowPlan,
};
use rtlive_core::selector::Selector;
use rtlive_core::sorted;
use rtlive_core::template::Template;

use crate::deadband;
use crate::name::{RESERVED, named_tables};
use crate::options::words;
use crate::quantity::{ByteCount, Period, Span, Step, parse_span, write_span};
use crate::table::{Table, Value};
use crate::topic::{self, Messages};
use crate::value::{OneOrMany, Setting};
use crate::window;
use crate::{choices, options};

/// The most streams, windows included. Each has a tail in memory and an account in the store.
pub const STREAMS_MAX: usize = 1_000;

/// The class of all records: what a machine does, and nothing about people.
const CLASS: &str = "process";

/// The reserved streams of this version, in the order of [`StreamId`], with what goes before what on the link: a gap must be known
/// before the data behind it is believed complete.
const RESERVED_STREAMS: [(&str, StreamId, Priority); 5] = [
    ("gaps", StreamId::GAPS, Priority::Alert),
    ("alerts", StreamId::ALERTS, Priority::Alert),
    ("late", StreamId::LATE, Priority::Live),
    ("quarantine", StreamId::QUARANTINE, Priority::Live),
    ("unsynced", StreamId::UNSYNCED, Priority::Live),
];

choices! {
    for Priority {
        /// At once, before all else.
        Alert = "alert",
        /// As it comes.
        Live = "live",
        /// When there is room.
        Bulk = "bulk",
    }
}

choices! {
    for Format {
        /// Compressed, checksummed frames.
        Frame = "frame",
        /// One JSON array of records a message; with `batch = 1` a bare object.
        Json = "json",
    }
}

choices! {
    for Order {
        /// What has waited longest.
        Oldest = "oldest",
        /// What came last.
        Newest = "newest",
    }
}

options! {
    /// How a stream goes to the centre. A window takes these keys too.
    pub struct LaneOptions {
        /// What goes before what on the link.
        pub priority: Option<Priority>,
        /// How records are written on the wire.
        pub format: Format = "frame",
        /// How much is gathered before it is sent: a span since the first record (`"10s"`), or a number of records (`100`), for which the
        /// first waits a minute at most. Absent: as the link suggests.
        pub batch: Option<Batch>,
        /// The topic, where it differs from the uplink's. With `format = "json"` and `batch = 1` it may have `{series}`, too.
        pub topic: Option<Template>,
        /// The most that its frames take of the store; the oldest go then, and a gap names them. Absent: as much as the store has.
        pub max_bytes: Option<ByteCount>,
        /// How long its records wait for the link, where that is shorter than the store's.
        pub max_age: Option<Period>,
        /// What of the backlog is sent first. With `newest` the stream takes turns with the others of its priority.
        pub order: Order = "oldest",
        /// What goes first when there is no room. With `newest`, the first records of an outage are kept; the stream's records go after those of
        /// others of its priority.
        pub evict: Order = "oldest",
        later: ["class"],
    }
}

options! {
    /// Readings as they are.
    pub struct StreamOptions {
        /// The series, by filters: a series goes along when one of them selects it.
        pub select: OneOrMany<Selector>,
    }
}

options! {
    /// Aggregates over windows of event time. The table's name is the stream's.
    pub struct WindowOptions {
        /// The series, by filters: a series is aggregated when one of them selects it.
        pub select: OneOrMany<Selector>,
        /// How often a window begins, and its length unless there is `over`. Windows are [start, end), aligned to 1970-01-01T00:00:00Z,
        /// with `zone` to the clock there; an empty one emits nothing. `"1mo"` is a month of the calendar. Not beside `gap`.
        pub every: Option<Step>,
        /// Sliding windows: their length, a multiple of `every`; each reading lies in `over` / `every` of them.
        pub over: Option<Period>,
        /// Sessions, instead of `every`: a window lasts until there was no reading for so long, which is a part of it.
        pub gap: Option<Period>,
        /// How long a session may be; a reading that would make it longer begins another. Absent: 1 day.
        pub longest: Option<Period>,
        /// How much later windows begin than `every` says; with `zone`, by the clock there: with `every = "1d"`, `"6h"` is a day from six to six.
        pub offset: Option<Span>,
        /// The time zone of windows of days, weeks (from Monday) and months, such as `"Europe/Berlin"`: a day has 23 or 25 hours when the clock
        /// changes. Needs the system's time zone data (tzdata). Absent: UTC, and weeks from Thursday, as 1970-01-01 was one.
        pub zone: Option<String>,
        /// Emits windows that have not ended, as `final: false`, whenever the watermark passes a multiple of this. Not for sliding windows.
        pub emit_every: Option<Period>,
        /// How long an emitted window is still revised by readings that come late; after that they go to the stream `late`.
        pub lateness: Span = "10s",
        /// What is computed ([aggregates](aggregates.md)). Of text and bools only count, first, last and time_in_state.
        pub compute: Compute = ["count", "min", "max", "mean", "last"],
        /// How far a percentile may be from the exact one, as a part of it. Unless configured 0.01, which is 1 %.
        pub percentile_error: Option<PartOfOne>,
        /// The resolution of the sensors, such as 0.1: a percentile is then at most half of it from the exact one, instead of a part.
        pub resolution: Option<f64>,
    }
}

/// How much is gathered before sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch(pub BatchLimit);

/// What a window computes, each function once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compute(pub Vec<Function>);

/// A part of one, as exact as percentiles can be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PartOfOne(pub f64);

impl Setting for Batch {
    fn expected() -> String {
        "a span such as \"10s\", or a number of records, 1 or more".into()
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        let count = value.as_integer().and_then(|count| u32::try_from(count).ok()).filter(|&count| count > 0);
        let time = value.as_text().and_then(parse_span).filter(|span| !span.is_zero());
        let limit = count.map(BatchLimit::Count).or_else(|| time.map(BatchLimit::Time));
        if limit.is_none() {
            value.wrong(Self::expected());
        }
        limit.map(Self)
    }
}

impl Setting for PartOfOne {
    fn expected() -> String {
        format!("a number from {} to {}", Buckets::RELATIVE_MIN, Buckets::RELATIVE_MAX)
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        let part = value.as_number().filter(|part| (Buckets::RELATIVE_MIN..=Buckets::RELATIVE_MAX).contains(part));
        if part.is_none() {
            value.wrong(Self::expected());
        }
        part.map(Self)
    }
}

impl Setting for Compute {
    fn expected() -> String {
        format!("a list of {}", with_names(|names| words(&[names, &["p95"]].concat())))
    }

    fn read(value: &Value<'_>) -> Option<Self> {
        if value.list_len().is_none_or(|len| len == 0) {
            value.wrong(Self::expected());
            return None;
        }
        let mut seen = Vec::new();
        let functions = value.each(|item| {
            let function = function(item)?;
            if seen.contains(&function) {
                item.mistake("each function once", format!("{:?} again", function.name()));
                return None;
            }
            seen.push(function);
            Some(function)
        });
        if seen.len() > FUNCTIONS_MAX {
            value.mistake(format!("at most {FUNCTIONS_MAX} functions"), seen.len());
            return None;
        }
        functions.map(Self)
    }

    fn choices() -> Vec<(&'static str, &'static str)> {
        vec![
            ("count", "How many readings; an integer."),
            ("sum", "Their sum, compensated (Neumaier 1974)."),
            ("mean", "The sum divided by the count."),
            ("min", "The least value."),
            ("max", "The greatest value."),
            ("first", "The value of the earliest reading."),
            ("last", "The value of the latest reading."),
            ("std", "The standard deviation of the population."),
            ("rms", "The root of the mean square."),
            ("range", "The greatest value minus the least."),
            ("increase", "What a counter rose by since the reading before the window; after it went back, from 0."),
            ("rate", "The increase divided by the seconds between the readings that it was counted from and to."),
            ("resets", "How often a counter went back."),
            ("time_mean", "The mean weighted by how long each value held."),
            ("time_in_state", "The seconds that each state held, by its name: of bools, texts and integers."),
            (
                "p95",
                "The 95th percentile, and so on: any above 0 and below 100 with at most three decimals, such as `p50` or `p99.9`.",
            ),
        ]
    }
}

/// The names of all functions but the percentiles.
fn with_names<T>(then: impl FnOnce(&[&str]) -> T) -> T {
    let names = Function::NAMED.map(Function::name);
    then(&names.each_ref().map(|name| &**name))
}

fn function(item: &Value<'_>) -> Option<Function> {
    let text = item.as_text();
    let found = text.and_then(|text| text.parse().ok());
    if found.is_none() {
        let is_percentile =
            |text: &str| text.strip_prefix('p').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        match text {
            Some("p0") => item.mistake("\"min\" for the least value", item.found()),
            Some("p100") => item.mistake("\"max\" for the greatest value", item.found()),
            Some(text) if is_percentile(text) => {
                item.wrong("a percentile above 0 and below 100 with at most three decimals, none of them needless, such as \"p99.9\"");
            }
            _ => with_names(|names| crate::options::wrong_word(item, text, &[names, &["p95"]].concat())),
        }
    }
    found
}

/// Checks `[streams.*]` and `[windows.*]`; the reserved streams first, then the others by name.
pub(crate) fn check<'a>(root: &Table<'a>, labels: Option<&BTreeMap<String, String>>) -> Vec<StreamPlan> {
    let mut reserved: Vec<StreamPlan> =
        RESERVED_STREAMS.iter().map(|&(name, _, priority)| reserved(name, priority)).collect();
    let mut configured: Vec<StreamPlan> = Vec::new();
    let streams = root.table("streams");
    let windows = root.table("windows");
    if !root.has("streams") && !root.has("windows") {
        configured.push(everything());
    }
    let named = |parent: &Option<Table<'a>>, what| {
        parent.iter().flat_map(|parent| named_tables(parent, what)).collect::<Vec<_>>()
    };
    let (stream_tables, window_tables) = (named(&streams, "a stream"), named(&windows, "a window"));
    let count = stream_tables.len() + window_tables.len();
    if count > STREAMS_MAX {
        root.mistake("", format!("at most {STREAMS_MAX} streams and windows"), count);
        return reserved;
    }
    for (name, table) in &stream_tables {
        if let Some(place) = RESERVED_STREAMS.iter().position(|(reserved, ..)| reserved == name) {
            if let (Some(lane), Some(stream)) = (reserved_lane(table, labels), reserved.get_mut(place)) {
                lane.apply(stream);
            }
        } else if is_free(name, table, None) {
            configured.extend(stream(name, table, labels));
        }
    }
    for (name, table) in &window_tables {
        if is_free(name, table, streams.as_ref()) {
            configured.extend(window_stream(name, table, labels));
        }
    }
    sorted::by(&mut configured, |a, b| a.name.cmp(&b.name));
    reserved.append(&mut configured);
    reserved
}

/// Whether a name of a stream or window is not taken; notes a mistake if it is.
fn is_free(name: &str, table: &Table<'_>, streams: Option<&Table<'_>>) -> bool {
    if matches!(name, "unsynced" | "audit") && streams.is_none() {
        table.not_yet("", format_args!("the stream {name}"));
        return false;
    }
    if RESERVED.contains(&name) {
        table.mistake("", format!("a name that is not reserved ({})", RESERVED.join(", ")), format!("{name:?}"));
        return false;
    }
    if let Some(streams) = streams.filter(|streams| streams.has(name)) {
        let place = streams.place_of(name);
        table.mistake("", "a name that no stream has, since a window is one", format!("{name:?} also at {place}"));
        return false;
    }
    true
}

/// How a stream goes to the centre, checked.
struct Lane {
    priority: Option<Priority>,
    format: Format,
    batch: BatchLimit,
    topic: Option<Template>,
    bytes_max: Option<u64>,
    age_max: Option<Duration>,
    order: Order,
    evict: Order,
}

impl Lane {
    /// `has_series`: the records are those of series.
    fn read(table: &Table<'_>, has_series: bool, labels: Option<&BTreeMap<String, String>>) -> Option<Self> {
        let LaneOptions { priority, format, batch, topic, max_bytes, max_age, order, evict } =
            LaneOptions::read_part(table)?;
        let batch = batch.map_or(BatchLimit::Auto, |batch| batch.0);
        let messages = match (format, batch) {
            (Format::Json, BatchLimit::Count(1)) if has_series => Messages::OfOneSeries,
            _ => Messages::OfAny,
        };
        let topic_is_right = topic.as_ref().is_none_or(|topic| topic::check(table, "topic", topic, messages, labels));
        let (bytes_max, age_max) = (max_bytes.map(|max| max.0), max_age.map(|max| max.0));
        topic_is_right.then_some(Self { priority, format, batch, topic, bytes_max, age_max, order, evict })
    }

    fn apply(self, stream: &mut StreamPlan) {
        let Self { priority, format, batch, topic, bytes_max, age_max, order, evict } = self;
        stream.priority = priority.unwrap_or(stream.priority);
        stream.format = format;
        stream.batch = batch;
        stream.topic = topic;
        stream.bytes_max = bytes_max;
        stream.age_max = age_max;
        stream.order = order;
        stream.evict = evict;
    }
}

fn blank(name: &str, kind: StreamKind) -> StreamPlan {
    StreamPlan {
        name: Arc::from(name),
        kind,
        priority: Priority::default(),
        format: Format::default(),
        batch: BatchLimit::Auto,
        topic: None,
        class: CLASS.into(),
        bytes_max: None,
        age_max: None,
        order: Default::default(),
        evict: Default::default(),
    }
}

fn reserved(name: &str, priority: Priority) -> StreamPlan {
    StreamPlan { priority, ..blank(name, StreamKind::Reserved) }
}

/// The stream that there is when nothing is written: all readings.
fn everything() -> StreamPlan {
    let select = "#".parse::<Selector>().into_iter().collect();
    blank("raw", StreamKind::Raw { select, report: None })
}

fn reserved_lane(table: &Table<'_>, labels: Option<&BTreeMap<String, String>>) -> Option<Lane> {
    let lane = Lane::read(table, false, labels);
    if table.has("select") {
        table.mistake("select", "no `select` in a stream that the program itself writes", "one");
        table.dealt_with("select");
    }
    deadband::refuse(table, "what the program itself writes is all of it news");
    table.close();
    lane
}

fn stream(name: &str, table: &Table<'_>, labels: Option<&BTreeMap<String, String>>) -> Option<StreamPlan> {
    let (lane, report) = (Lane::read(table, true, labels), deadband::read(table));
    let options = StreamOptions::read(table);
    let mut stream = blank(name, StreamKind::Raw { select: options?.select.into_vec(), report: report? });
    lane?.apply(&mut stream);
    Some(stream)
}

fn window_stream(name: &str, table: &Table<'_>, labels: Option<&BTreeMap<String, String>>) -> Option<StreamPlan> {
    let lane = Lane::read(table, true, labels);
    deadband::refuse(table, "an aggregate that is absent says that nothing was read, so none is left out");
    let options = WindowOptions::read(table)?;
    let kind = window::kind(table, &options);
    let buckets = buckets(table, &options);
    let WindowOptions { select, lateness: Span(lateness), compute: Compute(compute), .. } = options;
    let (kind, emit_every) = kind?;
    let window = WindowPlan { select: select.into_vec(), kind, lateness, emit_every, compute, buckets: buckets? };
    let mut stream = blank(name, StreamKind::Window(window));
    lane?.apply(&mut stream);
    Some(stream)
}

/// How exact the percentiles of a window are.
fn buckets(table: &Table<'_>, options: &WindowOptions) -> Option<Buckets> {
    let &WindowOptions { compute: Compute(ref compute), percentile_error: error, resolution, .. } = options;
    let given = if resolution.is_some() { "resolution" } else { "percentile_error" };
    if resolution.is_some_and(|resolution| resolution <= 0.0) {
        table.mistake("resolution", "a number above 0", resolution.unwrap_or_default());
        return None;
    }
    if resolution.is_some() && error.is_some() {
        table.mistake("resolution", "either `percentile_error` or `resolution`", "both");
        return None;
    }
    if (resolution.is_some() || error.is_some()) && !compute.iter().any(|function| function.needs_sketch()) {
        table.warn(given, "changes nothing: `compute` has no percentile");
    }
    let relative = || error.map_or_else(Buckets::default, |PartOfOne(error)| Buckets::Relative(error));
    Some(resolution.map_or_else(relative, Buckets::Steps))
}

/// Notes windows that would be revised when what they told before is no longer kept.
pub(crate) fn check_ages(root: &Table<'_>, streams: &[StreamPlan], store_max_age: Duration) {
    for stream in streams {
        let age_max = stream.age_max.unwrap_or(store_max_age).min(store_max_age);
        if let StreamKind::Window(window) = &stream.kind
            && window.lateness > age_max
        {
            let expected = format!("at most {}, for which the records are kept (`max_age`)", write_span(age_max));
            root.mistake(&format!("windows.{}.lateness", stream.name), expected, write_span(window.lateness));
        }
    }
}

/// The filters of a stream, where it has some, and how often it makes a record of a series, where that is fixed.
pub(crate) fn selection(stream: &StreamPlan) -> Option<(&[Selector], Option<Duration>)> {
    match &stream.kind {
        StreamKind::Reserved => None,
        StreamKind::Raw { select, .. } => Some((select, None)),
        StreamKind::Window(window) => Some((&window.select, Some(window.kind.step()))),
    }
}
