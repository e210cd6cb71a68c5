//! Records as JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

use crate::frame::notice::UNSYNCED;
use crate::frame::{self, DEFAULT_CLASS};
use crate::plan::Function;
use crate::reading::{ClockState, Reading, SeriesId, SeriesInfo, Value};
use crate::record::{Aggregate, Alert, EpochStart, Gap, OutageRecord, Record};
use crate::time::Timestamp;

/// Whose record is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The agent's id.
    pub agent: &'a str,
    /// The epoch as text: 16 hexadecimal digits, or `replay`.
    pub epoch: &'a str,
    /// The stream's name.
    pub stream: &'a str,
    /// The class of the record; `process` is not printed.
    pub class: &'a str,
    /// Whether it was backlog.
    pub historical: bool,
}

impl<'a> Origin<'a> {
    /// The origin of a frame's records; `epoch` is the text of `origin.epoch`, which the caller keeps.
    pub fn of_frame(origin: &'a frame::Origin, epoch: &'a str, historical: bool) -> Self {
        Self { agent: &origin.agent, epoch, stream: &origin.stream, class: &origin.class, historical }
    }
}

/// An object that is being written.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    /// A key, and the place to write its value to.
    fn key(&mut self, key: &str) -> &mut Vec<u8> {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        write_text(self.out, key);
        self.out.push(b':');
        self.out
    }

    fn text(&mut self, key: &str, text: &str) {
        write_text(self.key(key), text);
    }

    fn unsigned(&mut self, key: &str, value: u64) {
        put(self.key(key), format_args!("{value}"));
    }

    fn time(&mut self, key: &str, time: Timestamp) {
        put(self.key(key), format_args!("\"{time}\""));
    }

    fn time_or_null(&mut self, key: &str, time: Option<Timestamp>) {
        match time {
            Some(time) => self.time(key, time),
            None => self.key(key).extend_from_slice(b"null"),
        }
    }

    fn flag(&mut self, key: &str, value: bool) {
        self.key(key).extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn value(&mut self, key: &str, value: Option<&Value>) {
        write_value(self.key(key), value);
    }

    fn close(self) {
        self.out.push(b'}');
    }
}

/// Appends text; a vector always has room.
fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

/// Appends a JSON string. A vector always has room, and every text is a JSON string.
fn write_text(out: &mut Vec<u8>, text: &str) {
    let _ = serde_json::to_writer(out, text);
}

