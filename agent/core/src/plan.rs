//! The plan: what the engine computes, as checked from the configuration.
//!
//! A plan can only be built right: names are unique, selectors parsed, expressions compiled against their bindings. It is stored
//! beside the journal, so that a replay computes under the configuration that the events were taken under.

mod kind;
mod quality;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::expr::Expression;
pub use crate::function::{Buckets, Function, Percentile};
use crate::reading::InputId;
use crate::selector::Selector;
use crate::template::Template;

pub use kind::{CalendarLength, WindowKind};
pub use quality::{Checks, Mark, QualityPlan, Switch, ValueType};

/// The number of a stream: its place in [`Plan::streams`]. Across a reload streams are matched by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamId(pub u16);

impl StreamId {
    /// Gaps, outages and beginnings of epochs.
    pub const GAPS: Self = Self(0);
    /// Alerts of all rules.
    pub const ALERTS: Self = Self(1);
    /// Readings that came after the lateness of a window that selects them.
    pub const LATE: Self = Self(2);
    /// Readings too far ahead of their arrival.
    pub const QUARANTINE: Self = Self(3);
    /// Readings whose time nobody will know.
    pub const UNSYNCED: Self = Self(4);

    /// The place in [`Plan::streams`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What the engine computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The agent's id, as it stands in every record.
    pub agent: Arc<str>,
    /// Free labels of the agent, for topics and the status.
    pub labels: BTreeMap<String, String>,
    /// The inputs, by [`InputId`].
    pub inputs: Vec<InputPlan>,
    /// The streams, by [`StreamId`]: first the five reserved ones, then the configured ones by name.
    pub streams: Vec<StreamPlan>,
    /// The rules, by name.
    pub rules: Vec<RulePlan>,
    /// The derived series, those that others depend on first.
    pub derived: Vec<DerivedPlan>,
    /// The checks of readings, by filter; no two have the same.
    pub quality: Vec<QualityPlan>,
    /// Streams of the same data, by the name of the ladder.
    pub ladders: Vec<LadderPlan>,
}

/// Streams of the same data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LadderPlan {
    /// Its name.
    pub name: Arc<str>,
    /// From fine to coarse; each selects all that the one before does, in windows that consist of whole ones of it.
    pub levels: Vec<StreamId>,
}

/// What the engine knows of an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputPlan {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// The first levels of its series; the name unless configured.
    pub prefix: Arc<str>,
    /// How far behind the newest event time the watermark stays.
    pub out_of_order: Duration,
    /// How long a silent input holds its open windows back.
    pub idle: Duration,
    /// How far ahead of its arrival a reading may be.
    pub max_ahead: Duration,
    /// Whether the source keeps what was not acknowledged (MQTT with a session, a file), so that a restart loses nothing.
    pub can_be_asked_again: bool,
    /// Whether the input's readings may wait in memory past a commit.
    pub durability: Durability,
}

impl InputPlan {
    /// How far the watermark of a source that speaks by itself stays behind.
    pub const OUT_OF_ORDER_PUSHED: Duration = Duration::from_secs(2);
    /// The least [`InputPlan::idle`], and that of a source without an interval.
    pub const IDLE_MIN: Duration = Duration::from_secs(10);
    /// [`InputPlan::max_ahead`] unless configured.
    pub const MAX_AHEAD: Duration = Duration::from_secs(300);

    /// An input that nothing is known of, with the defaults of a source that speaks by itself.
    pub fn pushed(name: Arc<str>) -> Self {
        Self {
            prefix: name.clone(),
            name,
            out_of_order: Self::OUT_OF_ORDER_PUSHED,
            idle: Self::IDLE_MIN,
            max_ahead: Self::MAX_AHEAD,
            can_be_asked_again: false,
            durability: Durability::Commit,
        }
    }
}

/// When readings of an input must be on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// With the next commit.
    #[default]
    Commit,
    /// With a commit that is made anyway, or after [`Durability::RELAXED_COMMITS`] intervals.
    Relaxed,
}

impl Durability {
    /// How many commit intervals relaxed readings wait in memory at most.
    pub const RELAXED_COMMITS: u32 = 10;
}

