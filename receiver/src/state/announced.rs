//! What agents announced of their numbers: gaps, and beginnings of epochs with the last numbers of the ones before.

use rtlive_core::record::{EpochStart, Gap, Record};
use rusqlite::params;

use super::{State, StateError};
use crate::new_records::NewRecords;

impl State {
    /// Notes what the new records of a frame announce.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn announce(&mut self, records: &NewRecords) -> Result<(), StateError> {
        for (_, record) in records.iter() {
            match record {
                Record::Gap(gap) => self.note_gap(records, gap)?,
                Record::EpochStart(start) => self.note_epoch(records, start)?,
                Record::Reading(_) | Record::Aggregate(_) | Record::Alert(_) | Record::Outage(_) => {}
            }
        }
        Ok(())
    }

    fn note_gap(&mut self, records: &NewRecords, gap: &Gap) -> Result<(), StateError> {
        let origin = &records.header.origin;
        let sql = "INSERT INTO gaps (agent, epoch, stream, class, first, last, count, latest, reason, covered_by)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        let row = params![
            &*origin.agent,
            gap.epoch.unwrap_or(origin.epoch).0.cast_signed(),
            &*gap.stream,
            &**gap.class.as_ref().unwrap_or(&origin.class),
            gap.from.cast_signed(),
            gap.to.cast_signed(),
            gap.count.map(u64::cast_signed),
            gap.end.map(|end| end.as_nanos()),
            &*gap.reason,
            gap.covered_by.as_deref(),
        ];
        self.execute("note a gap", sql, row)
    }

    fn note_epoch(&mut self, records: &NewRecords, start: &EpochStart) -> Result<(), StateError> {
        let origin = &records.header.origin;
        let last = postcard::to_stdvec(&start.last).map_err(|_| self.damaged("the last numbers of an epoch"))?;
        let sql = "INSERT INTO epochs (agent, epoch, predecessor, began, last) VALUES (?1, ?2, ?3, ?4, ?5)";
        let predecessor = start.predecessor.map(|epoch| epoch.0.cast_signed());
        let row = params![&*origin.agent, origin.epoch.0.cast_signed(), predecessor, start.time.as_nanos(), last];
        self.execute("note the beginning of an epoch", sql, row)
    }
}
