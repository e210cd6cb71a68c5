//! Model inputs: the sources, which outlive every crash, and their drivers, which do not.
//!
//! - `poll` is asked now and then; what is not asked for is never known.
//! - `push` speaks by itself: two devices, late, out of order, sometimes far too late or too far ahead.
//! - `bus` keeps each message until it is acknowledged, and sends it again after a crash (as MQTT with a session).
//! - `log` is a file: the driver's offset is committed with what it read.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rtlive::message::Delivery;
use rtlive_core::event::{Batch, Declared, Rejected};
use rtlive_core::reading::{Check, ClockState, InputId, Quality, Reading, SeriesId, SeriesInfo, Value};
use rtlive_core::time::Timestamp;

use crate::random::Random;
use crate::reference::{Taken, TakenReading};

/// How many messages the model bus sends without an acknowledgement.
const WINDOW: usize = 8;

/// A source: what the world outside of the gateway knows.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) name: &'static str,
    /// What it keeps: all lines of the log, or what the bus has not seen acknowledged.
    kept: VecDeque<(u64, TakenReading)>,
    /// The number of the next message or line.
    next: u64,
    /// Messages that were sent to the driver that runs now.
    sent: BTreeSet<u64>,
}

/// A driver: what is gone after a crash.
#[derive(Debug)]
pub(crate) struct Driver {
    input: InputId,
    series: BTreeMap<String, SeriesId>,
    last_number: u64,
    /// Deliveries that the engine has had no room for.
    pub(crate) waiting: VecDeque<(Delivery, Taken)>,
    /// Messages whose acknowledgement waits for the commit of a delivery.
    owed: Vec<(u64, u64)>,
    /// Messages that were taken and may come again.
    known: BTreeSet<u64>,
    /// Messages that need not be known any more.
    forget: Vec<u64>,
    offset: u64,
}

/// A reading before the source has it: values end with two digits that rules look at.
pub(crate) fn reading(
    series: String,
    source: &str,
    time: Timestamp,
    id: &mut i64,
    random: &mut Random,
) -> TakenReading {
    *id += 1;
    let value = *id * 100 + random.between(0, 100);
    TakenReading { series, source: source.to_owned(), time, value, is_bad: random.percent(3) }
}

impl Source {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, kept: VecDeque::new(), next: 0, sent: BTreeSet::new() }
    }

    /// What happens at the source at an instant. Readings that nobody keeps are returned, to be taken by a driver if there is one.
    pub(crate) fn produce(&mut self, now: Timestamp, id: &mut i64, random: &mut Random) -> Vec<TakenReading> {
        let before = |ms| now.saturating_sub(Duration::from_millis(ms));
        match self.name {
            "poll" => ["a", "b"].map(|rest| reading(format!("poll/{rest}"), "", now, id, random)).into(),
            "push" => {
                let count = random.between(1, 4);
                let one = |_| {
                    let device = *random.pick(&["x", "y"]);
                    let time = match random.between(0, 40) {
                        0 => before(30_000),
                        1 => now.saturating_add(Duration::from_secs(600)),
                        2..=6 => before(random.between(2_000, 12_000).unsigned_abs()),
                        _ => before(random.between(0, 2_000).unsigned_abs()),
                    };
                    reading(format!("push/{device}/v"), device, time, id, random)
                };
                (0..count).map(one).collect()
            }
            "bus" => {
                let topic = *random.pick(&["k", "l", "m"]);
                let time = before(random.between(0, 1_500).unsigned_abs());
                self.keep(reading(format!("bus/{topic}/v"), topic, time, id, random));
                Vec::new()
            }
            _ => {
                self.keep(reading("log/ms".to_owned(), "", now, id, random));
                Vec::new()
            }
        }
    }

    /// The last readings of a run, which end every window before them.
    pub(crate) fn last(&mut self, at: Timestamp, id: &mut i64, random: &mut Random) -> Vec<TakenReading> {
        let series: &[(&str, &str)] = match self.name {
            "poll" => &[("poll/a", ""), ("poll/b", "")],
            "push" => &[("push/x/v", "x"), ("push/y/v", "y")],
            "bus" => &[("bus/k/v", "k"), ("bus/l/v", "l"), ("bus/m/v", "m")],
            _ => &[("log/ms", "")],
        };
        let readings: Vec<_> =
            series.iter().map(|(series, source)| reading((*series).to_owned(), source, at, id, random)).collect();
        if matches!(self.name, "poll" | "push") {
            return readings;
        }
        readings.into_iter().for_each(|reading| self.keep(reading));
        Vec::new()
    }

    fn keep(&mut self, reading: TakenReading) {
        self.kept.push_back((self.next, reading));
        self.next += 1;
    }

    /// The driver's connection is gone: what is not acknowledged is sent again.
    pub(crate) fn disconnect(&mut self) {
        self.sent.clear();
    }

    /// The bus hears an acknowledgement.
    fn acknowledge(&mut self, message: u64) {
        self.kept.retain(|(number, _)| *number != message);
        self.sent.remove(&message);
    }

    /// How many messages or lines there ever were.
    pub(crate) const fn count(&self) -> u64 {
        self.next
    }

    /// Whether the driver has something to fetch.
    pub(crate) fn has_more(&self, driver: &Driver) -> bool {
        match self.name {
            "bus" => !self.kept.is_empty(),
            "log" => driver.offset < self.next,
            _ => false,
        }
    }
}

