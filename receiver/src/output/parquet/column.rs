//! Columns that grow row by row.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, Float64Builder, Int32Builder, Int64Builder, TimestampNanosecondBuilder};
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, DictionaryArray, StringArray};
use arrow_schema::{DataType, TimeUnit};
use rtlive_core::time::Timestamp;

/// A column of any type.
pub(super) trait Column {
    /// What Arrow calls its type.
    fn data_type(&self) -> DataType;

    /// Its rows so far; it is empty after that.
    fn take(&mut self) -> ArrayRef;
}

/// Texts, most of which come again and again.
#[derive(Debug, Default)]
pub(super) struct Texts {
    values: Vec<Arc<str>>,
    places: HashMap<Arc<str>, i32>,
    rows: Int32Builder,
}

/// Integers.
#[derive(Debug, Default)]
pub(super) struct Ints(Int64Builder);

/// Floats, every bit of them.
#[derive(Debug, Default)]
pub(super) struct Floats(Float64Builder);

/// Bools.
#[derive(Debug)]
pub(super) struct Bools(BooleanBuilder);

/// Times.
#[derive(Debug, Default)]
pub(super) struct Times(TimestampNanosecondBuilder);

/// The time zone of all times.
const UTC: &str = "UTC";

impl Texts {
    /// The place of a text among the column's, until the next [`Column::take`].
    pub(super) fn place(&mut self, text: &Arc<str>) -> i32 {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        let place = self.values.len() as i32;
        self.values.push(Arc::clone(text));
        self.places.insert(Arc::clone(text), place);
        place
    }

    /// Adds a row by its place.
    pub(super) fn push_place(&mut self, place: Option<i32>) {
        self.rows.append_option(place);
    }

    /// Adds a row.
    pub(super) fn push(&mut self, text: Option<&Arc<str>>) {
        let place = text.map(|text| self.place(text));
        self.rows.append_option(place);
    }

    /// Adds a row of a text that is written anew each time.
    pub(super) fn push_new(&mut self, text: Option<&str>) {
        match text {
            Some(text) => match self.places.get(text) {
                Some(place) => self.rows.append_value(*place),
                None => self.push(Some(&Arc::from(text))),
            },
            None => self.rows.append_null(),
        }
    }
}

impl Column for Texts {
    fn data_type(&self) -> DataType {
        DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
    }

    fn take(&mut self) -> ArrayRef {
        self.places.clear();
        let values = std::mem::take(&mut self.values);
        let values: StringArray = values.iter().map(|text| Some(&**text)).collect();
        Arc::new(DictionaryArray::<Int32Type>::new(self.rows.finish(), Arc::new(values)))
    }
}

impl Ints {
    pub(super) fn push(&mut self, value: Option<i64>) {
        self.0.append_option(value);
    }
}

impl Column for Ints {
    fn data_type(&self) -> DataType {
        DataType::Int64
    }

    fn take(&mut self) -> ArrayRef {
        Arc::new(self.0.finish())
    }
}

impl Floats {
    pub(super) fn push(&mut self, value: Option<f64>) {
        self.0.append_option(value);
    }
}

impl Column for Floats {
    fn data_type(&self) -> DataType {
        DataType::Float64
    }

    fn take(&mut self) -> ArrayRef {
        Arc::new(self.0.finish())
    }
}

impl Default for Bools {
    fn default() -> Self {
        Self(BooleanBuilder::new())
    }
}

impl Bools {
    pub(super) fn push(&mut self, value: Option<bool>) {
        self.0.append_option(value);
    }
}

impl Column for Bools {
    fn data_type(&self) -> DataType {
        DataType::Boolean
    }

    fn take(&mut self) -> ArrayRef {
        Arc::new(self.0.finish())
    }
}

impl Times {
    pub(super) fn push(&mut self, time: Option<Timestamp>) {
        self.0.append_option(time.map(Timestamp::as_nanos));
    }
}

impl Column for Times {
    fn data_type(&self) -> DataType {
        DataType::Timestamp(TimeUnit::Nanosecond, Some(UTC.into()))
    }

    fn take(&mut self) -> ArrayRef {
        Arc::new(self.0.finish().with_timezone(UTC))
    }
}
