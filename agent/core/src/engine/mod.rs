//! The engine: takes events, keeps windows and rules, emits records.
//!
//! ```text
//! Batch ──▶ account ──▶ quality ──▶ raw streams ──▶ watermark ──▶ rules, windows       at the end of the event: windows that ended
//!              └◀── derived series, once nothing is awaited that could change them ◀── joins
//! ```
//!
//! What is true after every event, and what tests hold:
//! - **Deterministic**: the same plan and events emit the same records, bit for bit; an engine restored from a snapshot between any
//!   two events goes on as if nothing had happened.
//! - **The ledger closes** ([`Ledger::check`]).
//! - **Order within the lateness does not count**: the newest revision of each aggregate is the same whatever order its readings took.
//!
//! The order of what one event emits is fixed: readings and alerts as they come, then aggregates by end, stream and
//! series, then what is derived from aggregates, in the same order. A window is looked at once per event, so that a burst of late readings makes one revision; but whether a reading is late
//! is decided reading by reading, so that the way in which readings are cut into batches does not count either.
//!
//! Bad readings, NaN and infinities among them, stay in raw streams and are missing to rules and windows; their time still moves the
//! watermark, as does that of readings which a quality check keeps out (module `quality`). A reading further ahead of its arrival than
//! `max_ahead` goes to `quarantine` alone, moves nothing, and is seen by no check.
//!
//! An input that was silent for `idle` emits its open windows early (`is_final` false) at the next [`Event::Tick`], and ends none.

mod aggregate;
mod clock;
mod course;
mod declare;
mod derived;
mod ledger;
mod moment;
mod passage;
mod quality;
mod reload;
mod report;
mod retired;
mod rule;
mod series;
mod sketch;
mod snapshot;
mod sum;
mod view;
mod watermark;
mod window;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::event::{Batch, Event, Outage};
use crate::plan::{Mark, Plan, StreamId, StreamKind};
use crate::reading::{ClockState, InputId, Reading, SeriesId, SeriesInfo};
use crate::record::{Emitted, OutageRecord, Record};
use crate::time::{Timestamp, nanos};

pub use clock::{ClockView, PROVISIONAL_READINGS_MAX, PROVISIONAL_TEXT_BYTES_MAX};
pub use derived::JOIN_SAMPLES_MAX;
pub use ledger::{Imbalance, InputAccount, Ledger, ReportAccount, WindowAccount};
pub use quality::{COUNTED_PAIRS_MAX, DUPLICATE_TIMES, QualityCounts, SPIKE_READINGS};
pub use retired::RETIRED_MAX;
pub use series::{SERIES_MAX, UNKNOWN_SERIES};
pub use snapshot::{SNAPSHOT_VERSION, SnapshotError};
pub use view::{InputTime, RaisedAlert};
pub use window::{PANES_MAX, SLOT_PANES_MAX};

use clock::Clock;
use derived::{Computed, Derived};
use passage::{Origin, Passage};
use quality::QualityChecks;
use report::Reports;
use retired::Retired;
use rule::Rules;
use series::SeriesTable;
use watermark::Source;
use window::{Due, Window, Windows};

/// Computes a plan over events. See the module's documentation.
#[derive(Debug)]
pub struct Engine {
    plan: Arc<Plan>,
    inputs: Vec<Input>,
    sources: Vec<Source>,
    source_names: BTreeMap<(InputId, Arc<str>), u32>,
    series: SeriesTable,
    quality: QualityChecks,
    reports: Reports,
    windows: Windows,
    rules: Rules,
    derived: Derived,
    ledger: Ledger,
    retired: Retired,
    clock: Clock,
    /// Sources whose watermark has passed something in this event.
    queued: Vec<u32>,
    /// Scratch of an event; empty between events.
    due: Vec<Due>,
}

/// The reasons under which what was not computed is dropped from the account of a derived series: a value was missing, or came later than
/// what it would have changed.
const MISSING: &str = "missing";
const LATE: &str = "late";

/// An input of the plan.
#[derive(Debug, Default)]
struct Input {
    /// When readings of it last arrived.
    heard: Option<Timestamp>,
    /// Whether open windows may hold what was not emitted.
    is_unsettled: bool,
    sources: Vec<u32>,
}

