//! Which frames are new: those that were sealed within the last minute. What was there before is backlog, as is all that a start finds.
//!
//! Ids tell of it, as frames are numbered in the order in which they are sealed; when their first record was committed may be long before.

use std::collections::VecDeque;
use std::time::Duration;

use rtlive_core::plan::Priority;
use rtlive_core::time::Timestamp;
use rtlive_core::uplink::sender::HISTORICAL_AFTER;

use super::file;
use crate::message::{FrameId, Lane};

/// How long a frame is new.
const NEW_FOR: Duration = HISTORICAL_AFTER;
/// How exactly that is known, which bounds how much is remembered.
const MARK_EVERY: Duration = Duration::from_secs(5);

/// The last id of each priority.
type Ids = [i64; 3];

/// Where new frames begin.
#[derive(Debug)]
pub(super) struct Recent {
    /// Frames up to these ids are backlog.
    old: Ids,
    /// The last ids at an instant, in order.
    marks: VecDeque<(Timestamp, Ids)>,
}

impl Recent {
    /// All up to these is backlog.
    pub(super) fn behind(ids: Ids) -> Self {
        Self { old: ids, marks: VecDeque::new() }
    }

    /// These are the last ids now.
    pub(super) fn note(&mut self, now: Timestamp, ids: Ids) {
        // A clock that was set back says nothing about what was noted before it.
        if let Some(&(_, last)) = self.marks.back().filter(|(at, _)| *at > now) {
            self.old = last;
            self.marks.clear();
        }
        while let Some((_, ids)) = self.marks.pop_front_if(|(at, _)| now.since(*at) >= NEW_FOR) {
            self.old = ids;
        }
        if self.marks.back().is_none_or(|(at, _)| now.since(*at) >= MARK_EVERY) {
            self.marks.push_back((now, ids));
        }
    }

    /// The last id of a priority that is backlog.
    pub(super) fn old(&self, priority: Priority) -> i64 {
        let place = file::PRIORITIES.iter().position(|&other| other == priority);
        place.and_then(|place| self.old.get(place)).copied().unwrap_or_default()
    }

    /// The lane of a frame.
    pub(super) fn lane(&self, id: FrameId) -> Lane {
        if id.0 <= self.old(file::priority_of(id)) { Lane::Backlog } else { Lane::Live }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_nanos(second * 1_000_000_000)
    }

    #[test]
    fn a_frame_is_new_for_a_minute_and_a_mark() {
        let mut recent = Recent::behind([7, 7, 7]);
        for second in 0..1_000 {
            recent.note(at(second), [7 + second; 3]);
            assert!(recent.marks.len() <= 13, "{} marks", recent.marks.len());
            let old = recent.old[0];
            assert!(old <= 7 + (second - 60).max(0) && old >= 7 + (second - 65).max(0), "{old} in second {second}");
        }
        // Set back by an hour: what was sealed before is backlog, and what comes is new.
        recent.note(at(0), [1_010; 3]);
        let old = recent.old[0];
        assert!((1_002..=1_006).contains(&old), "{old}");
        recent.note(at(59), [1_020; 3]);
        assert_eq!(recent.old[0], old);
    }
}
