//! The clock: what is stamped by its arrival waits until it is known when that was.

use proptest::prelude::*;
use rtlive_core::engine::{Engine, PROVISIONAL_READINGS_MAX, PROVISIONAL_TEXT_BYTES_MAX};
use rtlive_core::event::{Batch, ClockChange, Event};
use rtlive_core::reading::{ClockState, InputId, Value};
use rtlive_core::record::{Emitted, Record};
use rtlive_core::time::{Timestamp, nanos};

use crate::plan::{Planned, batch, reading, seconds, shown, take};

/// Boots begin at these times of the wall clock, which an agent without a clock does not know.
const BOOT: i64 = 1_000_000;

/// The engine's best guess until then: it begins at this time.
const GUESS: i64 = 100;

struct Machine {
    engine: Engine,
    boot: &'static str,
    /// What the engine adds to the time since the boot, in seconds.
    ahead: i64,
}

fn planned() -> Planned {
    Planned::new(0).raw("raw", "#").window("ten", "#", 10, 5).rule("high", &[("v", "a/x")], "v > 50", None, "{v}")
}

impl Machine {
    /// A machine that was just started, with a guess.
    fn new(planned: Planned) -> Self {
        let mut machine = Self { engine: planned.engine(&["a/x", "a/y"]), boot: "first", ahead: 0 };
        machine.clock("first", GUESS, false);
        machine
    }

    fn handle(&mut self, now: i64, event: &Event) -> Vec<String> {
        let mut out = Vec::new();
        self.engine.handle(seconds(now), event, &mut out);
        assert_eq!(self.engine.ledger().check(), None);
        let clock = |emitted: &Emitted| match &emitted.record {
            Record::Reading(reading) => reading.clock,
            Record::Alert(alert) => alert.clock,
            _ => ClockState::Synced,
        };
        let marks = out.iter().map(|emitted| if clock(emitted) == ClockState::Unsynced { "?" } else { "" });
        shown(&self.engine, &out).into_iter().zip(marks).map(|(shown, mark)| shown + mark).collect()
    }

    fn clock(&mut self, boot: &'static str, ahead: i64, is_trusted: bool) -> Vec<String> {
        (self.boot, self.ahead) = (boot, ahead);
        let change = ClockChange { boot: boot.into(), ahead: ahead * 1_000_000_000, is_trusted };
        self.handle(ahead + 20, &Event::Clock(change))
    }

    /// Readings that arrive so many seconds after the boot: series and value.
    fn read(&mut self, uptime: i64, values: &[(u32, f64)]) -> Vec<String> {
        let now = seconds(self.ahead + uptime);
        let stamped = |&(series, value): &(u32, f64)| {
            let mut reading = reading(series, now, Value::Float(value));
            reading.clock = ClockState::Unsynced;
            reading
        };
        self.handle(self.ahead + uptime, &batch(now, values.iter().map(stamped).collect()))
    }

    fn account(&self) -> (u64, u64, u64, u64) {
        let account = &self.engine.ledger().inputs[0];
        (account.taken, account.accepted, account.provisional, account.unsynced)
    }
}

#[test]
fn what_waits_gets_its_true_time_when_the_clock_is_set() {
    let mut machine = Machine::new(planned());
    assert!(machine.read(1, &[(0, 1.0), (1, 2.0)]).is_empty());
    assert!(machine.read(4, &[(0, 3.0)]).is_empty());
    assert_eq!((machine.account(), machine.engine.clock().provisional), ((3, 0, 3, 0), 3));
    let out = machine.clock("first", BOOT, true);
    assert_eq!(out, ["raw a/x 1000001=1", "raw a/y 1000001=2", "raw a/x 1000004=3"]);
    assert_eq!((machine.account(), machine.engine.clock().provisional), ((3, 3, 0, 0), 0));
    let out = machine.read(12, &[(0, 5.0)]);
    let windows = ["ten a/x 1000000..1000010 r0: 2 4 2 1 3 1 3", "ten a/y 1000000..1000010 r0: 1 2 2 2 2 2 2"];
    assert_eq!(out, [&["raw a/x 1000012=5"], &windows[..]].concat());
}

