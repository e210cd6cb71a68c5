//! What the engine takes and emits, as lines for those who look on (`rtlive tail`).
//!
//! The lines have the form of records (docs/json-lines.md), with the epoch `"tail"`: they are shown before the store numbers them, and their `seq` counts
//! what was shown of a stream while somebody looked on. All readings are shown, as of a stream `raw`, also those that no stream selects.

use std::collections::BTreeMap;
use std::sync::Arc;

use rtlive_core::engine::Engine;
use rtlive_core::event::Event;
use rtlive_core::json::{self, Origin};
use rtlive_core::plan::{Function, StreamKind};
use rtlive_core::reading::{ClockState, SeriesId};
use rtlive_core::record::{Emitted, Record};
use rtlive_core::selector::Selector;
use rtlive_core::time::Timestamp;
use tokio::sync::broadcast;

/// What stands in place of an epoch.
const EPOCH: &str = "tail";

/// The stream of readings in these lines, whether one is configured or not.
const READINGS: &str = "raw";

/// A line, and what it is about.
#[derive(Clone, Debug)]
pub struct TailItem {
    /// The record as a line of JSON, without a line end.
    pub line: Arc<str>,
    series: Option<Arc<str>>,
}

impl TailItem {
    /// Whether it is about a series that `select` selects; what is about none (alerts of rules without instances, gaps) always is.
    pub fn is_selected(&self, select: &Selector) -> bool {
        self.series.as_ref().is_none_or(|series| select.matches(series))
    }
}

/// Shows what the engine does to whoever subscribed.
pub struct Tail {
    sender: broadcast::Sender<TailItem>,
    numbers: BTreeMap<Arc<str>, u64>,
}

impl Tail {
    /// A tail for the subscribers of `sender`.
    pub fn new(sender: broadcast::Sender<TailItem>) -> Self {
        Self { sender, numbers: BTreeMap::new() }
    }

    /// Shows events and what they emitted; costs nothing while nobody looks on.
    pub fn show(&mut self, engine: &Engine, events: &[(Timestamp, Event)], records: &[Emitted]) {
        if self.sender.receiver_count() == 0 {
            return;
        }
        for (_, event) in events {
            if let Event::Batch(batch) = event {
                for mut reading in batch.readings.iter().cloned() {
                    if engine.clock().is_trusted {
                        reading.clock = ClockState::Synced;
                    }
                    self.send(engine, READINGS, &[], &Record::Reading(reading));
                }
            }
        }
        let plan = engine.plan().clone();
        for Emitted { stream, record } in records {
            let Some(stream) = plan.streams.get(stream.index()) else { continue };
            match &stream.kind {
                StreamKind::Raw { .. } => {}
                StreamKind::Window(window) => self.send(engine, &stream.name, &window.compute, record),
                StreamKind::Reserved => self.send(engine, &stream.name, &[], record),
            }
        }
    }

    fn send(&mut self, engine: &Engine, stream: &str, compute: &[Function], record: &Record) {
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
        let line = String::from_utf8_lossy(&line).into();
        // The last subscriber may have gone meanwhile.
        let _ = self.sender.send(TailItem { line, series });
    }
}
