//! How much goes over the link now, for `rtlive status`.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Over how long it is told: several messages of a slow link, and short enough to show what happens now.
const OVER: Duration = Duration::from_secs(10);
/// How often the counts are noted; with [`OVER`] it bounds how many are kept.
const NOTE_EVERY: Duration = Duration::from_secs(1);

/// What went over the link, in bytes with the headers around them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Carried {
    /// Sent.
    pub(super) sent: u64,
    /// Acknowledged.
    pub(super) acknowledged: u64,
}

/// The counts at the newest instants at which they were noted, and now.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Throughput {
    notes: VecDeque<(Instant, Carried)>,
    carried: Carried,
}

impl Throughput {
    /// Counts what is sent or acknowledged now.
    pub(super) fn count(&mut self, now: Instant, more: Carried) {
        if self.notes.back().is_none_or(|(at, _)| now.saturating_duration_since(*at) >= NOTE_EVERY) {
            // The oldest is the newest of those that are old enough.
            while self.notes.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= OVER) {
                self.notes.pop_front();
            }
            self.notes.push_back((now, self.carried));
        }
        self.carried.sent += more.sent;
        self.carried.acknowledged += more.acknowledged;
    }

    /// Bytes a second, sent and acknowledged; `None` where too little time has passed to tell.
    pub(super) fn per_second(&self, now: Instant) -> Option<[f64; 2]> {
        let is_old = |(at, _): &&(Instant, Carried)| now.saturating_duration_since(*at) >= OVER;
        let (at, before) = self.notes.iter().rev().find(is_old).or(self.notes.front())?;
        let seconds = now.saturating_duration_since(*at).as_secs_f64();
        let [sent, acknowledged] = [self.carried.sent - before.sent, self.carried.acknowledged - before.acknowledged]
            .map(|bytes| bytes as f64);
        (seconds >= NOTE_EVERY.as_secs_f64()).then(|| [sent / seconds, acknowledged / seconds])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_what_happens_within_its_span() {
        let (mut throughput, start) = (Throughput::default(), Instant::now());
        let at = |second| start + Duration::from_secs(second);
        assert_eq!(throughput.per_second(start), None);
        for second in 0..60 {
            throughput.count(at(second), Carried { sent: 300, acknowledged: 200 });
            assert!(throughput.notes.len() <= 12);
        }
        assert_eq!(throughput.per_second(at(60)), Some([300.0, 200.0]));
        // Then nothing, and at last something else.
        assert_eq!(throughput.per_second(at(80)), Some([300.0 / 21.0, 200.0 / 21.0]));
        throughput.count(at(80), Carried { sent: 50, acknowledged: 0 });
        assert_eq!(throughput.per_second(at(90)), Some([5.0, 0.0]));
    }
}
