//! What the link has carried, as nearly as can be told without the system's own counts.
//!
//! Each message is charged with an acknowledgement of TCP for the broker's answer. Where more goes to the broker within the time for which TCP holds
//! its acknowledgements back, that brings it along, and it is not carried by itself.

use std::time::Duration;

use super::wire::{Cost, SEGMENT_OVERHEAD_BYTES};

/// How long Linux holds an acknowledgement back (`TCP_DELACK_MIN`); the most that RFC 9293 allows (section 3.8.6.3) is half a second.
const HELD_BACK: Duration = Duration::from_millis(40);

/// Counts from the start of the program on.
#[derive(Debug, Default)]
pub(super) struct Meter {
    carried: Cost,
    /// Until when an acknowledgement waits for what brings it along.
    held_back_until: Option<Duration>,
}

impl Meter {
    /// Something goes.
    pub(super) fn send(&mut self, cost: Cost, now: Duration) {
        self.carried += cost;
        if self.held_back_until.take().is_some_and(|until| now < until) {
            self.spare();
        }
    }

    /// So much was not carried after all.
    pub(super) fn refund(&mut self, cost: Cost) {
        self.carried = self.carried.less(cost);
    }

    /// The broker answers a message.
    pub(super) fn hear(&mut self, now: Duration) {
        match self.held_back_until {
            // One acknowledgement is for both.
            Some(until) if now < until => self.spare(),
            _ => self.held_back_until = Some(now + HELD_BACK),
        }
    }

    /// One acknowledgement of TCP is not carried by itself.
    fn spare(&mut self) {
        self.carried.up = self.carried.up.saturating_sub(SEGMENT_OVERHEAD_BYTES);
    }

    /// All of it.
    pub(super) fn carried(&self) -> Cost {
        self.carried
    }
}
