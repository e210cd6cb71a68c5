//! Records of every kind, of our own making, which tests seal and the golden vectors hold.

use rtlive_core::frame::{Density, Origin};
use rtlive_core::plan::{Function, Severity};
use rtlive_core::reading::{Check, ClockState, Quality, Reading, SeriesId, SeriesInfo, Value};
use rtlive_core::record::{Aggregate, Alert, AlertState, Epoch, EpochStart, Gap, OutageRecord, Record};
use rtlive_core::time::Timestamp;

/// Records to be sealed as one frame.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    /// A word for the file.
    pub(crate) name: &'static str,
    /// Whose records.
    pub(crate) origin: Origin,
    /// The first number.
    pub(crate) first: u64,
    /// The table that the records index.
    pub(crate) series: Vec<SeriesInfo>,
    /// What the values of aggregates are.
    pub(crate) compute: Vec<Function>,
    /// The records.
    pub(crate) records: Vec<Record>,
    /// How densely they are sealed for the golden vectors.
    pub(crate) density: Density,
}

/// 2026-01-01T00:00:00Z and so many milliseconds.
fn at(millis: i64) -> Timestamp {
    Timestamp::from_nanos((1_767_225_600_000 + millis) * 1_000_000)
}

fn info(name: &str, unit: Option<&str>) -> SeriesInfo {
    SeriesInfo { name: name.into(), unit: unit.map(Into::into) }
}

fn reading(series: u32, time: Timestamp, value: Value) -> Reading {
    Reading { series: SeriesId(series), time, value, quality: Quality::Good, check: None, clock: ClockState::Synced }
}

/// A sequence that looks like noise and is the same everywhere (a linear congruential generator, Knuth's MMIX constants).
fn noise(mut state: u64) -> impl FnMut(i64) -> i64 {
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as i64) % below
    }
}

fn sample(name: &'static str, stream: &str, series: Vec<SeriesInfo>, records: Vec<Record>) -> Sample {
    let origin = Origin {
        agent: "gw-042".into(),
        epoch: Epoch(0x9f1c_0a2b_3c4d_5e6f),
        stream: stream.into(),
        class: "process".into(),
    };
    Sample { name, origin, first: 17, series, compute: Vec::new(), records, density: Density::Normal }
}

/// Every sample.
pub(crate) fn samples() -> Vec<Sample> {
    vec![
        one(),
        poll(),
        mixed(),
        odd(),
        bits(),
        unpolled(),
        aggregates(),
        alerts(),
        gaps(),
        both(),
        wide(),
        checked(),
        functions(),
        widened(),
        hasty(),
        stepped(),
    ]
}

/// One reading: the smallest frame, which is stored without compression.
fn one() -> Sample {
    let value = Record::Reading(reading(0, at(250), Value::Float(21.5)));
    sample("one", "raw", vec![info("boiler/temperature", Some("Cel"))], vec![value])
}

/// Two devices with three registers each, polled once a second with jitter, a poll of one missed.
fn poll() -> Sample {
    let mut noise = noise(1);
    let series = [
        "meters/m1/voltage",
        "meters/m1/current",
        "meters/m1/energy",
        "meters/m2/voltage",
        "meters/m2/current",
        "meters/m2/energy",
    ];
    let mut records = Vec::new();
    for round in 0..60 {
        for device in 0..2 {
            if (round, device) == (33, 1) {
                continue;
            }
            let time = at(round * 1000 + device * 35 + noise(4));
            let values = [
                Value::Float((2300 + noise(20)) as f64 / 10.0),
                Value::Float(f64::from((5.0 + noise(9) as f32) / 1000.0)),
                Value::Int(123_456 + round * 3),
            ];
            for (register, value) in (0..).zip(values) {
                records.push(Record::Reading(reading(device as u32 * 3 + register, time, value)));
            }
        }
    }
    sample(
        "poll",
        "raw",
        series.iter().zip(["V", "A", "Wh"].iter().cycle()).map(|(n, u)| info(n, Some(u))).collect(),
        records,
    )
}

