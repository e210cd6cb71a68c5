//! The tables that records become, one for each kind of record: which columns there are, and what of a record stands in them.

mod aggregates;
mod alerts;
mod gaps;
mod readings;

use std::borrow::Cow;
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::{ArrowError, Field, Schema, SchemaRef};
use rtlive_core::function::Function;
use rtlive_core::reading::{SeriesId, SeriesInfo};
use rtlive_core::record::Record;

use super::column::{Bools, Column, Ints, Texts};
use crate::new_records::NewRecords;
use aggregates::Aggregates;
use alerts::Alerts;
use gaps::Gaps;
use readings::Readings;

/// What the rows of a table are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Readings.
    Readings,
    /// Aggregates with the values of these functions.
    Aggregates(Vec<Function>),
    /// Alerts.
    Alerts,
    /// Gaps, outages, and beginnings of epochs.
    Gaps,
}

impl Kind {
    /// The table that a record of a frame is a row of.
    pub(super) fn of(record: &Record, compute: &[Function]) -> Self {
        match record {
            Record::Reading(_) => Self::Readings,
            Record::Aggregate(_) => Self::Aggregates(compute.to_vec()),
            Record::Alert(_) => Self::Alerts,
            Record::Gap(_) | Record::Outage(_) | Record::EpochStart(_) => Self::Gaps,
        }
    }

    /// Whether a record of a frame with these functions is a row of this table.
    pub(super) fn takes(&self, record: &Record, compute: &[Function]) -> bool {
        match (self, record) {
            (Self::Aggregates(functions), Record::Aggregate(_)) => functions == compute,
            (Self::Readings, Record::Reading(_)) | (Self::Alerts, Record::Alert(_)) => true,
            (Self::Gaps, Record::Gap(_) | Record::Outage(_) | Record::EpochStart(_)) => true,
            _ => false,
        }
    }
}

/// Rows of one kind, column by column.
pub(super) struct Table {
    rows: Box<dyn Rows>,
    schema: SchemaRef,
    /// How many rows there are.
    pub(super) count: usize,
}

/// What the kinds of tables have in common.
trait Rows: Send {
    /// The columns with their names, in order.
    fn columns(&mut self) -> Vec<(Cow<'static, str>, &mut dyn Column)>;

    /// Adds records of one frame, with their numbers; those of another kind are passed over.
    fn push(&mut self, frame: &NewRecords, records: &[(u64, &Record)]);
}

impl Table {
    pub(super) fn new(kind: &Kind) -> Self {
        let mut rows: Box<dyn Rows> = match kind {
            Kind::Readings => Box::new(Readings::default()),
            Kind::Aggregates(functions) => Box::new(Aggregates::new(functions)),
            Kind::Alerts => Box::new(Alerts::default()),
            Kind::Gaps => Box::new(Gaps::default()),
        };
        let field = |(name, column): (Cow<'static, str>, &mut dyn Column)| Field::new(name, column.data_type(), true);
        let fields: Vec<Field> = rows.columns().into_iter().map(field).collect();
        Self { rows, schema: Arc::new(Schema::new(fields)), count: 0 }
    }

    pub(super) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Adds records of one frame, with their numbers.
    pub(super) fn push(&mut self, frame: &NewRecords, records: &[(u64, &Record)]) {
        self.rows.push(frame, records);
        self.count += records.len();
    }

    /// The rows so far; the table is empty after that.
    pub(super) fn take(&mut self) -> Result<RecordBatch, ArrowError> {
        self.count = 0;
        let columns = self.rows.columns().into_iter().map(|(_, column)| column.take()).collect();
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

/// The columns that every table begins with: whose record it is.
#[derive(Default)]
struct Head {
    agent: Texts,
    epoch: Texts,
    class: Texts,
    seq: Ints,
    historical: Bools,
}

impl Head {
    fn columns(&mut self) -> Vec<(Cow<'static, str>, &mut dyn Column)> {
        vec![
            ("agent".into(), &mut self.agent),
            ("epoch".into(), &mut self.epoch),
            ("class".into(), &mut self.class),
            ("seq".into(), &mut self.seq),
            ("historical".into(), &mut self.historical),
        ]
    }

    /// Adds the heads of records of one frame.
    fn push(&mut self, frame: &NewRecords, records: &[(u64, &Record)]) {
        let origin = &frame.header.origin;
        let places = [
            (&mut self.agent, Arc::clone(&origin.agent)),
            (&mut self.epoch, Arc::from(origin.epoch.to_string())),
            (&mut self.class, Arc::clone(&origin.class)),
        ];
        for (column, text) in places {
            let place = column.place(&text);
            records.iter().for_each(|_| column.push_place(Some(place)));
        }
        for (seq, _) in records {
            self.seq.push(Some(seq.cast_signed()));
            self.historical.push(Some(frame.historical));
        }
    }
}

/// The columns that name a series.
#[derive(Default)]
struct Series {
    name: Texts,
    unit: Texts,
}

/// The places of a frame's series in [`Series`], by their ids.
struct SeriesPlaces(Vec<(i32, Option<i32>)>);

impl Series {
    fn columns(&mut self) -> Vec<(Cow<'static, str>, &mut dyn Column)> {
        vec![("series".into(), &mut self.name), ("unit".into(), &mut self.unit)]
    }

    fn places(&mut self, frame: &NewRecords) -> SeriesPlaces {
        let Self { name, unit } = self;
        let place = |info: &SeriesInfo| (name.place(&info.name), info.unit.as_ref().map(|text| unit.place(text)));
        SeriesPlaces(frame.contents.series.iter().map(place).collect())
    }

    fn push(&mut self, places: &SeriesPlaces, id: SeriesId) {
        // Opening a frame checks that its records name series of its table.
        let place = places.0.get(id.index());
        self.name.push_place(place.map(|(name, _)| *name));
        self.unit.push_place(place.and_then(|(_, unit)| *unit));
    }
}
