//! What the coarser levels of ladders have told: whether the detail of a span may go, because another stream tells the same story.
//!
//! **What holds:** of each series that a level told of, every window that lies within its span is emitted, and is stored or was acknowledged. Its
//! first window is not believed, since its beginning may be missing; what a level loses, it has not told; after damage nothing is told. An early or
//! deleted result tells nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use rtlive_core::frame;
use rtlive_core::plan::{Plan, StreamId, StreamPlan};
use rtlive_core::reading::{Quality, SeriesId};
use rtlive_core::record::{Emitted, Record};
use rtlive_core::time::Timestamp;
use serde::{Deserialize, Serialize};

/// By stream and series: from when to when all is told; the series by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Told(BTreeMap<Arc<str>, Vec<Option<(Timestamp, Timestamp)>>>);

/// Up to when a level has lost records; all that it told where nobody knows.
pub(super) type Lost = (Arc<str>, Timestamp);

impl Told {
    /// A record was emitted.
    pub(super) fn emit(&mut self, plan: &Plan, Emitted { stream, record }: &Emitted) {
        let Record::Aggregate(aggregate) = record else { return };
        if !plan.ladders.iter().any(|ladder| ladder.levels.iter().skip(1).any(|level| level == stream)) {
            return;
        }
        let Some(stream) = plan.streams.get(stream.index()) else { return };
        if aggregate.is_final && !aggregate.deleted {
            let of_stream = self.0.entry(stream.name.clone()).or_default();
            let place = aggregate.series.index();
            if of_stream.len() <= place {
                of_stream.resize(place + 1, None);
            }
            if let Some(told) = of_stream.get_mut(place) {
                let (from, to) = told.unwrap_or((aggregate.end, aggregate.end));
                *told = Some((from, to.max(aggregate.end)));
            }
        }
    }

    /// A level loses records.
    pub(super) fn lose(&mut self, (stream, to): &Lost) {
        for (from, known) in self.0.get_mut(stream).into_iter().flatten().flatten() {
            *from = (*from).max(*to).min(*known);
        }
    }

    /// From one plan on another is computed: a stream that is another one begins anew.
    pub(super) fn change(&mut self, before: &Plan, after: &Plan) {
        let find = |plan: &Plan, name: &str| plan.streams.iter().find(|stream| *stream.name == *name).cloned();
        self.0.retain(|name, _| find(after, name).is_some_and(|stream| find(before, name) == Some(stream)));
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// The finest of the coarser levels that tells all that a frame does.
    pub(super) fn cover(
        &self,
        plan: &Plan,
        places: &BTreeMap<Arc<str>, usize>,
        stream: &str,
        bytes: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Option<Arc<str>> {
        let coarser: Vec<_> =
            coarser(plan, stream).filter_map(|level| Some((level, self.0.get(&level.name)?))).collect();
        let newest = coarser.iter().flat_map(|(_, told)| told.iter().flatten().map(|(_, to)| *to)).max()?;
        let bytes = bytes()?;
        let (header, _) = frame::read_header(&bytes).ok()?;
        if header.span.is_none_or(|(_, end)| end > newest) {
            return None;
        }
        let (_, contents) = frame::open(&bytes).ok()?;
        let mut spans: BTreeMap<SeriesId, (Timestamp, Timestamp)> = BTreeMap::new();
        for record in &contents.records {
            let (series, start, end) = match record {
                // What is bad is in no window.
                Record::Reading(reading) if reading.quality == Quality::Bad => continue,
                Record::Reading(reading) => (reading.series, reading.time, reading.time.saturating_add(NEXT)),
                Record::Aggregate(aggregate) => (aggregate.series, aggregate.start, aggregate.end),
                _ => return None,
            };
            let span = spans.entry(series).or_insert((start, end));
            *span = (span.0.min(start), span.1.max(end));
        }
        let is_told = |told: &[Option<(Timestamp, Timestamp)>]| {
            spans.iter().all(|(series, (start, end))| {
                let name = contents.series.get(series.index()).map(|info| &info.name);
                let place = name.and_then(|name| places.get(name));
                place
                    .and_then(|&place| told.get(place).copied().flatten())
                    .is_some_and(|(from, to)| from <= *start && *end <= to)
            })
        };
        coarser.into_iter().find(|(_, told)| is_told(told)).map(|(level, _)| level.name.clone())
    }
}

/// The next instant.
const NEXT: std::time::Duration = std::time::Duration::from_nanos(1);

/// The levels of a stream's ladder that are coarser, the finest first.
fn coarser<'a>(plan: &'a Plan, stream: &str) -> impl Iterator<Item = &'a StreamPlan> {
    let named = |id: &StreamId| plan.streams.get(id.index());
    let place = plan.ladders.iter().find_map(|ladder| {
        let levels = || ladder.levels.iter().filter_map(named);
        let place = levels().position(|level| *level.name == *stream)?;
        Some(levels().skip(place + 1))
    });
    place.into_iter().flatten()
}

/// Whether a stream is a level of a ladder that stands for others.
pub(super) fn is_coarser(plan: &Plan, stream: &str) -> bool {
    let mut levels = plan.ladders.iter().flat_map(|ladder| ladder.levels.iter().skip(1));
    levels.any(|id| plan.streams.get(id.index()).is_some_and(|level| *level.name == *stream))
}

/// The streams of which there are coarser levels: how many, with the streams that have as many finer ones.
pub(super) fn by_fineness(plan: &Plan) -> Vec<Vec<Arc<str>>> {
    let mut ranks: Vec<Vec<Arc<str>>> = Vec::new();
    for ladder in &plan.ladders {
        let finer = ladder.levels.len().saturating_sub(1);
        for (rank, level) in ladder.levels.iter().take(finer).enumerate() {
            if ranks.len() <= rank {
                ranks.push(Vec::new());
            }
            let name = plan.streams.get(level.index()).map(|stream| stream.name.clone());
            ranks.get_mut(rank).into_iter().for_each(|streams| streams.extend(name.clone()));
        }
    }
    ranks
}
