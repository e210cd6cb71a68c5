//! Watermarks: the event time up to which a source is believed complete.
//!
//! Each source has its own: what an input multiplexes (a device, a topic), or the whole input. `watermark = newest event time −
//! out_of_order`; it never goes back. A window ends when `watermark ≥ end`, and takes readings until `watermark ≥ end + lateness`.
//!
//! Flink subtracts a millisecond more (`W = newest − bound − 1 ms`) and fires a window at `W ≥ end − 1 ms`, the last millisecond
//! that belongs to it; it drops at `W ≥ end − 1 ms + lateness`. The two milliseconds cancel, so that at its resolution
//! both rules divide readings alike; ours needs no resolution.

use std::sync::Arc;

use crate::time::Timestamp;

/// What shares a watermark.
#[derive(Debug)]
pub(super) struct Source {
    /// What the input multiplexes by; empty where it does not.
    pub(super) name: Arc<str>,
    pub(super) newest: Option<Timestamp>,
    /// [`Timestamp::MIN`] until there is a reading.
    pub(super) watermark: Timestamp,
    /// When readings of it last arrived.
    pub(super) heard: Option<Timestamp>,
    /// Whether it was silent for so long that it holds back no joins.
    pub(super) is_idle: bool,
    /// The watermark when windows were last looked at; no multiple of an `emit_every` lies between it and the watermark after an event.
    pub(super) settled: Timestamp,
    /// The least watermark at which a window of this source ends, closes, or is emitted early.
    pub(super) due: Timestamp,
    /// Whether it waits in the engine's list of sources that have something due.
    pub(super) is_queued: bool,
    /// Its windows' groups, as places in the table of groups.
    pub(super) groups: Vec<u32>,
}

impl Source {
    pub(super) fn new(name: Arc<str>) -> Self {
        Self {
            name,
            newest: None,
            watermark: Timestamp::MIN,
            heard: None,
            is_idle: false,
            settled: Timestamp::MIN,
            due: Timestamp::MAX,
            is_queued: false,
            groups: Vec::new(),
        }
    }

    /// Takes note of an event time; `out_of_order` in nanoseconds.
    #[inline]
    pub(super) fn observe(&mut self, time: Timestamp, out_of_order: i64) {
        if self.newest.is_none_or(|newest| time > newest) {
            self.newest = Some(time);
            let watermark = Timestamp::from_nanos(time.as_nanos().saturating_sub(out_of_order));
            // Only a longer `out_of_order` after a reload could move it back.
            self.watermark = self.watermark.max(watermark);
        }
    }

    /// Whether windows end or close now.
    #[inline]
    pub(super) fn has_due(&self) -> bool {
        self.watermark >= self.due
    }
}
