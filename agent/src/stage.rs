//! The engine between two commits: what it took, what it emitted, and who waits for the next commit.
//!
//! Synchronous and without a clock, so that the simulation drives the very same code as the engine task.
//!
//! **Invariant:** every delivery is either in the commit that is under way, or in the part that the next one will cover, or was
//! reported by [`Stage::committed`]. A delivery is never split over two commits.

use std::collections::BTreeMap;
use std::sync::Arc;

use rtlive_core::engine::Engine;
use rtlive_core::event::{Declared, Event, Outage};
use rtlive_core::plan::{Plan, StreamId};
use rtlive_core::reading::{InputId, SeriesId};
use rtlive_core::record::Emitted;
use rtlive_core::time::Timestamp;
use rtlive_drivers::outlet::Delivery;

use crate::message::{Commit, KeptChange, Snapshot};

/// How many readings may wait for the commit after the one that is under way. At 1,000 readings a second this is ten commit
/// intervals; in memory it is below 1 MB.
pub const UNCOMMITTED_READINGS_MAX: usize = 10_000;

/// The engine, and what it did since the last commit.
pub struct Stage {
    engine: Engine,
    inputs: Vec<InputSide>,
    open: Uncommitted,
    under_way: Option<BTreeMap<InputId, u64>>,
    /// A plan that the store does not know yet; nothing is taken under it before the commit that brings it is cut, because that commit's
    /// records still speak of the streams of the plan before.
    plan_waits: bool,
    kept: Kept,
}

/// What drivers must find again: by input name and key.
pub type Kept = BTreeMap<Arc<str>, BTreeMap<String, Vec<u8>>>;

/// What the stage knows of an input.
#[derive(Clone, Debug, Default)]
struct InputSide {
    /// The engine's number for each series that the input declared in this process.
    series: Vec<SeriesId>,
    /// When the engine last heard it before this process; set until its first reading.
    silent_since: Option<Timestamp>,
}

/// What a commit has not yet covered.
#[derive(Default)]
struct Uncommitted {
    events: Vec<(Timestamp, Event)>,
    records: Vec<Emitted>,
    state: Vec<KeptChange>,
    delivered: BTreeMap<InputId, u64>,
    readings: usize,
    alerts: bool,
    urgent: bool,
}

impl Stage {
    /// A stage around an engine that was restored, or is new, and what its drivers had kept. `last_commit_at` is the last instant that
    /// the store knows: the readings of inputs that cannot be asked again are missing from there on, and their first reading says so.
    pub fn new(engine: Engine, kept: Kept, last_commit_at: Option<Timestamp>) -> Self {
        let mut stage = Self {
            engine,
            inputs: Vec::new(),
            open: Uncommitted::default(),
            under_way: None,
            // The first commit brings the plan, so that a replay of the journal never lacks one.
            plan_waits: true,
            kept,
        };
        let side = |input: &rtlive_core::plan::InputPlan| InputSide {
            silent_since: last_commit_at.filter(|_| !input.can_be_asked_again),
            ..InputSide::default()
        };
        stage.inputs = stage.engine.plan().inputs.iter().map(side).collect();
        stage
    }

    /// The engine, to look at.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Takes what a driver delivered.
    pub fn deliver(&mut self, now: Timestamp, delivery: Delivery) {
        let Delivery { input, number, declared, mut batch, state, outage, urgent } = delivery;
        if usize::from(input.0) >= self.inputs.len() {
            return;
        }
        for declared in declared {
            let id = self.declare(now, declared);
            if let Some(side) = self.inputs.get_mut(usize::from(input.0)) {
                side.series.push(id);
            }
        }
        let Some(side) = self.inputs.get_mut(usize::from(input.0)) else { return };
        let mut events = Vec::with_capacity(2);
        if !batch.readings.is_empty()
            && let Some(start) = side.silent_since.take()
        {
            let reason = Arc::from("restart");
            events.push(Event::Outage(Outage { input, start: Some(start), end: batch.arrival, count: None, reason }));
        }
        events.extend(outage.map(Event::Outage));
        for reading in &mut batch.readings {
            // A driver that uses a series which it did not declare has a defect; its reading goes nowhere rather than elsewhere.
            reading.series = side.series.get(reading.series.index()).copied().unwrap_or(SeriesId::UNKNOWN);
        }
        self.open.readings += batch.readings.len();
        if !batch.readings.is_empty() || !batch.rejected.is_empty() {
            events.push(Event::Batch(batch));
        }
        if let Some(plan) = self.engine.plan().inputs.get(usize::from(input.0)) {
            for (key, value) in state {
                let kept = self.kept.entry(plan.name.clone()).or_default();
                match value.clone() {
                    Some(value) => kept.insert(key.clone(), value),
                    None => kept.remove(&key),
                };
                self.open.state.push((plan.name.clone(), key, value));
            }
        }
        self.open.delivered.insert(input, number);
        self.open.urgent |= urgent;
        for event in events {
            self.take(now, event);
        }
    }

