//! Records that were not here before: what outputs get.

use rtlive_core::frame::{Contents, Header};
use rtlive_core::record::Record;

use crate::intervals::Numbers;

/// A frame of which some records are new, or all.
#[derive(Clone, Debug)]
pub struct NewRecords {
    /// What its envelope says.
    pub header: Header,
    /// Its records, the known ones too.
    pub contents: Contents,
    /// Whether it was sent as history.
    pub historical: bool,
    /// The numbers of the records that are new, in ascending order.
    pub numbers: Vec<Numbers>,
}

impl NewRecords {
    /// The new records with their numbers, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Record)> {
        self.numbers.iter().flat_map(|numbers| {
            let skipped = usize::try_from(numbers.from - self.header.first).unwrap_or(usize::MAX);
            (numbers.from..=numbers.to).zip(self.contents.records.iter().skip(skipped))
        })
    }

    /// How many records are new.
    pub fn count(&self) -> u64 {
        self.numbers.iter().map(|numbers| numbers.count()).sum()
    }
}
