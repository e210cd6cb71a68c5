//! An engine that is restored from its snapshot between any two events goes on as if nothing had happened, bit for bit.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rtlive_core::engine::{Engine, SNAPSHOT_VERSION, SnapshotError};
use rtlive_core::event::{ClockChange, Event};
use rtlive_core::plan::{CalendarLength, Deadband, Join, Mark, Switch, ValueType, WindowKind};
use rtlive_core::reading::{Check, ClockState, Value};
use rtlive_core::record::{Emitted, Record};
use rtlive_core::time::Timestamp;
use rtlive_core::zone::Zone;

use crate::plan::{Planned, batch, declared, reading, seconds, take};

fn planned() -> Planned {
    Planned::new(1)
        .raw("raw", "a/x")
        .window("five", "#", 5, 10)
        .window("twelve", "a/+/v", 12, 0)
        .window("others", "#", 9, 10)
        .computing(crate::functions::all())
        .kind("session", "#", SESSION, 10, Some(4))
        .kind("day", "a/x", day(), 10, Some(11))
        .kind("sliding", "a/+/v", SLIDING, 10, None)
        .computing(crate::functions::all())
        .rule("high", &[("v", "a/+/v"), ("x", "a/x")], "v > 50 or rate(x) > 5", Some("v < 20"), "{1}: {v}")
        .derived("a/{1}/double", &[("v", "a/+/v")], 0, Join::Inner, "v + rate(v)")
        .derived("sum", &[("d", "a/m1/double"), ("x", "a/x"), ("w", "a/m2/w")], 3, Join::Left, "d + x + prev(w)")
        .rule("sum", &[("s", "sum")], "s > 60", None, "{s}")
        .absent("no_sum", &["sum", "a/+/double"], 9)
        .rule("long", &[("v", "a/+/v")], "v > 40", Some("v < 30"), "{1}: {v}")
        .with(4, 7)
        .absent("silent", &["a/+/v", "a/x", "a/never"], 6)
        .rule("text", &[("x", "a/x")], "x == 'b'", None, "")
        .news("news", "#", Deadband::Relative(0.2), 7)
        .quality("a/#", |table| {
            table.stuck_after = Some(Switch::On(Duration::from_secs(5)));
            (table.max_rate, table.spike) = (Some(Switch::On(20.0)), Some(Switch::On(3.0)));
            (table.duplicate, table.backwards) = (Some(true), Some(true));
            table.marks[Check::Duplicate.place()] = Some(Mark::Drop);
        })
        .quality("a/+/v", |table| {
            (table.range, table.value_type) = (Some(Switch::On([10.0, 90.0])), Some(Switch::On(ValueType::Same)));
            table.marks[Check::Range.place()] = Some(Mark::Bad);
            table.marks[Check::Type.place()] = Some(Mark::Quarantine);
        })
}

const SLIDING: WindowKind =
    WindowKind::Sliding { every: Duration::from_secs(4), over: Duration::from_secs(12), offset: Duration::ZERO };

/// Cut now and then.
const SESSION: WindowKind = WindowKind::Session { gap: Duration::from_secs(3), longest: Duration::from_secs(20) };

/// Days that end while a test runs: its clock is changed twice.
fn day() -> WindowKind {
    let zone = Zone::new("Test/Zone".into(), 85_380, vec![(1_030, 85_350), (1_050, 85_320)]).unwrap();
    WindowKind::Calendar { length: CalendarLength::Days(1), offset: Duration::ZERO, zone: Arc::new(zone) }
}

const NAMES: [&str; 5] = ["a/x", "a/m1/v", "a/m2/v", "a/m2/w", "a/m0/v"];

#[derive(Clone, Debug)]
enum Step {
    Declare(usize),
    Read(Vec<(u32, i64, Value)>),
    Wait(i64),
    /// The boot, by how many seconds the clock is ahead of it, and whether that is trusted.
    Clock(u8, i64, bool),
    Start,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let value = prop_oneof![
        6 => (0..100i64).prop_map(Value::Int),
        4 => (0.0..100.0f64).prop_map(Value::Float),
        1 => Just(Value::Float(f64::NAN)),
        1 => "[ab]".prop_map(|text| Value::Text(text.into())),
        1 => any::<bool>().prop_map(Value::Bool),
    ];
    // Times relative to the step's own instant: some late, some far ahead.
    let offset = prop_oneof![8 => -12..1i64, 1 => -100..0i64, 1 => 299..320i64];
    let step = prop_oneof![
        2 => (0..NAMES.len()).prop_map(Step::Declare),
        8 => prop::collection::vec((0..9u32, offset, value), 0..6).prop_map(Step::Read),
        2 => (1..30i64).prop_map(Step::Wait),
        1 => Just(Step::Start),
        1 => (0..2u8, -50..50i64, any::<bool>()).prop_map(|(boot, ahead, trusted)| Step::Clock(boot, ahead, trusted)),
    ];
    prop::collection::vec(step, 1..40)
}

