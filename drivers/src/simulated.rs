//! `simulated`: series that a formula makes up, for trying out a configuration and for load tests; needs no options and no hardware.
//!
//! Readings stand at multiples of the wall clock, as those of any polled driver. Where they follow each other faster than a timer
//! wakes, those of [`GATHER`] go together, so that 100,000 readings a second cost a hundred wake-ups. A source that nobody must ask
//! in time can be late: the instants that passed while the engine had no room, or the machine no time, are caught up with for
//! [`CATCH_UP_MAX`]; older ones are counted as `polls_missed`.

use std::f64::consts::TAU;
use std::time::Duration;

use rtlive_config::quantity::Period;
use rtlive_config::table::Table;
use rtlive_config::value::Bounded;
use rtlive_config::{choices, options};
use rtlive_core::reading::{SeriesId, Value};
use rtlive_core::time::{Timestamp, nanos};
use tokio::time::sleep;

use crate::input::{CheckedInput, Driver, Input, InputError, Running};
use crate::outlet::Session;

/// How long readings are gathered that follow each other faster: well above the resolution of timers (1 ms), and below what anyone
/// sees.
const GATHER: Duration = Duration::from_millis(10);
/// How far back instants are caught up with that nobody had time for: longer than a slow commit, shorter than a pause that should show.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);
/// How many readings go as one delivery; bounds the memory of a driver with many series.
const READINGS_PER_DELIVERY_MAX: usize = 4096;
/// The most readings a second: ten times what a gateway takes, and far below what would be a slip of the pen (`every = "1ns"`).
const READINGS_PER_SECOND_MAX: f64 = 1e6;

/// The driver.
pub const DRIVER: Driver = Driver {
    name: "simulated",
    summary: "series that a formula makes up, for trying out a configuration and for load tests",
    example: r#"[inputs.test]
driver = "simulated"
series = 10
every = "1s"
waveform = "walk"
"#,
    options: SimulatedOptions::reference,
    check,
};

choices! {
    /// What a series does over time.
    pub enum Waveform {
        /// A sine from `low` to `high` and back in each `period`.
        Sine = "sine",
        /// A line from `low` to `high` in each `period`.
        Ramp = "ramp",
        /// True in the first half of each `period`, false in the second.
        Square = "square",
        /// A random walk between `low` and `high`, by steps of at most a hundredth of the way; the same for the same `seed`.
        Walk = "walk",
        /// An integer that is one more at each reading: the number of intervals since 1970. A hole in it is a reading that is missing.
        Counter = "counter",
    }
}

options! {
    /// Series that a formula makes up. With several, each runs behind the one before it by a share of the period.
    pub struct SimulatedOptions {
        /// How many series: `s1`, `s2`, … below the input's name.
        pub series: Bounded<u32, 1, 100_000> = 1,
        /// How often each has a reading, at multiples of the wall clock.
        pub every: Period = "1s",
        /// What a series does over time.
        pub waveform: Waveform = "sine",
        /// How long it takes to come round.
        pub period: Period = "1m",
        /// The least value.
        pub low: f64 = 0,
        /// The greatest value. Values have two decimals, as those of a sensor have.
        pub high: f64 = 100,
        /// What random numbers begin with.
        pub seed: u64 = 0,
    }
}

fn check(table: &Table<'_>) -> Option<CheckedInput> {
    let options = SimulatedOptions::read(table)?;
    let series = (1..=options.series.get()).map(series_name).collect();
    let readings_per_second = f64::from(options.series.get()) / options.every.0.as_secs_f64();
    let mut right = true;
    if readings_per_second > READINGS_PER_SECOND_MAX {
        let expected = format!("at most {READINGS_PER_SECOND_MAX} readings a second of all series");
        table.mistake("every", expected, format!("{readings_per_second:.0}"));
        right = false;
    }
    if options.low >= options.high {
        table.mistake("high", format!("more than `low`, which is {}", options.low), options.high);
        right = false;
    }
    let every = options.every.0;
    right.then(|| CheckedInput {
        input: Box::new(SimulatedInput { options }),
        polled: true,
        every: Some(every),
        can_be_asked_again: false,
        series,
        has_others: false,
        readings_per_second: Some(readings_per_second),
    })
}

fn series_name(number: u32) -> String {
    format!("s{number}")
}

/// Pure: what the series do.
struct Waves {
    waveform: Waveform,
    every: i64,
    period: i64,
    low: f64,
    span: f64,
    seed: u64,
    /// How far the walks are, from 0 to 1; empty for other waveforms.
    walks: Vec<f64>,
    count: usize,
}

impl Waves {
    fn new(options: &SimulatedOptions) -> Self {
        let count = options.series.get() as usize;
        Self {
            waveform: options.waveform,
            every: nanos(options.every.0).max(1),
            period: nanos(options.period.0).max(1),
            low: options.low,
            span: options.high - options.low,
            seed: options.seed,
            walks: if options.waveform == Waveform::Walk { vec![0.5; count] } else { Vec::new() },
            count,
        }
    }

