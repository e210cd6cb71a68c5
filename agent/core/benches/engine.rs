//! How many readings a second of CPU takes through [`Engine::handle`], and what an open window costs.
//!
//! `cargo bench -p rtlive-core --bench engine` prints, for 1,000 series of one input under one window of 10 s in batches of 1,000
//! readings: readings per CPU second (median of the runs) and bytes of state per series and open window. The emitted records are
//! made and dropped within the measured time. Then the same under five windows with percentiles, and what else a window can keep.

#![allow(clippy::expect_used)]

use std::sync::Arc;
use std::time::Duration;

use rtlive_core::engine::Engine;
use rtlive_core::event::{Batch, Declared, Event};
use rtlive_core::expr::Expression;
use rtlive_core::plan::{
    BatchLimit, Binding, BindingSource, Buckets, Condition, Durability, Format, Function, InputPlan, Plan, Priority,
    RulePlan, Severity, StreamKind, StreamPlan, WindowKind, WindowPlan,
};
use rtlive_core::reading::{ClockState, InputId, Quality, Reading, SeriesId, SeriesInfo, Value};
use rtlive_core::time::Timestamp;
use rustix::time::{ClockId, clock_gettime};

const SERIES: u32 = 1_000;
const RUNS: usize = 15;
const BATCHES: i64 = 600;
/// Half an hour at 1 Hz, in which an hour ends.
const BATCHES_LONG: i64 = 1_800;

/// What a second of the design goal is.
const READINGS_PER_CPU_SECOND_MIN: f64 = 20e6;
const READINGS_PER_CPU_SECOND_FIVE_MIN: f64 = 4e6;
const BYTES_PER_OPEN_WINDOW_MAX: usize = 200;

const USUAL: [&str; 5] = ["count", "min", "max", "mean", "last"];

fn main() {
    println!("{SERIES} series, one window of 10 s, lateness 10 s, plain functions, batches of {SERIES} readings");
    let one = plan(&[10], &Function::PLAIN, 0);
    let minute = |more: &[&str]| plan(&[60], &functions(&[&USUAL, more].concat()), 0);
    let runs = (RUNS, BATCHES);
    let first = measure("1 Hz each", &one, runs, 1_000, |_| 0);
    measure("10 Hz each", &one, runs, 100, |_| 0);
    // One reading in fifty is 11 s old: it revises a window that was emitted.
    let late = |i: i64| if i % 50 == 7 { 11_000 } else { 0 };
    measure("1 Hz each, 2 % late", &one, runs, 1_000, late);
    measure("1 Hz each, a rule on every tenth", &plan(&[10], &Function::PLAIN, 1), runs, 1_000, |_| 0);
    println!("the same, a window of 1 min");
    for more in [&[][..], &["std"], &["p95"], &["p50", "p95", "p99"], &["increase", "rate"], &["time_mean"]] {
        measure(&format!("count … last, {}", more.join(", ")), &minute(more), (3, BATCHES), 1_000, |_| 0);
    }
    println!("five windows: 10 s, 1 min, 5 min, 15 min, 1 h");
    let five = |more: &[&str]| plan(&[10, 60, 300, 900, 3_600], &functions(&[&USUAL, more].concat()), 1);
    measure("count … last, a rule on every tenth", &five(&[]), (3, BATCHES_LONG), 1_000, |_| 0);
    let fifth = measure("… and p95", &five(&["p95"]), (5, BATCHES_LONG), 1_000, |_| 0);
    for (goal, found) in [(READINGS_PER_CPU_SECOND_MIN, first), (READINGS_PER_CPU_SECOND_FIVE_MIN, fifth)] {
        let verdict = if found >= goal { "holds" } else { "DOES NOT HOLD on this machine" };
        println!("goal of {goal:.0} readings per CPU second: {verdict}");
    }
}

fn functions(names: &[&str]) -> Vec<Function> {
    names.iter().map(|name| name.parse().expect("a function")).collect()
}

