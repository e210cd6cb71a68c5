//! The slow start of the drain: a fleet that comes back from an outage does not put all its backlogs on its broker at once.
//!
//! What was sent of the backlog since the connection may double in each [`DOUBLES_EVERY`]. So whoever is back for a second has sent little, and a link of
//! 256 kbit/s is full after half a minute. What is new is not held back, nor are alerts.

use std::time::Duration;

/// What may go at once: some seconds of the slowest links, to which the start makes no difference.
const FIRST_BYTES: u64 = 8 << 10;
/// Within a minute it is thirty MiB, more than a link carries for which this would matter.
const DOUBLES_EVERY: Duration = Duration::from_secs(5);

/// How far the drain of a connection is.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlowStart {
    since: Duration,
    sent: u64,
}

impl SlowStart {
    /// The connection stands.
    pub(super) fn new(since: Duration) -> Self {
        Self { since, sent: 0 }
    }

    /// So much of the backlog is sent.
    pub(super) fn send(&mut self, bytes: u64) {
        self.sent = self.sent.saturating_add(bytes);
    }

    /// When more may be sent: between two doublings, in a straight line.
    pub(super) fn ready_at(&self) -> Duration {
        let Some(doublings) = (self.sent / FIRST_BYTES).checked_ilog2() else { return self.since };
        let reached = FIRST_BYTES << doublings;
        let part = (self.sent - reached) as f64 / reached as f64;
        self.since + DOUBLES_EVERY * doublings + DOUBLES_EVERY.mul_f64(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_doubles_in_each_step_whatever_the_messages() {
        for message in [100, 2_000, 60_000] {
            let since = Duration::from_secs(1_000);
            let mut start = SlowStart::new(since);
            let mut sent = 0;
            for second in 0..60 {
                let now = since + Duration::from_secs(second);
                while start.ready_at() <= now {
                    start.send(message);
                    sent += message;
                }
                let allowed = FIRST_BYTES as f64 * (second as f64 / DOUBLES_EVERY.as_secs_f64()).exp2();
                // A straight line is above the curve by 6 % at most; below it is less.
                let range = allowed * 0.99..=allowed * 1.07 + message as f64;
                assert!(range.contains(&(sent as f64)), "{sent} of {allowed} bytes after {second} s");
            }
        }
        // It never comes to an end that cannot be reckoned with.
        let mut start = SlowStart::new(Duration::MAX / 2);
        start.send(u64::MAX);
        assert!(start.ready_at() > Duration::MAX / 2);
    }
}