fn write_value(out: &mut Vec<u8>, value: Option<&Value>) {
    match value {
        // Writes NaN and infinities as null.
        Some(Value::Float(value)) => drop(serde_json::to_writer(out, value)),
        Some(Value::Int(value)) => put(out, format_args!("{value}")),
        Some(Value::Bool(value)) => put(out, format_args!("{value}")),
        Some(Value::Text(value)) => write_text(out, value),
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends a record as one JSON object, without a line end.
///
/// `series` is the table that the record's series index (one that is not in it prints as `#` and its number), and `compute` says
/// what the values of an aggregate are; a value that an aggregate does not have is left out.
pub fn write_record(
    out: &mut Vec<u8>,
    origin: &Origin<'_>,
    seq: u64,
    record: &Record,
    series: &[SeriesInfo],
    compute: &[Function],
) {
    let mut object = Object::open(out);
    object.text("agent", origin.agent);
    object.text("epoch", origin.epoch);
    object.text("stream", origin.stream);
    object.unsigned("seq", seq);
    match record {
        Record::Reading(reading) => write_reading(&mut object, reading, origin, series),
        Record::Aggregate(aggregate) => write_aggregate(&mut object, aggregate, origin, series, compute),
        Record::Alert(alert) => write_alert(&mut object, alert),
        Record::Gap(gap) => write_gap(&mut object, gap),
        Record::Outage(outage) => write_outage(&mut object, outage),
        Record::EpochStart(start) => write_epoch_start(&mut object, start),
    }
    if !matches!(record, Record::Reading(_) | Record::Aggregate(_)) && origin.historical {
        object.flag("historical", true);
    }
    if origin.class != DEFAULT_CLASS {
        object.text("class", origin.class);
    }
    object.close();
}

/// The name of a series, and its unit where it has one.
fn write_series(object: &mut Object<'_>, id: SeriesId, series: &[SeriesInfo]) {
    match series.get(id.index()) {
        Some(info) => object.text("series", &info.name),
        None => object.text("series", &format!("#{}", id.0)),
    }
}

fn write_unit(object: &mut Object<'_>, id: SeriesId, series: &[SeriesInfo]) {
    if let Some(unit) = series.get(id.index()).and_then(|info| info.unit.as_deref()) {
        object.text("unit", unit);
    }
}

fn write_reading(object: &mut Object<'_>, reading: &Reading, origin: &Origin<'_>, series: &[SeriesInfo]) {
    write_series(object, reading.series, series);
    object.time("time", reading.time);
    object.value("value", Some(&reading.value));
    write_unit(object, reading.series, series);
    object.text("quality", reading.quality.name());
    if let Some(check) = reading.check {
        object.text("check", check.name());
    }
    if reading.clock == ClockState::Unsynced {
        object.text("clock", UNSYNCED);
    }
    if origin.historical {
        object.flag("historical", true);
    }
}

fn write_aggregate(
    object: &mut Object<'_>,
    aggregate: &Aggregate,
    origin: &Origin<'_>,
    series: &[SeriesInfo],
    compute: &[Function],
) {
    write_series(object, aggregate.series, series);
    object.time("start", aggregate.start);
    object.time("end", aggregate.end);
    object.unsigned("revision", u64::from(aggregate.revision));
    for (function, value) in compute.iter().zip(&aggregate.values) {
        match (function, value) {
            (Function::TimeInState, Some(Value::Text(states))) if is_map_of_numbers(states) => {
                object.key(&function.name()).extend_from_slice(states.as_bytes());
            }
            (_, Some(value)) => object.value(&function.name(), Some(value)),
            (_, None) => (),
        }
    }
    write_unit(object, aggregate.series, series);
    if !aggregate.is_final {
        object.flag("final", false);
    }
    if origin.historical {
        object.flag("historical", true);
    }
    if aggregate.deleted {
        object.flag("deleted", true);
    }
}

/// Whether a text is what [`Function::TimeInState`] gives: a JSON object of numbers. One from outside may be anything.
fn is_map_of_numbers(text: &str) -> bool {
    serde_json::from_str::<BTreeMap<Cow<'_, str>, f64>>(text).is_ok() && !text.contains(['\n', '\r'])
}

fn write_alert(object: &mut Object<'_>, alert: &Alert) {
    object.text("rule", &alert.rule);
    object.text("instance", &alert.instance);
    object.text("severity", alert.severity.name());
    object.time("time", alert.time);
    object.text("state", alert.state.name());
    object.text("message", &alert.message);
    write_values(object.key("values"), &alert.values);
    if alert.clock == ClockState::Unsynced {
        object.text("clock", UNSYNCED);
    }
}

/// Appends the values of an alert as one JSON object.
pub fn write_values(out: &mut Vec<u8>, values: &[(Arc<str>, Option<Value>)]) {
    let mut object = Object::open(out);
    for (name, value) in values {
        object.value(name, value.as_ref());
    }
    object.close();
}

fn write_gap(object: &mut Object<'_>, gap: &Gap) {
    let mut inner = Object::open(object.key("gap"));
    inner.text("stream", &gap.stream);
    if let Some(epoch) = gap.epoch {
        inner.text("epoch", &epoch.to_string());
    }
    if let Some(class) = &gap.class {
        inner.text("class", class);
    }
    inner.unsigned("from", gap.from);
    inner.unsigned("to", gap.to);
    // Of all 2^64 numbers there is one more than fits.
    let count = gap.count.map_or_else(|| u128::from(gap.to.saturating_sub(gap.from)) + 1, u128::from);
    put(inner.key("count"), format_args!("{count}"));
    inner.time_or_null("start", gap.start);
    inner.time_or_null("end", gap.end);
    inner.text("reason", &gap.reason);
    if let Some(stream) = &gap.covered_by {
        inner.text("covered_by", stream);
    }
    inner.close();
}

fn write_outage(object: &mut Object<'_>, outage: &OutageRecord) {
    let mut inner = Object::open(object.key("gap"));
    inner.text("input", &outage.input);
    inner.time_or_null("start", outage.start);
    inner.time("end", outage.end);
    match outage.count {
        Some(count) => inner.unsigned("count", count),
        None => inner.key("count").extend_from_slice(b"null"),
    }
    inner.text("reason", &outage.reason);
    inner.close();
}

fn write_epoch_start(object: &mut Object<'_>, start: &EpochStart) {
    let mut inner = Object::open(object.key("epoch_start"));
    inner.time("time", start.time);
    match start.predecessor {
        Some(epoch) => inner.text("predecessor", &epoch.to_string()),
        None => inner.key("predecessor").extend_from_slice(b"null"),
    }
    write_last(inner.key("last"), &start.last);
    inner.text("reason", &start.reason);
    inner.close();
}

/// Appends the last numbers of an epoch as one JSON array.
pub fn write_last(out: &mut Vec<u8>, last: &[(Arc<str>, Arc<str>, u64)]) {
    out.push(b'[');
    for (place, (stream, class, seq)) in last.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        let mut object = Object::open(out);
        object.text("stream", stream);
        object.text("class", class);
        object.unsigned("seq", *seq);
        object.close();
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Severity;
    use crate::reading::{Check, Quality};
    use crate::record::{AlertState, Epoch};

    const START: Timestamp = Timestamp::from_nanos(1_767_225_600_250_000_000);
    const END: Timestamp = Timestamp::from_nanos(1_767_225_610_000_000_000);

    fn line(stream: &str, class: &str, historical: bool, record: &Record) -> String {
        let origin = Origin { agent: "gw", epoch: "9f", stream, class, historical };
        let series = [SeriesInfo { name: "boiler/\"t\"".into(), unit: Some("Cel".into()) }];
        let mut out = Vec::new();
        write_record(&mut out, &origin, 17, record, &series, &[Function::Count, Function::Mean]);
        let text = String::from_utf8(out).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap();
        text
    }

    fn reading(value: Value) -> Reading {
        let (quality, check, clock) = (Quality::Good, None, ClockState::Synced);
        Reading { series: SeriesId(0), time: START, value, quality, check, clock }
    }

    #[test]
    fn readings() {
        let plain = r#"{"agent":"gw","epoch":"9f","stream":"raw","seq":17,"series":"boiler/\"t\"","time":"2026-01-01T00:00:00.25Z","value":21.5,"unit":"Cel","quality":"good"}"#;
        assert_eq!(line("raw", "process", false, &Record::Reading(reading(Value::Float(21.5)))), plain);
        let mut odd = reading(Value::Float(f64::NAN));
        (odd.quality, odd.check, odd.clock) = (Quality::Bad, Some(Check::NotFinite), ClockState::Unsynced);
        let text = line("raw", "personal", true, &Record::Reading(odd));
        let end = r#""value":null,"unit":"Cel","quality":"bad","check":"not_finite","clock":"unsynced","historical":true,"class":"personal"}"#;
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn floats_keep_every_bit_and_their_type() {
        for (value, text) in [(5.0, "5.0"), (0.1 + 0.2, "0.30000000000000004"), (-0.0, "-0.0"), (f64::INFINITY, "null")]
        {
            let line = line("raw", "process", false, &Record::Reading(reading(Value::Float(value))));
            assert!(line.contains(&format!("\"value\":{text},")), "{line}");
        }
    }

    #[test]
    fn aggregates() {
        let mut aggregate = Aggregate {
            series: SeriesId(0),
            start: START,
            end: END,
            revision: 1,
            is_final: true,
            deleted: false,
            values: Box::new([Some(Value::Int(60)), None]),
        };
        let plain = r#"{"agent":"gw","epoch":"9f","stream":"minute","seq":17,"series":"boiler/\"t\"","start":"2026-01-01T00:00:00.25Z","end":"2026-01-01T00:00:10Z","revision":1,"count":60,"unit":"Cel"}"#;
        assert_eq!(line("minute", "process", false, &Record::Aggregate(aggregate.clone())), plain);
        (aggregate.is_final, aggregate.deleted) = (false, true);
        let text = line("minute", "process", true, &Record::Aggregate(aggregate));
        assert!(text.ends_with(r#""unit":"Cel","final":false,"historical":true,"deleted":true}"#), "{text}");
    }

    #[test]
    fn alerts() {
        let alert = Record::from(Alert {
            rule: "overheat".into(),
            instance: "".into(),
            severity: Severity::Critical,
            time: START,
            state: AlertState::Raised,
            message: "boiler at 91.2 °C".into(),
            values: vec![
                ("t".into(), Some(Value::Float(91.2))),
                ("pump".into(), Some(Value::Bool(false))),
                ("x".into(), None),
            ],
            clock: ClockState::Unsynced,
        });
        let text = r#"{"agent":"gw","epoch":"9f","stream":"alerts","seq":17,"rule":"overheat","instance":"","severity":"critical","time":"2026-01-01T00:00:00.25Z","state":"raised","message":"boiler at 91.2 °C","values":{"t":91.2,"pump":false,"x":null},"clock":"unsynced"}"#;
        assert_eq!(line("alerts", "process", false, &alert), text);
    }

    #[test]
    fn gaps_outages_and_epochs() {
        let mut gap = Gap {
            stream: "raw".into(),
            epoch: None,
            class: None,
            from: 18,
            to: 40,
            count: None,
            start: Some(START),
            end: Some(END),
            reason: "evicted".into(),
            covered_by: Some("minute".into()),
        };
        let plain = r#"{"agent":"gw","epoch":"9f","stream":"gaps","seq":17,"gap":{"stream":"raw","from":18,"to":40,"count":23,"start":"2026-01-01T00:00:00.25Z","end":"2026-01-01T00:00:10Z","reason":"evicted","covered_by":"minute"}}"#;
        assert_eq!(line("gaps", "process", false, &Record::from(gap.clone())), plain);
        (gap.epoch, gap.class, gap.start, gap.end, gap.covered_by) =
            (Some(Epoch(1)), Some("x".into()), None, None, None);
        (gap.from, gap.to) = (0, u64::MAX);
        let text = line("gaps", "process", true, &Record::from(gap));
        let end = r#""gap":{"stream":"raw","epoch":"0000000000000001","class":"x","from":0,"to":18446744073709551615,"count":18446744073709551616,"start":null,"end":null,"reason":"evicted"},"historical":true}"#;
        assert!(text.ends_with(end), "{text}");
        let outage =
            OutageRecord { input: "gps".into(), start: Some(START), end: END, count: None, reason: "restart".into() };
        let end = r#""gap":{"input":"gps","start":"2026-01-01T00:00:00.25Z","end":"2026-01-01T00:00:10Z","count":null,"reason":"restart"}}"#;
        assert!(line("gaps", "process", false, &Record::from(outage)).ends_with(end));
        let start = EpochStart {
            time: START,
            predecessor: Some(Epoch(0x9f1c)),
            last: vec![("raw".into(), "process".into(), 17)],
            reason: "boot".into(),
        };
        let end = r#""epoch_start":{"time":"2026-01-01T00:00:00.25Z","predecessor":"0000000000009f1c","last":[{"stream":"raw","class":"process","seq":17}],"reason":"boot"}}"#;
        assert!(line("gaps", "process", false, &Record::from(start)).ends_with(end));
    }
}