    /// The value of a series at an instant. Walks take a step with each call.
    fn value(&mut self, index: usize, time: Timestamp) -> Value {
        let tick = time.as_nanos().div_euclid(self.every);
        let turn = time.as_nanos().rem_euclid(self.period) as f64 / self.period as f64;
        let phase = (turn + index as f64 / self.count.max(1) as f64).fract();
        let share = match self.waveform {
            Waveform::Sine => 0.5 + 0.5 * (phase * TAU).sin(),
            Waveform::Ramp => phase,
            Waveform::Square => return Value::Bool(phase < 0.5),
            Waveform::Counter => return Value::Int(tick),
            Waveform::Walk => self.step(index, tick),
        };
        Value::Float(((self.low + self.span * share) * 100.0).round() / 100.0)
    }

    fn step(&mut self, index: usize, tick: i64) -> f64 {
        let random = mix(self.seed ^ mix(index as u64 ^ mix(tick.cast_unsigned())));
        let step = (random >> 11) as f64 / (1_u64 << 53) as f64 * 0.02 - 0.01;
        match self.walks.get_mut(index) {
            Some(walk) => {
                *walk = (*walk + step).clamp(0.0, 1.0);
                *walk
            }
            None => 0.0,
        }
    }
}

/// Makes a number look random: the output function of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Pure: which instants are due.
struct Schedule {
    every: Duration,
    next: Timestamp,
}

impl Schedule {
    fn new(every: Duration, now: Timestamp) -> Self {
        Self { every, next: now.next_multiple(every) }
    }

    /// How long to wait until there is something to do.
    fn wait(&self, now: Timestamp) -> Duration {
        self.next.since(now).saturating_add(GATHER.saturating_sub(self.every))
    }

    /// Leaves out what is too long ago to be caught up with, and says how many instants that are. A clock that was set back is
    /// followed.
    fn skip(&mut self, now: Timestamp) -> u64 {
        let oldest = now.saturating_sub(CATCH_UP_MAX.max(self.every));
        if self.next.since(now) > self.every {
            *self = Self::new(self.every, now);
            return 0;
        }
        let skipped = oldest.since(self.next).as_nanos() / self.every.as_nanos().max(1);
        if skipped > 0 {
            self.next = oldest.floor(self.every);
        }
        u64::try_from(skipped).unwrap_or(u64::MAX)
    }

    /// The next instant that is due, if one is.
    fn take(&mut self, now: Timestamp) -> Option<Timestamp> {
        let due = self.next;
        (due <= now).then(|| {
            self.next = due.saturating_add(self.every);
            due
        })
    }
}

/// An input, checked.
struct SimulatedInput {
    options: SimulatedOptions,
}

impl Input for SimulatedInput {
    fn run<'a>(&'a self, session: &'a mut Session) -> Running<'a> {
        Box::pin(self.run(session))
    }
}