impl Driver {
    /// A driver that begins with what it had kept at the last commit.
    pub(crate) fn new(input: InputId, kept: &BTreeMap<String, Vec<u8>>) -> Self {
        let number = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
        Self {
            input,
            series: BTreeMap::new(),
            last_number: 0,
            waiting: VecDeque::new(),
            owed: Vec::new(),
            known: kept.keys().filter_map(|key| key.strip_prefix("message ")?.parse().ok()).collect(),
            forget: Vec::new(),
            offset: kept.get("offset").map_or(0, |bytes| number(bytes)),
        }
    }

    /// Takes readings that nobody keeps.
    pub(crate) fn hear(&mut self, source: &Source, now: Timestamp, readings: Vec<TakenReading>, rejected: u64) {
        self.hand_over(source, now, readings, rejected, Vec::new(), false);
    }

    /// Fetches what the source keeps: messages within the window, or some lines.
    pub(crate) fn fetch(&mut self, source: &mut Source, now: Timestamp, random: &mut Random) {
        let most = usize::try_from(random.between(1, 6)).unwrap();
        if source.name == "log" {
            let lines = source.kept.iter().filter(|(number, _)| *number >= self.offset).take(most);
            let readings: Vec<_> = lines.map(|(_, reading)| reading.clone()).collect();
            if !readings.is_empty() {
                self.offset += readings.len() as u64;
                let state = vec![("offset".to_owned(), Some(self.offset.to_be_bytes().to_vec()))];
                self.hand_over(source, now, readings, 0, state, false);
            }
            return;
        }
        let (mut readings, mut state) = (Vec::new(), Vec::new());
        for (number, reading) in source.kept.iter().take(WINDOW) {
            if readings.len() < most && source.sent.insert(*number) {
                if self.known.contains(number) {
                    // It was taken before a crash, and its commit stands.
                    self.owed.push((0, *number));
                } else {
                    self.known.insert(*number);
                    self.owed.push((self.last_number + 1, *number));
                    state.push((format!("message {number}"), Some(Vec::new())));
                    readings.push(reading.clone());
                }
            }
        }
        // What is known is on disk: a driver begins with what was committed.
        while self.acknowledge_one(source, 0) {}
        if !readings.is_empty() {
            state
                .extend(std::mem::take(&mut self.forget).into_iter().map(|number| (format!("message {number}"), None)));
            let is_urgent = self.owed.len() * 2 >= WINDOW;
            self.hand_over(source, now, readings, 0, state, is_urgent);
        }
    }

    fn hand_over(
        &mut self,
        source: &Source,
        arrival: Timestamp,
        readings: Vec<TakenReading>,
        rejected: u64,
        state: Vec<(String, Option<Vec<u8>>)>,
        urgent: bool,
    ) {
        let mut declared = Vec::new();
        let mut of = |taken: &TakenReading, known: &mut BTreeMap<String, SeriesId>| {
            let next = SeriesId(u32::try_from(known.len()).unwrap());
            *known.entry(taken.series.clone()).or_insert_with(|| {
                let info = SeriesInfo { name: taken.series.as_str().into(), unit: None };
                declared.push(Declared { input: self.input, source: taken.source.as_str().into(), info });
                next
            })
        };
        let batch: Vec<Reading> = readings
            .iter()
            .map(|taken| Reading {
                series: of(taken, &mut self.series),
                time: taken.time,
                value: Value::Int(taken.value),
                quality: if taken.is_bad { Quality::Bad } else { Quality::Good },
                check: taken.is_bad.then_some(Check::Source),
                clock: ClockState::Synced,
            })
            .collect();
        self.last_number += 1;
        let reject = |count| vec![Rejected { reason: "checksum".into(), count }];
        let rejections = if rejected > 0 { reject(rejected) } else { Vec::new() };
        let batch = Batch { input: self.input, arrival, readings: batch, rejected: rejections };
        let delivery = Delivery {
            input: self.input,
            number: self.last_number,
            declared,
            batch,
            state,
            outage: None,
            urgent,
            ahead: 0,
        };
        self.waiting.push_back((delivery, Taken { input: source.name, arrival, readings, rejected, outage: None }));
    }

    /// A delivery is on disk: one message that may be acknowledged now, if there is one.
    pub(crate) fn acknowledge_one(&mut self, source: &mut Source, committed: u64) -> bool {
        let Some(place) = self.owed.iter().position(|(after, _)| *after <= committed) else { return false };
        let (_, message) = self.owed.remove(place);
        source.acknowledge(message);
        self.forget.push(message);
        true
    }
}
