//! The way out of a driver: what crosses to the engine, and what comes back.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rtlive_core::columns::TEXT_BYTES_MAX;
use rtlive_core::event::{Batch, Declared, Outage, Rejected};
use rtlive_core::frame::NAME_BYTES_MAX;
use rtlive_core::reading::{ClockState, InputId, Quality, Reading, SeriesId, SeriesInfo, Value, is_series_name};
use rtlive_core::time::Timestamp;
use tokio::sync::{mpsc, watch};

/// How many readings a driver can hand over at once. A delivery is never split, so that what it acknowledges is whole: this and the bound
/// below keep every commit within what the journal can be read back with. A message or a chunk of a file has a tenth of it.
pub const DELIVERY_READINGS_MAX: usize = 1 << 16;

/// How many bytes of texts a driver can hand over at once.
pub const DELIVERY_TEXT_BYTES_MAX: usize = 4 << 20;

/// What a driver hands over at once. The engine takes it whole, and a commit covers it whole.
#[derive(Debug, PartialEq)]
pub struct Delivery {
    /// The input.
    pub input: InputId,
    /// Counts an input's deliveries from 1 within this process; [`Session::committed`] speaks of it.
    pub number: u64,
    /// Series that appear with this delivery. The n-th series that an input ever declared in this process is `SeriesId(n)` in its batches.
    pub declared: Vec<Declared>,
    /// The readings, with series numbered as declared by this input.
    pub batch: Batch,
    /// What the driver must find again after a restart (an offset, a packet id), committed together with the readings: key and
    /// new value, `None` to forget it.
    pub state: Vec<(String, Option<Vec<u8>>)>,
    /// A stretch in which the source could not be heard.
    pub outage: Option<Outage>,
    /// Asks for a commit at once: the peer holds back until it hears one.
    pub urgent: bool,
    /// What [`Clock::ahead`] was when it was stamped: the arrival, and the readings that have no other time.
    pub ahead: i64,
}

/// Tells the time to drivers; tests move it by hand.
pub trait Clock: Send + Sync {
    /// Now: the time since the start of the machine plus [`Clock::ahead`].
    fn now(&self) -> Timestamp;

    /// By how many nanoseconds [`Clock::now`] is ahead of the time since the start of the machine. Changes when the clock is set, and only then.
    fn ahead(&self) -> i64 {
        0
    }

    /// The earliest that it can be, while nothing more is known; `None` while [`Clock::now`] is trusted.
    fn at_least(&self) -> Option<Timestamp> {
        None
    }

    /// A receiver with a fix has just told this time.
    fn hear(&self, _time: Timestamp) {}
}

/// What `rtlive status` shows of an input beside the ledger.
#[derive(Clone, Debug, Default)]
pub struct InputHealth {
    /// `starting`, `running`, `waiting`, `stopped`.
    pub state: &'static str,
    /// The last error, in the words of the log.
    pub error: Option<String>,
    /// How often the supervisor started it again.
    pub restarts: u64,
    /// What is counted and is no reading: `timeouts`, `polls_missed`, `retries`, `retained_ignored`.
    pub counters: BTreeMap<&'static str, u64>,
}

/// A shared [`InputHealth`].
pub type SharedHealth = Arc<Mutex<InputHealth>>;

/// A driver's side of the channel; lives as long as the input, through restarts of its driver.
pub struct Session {
    parts: SessionParts,
    series: HashMap<String, SeriesId>,
    last_number: u64,
    next: Pending,
}

/// Bytes as they crossed a port, for `rtlive try --trace`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracedBytes {
    /// Whether the agent sent them.
    pub sent: bool,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// The delivery that is being put together.
#[derive(Default)]
struct Pending {
    declared: Vec<Declared>,
    readings: Vec<Reading>,
    text_bytes: usize,
    rejected: BTreeMap<&'static str, u64>,
    state: Vec<(String, Option<Vec<u8>>)>,
    outage: Option<Outage>,
    /// What the clock was ahead at the first stamp in it; all later ones are made to agree.
    ahead: Option<i64>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        let Self { declared, readings, text_bytes: _, rejected, state, outage, ahead: _ } = self;
        declared.is_empty() && readings.is_empty() && rejected.is_empty() && state.is_empty() && outage.is_none()
    }
}

/// The engine is gone; the program stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the engine has stopped")]
pub struct EngineStopped;