    /// The engine's number of a series that a driver declares. One that the engine knows from before a restart keeps its number, its
    /// windows and its rules, and need not be journalled again unless its unit changed.
    fn declare(&mut self, now: Timestamp, declared: Declared) -> SeriesId {
        let name = declared.info.name.clone();
        let known = self.engine.series_named(&name).and_then(|id| self.engine.series().get(id.index()));
        if known != Some(&declared.info) {
            self.take(now, Event::Series(declared));
        }
        self.engine.series_named(&name).unwrap_or(SeriesId::UNKNOWN)
    }

    /// Lets time pass. Only steps that change something are journalled.
    pub fn tick(&mut self, now: Timestamp) {
        if self.wake_at().is_some_and(|at| at <= now) {
            self.take(now, Event::Tick);
        }
    }

    fn take(&mut self, now: Timestamp, event: Event) {
        let emitted = self.open.records.len();
        self.engine.handle(now, &event, &mut self.open.records);
        let new = self.open.records.get(emitted..).unwrap_or_default();
        self.open.alerts |= new.iter().any(|emitted| emitted.stream == StreamId::ALERTS);
        self.open.events.push((now, event));
    }

    /// Computes another plan from now on; the next commit carries it. Inputs keep their sides by name, unless their drivers were
    /// all ended before this: then they begin anew, and what they had kept is returned by [`Stage::kept`].
    pub fn reload(&mut self, now: Timestamp, plan: Arc<Plan>, drivers_begin_anew: bool) {
        let mut sides: BTreeMap<Arc<str>, InputSide> = BTreeMap::new();
        for (input, side) in self.engine.plan().inputs.iter().zip(std::mem::take(&mut self.inputs)) {
            sides.insert(input.name.clone(), side);
        }
        if drivers_begin_anew {
            for input in &self.engine.plan().inputs {
                if let Some(side) = sides.get_mut(&input.name) {
                    side.series.clear();
                    side.silent_since = Some(now).filter(|_| !input.can_be_asked_again);
                }
            }
            self.open.delivered.clear();
            if let Some(delivered) = &mut self.under_way {
                delivered.clear();
            }
        }
        self.inputs = plan.inputs.iter().map(|input| sides.remove(&input.name).unwrap_or_default()).collect();
        self.engine.reload(now, plan, &mut self.open.records);
        self.plan_waits = true;
    }

    /// What drivers must find again, as of everything that was delivered.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// When time alone changes something.
    pub fn wake_at(&self) -> Option<Timestamp> {
        self.engine.wake_at().filter(|_| !self.plan_waits)
    }

    /// Whether another delivery may be taken before the next commit is cut.
    pub fn has_room(&self) -> bool {
        self.open.readings < UNCOMMITTED_READINGS_MAX && !self.plan_waits
    }

    /// Whether the next commit should not wait for its interval: an alert, or a peer that holds back until it is acknowledged.
    pub fn is_urgent(&self) -> bool {
        self.open.alerts || self.open.urgent || !self.has_room()
    }

    /// What the next commit covers; `None` when there is nothing to commit, or a commit is under way.
    pub fn cut(&mut self, now: Timestamp, with_snapshot: bool) -> Option<Commit> {
        if self.under_way.is_some() {
            return None;
        }
        let nothing = self.open.events.is_empty() && self.open.records.is_empty() && self.open.state.is_empty();
        if nothing && self.open.delivered.is_empty() && !with_snapshot && !self.plan_waits {
            return None;
        }
        let with_snapshot = std::mem::take(&mut self.plan_waits) || with_snapshot;
        let Uncommitted { events, records, state, delivered, .. } = std::mem::take(&mut self.open);
        self.under_way = Some(delivered);
        let snapshot =
            with_snapshot.then(|| Snapshot { plan: self.engine.plan().clone(), engine: self.engine.snapshot() });
        Some(Commit { at: now, events, records, state, snapshot })
    }

    /// The commit that was under way is on disk: the last delivery of each input that it covered.
    pub fn committed(&mut self) -> BTreeMap<InputId, u64> {
        self.under_way.take().unwrap_or_default()
    }

    /// The events and records that no commit covers yet, for those who look on.
    pub fn uncommitted(&self) -> (&[(Timestamp, Event)], &[Emitted]) {
        (&self.open.events, &self.open.records)
    }
}