#[test]
fn what_waits_when_another_boot_begins_is_marked_and_in_no_window() {
    let mut machine = Machine::new(planned());
    machine.read(1, &[(0, 1.0)]);
    machine.read(2, &[(1, 2.0), (0, 3.0)]);
    let out = machine.clock("second", BOOT, true);
    assert_eq!(out, ["unsynced a/x 101=1?", "unsynced a/y 102=2?", "unsynced a/x 102=3?"]);
    assert_eq!(machine.account(), (3, 3, 0, 3));
    assert_eq!(machine.read(12, &[(0, 5.0)]), ["raw a/x 1000012=5"]);
    assert_eq!(machine.read(22, &[(0, 5.0)])[1..], ["ten a/x 1000010..1000020 r0: 1 5 5 5 5 5 5"]);
}

#[test]
fn what_comes_while_a_step_is_not_trusted_is_placed_by_the_clock_that_is() {
    let mut machine = Machine::new(planned());
    machine.clock("first", BOOT, true);
    assert_eq!(machine.read(1, &[(0, 1.0)]), ["raw a/x 1000001=1"]);
    // An operator sets the clock; the agent holds on to what it had.
    machine.clock("first", BOOT, false);
    assert!(machine.read(2, &[(0, 2.0)]).is_empty());
    // The clock was an hour behind.
    assert_eq!(
        machine.clock("first", BOOT + 3600, true),
        ["raw a/x 1003602=2", "ten a/x 1000000..1000010 r0: 1 1 1 1 1 1 1"]
    );
}

#[test]
fn an_alert_goes_at_once_and_is_marked_and_comes_once() {
    let mut machine = Machine::new(planned());
    assert_eq!(machine.read(1, &[(0, 60.0)]), ["high  Raised at 101: 60 (v=60)?"]);
    assert!(machine.read(2, &[(0, 61.0)]).is_empty());
    assert_eq!(machine.read(3, &[(0, 7.0)]), ["high  Cleared at 103: 7 (v=7)?"]);
    assert_eq!(machine.read(4, &[(0, 62.0)]), ["high  Raised at 104: 62 (v=62)?"]);
    // The guess was too late: what comes next is newer all the same.
    let out = machine.clock("first", GUESS - 50, true);
    assert_eq!(out, ["raw a/x 51=60", "raw a/x 52=61", "raw a/x 53=7", "raw a/x 54=62"]);
    let out = machine.read(5, &[(0, 8.0)]);
    assert_eq!(out, ["raw a/x 55=8", "high  Cleared at 55: 8 (v=8)"]);
}

#[test]
fn a_guess_that_was_too_late_silences_no_rule_after_the_next_boot() {
    let mut machine = Machine::new(planned());
    machine.read(1, &[(0, 60.0)]);
    machine.clock("second", 0, true);
    assert_eq!(machine.read(21, &[(0, 8.0)]), ["raw a/x 21=8", "high  Cleared at 21: 8 (v=8)"]);
}

#[test]
fn a_source_that_knows_the_time_does_not_wait() {
    let mut machine = Machine::new(planned());
    let ahead = reading(0, seconds(BOOT), Value::Float(1.0));
    let out = machine.handle(GUESS + 1, &batch(seconds(GUESS + 1), vec![ahead]));
    assert_eq!(out, ["raw a/x 1000000=1"]);
}

#[test]
fn how_long_an_input_is_silent_does_not_depend_on_the_clock() {
    let mut machine = Machine::new(planned());
    machine.clock("first", BOOT, true);
    machine.read(1, &[(0, 1.0)]);
    for ahead in [BOOT + 31_536_000, BOOT - 31_536_000, BOOT] {
        machine.clock("first", ahead, true);
        assert_eq!(machine.engine.wake_at(), Some(seconds(ahead + 11)));
    }
    // What is held is heard.
    machine.clock("first", BOOT, false);
    machine.read(8, &[(0, 1.0)]);
    assert_eq!(machine.engine.wake_at(), Some(seconds(BOOT + 18)));
}

