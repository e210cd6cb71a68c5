//! Random operations against a model: every record that the engine emits, in its order, must be the one that a plain computation
//! expects.
//!
//! `RTLIVE_OPERATIONS=10000000 cargo test --release -p rtlive-core --test model` runs so many; a reading, a declaration, a tick, a
//! restart and a reload are one each. `RTLIVE_SEED=n` runs the seed that failed alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod definitions;
mod expected;
mod joins;
mod naive;
mod plans;
mod random;
mod rules;
mod windows;

use std::collections::BTreeMap;
use std::sync::Arc;

use rtlive_core::engine::Engine;
use rtlive_core::event::{Batch, Declared, Event};
use rtlive_core::plan::Plan;
use rtlive_core::reading::{ClockState, InputId, Quality, Reading, SeriesId, SeriesInfo, Value};
use rtlive_core::record::{Emitted, Record};
use rtlive_core::time::Timestamp;

use expected::{Expected, difference};
use naive::Model;
use plans::{INPUTS, SECOND, SERIES, Wanted};
use random::Random;

/// Operations unless told otherwise: a few seconds without optimisation.
const OPERATIONS: u64 = 40_000;

/// Operations of one seed.
const OPERATIONS_OF_A_SEED: u64 = 2_000;

/// Days around which the clocks of central Europe change in 2026, and one on which they do not; seconds.
const BEGINNINGS: [i64; 3] = [1_774_700_000, 1_792_800_000, 1_780_000_000];

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
    for name in ["a/x", "b/y"] {
        world.declare(name);
    }
    while world.done < OPERATIONS_OF_A_SEED {
        world.step();
    }
    let mut out = Vec::new();
    world.engine.close(Timestamp::from_nanos(world.clock), &mut out);
    let expected = world.model.close(world.clock);
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
            0..3 => self.reload(),
            3..6 => self.restart(),
            6..10 => {
                let name = SERIES[self.random.below(SERIES.len() as u64) as usize];
                self.declare(name);
            }
            10..22 => self.tick(),
            _ => self.read(),
        }
        assert_eq!(self.engine.ledger().check(), None);
        self.look_at_time();
        self.look_at_accounts();
    }

    /// The engine may want to be woken before there is something to do, but not after.
    fn look_at_time(&self) {
        let (found, expected) = (self.engine.wake_at().map(Timestamp::as_nanos), self.model.wake_at());
        assert!(
            found.is_some() == expected.is_some() && found <= expected,
            "to be woken at {found:?}, expected {expected:?}"
        );
    }

    fn look_at_accounts(&self) {
        for account in &self.engine.ledger().windows {
            let late = self.model.late.get(&*account.window).copied().unwrap_or(0);
            assert_eq!((account.late, account.crowded), (late, 0), "late for {}", account.window);
        }
        for account in &self.engine.ledger().inputs {
            for reason in ["missing", "late"] {
                let expected = self.model.dropped.get(&(account.input.to_string(), reason)).copied();
                assert_eq!(account.dropped.get(reason).copied(), expected, "{reason} of {}", account.input);
            }
        }
    }

    fn handle(&mut self, event: &Event, expected: &[Expected]) {
        let mut out = Vec::new();
        self.engine.handle(Timestamp::from_nanos(self.clock), event, &mut out);
        self.compare(&out, expected);
    }

    fn input(&self, name: &str) -> Option<InputId> {
        self.engine.plan().input_named(name)
    }

    fn declare(&mut self, name: &str) {
        let input = &name[..1];
        let Some(id) = self.input(input) else { return };
        let source = format!("s{}", self.random.below(12).saturating_sub(9));
        let info = SeriesInfo { name: name.into(), unit: None };
        let event = Event::Series(Declared { input: id, source: source.clone().into(), info });
        let expected = self.model.declare(self.clock, name, (input.to_owned(), source));
        self.handle(&event, &expected);
    }

    fn read(&mut self) {
        let name = INPUTS[self.random.below(2) as usize];
        let Some(input) = self.input(name) else { return };
        let is_of = |series: &&u32| {
            self.model.series[**series as usize].origin.as_ref().is_some_and(|(input, _)| input == name)
        };
        let known: Vec<u32> = (0..self.model.series.len() as u32).collect();
        let known: Vec<u32> = known.iter().filter(is_of).copied().collect();
        let count = if known.is_empty() { 0 } else { self.random.below(6) };
        let readings: Vec<_> = (0..count).map(|_| self.reading(&known)).collect();
        self.done += count.saturating_sub(1);
        let expected = self.model.take(name, self.clock, &readings);
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
        self.handle(&Event::Batch(Batch { input, arrival, readings, rejected: Vec::new() }), &expected);
    }

    /// A reading of one of these series, that is mostly just now.
    fn reading(&mut self, series: &[u32]) -> (u32, i64, Value) {
        let behind = match self.random.below(20) {
            0..12 => self.random.below(3),
            12..17 => self.random.below(12),
            17..19 => self.random.below(60),
            _ => self.random.below(100_000),
        };
        let value = match self.random.below(16) {
            0 | 1 => Value::Float(self.random.below(1_000) as f64 / 8.0 - 50.0),
            2 => Value::Float(f64::NAN),
            3 => Value::Bool(self.random.below(2) == 0),
            4 | 5 => Value::Text(["a", "b"][self.random.below(2) as usize].into()),
            _ => Value::Int(self.random.below(100) as i64 - 50),
        };
        let series = series[self.random.below(series.len() as u64) as usize];
        (series, self.clock - behind as i64 * SECOND, value)
    }

    fn tick(&mut self) {
        let expected = self.model.tick(self.clock);
        self.handle(&Event::Tick, &expected);
    }

    /// A new process goes on from a snapshot, or only the engine does, as whoever replays its events.
    fn restart(&mut self) {
        let bytes = self.engine.snapshot();
        self.engine = Engine::restore(self.wanted.plan(), &bytes).unwrap();
        assert_eq!(self.engine.snapshot(), bytes, "a restored engine has the same snapshot");
        if self.random.below(2) == 0 {
            self.model.start(self.clock);
            self.handle(&Event::Start, &[]);
        }
    }

    fn reload(&mut self) {
        let wanted = self.wanted.altered(&mut self.random);
        let expected = self.model.reload(self.clock, wanted.clone());
        let mut out = Vec::new();
        // What it emits speaks of the streams of the old plan.
        let before = self.engine.plan().clone();
        self.engine.handle(Timestamp::from_nanos(self.clock), &Event::Reload(wanted.plan()), &mut out);
        self.compare_under(&before, &out, &expected);
        self.wanted = wanted;
    }

    fn compare(&mut self, found: &[Emitted], expected: &[Expected]) {
        let plan = self.engine.plan().clone();
        self.compare_under(&plan, found, expected);
    }

    fn compare_under(&mut self, plan: &Plan, found: &[Emitted], expected: &[Expected]) {
        let is_same = found.len() == expected.len() && expected.iter().zip(found).all(|(one, found)| one.is(found));
        assert!(
            is_same,
            "at {} after {} operations under {:?}: {}",
            self.clock,
            self.done,
            self.wanted,
            difference(&self.engine, found, expected)
        );
        for Emitted { stream, record } in found {
            let Record::Aggregate(aggregate) = record else { continue };
            let name = Arc::clone(&plan.streams[stream.index()].name);
            let next = self.revisions.entry((name, aggregate.series.0, aggregate.start.as_nanos())).or_default();
            assert_eq!(aggregate.revision, *next, "the revisions of {aggregate:#?} over all reloads");
            *next += 1;
        }
    }
}