impl SimulatedInput {
    async fn run(&self, session: &mut Session) -> Result<(), InputError> {
        let mut waves = Waves::new(&self.options);
        let series: Vec<SeriesId> =
            (1..=self.options.series.get()).map(|n| session.series(&series_name(n), None, "")).collect();
        {
            let mut health = session.health();
            health.state = "running";
            health.error = None;
        }
        let mut schedule = Schedule::new(self.options.every.0, session.now());
        loop {
            tokio::select! {
                biased;
                () = session.stopping() => return Ok(()),
                () = sleep(schedule.wait(session.now())) => {}
            }
            let now = session.now();
            let missed = schedule.skip(now);
            if missed > 0 {
                session.count("polls_missed", missed);
            }
            let mut gathered = 0;
            while let Some(time) = schedule.take(now) {
                for (index, id) in series.iter().enumerate() {
                    session.read_on_arrival(*id, time, waves.value(index, time));
                    gathered += 1;
                    if gathered == READINGS_PER_DELIVERY_MAX {
                        gathered = 0;
                        if session.deliver(now, false).await.is_err() {
                            return Ok(());
                        }
                    }
                }
            }
            if session.deliver(now, false).await.is_err() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::{Rig, checked};

    fn waves(text: &str) -> Waves {
        let document = rtlive_config::document::Document::of_text("test.toml", text);
        Waves::new(&SimulatedOptions::read(&document.root()).unwrap())
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn waveforms_follow_their_formula() {
        let values = |text: &str, seconds: &[i64]| -> Vec<Value> {
            let mut waves = waves(text);
            seconds.iter().map(|second| waves.value(0, at(*second))).collect()
        };
        let float = |numbers: &[f64]| numbers.iter().map(|number| Value::Float(*number)).collect::<Vec<_>>();
        assert_eq!(values("", &[60, 75, 90, 105]), float(&[50.0, 100.0, 50.0, 0.0]));
        assert_eq!(
            values("waveform = 'ramp'\nlow = -1.0\nhigh = 1.0\nperiod = '4s'", &[0, 1, 2, 3, 4]),
            float(&[-1.0, -0.5, 0.0, 0.5, -1.0])
        );
        assert_eq!(values("waveform = 'square'", &[0, 29, 30]), [true, true, false].map(Value::Bool));
        assert_eq!(values("waveform = 'counter'\nevery = '2s'", &[10, 12, 14]), [5, 6, 7].map(Value::Int));
        assert_eq!(waves("series = 4").value(1, at(0)), Value::Float(100.0));
    }

    #[test]
    fn a_walk_is_that_of_its_seed_and_stays_between_its_bounds() {
        let walk = |seed: u64| -> Vec<f64> {
            let mut waves = waves(&format!("waveform = 'walk'\nseries = 2\nlow = 19\nhigh = 21\nseed = {seed}"));
            (0..5000).map(|second| waves.value(1, at(second)).as_number().unwrap()).collect()
        };
        let first = walk(1);
        assert_eq!(first, walk(1));
        assert_ne!(first, walk(2));
        assert!(first.iter().all(|value| (19.0..=21.0).contains(value)));
        assert!(first.windows(2).all(|pair| (pair[0] - pair[1]).abs() <= 0.03 + 1e-9));
        let (least, greatest) = first.iter().fold((f64::MAX, f64::MIN), |(a, b), value| (a.min(*value), b.max(*value)));
        assert!(greatest - least > 0.5, "it walks: {least} to {greatest}");
    }

    #[test]
    fn instants_are_taken_once_or_counted() {
        let millis = |millis| Timestamp::from_millis(millis).unwrap();
        let every = Duration::from_millis(300);
        let mut schedule = Schedule::new(every, millis(1000));
        assert_eq!(schedule.wait(millis(1000)), Duration::from_millis(200));
        assert_eq!((schedule.take(millis(1199)), schedule.take(millis(1500))), (None, Some(millis(1200))));
        // Late by 1.2 s: 1500 and 1800 are older than a second, 1500 to 2700 were due.
        assert_eq!(schedule.skip(millis(2900)), 1);
        let mut taken = Vec::new();
        while let Some(due) = schedule.take(millis(2900)) {
            taken.push(due.as_nanos() / 1_000_000);
        }
        assert_eq!(taken, [1800, 2100, 2400, 2700]);
        // The clock is set back by an hour, and forward by a day.
        assert_eq!((schedule.skip(millis(100)), schedule.take(millis(300))), (0, Some(millis(300))));
        assert_eq!(schedule.skip(millis(86_400_000)), (86_400_000 - 1000 - 600) / 300);
        // What comes faster than a timer wakes is gathered.
        assert_eq!(Schedule::new(Duration::from_micros(100), millis(0)).wait(millis(0)), GATHER);
    }

    #[tokio::test]
    async fn every_reading_of_a_fast_counter_comes_once() {
        let mut rig = Rig::new(&DRIVER, "waveform = 'counter'\nevery = '100us'\nseries = 2");
        rig.start();
        rig.commit_until(|rig| rig.readings.len() >= 4000).await;
        let missed = rig.counter("polls_missed");
        for series in ["in/s1", "in/s2"] {
            let of_series = rig.readings.iter().filter(|reading| reading.series == series);
            let numbers: Vec<i64> = of_series
                .map(|reading| match reading.value {
                    Value::Int(number) => {
                        assert_eq!(reading.time.as_nanos(), number * 100_000);
                        number
                    }
                    _ => panic!("{reading:?}"),
                })
                .collect();
            let holes: i64 = numbers.windows(2).map(|pair| pair[1] - pair[0] - 1).sum();
            assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
            assert!(holes.cast_unsigned() <= missed, "{holes} holes, {missed} counted");
        }
        rig.stop().await;
    }

    #[test]
    fn it_needs_no_options_and_refuses_what_cannot_be() {
        let checked_input = checked(&DRIVER, "").unwrap_or_else(|mistakes| panic!("{mistakes}"));
        assert_eq!((checked_input.series, checked_input.readings_per_second), (vec!["s1".to_owned()], Some(1.0)));
        for (options, mistake) in [
            ("series = 1000\nevery = '10us'", "at most 1000000 readings a second"),
            ("low = 5\nhigh = 5", "more than `low`"),
            ("series = 0", "an integer from 1 to 100000"),
            ("waveform = 'triangle'", "sine"),
        ] {
            let mistakes = checked(&DRIVER, options).err().unwrap();
            assert!(mistakes.contains(mistake), "{options}: {mistakes}");
        }
    }
}