/// What a [`Session`] is made of.
#[derive(Clone)]
pub struct SessionParts {
    /// The input.
    pub input: InputId,
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// The agent's id, for names that a peer must tell apart: an MQTT client id.
    pub agent: Arc<str>,
    /// The first levels of its series.
    pub prefix: Arc<str>,
    /// What the times of its readings are rounded to multiples of.
    pub round: Option<Duration>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// To the engine.
    pub deliveries: mpsc::Sender<Delivery>,
    /// The number of the last delivery that is on disk.
    pub committed: watch::Receiver<u64>,
    /// `true` when the program stops.
    pub stop: watch::Receiver<bool>,
    /// `true` while nothing that is delivered can be made durable; for inputs whose sources keep their readings, which are to be held meanwhile.
    pub held: Option<watch::Receiver<bool>>,
    /// What status shows.
    pub health: SharedHealth,
    /// What the driver had stored when the last commit before this process was made.
    pub state: BTreeMap<String, Vec<u8>>,
    /// Where the bytes go, with `try --trace`.
    pub trace: Option<mpsc::Sender<TracedBytes>>,
}

impl Session {
    /// Puts a session together.
    pub fn new(parts: SessionParts) -> Self {
        Self { parts, series: HashMap::new(), last_number: 0, next: Pending::default() }
    }