impl Engine {
    /// An engine that has seen nothing.
    pub fn new(plan: Arc<Plan>) -> Self {
        let mut windows = Vec::new();
        let mut ledger = Ledger::default();
        let out_of_order = plan.inputs.iter().map(|input| nanos(input.out_of_order)).max().unwrap_or_default();
        for (i, stream) in plan.streams.iter().enumerate() {
            if let StreamKind::Window(window) = &stream.kind {
                windows.push(Window::new(StreamId(i as u16), windows.len(), window, out_of_order));
                ledger.windows.push(WindowAccount { window: Arc::clone(&stream.name), ..WindowAccount::default() });
            }
        }
        for input in &plan.inputs {
            ledger.inputs.push(InputAccount { input: Arc::clone(&input.name), ..InputAccount::default() });
        }
        Self {
            inputs: plan.inputs.iter().map(|_| Input::default()).collect(),
            sources: Vec::new(),
            source_names: BTreeMap::new(),
            series: SeriesTable::default(),
            quality: QualityChecks::default(),
            reports: Reports::new(&plan, &mut ledger.reports),
            windows: Windows::new(windows),
            rules: Rules::new(&plan),
            derived: Derived::default(),
            ledger,
            retired: Retired::default(),
            clock: Clock::default(),
            queued: Vec::new(),
            due: Vec::new(),
            plan,
        }
    }

    /// What it computes.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The series that were declared, by [`SeriesId`].
    pub fn series(&self) -> &[SeriesInfo] {
        &self.series.infos
    }

    /// The number of a series that was declared.
    pub fn series_named(&self, name: &str) -> Option<SeriesId> {
        self.series.id(name)
    }

    /// The input and the source within it that a series comes from; `None` once a reload has removed the input.
    pub fn origin_of(&self, id: SeriesId) -> Option<(InputId, &str)> {
        let route = self.series.routes.get(id.index())?;
        Some((route.input?, &self.sources.get(route.source as usize)?.name))
    }

    /// Takes an event at an instant of the wall clock, and appends what it emits to `out`.
    ///
    /// Time steps only with [`Event::Tick`]: who drives the engine hands one over when [`Engine::wake_at`] has come, before any
    /// later event. A tick before that does nothing.
    ///
    /// A series that is declared again under its name keeps its number; beyond [`SERIES_MAX`] none is added: ask
    /// [`Engine::series_named`] for the number. Events of inputs that the plan does not have do nothing.
    pub fn handle(&mut self, now: Timestamp, event: &Event, out: &mut Vec<Emitted>) {
        let emitted = out.len();
        match event {
            Event::Series(declared) => {
                self.declare(declared);
                self.finish(now, out);
            }
            Event::Batch(batch) => self.take(batch, Origin::Input, out),
            Event::Tick => self.step(now, out),
            Event::Outage(outage) => self.report_outage(outage, out),
            Event::Reload(plan) => self.reload(now, Arc::clone(plan), out),
            Event::Clock(change) => self.change_clock(now, change, out),
            Event::Start => {
                self.rules.start(&self.plan, now);
                self.derived.arm(&mut self.sources, now, true);
            }
        }
        self.rules.arm(&self.plan, now);
        if matches!(event, Event::Series(_) | Event::Reload(_)) {
            self.derived.arm(&mut self.sources, now, false);
        }
        self.mark_alerts(now, event, out.get_mut(emitted..).unwrap_or_default());
    }

    /// When an [`Event::Tick`] would next change something; `None` while only other events would.
    pub fn wake_at(&self) -> Option<Timestamp> {
        let wakes = self.inputs.iter().zip(&self.plan.inputs).filter(|(input, _)| input.is_unsettled);
        let idle = wakes.filter_map(|(input, plan)| Some(input.heard?.saturating_add(plan.idle))).min();
        let silent = self.derived.wake_at(&self.plan, &self.sources);
        idle.into_iter().chain(self.rules.wake_at()).chain(silent).min()
    }

    /// Ends the input, as at the end of a replay: every open window is final and closes. Readings that still come are late.
    pub fn close(&mut self, now: Timestamp, out: &mut Vec<Emitted>) {
        let is_read = |input: &InputId| !self.plan.derived.iter().any(|derived| derived.input == *input);
        for (&(input, _), &place) in &self.source_names {
            if let Some(source) = self.sources.get_mut(place as usize).filter(|_| is_read(&input)) {
                source.watermark = Timestamp::MAX;
            }
        }
        self.derived.touch_all();
        self.join(now, out);
        if self.derived.has_windows() {
            // What was read ends first, so that joins over windows have all of them.
            for (place, source) in self.sources.iter_mut().enumerate().filter(|(_, source)| source.has_due()) {
                if !std::mem::replace(&mut source.is_queued, true) {
                    self.queued.push(place as u32);
                }
            }
            self.finish(now, out);
        }
        for (place, source) in self.sources.iter_mut().enumerate() {
            source.watermark = Timestamp::MAX;
            if !source.is_queued {
                source.is_queued = true;
                self.queued.push(place as u32);
            }
        }
        for input in &mut self.inputs {
            input.is_unsettled = false;
        }
        self.settle(out);
        self.count_late();
    }

