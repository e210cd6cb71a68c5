//! Random operations against a model: every record that the engine emits, in its order, must be the one that a plain computation
//! expects.
//!
//! `RTLIVE_OPERATIONS=10000000 cargo test --release -p rtlive-core --test model` runs so many; a reading, a declaration, a tick, a
//! restart and a reload are one each. `RTLIVE_SEED=n` runs the seed that failed alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod naive;
mod plans;
mod random;

use std::collections::BTreeMap;
use std::sync::Arc;

use rtlive_core::engine::Engine;
use rtlive_core::event::{Batch, Declared, Event};
use rtlive_core::plan::{Plan, StreamId};
use rtlive_core::reading::{ClockState, InputId, Quality, Reading, SeriesId, SeriesInfo, Value};
use rtlive_core::record::{Aggregate, Emitted, Record};
use rtlive_core::time::Timestamp;

use naive::{Expected, Model, Told};
use plans::{SECOND, SERIES, Wanted};
use random::Random;

/// Operations unless told otherwise: a few seconds without optimisation.
const OPERATIONS: u64 = 100_000;

/// Operations of one seed.
const OPERATIONS_OF_A_SEED: u64 = 2_000;

/// Days around which the clocks of central Europe change in 2026, and one on which they do not; seconds.
const BEGINNINGS: [i64; 3] = [1_774_700_000, 1_792_800_000, 1_780_000_000];

fn blank_plan() -> Plan {
    Plan {
        agent: "gw".into(),
        labels: BTreeMap::new(),
        inputs: Vec::new(),
        streams: Vec::new(),
        rules: Vec::new(),
        quality: Vec::new(),
        derived: Vec::new(),
        ladders: Vec::new(),
    }
}

struct World {
    random: Random,
    wanted: Wanted,
    engine: Engine,
    model: Model,
    clock: i64,
    /// The next revision of each window that was ever told.
    revisions: BTreeMap<(Arc<str>, u32, i64), u32>,
    done: u64,
}

#[test]
fn the_engine_does_what_a_plain_computation_does() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    if let Some(seed) = number("RTLIVE_SEED") {
        run(seed);
        return;
    }
    let operations = number("RTLIVE_OPERATIONS").unwrap_or(OPERATIONS);
    let (mut done, mut seed) = (0, 0);
    while done < operations {
        eprintln!("seed {seed}");
        done += run(seed);
        seed += 1;
    }
    eprintln!("{done} operations of {seed} seeds without a difference");
}

fn run(seed: u64) -> u64 {
    let mut random = Random::new(seed);
    let wanted = Wanted::new(&mut random);
    let beginning = BEGINNINGS[random.below(3) as usize];
    let (engine, model) = (Engine::new(wanted.plan()), Model::new(wanted.clone()));
    let clock = beginning * SECOND;
    let mut world = World { random, wanted, engine, model, clock, revisions: BTreeMap::new(), done: 0 };
    for series in 0..2 {
        world.declare(series);
    }
    while world.done < OPERATIONS_OF_A_SEED {
        world.step();
    }
    let mut out = Vec::new();
    world.engine.close(Timestamp::MAX, &mut out);
    let expected = world.model.close();
    world.compare(&out, &expected);
    assert_eq!(world.engine.windows_open(), 0);
    world.done
}

impl World {
    fn step(&mut self) {
        // Mostly seconds; sometimes hours, over which days end.
        self.clock += match self.random.below(200) {
            0 => self.random.below(40_000) as i64 * SECOND,
            1..20 => self.random.below(60) as i64 * SECOND,
            _ => self.random.below(3) as i64 * SECOND,
        };
        self.done += 1;
        match self.random.below(100) {
            0..2 => self.reload(),
            2..5 => self.restart(),
            5..8 => {
                let series = self.random.below(SERIES.len() as u64) as u32;
                self.declare(series);
            }
            8..18 => self.tick(),
            _ => self.read(),
        }
        assert_eq!(self.engine.ledger().check(), None);
        let wake_at = self.engine.wake_at().map(Timestamp::as_nanos);
        assert_eq!(wake_at, self.model.wake_at());
        for account in &self.engine.ledger().windows {
            let late = self.model.late.get(&*account.window).copied().unwrap_or(0);
            assert_eq!((account.late, account.crowded), (late, 0), "late for {}", account.window);
        }
    }

    fn handle(&mut self, event: &Event, expected: &[Expected]) {
        let mut out = Vec::new();
        self.engine.handle(Timestamp::from_nanos(self.clock), event, &mut out);
        self.compare(&out, expected);
    }

    fn declare(&mut self, series: u32) {
        let name = SERIES[series as usize];
        // A series is numbered when it first appears; here in their order, so that numbers are places.
        let known = self.engine.series().len() as u32;
        if series > known {
            return;
        }
        let source = self.random.below(12).saturating_sub(9) as u32;
        let info = SeriesInfo { name: name.into(), unit: None };
        let event = Event::Series(Declared { input: InputId(0), source: format!("s{source}").into(), info });
        let expected = self.model.declare(series, source);
        self.handle(&event, &expected);
    }

