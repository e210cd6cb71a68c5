//! What the sender takes from the store, and when it asks.

use super::{BYTES_MAX, FRAMES_MAX, Sender};
use crate::plan::Priority;
use crate::uplink::{Action, Lane, Now, Wanted};

/// Whether the store has frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Supply {
    /// It may; worth asking.
    Possible,
    /// It was asked. `more` notes that frames came since.
    Asked { more: bool },
    /// It has none that may be sent.
    Empty,
}

impl Supply {
    /// The store answered whoever asked.
    pub(super) fn answer(&mut self, has_one: bool) {
        if let Self::Asked { more } = *self {
            *self = if has_one || more { Self::Possible } else { Self::Empty };
        }
    }

    /// There may be frames that were not there before.
    pub(super) fn renew(&mut self) {
        *self = if let Self::Asked { .. } = self { Self::Asked { more: true } } else { Self::Possible };
    }

    /// It is worth asking again.
    pub(super) fn retry(&mut self) {
        if *self == Self::Empty {
            *self = Self::Possible;
        }
    }
}

impl Sender {
    /// Whatever the store said, or is about to say, there may be more.
    pub(super) fn ask_again(&mut self) {
        self.supply.renew();
        self.urgent.renew();
    }

    /// What the store said before it had the newest word does not count any more.
    pub(super) fn retry_supply(&mut self) {
        self.supply.retry();
        self.urgent.retry();
    }

    /// Asks the store for a frame: for any, or for one that goes before what was taken.
    pub(super) fn take(&mut self, now: Now, before: Option<(Priority, Lane)>) -> Action {
        let (except, backlog_first) = (self.refusals.held(now.steady), self.turns(now));
        self.asked = Wanted { except, before, backlog_first };
        Action::Take(self.asked.clone())
    }

    /// The store gave this out, or nothing: where it was the backlog's turn before that, it has nothing to send.
    pub(super) fn settle_turns(&mut self, offered: Option<(Priority, Lane)>) {
        for priority in [Priority::Alert, Priority::Live, Priority::Bulk] {
            let is_empty =
                offered.is_none_or(|offered| (priority, Lane::Live) <= offered && offered != (priority, Lane::Backlog));
            let was_asked = self.asked.backlog_first.has(priority) && self.asked.takes(priority, Lane::Backlog);
            if was_asked && is_empty && !self.flight.has_unsent(priority, Lane::Backlog) {
                self.credit.settle(priority);
            }
        }
    }

    /// Whether to take another frame: as much as the link takes, and one that is ready when the next acknowledgement comes. What is still in the store
    /// may yet be overtaken.
    pub(super) fn has_room(&self) -> bool {
        let window = self.flight.estimate.window_bytes() as usize;
        let wants = self.flight.is_all_sent() || self.flight.bytes() < window;
        wants && !self.is_shift_over() && self.flight.frames() < FRAMES_MAX && self.flight.bytes() < BYTES_MAX
    }
}