    /// What became of everything that was taken.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// How often quality checks objected.
    pub const fn quality_counts(&self) -> &QualityCounts {
        self.quality.counts()
    }

    /// How many windows are open, each counted once per series.
    pub fn windows_open(&self) -> usize {
        self.windows.open_count()
    }

    /// The bytes that the tables of open windows take, spare room included.
    pub fn window_bytes(&self) -> usize {
        self.windows.bytes()
    }

    /// Takes the readings of a batch, and what comes of them.
    fn take(&mut self, batch: &Batch, origin: Origin, out: &mut Vec<Emitted>) {
        self.pass(batch, origin, out);
        self.join(batch.arrival, out);
        self.finish(batch.arrival, out);
        self.bound_provisional(out);
    }

    /// Computes what joins no longer wait for, and hands it on as the readings of an input.
    fn join(&mut self, arrival: Timestamp, out: &mut Vec<Emitted>) {
        while let Some(computed) = self.derived.compute(&self.plan, &self.sources) {
            let Computed { instance, input, source, watermark, readings, missing, is_windowed } = computed;
            if let Some(account) = self.ledger.inputs.get_mut(usize::from(input.0)).filter(|_| missing > 0) {
                account.taken += missing;
                account.drop(MISSING, missing);
            }
            let batch = Batch { input, arrival, readings, rejected: Vec::new() };
            self.pass(&batch, if is_windowed { Origin::Windows } else { Origin::Readings }, out);
            self.derived.recycle(batch.readings);
            if let Some(entry) = self.sources.get_mut(source as usize) {
                entry.watermark = watermark;
                if entry.has_due() && !entry.is_queued {
                    entry.is_queued = true;
                    self.queued.push(source);
                }
            }
            self.derived.touch(source);
            self.derived.prune_sides(instance, &self.sources);
        }
    }

    /// Takes into account what came later than what it would have changed.
    fn count_late(&mut self) {
        for (number, late) in self.derived.take_late() {
            let input = self.plan.derived.get(usize::from(number)).map(|derived| usize::from(derived.input.0));
            if let Some(account) = input.and_then(|input| self.ledger.inputs.get_mut(input)) {
                account.taken += late;
                account.drop(LATE, late);
            }
        }
    }