/// What goes before what on the link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// At once, before all else.
    Alert,
    /// As it comes.
    #[default]
    Live,
    /// When there is room.
    Bulk,
}

/// How a stream's records are written on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Compressed, checksummed frames (docs/wire-format.md).
    #[default]
    Frame,
    /// One JSON array of records a message; with a batch of one a bare object.
    Json,
}

/// How much of a stream is gathered before it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BatchLimit {
    /// As the link suggests.
    Auto,
    /// At most this long after the first record.
    Time(Duration),
    /// At most this many records.
    Count(u32),
}

/// A stream: a durable, numbered lane to the centre.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StreamPlan {
    /// Its name.
    pub name: Arc<str>,
    /// Where its records come from.
    pub kind: StreamKind,
    /// What goes before it on the link.
    pub priority: Priority,
    /// How its records are written on the wire.
    pub format: Format,
    /// How much is gathered before sending.
    pub batch: BatchLimit,
    /// The topic, where it differs from the uplink's.
    pub topic: Option<Template>,
    /// The category of its records.
    pub class: Arc<str>,
    /// The most that its frames take of the store, in bytes.
    pub bytes_max: Option<u64>,
    /// How long its records wait for the link, where that is shorter than the store's.
    pub age_max: Option<Duration>,
    /// What of it is sent first.
    pub order: Order,
    /// What of it goes first when there is no room.
    pub evict: Order,
}

/// Which end of what waits comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// What has waited longest.
    #[default]
    Oldest,
    /// What came last.
    Newest,
}

/// Where a stream's records come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StreamKind {
    /// One of the reserved streams; the program itself writes them.
    Reserved,
    /// Readings as they are.
    Raw {
        /// Which series; a series is taken when one filter selects it.
        select: Vec<Selector>,
        /// What it leaves out; `None` for nothing.
        report: Option<ReportPlan>,
    },
    /// Aggregates over windows of event time.
    Window(WindowPlan),
}

/// What a stream of readings leaves out: a reading that tells nothing new beside the last one of its series that went along. A reading
/// whose quality, check or clock differs from that one's always goes along.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportPlan {
    /// How much a value must differ.
    pub deadband: Deadband,
    /// The event time after which a reading goes along although nothing changed.
    pub heartbeat: Option<Duration>,
}

/// How much a value must differ from the last one that went along. What is no number must be another.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Deadband {
    /// At all.
    Any,
    /// By more than this.
    Absolute(f64),
    /// By more than this part of the last one's magnitude; 0.01 is a percent.
    Relative(f64),
}

/// A window: what is aggregated, over which intervals, how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowPlan {
    /// Which series; a series is taken when one filter selects it.
    pub select: Vec<Selector>,
    /// Over which intervals.
    pub kind: WindowKind,
    /// How long an emitted window is still revised.
    pub lateness: Duration,
    /// How often a window that has not ended is emitted early: whenever the watermark passes a multiple of it.
    pub emit_every: Option<Duration>,
    /// What is computed, in the order in which it is printed.
    pub compute: Vec<Function>,
    /// How exact percentiles are.
    pub buckets: Buckets,
}

/// How much an alert matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Look at it.
    #[default]
    Warning,
    /// Act now.
    Critical,
}

impl Severity {
    /// The word in the configuration, in frames and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// A rule: a condition over series that raises and clears an alert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RulePlan {
    /// Its name.
    pub name: Arc<str>,
    /// The names that its expressions use, in the order of the configuration.
    pub bindings: Vec<Binding>,
    /// What raises and clears.
    pub condition: Condition,
    /// How much it matters.
    pub severity: Severity,
    /// The text of the alert, with the bindings' names as places: `boiler at {t}`.
    pub message: Option<Template>,
    /// How often, at most, an alert that stays raised is said again; absent: never.
    pub repeat: Option<Duration>,
}

/// What raises and clears the alerts of a rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Condition {
    /// Values of series.
    Holds {
        /// Raises when it becomes true.
        when: Expression,
        /// Clears when it becomes true; absent: when `when` becomes false.
        clear: Option<Expression>,
        /// For how long `when` must be true before it raises.
        hold: Duration,
    },
    /// That a series is not heard.
    Absent {
        /// For how long.
        after: Duration,
        /// Which series, each of which makes an instance; one that is named without wildcards whether it was ever heard or not.
        select: Vec<Selector>,
    },
}