#[test]
fn the_oldest_go_when_too_much_waits() {
    let mut machine = Machine::new(planned());
    let values: Vec<_> = (0..PROVISIONAL_READINGS_MAX).map(|i| (1, i as f64)).collect();
    assert!(machine.read(1, &values).is_empty());
    assert_eq!(machine.read(2, &[(0, 1.0), (0, 2.0)]), ["unsynced a/y 101=0?", "unsynced a/y 101=1?"]);
    let most = PROVISIONAL_READINGS_MAX as u64;
    assert_eq!(machine.account(), (most + 2, 2, most, 2));
    let long: Value = Value::Text("x".repeat(PROVISIONAL_TEXT_BYTES_MAX).into());
    for _ in 0..2 {
        let mut reading = reading(0, seconds(GUESS + 3), long.clone());
        reading.clock = ClockState::Unsynced;
        machine.handle(GUESS + 3, &batch(seconds(GUESS + 3), vec![reading]));
    }
    assert_eq!(machine.account().2, 1);
}

#[test]
fn what_waits_of_an_input_that_a_reload_removes_is_not_lost() {
    let mut machine = Machine::new(planned().input("b", 0));
    machine.read(1, &[(0, 1.0)]);
    let event = crate::plan::declared(&machine.engine, "b/z");
    machine.handle(GUESS + 1, &event);
    let mut other = reading(2, seconds(GUESS + 2), Value::Float(2.0));
    other.clock = ClockState::Unsynced;
    let (input, arrival) = (InputId(1), seconds(GUESS + 2));
    machine.handle(GUESS + 2, &Event::Batch(Batch { input, arrival, readings: vec![other], rejected: Vec::new() }));
    let out = machine.handle(GUESS + 3, &Event::Reload(planned().done()));
    assert_eq!(out, ["unsynced b/z 102=2?"]);
    assert_eq!(machine.clock("first", BOOT, true), ["raw a/x 1000001=1"]);
}

#[test]
fn without_a_word_of_a_clock_it_is_trusted() {
    let mut engine = planned().engine(&["a/x"]);
    let mut stamped = reading(0, seconds(5), Value::Float(1.0));
    stamped.clock = ClockState::Unsynced;
    let mut out = Vec::new();
    engine.handle(seconds(5), &batch(seconds(5), vec![stamped]), &mut out);
    assert_eq!(shown(&engine, &out), ["raw a/x 5=1"]);
    assert!(take(&mut engine, &[(0, 6, 1.0)]).len() == 1 && engine.clock().trusted_to.is_none());
}

proptest! {
    /// Whatever the agent believed meanwhile: the windows are those of the true times.
    #[test]
    fn a_clock_that_is_set_late_changes_no_window(
        gaps in prop::collection::vec((1..4_000u64, any::<bool>()), 1..60), set_after in 0..60usize, guess in -100_000..100_000i64,
    ) {
        let mut late = Machine::new(planned());
        late.clock("first", guess, false);
        let mut known = Machine::new(planned());
        known.clock("first", BOOT, true);
        let (mut uptime, mut of_late, mut of_known) = (std::time::Duration::ZERO, Vec::new(), Vec::new());
        for (i, &(gap, is_x)) in gaps.iter().enumerate() {
            uptime += std::time::Duration::from_millis(gap);
            if i == set_after {
                of_late.extend(late.clock("first", BOOT, true));
            }
            for (machine, out) in [(&mut late, &mut of_late), (&mut known, &mut of_known)] {
                let now = Timestamp::from_nanos(machine.ahead * 1_000_000_000 + nanos(uptime));
                let mut reading = reading(u32::from(is_x), now, Value::Int(i as i64));
                reading.clock = ClockState::Unsynced;
                let mut emitted = Vec::new();
                machine.engine.handle(now, &batch(now, vec![reading]), &mut emitted);
                emitted.retain(|emitted| !matches!(emitted.record, Record::Alert(_)));
                out.extend(shown(&machine.engine, &emitted));
            }
        }
        of_late.extend(late.clock("first", BOOT, true));
        for (machine, out) in [(&mut late, &mut of_late), (&mut known, &mut of_known)] {
            let mut emitted = Vec::new();
            machine.engine.close(seconds(BOOT), &mut emitted);
            out.extend(shown(&machine.engine, &emitted));
            prop_assert_eq!(machine.engine.ledger().check(), None);
        }
        prop_assert_eq!(of_late, of_known);
    }
}
