//! Tails: the records of each stream that are numbered and not yet in a frame.

use std::collections::BTreeMap;
use std::time::Duration;

use rtlive_core::plan::{BatchLimit, Plan, Priority, StreamId, StreamKind, StreamPlan};
use rtlive_core::record::Record;
use rtlive_core::time::Timestamp;

use super::snapshot::SavedTail;
use crate::message::LinkHint;

/// How many records a tail may have: at about 60 bytes each in memory, and one frame of the size at which coding is dense.
const TAIL_RECORDS_MAX: usize = 4096;

/// How long a tail may wait for a link that is not there, or is behind, or for the rest of its batch: frames are then sealed for density, not
/// for promptness.
const TAIL_AGE_MAX: Duration = Duration::from_secs(60);

/// How long one waits while there is no link at all, beside [`TAIL_RECORDS_MAX`]. Windows of a minute or more wait for longer: of a hundred series in
/// windows of 15 minutes a frame an hour would waste half of each page.
const UNLINKED_AGE_MAX: Duration = Duration::from_secs(3_600);
const UNLINKED_AGE_MAX_SLOW: Duration = Duration::from_secs(12 * 3_600);
const SLOW: Duration = Duration::from_secs(60);

/// The tails of all streams.
#[derive(Debug, Default)]
pub(super) struct Tails(BTreeMap<StreamId, Tail>);

/// The records of a stream that are numbered and not yet in a frame.
#[derive(Debug)]
pub(super) struct Tail {
    /// The number of the first.
    pub(super) first: u64,
    /// The records, in the order of their numbers, without holes.
    pub(super) records: Vec<Record>,
    /// When the first of them was committed.
    pub(super) since: Timestamp,
}

impl Tails {
    /// Appends records, of which the first has the number `first`.
    pub(super) fn append(
        &mut self,
        stream: StreamId,
        first: u64,
        records: impl IntoIterator<Item = Record>,
        at: Timestamp,
    ) {
        let tail = self.0.entry(stream).or_insert_with(|| Tail { first, records: Vec::new(), since: at });
        tail.records.extend(records);
    }

    /// Where the time went back, what waits does so from now on, and not until the time comes again at which it was committed.
    pub(super) fn follow(&mut self, now: Timestamp) {
        self.0.values_mut().for_each(|tail| tail.since = tail.since.min(now));
    }

    /// The streams that have one.
    pub(super) fn streams(&self) -> Vec<StreamId> {
        self.0.keys().copied().collect()
    }

    /// The last number of each.
    pub(super) fn ends(&self) -> impl Iterator<Item = (StreamId, u64)> {
        self.0.iter().map(|(stream, tail)| (*stream, (tail.first + tail.records.len() as u64).saturating_sub(1)))
    }

    /// Takes a tail out.
    pub(super) fn take(&mut self, stream: StreamId) -> Option<Tail> {
        self.0.remove(&stream).filter(|tail| !tail.records.is_empty())
    }

    /// How many records one has.
    pub(super) fn count(&self, stream: StreamId) -> u64 {
        self.0.get(&stream).map_or(0, |tail| tail.records.len() as u64)
    }

    /// All of them, to be kept in a snapshot.
    pub(super) fn saved(&self) -> Vec<SavedTail> {
        let saved = |(stream, tail): (&StreamId, &Tail)| SavedTail {
            stream: *stream,
            first: tail.first,
            since: tail.since,
            records: tail.records.clone(),
        };
        self.0.iter().map(saved).collect()
    }

    /// Forgets them.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Since when each waits.
    pub(super) fn oldest(&self) -> impl Iterator<Item = (StreamId, Timestamp)> {
        self.0.iter().map(|(stream, tail)| (*stream, tail.since))
    }

    /// Whether any tail is due.
    pub(super) fn is_any_due(&self, plan: &Plan, now: Timestamp, hint: LinkHint) -> bool {
        self.0.keys().any(|&stream| self.is_due(plan, stream, now, hint))
    }

    /// Whether a tail is to be sealed now: alerts and gaps at once; others as configured, or, without that, at once while the link
    /// carries all there is, and large where it does not.
    pub(super) fn is_due(&self, plan: &Plan, stream: StreamId, now: Timestamp, hint: LinkHint) -> bool {
        let (Some(stream), Some(tail)) = (plan.streams.get(stream.index()), self.0.get(&stream)) else { return false };
        if stream.priority == Priority::Alert || tail.records.len() >= TAIL_RECORDS_MAX {
            return true;
        }
        let age = now.since(tail.since);
        match stream.batch {
            BatchLimit::Auto if hint.connected => !hint.congested || age >= TAIL_AGE_MAX,
            BatchLimit::Auto => age >= span(stream),
            BatchLimit::Time(limit) => age >= limit,
            // What is less than a batch goes too once it is old, so that the last records of a source that falls silent arrive.
            BatchLimit::Count(limit) => tail.records.len() >= limit as usize || age >= TAIL_AGE_MAX,
        }
    }
}

/// Frames of a stream end with spans of event time that are this long: what is finer can then go span by span where something coarser tells of it.
pub(super) fn span(stream: &StreamPlan) -> Duration {
    match &stream.kind {
        StreamKind::Window(window) if window.kind.step() >= SLOW => UNLINKED_AGE_MAX_SLOW,
        _ => UNLINKED_AGE_MAX,
    }
}

/// Whether a tail may be kept in snapshots rather than be sealed: aggregates that come seldom.
pub(super) fn may_outlast_a_snapshot(plan: &Plan, stream: StreamId) -> bool {
    let stream = plan.streams.get(stream.index());
    stream.is_some_and(|stream| matches!(stream.kind, StreamKind::Window(_)) && stream.batch == BatchLimit::Auto)
}
