//! Aggregates.

use std::borrow::Cow;

use rtlive_core::function::Function;
use rtlive_core::reading::Value;
use rtlive_core::record::Record;

use super::{Head, Rows, Series};
use crate::new_records::NewRecords;
use crate::output::parquet::column::{Bools, Column, Floats, Ints, Texts, Times};

/// A column for each function, named as it, and others beside it for what a float does not hold.
pub(super) struct Aggregates {
    head: Head,
    series: Series,
    start: Times,
    end: Times,
    revision: Ints,
    is_final: Bools,
    deleted: Bools,
    values: Vec<Values>,
}

/// The values of one function.
struct Values {
    function: Function,
    /// Counts; absent where values are as they were read.
    count: Option<Ints>,
    number: Option<Floats>,
    /// Integers, which `number` holds up to 2^53.
    int: Option<Ints>,
    bool: Option<Bools>,
    text: Option<Texts>,
    /// The seconds by state, as a JSON object.
    states: Option<Texts>,
}

impl Values {
    fn new(function: Function) -> Self {
        let mut values = Self { function, count: None, number: None, int: None, bool: None, text: None, states: None };
        match function {
            Function::Count | Function::Resets => values.count = Some(Ints::default()),
            Function::TimeInState => values.states = Some(Texts::default()),
            Function::Min | Function::Max | Function::Range | Function::Increase => {
                values.number = Some(Floats::default());
                values.int = Some(Ints::default());
            }
            Function::First | Function::Last => {
                values.number = Some(Floats::default());
                values.int = Some(Ints::default());
                values.bool = Some(Bools::default());
                values.text = Some(Texts::default());
            }
            _ => values.number = Some(Floats::default()),
        }
        values
    }

    fn columns(&mut self) -> Vec<(Cow<'static, str>, &mut dyn Column)> {
        let name = self.function.name();
        let named = |suffix: &str| -> Cow<'static, str> { format!("{name}{suffix}").into() };
        let mut columns: Vec<(Cow<'static, str>, &mut dyn Column)> = Vec::new();
        if let Some(count) = &mut self.count {
            columns.push((named(""), count));
        }
        if let Some(states) = &mut self.states {
            columns.push((named(""), states));
        }
        if let Some(number) = &mut self.number {
            columns.push((named(""), number));
        }
        if let Some(int) = &mut self.int {
            columns.push((named("_int"), int));
        }
        if let Some(bool) = &mut self.bool {
            columns.push((named("_bool"), bool));
        }
        if let Some(text) = &mut self.text {
            columns.push((named("_text"), text));
        }
        columns
    }

    fn push(&mut self, value: Option<&Value>) {
        let int = if let Some(Value::Int(value)) = value { Some(*value) } else { None };
        let text = value.and_then(Value::as_text);
        if let Some(count) = &mut self.count {
            count.push(int);
        }
        if let Some(states) = &mut self.states {
            states.push(text);
        }
        if let Some(number) = &mut self.number {
            number.push(value.and_then(Value::as_number));
        }
        if let Some(column) = &mut self.int {
            column.push(int);
        }
        if let Some(bool) = &mut self.bool {
            bool.push(if let Some(Value::Bool(value)) = value { Some(*value) } else { None });
        }
        if let Some(column) = &mut self.text {
            column.push(text);
        }
    }
}

impl Aggregates {
    pub(super) fn new(functions: &[Function]) -> Self {
        Self {
            head: Head::default(),
            series: Series::default(),
            start: Times::default(),
            end: Times::default(),
            revision: Ints::default(),
            is_final: Bools::default(),
            deleted: Bools::default(),
            values: functions.iter().copied().map(Values::new).collect(),
        }
    }
}

impl Rows for Aggregates {
    fn columns(&mut self) -> Vec<(Cow<'static, str>, &mut dyn Column)> {
        let own: [(&'static str, &mut dyn Column); 5] = [
            ("start", &mut self.start),
            ("end", &mut self.end),
            ("revision", &mut self.revision),
            ("final", &mut self.is_final),
            ("deleted", &mut self.deleted),
        ];
        let own = own.into_iter().map(|(name, column)| (name.into(), column));
        let values = self.values.iter_mut().flat_map(Values::columns);
        self.head.columns().into_iter().chain(self.series.columns()).chain(own).chain(values).collect()
    }

    fn push(&mut self, frame: &NewRecords, records: &[(u64, &Record)]) {
        self.head.push(frame, records);
        let places = self.series.places(frame);
        for (_, record) in records {
            let Record::Aggregate(aggregate) = record else { continue };
            self.series.push(&places, aggregate.series);
            self.start.push(Some(aggregate.start));
            self.end.push(Some(aggregate.end));
            self.revision.push(Some(aggregate.revision.into()));
            self.is_final.push(Some(aggregate.is_final));
            self.deleted.push(Some(aggregate.deleted));
            for (column, value) in self.values.iter_mut().zip(&aggregate.values) {
                column.push(value.as_ref());
            }
        }
    }
}
