//! The engine between two commits: what it took, what it emitted, and who waits for the next commit.
//!
//! Synchronous and without a clock, so that the simulation drives the very same code as the engine task.
//!
//! **Invariant:** every delivery is either in the commit that is under way, or in the part that the next one will cover, or was
//! reported by [`Stage::committed`]. A delivery is never split over two commits.

use std::collections::BTreeMap;
use std::sync::Arc;

use rtlive_core::engine::Engine;
use rtlive_core::event::{ClockChange, Declared, Event, Outage};
use rtlive_core::journal::{BODY_BYTES_MAX, Part, READINGS_MAX};
use rtlive_core::plan::{Durability, Plan, StreamId};
use rtlive_core::reading::{ClockState, InputId, SeriesId, Value};
use rtlive_core::record::Emitted;
use rtlive_core::sorted;
use rtlive_core::time::Timestamp;
use rtlive_drivers::outlet::{DELIVERY_READINGS_MAX, DELIVERY_TEXT_BYTES_MAX, Delivery};

use crate::message::{Commit, KeptChange, Snapshot};

/// How many readings may wait for the commit after the one that is under way. At 1,000 readings a second this is ten commit
/// intervals; in memory it is below 1 MB.
pub const UNCOMMITTED_READINGS_MAX: usize = 10_000;

/// How many events and changed keys may wait likewise: deliveries without readings bring these too. Below 2 MB in memory.
pub const UNCOMMITTED_CHANGES_MAX: usize = 10_000;

/// How many bytes of texts and of changed keys may wait likewise.
pub const UNCOMMITTED_BYTES_MAX: usize = 4 << 20;

/// So many readings are encoded before their commit comes, where that may hurry: an alert's then encodes the rest. That is a tenth of a millisecond
/// in which nothing else is done, and some 2 % more bytes in the journal of such a commit.
const PART_READINGS: usize = 512;

// A commit holds what may wait and one delivery more, which is never split; whatever it is, the journal reads it back.
const _: () = assert!(UNCOMMITTED_READINGS_MAX + DELIVERY_READINGS_MAX <= READINGS_MAX);
const _: () = assert!(UNCOMMITTED_BYTES_MAX + DELIVERY_TEXT_BYTES_MAX <= BODY_BYTES_MAX / 4);

/// The engine, and what it did since the last commit.
pub struct Stage {
    engine: Engine,
    inputs: Vec<InputSide>,
    open: Uncommitted,
    under_way: Option<BTreeMap<InputId, u64>>,
    /// A plan that the store does not know yet; nothing is taken under it before the commit that brings it is cut, because that commit's
    /// records still speak of the streams of the plan before.
    plan_waits: bool,
    /// Whether the engine knows that a process began.
    has_started: bool,
    /// How many series the store knows.
    series_told: usize,
    kept: Kept,
}

/// Where [`Kept`] has what the stage itself must find again, under the names of inputs: no input has the empty name.
const OWN_KEPT: &str = "";

/// What drivers must find again: by input name and key.
pub type Kept = BTreeMap<Arc<str>, BTreeMap<String, Vec<u8>>>;

/// What the stage knows of an input.
#[derive(Clone, Debug, Default)]
struct InputSide {
    /// The engine's number for each series that the input declared in this process.
    series: Vec<SeriesId>,
    /// From when on readings of an input that cannot be asked again may be missing; set until its first reading. It is kept, because this
    /// process may end before there is one.
    silent_since: Option<Timestamp>,
}

/// What a commit has not yet covered.
#[derive(Default)]
struct Uncommitted {
    events: Vec<(Timestamp, Event)>,
    /// The first of the events, encoded; and how many events and readings that are.
    parts: Vec<Part>,
    encoded: (usize, usize),
    records: Vec<Emitted>,
    state: Vec<KeptChange>,
    delivered: BTreeMap<InputId, u64>,
    readings: usize,
    bytes: usize,
    alerts: bool,
    urgent: bool,
    /// Whether anything is more than readings of relaxed inputs and what follows from them.
    presses: bool,
}

