//! Records as the model expects them, and whether the engine's are these.

use std::fmt;

use rtlive_core::engine::Engine;
use rtlive_core::plan::StreamId;
use rtlive_core::reading::Value;
use rtlive_core::record::{Aggregate, Alert, AlertState, Emitted, Record};

/// A record as the model expects it.
#[derive(Clone, Debug)]
pub(crate) enum Expected {
    Reading { stream: usize, series: u32, time: i64, value: Value },
    Aggregate(Told),
    Alert { rule: &'static str, instance: String, state: AlertState, time: i64, values: Vec<Option<Value>> },
}

/// An aggregate: what identifies it, and the readings that it is made of.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) stream: usize,
    pub(crate) series: u32,
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) revision: u32,
    pub(crate) is_final: bool,
    pub(crate) deleted: bool,
    pub(crate) readings: Vec<(i64, Value)>,
}

impl Expected {
    /// Whether a record is this one, sums but for rounding.
    pub(crate) fn is(&self, Emitted { stream, record }: &Emitted) -> bool {
        match (self, record) {
            (Self::Reading { stream: expected, series, time, value }, Record::Reading(reading)) => {
                (stream.index(), reading.series.0, reading.time.as_nanos()) == (*expected, *series, *time)
                    && reading.value.is_same(value)
            }
            (Self::Aggregate(told), Record::Aggregate(aggregate)) => told.is(*stream, aggregate),
            (Self::Alert { rule, instance, state, time, values }, Record::Alert(alert)) => {
                let Alert { rule: found, instance: of, state: now, time: at, values: having, .. } = &**alert;
                let having = having.iter().map(|(_, value)| value);
                *stream == StreamId::ALERTS
                    && (&**found, &**of, *now, at.as_nanos()) == (*rule, &**instance, *state, *time)
                    && having.eq(values)
            }
            _ => false,
        }
    }
}

impl Told {
    fn is(&self, stream: StreamId, found: &Aggregate) -> bool {
        let key = (stream.index(), found.series.0, found.start.as_nanos(), found.end.as_nanos());
        let state = (found.revision, found.is_final, found.deleted);
        if key != (self.stream, self.series, self.start, self.end)
            || state != (self.revision, self.is_final, self.deleted)
        {
            return false;
        }
        if self.deleted {
            return found.values.iter().all(Option::is_none);
        }
        let magnitude: f64 = self.readings.iter().filter_map(|(_, value)| value.as_number()).map(f64::abs).sum();
        self.values().iter().zip(&found.values).all(|(expected, found)| match (expected, found) {
            (Some(Value::Float(expected)), Some(Value::Float(found))) => {
                (expected - found).abs() <= 1e-12 * magnitude.max(1.0)
            }
            (expected, found) => expected == found,
        })
    }

    /// The functions of [`crate::plans::COMPUTE`] over the readings.
    pub(crate) fn values(&self) -> [Option<Value>; 7] {
        let readings = &self.readings;
        let by_value = |a: &&Value, b: &&Value| a.as_scalar().total_cmp(b.as_scalar());
        let numbers = || readings.iter().map(|(_, value)| value).filter(|value| value.as_number().is_some());
        let sum: f64 = numbers().filter_map(Value::as_number).sum();
        let count = numbers().count();
        let by_time = |a: &&(i64, Value), b: &&(i64, Value)| {
            a.0.cmp(&b.0).then_with(|| a.1.as_scalar().total_cmp(b.1.as_scalar()))
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
}

/// What was found and what was expected, for a person.
pub(crate) fn difference(engine: &Engine, found: &[Emitted], expected: &[impl fmt::Debug]) -> String {
    let mut text = String::from("series\n");
    engine.series().iter().enumerate().for_each(|(i, info)| text += &format!("  {i} {}\n", info.name));
    text += "found\n";
    found.iter().for_each(|one| text += &format!("  {one:?}\n"));
    text += "expected\n";
    expected.iter().for_each(|one| text += &format!("  {one:?}\n"));
    text
}
