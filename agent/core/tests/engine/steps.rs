//! Rules while the clock is set: intervals are as long as they are, whatever the clock shows.

use std::time::Duration;

use proptest::prelude::*;
use rtlive_core::engine::Engine;
use rtlive_core::event::{ClockChange, Event};
use rtlive_core::plan::Join;
use rtlive_core::reading::{ClockState, Value};
use rtlive_core::record::Record;

use crate::plan::{Planned, batch, reading, seconds};

/// When the machine was started, by a clock that is right; seconds.
const BOOT: i64 = 1_700_000_000;

/// How long a clock must be steady until it is trusted.
const STEADY: i64 = 60;

const HOUR: i64 = 3_600;
const YEAR: i64 = 8_766 * HOUR;

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A series is read; its values are small.
    Read(u32, i64),
    /// Nothing for so many seconds.
    Wait(i64),
    /// Somebody sets the clock by so many seconds.
    Set(i64),
    /// The process ends, and another goes on.
    Restart,
}

/// The engine of a machine, by the time since its start.
struct Machine {
    engine: Engine,
    uptime: i64,
    /// What the engine adds to it, and what the clock shows.
    ahead: i64,
    shown: i64,
    set_at: Option<i64>,
    /// The alerts, with the time since the start at which they came, and by how much their own time was behind that.
    alerts: Vec<String>,
}

/// `a/x` and `a/y` are stamped when they arrive, `a/own` brings its time along.
fn planned() -> Planned {
    let sum = [("x", "a/x"), ("y", "a/y")];
    let mut planned = Planned::new(0)
        .rule("now", &[("x", "a/x")], "x > 5", Some("x < 3"), "")
        .rule("held", &[("x", "a/x")], "x > 5", None, "")
        .with(7, 20)
        .rule("long", &[("y", "a/y")], "y > 2", None, "")
        .with(90, 0)
        .rule("own", &[("o", "a/own")], "o > 4", None, "")
        .with(10, 30)
        .rule("steep", &[("x", "a/x")], "rate(x) > 0.5", None, "")
        .absent("silent", &["a/+", "sum"], 25)
        .derived("sum", &sum, 30, Join::Left, "x + y")
        .rule("high", &[("s", "sum")], "s > 9", None, "")
        .with(5, 0);
    // A clock that is set years back would have what a source says of the time in quarantine.
    planned.0.inputs[0].max_ahead = Duration::MAX;
    planned
}

impl Machine {
    fn new() -> Self {
        let engine = planned().engine(&["a/x", "a/y", "a/own"]);
        let mut machine = Self { engine, uptime: 10, ahead: BOOT, shown: BOOT, set_at: None, alerts: Vec::new() };
        machine.clock(true);
        machine.handle(&Event::Start);
        machine
    }

    fn handle(&mut self, event: &Event) {
        let mut out = Vec::new();
        self.engine.handle(seconds(self.ahead + self.uptime), event, &mut out);
        for emitted in out {
            if let Record::Alert(alert) = emitted.record {
                let ago = self.ahead + self.uptime - alert.time.as_nanos() / 1_000_000_000;
                let (rule, instance, state) = (&alert.rule, &alert.instance, alert.state);
                self.alerts.push(format!("{} s: {rule} {instance} {state:?}, {ago} s ago", self.uptime));
            }
        }
        assert_eq!(self.engine.ledger().check(), None);
    }

    fn clock(&mut self, is_trusted: bool) {
        let change = ClockChange { boot: "boot".into(), ahead: self.ahead * 1_000_000_000, is_trusted };
        self.handle(&Event::Clock(change));
    }

    /// Lets time pass, second by second. A clock that was set is followed when it has been steady, and what is due is done.
    fn wait(&mut self, seconds_more: i64) {
        for _ in 0..seconds_more {
            self.uptime += 1;
            if self.set_at.take_if(|at| self.uptime - *at >= STEADY).is_some() {
                self.ahead = self.shown;
                self.clock(true);
            }
            if self.engine.wake_at().is_some_and(|at| at <= seconds(self.ahead + self.uptime)) {
                self.handle(&Event::Tick);
            }
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Read(place, value) => {
                let series = self.engine.series_named(["a/x", "a/y", "a/own"][place as usize]).unwrap();
                let is_own = place == 2;
                let base = if is_own { BOOT } else { self.ahead };
                let mut reading = reading(series.0, seconds(base + self.uptime), Value::Int(value));
                reading.clock = if is_own { ClockState::Synced } else { ClockState::Unsynced };
                self.handle(&batch(seconds(self.ahead + self.uptime), vec![reading]));
            }
            Step::Wait(seconds) => self.wait(seconds),
            Step::Set(by) => {
                self.shown += by;
                self.set_at = Some(self.uptime);
                self.clock(false);
            }
            Step::Restart => {
                self.engine = Engine::restore(self.engine.plan().clone(), &self.engine.snapshot()).unwrap();
                // The new process looks at the clock first.
                self.clock(self.set_at.is_none());
                self.handle(&Event::Start);
            }
        }
    }
}