/// Values of every type, and a series that changes its type.
fn mixed() -> Sample {
    let series = vec![info("door/open", None), info("machine/state", None), info("machine/any", None)];
    let mut records = Vec::new();
    for step in 0..20 {
        let time = at(step * 100);
        records.push(Record::Reading(reading(0, time, Value::Bool(step % 7 == 3))));
        records.push(Record::Reading(reading(1, time, Value::Text(["läuft", "steht", ""][step as usize % 3].into()))));
        let any = [Value::Float(1.5), Value::Int(-7), Value::Bool(true), Value::Text("x".into())];
        records.push(Record::Reading(reading(2, time, any[step as usize / 3 % 4].clone())));
    }
    sample("mixed", "raw", series, records)
}

/// Floats that are hard to keep, times at both ends, flags of every kind, and another class.
fn odd() -> Sample {
    let floats =
        [0x8000_0000_0000_0000, 0x7ff8_0000_0000_1234, 0x7ff0_0000_0000_0000, 1, 0x3fb9_9999_9999_999a, u64::MAX];
    let mut records = Vec::new();
    for (place, bits) in (0_u32..).zip(floats) {
        let time = if place % 2 == 0 { Timestamp::MIN } else { Timestamp::MAX };
        let mut odd = reading(0, time, Value::Float(f64::from_bits(bits)));
        odd.quality = [Quality::Good, Quality::Suspect, Quality::Bad][place as usize % 3];
        odd.check = [None, Some(Check::Source), Some(Check::NotFinite)][place as usize % 3];
        odd.clock = if place > 2 { ClockState::Unsynced } else { ClockState::Synced };
        records.push(Record::Reading(odd));
        records.push(Record::Reading(reading(1, time, Value::Int(if place % 2 == 0 { i64::MAX } else { i64::MIN }))));
    }
    let mut sample = sample("odd", "late", vec![info("a/odd", None), info("a/int", Some("1"))], records);
    sample.origin.class = "personal".into();
    sample.first = u64::MAX - 11;
    sample
}

/// Readings that each check objected to.
fn checked() -> Sample {
    let checks = Check::ALL.into_iter().enumerate().map(|(place, check)| {
        let mut checked = reading(place as u32 % 2, at(place as i64 * 250), Value::Float(230.0 + place as f64));
        (checked.quality, checked.check) = ([Quality::Suspect, Quality::Bad][place % 2], Some(check));
        Record::Reading(checked)
    });
    sample(
        "checked",
        "raw",
        vec![info("meters/m1/voltage", Some("V")), info("meters/m2/voltage", Some("V"))],
        checks.collect(),
    )
}

/// Floats that are no decimals, in double and in single precision.
fn bits() -> Sample {
    let mut noise = noise(2);
    let mut records = Vec::new();
    for step in 0..40 {
        let time = at(step * 16 + noise(2));
        records.push(Record::Reading(reading(0, time, Value::Float((step as f64 / 7.0).sqrt()))));
        records.push(Record::Reading(reading(1, time, Value::Float(f64::from(noise(1_000_000) as f32 / 3.0)))));
    }
    sample("bits", "raw", vec![info("imu/double", None), info("imu/single", None)], records)
}

/// Many series that send when they please.
fn unpolled() -> Sample {
    let mut noise = noise(3);
    let series = (0..12).map(|sensor| info(&format!("floor/s{sensor}/temperature"), Some("Cel"))).collect();
    let mut millis = 0;
    let mut records = Vec::new();
    for _ in 0..150 {
        millis += noise(500);
        records.push(Record::Reading(reading(
            noise(12) as u32,
            at(millis),
            Value::Float((1900 + noise(400)) as f64 / 100.0),
        )));
    }
    sample("unpolled", "raw", series, records)
}

fn aggregate(series: u32, window: i64, values: Vec<Option<Value>>) -> Aggregate {
    Aggregate {
        series: SeriesId(series),
        start: at(window * 10_000),
        end: at((window + 1) * 10_000),
        revision: 0,
        is_final: true,
        deleted: false,
        values: values.into(),
    }
}