    /// Now, by the wall clock.
    pub fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }

    /// The clock, for who must look at it beside the session.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.parts.clock)
    }

    /// The input's name in the configuration.
    pub fn name(&self) -> &str {
        &self.parts.name
    }

    /// The agent's id.
    pub fn agent(&self) -> &str {
        &self.parts.agent
    }

    /// The number of the series `<prefix>/<rest>`, declared at its first use. `rest` may have several levels; each must have gone
    /// through [`series_level`](rtlive_core::reading::series_level) where it comes from outside. `source` is the device or topic whose watermark it shares.
    ///
    /// What cannot be a series is [`SeriesId::UNKNOWN`]; its readings are rejected as `no_series`. A unit that no frame can hold is left out.
    pub fn series(&mut self, rest: &str, unit: Option<&str>, source: &str) -> SeriesId {
        if let Some(&id) = self.series.get(rest) {
            return id;
        }
        let name = format!("{}/{rest}", self.parts.prefix);
        if !is_series_name(&name) {
            return SeriesId::UNKNOWN;
        }
        let id = SeriesId(u32::try_from(self.series.len()).unwrap_or(u32::MAX));
        self.series.insert(rest.to_owned(), id);
        let unit = unit.filter(|unit| unit.len() <= NAME_BYTES_MAX).map(Into::into);
        let info = SeriesInfo { name: name.into(), unit };
        self.next.declared.push(Declared { input: self.parts.input, source: source.into(), info });
        id
    }

    /// The first levels of the input's series.
    pub fn prefix(&self) -> &str {
        &self.parts.prefix
    }

    /// Whether the series `<prefix>/<rest>` was declared.
    pub fn has_series(&self, rest: &str) -> bool {
        self.series.contains_key(rest)
    }

    /// How many series the input has declared.
    pub fn series_count(&self) -> usize {
        self.series.len()
    }

    /// Whether the clock is not known to be right: what it shows must not be taken for the date.
    pub fn is_clock_unsure(&self) -> bool {
        self.parts.clock.at_least().is_some()
    }

    /// A receiver with a fix has just told this time.
    pub fn hear_time(&self, time: Timestamp) {
        self.parts.clock.hear(time);
    }

    /// Adds a good reading without a time of its own to the next delivery: its time is `arrival`, taken from [`Session::now`] just now,
    /// and as good as the clock.
    pub fn read_on_arrival(&mut self, series: SeriesId, arrival: Timestamp, value: Value) {
        let time = self.agreed(arrival);
        let (quality, clock) = (Quality::Good, ClockState::Unsynced);
        self.read_marked(Reading { series, time, value, quality, check: None, clock });
    }

    /// An instant of the clock as it is now, as the clock of the next delivery's first stamp shows it.
    fn agreed(&mut self, now: Timestamp) -> Timestamp {
        let current = self.parts.clock.ahead();
        let first = *self.next.ahead.get_or_insert(current);
        Timestamp::from_nanos(now.as_nanos().saturating_add(first.saturating_sub(current)))
    }

    /// Adds a good reading with a time that its source tells to the next delivery.
    pub fn read(&mut self, series: SeriesId, time: Timestamp, value: Value) {
        let (quality, clock) = (Quality::Good, ClockState::Synced);
        self.read_marked(Reading { series, time, value, quality, check: None, clock });
    }

    /// Adds a reading that the driver itself has something to say about. What no commit could hold is rejected instead: `no_series`, `too_long`
    /// (a text over [`TEXT_BYTES_MAX`]), `too_many_at_once` (more than [`DELIVERY_READINGS_MAX`], or [`DELIVERY_TEXT_BYTES_MAX`] of texts).
    pub fn read_marked(&mut self, reading: Reading) {
        let text_bytes = match &reading.value {
            Value::Text(text) => text.len(),
            _ => 0,
        };
        let bytes = self.next.text_bytes + text_bytes;
        if reading.series == SeriesId::UNKNOWN {
            self.reject("no_series", 1);
        } else if text_bytes > TEXT_BYTES_MAX {
            self.reject("too_long", 1);
        } else if self.next.readings.len() >= DELIVERY_READINGS_MAX || bytes > DELIVERY_TEXT_BYTES_MAX {
            self.reject("too_many_at_once", 1);
        } else {
            self.next.text_bytes = bytes;
            let time = self.parts.round.map_or(reading.time, |step| reading.time.saturating_add(step / 2).floor(step));
            self.next.readings.push(Reading { time, ..reading });
        }
    }

    /// Counts something that was taken and could not be made a reading: a word of the ledger, and how many.
    pub fn reject(&mut self, reason: &'static str, count: u64) {
        *self.next.rejected.entry(reason).or_default() += count;
    }

    /// Counts something that is no reading: `timeouts`, `polls_missed`.
    pub fn count(&self, counter: &'static str, count: u64) {
        *self.health().counters.entry(counter).or_default() += count;
    }

    /// Stores something for after a restart, committed together with the next delivery.
    pub fn keep(&mut self, key: &str, value: Option<Vec<u8>>) {
        match &value {
            Some(value) => self.parts.state.insert(key.to_owned(), value.clone()),
            None => self.parts.state.remove(key),
        };
        self.next.state.push((key.to_owned(), value));
    }

    /// What was kept, as of the last call of [`Session::keep`] or the last commit before this process.
    pub fn kept(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.parts.state
    }

    /// Notes a stretch in which the source could not be heard.
    pub fn outage(&mut self, start: Option<Timestamp>, end: Timestamp, count: Option<u64>, reason: &str) {
        self.next.outage = Some(Outage { input: self.parts.input, start, end, count, reason: reason.into() });
    }

    /// Hands over what was added since the last call, as one delivery that arrived at `arrival`; waits while the engine has no room.
    /// Returns the delivery's number; without anything to hand over, the last one's. Dropped while it waits, it has taken nothing:
    /// all that was added goes with the next delivery.
    ///
    /// # Errors
    /// [`EngineStopped`] when there is nobody to hand it to, or the program stops while the input is held.
    pub async fn deliver(&mut self, arrival: Timestamp, urgent: bool) -> Result<u64, EngineStopped> {
        if !self.next.is_empty() {
            // The clock may be set while there is no room.
            let arrival = self.agreed(arrival);
            self.wait_while_held().await?;
            let deliveries = self.parts.deliveries.clone();
            let room = deliveries.reserve().await.map_err(|_| EngineStopped)?;
            if let Some(delivery) = self.complete(arrival, urgent) {
                room.send(delivery);
            }
        }
        Ok(self.last_number)
    }

    /// Waits while what is delivered cannot be made durable, where the source keeps its readings meanwhile.
    ///
    /// # Errors
    /// [`EngineStopped`] when the program stops first.
    pub async fn wait_while_held(&self) -> Result<(), EngineStopped> {
        let Some(mut held) = self.parts.held.clone().filter(|held| *held.borrow()) else { return Ok(()) };
        tokio::select! {
            biased;
            // An error means that the store is gone.
            released = held.wait_for(|held| !held) => released.map(drop).map_err(|_| EngineStopped),
            () = self.stopping() => Err(EngineStopped),
        }
    }

    /// The number of the last delivery that was handed over in this process; 0 before the first.
    pub fn last_number(&self) -> u64 {
        self.last_number
    }

    /// The delivery that [`Session::deliver`] would hand over; for tests and for `try`.
    pub fn take(&mut self, arrival: Timestamp, urgent: bool) -> Option<Delivery> {
        let arrival = self.agreed(arrival);
        self.complete(arrival, urgent)
    }

    fn complete(&mut self, arrival: Timestamp, urgent: bool) -> Option<Delivery> {
        if self.next.is_empty() {
            self.next.ahead = None;
            return None;
        }
        let Pending { declared, readings, text_bytes: _, rejected, state, outage, ahead } =
            std::mem::take(&mut self.next);
        let ahead = ahead.unwrap_or_default();
        self.last_number += 1;
        let rejected = rejected.into_iter().map(|(reason, count)| Rejected { reason: reason.into(), count }).collect();
        let batch = Batch { input: self.parts.input, arrival, readings, rejected };
        Some(Delivery {
            input: self.parts.input,
            number: self.last_number,
            declared,
            batch,
            state,
            outage,
            urgent,
            ahead,
        })
    }

    /// The number of the last delivery that is on disk; changes wake the receiver.
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.parts.committed.clone()
    }

    /// Resolves when the program stops.
    pub async fn stopping(&self) {
        let mut stop = self.parts.stop.clone();
        // An error means that the sender is gone, which is a stop as well.
        let _ = stop.wait_for(|stop| *stop).await;
    }

    /// `true` once the program stops; for those who must watch it without holding the session.
    pub fn stop_signal(&self) -> watch::Receiver<bool> {
        self.parts.stop.clone()
    }

    /// Shows bytes that crossed a port to `try --trace`; dropped when nobody looks or looking is too slow.
    pub fn trace(&self, sent: bool, bytes: &[u8]) {
        if let Some(trace) = &self.parts.trace {
            let _ = trace.try_send(TracedBytes { sent, bytes: bytes.to_vec() });
        }
    }

    /// What status shows of this input.
    pub fn health(&self) -> std::sync::MutexGuard<'_, InputHealth> {
        self.parts.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rtlive_core::event::Event;
    use rtlive_core::journal::Chunk;

    use super::*;
    use crate::rig::session;

    fn rejected(delivery: &Delivery) -> Vec<(&str, u64)> {
        delivery.batch.rejected.iter().map(|rejected| (&*rejected.reason, rejected.count)).collect()
    }

    #[test]
    fn what_no_commit_could_hold_is_rejected_and_counted() {
        let (mut session, ..) = session(BTreeMap::new());
        let series = session.series("x", Some(&"u".repeat(NAME_BYTES_MAX + 1)), "");
        let unnamed = session.series(&"x".repeat(300), None, "");
        session.read(unnamed, Timestamp::EPOCH, Value::Int(1));
        session.read(series, Timestamp::EPOCH, Value::Text("x".repeat(TEXT_BYTES_MAX + 1).into()));
        let longest: Value = Value::Text("x".repeat(TEXT_BYTES_MAX).into());
        for _ in 0..DELIVERY_TEXT_BYTES_MAX / TEXT_BYTES_MAX + 2 {
            session.read(series, Timestamp::EPOCH, longest.clone());
        }
        let delivery = session.take(Timestamp::EPOCH, false).unwrap();
        assert_eq!(rejected(&delivery), [("no_series", 1), ("too_long", 1), ("too_many_at_once", 2)]);
        assert_eq!(delivery.declared.len(), 1);
        assert_eq!(delivery.declared[0].info.unit, None);
        // What is left is what the journal reads back.
        let events = vec![(Timestamp::EPOCH, Event::Batch(delivery.batch))];
        let chunk = Chunk { events, ..Chunk::default() };
        assert!(Chunk::decode(&chunk.encode(&[]).unwrap()).unwrap() == chunk);
    }

    #[test]
    fn times_are_rounded_to_the_nearest_multiple() {
        let (mut session, ..) = session(BTreeMap::new());
        session.parts.round = Some(Duration::from_millis(10));
        let series = session.series("x", None, "");
        for millis in [-6, -5, 4, 5, 14, 1_234] {
            session.read(series, Timestamp::from_nanos(millis * 1_000_000), Value::Bool(true));
        }
        let arrival = Timestamp::from_nanos(1_237_000_000);
        session.read_on_arrival(series, arrival, Value::Bool(true));
        let batch = session.take(arrival, false).unwrap().batch;
        let times: Vec<i64> = batch.readings.iter().map(|reading| reading.time.as_nanos() / 1_000_000).collect();
        assert_eq!(times, [-10, 0, 0, 10, 10, 1_230, 1_240]);
        assert_eq!(batch.arrival, arrival, "when it came is not rounded");
    }

    #[test]
    fn a_delivery_has_room_for_so_many_readings() {
        let (mut session, ..) = session(BTreeMap::new());
        let series = session.series("x", None, "");
        for _ in 0..DELIVERY_READINGS_MAX + 3 {
            session.read(series, Timestamp::EPOCH, Value::Bool(true));
        }
        let delivery = session.take(Timestamp::EPOCH, false).unwrap();
        assert_eq!(
            (delivery.batch.readings.len(), rejected(&delivery)),
            (DELIVERY_READINGS_MAX, vec![("too_many_at_once", 3)])
        );
        // The next one begins with all its room.
        session.read(series, Timestamp::EPOCH, Value::Bool(true));
        assert!(rejected(&session.take(Timestamp::EPOCH, false).unwrap()).is_empty());
    }
}