/// The alerts of a machine whose clock is right, and of one whose clock is set.
fn both(steps: &[Step]) -> (Vec<String>, Vec<String>) {
    let (mut steady, mut set) = (Machine::new(), Machine::new());
    for step in steps {
        if !matches!(step, Step::Set(_)) {
            steady.take(*step);
        }
        set.take(*step);
    }
    // Alerts of a source's own time are as old as that says.
    let of = |machine: Machine| {
        machine.alerts.into_iter().map(|alert| match alert.contains("own ") {
            true => alert.split(',').next().unwrap_or_default().to_owned(),
            false => alert,
        })
    };
    (of(steady).collect(), of(set).collect())
}

#[test]
fn a_step_neither_raises_nor_clears_nor_delays() {
    for by in [HOUR, -HOUR, YEAR, -YEAR] {
        let mut steps = vec![Step::Read(0, 9), Step::Read(1, 3), Step::Wait(3), Step::Set(by), Step::Wait(2)];
        // The conditions hold on, and come due before and after the clock is followed.
        steps.extend([Step::Read(0, 8), Step::Wait(70), Step::Read(0, 7), Step::Read(1, 3), Step::Wait(20)]);
        // What comes next is newer all the same, without a reading in between.
        steps.extend([Step::Set(-by), Step::Wait(STEADY + 1), Step::Read(0, 1), Step::Read(1, 1)]);
        let (steady, set) = both(&steps);
        assert_eq!(set, steady, "set by {by} s");
        let of = |rule: &str| set.iter().filter(|alert| alert.contains(rule)).cloned().collect::<Vec<_>>();
        assert_eq!(of("now "), ["10 s: now  Raised, 0 s ago", "166 s: now  Cleared, 0 s ago"]);
        assert_eq!(of("high "), ["15 s: high  Raised, 0 s ago", "166 s: high  Cleared, 0 s ago"]);
        assert_eq!(of("long "), ["100 s: long  Raised, 0 s ago", "166 s: long  Cleared, 0 s ago"]);
        assert_eq!(
            of("held  R")[..3],
            ["17 s: held  Raised, 0 s ago", "37 s: held  Repeated, 0 s ago", "57 s: held  Repeated, 0 s ago"]
        );
        let silent = ["40 s: silent a/x Raised, 0 s ago", "85 s: silent a/x Cleared, 0 s ago"];
        assert_eq!(of("silent a/x")[..2], silent);
    }
}

#[test]
fn a_machine_that_slept_misses_nothing_for_it() {
    let mut machine = Machine::new();
    machine.take(Step::Read(1, 3));
    machine.wait(20);
    // It sleeps for half an hour; who wakes says so before anything else.
    machine.uptime += 1_800;
    machine.handle(&Event::Start);
    assert_eq!(machine.alerts, [""; 0]);
    machine.take(Step::Read(0, 1));
    machine.wait(24);
    // What must hold for a span held for it.
    assert_eq!(machine.alerts, ["1831 s: long  Raised, 1731 s ago"]);
    machine.wait(2);
    let silent = ["sum", "a/x", "a/y", "a/own"].map(|name| format!("1855 s: silent {name} Raised, 0 s ago"));
    assert_eq!(machine.alerts[1..], silent);
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        10 => (0..3_u32, 0..10_i64).prop_map(|(place, value)| Step::Read(place, value)),
        8 => (1..12_i64).prop_map(Step::Wait),
        1 => (20..120_i64).prop_map(Step::Wait),
        1 => prop::sample::select(vec![HOUR, -HOUR, YEAR, -YEAR, 5, -5]).prop_map(Step::Set),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    /// Alerts come at the same instants, about the same instants, whatever the clock is set to meanwhile, and by whichever process.
    #[test]
    fn alerts_do_not_depend_on_what_the_clock_shows(steps in steps()) {
        let (steady, set) = both(&steps);
        prop_assert_eq!(set, steady);
    }
}