impl Stage {
    /// A stage around an engine that was restored, or is new, and what its drivers had kept. `last_commit_at` is the last instant that
    /// the store knows: the readings of inputs that cannot be asked again are missing from there on, and their first reading says so.
    pub fn new(engine: Engine, kept: Kept, last_commit_at: Option<Timestamp>) -> Self {
        let series_told = engine.series().len();
        let mut stage = Self {
            engine,
            inputs: Vec::new(),
            open: Uncommitted::default(),
            under_way: None,
            // The first commit brings the plan, so that a replay of the journal never lacks one.
            plan_waits: true,
            has_started: false,
            series_told,
            kept,
        };
        let plan = stage.engine.plan().clone();
        stage.inputs = plan.inputs.iter().map(|_| InputSide::default()).collect();
        for (place, input) in plan.inputs.iter().enumerate() {
            let before =
                stage.kept.get(OWN_KEPT).and_then(|own| own.get(&*input.name)).and_then(|bytes| time_of(bytes));
            if let Some(since) = before.or(last_commit_at).filter(|_| !input.can_be_asked_again) {
                stage.fall_silent(place, since);
            }
        }
        stage
    }

    /// Notes from when on readings of an input may be missing, unless it is noted already.
    fn fall_silent(&mut self, place: usize, since: Timestamp) {
        let (Some(side), Some(input)) = (self.inputs.get_mut(place), self.engine.plan().inputs.get(place)) else {
            return;
        };
        if side.silent_since.is_none() {
            side.silent_since = Some(since);
            let name = input.name.to_string();
            self.keep(OWN_KEPT.into(), name, Some(since.as_nanos().to_be_bytes().to_vec()));
        }
    }

    /// Since when readings of an input may be missing, at its first reading.
    fn end_silence(&mut self, place: usize) -> Option<Timestamp> {
        let since = self.inputs.get_mut(place)?.silent_since.take()?;
        let name = self.engine.plan().inputs.get(place)?.name.to_string();
        self.keep(OWN_KEPT.into(), name, None);
        Some(since)
    }

    /// The next commit carries a key.
    fn keep(&mut self, input: Arc<str>, key: String, value: Option<Vec<u8>>) {
        let kept = self.kept.entry(input.clone()).or_default();
        match value.clone() {
            Some(value) => kept.insert(key.clone(), value),
            None => kept.remove(&key),
        };
        self.open.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
        self.open.state.push((input, key, value));
    }

    /// The engine, to look at.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Takes what a driver delivered.
    pub fn deliver(&mut self, now: Timestamp, delivery: Delivery) {
        let Delivery { input, number, declared, mut batch, state, outage, urgent, ahead } = delivery;
        let durability = self.engine.plan().inputs.get(usize::from(input.0)).map(|input| input.durability);
        self.open.presses |= durability != Some(Durability::Relaxed);
        if usize::from(input.0) >= self.inputs.len() {
            return;
        }
        for declared in declared {
            let id = self.declare(now, declared);
            if let Some(side) = self.inputs.get_mut(usize::from(input.0)) {
                side.series.push(id);
            }
        }
        let mut events = Vec::with_capacity(2);
        if !batch.readings.is_empty()
            && let Some(start) = self.end_silence(usize::from(input.0))
        {
            let reason = Arc::from("restart");
            events.push(Event::Outage(Outage { input, start: Some(start), end: batch.arrival, count: None, reason }));
        }
        events.extend(outage.map(Event::Outage));
        let Some(side) = self.inputs.get(usize::from(input.0)) else { return };
        // The engine reckons by the clock that it was last told of; the driver's may have been another.
        let behind = self.engine.clock_ahead().map_or(0, |engine| engine.saturating_sub(ahead));
        let stamp = |time: Timestamp| Timestamp::from_nanos(time.as_nanos().saturating_add(behind));
        batch.arrival = stamp(batch.arrival);
        for reading in &mut batch.readings {
            if reading.clock == ClockState::Unsynced {
                reading.time = stamp(reading.time);
            }
            // A driver that uses a series which it did not declare has a defect; its reading goes nowhere rather than elsewhere.
            reading.series = side.series.get(reading.series.index()).copied().unwrap_or(SeriesId::UNKNOWN);
        }
        self.open.readings += batch.readings.len();
        self.open.bytes += batch.readings.iter().map(|reading| text_bytes(&reading.value)).sum::<usize>();
        if !batch.readings.is_empty() || !batch.rejected.is_empty() {
            events.push(Event::Batch(batch));
        }
        if let Some(name) = self.engine.plan().inputs.get(usize::from(input.0)).map(|plan| plan.name.clone()) {
            state.into_iter().for_each(|(key, value)| self.keep(name.clone(), key, value));
        }
        self.open.delivered.insert(input, number);
        self.open.urgent |= urgent;
        for event in events {
            self.take(now, event);
        }
        self.encode_ahead();
    }

