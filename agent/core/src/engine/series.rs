//! The table of series: what goes where, worked out once when a series is declared, so that nothing is looked up per reading.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::report::Lane;
use crate::reading::{InputId, SeriesId, SeriesInfo};

/// The most series that an engine knows, over all inputs: each takes about 300 bytes before it has a window. Later ones are refused,
/// and their readings dropped as [`UNKNOWN_SERIES`].
pub const SERIES_MAX: usize = 1_000_000;

/// The reason under which readings of a series that was not declared, or belongs to another input, are dropped.
pub const UNKNOWN_SERIES: &str = "unknown_series";

/// Where the readings of a series go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    /// `None` once a reload has removed the input.
    pub(super) input: Option<InputId>,
    pub(super) source: u32,
    raw_start: u32,
    raw_end: u32,
    slots_start: u32,
    slots_end: u32,
    /// The place of its newest values, where a rule looks at it.
    pub(super) recent: Option<u32>,
    /// Its place among the series of joins, where one looks at it.
    pub(super) joined: Option<u32>,
    /// The place of what its quality checks remember, where it has some.
    pub(super) quality: Option<u32>,
}

/// All series, by [`SeriesId`].
#[derive(Debug, Default)]
pub(super) struct SeriesTable {
    pub(super) infos: Vec<SeriesInfo>,
    pub(super) routes: Vec<Route>,
    /// The lanes of all series in raw streams, one after another.
    raw: Vec<Lane>,
    names: BTreeMap<Arc<str>, SeriesId>,
}

impl Route {
    /// Its slots in the windows' table.
    #[inline]
    pub(super) const fn slots(&self) -> Range<usize> {
        self.slots_start as usize..self.slots_end as usize
    }

    /// Gives it another source and other slots.
    pub(super) fn reroute(&mut self, input: InputId, source: u32, slots: Range<usize>) {
        self.input = Some(input);
        self.source = source;
        (self.slots_start, self.slots_end) = (slots.start as u32, slots.end as u32);
    }
}

impl SeriesTable {
    pub(super) fn id(&self, name: &str) -> Option<SeriesId> {
        self.names.get(name).copied()
    }

    /// Adds a series that is not there yet.
    pub(super) fn push(
        &mut self,
        info: SeriesInfo,
        input: Option<InputId>,
        source: u32,
        raw: impl IntoIterator<Item = Lane>,
        slots: Range<usize>,
        quality: Option<u32>,
    ) -> SeriesId {
        let id = SeriesId(self.infos.len() as u32);
        let raw_start = self.raw.len() as u32;
        self.raw.extend(raw);
        self.names.insert(Arc::clone(&info.name), id);
        self.infos.push(info);
        self.routes.push(Route {
            input,
            source,
            raw_start,
            raw_end: self.raw.len() as u32,
            slots_start: slots.start as u32,
            slots_end: slots.end as u32,
            recent: None,
            joined: None,
            quality,
        });
        id
    }

    /// The lanes of a series in raw streams.
    #[inline]
    pub(super) fn raw(&self, route: &Route) -> &[Lane] {
        self.raw.get(route.raw_start as usize..route.raw_end as usize).unwrap_or_default()
    }
}
