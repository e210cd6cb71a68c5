//! The clock: readings that were stamped by their arrival wait until it is known when that was.
//!
//! Such a reading is marked [`ClockState::Unsynced`] by its driver, and is as good as the clock. While the clock is trusted it goes its
//! way at once, marked as synchronised. While it is not, the reading is **provisional**: it is held here with its time since the machine
//! was started, which every clock keeps right, and is in no stream and no window. Then either
//! - the clock comes to be trusted in the same boot: the difference between both clocks gives each reading its true time, and all
//!   go their way in the order of their arrival, as if they had come just now with it; or
//! - another boot begins: nobody will know, and they go to the stream `unsynced` in order, marked, with the best time that was known; so do
//!   the oldest when more are held than [`PROVISIONAL_READINGS_MAX`], and those of an input that a reload removes.
//!
//! Rules look at a provisional reading when it arrives; the alert is marked. An input whose readings are held is not silent.
//!
//! An engine that was told nothing of a clock trusts it: a replay has only the times that are written down.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Engine;
use super::passage::Origin;
use crate::columns::{decode_readings, encode_readings};
use crate::event::{Batch, ClockChange, Event};
use crate::plan::{Plan, StreamId};
use crate::reading::{ClockState, InputId, Reading, Value};
use crate::record::{Emitted, Record};
use crate::time::Timestamp;

/// How many readings are held at most: a quarter of an hour of 100 series at 1 Hz, in 5 MB. A clock that is not set by then is mostly never set.
pub const PROVISIONAL_READINGS_MAX: usize = 100_000;

/// How many bytes their texts may take beside.
pub const PROVISIONAL_TEXT_BYTES_MAX: usize = 4 << 20;

/// What is known of the clock, and what waits for it.
#[derive(Debug)]
pub(super) struct Clock {
    /// The boot that `ahead` belongs to; `None` before the first word of a clock.
    boot: Option<Arc<str>>,
    /// By how many nanoseconds the time is ahead of that since the boot.
    ahead: i64,
    is_trusted: bool,
    /// Since when it is as it is.
    since: Option<Timestamp>,
    /// The latest instant of a trusted clock.
    trusted_to: Option<Timestamp>,
    /// In the order of arrival; times are those since the boot.
    held: VecDeque<(InputId, Reading)>,
    text_bytes: usize,
}

/// What a status shows of the clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClockView {
    /// Whether readings that are stamped by their arrival go their way.
    pub is_trusted: bool,
    /// Since when that is so; `None` before the first word of a clock.
    pub since: Option<Timestamp>,
    /// The latest instant that a trusted clock has shown.
    pub trusted_to: Option<Timestamp>,
    /// How many readings wait.
    pub provisional: usize,
    /// The boot that it is the clock of; `None` before the first word of a clock.
    pub boot: Option<Arc<str>>,
    /// By how many nanoseconds the time is ahead of that since this boot.
    pub ahead: i64,
}

/// The clock in a snapshot.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SavedClock {
    boot: Option<Arc<str>>,
    ahead: i64,
    is_trusted: bool,
    since: Option<Timestamp>,
    trusted_to: Option<Timestamp>,
    /// How many readings of which input follow each other.
    inputs: Vec<(u16, u32)>,
    readings: Vec<u8>,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            boot: None,
            ahead: 0,
            is_trusted: true,
            since: None,
            trusted_to: None,
            held: VecDeque::new(),
            text_bytes: 0,
        }
    }
}

fn text_bytes(reading: &Reading) -> usize {
    match &reading.value {
        Value::Text(text) => text.len(),
        Value::Float(_) | Value::Int(_) | Value::Bool(_) => 0,
    }
}

/// A time by the clock from one since the boot, or, with a negative `ahead`, the other way round.
const fn moved(time: Timestamp, ahead: i64) -> Timestamp {
    Timestamp::from_nanos(time.as_nanos().saturating_add(ahead))
}

impl Clock {
    pub(super) const fn is_trusted(&self) -> bool {
        self.is_trusted
    }