    /// Encodes what is open, where there is much of it and a rule may raise an alert.
    fn encode_ahead(&mut self) {
        let open = &mut self.open;
        let (events, readings) = open.encoded;
        if open.readings - readings < PART_READINGS || self.engine.plan().rules.is_empty() {
            return;
        }
        // What cannot be encoded is told when it is committed.
        if let Some(Ok(part)) = open.events.get(events..).map(Part::of) {
            open.parts.push(part);
            open.encoded = (open.events.len(), open.readings);
        }
    }

    /// The engine's number of a series that a driver declares. One that the engine knows from before a restart keeps its number, its
    /// windows and its rules, and need not be journalled again unless its unit changed, or the input or source that it comes from.
    fn declare(&mut self, now: Timestamp, declared: Declared) -> SeriesId {
        let name = declared.info.name.clone();
        let id = self.engine.series_named(&name);
        let known = id.and_then(|id| Some((self.engine.series().get(id.index())?, self.engine.origin_of(id)?)));
        if known != Some((&declared.info, (declared.input, &*declared.source))) {
            self.take(now, Event::Series(declared));
        }
        self.engine.series_named(&name).unwrap_or(SeriesId::UNKNOWN)
    }

    /// The clock changes; `now` is by the new one. Not while [`Stage::may_be_told`] forbids it.
    pub fn change_clock(&mut self, now: Timestamp, change: ClockChange) {
        self.take(now, Event::Clock(change));
    }

    /// Whether events may be taken now: not between a reload and the commit that carries it.
    pub fn may_be_told(&self) -> bool {
        !self.plan_waits
    }

    /// Lets time pass. Only steps that change something are journalled.
    pub fn tick(&mut self, now: Timestamp) {
        if self.wake_at().is_some_and(|at| at <= now) {
            self.take(now, Event::Tick);
        }
    }

    /// The machine slept, or whatever else kept this process from listening: nothing is missed for that.
    pub fn wake(&mut self, now: Timestamp) {
        if self.has_started {
            self.take(now, Event::Start);
        }
    }

    fn take(&mut self, now: Timestamp, event: Event) {
        // Times are by the clock as it stands, so that goes before.
        let begins = !matches!(event, Event::Clock(_)) && !std::mem::replace(&mut self.has_started, true);
        if begins {
            self.take(now, Event::Start);
        }
        let emitted = self.open.records.len();
        self.engine.handle(now, &event, &mut self.open.records);
        let new = self.open.records.get(emitted..).unwrap_or_default();
        // What time alone changes may be about any input.
        let is_pressing = match event {
            Event::Series(_) | Event::Batch(_) | Event::Outage(_) => false,
            Event::Tick => {
                let plan = self.engine.plan();
                // Those of derived series come last.
                let read = plan.inputs.len().saturating_sub(plan.derived.len());
                plan.inputs.iter().take(read).any(|input| input.durability == Durability::Commit)
            }
            Event::Reload(_) | Event::Clock(_) | Event::Start => true,
        };
        self.open.presses |= is_pressing;
        self.open.alerts |= new.iter().any(|emitted| emitted.stream == StreamId::ALERTS);
        self.open.events.push((now, event));
    }