/// Windows of 10 s over three series, one of them a bool, with a revision, an early result and one taken back.
fn aggregates() -> Sample {
    let mut noise = noise(4);
    let series =
        vec![info("boiler/temperature", Some("Cel")), info("boiler/pressure", Some("bar")), info("boiler/pump", None)];
    let mut records = Vec::new();
    for window in 0..12 {
        for series in 0..2 {
            let low = 20.0 + noise(100) as f64 / 10.0;
            let (high, last) = (low + 0.5, low + 0.3);
            let values = [
                Value::Int(10),
                Value::Float(low),
                Value::Float(high),
                Value::Float((low + high) / 3.0),
                Value::Float(last),
            ];
            records.push(Record::Aggregate(aggregate(series, window, values.into_iter().map(Some).collect())));
        }
        let bools = vec![Some(Value::Int(10)), None, None, None, Some(Value::Bool(window % 3 == 0))];
        records.push(Record::Aggregate(aggregate(2, window, bools)));
    }
    let mut revised = aggregate(0, 3, vec![Some(Value::Int(11)); 5]);
    revised.revision = 1;
    let mut early = aggregate(1, 12, vec![Some(Value::Float(1.5)); 5]);
    early.is_final = false;
    let mut deleted = aggregate(2, 2, vec![None; 5]);
    (deleted.revision, deleted.deleted) = (1, true);
    records.extend([revised, early, deleted].map(Record::Aggregate));
    let mut sample = sample("aggregates", "ten_seconds", series, records);
    sample.compute = vec![Function::Count, Function::Min, Function::Max, Function::Mean, Function::Last];
    sample
}