    /// Holds a reading whose time is by this clock.
    pub(super) fn hold(&mut self, input: InputId, reading: &Reading) {
        let time = moved(reading.time, self.ahead.saturating_neg());
        self.text_bytes += text_bytes(reading);
        self.held.push_back((input, Reading { time, ..reading.clone() }));
    }

    fn is_full(&self) -> bool {
        self.held.len() > PROVISIONAL_READINGS_MAX || self.text_bytes > PROVISIONAL_TEXT_BYTES_MAX
    }

    fn release_oldest(&mut self) -> Option<(InputId, Reading)> {
        let (input, mut reading) = self.held.pop_front()?;
        self.text_bytes -= text_bytes(&reading);
        reading.time = moved(reading.time, self.ahead);
        Some((input, reading))
    }

    pub(super) fn saved(&self) -> SavedClock {
        let mut inputs: Vec<(u16, u32)> = Vec::new();
        for (input, _) in &self.held {
            match inputs.last_mut() {
                Some((same, count)) if *same == input.0 => *count += 1,
                _ => inputs.push((input.0, 1)),
            }
        }
        let held: Vec<&Reading> = self.held.iter().map(|(_, reading)| reading).collect();
        let mut readings = Vec::new();
        encode_readings(&held, &mut readings);
        let Self { boot, ahead, is_trusted, since, trusted_to, .. } = self;
        let (boot, ahead, is_trusted) = (boot.clone(), *ahead, *is_trusted);
        SavedClock { boot, ahead, is_trusted, since: *since, trusted_to: *trusted_to, inputs, readings }
    }

    /// The clock of a snapshot; `input` gives the number of the input that had a number there. `None` where it cannot have been saved.
    pub(super) fn restored(saved: SavedClock, input: impl Fn(u16) -> Option<InputId>) -> Option<Self> {
        let SavedClock { boot, ahead, is_trusted, since, trusted_to, inputs, readings } = saved;
        let mut readings = decode_readings(&readings, PROVISIONAL_READINGS_MAX).ok()?.into_iter();
        let mut clock = Self { boot, ahead, is_trusted, since, trusted_to, ..Self::default() };
        for (place, count) in inputs {
            let input = input(place)?;
            for _ in 0..count {
                let reading = readings.next()?;
                clock.text_bytes += text_bytes(&reading);
                clock.held.push_back((input, reading));
            }
        }
        readings.next().is_none().then_some(clock)
    }
}

impl Engine {
    /// By how many nanoseconds the time that the engine reckons with is ahead of that since the boot; `None` before the first
    /// [`Event::Clock`]. Readings that are stamped by their arrival must come by this time.
    pub fn clock_ahead(&self) -> Option<i64> {
        self.clock.boot.as_ref().map(|_| self.clock.ahead)
    }

    /// How the clock stands.
    pub fn clock(&self) -> ClockView {
        let Clock { is_trusted, since, trusted_to, ahead, ref boot, ref held, .. } = self.clock;
        ClockView { is_trusted, since, trusted_to, provisional: held.len(), boot: boot.clone(), ahead }
    }

    /// The clock changes: readings that wait for it get their time, or never will.
    pub(super) fn change_clock(&mut self, now: Timestamp, change: &ClockChange, out: &mut Vec<Emitted>) {
        let is_same_boot = self.clock.boot.as_ref().is_some_and(|boot| *boot == change.boot);
        if !is_same_boot {
            self.give_up_provisional(|_| true, out);
        }
        let before = std::mem::replace(&mut self.clock.ahead, change.ahead);
        if self.clock.boot.is_none() || self.clock.is_trusted != change.is_trusted {
            self.clock.since = Some(now);
        }
        self.clock.boot = Some(Arc::clone(&change.boot));
        self.clock.is_trusted = change.is_trusted;
        // How long ago something was does not depend on what the clock shows. Of another boot that is not known, but that it is past.
        let step = change.ahead.saturating_sub(before);
        let shown = |at: Timestamp| if is_same_boot { moved(at, step) } else { at.min(now) };
        for input in &mut self.inputs {
            input.heard = input.heard.map(shown);
        }
        for source in &mut self.sources {
            source.heard = source.heard.map(shown);
        }
        self.rules.set_clock(&self.plan, &shown);
        self.derived.set_clock(&shown);
        if change.is_trusted {
            self.release_provisional(out);
        }
    }