/// Prints and returns readings per CPU second.
fn measure(
    name: &str,
    plan: &Arc<Plan>,
    (runs, batches): (usize, i64),
    step_ms: i64,
    late_ms: impl Fn(i64) -> i64,
) -> f64 {
    let batches: Vec<Event> = (0..batches).map(|i| batch(i, step_ms, &late_ms)).collect();
    let mut rates = Vec::new();
    let (mut bytes, mut snapshot, mut records) = (0, 0, 0);
    for _ in 0..runs {
        let mut engine = Engine::new(Arc::clone(plan));
        let mut out = Vec::new();
        for series in 0..SERIES {
            engine.handle(Timestamp::EPOCH, &declared(series), &mut out);
        }
        let start = cpu_seconds();
        let mut at_once = 0;
        for event in &batches {
            let Event::Batch(batch) = event else { continue };
            engine.handle(batch.arrival, event, &mut out);
            records += out.len();
            out.clear();
            at_once = at_once.max(engine.windows_open());
        }
        rates.push(batches.len() as f64 * f64::from(SERIES) / (cpu_seconds() - start));
        assert_eq!(engine.ledger().check(), None);
        bytes = engine.window_bytes() / at_once.max(1);
        snapshot = engine.snapshot().len() / engine.windows_open().max(1);
    }
    rates.sort_by(f64::total_cmp);
    let median = rates[runs / 2];
    let records = records / runs;
    println!(
        "{name:34} {:6.1} million readings per CPU second; {bytes} bytes of state (at most {BYTES_PER_OPEN_WINDOW_MAX}), \
         {snapshot} of snapshot per series and open window; {records} records",
        median / 1e6
    );
    median
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn declared(series: u32) -> Event {
    let info = SeriesInfo { name: format!("bench/s{series}").into(), unit: None };
    Event::Series(Declared { input: InputId(0), source: "".into(), info })
}

fn batch(i: i64, step_ms: i64, late_ms: &impl Fn(i64) -> i64) -> Event {
    let millis = |ms: i64| Timestamp::from_nanos((1_700_002_000_000 + ms) * 1_000_000);
    let readings = (0..SERIES).map(|series| {
        let number = i * i64::from(SERIES) + i64::from(series);
        Reading {
            series: SeriesId(series),
            time: millis(i * step_ms - late_ms(number)),
            value: Value::Float(20.0 + ((i * 37 + number * 7919) % 1000) as f64 / 100.0),
            quality: Quality::Good,
            check: None,
            clock: ClockState::Synced,
        }
    });
    let (readings, arrival) = (readings.collect(), millis(i * step_ms));
    Event::Batch(Batch { input: InputId(0), arrival, readings, rejected: Vec::new() })
}

/// Windows of so many seconds over everything; with `rules`, one for each tenth series.
fn plan(windows: &[u64], compute: &[Function], rules: usize) -> Arc<Plan> {
    let stream = |name: &str, kind| StreamPlan {
        name: name.into(),
        kind,
        priority: Priority::Live,
        format: Format::Frame,
        batch: BatchLimit::Auto,
        topic: None,
        bytes_max: None,
        age_max: None,
        order: Default::default(),
        evict: Default::default(),
        class: "process".into(),
    };
    let mut streams: Vec<_> =
        ["gaps", "alerts", "late", "quarantine", "unsynced"].map(|name| stream(name, StreamKind::Reserved)).into();
    for every in windows {
        let window = WindowPlan {
            select: vec!["#".parse().expect("a filter")],
            kind: WindowKind::tumbling(Duration::from_secs(*every)),
            lateness: Duration::from_secs(10),
            emit_every: None,
            compute: compute.to_vec(),
            buckets: Buckets::default(),
        };
        streams.push(stream(&format!("w{every}"), StreamKind::Window(window)));
    }
    let rules = (0..rules * SERIES as usize / 10).map(|i| RulePlan {
        name: format!("r{i}").into(),
        bindings: vec![Binding {
            name: "t".into(),
            source: BindingSource::Series(format!("bench/s{}", i * 10).parse().expect("a template")),
        }],
        condition: Condition::Holds {
            when: Expression::parse("t > 90 and rate(t) > 1", &["t"]).expect("an expression"),
            clear: None,
            hold: Duration::ZERO,
        },
        repeat: None,
        severity: Severity::Warning,
        message: None,
    });
    let input = InputPlan {
        name: "bench".into(),
        prefix: "bench".into(),
        out_of_order: Duration::from_secs(0),
        idle: Duration::from_secs(10),
        max_ahead: Duration::from_secs(300),
        can_be_asked_again: false,
        durability: Durability::Commit,
    };
    let (agent, labels) = ("bench".into(), Default::default());
    Arc::new(Plan {
        agent,
        labels,
        inputs: vec![input],
        streams,
        rules: rules.collect(),
        quality: Vec::new(),
        derived: Vec::new(),
        ladders: Vec::new(),
    })
}
