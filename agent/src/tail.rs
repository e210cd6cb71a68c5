//! What the engine takes and emits, as lines for those who look on (`rtlive tail`).
//!
//! The lines have the form of records (docs/json-lines.md), with the epoch `"tail"`: they are shown before the store numbers them, and their `seq` counts
//! what was shown of a stream while somebody looked on. All readings are shown, as of a stream `raw`, also those that no stream selects.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use rtlive_core::engine::Engine;
use rtlive_core::event::Event;
use rtlive_core::json::{self, Origin};
use rtlive_core::plan::{Function, Plan, StreamKind};
use rtlive_core::reading::{ClockState, SeriesId};
use rtlive_core::record::{Emitted, Record};
use rtlive_core::selector::Selector;
use rtlive_core::time::Timestamp;
use tokio::sync::broadcast;

/// What stands in place of an epoch.
const EPOCH: &str = "tail";

/// The stream of readings in these lines, whether one is configured or not.
const READINGS: &str = "raw";

/// How many lines go to those who look on in one item. An item is what a client that reads too slowly misses or gets; many lines in one
/// make the burst of a busy commit fit into the bound of their channel ([`ITEMS_MAX`]).
const LINES_PER_ITEM_MAX: usize = 16;

/// How many items a client may be behind before it misses some, which it is told. With about 250 bytes a line 4 MB, and only for a client
/// that does not read.
pub const ITEMS_MAX: usize = 1024;

/// Lines that are shown together.
#[derive(Clone, Debug)]
pub struct TailItem {
    /// How many lines were shown before these.
    first: u64,
    lines: Arc<[Line]>,
}

/// A record as a line of JSON without a line end, and the series that it is about.
#[derive(Clone, Debug)]
struct Line {
    text: Box<str>,
    series: Option<Arc<str>>,
}

impl TailItem {
    /// Appends the lines about series that `select` selects; what is about none (alerts of rules without instances, gaps) always is.
    /// `expected` is the number of the line that the reader has not seen yet, if it has seen any; what it missed since is told.
    /// Returns the number of the line after these.
    pub fn write(&self, select: &Selector, expected: Option<u64>, out: &mut String) -> u64 {
        let skipped = expected.map_or(0, |expected| self.first.saturating_sub(expected));
        if skipped > 0 {
            let _ = writeln!(out, "{{\"skipped\":{skipped}}}");
        }
        for Line { text, series } in self.lines.iter() {
            if series.as_ref().is_none_or(|series| select.matches(series)) {
                out.push_str(text);
                out.push('\n');
            }
        }
        self.first + self.lines.len() as u64
    }
}

/// Shows what the engine does to whoever subscribed.
pub struct Tail {
    sender: broadcast::Sender<TailItem>,
    numbers: BTreeMap<Arc<str>, u64>,
    /// How many lines were shown, before those that are gathered.
    shown: u64,
    gathered: Vec<Line>,
    /// How much was seen of what no commit covers yet.
    events_seen: usize,
    records_seen: usize,
}

impl Tail {
    /// A tail for the subscribers of `sender`.
    pub fn new(sender: broadcast::Sender<TailItem>) -> Self {
        let numbers = BTreeMap::new();
        Self { sender, numbers, shown: 0, gathered: Vec::new(), events_seen: 0, records_seen: 0 }
    }

    /// Shows what is new in the events and records that no commit covers yet; costs nothing while nobody looks on. `plan` is that under
    /// which the new ones were emitted.
    pub fn show(&mut self, plan: &Plan, engine: &Engine, uncommitted: (&[(Timestamp, Event)], &[Emitted])) {
        let (events, records) = uncommitted;
        let (events_seen, records_seen) = (self.events_seen, self.records_seen);
        (self.events_seen, self.records_seen) = (events.len(), records.len());
        if self.sender.receiver_count() == 0 {
            return;
        }
        for (_, event) in events.get(events_seen..).unwrap_or_default() {
            if let Event::Batch(batch) = event {
                for mut reading in batch.readings.iter().cloned() {
                    if engine.clock().is_trusted {
                        reading.clock = ClockState::Synced;
                    }
                    self.gather(engine, READINGS, &[], &Record::Reading(reading));
                }
            }
        }
        for Emitted { stream, record } in records.get(records_seen..).unwrap_or_default() {
            let Some(stream) = plan.streams.get(stream.index()) else { continue };
            match &stream.kind {
                StreamKind::Raw { .. } => {}
                StreamKind::Window(window) => self.gather(engine, &stream.name, &window.compute, record),
                StreamKind::Reserved => self.gather(engine, &stream.name, &[], record),
            }
        }
        self.send();
    }

    /// A commit covers what was shown; what no commit covers begins anew.
    pub fn is_committed(&mut self) {
        (self.events_seen, self.records_seen) = (0, 0);
    }

    fn gather(&mut self, engine: &Engine, stream: &str, compute: &[Function], record: &Record) {
        let agent = engine.plan().agent.clone();
        let origin = Origin { agent: &agent, epoch: EPOCH, stream, class: "process", historical: false };
        let number = self.numbers.entry(stream.into()).or_default();
        *number += 1;
        let mut line = Vec::new();
        json::write_record(&mut line, &origin, *number, record, engine.series(), compute);
        let name = |id: SeriesId| engine.series().get(id.index()).map(|info| info.name.clone());
        let series = match record {
            Record::Reading(reading) => name(reading.series),
            Record::Aggregate(aggregate) => name(aggregate.series),
            Record::Alert(alert) => Some(alert.instance.clone()).filter(|instance| !instance.is_empty()),
            Record::Gap(_) | Record::Outage(_) | Record::EpochStart(_) => None,
        };
        self.gathered.push(Line { text: String::from_utf8_lossy(&line).into(), series });
        if self.gathered.len() >= LINES_PER_ITEM_MAX {
            self.send();
        }
    }

    /// Hands over the lines that are gathered.
    fn send(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        let item = TailItem { first: self.shown, lines: self.gathered.drain(..).collect() };
        self.shown += item.lines.len() as u64;
        // The last subscriber may have gone meanwhile.
        let _ = self.sender.send(item);
    }
}