    /// What waits goes its way with its true time, by which rules know it already.
    fn release_provisional(&mut self, out: &mut Vec<Emitted>) {
        let mut batch: Option<Batch> = None;
        while let Some((input, reading)) = self.clock.release_oldest() {
            if let Some(account) = self.ledger.inputs.get_mut(usize::from(input.0)) {
                account.taken -= 1;
                account.provisional -= 1;
            }
            match &mut batch {
                Some(batch) if batch.input == input && batch.arrival == reading.time => batch.readings.push(reading),
                batch => {
                    let arrival = reading.time;
                    let next = Batch { input, arrival, readings: vec![reading], rejected: Vec::new() };
                    if let Some(batch) = batch.replace(next) {
                        self.take(&batch, Origin::Clock, out);
                    }
                }
            }
        }
        if let Some(batch) = batch {
            self.take(&batch, Origin::Clock, out);
        }
    }

    /// The oldest of what waits go to `unsynced` while too much waits.
    pub(super) fn bound_provisional(&mut self, out: &mut Vec<Emitted>) {
        while self.clock.is_full() {
            let Some((input, reading)) = self.clock.release_oldest() else { return };
            self.emit_unsynced(input, reading, out);
        }
    }

    /// What waits of the inputs that are `gone` goes to `unsynced`.
    pub(super) fn give_up_provisional(&mut self, gone: impl Fn(InputId) -> bool, out: &mut Vec<Emitted>) {
        for _ in 0..self.clock.held.len() {
            match self.clock.held.pop_front() {
                Some((input, mut reading)) if gone(input) => {
                    self.clock.text_bytes -= text_bytes(&reading);
                    reading.time = moved(reading.time, self.clock.ahead);
                    self.emit_unsynced(input, reading, out);
                }
                Some(stays) => self.clock.held.push_back(stays),
                None => {}
            }
        }
    }

    /// What waits of inputs that a plan does not have goes to `unsynced`.
    pub(super) fn give_up_removed(&mut self, plan: &Plan, out: &mut Vec<Emitted>) {
        let before = Arc::clone(&self.plan);
        let gone = |input: InputId| {
            let known = before.inputs.get(usize::from(input.0));
            known.is_none_or(|input| plan.input_named(&input.name).is_none())
        };
        self.give_up_provisional(gone, out);
    }

    fn emit_unsynced(&mut self, input: InputId, reading: Reading, out: &mut Vec<Emitted>) {
        if let Some(account) = self.ledger.inputs.get_mut(usize::from(input.0)) {
            account.provisional -= 1;
            account.accepted += 1;
            account.unsynced += 1;
        }
        out.push(Emitted { stream: StreamId::UNSYNCED, record: Record::Reading(reading) });
    }

    /// Whether as many readings of each input wait as its account says.
    pub(super) fn holds_what_its_ledger_says(&self) -> bool {
        let mut held = vec![0; self.ledger.inputs.len()];
        for (input, _) in &self.clock.held {
            if let Some(held) = held.get_mut(usize::from(input.0)) {
                *held += 1;
            }
        }
        self.ledger.inputs.iter().map(|account| account.provisional).eq(held)
    }

    /// Marks the alerts of an event whose time is not known.
    pub(super) fn mark_alerts(&mut self, now: Timestamp, event: &Event, emitted: &mut [Emitted]) {
        if self.clock.is_trusted {
            self.clock.trusted_to = self.clock.boot.as_ref().map(|_| now).max(self.clock.trusted_to);
            return;
        }
        let is_by_arrival = match event {
            Event::Batch(batch) => batch.readings.iter().any(|reading| reading.clock == ClockState::Unsynced),
            Event::Tick | Event::Start => true,
            Event::Series(_) | Event::Outage(_) | Event::Reload(_) | Event::Clock(_) => false,
        };
        for emitted in emitted.iter_mut().filter(|_| is_by_arrival) {
            if let Record::Alert(alert) = &mut emitted.record {
                alert.clock = ClockState::Unsynced;
            }
        }
    }
}
