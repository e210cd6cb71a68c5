//! Records: what the engine emits, what streams carry, and what the centre gets.
//!
//! A record names its series by [`SeriesId`] in a table that goes with it: the engine's own while it is inside the agent, the
//! frame's once it is sealed. Aggregates list their values in the order of the window's `compute`, which goes along likewise.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::plan::{Severity, StreamId};
use crate::reading::{ClockState, Reading, SeriesId, Value};
use crate::time::Timestamp;

/// The random id of one unbroken history of a store within one boot. Printed as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Epoch {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// A record that the engine emitted, not yet numbered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Emitted {
    /// The stream it goes to.
    pub stream: StreamId,
    /// What it says.
    pub record: Record,
}

/// One record of a stream. Readings and aggregates come by the thousand and lie side by side; what is rare and large is boxed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// A reading as it is.
    Reading(Reading),
    /// An aggregate of one series over one window.
    Aggregate(Aggregate),
    /// A rule raised, repeated or cleared an alert.
    Alert(Box<Alert>),
    /// Records of a stream are not coming.
    Gap(Box<Gap>),
    /// Readings of an input were never taken.
    Outage(Box<OutageRecord>),
    /// An epoch begins.
    EpochStart(Box<EpochStart>),
}

/// An aggregate of one series over one window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Aggregate {
    /// The series.
    pub series: SeriesId,
    /// The first instant of the window.
    pub start: Timestamp,
    /// The first instant after the window.
    pub end: Timestamp,
    /// 0 at first; the highest revision of a (series, window) replaces the others.
    pub revision: u32,
    /// Whether the watermark had passed the window; `false` for an early result.
    pub is_final: bool,
    /// Takes back all earlier revisions of this (series, window).
    pub deleted: bool,
    /// One for each function of the window's `compute`; `None` where it has no meaning for the series.
    pub values: Box<[Option<Value>]>,
}

/// What an alert reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertState {
    /// The condition came true.
    Raised,
    /// It still holds: said again.
    Repeated,
    /// It is over.
    Cleared,
}

impl AlertState {
    /// The word in frames and in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Repeated => "repeated",
            Self::Cleared => "cleared",
        }
    }
}

/// A rule raised, repeated or cleared an alert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// The rule's name.
    pub rule: Arc<str>,
    /// The series that made the instance; empty for a rule without instances.
    pub instance: Arc<str>,
    /// How much it matters.
    pub severity: Severity,
    /// The event time of the reading that decided; where time alone did, when that was.
    pub time: Timestamp,
    /// Raised, repeated or cleared.
    pub state: AlertState,
    /// The rule's message with its places filled in.
    pub message: Arc<str>,
    /// The values that the rule's bindings had, in their order; `None` for one that was missing.
    pub values: Vec<(Arc<str>, Option<Value>)>,
    /// How well `time` is known.
    pub clock: ClockState,
}

/// Records of a stream that are not coming.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The stream's name.
    pub stream: Arc<str>,
    /// The epoch that the numbers count in, where it is not the record's own.
    pub epoch: Option<Epoch>,
    /// The class of the records, where it is not the record's own.
    pub class: Option<Arc<str>>,
    /// The first number.
    pub from: u64,
    /// The last number.
    pub to: u64,
    /// How many records, where not all of these numbers are meant: of a gap that was made of several that do not touch.
    pub count: Option<u64>,
    /// The earliest event time, where known.
    pub start: Option<Timestamp>,
    /// The latest event time, where known.
    pub end: Option<Timestamp>,
    /// Why: `evicted`, `expired`, `damaged`, `unconfirmed`, `replay_failed`.
    pub reason: Arc<str>,
    /// A coarser stream that tells the same story.
    pub covered_by: Option<Arc<str>>,
}

/// Readings of an input that were never taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutageRecord {
    /// The input's name.
    pub input: Arc<str>,
    /// When it was last heard; `None` if it never was.
    pub start: Option<Timestamp>,
    /// When it was heard again.
    pub end: Timestamp,
    /// How many readings, where known.
    pub count: Option<u64>,
    /// Why: `restart`, `overrun`, `session_lost`.
    pub reason: Arc<str>,
}

/// An epoch begins; the first record of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochStart {
    /// When, by the wall clock.
    pub time: Timestamp,
    /// The epoch before it in this store, where there was one.
    pub predecessor: Option<Epoch>,
    /// The last numbers known of the predecessor: stream, class, number.
    pub last: Vec<(Arc<str>, Arc<str>, u64)>,
    /// Why: `new_store`, `boot`, `damaged_store`, `replay_failed`; `memory` while the disk cannot be written, and `after_memory` on the disk again.
    /// The last has a record for each of the two epochs that end there: that of memory, and that of the disk.
    pub reason: Arc<str>,
}

impl From<Alert> for Record {
    fn from(alert: Alert) -> Self {
        Self::Alert(Box::new(alert))
    }
}

impl From<Gap> for Record {
    fn from(gap: Gap) -> Self {
        Self::Gap(Box::new(gap))
    }
}

impl From<OutageRecord> for Record {
    fn from(outage: OutageRecord) -> Self {
        Self::Outage(Box::new(outage))
    }
}

impl From<EpochStart> for Record {
    fn from(start: EpochStart) -> Self {
        Self::EpochStart(Box::new(start))
    }
}

impl Gap {
    /// How many records are not coming.
    pub fn records(&self) -> u64 {
        self.count.unwrap_or_else(|| self.to.saturating_sub(self.from).saturating_add(1))
    }
}

impl Record {
    /// The span of event time that the record speaks of; `None` for an outage without a start.
    #[inline]
    pub fn span(&self) -> Option<(Timestamp, Timestamp)> {
        match self {
            Self::Reading(reading) => Some((reading.time, reading.time)),
            Self::Aggregate(aggregate) => Some((aggregate.start, aggregate.end)),
            Self::Alert(alert) => Some((alert.time, alert.time)),
            Self::Gap(gap) => gap.start.zip(gap.end),
            Self::Outage(outage) => Some((outage.start.unwrap_or(outage.end), outage.end)),
            Self::EpochStart(epoch) => Some((epoch.time, epoch.time)),
        }
    }
}
