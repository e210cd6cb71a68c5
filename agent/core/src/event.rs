//! Events: everything that the engine takes. The journal is a list of these, and a replay of it is the engine's past.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::plan::Plan;
use crate::reading::{InputId, Reading, SeriesInfo};
use crate::time::Timestamp;

/// Something that the engine takes at an instant of the wall clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// A series appears. It gets the next [`SeriesId`](crate::reading::SeriesId), unless one of its name is known, which keeps its
    /// number; readings may use it from the next event on.
    Series(Declared),
    /// Readings arrive.
    Batch(Batch),
    /// Time passes and nothing else. Only time steps that change something need be journalled.
    Tick,
    /// An input could not be heard for a while: a restart, a lost session, an overrun of a kernel buffer.
    Outage(Outage),
    /// Another plan is computed from here on.
    Reload(Arc<Plan>),
    /// What is known of the clock changes. It comes before the first readings of a process.
    Clock(ClockChange),
    /// A process begins to take events, or goes on after the machine was suspended: nobody listened for a while, or ever before.
    Start,
}

/// How the clock stands from here on.
///
/// The engine's time is the time since the machine was started (`CLOCK_BOOTTIME`), which nobody sets, plus `ahead`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockChange {
    /// Which start of the machine it counts from (`random(4)`): what waits from another one never gets its time.
    pub boot: Arc<str>,
    /// By how many nanoseconds the time is ahead of that since the start of the machine.
    pub ahead: i64,
    /// Whether the time is known, or only the best guess.
    pub is_trusted: bool,
}

/// A series that appears.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Declared {
    /// The input it belongs to.
    pub input: InputId,
    /// What the input multiplexes, such as a device or a topic; each has a watermark of its own. Empty for inputs that do not.
    pub source: Arc<str>,
    /// Name and unit.
    pub info: SeriesInfo,
}

/// Readings that arrive together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The input.
    pub input: InputId,
    /// When the last byte of it arrived, by the wall clock.
    pub arrival: Timestamp,
    /// The readings, in the order of their arrival.
    pub readings: Vec<Reading>,
    /// What the driver took and could not make a reading of, by reason.
    pub rejected: Vec<Rejected>,
}

/// Things that were taken and dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Why, as a word of the ledger: `checksum`, `not_json`, `no_pointer`.
    pub reason: Arc<str>,
    /// How many.
    pub count: u64,
}

/// A stretch of time in which an input could not be heard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outage {
    /// The input.
    pub input: InputId,
    /// When it was last heard; `None` if it never was.
    pub start: Option<Timestamp>,
    /// When it was heard again.
    pub end: Timestamp,
    /// How many readings are missing, where that is known.
    pub count: Option<u64>,
    /// Why: `restart`, `overrun`, `session_lost`.
    pub reason: Arc<str>,
}