impl RulePlan {
    /// Whether it is raised by silence, not by values.
    pub const fn is_over_absence(&self) -> bool {
        matches!(self.condition, Condition::Absent { .. })
    }
}

/// A derived series: an expression over others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DerivedPlan {
    /// Its name; a place is a level of the series that made the instance.
    pub name: Template,
    /// The input that stands for it in [`Plan::inputs`], made by [`InputPlan::derived`].
    pub input: InputId,
    /// The names that its expression uses, in the order of the configuration. The first gives the times.
    pub bindings: Vec<Binding>,
    /// How old the values of other names may be.
    pub within: Duration,
    /// What happens where one is missing.
    pub join: Join,
    /// Its value.
    pub expr: Expression,
    /// Its unit.
    pub unit: Option<Arc<str>>,
    /// Where the names are aggregates, not readings: which.
    pub over: Option<WindowJoin>,
}

/// The aggregates that a derived series is computed from, for each window anew. Nothing else is near enough, so that `within` is nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WindowJoin {
    /// The stream of the windows, which are those of all series at the same times: no sessions.
    pub window: StreamId,
    /// For each name the function, which the window computes.
    pub functions: Vec<Function>,
}

/// What a derived series does where a value is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Join {
    /// There is no reading.
    #[default]
    Inner,
    /// The expression decides, and there is a bad reading where its value is missing.
    Left,
}

impl InputPlan {
    /// The input that stands for a derived series: its name is none that a configured input can have.
    pub fn derived(name: &Template) -> Self {
        Self {
            out_of_order: Duration::ZERO,
            can_be_asked_again: true,
            ..Self::pushed(format!("derived:{name}").into())
        }
    }
}

impl DerivedPlan {
    /// Whether a series makes an instance: one that its filter selects, or without a filter the one of its first name.
    pub fn is_made_by(&self, series: &str) -> bool {
        let mut sources = self.bindings.iter().map(|binding| &binding.source);
        match sources.clone().find(|source| matches!(source, BindingSource::Each(_))).or_else(|| sources.next()) {
            Some(BindingSource::Each(filter)) => filter.matches(series),
            Some(BindingSource::Series(name)) => name.render_levels(series).is_ok_and(|name| name == series),
            None => false,
        }
    }
}

impl Binding {
    /// The series of an instance that another one made: of a filter that one itself.
    pub fn series_of(&self, maker: &Arc<str>) -> Option<Arc<str>> {
        match &self.source {
            BindingSource::Each(filter) => filter.matches(maker).then(|| Arc::clone(maker)),
            BindingSource::Series(template) => template.render_levels(maker).ok().map(Into::into),
        }
    }
}

/// One `let`: a name for the newest value of a series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Binding {
    /// The name in expressions.
    pub name: Arc<str>,
    /// The series: a template over the levels of the series that made the instance (`meters/{1}/current`), or, for the binding
    /// that makes the instances, the filter itself.
    pub source: BindingSource,
}

/// Where a binding's value comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum BindingSource {
    /// One series; `{n}` is level n of the series that made the instance.
    Series(Template),
    /// Each series that the filter selects makes an instance.
    Each(Selector),
}

impl Plan {
    /// The input with this name.
    pub fn input_named(&self, name: &str) -> Option<InputId> {
        let place = self.inputs.iter().position(|input| &*input.name == name)?;
        u16::try_from(place).ok().map(InputId)
    }

    /// The window of a stream that is one.
    pub fn window(&self, stream: StreamId) -> Option<&WindowPlan> {
        match &self.streams.get(stream.index())?.kind {
            StreamKind::Window(window) => Some(window),
            _ => None,
        }
    }

    /// The stream with this name.
    pub fn stream_named(&self, name: &str) -> Option<StreamId> {
        let place = self.streams.iter().position(|stream| &*stream.name == name)?;
        u16::try_from(place).ok().map(StreamId)
    }
}
