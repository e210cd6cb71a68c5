//! Alerts.

use std::borrow::Cow;

use rtlive_core::json::write_values;
use rtlive_core::reading::ClockState;
use rtlive_core::record::Record;

use super::{Head, Rows};
use crate::new_records::NewRecords;
use crate::output::parquet::column::{Column, Texts, Times};

/// The values of an alert stand in `values` as the JSON object of its line.
#[derive(Default)]
pub(super) struct Alerts {
    head: Head,
    rule: Texts,
    instance: Texts,
    severity: Texts,
    time: Times,
    state: Texts,
    message: Texts,
    values: Texts,
    clock: Texts,
}

impl Rows for Alerts {
    fn columns(&mut self) -> Vec<(Cow<'static, str>, &mut dyn Column)> {
        let own: [(&'static str, &mut dyn Column); 8] = [
            ("rule", &mut self.rule),
            ("instance", &mut self.instance),
            ("severity", &mut self.severity),
            ("time", &mut self.time),
            ("state", &mut self.state),
            ("message", &mut self.message),
            ("values", &mut self.values),
            ("clock", &mut self.clock),
        ];
        self.head.columns().into_iter().chain(own.into_iter().map(|(name, column)| (name.into(), column))).collect()
    }

    fn push(&mut self, frame: &NewRecords, records: &[(u64, &Record)]) {
        self.head.push(frame, records);
        for (_, record) in records {
            let Record::Alert(alert) = record else { continue };
            self.rule.push(Some(&alert.rule));
            self.instance.push(Some(&alert.instance));
            self.severity.push_new(Some(alert.severity.name()));
            self.time.push(Some(alert.time));
            self.state.push_new(Some(alert.state.name()));
            self.message.push(Some(&alert.message));
            let mut values = Vec::new();
            write_values(&mut values, &alert.values);
            self.values.push_new(Some(&String::from_utf8_lossy(&values)));
            self.clock.push_new((alert.clock == ClockState::Unsynced).then_some("unsynced"));
        }
    }
}
