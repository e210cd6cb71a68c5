//! Readings.

use std::borrow::Cow;

use rtlive_core::reading::{ClockState, Value};
use rtlive_core::record::Record;

use super::{Head, Rows, Series};
use crate::new_records::NewRecords;
use crate::output::parquet::column::{Bools, Column, Floats, Ints, Texts, Times};

/// A number stands in `value`, an integer in `value_int` too, where it is exact beyond 2^53.
#[derive(Default)]
pub(super) struct Readings {
    head: Head,
    series: Series,
    time: Times,
    value: Floats,
    value_int: Ints,
    value_bool: Bools,
    value_text: Texts,
    quality: Texts,
    check: Texts,
    clock: Texts,
}

impl Rows for Readings {
    fn columns(&mut self) -> Vec<(Cow<'static, str>, &mut dyn Column)> {
        let own: [(&'static str, &mut dyn Column); 8] = [
            ("time", &mut self.time),
            ("value", &mut self.value),
            ("value_int", &mut self.value_int),
            ("value_bool", &mut self.value_bool),
            ("value_text", &mut self.value_text),
            ("quality", &mut self.quality),
            ("check", &mut self.check),
            ("clock", &mut self.clock),
        ];
        let own = own.into_iter().map(|(name, column)| (name.into(), column));
        self.head.columns().into_iter().chain(self.series.columns()).chain(own).collect()
    }

    fn push(&mut self, frame: &NewRecords, records: &[(u64, &Record)]) {
        self.head.push(frame, records);
        let places = self.series.places(frame);
        for (_, record) in records {
            let Record::Reading(reading) = record else { continue };
            self.series.push(&places, reading.series);
            self.time.push(Some(reading.time));
            let value = &reading.value;
            self.value.push(value.as_number());
            self.value_int.push(if let Value::Int(value) = value { Some(*value) } else { None });
            self.value_bool.push(if let Value::Bool(value) = value { Some(*value) } else { None });
            self.value_text.push(value.as_text());
            self.quality.push_new(Some(reading.quality.name()));
            self.check.push_new(reading.check.map(|check| check.name()));
            self.clock.push_new((reading.clock == ClockState::Unsynced).then_some("unsynced"));
        }
    }
}