    /// Computes another plan from now on; the next commit carries it. Inputs keep their sides by name, unless their drivers were
    /// all ended before this: then they begin anew, and what they had kept is returned by [`Stage::kept`].
    pub fn reload(&mut self, now: Timestamp, plan: Arc<Plan>, drivers_begin_anew: bool) {
        let before = self.engine.plan().clone();
        if drivers_begin_anew {
            for (place, input) in before.inputs.iter().enumerate() {
                if let Some(side) = self.inputs.get_mut(place) {
                    side.series.clear();
                }
                if !input.can_be_asked_again {
                    self.fall_silent(place, now);
                }
            }
            self.open.delivered.clear();
            if let Some(delivered) = &mut self.under_way {
                delivered.clear();
            }
        }
        let sides = before.inputs.iter().zip(std::mem::take(&mut self.inputs));
        let mut sides = sorted::map(sides.map(|(input, side)| (input.name.clone(), side)));
        self.inputs = plan.inputs.iter().map(|input| sides.remove(&input.name).unwrap_or_default()).collect();
        // An input that is gone is not missed: were one of its name added later, its silence would begin anew. What its drivers kept
        // stays, so that one that is put back finds its place again.
        let own = self.kept.get(OWN_KEPT).into_iter().flat_map(BTreeMap::keys);
        let gone: Vec<_> = own.filter(|&name| plan.input_named(name).is_none()).cloned().collect();
        gone.into_iter().for_each(|name| self.keep(OWN_KEPT.into(), name, None));
        self.take(now, Event::Reload(plan));
        self.plan_waits = true;
    }

    /// What drivers must find again, as of everything that was delivered.
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// When time alone changes something.
    pub fn wake_at(&self) -> Option<Timestamp> {
        let at = if self.has_started { self.engine.wake_at() } else { Some(Timestamp::MIN) };
        at.filter(|_| !self.plan_waits)
    }

    /// Whether another delivery may be taken before the next commit is cut.
    pub fn has_room(&self) -> bool {
        let changes = self.open.events.len() + self.open.state.len();
        let Uncommitted { readings, bytes, .. } = self.open;
        readings < UNCOMMITTED_READINGS_MAX
            && bytes < UNCOMMITTED_BYTES_MAX
            && changes < UNCOMMITTED_CHANGES_MAX
            && !self.plan_waits
    }

    /// Whether the next commit should not wait for its interval: an alert, or a peer that holds back until it is acknowledged.
    pub fn is_urgent(&self) -> bool {
        self.open.alerts || self.open.urgent || !self.has_room()
    }

    /// Whether what is open may wait for longer than a commit interval: at most [`Durability::RELAXED_COMMITS`] of them, and while there is room.
    pub fn may_wait(&self) -> bool {
        !self.open.presses && !self.plan_waits
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
        let Uncommitted { events, mut parts, records, state, delivered, alerts, .. } = std::mem::take(&mut self.open);
        if !alerts {
            // Encoded at once they take fewer bytes.
            parts.clear();
        }
        self.under_way = Some(delivered);
        let snapshot =
            with_snapshot.then(|| Snapshot { plan: self.engine.plan().clone(), engine: self.engine.snapshot() });
        let series = self.engine.series().get(self.series_told..).unwrap_or_default().to_vec();
        self.series_told = self.engine.series().len();
        Some(Commit { at: now, events, parts, series, records, state, snapshot })
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

/// The bytes of a text; other values have a size of their own.
fn text_bytes(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        _ => 0,
    }
}

/// A time as it is kept.
fn time_of(bytes: &[u8]) -> Option<Timestamp> {
    Some(Timestamp::from_nanos(i64::from_be_bytes(bytes.try_into().ok()?)))
}

#[cfg(test)]
mod tests;