    /// Takes the readings of a batch on their way.
    fn pass(&mut self, batch: &Batch, origin: Origin, out: &mut Vec<Emitted>) {
        let place = usize::from(batch.input.0);
        let Self {
            plan,
            inputs,
            sources,
            series,
            quality,
            reports,
            windows,
            rules,
            derived,
            ledger,
            queued,
            clock,
            ..
        } = self;
        let Ledger { inputs: accounts, windows: window_accounts, reports: report_accounts } = ledger;
        let (Some(input_plan), Some(input), Some(account)) =
            (plan.inputs.get(place), inputs.get_mut(place), accounts.get_mut(place))
        else {
            return;
        };
        for rejected in &batch.rejected {
            account.taken += rejected.count;
            account.drop(&rejected.reason, rejected.count);
        }
        if batch.readings.is_empty() {
            return;
        }
        account.taken += batch.readings.len() as u64;
        input.heard = input.heard.max(Some(batch.arrival));
        let horizon = batch.arrival.saturating_add(input_plan.max_ahead);
        let out_of_order = nanos(input_plan.out_of_order);
        let (mut unknown, mut dropped, mut provisional) = (0, 0, 0);
        let series = &*series;
        let mut passage = Passage {
            plan,
            origin,
            is_by_clock: false,
            arrival: batch.arrival,
            series,
            sources,
            windows,
            reports,
            rules,
            derived,
            accounts: window_accounts,
            report_accounts,
            queued,
        };
        for reading in &batch.readings {
            let route = series.routes.get(reading.series.index());
            let Some(route) = route.filter(|route| route.input == Some(batch.input)) else {
                unknown += 1;
                continue;
            };
            passage.is_by_clock = reading.clock == ClockState::Unsynced;
            let stamped;
            let reading = match reading.clock {
                ClockState::Synced => reading,
                ClockState::Unsynced if clock.is_trusted() => {
                    stamped = Reading { clock: ClockState::Synced, ..reading.clone() };
                    &stamped
                }
                ClockState::Unsynced => {
                    provisional += 1;
                    clock.hold(batch.input, reading);
                    passage.show_to_rules(reading, route, out);
                    continue;
                }
            };
            if reading.time > horizon && clock.is_trusted() && origin == Origin::Input {
                account.quarantined += 1;
                out.push(Emitted { stream: StreamId::QUARANTINE, record: Record::Reading(reading.clone()) });
                continue;
            }
            let objection = quality.judge(route.quality, reading);
            let marked;
            let reading = match objection {
                Some((mark, check)) => {
                    marked = Reading { quality: mark.quality(), check: Some(check), ..reading.clone() };
                    &marked
                }
                None => reading,
            };
            match objection {
                Some((Mark::Drop, check)) => {
                    account.drop(check.name(), 1);
                    dropped += 1;
                    passage.pass_by(reading, route, out_of_order);
                }
                Some((Mark::Quarantine, _)) => {
                    account.quarantined += 1;
                    out.push(Emitted { stream: StreamId::QUARANTINE, record: Record::Reading(reading.clone()) });
                    passage.pass_by(reading, route, out_of_order);
                }
                _ => {
                    let fate = passage.take(reading, route, out_of_order, out);
                    account.bad += u64::from(fate.is_bad);
                    account.late += u64::from(fate.is_late);
                    input.is_unsettled |= fate.is_open;
                }
            }
        }
        account.accepted += batch.readings.len() as u64 - unknown - dropped - provisional;
        account.provisional += provisional;
        if unknown > 0 {
            account.drop(UNKNOWN_SERIES, unknown);
        }
        rules.evaluate(plan, batch.arrival, out);
    }

    /// Ends an event: windows, and what is derived from them, of which there may be windows again.
    fn finish(&mut self, now: Timestamp, out: &mut Vec<Emitted>) {
        self.settle(out);
        while self.derived.release() {
            self.join(now, out);
            self.settle(out);
        }
        self.count_late();
    }

    /// Emits what the watermarks of the queued sources have passed and what was revised, then lets go of what has closed.
    fn settle(&mut self, out: &mut Vec<Emitted>) {
        let Self { sources, windows, derived, ledger, queued, due, .. } = self;
        let emitted = out.len();
        windows.collect_touched(sources, due);
        for source in queued.iter().filter_map(|&place| sources.get(place as usize)) {
            windows.collect_due(source, due);
        }
        windows.emit(due, &mut ledger.windows, out);
        derived.take_aggregates(out.get(emitted..).unwrap_or_default(), sources);
        for place in queued.drain(..) {
            if let Some(source) = sources.get_mut(place as usize) {
                source.is_queued = false;
                windows.sweep(source);
            }
        }
    }

    /// Emits the open windows of inputs that have been silent for long.
    fn step(&mut self, now: Timestamp, out: &mut Vec<Emitted>) {
        let Self { plan, inputs, sources, windows, rules, ledger, due, .. } = self;
        for (input, plan) in inputs.iter_mut().zip(&plan.inputs) {
            let is_idle = input.heard.is_some_and(|heard| now >= heard.saturating_add(plan.idle));
            if is_idle && input.is_unsettled {
                input.is_unsettled = false;
                for source in input.sources.iter().filter_map(|&place| sources.get(place as usize)) {
                    windows.collect_early(source, due);
                }
            }
        }
        windows.emit(due, &mut ledger.windows, out);
        rules.step(plan, now, out);
        self.derived.step(&self.plan, &mut self.sources, now);
        self.join(now, out);
        self.finish(now, out);
    }

    fn report_outage(&self, outage: &Outage, out: &mut Vec<Emitted>) {
        let Some(input) = self.plan.inputs.get(usize::from(outage.input.0)) else { return };
        let Outage { start, end, count, ref reason, .. } = *outage;
        let record = OutageRecord { input: Arc::clone(&input.name), start, end, count, reason: Arc::clone(reason) };
        out.push(Emitted { stream: StreamId::GAPS, record: record.into() });
    }
}