/// Windows of functions that make texts of states, floats of few digits and integers.
fn functions() -> Sample {
    let series = vec![info("meters/m1/energy", Some("kWh")), info("boiler/state", None), info("boiler/pump", None)];
    let mut records = Vec::new();
    for window in 0..6 {
        let counted = [
            Value::Float([29.41, 1.031e-5, 7020.0][window as usize % 3]),
            Value::Int(window * 3),
            Value::Float((window as f64 * 3.0 + 1.0) / 10.0),
        ];
        let counted = counted.into_iter().map(Some).chain([None]).collect();
        records.push(Record::Aggregate(aggregate(0, window, counted)));
        let states = [r#"{"Störung \"3\"":0.25,"run":9.75}"#, r#"{"run":10.0}"#][window as usize % 2];
        records.push(Record::Aggregate(aggregate(1, window, vec![None, None, None, Some(Value::Text(states.into()))])));
        let pump = format!(r#"{{"false":{:?},"true":{:?}}}"#, window as f64 / 4.0, 10.0 - window as f64 / 4.0);
        records.push(Record::Aggregate(aggregate(2, window, vec![None, None, None, Some(Value::Text(pump.into()))])));
    }
    let mut sample = sample("functions", "ten_seconds", series, records);
    let percentile = Function::Percentile("p99.9".parse().unwrap());
    sample.compute = vec![percentile, Function::Increase, Function::Rate, Function::TimeInState];
    sample
}

/// An alert raised and cleared.
fn alerts() -> Sample {
    let alert = |state: AlertState, t: Option<Value>| {
        Record::from(Alert {
            rule: "overheat".into(),
            instance: "meters/boiler/temperature".into(),
            severity: Severity::Critical,
            time: at(5000),
            state,
            message: "boiler at 91.2 °C and the pump \"stands\"".into(),
            values: vec![
                ("t".into(), t),
                ("pump".into(), Some(Value::Bool(false))),
                ("n".into(), Some(Value::Int(-3))),
            ],
            clock: ClockState::Synced,
        })
    };
    let records = vec![alert(AlertState::Raised, Some(Value::Float(91.2))), alert(AlertState::Cleared, None)];
    sample("alerts", "alerts", vec![], records)
}

/// The beginning of an epoch, gaps and outages, with and without everything that may be missing.
fn gaps() -> Sample {
    let gap = Gap {
        stream: "raw".into(),
        epoch: None,
        class: None,
        from: 18,
        to: 40,
        count: None,
        start: Some(at(0)),
        end: Some(at(1500)),
        reason: "evicted".into(),
        covered_by: Some("minute".into()),
    };
    let bare = Gap {
        epoch: Some(Epoch(1)),
        class: Some("personal".into()),
        start: None,
        end: None,
        covered_by: None,
        reason: "damaged".into(),
        ..gap.clone()
    };
    let outage =
        OutageRecord { input: "gps".into(), start: Some(at(0)), end: at(9000), count: None, reason: "restart".into() };
    let counted = OutageRecord { start: None, count: Some(12), reason: "overrun".into(), ..outage.clone() };
    let start = EpochStart {
        time: at(-1),
        predecessor: Some(Epoch(0xffff_ffff_ffff_ffff)),
        last: vec![("raw".into(), "process".into(), 17), ("alerts".into(), "personal".into(), 2)],
        reason: "boot".into(),
    };
    let new = EpochStart { predecessor: None, last: vec![], reason: "new_store".into(), ..start.clone() };
    let records = vec![start.into(), new.into(), gap.into(), bare.into(), outage.into(), counted.into()];
    let mut sample = sample("gaps", "gaps", vec![], records);
    sample.first = 1;
    sample
}

/// A gap that was made of several, and names fewer records than numbers.
fn widened() -> Sample {
    let mut sample = gaps();
    sample.name = "gap_of_several";
    sample.records.retain_mut(|record| match record {
        Record::Gap(gap) => {
            gap.count = Some(12);
            gap.epoch.is_none()
        }
        _ => false,
    });
    sample
}

/// Readings, aggregates and an alert in one frame, their order kept.
fn both() -> Sample {
    let mut sample = aggregates();
    let readings = poll().records.into_iter().take(2);
    let alert = alerts().records.into_iter().take(1);
    sample.records = readings.chain(alert).chain(sample.records).collect();
    sample.name = "both";
    sample.origin.stream = "everything".into();
    sample
}

/// Single-precision floats of every magnitude, which are no decimals, and integers with a common unit.
fn wide() -> Sample {
    let mut noise = noise(5);
    let mut records = Vec::new();
    for step in 0..24 {
        // Exponents from 2^-63 to 2^64, with all 23 bits of the mantissa in use.
        let bits = (64 + noise(128)) << 23 | noise(1 << 23);
        records.push(Record::Reading(reading(
            0,
            at(step * 1000),
            Value::Float(f64::from(f32::from_bits(bits as u32))),
        )));
        records.push(Record::Reading(reading(1, at(step * 1000), Value::Int(noise(9) * 250 - 1000))));
    }
    sample("wide", "raw", vec![info("a/single", None), info("a/steps", None)], records)
}

/// So many readings that fixed shares pay, sealed in a hurry: a clock that wavers, and values that jump now and then, far and very far.
fn hasty() -> Sample {
    let mut noise = noise(11);
    let readings = (0..200).map(|step| {
        let far = match step {
            50 => 1 << 22,
            51 => 1 << 40,
            _ => 0,
        };
        let value = (2150 + noise(40) + noise(40) + far) as f64 / 100.0;
        Record::Reading(reading(0, at(step * 1000 + noise(4) + noise(4)), Value::Float(value)))
    });
    let mut sample = sample("hasty", "raw", vec![info("boiler/temperature", Some("Cel"))], readings.collect());
    sample.density = Density::Fast;
    sample
}

/// Values of few steps far apart, as of a converter behind a table.
fn stepped() -> Sample {
    let mut noise = noise(17);
    let readings = (0..600).map(|step| {
        let level = noise(5) + noise(5) + noise(5);
        let value = (level * level * 37 - 211) as f64 / 100.0;
        Record::Reading(reading(0, at(step * 1000), Value::Float(value)))
    });
    sample("stepped", "raw", vec![info("tank/level", Some("mm"))], readings.collect())
}