/// Plays the steps; after each, `between` may put another engine in the place of the first.
fn play(steps: &[Step], mut between: impl FnMut(usize, Engine) -> Engine) -> (Vec<Emitted>, Engine) {
    let mut engine = Engine::new(planned().done());
    let (mut out, mut clock) = (Vec::new(), 1_000);
    for (i, step) in steps.iter().enumerate() {
        clock += 1;
        let event = match step {
            Step::Declare(place) => declared(&engine, NAMES[*place]),
            Step::Read(points) => {
                let reading = |(series, offset, value): &(u32, i64, Value)| {
                    let mut reading = reading(*series, seconds(clock + offset), value.clone());
                    // Integers are stamped by their arrival.
                    if let Value::Int(_) = value {
                        (reading.time, reading.clock) = (seconds(clock), ClockState::Unsynced);
                    }
                    reading
                };
                batch(seconds(clock), points.iter().map(reading).collect())
            }
            Step::Wait(span) => {
                clock += span;
                Event::Tick
            }
            Step::Clock(boot, ahead, is_trusted) => {
                let (boot, ahead) = (format!("{boot}").into(), ahead * 1_000_000_000);
                Event::Clock(ClockChange { boot, ahead, is_trusted: *is_trusted })
            }
            Step::Start => Event::Start,
        };
        // Time passes by itself too: a tick whenever one is due.
        while let Some(at) = engine.wake_at().filter(|&at| at < seconds(clock)) {
            engine.handle(at, &Event::Tick, &mut out);
        }
        engine.handle(seconds(clock), &event, &mut out);
        engine = between(i, engine);
        assert_eq!(engine.ledger().check(), None);
    }
    (out, engine)
}

fn restarted(engine: &Engine) -> Engine {
    let bytes = engine.snapshot();
    let restored = Engine::restore(engine.plan().clone(), &bytes).unwrap();
    assert_eq!(restored.snapshot(), bytes, "a restored engine has the same snapshot");
    assert_eq!(restored.clock(), engine.clock());
    // One that was never away may look up sooner, where a reading has put off what it had waited for.
    assert!(restored.wake_at().is_none_or(|at| engine.wake_at().is_some_and(|sooner| sooner <= at)));
    assert_eq!(restored.windows_open(), engine.windows_open());
    assert_eq!(restored.quality_counts(), engine.quality_counts());
    assert_eq!(restored.alerts_raised(), engine.alerts_raised());
    assert_eq!(restored.input_times(), engine.input_times());
    restored
}

/// NaN is not equal to itself; its bits are.
fn bits(emitted: &[Emitted]) -> Vec<u8> {
    postcard::to_stdvec(emitted).unwrap()
}

proptest! {
    #[test]
    fn a_restart_between_any_two_events_changes_nothing(steps in steps()) {
        let (expected, whole) = play(&steps, |_, engine| engine);
        let (found, restarted) = play(&steps, |_, engine| restarted(&engine));
        prop_assert_eq!(bits(&found), bits(&expected));
        prop_assert_eq!(restarted.snapshot(), whole.snapshot());
    }

    #[test]
    fn one_restart_changes_nothing(steps in steps(), at in any::<prop::sample::Index>()) {
        let at = at.index(steps.len());
        let (expected, whole) = play(&steps, |_, engine| engine);
        let (found, restarted) = play(&steps, |i, engine| if i == at { restarted(&engine) } else { engine });
        prop_assert_eq!(bits(&found), bits(&expected));
        prop_assert_eq!(restarted.snapshot(), whole.snapshot());
    }

    #[test]
    fn no_body_panics(steps in steps(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let (_, engine) = play(&steps, |_, engine| engine);
        let mut bytes = engine.snapshot();
        let at = 10 + at.index(bytes.len() - 10);
        bytes[at] = byte;
        let checksum = crc32fast::hash(&bytes[10..]);
        bytes[6..10].copy_from_slice(&checksum.to_le_bytes());
        if let Ok(mut engine) = Engine::restore(engine.plan().clone(), &bytes) {
            let mut out = Vec::new();
            engine.handle(seconds(2_000), &Event::Tick, &mut out);
            let event = batch(seconds(2_000), vec![reading(0, seconds(2_000), Value::Int(1))]);
            engine.handle(seconds(2_000), &event, &mut out);
            engine.close(Timestamp::MAX, &mut out);
        }
    }
}

#[test]
fn no_body_makes_a_window_of_nothing() {
    // One window leads the other, and holds the readings of both.
    let mut engine = Planned::new(0).window("ten", "#", 10, 5).window("twenty", "#", 20, 5).engine(&["a/x", "a/y"]);
    take(&mut engine, &[(0, 1, 1.0), (1, 2, 60.0), (0, 11, 2.0), (1, 12, 7.0)]);
    let bytes = engine.snapshot();
    for place in 10..bytes.len() {
        for byte in [0, 1, 2, 3] {
            let mut altered = bytes.clone();
            altered[place] = byte;
            let checksum = crc32fast::hash(&altered[10..]);
            altered[6..10].copy_from_slice(&checksum.to_le_bytes());
            let Ok(mut engine) = Engine::restore(engine.plan().clone(), &altered) else { continue };
            let mut out = Vec::new();
            engine.close(Timestamp::MAX, &mut out);
            for emitted in out {
                let Record::Aggregate(aggregate) = emitted.record else { continue };
                assert_ne!(aggregate.values[0], Some(Value::Int(0)), "{byte} at {place}");
            }
        }
    }
}

#[test]
fn damage_is_found_at_every_byte() {
    let mut engine = planned().engine(&NAMES);
    take(&mut engine, &[(0, 1, 1.0), (1, 2, 60.0)]);
    let bytes = engine.snapshot();
    for place in 0..bytes.len() {
        let mut altered = bytes.clone();
        altered[place] ^= 0x41;
        assert!(Engine::restore(engine.plan().clone(), &altered).is_err(), "altered at {place}");
        assert!(Engine::restore(engine.plan().clone(), &bytes[..place]).is_err(), "cut at {place}");
    }
    let mut newer = bytes.clone();
    newer[4] += 1;
    assert_eq!(
        Engine::restore(engine.plan().clone(), &newer).unwrap_err(),
        SnapshotError::Version(SNAPSHOT_VERSION + 1)
    );
    let other = Planned::new(1).done();
    let error = Engine::restore(other, &bytes).unwrap_err();
    assert_eq!(
        error.to_string(),
        "expected a snapshot taken under this plan, found one with the input derived:a/{1}/double"
    );
}