    fn read(&mut self) {
        let known = self.engine.series().len() as u64;
        let count = self.random.below(6);
        let mut readings = Vec::new();
        for _ in 0..count {
            let behind = match self.random.below(20) {
                0..12 => self.random.below(3),
                12..17 => self.random.below(12),
                17..19 => self.random.below(60),
                _ => self.random.below(100_000),
            };
            let value = match self.random.below(8) {
                0 => Value::Float(self.random.below(1_000) as f64 / 8.0 - 50.0),
                1 => Value::Bool(self.random.below(2) == 0),
                2 => Value::Text(["a", "b"][self.random.below(2) as usize].into()),
                _ => Value::Int(self.random.below(100) as i64 - 50),
            };
            readings.push((self.random.below(known) as u32, self.clock - behind as i64 * SECOND, value));
        }
        self.done += count.saturating_sub(1);
        let expected = self.model.take(self.clock, &readings);
        let reading = |(series, time, value): &(u32, i64, Value)| Reading {
            series: SeriesId(*series),
            time: Timestamp::from_nanos(*time),
            value: value.clone(),
            quality: Quality::Good,
            check: None,
            clock: ClockState::Synced,
        };
        let readings = readings.iter().map(reading).collect();
        let arrival = Timestamp::from_nanos(self.clock);
        self.handle(&Event::Batch(Batch { input: InputId(0), arrival, readings, rejected: Vec::new() }), &expected);
    }

    fn tick(&mut self) {
        let expected = self.model.tick(self.clock);
        self.handle(&Event::Tick, &expected);
    }

    fn restart(&mut self) {
        let bytes = self.engine.snapshot();
        self.engine = Engine::restore(self.wanted.plan(), &bytes).unwrap();
        assert_eq!(self.engine.snapshot(), bytes, "a restored engine has the same snapshot");
    }

    fn reload(&mut self) {
        let wanted = self.wanted.altered(&mut self.random);
        let expected = self.model.reload(wanted.clone());
        let mut out = Vec::new();
        // What it emits speaks of the streams of the old plan.
        let before = self.engine.plan().clone();
        self.engine.handle(Timestamp::from_nanos(self.clock), &Event::Reload(wanted.plan()), &mut out);
        self.compare_under(&before, &out, &expected);
        for name in self.wanted.windows.keys().filter(|name| !wanted.windows.contains_key(*name)) {
            self.model.late.remove(name);
        }
        self.wanted = wanted;
    }

    fn compare(&mut self, found: &[Emitted], expected: &[Expected]) {
        let plan = self.engine.plan().clone();
        self.compare_under(&plan, found, expected);
    }

    fn compare_under(&mut self, plan: &Plan, found: &[Emitted], expected: &[Expected]) {
        let difference = || {
            let mut text = format!("at {} after {} operations; found\n", self.clock, self.done);
            found.iter().for_each(|one| text += &format!("  {one:?}\n"));
            text += "expected\n";
            expected.iter().for_each(|one| text += &format!("  {one:?}\n"));
            text
        };
        for (found, expected) in found.iter().zip(expected) {
            match (&found.record, expected) {
                (Record::Reading(reading), Expected::Late { series, time }) => {
                    assert_eq!(found.stream, StreamId::LATE);
                    assert_eq!((reading.series.0, reading.time.as_nanos()), (*series, *time));
                }
                (Record::Aggregate(aggregate), Expected::Aggregate(told)) => {
                    assert!(is_told(found.stream, aggregate, told), "{}", difference());
                    let name = Arc::clone(&plan.streams[found.stream.index()].name);
                    let key = (name, aggregate.series.0, aggregate.start.as_nanos());
                    let next = self.revisions.entry(key).or_default();
                    assert_eq!(aggregate.revision, *next, "the revisions of {aggregate:#?} over all reloads");
                    *next += 1;
                }
                _ => panic!("{}", difference()),
            }
        }
        assert_eq!(found.len(), expected.len(), "{}", difference());
    }
}

/// Whether an aggregate is the expected one, sums but for rounding.
fn is_told(stream: StreamId, found: &Aggregate, told: &Told) -> bool {
    let key = (stream.index(), found.series.0, found.start.as_nanos(), found.end.as_nanos());
    let state = (found.revision, found.is_final, found.deleted);
    if key != (told.stream, told.series, told.start, told.end) || state != (told.revision, told.is_final, told.deleted)
    {
        return false;
    }
    if told.deleted {
        return found.values.iter().all(Option::is_none);
    }
    let magnitude: f64 = told.readings.iter().filter_map(|(_, value)| value.as_number()).map(f64::abs).sum();
    values(&told.readings).iter().zip(&found.values).all(|(expected, found)| match (expected, found) {
        (Some(Value::Float(expected)), Some(Value::Float(found))) => {
            (expected - found).abs() <= 1e-12 * magnitude.max(1.0)
        }
        (expected, found) => expected == found,
    })
}

/// The functions of [`plans::COMPUTE`] over readings.
fn values(readings: &[(i64, Value)]) -> [Option<Value>; 7] {
    let by_value = |a: &&Value, b: &&Value| a.as_scalar().total_cmp(b.as_scalar());
    let numbers = || readings.iter().map(|(_, value)| value).filter(|value| value.as_number().is_some());
    let sum: f64 = numbers().filter_map(Value::as_number).sum();
    let count = numbers().count();
    let by_time = |a: &&(i64, Value), b: &&(i64, Value)| {
        (a.0, ()).cmp(&(b.0, ())).then_with(|| a.1.as_scalar().total_cmp(b.1.as_scalar()))
    };
    [
        Some(Value::Int(readings.len() as i64)),
        (count > 0).then_some(Value::Float(sum)),
        (count > 0).then_some(Value::Float(sum / count as f64)),
        numbers().min_by(by_value).cloned(),
        numbers().max_by(by_value).cloned(),
        readings.iter().min_by(by_time).map(|(_, value)| value.clone()),
        readings.iter().max_by(by_time).map(|(_, value)| value.clone()),
    ]
}
